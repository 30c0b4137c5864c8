// SPDX-License-Identifier: GPL-2.0
// media/format_cache.cpp - makes a cache of a blank device: see inspect.hpp, and format.md,
// "Formatting". Until step 5 the superblock's magic is 0 and the extended superblock says
// FORMATTING, so that a cut anywhere leaves something that may be formatted again, and nothing
// else.
#include "dm-pcache/format/superblock.hpp"
#include "dm-pcache/media/inspect.hpp"

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
    format::ExtensionRecord r;
    TwoSlot slots;
    slots.load(device, extension_place, &r, format::is_extension);
    format::encode_extension(e, r);
    return slots.store(device, &r);
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
    const bool former = slots.load(device, generation_place(s), &r);
    r = format::encode_generation(former ? format::next_generation(r.gen)
                                         : format::first_generation);
    return slots.store(device, &r);
}

Error store_link(Device &device, PhysicalSegment s, u32 seg_num) noexcept
{
    format::SegmentInfoRecord r;
    TwoSlot slots;
    slots.load(device, segment_info_place(s), &r);
    r = format::encode_segment_info({s.value + 1 < seg_num, {s.value + 1}});
    return slots.store(device, &r);
}

} // namespace

Error Activation::format_segments() noexcept
{
    const u32 n = device_.seg_count();
    for (u32 i = 0; i < n; i++) {
        RT_TRY(store_generation(device_, {i}));
        pc_yield();
    }
    for (u32 i = 0; i < n; i++) {
        RT_TRY(store_link(device_, {i}, n));
        pc_yield();
    }
    return zero_durably(device_, format::segment_offset({0}) + format::segment_control_bytes,
                        format::data_bytes);
}

Error Activation::format_tails() noexcept
{
    RT_TRY(store_position(device_, key_tail_place, {}));
    return store_position(device_, dirty_tail_place, {});
}

Error Activation::format_cache_info(u32 cache_info_flags, u32 &crc) noexcept
{
    format::CacheInfoRecord r;
    TwoSlot slots;
    slots.load(device_, cache_info_place, &r);
    r = format::encode_cache_info(
        {{0}, device_.seg_count(), cache_info_flags | format::cache_info_bits::init_done});
    slots.seal(&r);
    crc = r.header.crc;
    return slots.store_sealed(device_, &r);
}

Error Activation::format_steps(const Identity &id, u64 backing_bytes, u32 cache_info_flags) noexcept
{
    static constexpr u8 no_superblock[format::superblock_bytes] = {};
    Extension e = new_extension(id, device_.seg_count(), backing_bytes);
    RT_TRY(store_extension(device_, e)); // 1
    RT_TRY(store_durably(device_, format::superblock_offset, no_superblock, sizeof(no_superblock)));
    RT_TRY(format_segments()); // 2
    RT_TRY(format_tails());    // 3
    u32 crc = 0;
    RT_TRY(format_cache_info(cache_info_flags, crc)); // 4
    const format::SuperblockRecord superblock = format::encode_superblock(device_.seg_count());
    RT_TRY(store_durably(device_, format::superblock_offset, &superblock, sizeof(superblock))); // 5
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
