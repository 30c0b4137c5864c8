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
    // Puts every segment that nothing holds on the free list and the others in their state.
    void finish_recovery() noexcept;

    u64 generation(SegmentId s) const noexcept { return entries_[s.value].generation; }

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

    // One key less holds `s`. True if the segment is now emptied.
    bool drop_key(SegmentId s) noexcept;

    bool any_emptied() noexcept;
    // Takes the next emptied segment off the list; false when there is none.
    bool next_emptied(SegmentId &out) noexcept;
    // The new generation is durable, or it was a log segment and nothing names it any more.
    void release(SegmentId s) noexcept;
    void raise_generation(SegmentId s, u64 generation) noexcept
    {
        entries_[s.value].generation = generation;
    }
    void retire(SegmentId s) noexcept; // its generation cannot grow any more

    u32 free_count() const noexcept { return free_.read(); } // racy, exact under no load
    u32 used() const noexcept { return count_ - free_count(); }
    // Could a data head have a segment right now?
    bool available() const noexcept { return free_.read() > reserved(); }
    SegmentState state(SegmentId s) noexcept;

private:
    struct Entry { // 24 bytes
        u64 generation = 0;
        rt::Atomic<s32> live{0};
        u32 next = 0; // of the list it is in
        SegmentState state = SegmentState::free;
    };
    struct List {
        u32 head = 0, tail = 0, count = 0;
    };
    u32 reserved() const noexcept { return has_spare() ? log_reserve - 1 : log_reserve; }
    void push(List &l, u32 s) noexcept;
    bool pop(List &l, u32 &s) noexcept;

    SpinLock lock_;
    Entry *entries_ = nullptr;
    u32 count_ = 0;
    List free_list_, emptied_;
    u32 spare_ = 0;
    rt::Atomic<u32> has_spare_{0};
    rt::Atomic<u32> free_{0};
};

} // namespace pcache::engine
