// SPDX-License-Identifier: GPL-2.0
// engine/extent_tree.hpp - the extent index: which sectors of the backing device are where on the
// cache device. A B+-tree with packed entries of 12 bytes: one per shard, one per write-back batch.
//
//                      +---------+----------+--------+
//      level 2 (root)  | < 90000 | < 500000 |  rest  |     Inner: child i holds what lies in
//                      +----|----+-----|----+----|---+            sep[i-1] <= sector < sep[i]
//                     +-----+          |         +----> ...
//                     v                v
//      level 1   +----+----+      +----+----+
//                +--|-+--|-+      +--|-+--|-+
//                   v    v           v    v
//      level 0    leaf  leaf       leaf  leaf              Leaf: extents, ascending, no overlap
//
//      Leaf  (512 B)  | count | key[0] .. key[41] : 8 B each | rest[0] .. rest[41] : 4 B each |
//      Inner (512 B)  | count | sep[0] .. sep[30] : 8 B each | child[0] .. child[30]: 8 B each |
//
//      key   63          18 17          5 4     3 2            0   rest 31                  0
//           | first sector | sectors - 1 | flags | place, top 3 |      | place, low 32 bits |
//                 46             13          2          3          place = segment 20 : sector 15
//
// Keys ascend with the sector, so a search compares whole words. Unused keys and separators are
// all ones, so a search has a fixed number of steps and no branch that depends on the data. There
// are no links between leaves: whoever reaches the end of one descends again to its upper bound.
//
// Invariants
//  I1 An extent lies within the bounds of its leaf: no extent crosses a separator. So one descent
//     finds the only leaf that can hold a sector. (An insert across the upper bound of its leaf
//     first removes what it overrides, then moves the bound.)
//  I2 A leaf has leaf_min .. leaf_capacity extents (20 .. 42), an inner node inner_min ..
//     inner_capacity children (16 .. 31); a root has one extent or two children at least. All
//     leaves have the same depth. An empty tree has no node.
//  I3 nodes() counts the nodes in the tree. They came from the pool, and there they go back.
//  I4 With merging, an extent was joined when it was inserted with those of its leaf that continue
//     it on both sides, in the same range (geometry.range_bytes) and with the same flags.
//     Neighbours in two leaves are not joined: that costs an extent per leaf at most.
//
// Nodes: the tree never allocates; it takes nodes from the pool and gives them back. One insert or
// remove takes at most height() + 1. It adds entries to one leaf only, two at most: the extent
// itself, and the second half of an extent that is cut in its middle (there is at most one such,
// it covers the range, so nothing else is touched; a range that crosses a bound has none). So the
// leaf overflows into one new leaf at most (two halves have room for capacity + 2), each inner
// node above it gets one child and overflows into one new node at most, and the root's split adds a
// root. n operations in a row take at most n * (height() + 2), with the height before them: n on
// each level that is there, 2 n on those that come above a root which has become 1 + n nodes, since
// they have (1 + n) / 2 + (1 + n) / 4 + ... nodes. nodes_for(n) is that figure.
//
// Memory: after any sequence at most 512 / leaf_min = 25.6 B per extent, and a sixteenth of it for
// inner nodes. A full leaf gives entries to its neighbours before it is split, so random fills end
// near 16.2 B per extent and streams near 13 (selftests/bench/extent_tree_bench.cpp).
//
// Locking: none. The owner's (shard's) lock guards a tree and its pool; nothing here sleeps.
#pragma once
#include "cxxrt/base.hpp"
#include "dm-pcache/format/geometry.hpp"

