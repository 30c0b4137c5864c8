// SPDX-License-Identifier: GPL-2.0
// engine/reclaim.cpp - when write-back and GC run. One worker does both in turn, woken by need.
//
// Write-back runs while dirty data fills half of the cache, or a write waits, or no request came
// for 100 ms, or the oldest dirty data is 30 s old. GC runs while more than gc_percent of the
// segments are in use, while fewer are free than the low-water mark, or while a write waits. After
// an error of the backing device write-back backs off, doubling from 100 ms to 30 s; the data stays
// in the cache.
#include "dm-pcache/engine/parts.hpp"

namespace pcache::engine
{

u32 Cache::low_water() const noexcept
{
    // Every head can get a segment, and the log has its reserve.
    const u32 n = log_reserve + parts_->heads.count() + 1;
    return rt::max(n, parts_->segments.count() / 32);
}

bool Cache::gc_wanted() const noexcept
{
    const u64 used = parts_->segments.used();
    return anybody_waiting() || parts_->segments.free_count() < low_water() ||
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
    if (!parts_->write_back.anything_dirty()) {
        dirty_since_ = 0;
        return false;
    }
    if (!dirty_since_)
        dirty_since_ = now;
    if (now < retry_at_)
        return false;
    const u64 cache = u64{parts_->segments.count()} * format::data_bytes;
    return anybody_waiting() || idle(now) || now - dirty_since_ >= dirty_age_limit ||
           parts_->log.dirty_bytes() * 100 > cache * dirty_share_percent;
}

// One pass of each that is wanted. True: something moved, look again.
bool Cache::reclaim_step(u64 now) noexcept
{
    bool passed = false, written = false;
    if (parts_->metadata.failed()) {
        fail("metadata could not be stored");
        return false;
    }
    if (gc_wanted()) {
        // Without free nodes eviction must go on although segments are free.
        const u32 keep =
            static_cast<u32>(u64{parts_->segments.count()} * (100 - gc_percent_.read()) / 100);
        const u32 want = starved_.read() ? parts_->segments.count() : rt::max(keep, low_water());
        if (!ok(parts_->gc.pass(want, passed))) {
            fail("GC could not read the log, or not store its tail");
            return false;
        }
        parts_->log.prepare_spare();
        if (passed)
            admit_work_.kick();
    }
    if (write_back_wanted(now)) {
        const rt::Error e = parts_->write_back.run_batch(written);
        if (e == rt::Error::io) {
            backing_failed(now);
        } else if (!ok(e)) {
            fail("the log could not be read");
            return false;
        } else {
            if (retry_delay_)
                pc_log(host_, PC_INFO, "backing device works again, write-back goes on");
            retry_delay_ = retry_at_ = 0;
            backing_failing_.set(0);
            dirty_since_ = pc_now_ns();
        }
    }
    return passed || written;
}

void Cache::reclaim_worker() noexcept
{
    while (state() == State::running && reclaim_step(pc_now_ns()))
        pc_yield();
    if (state() != State::running)
        return;
    waiting_changed_.wake();
    // What time alone brings about: idleness, age, the end of a back-off.
    if (parts_->write_back.anything_dirty() || !parts_->log.nothing_staged()) {
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

// The log made records durable, or has room again.
void Cache::committed() noexcept
{
    if (parts_->metadata.failed()) {
        reclaim_work_.kick(); // it reports the failure
        return;
    }
    if (anybody_waiting()) {
        admit_work_.kick();
        reclaim_work_.kick();
        return;
    }
    const u64 cache = u64{parts_->segments.count()} * format::data_bytes;
    if (parts_->log.dirty_bytes() * 100 > cache * dirty_share_percent || gc_wanted())
        reclaim_work_.kick();
}

void Cache::fail(const char *what) noexcept
{
    state_.store_release(static_cast<u32>(State::failed));
    pc_log(host_, PC_ERR,
           "failed: %s; all I/O ends with an error and nothing is stored any more: remove the "
           "device, then look at the cache device",
           what);
    pc_raise_event(host_);
    parts_->log.kill();
    admit_work_.kick();
    waiting_changed_.wake();
}

} // namespace pcache::engine
