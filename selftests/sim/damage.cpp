// SPDX-License-Identifier: GPL-2.0
// selftests/sim/damage.cpp - see damage.hpp: poison, and what damage may cost. What is damaged is
// drawn in strike.cpp.
#include "selftests/sim/damage.hpp"
#include <algorithm>
#include "dm-pcache/format/position.hpp"
#include "selftests/sim/oracle.hpp"

namespace pcache::sim
{

Damage damage;

namespace
{
using format::page_bytes;
constexpr u64 line_bytes = 64;
constexpr u64 known_unit = PC_MEDIA_UNIT;

bool overlap(u64 a, u64 a_bytes, u64 b, u64 b_bytes)
{
    return a < b + b_bytes && b < a + a_bytes;
}

// Whether the set has a number of what [offset, offset + bytes) touches, in units.
bool any_in(const std::set<u64> &set, u64 unit, u64 offset, u64 bytes)
{
    const auto i = set.lower_bound(offset / unit);
    return bytes && i != set.end() && *i <= (offset + bytes - 1) / unit;
}
} // namespace

void Damage::reset(bool on, bool repairable)
{
    *this = Damage();
    on_ = on;
    repairable_ = repairable;
}

// ---- the device ----

bool Damage::unreadable(u64 offset, usize bytes) const
{
    return any_in(lines_, line_bytes, offset, bytes);
}

bool Damage::met_or_known(u64 offset, usize bytes) const
{
    constexpr u64 grace = 100 * ms;
    const u64 first = offset / page_bytes * page_bytes;
    const u64 end = (offset + bytes + page_bytes - 1) / page_bytes * page_bytes;
    if (any_in(known_, known_unit, first, end - first))
        return true;
    const auto i = met_.lower_bound(offset / page_bytes);
    return i != met_.end() && i->first <= (offset + bytes - 1) / page_bytes &&
           sched::now() - i->second > grace;
}

int Damage::load(u64 offset, usize bytes)
{
    if (!unreadable(offset, bytes))
        return 0;
    if (any_in(known_, known_unit, offset, bytes))
        violation("platform.h: a load from a unit known to be bad, at " + std::to_string(offset));
    for (u64 line = offset / line_bytes; line <= (offset + bytes - 1) / line_bytes; ++line)
        if (lines_.count(line)) {
            met_.insert({line * line_bytes / page_bytes, sched::now()});
            trace("poison at %llu is met", line * line_bytes);
            break; // the copy ends there
        }
    return -5;
}

void Damage::stored(u64 offset, usize bytes)
{
    if (met_or_known(offset, bytes))
        violation("platform.h: a store to a page that could not be read, at " +
                  std::to_string(offset));
    for (u64 at = (offset + line_bytes - 1) / line_bytes * line_bytes;
         at + line_bytes <= offset + bytes; at += line_bytes)
        lines_.erase(at / line_bytes);
}

bool Damage::can_rewrite(u64 offset) const
{
    return repairable_ || !unreadable(offset, page_bytes);
}

void Damage::rewritten(u64 offset)
{
    for (u64 at = offset; at < offset + page_bytes; at += known_unit)
        unit_rewritten(at);
    met_.erase(offset / page_bytes);
}

void Damage::unit_rewritten(u64 offset)
{
    lines_.erase(lines_.lower_bound(offset / line_bytes),
                 lines_.lower_bound((offset + known_unit) / line_bytes));
    known_.erase(offset / known_unit);
}

u8 Damage::known_units(u64 page) const
{
    u8 mask = 0;
    for (u64 i = 0; i < page_bytes / known_unit; ++i)
        mask |= static_cast<u8>(known_.count(page / known_unit + i) << i);
    return mask;
}

bool Damage::known_stretch(u32 i, u64 &offset, u64 &bytes) const
{
    std::set<u64> pages;
    for (u64 unit : known_)
        pages.insert(unit * known_unit / page_bytes);
    return stretch_of(pages, i, offset, bytes);
}

void Damage::poison(u64 offset, u64 bytes)
{
    for (u64 line = offset / line_bytes; line <= (offset + bytes - 1) / line_bytes; ++line)
        lines_.insert(line);
}

bool Damage::room_for(u64 offset) const
{
    const u32 all = static_cast<u32>((media.bytes() - format::first_segment_offset) /
                                     format::geometry.segment_bytes);
    const auto segment = [](u64 at) {
        return at < format::first_segment_offset
                   ? ~0ull
                   : (at - format::first_segment_offset) / format::geometry.segment_bytes;
    };
    if (!repairable_ && segment(offset) == 0)
        return false; // a cache whose segment 0 cannot be made zero cannot be formatted anew
    std::set<u64> bad{segment(offset)};
    for (u64 line : lines_)
        bad.insert(segment(line * line_bytes));
    for (const Range &r : spoilt_)
        bad.insert(segment(r.offset));
    bad.erase(~0ull);
    return bad.size() <= std::max(all - format::geometry.min_segments, 2u);
}

// ---- what it may cost ----

bool Damage::touched(u64 offset, u64 bytes) const
{
    return unreadable(offset, bytes) ||
           std::any_of(spoilt_.begin(), spoilt_.end(),
                       [=](const Range &r) { return overlap(offset, bytes, r.offset, r.bytes); });
}

// Data whose sector lies at `place` cannot be read, or not verified.
void Damage::mark(u64 place, bool whole_write)
{
    oracle.mark_bad(tag_of(media.contents() + place), whole_write);
}

void Damage::judge_data(const LogView &v, const format::Key &k)
{
    const u64 place = v.place(k);
    if (!touched(place, k.len))
        return;
    for (u32 i = 0; i < k.len; i += sector_bytes)
        if (faults.data_crc || touched(place + i, sector_bytes))
            mark(place + i, false);
}

// Something of the key's data is bad now, or was made so in an earlier life.
bool Damage::spoilt(const LogView &v, const format::Key &k) const
{
    const u64 place = v.place(k);
    if (touched(place, k.len))
        return true;
    for (u32 i = 0; i < k.len; i += sector_bytes) {
        const u64 tag = tag_of(media.contents() + place + i);
        if (tag == torn || !oracle.belongs(tag, static_cast<u32>((k.off + i) / sector_bytes)))
            return true;
    }
    return false;
}

Damage::Hole Damage::find_hole(const LogView &v) const
{
    Hole found{v.records.size(), false};
    bool hole = false;
    bool judged = !key_tail_lost_; // it says whose log this is; otherwise the first number does
    for (usize i = 0; i < v.records.size(); ++i) {
        const LogView::Record &r = v.records[i];
        if (!r.dirty && !tails_lost_)
            continue;
        const bool bad = touched(r.offset, r.bytes);
        // Wrong bits are proved by a record behind them, unless that one has been hit as well.
        found.proved |= bad ? !hole && (unreadable(r.offset, r.bytes) || (judged && v.clean_stop))
                            : hole && judged;
        if (bad && !hole)
            found.first = i;
        hole |= bad;
        judged |= !hole;
    }
    return found;
}

// Of the media as they were in front of wrong bits, poison or not.
void Damage::judge(const LogView &v)
{
    expected_ = Expected::running;
    may_turn_ = false;
    const Hole found = find_hole(v);
    const bool proved = found.proved;
    bool hole = false;
    for (usize at = 0; at < v.records.size(); ++at) {
        const LogView::Record &r = v.records[at];
        if (!r.dirty && !tails_lost_)
            continue;
        hole |= at == found.first;
        for (const format::Key &k : r.keys) {
            if (hole)
                for (u32 i = 0; i < k.len / sector_bytes; ++i)
                    oracle.loosen(static_cast<u32>(k.off / sector_bytes) + i);
            if (!(k.flags & format::key_clean))
                judge_data(v, k);
        }
    }
    if (hole) // nobody knows any more what is clean
        for (const LogView::Record &r : v.records)
            for (const format::Key &k : r.keys)
                for (u32 i = 0; spoilt(v, k) && i < k.len / sector_bytes; ++i)
                    oracle.mark_bad_sector(static_cast<u32>(k.off / sector_bytes) + i);
    if (hole && !proved)
        oracle.forget_whole_keys(); // it may be taken for the end of the log, and cut a key in two
    if (hole) {
        trace("damage: a hole in the log behind dirty_tail%s", proved ? "" : ", not proved");
        expected_ = proved ? Expected::read_only : Expected::either;
        oracle.suspend_order(true);
        standing_ = true;
    } else if (touched(v.head, format::record_header_bytes)) {
        expected_ = Expected::either; // who cannot read the next header knows of no end
        standing_ = true;
    }
    if (tails_lost_)
        oracle.suspend_order(true); // until all of the log is written back again
    // Keys that cannot be read may take no more than a part of the log.
    may_turn_ = oracle.any_bad();
}

// As wrong bits: what they may cost is judged now, by what was there before.
void Damage::block_write_torn(const LogView &v, const std::vector<u64> &units)
{
    if (!on_ || units.empty())
        return;
    for (u64 unit : units) {
        spoilt_.push_back({unit, known_unit});
        if (unit == format::cache_ctrl_offset)
            tails_lost_ = key_tail_lost_ = true;
    }
    if (v.good && !accepting_)
        judge(v);
    else
        expected_ = Expected::either;
}

// Those of its units that hold poison, or the whole page.
void Damage::make_known(u64 page, bool whole)
{
    for (u64 at = page * page_bytes; at < (page + 1) * page_bytes; at += known_unit) {
        if (!whole && !unreadable(at, known_unit))
            continue;
        known_.insert(at / known_unit);
        poison(at, known_unit);
    }
}

void Damage::before_life(Rng &rng, u32 strike_one_in)
{
    if (!on_)
        return;
    met_.clear();
    if (accepting_ && !standing_) { // the damage came at run time, and is on media now perhaps
        const LogView v = view_log();
        if (v.good)
            judge(v);
        expected_ = Expected::either;
        return;
    }
    if (standing_ || accepting_ || !spoilt_.empty()) {
        expected_ = accepting_ ? Expected::either : expected_;
        return; // nothing has been stored since, or nothing that matters
    }
    const LogView v = view_log();
    if (tracing)
        v.trace_keys();
    if (!v.good || media.pending())
        return;
    if (!unreadable(format::cache_ctrl_offset,
                    line_bytes)) // an activation that was cut mended them
        tails_lost_ = key_tail_lost_ = false;
    if (rng.one_in(strike_one_in))
        for (u32 i = 1 + (rng.one_in(2) ? rng.below(3) : 0); i; --i)
            strike(rng, v);
    std::set<u64> pages;
    for (u64 line : lines_)
        pages.insert(line * line_bytes / page_bytes);
    for (u64 page : pages)
        if (!known_units(page * page_bytes) && rng.one_in(2))
            make_known(page, rng.one_in(2));
    take_back(v);
    judge(v);
    flip(rng);
}

void Damage::activated()
{
    spoilt_.clear();
    standing_ = tails_lost_ = key_tail_lost_ = false;
    if (repairable_ || !slot_ || !unreadable(slot_, 1))
        slot_ = 0;
}

void Damage::accepting()
{
    accepting_ = true;
    accepting_uuid_ = cache_uuid();
    oracle.accepting_loss();
}

void Damage::accepted()
{
    accepting_ = standing_ = false;
    expected_ = Expected::running;
    spoilt_.clear();
    oracle.loss_accepted(cache_uuid() != accepting_uuid_);
    may_turn_ = oracle.any_bad();
}

} // namespace pcache::sim
