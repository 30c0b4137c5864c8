// SPDX-License-Identifier: GPL-2.0
// selftests/platform/recycled.hpp - memory of device images goes to the next image of that size.
//
// The sanitizers map and unmap each large block, and a third of the unit tests' time was page
// faults in images that live for milliseconds. Between two owners AddressSanitizer knows a block as
// freed. Any thread.
#pragma once
#include <vector>
#include "cxxrt/base.hpp"

namespace pcache::selftest
{

void *take_block(usize bytes);
void give_block(void *block, usize bytes);

// For std::vector.
template <class T>
struct Recycled {
    using value_type = T;
    Recycled() = default;
    template <class U>
    Recycled(const Recycled<U> &)
    {
    }
    T *allocate(usize n) { return static_cast<T *>(take_block(n * sizeof(T))); }
    void deallocate(T *p, usize n) { give_block(p, n * sizeof(T)); }
    friend bool operator==(const Recycled &, const Recycled &) { return true; }
};

using Image = std::vector<u8, Recycled<u8>>; // the bytes of a device

} // namespace pcache::selftest
