// SPDX-License-Identifier: GPL-2.0
// engine/write_back.hpp - dirty data goes to the backing device, flush epoch by flush epoch.
//
// A batch is a run of durable records of one epoch, from dirty tail on. Its keys are put into a
// tree in log order, so that later ones override earlier ones of the same epoch, and then sent in
// order of the backing device, neighbours merged into large writes that carry the cache's own
// pages. When all are complete the backing device is FLUSHed, and only then dirty tail moves behind
// the batch; so nothing of the next epoch is sent before this one is durable there.
//
// One write in flight per backing sector: the extents of a batch do not overlap, batches do not
// either, and against other writers a batch holds the range lock over all that it spans until its
// writes have landed. GC never passes dirty tail, so the pages cannot be reused meanwhile.
//
// Dirty data that cannot be read (each extent is probed before it is sent) becomes lost in the
// index, and is not sent; the rest of the batch goes on. Its key must not be passed by dirty tail,
// else old data of the backing device would be taken for clean. So dirty tail waits in front of it,
// until readable dirty data behind it must go on, or GC needs what stands behind it: then the parts
// of it that are still current are logged again, at the head, and dirty tail passes (relog.cpp).
// When only such keys are left there is nothing to do until something else is logged.
//
// If a write fails the rest of the batch lands all the same, and the batch stays in hand: the next
// attempt sends what failed and nothing else (resend.hpp). Its keys stand behind dirty tail, so
// what they point to stays where it is. The FLUSH comes when all have landed. If that fails nobody
// knows what a volatile cache has kept, and everything since the last good FLUSH, which is this
// batch, is gathered and sent again. So it is after halt(): who knows what was done meanwhile.
// Between two attempts the range lock is not held.
//
// Runs in the reclaim worker only; completions touch atomics and the event.
#pragma once
#include "dm-pcache/engine/checksums.hpp"
#include "dm-pcache/engine/damage.hpp"
#include "dm-pcache/engine/extent_tree.hpp"
#include "dm-pcache/engine/log.hpp"
#include "dm-pcache/engine/published.hpp"
#include "dm-pcache/engine/range_lock.hpp"
#include "dm-pcache/engine/resend.hpp"
#include "dm-pcache/media/record_reader.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::engine
{

class WriteBack : rt::NonCopyable
{
public:
    // Told as the writes of a batch complete, in steps that add up to the bytes of the batch's keys
    // (overridden ones included); possibly in interrupt context.
    struct Listener {
        void (*landed)(void *context, u64 key_bytes) noexcept;
        void *context;
    };
    // `shards`: where the checksums of what is sent are.
    WriteBack(const media::Device &device, media::Metadata &metadata, Log &log, pc_backing *backing,
              Segments &segments, Tickets &tickets, Shard *shards, Damage &damage,
              RangeLock &ranges) noexcept;
    ~WriteBack();
    // The batch's memory, fixed from here on: enough for batch_keys keys, less on a small cache.
    rt::Error allocate(Listener listener) noexcept;

    // A batch ends with the record in which it comes to so many keys (1 .. batch_keys) or bytes of
    // dirty data, from the next one on. Reclaim worker only.
    void set_batch_limit(u32 keys, u64 bytes) noexcept
    {
        limit_.set(keys);
        limit_bytes_ = bytes;
    }
    // With data_crc, before the first batch: the pieces of different keys stay apart, so that each
    // is verified by its own.
    void keep_keys_apart() noexcept { batch_.set_merging(false); }
    // The batch in hand sends nothing more, and run_batch returns as soon as what is in flight has
    // landed; dirty tail stands. Until go_on(). Any thread.
    void halt() noexcept;
    void go_on() noexcept { halted_.store_release(0); }
    bool halted() const noexcept { return halted_.load_acquire() || asleep_.load_acquire(); }
    // The same for a suspend of the machine, which may come beside one of the device.
    void fall_asleep() noexcept;
    void wake_up() noexcept { asleep_.store_release(0); }
    // Something was sent and not FLUSHed since. Not while a batch may run.
    bool anything_unflushed() const noexcept { return unflushed_; }

    // One batch, or another attempt at the one that failed. True in `moved` if dirty tail moved.
    // Error::io: the backing device failed; nothing is lost, dirty tail stands, and the next call
    // is the next attempt. Error::no_device: the log could not be read. Error::no_space:
    // more dirty data is lost than the log has room to remember. After the last two the cache must
    // become read-only. Sleeps.
    rt::Error run_batch(bool &moved) noexcept;
    // Would a batch do something? False, too, when all that is dirty is lost. Any thread; racy.
    bool anything_to_do() const noexcept;
    // GC lacks space and stands at dirty tail: lost keys are in its way. Any thread.
    void space_needed(bool on) noexcept { space_needed_.set(on); }

    // ---- batches from another source (accept_loss): the reclaim worker is stopped, and nothing
    // else runs a batch. Keys of one flush epoch go in, in log order; send_batch() ends the batch.
    // First, whatever a batch that was ended by an error has left goes.
    void drop_batch() noexcept
    {
        batch_.clear();
        if (!mutant(Mutant::verdict_outlives_batch))
            verifier_.forget(); // whoever fills the batch anew may come much later
        in_hand_ = false;
    }
    bool batch_has_room() const noexcept
    {
        return batch_.can_operate(1);
    } // for one put or one drop
    // With data_crc: whether the key that this piece of the index lies in is what was written.
    bool intact(const Extent &e) noexcept { return verifier_.good(e); }
    void put(const Extent &e) noexcept { batch_.insert(e); }
    void drop(u64 sector, u32 sectors) noexcept { (void)batch_.remove(sector, sectors); }
    // Error::io: the backing device failed, or what could be read before cannot be any more and was
    // not sent. Error::busy: halted. Otherwise all of it is durable there. The batch is empty
    // afterwards. No sum is verified here. Sleeps.
    rt::Error send_batch() noexcept;

    bool anything_dirty() const noexcept { return metadata_.dirty_tail() != log_.durable_head(); }
    PublishedPosition &dirty_tail() noexcept { return dirty_tail_; } // for status
    u64 batches() const noexcept { return batches_; }
    // Bytes of keys that the batch in hand has not brought to the backing device yet. Any context.
    u64 to_land() const noexcept { return to_land_.read(); }
    // Bytes of dirty keys behind which dirty tail has moved, ever. Reclaim worker only.
    u64 written_bytes() const noexcept { return written_; }

private:
    // What a look at the records of a batch with lost data finds (relog.cpp).
    struct Findings {
        format::LogPosition useful_end{}; // behind the last record that was worth sending
        bool useful = false;              // there is one
        u32 lost = 0;         // keys that logging what is in front of useful_end again would take
        u32 lost_behind = 0;  // and behind it
        u64 first_number = 0; // of the record at dirty tail
    };
    bool still_in_hand() const noexcept;
    rt::Error begin_batch() noexcept;
    rt::Error send_and_flush(bool verify) noexcept;
    rt::Error pass_lost(format::LogPosition end, bool &moved) noexcept;
    rt::Error look_at_batch(format::LogPosition end, Findings &f) noexcept;
    rt::Error look_behind(format::LogPosition from, format::LogPosition head,
                          bool &goes_on) noexcept;
    bool more_than_relogged() const noexcept;
    bool forced(u64 first_number) noexcept;
    rt::Error pass(const Findings &f, bool &moved) noexcept;
    rt::Error relog(format::LogPosition end, format::LogPosition &passed, u64 &bytes) noexcept;
    bool relog_run(const format::Key &k, u32 skip, u32 sectors) noexcept;
    bool relog_piece(const format::Key &k, u32 skip, u32 &sectors, Ticket &t) noexcept;
    template <class F>
    void for_lost_runs(const format::Key &k, F &&f) noexcept;
    bool any_readable(const format::Key &k, bool only_current) noexcept;
    u32 current_run(u64 sector, u32 sectors, Place place, bool &current) noexcept;
    void move_dirty_tail(format::LogPosition to, u64 bytes) noexcept;
    rt::Error gather(format::LogPosition &end, u64 &bytes) noexcept;
    void send() noexcept;
    bool open(u64 offset) noexcept;
    // Halted, now or since what is being sent was begun: a suspend may have been undone since. Who
    // was told so once has left something out, so it stays true of this attempt.
    bool cut_short() noexcept
    {
        cut_ = (cut_ && !mutant(Mutant::cut_forgotten) && !mutant(Mutant::cut_batch_counts)) ||
               halted() ||
               (halts_before_ != halts_.load_acquire() && !mutant(Mutant::cut_batch_counts));
        return cut_;
    }
    void close() noexcept;
    u32 check(const Extent &e, u32 at, bool &readable) noexcept;
    void send_extent(const Extent &e) noexcept;
    void send_piece(u64 offset, const u8 *data, u32 bytes) noexcept;
    template <class F>
    void for_pieces(const Extent &e, F &&f) noexcept;
    void count_pieces() noexcept;
    void collect_failed() noexcept;

    // One write in flight: who is told, and of what. 0 bytes: free. One that failed keeps its place
    // until the sender has seen it.
    struct Flight {
        WriteBack *owner = nullptr;
        u64 sector = 0;
        rt::Atomic<u32> bytes{0};
        rt::Atomic<u32> failed{0};
    };
    void completed(Flight &f, int error) noexcept;

    const media::Device &device_;
    media::Metadata &metadata_;
    Log &log_;
    pc_backing *backing_;
    Segments &segments_;
    Tickets &tickets_;
    Shard *shards_;
    Damage &damage_;
    RangeLock &ranges_;
    media::RecordReader reader_;
    u8 *nodes_ = nullptr; // all nodes of the batch, in one block
    NodePool pool_;
    ExtentTree batch_;
    Verifier verifier_;
    RangeLock::Range span_; // what the batch covers, holes included
    PublishedPosition dirty_tail_;
    u64 batches_ = 0;
    Listener listener_{};
    rt::Atomic<u32> limit_{batch_keys};
    u64 limit_bytes_ = ~u64{0};
    u64 written_ = 0;
    // The batch in hand: up to where, what its dirty keys stand for, what is still to be sent, and
    // what failed in this attempt. in_hand_: between two attempts, if nobody halted.
    format::LogPosition end_;
    u64 bytes_ = 0;
    Resend to_send_, failed_;
    bool in_hand_ = false;
    u32 halts_seen_ = 0;
    // In sectors, of this attempt: of the keys that have not landed, of what is sent for them, of
    // what has landed.
    u64 key_sectors_ = 0, piece_sectors_ = 0;
    rt::Atomic<u64> landed_sectors_{0};
    rt::Atomic<u64> to_land_{0};
    Flight flights_[writes_in_flight];
    u32 flight_ = 0; // of the write that is being built
    rt::Atomic<u32> halted_{0}, asleep_{0};
    rt::Atomic<u32> halts_{0}; // how often, ever
    u32 halts_before_ = 0;     // what is being sent now
    bool cut_ = false;         // and something of it was left out

    bool verify_ = true;      // the data of the batch in hand
    bool found_lost_ = false; // in the batch in hand
    rt::Atomic<u32> space_needed_{0};
    // While the head is there, all that is dirty is lost.
    rt::Atomic<u32> settled_{0};
    PublishedPosition settled_head_;
    // Of the last record that lost keys were logged again from. While all behind it are such keys,
    // logging anything again would gain nothing.
    rt::Atomic<u64> relogged_number_{0};
    u64 force_to_ = 0; // what is lost up to this record is logged again for the sake of space
    // Keys logged again since the newest record had this number (relog.cpp).
    u64 round_number_ = 0;
    u32 relogged_keys_ = 0;

    pc_wio *write_ = nullptr; // being built
    u64 write_end_ = 0;       // where it ends on the backing device
    bool unflushed_ = false;
    rt::Atomic<u32> in_flight_{0}, bytes_in_flight_{0};
    rt::Atomic<u32> any_failed_{0}; // some Flight says so
    Event landed_;
};

} // namespace pcache::engine
