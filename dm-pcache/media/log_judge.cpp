// SPDX-License-Identifier: GPL-2.0
// media/log_judge.cpp - the end of a walk, judged: see log_walk.hpp, and format.md, "Where the log
// ends". At a true end at most one record was in flight; anything that proves more is damage.
#include "dm-pcache/media/log_walk.hpp"
#include "dm-pcache/format/position.hpp"

namespace pcache::media
{

using format::LogPosition;

namespace
{

bool is_recorded_head(const WalkContext &c, LogPosition p) noexcept
{
    return c.extension && c.extension->clean_stop() && c.extension->head == p;
}

// b: what stands there cannot be read, and no clean stop says that nothing does.
bool cannot_be_read(const WalkContext &c, const WalkFacts &w) noexcept
{
    return w.unreadable && !(c.ours && is_recorded_head(c, w.end));
}

// c: the last clean stop knew of records that were not met.
bool ends_before_clean_stop(const WalkContext &c, const WalkFacts &w) noexcept
{
    if (!c.extension || !c.extension->clean_stop())
        return false;
    if (w.newest_number == 0)
        return c.ours && !w.met_recorded_head;
    const u64 next = c.extension->next_number;
    return next != 0 && format::after(format::previous_number(next), w.newest_number);
}

// Whether the good record r, found at or behind the end, was written later than what was read.
bool proves_more(const WalkContext &c, const WalkFacts &w, const Record &r) noexcept
{
    const u64 number = r.flags.number();
    if (number == 0)
        return false;
    if (c.extension && !format::after(c.extension->limit, number))
        return false;
    if (w.newest_number)
        return format::after(number, w.newest_number);
    return c.extension != nullptr; // without one, any LATER number is proof: there must be one read
}

bool has_magic(const u8 *at) noexcept
{
    u64 v;
    __builtin_memcpy(&v, at, sizeof(v));
    return v == format::record_magic;
}

// d: a later record at the end, or at a multiple of 8 further on in the segment. Looks for the
// magic in pieces; a piece that cannot be read is no proof.
bool finds_later_record(const WalkContext &c, const WalkFacts &w) noexcept
{
    if (!c.ours && w.last_number == 0)
        return false;
    constexpr u32 piece_bytes = 512, step = format::position_align;
    u8 piece[piece_bytes];
    const u8 *data = c.device->data(w.end.segment);
    const u32 first = w.end.offset + format::record_magic_offset;
    for (u32 at = rt::round_down(first, piece_bytes); at < format::data_bytes; at += piece_bytes) {
        const u32 n = rt::min(piece_bytes, format::data_bytes - at);
        if (!ok(persist::load(piece, data + at, n)))
            continue;
        for (u32 i = at < first ? first - at : 0; i + step <= n; i += step) {
            if (!has_magic(piece + i))
                continue;
            Record r;
            const u32 begin = at + i - format::record_magic_offset;
            if (c.reader->read(data, begin, r) == ReadOutcome::good && proves_more(c, w, r))
                return true;
            pc_yield();
        }
    }
    return false;
}

// e: the log went on into a segment that the walk has not seen.
bool missed_link(const WalkContext &c, const WalkFacts &w) noexcept
{
    if (!c.extension || (!c.ours && w.newest_number == 0))
        return false;
    const u32 link = c.extension->link_seg;
    return link >= c.limits.chain_length || !c.visited[link];
}

} // namespace

u32 judge_end(const WalkContext &c, const WalkFacts &w) noexcept
{
    if (w.broken)
        return w.broken;
    u32 bits = 0;
    if (cannot_be_read(c, w))
        bits |= damage::unreadable;
    if (ends_before_clean_stop(c, w))
        bits |= damage::short_of_clean_stop;
    if (finds_later_record(c, w))
        bits |= damage::later_record;
    if (missed_link(c, w))
        bits |= damage::link_missed;
    return bits;
}

const char *damage_sentence(u32 bits) noexcept
{
    if (bits & damage::newer)
        return "the log was written by a newer driver: use that one";
    if (bits & damage::bad_tail)
        return "cache device is damaged: a tail points where no record can begin";
    if (bits & damage::tails)
        return "cache device is damaged: neither key_tail nor dirty_tail can be read";
    if (bits & damage::bad_key)
        return "cache device is damaged, or the backing device is another one: a key is out of "
               "bounds";
    if (bits & damage::bad_link)
        return "cache device is damaged: a LAST record leads where no log segment is";
    if (bits & damage::no_room)
        return "cache device is damaged: a record leaves no room for a LAST record";
    if (bits & damage::stale_dirty)
        return "cache device is damaged: a dirty key has an old generation";
    if (bits & damage::dirty_tail_missed)
        return "cache device is damaged: the log does not reach dirty_tail";
    if (bits & damage::unreadable)
        return "cache device is damaged: the log goes on where it cannot be read";
    if (bits & damage::short_of_clean_stop)
        return "cache device is damaged: the log ends before the last clean stop";
    if (bits & damage::later_record)
        return "cache device is damaged: there is a hole in the log";
    return "cache device is damaged: the log does not reach its newest segment";
}

} // namespace pcache::media
