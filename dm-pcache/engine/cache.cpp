// SPDX-License-Identifier: GPL-2.0
// engine/cache.cpp - the life of a cache: open, start, quiesce, resume. See cache.hpp.
#include "dm-pcache/engine/memory.hpp"
#include "dm-pcache/engine/parts.hpp"
#include "dm-pcache/engine/shard_of.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::engine
{

namespace
{
constinit LockClass waiting_class{"pcache waiting"};
constinit LockClass settings_class{"pcache settings"};
constinit LockClass parts_class{"pcache parts"};
constinit LockClass removal_class{"pcache removal"};
constinit LockClass stopping_class{"pcache stopping"};
} // namespace

Cache::Cache() noexcept
    : parts_lock_(parts_class), removal_lock_(removal_class), waiting_lock_(waiting_class),
      stopping_lock_(stopping_class), settings_lock_(settings_class)
{
}

Cache::~Cache()
{
    close();
    pc_host_destroy(host_);
}

void Cache::close() noexcept
{
    if (state() == State::running || state() == State::read_only)
        quiesce();
    drop_parts();
    if (device_.media())
        pc_media_watch(device_.media(), nullptr, nullptr);
    pc_queue_destroy(queue_);
    queue_ = nullptr;
    device_.close();
    pc_backing_close(backing_);
    backing_ = nullptr;
    state_.store_release(static_cast<u32>(State::inactive));
}

void Cache::drop_parts() noexcept
{
    let_removal_in(false); // also where accept_loss has left no parts
    if (queue_)
        pc_queue_drain(queue_); // no work is left behind it
    if (!parts_)
        return;
    parts_->~Parts();
    pc_free(parts_);
    parts_ = nullptr;
}

rt::Error Cache::open(pc_media *media, pc_backing *backing, pc_host *host, u64 length,
                      media::Refusal &why) noexcept
{
    length_ = length;
    host_ = host;
    backing_ = backing;
    if (const rt::Error e = device_.open(media); !ok(e)) {
        if (e == rt::Error::no_device) {
            why = {e, "cache device has too many bad pages: replace it, or clear them"};
            return e;
        }
        why = {e, e == rt::Error::no_space ? "cache device too small: it must have 512 MiB at least"
                                           : "cache device cannot be mapped"};
        return e;
    }
    queue_ = pc_queue_create("pcache");
    if (!queue_) {
        why = {rt::Error::no_memory, "out of memory"};
        return why.error;
    }
    watch_media();
    media::Inspection in;
    RT_TRY(inspect(in, why));
    if (in.has_extension)
        __builtin_memcpy(uuid_.byte, in.extension.uuid, sizeof(uuid_.byte));
    return rt::Error::none;
}

// What is on media, judged; and whether this driver can serve it. Stores nothing.
rt::Error Cache::inspect(media::Inspection &in, media::Refusal &why) noexcept
{
    media::Activation activation(device_, host_);
    RT_TRY(activation.inspect(backing_facts(), in, why));
    complete_settings(in);
    RT_TRY(check_options(in, why));
    if (in.kind != media::MediaKind::cache)
        return rt::Error::none;
    if (in.cache_info.mode() != format::CacheMode::writeback) {
        why = {rt::Error::not_supported,
               "the cache is in a cache_mode other than writeback, which this version does not "
               "serve yet"};
        return why.error;
    }
    return rt::Error::none;
}

// Where cache_info is lost the table says data_crc, if no key does.
void Cache::complete_settings(media::Inspection &in) const noexcept
{
    if (in.cache_info_lost && asked_.data_crc == Asked::yes)
        in.cache_info.flags |= format::cache_info_bits::data_crc;
}

// What is in force: the media's, which what was asked for must not contradict; of blank media what
// was asked for.
rt::Error Cache::check_options(const media::Inspection &in, media::Refusal &why) noexcept
{
    const bool blank = in.kind != media::MediaKind::cache;
    // accept_loss formats with the settings of the cache that it gives up, also behind a cut.
    const bool kept = blank && read_only_.format_flags;
    const u32 flags = kept ? read_only_.format_flags : in.cache_info.flags;
    const bool crc = blank && !kept && !in.former_settings
                         ? asked_.data_crc == Asked::yes
                         : (flags & format::cache_info_bits::data_crc) != 0;
    if (data_crc_ != crc) // a table may be printed meanwhile
        data_crc_ = crc;
    key_sectors_ = data_crc_ ? rt::min(summed_key_bytes, format::geometry.range_bytes)
                             : format::geometry.range_bytes;
    key_sectors_ /= format::sector_bytes;
    if (contradicts(asked_, &why.sentence)) {
        why.error = rt::Error::invalid;
        return why.error;
    }
    return rt::Error::none;
}

bool Cache::contradicts_in_use(const Options &o, const char **sentence) const noexcept
{
    if (!o.changed_read_only || state() == State::read_only)
        return contradicts(o, sentence);
    *sentence = "changed_backing read_only is for a device that is created: leave it out of the "
                "reload of one that is in use";
    return true;
}

bool Cache::contradicts(const Options &o, const char **sentence) const noexcept
{
    if (o.data_crc == Asked::nothing || (o.data_crc == Asked::yes) == data_crc_)
        return false;
    *sentence = data_crc_ ? "the cache was made with data_crc true: leave the option out, or clear "
                            "the cache to make it anew"
                          : "the cache was made with data_crc false: leave the option out, or "
                            "clear the cache to make it anew";
    return true;
}

rt::Error Cache::allocate_parts() noexcept
{
    void *memory = pc_alloc(alignable(sizeof(Parts)), PC_MAY_SLEEP);
    if (!memory)
        return rt::Error::no_memory;
    parts_ = ::new (memory) Parts(device_, backing_);
    admit_work_.init(
        queue_, [](void *c) { static_cast<Cache *>(c)->admit_worker(); }, this);
    reclaim_work_.init(
        queue_, [](void *c) { static_cast<Cache *>(c)->reclaim_worker(); }, this);
    read_only_.work.init(
        queue_, [](void *c) { static_cast<Cache *>(c)->rescue_worker(); }, this);
    removal_work_.init(
        queue_, [](void *c) { static_cast<Cache *>(c)->removal_worker(); }, this);
    read_only_.way.init(
        queue_, [](void *c) { static_cast<Cache *>(c)->way_into_read_only(); }, this);

    Parts &p = *parts_;
    const u32 segments = device_.chain_length();
    RT_TRY(p.segments.allocate(segments));
    RT_TRY(p.heads.allocate(pc_cpus()));
    const u32 most = format::data_bytes / log_bytes_per_ticket / 2;
    // One more for each key of a write, of a whole range at most: so that it seldom has to wait.
    const u32 longest = format::geometry.range_bytes / format::sector_bytes / key_sectors_;
    const u32 tickets =
        rt::min(rt::max(p.heads.count() * tickets_per_head, min_tickets) + longest, most);
    RT_TRY(p.tickets.allocate(tickets));
    RT_TRY(p.log.allocate(queue_,
                          {[](void *c) noexcept { static_cast<Cache *>(c)->committed(); },
                           [](void *c) noexcept { static_cast<Cache *>(c)->log_closed(); }, this}));
    RT_TRY(p.fills.allocate(
        queue_, {[](void *c, Fill &f) noexcept { static_cast<Cache *>(c)->fill_ended(f); }, this}));
    RT_TRY(p.write_back.allocate(
        {[](void *c, u64 bytes) noexcept { static_cast<Cache *>(c)->landed(bytes); }, this}));
    RT_TRY(
        p.damage.allocate(queue_, host_,
                          {[](void *c) noexcept { static_cast<Cache *>(c)->log_unreadable(); },
                           [](void *c) noexcept { static_cast<Cache *>(c)->bad_found(); }, this}));
    if (data_crc_)
        RT_TRY(p.summed_reads.allocate(
            queue_,
            {[](void *c, Request &r) noexcept {
                 return static_cast<Cache *>(c)->summed_read_failed(r);
             },
             [](void *c, SegmentId s) noexcept { static_cast<Cache *>(c)->summed_read_met(s); },
             this}));
    RT_TRY(p.gc.allocate(queue_, host_,
                         {[](void *c) noexcept { static_cast<Cache *>(c)->freed(); }, this}));
    const u64 pages = u64{segments} * (format::data_bytes / format::page_bytes);
    const u32 per_page = data_crc_ ? index_bytes_per_page_crc : index_bytes_per_page;
    const u32 least = data_crc_ ? 2 * nodes_at_least : nodes_at_least;
    p.budget.set_limit(pages * per_page / ExtentTree::node_bytes + shard_count * least);
    if (data_crc_) {
        for (Shard &s : p.shards)
            s.turn_checksums_on();
        if (!mutant(Mutant::keys_not_kept_apart))
            p.write_back.keep_keys_apart();
    }
    let_removal_in(true);
    return rt::Error::none;
}

// The log has a segment, its reserve, and each data head one; one more goes round.
bool Cache::too_few_segments() const noexcept
{
    const u32 needed = 1 + log_reserve + parts_->heads.count() + 1;
    return parts_->segments.in_service() < needed && !mutant(Mutant::too_few_segments_served);
}

// Everything up to the last step of activation; nothing runs yet.
rt::Error Cache::build(media::Refusal &why) noexcept
{
    media::Activation activation(device_, host_);
    const media::BackingFacts facts = backing_facts();
    {
        media::Inspection in;
        RT_TRY(inspect(in, why));
        if (in.kind == media::MediaKind::blank) {
            const u32 flags =
                read_only_.format_flags ? read_only_.format_flags
                : in.former_settings
                    ? in.cache_info.flags
                    : format::make_cache_flags(data_crc_, true, format::CacheMode::writeback,
                                               default_gc_percent);
            RT_TRY(activation.format(facts, flags, why));
            if (media_gone() && !mutant(Mutant::removal_waits_for_accept_loss))
                return media::refuse(why, rt::Error::no_device, removed_sentence);
            pc_log(host_, PC_INFO,
                   read_only_.accepting.read() ? "formatted the cache device anew: %u segments"
                   : in.format_cut_short
                       ? "formatting, which had been cut short, is done: %u segments"
                       : "formatted the blank cache device: %u segments",
                   device_.seg_count());
        }
    }
    const u64 begin = pc_now_ns();
    media::Inspection in;
    RT_TRY(inspect(in, why));
    read_only_.why = read_only_.changed_disk = nullptr;
    activation.tell_changed_disk(in);
    if (in.has_extension)
        RT_TRY(claim_uuid(in.extension.uuid, why));
    if (in.damage)
        return build_read_only(activation, in, why);
    // What the backing device was sent before is durable from here on. Of accept_loss it is
    // already, and a noflush suspend that has begun meanwhile must not wait for the device.
    if (!read_only_.accepting.read() && !mutant(Mutant::activation_not_flushed) &&
        pc_backing_flush(backing_) != 0) {
        why = {rt::Error::io, "the backing device failed a FLUSH: see to it first"};
        return why.error;
    }
    why = {rt::Error::no_memory, "out of memory"};
    RT_TRY(allocate_parts());
    if (const rt::Error e = recover(activation, in); !ok(e))
        return refuse_recovery(why, e);
    why = {};
    if (too_few_segments()) {
        stay_read_only(in, too_few_segments_sentence);
        return rt::Error::none;
    }
    RT_TRY(activation.activate(in, in.cache_info.flags, facts, parts_->metadata, why));
    RT_TRY(claim_uuid(parts_->metadata.extension().uuid, why));
    retire_unreadable(in);
    parts_->log.begin_session(in.head, in.start_number, in.newest_number, in.leave_head_segment);
    publish_tails();
    if (too_few_segments()) // activation has found more pages that cannot be read
        stay_read_only(in, too_few_segments_sentence);
    pc_log(host_, PC_INFO, "recovered %llu keys (%llu dirty) in %llu ms", in.keys, in.dirty_keys,
           (pc_now_ns() - begin) / millisecond);
    return rt::Error::none;
}

// What activation could not make good, and where somebody met an unreadable line on the way here,
// unless it has been made good: a page in front of dirty_tail may have been read by the walk alone.
void Cache::retire_unreadable(const media::Inspection &in) noexcept
{
    for (u32 i = 0; i < in.segments; i++) {
        const bool met = device_.met_unreadable(device_.physical({i}));
        if (in.retired[i] || (met && !media::data_readable(device_, {i})))
            (void)parts_->segments.mark_bad({i});
    }
}

rt::Error Cache::claim_uuid(const u8 (&uuid)[16], media::Refusal &why) noexcept
{
    __builtin_memcpy(uuid_.byte, uuid, sizeof(uuid_.byte));
    if (claim_.uuid(claim_.context, uuid_, &why.sentence))
        return rt::Error::none;
    why.error = rt::Error::busy;
    return why.error;
}

void Cache::publish_tails() noexcept
{
    Parts &p = *parts_;
    p.gc.key_tail().set(p.metadata.key_tail());
    p.write_back.dirty_tail().set(p.metadata.dirty_tail());
    cache_flags_.set(p.metadata.cache_info().flags);
    gc_percent_.set(p.metadata.cache_info().gc_percent());
}

rt::Error Cache::start(media::Refusal &why, Claim claim) noexcept
{
    claim_ = claim;
    if (media_gone())
        return media::refuse(why, rt::Error::no_device, removed_sentence);
    if (const rt::Error e = build(why); !ok(e)) {
        drop_parts();
        return e;
    }
    device_.freeze_chain();
    fitted_length_ = length_;
    if (read_only_.why) {
        read_only_.settled.store_release(1);
        state_.store_release(static_cast<u32>(State::read_only));
        let_removal_in(true);
        tell_read_only();
        return rt::Error::none;
    }
    end_suspend();
    // Before it is published nothing of the cache's own makes the state another one.
    if (run(State::inactive))
        return rt::Error::none;
    drop_parts();
    return refuse_failed(why);
}

rt::Error Cache::refuse_failed(media::Refusal &why) noexcept
{
    return media::refuse(why, rt::Error::io, "the cache has failed: remove the device");
}

// A suspend that has begun goes on, unless the caller has ended it: accept_loss comes here, too.
// False: the state is not `from` any more, which somebody who found damage has changed; it stays
// that, and write-back halted. `settled` is 0 in the states running and suspended: whoever leaves
// read_only sees to it.
bool Cache::run(State from) noexcept
{
    rt::Guard g(parts_lock_);
    if (mutant(Mutant::rebuild_ends_suspend))
        end_suspend();
    fitted_length_ = length_;
    if (!push_back_.read() || mutant(Mutant::rebuilt_not_halted))
        parts_->write_back.go_on();
    else
        parts_->write_back.halt(); // accept_loss has made another one since that was said
    backing_failing_.set(0);
    retry_at_ = retry_delay_ = 0;
    last_change_ = pc_now_ns();
    u32 now = static_cast<u32>(from);
    if (mutant(Mutant::damage_overwritten))
        now = state_.read();
    if (!state_.try_cmpxchg(now, static_cast<u32>(State::running))) {
        parts_->write_back.halt();
        return false;
    }
    parts_->log.prepare_spare();
    reclaim_work_.kick();
    let_removal_in(true);
    return true;
}

// ---- suspend and resume -------------------------------------------------------------------

void Cache::begin_suspend(bool noflush) noexcept
{
    rt::Guard g(parts_lock_);
    (void)suspending_.xchg(1);
    if (read_only_.accepting.read() && !mutant(Mutant::suspend_waits_for_rescue))
        stop_rescue();
    push_back_.set(noflush);
    waiting_changed_.wake();
    if ((!noflush && !mutant(Mutant::suspend_halts_at_once)) || state() != State::running)
        return;
    parts_->write_back.halt();
    admit_work_.kick();
}

void Cache::end_suspend() noexcept
{
    push_back_.set(0);
    suspending_.store_release(0);
}

void Cache::undo_suspend() noexcept
{
    rt::Guard g(parts_lock_);
    end_suspend();
    if (state() != State::running)
        return;
    parts_->write_back.go_on();
    admit_work_.kick();
    reclaim_work_.kick();
}

// Waiting writes are served, unless the backing device, which they wait for, fails. After a suspend
// there are none: device-mapper has waited for them, or they were pushed back.
void Cache::drain_waiting() noexcept
{
    admit_work_.kick();
    reclaim_work_.kick();
    waiting_changed_.wait([this] {
        return !anybody_waiting() || state() != State::running || backing_failing_.read();
    });
    if (anybody_waiting() && state() == State::running)
        fail("write requests wait for space, and the backing device reports errors");
    waiting_changed_.wait([this] { return !anybody_waiting(); });
}

// A write that came between the last look and the end of map() ends with an error; device-mapper
// lets none come then.
void Cache::drain_waiting_after_stop() noexcept
{
    admit_work_.kick();
    waiting_changed_.wait([this] { return !anybody_waiting(); });
}

// Nobody is in map(), and no message changes a setting, behind it. False: the cache was not
// running.
bool Cache::stop_service() noexcept
{
    u32 expected = static_cast<u32>(State::running);
    bool was_running = false;
    {
        rt::Guard g(settings_lock_);
        was_running = state_.try_cmpxchg(expected, static_cast<u32>(State::suspended));
    }
    pc_epoch_wait();
    return was_running;
}

void Cache::quiesce() noexcept
{
    wake_up(); // a suspend of the machine that failed: its thread may be late
    // Device-mapper removes a device without waiting for its messages. One that comes from now on
    // finds the suspend begun and looks at nothing.
    if (!mutant(Mutant::remove_waits_for_no_message))
        waiting_changed_.wait([this] { return read_only_.accepting.load_acquire() == 0; });
    if (!parts_ || state() == State::suspended)
        return;
    drain_waiting();
    parts_->write_back.halt();
    const bool clean = stop_service();
    parts_->fills.drain();
    parts_->summed_reads.drain();
    drain_waiting_after_stop();
    parts_->log.no_segment_comes();
    if (!mutant(Mutant::staged_left_at_stop))
        parts_->log.commit_and_wait();
    if (!mutant(Mutant::workers_not_stopped)) {
        rt::Guard g(stopping_lock_);
        stop_workers();
    }
    if (state() == State::read_only) { // the last step of the log or a worker may have found damage
        wait_until_settled();
        stop_workers();
        learn_disk_read_only();
    }
    if (clean && state() == State::suspended)
        stop_cleanly();
}

void Cache::not_stopped(const char *what) noexcept
{
    state_.store_release(static_cast<u32>(State::failed));
    pc_log(host_, PC_ERR,
           "not stopped cleanly: %s; what was flushed is in the cache and will be written back at "
           "the next activation",
           what);
    pc_raise_event(host_); // who waits for it then reads the log
}

// Everything is quiet. A noflush suspend must not wait for the backing device, which may be
// what is wrong: its first blocks are not read, and the disk record stays empty. The format wants
// the device FLUSHed in front of CLEAN_STOP: it is, if nothing was sent since the last FLUSH. If
// something was, the next activation treats this end as a power cut.
void Cache::stop_cleanly() noexcept
{
    const bool noflush = push_back_.read() != 0;
    parts_->heads.leave_all();
    if (parts_->metadata.failed()) {
        not_stopped("the cache device cannot be stored to");
        return;
    }
    if (noflush && parts_->write_back.anything_unflushed()) {
        pc_log(host_, PC_INFO, "stopped without a FLUSH of the backing device: no clean stop");
        return;
    }
    if (!noflush || mutant(Mutant::noflush_stop_learns)) {
        if (pc_backing_flush(backing_) != 0 && !mutant(Mutant::stop_flush_ignored)) {
            not_stopped("the backing device failed a FLUSH");
            return;
        }
        learn_disk();
    }
    parts_->metadata.set_clean_stop(parts_->log.next_number_at_stop(), parts_->log.durable_head());
    if (parts_->metadata.failed())
        not_stopped("the cache device cannot be stored to");
}

// Whether the log fits a table shorter than the one before. Clean keys beyond its end must go
// before anything is served, since the table may grow again, and who knows what was done there
// meanwhile: key tail goes behind the last of them. Dirty ones, and clean ones behind
// dirty tail, cannot go: refused, unless all that stands behind it is clean.
rt::Error Cache::fit_table(TableFit &fit, media::Refusal &why) noexcept
{
    Parts &p = *parts_;
    fit.keep_from = p.metadata.key_tail();
    if (length_ >= fitted_length_)
        return rt::Error::none;
    media::RecordReader reader;
    RT_TRY(reader.allocate());
    const format::LogPosition head = p.log.durable_head(), dirty = p.metadata.dirty_tail();
    bool in_front = true, any_dirty = false;
    u64 behind_end = 0; // highest end of a key at or behind dirty_tail
    media::Record r;
    for (format::LogPosition at = fit.keep_from; at != head; at = r.behind()) {
        in_front = in_front && at != dirty;
        if (reader.read(device_, at, r) != media::ReadOutcome::good) {
            p.log.page_lost(at);
            return media::refuse(why, rt::Error::io, media::unread_log_sentence);
        }
        for (u32 i = 0; i < r.keys(); i++) {
            const format::Key k = reader.key(i);
            any_dirty |= !in_front && !(k.flags & format::key_clean);
            if (!in_front)
                behind_end = rt::max(behind_end, k.off + k.len);
            if (k.off + k.len > length_)
                fit.keep_from = r.behind();
        }
        pc_yield();
    }
    fit.all_clean = behind_end > length_ && !any_dirty;
    if (behind_end > length_ && any_dirty)
        return media::refuse_short_table(host_, length_, behind_end, why);
    return rt::Error::none;
}

rt::Error Cache::drop_beyond(const TableFit &fit) noexcept
{
    Parts &p = *parts_;
    pc_log(host_, PC_WARN, "clean data beyond the end of the table is dropped");
    if (fit.all_clean) { // as write-back would do
        p.metadata.set_dirty_tail(p.log.durable_head());
        p.write_back.dirty_tail().set(p.log.durable_head());
    }
    return p.gc.pass_all(fit.keep_from);
}

// The drop of a changed device's keys, the disk record and step 6 of activation (nothing else of
// step 5 is to be done), and what a shorter table demands. Where a record that was good cannot be
// read any more the state is read_only behind it.
rt::Error Cache::begin_next_session(const TableFit &fit, media::Refusal &why) noexcept
{
    Parts &p = *parts_;
    const format::LogPosition head = p.log.durable_head();
    const u64 start_number = p.metadata.extension().limit;
    rt::Error e = rt::Error::none;
    if (length_ < fitted_length_ && !mutant(Mutant::beyond_the_table_kept))
        drop_beyond_table(); // also what the log does not know any more
    fitted_length_ = length_;
    if (fit.all_keys_go)
        e = drop_all_keys();
    if (ok(e))
        p.metadata.forget_disk();
    if (ok(e) && !p.metadata.failed()) {
        p.metadata.begin_session(head, start_number, pc_backing_bytes(backing_));
        p.log.begin_session(head, start_number, fit.all_keys_go ? 0 : p.log.newest_number());
        if (!fit.all_keys_go && fit.keep_from != p.metadata.key_tail())
            e = drop_beyond(fit);
    }
    if (!ok(e) && !p.metadata.failed()) {
        log_unreadable();
        return rt::Error::none;
    }
    if (ok(e) && !p.metadata.failed())
        return rt::Error::none;
    not_stopped("the cache device cannot be stored to");
    return refuse_failed(why);
}

// The state is none that service begins from: what is read-only or has failed goes on as such.
rt::Error Cache::resume_damaged(media::Refusal &why) noexcept
{
    if (const State now = state(); now != State::read_only && now != State::failed)
        return refuse_failed(why);
    RT_TRY(fit_read_only(why));
    end_suspend();
    return rt::Error::none;
}

rt::Error Cache::resume(media::Refusal &why) noexcept
{
    if (state() != State::suspended)
        return resume_damaged(why);
    if (pc_backing_bytes(backing_) < parts_->metadata.extension().backing_bytes)
        return media::refuse(why, rt::Error::invalid, media::small_backing_sentence);
    TableFit fit;
    RT_TRY(fit_table(fit, why));
    RT_TRY(fit_blocks(why));
    RT_TRY(compare_disk(fit.all_keys_go, why));
    read_only_.disk_unsure = fit.all_keys_go;
    // Whoever read the log now, or in a resume that was refused, may have found what closes it.
    if (!mutant(Mutant::damage_overwritten))
        parts_->log.commit_staged_so_far();
    parts_->log.stop(); // its worker may be about to look, too
    if (state() != State::suspended)
        return resume_damaged(why);
    RT_TRY(begin_next_session(fit, why));
    if (state() != State::suspended)
        return resume_damaged(why);
    end_suspend();
    return run(State::suspended) ? rt::Error::none : resume_damaged(why);
}

// ---- messages and status ------------------------------------------------------------------

// The state is another one than running: on return no message stores anything any more. Sleeps.
void Cache::settings_settled() noexcept
{
    if (mutant(Mutant::setting_stored_behind))
        return;
    rt::Guard g(settings_lock_);
}

rt::Error Cache::set_gc_percent(u32 percent) noexcept
{
    rt::Guard g(settings_lock_);
    if (state() == State::read_only)
        return rt::Error::read_only;
    if (state() != State::running)
        return rt::Error::busy;
    const format::CacheInfo now = parts_->metadata.cache_info();
    parts_->metadata.set_flags(format::make_cache_flags(now.data_crc(), true, now.mode(), percent));
    cache_flags_.set(parts_->metadata.cache_info().flags);
    gc_percent_.set(percent);
    reclaim_work_.kick();
    return rt::Error::none;
}

Snapshot Cache::snapshot() noexcept
{
    Snapshot s;
    s.state = state();
    if (s.state == State::inactive)
        return s;
    rt::Guard g(parts_lock_);
    if (read_only_.rebuilding) {
        const State now = s.state;
        s = read_only_.last;
        s.state = now;
        return s;
    }
    s.segments = device_.seg_count();
    s.chain_length = device_.chain_length();
    s.segments_used = parts_->segments.used();
    s.gc_percent = gc_percent_.read();
    s.cache_flags = cache_flags_.read();
    s.key_head = parts_->log.durable_head();
    s.dirty_tail = parts_->write_back.dirty_tail().get();
    s.key_tail = parts_->gc.key_tail().get();
    return s;
}

} // namespace pcache::engine
