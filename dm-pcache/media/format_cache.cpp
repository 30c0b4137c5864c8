// SPDX-License-Identifier: GPL-2.0
// media/format_cache.cpp - makes a cache of a blank device, or gives a damaged one up: see
// inspect.hpp, and format.md, "Formatting". Until step 5 the superblock's magic is 0 and the
// extended superblock says FORMATTING, so that a cut anywhere leaves something that may be
// formatted again, and nothing else.
#include "dm-pcache/format/superblock.hpp"
#include "dm-pcache/media/inspect.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::media
{

using format::Extension;
using format::PhysicalSegment;
using rt::Error;

namespace
{

u64 random_number() noexcept
{
    u64 n = 0;
    pc_random(&n, sizeof(n));
    n &= format::number_mask;
    return n ? n : 1;
}

// What a new cache's extended superblock says while it is being made.
Extension new_extension(const Identity &id, u32 seg_num, u64 backing_bytes) noexcept
{
    Extension e;
    if (id.has_extension) { // of an earlier attempt
        __builtin_memcpy(e.uuid, id.extension.uuid, sizeof(e.uuid));
        __builtin_memcpy(e.label, id.extension.label, sizeof(e.label));
        e.limit = id.extension.limit;
    } else {
        pc_random(e.uuid, sizeof(e.uuid));
        e.limit = random_number();
    }
    e.backing_bytes = backing_bytes;
    e.seg_num = seg_num;
    e.state = format::extension_state::formatting;
    return e;
}

Error store_extension(Device &device, const Extension &e) noexcept
{
    if (!format::possible(e))
        return Error::invalid;
    format::ExtensionRecord r;
    InfoPages pages;
    pages.load(device);
    format::encode_extension(e, r);
    return pages.store(device, Info::extension, &r);
}

Error clear_superblock(Device &device) noexcept
{
    static constexpr u8 nothing[format::superblock_bytes] = {};
    return store_durably(device, format::superblock_offset, nothing, sizeof(nothing));
}

Error store_position(Device &device, const SlotPlace &place, format::LogPosition p) noexcept
{
    format::PositionRecord r;
    TwoSlot slots;
    slots.load(device, place, &r);
    r = format::encode_position(p);
    return slots.store(device, &r);
}

// A readable generation of a former life plus one, so that the keys of that life are stale.
Error store_generation(Device &device, PhysicalSegment s) noexcept
{
    format::GenerationRecord r;
    TwoSlot slots;
    const bool former =
        slots.load(device, generation_place(s), &r) && !mutant(Mutant::generations_restart);
    r = format::encode_generation(former ? format::next_generation(r.gen)
                                         : format::first_generation);
    return slots.store(device, &r);
}

Error store_link(Device &device, PhysicalSegment s, u32 seg_num) noexcept
{
    format::SegmentInfoRecord r;
    TwoSlot slots;
    slots.load(device, segment_info_place(s), &r);
    slots.allow_single_slot(); // an interrupted format begins anew
    r = format::encode_segment_info({s.value + 1 < seg_num, {s.value + 1}});
    return slots.store(device, &r);
}

} // namespace

Error Activation::store_superblock(u32 seg_num) noexcept
{
    const format::SuperblockRecord r = format::encode_superblock(seg_num);
    return store_durably(device_, format::superblock_offset, &r, sizeof(r));
}

Error Activation::format_segments() noexcept
{
    const u32 n = device_.seg_count();
    for (u32 i = 0; i < n; i++) {
        // A segment whose generation cannot be stored is retired at activation.
        if (const Error e = store_generation(device_, {i}); e != Error::io)
            RT_TRY(e);
        pc_yield();
    }
    for (u32 i = 0; i < n; i++) {
        RT_TRY(store_link(device_, {i}, n));
        pc_yield();
    }
    // The log begins here. A bad page further on: it leaves the segment with its first record.
    const u64 data = format::segment_offset({0}) + format::segment_control_bytes;
    if (mutant(Mutant::former_log_left))
        return Error::none;
    RT_TRY(zero_durably(device_, data, format::page_bytes));
    for (u32 at = format::page_bytes; at < format::data_bytes; at += format::page_bytes) {
        if (const Error e = zero_durably(device_, data + at, format::page_bytes); e != Error::io)
            RT_TRY(e);
    }
    return Error::none;
}

Error Activation::format_tails() noexcept
{
    RT_TRY(store_position(device_, key_tail_place, {}));
    return store_position(device_, dirty_tail_place, {});
}

Error Activation::format_cache_info(u32 cache_info_flags, u32 &crc) noexcept
{
    InfoPages pages;
    pages.load(device_);
    format::CacheInfoRecord r = format::encode_cache_info(
        {{0}, device_.seg_count(), cache_info_flags | format::cache_info_bits::init_done});
    pages.seal(Info::cache_info, &r);
    crc = r.header.crc;
    return pages.store_sealed(device_, Info::cache_info, &r);
}

Error Activation::begin_rescue(const Inspection &in, Refusal &why) noexcept
{
    if (mutant(Mutant::rescue_leaves_disk_record))
        return Error::none;
    format::DiskState s = in.disk;
    s.forget();
    for (u32 i = 0; i < format::disk_blocks && !mutant(Mutant::rescue_forgets_change); i++) {
        if (in.disk_differs >> i & 1)
            s.set(i, 0);
    }
    const Error e = store_disk_record(s);
    if (ok(e))
        return Error::none;
    return refuse(why, e, "a page of the cache device can be neither read nor rewritten");
}

Error Activation::give_up(const BackingFacts &backing, const Inspection &in, Refusal &why) noexcept
{
    if (in.kind != MediaKind::cache || in.newer())
        return refuse(why, Error::not_supported,
                      "cache device was written by a newer driver: use that one");
    Extension e = in.extension;
    u64 used_up_to = e.limit;
    if (!in.has_extension) {
        e = {};
        pc_random(e.uuid, sizeof(e.uuid));
        e.backing_bytes = backing.bytes;
        e.seg_num = in.seg_num;
        e.link_seg = format::no_link;
        used_up_to = in.start_number;
    }
    e.state |= format::extension_state::formatting;
    e.limit = format::advance(used_up_to, format::number_reserve);
    Error error = Error::none;
    if (in.rebuild_superblock && !mutant(Mutant::given_up_without_superblock)) {
        // Behind 3 no extended superblock stands for one that cannot be read.
        error = store_superblock(in.seg_num);
    }
    if (ok(error))
        error = store_extension(device_, e); // 3
    if (ok(error))
        error = clear_superblock(device_); // 4
    if (ok(error))
        return Error::none;
    pc_log(host_, PC_ERR, "the cache device could not be given up (error %d)",
           static_cast<int>(error));
    return refuse(why, error, "a page of the cache device can be neither read nor rewritten");
}

// Nothing is known. What accept_loss has left as unsure stays so.
Error Activation::format_disk_record(const Identity &id) noexcept
{
    InfoPages pages;
    format::DiskState s;
    pages.load(device_);
    if (id.has_extension)
        s.unsure = pages.disk().unsure;
    if (mutant(Mutant::format_leaves_disk_record))
        return Error::none;
    return pages.store_disk(device_, s);
}

Error Activation::format_steps(const Identity &id, u64 backing_bytes, u32 cache_info_flags) noexcept
{
    Extension e = new_extension(id, device_.seg_count(), backing_bytes);
    RT_TRY(store_extension(device_, e)); // 1
    RT_TRY(format_disk_record(id));
    RT_TRY(clear_superblock(device_));
    if (mutant(Mutant::superblock_too_early))
        RT_TRY(store_superblock(e.seg_num));
    RT_TRY(format_segments()); // 2
    RT_TRY(format_tails());    // 3
    u32 crc = 0;
    RT_TRY(format_cache_info(cache_info_flags, crc)); // 4
    RT_TRY(store_superblock(e.seg_num));              // 5
    e.state = 0;
    e.cache_info_crc = crc;
    return store_extension(device_, e); // 6
}

Error Activation::format(const BackingFacts &backing, u32 cache_info_flags, Refusal &why) noexcept
{
    if (!ok(reader_.allocate()))
        return refuse(why, Error::no_memory, "not enough memory to format the cache device");
    Identity id;
    RT_TRY(identify(device_, host_, reader_, id, why)); // the rule is asked where it matters
    if (!id.formattable)
        return refuse(why, Error::exists, "cache device holds a cache and is not formatted");
    if (const Error e = format_steps(id, backing.bytes, cache_info_flags); !ok(e)) {
        pc_log(host_, PC_ERR, "the cache device could not be formatted (error %d)",
               static_cast<int>(e));
        return refuse(why, e, "a page of the cache device can be neither read nor rewritten");
    }
    return Error::none;
}

} // namespace pcache::media
