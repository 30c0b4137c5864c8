// SPDX-License-Identifier: GPL-2.0
// engine/read_only_resume.cpp - the resume of a cache that is read-only: what was done around it
// while the device was suspended must not be undone by what the index still has. See read_only.cpp.
//
// All of this runs while nobody is in map() and no worker does anything. Nothing is stored.
#include "dm-pcache/engine/parts.hpp"
#include "dm-pcache/engine/shard_of.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::engine
{

using format::sector_bytes;

namespace
{

// Holds what the index has behind the sector `first` against the keys of the log.
struct Beyond {
    const Shard *shards;
    u64 first;
    bool dirty = false;
    u64 clean = 0; // sectors of the index that a key proves to be clean

    rt::Error key(const media::ReplayedKey &k) noexcept
    {
        const u64 sector = k.offset / sector_bytes, end = sector + k.length / sector_bytes;
        if (end <= first || k.stale)
            return rt::Error::none;
        dirty = dirty || k.dirty;
        const Place place{k.segment.value, k.segment_offset / sector_bytes};
        const u64 from = rt::max(sector, first);
        shards[shard_of(k.offset)].tree.for_each(from, end - from, [&](const Extent &e) {
            const Place here{place.segment, place.sector + static_cast<u32>(e.sector - sector)};
            if (e.flags == extent_flag::live && e.place == here)
                clean += e.sectors;
        });
        return rt::Error::none;
    }
};

} // namespace

// The table may grow again, and who knows what was done there meanwhile.
void Cache::drop_beyond_table() noexcept
{
    const u64 end = pc_backing_bytes(backing_);
    if (length_ < end)
        parts_->gc.drop_beyond(length_ / sector_bytes, end / sector_bytes);
}

// A shorter table is taken if all that the index has beyond its end is clean. A log with a hole
// proves that for the keys that can be read alone.
rt::Error Cache::fit_read_only_table(media::Activation &activation, const media::Inspection &in,
                                     media::Refusal &why) noexcept
{
    const u64 first = length_ / sector_bytes, end = pc_backing_bytes(backing_) / sector_bytes;
    Beyond beyond{parts_->shards, first};
    u64 held = 0;
    for (const Shard &s : parts_->shards)
        s.tree.for_each(first, end - first, [&](const Extent &e) {
            held += e.flags == extent_flag::ghost ? 0 : e.sectors;
        });
    if (in.damage && held) {
        if (!ok(activation.replay(in, beyond)))
            return media::refuse(why, rt::Error::io, media::unread_log_sentence);
        if (beyond.dirty || beyond.clean < held)
            return media::refuse(why, rt::Error::invalid, media::short_read_only_sentence);
    }
    drop_beyond_table();
    return rt::Error::none;
}

// Refused, the device stays suspended, and the resume may be tried again.
rt::Error Cache::fit_read_only(media::Refusal &why) noexcept
{
    if (state() != State::read_only)
        return rt::Error::none;
    wait_until_settled();
    // Behind step 2 of accept_loss there is no index, and nothing that is dirty.
    if (state() != State::read_only || read_only_.index_gone.read())
        return rt::Error::none;
    if (length_ < fitted_length_ && !mutant(Mutant::read_only_table_not_fitted)) {
        media::Activation activation(device_, host_);
        media::BackingFacts facts = backing_facts();
        media::Inspection in;
        facts.changed_read_only = true;
        RT_TRY(activation.inspect(facts, in, why));
        RT_TRY(fit_read_only_table(activation, in, why));
    }
    fitted_length_ = length_;
    return rt::Error::none;
}

} // namespace pcache::engine
