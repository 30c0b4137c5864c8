// SPDX-License-Identifier: GPL-2.0
// engine/extent_tree_body.hpp - the definitions behind extent_tree.hpp, included where a node size
// is instantiated: extent_tree.cpp (the engine's) and the tests (tiny nodes, for deep trees).
//
// Contracts, invariants I1 - I4 and locking: extent_tree.hpp. No recursion but drop(), which is as
// deep as the tree; no frame above 512 B.
#pragma once
#include "dm-pcache/engine/extent_tree.hpp"

namespace pcache::engine
{

namespace extent_tree
{

// How many of the ascending words a[0 .. n) are <= v. Halving with a step count fixed by n, and
// arithmetic in place of branches: what a random key would mispredict costs more than the loads.
template <u32 n>
[[gnu::always_inline]] inline u32 count_up_to(const u64 *a, u64 v) noexcept
{
    if constexpr (n == 1) {
        return a[0] <= v;
    } else {
        constexpr u32 half = n / 2;
        const u32 skip = a[half - 1] <= v ? half : 0;
        return skip + count_up_to<n - half>(a + skip, v);
    }
}

template <class T>
void move_words(T *to, const T *from, u32 n) noexcept
{
    __builtin_memmove(to, from, n * sizeof(T));
}

inline void fill(u64 *a, u32 n, u64 v) noexcept
{
    for (u32 i = 0; i < n; i++)
        a[i] = v;
}

} // namespace extent_tree

// ---- entries ----------------------------------------------------------------------------------

template <usize bytes>
typename BasicExtentTree<bytes>::Packed BasicExtentTree<bytes>::pack(const Extent &e) noexcept
{
    const u64 place = u64{e.place.segment} << 15 | e.place.sector;
    return {e.sector << 18 | u64{e.sectors - 1} << 5 | u64{e.flags} << 3 | place >> 32,
            static_cast<u32>(place)};
}

template <usize bytes>
Extent BasicExtentTree<bytes>::unpack(const Leaf &leaf, u32 i) noexcept
{
    const u64 key = leaf.key[i];
    const u64 place = (key & 7) << 32 | leaf.rest[i];
    return {key >> 18,
            (static_cast<u32>(key >> 5) & (extent_max_sectors - 1)) + 1,
            {static_cast<u32>(place >> 15), static_cast<u32>(place) & 0x7fff},
            static_cast<u32>(key >> 3) & 3};
}

// Number of extents that start at or in front of `sector`.
template <usize bytes>
u32 BasicExtentTree<bytes>::starts_up_to(const Leaf &leaf, u64 sector) noexcept
{
    const u32 n = extent_tree::count_up_to<leaf_capacity>(leaf.key, sector << 18 | key_low);
    return rt::min(n, leaf.count); // the last sector of all has the key of an unused entry
}

// Index of the first extent that ends behind `sector`; count, if there is none.
template <usize bytes>
u32 BasicExtentTree<bytes>::first_behind(const Leaf &leaf, u64 sector) noexcept
{
    const u32 n = starts_up_to(leaf, sector);
    return n && unpack(leaf, n - 1).end() > sector ? n - 1 : n;
}

// One extent could say what the two say.
template <usize bytes>
bool BasicExtentTree<bytes>::joins(const Extent &left, const Extent &right) noexcept
{
    return left.end() == right.sector && left.place.segment == right.place.segment &&
           left.place.sector + left.sectors == right.place.sector && left.flags == right.flags &&
           left.sector / range_sectors == (right.end() - 1) / range_sectors;
}

// What taking [from, to) out of the leaf does to it.
template <usize bytes>
typename BasicExtentTree<bytes>::Patch BasicExtentTree<bytes>::cut(const Leaf &leaf, u64 from,
                                                                   u64 to) noexcept
{
    Patch p;
    p.count = 0;
    p.first = p.last = first_behind(leaf, from);
    while (p.last < leaf.count && start_of(leaf, p.last) < to)
        p.last++;
    if (p.first == p.last)
        return p;
    const Extent head = unpack(leaf, p.first);
    if (head.sector < from)
        p.extent[p.count++] = clip(head, head.sector, from);
    const Extent tail = unpack(leaf, p.last - 1);
    if (tail.end() > to)
        p.extent[p.count++] = clip(tail, to, tail.end());
    return p;
}

template <usize bytes>
void BasicExtentTree<bytes>::put(Leaf &leaf, u32 i, const Extent &e) noexcept
{
    const Packed packed = pack(e);
    leaf.key[i] = packed.key;
    leaf.rest[i] = packed.rest;
}

// n entries, between leaves or within one. Counts are the caller's.
template <usize bytes>
void BasicExtentTree<bytes>::transfer(Leaf &to, u32 at, const Leaf &from, u32 first, u32 n) noexcept
{
    extent_tree::move_words(to.key + at, from.key + first, n);
    extent_tree::move_words(to.rest + at, from.rest + first, n);
}

template <usize bytes>
void BasicExtentTree<bytes>::resize(Leaf &leaf, u32 count) noexcept
{
    for (u32 i = count; i < leaf.count; i++)
        leaf.key[i] = unused_key;
    leaf.count = count;
}

// Carries a patch out; the leaf has room for it.
template <usize bytes>
void BasicExtentTree<bytes>::apply(Leaf &leaf, const Patch &p) noexcept
{
    const u32 behind = p.first + p.count;
    if (behind != p.last) {
        transfer(leaf, behind, leaf, p.last, leaf.count - p.last);
        resize(leaf, leaf.count - p.last + behind);
    }
    for (u32 i = 0; i < p.count; i++)
        put(leaf, p.first + i, p.extent[i]);
}

// ---- ways down --------------------------------------------------------------------------------

// The leaf that covers `sector`; its upper bound is where the next leaf begins (or sector_limit).
// Null: the tree is empty.
template <usize bytes>
const typename BasicExtentTree<bytes>::Leaf *BasicExtentTree<bytes>::find(u64 sector,
                                                                          u64 &upper) const noexcept
{
    const void *node = root_;
    upper = sector_limit;
    for (u32 level = height_; level > 1; level--) {
        const Inner &n = *static_cast<const Inner *>(node);
        const u32 i = extent_tree::count_up_to<inner_capacity>(n.sep, sector);
        upper = rt::min(upper, n.sep[i]);
        node = n.child[i];
    }
    return static_cast<const Leaf *>(node);
}

// The same, with the way down, for a change. The tree is not empty.
template <usize bytes>
typename BasicExtentTree<bytes>::Leaf *BasicExtentTree<bytes>::descend(u64 sector, Path &path,
                                                                       u64 &upper) noexcept
{
    void *node = root_;
    upper = sector_limit;
    for (u32 level = height_ - 1; level > 0; level--) {
        Inner &n = *static_cast<Inner *>(node);
        const u32 i = extent_tree::count_up_to<inner_capacity>(n.sep, sector);
        path.node[level] = &n;
        path.index[level] = i;
        upper = rt::min(upper, n.sep[i]);
        node = n.child[i];
    }
    return static_cast<Leaf *>(node);
}

// Moves the upper bound of the leaf that covers `sector`; nothing lies between the old one and the
// new.
template <usize bytes>
void BasicExtentTree<bytes>::raise_upper(u64 sector, u64 upper) noexcept
{
    void *node = root_;
    u64 *bound = nullptr; // the lowest separator right of the way down
    for (u32 level = height_; level > 1; level--) {
        Inner &n = *static_cast<Inner *>(node);
        const u32 i = extent_tree::count_up_to<inner_capacity>(n.sep, sector);
        if (i + 1 < n.count)
            bound = &n.sep[i];
        node = n.child[i];
    }
    if (bound && *bound < upper)
        *bound = upper;
}

// ---- nodes ------------------------------------------------------------------------------------

template <usize bytes>
typename BasicExtentTree<bytes>::Leaf *BasicExtentTree<bytes>::make_leaf() noexcept
{
    void *spare = pool_.take();
    RT_ASSERT(spare);
    nodes_++;
    Leaf *leaf = ::new (spare) Leaf;
    leaf->count = 0;
    extent_tree::fill(leaf->key, leaf_capacity, unused_key);
    return leaf;
}

template <usize bytes>
typename BasicExtentTree<bytes>::Inner *BasicExtentTree<bytes>::make_inner() noexcept
{
    void *spare = pool_.take();
    RT_ASSERT(spare);
    nodes_++;
    Inner *n = ::new (spare) Inner;
    n->count = 0;
    extent_tree::fill(n->sep, inner_capacity, unused_key);
    return n;
}

template <usize bytes>
void BasicExtentTree<bytes>::free_node(void *node) noexcept
{
    pool_.give(node);
    nodes_--;
}

template <usize bytes>
void BasicExtentTree<bytes>::drop(void *node, u32 level) noexcept
{
    if (level > 1) {
        Inner &n = *static_cast<Inner *>(node);
        for (u32 i = 0; i < n.count; i++)
            drop(n.child[i], level - 1);
    }
    free_node(node);
}

template <usize bytes>
void BasicExtentTree<bytes>::clear() noexcept
{
    if (root_)
        drop(root_, height_);
    root_ = nullptr;
    height_ = 0;
    count_ = 0;
}

// ---- growing ----------------------------------------------------------------------------------

// Carries a patch out, whatever becomes of the leaf.
template <usize bytes>
void BasicExtentTree<bytes>::splice(Path &path, Leaf &leaf, Patch &p) noexcept
{
    const u32 before = leaf.count;
    const u32 total = before + p.count - (p.last - p.first);
    count_ += p.count;
    count_ -= p.last - p.first;
    if (total > leaf_capacity) {
        if (height_ > 1 && (shift_left(path, leaf, p) || shift_right(path, leaf, p)))
            return;
        split(path, leaf, p);
        return;
    }
    apply(leaf, p);
    if (total < leaf_min && total < before)
        shrink(path, leaf);
}

// The leaf is full: gives its first entries to its left neighbour, if that has room, and applies
// the patch. In a stream of ascending inserts the neighbour is filled to the brim, else both get
// the same.
template <usize bytes>
bool BasicExtentTree<bytes>::shift_left(const Path &path, Leaf &leaf, Patch &p) noexcept
{
    const u32 at = path.index[1];
    if (at == 0)
        return false;
    Inner &parent = *path.node[1];
    Leaf &left = *static_cast<Leaf *>(parent.child[at - 1]);
    const u32 room = leaf_capacity - left.count;
    const u32 n = rt::min(p.first, p.first == leaf.count ? room : (room + 1) / 2);
    if (n < shift_least)
        return false;
    transfer(left, left.count, leaf, 0, n);
    left.count += n;
    transfer(leaf, 0, leaf, n, leaf.count - n);
    resize(leaf, leaf.count - n);
    p.first -= n;
    p.last -= n;
    apply(leaf, p);
    parent.sep[at - 1] = start_of(leaf, 0);
    return true;
}

// The same to the right, with descending inserts in mind.
template <usize bytes>
bool BasicExtentTree<bytes>::shift_right(const Path &path, Leaf &leaf, const Patch &p) noexcept
{
    const u32 at = path.index[1];
    Inner &parent = *path.node[1];
    if (at + 1 == parent.count)
        return false;
    Leaf &right = *static_cast<Leaf *>(parent.child[at + 1]);
    const u32 room = leaf_capacity - right.count;
    const u32 n = rt::min(leaf.count - p.last, p.first == 0 ? room : (room + 1) / 2);
    if (n < shift_least)
        return false;
    transfer(right, n, right, 0, right.count);
    transfer(right, 0, leaf, leaf.count - n, n);
    right.count += n;
    resize(leaf, leaf.count - n);
    apply(leaf, p);
    parent.sep[at] = start_of(right, 0);
    return true;
}

// Cuts the full leaf in two, so that both are as good as half full behind the patch, which goes
// into one of them whole.
template <usize bytes>
void BasicExtentTree<bytes>::split(const Path &path, Leaf &leaf, Patch &p) noexcept
{
    const u32 replaced = p.last - p.first;
    const u32 half = (leaf.count + p.count - replaced) / 2;
    bool left = true;
    u32 keep; // entries that stay in the left one
    if (p.first + p.count <= half) {
        keep = half + replaced - p.count;
    } else if (p.first >= half) {
        keep = half;
        left = false;
    } else { // the middle falls into the patch, of three at most: one end of it is one off the
             // middle
        left = p.first + p.count - half < half - p.first;
        keep = left ? p.last : p.first;
    }
    Leaf &right = *make_leaf();
    right.count = leaf.count - keep;
    transfer(right, 0, leaf, keep, right.count);
    resize(leaf, keep);
    if (!left) {
        p.first -= keep;
        p.last -= keep;
    }
    apply(left ? leaf : right, p);
    add_child(path, start_of(right, 0), &right);
}

// Hangs a new node, which begins at `sep`, right of the leaf that the path leads to.
template <usize bytes>
void BasicExtentTree<bytes>::add_child(const Path &path, u64 sep, void *child) noexcept
{
    for (u32 level = 1; level < height_; level++) {
        Inner &n = *path.node[level];
        const u32 at = path.index[level] + 1;
        if (n.count < inner_capacity) {
            insert_child(n, at, sep, child);
            return;
        }
        Inner &right = *make_inner();
        sep = split_inner(n, right, at, sep, child);
        child = &right;
    }
    Inner &top = *make_inner();
    top.child[0] = root_;
    top.child[1] = child;
    top.sep[0] = sep;
    top.count = 2;
    root_ = &top;
    height_++;
}

// Before child `at` (1 .. count).
template <usize bytes>
void BasicExtentTree<bytes>::insert_child(Inner &n, u32 at, u64 sep, void *child) noexcept
{
    extent_tree::move_words(n.child + at + 1, n.child + at, n.count - at);
    extent_tree::move_words(n.sep + at, n.sep + at - 1, n.count - at);
    n.child[at] = child;
    n.sep[at - 1] = sep;
    n.count++;
}

// Child `at` (1 .. count - 1), and the separator in front of it.
template <usize bytes>
void BasicExtentTree<bytes>::erase_child(Inner &n, u32 at) noexcept
{
    extent_tree::move_words(n.child + at, n.child + at + 1, n.count - at - 1);
    extent_tree::move_words(n.sep + at - 1, n.sep + at, n.count - at - 1);
    n.count--;
    n.sep[n.count - 1] = unused_key;
}

// Inserts into the full node `left` and cuts it in two. Returns what separates them.
template <usize bytes>
u64 BasicExtentTree<bytes>::split_inner(Inner &left, Inner &right, u32 at, u64 sep,
                                        void *child) noexcept
{
    const u32 half = (inner_capacity + 1) / 2;
    const u32 keep = at < half ? half - 1 : half; // without the new one
    const bool leads = at == keep && at == half;  // the new one is the first of the right node
    const u32 moved = inner_capacity - keep;
    const u32 to = leads ? 1 : 0;
    u64 middle = left.sep[keep - 1];
    extent_tree::move_words(right.child + to, left.child + keep, moved);
    extent_tree::move_words(right.sep + to, left.sep + keep, moved - 1);
    right.count = moved + to;
    extent_tree::fill(left.sep + keep - 1, inner_capacity - keep, unused_key);
    left.count = keep;
    if (leads) {
        right.child[0] = child;
        right.sep[0] = middle;
        middle = sep;
    } else if (at < half) {
        insert_child(left, at, sep, child);
    } else {
        insert_child(right, at - keep, sep, child);
    }
    return middle;
}

// ---- shrinking --------------------------------------------------------------------------------

// The leaf has fallen below leaf_min: joins it with a neighbour, or shares out evenly.
template <usize bytes>
void BasicExtentTree<bytes>::shrink(const Path &path, Leaf &leaf) noexcept
{
    if (height_ == 1) {
        if (leaf.count == 0)
            clear();
        return;
    }
    Inner &parent = *path.node[1];
    const u32 at = path.index[1] ? path.index[1] - 1 : 0; // the left one of the pair
    Leaf &left = *static_cast<Leaf *>(parent.child[at]);
    Leaf &right = *static_cast<Leaf *>(parent.child[at + 1]);
    const u32 sum = left.count + right.count;
    if (sum <= leaf_capacity) {
        transfer(left, left.count, right, 0, right.count);
        left.count = sum;
        free_node(&right);
        erase_child(parent, at + 1);
        repair_inner(path);
        return;
    }
    const u32 half = sum / 2;
    if (left.count < half) {
        const u32 n = half - left.count;
        transfer(left, left.count, right, 0, n);
        left.count = half;
        transfer(right, 0, right, n, right.count - n);
        resize(right, right.count - n);
    } else {
        const u32 n = left.count - half;
        transfer(right, n, right, 0, right.count);
        transfer(right, 0, left, half, n);
        right.count += n;
        resize(left, half);
    }
    parent.sep[at] = start_of(right, 0);
}

// The path's node on level 1 has lost a child: restores I2 from there up to the root.
template <usize bytes>
void BasicExtentTree<bytes>::repair_inner(const Path &path) noexcept
{
    for (u32 level = 1; level + 1 < height_; level++) {
        if (path.node[level]->count >= inner_min)
            return;
        Inner &parent = *path.node[level + 1];
        const u32 at = path.index[level + 1] ? path.index[level + 1] - 1 : 0;
        Inner &left = *static_cast<Inner *>(parent.child[at]);
        Inner &right = *static_cast<Inner *>(parent.child[at + 1]);
        if (left.count + right.count > inner_capacity) {
            rotate(parent, at, &left == path.node[level]);
            return;
        }
        left.sep[left.count - 1] = parent.sep[at];
        extent_tree::move_words(left.child + left.count, right.child, right.count);
        extent_tree::move_words(left.sep + left.count, right.sep, right.count - 1);
        left.count += right.count;
        free_node(&right);
        erase_child(parent, at + 1);
    }
    Inner &top = *static_cast<Inner *>(root_);
    if (top.count > 1)
        return;
    root_ = top.child[0];
    height_--;
    free_node(&top);
}

// One child from the node right of separator `at` to the one left of it, or back.
template <usize bytes>
void BasicExtentTree<bytes>::rotate(Inner &parent, u32 at, bool to_left) noexcept
{
    Inner &left = *static_cast<Inner *>(parent.child[at]);
    Inner &right = *static_cast<Inner *>(parent.child[at + 1]);
    if (to_left) {
        insert_child(left, left.count, parent.sep[at], right.child[0]);
        parent.sep[at] = right.sep[0];
        right.child[0] = right.child[1]; // its bound is the parent's now
        erase_child(right, 1);
        return;
    }
    void *moved = left.child[left.count - 1];
    const u64 sep = left.sep[left.count - 2];
    erase_child(left, left.count - 1);
    insert_child(right, 1, parent.sep[at], right.child[0]);
    right.child[0] = moved;
    parent.sep[at] = sep;
}

// ---- operations -------------------------------------------------------------------------------

// Puts `e` into a patch that cut its range out, joined with what it continues.
template <usize bytes>
void BasicExtentTree<bytes>::add_to_patch(const Leaf &leaf, Patch &p, Extent e) const noexcept
{
    const bool has_left = p.count && p.extent[0].sector < e.sector;
    const bool has_right = p.count > has_left;
    Extent left = has_left ? p.extent[0] : Extent{};
    Extent right = has_right ? p.extent[p.count - 1] : Extent{};
    bool keep_left = has_left;
    bool keep_right = has_right;
    if (merge_) {
        const bool before = !has_left && p.first > 0;
        if (before)
            left = unpack(leaf, p.first - 1);
        if ((has_left || before) && joins(left, e)) {
            e = {left.sector, left.sectors + e.sectors, left.place, e.flags};
            p.first -= before;
            keep_left = false;
        }
        const bool behind = !has_right && p.last < leaf.count;
        if (behind)
            right = unpack(leaf, p.last);
        if ((has_right || behind) && joins(e, right)) {
            e.sectors += right.sectors;
            p.last += behind;
            keep_right = false;
        }
    }
    p.count = 0;
    if (keep_left)
        p.extent[p.count++] = left;
    p.extent[p.count++] = e;
    if (keep_right)
        p.extent[p.count++] = right;
}

template <usize bytes>
void BasicExtentTree<bytes>::insert(const Extent &e) noexcept
{
    RT_ASSERT(e.sectors && e.end() <= sector_limit &&
              e.sector / range_sectors == (e.end() - 1) / range_sectors);
    RT_ASSERT(e.place.segment < 1u << 20 && e.place.sector + e.sectors <= 1u << 15 && e.flags < 4);
    Path path;
    u64 upper = sector_limit;
    Leaf *leaf = root_ ? descend(e.sector, path, upper) : nullptr;
    if (e.end() > upper) {
        remove(e.sector, e.sectors); // cuts nothing in two, since nothing crosses the bound
        raise_upper(e.sector, e.end());
        leaf = root_ ? descend(e.sector, path, upper) : nullptr;
    }
    if (!leaf) {
        leaf = make_leaf();
        root_ = leaf;
        height_ = 1;
    }
    Patch p = cut(*leaf, e.sector, e.end());
    add_to_patch(*leaf, p, e);
    splice(path, *leaf, p);
}

template <usize bytes>
u64 BasicExtentTree<bytes>::remove(u64 sector, u64 sectors) noexcept
{
    const u64 end = sector + sectors;
    u64 mapped = 0;
    while (sector < end && root_) {
        Path path;
        u64 upper;
        Leaf &leaf = *descend(sector, path, upper);
        const u64 stop = rt::min(end, upper);
        Patch p = cut(leaf, sector, stop);
        for (u32 i = p.first; i < p.last; i++)
            mapped += clip(unpack(leaf, i), sector, stop).sectors;
        if (p.first < p.last)
            splice(path, leaf, p);
        sector = stop;
    }
    return mapped;
}

template <usize bytes>
u32 BasicExtentTree<bytes>::remove_pointing_to(u64 sector, u32 sectors, Place place) noexcept
{
    const u64 first = sector;
    const u64 end = sector + sectors;
    u32 gone = 0;
    while (sector < end && root_) {
        Path path;
        u64 upper;
        Leaf &leaf = *descend(sector, path, upper);
        const u64 stop = rt::min(end, upper);
        u64 resume = stop;
        for (u32 i = first_behind(leaf, sector); i < leaf.count; i++) {
            if (start_of(leaf, i) >= stop)
                break;
            const Extent piece = clip(unpack(leaf, i), sector, stop);
            const u32 distance = static_cast<u32>(piece.sector - first);
            if (piece.place != Place{place.segment, place.sector + distance})
                continue;
            Patch p = cut(leaf, piece.sector, piece.end());
            gone += piece.sectors;
            resume = piece.end();
            splice(path, leaf, p); // moves entries about: what follows is looked up anew
            break;
        }
        sector = resume;
    }
    return gone;
}

template <usize bytes>
Run BasicExtentTree<bytes>::lookup(u64 sector, u32 sectors) const noexcept
{
    u64 upper;
    const Leaf *leaf = find(sector, upper);
    if (!leaf)
        return {sectors, false, 0, {}};
    const u32 n = starts_up_to(*leaf, sector);
    if (n) {
        const Extent e = unpack(*leaf, n - 1);
        const u64 skip = sector - e.sector;
        if (skip < e.sectors) {
            const u32 skipped = static_cast<u32>(skip);
            return {rt::min(sectors, e.sectors - skipped),
                    true,
                    static_cast<u8>(e.flags),
                    {e.place.segment, e.place.sector + skipped}};
        }
    }
    u64 end = sector + sectors;
    if (n < leaf->count) {
        end = rt::min(end, start_of(*leaf, n));
    } else if (upper < end && upper < sector_limit) {
        u64 ignored;
        end = rt::min(end, start_of(*find(upper, ignored), 0));
    }
    return {static_cast<u32>(end - sector), false, 0, {}};
}

template <usize bytes>
bool BasicExtentTree<bytes>::first_from(u64 sector, Extent &out) const noexcept
{
    u64 upper;
    const Leaf *leaf = find(sector, upper);
    if (!leaf)
        return false;
    u32 i = first_behind(*leaf, sector);
    if (i == leaf->count) {
        if (upper == sector_limit)
            return false;
        leaf = find(upper, upper);
        i = 0;
    }
    out = unpack(*leaf, i);
    return true;
}

template <usize bytes>
BasicExtentTree<bytes>::Cursor::Cursor(const BasicExtentTree &tree, u64 from, u64 to) noexcept
    : tree_(tree), leaf_(nullptr), from_(from), to_(rt::min(to, sector_limit)), upper_(0), index_(0)
{
    if (from >= to_)
        return;
    leaf_ = tree.find(from, upper_);
    if (leaf_)
        index_ = first_behind(*leaf_, from);
}

template <usize bytes>
bool BasicExtentTree<bytes>::Cursor::next(Extent &out) noexcept
{
    if (!leaf_)
        return false;
    if (index_ == leaf_->count) {
        leaf_ = upper_ < to_ ? tree_.find(upper_, upper_) : nullptr;
        index_ = 0;
        if (!leaf_)
            return false;
    }
    if (start_of(*leaf_, index_) >= to_) {
        leaf_ = nullptr;
        return false;
    }
    out = clip(unpack(*leaf_, index_++), from_, to_);
    return true;
}

} // namespace pcache::engine
