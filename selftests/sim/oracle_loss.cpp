// SPDX-License-Identifier: GPL-2.0
// selftests/sim/oracle_loss.cpp - what damage to the cache device may take: design.md, promise 4,
// and "States". Part of the judge of oracle.hpp.
#include <algorithm>
#include "selftests/sim/oracle.hpp"
#include "selftests/sim/world.hpp"

namespace pcache::sim
{

bool Oracle::is_bad(const Sector &s, WriteId id) const
{
    return std::find(s.bad.begin(), s.bad.end(), id) != s.bad.end();
}

// It need not come to the backing device: it cannot be read, or write-back has skipped it for one
// of the same epoch that cannot.
bool Oracle::gone_bad(const Sector &s, WriteId id) const
{
    return std::any_of(s.bad.begin(), s.bad.end(), [&](WriteId b) {
        return b == id ||
               (writes_[b].ended >= writes_[id].began && writes_[b].barrier < writes_[id].ended);
    });
}

void Oracle::mark_bad(u64 t, bool whole_write)
{
    const u32 sector = static_cast<u32>(t & 0xFFFFFF);
    const WriteId id = write_of(t);
    if (t == torn || !id || sector >= sectors_.size() || !belongs(t, sector))
        return;
    // The backing device takes no part of a block, so a bad line takes its block along.
    const u32 block = faults.block_sectors;
    const u32 from = whole_write ? writes_[id].sector : sector / block * block;
    const u32 to = whole_write ? from + writes_[id].count : from + block;
    for (u32 i = from; i < to; ++i)
        if (!is_bad(sectors_[i], id)) {
            sectors_[i].bad.push_back(id);
            any_bad_ = true;
            trace_sector(i, "the cache's copy of write %u goes bad", id);
        }
}

void Oracle::mark_bad_sector(u32 sector)
{
    for (const Entry &e : sectors_[sector].entries)
        if (!is_bad(sectors_[sector], e.id))
            sectors_[sector].bad.push_back(e.id);
    any_bad_ = true;
}

bool Oracle::may_fail(u32 sector, u64 began) const
{
    const Sector &s = sectors_[sector];
    return std::any_of(s.entries.begin(), s.entries.end(),
                       [&](const Entry &e) { return e.removed > began && is_bad(s, e.id); });
}

void Oracle::failed_read(u32 sector, u64 began)
{
    ++checks_;
    (void)tick();
    trace_sector(sector, "a read fails");
    Sector &s = sectors_[sector];
    WriteId bad = none;
    u32 count = 0;
    for (const Entry &e : s.entries)
        if (e.removed > began && is_bad(s, e.id)) {
            bad = e.id;
            ++count;
        }
    if (!count)
        violation("a read of sector " + std::to_string(sector) +
                      " fails, although no dirty data of it has gone bad; it may show " +
                      may_be(sector, began),
                  sector);
    if (count == 1 && !s.loose)
        settle(sector, bad);
}

void Oracle::loosen(u32 sector)
{
    Sector &s = sectors_[sector];
    s.loose = true;
    s.lost.clear();
    for (Past &p : s.history)
        p.sure = false;
    for (WriteId id : s.all)
        if (!find(s, id))
            s.entries.push_back({id, none, never, false, true});
    if (!find(s, 0))
        s.entries.push_back({0, none, never, false, true});
    for (Entry &e : s.entries)
        e = {e.id, none, never, false, true};
    std::sort(s.entries.begin(), s.entries.end(),
              [](const Entry &a, const Entry &b) { return a.id < b.id; });
    settled_[sector] = none;
    trace_sector(sector, "a hole in the log: any write of it may show");
}

void Oracle::accepting_loss()
{
    suspend_order(true);
    for (u32 i = 0; i < sectors_.size(); ++i) {
        const WriteId shown = settled_[i];
        const bool loose = sectors_[i].loose, lost = may_fail(i, clock_);
        if (!loose && !lost)
            continue;
        loosen(i);
        if (lost || shown == none)
            continue;
        // Clean data in front of the hole is not sent: the backing device may have newer, as
        // promised, but nothing older.
        for (Entry &e : sectors_[i].entries)
            if (writes_[e.id].ended < writes_[shown].began)
                e.removed = 0;
        std::erase_if(sectors_[i].entries, [](const Entry &e) { return e.removed == 0; });
    }
}

void Oracle::forget_whole_keys()
{
    for (Write &w : writes_)
        w.ragged = true;
}

void Oracle::loss_accepted(bool made_anew)
{
    for (Sector &s : sectors_) {
        if (made_anew)
            s.bad.clear();
        s.lost.clear();
        s.loose = false;
        std::erase_if(s.entries, [](const Entry &e) { return e.excluded; });
        s.history.clear();
        s.all.clear();
        for (const Entry &e : s.entries) {
            s.history.push_back({e.id, true});
            s.all.push_back(e.id);
        }
    }
    forget_whole_keys();
    any_bad_ = any_bad_ && !made_anew;
    last_cut_ = barrier_ = tick();
    suspend_order(false);
}

} // namespace pcache::sim
