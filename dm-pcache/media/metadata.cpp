// SPDX-License-Identifier: GPL-2.0
// media/metadata.cpp - see metadata.hpp.
#include "dm-pcache/media/metadata.hpp"

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

void Metadata::set_key_tail(format::LogPosition p) noexcept
{
    if (failed())
        return;
    format::PositionRecord r = format::encode_position(p);
    note(key_tail_slots_.store(device_, &r));
    key_tail_ = p;
}

void Metadata::set_dirty_tail(format::LogPosition p) noexcept
{
    if (failed())
        return;
    format::PositionRecord r = format::encode_position(p);
    note(dirty_tail_slots_.store(device_, &r));
    dirty_tail_ = p;
}

void Metadata::set_generation(format::SegmentId s, u64 gen) noexcept
{
    if (failed())
        return;
    TwoSlot slots;
    format::GenerationRecord r;
    slots.load(device_, generation_place(device_.physical(s)), &r);
    r = format::encode_generation(gen);
    note(slots.store(device_, &r));
}

bool Metadata::change_cache_info(u32 flags, bool announce) noexcept
{
    flags |= format::cache_info_bits::init_done;
    if (failed() || flags == cache_info_.flags)
        return false;
    cache_info_.flags = flags;
    format::CacheInfoRecord r = format::encode_cache_info(cache_info_);
    cache_info_slots_.seal(&r);
    if (announce) {
        extension_.cache_info_crc = cache_info_crc_;
        extension_.coming_info_crc = r.header.crc;
        store_extension();
    }
    if (failed())
        return false;
    note(cache_info_slots_.store_sealed(device_, &r));
    cache_info_crc_ = r.header.crc;
    return !failed();
}

void Metadata::set_flags(u32 cache_info_flags) noexcept
{
    rt::Guard g(extension_mutex_);
    if (!change_cache_info(cache_info_flags, true))
        return;
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
    format::ExtensionRecord r;
    format::encode_extension(extension_, r);
    note(extension_slots_.store(device_, &r));
}

void Metadata::set_safe_tail(format::LogPosition p) noexcept
{
    rt::Guard g(extension_mutex_);
    extension_.safe_tail = p;
    store_extension();
}

void Metadata::set_link(format::SegmentId link_seg, u64 limit) noexcept
{
    rt::Guard g(extension_mutex_);
    extension_.link_seg = link_seg.value;
    extension_.limit = limit;
    store_extension();
}

void Metadata::set_clean_stop(u64 next_number, format::LogPosition head, u32 backing_crc) noexcept
{
    rt::Guard g(extension_mutex_);
    extension_.state |= format::extension_state::clean_stop;
    extension_.next_number = next_number;
    extension_.head = head;
    extension_.backing_crc = backing_crc;
    store_extension();
}

void Metadata::begin_session(format::LogPosition head, u64 start_number, u64 backing_bytes) noexcept
{
    rt::Guard g(extension_mutex_);
    format::Extension &e = extension_;
    e.state = 0;
    e.limit = format::advance(start_number, format::number_reserve);
    e.next_number = 0;
    e.head = {};
    e.backing_crc = 0;
    e.link_seg = head.segment.value;
    e.safe_tail = key_tail_;
    e.backing_bytes = backing_bytes;
    e.cache_info_crc = cache_info_crc_;
    e.coming_info_crc = 0;
    store_extension();
}

} // namespace pcache::media
