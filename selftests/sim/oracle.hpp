// SPDX-License-Identifier: GPL-2.0
// selftests/sim/oracle.hpp - what a read may return, and what the backing device alone may hold:
// promises 1 and 2 of Documentation/design.md as a judge that knows nothing of the engine.
//
// Time is the order of events at the upper interface: a write begins when it is given to map() and
// has completed when its bio ends; likewise a FLUSH. Write x is *known before* write y of the same
// sector if x had completed when y began, or if a read has shown y when x had completed before that
// read began. Per sector the oracle keeps the writes that may still show:
//
// - live: a read may return a write that is not known before another one which had completed when
//   the read began. What it returns narrows the set: of overlapping writes one wins and stays.
// - promised: a write is promised once a FLUSH that was issued after its completion has completed,
//   or it was FUA. After a power cut a sector may hold anything that is not known before a promised
//   write. What survives a cut is promised: a recovery counts as a FLUSH.
// - the backing device alone (strict order): a *barrier* is the issue of a completed FLUSH or FUA
//   write, or a cut. If any sector may hold, after a cut now, a write that began when a barrier had
//   completed, then no sector may hold a write that is known before one which had completed at that
//   barrier.
//
// A write that ended with an error may show, binds nothing and is never promised.
#pragma once
#include <string>
#include <vector>
#include "selftests/sim/sched.hpp"

namespace pcache::sim
{

using WriteId = u32; // 0: the zeros that a sector begins with

class Oracle
{
public:
    void reset(u32 sectors);
    void grow(u32 sectors);    // zeros behind what there is
    bool judge_backing = true; // what the backing device holds; off where damage takes the order

    // ---- tags ----
    static u64 tag(WriteId w, u32 sector) { return w ? u64{w} << 24 | sector : 0; }
    static WriteId write_of(u64 tag) { return static_cast<WriteId>(tag >> 24); }
    bool belongs(u64 tag, u32 sector) const; // some write put that there
    std::string name(u64 tag) const;

    // ---- events ----
    u64 tick() { return ++clock_; }
    u64 clock() const { return clock_; }
    WriteId begin_write(u32 sector, u32 count, bool fua);
    void piece(WriteId w, u32 first, u32 count); // sectors of the write that became one key
    void end_write(WriteId w, bool ok);
    void end_flush(u64 issued);
    // A read of one sector that began at `began` and ends now; `after_recovery`: nothing else ran.
    void read(u32 sector, u64 tag, u64 began);
    void cut(); // power cut or panic: everything in flight has ended
    // ---- damage: oracle_loss.cpp ----
    // The cache's copy of what this tag says cannot be read: if it is dirty, reads of the sector
    // may fail while that write may show. whole_write: its other sectors go with it.
    void mark_bad(u64 tag, bool whole_write);
    void mark_bad_sector(u32 sector); // the same of whatever it holds
    bool may_fail(u32 sector, u64 began) const;
    void failed_read(u32 sector, u64 began); // an error, for this sector alone
    bool any_bad() const { return any_bad_; }
    // Its newest record is lost in a hole of the log: any write of the sector may show, and what
    // shows first stays.
    void loosen(u32 sector);
    // What cannot be read is given up from here on. Then, when everything was read once: what has
    // shown holds, as after a cut.
    void accepting_loss();
    void loss_accepted(bool made_anew);
    // Whether a read behind the last cut may show it; nothing is settled by that.
    bool may_show(u32 sector, u64 tag) const;
    // Nothing that was promised of this sector binds any more, for good: any write of it may show.
    // For what damage takes.
    void forget(u32 sector);
    void suspend_order(bool on) { order_suspended_ = on; } // promise 2 is not judged
    void disk_changed();
    void check_disk(const char *when); // promise 2, now
    // Everything has been written back: the backing device holds what a read may return.
    void check_written_back();
    // After everything was read once behind a cut: keys came back whole.
    void check_whole_keys();
    // Of what has been written so far, parts may be left from now on.
    void forget_whole_keys();

    u64 checks() const { return checks_; }

private:
    static constexpr u64 never = ~0ull;
    static constexpr WriteId none = ~0u;
    struct Piece { // sectors that became one key, relative to those of the write
        u32 first, count;
    };
    struct Write {
        u32 sector, count;
        u64 began, ended; // ended: `never` while in flight
        u64 barrier;      // issue of the latest barrier that had completed when it began
        bool fua, failed, promised;
        std::vector<Piece> pieces;
        bool ragged = false;
    };
    struct Entry { // of a sector: a write that may show
        WriteId id;
        WriteId after;  // a read has shown that this one came later
        u64 removed;    // no candidate for reads that begin later
        bool excluded;  // not after a cut
        bool unsettled; // survived a cut perhaps
    };
    struct Past {
        WriteId id;
        bool sure; // false: a cut may have taken it
    };
    struct Sector {
        std::vector<Entry> entries; // in the order in which they began
        std::vector<Past> history;  // all, in that order, but those lost
        std::vector<WriteId> lost;  // in a cut, although newer than what came back
        std::vector<WriteId> all;   // in runs with damage: all but those lost
        std::vector<WriteId> bad;   // whose copy in the cache cannot be read
        bool loose = false;         // its newest record may be lost
        bool forgotten = false;     // anything that belongs here may show
    };
    Entry *find(Sector &s, WriteId id);
    bool known_before(const Sector &s, const Entry &x, WriteId y) const;
    void exclude_before(u32 sector, WriteId id);
    void order(Entry &before, WriteId later);
    void settle(u32 sector, WriteId id);
    void prune(Sector &s);
    bool is_bad(const Sector &s, WriteId id) const;
    bool gone_bad(const Sector &s, WriteId id) const;
    void promise(u64 issued);
    void check_sector(u32 sector, WriteId id, u64 barrier, const char *when);
    std::string may_be(u32 sector, u64 began) const;

    u64 clock_ = 1;
    u64 barrier_ = 0;
    u64 last_cut_ = 0;
    u64 checks_ = 0;
    std::vector<Write> writes_;
    std::vector<Sector> sectors_;
    std::vector<WriteId> open_;       // in flight
    std::vector<WriteId> unpromised_; // completed
    std::vector<WriteId> settled_;    // what each sector has shown first after the cut
    u32 changes_ = 0;
    bool any_bad_ = false, order_suspended_ = false;
};
extern Oracle oracle;

template <class... A>
void trace_sector(u32 sector, const char *format, A... a)
{
    if (!tracing || (traced_sector >= 0 && traced_sector != static_cast<s64>(sector)))
        return;
    if constexpr (sizeof...(a) == 0)
        trace("%s", format);
    else
        trace(format, a...);
}

} // namespace pcache::sim
