// SPDX-License-Identifier: GPL-2.0
// engine/damage.hpp - data of the cache that cannot be read: the slow path of a read that met it,
// and what it means for the index.
//
// Of a range whose data cannot be read, what is clean becomes a ghost, and is read from the backing
// device from then on; what is dirty becomes lost, and reads of it fail until it is written anew.
// With data_crc, data whose sum is another cannot be read.
// The place stays in the entry, since the key is still in the log: GC takes the entry out when it
// passes the key, as it does with any other. The segment is marked bad: no new data goes there.
//
// Whether a range is dirty is asked of the log, not guessed: what the index points to was staged
// when it was looked up, so after a commit its key is in a durable record, and it is dirty if that
// record stands between dirty tail and the head; of a batch of write-back that has been FLUSHed,
// and that dirty tail is about to pass, behind its end (landed.hpp). So that the two stand still
// meanwhile, and no record in between is freed, whoever moves a tail holds `tails` (write-back when
// a batch has landed, GC for a pass): never while it waits for the backing device.
//
// A read is handed over by map() in its own memory: nothing is allocated for it, and the queue is
// bounded by the requests that device-mapper has. Locks: `tails`, inside it a shard's lock;
// `lock_` guards the queue.
#pragma once
#include "dm-pcache/engine/checksums.hpp"
#include "dm-pcache/engine/landed.hpp"
#include "dm-pcache/engine/log.hpp"
#include "dm-pcache/engine/summed_reads.hpp"
#include "dm-pcache/media/record_reader.hpp"

namespace pcache::engine
{

class Damage : rt::NonCopyable
{
public:
    Damage(const media::Device &device, media::Metadata &metadata, Segments &segments,
           Shard *shards, NodeBudget &budget, Log &log, pc_backing *backing) noexcept;
    ~Damage();
    // Told when a record behind dirty tail could not be read. May sleep.
    // bad_found: the worker has found something in a segment that cannot be read.
    struct Listener {
        void (*log_unreadable)(void *context) noexcept;
        void (*bad_found)(void *context) noexcept;
        void *context;
    };
    // Memory, and the work on `queue`. May sleep.
    rt::Error allocate(pc_queue *queue, pc_host *host, Listener listener) noexcept;

    // Something in this segment could not be read: from now on it gets no new data, and no store
    // falls on a page that may have lost its mapping. Never sleeps.
    void segment_is_bad(SegmentId s) const noexcept;
    // A read of which a hit could not be copied: r.bio, and in its reservation the range. It is
    // ended later, with the data or with EIO. Never sleeps.
    void read_failed(Request &r) noexcept;
    // All reads handed over have ended on return, and nothing runs. None may come meanwhile.
    // Sleeps.
    void stop() noexcept;

    Mutex tails;
    Landed landed; // of write-back's batch

    // How many sectors from `place` on, of `sectors`, are alike: all readable or all not. `sector`:
    // what they hold. With data_crc a key is readable if its data is what was written. What is not
    // marks its segment as bad, also where it is of no use any more: nothing is to be stored there.
    u32 alike(u64 sector, Place place, u32 sectors, bool &readable) const noexcept;
    // The same of the lines alone, whatever they hold. In whole blocks of the backing device, from
    // `place` on: one bad line takes the rest of its block along.
    u32 alike_lines(Place place, u32 sectors, bool &readable) const noexcept;
    // What of [sector, sector + sectors) the index still has at `place` and what follows it gets
    // `flag`: extent_flag::ghost or lost. Marks the segment bad, and tells the administrator.
    // Returns how many sectors were changed. With PC_NOWAIT some may be left: whoever reads them
    // will find out for itself. PC_MAY_SLEEP: not under a lock but `tails`.
    u32 mark(u64 sector, u32 sectors, Place place, u32 flag, pc_how how) noexcept;

    // Whether the page that the log's next record begins in can be read, and so be stored to. Never
    // sleeps. For whoever could not read a record near it.
    bool log_can_go_on() const noexcept;

    u64 sectors_lost() const noexcept { return lost_.read(); } // since the activation
    u64 sectors_healed() const noexcept { return healed_.read(); }

private:
    u32 alike_summed(Shard &s, Place place, u32 sectors, bool &readable) const noexcept;
    struct Piece {
        u64 sector;
        u32 sectors;
        bool hit;
        u8 flags;
        Place place;
        u64 generation;
    };
    void worker() noexcept;
    int serve(Request &r) noexcept;
    Piece look_up(u64 sector, u32 sectors) noexcept;
    rt::Error copy_live(const Piece &p, Request &r, u32 at) noexcept;
    rt::Error judge(const Piece &p) noexcept;
    bool mark_unreadable(const Piece &p, u32 sectors, bool flushed) noexcept;
    rt::Error find_dirty(const Piece &p, format::LogPosition from) noexcept;
    void take_dirty(const Piece &p, const format::Key &k) noexcept;
    u32 mark_some(u64 sector, u32 sectors, Place place, u32 flag, pc_how how) noexcept;
    void tell(u32 flag, u64 sector, u32 sectors) noexcept;

    const media::Device &device_;
    media::Metadata &metadata_;
    Segments &segments_;
    Shard *shards_;
    NodeBudget &budget_;
    Log &log_;
    pc_backing *backing_;
    pc_host *host_ = nullptr;
    Listener listener_{};
    Work work_;
    SpinLock lock_;
    rt::Queue<Request> queue_;
    rt::Atomic<u32> queued_{0}; // not ended yet
    Event ended_;
    // The worker's.
    media::RecordReader reader_;
    KeyCopy copy_;
    u8 *buffer_ = nullptr;
    u64 dirty_[range_sectors / 64]; // a bit for each sector of the piece in hand

    rt::Atomic<u64> lost_{0}, healed_{0}, told_at_{0};
};

} // namespace pcache::engine
