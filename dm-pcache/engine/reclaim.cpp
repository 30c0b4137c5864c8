// SPDX-License-Identifier: GPL-2.0
// engine/reclaim.cpp - when write-back and GC run. One worker does both in turn, woken by need.
//
// Write-back runs while dirty data fills half of the cache, or a write waits for space, or GC has
// passed all in front of dirty tail and still too few segments are free (pacing.hpp), or no request
// came for 100 ms, or the oldest dirty data is 30 s old. GC runs while more than gc_percent of the
// segments are in use, while fewer are free than the low-water mark, or while a write waits for
// space. After an error of the backing device write-back backs off, doubling from 100 ms to 30 s;
// the data stays in the cache.
#include "dm-pcache/engine/parts.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::engine
{

namespace
{
constexpr const char *log_unreadable_sentence = "the log could not be read";
}

u32 Cache::low_water() const noexcept
{
    // The log has its reserve; every head can get a segment before the one that it fills at the
    // other end comes back; one has been written back in part, one is in the batch in hand, and one
    // on its way through GC.
    const u32 n = log_reserve + parts_->heads.count() + 3, all = parts_->segments.count();
    return rt::max(rt::max(rt::min(n, all / 4), log_reserve + 1), all / 32);
}

bool Cache::low() const noexcept
{
    return parts_->segments.free_count() < low_water();
}

// What recovery could not keep to its bound, since it is dirty.
bool Cache::index_too_large() const noexcept
{
    return parts_->budget.used() > parts_->budget.limit() + shard_count;
}

bool Cache::space_wanted() const noexcept
{
    return anybody_waiting() && short_of_space_.read();
}

bool Cache::gc_wanted() const noexcept
{
    const u64 used = parts_->segments.used();
    return space_wanted() || low() || index_too_large() ||
           used * 100 > u64{gc_percent_.read()} * parts_->segments.count();
}

bool Cache::idle(u64 now) noexcept
{
    const u64 n = parts_->heads.operations();
    if (n != last_operations_) {
        last_operations_ = n;
        last_change_ = now;
    }
    return now - last_change_ >= idle_before_write_back;
}

bool Cache::write_back_wanted(u64 now) noexcept
{
    const u64 dirty = parts_->log.dirty_bytes();
    const u64 written = parts_->write_back.written_bytes();
    parts_->dirty_age.look(now, written + dirty, written);
    if (parts_->write_back.halted() || !parts_->write_back.anything_to_do() || now < retry_at_)
        return false;
    const u64 cache = u64{parts_->segments.count()} * format::data_bytes;
    const u64 since = parts_->dirty_age.since();
    // Short of segments though GC has just passed all it may: it stands at dirty tail.
    return space_wanted() || low() || index_too_large() || idle(now) ||
           (since && now - since >= dirty_age_limit) || dirty * 100 > cache * dirty_share_percent;
}

// What a batch writes back is not free before all of it is durable and GC has passed it. So it is
// no larger than half of what is free beyond the low-water mark, and a segment's worth at least:
// what comes while it lasts finds space.
void Cache::limit_batch(bool idle) noexcept
{
    const u32 free = parts_->segments.free_count(), mark = low_water();
    const bool hurry = parts_->pacing.on() || space_wanted();
    const u32 keys = hurry ? short_batch_ : idle ? batch_keys : batch_keys_when_busy;
    parts_->write_back.set_batch_limit(keys, u64{free > mark + 2 ? (free - mark) / 2 : 1} *
                                                 format::data_bytes);
}

// The next small batch will take batch_time_when_short, to a factor of two.
void Cache::adapt_batch(u64 took) noexcept
{
    if (took > 2 * batch_time_when_short)
        short_batch_ = rt::max(short_batch_ / 2, batch_keys_when_short_least);
    else if (took < batch_time_when_short)
        short_batch_ = rt::min(2 * short_batch_, batch_keys_when_busy);
}

// False: the cache has failed.
bool Cache::collect_garbage(bool &moved) noexcept
{
    // Without free nodes eviction must go on although segments are free.
    const u32 keep =
        static_cast<u32>(u64{parts_->segments.count()} * (100 - gc_percent_.read()) / 100);
    const u32 want = starved_.read() || index_too_large() ? parts_->segments.count()
                                                          : rt::max(keep, low_water());
    if (!ok(parts_->gc.pass(want, moved))) {
        log_unreadable();
        return false;
    }
    parts_->write_back.space_needed(parts_->gc.stands_at_dirty_tail());
    return true;
}

// False: the backing device or the cache has failed.
bool Cache::write_back(u64 now, bool &moved) noexcept
{
    limit_batch(idle(now));
    const rt::Error e = parts_->write_back.run_batch(moved);
    if (parts_->pacing.on())
        adapt_batch(pc_now_ns() - now);
    if (e == rt::Error::io) {
        backing_failed(pc_now_ns());
        return false;
    }
    if (e == rt::Error::no_space) {
        go_read_only("more dirty data cannot be read than the log has room to remember");
        return false;
    }
    if (!ok(e)) {
        log_unreadable();
        return false;
    }
    if (!moved) // halted in the middle, or what is left is lost
        return true;
    if (retry_delay_)
        pc_log(host_, PC_INFO, "backing device works again, write-back goes on");
    retry_delay_ = retry_at_ = 0;
    backing_failing_.set(0);
    return true;
}

// One pass of each that is wanted, in turn: while one is at work the other one's space is waited
// for. True: something moved, look again.
bool Cache::reclaim_step(u64 now) noexcept
{
    bool passed = false, written = false;
    if (parts_->metadata.failed()) {
        fail("metadata could not be stored");
        return false;
    }
    if (too_few_segments()) {
        go_read_only(too_few_segments_sentence);
        return false;
    }
    if (credit_comes())
        parts_->pacing.start();
    if (gc_wanted() && !collect_garbage(passed))
        return false;
    // Write-back goes by the log: what is only staged has to be there first.
    if (idle(now) && !parts_->log.nothing_staged())
        parts_->log.commit_staged_so_far();
    if (write_back_wanted(now) && !write_back(pc_now_ns(), written))
        return false;
    return passed || written;
}

// Is there something to pace by? While write-back is halted nothing lands: the worker would begin
// to pace and end that at once, who waits would be told, look in vain and call the worker again.
bool Cache::credit_comes() const noexcept
{
    return low() && !backing_failing_.read() &&
           (!parts_->write_back.halted() || mutant(Mutant::paced_while_halted));
}

// A data head has begun another segment.
void Cache::watch_space() noexcept
{
    if (!credit_comes())
        return;
    parts_->pacing.start();
    reclaim_work_.kick(); // behind start(): it ends what it finds no work for
}

// Nothing paces any more; who waits looks at what is there.
void Cache::end_pacing() noexcept
{
    if (mutant(Mutant::pacing_never_ends))
        return;
    if (parts_->pacing.stop() && anybody_waiting() && !mutant(Mutant::waiter_not_woken))
        admit_work_.kick();
}

void Cache::reclaim_worker() noexcept
{
    while (state() == State::running && reclaim_step(pc_now_ns()))
        pc_yield();
    if (!parts_->gc.settling())
        end_pacing(); // credit comes from this worker's work only
    if (state() != State::running)
        return;
    waiting_changed_.wake();
    // What time alone brings about: idleness, age, the end of a back-off.
    if (parts_->write_back.anything_to_do() || !parts_->log.nothing_staged()) {
        const u64 now = pc_now_ns();
        reclaim_work_.kick_after(retry_at_ > now ? retry_at_ - now : idle_before_write_back);
    }
}

void Cache::backing_failed(u64 now) noexcept
{
    retry_delay_ = retry_delay_ ? rt::min(2 * retry_delay_, retry_last) : retry_first;
    retry_at_ = now + retry_delay_;
    backing_failing_.set(1);
    waiting_changed_.wake();
    pc_log(host_, PC_ERR,
           "write-back failed: the backing device reports an error; nothing is lost, next try in "
           "%llu ms",
           retry_delay_ / millisecond);
}

// GC has freed segments, or could not store their generations.
void Cache::freed() noexcept
{
    parts_->log.prepare_spare();
    if (!low())
        end_pacing();
    if (anybody_waiting() && !mutant(Mutant::waiter_not_woken))
        admit_work_.kick();
    waiting_changed_.wake();
    reclaim_work_.kick(); // to go on, or to end pacing, or to report the failure
}

// The log made records durable, or has room again.
void Cache::committed() noexcept
{
    if (parts_->metadata.failed()) {
        reclaim_work_.kick(); // it reports the failure
        return;
    }
    if (anybody_waiting() && !mutant(Mutant::waiter_not_woken))
        admit_work_.kick();
    const u64 cache = u64{parts_->segments.count()} * format::data_bytes;
    if (parts_->log.dirty_bytes() * 100 > cache * dirty_share_percent || gc_wanted())
        reclaim_work_.kick();
    else // whoever looked while the record was on its way saw neither staged nor dirty data
        reclaim_work_.kick_after(idle_before_write_back);
}

// Write-back has brought so many bytes of dirty keys to the backing device. If what is free now
// does not last until the batch in hand has ended, it is handed out in proportion to what has
// landed. Interrupt context.
void Cache::landed(u64 key_bytes) noexcept
{
    Pacing &pacing = parts_->pacing;
    if (!pacing.on() || mutant(Mutant::credit_never_given))
        return;
    constexpr u64 whole = 1024;
    // At the least what the data heads still have, taken for half a segment.
    const u64 usable =
        rt::max(u64{parts_->segments.usable()} * format::data_bytes, u64{format::data_bytes / 2});
    const u64 to_land = parts_->write_back.to_land() + key_bytes;
    const u64 share = usable >= to_land ? whole : usable * whole / to_land;
    if (pacing.give(key_bytes * share / whole) && anybody_waiting())
        admit_work_.kick();
}

// A record that was good cannot be read any more, or a tail not be stored.
void Cache::log_unreadable() noexcept
{
    if (parts_->metadata.failed())
        fail("metadata could not be stored");
    else
        go_read_only(log_unreadable_sentence);
}

// By the damage worker: are there segments enough left?
void Cache::bad_found() noexcept
{
    if (state() == State::running)
        reclaim_work_.kick();
}

// The log has closed: the page in which it grows could not be read. Whoever found that calls
// log_unreadable(), before or after this: one sentence for both. In map(), too.
void Cache::log_closed() noexcept
{
    go_read_only(log_unreadable_sentence);
}

void Cache::fail(const char *what) noexcept
{
    if (state_.xchg(static_cast<u32>(State::failed)) == static_cast<u32>(State::failed))
        return;
    settings_settled();
    pc_log(host_, PC_ERR,
           "failed: %s; all I/O ends with an error and nothing is stored any more: remove the "
           "device, then look at the cache device",
           what);
    pc_raise_event(host_);
    if (parts_) // accept_loss may have ended without any
        parts_->log.close();
    admit_work_.kick();
    waiting_changed_.wake();
}

} // namespace pcache::engine
