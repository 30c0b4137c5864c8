// SPDX-License-Identifier: GPL-2.0
// engine/shard.cpp - see shard.hpp.
#include "dm-pcache/engine/shard.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::engine
{

namespace
{
constinit LockClass shard_class{"pcache shard"};
// Spare nodes a shard keeps beyond what an operation needs at most.
constexpr usize spare_margin = 4;
} // namespace

Shard::Shard() noexcept : lock(shard_class), tree(pool), sums(pool) {}

Shard::~Shard()
{
    tree.clear();
    sums.clear();
    while (void *n = pool.take())
        pc_free(n);
}

bool Shard::provide(u32 operations, NodeBudget &budget, pc_how how) noexcept
{
    for (;;) {
        {
            rt::Guard g(lock);
            if (can_operate(operations))
                return true;
        }
        // One need's worth at a time: somebody else may use up what was given meanwhile.
        usize want = 0;
        {
            rt::Guard g(lock);
            want = nodes_for(operations) + spare_margin;
            want = want > pool.count() ? want - pool.count() : 0;
        }
        for (; want; want--) {
            if (!budget.charge())
                return false;
            void *n = pc_alloc(ExtentTree::node_bytes, how);
            if (!n) {
                budget.refund();
                return false;
            }
            rt::Guard g(lock);
            pool.give(n);
        }
    }
}

void Shard::provide_anyway(NodeBudget &budget, bool evict) noexcept
{
    for (;;) {
        {
            rt::Guard g(lock);
            if (evict ? can_evict() : can_operate(1))
                return;
        }
        if (mutant(Mutant::memory_under_lock))
            lock.lock();
        void *n = pc_alloc(ExtentTree::node_bytes, PC_MAY_SLEEP);
        if (mutant(Mutant::memory_under_lock))
            lock.unlock();
        if (!n) {
            pc_yield();
            continue;
        }
        budget.charge_anyway();
        rt::Guard g(lock);
        pool.give(n);
    }
}

bool Shard::trim(NodeBudget &budget) noexcept
{
    bool freed = false;
    for (;;) {
        void *n = nullptr;
        {
            rt::Guard g(lock);
            if (pool.count() > nodes_for(1) + 2 * spare_margin)
                n = pool.take();
        }
        if (!n)
            return freed;
        pc_free(n);
        budget.refund();
        freed = true;
    }
}

} // namespace pcache::engine
