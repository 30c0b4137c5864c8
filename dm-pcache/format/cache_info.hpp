// SPDX-License-Identifier: GPL-2.0
// format/cache_info.hpp - where the segment chain begins, and the settings kept on media.
//
// A two-slot record. The mode bits say nothing about the log: recovery is the same in every mode.
// Pure functions on byte buffers: no media access, no lock.
#pragma once
#include "dm-pcache/format/geometry.hpp"
#include "dm-pcache/format/slot.hpp"

namespace pcache::format
{

enum class CacheMode : u32 { writeback = 0, writethrough = 1, writearound = 2, writeonly = 3 };

inline constexpr u32 max_gc_percent = 90;
inline constexpr u32 default_gc_percent = 70;

namespace cache_info_bits
{
inline constexpr u32 data_crc = 1u << 0;
inline constexpr u32 init_done = 1u << 1;
inline constexpr u32 mode_shift = 2, mode_mask = 15;
inline constexpr u32 gc_shift = 6, gc_mask = 127;
inline constexpr u32 known = (1u << 13) - 1;
} // namespace cache_info_bits

// The content of the record, without its header.
struct CacheInfo {
    PhysicalSegment first; // of the chain
    u32 n_segs = 0;        // length of the chain
    u32 flags = 0;         // as on media

    constexpr bool data_crc() const noexcept { return flags & cache_info_bits::data_crc; }
    constexpr bool init_done() const noexcept { return flags & cache_info_bits::init_done; }
    constexpr CacheMode mode() const noexcept
    {
        return CacheMode{(flags >> cache_info_bits::mode_shift) & cache_info_bits::mode_mask};
    }
    constexpr u32 gc_percent() const noexcept
    {
        return (flags >> cache_info_bits::gc_shift) & cache_info_bits::gc_mask;
    }
    friend constexpr bool operator==(const CacheInfo &, const CacheInfo &) = default;
};

// The flags word. gc_percent: 0 .. max_gc_percent.
constexpr u32 make_cache_flags(bool data_crc, bool init_done, CacheMode mode,
                               u32 gc_percent) noexcept
{
    return (data_crc ? cache_info_bits::data_crc : 0) |
           (init_done ? cache_info_bits::init_done : 0) |
           (static_cast<u32>(mode) << cache_info_bits::mode_shift) |
           (gc_percent << cache_info_bits::gc_shift);
}

struct CacheInfoRecord {
    SlotHeader header;
    u32 seg_id;
    u32 n_segs;
    u32 flags;
    u32 reserved;
};
static_assert(sizeof(CacheInfoRecord) == 24);
static_assert(__builtin_offsetof(CacheInfoRecord, seg_id) == 8);
static_assert(__builtin_offsetof(CacheInfoRecord, n_segs) == 12);
static_assert(__builtin_offsetof(CacheInfoRecord, flags) == 16);
static_assert(__builtin_offsetof(CacheInfoRecord, reserved) == 20);

// Unsealed: seq and crc are seal_slot's.
constexpr CacheInfoRecord encode_cache_info(const CacheInfo &c) noexcept
{
    return {{}, c.first.value, c.n_segs, c.flags, 0};
}

enum class CacheInfoState {
    good,
    newer,        // flags or a reserved field that this driver does not know
    bad_mode,     // above 3
    bad_gc,       // above max_gc_percent
    bad_chain,    // the chain does not fit into seg_num segments, or is too short to be a cache
    not_completed // INIT_DONE is missing
};

// Of a slot whose crc is good. seg_num: the superblock's.
constexpr CacheInfoState decode_cache_info(const CacheInfoRecord &r, u32 seg_num,
                                           CacheInfo &out) noexcept
{
    out = {{r.seg_id}, r.n_segs, r.flags};
    if ((r.flags & ~cache_info_bits::known) || r.reserved)
        return CacheInfoState::newer;
    if (!out.init_done())
        return CacheInfoState::not_completed;
    if (static_cast<u32>(out.mode()) > static_cast<u32>(CacheMode::writeonly))
        return CacheInfoState::bad_mode;
    if (out.gc_percent() > max_gc_percent)
        return CacheInfoState::bad_gc;
    if (r.seg_id >= seg_num || r.n_segs > seg_num || r.n_segs < geometry.min_segments)
        return CacheInfoState::bad_chain;
    return CacheInfoState::good;
}

} // namespace pcache::format