namespace pcache::engine
{

// A 512 B unit of the cache device: logical segment, and sector in its data area.
struct Place {
    u32 segment = 0; // < 2^20
    u32 sector = 0;  // < 2^15
    friend constexpr bool operator==(const Place &, const Place &) = default;
};

// What an extent of the index says beyond its place.
namespace extent_flag
{
inline constexpr u32 live = 0;
// The range has left the cache (its clean data could not be used), but its key is still in the log:
// reads go to the backing device. `place` stays, so that GC finds the entry when it passes the key.
inline constexpr u32 ghost = 1;
// Dirty data that cannot be read: reads end with an error until the range is overwritten.
inline constexpr u32 lost = 2;
} // namespace extent_flag

// Sectors [sector, sector + sectors) of the backing device are at `place` and what follows it.
struct Extent {
    u64 sector = 0;
    u32 sectors = 0; // 1 .. 8192
    Place place;
    u32 flags = extent_flag::live; // 0 .. 3; the tree only keeps them, and joins equal ones
    constexpr u64 end() const noexcept { return sector + sectors; }
    friend constexpr bool operator==(const Extent &, const Extent &) = default;
};

// Sectors of a backing device, at most. One less than the field could hold: so the word behind
// every real key exists, and none is all ones.
inline constexpr u64 sector_limit = (u64{1} << 46) - 1;
inline constexpr u32 extent_max_sectors = 8192;
inline constexpr u32 range_sectors = format::geometry.range_bytes / format::sector_bytes;
static_assert(range_sectors <= extent_max_sectors && (range_sectors & (range_sectors - 1)) == 0);

// The part of `e` inside [from, to); they must overlap.
constexpr Extent clip(const Extent &e, u64 from, u64 to) noexcept
{
    const u64 first = rt::max(e.sector, from);
    const u64 last = rt::min(e.end(), to);
    const u32 skip = static_cast<u32>(first - e.sector);
    return {
        first, static_cast<u32>(last - first), {e.place.segment, e.place.sector + skip}, e.flags};
}

// Spare nodes of one size, 8-byte aligned. The owner allocates them (outside of the lock) and frees
// them after take(); the pool frees nothing itself. Guarded by the owner's lock.
class NodePool : rt::NonCopyable
{
    struct Spare {
        Spare *next;
    };
    Spare *first_ = nullptr;
    usize count_ = 0;

public:
    // `node`: the node_bytes of the trees that use this pool. Its content does not matter.
    void give(void *node) noexcept
    {
        first_ = ::new (node) Spare{first_};
        count_++;
    }
    // nullptr when there is none.
    void *take() noexcept
    {
        Spare *s = first_;
        if (s) {
            first_ = s->next;
            count_--;
        }
        return s;
    }
    usize count() const noexcept { return count_; }
};

// What lookup() finds at the first sector it was asked for.
struct Run {
    u32 sectors = 0; // how far it goes, 1 .. what was asked for
    bool hit = false;
    u8 flags = 0; // of the extent, when it is a hit
    Place place;  // of the first sector, when it is a hit
};

template <usize bytes>
class BasicExtentTree : rt::NonCopyable
{
    struct Leaf;

public:
    static constexpr usize node_bytes = bytes;
    static constexpr u32 leaf_capacity = (bytes - 8) / 12;
    static constexpr u32 inner_capacity = (bytes - 8) / 16;
    static constexpr u32 leaf_min = leaf_capacity / 2 - 1;
    static constexpr u32 inner_min = (inner_capacity + 1) / 2;
    static constexpr u32 max_height = 16; // never reached: leaf_min * 2 * inner_min^14 extents
    static_assert(leaf_capacity >= 4 && inner_capacity >= 3 && bytes % 8 == 0);

    // `pool` must outlive the tree. merge: join neighbours (off with data_crc).
    explicit BasicExtentTree(NodePool &pool, bool merge = true) noexcept
        : pool_(pool), merge_(merge)
    {
    }
    ~BasicExtentTree() { clear(); }

    // For inserts from now on; what is in the tree stays as it is.
    void set_merging(bool merge) noexcept { merge_ = merge; }

    // Nodes that `operations` inserts or removes (of any kind) in a row can take at most.
    usize nodes_for(u32 operations = 1) const noexcept { return usize{operations} * (height_ + 2); }
    // True: that many inserts or removes cannot fail, if nobody else takes from the pool.
    bool can_operate(u32 operations = 1) const noexcept
    {
        return pool_.count() >= nodes_for(operations) && height_ < max_height;
    }
    bool can_insert(u32 inserts = 1) const noexcept { return can_operate(inserts); }

    // Puts `e` in and overrides what older extents say about its range: they are cut, split or
    // removed. Needs can_insert(). `e`: 1 .. 8192 sectors, inside one range of the backing device
    // and below sector_limit; place.sector + sectors <= 2^15.
    void insert(const Extent &e) noexcept;
    // The same for one that is never cut, since it overlaps nothing that is in the tree but an
    // extent of its very range: it may lie anywhere below sector_limit, and the 35 bits of its
    // place may be any number.
    void insert_whole(const Extent &e) noexcept;
    // As insert(); before, f(const Extent &) gets each overridden piece, clipped to e's range,
    // ascending.
    template <class F>
    void insert(const Extent &e, F &&f) noexcept
    {
        for_each(e.sector, e.sectors, rt::forward<F>(f));
        insert(e);
    }

    // Takes [sector, sector + sectors) out; what sticks out of it stays. Needs can_operate().
    // Returns how many sectors were mapped. Any range; sector + sectors <= sector_limit.
    u64 remove(u64 sector, u64 sectors) noexcept;

    // Takes out those sectors s of [sector, sector + sectors) that are still where a key said:
    // at place + (s - sector). The others stay. Needs can_operate(). Returns how many went.
    u32 remove_pointing_to(u64 sector, u32 sectors, Place place) noexcept;

    // What is at `sector`: a piece of one extent, or a hole up to the next extent; not beyond
    // sector + sectors, which is at most sector_limit. sectors >= 1.
    Run lookup(u64 sector, u32 sectors) const noexcept;

    // The extent that covers `sector`, or else the first behind it, whole. False: there is none.
    bool first_from(u64 sector, Extent &out) const noexcept;

    // Walks the extents of [from, to) in ascending order, clipped to it. Any change of the tree
    // ends its life: start a new one from where this one was.
    class Cursor
    {
        const BasicExtentTree &tree_;
        const Leaf *leaf_; // null: nothing is left
        u64 from_, to_, upper_;
        u32 index_;

