// SPDX-License-Identifier: GPL-2.0
// engine/shard.hpp - one of the shards: a lock, a piece of the extent index, the keys that are
// staged (in the index, not yet in a record), and the fills in flight.
//
// A range of the backing device (geometry.range_bytes) belongs to exactly one shard. Index entry
// and staged key are made under the shard's lock in one step, and the log takes a shard's staged
// keys in that order; so log order is index order.
//
// Memory of the index: nodes come from pc_alloc, outside of the lock, into the shard's pool; the
// sum over all shards is bounded (NodeBudget).
#pragma once
#include "cxxrt/guard.hpp"
#include "dm-pcache/engine/checksums.hpp"
#include "dm-pcache/engine/extent_tree.hpp"
#include "dm-pcache/engine/fills.hpp"
#include "dm-pcache/engine/ticket.hpp"

namespace pcache::engine
{

// Nodes of the index in existence, and how many there may be. Atomic; no lock.
class NodeBudget : rt::NonCopyable
{
    rt::Atomic<u64> used_{0};
    u64 limit_ = 0;

public:
    void set_limit(u64 nodes) noexcept { limit_ = nodes; }
    bool charge() noexcept
    {
        if (used_.fetch_add(1) < limit_)
            return true;
        used_.fetch_add(~u64{0});
        return false;
    }
    // For eviction, which must go on when the limit is reached.
    void charge_anyway() noexcept { used_.fetch_add(1); }
    void refund() noexcept { used_.fetch_add(~u64{0}); }
    u64 used() const noexcept { return used_.read(); }
    u64 limit() const noexcept { return limit_; }
};

class alignas(64) Shard : rt::NonCopyable
{
public:
    Shard() noexcept;
    // Frees all nodes; the budget is not told (the cache ends with it).
    ~Shard();

    SpinLock lock;
    // Guarded by lock:
    NodePool pool;
    ExtentTree tree;
    Checksums sums;
    rt::Queue<Ticket> staged;
    u32 staged_count = 0;
    FillEntries fills;

    // With data_crc; before anything is in the index.
    void turn_checksums_on() noexcept
    {
        tree.set_merging(false);
        sums.turn_on();
    }
    // What `operations` inserts or removes of keys may take from the pool; under the lock.
    usize nodes_for(u32 operations) const noexcept
    {
        return tree.nodes_for(operations) + sums.nodes_for(operations);
    }
    bool can_operate(u32 operations) const noexcept
    {
        return tree.can_operate(operations) && pool.count() >= nodes_for(operations);
    }
    // A key's range can leave the index; the checksums need no node for that.
    bool can_evict() const noexcept { return tree.can_operate(1); }
    // A key and the crc of its data enter the index. Needs can_operate(1), under the lock.
    void insert_key(const Extent &e, u32 data_crc) noexcept
    {
        tree.insert(e);
        sums.insert({e.place, e.sectors, data_crc});
    }

    // Gives the pool what `operations` inserts or removes may take (and a little more, so that most
    // operations need no visit here). False: no memory, or the budget is used up. Call without the
    // lock. How: any.
    bool provide(u32 operations, NodeBudget &budget, pc_how how) noexcept;
    // The same for one, sleeping until there is memory, and whatever the budget says.
    void provide_for_eviction(NodeBudget &budget) noexcept { provide_anyway(budget, true); }
    void provide_for_recovery(NodeBudget &budget) noexcept { provide_anyway(budget, false); }
    // Frees spare nodes beyond what the next few operations need. Call without the lock.
    // True: something was freed.
    bool trim(NodeBudget &budget) noexcept;

private:
    void provide_anyway(NodeBudget &budget, bool evict) noexcept;
};

} // namespace pcache::engine
