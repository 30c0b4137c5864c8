// SPDX-License-Identifier: GPL-2.0
// media/device.hpp - where things are on the mapped cache device: read-only addresses.
//
// Immutable after open() and set_chain(); may be read from anywhere without a lock.
#pragma once
#include "cxxrt/result.hpp"
#include "dm-pcache/format/geometry.hpp"
#include "dm-pcache/platform.h"

namespace pcache::media
{

class Device : rt::NonCopyable
{
public:
    Device() noexcept = default;
    ~Device();

    // Maps the five metadata pages and segments 0 .. seg_count() - 1 (as many as the device holds,
    // at most geometry.max_segments), each contiguous in the address space. Takes `media` over
    // (closes it in the destructor, and when it fails). May sleep. Error::no_space: too small.
    rt::Error open(pc_media *media) noexcept;

    u64 bytes() const noexcept { return bytes_; }
    u32 seg_count() const noexcept { return seg_count_; } // that fit on the device
    const pc_media *media() const noexcept { return media_; }
    pc_media *media() noexcept { return media_; }

    // Address of a byte below first_segment_offset.
    const u8 *meta(u64 offset) const noexcept { return meta_ + offset; }
    // First byte of a segment, its control pages included.
    const u8 *segment(format::PhysicalSegment s) const noexcept
    {
        return linear_ ? linear_ + u64{s.value} * format::geometry.segment_bytes : table_[s.value];
    }

    // Address of any byte of the device; metadata pages and segments do not adjoin.
    const u8 *address(u64 offset) const noexcept
    {
        if (offset < format::first_segment_offset)
            return meta(offset);
        const u64 rest = offset - format::first_segment_offset;
        return segment({static_cast<u32>(rest / format::geometry.segment_bytes)}) +
               rest % format::geometry.segment_bytes;
    }

    // The chain: logical to physical. Null: the identity (nothing is kept). Takes the table over
    // (pc_free), and frees the one before. Before anything below is used.
    void set_chain(u32 *physical, u32 count) noexcept;
    u32 chain_length() const noexcept { return chain_length_; } // number of logical segments
    format::PhysicalSegment physical(format::SegmentId s) const noexcept
    {
        return {chain_ ? chain_[s.value] : s.value};
    }
    // First byte of the data area of a logical segment.
    const u8 *data(format::SegmentId s) const noexcept
    {
        return segment(physical(s)) + format::segment_control_bytes;
    }

private:
    pc_media *media_ = nullptr;
    const u8 *meta_ = nullptr;
    const u8 *linear_ = nullptr; // when all segments lie in one stretch of addresses
    const u8 **table_ = nullptr; // else: the address of each
    u32 *chain_ = nullptr;
    u64 bytes_ = 0;
    u32 seg_count_ = 0;
    u32 chain_length_ = 0;
};

} // namespace pcache::media
