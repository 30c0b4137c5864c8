// SPDX-License-Identifier: GPL-2.0
// engine/read_only.cpp - the state read_only, and the message accept_loss, which leads out of it.
//
// Read-only means: nothing is stored on either device, no worker does anything, writes end with
// EIO, reads are answered from the index (what of the log counts, or what it was when the state
// began) and from the backing device. It begins at activation, or at run time.
//
// At run time the state is published first (go_read_only, any thread), so that no write is let in
// any more; then a worker goes the way: it waits for those in map(), has what is staged logged, and
// closes the log. A FLUSH goes by the log, on the way and behind it: it ends when the log has
// stored or given up what it covers. `settled` says that the way has ended: accept_loss and
// quiesce() wait for it.
//
// accept_loss, by the steps of Documentation/format.md: 1 dirty data to the backing device; 2 the
// index is given up: reads go to the backing device, and a grace period passes; 3 and 4 in
// media/format_cache.cpp; 5 an activation as of a blank device, with all parts made anew. map() is
// called all the while: while `index_gone` is set and the state is read_only it looks at no part.
// Who else looks at parts in this state (snapshot(), begin_suspend()) holds parts_lock_ and sees
// `rebuilding`.
#include "dm-pcache/engine/parts.hpp"
#include "dm-pcache/media/disk_blocks.hpp"
#include "dm-pcache/media/two_slot.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::engine
{

using media::refuse;

namespace
{

constexpr const char *changed_meanwhile_sentence =
    "accept_loss: the backing device was changed while the cache was read-only: suspend and resume "
    "the device, look at what it shows then, and send it again";
constexpr const char *suspending_sentence = "accept_loss: the device is being suspended";

ReadOnly::Log log_as_read(const media::Inspection &in) noexcept
{
    return {in.keys, in.dirty_keys, in.run_count(), in.damage_at, in.head};
}

} // namespace

pc_verdict Cache::map_read_only(pc_bio *bio, void *memory, const pc_io &io, pc_rio *&send) noexcept
{
    switch (io.op) {
    case PC_READ:
        return read_only_.index_gone.load_acquire() ? PC_REMAP : map_read(bio, memory, io, send);
    case PC_FLUSH:
        if (mutant(Mutant::read_only_flush_at_once)) {
            pc_bio_end(bio, 0);
            return PC_TAKEN;
        }
        if (!read_only_.index_gone.load_acquire())
            return map_flush(bio, memory);
        // What was not given up is on the backing device, durably.
        pc_bio_end(bio, read_only_.gave_up.read() ? rt::to_errno(rt::Error::io) : 0);
        return PC_TAKEN;
    case PC_WRITE:
        break;
    }
    return PC_FAIL;
}

// ---- into the state ---------------------------------------------------------------------------

// The index of a damaged log, and what STATUS shows. Nothing is stored.
rt::Error Cache::build_read_only(media::Activation &activation, media::Inspection &in,
                                 media::Refusal &why) noexcept
{
    // What was sent behind the last FLUSH is read from there, and must not go back at a power cut.
    // A device that cannot do it may still be read.
    if (pc_backing_flush(backing_) != 0)
        pc_log(host_, PC_WARN,
               "the backing device failed a FLUSH: what is read from it may be "
               "older again after a power cut");
    why = {rt::Error::no_memory, "out of memory"};
    RT_TRY(activation.flush_for_reading(in)); // behind a panic it may be in CPU caches alone
    RT_TRY(allocate_parts());
    if (const rt::Error e = recover(activation, in); !ok(e))
        return refuse_recovery(why, e);
    why = {};
    drop_beyond_table();
    stay_read_only(in, in.read_only_sentence());
    pc_log(host_, PC_WARN, "%llu keys (%llu dirty) can be read, in %u parts of the log%s", in.keys,
           in.dirty_keys, in.run_count(),
           in.log_has_holes() ? "; nothing read is promised to be newer than the first hole" : "");
    return rt::Error::none;
}

// The index has been recovered; start() will enter the state.
void Cache::stay_read_only(const media::Inspection &in, const char *sentence) noexcept
{
    Parts &p = *parts_;
    p.log.begin_session(in.head, in.start_number, in.newest_number);
    p.log.close(); // for good: nothing is stored there
    p.gc.key_tail().set(in.key_tail);
    p.write_back.dirty_tail().set(in.dirty_tail);
    cache_flags_.set(in.cache_info.flags);
    gc_percent_.set(in.cache_info.gc_percent());
    note_read_only(in, sentence);
}

void Cache::note_read_only(const media::Inspection &in, const char *sentence) noexcept
{
    read_only_.at_run_time = false;
    read_only_.newer = in.newer();
    read_only_.log = log_as_read(in);
    read_only_.why = sentence;
    read_only_.changed_disk =
        in.disk_differs
            ? media::changed_disk_read_only_sentence(media::first_block(in.disk_differs))
            : nullptr;
    read_only_.disk_unsure = read_only_.index_partial = false;
}

void Cache::tell_read_only() noexcept
{
    if (read_only_.changed_disk)
        pc_log(host_, PC_ERR,
               "%s: what was clean is ignored, and dirty data is shown over what the device has; "
               "accept_loss writes it there",
               read_only_.changed_disk);
    if (read_only_.newer)
        pc_log(host_, PC_ERR,
               "read-only: %s; reads are answered as far as the log is understood, writes end with "
               "an error, nothing is stored: remove the device and use the newer driver",
               read_only_.why);
    else
        pc_log(
            host_, PC_ERR,
            "read-only: %s; reads are answered as far as the log can be read, writes end with an "
            "error, nothing is stored: save what you need, then send the message accept_loss",
            read_only_.why);
    pc_raise_event(host_);
}

void Cache::go_read_only(const char *sentence) noexcept
{
    u32 now = state_.read();
    do {
        // A quiesce under way has left `running` behind already; no clean stop is recorded then.
        if (now != static_cast<u32>(State::running) && now != static_cast<u32>(State::suspended))
            return;
    } while (!state_.try_cmpxchg(now, static_cast<u32>(State::read_only)));
    read_only_.found.store_release(sentence);
    read_only_.way.kick();
}

// By a worker of its own. Whoever has found the damage may be in the middle of a pass, or wait for
// the backing device: writes end with errors and FLUSHes are answered before that ends.
void Cache::way_into_read_only() noexcept
{
    rt::Guard g(stopping_lock_);
    {
        // Whoever undoes a suspend has seen the state, or lets write-back go on in front of this.
        rt::Guard p(parts_lock_);
        parts_->write_back.halt();
    }
    settings_settled();
    pc_epoch_wait();       // nobody in map() stages anything any more,
    parts_->fills.drain(); // nor what a read has fetched,
    admit_work_.stop();    // nor for those that wait
    parts_->log.begin_closing();
    parts_->log.no_segment_comes();
    parts_->log.commit_and_wait();
    parts_->log.close();
    if (parts_->metadata.failed()) {
        fail("metadata could not be stored");
    } else if (state() == State::read_only) {
        read_only_.why = read_only_.found.load_acquire();
        read_only_.changed_disk = nullptr;
        read_only_.at_run_time = true;
        read_only_.newer = false;
        tell_read_only();
    }
    admit_work_.kick(); // writes that wait end with an error
    waiting_changed_.wake();
    reclaim_work_.stop();
    parts_->gc.stop(); // generations, too, stay as they are
    read_only_.settled.store_release(1);
    waiting_changed_.wake();
}

// The state is read_only, or was: failed now.
void Cache::wait_until_settled() noexcept
{
    waiting_changed_.wait([this] { return read_only_.settled.load_acquire() != 0; });
}

// ---- accept_loss ------------------------------------------------------------------------------

rt::Error Cache::accept_loss(media::Refusal &why) noexcept
{
    why = {};
    if (read_only_.accepting.xchg(1))
        return refuse(why, rt::Error::busy, "accept_loss is under way already");
    rt::Error e = rt::Error::none;
    if (state() == State::read_only)
        e = waiting_changed_.wait_interruptible(
            [this] { return read_only_.settled.load_acquire() || suspending(); });
    if (!ok(e))
        e = refuse(why, e, "accept_loss: interrupted; nothing was given up");
    else if (state() != State::read_only)
        e = refuse(why, rt::Error::invalid, "accept_loss: the cache is not read-only");
    else if (suspending() && !mutant(Mutant::accepted_while_suspended))
        e = refuse(why, rt::Error::busy, "accept_loss: the device is suspended");
    else if (read_only_.newer)
        e = refuse(why, rt::Error::not_supported,
                   "accept_loss: something newer wrote the media: use that driver");
    else
        e = accept_loss_alone(why);
    if (media_gone() && state() == State::read_only)
        fail(removed_sentence); // without parts nobody else says so
    read_only_.accepting.store_release(0);
    waiting_changed_.wake();
    // Whatever else went wrong on the way, memory included, is one thing to the caller.
    if (e == rt::Error::no_memory)
        e = why.error = rt::Error::io;
    return e;
}

// Nothing is left that could work on the parts: a cache that went read-only at run time may have
// had works on their way.
void Cache::stop_workers() noexcept
{
    parts_->damage.stop();
    admit_work_.stop();
    reclaim_work_.stop();
    parts_->gc.stop();
    parts_->log.stop();
    admit_work_.stop(); // the last words of GC and log may have kicked them
    reclaim_work_.stop();
}

// Step 1, as the worker does it.
struct Cache::RescueJob : rt::NonCopyable {
    RescueJob(Cache &c, media::Activation &a, const media::Inspection &i) noexcept
        : activation(a), in(i),
          rescue(c.device_, c.parts_->write_back, c.parts_->segments, c.host_,
                 pc_backing_block(c.backing_), i.cache_info.data_crc(), c.read_only_.stop)
    {
    }
    media::Activation &activation;
    const media::Inspection &in;
    Rescue rescue;
    rt::Error error = rt::Error::none;
};

// What differs is not news: clean data is not served, and dirty data is known to go over it.
bool Cache::disk_change_known() const noexcept
{
    return read_only_.changed_disk || read_only_.index_gone.read() ||
           mutant(Mutant::disk_change_no_news);
}

// Whoever suspends waits for accept_loss, and so does whoever takes the cache device away: it ends
// with the step in hand.
rt::Error Cache::next_step(media::Refusal &why) const noexcept
{
    if (media_gone() && !mutant(Mutant::removal_waits_for_accept_loss))
        return refuse(why, rt::Error::io, "accept_loss: the cache device is being removed");
    if (suspending() && !mutant(Mutant::suspend_waits_for_rescue) &&
        !mutant(Mutant::accepted_while_suspended))
        return refuse(why, rt::Error::busy, suspending_sentence);
    return rt::Error::none;
}

rt::Error Cache::accept_loss_alone(media::Refusal &why) noexcept
{
    media::Activation activation(device_, host_);
    media::BackingFacts facts = backing_facts();
    media::Inspection in;
    facts.changed_read_only = true;
    if (read_only_.index_gone.read()) // what the log says of the table's length is no matter
        facts.table_bytes = ~u64{0};
    if (!ok(activation.inspect(facts, in, why))) // the options in force stay as they are
        return refuse(why, rt::Error::io, why.sentence);
    complete_settings(in);
    if (in.newer())
        return refuse(why, rt::Error::not_supported,
                      "accept_loss: something newer wrote the media: use that driver");
    if (in.clean_ignored() && !disk_change_known()) {
        read_only_.disk_unsure = true;
        activation.tell_changed_disk(in);
        return refuse(why, rt::Error::io, changed_meanwhile_sentence);
    }
    if (read_only_.index_gone.read()) { // an earlier attempt came to step 2
        if (in.kind == media::MediaKind::cache)
            RT_TRY(activation.give_up(facts, in, why)); // 3, 4
        if (!mutant(Mutant::bad_pages_forgotten))
            clear_bad_segments();
        return rebuild(why); // 5
    }
    if (in.kind != media::MediaKind::cache)
        return refuse(why, rt::Error::io, "accept_loss: there is no cache any more");
    stop_workers();
    RescueJob job(*this, activation, in);
    rt::Result<Array<u8>> unusable = make_array<u8>(PC_MAY_SLEEP, device_.seg_count());
    if (!unusable)
        return unusable.error();
    RT_TRY(next_step(why));
    RT_TRY(activation.begin_rescue(in, why)); // 0
    RT_TRY(next_step(why));
    RT_TRY(rescue(job, why)); // 1
    RT_TRY(next_step(why));
    read_only_.format_flags = in.cache_info.flags;
    read_only_.gave_up.set(parts_->log.gave_up());
    read_only_.index_gone.store_release(1); // 2
    pc_epoch_wait();
    if (!mutant(Mutant::summed_read_not_awaited))
        parts_->summed_reads.drain();
    note_bad_segments(in, *unusable); // behind the last read that may meet one
    read_only_.unusable = rt::move(*unusable);
    RT_TRY(activation.give_up(facts, in, why)); // 3, 4
    clear_bad_segments();
    return rebuild(why); // 5
}

// What nobody knows any more once the parts have gone: an attempt that fails behind step 2 leaves
// it to the next one.
void Cache::note_bad_segments(const media::Inspection &in, Array<u8> &unusable) const noexcept
{
    for (u32 i = 0; i < in.segments; i++) {
        const bool met = device_.met_unreadable(device_.physical({i}));
        if (parts_->segments.is_bad({i}) || in.log_segments[i] || met)
            unusable[device_.physical({i}).value] = 1;
    }
}

// The new cache knows nothing of what could not be read in this one's life, and Linux has unmapped
// those pages: they are made good, or their segments stay out of use. All data is elsewhere by now,
// and the media say so.
void Cache::clear_bad_segments() noexcept
{
    u32 failed = 0;
    for (u32 i = 0; i < read_only_.unusable.size() && !suspending() && !media_gone(); i++) {
        if (!read_only_.unusable[i])
            continue;
        const u64 data = format::segment_offset({i}) + format::segment_control_bytes;
        if (ok(media::zero_durably(device_, data, format::data_bytes))) {
            read_only_.unusable[i] = 0;
            device_.made_readable({i});
        } else {
            failed++;
        }
    }
    if (failed)
        pc_log(host_, PC_ERR,
               "%u segments have pages that can be neither read nor rewritten: they get no data",
               failed);
}

// Ends step 1 soon, if it is under way. parts_lock_ is held.
void Cache::stop_rescue() noexcept
{
    // Of another state the write-back is its own: one that is refused may be in hand.
    const bool other = state() != State::read_only && !mutant(Mutant::refused_one_halts);
    if (read_only_.rebuilding || other)
        return;
    read_only_.stop.set(1);
    parts_->write_back.halt();
}

// What reads see, clean data included, as one more epoch: of a record that became unreadable since
// the index was made, only the index is left. With data_crc it knows the sums, too, and what fails
// is given up.
rt::Error Cache::rescue_index(RescueJob &job) noexcept
{
    RT_TRY(job.rescue.finish());
    const u64 end = backing_facts().served() / format::sector_bytes;
    for (Shard &s : parts_->shards) {
        for (u64 sector = 0; sector < end;) {
            Run run;
            {
                rt::Guard g(s.lock);
                run = s.tree.lookup(sector, static_cast<u32>(rt::min<u64>(end - sector, ~0u)));
            }
            if (run.hit)
                RT_TRY(job.rescue.extent({sector, run.sectors, run.place, run.flags}));
            sector += run.sectors;
        }
    }
    return rt::Error::none;
}

void Cache::rescue_worker() noexcept
{
    RescueJob &job = *static_cast<RescueJob *>(read_only_.job);
    job.error = job.activation.replay(job.in, job.rescue);
    const bool log_lost = read_only_.at_run_time || (read_only_.log != log_as_read(job.in) &&
                                                     !mutant(Mutant::log_trusted_again));
    if (ok(job.error) && log_lost)
        job.error = rescue_index(job);
    if (ok(job.error))
        job.error = job.rescue.finish();
    if (ok(job.error) && pc_backing_flush(backing_) != 0)
        job.error = rt::Error::io;
    read_only_.job_done.store_release(1);
    read_only_.done.wake();
}

// Step 1.
rt::Error Cache::rescue(RescueJob &job, media::Refusal &why) noexcept
{
    read_only_.stop.set(0);
    parts_->write_back.drop_batch();
    parts_->write_back.go_on();
    if (suspending_.fetch_or(0)) {
        parts_->write_back.halt();
        return refuse(why, rt::Error::busy, suspending_sentence);
    }
    {
        rt::Guard g(parts_lock_); // who said it before has said it in vain: `stop` was taken back
        if (const rt::Error e = next_step(why); !ok(e)) {
            parts_->write_back.halt();
            return e;
        }
    }
    read_only_.job = &job;
    read_only_.job_done.set(0);
    read_only_.work.kick();
    const auto is_done = [this] { return read_only_.job_done.load_acquire() != 0; };
    const rt::Error waited = read_only_.done.wait_interruptible(is_done);
    if (!ok(waited)) {
        {
            rt::Guard g(parts_lock_);
            stop_rescue();
        }
        read_only_.done.wait(is_done); // what is in flight lands first
    }
    read_only_.work.stop(); // it has let go of the job
    parts_->write_back.halt();
    if (!ok(waited))
        return refuse(why, waited, "accept_loss: interrupted; nothing was given up");
    if (job.error == rt::Error::busy) {
        RT_TRY(next_step(why));
        return refuse(why, rt::Error::busy, suspending_sentence);
    }
    if (!ok(job.error))
        return refuse(why, rt::Error::io,
                      "accept_loss: the log cannot be read again, or the backing device failed; "
                      "nothing was given up, send it again");
    const Rescue &r = job.rescue;
    char holes[96] = "";
    if (job.in.log_has_holes())
        (void)pc_format(holes, sizeof(holes),
                        ", and what stood in the holes of the log (the first at %u:%u)",
                        job.in.head.segment.value, job.in.head.offset);
    pc_log(host_, PC_WARN,
           "accept_loss: %llu keys (%llu bytes) of dirty data are on the backing device; given up: "
           "%llu keys with %llu bytes in %llu ranges that cannot be read%s",
           r.sent().keys, r.sent().bytes, r.given_up().keys, r.given_up().bytes,
           r.ranges_given_up(), holes);
    return rt::Error::none;
}

// Step 5: everything as for a blank device. On an error the parts are gone and the index with them;
// all data is on the backing device, and the message can be given again.
rt::Error Cache::rebuild(media::Refusal &why) noexcept
{
    // All of it is on the backing device. What is left takes a while.
    RT_TRY(next_step(why));
    if (!read_only_.rebuilding) {
        const Snapshot last = snapshot();
        rt::Guard g(parts_lock_);
        read_only_.last = last;
        read_only_.rebuilding = true;
    }
    drop_parts();
    device_.thaw_chain();
    rt::Error e = build(why);
    if (ok(e) && read_only_.why)
        e = refuse(why, rt::Error::io, "accept_loss: the new cache is damaged at once");
    if (!ok(e)) {
        drop_parts();
        let_removal_in(true); // its work looks at no part while `rebuilding`
        return refuse(why, rt::Error::io, why.sentence);
    }
    if (!mutant(Mutant::new_chain_not_frozen))
        device_.freeze_chain();
    pc_log(host_, PC_INFO, "accept_loss: the cache was formatted anew and goes on");
    {
        rt::Guard g(parts_lock_);
        read_only_.rebuilding = false;
    }
    read_only_.disk_unsure = read_only_.index_partial = false;
    read_only_.index_gone.store_release(0); // the new one knows nothing yet, and misses nothing
    read_only_.settled.store_release(0);
    if (!run(State::read_only)) {
        read_only_.settled.store_release(1);
        return refuse(why, rt::Error::io, "the cache has failed: remove the device");
    }
    pc_raise_event(host_);
    return rt::Error::none;
}

} // namespace pcache::engine
