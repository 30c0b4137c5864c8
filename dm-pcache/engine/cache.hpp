// SPDX-License-Identifier: GPL-2.0
// engine/cache.hpp - one cache: owns all parts of the engine, serves requests, and turns with its
// device-mapper device through open, start, quiesce and resume.
//
// The way of a write: reserve space and tickets, or wait in order; copy to media, no lock held;
// fence on the CPU that copied; index entry and staged key in one step under the shard's lock;
// done. The way of a read: look up under the shard's lock, copy without it, inside an epoch.
// Neither sleeps nor changes thread, unless it must wait. What is not cached is read from the
// backing device and put into the cache (fills.hpp), or read from there alone if that is too much
// now.
//
// quiesce() and resume() keep the index: nothing is replayed between them.
//
// When damage is found the state is read_only (read_only.cpp), at activation or at run time.
//
// Locking: each part has its own, see there. `parts_lock_` guards parts_ where map() is not its
// only user (read_only.cpp), and the marks of a suspend against the beginning of the state running.
// `waiting_lock_` guards the queue of waiting writes. Whoever runs in map() is inside an epoch;
// quiesce() sets the state and waits for the epoch to end, so that nobody is in map() behind it.
// What map() does after its epoch, sending a fill's read, touches that read alone.
#pragma once
#include "dm-pcache/engine/gc.hpp"
#include "dm-pcache/engine/heads.hpp"
#include "dm-pcache/engine/log.hpp"
#include "dm-pcache/engine/options.hpp"
#include "dm-pcache/engine/write_back.hpp"
#include "dm-pcache/media/inspect.hpp"
#include "dm-pcache/memory.hpp"

namespace pcache::engine
{

class FrontEviction;

inline constexpr const char *too_few_segments_sentence =
    "too few segments of the cache device are left without pages that cannot be read: replace it";

inline constexpr const char *removed_sentence = "the cache device is being removed";

enum class State : u32 {
    inactive, // not activated yet, or activation failed
    running,
    suspended, // quiesced; the index is kept
    read_only, // damage, or written by something newer: nothing is stored on either device
    failed     // media cannot be trusted or stored to: all I/O ends with EIO, nothing is stored
};

struct Uuid {
    u8 byte[16] = {};
    bool none() const noexcept { return *this == Uuid{}; }
    friend bool operator==(const Uuid &, const Uuid &) = default;
};

// For STATUS and TABLE; consistent enough to print.
struct Snapshot {
    State state = State::inactive;
    u32 superblock_flags = 0;
    u32 segments = 0, chain_length = 0, segments_used = 0;
    u32 gc_percent = 0, cache_flags = 0;
    format::LogPosition key_head, dirty_tail, key_tail;
};

// Asked during start() with the uuid that is on media, and again with the final one: may this cache
// be activated? False, with a sentence: another one with this uuid is active.
struct Claim {
    bool (*uuid)(void *context, const Uuid &uuid, const char **sentence) noexcept;
    void *context;
};

// What belongs to the state read_only.
struct ReadOnly {
    // The way into the state has ended: what was staged is in records or given up, and no worker
    // does anything. Who acquires this 1 may read the next three, and whoever sends accept_loss
    // alone changes them then.
    rt::Atomic<u32> settled{0};
    const char *why = nullptr; // static text
    // The backing device was changed; static text that names the block. Null: it was not.
    const char *changed_disk = nullptr;
    bool at_run_time = false; // the index knows all, also what the log has lost since
    bool newer = false;       // a newer driver wrote the media: accept_loss is refused
    // The disk record has been learnt, or was found to differ, and no resume has compared it and
    // dealt with that since: clean data may be of a device in another state. For whoever resumes or
    // sends accept_loss, of whom there is one at a time; also while the state is another one.
    bool disk_unsure = false;
    bool index_partial = false; // it was being made anew, and that has failed
    // What a suspend has found at the beginning of the backing device, where the media must not be
    // told: by uuid_. For whoever suspends and resumes.
    format::DiskState disk{};
    // What the index was made of. A log that reads otherwise now has lost what the index still has.
    struct Log {
        u64 keys = 0, dirty_keys = 0;
        u32 runs = 0;
        format::LogPosition damage_at, head;
        friend constexpr bool operator==(const Log &, const Log &) = default;
    } log;
    rt::Atomic<const char *> found{nullptr}; // why the way into the state is taken; static text
    Work way;
    rt::Atomic<u32> index_gone{0}; // all data is on the backing device, and read from there
    rt::Atomic<u32> gave_up{0};    // what the log has said of itself; while index_gone
    rt::Atomic<u32> accepting{0};  // accept_loss is under way
    u32 format_flags = 0;          // settings that the new cache keeps; 0: none
    // By physical number, and so of the new cache: segments with a page that could not be read.
    // Those that steps 3 and 4 leave behind get no data. Empty before step 2.
    Array<u8> unusable;
    // Step 1 of accept_loss runs on a worker, so that the waiting for it can be interrupted.
    Work work;
    Event done; // job_done became 1
    void *job = nullptr;
    rt::Atomic<u32> job_done{0};
    rt::Atomic<u32> stop{0}; // the job ends soon
    // Guarded by parts_lock_:
    bool rebuilding = false; // the parts are being made anew: nobody may look at them,
    Snapshot last;           // and status shows this
};

class Cache : rt::NonCopyable
{
public:
    Cache() noexcept;
    ~Cache(); // as close()

