// SPDX-License-Identifier: GPL-2.0
// format/segment.hpp - the control pages of a segment: its link in the chain, and its generation.
//
// Both are two-slot records; the slots of segment_info are a page apart, those of the generation
// share a cache line. Pure functions: no media access, no lock.
#pragma once
#include "dm-pcache/format/geometry.hpp"
#include "dm-pcache/format/slot.hpp"

namespace pcache::format
{

inline constexpr u32 segment_info_stride = page_bytes;
inline constexpr u32 generation_offset = 0x2000; // inside the segment
inline constexpr u32 generation_stride = 16;

// A segment that has reached it is not used again.
inline constexpr u64 last_generation = ~u64{0};
// Of a segment of which nothing is known, and of every segment of a new cache.
inline constexpr u64 first_generation = 1;

// g + 1, but never past the last.
constexpr u64 next_generation(u64 g) noexcept
{
    return g == last_generation ? g : g + 1;
}

namespace segment_bits
{
inline constexpr u32 has_next = 1u << 0;
inline constexpr u32 type_shift = 1, type_mask = 15;
inline constexpr u32 known = (1u << 5) - 1;
inline constexpr u32 type_cache_data = 1;
} // namespace segment_bits

struct SegmentInfoRecord {
    SlotHeader header;
    u32 flags;
    u32 next_seg; // physical
};
static_assert(sizeof(SegmentInfoRecord) == 16);
static_assert(__builtin_offsetof(SegmentInfoRecord, flags) == 8);
static_assert(__builtin_offsetof(SegmentInfoRecord, next_seg) == 12);

// The content of segment_info: whether another segment follows in the chain, and which.
struct SegmentLink {
    bool has_next = false;
    PhysicalSegment next;
};

// Unsealed: seq and crc are seal_slot's.
constexpr SegmentInfoRecord encode_segment_info(const SegmentLink &l) noexcept
{
    return {{},
            (l.has_next ? segment_bits::has_next : 0) |
                (segment_bits::type_cache_data << segment_bits::type_shift),
            l.has_next ? l.next.value : 0};
}

enum class SegmentInfoState {
    good,
    newer,   // flags that this driver does not know
    bad_type // not a segment of cache data
};

// Of a slot whose crc is good. Where `next` leads is the chain reader's question.
constexpr SegmentInfoState decode_segment_info(const SegmentInfoRecord &r,
                                               SegmentLink &out) noexcept
{
    out = {(r.flags & segment_bits::has_next) != 0, {r.next_seg}};
    if (r.flags & ~segment_bits::known)
        return SegmentInfoState::newer;
    if (((r.flags >> segment_bits::type_shift) & segment_bits::type_mask) !=
        segment_bits::type_cache_data)
        return SegmentInfoState::bad_type;
    return SegmentInfoState::good;
}

struct GenerationRecord {
    SlotHeader header;
    u64 gen;
};
static_assert(sizeof(GenerationRecord) == 16);
static_assert(__builtin_offsetof(GenerationRecord, gen) == 8);

// Unsealed: seq and crc are seal_slot's. Every value is a valid one.
constexpr GenerationRecord encode_generation(u64 gen) noexcept
{
    return {{}, gen};
}

} // namespace pcache::format
