// SPDX-License-Identifier: GPL-2.0
// media/info_pages.cpp - see info_pages.hpp.
#include "dm-pcache/media/info_pages.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::media
{

using rt::Error;

namespace
{

constexpr u64 page_of(u32 slot) noexcept
{
    return info_page + u64{slot} * format::page_bytes;
}

// Every record lies where rewrite() takes it to be.
constexpr bool all_inside() noexcept
{
    for (const InfoRecord &r : info_records) {
        if (r.place.offset < info_page || r.place.stride != format::page_bytes ||
            r.place.offset + r.place.bytes > info_page + format::page_bytes ||
            r.place.bytes > format::max_slot_bytes)
            return false;
    }
    return true;
}
static_assert(all_inside());

} // namespace

void InfoPages::load(const Device &device) noexcept
{
    for (u32 i = 0; i < info_record_count; i++) {
        Copy &c = copies_[i];
        c.slots.load(device, info_records[i].place, c.bytes, info_records[i].accept);
        if (info_records[i].single_allowed)
            c.slots.allow_single_slot();
    }
    dead_[0] = dead_[1] = disk_alone_ = false;
}

void InfoPages::keep(Info i, const void *record) noexcept
{
    __builtin_memcpy(copy(i).bytes, record, copy(i).slots.place().bytes);
}

Error InfoPages::store_sealed(Device &device, Info i, const void *record) noexcept
{
    RT_TRY(copy(i).slots.store_sealed(Slots{*this, device, i}, record));
    keep(i, record);
    return Error::none;
}

Error InfoPages::store(Device &device, Info i, void *record) noexcept
{
    RT_TRY(copy(i).slots.store(Slots{*this, device, i}, record));
    keep(i, record);
    return Error::none;
}

Error InfoPages::complete(Device &device, Info i) noexcept
{
    return copy(i).slots.complete(Slots{*this, device, i}, copy(i).bytes);
}

format::DiskState InfoPages::disk() const noexcept
{
    format::DiskRecord r;
    format::DiskState s;
    if (good(Info::disk)) {
        __builtin_memcpy(&r, newest(Info::disk), sizeof(r));
        (void)format::decode_disk_record(r, s); // load() took no other
    }
    return s;
}

Error InfoPages::store_disk(Device &device, format::DiskState &s) noexcept
{
    format::DiskRecord r;
    const bool alone_before = dead_[0] || dead_[1];
    if (alone_before && !mutant(Mutant::disk_known_by_one_slot))
        s.forget();
    if (!disk_alone_) {
        format::encode_disk_record(s, r);
        RT_TRY(store(device, Info::disk, &r));
    }
    if (whole(Info::disk) || mutant(Mutant::disk_known_by_one_slot))
        return Error::none;
    s.forget();
    if (!disk_alone_ && !alone_before) {
        format::encode_disk_record(s, r);
        RT_TRY(store(device, Info::disk, &r));
    }
    disk_alone_ = true;
    return Error::none;
}

// The other page gets what only the page of `slot` holds. `but` is being updated, and its slots
// are stored in an order of their own.
void InfoPages::secure(Device &device, Info but, u32 slot) noexcept
{
    const u32 other = 1 - slot;
    for (u32 i = 0; i < info_record_count; i++) {
        TwoSlot &s = copies_[i].slots;
        if (Info{i} == but || !s.good() || s.good(other) || dead_[other] ||
            !page_readable(device, page_of(other)))
            continue;
        if (ok(store_durably(device, s.slot_offset(other), copies_[i].bytes, s.place().bytes)))
            s.adopt(other, copies_[i].bytes);
    }
}

// A page with all its records, `which` being the one that is stored now.
Error InfoPages::rewrite(Device &device, Info which, u32 slot, const void *record) noexcept
{
    u8 *page = static_cast<u8 *>(pc_alloc(format::page_bytes, PC_MAY_SLEEP));
    if (!page)
        return Error::no_memory;
    secure(device, which, slot);
    load_what_can_be(device, page_of(slot), page);
    for (u32 i = 0; i < info_record_count; i++) {
        const TwoSlot &s = copies_[i].slots;
        const bool stored = Info{i} == which;
        if (stored || (s.good() && !mutant(Mutant::page_mates_forgotten)))
            __builtin_memcpy(page + (s.slot_offset(slot) - page_of(slot)),
                             stored ? record : copies_[i].bytes, s.place().bytes);
    }
    const Error e = persist::rewrite_page(device.media(), page_of(slot), page);
    pc_free(page);
    if (ok(e))
        device.repaired(page_of(slot));
    for (u32 i = 0; i < info_record_count; i++) {
        TwoSlot &s = copies_[i].slots;
        if (Info{i} == which || mutant(Mutant::page_mates_forgotten))
            continue;
        if (!ok(e))
            s.lose(device, slot);
        else if (s.good())
            s.adopt(slot, copies_[i].bytes);
    }
    dead_[slot] = !ok(e);
    return e;
}

Error InfoPages::store_slot(Device &device, Info i, u32 slot, const void *record) noexcept
{
    const TwoSlot &s = copy(i).slots;
    if (dead_[slot])
        return Error::io;
    if (!page_readable(device, page_of(slot)))
        return rewrite(device, i, slot, record);
    return store_durably(device, s.slot_offset(slot), record, s.place().bytes);
}

} // namespace pcache::media
