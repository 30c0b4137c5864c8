// SPDX-License-Identifier: GPL-2.0
// media/disk_blocks.hpp - the first 32 blocks of the backing device: what the disk record says of
// them, and what they are (format.md, "Disk record").
//
// A block counts if it lies wholly inside `bytes`, which is what of the device the table serves.
// Only blocks that are asked for are read. Pure functions but for the reads; they sleep.
#pragma once
#include "cxxrt/result.hpp"
#include "dm-pcache/format/disk_record.hpp"
#include "dm-pcache/platform.h"

namespace pcache::media
{

// Bit i: block i lies wholly inside.
u32 disk_blocks_inside(u64 bytes) noexcept;

// Adds to `state` each block that is neither known nor unsure and can be read; `uuid` is the
// cache's. The device was FLUSHed, and nothing is in flight to it. Error::no_memory: nothing more
// is known than before.
rt::Error learn_disk(pc_backing *device, u64 bytes, const u8 (&uuid)[16],
                     format::DiskState &state) noexcept;

// Bits of the known blocks that differ from what the device holds now. A null device: none of it
// can be read. An error is the device's: blocks are
// known, and none of them could be read; or Error::no_memory.
rt::Error compare_disk(pc_backing *device, u64 bytes, const u8 (&uuid)[16],
                       const format::DiskState &state, u32 &differ) noexcept;

// The number of the lowest bit; bits is not 0.
constexpr u32 first_block(u32 bits) noexcept
{
    return static_cast<u32>(__builtin_ctz(bits));
}

// "The backing device was changed", naming the first block that differs; static text. With dirty
// data in the cache, and what to do; and for a cache that is read-only.
const char *changed_disk_sentence(u32 block) noexcept;
const char *changed_disk_read_only_sentence(u32 block) noexcept;

} // namespace pcache::media
