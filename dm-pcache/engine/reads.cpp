// SPDX-License-Identifier: GPL-2.0
// engine/reads.cpp - the way of a read: look up under the shard's lock, copy without it, inside an
// epoch (the caller's, Cache::map). A read that is partly cached is cut: the leading run is served,
// device-mapper maps the rest anew. A hit that cannot be copied goes to a worker (damage.hpp).
//
// A miss is read from the backing device and put into the cache (fills.hpp), as a CLEAN key. Why
// that is legal, in mode writeback: the look that finds no data, or a ghost of clean data, says
// that no dirty key of the range is in the log, since a key leaves the index only when key tail has
// durably passed it, and GC stops at dirty tail. So all that was ever written to the range through
// this cache is behind a FLUSH of the backing device, the one in front of dirty tail's move, and
// all that was written by others before is behind the one at activation. A write to the range that
// comes later cancels the fill, or stands behind its key in the log.
// Not cached is what would cost somebody something: see fill_wanted().
#include "dm-pcache/engine/lookup.hpp"
#include "dm-pcache/engine/parts.hpp"
#include "dm-pcache/engine/shard_of.hpp"
#include "dm-pcache/format/crc32c.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::engine
{

namespace
{
constexpr int end_ok = 0;
constexpr int end_io_error = rt::to_errno(rt::Error::io);
constexpr int end_again = rt::to_errno(rt::Error::again);
constexpr u32 fill_most_sectors = fill_max_pages * fill_page_bytes / format::sector_bytes;
} // namespace

namespace
{
// Copies the pieces of a hit; those of one key while it is summed, once. Error::io: the one at
// `bad` cannot be read, or is not what was written.
rt::Error copy_hits(const media::Device &device, pc_bio *bio, const Leading &l, const Checksum *key,
                    u32 &bad) noexcept
{
    u32 offset[extents_per_read], done = 0;
    for (u32 i = 0, at = 0; i < l.pieces; at += l.piece[i++].sectors * format::sector_bytes)
        offset[i] = at;
    for (bad = 0; bad < l.pieces; bad++) {
        const Leading::Piece &p = l.piece[bad];
        if (!key) {
            RT_TRY(load_hit(device, bio, offset[bad], p.place, p.sectors));
            continue;
        }
        if (done >> bad & 1)
            continue;
        // Keys of one place, which nobody writes, may bring a sum that reaches into a bad page.
        const Checksum &k = key[bad];
        if (!k.covers(p.place, p.sectors) || reaches_bad_page(device, k))
            return rt::Error::io;
        pc_piece piece[extents_per_read];
        u32 n = 0;
        const auto skip = [&](u32 i) {
            return (l.piece[i].place.sector - k.place.sector) * format::sector_bytes;
        };
        for (u32 i = bad; i < l.pieces; i++) {
            // Of nobody's keys pieces may be in any order.
            const bool in_line = offset[i] - skip(i) == offset[bad] - skip(bad);
            if (!(key[i] == k) || !in_line || !k.covers(l.piece[i].place, l.piece[i].sectors))
                continue;
            piece[n++] = {skip(i), l.piece[i].sectors * format::sector_bytes, offset[i]};
            done |= 1u << i;
            if (mutant(Mutant::key_summed_per_piece))
                break;
        }
        RT_TRY(media::persist::verify_to_bio(bio, summed(device, k), piece, n));
    }
    return rt::Error::none;
}
} // namespace

pc_verdict Cache::map_read(pc_bio *bio, void *memory, const pc_io &io, pc_rio *&send) noexcept
{
    Checksum key[extents_per_read];
    Leading l;
    const u64 sector = io.offset / format::sector_bytes;
    const u32 sectors = io.length / format::sector_bytes;
    Shard &s = parts_->shards[shard_of(io.offset)];
    u32 summed = 0;

    parts_->heads.note();
    {
        rt::Guard g(s.lock);
        look_up(s.tree, sector, sectors, l);
        if (data_crc_ && l.kind == Found::data && !find_keys(s.sums, sectors, l, key))
            summed = summed_extent(s.tree, sector, sectors, l, key[0]);
    }
    if (l.kind == Found::nothing)
        return map_miss(bio, io, l.sectors, send);
    if (summed)
        return read_summed(bio, memory, io, summed);
    if (l.sectors < sectors)
        pc_bio_accept(bio, l.sectors * format::sector_bytes);
    if (l.kind == Found::lost) {
        pc_bio_end(bio, end_io_error);
        return PC_TAKEN;
    }
    u32 bad;
    if (!ok(copy_hits(device_, bio, l, data_crc_ ? key : nullptr, bad))) {
        parts_->damage.segment_is_bad({l.piece[bad].place.segment});
        if (state() == State::running)
            reclaim_work_.kick(); // are there enough left?
        return read_damaged(bio, memory, io, l.sectors);
    }
    pc_bio_end(bio, end_ok);
    return PC_TAKEN;
}

// The first `sectors` of the request have keys too long to be summed here.
pc_verdict Cache::read_summed(pc_bio *bio, void *memory, const pc_io &io, u32 sectors) noexcept
{
    if (sectors * format::sector_bytes < io.length)
        pc_bio_accept(bio, sectors * format::sector_bytes);
    if (io.nowait && !mutant(Mutant::nowait_read_waits)) {
        pc_bio_end(bio, end_again);
        return PC_TAKEN;
    }
    Request &r = *::new (memory) Request;
    r.bio = bio;
    r.reservation.next_sector = io.offset / format::sector_bytes;
    r.reservation.sectors_left = sectors;
    parts_->summed_reads.read(r);
    return PC_TAKEN;
}

// In every state: what accept_loss makes anew must know it, too.
void Cache::summed_read_met(SegmentId unreadable) noexcept
{
    if (!mutant(Mutant::summed_read_notes_nothing))
        parts_->damage.segment_is_bad(unreadable);
}

// False: the read ends with EIO (see read_damaged()).
bool Cache::summed_read_failed(Request &r) noexcept
{
    const EpochGuard epoch; // whoever stops the damage worker waits for us
    const State now = state();
    if (now == State::read_only || now == State::failed)
        return false;
    parts_->damage.read_failed(r);
    return true;
}

// A hit among the first `sectors` of the request could not be copied: a worker finds out what that
// means.
pc_verdict Cache::read_damaged(pc_bio *bio, void *memory, const pc_io &io, u32 sectors) noexcept
{
    const State now = state();
    // Read-only: without a log that counts nobody can tell what is clean.
    const bool given_up = now == State::read_only || now == State::failed;
    if (given_up || io.nowait) {
        pc_bio_end(bio, given_up ? end_io_error : end_again);
        return PC_TAKEN;
    }
    Request &r = *::new (memory) Request;
    r.bio = bio;
    r.reservation.next_sector = io.offset / format::sector_bytes;
    r.reservation.sectors_left = sectors;
    parts_->damage.read_failed(r);
    return PC_TAKEN;
}

// ---- fills --------------------------------------------------------------------------------

// Racy. False while writes are waiting or short of space, tickets or index nodes: those are theirs.
bool Cache::fill_wanted() const noexcept
{
    const Parts &p = *parts_;
    return state() == State::running && !anybody_waiting() && !p.tickets.low() &&
           p.segments.free_count() >= low_water() &&
           p.budget.used() < p.budget.limit() - p.budget.limit() / fill_index_share;
}

// The first `sectors` of the request miss. `send`: see map().
pc_verdict Cache::map_miss(pc_bio *bio, const pc_io &io, u32 sectors, pc_rio *&send) noexcept
{
    const u64 sector = io.offset / format::sector_bytes;
    const u32 wanted = rt::min(sectors, fill_most_sectors);
    Shard &s = parts_->shards[shard_of(io.offset)];
    Fill *f = fill_wanted() ? parts_->fills.take(sector, wanted) : nullptr;
    bool entered = false;
    if (f) {
        rt::Guard g(s.lock);
        // A write may have come meanwhile. Then this read has overlapped it, and the backing
        // device's answer is as good.
        entered = nothing_cached(s.tree, sector, wanted) && s.fills.enter(*f);
    }
    const u32 taken = entered ? wanted : sectors;
    if (taken * format::sector_bytes < io.length)
        pc_bio_accept(bio, taken * format::sector_bytes);
    if (entered)
        send = parts_->fills.read(*f, bio, backing_, io.nowait);
    if (send) {
        if (mutant(Mutant::fill_sent_in_epoch)) {
            pc_rio_submit(send);
            send = nullptr;
        }
        return PC_TAKEN;
    }
    if (entered) {
        rt::Guard g(s.lock);
        s.fills.leave(*f);
    }
    if (f)
        parts_->fills.give(*f);
    return PC_REMAP;
}

// In a worker; the bio has been answered.
void Cache::fill_ended(Fill &f) noexcept
{
    if (!f.error && fill_wanted())
        insert_fill(f);
    Shard &s = parts_->shards[shard_of(f.sector * format::sector_bytes)];
    rt::Guard g(s.lock);
    s.fills.leave(f);
}

// All of it, or what goes in: nobody waits for the rest.
void Cache::insert_fill(Fill &f) noexcept
{
    Reservation r;
    r.next_sector = f.sector;
    r.sectors_left = f.sectors;
    bool staged = false;
    if (parts_->heads.reserve(r, key_sectors_)) {
        copy_fill(f, r);
        staged = stage_fill(f, r);
    }
    if (r.tickets.front()) {
        if (parts_->heads.cancel(r))
            reclaim_work_.kick();
        if (front_short_.read())
            admit_work_.kick();
    }
    if (r.refilled && parts_->tickets.low())
        parts_->log.kick();
    if (staged) {
        parts_->log.staged_first();
        reclaim_work_.kick_after(idle_before_write_back);
    }
    tell_of_staged();
}

void Cache::copy_fill(const Fill &f, const Reservation &r) noexcept
{
    const media::Pin pin;
    u32 at = 0; // in the fill
    for (Ticket *t = r.tickets.front(); t; t = t->link.next) {
        u32 crc = format::crc_seed;
        const u8 *to =
            device_.data({t->place.segment}) + u64{t->place.sector} * format::sector_bytes;
        for (u32 left = t->sectors * format::sector_bytes; left;) {
            const u32 in_page = at % fill_page_bytes;
            const u32 n = rt::min(left, fill_page_bytes - in_page);
            const u8 *from = parts_->fills.page(f, at / fill_page_bytes) + in_page;
            media::persist::store(pin, to, from, n);
            if (data_crc_) // the pages are nobody else's
                crc = format::crc32c(crc, from, n);
            to += n;
            at += n;
            left -= n;
        }
        if (data_crc_)
            t->data_crc = crc;
    }
    if (!mutant(Mutant::fill_without_fence))
        media::persist::fence(pin);
}

// Index entry and staged key, as for a write, unless the fill has been cancelled. What is left in
// `r` was not staged. True: the caller shall call staged_first().
bool Cache::stage_fill(Fill &f, Reservation &r) noexcept
{
    const u32 shard = shard_of(f.sector * format::sector_bytes);
    Shard &s = parts_->shards[shard];
    bool first = false;
    while (Ticket *t = r.tickets.front()) {
        {
            rt::Guard g(s.lock);
            if (f.cancelled || !nothing_cached(s.tree, t->sector, t->sectors))
                return first;
            if (s.can_operate(1)) {
                t->flags = mutant(Mutant::fill_marked_dirty) ? 0 : format::key_clean;
                s.insert_key({t->sector, t->sectors, t->place}, t->data_crc);
                s.staged.push_back(*r.tickets.pop_front());
                s.staged_count++;
                first |= parts_->log.mark_staged(shard);
                continue;
            }
        }
        if (!s.provide(1, parts_->budget, PC_NOWAIT))
            return first;
    }
    return first;
}

} // namespace pcache::engine
