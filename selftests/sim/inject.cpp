// SPDX-License-Identifier: GPL-2.0
// selftests/sim/inject.cpp - see inject.hpp.
#include "selftests/sim/inject.hpp"
#include "selftests/sim/world.hpp"

namespace pcache::sim
{

Injector injector;
BadPages bad_pages;

void BadPages::clear()
{
    poisoned_.clear();
    known_.clear();
    repairable = true;
}

void BadPages::know(u64 offset)
{
    poison(offset);
    known_.insert(offset / 4096);
}

void BadPages::new_life()
{
    for (auto &[page, since] : poisoned_) {
        known_.insert(page);
        since = 0;
    }
}

namespace
{
// The first of these pages that the bytes touch, or the end.
template <class Pages>
auto find(const Pages &pages, u64 offset, usize bytes)
{
    if (pages.empty() || !bytes)
        return pages.end();
    const auto i = pages.lower_bound(offset / 4096);
    const auto behind = pages.upper_bound((offset + bytes - 1) / 4096);
    return i == behind ? pages.end() : i;
}
} // namespace

bool BadPages::touched(u64 offset, usize bytes) const
{
    return find(poisoned_, offset, bytes) != poisoned_.end();
}

bool BadPages::load_fails(u64 offset, usize bytes)
{
    if (injector.due(Failing::media_read))
        poison(offset);
    if (poisoned_.empty())
        return false;
    if (find(known_, offset, bytes) != known_.end())
        violation("platform.h: a load from a page known to be bad, at " + std::to_string(offset));
    if (!touched(offset, bytes))
        return false;
    trace("a load of %llu bytes at %llu meets poison", u64{bytes}, offset);
    return true;
}

void BadPages::check_store(u64 offset, usize bytes)
{
    const auto i = find(poisoned_, offset, bytes);
    if (i != poisoned_.end() && sched::now() >= i->second + reaction_ns)
        violation("a store to a page that could not be read, at " + std::to_string(offset));
}

void BadPages::rewritten(u64 offset)
{
    poisoned_.erase(offset / 4096);
    known_.erase(offset / 4096);
}

bool BadPages::stretch(u32 i, u64 &offset, u64 &bytes) const
{
    return stretch_of(known_, i, offset, bytes);
}

} // namespace pcache::sim
