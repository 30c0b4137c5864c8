// SPDX-License-Identifier: GPL-2.0
// media/two_slot.hpp - the one way in which two-slot records are read, chosen and updated.
//
// cache_info, segment_info, generation, key_tail, dirty_tail and the extended superblock all go
// through this class. Invariants:
//  - an update never touches the slot that holds the newest copy before the other slot holds the
//    new value durably; a cut at any store leaves one good copy;
//  - after an update both slots hold the same bytes, the sequence number included, so that the loss
//    of either changes nothing;
//  - a page in which a read fails is never stored to through the mapping: it is rewritten by a
//    block write, which clears the poison.
// Where that block write fails, too, the other slot serves. An update then fails, and changes
// nothing, if the slot to be updated first is such a one; unless the record allows to be updated in
// place (allow_single_slot), at the price that a cut in the middle of an update loses it.
// Not thread safe: the record's writer serialises.
#pragma once
#include "dm-pcache/format/cache_info.hpp"
#include "dm-pcache/format/extension.hpp"
#include "dm-pcache/format/position.hpp"
#include "dm-pcache/format/segment.hpp"
#include "dm-pcache/format/slot.hpp"
#include "dm-pcache/media/device.hpp"
#include "dm-pcache/media/persist.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::media
{

// Whether all of a page can be read, so that it may be stored to through the mapping.
bool page_readable(const Device &device, u64 page) noexcept;

// Stores `bytes` at an offset of the device, inside one page, durably on return. The page is
// rewritten by a block write if it cannot be read. Error::io: that failed. May sleep.
rt::Error store_durably(Device &device, u64 offset, const void *from, u32 bytes) noexcept;

// Zeros [offset, offset + bytes) of the device, durably on return; a page that cannot be read is
// rewritten, with what could still be read outside the range. May sleep.
rt::Error zero_durably(Device &device, u64 offset, u64 bytes) noexcept;

struct SlotPlace {
    u64 offset; // of slot 0 on the device
    u32 stride; // from slot 0 to slot 1
    u32 bytes;  // of the record; at most format::max_slot_bytes
};

inline constexpr SlotPlace extension_place{format::extension_offset, format::extension_stride,
                                           format::extension_bytes};
inline constexpr SlotPlace cache_info_place{format::cache_info_offset, format::page_bytes,
                                            sizeof(format::CacheInfoRecord)};
inline constexpr SlotPlace key_tail_place{format::key_tail_offset, format::position_stride,
                                          sizeof(format::PositionRecord)};
inline constexpr SlotPlace dirty_tail_place{format::dirty_tail_offset, format::position_stride,
                                            sizeof(format::PositionRecord)};
constexpr SlotPlace segment_info_place(format::PhysicalSegment s) noexcept
{
    return {format::segment_offset(s), format::segment_info_stride,
            sizeof(format::SegmentInfoRecord)};
}
constexpr SlotPlace generation_place(format::PhysicalSegment s) noexcept
{
    return {format::segment_offset(s) + format::generation_offset, format::generation_stride,
            sizeof(format::GenerationRecord)};
}

class TwoSlot
{
public:
    // Says of a slot with a good crc whether it is this kind of record at all.
    using Accept = bool (*)(const void *record);

    // Reads both slots and copies the newest good one to `newest`. False: neither is good, and
    // `newest` is untouched. Stores nothing.
    bool load(const Device &device, const SlotPlace &place, void *newest,
              Accept accept = nullptr) noexcept;

    bool good() const noexcept { return newest_ >= 0; }
    bool good(u32 slot) const noexcept { return good_[slot]; }
    // Both slots are good and hold the same bytes.
    bool whole() const noexcept { return whole_; }

    // For a record that may be lost, but not the cache with it.
    void allow_single_slot() noexcept { single_allowed_ = true; }

    // Gives the record the next sequence number and its crc. Stores nothing.
    void seal(void *record) const noexcept;
    // A record that seal() has made: first into the slot that does not hold the newest copy, then
    // into the other one, each durable before the next. Error::io: nothing was stored. When only
    // one slot could be stored, good() says which. May sleep.
    rt::Error store_sealed(Device &device, const void *record) noexcept;
    // Both steps.
    rt::Error store(Device &device, void *record) noexcept;
    // Makes both slots copies of the newest, which load() gave: ends an update that a cut left in
    // one slot, and rewrites a bad slot. Nothing to do if whole(). Error::io: the bad slot cannot
    // be rewritten. May sleep.
    rt::Error complete(Device &device, const void *newest) noexcept;

    // Somebody else has put this sealed record durably into both slots.
    void adopt(const void *record) noexcept;

    // Writes what was relied on back from the CPU caches; durable after the fence. Never sleeps.
    void flush(const Pin &pin, const Device &device) const noexcept;

private:
    u64 slot_offset(u32 slot) const noexcept
    {
        return place_.offset +
               u64{slot} * (mutant(Mutant::wrong_stride) ? place_.bytes : place_.stride);
    }

    SlotPlace place_{};
    int newest_ = -1;
    u8 seq_ = 0;
    bool good_[2] = {false, false};
    bool whole_ = false;
    bool single_allowed_ = false;
};

} // namespace pcache::media