    // ---- life cycle; process context, may sleep, one at a time (device-mapper sees to it) ------
    // Before open() and start(), which refuse what contradicts the media.
    void ask(const Options &o) noexcept { asked_ = o; }
    // Takes media, backing and host over, also when it fails. Reads and judges; stores nothing.
    // length: bytes of the backing device that the table serves.
    rt::Error open(pc_media *media, pc_backing *backing, pc_host *host, u64 length,
                   media::Refusal &why) noexcept;
    // Quiesces what has not been, and closes both devices; the state is inactive for good. host()
    // stays. No request is mapped any more.
    void close() noexcept;
    // The table at hand serves so much; looked at by the next start() or resume(). Not while
    // running.
    void set_length(u64 bytes) noexcept { length_ = bytes; }
    // Formats what is blank, recovers, activates and starts the workers. After a failure it may be
    // called again. On success everything read is durable.
    rt::Error start(media::Refusal &why, Claim claim) noexcept;
    // suspending() is true from here on (messages that wait end with -EBUSY), and whoever waits on
    // the cache's event for it is woken. In a noflush suspend waiting requests are pushed back and
    // nothing new is sent to the backing device. Service goes on.
    void begin_suspend(bool noflush) noexcept;
    void undo_suspend() noexcept;
    // Drains by itself: waiting requests served, staged keys logged, workers stopped, backing
    // device FLUSHed, clean stop recorded. Nothing touches a device afterwards. If something could
    // not be drained the state is failed and CLEAN_STOP is not set. In a noflush suspend the
    // backing device is asked for nothing: no FLUSH, no disk record; and where something was sent
    // that no FLUSH has followed, there is no CLEAN_STOP either.
    void quiesce() noexcept;
    // After quiesce(): a new session over the same index. Refused, still suspended, when the table
    // ends in front of dirty data, or the backing device has become smaller, or was changed and
    // there is dirty data for it; it may be called again.
    // A read-only or failed cache goes on as such.
    rt::Error resume(media::Refusal &why) noexcept;
    // Between begin_suspend() and the end of the next resume, or undo_suspend(): a message that
    // waits for anything ends with Error::busy. Any context.
    bool suspending() const noexcept { return suspending_.load_acquire() != 0; }

    // ---- the machine is being suspended; any state, any time, one thread
    // --------------------------- Some request waits for a worker.
    bool requests_wait() noexcept;
    // From here on the workers come to an end. map() goes on.
    void fall_asleep() noexcept;
    // They have: of themselves they send nothing to either device, and store nothing, before
    // wake_up(). Nothing was given up. No waiting: fall_asleep() only sees to it that it comes
    // true.
    bool asleep() noexcept;
    void wake_up() noexcept;

    // ---- requests; never sleep ---------------------------------------------------------------
    pc_verdict map(pc_bio *bio, void *memory, const pc_io &io) noexcept;

