// SPDX-License-Identifier: GPL-2.0
// selftests/sim/inject.hpp - failures on order: the n-th allocation, operation of the backing
// device or load from media fails; and pages of the cache device that cannot be read.
//
// A load that was told to fail has met poison: its page cannot be read from then on, and must not
// be stored to, until a block write makes it good. What survives a new life is known to be bad
// there: then it must not even be loaded from. Random runs (run.hpp) order nothing. One thread.
#pragma once
#include <map>
#include <set>
#include "selftests/sim/sched.hpp"

namespace pcache::sim
{

enum class Failing : u8 {
    nothing,
    sleeping, // an allocation that may sleep; opening a device counts as one
    nowait,   // one that may not
    backing_read,
    backing_write,
    backing_flush,
    media_read
};
constexpr u32 failing_kinds = 7;

struct Injector {
    bool armed = false;
    Failing kind = Failing::nothing;
    u64 nth = 0; // of that kind, counted while it is armed
    u64 seen[failing_kinds] = {};
    bool fired = false;

    bool due(Failing k)
    {
        if (!armed)
            return false;
        const u64 n = ++seen[static_cast<u32>(k)];
        if (k != kind || n != nth)
            return false;
        fired = true;
        trace("---- this one fails ----");
        return true;
    }
};
extern Injector injector;

class BadPages
{
public:
    bool repairable = true; // a block write makes a page good

    void clear();
    void poison(u64 offset) { poisoned_.emplace(offset / 4096, sched::now()); }
    void know(u64 offset);
    void new_life();
    bool any() const { return !poisoned_.empty(); }
    bool touched(u64 offset, usize bytes) const;
    // Whether a load fails; a violation if it was known that it would.
    bool load_fails(u64 offset, usize bytes);
    void check_store(u64 offset, usize bytes);
    bool known(u64 offset) const { return known_.count(offset / 4096) != 0; }
    // A block write. False: it fails.
    bool can_rewrite(u64 offset) const { return repairable || !touched(offset, 1); }
    void rewritten(u64 offset);
    bool stretch(u32 i, u64 &offset, u64 &bytes) const; // the i-th that is known

private:
    // Who found out may need that long to stop those who store there.
    static constexpr u64 reaction_ns = 5 * ms;
    std::map<u64, u64> poisoned_; // page number; since when
    std::set<u64> known_;         // page numbers
};
extern BadPages bad_pages;

} // namespace pcache::sim
