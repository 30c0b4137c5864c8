// SPDX-License-Identifier: GPL-2.0
// engine/heads.hpp - data heads: where new data goes.
//
// A head owns a segment and appends to it; a CPU uses the head of its number. A reservation bumps
// the head and takes tickets, under the head's lock and without touching anything that another head
// touches, except when a batch of tickets or a segment runs out.
//
// Data of 4 KiB and more starts on a 4 KiB boundary of the cache, so that write-back can send its
// pages. There are at most max_heads heads, and at most an eighth of the cache's segments' worth.
//
// Locking: each head's spinlock; inside it the locks of Segments and Tickets.
#pragma once
#include "dm-pcache/engine/segments.hpp"
#include "dm-pcache/engine/ticket.hpp"

namespace pcache::engine
{

// What a write has reserved so far: its tickets in order; each names sectors and their place.
struct Reservation {
    rt::Queue<Ticket> tickets;
    u64 next_sector = 0; // of the backing device: the first not reserved yet
    u32 sectors_left = 0;
    bool refilled = false;     // a batch of tickets was taken: look whether the pool is low
    bool next_segment = false; // a segment was filled, another begun
    bool no_segment = false;   // what ran out, if something did, was segments
};

class Heads : rt::NonCopyable
{
public:
    Heads(Segments &segments, Tickets &tickets) noexcept;
    ~Heads();
    // As many heads as `cpus` and the cache's size allow. May sleep.
    rt::Error allocate(u32 cpus) noexcept;
    // How many heads a cache of so many segments has.
    static u32 count_for(u32 segments, u32 cpus) noexcept;
    u32 count() const noexcept { return count_; }

    // Reserves what is left of `r`, on the current CPU's head. False: segments (r.no_segment) or
    // tickets ran out; what was reserved stays in `r`, and a later call goes on. `key_sectors`: a
    // key covers at most this. Never sleeps.
    bool reserve(Reservation &r, u32 key_sectors) noexcept;
    // Gives up what `r` holds: its tickets go back and its space is dead.
    // True: a segment was emptied by it.
    bool cancel(Reservation &r) noexcept;

    // Every head leaves its segment and returns its tickets (quiescing; nobody reserves any more).
    void leave_all() noexcept;

    // A request came that reserves nothing (a read). Writes only the current CPU's head.
    void note() noexcept;
    u64 operations() const noexcept; // requests ever seen; racy, for noticing idleness

private:
    struct alignas(64) Head {
        Head() noexcept;
        SpinLock lock;
        bool open = false;
        SegmentId segment;
        u32 used = 0; // sectors
        u32 keys = 0; // reserved in this segment
        rt::Queue<Ticket> tickets;
        u32 ticket_count = 0;
        rt::Atomic<u64> operations{0};
    };
    bool reserve_one(Head &h, Reservation &r, u32 key_sectors) noexcept;
    void leave(Head &h) noexcept;

    Segments &segments_;
    Tickets &tickets_;
    Head *heads_ = nullptr;
    u32 count_ = 0;
};

} // namespace pcache::engine
