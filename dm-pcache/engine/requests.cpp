// SPDX-License-Identifier: GPL-2.0
// engine/requests.cpp - reads, writes and FLUSHes of the upper layer. See cache.hpp for their way.
//
// Waiting writes: one queue, served in order by the admit worker, which alone takes from its front.
// While anybody waits, every new write queues behind. Whoever frees what they may wait for (space,
// tickets, room in the log, index nodes) kicks the worker; a write that starts to wait kicks it,
// too, since what it lacked may have come meanwhile. Nothing is polled.
#include "dm-pcache/engine/parts.hpp"
#include "dm-pcache/engine/shard_of.hpp"

namespace pcache::engine
{

namespace
{
constexpr int end_ok = 0;
constexpr int end_io_error = rt::to_errno(rt::Error::io);
constexpr int end_again = rt::to_errno(rt::Error::again);
// A key covers a range at most.
constexpr u32 key_sectors = format::geometry.range_bytes / format::sector_bytes;
} // namespace

pc_verdict Cache::map(pc_bio *bio, void *memory, const pc_io &io) noexcept
{
    const EpochGuard epoch;
    if (state() != State::running)
        return PC_FAIL;
    switch (io.op) {
    case PC_READ:
        return map_read(bio, io);
    case PC_WRITE:
        return map_write(bio, memory, io);
    case PC_FLUSH:
        return map_flush(bio, memory);
    }
    return PC_FAIL;
}

// ---- reads --------------------------------------------------------------------------------

pc_verdict Cache::map_read(pc_bio *bio, const pc_io &io) noexcept
{
    struct Piece {
        const u8 *from;
        u32 bytes;
    };
    Piece pieces[extents_per_read];
    u32 count = 0, done = 0;
    const u64 sector = io.offset / format::sector_bytes;
    const u32 sectors = io.length / format::sector_bytes;
    Shard &s = parts_->shards[shard_of(io.offset)];

    parts_->heads.note();
    {
        rt::Guard g(s.lock);
        Run run = s.tree.lookup(sector, sectors);
        while (run.hit) {
            pieces[count++] = {device_.data({run.place.segment}) +
                                   u64{run.place.sector} * format::sector_bytes,
                               run.sectors * format::sector_bytes};
            done += run.sectors;
            if (done == sectors || count == extents_per_read)
                break;
            run = s.tree.lookup(sector + done, sectors - done);
        }
        if (!count)
            done = run.sectors;
    }
    if (done < sectors)
        pc_bio_accept(bio, done * format::sector_bytes);
    if (!count)
        return PC_REMAP;
    u32 at = 0;
    int error = end_ok;
    for (u32 i = 0; i < count && !error; i++) {
        if (!ok(media::persist::load_to_bio(bio, at, pieces[i].from, pieces[i].bytes)))
            error = end_io_error;
        at += pieces[i].bytes;
    }
    pc_bio_end(bio, error);
    return PC_TAKEN;
}

// ---- writes -------------------------------------------------------------------------------

pc_verdict Cache::map_write(pc_bio *bio, void *memory, const pc_io &io) noexcept
{
    Request &r = *::new (memory) Request;
    r.bio = bio;
    r.fua = io.fua;
    r.reservation.next_sector = io.offset / format::sector_bytes;
    r.reservation.sectors_left = io.length / format::sector_bytes;
    if (!anybody_waiting() && parts_->heads.reserve(r.reservation, key_sectors)) {
        if (r.reservation.refilled && parts_->tickets.low())
            parts_->log.kick();
        if (copy_and_stage(r, PC_NOWAIT)) {
            finish_write(r);
            return PC_TAKEN;
        }
    }
    if (io.nowait) {
        if (parts_->heads.cancel(r.reservation))
            reclaim_work_.kick();
        pc_bio_end(bio, end_again);
        return PC_TAKEN;
    }
    wait_in_order(r);
    return PC_TAKEN;
}

// The reservation is complete. False: the index lacks nodes; call again, nothing is copied twice.
bool Cache::copy_and_stage(Request &r, pc_how how) noexcept
{
    if (!r.copied_bytes) {
        const media::Pin pin;
        for (Ticket *t = r.reservation.tickets.front(); t; t = t->link.next) {
            const u32 bytes = t->sectors * format::sector_bytes;
            const u8 *to =
                device_.data({t->place.segment}) + u64{t->place.sector} * format::sector_bytes;
            media::persist::store_from_bio(pin, to, r.bio, r.copied_bytes, bytes);
            r.copied_bytes += bytes;
        }
        media::persist::fence(pin);
    }
    while (Ticket *t = r.reservation.tickets.front()) {
        const u32 shard = shard_of(t->sector * format::sector_bytes);
        Shard &s = parts_->shards[shard];
        bool first = false;
        {
            rt::Guard g(s.lock);
            for (; t && s.tree.can_operate(1); t = r.reservation.tickets.front()) {
                s.tree.insert({t->sector, t->sectors, t->place});
                s.staged.push_back(*r.reservation.tickets.pop_front());
                s.staged_count++;
                first |= parts_->log.mark_staged(shard);
            }
        }
        if (first) {
            parts_->log.staged_first();
            reclaim_work_.kick_after(idle_before_write_back);
        }
        if (t && !s.provide(1, parts_->budget, how))
            return false;
    }
    return true;
}

// `r` is gone afterwards.
void Cache::finish_write(Request &r) noexcept
{
    if (r.fua)
        parts_->log.commit_for(r);
    else
        pc_bio_end(r.bio, end_ok);
}

void Cache::wait_in_order(Request &r) noexcept
{
    {
        rt::Guard g(waiting_lock_);
        waiting_.push_back(r);
        waiting_count_.set(waiting_count_.read() + 1);
    }
    admit_work_.kick();
}

void Cache::admit_worker() noexcept
{
    for (;;) {
        Request *r = nullptr;
        {
            rt::Guard g(waiting_lock_);
            r = waiting_.front();
        }
        if (!r)
            break;
        int error = end_ok;
        if (state() != State::running)
            error = end_io_error;
        else if (push_back_.read())
            error = PC_END_REQUEUE;
        else if (!parts_->heads.reserve(r->reservation, key_sectors) ||
                 !copy_and_stage(*r, PC_MAY_SLEEP)) {
            // Space, tickets or nodes: all three come back by commits, write-back and GC.
            starved_.set(r->reservation.sectors_left == 0);
            parts_->log.kick();
            reclaim_work_.kick();
            return;
        }
        {
            rt::Guard g(waiting_lock_);
            (void)waiting_.pop_front();
            waiting_count_.set(waiting_count_.read() - 1);
        }
        if (error) {
            (void)parts_->heads.cancel(r->reservation);
            pc_bio_end(r->bio, error);
        } else {
            finish_write(*r);
        }
        pc_yield();
    }
    starved_.set(0);
    waiting_changed_.wake();
}

// ---- FLUSH --------------------------------------------------------------------------------

pc_verdict Cache::map_flush(pc_bio *bio, void *memory) noexcept
{
    Request &r = *::new (memory) Request;
    r.bio = bio;
    r.flush = true;
    parts_->heads.note();
    parts_->log.commit_for(r);
    return PC_TAKEN;
}

} // namespace pcache::engine
