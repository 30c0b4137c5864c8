// SPDX-License-Identifier: GPL-2.0
// media/two_slot.hpp - the one way in which two-slot records are read, chosen and updated.
//
// cache_info, segment_info, generation, key_tail, dirty_tail, the extended superblock and the disk
// record all go through this class. Invariants:
//  - an update never touches the slot that holds the newest copy before the other slot holds the
//    new value durably; a cut at any store leaves one good copy;
//  - after an update both slots hold the same bytes, the sequence number included, so that the loss
//    of either changes nothing;
//  - a page in which a read fails is never stored to through the mapping: it is rewritten by a
//    block write, which clears the poison.
// Where that block write fails, too, the slot is dead: it is left alone from then on, and the other
// one serves. An update then fails, and changes nothing, if the dead slot is to be updated first;
// unless the record allows to be updated in place (allow_single_slot), at the price that a cut in
// the middle of an update loses it. The live slot then stays at one sequence number, ahead of
// whatever the dead one may hold: what it still reads as, or
// else the last one or the one that could not be written.
// Records that share a page with others are updated through InfoPages (info_pages.hpp).
// Not thread safe: the record's writer serialises.
#pragma once
#include "dm-pcache/format/cache_info.hpp"
#include "dm-pcache/format/disk_record.hpp"
#include "dm-pcache/format/extension.hpp"
#include "dm-pcache/format/position.hpp"
#include "dm-pcache/format/segment.hpp"
#include "dm-pcache/format/slot.hpp"
#include "dm-pcache/media/device.hpp"
#include "dm-pcache/media/persist.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::media
{

// What can be read of a page; zeros for the rest.
void load_what_can_be(const Device &device, u64 page, u8 *to) noexcept;

// A page by a block write: what can still be read of it, with [from, from + bytes) replaced by
// `with` (null: zeros), and zeros for the rest. Durable on return. May sleep.
rt::Error rewrite_around(Device &device, u64 page, u32 from, u32 bytes, const void *with) noexcept;

// Whether all of a page can be read, so that it may be stored to through the mapping.
bool page_readable(const Device &device, u64 page) noexcept;
// Whether all of a segment's data area can be read. Sleeps.
bool data_readable(const Device &device, format::SegmentId s) noexcept;

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
inline constexpr SlotPlace disk_record_place{format::disk_record_offset, format::disk_record_stride,
                                             format::disk_record_bytes};
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
    const SlotPlace &place() const noexcept { return place_; }
    bool good(u32 slot) const noexcept { return good_[slot]; }
    // Both slots are good and hold the same bytes.
    bool whole() const noexcept { return whole_; }

    // For a record that may be lost, but not the cache with it.
    void allow_single_slot() noexcept { single_allowed_ = true; }

    // Gives the record the next sequence number and its crc. Stores nothing.
    void seal(void *record) const noexcept;
    // A record that seal() has made: first into the slot that does not hold the newest copy, then
    // into the other one, each durable before the next. Error::io: the first one could not be
    // stored, and the record is what it was. When only that one could be stored, good() says which.
    // May sleep.
    rt::Error store_sealed(Device &device, const void *record) noexcept
    {
        return store_sealed(MappedSlots{device, *this}, record);
    }
    // Seals and stores; the record is sealed again if one slot has to serve alone.
    rt::Error store(Device &device, void *record) noexcept
    {
        return store(MappedSlots{device, *this}, record);
    }
    // Makes both slots copies of the newest, which load() gave: ends an update that a cut left in
    // one slot, and rewrites a bad slot. Nothing to do if whole(). Error::io: the bad slot cannot
    // be rewritten. May sleep.
    rt::Error complete(Device &device, const void *newest) noexcept
    {
        return complete(MappedSlots{device, *this}, newest);
    }
    // The same for a caller that stores the slots itself: `slots(slot, record)` makes one durable.
    template <class Slots>
    rt::Error store_sealed(const Slots &slots, const void *record) noexcept;
    template <class Slots>
    rt::Error store(const Slots &slots, void *record) noexcept;
    template <class Slots>
    rt::Error complete(const Slots &slots, const void *newest) noexcept;

    // Somebody else has put this sealed record durably into both slots, or into one.
    void adopt(const void *record) noexcept;
    void adopt(u32 slot, const void *record) noexcept;
    // A slot that can be neither stored to nor rewritten.
    void lose(const Device &device, u32 slot) noexcept;
    bool dead(u32 slot) const noexcept { return dead_[slot]; }

    // Writes what was relied on back from the CPU caches; durable after the fence. Never sleeps.
    void flush(const Pin &pin, const Device &device) const noexcept;

    u64 slot_offset(u32 slot) const noexcept
    {
        return place_.offset +
               u64{slot} * (mutant(Mutant::wrong_stride) ? place_.bytes : place_.stride);
    }

private:
    // Slots that share their page with nothing that must outlive it.
    struct MappedSlots {
        Device &device;
        const TwoSlot &record;
        rt::Error operator()(u32 slot, const void *from) const noexcept
        {
            return store_durably(device, record.slot_offset(slot), from, record.place_.bytes);
        }
    };
    bool left_as_it_was(const Device &device, u32 slot) const noexcept;
    u32 first_to_store() const noexcept
    {
        const u32 first = newest_ == 0 && !mutant(Mutant::one_slot_only) ? 1 : 0;
        return mutant(Mutant::newest_slot_first) ? 1 - first : first;
    }
    template <class Slots>
    rt::Error put(const Slots &slots, u32 slot, const void *record) noexcept;

    SlotPlace place_{};
    int newest_ = -1;
    u8 seq_ = 0;    // of the newest copy
    u8 pinned_ = 0; // of all updates once a slot is dead
    bool good_[2] = {false, false};
    bool dead_[2] = {false, false};
    format::SlotHeader held_[2] = {}; // of what a good slot holds
    bool whole_ = false;
    bool single_allowed_ = false;
};

// One slot; dead if that fails.
template <class Slots>
rt::Error TwoSlot::put(const Slots &slots, u32 slot, const void *record) noexcept
{
    const rt::Error e = dead_[slot] ? rt::Error::io : slots(slot, record);
    if (e == rt::Error::io)
        lose(slots.device, slot);
    return e;
}

template <class Slots>
rt::Error TwoSlot::store_sealed(const Slots &slots, const void *record) noexcept
{
    const u32 first = first_to_store();
    if (mutant(Mutant::slots_in_one_fence))
        (void)slots(1 - first, record);
    RT_TRY(put(slots, first, record));
    adopt(first, record);
    if (!mutant(Mutant::one_slot_only) && ok(put(slots, 1 - first, record)))
        adopt(1 - first, record);
    return rt::Error::none;
}

template <class Slots>
rt::Error TwoSlot::store(const Slots &slots, void *record) noexcept
{
    seal(record);
    const u32 first = first_to_store();
    const rt::Error e = store_sealed(slots, record);
    if (ok(e) || !single_allowed_)
        return e;
    seal(record);
    RT_TRY(put(slots, 1 - first, record));
    adopt(1 - first, record);
    return rt::Error::none;
}

template <class Slots>
rt::Error TwoSlot::complete(const Slots &slots, const void *newest) noexcept
{
    if (whole_ || !good() || mutant(Mutant::bad_slot_left))
        return rt::Error::none;
    const u32 other = static_cast<u32>(1 - newest_);
    RT_TRY(put(slots, other, newest));
    adopt(other, newest);
    return rt::Error::none;
}

} // namespace pcache::media
