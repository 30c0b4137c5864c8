// SPDX-License-Identifier: GPL-2.0
// engine/pacing.hpp - admission of writes while space is short: at the pace at which it comes back.
//
// While fewer segments are free than the low-water mark, a write takes credit for its bytes, or
// waits in the one queue of waiting writes. Credit comes from write-back: as its writes complete it
// gives the bytes of the keys that they stand for. So what is free plus what was written back but
// is not free yet (a segment comes back as a whole) stays the same, and a burst cannot eat the last
// segments and then stand still until the next one is emptied.
//
// Never a timer, and never a wait without an end: pacing is on only while the reclaim worker runs
// or has been kicked. Each of its steps that moves something passes records of a log that does not
// grow while nobody is admitted, so its steps come to an end; when one moved nothing, when the
// backing device fails, and when enough is free, the worker ends pacing, and what is really
// there decides alone.
//
// Locking: none, atomics only. `on` is a line that is rarely written; credit is touched while it is
// on only. Concurrent takers may overdraw by one write each.
#pragma once
#include "cxxrt/atomic.hpp"
#include "cxxrt/base.hpp"

namespace pcache::engine
{

class Pacing : rt::NonCopyable
{
    alignas(64) rt::Atomic<u32> on_{0};
    alignas(64) rt::Atomic<s64> credit_{0};

public:
    bool on() const noexcept { return on_.read() != 0; }
    // May a write of so many bytes go? The last one that goes may take more than there is: a write
    // is not held up for being large.
    bool take(u64 bytes) noexcept
    {
        if (!on())
            return true;
        if (credit_.read() <= 0)
            return false;
        (void)credit_.fetch_add(-static_cast<s64>(bytes));
        return true;
    }
    // So many bytes came back, or are not used after all. Any context. True: a write may go now.
    bool give(u64 bytes) noexcept
    {
        if (!on())
            return false;
        const s64 more = static_cast<s64>(bytes);
        return credit_.fetch_add(more) + more > 0;
    }
    s64 credit() const noexcept { return credit_.read(); }
    // From now on there is credit for nothing, unless it was on already. The caller kicks the
    // reclaim worker afterwards.
    void start() noexcept
    {
        if (on())
            return;
        credit_.set(0);
        (void)on_.xchg(1);
    }
    // True: it was on. The caller kicks whoever waits.
    bool stop() noexcept { return on() && on_.xchg(0) != 0; }
};

} // namespace pcache::engine
