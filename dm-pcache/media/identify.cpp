// SPDX-License-Identifier: GPL-2.0
// media/identify.cpp - see identify.hpp.
#include "dm-pcache/media/identify.hpp"
#include "dm-pcache/format/superblock.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::media
{

using format::CacheInfoState;
using format::ExtensionState;
using format::SuperblockState;
using rt::Error;

namespace
{

constexpr u64 blank_bytes = 128u << 10; // what must be zero for a device to be blank
constexpr u32 piece_bytes = 512;

// Of the extended superblock, or of the disk record.
bool in_slot_of_ours(u64 offset) noexcept
{
    static constexpr SlotPlace places[] = {extension_place, disk_record_place};
    for (const SlotPlace &p : places) {
        for (u64 slot = 0; slot < 2; slot++) {
            const u64 begin = p.offset + slot * p.stride;
            if (offset >= begin && offset < begin + p.bytes)
                return true;
        }
    }
    return false;
}

// Whether [from, to) is readable and zero but for the bytes of those slots. Both are multiples of
// piece_bytes.
bool zero_but_for_ours(const Device &device, u64 from, u64 to) noexcept
{
    static_assert(format::segment_control_bytes % piece_bytes == 0 &&
                  format::geometry.segment_bytes % piece_bytes == 0);
    u8 piece[piece_bytes];
    for (u64 at = from; at < to; at += piece_bytes) {
        if (!ok(device.load(piece, at, piece_bytes)))
            return false;
        for (u32 i = 0; i < piece_bytes; i++) {
            if (piece[i] && !in_slot_of_ours(at + i))
                return false;
        }
    }
    return true;
}

// An interrupted format of mainline's: superblock written, nothing else yet.
bool mainline_format_interrupted(const Device &device, RecordReader &reader) noexcept
{
    if (!zero_but_for_ours(device, format::cache_info_offset, format::first_segment_offset))
        return false;
    Record r;
    return reader.read(device, format::segment_offset({0}) + format::segment_control_bytes, 0, r) ==
           ReadOutcome::none;
}

Error read_extension(const Device &device, Identity &out, Refusal &why) noexcept
{
    format::ExtensionRecord r;
    TwoSlot slots;
    out.has_extension = slots.load(device, extension_place, &r, format::is_extension);
    if (!out.has_extension)
        return Error::none;
    switch (format::decode_extension(r, out.extension)) {
    case ExtensionState::good:
        return Error::none;
    case ExtensionState::newer:
        out.has_extension = false;
        out.newer_extension = true;
        return Error::none;
    case ExtensionState::impossible:
        break;
    }
    return refuse(why, Error::io,
                  "cache device is damaged: its extended superblock holds impossible numbers");
}

// accept_loss, cut behind its step 4: the settings of the cache that was given up are still there.
void take_former_settings(const Device &device, Identity &out) noexcept
{
    format::CacheInfoRecord r;
    TwoSlot slots;
    out.former_settings = slots.load(device, cache_info_place, &r) &&
                          format::decode_cache_info(r, out.extension.seg_num, out.cache_info) ==
                              CacheInfoState::good &&
                          !mutant(Mutant::settings_forgotten);
}

Error identify_without_superblock(const Device &device, Identity &out, Refusal &why) noexcept
{
    if (out.has_extension && out.extension.formatting()) {
        out.formattable = true;
        take_former_settings(device, out);
        return Error::none;
    }
    if (out.has_extension)
        return refuse(
            why, Error::exists,
            "cache device has lost its superblock, but holds a cache: to give it up, zero "
            "its first 128 KiB");
    if (!mutant(Mutant::blank_not_checked) && !zero_but_for_ours(device, 0, blank_bytes))
        return refuse(why, Error::exists,
                      "cache device is not blank: to use it, zero its first 128 KiB");
    out.formattable = true;
    return Error::none;
}

// Without a good superblock nothing can be served that a newer driver's extended superblock
// describes.
Error refuse_newer(Refusal &why) noexcept
{
    return refuse(why, Error::not_supported,
                  "cache device was written by a newer driver: use that one");
}

// The extension says what was in the superblock.
Error rebuild_from_extension(Identity &out, Refusal &why) noexcept
{
    out.seg_num = out.extension.seg_num;
    out.rebuild_superblock = true;
    if (out.seg_num >= format::geometry.min_segments &&
        out.seg_num <= format::geometry.max_segments)
        return Error::none;
    return refuse(why, Error::io,
                  "cache device is damaged: its extended superblock holds impossible numbers");
}

Error identify_superblock(const Device &device, Identity &out, Refusal &why) noexcept
{
    u8 bytes[format::superblock_bytes];
    if (!ok(device.load(bytes, format::superblock_offset, sizeof(bytes)))) {
        if (out.has_extension && !out.extension.formatting())
            return rebuild_from_extension(out, why);
        return refuse(why, Error::io,
                      "superblock of the cache device cannot be read and nothing stands for it: to "
                      "give the cache up, zero its first 128 KiB");
    }
    const format::Superblock s = format::decode_superblock(bytes);
    switch (s.state) {
    case SuperblockState::good:
        out.seg_num = s.seg_num;
        return Error::none;
    case SuperblockState::no_magic:
        if (out.newer_extension)
            return refuse_newer(why);
        return identify_without_superblock(device, out, why);
    case SuperblockState::foreign:
        return refuse(why, Error::exists,
                      "cache device belongs to something else: to use it, zero its first 128 KiB");
    case SuperblockState::big_endian:
        return refuse(why, Error::not_supported,
                      "cache was made on a big-endian machine: use it there");
    case SuperblockState::newer:
        return refuse_newer(why);
    case SuperblockState::bad_size:
        return refuse(why, Error::io,
                      "cache device is damaged: its superblock names an impossible seg_num");
    case SuperblockState::bad_crc:
        break;
    }
    if (out.has_extension)
        return rebuild_from_extension(out, why);
    return refuse(why, Error::io,
                  "superblock of the cache device has a bad checksum and nothing stands for it: to "
                  "give the cache up, zero its first 128 KiB");
}

const char *cache_info_sentence(CacheInfoState s) noexcept
{
    switch (s) {
    case CacheInfoState::not_completed:
        return "cache was never completed (INIT_DONE is missing): to format it, zero its first 128 "
               "KiB";
    case CacheInfoState::bad_mode:
        return "cache device is damaged: cache_info names an unknown cache mode";
    case CacheInfoState::bad_gc:
        return "cache device is damaged: cache_info has a gc_percent above 90";
    case CacheInfoState::newer:
        return "cache_info was written by a newer driver: use that one";
    default:
        return "cache device is damaged: cache_info describes an impossible segment chain";
    }
}

// Which segment follows; Error::io: its segment_info is bad.
Error next_in_chain(const Device &device, format::PhysicalSegment s,
                    format::SegmentLink &link) noexcept
{
    format::SegmentInfoRecord r;
    TwoSlot slots;
    return slots.load(device, segment_info_place(s), &r) &&
                   format::decode_segment_info(r, link) == format::SegmentInfoState::good
               ? Error::none
               : Error::io;
}

// The chain begins at the one segment that no segment_info names as next. `named`: seg_num bytes,
// zeros.
const char *find_chain(const Device &device, u8 *named, Identity &out) noexcept
{
    for (u32 i = 0; i < out.seg_num; i++) {
        format::SegmentLink link;
        if (!ok(next_in_chain(device, {i}, link)))
            return "cache device is damaged: neither copy of cache_info is good, and a "
                   "segment_info of the chain is bad, too";
        if (link.has_next && link.next.value < out.seg_num)
            named[link.next.value] = 1;
        pc_yield();
    }
    u32 first = 0, begins = 0;
    for (u32 i = 0; i < out.seg_num; i++) {
        first = named[i] ? first : i;
        begins += !named[i];
    }
    if (begins != 1)
        return "cache device is damaged: neither copy of cache_info is good, and the segment_infos "
               "do not say where the chain begins";
    out.cache_info.first = {first};
    format::SegmentLink link{true, {first}};
    u32 n = 0;
    for (; link.has_next && n < out.seg_num && link.next.value < out.seg_num; n++) {
        if (!ok(next_in_chain(device, link.next, link)))
            return "cache device is damaged: neither copy of cache_info is good, and the chain "
                   "cannot be read";
        pc_yield();
    }
    out.cache_info.n_segs = n;
    return n >= format::geometry.min_segments && !link.has_next
               ? nullptr
               : "cache device is damaged: neither copy of cache_info is good, and the "
                 "segment_infos make no chain";
}

// What cache_info said, as far as others say it, too.
Error put_cache_info_together(const Device &device, Identity &out, Refusal &why) noexcept
{
    u8 *named = static_cast<u8 *>(pc_alloc(out.seg_num, PC_MAY_SLEEP));
    if (!named)
        return refuse(why, Error::no_memory, "not enough memory to read the cache device");
    out.cache_info_lost = true;
    out.cache_info.flags = format::make_cache_flags(false, true, format::CacheMode::writeback,
                                                    format::default_gc_percent);
    const char *bad = find_chain(device, named, out);
    pc_free(named);
    return bad ? refuse(why, Error::io, bad) : Error::none;
}

Error read_cache_info(const Device &device, RecordReader &reader, Identity &out,
                      Refusal &why) noexcept
{
    format::CacheInfoRecord r;
    TwoSlot slots;
    if (!slots.load(device, cache_info_place, &r)) {
        if (!out.newer_extension &&
            (!out.has_extension || out.extension.formatting() ||
             mutant(Mutant::damage_taken_for_new)) &&
            (mutant(Mutant::damage_taken_for_new) || mainline_format_interrupted(device, reader))) {
            out.formattable = true;
            return Error::none;
        }
        if (out.has_extension && !mutant(Mutant::cache_info_missed))
            return put_cache_info_together(device, out, why);
        return refuse(why, Error::io,
                      "cache device is damaged: neither copy of cache_info is good");
    }
    out.cache_info_crc = r.header.crc;
    const CacheInfoState state = format::decode_cache_info(r, out.seg_num, out.cache_info);
    if (state == CacheInfoState::good)
        return Error::none;
    return refuse(why, state == CacheInfoState::newer ? Error::not_supported : Error::io,
                  cache_info_sentence(state));
}

} // namespace

Error identify(const Device &device, pc_host *host, RecordReader &reader, Identity &out,
               Refusal &why) noexcept
{
    out = {};
    RT_TRY(read_extension(device, out, why));
    RT_TRY(identify_superblock(device, out, why));
    if (out.formattable)
        return Error::none;
    if (out.seg_num > device.seg_count()) {
        pc_log(host, PC_ERR, "cache was made with %u segments, the device holds %u", out.seg_num,
               device.seg_count());
        return refuse(why, Error::no_space,
                      "cache device is smaller than when the cache was made: attach all of it");
    }
    RT_TRY(read_cache_info(device, reader, out, why));
    if (!out.formattable && out.has_extension && out.extension.seg_num != out.seg_num) {
        pc_log(host, PC_ERR, "superblock says %u segments, extended superblock %u", out.seg_num,
               out.extension.seg_num);
        return refuse(why, Error::io,
                      "cache device is damaged: superblock and extended superblock disagree");
    }
    return Error::none;
}

Error refuse_short_table(pc_host *host, u64 table_bytes, u64 dirty_end, Refusal &why) noexcept
{
    pc_log(host, PC_ERR,
           "the table has %llu sectors, the cache holds data that is not written back up to sector "
           "%llu",
           table_bytes / format::sector_bytes, dirty_end / format::sector_bytes);
    return refuse(why, Error::invalid,
                  "the table is too short: the cache holds data beyond its end that is not written "
                  "back; load the longer table and wait until key_head equals dirty_tail");
}

} // namespace pcache::media
