// SPDX-License-Identifier: GPL-2.0
// media/metadata.hpp - the live copy of all metadata that is not the log, and the only way to
// change it on media after activation.
//
// Every setter returns when the new value is durable in both slots (format.md: two-slot records;
// extended superblock: all fields, both slots, one after the other). Values are read from the DRAM
// copy. Locking: the extended superblock has a mutex of its own inside; the other records have one
// writer each (key tail and generations: GC; dirty tail: write-back; cache_info: messages) and may be
// read by that writer only, unless said otherwise. All setters may sleep.
#pragma once
#include "dm-pcache/format/cache_info.hpp"
#include "dm-pcache/format/extension.hpp"
#include "dm-pcache/format/position.hpp"
#include "dm-pcache/format/segment.hpp"
#include "dm-pcache/media/device.hpp"
#include "dm-pcache/media/persist.hpp"

namespace pcache::media
{

class Metadata : rt::NonCopyable
{
public:
    explicit Metadata(Device &d) noexcept;
    ~Metadata();

    format::LogPosition key_tail() const noexcept;
    format::LogPosition dirty_tail() const noexcept;
    // The two positions, our mark included, both slots.
    void set_key_tail(format::LogPosition p) noexcept;
    void set_dirty_tail(format::LogPosition p) noexcept;

    // Generation of a logical segment: both slots. The value is not kept here (the engine's segment
    // table has it); the slots are read for their seq.
    void set_generation(format::SegmentId s, u64 gen) noexcept;

    format::CacheInfo cache_info() const noexcept; // seq excluded
    // "A setting": extension (crc of newest and coming), cache_info, extension (new crc alone).
    // Nothing is stored when the content does not change.
    void set_flags(u32 cache_info_flags) noexcept;

    format::Extension extension() const noexcept; // a copy, consistent
    void set_safe_tail(format::LogPosition p) noexcept;
    // New log segment, step 3.
    void set_link(format::SegmentId link_seg, u64 limit) noexcept;
    // Clean stop, last step, one update.
    void set_clean_stop(u64 next_number, format::LogPosition head, u32 backing_crc) noexcept;

private:
    friend class Activation; // inspect, activate and format build it up
    // (members: the implementation's)
};

} // namespace pcache::media
