// SPDX-License-Identifier: GPL-2.0
// memory.hpp - the owners of cxxrt over the platform's memory. Nothing here locks.
#pragma once
#include "cxxrt/box.hpp"
#include "dm-pcache/platform.h"

namespace pcache
{

struct Free {
    static void free(const void *p) noexcept { pc_free(p); }
};

template <class T>
using Box = rt::Box<T, Free>;
template <class T>
using Array = rt::Array<T, Free>;

// Error::no_memory, or the owner. PC_MAY_SLEEP may sleep.
template <class T, class... A>
rt::Result<Box<T>> make_box(pc_how how, A &&...arguments) noexcept
{
    return rt::make_box<T, Free>([how](usize bytes) { return pc_alloc(bytes, how); },
                                 rt::forward<A>(arguments)...);
}

template <class T>
rt::Result<Array<T>> make_array(pc_how how, usize n) noexcept
{
    return rt::make_array<T, Free>([how](usize bytes) { return pc_alloc(bytes, how); }, n);
}

} // namespace pcache
