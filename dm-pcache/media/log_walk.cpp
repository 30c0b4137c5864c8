// SPDX-License-Identifier: GPL-2.0
// media/log_walk.cpp - see log_walk.hpp.
#include "dm-pcache/media/log_walk.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::media
{

using format::LogPosition;
using format::RecordFlags;

bool reads_on(const WalkFacts &so_far, RecordFlags next) noexcept
{
    const u64 number = next.number();
    if (number == 0 || so_far.records == 0)
        return true;
    if (next.start())
        return so_far.newest_number == 0 || format::after(number, so_far.newest_number);
    if (mutant(Mutant::number_gap_read_over))
        return so_far.last_number != 0 && format::after(number, so_far.last_number);
    return so_far.last_number != 0 && number == format::next_number(so_far.last_number);
}

namespace
{

void note_key(const WalkContext &c, WalkFacts &w, const format::Key &k) noexcept
{
    SegmentFacts &f = c.facts[k.cache_seg_id];
    u64 &end = w.met_dirty_tail ? w.behind_end : w.front_end;
    end = rt::max(end, k.off + k.len);
    w.keys++;
    w.any_crc = w.any_crc || k.data_crc;
    if (!w.met_dirty_tail) {
        f.in_front = 1;
        f.highest_front = rt::max(f.highest_front, k.seg_gen);
        f.lowest_front = rt::min(f.lowest_front, k.seg_gen);
        return;
    }
    f.behind = 1;
    f.highest_behind = rt::max(f.highest_behind, k.seg_gen);
    if (k.flags & format::key_clean)
        return;
    w.dirty_keys++;
    w.dirty_bits |= k.off | k.len;
    w.dirty_end = rt::max(w.dirty_end, k.off + k.len);
    f.lowest_dirty = rt::min(f.lowest_dirty, k.seg_gen);
}

// The keys of a record that is part of the log. Damage bits, 0 if all are possible.
u32 take_keys(const WalkContext &c, WalkFacts &w, const Record &r) noexcept
{
    for (u32 i = 0; i < r.keys(); i++) {
        const format::KeyFault fault = format::check_key(c.reader->key(i), c.limits);
        if (fault != format::KeyFault::none) {
            w.key_fault = fault;
            return fault == format::KeyFault::newer ? damage::newer : damage::bad_key;
        }
    }
    // A record that is no part of the log must prove no generation.
    for (u32 i = 0; i < r.keys(); i++)
        note_key(c, w, c.reader->key(i));
    return 0;
}

// A good record that reads on: it belongs to the log. Damage bits, 0 if the walk may go on behind.
u32 take_record(const WalkContext &c, WalkFacts &w, const Record &r) noexcept
{
    if (r.flags.unknown() && !mutant(Mutant::newer_record_read))
        return damage::newer;
    if (!r.flags.last() && r.behind().offset > format::data_bytes - format::record_header_bytes)
        return damage::no_room;
    const u32 bad = take_keys(c, w, r);
    if (bad)
        return bad;
    if (r.flags.last()) {
        if (r.num >= c.limits.chain_length || c.visited[r.num])
            return damage::bad_link;
        c.visited[r.num] = 1;
    }
    w.records++;
    w.last_number = r.flags.number();
    if (w.last_number)
        w.newest_number = w.last_number;
    w.newest_at = r.at;
    w.newest_bytes = r.bytes;
    return 0;
}

} // namespace

WalkFacts walk_log(const WalkContext &c, LogPosition start) noexcept
{
    WalkFacts w;
    w.end = start;
    __builtin_memset(c.visited, 0, c.limits.chain_length);
    c.visited[start.segment.value] = 1;
    walk_on(c, w, false);
    return w;
}

void walk_on(const WalkContext &c, WalkFacts &w, bool first_belongs) noexcept
{
    w.broken = 0;
    for (;; first_belongs = false) {
        if (w.end == c.dirty_tail)
            w.met_dirty_tail = true;
        if (c.extension && w.end == c.extension->head)
            w.met_recorded_head = true;
        Record r;
        const ReadOutcome outcome = c.reader->read(*c.device, w.end, r);
        if (outcome != ReadOutcome::good) {
            w.unreadable = outcome == ReadOutcome::unreadable;
            return;
        }
        if (!first_belongs && !reads_on(w, r.flags))
            return;
        w.broken = take_record(c, w, r);
        if (w.broken)
            return;
        w.end = r.behind();
        pc_yield();
    }
}

} // namespace pcache::media
