// SPDX-License-Identifier: GPL-2.0
// media/activate.cpp - activation steps 2 to 6: see inspect.hpp, and format.md, "Order of the big
// steps". Each numbered step is durable before the next begins; a cut behind any of them leaves
// what step 1 reads as the same cache.
#include "dm-pcache/format/superblock.hpp"
#include "dm-pcache/media/inspect.hpp"

namespace pcache::media
{

using format::LogPosition;
using format::PhysicalSegment;
using format::SegmentId;
using rt::Error;

// Step 2: after a panic or kexec what was read may be nowhere but in CPU caches. Only what can be
// read now is flushed: another read may have cost its page the mapping.
void Activation::flush_relied_on(const Inspection &in) noexcept
{
    alignas(8) u8 record[format::max_slot_bytes];
    {
        const Pin pin;
        const u8 *superblock = device_.meta(format::superblock_offset);
        if (ok(persist::load(record, superblock, format::superblock_bytes)))
            persist::flush(pin, superblock, format::superblock_bytes);
        const SlotPlace *const places[] = {&cache_info_place, &extension_place, &key_tail_place,
                                           &dirty_tail_place};
        for (const SlotPlace *p : places) {
            TwoSlot slots;
            slots.load(device_, *p, record, p == &extension_place ? format::is_extension : nullptr);
            slots.flush(pin, device_);
        }
        Record r;
        if (in.has_newest_record && reader_.read(device_, in.newest_record, r) == ReadOutcome::good)
            persist::flush(pin, device_.data(in.newest_record.segment) + in.newest_record.offset,
                           in.newest_record_bytes);
        persist::fence(pin);
    }
    for (u32 i = 0; i < in.segments; i++) {
        const PhysicalSegment s = device_.physical({i});
        const Pin pin;
        const SlotPlace places[] = {segment_info_place(s), generation_place(s)};
        for (const SlotPlace &p : places) {
            TwoSlot slots;
            slots.load(device_, p, record);
            slots.flush(pin, device_);
        }
        persist::fence(pin);
        pc_yield();
    }
}

// Both slots of a segment's generation, as the log proved it. What dropping all keys raises is
// raised only when key_tail has left them.
Error Activation::settle_generation(const Inspection &in, SegmentId s) noexcept
{
    const u64 gen = in.generations[s.value] - in.emptied[s.value];
    format::GenerationRecord r;
    TwoSlot slots;
    if (slots.load(device_, generation_place(device_.physical(s)), &r) && r.gen == gen)
        return slots.complete(device_, &r);
    r = format::encode_generation(gen);
    return slots.store(device_, &r);
}

// Step 3, first half. Generations come before everything else: the keys that prove them are still
// there.
Error Activation::settle_segments(const Inspection &in) noexcept
{
    for (u32 i = 0; i < in.segments; i++) {
        RT_TRY(settle_generation(in, {i}));
        pc_yield();
    }
    for (u32 i = 0; i < in.segments; i++) {
        format::SegmentInfoRecord r;
        TwoSlot slots;
        if (slots.load(device_, segment_info_place(device_.physical({i})), &r))
            RT_TRY(slots.complete(device_, &r));
        pc_yield();
    }
    return Error::none;
}

// Step 3, the records in front of the segments.
Error Activation::settle_records(const Inspection &in) noexcept
{
    if (in.rebuild_superblock) {
        const format::SuperblockRecord r = format::encode_superblock(in.seg_num);
        pc_log(host_, PC_WARN, "the superblock is rebuilt from the extended superblock");
        RT_TRY(store_durably(device_, format::superblock_offset, &r, sizeof(r)));
    }
    TwoSlot slots;
    format::CacheInfoRecord info;
    if (slots.load(device_, cache_info_place, &info))
        RT_TRY(slots.complete(device_, &info));
    format::ExtensionRecord extension;
    if (slots.load(device_, extension_place, &extension, format::is_extension))
        RT_TRY(slots.complete(device_, &extension));
    return Error::none;
}

void Activation::load_metadata(const Inspection &in, Metadata &m) noexcept
{
    format::CacheInfoRecord info;
    format::PositionRecord position;
    format::ExtensionRecord extension;
    m.cache_info_ = in.cache_info;
    m.cache_info_crc_ = m.cache_info_slots_.load(device_, cache_info_place, &info)
                            ? info.header.crc
                            : 0; // it was good a moment ago; 0 names none
    m.key_tail_slots_.load(device_, key_tail_place, &position);
    m.dirty_tail_slots_.load(device_, dirty_tail_place, &position);
    m.key_tail_ = in.key_tail;
    m.dirty_tail_ = in.dirty_tail;

    rt::Guard g(m.extension_mutex_);
    m.extension_slots_.load(device_, extension_place, &extension, format::is_extension);
    m.extension_ = in.extension;
    m.extension_.seg_num = in.seg_num;
    if (!in.has_extension)
        pc_random(m.extension_.uuid, sizeof(m.extension_.uuid));
}

namespace
{

// Whether a tail on media is `wanted`, with our mark. Ends an update that a cut left in one slot.
bool tail_stands(Device &device, const SlotPlace &place, LogPosition wanted) noexcept
{
    format::PositionRecord r;
    TwoSlot slots;
    if (!slots.load(device, place, &r) || !format::has_mark(r) ||
        !(format::decode_position(r) == wanted))
        return false;
    return slots.whole();
}

} // namespace

// Step 3, second half. dirty_tail goes first, so that key_tail never stands behind it.
Error Activation::settle_tails(const Inspection &in, Metadata &m) noexcept
{
    if (!tail_stands(device_, dirty_tail_place, in.dirty_tail))
        m.set_dirty_tail(in.dirty_tail);
    if (!tail_stands(device_, key_tail_place, in.key_tail))
        m.set_key_tail(in.key_tail);
    if (in.all_keys_go) {
        m.set_safe_tail(in.key_tail);
        for (u32 i = 0; i < in.segments; i++) {
            if (in.emptied[i])
                m.set_generation({i}, in.generations[i]);
        }
    }
    return m.failed() ? Error::io : Error::none;
}

// Step 4. The records that share the head's page must outlive a block write of it.
Error Activation::zero_behind_head(const Inspection &in) noexcept
{
    constexpr u32 line_bytes = 64;
    u8 line[line_bytes];
    const u32 page = rt::round_down(in.head.offset, format::page_bytes);
    const u8 *data = device_.data(in.head.segment);
    for (u32 at = page; at < in.head.offset; at += line_bytes)
        RT_TRY(persist::load(line, data + at, rt::min(line_bytes, in.head.offset - at)));
    return zero_durably(device_,
                        format::segment_offset(device_.physical(in.head.segment)) +
                            format::segment_control_bytes + in.head.offset,
                        format::data_bytes - in.head.offset);
}

Error Activation::settle(const Inspection &in, u32 cache_info_flags, Metadata &m) noexcept
{
    RT_TRY(settle_segments(in)); // 3
    RT_TRY(settle_records(in));
    load_metadata(in, m);
    RT_TRY(settle_tails(in, m));
    RT_TRY(zero_behind_head(in)); // 4
    rt::Guard g(m.extension_mutex_);
    m.change_cache_info(cache_info_flags, in.ours); // 5
    return m.failed() ? Error::io : Error::none;
}

Error Activation::activate(const Inspection &in, u32 cache_info_flags, const BackingFacts &backing,
                           Metadata &metadata, Refusal &why) noexcept
{
    if (in.kind != MediaKind::cache || in.damage)
        return refuse(why, Error::invalid, "only an intact cache can be activated");
    if (!ok(reader_.allocate()))
        return refuse(why, Error::no_memory, "not enough memory to activate the cache device");
    flush_relied_on(in);
    if (const Error e = settle(in, cache_info_flags, metadata); !ok(e)) {
        pc_log(host_, PC_ERR, "activation could not store to the cache device (error %d)",
               static_cast<int>(e));
        return refuse(why, e, "a page of the cache device can be neither read nor rewritten");
    }
    metadata.begin_session(in.head, in.start_number, backing.bytes); // 6
    if (metadata.failed())
        return refuse(why, Error::io,
                      "the extended superblock of the cache device cannot be rewritten");
    return Error::none;
}

} // namespace pcache::media
