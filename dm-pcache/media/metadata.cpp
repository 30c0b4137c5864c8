// SPDX-License-Identifier: GPL-2.0
// media/metadata.cpp - see metadata.hpp.
#include "dm-pcache/media/metadata.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::media
{

namespace
{
constinit LockClass extension_class{"pcache extension"};
} // namespace

Metadata::Metadata(Device &d) noexcept : device_(d), extension_mutex_(extension_class) {}

Metadata::~Metadata() = default;

void Metadata::note(rt::Error e) noexcept
{
    if (ok(e) || failed_.xchg(1))
        return;
    pc_log(nullptr, PC_ERR, "a metadata page of the cache device cannot be rewritten (error %d)",
           static_cast<int>(e));
}

// All four slots of the tails share a page, and a line of it: what makes it readable again must
// bring back both records.
rt::Error Metadata::rewrite_tails() noexcept
{
    u8 *page = static_cast<u8 *>(pc_alloc(format::page_bytes, PC_MAY_SLEEP));
    if (!page)
        return rt::Error::no_memory;
    struct {
        TwoSlot &slots;
        SlotPlace place;
        format::LogPosition position;
    } const tails[] = {{key_tail_slots_, key_tail_place, key_tail_},
                       {dirty_tail_slots_, dirty_tail_place, dirty_tail_}};
    for (const auto &t : tails) {
        format::PositionRecord r = format::encode_position(t.position);
        t.slots.seal(&r);
        for (u32 slot = 0; slot < 2; slot++)
            __builtin_memcpy(page + (t.place.offset - format::cache_ctrl_offset) +
                                 slot * t.place.stride,
                             &r, sizeof(r));
        t.slots.adopt(&r);
    }
    const rt::Error e = persist::rewrite_page(device_.media(), format::cache_ctrl_offset, page);
    pc_free(page);
    if (ok(e))
        device_.repaired(format::cache_ctrl_offset);
    return e;
}

// key_tail_ and dirty_tail_ are as they shall be.
void Metadata::store_tail(TwoSlot &slots, format::LogPosition p) noexcept
{
    if (!page_readable(device_, format::cache_ctrl_offset)) {
        note(rewrite_tails());
        return;
    }
    format::PositionRecord r = format::encode_position(p);
    note(slots.store(device_, &r));
}

void Metadata::set_key_tail(format::LogPosition p) noexcept
{
    if (failed())
        return;
    key_tail_ = p;
    store_tail(key_tail_slots_, p);
}

void Metadata::set_dirty_tail(format::LogPosition p) noexcept
{
    if (failed())
        return;
    dirty_tail_ = p;
    store_tail(dirty_tail_slots_, p);
}

rt::Error Metadata::set_generation(format::SegmentId s, u64 gen) noexcept
{
    if (failed())
        return rt::Error::io;
    TwoSlot slots;
    format::GenerationRecord r;
    slots.load(device_, generation_place(device_.physical(s)), &r);
    r = format::encode_generation(gen);
    return slots.store(device_, &r);
}

void Metadata::change_cache_info(u32 flags, bool announce) noexcept
{
    flags |= format::cache_info_bits::init_done;
    if (failed() || flags == cache_info_.flags)
        return;
    format::CacheInfo changed = cache_info_;
    changed.flags = flags;
    format::CacheInfoRecord r = format::encode_cache_info(changed);
    info_.seal(Info::cache_info, &r);
    if (announce && !mutant(Mutant::setting_not_announced)) {
        extension_.cache_info_crc = cache_info_crc_;
        extension_.coming_info_crc = r.header.crc;
        store_extension();
    }
    if (failed())
        return;
    if (!ok(info_.store_sealed(device_, Info::cache_info, &r))) {
        pc_log(nullptr, PC_WARN,
               "a page of cache_info can be neither read nor rewritten: the setting is not kept");
        return;
    }
    cache_info_ = changed;
    cache_info_crc_ = r.header.crc;
}

void Metadata::set_flags(u32 cache_info_flags) noexcept
{
    rt::Guard g(extension_mutex_);
    if ((cache_info_flags | format::cache_info_bits::init_done) == cache_info_.flags)
        return;
    change_cache_info(cache_info_flags, true);
    extension_.cache_info_crc = cache_info_crc_;
    extension_.coming_info_crc = 0;
    store_extension();
}

format::Extension Metadata::extension() const noexcept
{
    rt::Guard g(extension_mutex_);
    return extension_;
}

void Metadata::store_extension() noexcept
{
    if (failed())
        return;
    if (!format::possible(extension_)) {
        pc_log(nullptr, PC_ERR, "an extended superblock with impossible numbers is not stored");
        note(rt::Error::invalid);
        return;
    }
    format::ExtensionRecord r;
    format::encode_extension(extension_, r);
    note(info_.store(device_, Info::extension, &r));
    if (!failed() && !info_.whole(Info::extension) && !extension_halved_) {
        extension_halved_ = true;
        pc_log(nullptr, PC_WARN,
               "one page of the extended superblock can be neither read nor rewritten: the other "
               "one serves");
    }
}

void Metadata::set_safe_tail(format::LogPosition p) noexcept
{
    rt::Guard g(extension_mutex_);
    if (!mutant(Mutant::safe_tail_behind))
        extension_.safe_tail = p;
    store_extension();
}

void Metadata::set_link(format::SegmentId link_seg, u64 limit) noexcept
{
    rt::Guard g(extension_mutex_);
    if (!mutant(Mutant::link_not_kept))
        extension_.link_seg = link_seg.value;
    if (!mutant(Mutant::limit_not_ahead))
        extension_.limit = limit;
    store_extension();
}

format::DiskState Metadata::disk() const noexcept
{
    rt::Guard g(extension_mutex_);
    return disk_;
}

void Metadata::set_disk(const format::DiskState &s) noexcept
{
    if (failed())
        return;
    rt::Guard g(extension_mutex_);
    disk_ = s;
    note(info_.store_disk(device_, disk_));
}

void Metadata::forget_disk() noexcept
{
    format::DiskState s = disk();
    if (s.empty() || mutant(Mutant::disk_not_emptied))
        return;
    s.forget();
    set_disk(s);
}

void Metadata::set_clean_stop(u64 next_number, format::LogPosition head) noexcept
{
    rt::Guard g(extension_mutex_);
    extension_.state |= format::extension_state::clean_stop;
    extension_.next_number = next_number;
    extension_.head = head;
    store_extension();
}

void Metadata::vouch_for(format::LogPosition head, u64 next_number, u64 limit,
                         u64 backing_bytes) noexcept
{
    rt::Guard g(extension_mutex_);
    format::Extension &e = extension_;
    if (mutant(Mutant::rewrite_not_vouched))
        return;
    e.state |= format::extension_state::clean_stop;
    e.limit = limit;
    e.next_number = next_number;
    e.head = head;
    e.link_seg = head.segment.value;
    e.safe_tail = key_tail_;
    if (!e.backing_bytes)
        e.backing_bytes = backing_bytes;
    e.cache_info_crc = cache_info_crc_;
    e.coming_info_crc = 0;
    store_extension();
}

void Metadata::begin_session(format::LogPosition head, u64 start_number, u64 backing_bytes) noexcept
{
    rt::Guard g(extension_mutex_);
    format::Extension &e = extension_;
    if (!mutant(Mutant::clean_stop_kept))
        e.state = 0;
    if (!mutant(Mutant::limit_not_raised))
        e.limit = format::advance(start_number, format::number_reserve);
    e.next_number = 0;
    e.head = {};
    e.former_crc = 0;
    e.link_seg = head.segment.value;
    e.safe_tail = key_tail_;
    e.backing_bytes = backing_bytes;
    e.cache_info_crc = cache_info_crc_;
    e.coming_info_crc = 0;
    store_extension();
}

} // namespace pcache::media
