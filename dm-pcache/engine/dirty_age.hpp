// SPDX-License-Identifier: GPL-2.0
// engine/dirty_age.hpp - since when the oldest dirty data has been in the log, to half a second.
//
// Dirty data is written back in the order of the log, so a count of bytes tells its age: a mark
// says how many bytes of dirty data had ever been logged at a moment, and what is the oldest is
// said by how many have been written back. The reclaim worker's alone; no lock.
#pragma once
#include "dm-pcache/engine/limits.hpp"

namespace pcache::engine
{

class DirtyAge
{
    struct Mark {
        u64 logged; // bytes, ever
        u64 time;
    };
    // Enough for the age limit; the data behind the last mark counts as old as that.
    static constexpr u32 marks = 64;
    static constexpr u64 step = dirty_age_limit / (marks - 2);
    Mark ring_[marks] = {};
    u32 first_ = 0, count_ = 0;

    const Mark &mark(u32 i) const noexcept { return ring_[(first_ + i) % marks]; }

public:
    // To be called every now and then, in any case before oldest().
    void look(u64 now, u64 logged, u64 written) noexcept
    {
        if (logged == written) {
            count_ = 0; // nothing is dirty; what comes is not older than the next look
            return;
        }
        // The last mark in front of the oldest dirty byte stays: it says since when at the
        // earliest.
        while (count_ > 1 && mark(1).logged <= written) {
            first_ = (first_ + 1) % marks;
            count_--;
        }
        if (count_ < marks && (!count_ || now - mark(count_ - 1).time >= step)) {
            ring_[(first_ + count_) % marks] = {logged, now};
            count_++;
        }
    }
    // Since when the oldest dirty data has been there; 0: there was none at the last look. Wrong by
    // a step, or by the time between two looks, at most.
    u64 since() const noexcept { return count_ ? mark(0).time : 0; }
};

} // namespace pcache::engine
