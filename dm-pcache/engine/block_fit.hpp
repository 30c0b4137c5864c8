// SPDX-License-Identifier: GPL-2.0
// engine/block_fit.hpp - an index over a backing device whose logical block has grown: keys that do
// not begin and end on a block boundary.
//
// Where such a key is clean it is ignored as one that cannot be read: a ghost stands for it. What
// is left of other keys in its first and its last block becomes a ghost, too, since a block is read
// from one place or from the other; so does what stands beside a hole: a stale key, or one that GC
// has passed, may have taken a part of a block out. It is clean, or its key would be one that is
// refused. So behind trim() what is live in the index consists of whole blocks, and so do the holes
// in between; but beside lost dirty data all stays, since the block cannot be read anyway.
//
// Locking: takes the shards' locks; nobody else changes the index meanwhile. Sleeps.
#pragma once
#include "dm-pcache/engine/shard.hpp"

namespace pcache::engine
{

class BlockFit : rt::NonCopyable
{
public:
    BlockFit(Shard *shards, NodeBudget &budget, u32 block_bytes) noexcept
        : shards_(shards), budget_(budget), block_bytes_(block_bytes)
    {
    }
    bool fits(u64 offset, u32 bytes) const noexcept
    {
        return !((offset | bytes) & (block_bytes_ - 1));
    }
    // A clean key that does not fit: what the index has of it becomes a ghost.
    void ignore(u64 sector, u32 sectors, Place place) noexcept;
    // The rest of the blocks around those keys, and around holes. Once, behind the last ignore(),
    // also where there was none.
    void trim() noexcept;
    u64 ignored() const noexcept { return ignored_; } // keys

private:
    bool holds_lost(Shard &s, u64 sector) const noexcept;
    void make_ghost(Shard &s, const Extent &e) noexcept;

    Shard *shards_;
    NodeBudget &budget_;
    u32 block_bytes_; // a power of two
    u64 ignored_ = 0;
};

} // namespace pcache::engine
