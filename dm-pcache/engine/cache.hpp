// SPDX-License-Identifier: GPL-2.0
// engine/cache.hpp - one cache: owns all parts of the engine, serves requests, and turns with its
// device-mapper device through open, start, quiesce and resume.
//
// The way of a write: reserve space and tickets, or wait in order; copy to media, no lock held;
// fence on the CPU that copied; index entry and staged key in one step under the shard's lock;
// done. The way of a read: look up under the shard's lock, copy without it, inside an epoch; what
// is not cached goes to the backing device. Neither sleeps nor changes thread, unless it must wait.
//
// Locking: each part has its own, see there. `waiting_lock_` guards the queue of waiting writes.
// Whoever runs in map() is inside an epoch; quiesce() sets the state and waits for the epoch to
// end, so that nobody is in map() behind it.
#pragma once
#include "dm-pcache/engine/gc.hpp"
#include "dm-pcache/engine/heads.hpp"
#include "dm-pcache/engine/log.hpp"
#include "dm-pcache/engine/write_back.hpp"
#include "dm-pcache/media/inspect.hpp"

namespace pcache::engine
{

enum class State : u32 {
    inactive, // not activated yet, or activation failed
    running,
    suspended, // quiesced; the index is kept
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

class Cache : rt::NonCopyable
{
public:
    Cache() noexcept;
    ~Cache(); // closes the devices; a running cache was quiesced before

    // ---- life cycle; process context, may sleep, one at a time (device-mapper sees to it) ------
    // Takes media, backing and host over, also when it fails. Reads and judges; stores nothing.
    rt::Error open(pc_media *media, pc_backing *backing, pc_host *host,
                   media::Refusal &why) noexcept;
    // Formats what is blank, recovers, activates and starts the workers. After a failure it may be
    // called again. On success everything read is durable.
    rt::Error start(media::Refusal &why) noexcept;
    // Waiting messages end; in a noflush suspend waiting requests are pushed back. Service goes on.
    void begin_suspend(bool noflush) noexcept;
    void undo_suspend() noexcept;
    // Drains by itself: waiting requests served, staged keys logged, workers stopped, backing
    // device FLUSHed, clean stop recorded. Nothing touches a device afterwards. If something could
    // not be drained the state is failed and CLEAN_STOP is not set.
    void quiesce() noexcept;
    // After quiesce(): a new session over the same index.
    rt::Error resume(media::Refusal &why) noexcept;

    // ---- requests; never sleep ---------------------------------------------------------------
    pc_verdict map(pc_bio *bio, void *memory, const pc_io &io) noexcept;

    // ---- messages, status; may sleep ------------------------------------------------------------
    // 0..90; durable on return.
    rt::Error set_gc_percent(u32 percent) noexcept;
    Snapshot snapshot() noexcept;                // all zero but the state when inactive
    Uuid uuid() const noexcept { return uuid_; } // as open() found it
    State state() const noexcept { return static_cast<State>(state_.load_acquire()); }
    pc_host *host() const noexcept { return host_; }
    pc_media *media() noexcept { return device_.media(); }
    pc_backing *backing() const noexcept { return backing_; }

private:
    // cache.cpp
    rt::Error inspect(media::Inspection &in, media::Refusal &why) noexcept;
    rt::Error build(media::Refusal &why) noexcept;
    rt::Error allocate_parts() noexcept;
    rt::Error recover(media::Activation &activation, const media::Inspection &in) noexcept;
    void publish_tails() noexcept;
    rt::Result<u32> take_backing_crc() noexcept;
    rt::Error take_facts(media::BackingFacts &facts) noexcept;
    void run() noexcept;
    void drain_waiting() noexcept;
    void drain_waiting_after_stop() noexcept;
    void stop_cleanly() noexcept;
    void drop_parts() noexcept;

    // requests.cpp
    pc_verdict map_write(pc_bio *bio, void *memory, const pc_io &io) noexcept;
    pc_verdict map_read(pc_bio *bio, const pc_io &io) noexcept;
    pc_verdict map_flush(pc_bio *bio, void *memory) noexcept;
    bool write_now(Request &r, pc_how how) noexcept;
    bool copy_and_stage(Request &r, pc_how how) noexcept;
    void finish_write(Request &r) noexcept;
    void wait_in_order(Request &r) noexcept;
    void admit_worker() noexcept;
    void push_back_waiting() noexcept;
    bool anybody_waiting() const noexcept { return waiting_count_.load_acquire() != 0; }

    // reclaim.cpp
    void reclaim_worker() noexcept;
    bool reclaim_step(u64 now) noexcept;
    bool gc_wanted() const noexcept;
    bool write_back_wanted(u64 now) noexcept;
    bool idle(u64 now) noexcept;
    u32 low_water() const noexcept;
    void committed() noexcept;
    void fail(const char *what) noexcept;
    void backing_failed(u64 now) noexcept;

    pc_host *host_ = nullptr;
    pc_backing *backing_ = nullptr;
    media::Device device_;
    Uuid uuid_;
    rt::Atomic<u32> state_{0};

    // Made by start(), in this order; destroyed the other way round.
    struct Parts;
    Parts *parts_ = nullptr;
    pc_queue *queue_ = nullptr;

    SpinLock waiting_lock_;
    rt::Queue<Request> waiting_;
    rt::Atomic<u32> waiting_count_{0};
    rt::Atomic<u32> push_back_{0}; // a noflush suspend is under way
    Event waiting_changed_;

    Work admit_work_, reclaim_work_;
    // The reclaim worker's.
    u64 last_operations_ = 0, last_change_ = 0;
    u64 dirty_since_ = 0;
    u64 retry_at_ = 0, retry_delay_ = 0;
    rt::Atomic<u32> backing_failing_{0};

    Mutex settings_lock_; // one message at a time changes a setting
    rt::Atomic<u32> gc_percent_{default_gc_percent};
    rt::Atomic<u32> cache_flags_{0};
    rt::Atomic<u32> starved_{0}; // the index has no node left: evict, though segments are free
};

} // namespace pcache::engine
