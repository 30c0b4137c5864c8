// SPDX-License-Identifier: GPL-2.0
// engine/lookup.hpp - what the index says about a read. Pure functions on a tree; the caller holds
// its shard's lock.
#pragma once
#include "dm-pcache/engine/checksums.hpp"
#include "dm-pcache/engine/extent_tree.hpp"
#include "dm-pcache/engine/limits.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::engine
{

enum class Found : u8 {
    data,    // cached
    nothing, // a hole, or the ghost of clean data: the backing device has it
    lost     // dirty data that cannot be read
};

// The leading run of a request, all of one kind.
struct Leading {
    struct Piece {
        Place place;
        u32 sectors;
    };
    Found kind = Found::nothing;
    u32 sectors = 0;
    u32 pieces = 0; // of data
    Piece piece[extents_per_read];
};

inline Found kind_of(const Run &run) noexcept
{
    if (!run.hit || run.flags == extent_flag::ghost)
        return Found::nothing;
    if (mutant(Mutant::lost_read_elsewhere) && run.flags == extent_flag::lost)
        return Found::nothing;
    return run.flags == extent_flag::live ? Found::data : Found::lost;
}

// sectors >= 1. `l` as constructed. What is to be read from the backing device ends where a block
// of it ends, or where data begins, or the read: ghosts may be smaller than its blocks
// (block_fit.hpp).
inline void look_up(const ExtentTree &tree, u64 sector, u32 sectors, Leading &l) noexcept
{
    for (u32 n = 0; n < extents_per_read && l.sectors < sectors; n++) {
        const Run run = tree.lookup(sector + l.sectors, sectors - l.sectors);
        if (n == 0)
            l.kind = kind_of(run);
        else if (kind_of(run) != l.kind)
            break;
        if (l.kind == Found::data)
            l.piece[l.pieces++] = {run.place, run.sectors};
        l.sectors += run.sectors;
        if (n + 1 == extents_per_read && l.kind == Found::nothing && l.sectors < sectors)
            l.sectors = static_cast<u32>(
                rt::round_down<u64>(sector + l.sectors, format::page_bytes / format::sector_bytes) -
                sector);
    }
}

// With data_crc: the keys that the pieces of `l`, a read of `sectors`, are pieces of. What makes it
// more than summed_bytes_per_read is cut off, and so is a key that the rest of the read may want,
// too: each is summed once. False: nothing is left, see summed_extent().
inline bool find_keys(const Checksums &sums, u32 sectors, Leading &l,
                      Checksum (&key)[extents_per_read]) noexcept
{
    u32 bytes = 0, before = 0, reach = 0, fit = 0, fit_sectors = 0;
    for (u32 i = 0; i < l.pieces; i++) {
        const Leading::Piece &p = l.piece[i];
        key[i] = sums.find(p.place);
        bool known = false;
        for (u32 j = 0; j < i && !known; j++)
            known = key[j] == key[i];
        bytes += known ? 0 : key[i].sectors * format::sector_bytes;
        if (bytes > summed_bytes_per_read && !mutant(Mutant::summed_in_map))
            break;
        if (key[i].covers(p.place, p.sectors))
            reach =
                rt::max(reach, before + key[i].sectors - (p.place.sector - key[i].place.sector));
        before += p.sectors;
        if (rt::min(reach, sectors) <= before || mutant(Mutant::key_summed_per_piece)) {
            fit = i + 1;
            fit_sectors = before;
        }
    }
    if (!fit)
        return false;
    l.pieces = fit;
    l.sectors = fit_sectors;
    return true;
}

// The worker's share of a read of which find_keys() left nothing: all of its first key, holes
// inside included, and what data follows without a hole.
inline u32 summed_extent(const ExtentTree &tree, u64 sector, u32 sectors, const Leading &l,
                         const Checksum &first) noexcept
{
    u32 end = first.sectors - (l.piece[0].place.sector - first.place.sector);
    auto cursor = tree.cursor(sector + rt::min(end, sectors), sector + sectors);
    for (Extent e; end < sectors && cursor.next(e); end = static_cast<u32>(e.end() - sector))
        if (e.sector != sector + end || e.flags != extent_flag::live)
            break;
    return rt::min(end, sectors);
}

// No data there, and no dirty key of it in the log.
inline bool nothing_cached(const ExtentTree &tree, u64 sector, u32 sectors) noexcept
{
    bool nothing = true;
    tree.for_each(sector, sectors, [&](const Extent &e) {
        const bool ghost = e.flags == extent_flag::ghost ||
                           (mutant(Mutant::fill_over_lost) && e.flags == extent_flag::lost);
        nothing = nothing && ghost;
    });
    return nothing;
}

} // namespace pcache::engine
