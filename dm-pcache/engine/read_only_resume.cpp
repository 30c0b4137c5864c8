// SPDX-License-Identifier: GPL-2.0
// engine/read_only_resume.cpp - the resume of a cache that is read-only: what was done around it
// while the device was suspended must not be undone by what the index still has. See read_only.cpp.
//
// All of this runs while nobody is in map() and no worker does anything. Nothing is stored.
#include "dm-pcache/engine/parts.hpp"
#include "dm-pcache/engine/shard_of.hpp"
#include "dm-pcache/media/disk_blocks.hpp"
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
    // Of what was given up the log knows nothing, and may be whole.
    const bool unproved =
        in.damage || (parts_->log.gave_up() && !mutant(Mutant::given_up_taken_for_clean));
    if (unproved && held) {
        if (!ok(activation.replay(in, beyond)))
            return media::refuse(why, rt::Error::io, media::unread_log_sentence);
        if (beyond.dirty || beyond.clean < held)
            return media::refuse(why, rt::Error::invalid, media::short_read_only_sentence);
    }
    drop_beyond_table();
    return rt::Error::none;
}

// The backing device was changed: what is not dirty by the log counts for nothing any more, and the
// index does not know what that is. So it is made anew, as by an activation over such a device.
rt::Error Cache::make_index_anew(media::Activation &activation, media::Inspection &in,
                                 media::Refusal &why) noexcept
{
    u64 dirty_bytes = 0;
    activation.tell_changed_disk(in);
    read_only_.index_partial = true;
    if (parts_->log.gave_up())
        pc_log(host_, PC_ERR,
               "dirty data that is in no record of the log is lost: the index cannot tell it from "
               "clean data of a device that was changed");
    parts_->gc.drop_beyond(0, pc_backing_bytes(backing_) / sector_bytes);
    if (const rt::Error e = recover_index(activation, in, dirty_bytes); !ok(e))
        return refuse_recovery(why, e);
    drop_beyond_table();
    parts_->gc.key_tail().set(in.key_tail);
    parts_->write_back.dirty_tail().set(in.dirty_tail);
    note_read_only(in, in.damage ? in.read_only_sentence() : read_only_.why);
    tell_read_only();
    return rt::Error::none;
}

rt::Error Cache::fit_read_only_as_inspected(media::Activation &activation, media::Inspection &in,
                                            media::Refusal &why) noexcept
{
    const bool news = in.clean_ignored() && !read_only_.changed_disk;
    if ((news && !mutant(Mutant::clean_trusted_at_resume)) || read_only_.index_partial)
        RT_TRY(make_index_anew(activation, in, why));
    else if (length_ < fitted_length_ && !mutant(Mutant::read_only_table_not_fitted))
        RT_TRY(fit_read_only_table(activation, in, why));
    read_only_.disk_unsure = false;
    return rt::Error::none;
}

// A read-only cache stores nothing, so this is known in memory alone. A noflush suspend asks the
// backing device for nothing.
void Cache::learn_disk_read_only() noexcept
{
    read_only_.disk = {};
    if (!push_back_.read() && !read_only_.index_gone.read() &&
        !mutant(Mutant::read_only_disk_not_learned))
        (void)media::learn_disk(backing_, backing_facts().served(), uuid_.byte, read_only_.disk);
}

void Cache::compare_disk_read_only(media::Inspection &in) noexcept
{
    u32 differ = 0;
    if (read_only_.disk.empty() ||
        !ok(media::compare_disk(backing_, backing_facts().served(), uuid_.byte, read_only_.disk,
                                differ)) ||
        !differ)
        return;
    in.disk.known |= differ;
    in.disk_differs |= differ;
    if (!in.damage)
        in.damage = media::damage::changed_disk;
}

// Refused, the device stays suspended, and the resume may be tried again. Only to look whether the
// device is still the same is no reason for that: accept_loss looks once more.
rt::Error Cache::fit_read_only(media::Refusal &why) noexcept
{
    if (state() != State::read_only)
        return rt::Error::none;
    wait_until_settled();
    // Behind step 2 of accept_loss there is no index, and nothing that is dirty.
    if (state() != State::read_only || read_only_.index_gone.read())
        return rt::Error::none;
    const bool must =
        length_ < fitted_length_ || read_only_.disk_unsure || read_only_.index_partial;
    // At run time the disk record is empty, but where the state began in a resume that emptied
    // none. Behind a noflush suspend the backing device may not answer, and is not asked just to
    // look.
    const bool known =
        !read_only_.at_run_time || !parts_->metadata.disk().empty() || !read_only_.disk.empty();
    const bool ask = !push_back_.read() || mutant(Mutant::noflush_resume_looks);
    if (must || (known && ask)) {
        media::Activation activation(device_, host_);
        media::BackingFacts facts = backing_facts();
        media::Inspection in;
        facts.changed_read_only = true;
        const rt::Error e = activation.inspect(facts, in, why);
        if (!ok(e) && must)
            return e;
        if (ok(e))
            compare_disk_read_only(in);
        if (ok(e))
            RT_TRY(fit_read_only_as_inspected(activation, in, why));
    }
    why = {};
    fitted_length_ = length_;
    read_only_.disk = {}; // seen to
    return rt::Error::none;
}

} // namespace pcache::engine
