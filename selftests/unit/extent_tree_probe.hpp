// SPDX-License-Identifier: GPL-2.0
// selftests/unit/extent_tree_probe.hpp - the invariants' checker of the extent index, and a pool that
// knows how many nodes it handed out. For tests and the simulator; locking as for the tree itself.
#pragma once
#include <cstdlib>
#include <string>
#include "dm-pcache/engine/extent_tree.hpp"

namespace pcache::engine
{

struct ExtentTreeProbe {
    // "" when I1 - I3 of extent_tree.hpp hold, else a sentence.
    template <class Tree>
    static std::string check(const Tree &t)
    {
        Totals sum;
        if ((t.root_ == nullptr) != (t.height_ == 0))
            return "height and root disagree";
        if (t.root_) {
            std::string bad = walk(t, t.root_, t.height_, 0, sector_limit, sum);
            if (!bad.empty())
                return bad;
        }
        if (sum.nodes != t.nodes_)
            return "nodes() is wrong";
        if (sum.extents != t.count_)
            return "count() is wrong";
        return {};
    }

private:
    struct Totals {
        usize nodes = 0;
        usize extents = 0;
        u64 end = 0; // of the last extent met
    };

    template <class Tree>
    static std::string leaf(const Tree &t, const typename Tree::Leaf &n, u64 low, u64 high,
                            Totals &sum)
    {
        const bool root = t.height_ == 1;
        if (n.count > Tree::leaf_capacity || n.count < (root ? 1 : Tree::leaf_min))
            return "a leaf holds " + std::to_string(n.count);
        for (u32 i = 0; i < n.count; i++) {
            const Extent e = Tree::unpack(n, i);
            if (e.sector < low || e.end() > high)
                return "an extent crosses the bounds of its leaf";
            if (e.sector < sum.end)
                return "extents overlap or are out of order";
            if (e.sector / range_sectors != (e.end() - 1) / range_sectors)
                return "an extent crosses a range";
            if (e.place.sector + e.sectors > 1u << 15)
                return "an extent leaves its segment";
            sum.end = e.end();
        }
        for (u32 i = n.count; i < Tree::leaf_capacity; i++)
            if (n.key[i] != Tree::unused_key)
                return "an unused key is not all ones";
        sum.extents += n.count;
        return {};
    }

    template <class Tree>
    static std::string walk(const Tree &t, const void *node, u32 level, u64 low, u64 high,
                            Totals &sum)
    {
        sum.nodes++;
        if (level == 1)
            return leaf(t, *static_cast<const typename Tree::Leaf *>(node), low, high, sum);
        const auto &n = *static_cast<const typename Tree::Inner *>(node);
        const bool root = level == t.height_;
        if (n.count > Tree::inner_capacity || n.count < (root ? 2 : Tree::inner_min))
            return "an inner node has " + std::to_string(n.count) + " children";
        for (u32 i = n.count - 1; i < Tree::inner_capacity; i++)
            if (n.sep[i] != Tree::unused_key)
                return "an unused separator is not all ones";
        for (u32 i = 0; i < n.count; i++) {
            const u64 from = i ? n.sep[i - 1] : low;
            const u64 to = i + 1 < n.count ? n.sep[i] : high;
            if (from >= to)
                return "separators are out of order";
            std::string bad = walk(t, n.child[i], level - 1, from, to, sum);
            if (!bad.empty())
                return bad;
        }
        return {};
    }
};

// A pool with nodes from malloc, which it frees in the end; total() were ever made.
template <usize node_bytes>
class OwningPool
{
    NodePool pool_;
    usize total_ = 0;

public:
    OwningPool() = default;
    OwningPool(const OwningPool &) = delete;
    OwningPool &operator=(const OwningPool &) = delete;
    ~OwningPool()
    {
        while (void *node = pool_.take())
            std::free(node);
    }
    // Until it holds exactly `nodes` spare ones.
    void hold(usize nodes)
    {
        for (; pool_.count() < nodes; total_++)
            pool_.give(std::malloc(node_bytes));
        for (; pool_.count() > nodes; total_--)
            std::free(pool_.take());
    }
    // Until it holds at least that many.
    void fill(usize nodes)
    {
        if (pool_.count() < nodes)
            hold(nodes);
    }
    NodePool &nodes() { return pool_; }
    usize spare() const { return pool_.count(); }
    usize total() const { return total_; }
};

} // namespace pcache::engine
