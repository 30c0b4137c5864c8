// SPDX-License-Identifier: GPL-2.0
// engine/rescue.cpp - see rescue.hpp.
#include "dm-pcache/engine/rescue.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::engine
{

using format::sector_bytes;

// The segment is cleared in front of the new cache (Cache::clear_bad_segments).
void Rescue::note_bad(format::SegmentId s) noexcept
{
    if (!mutant(Mutant::rescue_notes_nothing))
        (void)segments_.mark_bad(s);
}

rt::Error Rescue::key(const media::ReplayedKey &k) noexcept
{
    if (stop_.read())
        return rt::Error::busy;
    if (k.epoch && !mutant(Mutant::rescue_merges_epochs))
        RT_TRY(write_back_.send_batch());
    if (!k.dirty)
        return rt::Error::none;
    if (k.stale) {
        // It removes what older keys said, and its own bytes are gone.
        if (!write_back_.batch_has_room())
            RT_TRY(write_back_.send_batch());
        write_back_.drop(k.offset / sector_bytes, k.length / sector_bytes);
        give_up(k.offset, k.length);
        given_up_.keys++;
        return rt::Error::none;
    }
    if (data_crc_ && !intact(k)) {
        give_up(k.offset, k.length);
        given_up_.keys++;
        return rt::Error::none;
    }
    const u64 before = given_up_.bytes;
    RT_TRY(put_readable(k.offset, k.length, k.segment, k.segment_offset));
    if (given_up_.bytes == before)
        sent_.keys++;
    else
        given_up_.keys++;
    return rt::Error::none;
}

// Whether all of it can be read, and is what was written. Only with data_crc.
bool Rescue::intact(const media::ReplayedKey &k) noexcept
{
    u8 buffer[sector_bytes];
    const u64 data = device_.data_offset(k.segment) + k.segment_offset;
    u32 crc = format::crc_seed;
    for (u32 at = 0; at < k.length; at += sector_bytes) {
        if (!ok(device_.load(buffer, data + at, sector_bytes))) {
            note_bad(k.segment);
            return false;
        }
        crc = format::crc32c(crc, buffer, sector_bytes);
    }
    return crc == k.data_crc;
}

rt::Error Rescue::put_readable(u64 offset, u32 bytes, format::SegmentId s,
                               u32 segment_offset) noexcept
{
    u8 buffer[sector_bytes];
    const u64 data = device_.data_offset(s) + segment_offset;
    // Of the backing device: it takes no part of one.
    const u32 block = mutant(Mutant::rescue_of_part_blocks) ? sector_bytes : block_bytes_;
    const auto can_read = [&](u32 from) {
        bool all = true;
        for (u32 at = from; at < rt::min(from + block, bytes); at += sector_bytes) {
            if (ok(device_.load(buffer, data + at, sector_bytes)))
                continue;
            note_bad(s);
            all = false;
        }
        return all;
    };
    for (u32 at = 0, end = 0; at < bytes; at = end) {
        const bool readable = can_read(at);
        for (end = at + block; end < bytes; end += block) {
            if (can_read(end) != readable)
                break;
        }
        end = rt::min(end, bytes);
        if (readable)
            RT_TRY(put(offset + at, end - at, s, segment_offset + at));
        else
            give_up(offset + at, end - at);
        pc_yield();
    }
    return rt::Error::none;
}

rt::Error Rescue::extent(const Extent &e) noexcept
{
    if (stop_.read())
        return rt::Error::busy;
    if (e.flags == extent_flag::ghost)
        return rt::Error::none;
    const bool intact = e.flags != extent_flag::lost && write_back_.intact(e);
    if (!intact) {
        note_bad({e.place.segment});
        give_up(e.sector * sector_bytes, e.sectors * sector_bytes);
        return rt::Error::none;
    }
    return put_readable(e.sector * sector_bytes, e.sectors * sector_bytes, {e.place.segment},
                        e.place.sector * sector_bytes);
}

rt::Error Rescue::put(u64 offset, u32 bytes, format::SegmentId s, u32 segment_offset) noexcept
{
    if (!write_back_.batch_has_room())
        RT_TRY(write_back_.send_batch());
    write_back_.put(
        {offset / sector_bytes, bytes / sector_bytes, {s.value, segment_offset / sector_bytes}});
    sent_.bytes += bytes;
    return rt::Error::none;
}

void Rescue::give_up(u64 offset, u32 bytes) noexcept
{
    given_up_.bytes += bytes;
    if (ranges_++ < ranges_named)
        pc_log(host_, PC_WARN, "accept_loss: bytes %llu to %llu of the backing device are given up",
               offset, offset + bytes - 1);
}

} // namespace pcache::engine
