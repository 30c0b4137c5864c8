// SPDX-License-Identifier: GPL-2.0
// engine/recovery.cpp - the index from the log, at activation: keys in replay order, what of them
// cannot be served, and what there is no room for. Nothing is stored, nothing else runs.
#include "dm-pcache/engine/block_fit.hpp"
#include "dm-pcache/engine/front_eviction.hpp"
#include "dm-pcache/engine/parts.hpp"
#include "dm-pcache/engine/shard_of.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::engine
{

namespace
{
// Puts the keys of the log into the index, in replay order.
struct Recovery {
    const media::Device &device;
    Segments &segments;
    Shard *shards;
    NodeBudget &budget;
    SegmentId log_segment; // of the record before
    FrontEviction &front;
    BlockFit &blocks;
    u32 block; // bytes, of the backing device
    u64 dirty_bytes = 0;
    u64 ghosts = 0, lost = 0; // pages

    rt::Error key(const media::ReplayedKey &k) noexcept
    {
        follow(k.record.segment);
        front.make_room(k.record);
        Shard &s = shards[shard_of(k.offset)];
        if (!s.can_operate(1))
            s.provide_for_recovery(budget);
        const u64 sector = k.offset / format::sector_bytes;
        const u32 sectors = k.length / format::sector_bytes;
        if (k.stale) {
            if (mutant(Mutant::stale_key_counted_in))
                segments.recover_key(k.segment);
            if (!mutant(Mutant::stale_key_skipped))
                (void)s.tree.remove(sector, sectors);
            return rt::Error::none;
        }
        const Place place{k.segment.value, k.segment_offset / format::sector_bytes};
        const bool again = k.dirty && !mutant(Mutant::logged_again_forgotten) &&
                           logged_again(s, sector, sectors, place);
        s.insert_key({sector, sectors, place}, k.data_crc);
        if (again)
            mark_lost(s, {sector, sectors, place, extent_flag::lost});
        segments.recover_key(k.segment);
        if (k.dirty)
            dirty_bytes += k.length;
        if (!mutant(Mutant::bad_pages_not_marked) &&
            device.known_bad(device.data_offset(k.segment) + k.segment_offset, k.length))
            mark_bad_pages(k, s);
        if (!k.dirty && !blocks.fits(k.offset, k.length))
            blocks.ignore(sector, sectors, place);
        return rt::Error::none;
    }
    // The log goes on in this segment.
    void follow(SegmentId s) noexcept
    {
        if (!(s == log_segment))
            segments.set_log_next(log_segment, s);
        log_segment = s;
    }
    // An older key says the same of some part: what a key is logged again for is that it cannot be
    // read (relog.cpp). It is lost at once, then, or GC, when it passes the older one, would take
    // the index's entry for that one's.
    bool logged_again(const Shard &s, u64 sector, u32 sectors, Place place) noexcept
    {
        for (u32 at = 0; at < sectors;) {
            const Run run = s.tree.lookup(sector + at, sectors - at);
            if (run.hit && run.place == Place{place.segment, place.sector + at})
                return true;
            at += run.sectors;
        }
        return false;
    }
    void mark_lost(Shard &s, const Extent &e) noexcept
    {
        while (!s.tree.can_operate(1))
            s.provide_for_eviction(budget);
        s.tree.insert(e);
    }
    // What of a key lies in units known to be bad, or with data_crc all of it, since it is read as
    // a whole: lost if it is dirty. The key holds its segment all the same, and hides what is
    // older.
    void mark_bad_pages(const media::ReplayedKey &k, Shard &s) noexcept
    {
        const u64 data = device.data_offset(k.segment);
        const u32 end = k.segment_offset + k.length;
        for (u32 at = k.segment_offset, next; at < end; at = next) {
            // By blocks of the backing device: it takes no part of one.
            const u64 rest = block - (k.offset + (at - k.segment_offset)) % block;
            next = s.sums.on() ? end : static_cast<u32>(rt::min<u64>(at + rest, end));
            if (!device.known_bad(data + at, next - at))
                continue;
            while (next < end && device.known_bad(data + next, rt::min(block, end - next)))
                next = rt::min(next + block, end);
            mark_lost(s, {(k.offset + (at - k.segment_offset)) / format::sector_bytes,
                          (next - at) / format::sector_bytes,
                          {k.segment.value, at / format::sector_bytes},
                          k.dirty ? extent_flag::lost : extent_flag::ghost});
            (k.dirty ? lost : ghosts) +=
                rt::round_up(next - at, format::page_bytes) / format::page_bytes;
        }
    }
};
} // namespace

// Where a read-only cache has an index already, it has been emptied: see make_index_anew().
rt::Error Cache::recover_index(media::Activation &activation, media::Inspection &in,
                               u64 &dirty_bytes) noexcept
{
    Parts &p = *parts_;
    for (u32 i = 0; i < in.segments; i++) {
        p.segments.set_generation({i}, in.generations[i]);
        if (in.retired[i] || (i < read_only_.unusable.size() && read_only_.unusable[i]))
            p.segments.recover_bad({i});
    }
    FrontEviction front(device_, p.segments, p.shards, p.budget, in.key_tail, in.dirty_tail);
    RT_TRY(front.allocate());
    block_bytes_ = pc_backing_block(backing_);
    BlockFit blocks(p.shards, p.budget, block_bytes_);
    Recovery recovery{device_,
                      p.segments,
                      p.shards,
                      p.budget,
                      in.key_tail.segment,
                      front,
                      blocks,
                      rt::max(block_bytes_, u32{format::sector_bytes})};
    RT_TRY(activation.replay(in, recovery));
    recovery.follow(in.head.segment);
    front.make_room(in.head);
    blocks.trim();
    tell_ignored(blocks.ignored(), block_bytes_);
    if (front.keys())
        RT_TRY(pass_evicted(activation, in, front));
    if (recovery.ghosts || recovery.lost)
        pc_log(host_, recovery.lost ? PC_ERR : PC_WARN,
               "keys on pages known to be bad: %llu pages of clean data come from the backing "
               "device, %llu pages of dirty data are lost: reads of them fail until they are "
               "written anew",
               recovery.ghosts, recovery.lost);
    dirty_bytes = recovery.dirty_bytes;
    return rt::Error::none;
}

rt::Error Cache::recover(media::Activation &activation, media::Inspection &in) noexcept
{
    Parts &p = *parts_;
    u64 dirty_bytes = 0;
    RT_TRY(recover_index(activation, in, dirty_bytes));
    for (u32 i = 0; i < in.segments; i++)
        if (in.log_segments[i])
            p.segments.recover_log({i});
    p.segments.finish_recovery();
    p.log.dirty_recovered(dirty_bytes);
    return rt::Error::none;
}

// Nothing is stored by recover(), so what fails but memory is the second reading of the log.
rt::Error Cache::refuse_recovery(media::Refusal &why, rt::Error e) noexcept
{
    return media::refuse(why, e,
                         e == rt::Error::no_memory ? "out of memory" : media::unread_log_sentence);
}

// The keys that recovery had no room for: activation will move key tail behind them, then raise the
// generations of the segments that nothing holds. Of a damaged log nothing moves.
rt::Error Cache::pass_evicted(media::Activation &activation, media::Inspection &in,
                              const FrontEviction &front) noexcept
{
    Segments &segments = parts_->segments;
    pc_log(host_, PC_WARN,
           "the index may have no more memory: the oldest %llu keys of clean data are dropped",
           front.keys());
    if (in.damage)
        return rt::Error::none;
    RT_TRY(activation.pass_front(in, front.reached()));
    for (u32 i = 0; i < in.segments; i++) {
        if (!front.touched({i}) || !segments.nothing_recovered({i}))
            continue;
        const u64 raised = format::next_generation(in.generations[i]);
        in.emptied[i] = raised != in.generations[i];
        in.generations[i] = raised;
        segments.set_generation({i}, raised);
    }
    return rt::Error::none;
}

} // namespace pcache::engine
