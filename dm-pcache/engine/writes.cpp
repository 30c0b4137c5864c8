// SPDX-License-Identifier: GPL-2.0
// engine/writes.cpp - the way of a write. See cache.hpp.
//
// Waiting writes: one queue, served in order by the admit worker, which alone takes from its front.
// Whoever frees what they may wait for (credit, space, tickets, room in the log, index nodes) kicks
// the worker; a write that starts to wait kicks it, too, since what it lacked may have come
// meanwhile. Nothing is polled but memory, where an index node could not be had.
//
// A write that waits because something is short is overtaken by nobody (ordered_). One that waits
// only for the worker's turn does not hold up others: where there is plenty, a new write goes its
// own way (may_go_ahead()). Were it to queue, one moment without tickets would send all writes
// through one worker from then on, each behind the one that its owner had waited for.
//
// A write of many keys (with data_crc up to 256) need not hold them all at once: what it could
// reserve is copied and staged, so that its tickets come back by a commit. So tickets are held only
// by writes for which the index lacks nodes, and nodes come back without tickets: writes make
// progress, however few tickets there are and however many begin at once.
#include "dm-pcache/engine/parts.hpp"
#include "dm-pcache/engine/shard_of.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::engine
{

namespace
{
constexpr int end_ok = 0;
constexpr int end_io_error = rt::to_errno(rt::Error::io);
constexpr int end_again = rt::to_errno(rt::Error::again);
} // namespace

pc_verdict Cache::map_write(pc_bio *bio, void *memory, const pc_io &io) noexcept
{
    Request &r = *::new (memory) Request;
    r.bio = bio;
    r.fua = io.fua;
    r.reservation.next_sector = io.offset / format::sector_bytes;
    r.reservation.sectors_left = io.length / format::sector_bytes;
    if ((!anybody_waiting() || may_go_ahead()) && admit(r)) {
        const bool whole = reserve(r);
        const pc_how how = mutant(Mutant::map_sleeps) ? PC_MAY_SLEEP : PC_NOWAIT;
        if (copy_and_stage(r, how) && whole) {
            tell_of_staged();
            finish_write(r);
            return PC_TAKEN;
        }
    }
    if (io.nowait) {
        give_up(r);
        pc_bio_end(bio, end_again);
        return PC_TAKEN;
    }
    wait_in_order(r);
    return PC_TAKEN;
}

// Somebody waits. May a new write be served all the same? Racy: by the time it is known that
// something is short, each CPU may have let one more go ahead.
bool Cache::may_go_ahead() const noexcept
{
    const Parts &p = *parts_;
    if (mutant(Mutant::waiters_overtaken))
        return true;
    return !mutant(Mutant::all_queue_up) && !ordered_.read() && !p.pacing.on() &&
           p.tickets.log_has_room() && p.tickets.free_count() >= ticket_batch &&
           p.segments.usable() > p.heads.count();
}

// Credit for the whole request, before anything else is taken. False: it waits for it.
bool Cache::admit(Request &r) noexcept
{
    if (!r.admitted)
        r.admitted = parts_->pacing.take(u64{r.reservation.sectors_left} * format::sector_bytes);
    return r.admitted;
}

// Space and tickets. False: they ran out; what there was stays with `r`.
bool Cache::reserve(Request &r) noexcept
{
    const bool whole = parts_->heads.reserve(r.reservation, key_sectors_);
    // A record is written back as a whole, so it must not grow with the size of the writes.
    if (r.reservation.next_segment || (r.reservation.refilled && parts_->tickets.low()))
        parts_->log.kick();
    if (r.reservation.next_segment)
        watch_space();
    return whole;
}

// Data of the tickets that have none yet.
void Cache::copy(Request &r) noexcept
{
    const media::Pin pin;
    u32 at = r.staged_bytes;
    for (Ticket *t = r.reservation.tickets.front(); t; t = t->link.next) {
        const u32 bytes = t->sectors * format::sector_bytes;
        if (at >= r.copied_bytes) {
            const u8 *to =
                device_.data({t->place.segment}) + u64{t->place.sector} * format::sector_bytes;
            if (data_crc_)
                t->data_crc =
                    media::persist::store_from_bio_crc(pin, to, r.bio, r.copied_bytes, bytes);
            else
                media::persist::store_from_bio(pin, to, r.bio, r.copied_bytes, bytes);
            r.copied_bytes += bytes;
        }
        at += bytes;
    }
    if (mutant(Mutant::fence_on_another_cpu)) {
        pc_cpu_unpin();
        pc_cpu_pin();
    }
    if (!mutant(Mutant::data_without_fence))
        media::persist::fence(pin);
}

// All that is reserved. False: the index lacks nodes; call again, nothing is copied twice.
bool Cache::copy_and_stage(Request &r, pc_how how) noexcept
{
    if (!r.reservation.tickets.empty())
        copy(r);
    while (Ticket *t = r.reservation.tickets.front()) {
        const u32 shard = shard_of(t->sector * format::sector_bytes);
        Shard &s = parts_->shards[shard];
        bool first = false;
        {
            rt::Guard g(s.lock);
            for (; t && s.can_operate(1); t = r.reservation.tickets.front()) {
                if (!mutant(Mutant::fill_not_cancelled))
                    s.fills.cancel(t->sector, t->sectors);
                s.insert_key({t->sector, t->sectors, t->place}, t->data_crc);
                r.staged_bytes += t->sectors * format::sector_bytes;
                Ticket &staged = *r.reservation.tickets.pop_front();
                if (mutant(Mutant::staged_reversed))
                    s.staged.push_front(staged);
                else
                    s.staged.push_back(staged);
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
    if (r.fua && !mutant(Mutant::fua_not_committed))
        parts_->log.commit_for(r);
    else
        pc_bio_end(r.bio, end_ok);
}

// What is reserved and not staged goes to whoever is in front. Returns the bytes of the request
// that are not staged; it keeps its credit for them.
u64 Cache::give_back(Request &r) noexcept
{
    for (Ticket *t = r.reservation.tickets.front(); t; t = t->link.next) {
        r.reservation.sectors_left += t->sectors;
        r.reservation.next_sector -= t->sectors;
    }
    r.copied_bytes = r.staged_bytes;
    if (parts_->heads.cancel(r.reservation))
        reclaim_work_.kick();
    return u64{r.reservation.sectors_left} * format::sector_bytes;
}

// `r` will not be written: what it holds goes to others, its credit included.
void Cache::give_up(Request &r) noexcept
{
    const u64 bytes = give_back(r);
    const bool credit = r.admitted && parts_->pacing.give(bytes);
    if ((credit && anybody_waiting()) || front_short_.read())
        admit_work_.kick();
}

// A key was staged. If the front of the queue was tried before, the tickets that it lacks may be
// those of this key, and nobody else asks for a commit. No barrier is needed: whoever sets
// front_short_ kicks the commit afterwards, and that takes the lock under which the key was staged.
void Cache::tell_of_staged() noexcept
{
    if (front_short_.read() && !mutant(Mutant::staged_not_told))
        parts_->log.kick();
}

void Cache::wait_in_order(Request &r) noexcept
{
    (void)give_back(r);
    {
        rt::Guard g(waiting_lock_);
        if (mutant(Mutant::waiters_reversed))
            waiting_.push_front(r);
        else
            waiting_.push_back(r);
        waiting_count_.set(waiting_count_.read() + 1);
        if (front_short_.read() || parts_->pacing.on())
            ordered_.set(waiting_count_.read());
    }
    admit_work_.kick();
}

// The front of the queue. False: it lacks credit, space, tickets or nodes, and whoever brings them
// kicks.
bool Cache::write_now(Request &r) noexcept
{
    if (!admit(r)) {
        front_lacks();
        return false; // pacing is on: the reclaim worker is at work, and landed() kicks
    }
    const bool whole = reserve(r);
    const bool staged = copy_and_stage(r, PC_MAY_FAIL);
    if (staged && whole)
        return true;
    call_for_help(r, staged);
    return false;
}

// The front was tried in vain: it and all behind it are served in order.
void Cache::front_lacks() noexcept
{
    rt::Guard g(waiting_lock_);
    front_short_.set(1);
    ordered_.set(waiting_count_.read());
}

// The front of the queue lacks tickets, space or (not `staged`) index nodes. Tickets come back by a
// commit; space and nodes by commit, write-back and GC.
void Cache::call_for_help(const Request &r, bool staged) noexcept
{
    front_lacks();
    // Out of memory, which nobody tells of, or of its share, which GC gives back.
    if (!staged && parts_->budget.used() < parts_->budget.limit())
        admit_work_.kick_after(memory_retry);
    starved_.set(!staged);
    short_of_space_.set(!staged || r.reservation.no_segment || !parts_->tickets.log_has_room());
    parts_->log.kick();
    if (short_of_space_.read())
        reclaim_work_.kick();
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
        else if (push_back_.read() &&
                 (pc_host_noflush(host_) || mutant(Mutant::pushed_back_unasked)))
            error = PC_END_REQUEUE; // see pc_host_noflush() for what it cannot rule out
        else if (!write_now(*r))
            return;
        {
            rt::Guard g(waiting_lock_);
            (void)waiting_.pop_front();
            waiting_count_.set(waiting_count_.read() - 1);
            front_short_.set(0); // the next one has not been tried
            if (ordered_.read())
                ordered_.set(ordered_.read() - 1);
        }
        if (error) {
            give_up(*r);
            pc_bio_end(r->bio, error);
        } else {
            finish_write(*r);
        }
        pc_yield();
    }
    starved_.set(0);
    short_of_space_.set(0);
    waiting_changed_.wake();
}

} // namespace pcache::engine