    public:
        Cursor(const BasicExtentTree &tree, u64 from, u64 to) noexcept;
        // False: there is no further one.
        bool next(Extent &out) noexcept;
    };
    Cursor cursor(u64 from = 0, u64 to = sector_limit) const noexcept
    {
        return Cursor(*this, from, to);
    }

    // f(const Extent &) for each extent of the range, clipped to it, ascending. f must not touch
    // the tree.
    template <class F>
    void for_each(u64 sector, u64 sectors, F &&f) const noexcept
    {
        Cursor c(*this, sector, sector + sectors);
        for (Extent e; c.next(e);)
            f(static_cast<const Extent &>(e));
    }

    // Gives every node back. Cost: one step per node.
    void clear() noexcept;

    usize count() const noexcept { return count_; } // extents
    usize nodes() const noexcept { return nodes_; } // each of node_bytes
    u32 height() const noexcept { return height_; } // levels; 0: empty
    bool empty() const noexcept { return height_ == 0; }

private:
    friend struct ExtentTreeProbe; // the invariants' checker of the tests

    struct Leaf {
        u32 count;
        u32 unused;
        u64 key[leaf_capacity];
        u32 rest[leaf_capacity];
    };
    struct Packed {
        u64 key;
        u32 rest;
    };
    struct Inner {
        u32 count; // of children; there is one separator less, and at least one unused one
        u32 unused;
        u64 sep[inner_capacity];
        void *child[inner_capacity];
    };
    static_assert(sizeof(Leaf) <= bytes && sizeof(Inner) <= bytes);
    // Inner nodes from the root (level height - 1) to level 1, and the child taken in each.
    struct Path {
        Inner *node[max_height];
        u32 index[max_height];
    };
    // What replaces entries [first, last) of a leaf.
    struct Patch {
        u32 first, last, count;
        Extent extent[3];
    };

    // The smallest shift worth a visit to the neighbour; makes room for any patch.
    static constexpr u32 shift_least = leaf_capacity / 8 > 2 ? leaf_capacity / 8 : 2;
    static constexpr u64 unused_key = ~u64{0};
    static constexpr u64 key_low = (u64{1} << 18) - 1;

    static Packed pack(const Extent &e) noexcept;
    static Extent unpack(const Leaf &leaf, u32 i) noexcept;
    static u64 start_of(const Leaf &leaf, u32 i) noexcept { return leaf.key[i] >> 18; }
    static u32 starts_up_to(const Leaf &leaf, u64 sector) noexcept;
    static u32 child_of(const Inner &n, u64 sector) noexcept;
    static u64 end_of(const Leaf &leaf, u32 i) noexcept;
    static u32 first_behind(const Leaf &leaf, u64 sector) noexcept;
    static bool joins(const Extent &left, const Extent &right) noexcept;
    static Patch cut(const Leaf &leaf, u64 from, u64 to) noexcept;
    static void put(Leaf &leaf, u32 i, const Extent &e) noexcept;
    static void transfer(Leaf &to, u32 at, const Leaf &from, u32 first, u32 n) noexcept;
    static void resize(Leaf &leaf, u32 count) noexcept;
    static void apply(Leaf &leaf, const Patch &p) noexcept;
    bool insert_alone(Leaf &leaf, const Extent &e) noexcept;
    void add_to_patch(const Leaf &leaf, Patch &p, Extent e) const noexcept;

    const Leaf *find(u64 sector, u64 &upper) const noexcept;
    u64 first_start(u64 bound) const noexcept;
    Leaf *descend(u64 sector, Path &path, u64 &upper) noexcept;
    void raise_upper(u64 sector, u64 upper) noexcept;

    Leaf *make_leaf() noexcept;
    Inner *make_inner() noexcept;
    void free_node(void *node) noexcept;
    void drop(void *node, u32 level) noexcept;

    void splice(Path &path, Leaf &leaf, Patch &p) noexcept;
    bool shift_left(const Path &path, Leaf &leaf, Patch &p) noexcept;
    bool shift_right(const Path &path, Leaf &leaf, const Patch &p) noexcept;
    void split(const Path &path, Leaf &leaf, Patch &p) noexcept;
    void add_child(const Path &path, u64 sep, void *child) noexcept;
    static u64 split_inner(Inner &left, Inner &right, u32 at, u64 sep, void *child) noexcept;
    static void insert_child(Inner &n, u32 at, u64 sep, void *child) noexcept;
    static void erase_child(Inner &n, u32 at) noexcept;
    void shrink(const Path &path, Leaf &leaf) noexcept;
    void repair_inner(const Path &path) noexcept;
    static void rotate(Inner &parent, u32 at, bool to_left) noexcept;

    NodePool &pool_;
    void *root_ = nullptr;
    usize count_ = 0;
    usize nodes_ = 0;
    u32 height_ = 0;
    bool merge_;
};

inline constexpr usize extent_node_bytes = 512;
using ExtentTree = BasicExtentTree<extent_node_bytes>;
extern template class BasicExtentTree<extent_node_bytes>;

inline bool can_insert(const ExtentTree &tree, u32 inserts = 1) noexcept
{
    return tree.can_insert(inserts);
}

} // namespace pcache::engine
