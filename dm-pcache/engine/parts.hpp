// SPDX-License-Identifier: GPL-2.0
// engine/parts.hpp - everything that exists only while a cache is active, in the order in which it
// is made. One allocation; it goes as one.
#pragma once
#include "dm-pcache/engine/cache.hpp"
#include "dm-pcache/engine/dirty_age.hpp"
#include "dm-pcache/engine/pacing.hpp"
#include "dm-pcache/engine/rescue.hpp"

namespace pcache::engine
{

struct Cache::Parts : rt::NonCopyable {
    Parts(media::Device &device, pc_backing *backing) noexcept
        : metadata(device), tickets(segments), heads(segments, tickets),
          log(device, metadata, segments, tickets, shards),
          damage(device, metadata, segments, shards, budget, log, backing),
          summed_reads(device, shards, backing),
          write_back(device, metadata, log, backing, segments, tickets, shards, damage,
                     backing_ranges),
          gc(device, metadata, segments, shards, budget, log, damage)
    {
    }

    media::Metadata metadata;
    Segments segments;
    Tickets tickets;
    Heads heads;
    NodeBudget budget;
    Pacing pacing;
    DirtyAge dirty_age; // the reclaim worker's
    Shard shards[shard_count];
    Log log;
    Damage damage;
    SummedReads summed_reads;
    Fills fills;
    RangeLock backing_ranges;
    WriteBack write_back;
    Gc gc;
};

} // namespace pcache::engine
