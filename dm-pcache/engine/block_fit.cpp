// SPDX-License-Identifier: GPL-2.0
// engine/block_fit.cpp - see block_fit.hpp; and Cache's use of it at a resume.
#include "dm-pcache/engine/block_fit.hpp"
#include "dm-pcache/engine/parts.hpp"
#include "dm-pcache/engine/shard_of.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::engine
{

using format::sector_bytes;

void BlockFit::make_ghost(Shard &s, const Extent &e) noexcept
{
    for (;;) {
        {
            rt::Guard g(s.lock);
            if (s.tree.can_operate(1)) {
                s.tree.insert({e.sector, e.sectors, e.place, extent_flag::ghost});
                return;
            }
        }
        s.provide_for_eviction(budget_);
    }
}

void BlockFit::ignore(u64 sector, u32 sectors, Place place) noexcept
{
    if (mutant(Mutant::part_blocks_served))
        return;
    Shard &s = shards_[shard_of(sector * sector_bytes)];
    ignored_++;
    for (u32 at = 0; at < sectors;) {
        Run run;
        {
            rt::Guard g(s.lock);
            run = s.tree.lookup(sector + at, sectors - at);
        }
        const Place here{place.segment, place.sector + at};
        if (run.hit && run.flags == extent_flag::live && run.place == here)
            make_ghost(s, {sector + at, run.sectors, here});
        at += run.sectors;
    }
}

// What is left beside dirty data that is lost is dirty, too. Such a block is read by nobody.
bool BlockFit::holds_lost(Shard &s, u64 sector) const noexcept
{
    const u32 sectors = block_bytes_ / sector_bytes;
    rt::Guard g(s.lock);
    for (u32 at = 0; at < sectors && !mutant(Mutant::beside_lost_trimmed);) {
        const Run run = s.tree.lookup(sector + at, sectors - at);
        if (run.hit && run.flags == extent_flag::lost)
            return true;
        at += run.sectors;
    }
    return false;
}

void BlockFit::trim() noexcept
{
    const u64 block = block_bytes_ / sector_bytes;
    if (block == 1 || mutant(Mutant::part_blocks_left) ||
        (!ignored_ && mutant(Mutant::holes_not_trimmed)))
        return;
    for (u32 i = 0; i < shard_count; i++) {
        Shard &s = shards_[i];
        Extent e;
        for (u64 at = 0;; at = e.end()) {
            {
                rt::Guard g(s.lock);
                if (!s.tree.first_from(at, e))
                    break;
            }
            if (e.flags != extent_flag::live)
                continue;
            const u64 first = rt::min(rt::round_up(e.sector, block), e.end());
            const u64 last = rt::max(rt::round_down(e.end(), block), first);
            const auto part = [&](u64 from, u64 to) {
                const u32 skip = static_cast<u32>(from - e.sector);
                if (from < to && !holds_lost(s, rt::round_down(from, block)))
                    make_ghost(s, {from,
                                   static_cast<u32>(to - from),
                                   {e.place.segment, e.place.sector + skip}});
            };
            part(e.sector, first);
            part(last, e.end());
        }
        pc_yield();
    }
}

// f(key, dirty) -> rt::Error for each key of the log.
template <class F>
rt::Error Cache::for_each_key(F &&f, media::Refusal &why) noexcept
{
    media::RecordReader reader;
    RT_TRY(reader.allocate());
    const format::LogPosition head = parts_->log.durable_head();
    const format::LogPosition dirty_tail = parts_->metadata.dirty_tail();
    bool dirty = false;
    media::Record r;
    for (format::LogPosition at = parts_->metadata.key_tail(); at != head; at = r.behind()) {
        dirty = dirty || at == dirty_tail;
        if (reader.read(device_, at, r) != media::ReadOutcome::good) {
            parts_->log.page_lost(at);
            return media::refuse(why, rt::Error::io,
                                 "the log of the cache device cannot be read a second time");
        }
        for (u32 i = 0; i < r.keys(); i++) {
            const format::Key k = reader.key(i);
            f(k, dirty && !(k.flags & format::key_clean));
        }
        pc_yield();
    }
    return rt::Error::none;
}

// The device is suspended. Refused where a dirty key does not fit; nothing is changed then.
rt::Error Cache::fit_blocks(media::Refusal &why) noexcept
{
    const u32 block = pc_backing_block(backing_);
    if (block > block_bytes_ && !mutant(Mutant::block_not_compared)) {
        u64 dirty_bits = 0;
        RT_TRY(for_each_key(
            [&](const format::Key &k, bool dirty) { dirty_bits |= dirty ? k.off | k.len : 0; },
            why));
        if (const char *s = media::grown_block_sentence(dirty_bits, block))
            return media::refuse(why, rt::Error::invalid, s);
        BlockFit blocks(parts_->shards, parts_->budget, block);
        RT_TRY(for_each_key(
            [&](const format::Key &k, bool) {
                if (!blocks.fits(k.off, k.len))
                    blocks.ignore(k.off / sector_bytes, k.len / sector_bytes,
                                  {k.cache_seg_id, k.cache_seg_off / sector_bytes});
            },
            why));
        blocks.trim();
        tell_ignored(blocks.ignored(), block);
    }
    block_bytes_ = block;
    return rt::Error::none;
}

void Cache::tell_ignored(u64 keys, u32 block) noexcept
{
    if (keys)
        pc_log(host_, PC_WARN,
               "the backing device has logical blocks of %u bytes by now: %llu keys of clean data "
               "that are not whole blocks are ignored, and read from there",
               block, keys);
}

} // namespace pcache::engine
