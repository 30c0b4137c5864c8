// SPDX-License-Identifier: GPL-2.0
// engine/log.hpp - the log's writer: staged keys become durable records.
//
// At any time at most one thread, the leader, writes records. A FLUSH that finds a leader at work
// joins the waiters, and the leader serves all of them with one commit (group commit). A leader in
// map() must not sleep: when it needs a new segment, or has served enough rounds for others, it
// hands its role to the worker. The role is `leading_`; whoever set it from false to true, or was
// handed it, owns everything under "the leader's".
//
// Rules of the format kept here (Documentation/format.md, Part 2):
//  - a segment is durably zero before the LAST record that leads to it is stored (the spare);
//  - nothing of a record is stored before its predecessor is durable: one fence per record;
//  - the data of a key was fenced by the CPU that copied it before the key was staged;
//  - link_seg and limit are durable before the first record of a new segment;
//  - a FLUSH completes only when all keys staged before it came are in durable records and the next
//    record is bound to carry EPOCH.
// Write-back and GC see the log only up to durable_head().
//
// A log is open, then closing (no request stages anything new; what is staged still goes into
// records), then closed: nothing is stored any more, and what is staged is given up. It closes by
// itself where it must not store: its page may have lost its mapping, or metadata cannot be stored;
// and where it needs a segment, none is left, and nobody frees any (a suspend, read-only).
// Once the key of dirty data was given up, no FLUSH and no FUA write succeeds any more: that mark
// goes with the log, when accept_loss makes another one.
#pragma once
#include "dm-pcache/engine/published.hpp"
#include "dm-pcache/engine/request.hpp"
#include "dm-pcache/engine/segments.hpp"
#include "dm-pcache/engine/shard.hpp"
#include "dm-pcache/format/record.hpp"
#include "dm-pcache/media/metadata.hpp"

namespace pcache::engine
{

enum class LogState : u32 { open, closing, closed };

class Log : rt::NonCopyable
{
public:
    // committed: after records became durable (waiters for tickets, dirty data). closed: once, when
    // the log has closed, and before whoever waits for the commit in hand is told. Both never under
    // a lock, possibly in an epoch.
    struct Listener {
        void (*committed)(void *context) noexcept;
        void (*closed)(void *context) noexcept;
        void *context;
    };

    Log(media::Device &device, media::Metadata &metadata, Segments &segments, Tickets &tickets,
        Shard *shards) noexcept;
    ~Log();
    // Memory, and the two works on `queue`. May sleep.
    rt::Error allocate(pc_queue *queue, Listener listener) noexcept;

    // Begins a session: the log is durably valid up to `head` and zero behind it to the end of its
    // segment; the first record will be a START with `start_number`. leave_segment: it is not zero
    // up to there, so the first record will be a LAST.
    void begin_session(format::LogPosition head, u64 start_number, u64 newest_number,
                       bool leave_segment = false) noexcept;

    // Under the shard's lock: the shard has a staged key. True: the caller shall call
    // staged_first() after it released the lock.
    bool mark_staged(u32 shard) noexcept;
    void staged_first() noexcept;
    void prepare_spare() noexcept { spare_work_.kick(); }
    void kick() noexcept { commit_work_.kick(); }
    bool anybody_waiting() noexcept; // for a commit
    bool nothing_staged() const noexcept { return staged_.load_acquire() == 0; }

    // A FLUSH, or a FUA write whose key is staged: `r` is ended with pc_bio_end, now or later, when
    // everything staged before this call is durable: with EIO if anything was ever given up. In
    // every state of the log. Never sleeps.
    void commit_for(Request &r) noexcept;
    // Everything staged is durable on return, or given up if the log has closed. Sleeps.
    void commit_and_wait() noexcept;
    // The same for what was staged before the call, while others go on staging. Sleeps.
    void commit_staged_so_far() noexcept;
    // No request stages anything any more, from soon after this. Any thread.
    void begin_closing() noexcept { advance(LogState::closing); }
    // Nobody frees segments any more, until the next session: where the log needs one and none is
    // left that can be zeroed, it closes instead of waiting for GC. Any thread.
    void no_segment_comes() noexcept;
    // From now on nothing is stored, but for a record under way, and what is staged is given up.
    // Any thread.
    void close() noexcept;
    // Nothing is stored any more. Any thread.
    bool closed() const noexcept { return state() == LogState::closed || metadata_.failed(); }
    // The key of dirty data was given up, which a write that had completed may have staged.
    bool gave_up() const noexcept { return gave_up_.load_acquire() != 0; }
    // The record that stands at `at`, or should, could not be read: a page that it lies in may have
    // lost its mapping, and must not be stored to any more. The log then looks at each page of that
    // segment before it stores there, and closes instead if it cannot be read. For whoever reads
    // the log while the cache is active. Any thread, never sleeps.
    void page_lost(format::LogPosition at) noexcept;
    // Stops both works; nothing may be staged afterwards. Sleeps.
    void stop() noexcept;

