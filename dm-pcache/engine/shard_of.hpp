// SPDX-License-Identifier: GPL-2.0
// engine/shard_of.hpp - which shard a range of the backing device belongs to.
#pragma once
#include "dm-pcache/engine/limits.hpp"

namespace pcache::engine
{

// Fibonacci hashing of the range's number: neighbours land on different shards.
constexpr u32 shard_of(u64 backing_offset) noexcept
{
    static_assert(shard_count == 64);
    const u64 range = backing_offset / format::geometry.range_bytes;
    return static_cast<u32>((range * 0x9E3779B97F4A7C15ull) >> 58);
}

} // namespace pcache::engine
