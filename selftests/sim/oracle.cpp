// SPDX-License-Identifier: GPL-2.0
// selftests/sim/oracle.cpp - see oracle.hpp.
#include "selftests/sim/oracle.hpp"
#include <algorithm>
#include "selftests/sim/world.hpp"

namespace pcache::sim
{

Oracle oracle;

void Oracle::reset(u32 sectors)
{
    clock_ = 1;
    barrier_ = last_cut_ = 0;
    checks_ = 0;
    writes_.clear();
    writes_.push_back({0, sectors, 0, 0, 0, false, false, true, {}});
    sectors_.assign(sectors, {});
    for (Sector &s : sectors_) {
        s.entries.push_back({0, none, never, false, false});
        s.history.push_back({0, true});
    }
    open_.clear();
    unpromised_.clear();
    settled_.assign(sectors, 0);
    changes_ = 0;
    any_bad_ = order_suspended_ = false;
}

void Oracle::grow(u32 sectors)
{
    while (sectors_.size() < sectors) {
        sectors_.emplace_back();
        sectors_.back().entries.push_back({0, none, never, false, false});
        sectors_.back().history.push_back({0, true});
        settled_.push_back(0);
    }
    writes_[0].count = sectors;
}

bool Oracle::belongs(u64 tag, u32 sector) const
{
    if (!tag)
        return true;
    const WriteId w = write_of(tag);
    return (tag & 0xFFFFFF) == sector && w < writes_.size() && sector >= writes_[w].sector &&
           sector - writes_[w].sector < writes_[w].count;
}

std::string Oracle::name(u64 tag) const
{
    if (tag == torn)
        return "a mixture of several writes";
    if (!tag)
        return "the first zeros";
    return "write " + std::to_string(write_of(tag)) + " (for sector " +
           std::to_string(tag & 0xFFFFFF) + ")";
}

Oracle::Entry *Oracle::find(Sector &s, WriteId id)
{
    for (Entry &e : s.entries)
        if (e.id == id)
            return &e;
    return nullptr;
}

// ---- order ----

bool Oracle::known_before(const Sector &s, const Entry &x, WriteId y) const
{
    const Entry *e = &x;
    for (int hops = 0; hops < 8; ++hops) {
        if (e->id == y)
            return false;
        if (writes_[e->id].ended < writes_[y].began || e->after == y)
            return true;
        if (e->after == none)
            return false;
        const WriteId next = e->after;
        const auto i = std::find_if(s.entries.begin(), s.entries.end(),
                                    [next](const Entry &o) { return o.id == next; });
        if (i == s.entries.end())
            return writes_[next].ended < writes_[y].began;
        e = &*i;
    }
    return false;
}

void Oracle::exclude_before(u32 sector, WriteId id)
{
    Sector &s = sectors_[sector];
    for (Entry &e : s.entries)
        if (!e.excluded && known_before(s, e, id))
            e.excluded = true;
}

// `before` had completed when a read showed `later`.
void Oracle::order(Entry &before, WriteId later)
{
    if (before.after == none)
        before.after = later;
    before.removed = std::min(before.removed, std::min(writes_[later].ended, clock_));
    if (writes_[later].promised || before.excluded)
        before.excluded = true;
}

void Oracle::prune(Sector &s)
{
    u64 oldest = clock_; // no read began before it
    for (WriteId w : open_)
        oldest = std::min(oldest, writes_[w].began);
    std::erase_if(s.entries,
                  [&](const Entry &e) { return e.excluded && e.removed + 4096 < oldest; });
}

// ---- events ----

WriteId Oracle::begin_write(u32 sector, u32 count, bool fua)
{
    const WriteId id = static_cast<WriteId>(writes_.size());
    writes_.push_back({sector, count, tick(), never, barrier_, fua, false, false, {}});
    for (u32 i = 0; i < count; ++i) {
        Sector &s = sectors_[sector + i];
        if (s.entries.size() > 12)
            prune(s);
        s.entries.push_back({id, none, never, false, false});
        s.history.push_back({id, true});
        if (faults.damage)
            s.all.push_back(id);
        trace_sector(sector + i, "write %u%s of sectors %u to %u begins", id, fua ? " (FUA)" : "",
                     sector, sector + count - 1);
    }
    open_.push_back(id);
    return id;
}

void Oracle::piece(WriteId w, u32 first, u32 count)
{
    Write &write = writes_[w];
    // Pushed back and given again: it became more keys than can be told here.
    write.ragged |= first == 0 && !write.pieces.empty();
    // Copied anew from there on: it gave back what it had reserved, no key came of that copy, and
    // the new place has other ends.
    std::erase_if(write.pieces, [=](const Piece &p) { return p.first >= first; });
    write.pieces.push_back({first, count});
}

void Oracle::end_write(WriteId id, bool ok)
{
    Write &w = writes_[id];
    w.ended = tick();
    w.failed = !ok;
    std::erase(open_, id);
    for (u32 i = 0; i < w.count; ++i)
        trace_sector(w.sector + i, "write %u has completed%s", id, ok ? "" : " with an error");
    if (!ok)
        return;
    for (u32 i = 0; i < w.count; ++i) {
        Sector &s = sectors_[w.sector + i];
        for (Entry &e : s.entries)
            if (e.removed > w.ended && e.id != id && known_before(s, e, id))
                e.removed = w.ended;
    }
    if (w.fua) {
        w.promised = true;
        for (u32 i = 0; i < w.count; ++i)
            exclude_before(w.sector + i, id);
        barrier_ = std::max(barrier_, w.began);
        cut_point("when a FUA write has completed");
    } else {
        unpromised_.push_back(id);
    }
}

void Oracle::end_flush(u64 issued)
{
    barrier_ = std::max(barrier_, issued);
    (void)tick();
    promise(issued);
    cut_point("when a FLUSH has completed");
}

void Oracle::promise(u64 issued)
{
    std::erase_if(unpromised_, [&](WriteId id) {
        Write &w = writes_[id];
        if (w.ended > issued)
            return false;
        w.promised = true;
        for (u32 i = 0; i < w.count; ++i) {
            exclude_before(w.sector + i, id);
            trace_sector(w.sector + i, "write %u is promised", id);
        }
        return true;
    });
}

std::string Oracle::may_be(u32 sector, u64 began) const
{
    std::string all;
    for (const Entry &e : sectors_[sector].entries)
        if (e.removed > began) {
            all += all.empty() ? "" : ", ";
            all += name(tag(e.id, sector));
        }
    return all;
}

// The sector holds `id` for good: what else may have survived the cut did not.
void Oracle::settle(u32 sector, WriteId id)
{
    Sector &s = sectors_[sector];
    Entry *found = find(s, id);
    if (!found->unsettled)
        return;
    settled_[sector] = id;
    found->unsettled = false;
    found->after = none; // what reads had shown behind it is lost
    for (Past &p : s.history)
        if (p.id == id)
            p.sure = true;
    for (Entry &e : s.entries) {
        if (!e.unsettled)
            continue;
        e.unsettled = false;
        e.excluded = true;
        e.removed = 0;
        // Nor does anybody know whether what reads had shown behind it outlived the cut: where none
        // of them could be read since, a bad line say, the older one may be what was kept (clang++,
        // seed 410).
        if (e.after != id)
            e.after = none;
        std::erase_if(s.history, [&](const Past &p) { return p.id == e.id && !p.sure; });
        if (writes_[id].ended < writes_[e.id].began) {
            s.lost.push_back(e.id);
            if (!s.loose)
                std::erase(s.all, e.id);
        }
    }
}

void Oracle::read(u32 sector, u64 got, u64 began)
{
    ++checks_;
    (void)tick();
    trace_sector(sector, "a read shows %s", name(got).c_str());
    const WriteId id = write_of(got);
    if (sectors_[sector].forgotten && got != torn && belongs(got, sector))
        return;
    const Entry *e = got != torn && belongs(got, sector) ? find(sectors_[sector], id) : nullptr;
    if (!e || e->removed <= began) {
        violation("a read of sector " + std::to_string(sector) + " shows " + name(got) +
                      "; it may show " + may_be(sector, began),
                  sector);
        return;
    }
    settle(sector, id);
    Sector &s = sectors_[sector];
    if (s.entries.size() == 1)
        return;
    for (Entry &o : s.entries)
        if (o.id != id && o.removed > began && writes_[o.id].ended < began)
            order(o, id);
    if (writes_[id].promised)
        exclude_before(sector, id);
}

void Oracle::cut()
{
    const u64 now = tick();
    for (WriteId id : open_)
        writes_[id].ended = now;
    open_.clear();
    unpromised_.clear();
    for (u32 i = 0; i < sectors_.size(); ++i) {
        Sector &s = sectors_[i];
        std::erase_if(s.entries, [](const Entry &e) { return e.excluded; });
        const bool alone = s.entries.size() == 1;
        for (Entry &e : s.entries) {
            e.removed = never;
            e.unsettled = !alone;
            for (Past &p : s.history)
                if (p.id == e.id)
                    p.sure = alone || (writes_[e.id].promised && !writes_[e.id].failed);
        }
        settled_[i] = alone && !s.forgotten ? s.entries.front().id : none;
    }
    last_cut_ = barrier_ = now;
}

bool Oracle::may_show(u32 sector, u64 got) const
{
    if (got == torn || !belongs(got, sector))
        return false;
    const Sector &s = sectors_[sector];
    return s.forgotten || std::any_of(s.entries.begin(), s.entries.end(), [got](const Entry &e) {
               return e.id == write_of(got) && e.removed == never;
           });
}

void Oracle::forget(u32 sector)
{
    sectors_[sector].forgotten = true;
    settled_[sector] = none;
}

// ---- the backing device ----

void Oracle::disk_changed()
{
    if (++changes_ % 8 == 0)
        check_disk("after a write to it");
}

void Oracle::check_disk(const char *when)
{
    if (!judge_backing)
        return;
    struct Possible {
        u32 sector;
        u64 tag;
    };
    static std::vector<Possible> all;
    all.clear();
    disk.each_possible([](void *, u32 sector, u64 t) { all.push_back({sector, t}); }, nullptr);
    ++checks_;
    u64 first = 0, second = 0; // the latest barriers behind which something may be there
    u32 first_sector = ~0u;
    for (const Possible &p : all) {
        if (p.tag == torn || !belongs(p.tag, p.sector)) {
            violation(std::string("the backing device holds ") + name(p.tag) + " " + when,
                      p.sector);
            return;
        }
        const u64 b = writes_[write_of(p.tag)].barrier;
        if (p.sector == first_sector) {
            first = std::max(first, b);
        } else if (b > first) {
            second = first;
            first = b;
            first_sector = p.sector;
        } else {
            second = std::max(second, b);
        }
    }
    for (const Possible &p : all)
        check_sector(p.sector, write_of(p.tag), p.sector == first_sector ? second : first, when);
}

// May the sector hold `id` on the backing device alone, all that had completed at `barrier` being
// due?
void Oracle::check_sector(u32 sector, WriteId id, u64 barrier, const char *when)
{
    const Sector &s = sectors_[sector];
    if (s.forgotten || order_suspended_)
        return;
    for (WriteId lost : s.lost)
        if (lost == id)
            violation("the backing device holds " + name(tag(id, sector)) +
                          ", which a cut has taken from the cache, " + when,
                      sector);
    for (usize i = s.history.size(); i-- > 0;) {
        const Past &x = s.history[i];
        if (writes_[x.id].began <= writes_[id].ended)
            break;
        if (x.sure && !writes_[x.id].failed && writes_[x.id].ended < barrier && !gone_bad(s, x.id))
            violation("order: the backing device alone may hold " + name(tag(id, sector)) +
                          " here and elsewhere a write of a flush epoch behind that of write " +
                          std::to_string(x.id) + ", " + when,
                      sector);
    }
    for (const Entry &e : s.entries)
        if (e.id == id && e.after != none && writes_[e.after].ended < barrier && !e.unsettled &&
            !writes_[e.after].failed && !gone_bad(s, e.after))
            violation("order: of two overlapping writes reads have shown write " +
                          std::to_string(e.after) + ", the backing device may hold " +
                          name(tag(id, sector)) + ", " + when,
                      sector);
}

void Oracle::check_written_back()
{
    if (!judge_backing)
        return;
    for (u32 i = 0; i < sectors_.size(); ++i) {
        const u64 got = disk.durable(i);
        if (any_bad_ && may_fail(i, clock_))
            continue; // it is lost, and stays so until it is written
        if (sectors_[i].forgotten && got != torn && belongs(got, i))
            continue;
        const Entry *e =
            got != torn && belongs(got, i) ? find(sectors_[i], write_of(got)) : nullptr;
        if (!e || e->removed != never)
            violation("all is written back, and sector " + std::to_string(i) +
                          " of the backing device holds " + name(got) + "; it may hold " +
                          may_be(i, clock_),
                      i);
    }
}

void Oracle::check_whole_keys()
{
    std::vector<WriteId> ids(settled_);
    std::sort(ids.begin(), ids.end());
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
    for (WriteId id : ids) {
        if (id == none)
            continue; // not read: an error
        const Write &w = writes_[id];
        for (const Piece &p : w.ragged ? std::vector<Piece>() : w.pieces) {
            const u32 from = w.sector + p.first, to = from + p.count;
            u32 whole = ~0u, part = ~0u;
            for (u32 i = from; i < to; ++i) {
                if (settled_[i] == id)
                    whole = i;
                else if (settled_[i] != none && writes_[settled_[i]].ended < w.began)
                    part = i;
            }
            if (whole != ~0u && part != ~0u)
                violation("after a cut a key came back in part: sector " + std::to_string(whole) +
                              " shows write " + std::to_string(id) + ", sector " +
                              std::to_string(part) + " the older write " +
                              std::to_string(settled_[part]),
                          part);
        }
    }
}

} // namespace pcache::sim
