// SPDX-License-Identifier: GPL-2.0
// engine/segments.hpp - which segment is what, how many keys hold it, and who may have the next
// free one.
//
// A segment is free, spare (zeroed for the log), log, head (a data head appends to it), data, or
// emptied (no key holds it; its generation is about to be raised). `live` counts the keys that hold
// a data segment: those in the log between key tail and head that are not stale, those staged, and
// space reserved for a write under way. A data head counts its own segment's keys itself and adds
// them when it leaves the segment, so that the hit path writes no shared line; until then `live`
// may be negative. Recovery, write-back and GC use this one rule.
//
// A segment in which something cannot be read is bad: a data head leaves it, and when nothing holds
// it any more it is retired instead of free, until the next activation.
//
// Locking: `lock_` guards states, lists and counts; `live` is atomic. Whoever brings live to 0
// looks again under the lock, and so does a head that leaves its segment: exactly one of them finds
// the segment closed and empty.
#pragma once
#include "cxxrt/atomic.hpp"
#include "cxxrt/result.hpp"
#include "dm-pcache/engine/limits.hpp"
#include "dm-pcache/sync.hpp"

namespace pcache::engine
{

using format::SegmentId;

enum class SegmentState : u8 { free, spare, log, head, data, emptied, retired };

class Segments : rt::NonCopyable
{
public:
    Segments() noexcept;
    ~Segments();

    // `count` segments, all free with generation 0. May sleep.
    rt::Error allocate(u32 count) noexcept;
    u32 count() const noexcept { return count_; }

    // Recovery, before anything runs: no lock is needed.
    void set_generation(SegmentId s, u64 generation) noexcept;
    void recover_log(SegmentId s) noexcept;
    void recover_key(SegmentId s) noexcept { entries_[s.value].live.add(1); }
    // A key was recovered and goes again.
    void unrecover_key(SegmentId s) noexcept { entries_[s.value].live.add(-1); }
    bool nothing_recovered(SegmentId s) const noexcept
    {
        return entries_[s.value].live.read() == 0;
    }
    void recover_bad(SegmentId s) noexcept { entries_[s.value].bad.set(1); }
    // Puts every segment that nothing holds on the free list and the others in their state.
    void finish_recovery() noexcept;

    u64 generation(SegmentId s) const noexcept { return entries_[s.value].generation.read(); }

    // A free segment for a data head; false when only the log's reserve is left.
    bool take_for_head(SegmentId &out) noexcept;
    // A data head leaves `s` having reserved space for `keys` keys in it. True if it is empty by
    // now (GC has work).
    bool leave_head(SegmentId s, u32 keys) noexcept;

    // A free segment to be zeroed for the log, the reserve included; false when there is none.
    bool take_for_log(SegmentId &out) noexcept;
    void set_spare(SegmentId s) noexcept;    // it is zeroed, durably
    bool use_spare(SegmentId &out) noexcept; // becomes the log's newest segment
    bool has_spare() const noexcept { return has_spare_.read() != 0; }

    // Something in `s` cannot be read, or stored: see above. True if that is news. Any context but
    // interrupt; never sleeps.
    bool mark_bad(SegmentId s) noexcept;
    bool is_bad(SegmentId s) const noexcept { return entries_[s.value].bad.read() != 0; }
    u32 bad_count() const noexcept { return bad_.read(); } // since the activation
    // How many are neither bad nor retired, in use or not.
    u32 in_service() const noexcept { return count_ - out_.read(); }

    // One key more holds `s`, which a key holds already.
    void hold(SegmentId s) noexcept { entries_[s.value].live.add(1); }
    // One key less holds `s`. True if the segment is now emptied.
    bool drop_key(SegmentId s) noexcept;

    // Key tail has left log segment `s`: it goes to the emptied ones, with its state.
    void leave_log(SegmentId s) noexcept;
    u32 emptied_count() noexcept;
    // Takes the segment that was emptied first off the list; false when there is none. `log`: it
    // was a log segment, and keeps its generation.
    bool next_emptied(SegmentId &out, bool &log) noexcept;
    // The new generation is durable, or it was a log segment and nothing names it any more.
    void release(SegmentId s) noexcept;
    void raise_generation(SegmentId s, u64 generation) noexcept
    {
        entries_[s.value].generation.set(generation);
    }
    void retire(SegmentId s) noexcept; // its generation cannot grow any more

    // The log goes on from segment `s` in `next`; forgotten when `s` is released. Written by
    // recovery, then by the log's leader, long before GC asks.
    void set_log_next(SegmentId s, SegmentId next) noexcept;
    bool log_next(SegmentId s, SegmentId &next) noexcept;

    u32 free_count() const noexcept { return free_.read(); } // racy, exact under no load
    u32 used() const noexcept { return count_ - free_count(); }
    // How many segments data heads could have right now; racy.
    u32 usable() const noexcept
    {
        const u32 free = free_.read(), kept = reserved();
        return free > kept ? free - kept : 0;
    }
    SegmentState state(SegmentId s) noexcept;

private:
    struct Entry { // 24 bytes
        rt::Atomic<u64> generation{0};
        rt::Atomic<s32> live{0};
        u32 next = 0; // of the list it is in
        SegmentState state = SegmentState::free;
        rt::Atomic<u8> bad{0};
        bool linked = false; // a log segment, and `next` is the one behind it
    };
    struct List {
        u32 head = 0, tail = 0, count = 0;
    };
    u32 reserved() const noexcept { return has_spare() ? log_reserve - 1 : log_reserve; }
    void push(List &l, u32 s) noexcept;
    bool pop(List &l, u32 &s) noexcept;
    bool pop_free(u32 &s) noexcept;
    void count_free() noexcept { free_.set(free_list_.count - bad_free_); }

    SpinLock lock_;
    Entry *entries_ = nullptr;
    u32 count_ = 0;
    List free_list_, emptied_;
    u32 bad_free_ = 0; // of those in free_list_
    u32 spare_ = 0;
    rt::Atomic<u32> bad_{0};
    rt::Atomic<u32> out_{0}; // bad or retired
    rt::Atomic<u32> has_spare_{0};
    rt::Atomic<u32> free_{0};
};

} // namespace pcache::engine
