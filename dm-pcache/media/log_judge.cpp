// SPDX-License-Identifier: GPL-2.0
// media/log_judge.cpp - the end of a walk, judged: see log_walk.hpp, and format.md, "Where the log
// ends". At a true end at most one record was in flight; anything that proves more is damage.
#include "dm-pcache/media/log_walk.hpp"
#include "dm-pcache/format/position.hpp"
#include "dm-pcache/mutants.hpp"

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
    if (c.extension && !format::after(c.extension->limit, number) &&
        !mutant(Mutant::limit_not_asked))
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

// What a search looks at, a piece at a time.
struct Piece {
    static constexpr u32 bytes = 512, line_bytes = 64;
    u8 data[bytes];
};

// d: a later record at the end, or at a multiple of 8 further on in the segment.
bool finds_later_record(const WalkContext &c, const WalkFacts &w) noexcept
{
    LogPosition at;
    if (!c.ours && w.last_number == 0)
        return false;
    return find_later_record(c, w, w.end, at);
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

// Looks for the magic in pieces; what cannot be read is no proof.
bool find_later_record(const WalkContext &c, const WalkFacts &w, LogPosition from,
                       LogPosition &found) noexcept
{
    constexpr u32 step = format::position_align;
    Piece piece;
    const u64 data = c.device->data_offset(from.segment);
    const u32 first = from.offset + format::record_magic_offset;
    u32 n;
    for (u32 at = rt::round_down(first, Piece::line_bytes); at < format::data_bytes; at += n) {
        n = Piece::bytes - at % Piece::bytes; // inside one page; what is in front is not touched
        n = rt::min(n, format::data_bytes - at);
        c.reader->look(*c.device, piece.data, data + at, n);
        for (u32 i = at < first ? first - at : 0; i + step <= n; i += step) {
            if (!has_magic(piece.data + i))
                continue;
            Record r;
            const u32 begin = at + i - format::record_magic_offset;
            if (c.reader->read(*c.device, data, begin, r) == ReadOutcome::good &&
                proves_more(c, w, r)) {
                found = {from.segment, begin};
                return true;
            }
        }
        pc_yield();
    }
    return false;
}

u32 judge_end(const WalkContext &c, const WalkFacts &w) noexcept
{
    if (w.broken)
        return w.broken;
    u32 bits = 0;
    if (cannot_be_read(c, w) && !mutant(Mutant::proof_b_ignored))
        bits |= damage::unreadable;
    if (ends_before_clean_stop(c, w) && !mutant(Mutant::proof_c_ignored))
        bits |= damage::short_of_clean_stop;
    if (finds_later_record(c, w) && !mutant(Mutant::proof_d_ignored))
        bits |= damage::later_record;
    if (missed_link(c, w) && !mutant(Mutant::proof_e_ignored))
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
    if (bits & damage::heads_page)
        return "cache device is damaged: the page in which the log ends cannot be read throughout, "
               "and a power cut while it is rewritten would cost records of mainline's unseen";
    if (bits & damage::dirty_tail_missed)
        return "cache device is damaged: the log does not reach dirty_tail";
    if (bits & damage::unreadable)
        return "cache device is damaged: the log goes on where it cannot be read";
    if (bits & damage::short_of_clean_stop)
        return "cache device is damaged: the log ends before the last clean stop";
    if (bits & damage::later_record)
        return "cache device is damaged: there is a hole in the log";
    if (bits & damage::cache_info)
        return "cache device is damaged: neither copy of cache_info is good";
    if (bits & damage::link_missed)
        return "cache device is damaged: the log does not reach its newest segment";
    return "backing device was changed behind the cache";
}

} // namespace pcache::media
