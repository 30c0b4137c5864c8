// SPDX-License-Identifier: GPL-2.0
// engine/ticket.hpp - tickets: the right to log one key, and its place in memory until it is
// logged.
//
// A write takes a ticket for each key before it copies anything. The number of tickets is fixed,
// and they are handed out only while the log has room for all of them; so a staged key can always
// be logged, and a FLUSH never waits for space. The way of a ticket:
//
//     pool -> data head (a batch) -> request -> staged list of its shard -> record -> pool
//
// Beside them there are a few tickets for logging dirty keys again whose data cannot be read
// (write_back.hpp), with room in the log of their own, relog_bytes: what is left of it, beyond the
// tickets that are out, is there whenever the ordinary ones get none any more. They go
//
//     reserve -> staged list of the key's shard -> record -> reserve
//
// Locking: a ticket belongs to whoever holds it; the pool has a spinlock of its own.
#pragma once
#include "cxxrt/atomic.hpp"
#include "cxxrt/list.hpp"
#include "cxxrt/result.hpp"
#include "dm-pcache/engine/extent_tree.hpp"
#include "dm-pcache/engine/limits.hpp"
#include "dm-pcache/engine/segments.hpp"
#include "dm-pcache/sync.hpp"

namespace pcache::engine
{

struct Ticket {
    rt::Link<Ticket> link;
    u64 sector = 0; // on the backing device, 512 B units
    u32 sectors = 0;
    Place place;
    u64 generation = 0;
    u32 data_crc = 0;
    u32 flags = 0;        // of the key: 0 (dirty), or format::key_clean
    bool reserve = false; // whose it is: never changes
};

class Tickets : rt::NonCopyable
{
public:
    explicit Tickets(const Segments &segments) noexcept;
    ~Tickets();
    // `count` tickets, all in the pool, and those of the reserve. May sleep.
    rt::Error allocate(u32 count) noexcept;

    // Bytes left in the log's newest segment; told by the log.
    void set_log_rest(u32 bytes) noexcept { log_rest_.set(bytes); }
    // Moves up to `count` tickets to `to`; 0 when there are none or the log has too little room.
    u32 take(u32 count, rt::Queue<Ticket> &to) noexcept;
    void give(rt::Queue<Ticket> &from, u32 count) noexcept;

    // The reserve: a ticket, or null; and back, from the log.
    Ticket *take_reserve() noexcept;
    void give_reserve(rt::Queue<Ticket> &from) noexcept;
    // Is there room in the log for so many keys of the reserve, beside all tickets that are out?
    bool room_for_reserve(u32 keys) const noexcept;

    u32 total() const noexcept { return total_; }
    u32 free_count() const noexcept { return free_.read(); } // racy
    // Is the pool so low that the staged keys should be logged?
    bool low() const noexcept { return free_count() < total_ / 2; }
    bool log_has_room() const noexcept
    {
        const u64 spare = segments_.has_spare() ? format::data_bytes : 0;
        return log_rest_.read() + spare >=
               u64{total_} * log_bytes_per_ticket + relog_bytes + slack_;
    }

private:
    // Beyond the records themselves: a LAST and what does not fit in front of it, twice.
    static constexpr u64 slack_ = 256;
    const Segments &segments_;
    SpinLock lock_;
    rt::Queue<Ticket> pool_, reserve_;
    Ticket *memory_ = nullptr;
    u32 total_ = 0;
    rt::Atomic<u32> free_{0};
    rt::Atomic<u32> log_rest_{0};
};

} // namespace pcache::engine
