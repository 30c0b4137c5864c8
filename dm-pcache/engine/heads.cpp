// SPDX-License-Identifier: GPL-2.0
// engine/heads.cpp - see heads.hpp.
#include "dm-pcache/engine/heads.hpp"
#include "dm-pcache/engine/memory.hpp"
#include "cxxrt/guard.hpp"
#include "dm-pcache/format/record.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::engine
{

namespace
{
constinit LockClass head_class{"pcache data head"};
constexpr u32 segment_sectors = format::data_bytes / format::sector_bytes;
constexpr u32 page_sectors = format::page_bytes / format::sector_bytes;
} // namespace

Heads::Head::Head() noexcept : lock(head_class) {}

Heads::Heads(Segments &segments, Tickets &tickets) noexcept : segments_(segments), tickets_(tickets)
{
}

Heads::~Heads()
{
    pc_free(heads_);
}

u32 Heads::count_for(u32 segments, u32 cpus) noexcept
{
    const u32 affordable = rt::max(segments / head_share, 1u);
    if (mutant(Mutant::heads_unbounded))
        return rt::min(cpus, max_heads);
    return rt::min(rt::min(cpus, affordable), max_heads);
}

rt::Error Heads::allocate(u32 cpus) noexcept
{
    const u32 n = count_for(segments_.count(), cpus);
    heads_ = static_cast<Head *>(pc_alloc(alignable(usize{n} * sizeof(Head)), PC_MAY_SLEEP));
    if (!heads_)
        return rt::Error::no_memory;
    for (u32 i = 0; i < n; i++)
        ::new (&heads_[i]) Head;
    count_ = n;
    return rt::Error::none;
}

void Heads::leave(Head &h) noexcept
{
    if (h.open)
        (void)segments_.leave_head(h.segment, h.keys);
    h.open = false;
    h.keys = 0;
}

// One key's worth. False: out of space or tickets.
bool Heads::reserve_one(Head &h, Reservation &r, u32 key_sectors) noexcept
{
    if (!h.ticket_count) {
        h.ticket_count = tickets_.take(ticket_batch, h.tickets);
        if (!h.ticket_count)
            return false;
        r.refilled = true;
    }
    const u32 want = rt::min(r.sectors_left, key_sectors);
    u32 start = want >= page_sectors ? rt::round_up(h.used, page_sectors) : h.used;
    // The rest of a segment is used when a page fits, or all that is wanted.
    const u32 rest = start < segment_sectors ? segment_sectors - start : 0;
    if (!h.open || segments_.is_bad(h.segment) || rest < rt::min(want, page_sectors)) {
        SegmentId fresh;
        r.no_segment = !segments_.take_for_head(fresh);
        if (r.no_segment)
            return false;
        r.next_segment = h.open;
        leave(h);
        h.open = true;
        h.segment = fresh;
        start = 0;
    }
    u32 take = rt::min(want, segment_sectors - start);
    if (take < want && take >= page_sectors)
        take = rt::round_down(take, page_sectors);
    Ticket *t = h.tickets.pop_front();
    h.ticket_count--;
    t->sector = r.next_sector;
    t->sectors = take;
    t->place = {h.segment.value, start};
    t->generation = segments_.generation(h.segment);
    t->data_crc = 0;
    t->flags = mutant(Mutant::write_marked_clean) ? format::key_clean : 0;
    r.tickets.push_back(*t);
    h.used = start + take;
    h.keys++;
    r.next_sector += take;
    r.sectors_left -= take;
    return true;
}

bool Heads::reserve(Reservation &r, u32 key_sectors) noexcept
{
    Head &h = heads_[pc_cpu() % count_];
    rt::Guard g(h.lock);
    h.operations.set(h.operations.read() + 1);
    r.no_segment = false;
    while (r.sectors_left)
        if (!reserve_one(h, r, key_sectors))
            return false;
    return true;
}

bool Heads::cancel(Reservation &r) noexcept
{
    bool emptied = false;
    u32 n = 0;
    for (Ticket *t = r.tickets.front(); t; t = t->link.next, n++)
        emptied |= segments_.drop_key(SegmentId{t->place.segment});
    tickets_.give(r.tickets, n);
    return emptied;
}

void Heads::leave_all() noexcept
{
    for (u32 i = 0; i < count_; i++) {
        Head &h = heads_[i];
        rt::Guard g(h.lock);
        leave(h);
        tickets_.give(h.tickets, h.ticket_count);
        h.ticket_count = 0;
    }
}

void Heads::note() noexcept
{
    rt::Atomic<u64> &n = heads_[pc_cpu() % count_].operations;
    n.set(n.read() + 1);
}

u64 Heads::operations() const noexcept
{
    u64 n = 0;
    for (u32 i = 0; i < count_; i++)
        n += heads_[i].operations.read();
    return n;
}

} // namespace pcache::engine
