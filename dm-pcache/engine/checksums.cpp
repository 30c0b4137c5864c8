// SPDX-License-Identifier: GPL-2.0
// engine/checksums.cpp - see checksums.hpp.
#include "dm-pcache/engine/checksums.hpp"
#include "dm-pcache/engine/shard.hpp"
#include "dm-pcache/engine/shard_of.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::engine
{

namespace
{
constexpr u32 low_bits = 15; // of the crc in the place's sector
constexpr u32 low_mask = (1u << low_bits) - 1;
} // namespace

constexpr Extent Checksums::pack(const Checksum &c) noexcept
{
    return {address(c.place), c.sectors, {c.crc >> low_bits, c.crc & low_mask}, extent_flag::live};
}

constexpr Checksum Checksums::unpack(const Extent &e) noexcept
{
    return {{static_cast<u32>(e.sector >> low_bits), static_cast<u32>(e.sector) & low_mask},
            e.sectors,
            e.place.segment << low_bits | e.place.sector};
}

void Checksums::insert(const Checksum &c) noexcept
{
    if (!on_)
        return;
    const u64 from = address(c.place), end = from + c.sectors;
    Extent first, last;
    if (tree_.first_from(from, first) && first.sector < end &&
        !(first.sector == from && first.end() == end)) {
        // What it overlaps goes as a whole (C2). Taking whole extents out needs no node.
        const u64 whole_from = rt::min(first.sector, from);
        const bool at_end = tree_.first_from(end - 1, last) && last.sector < end;
        const u64 whole_end = at_end ? rt::max(last.end(), end) : end;
        (void)tree_.remove(whole_from, whole_end - whole_from);
    }
    tree_.insert_whole(pack(c));
}

void Checksums::remove(const Checksum &c) noexcept
{
    if (on_ && find(c.place) == c)
        (void)tree_.remove(address(c.place), c.sectors);
}

Checksum Checksums::find(Place p) const noexcept
{
    Extent e;
    if (!tree_.first_from(address(p), e) || e.sector > address(p))
        return {};
    return unpack(e);
}

u32 Checksums::run(Place p, u32 sectors, Checksum &c) const noexcept
{
    Extent e;
    const u64 at = address(p);
    c = {};
    if (!tree_.first_from(at, e))
        return sectors;
    if (e.sector > at)
        return static_cast<u32>(rt::min<u64>(sectors, e.sector - at));
    c = unpack(e);
    return static_cast<u32>(rt::min<u64>(sectors, e.end() - at));
}

bool reaches_bad_page(const media::Device &device, const Checksum &c) noexcept
{
    const u64 offset =
        device.data_offset({c.place.segment}) + u64{c.place.sector} * format::sector_bytes;
    return device.known_bad(offset, u64{c.sectors} * format::sector_bytes);
}

bool can_be_read(const media::Device &device, const Checksum &c) noexcept
{
    return !reaches_bad_page(device, c) && ok(media::persist::verify(summed(device, c)));
}

rt::Error load_hit(const media::Device &device, pc_bio *bio, u32 bio_offset, Place place,
                   u32 sectors) noexcept
{
    return media::persist::load_to_bio(
        bio, bio_offset, device.data({place.segment}) + u64{place.sector} * format::sector_bytes,
        sectors * format::sector_bytes);
}

void Verifier::forget() noexcept
{
    for (Known &k : known_)
        k = {};
}

bool Verifier::good(const Extent &piece) noexcept
{
    Shard &s = shards_[shard_of(piece.sector * format::sector_bytes)];
    Checksum c;
    {
        rt::Guard g(s.lock);
        if (!s.sums.on())
            return true;
        c = s.sums.find(piece.place);
    }
    if (!c.covers(piece.place, piece.sectors))
        return false;
    Known *oldest = &known_[0];
    for (Known &k : known_) {
        if (k.key == c && !mutant(Mutant::verified_per_piece))
            return k.good;
        if (piece.sector < k.begin) // another shard's turn has begun
            k.end = 0;
        if (k.end < oldest->end)
            oldest = &k;
    }
    const u64 end = piece.sector + (c.sectors - (piece.place.sector - c.place.sector));
    *oldest = {c, piece.sector, end, can_be_read(device_, c)};
    return oldest->good;
}

} // namespace pcache::engine