    // ---- messages, status; may sleep ------------------------------------------------------------
    // 0..90; durable on return.
    rt::Error set_gc_percent(u32 percent) noexcept;
    // Gives up what of a read-only cache cannot be read: all other dirty data goes to the backing
    // device, the cache is formatted anew, and the state is running. Error::io: still read-only, no
    // data is lost by that, it may be given again. Error::busy: a suspend has begun, or it is under
    // way already; Error::interrupted: a signal came: still read-only, too. Refused (invalid,
    // not_supported) in another state, and where a newer driver wrote the media. `why` has a
    // sentence for each.
    rt::Error accept_loss(media::Refusal &why) noexcept;
    // Damage was found while running: the state is read_only at once. A worker then sees to it that
    // what is staged is logged and nothing more is stored (failed, if metadata cannot be stored).
    // `sentence`: static text. Any context but interrupt; never sleeps.
    void go_read_only(const char *sentence) noexcept;
    Snapshot snapshot() noexcept; // all zero but the state when inactive
    // Of the media, as open() found it; of blank media, what it will be formatted with.
    bool data_crc() const noexcept { return data_crc_; }
    // A running cache would refuse this; *sentence says why. The media's own data_crc, and what
    // cannot be asked of a device that is in use.
    bool contradicts_in_use(const Options &o, const char **sentence) const noexcept;
    bool contradicts(const Options &o, const char **sentence) const noexcept;
    Uuid uuid() const noexcept
    {
        return uuid_;
    } // as open() or start() found it; none: no extension
    State state() const noexcept { return static_cast<State>(state_.load_acquire()); }
    pc_host *host() const noexcept { return host_; }
    pc_media *media() noexcept { return device_.media(); }
    pc_backing *backing() const noexcept { return backing_; }

private:
    // What a shorter table demands of the log.
    struct TableFit {
        format::LogPosition keep_from; // key tail goes there
        bool all_clean = false;        // dirty tail goes to the head
        bool all_keys_go = false;      // the backing device was changed: nothing stays cached
    };
    // cache.cpp
    rt::Error inspect(media::Inspection &in, media::Refusal &why) noexcept;
    void complete_settings(media::Inspection &in) const noexcept;
    rt::Error check_options(const media::Inspection &in, media::Refusal &why) noexcept;
    rt::Error build(media::Refusal &why) noexcept;
    rt::Error claim_uuid(const u8 (&uuid)[16], media::Refusal &why) noexcept;
    rt::Error fit_table(TableFit &fit, media::Refusal &why) noexcept;
    rt::Error drop_beyond(const TableFit &fit) noexcept;
    rt::Error resume_damaged(media::Refusal &why) noexcept;
    static rt::Error refuse_failed(media::Refusal &why) noexcept;
    rt::Error begin_next_session(const TableFit &fit, media::Refusal &why) noexcept;
    rt::Error allocate_parts() noexcept;
    bool too_few_segments() const noexcept;
    void publish_tails() noexcept;
    bool run(State from) noexcept;
    void end_suspend() noexcept;
    void settings_settled() noexcept;
    void drain_waiting() noexcept;
    void drain_waiting_after_stop() noexcept;
    bool stop_service() noexcept;
    void not_stopped(const char *what) noexcept;
    void stop_cleanly() noexcept;
    void drop_parts() noexcept;

    // recovery.cpp
    rt::Error recover(media::Activation &activation, media::Inspection &in) noexcept;
    rt::Error recover_index(media::Activation &activation, media::Inspection &in,
                            u64 &dirty_bytes) noexcept;
    static rt::Error refuse_recovery(media::Refusal &why, rt::Error e) noexcept;
    rt::Error pass_evicted(media::Activation &activation, media::Inspection &in,
                           const FrontEviction &front) noexcept;

    // block_fit.cpp
    template <class F>
    rt::Error for_each_key(F &&f, media::Refusal &why) noexcept;
    rt::Error fit_blocks(media::Refusal &why) noexcept;
    void tell_ignored(u64 keys, u32 block) noexcept;

    // sleep.cpp
    bool has_workers() const noexcept;
    void put_to_sleep() noexcept;

