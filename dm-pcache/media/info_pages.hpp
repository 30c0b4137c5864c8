// SPDX-License-Identifier: GPL-2.0
// media/info_pages.hpp - the two-slot records that share the two pages at 0x2000 and 0x3000, one
// slot of each in either page.
//
// A block write, the only way to store to a page that cannot be read, writes all of it. So this
// class keeps the newest copy of every record of the pages in memory, and puts them all into the
// page that it rewrites. Invariants:
//  - before a page is rewritten, the other one holds a good copy of every record, if it can be
//    stored to: a cut in a block write leaves any mixture of old, new and zero 512-byte units;
//  - the two-slot object of each record knows what the block write has done to its slot;
//  - a page that can be neither read nor rewritten is left alone for all records.
// A further record of these pages is one more line of info_records. Not thread safe: one caller at
// a time for all of them.
#pragma once
#include "dm-pcache/media/two_slot.hpp"

namespace pcache::media
{

struct InfoRecord {
    SlotPlace place;
    TwoSlot::Accept accept;
    bool single_allowed; // may live in one slot, updated in place
};

enum class Info : u32 { cache_info, extension, disk };

// By Info: every record with slots in these pages.
inline constexpr InfoRecord info_records[] = {
    {cache_info_place, nullptr, false},
    {extension_place, format::is_extension, true},
    {disk_record_place, format::is_disk_record, true},
};
inline constexpr u32 info_record_count = sizeof(info_records) / sizeof(info_records[0]);
inline constexpr u64 info_page = format::cache_info_offset; // of slot 0; slot 1: the next page

class InfoPages : rt::NonCopyable
{
public:
    InfoPages() noexcept = default;

    // All of them. Stores nothing.
    void load(const Device &device) noexcept;

    // The newest copy, valid if good().
    const void *newest(Info i) const noexcept { return copy(i).bytes; }
    bool good(Info i) const noexcept { return copy(i).slots.good(); }
    bool whole(Info i) const noexcept { return copy(i).slots.whole(); }
    bool dead(u32 slot) const noexcept { return dead_[slot]; }

    // As the members of TwoSlot of these names.
    void seal(Info i, void *record) const noexcept { copy(i).slots.seal(record); }
    rt::Error store_sealed(Device &device, Info i, const void *record) noexcept;
    rt::Error store(Device &device, Info i, void *record) noexcept;
    rt::Error complete(Device &device, Info i) noexcept;

    // What the disk record says; nothing if no slot is good.
    format::DiskState disk() const noexcept;
    // Both slots of it. Where one page is dead nothing can be known: `s` is emptied, and the live
    // slot gets that, ahead of whatever the dead one may hold. Errors as of store().
    rt::Error store_disk(Device &device, format::DiskState &s) noexcept;

private:
    struct Copy {
        TwoSlot slots;
        alignas(8) u8 bytes[format::max_slot_bytes];
    };
    struct Slots { // how TwoSlot stores one of them
        InfoPages &pages;
        Device &device;
        Info which;
        rt::Error operator()(u32 slot, const void *record) const noexcept
        {
            return pages.store_slot(device, which, slot, record);
        }
    };
    Copy &copy(Info i) noexcept { return copies_[static_cast<u32>(i)]; }
    const Copy &copy(Info i) const noexcept { return copies_[static_cast<u32>(i)]; }
    void keep(Info i, const void *record) noexcept;
    rt::Error store_slot(Device &device, Info i, u32 slot, const void *record) noexcept;
    rt::Error rewrite(Device &device, Info i, u32 slot, const void *record) noexcept;
    void secure(Device &device, Info but, u32 slot) noexcept;

    Copy copies_[info_record_count];
    bool dead_[2] = {false, false};
    bool disk_alone_ = false; // the live slot is ahead of the dead one, and empty
};

} // namespace pcache::media
