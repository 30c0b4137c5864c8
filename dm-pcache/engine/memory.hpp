// SPDX-License-Identifier: GPL-2.0
// engine/memory.hpp - sizes for pc_alloc.
#pragma once
#include "cxxrt/base.hpp"

namespace pcache::engine
{

// pc_alloc aligns to 64 bytes only what is a power of two in size: what must not share cache lines
// is rounded up to one.
constexpr usize alignable(usize bytes) noexcept
{
    usize n = 64;
    while (n < bytes)
        n *= 2;
    return n;
}

} // namespace pcache::engine
