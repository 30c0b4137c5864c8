// SPDX-License-Identifier: GPL-2.0
// engine/front_eviction.cpp - see front_eviction.hpp.
#include "dm-pcache/engine/front_eviction.hpp"
#include "dm-pcache/engine/shard_of.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::engine
{

void FrontEviction::evict(format::LogPosition upto) noexcept
{
    const u64 enough = budget_.limit() - budget_.limit() / 32;
    while (budget_.used() > enough && at_ != upto && at_ != stop_) {
        media::Record r;
        if (mutant(Mutant::recovery_over_budget) ||
            reader_.read(device_, at_, r) != media::ReadOutcome::good) {
            stop_ = at_; // it was good a moment ago
            return;
        }
        for (u32 i = 0; i < r.keys(); i++)
            forget(reader_.key(i));
        at_ = r.behind();
        pc_yield();
    }
}

void FrontEviction::forget(const format::Key &k) noexcept
{
    const SegmentId segment{k.cache_seg_id};
    if (k.seg_gen < segments_.generation(segment))
        return; // stale: nothing of it is there
    Shard &s = shards_[shard_of(k.off)];
    const u64 sector = k.off / format::sector_bytes;
    const u32 sectors = k.len / format::sector_bytes;
    const Place place{k.cache_seg_id, k.cache_seg_off / format::sector_bytes};
    for (u32 at = 0; at < sectors;) {
        {
            rt::Guard g(s.lock);
            if (s.can_evict()) {
                const Run run = s.tree.lookup(sector + at, sectors - at);
                const Place here{place.segment, place.sector + at};
                // What is lost is a later key's, which was logged again with this one's place.
                if (run.hit && run.place == here && run.flags != extent_flag::lost)
                    (void)s.tree.remove(sector + at, run.sectors);
                at += run.sectors;
                continue;
            }
        }
        s.provide_for_eviction(budget_);
    }
    {
        rt::Guard g(s.lock);
        s.sums.remove({place, sectors, k.data_crc});
    }
    (void)s.trim(budget_);
    segments_.unrecover_key(segment);
    touched_[segment.value] = 1;
    keys_++;
}

} // namespace pcache::engine