    format::LogPosition durable_head() const noexcept { return durable_head_.get(); }
    // For the clean stop: number after the newest numbered record known; 0: there is none.
    u64 next_number_at_stop() const noexcept;
    u64 newest_number() const noexcept { return newest_number_.read(); }
    u64 dirty_bytes() const noexcept { return dirty_bytes_.read(); }
    void dirty_written_back(u64 bytes) noexcept { dirty_bytes_.fetch_add(~bytes + 1); }
    void dirty_recovered(u64 bytes) noexcept { dirty_bytes_.fetch_add(bytes); }
    u64 records() const noexcept { return records_.read(); }
    // Number of the newest record since the activation that has an ordinary key: one that was not
    // logged again with a ticket of the reserve (relog.cpp). 0: none. Any thread; the record may
    // not be durable yet.
    u64 newest_ordinary() const noexcept { return newest_ordinary_.read(); }

private:
    enum class Step { done, needs_worker };

    LogState state() const noexcept { return static_cast<LogState>(state_.load_acquire()); }
    void advance(LogState to) noexcept;
    void lead(bool may_sleep) noexcept;
    int answer() const noexcept;
    void close_if_lost() noexcept;
    void give_up_pending() noexcept;
    Step write_pending(bool may_sleep) noexcept;
    void collect() noexcept;
    u32 keys_that_fit() const noexcept;
    void write_kset(u32 keys) noexcept;
    void next_segment() noexcept;
    bool may_store(u32 bytes) const noexcept;
    void store_record(const void *record, u32 bytes) noexcept;
    format::RecordFlags flags_of_next() noexcept;
    void record_stored() noexcept;
    bool take_lead() noexcept;
    void commit_worker() noexcept;
    void spare_worker() noexcept;
    bool make_spare() noexcept;
    rt::Error zero_segment(SegmentId s) noexcept;

    media::Device &device_;
    media::Metadata &metadata_;
    Segments &segments_;
    Tickets &tickets_;
    Shard *shards_;
    Listener listener_{};
    Work commit_work_, spare_work_;

    rt::Atomic<u64> staged_{0}; // bit per shard with staged keys

    Mutex spare_lock_; // one at a time makes the spare
    SpinLock lock_;    // guards the next five
    u64 rounds_ = 0;   // of group commit, begun
    bool leading_ = false;
    bool handed_over_ = false;
    bool again_ = false;
    rt::Queue<Request> waiters_;

    // The leader's.
    rt::Queue<Request> served_;
    rt::Queue<Ticket> pending_; // taken from the shards, not yet in a record
    u32 pending_count_ = 0;
    u8 *buffer_ = nullptr;
    format::LogPosition head_{};
    u64 next_number_ = 0;
    bool starting_ = false; // the next record is a START
    bool leaving_ = false;  // the next record is a LAST
    bool told_ = false;     // that it has closed

    rt::Atomic<u64> rounds_done_{0}; // everything staged before this round began is durable
    rt::Atomic<u32> awaited_{0};     // somebody waits for a round
    rt::Atomic<u32> state_{0};       // LogState; forward only, by advance()
    rt::Atomic<u32> gave_up_{0};     // for good
    rt::Atomic<u32> none_comes_{0};  // nobody frees segments in this session any more
    rt::Atomic<u32> epoch_bound_{0}; // the next record carries EPOCH
    rt::Atomic<u32> suspect_{0};     // segment + 1 in which a record could not be read; 0: none
    PublishedPosition durable_head_;
    rt::Atomic<u64> newest_number_{0};
    rt::Atomic<u64> dirty_bytes_{0};
    rt::Atomic<u64> records_{0};
    rt::Atomic<u64> newest_ordinary_{0};
    Event progress_; // a commit ended, or a spare is ready
};

} // namespace pcache::engine
