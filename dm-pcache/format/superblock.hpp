// SPDX-License-Identifier: GPL-2.0
// format/superblock.hpp - the 24 bytes at 0x1000 that say "this is a cache".
//
// The superblock is little-endian; this driver runs on little-endian machines only, and says so.
// Pure functions on byte buffers: no media access, no lock.
#pragma once
#include "dm-pcache/format/crc32c.hpp"
#include "dm-pcache/format/geometry.hpp"

namespace pcache::format
{

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);

inline constexpr u64 superblock_magic = 0x65B05EFA96C596EF;
inline constexpr u32 superblock_big_endian = 1u << 0;

struct SuperblockRecord {
    u32 crc; // over bytes 4 .. 23, the padding included
    u32 flags;
    u64 magic;
    u32 seg_num;
    u32 padding;
};
static_assert(sizeof(SuperblockRecord) == 24);
static_assert(__builtin_offsetof(SuperblockRecord, flags) == 4);
static_assert(__builtin_offsetof(SuperblockRecord, magic) == 8);
static_assert(__builtin_offsetof(SuperblockRecord, seg_num) == 16);
inline constexpr u32 superblock_bytes = sizeof(SuperblockRecord);

enum class SuperblockState {
    good,
    no_magic,   // 0: blank, or a format under way
    foreign,    // another magic: belongs to somebody else
    bad_crc,    // our magic, wrong checksum
    big_endian, // written by a big-endian machine
    newer,      // flags that this driver does not know
    bad_size    // seg_num outside what the geometry allows
};

struct Superblock {
    SuperblockState state = SuperblockState::no_magic;
    u32 flags = 0;
    u32 seg_num = 0; // only when good
};

inline SuperblockRecord encode_superblock(u32 seg_num) noexcept
{
    SuperblockRecord r{0, 0, superblock_magic, seg_num, 0};
    r.crc = crc32c(crc_seed, &r.flags, sizeof(r) - 4);
    return r;
}

// `bytes`: superblock_bytes of them. Whether seg_num fits the device is the caller's question.
inline Superblock decode_superblock(const void *bytes) noexcept
{
    SuperblockRecord r;
    __builtin_memcpy(&r, bytes, sizeof(r));
    Superblock s;
    if (r.magic == 0)
        return s;
    s.flags = r.flags;
    if (r.magic != superblock_magic)
        s.state = SuperblockState::foreign;
    else if (r.crc != crc32c(crc_seed, &r.flags, sizeof(r) - 4))
        s.state = SuperblockState::bad_crc;
    else if (r.flags & superblock_big_endian)
        s.state = SuperblockState::big_endian;
    else if (r.flags)
        s.state = SuperblockState::newer;
    else if (r.seg_num < geometry.min_segments || r.seg_num > geometry.max_segments)
        s.state = SuperblockState::bad_size;
    else
        s.state = SuperblockState::good;
    if (s.state == SuperblockState::good)
        s.seg_num = r.seg_num;
    return s;
}

} // namespace pcache::format
