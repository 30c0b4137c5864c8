// SPDX-License-Identifier: GPL-2.0
// engine/range_lock.hpp - a lock over ranges of sectors: at most one write is in flight per sector
// of the backing device.
//
// First come, first served: a range is granted when nothing that came before it overlaps it, held
// or waiting. So an old wide range is not overtaken for ever by new narrow ones, and two that
// overlap are granted in the order in which they came. The memory of a range is its owner's, from
// lock() to unlock(); nothing is allocated.
//
// Held by write-back over what its batch covers while its writes are in flight. Whoever else comes
// to write to the backing device (direct writes, discards) takes it, too.
//
// Locking: a spinlock inside, held while the list is walked; what is held and waits at one time are
// few. Not for interrupts: a completion hands over to a worker, which unlocks.
#pragma once
#include "dm-pcache/sync.hpp"

namespace pcache::engine
{

class RangeLock : rt::NonCopyable
{
public:
    struct Range {
        u64 first = 0, end = 0; // sectors [first, end); not empty
        // Called once by the unlock() that lets this one in, in its context, no lock held; null for
        // one who sleeps. Must not sleep; may unlock.
        void (*granted)(Range &r) noexcept = nullptr;

    private:
        friend class RangeLock;
        Range *next = nullptr;         // in order of arrival
        Range *next_granted = nullptr; // while its grant is being told
        bool held = false;
    };

    RangeLock() noexcept;
    // True: held now. False: r.granted will be called. Never sleeps.
    bool lock(Range &r) noexcept;
    // Held on return. r.granted must be null. Sleeps.
    void lock_sleeping(Range &r) noexcept;
    // `r` is its owner's again. Never sleeps, but calls granted() of others.
    void unlock(Range &r) noexcept;

private:
    bool free_for(const Range &r) const noexcept;

    SpinLock lock_;
    Range *first_ = nullptr; // held and waiting, in order of arrival
    Event changed_;
};

} // namespace pcache::engine
