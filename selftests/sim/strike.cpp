// SPDX-License-Identifier: GPL-2.0
// selftests/sim/strike.cpp - what is damaged: see damage.hpp. Draws a place that means something
// (data of a key, a record, a slot of a two-slot record) and what happens to it.
#include <algorithm>
#include <cstring>
#include <map>
#include "dm-pcache/format/cache_info.hpp"
#include "dm-pcache/format/extension.hpp"
#include "dm-pcache/format/position.hpp"
#include "dm-pcache/format/segment.hpp"
#include "dm-pcache/format/superblock.hpp"
#include "selftests/sim/damage.hpp"
#include "selftests/sim/oracle.hpp"

namespace pcache::sim
{

namespace
{
using format::page_bytes;
constexpr u64 line_bytes = 64;

// Whether this slot of a generation alone makes keys stale that are still in the log: mainline's GC
// stores a generation in one slot, and was cut. Its loss would be the second fault, and nothing
// says that the keys must not come back (seed 2631).
bool alone_makes_stale(const LogView &v, u32 segment, u64 slot, u64 other)
{
    format::GenerationRecord newer, older;
    memcpy(&newer, media.contents() + slot, sizeof(newer));
    memcpy(&older, media.contents() + other, sizeof(older));
    for (const LogView::Record &r : v.records)
        for (const format::Key &k : r.keys)
            if (k.cache_seg_id == segment && older.gen <= k.seg_gen && k.seg_gen < newer.gen)
                return true;
    return false;
}

// Whether a key in the hole or behind it has hidden a clean one in front of it, so that this one
// shows again if the hole is taken for the end.
bool hides_clean(const LogView &v, usize hole, bool all_dirty)
{
    std::map<u64, bool> clean; // by sector: the newest key in front of the hole
    for (usize i = 0; i < v.records.size(); ++i)
        for (const format::Key &k : v.records[i].keys)
            for (u64 s = k.off / sector_bytes; s < (k.off + k.len) / sector_bytes; ++s) {
                if (i < hole)
                    clean[s] = (k.flags & format::key_clean) || !(v.records[i].dirty || all_dirty);
                else if (const auto c = clean.find(s); c != clean.end() && c->second)
                    return true;
            }
    return false;
}
} // namespace

// Carries out what was drawn: one bit, or all of a range.
void Damage::flip(Rng &rng)
{
    for (const Range &r : spoilt_) {
        std::vector<u8> wrong(r.bytes);
        for (u8 &b : wrong)
            b = static_cast<u8>(rng.next());
        if (r.bytes == 1)
            wrong[0] = static_cast<u8>(media.contents()[r.offset] ^ (1u << rng.below(8)));
        media.put(r.offset, wrong.data(), static_cast<u32>(r.bytes));
    }
}

// Something of the range goes bad: a bit of it, or a line, or the page around; wrong bits or
// poison.
void Damage::spoil(Rng &rng, Range r, bool may_flip)
{
    const u64 at = r.offset + rng.below(static_cast<u32>(r.bytes));
    if (!room_for(at))
        return;
    const Range line{at / line_bytes * line_bytes, line_bytes};
    const Range page{at / page_bytes * page_bytes, page_bytes};
    const Range bit{at, 1};
    const u32 size = rng.below(4);
    const Range what = size < 2 ? bit : size == 2 ? line : page;
    const bool flips = may_flip && rng.one_in(2);
    trace("damage: %s of %llu bytes at %llu", flips ? "wrong bits" : "poison", what.bytes,
          what.offset);
    ++strikes_;
    if (flips)
        spoilt_.push_back(what);
    else if (size == 3)
        make_known(page.offset / page_bytes, true);
    else
        poison(line.offset, line.bytes);
}

void Damage::strike_data(Rng &rng, const LogView &v)
{
    const usize n = v.records.size();
    for (u32 tries = 0; n && tries < 16; ++tries) {
        const LogView::Record &r = v.records[rng.below(static_cast<u32>(n))];
        if (r.keys.empty() || (!r.dirty && rng.one_in(2)))
            continue;
        const format::Key &k = r.keys[rng.below(static_cast<u32>(r.keys.size()))];
        // Only a sum tells wrong bits. A page of them may hold data of several keys.
        spoil(rng, {v.place(k), k.len}, faults.data_crc);
        return;
    }
}

// Wrong bits are seen by what stands behind them, by a clean stop's head, or not at all: what was
// newest cannot be told from what a cut has torn.
void Damage::strike_record(Rng &rng, const LogView &v)
{
    const usize n = v.records.size();
    if (!n)
        return;
    const LogView::Record &r = v.records[rng.below(static_cast<u32>(n))];
    const u64 from = r.offset / page_bytes * page_bytes;
    const u64 to = (r.offset + r.bytes + page_bytes - 1) / page_bytes * page_bytes;
    // Of the pages around: whether something is dirty, and whether the newest record is not there.
    bool dirty = false, provable = v.clean_stop;
    for (const LogView::Record &x : v.records) {
        const bool there = x.offset < to && x.offset + x.bytes > from;
        dirty |= there && x.dirty;
        provable = v.clean_stop || !there;
    }
    // Where the head's page can be neither read nor written, nothing can be logged.
    if (!repairable_ && from <= v.head && v.head < to)
        return;
    spoil(rng, {r.offset, r.bytes}, provable || !dirty);
}

// One slot of a two-slot record whose slots lie in different pages, or a bit of one where they do
// not; or the superblock.
void Damage::strike_slot(Rng &rng, const LogView &v)
{
    if (slot_)
        return; // one at a time: the other one must serve
    const u32 segment = rng.below(format::geometry.min_segments);
    const u64 base = format::segment_offset({segment});
    const u64 slot = rng.below(2);
    const Range places[] = {
        {format::superblock_offset, format::superblock_bytes},
        {format::cache_info_offset + slot * page_bytes, sizeof(format::CacheInfoRecord)},
        {format::extension_offset + slot * page_bytes, format::extension_bytes},
        {base + slot * page_bytes, sizeof(format::SegmentInfoRecord)},
        {base + format::generation_offset + slot * format::generation_stride,
         sizeof(format::GenerationRecord)},
        {format::key_tail_offset + slot * format::position_stride, sizeof(format::PositionRecord)},
        {format::dirty_tail_offset + slot * format::position_stride,
         sizeof(format::PositionRecord)},
    };
    const u32 which = rng.below(7);
    const Range r = places[which];
    const u64 stride = which < 4   ? page_bytes
                       : which < 5 ? format::generation_stride
                                   : format::position_stride;
    const u64 other = slot ? r.offset - stride : r.offset + stride;
    if (which && !format::slot_intact(media.contents() + other, static_cast<u32>(r.bytes)))
        return; // a cut has left one slot alone
    if (which >= 5 && memcmp(media.contents() + r.offset + sizeof(format::SlotHeader),
                             media.contents() + other + sizeof(format::SlotHeader),
                             r.bytes - sizeof(format::SlotHeader)) != 0)
        return; // or two that say different things: the older one would not cost nothing
    if (which == 4 && alone_makes_stale(v, segment, r.offset, other))
        return;
    slot_ = r.offset;
    if (which < 4 && repairable_) {
        spoil(rng, r, false);
        return;
    }
    trace("damage: wrong bits in a slot, at %llu", r.offset);
    ++strikes_;
    if (which == 0) { // another magic belongs to somebody else
        const u64 in[] = {0, 4, 16, 20};
        spoilt_.push_back({r.offset + in[rng.below(4)] + rng.below(4), 1});
        return;
    }
    spoilt_.push_back(rng.one_in(2) ? r
                                    : Range{r.offset + rng.below(static_cast<u32>(r.bytes)), 1});
}

// Both slots of a tail, or all four: they lie in one line.
void Damage::strike_tails(Rng &rng)
{
    if (poisoned() || slot_)
        return;
    slot_ = format::cache_ctrl_offset;
    const u32 which = rng.below(4);
    tails_lost_ = which != 0;
    key_tail_lost_ = which != 1;
    trace("damage: tails, case %u", which);
    ++strikes_;
    if (which == 0)
        spoilt_.push_back({format::key_tail_offset, 2 * format::position_stride});
    else if (which == 1)
        spoilt_.push_back({format::dirty_tail_offset, 2 * format::position_stride});
    else if (which == 2 || !repairable_)
        spoilt_.push_back({format::cache_ctrl_offset, line_bytes});
    else
        poison(format::cache_ctrl_offset, line_bytes);
}

// Wrong bits of the log that nothing proves any more (what proved them was hit, too: the record
// behind them, or dirty_tail, which the log must meet), where they would bare a clean key. The lost
// key may have been written back; the bared one is not sent again, and nothing says that the
// backing device has newer bytes (seed 1282).
void Damage::take_back(const LogView &v)
{
    const Hole hole = find_hole(v);
    if (hole.first == v.records.size() || hole.proved || !hides_clean(v, hole.first, tails_lost_))
        return;
    trace("damage: the wrong bits in the log are taken back");
    std::erase_if(spoilt_, [&](const Range &s) {
        return std::any_of(v.records.begin(), v.records.end(), [&](const LogView::Record &r) {
            return s.offset < r.offset + r.bytes && r.offset < s.offset + s.bytes;
        });
    });
}

void Damage::strike(Rng &rng, const LogView &v)
{
    switch (rng.below(8)) {
    case 0:
    case 1:
    case 2:
        strike_data(rng, v);
        break;
    case 3:
    case 4:
        strike_record(rng, v);
        break;
    case 5:
    case 6:
        strike_slot(rng, v);
        break;
    case 7:
        strike_tails(rng);
        break;
    }
}

// A line of data, dirty or clean, or of the log.
void Damage::decay(Rng &rng)
{
    if (rng.one_in(8)) {
        const LogView v = view_log();
        if (v.records.empty())
            return;
        const LogView::Record &r = v.records[rng.below(static_cast<u32>(v.records.size()))];
        const u64 at = r.offset + rng.below(r.bytes);
        if (!room_for(at) || at / page_bytes == v.head / page_bytes)
            return; // not modelled: the log goes on in a page that could not be read
        trace("damage: poison in the log, at %llu", at);
        poison(at, 1);
        may_turn_ = true;
        ++strikes_;
        return;
    }
    const u64 first = format::segment_offset({0});
    for (u32 tries = 0; tries < 64; ++tries) {
        const u64 at =
            first +
            u64{rng.below(static_cast<u32>((media.bytes() - first) / sector_bytes))} * sector_bytes;
        const u64 tag = tag_of(media.contents() + at);
        if (!room_for(at) || tag == torn || !tag ||
            !oracle.belongs(tag, static_cast<u32>(tag & 0xFFFFFF)))
            continue;
        trace("damage: poison in data, at %llu", at);
        const u32 around = faults.data_crc ? 32 : 0; // sectors of a key that is verified as a whole
        for (u64 x = at - around * sector_bytes; x <= at + around * sector_bytes; x += sector_bytes)
            if (x >= first && x < media.bytes())
                oracle.mark_bad(tag_of(media.contents() + x), false);
        poison(at + line_bytes * rng.below(sector_bytes / line_bytes), 1);
        may_turn_ = true;
        ++strikes_;
        return;
    }
}

} // namespace pcache::sim
