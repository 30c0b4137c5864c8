// SPDX-License-Identifier: GPL-2.0
// engine/parts.hpp - everything that exists only while a cache is active, in the order in which it
// is made. One allocation; it goes as one.
#pragma once
#include "dm-pcache/engine/cache.hpp"

namespace pcache::engine
{

struct Cache::Parts : rt::NonCopyable {
    Parts(media::Device &device, pc_backing *backing) noexcept
        : metadata(device), tickets(segments), heads(segments, tickets),
          log(device, metadata, segments, tickets, shards),
          write_back(device, metadata, log, backing), gc(device, metadata, segments, shards, budget)
    {
    }

    media::Metadata metadata;
    Segments segments;
    Tickets tickets;
    Heads heads;
    NodeBudget budget;
    Shard shards[shard_count];
    Log log;
    WriteBack write_back;
    Gc gc;
};

} // namespace pcache::engine
