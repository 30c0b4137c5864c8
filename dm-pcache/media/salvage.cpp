// SPDX-License-Identifier: GPL-2.0
// media/salvage.cpp - see salvage.hpp, and format.md, "What is read of a damaged log".
#include "dm-pcache/media/salvage.hpp"
#include "dm-pcache/media/inspect.hpp"

namespace pcache::media
{

using format::LogPosition;
using rt::Error;

void Runs::clear() noexcept
{
    pc_free(runs_);
    runs_ = nullptr;
    count_ = room_ = 0;
}

Error Runs::add(const Run &r) noexcept
{
    if (count_ == room_) {
        const u32 room = room_ ? 2 * room_ : 16;
        Run *more = static_cast<Run *>(pc_alloc(usize{room} * sizeof(Run), PC_MAY_SLEEP));
        if (!more)
            return Error::no_memory;
        if (count_)
            __builtin_memcpy(more, runs_, usize{count_} * sizeof(Run));
        pc_free(runs_);
        runs_ = more;
        room_ = room;
    }
    runs_[count_++] = r;
    return Error::none;
}

namespace
{

// Where the search goes on when a segment has no more. False: nowhere. An extended superblock that
// is not ours, with no number read, may name a segment that mainline's driver has put to another
// use since.
bool next_segment_to_search(const WalkContext &c, const WalkFacts &w, LogPosition &from) noexcept
{
    if (!c.extension || (!c.ours && !w.newest_number))
        return false;
    const u32 link = c.extension->link_seg;
    if (link >= c.limits.chain_length || c.visited[link])
        return false;
    c.visited[link] = 1;
    from = {{link}, 0};
    return true;
}

} // namespace

// Ends: the search goes forward in a segment, and no segment is entered twice.
Error find_runs_behind(const WalkContext &c, const LogPosition *hole, WalkFacts &w, Runs &runs,
                       bool &newer) noexcept
{
    // Without a number to compare with, on media that is not ours, every number may be a leftover.
    if (!c.ours && !w.newest_number)
        return Error::none;
    LogPosition from;
    if (hole)
        from = *hole;
    else if (!next_segment_to_search(c, w, from))
        return Error::none;
    w.met_dirty_tail = true; // all of it is behind
    for (;;) {
        LogPosition at;
        if (!find_later_record(c, w, from, at)) {
            if (!next_segment_to_search(c, w, from))
                return Error::none;
            continue;
        }
        const u64 before = w.records;
        w.end = at;
        walk_on(c, w, true);
        newer = newer || (w.broken & damage::newer);
        if (w.records == before) { // a record that no writer makes
            from = {at.segment, at.offset + format::position_align};
            continue;
        }
        RT_TRY(runs.add({at, w.end}));
        from = w.end;
    }
}

void Activation::note_damage(Inspection &out, u32 bits, LogPosition at) noexcept
{
    if (!out.damage)
        out.damage_at = at;
    out.damage |= bits;
    pc_log(host_, PC_ERR, "damage at %u:%u of the log (proofs %#x): %s", at.segment.value,
           at.offset, bits, damage_sentence(bits));
}

// Finds the runs of a log whose damage has been noted, and what they say. Keys in front of
// dirty_tail count only if no hole lies between them and dirty_tail: they are clean, and so nothing
// is lost with them.
Error Activation::salvage_log(const WalkContext &c, Inspection &out, WalkFacts &w) noexcept
{
    const bool nowhere = out.damage & damage::tails;
    const auto forget = [&] {
        for (u32 i = 0; i < out.segments; i++)
            c.facts[i] = {};
    };
    forget();
    if (nowhere) {
        w = {};
        __builtin_memset(c.visited, 0, out.segments);
        out.key_tail = out.dirty_tail = {};
    } else {
        w = walk_log(c, out.key_tail);
        if (!w.met_dirty_tail) {
            forget();
            out.key_tail = out.dirty_tail;
            w = walk_log(c, out.dirty_tail);
        }
    }
    out.head = w.end;
    bool newer = w.broken & damage::newer;
    RT_TRY(out.runs.add({out.key_tail, out.head}));
    RT_TRY(find_runs_behind(c, nowhere ? nullptr : &out.head, w, out.runs, newer));
    if (newer && !(out.damage & damage::newer))
        note_damage(out, damage::newer, w.end);
    return Error::none;
}

} // namespace pcache::media
