// SPDX-License-Identifier: GPL-2.0
// format/geometry.hpp - the sizes that a small world (unit tests, simulator) changes, and nothing
// else: one constexpr structure. Everything about layout is computed from it.
//
// Source of the real figures: the mainline format, version 1 (Documentation/format.md, Part 1).
#pragma once
#include "cxxrt/base.hpp"

namespace pcache::format
{

struct Geometry {
    u32 segment_bytes; // of one segment, with its 12 KiB of control pages
    u32 keys_per_kset; // at most, in one record of the log
    u32 range_bytes;   // a key never crosses a multiple of it on the backing device
    u32 min_segments;  // a smaller cache device is refused
    u32 max_segments;
};

inline constexpr Geometry mainline_geometry{16u << 20, 128, 4u << 20, 31, 1u << 20};
inline constexpr Geometry small_geometry{64u << 10, 8, 64u << 10, 8, 1u << 10};

#ifdef PCACHE_SMALL_GEOMETRY
inline constexpr Geometry geometry = small_geometry;
#else
inline constexpr Geometry geometry = mainline_geometry;
#endif

inline constexpr u32 sector_bytes = 512;
inline constexpr u32 page_bytes = 4096;
inline constexpr u64 superblock_offset = 0x1000;
inline constexpr u64 cache_info_offset = 0x2000; // two slots, a page apart
inline constexpr u64 extension_offset = 0x2800;  // two slots, a page apart
inline constexpr u64 cache_ctrl_offset = 0x4000;
inline constexpr u64 first_segment_offset = 0x5000;
inline constexpr u32 segment_control_bytes = 0x3000;
inline constexpr u32 data_bytes = geometry.segment_bytes - segment_control_bytes;

// Logical: the position of a segment in the chain; what keys, records and positions name.
struct SegmentId {
    u32 value = 0;
    friend constexpr bool operator==(SegmentId, SegmentId) = default;
};

// Physical: where a segment lies on the device. The chain maps logical to physical.
struct PhysicalSegment {
    u32 value = 0;
    friend constexpr bool operator==(PhysicalSegment, PhysicalSegment) = default;
};

// A byte of the log: a logical segment and the offset in its data area.
struct LogPosition {
    SegmentId segment;
    u32 offset = 0;
    friend constexpr bool operator==(const LogPosition &, const LogPosition &) = default;
};

// Byte offset of a segment on the device.
constexpr u64 segment_offset(PhysicalSegment s) noexcept
{
    return first_segment_offset + u64{s.value} * geometry.segment_bytes;
}

} // namespace pcache::format
