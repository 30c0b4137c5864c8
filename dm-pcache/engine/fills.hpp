// SPDX-License-Identifier: GPL-2.0
// engine/fills.hpp - reads that miss, on their way into the cache.
//
// A fill reads from the backing device into pages of its own: the pages of the upper bio belong to
// somebody else, who may write to them while the read is in flight, so what is cached never comes
// out of them. From its pages the fill answers the bio, and then it is inserted. The way of one:
//
//     map(): take() -> entry in its shard -> read()
//     map(), after its epoch: the read is sent
//     interrupt: on the list of a lane
//     the lane's worker: the bio is answered -> ended(): inserted, or not -> give()
//
// What makes an insert right (the argument is in Documentation/design.md, "A fill"):
//  - The entry is made under the shard's lock in one step with the look that finds no data there,
//    before the read is sent. Whoever stages a key, discards, or changes the mode cancels the
//    entries in its range under the same lock. So a fill that is not cancelled when it is inserted
//    has seen no change of its range, however long its read took: nobody asks whether the range is
//    empty, since it may be empty again (written, written back and evicted meanwhile).
//  - The entries of a shard do not overlap.
//  - A cancelled fill still answers its bio.
//
// Nobody waits for a fill's memory: what take() or read() cannot have is a miss that is not cached.
//
// Locking: `lock_` guards the pool; an entry and `cancelled` are guarded by the shard's lock; a
// lane's list is atomic; the rest of a fill belongs to whoever has it.
#pragma once
#include "cxxrt/atomic.hpp"
#include "cxxrt/result.hpp"
#include "dm-pcache/engine/limits.hpp"
#include "dm-pcache/sync.hpp"

namespace pcache::engine
{

class Fills;

struct Fill {
    Fill *next = nullptr; // in the pool, or in a lane's list
    u64 sector = 0;       // on the backing device
    u32 sectors = 0;
    int error = 0; // of the read
    pc_bio *bio = nullptr;
    Fills *owner = nullptr;
    // Of the entry.
    Fill *before = nullptr, *behind = nullptr;
    bool cancelled = false;
    u16 page[fill_max_pages] = {};

    bool overlaps(u64 from, u32 count) const noexcept
    {
        return sector < from + count && from < sector + sectors;
    }
};
static_assert(fill_pages <= 65536 && fill_max_pages <= PC_READ_PAGES);

// The fills in flight of one shard. A handful; all of the pool at worst, when many small reads miss
// in one range.
class FillEntries : rt::NonCopyable
{
    Fill *first_ = nullptr;

public:
    // False: a fill of this range is in flight already.
    bool enter(Fill &f) noexcept;
    void leave(Fill &f) noexcept;
    // What was read of these sectors, or will be, may be out of date and is not inserted.
    void cancel(u64 sector, u32 sectors) noexcept;
};

class Fills : rt::NonCopyable
{
public:
    // Called by a worker when the bio has been answered: the fill is to be inserted, if it is good
    // (error 0) and not cancelled, and its entry left. May sleep.
    struct Listener {
        void (*ended)(void *context, Fill &f) noexcept;
        void *context;
    };
    Fills() noexcept;
    ~Fills(); // drained, or never used
    // All memory. May sleep.
    rt::Error allocate(pc_queue *queue, Listener listener) noexcept;

    // A fill with pages for `sectors` (at most fill_max_pages); null when there is none.
    Fill *take(u64 sector, u32 sectors) noexcept;
    void give(Fill &f) noexcept;
    // The read, for the caller to submit once its epoch has ended; then the bio will be answered,
    // and the listener told. Null: no memory, nothing was done.
    pc_rio *read(Fill &f, pc_bio *bio, pc_backing *backing, bool nowait) noexcept;
    // The bytes of page i, once they have been read.
    const u8 *page(const Fill &f, u32 i) const noexcept
    {
        return memory_ + usize{f.page[i]} * fill_page_bytes;
    }

    bool any_in_flight() noexcept;
    // Nobody takes any more. Returns when every fill has been given back, and no worker or
    // interrupt is left; take() works again afterwards. Sleeps.
    void drain() noexcept;

private:
    struct alignas(64) Lane {
        rt::Atomic<Fill *> ended{nullptr}; // newest first
        Work work;
        Fills *owner = nullptr;
    };
    static void read_ended(void *fill, int error) noexcept;
    void serve(Lane &l) noexcept;
    void answer(Fill &f) noexcept;

    Listener listener_{};
    u8 *memory_ = nullptr; // the pages
    Fill *fills_ = nullptr;
    Lane *lanes_ = nullptr;
    u32 lane_count_ = 0;

    SpinLock lock_; // guards the rest
    Fill *spare_ = nullptr;
    u32 in_flight_ = 0;
    u32 pages_left_ = 0;
    u16 pages_[fill_pages]; // the first pages_left_ of them are free
    Event given_;
};

} // namespace pcache::engine
