// SPDX-License-Identifier: GPL-2.0
// engine/gc.hpp - GC: passes the oldest records of the log, in front of dirty tail only, and frees
// what nothing holds any more. What it passes is clean, so it evicts the oldest cached data.
//
// A record is read once in a pass: its keys are kept, so that what gives up its hold on a segment
// is what leaves the index, whatever can be read a moment later.
//
// Order of a pass (Documentation/format.md, "Order of the big steps"): key tail durable behind the
// passed records, then safe_tail; what still points at the passed keys' bytes leaves the index; a
// grace period, so that no reader is left in an emptied segment; generations of emptied segments
// durable; then they are free. Log segments that key tail has left are free with them.
//
// A record in front of dirty tail that cannot be read costs clean data only: GC goes on behind it,
// at the next good record of the segment with a later number, or in the log's next segment, or
// where the pass ends. What its keys have cached stays in the index and in its segments, readable
// and unknown to the log, until it is overwritten; those segments are not freed before the next
// activation. But if the log is about to grow in the very page, nothing can be stored any more: a
// page that could not be read may have lost its mapping.
//
// An entry of the index that is marked as lost stays when its key is passed: dirty tail has passed
// the key before, so it was logged again (write_back.hpp).
//
// A pass runs in the reclaim worker, with Damage::tails held. From the grace period on, which takes
// tens of milliseconds, a work of its own goes on (`settle`), so that write-back need not wait. It
// frees what had been emptied when the last pass ended: what was emptied since may still be in the
// index.
#pragma once
#include "dm-pcache/engine/damage.hpp"
#include "dm-pcache/engine/published.hpp"
#include "dm-pcache/engine/segments.hpp"
#include "dm-pcache/engine/shard.hpp"
#include "dm-pcache/media/metadata.hpp"
#include "dm-pcache/media/record_reader.hpp"
#include "dm-pcache/memory.hpp"

namespace pcache::engine
{

class Gc : rt::NonCopyable
{
public:
    Gc(const media::Device &device, media::Metadata &metadata, Segments &segments, Shard *shards,
       NodeBudget &budget, Log &log, Damage &damage) noexcept;
    // Told when segments have been freed, or could not be (metadata.failed()). May sleep.
    struct Listener {
        void (*freed)(void *context) noexcept;
        void *context;
    };
    rt::Error allocate(pc_queue *queue, pc_host *host, Listener listener) noexcept;
    // Stops the work; what it has not freed yet, it frees after the next pass. Sleeps.
    void stop() noexcept;

    // Passes records until `want_free` segments are or will be free, dirty tail is reached, or
    // keys_per_gc_pass are passed. `moved`: key tail moved.
    // Error::no_device: the log could not be read or a tail not be stored; the cache must stop.
    // Sleeps.
    rt::Error pass(u32 want_free, bool &moved) noexcept;
    // Segments are on their way to the free ones; freed() will be called. Any thread.
    bool settling() const noexcept { return ready_.load_acquire() != 0; }
    // The last pass would have gone on but for dirty tail.
    bool stands_at_dirty_tail() const noexcept { return stands_; }
    // Passes every record in front of `stop`, which begins a record at or in front of dirty tail.
    // While no worker runs. What keys that cannot be read have in the index stays there. Errors as
    // above. Sleeps.
    rt::Error pass_all(format::LogPosition stop) noexcept;
    // What the index has of [sector, end) goes, whatever key it is of, also one that the log does
    // not know any more. While no worker runs. Sleeps.
    void drop_beyond(u64 sector, u64 end) noexcept;
    PublishedPosition &key_tail() noexcept { return key_tail_; } // for status

private:
    static constexpr u32 log_segments_per_pass = 8;
    // The last record may take a pass beyond its limit.
    static constexpr u32 keys_at_once = keys_per_gc_pass - 1 + format::geometry.keys_per_kset;
    bool read(format::LogPosition &at, format::LogPosition stop, media::Record &r) noexcept;
    bool pass_hole(format::LogPosition &at, format::LogPosition stop, media::Record &r) noexcept;
    bool stuck() const noexcept;
    rt::Error pass_up_to(format::LogPosition stop, u32 want_free, bool &moved) noexcept;
    void count_out(format::LogPosition &end, format::LogPosition stop, u32 want_free) noexcept;
    void unmap() noexcept;
    void unmap_key(const format::Key &k) noexcept;
    bool mark_ready() noexcept;
    void free_ready() noexcept;
    void settle() noexcept;
    void free_next() noexcept;

    const media::Device &device_;
    media::Metadata &metadata_;
    Segments &segments_;
    Shard *shards_;
    NodeBudget &budget_;
    Log &log_;
    Damage &damage_;
    pc_host *host_ = nullptr;
    media::RecordReader reader_;
    u64 last_number_ = 0; // of the newest numbered record that was passed; 0: none
    // Of the pass in hand.
    Array<format::Key> keys_; // keys_at_once
    u32 key_count_ = 0;
    bool has_hole_ = false; // one at most
    bool stands_ = false;
    PublishedPosition key_tail_;
    SegmentId left_[log_segments_per_pass]; // log segments that key tail leaves in this pass
    u32 left_count_ = 0;
    Listener listener_{};
    Work settle_work_;
    rt::Atomic<u32> ready_{0}; // so many of the emptied segments, the first ones, nothing points to
};

} // namespace pcache::engine
