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

// sectors >= 1. `l` as constructed.
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
    }
}

// With data_crc: the keys that the pieces of `l` are pieces of. What goes beyond
// summed_bytes_per_read is cut off: the caller comes again.
inline void find_keys(const Checksums &sums, Leading &l, Checksum (&key)[extents_per_read]) noexcept
{
    u32 bytes = 0;
    for (u32 i = 0, before = 0; i < l.pieces; i++) {
        key[i] = sums.find(l.piece[i].place);
        bytes += key[i].sectors * format::sector_bytes;
        if (i && bytes > summed_bytes_per_read) {
            l.pieces = i;
            l.sectors = before;
            return;
        }
        before += l.piece[i].sectors;
    }
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
