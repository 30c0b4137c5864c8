// SPDX-License-Identifier: GPL-2.0
// engine/extent_tree_body.hpp - the operations of the extent index, included where a node size is
// instantiated: extent_tree.cpp (the engine's) and the tests (tiny nodes, for deep trees).
//
// Contracts, invariants I1 - I4 and locking: extent_tree.hpp. No frame above 512 B.
#pragma once
#include "dm-pcache/engine/extent_tree_nodes.hpp"

namespace pcache::engine
{

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

// What nearly every insert is: the very range of an older extent, or a place in a hole, with room
// in the leaf and nothing to be joined. False: it is not, and nothing was done.
template <usize bytes>
[[gnu::always_inline]] inline bool BasicExtentTree<bytes>::insert_alone(Leaf &leaf,
                                                                        const Extent &e) noexcept
{
    const Packed packed = pack(e);
    const u32 behind = starts_up_to(leaf, e.sector);
    const bool same = behind && (leaf.key[behind - 1] ^ packed.key) >> 5 == 0;
    const u32 at = behind - same;
    if (!same && leaf.count == leaf_capacity)
        return false;
    if (at) {
        const u64 end = end_of(leaf, at - 1);
        if (end > e.sector || (end == e.sector && merge_ && joins(unpack(leaf, at - 1), e)))
            return false;
    }
    if (behind < leaf.count) {
        const u64 next = start_of(leaf, behind);
        if (next < e.end() || (next == e.end() && merge_ && joins(e, unpack(leaf, behind))))
            return false;
    }
    if (!same) {
        transfer(leaf, behind + 1, leaf, behind, leaf.count - behind);
        leaf.count++;
        count_++;
    }
    leaf.key[at] = packed.key;
    leaf.rest[at] = packed.rest;
    return true;
}

template <usize bytes>
void BasicExtentTree<bytes>::insert(const Extent &e) noexcept
{
    RT_ASSERT(e.sectors && e.sector / range_sectors == (e.end() - 1) / range_sectors);
    RT_ASSERT(e.place.sector + e.sectors <= 1u << 15);
    insert_whole(e);
}

template <usize bytes>
void BasicExtentTree<bytes>::insert_whole(const Extent &e) noexcept
{
    RT_ASSERT(e.sectors && e.sectors <= extent_max_sectors && e.end() <= sector_limit);
    RT_ASSERT(e.place.segment < 1u << 20 && e.place.sector < 1u << 15 && e.flags < 4);
    Path path;
    u64 upper = sector_limit;
    Leaf *leaf = root_ ? descend(e.sector, path, upper) : nullptr;
    if (leaf && e.end() <= upper && insert_alone(*leaf, e))
        return;
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

// Where the first extent of the leaf that begins at `bound` starts.
template <usize bytes>
[[gnu::noinline]] u64 BasicExtentTree<bytes>::first_start(u64 bound) const noexcept
{
    u64 upper;
    return start_of(*find(bound, upper), 0);
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
    const u64 end = sector + sectors;
    u64 next = end;
    if (n < leaf->count)
        next = start_of(*leaf, n);
    else if (upper < end)
        next = first_start(upper);
    return {static_cast<u32>(rt::min(next, end) - sector), false, 0, {}};
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
