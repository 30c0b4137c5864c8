// SPDX-License-Identifier: GPL-2.0
// selftests/sim/bytes.hpp - the bytes of a device, all zero at first, of which only pages that are
// stored to take memory: a cache device of the real geometry has half a gigabyte at least.
#pragma once
#include <cstdlib>
#include <new>
#include <vector>
#include "cxxrt/types.h"

namespace pcache::sim
{

// calloc gives zeros, and for much of them pages that are made when they are touched: a byte made
// without a value stays as it is.
template <class T>
struct ZeroPages {
    using value_type = T;
    ZeroPages() = default;
    template <class U>
    ZeroPages(const ZeroPages<U> &) noexcept
    {
    }
    T *allocate(usize n)
    {
        void *p = calloc(n, sizeof(T));
        if (!p)
            throw std::bad_alloc();
        return static_cast<T *>(p);
    }
    void deallocate(T *p, usize) noexcept { free(p); }
    template <class U>
    void construct(U *) noexcept
    {
    }
    template <class U, class... A>
    void construct(U *at, A &&...from)
    {
        ::new (static_cast<void *>(at)) U(static_cast<A &&>(from)...);
    }
    bool operator==(const ZeroPages &) const { return true; }
};

using Bytes = std::vector<u8, ZeroPages<u8>>; // Bytes(n): n zeros

} // namespace pcache::sim
