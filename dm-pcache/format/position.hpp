// SPDX-License-Identifier: GPL-2.0
// format/position.hpp - key_tail and dirty_tail: two-slot records that name a place in the log.
//
// Ours carry a mark in the header's reserved field, so that a newest key_tail without it tells that
// mainline's driver was here. Pure functions: no media access, no lock.
#pragma once
#include "dm-pcache/format/geometry.hpp"
#include "dm-pcache/format/slot.hpp"

namespace pcache::format
{

inline constexpr u64 key_tail_offset = cache_ctrl_offset;
inline constexpr u64 dirty_tail_offset = cache_ctrl_offset + 32;
inline constexpr u32 position_stride = 16;
inline constexpr u16 position_mark = 0x5043;

// Records are multiples of 8 bytes, and 24 bytes are always kept free for a LAST record.
inline constexpr u32 position_align = 8;
inline constexpr u32 last_record_bytes = 24;

struct PositionRecord {
    SlotHeader header;
    u32 cache_seg_id; // logical
    u32 seg_off;      // in the data area
};
static_assert(sizeof(PositionRecord) == 16);
static_assert(__builtin_offsetof(PositionRecord, cache_seg_id) == 8);
static_assert(__builtin_offsetof(PositionRecord, seg_off) == 12);

// Unsealed: seq and crc are seal_slot's. With our mark.
constexpr PositionRecord encode_position(LogPosition p) noexcept
{
    return {{0, 0, 0, position_mark}, p.segment.value, p.offset};
}

constexpr LogPosition decode_position(const PositionRecord &r) noexcept
{
    return {{r.cache_seg_id}, r.seg_off};
}

constexpr bool has_mark(const PositionRecord &r) noexcept
{
    return r.header.res == position_mark;
}

// Whether a record could begin at p in a chain of this length.
constexpr bool possible_position(LogPosition p, u32 chain_length) noexcept
{
    return p.segment.value < chain_length && p.offset % position_align == 0 &&
           p.offset <= data_bytes - last_record_bytes;
}

} // namespace pcache::format