    // disk.cpp
    media::BackingFacts backing_facts() const noexcept;
    void learn_disk() noexcept;
    rt::Error any_dirty(bool &dirty, media::Refusal &why) noexcept;
    rt::Error compare_disk(bool &changed, media::Refusal &why) noexcept;
    rt::Error drop_all_keys() noexcept;

    // read_only.cpp
    pc_verdict map_read_only(pc_bio *bio, void *memory, const pc_io &io, pc_rio *&send) noexcept;
    rt::Error build_read_only(media::Activation &activation, media::Inspection &in,
                              media::Refusal &why) noexcept;
    void stay_read_only(const media::Inspection &in, const char *sentence) noexcept;
    void note_read_only(const media::Inspection &in, const char *sentence) noexcept;
    void tell_read_only() noexcept;
    void way_into_read_only() noexcept;
    void wait_until_settled() noexcept;
    void stop_workers() noexcept;
    bool disk_change_known() const noexcept;
    rt::Error next_step(media::Refusal &why) const noexcept;
    rt::Error accept_loss_alone(media::Refusal &why) noexcept;
    struct RescueJob;
    rt::Error rescue(RescueJob &job, media::Refusal &why) noexcept;
    void rescue_worker() noexcept;
    rt::Error rescue_index(RescueJob &job) noexcept;
    void stop_rescue() noexcept;
    void note_bad_segments(const media::Inspection &in, Array<u8> &unusable) const noexcept;
    void clear_bad_segments() noexcept;
    rt::Error rebuild(media::Refusal &why) noexcept;

    // read_only_resume.cpp
    rt::Error fit_read_only(media::Refusal &why) noexcept;
    rt::Error fit_read_only_table(media::Activation &activation, const media::Inspection &in,
                                  media::Refusal &why) noexcept;
    rt::Error fit_read_only_as_inspected(media::Activation &activation, media::Inspection &in,
                                         media::Refusal &why) noexcept;
    rt::Error make_index_anew(media::Activation &activation, media::Inspection &in,
                              media::Refusal &why) noexcept;
    void drop_beyond_table() noexcept;
    void learn_disk_read_only() noexcept;
    void compare_disk_read_only(media::Inspection &in) noexcept;

    // requests.cpp
    pc_verdict map_in_epoch(pc_bio *bio, void *memory, const pc_io &io, pc_rio *&send) noexcept;
    pc_verdict map_flush(pc_bio *bio, void *memory) noexcept;

    // reads.cpp
    pc_verdict map_read(pc_bio *bio, void *memory, const pc_io &io, pc_rio *&send) noexcept;
    pc_verdict read_summed(pc_bio *bio, void *memory, const pc_io &io, u32 sectors) noexcept;
    bool summed_read_failed(Request &r) noexcept;
    void summed_read_met(SegmentId unreadable) noexcept;
    void retire_unreadable(const media::Inspection &in) noexcept;
    pc_verdict read_damaged(pc_bio *bio, void *memory, const pc_io &io, u32 sectors) noexcept;
    pc_verdict map_miss(pc_bio *bio, const pc_io &io, u32 sectors, pc_rio *&send) noexcept;
    bool fill_wanted() const noexcept;
    void fill_ended(Fill &f) noexcept;
    void insert_fill(Fill &f) noexcept;
    void copy_fill(const Fill &f, const Reservation &r) noexcept;
    bool stage_fill(Fill &f, Reservation &r) noexcept;

    // writes.cpp
    pc_verdict map_write(pc_bio *bio, void *memory, const pc_io &io) noexcept;
    bool may_go_ahead() const noexcept;
    bool write_now(Request &r) noexcept;
    bool admit(Request &r) noexcept;
    bool reserve(Request &r) noexcept;
    void copy(Request &r) noexcept;
    bool copy_and_stage(Request &r, pc_how how) noexcept;
    void finish_write(Request &r) noexcept;
    u64 give_back(Request &r) noexcept;
    void give_up(Request &r) noexcept;
    void tell_of_staged() noexcept;
    void wait_in_order(Request &r) noexcept;
    void admit_worker() noexcept;
    void front_lacks() noexcept;
    void call_for_help(const Request &front, bool staged) noexcept;
    bool anybody_waiting() const noexcept { return waiting_count_.load_acquire() != 0; }

