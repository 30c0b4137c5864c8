// SPDX-License-Identifier: GPL-2.0
// engine/key_copy.cpp - see key_copy.hpp.
#include "dm-pcache/engine/key_copy.hpp"
#include "dm-pcache/engine/shard.hpp"
#include "dm-pcache/engine/shard_of.hpp"
#include "dm-pcache/format/crc32c.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::engine
{

using format::sector_bytes;

// The next step of a key's sum.
struct KeyCopy::Step {
    Checksum key;
    u32 from = 0, to = 0;   // sectors of the key
    u32 at = 0;             // of the read: where to look on
    u32 place_of_first = 0; // the place's sector that sector 0 of the read would have; may wrap
    u32 end = 0;            // of the read: no piece of the key lies behind
    u32 count = 0;
    pc_piece piece[pieces_per_step];
};

void KeyCopy::begin(const Request &r) noexcept
{
    bio_ = r.bio;
    first_ = r.reservation.next_sector;
    sectors_ = r.reservation.sectors_left;
    next_ = 0;
    __builtin_memset(served_, 0, sizeof(served_));
}

u32 KeyCopy::next() noexcept
{
    while (next_ < sectors_ && (served_[next_ / 64] >> (next_ % 64) & 1))
        next_++;
    return next_;
}

void KeyCopy::set_served(u32 at, u32 sectors) noexcept
{
    for (u32 i = at; i < at + sectors; i++)
        served_[i / 64] |= u64{1} << (i % 64);
}

void KeyCopy::note(u32 at, u32 sectors) noexcept
{
    for (u32 i = at; i < at + sectors; i++)
        copied_[i / 64] |= u64{1} << (i % 64);
}

// What the index has of the key in this step, which ends earlier where the pieces are too many.
// False: the key has left the cache. Inside the step's epoch.
bool KeyCopy::gather(Step &s) noexcept
{
    Shard &shard = shards_[shard_of(first_ * sector_bytes)];
    rt::Guard g(shard.lock);
    if (!(shard.sums.find(s.key.place) == s.key))
        return false;
    const auto in_key = [&](u32 at) { return s.place_of_first + at - s.key.place.sector; };
    s.count = 0;
    for (u32 looks = 0; s.at < s.end && in_key(s.at) < s.to; looks++) {
        if (looks == pieces_per_step) {
            s.to = in_key(s.at);
            return true;
        }
        const u32 want = rt::min(s.end - s.at, s.to - in_key(s.at));
        const Run run = shard.tree.lookup(first_ + s.at, want);
        const Place here{s.key.place.segment, s.place_of_first + s.at};
        if (run.hit && run.flags == extent_flag::live && run.place == here) {
            s.piece[s.count++] = {(in_key(s.at) - s.from) * sector_bytes,
                                  run.sectors * sector_bytes, s.at * sector_bytes};
            note(s.at, run.sectors);
        }
        s.at += run.sectors;
        if (mutant(Mutant::key_summed_per_piece))
            s.end = s.at;
    }
    return true;
}

rt::Error KeyCopy::copy(u32 at, Place place) noexcept
{
    Step s;
    met_unreadable_ = false;
    {
        Shard &shard = shards_[shard_of(first_ * sector_bytes)];
        rt::Guard g(shard.lock);
        const Run run = shard.tree.lookup(first_ + at, 1);
        const bool there = run.hit && run.flags == extent_flag::live && run.place == place;
        if (!there && !mutant(Mutant::evicted_key_is_bad))
            return rt::Error::again;
        s.key = shard.sums.find(place);
    }
    // Keys of one place, which nobody writes, may bring a sum that reaches into a bad page.
    if (!s.key.covers(place, 1) || reaches_bad_page(device_, s.key))
        return rt::Error::io;
    const media::persist::SummedData data = summed(device_, s.key);
    s.at = at;
    s.place_of_first = place.sector - at;
    s.end = rt::min(sectors_, at + (s.key.sectors - (place.sector - s.key.place.sector)));
    __builtin_memset(copied_, 0, sizeof(copied_));
    u32 crc = format::crc_seed;
    for (; s.from < s.key.sectors; s.from = s.to) {
        s.to = rt::min(s.key.sectors, s.from + summed_bytes_per_read / sector_bytes);
        {
            const EpochGuard epoch;
            if (!gather(s))
                return rt::Error::again;
            const rt::Error e =
                media::persist::sum_to_bio(bio_, data.at + s.from * sector_bytes,
                                           (s.to - s.from) * sector_bytes, s.piece, s.count, crc);
            met_unreadable_ = !ok(e);
            RT_TRY(e);
        }
        pc_yield();
    }
    RT_TRY(media::persist::is_sum(data, crc));
    for (u32 i = 0; i < words; i++)
        served_[i] |= copied_[i];
    return rt::Error::none;
}

} // namespace pcache::engine
