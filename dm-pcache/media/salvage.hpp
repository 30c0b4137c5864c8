// SPDX-License-Identifier: GPL-2.0
// media/salvage.hpp - which records of a damaged log count: those in front of the hole, and those
// behind it that prove themselves.
//
// A log is a list of runs; inside a run each record reads on from the one before (log_walk.hpp). An
// intact log is one run, from key_tail to the head. A damaged one has a run in front of the hole,
// and behind it those whose first record has a number that is after all numbers read so far and
// before limit. They are looked for in the segment of the hole, from there on, and then in the
// segment that link_seg names: both were zeroed whole before the log came there, so that nothing
// older stands in them. Any other segment may hold leftovers of its former lives, and is entered by
// a LAST record of a run only. What follows from all this is older than the hole, or newer, never
// from another cache's life; what is missing in between is not known.
//
// Stores nothing. May sleep. Not thread safe.
#pragma once
#include "dm-pcache/media/log_walk.hpp"

namespace pcache::media
{

struct Run {
    format::LogPosition begin, end; // end: behind the last record
};

// Grows as needed; owns its memory.
class Runs : rt::NonCopyable
{
    Run *runs_ = nullptr;
    u32 count_ = 0, room_ = 0;

public:
    Runs() noexcept = default;
    ~Runs() { clear(); }
    void clear() noexcept;
    rt::Error add(const Run &r) noexcept; // Error::no_memory; may sleep
    u32 count() const noexcept { return count_; }
    void set_begin(u32 i, format::LogPosition p) noexcept
    {
        RT_ASSERT(i < count_);
        runs_[i].begin = p;
    }
    const Run &operator[](u32 i) const noexcept
    {
        RT_ASSERT(i < count_);
        return runs_[i];
    }
};

// Adds the runs behind a hole to `runs`, in log order. `w` is the walk that ended there, `hole` the
// place (null: not known), and c.visited what that walk has visited; both go on with the runs, so
// that afterwards they speak of all records that count. `newer`: set if a newer driver's record was
// among what was met. Error::no_memory.
rt::Error find_runs_behind(const WalkContext &c, const format::LogPosition *hole, WalkFacts &w,
                           Runs &runs, bool &newer) noexcept;

} // namespace pcache::media