    // removal.cpp
    void watch_media() noexcept;
    void media_goes() noexcept;
    bool media_gone() const noexcept { return media_gone_.load_acquire() != 0; }
    void removal_worker() noexcept;
    void let_removal_in(bool in) noexcept;

    // reclaim.cpp
    void reclaim_worker() noexcept;
    bool reclaim_step(u64 now) noexcept;
    bool gc_wanted() const noexcept;
    bool write_back_wanted(u64 now) noexcept;
    bool idle(u64 now) noexcept;
    u32 low_water() const noexcept;
    bool low() const noexcept;
    bool credit_comes() const noexcept;
    bool index_too_large() const noexcept;
    bool space_wanted() const noexcept;
    void watch_space() noexcept;
    void end_pacing() noexcept;
    void limit_batch(bool idle) noexcept;
    void adapt_batch(u64 took) noexcept;
    bool collect_garbage(bool &moved) noexcept;
    bool write_back(u64 now, bool &moved) noexcept;
    void freed() noexcept;
    void committed() noexcept;
    void landed(u64 key_bytes) noexcept;
    void log_unreadable() noexcept;
    void bad_found() noexcept;
    void log_closed() noexcept;
    void fail(const char *what) noexcept;
    void backing_failed(u64 now) noexcept;

    pc_host *host_ = nullptr;
    pc_backing *backing_ = nullptr;
    media::Device device_;
    Uuid uuid_;
    Options asked_;
    // Fixed while the cache runs.
    bool data_crc_ = false;
    u32 key_sectors_ = 0;   // that a key covers at most
    Claim claim_{};         // of the last start()
    u64 length_ = 0;        // of the table at hand, bytes
    u32 block_bytes_ = 0;   // of the backing device's logical block, which the index fits
    u64 fitted_length_ = 0; // no key of the log lies beyond; known since the last start or resume
    rt::Atomic<u32> state_{0};

    // Made by start(), in this order; destroyed the other way round.
    struct Parts;
    Parts *parts_ = nullptr;
    pc_queue *queue_ = nullptr; // from open() on: it needs threads, which need memory
    Mutex parts_lock_;
    bool to_sleep_ = false; // the machine is being suspended; guarded by parts_lock_
    ReadOnly read_only_;
    // The notice that the media goes comes at any time: see removal.cpp.
    rt::Atomic<u32> media_gone_{0};
    Mutex removal_lock_;
    bool removal_let_in_ = false; // removal_work_ may be kicked; guarded by removal_lock_
    Work removal_work_;

    SpinLock waiting_lock_;
    rt::Queue<Request> waiting_;
    rt::Atomic<u32> waiting_count_{0};
    rt::Atomic<u32> front_short_{0}; // the front was tried and lacks something
    rt::Atomic<u32> ordered_{0};     // so many of them, from the front on, nobody overtakes
    // The suspend under way, or the last one, began as a noflush suspend. Whether it still is one,
    // so that waiting writes may be pushed back, pc_host_noflush() knows: an interrupted one ends
    // some time before undo_suspend().
    rt::Atomic<u32> push_back_{0};
    rt::Atomic<u32> suspending_{0}; // from begin_suspend() to undo_suspend() or the resume
    Event waiting_changed_;

    Work admit_work_, reclaim_work_;
    // The reclaim worker's.
    u64 last_operations_ = 0, last_change_ = 0;
    u64 retry_at_ = 0, retry_delay_ = 0;
    u32 short_batch_ = batch_keys_when_short_least; // keys
    rt::Atomic<u32> backing_failing_{0};

    Mutex stopping_lock_; // one at a time stops works
    Mutex
        settings_lock_; // one message at a time changes a setting, and none once the state is other
    rt::Atomic<u32> gc_percent_{default_gc_percent};
    rt::Atomic<u32> cache_flags_{0};
    rt::Atomic<u32> starved_{0}; // the index has no node left: evict, though segments are free
    rt::Atomic<u32> short_of_space_{0}; // what the front of the queue lacks only reclaim brings
};

} // namespace pcache::engine
