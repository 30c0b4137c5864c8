// SPDX-License-Identifier: GPL-2.0
// media/two_slot.cpp - see two_slot.hpp.
#include "dm-pcache/media/two_slot.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::media
{

namespace
{

constexpr u32 line_bytes = 64;

} // namespace

void load_what_can_be(const Device &device, u64 page, u8 *to) noexcept
{
    for (u32 at = 0; at < format::page_bytes; at += line_bytes) {
        if (!ok(device.load(to + at, page + at, line_bytes)))
            __builtin_memset(to + at, 0, line_bytes);
    }
}

rt::Error rewrite_around(Device &device, u64 page, u32 from, u32 bytes, const void *with) noexcept
{
    u8 *copy = static_cast<u8 *>(pc_alloc(format::page_bytes, PC_MAY_SLEEP));
    if (!copy)
        return rt::Error::no_memory;
    load_what_can_be(device, page, copy);
    if (with)
        __builtin_memcpy(copy + from, with, bytes);
    else
        __builtin_memset(copy + from, 0, bytes);
    const rt::Error e = persist::rewrite_page(device.media(), page, copy);
    pc_free(copy);
    if (ok(e))
        device.repaired(page);
    return e;
}

// Linux unmaps a whole page when poison in it is consumed, so a store anywhere in it would fault.
bool page_readable(const Device &device, u64 page) noexcept
{
    if (mutant(Mutant::bad_page_stored_to))
        return true;
    return !device.in_bad_page(page, format::page_bytes) &&
           ok(persist::probe(device.address(page), format::page_bytes));
}

bool data_readable(const Device &device, format::SegmentId s) noexcept
{
    for (u32 at = 0; at < format::data_bytes; at += format::page_bytes) {
        if (!page_readable(device, device.data_offset(s) + at))
            return false;
        pc_yield();
    }
    return true;
}

rt::Error store_durably(Device &device, u64 offset, const void *from, u32 bytes) noexcept
{
    const u64 page = rt::round_down<u64>(offset, format::page_bytes);
    if (!page_readable(device, page))
        return rewrite_around(device, page, static_cast<u32>(offset - page), bytes, from);
    device.forget(page);
    const Pin pin;
    persist::store(pin, device.address(offset), from, bytes);
    if (!mutant(Mutant::slot_without_fence))
        persist::fence(pin);
    return rt::Error::none;
}

rt::Error zero_durably(Device &device, u64 offset, u64 bytes) noexcept
{
    while (bytes) {
        const u64 page = rt::round_down<u64>(offset, format::page_bytes);
        const u32 from = static_cast<u32>(offset - page);
        const u32 n = static_cast<u32>(rt::min<u64>(bytes, format::page_bytes - from));
        if (page_readable(device, page)) {
            device.forget(page);
            const Pin pin;
            persist::zero(pin, device.address(offset), n);
            persist::fence(pin);
        } else {
            RT_TRY(rewrite_around(device, page, from, n, nullptr));
        }
        offset += n;
        bytes -= n;
        pc_yield();
    }
    return rt::Error::none;
}

bool TwoSlot::load(const Device &device, const SlotPlace &place, void *newest,
                   Accept accept) noexcept
{
    RT_ASSERT(place.bytes <= format::max_slot_bytes);
    alignas(8) u8 slot[2][format::max_slot_bytes];
    place_ = place;
    for (u32 i = 0; i < 2; i++) {
        good_[i] =
            ok(device.load(slot[i], slot_offset(i), place.bytes)) &&
            (format::slot_intact(slot[i], place.bytes) || mutant(Mutant::slot_crc_not_checked)) &&
            (!accept || accept(slot[i]));
        held_[i] = format::slot_header(slot[i]);
        dead_[i] = false;
    }
    newest_ = format::newest_slot(good_[0], format::slot_header(slot[0]).seq, good_[1],
                                  format::slot_header(slot[1]).seq);
    if (mutant(Mutant::seq_not_serial) && good_[0] && good_[1])
        newest_ = format::slot_header(slot[1]).seq > format::slot_header(slot[0]).seq;
    whole_ = good_[0] && good_[1] && __builtin_memcmp(slot[0], slot[1], place.bytes) == 0;
    if (newest_ < 0) {
        seq_ = 0;
        return false;
    }
    seq_ = format::slot_header(slot[newest_]).seq;
    __builtin_memcpy(newest, slot[newest_], place.bytes);
    return true;
}

void TwoSlot::seal(void *record) const noexcept
{
    const bool alone = (dead_[0] || dead_[1]) && !mutant(Mutant::live_slot_counts_on);
    format::seal_slot(record, place_.bytes, alone ? pinned_ : static_cast<u8>(seq_ + 1));
}

void TwoSlot::adopt(const void *record) noexcept
{
    adopt(0, record);
    adopt(1, record);
}

void TwoSlot::adopt(u32 slot, const void *record) noexcept
{
    held_[slot] = format::slot_header(record);
    good_[slot] = true;
    whole_ = good_[0] && good_[1] && !__builtin_memcmp(&held_[0], &held_[1], sizeof(held_[0]));
    newest_ = whole_ ? 0 : static_cast<int>(slot); // the rule for two equal copies
    seq_ = held_[slot].seq;
}

// Whether the block write that failed has left a slot as it was. The live one then goes to the same
// number in every life, or it would in the end be half of all numbers ahead.
bool TwoSlot::left_as_it_was(const Device &device, u32 slot) const noexcept
{
    alignas(8) u8 now[format::max_slot_bytes];
    return good_[slot] && !mutant(Mutant::dead_slot_forgotten) &&
           ok(device.load(now, slot_offset(slot), place_.bytes)) &&
           format::slot_intact(now, place_.bytes) &&
           !__builtin_memcmp(now, &held_[slot], sizeof(held_[slot]));
}

void TwoSlot::lose(const Device &device, u32 slot) noexcept
{
    if (!dead_[0] && !dead_[1])
        pinned_ = static_cast<u8>((left_as_it_was(device, slot) ? held_[slot].seq : seq_) + 2);
    dead_[slot] = true;
    good_[slot] = whole_ = false;
    newest_ = good_[1 - slot] ? static_cast<int>(1 - slot) : -1;
}

void TwoSlot::flush(const Pin &pin, const Device &device) const noexcept
{
    u8 scratch[format::max_slot_bytes];
    for (u32 i = 0; i < 2; i++) {
        // Another record of the page may have lost it since this one was loaded.
        if (good_[i] && ok(device.load(scratch, slot_offset(i), place_.bytes)))
            persist::flush(pin, device.address(slot_offset(i)), place_.bytes);
    }
}

} // namespace pcache::media
