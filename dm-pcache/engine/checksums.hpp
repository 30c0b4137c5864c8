// SPDX-License-Identifier: GPL-2.0
// engine/checksums.hpp - with data_crc: what the data of each key on media sums up to, and the
// verification of data when it is first used.
//
// One index a shard, beside its extents: from the place of a key's data on the cache device to its
// length and crc. It is an extent tree without merging, keyed by cache address (segment * 2^15 +
// sector), whose 35 bits of place hold the 32 of the crc; so an entry costs what an extent does.
//
// Invariants
//  C1 Entries are those of the keys between key tail and head (or staged) that are not stale, made
//     under the shard's lock in one step with the extent, and removed when GC passes the key:
//     overridden ones included, since write-back may still send them.
//  C2 Entries are never cut: of two that overlap the later one stays and the earlier one goes as a
//     whole. Keys overlap on media only if the later one is the earlier one logged again (its data
//     cannot be read) or the media was made up; either way what has no entry any more is not
//     readable, and that is an error of that range, never wrong data.
//  C3 Extents of the index are pieces of one key, since nothing is merged with data_crc.
//
// Locking: the shard's lock guards its Checksums. Summing is done without it, inside an epoch or in
// front of dirty tail, where nothing is reused.
#pragma once
#include "dm-pcache/engine/extent_tree.hpp"
#include "dm-pcache/media/device.hpp"
#include "dm-pcache/media/persist.hpp"

namespace pcache::engine
{

class Shard;

// The data of one key on media.
struct Checksum {
    Place place;
    u32 sectors = 0; // 1 .. extent_max_sectors; 0: none
    u32 crc = 0;
    // Does it cover that much from `p` on?
    constexpr bool covers(Place p, u32 count) const noexcept
    {
        return p.segment == place.segment && p.sector >= place.sector &&
               p.sector - place.sector <= sectors && count <= sectors - (p.sector - place.sector);
    }
    friend constexpr bool operator==(const Checksum &, const Checksum &) = default;
};

class Checksums : rt::NonCopyable
{
public:
    // `pool` gives the nodes, as for the tree of extents.
    explicit Checksums(NodePool &pool) noexcept : tree_(pool, false) {}

    // Before anything is in it. Without, it stays empty and all of it is free of cost.
    void turn_on() noexcept { on_ = true; }
    bool on() const noexcept { return on_; }

    // Nodes that so many insert() can take at most, one each with the extent's; remove() takes
    // none.
    usize nodes_for(u32 operations) const noexcept { return on_ ? tree_.nodes_for(operations) : 0; }
    // Needs nodes_for(1) in the pool. Nothing happens if it is off.
    void insert(const Checksum &c) noexcept;
    // Takes this very entry out; another one that lies there by now stays.
    void remove(const Checksum &c) noexcept;
    // The entry that covers this sector of the cache; sectors is 0 if there is none.
    Checksum find(Place p) const noexcept;
    // How many of these sectors are in one key, which is then in `c`, or in none (c.sectors is 0).
    u32 run(Place p, u32 sectors, Checksum &c) const noexcept;
    void clear() noexcept { tree_.clear(); }

    usize count() const noexcept { return tree_.count(); }
    usize nodes() const noexcept { return tree_.nodes(); }

private:
    static constexpr u64 address(Place p) noexcept { return u64{p.segment} << 15 | p.sector; }
    static constexpr Extent pack(const Checksum &c) noexcept;
    static constexpr Checksum unpack(const Extent &e) noexcept;

    ExtentTree tree_;
    bool on_ = false;
};

// The data that `c` is about.
inline media::persist::SummedData summed(const media::Device &device, const Checksum &c) noexcept
{
    return {device.data({c.place.segment}) + u64{c.place.sector} * format::sector_bytes,
            c.sectors * format::sector_bytes, c.crc};
}

// Whether some of it lies in a page known to be bad: such data is not loaded.
bool reaches_bad_page(const media::Device &device, const Checksum &c) noexcept;

// Whether all of the key's data can be read and is what was written. A page known to be bad is not
// loaded from. Never sleeps.
bool can_be_read(const media::Device &device, const Checksum &c) noexcept;

// Copies a piece of a hit to the bio; without data_crc. Error::io: it cannot be read. Never sleeps;
// inside the epoch of the look-up.
rt::Error load_hit(const media::Device &device, pc_bio *bio, u32 bio_offset, Place place,
                   u32 sectors) noexcept;

// Verifies what write-back is about to send. Remembers a few keys: one that was overwritten in its
// middle comes in several pieces, and need not be read for each. Pieces come in ascending order, so
// what reaches furthest on the backing device is remembered longest. One thread at a time.
class Verifier : rt::NonCopyable
{
public:
    Verifier(const media::Device &device, Shard *shards) noexcept : device_(device), shards_(shards)
    {
    }
    // A batch begins: what was verified before is verified anew.
    void forget() noexcept;
    // Whether all of the key that this piece lies in can be read and is what was written. True if
    // data_crc is off. Reads at most one key's data; takes the shard's lock; never sleeps.
    bool good(const Extent &piece) noexcept;

private:
    static constexpr u32 remembered = 8;
    const media::Device &device_;
    Shard *shards_;
    struct Known {
        Checksum key;
        u64 begin = 0, end = 0; // on the backing device, where pieces of it may still come
        bool good = false;
    } known_[remembered];
};

} // namespace pcache::engine
