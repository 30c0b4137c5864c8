// SPDX-License-Identifier: GPL-2.0
// engine/range_lock.cpp - see range_lock.hpp.
#include "dm-pcache/engine/range_lock.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::engine
{

namespace
{
constinit LockClass range_class{"pcache backing range"};
} // namespace

RangeLock::RangeLock() noexcept : lock_(range_class) {}

// Nothing in front of `r` overlaps it.
bool RangeLock::free_for(const Range &r) const noexcept
{
    for (const Range *e = first_; e != &r; e = e->next)
        if (e->first < r.end && r.first < e->end && !mutant(Mutant::ranges_not_locked))
            return false;
    return true;
}

bool RangeLock::lock(Range &r) noexcept
{
    rt::Guard g(lock_);
    Range **at = &first_;
    while (*at)
        at = &(*at)->next;
    r.next = nullptr;
    *at = &r;
    r.held = free_for(r);
    return r.held;
}

void RangeLock::lock_sleeping(Range &r) noexcept
{
    if (lock(r))
        return;
    changed_.wait([this, &r] {
        rt::Guard g(lock_);
        return r.held;
    });
}

void RangeLock::unlock(Range &r) noexcept
{
    Range *told = nullptr;
    Range **end = &told;
    bool sleeper = false;
    {
        rt::Guard g(lock_);
        Range **at = &first_;
        while (*at != &r)
            at = &(*at)->next;
        *at = r.next;
        // Only those behind it can have waited for it.
        for (Range *e = r.next; e; e = e->next) {
            if (e->held || !free_for(*e))
                continue;
            e->held = true;
            if (!e->granted) {
                sleeper = true;
                continue;
            }
            e->next_granted = nullptr;
            *end = e;
            end = &e->next_granted;
        }
    }
    if (sleeper)
        changed_.wake();
    while (Range *e = told) {
        told = e->next_granted; // `e` may be gone after the call
        e->granted(*e);
    }
}

} // namespace pcache::engine
