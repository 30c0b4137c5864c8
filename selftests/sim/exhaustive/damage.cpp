// SPDX-License-Identifier: GPL-2.0
// selftests/sim/exhaustive/damage.cpp - each cell (8 bytes) of each durable record damaged in turn,
// and each two-slot record in both slots.
//
// What must come of it is design.md's promise 4 and format.md, not what the engine does:
// - one slot, or the superblock but for its magic: the cache runs and nothing is lost;
// - a record in front of dirty_tail: it runs, clean data is read from the backing device;
// - one behind it: read-only, and what other records say is read (mainline's, without a number,
//   only up to the next hole). The newest one after a cut may also be taken for a torn one: then
//   what its keys say may be lost, and nothing else;
// - both slots: as format.md says for each.
#include <cstring>
#include "dm-pcache/format/cache_info.hpp"
#include "dm-pcache/format/extension.hpp"
#include "dm-pcache/format/position.hpp"
#include "dm-pcache/format/segment.hpp"
#include "dm-pcache/format/superblock.hpp"
#include "selftests/sim/exhaustive/explore.hpp"
#include "selftests/sim/mainline.hpp"

namespace pcache::sim
{

namespace
{

enum class Wanted { run, refuse, read_only, any };
enum class Way : u8 { scramble, zero, flip };

struct Damage {
    std::string name;
    std::vector<u64> cells;
    Wanted wanted;
    std::vector<format::Key> lost; // keys that may be lost
    bool order_too = false;        // the redo may take the backing device back
};

struct Place {
    const char *name;
    u64 offset, stride;
    u32 bytes;
    Wanted both;
};

std::vector<Place> two_slot_places()
{
    return {{"cache_info", format::cache_info_offset, format::page_bytes,
             sizeof(format::CacheInfoRecord), Wanted::read_only},
            {"extended superblock", format::extension_offset, format::extension_stride,
             format::extension_bytes, Wanted::run},
            {"key_tail", format::key_tail_offset, format::position_stride,
             sizeof(format::PositionRecord), Wanted::run},
            {"dirty_tail", format::dirty_tail_offset, format::position_stride,
             sizeof(format::PositionRecord), Wanted::run}};
}

u64 word_at(u64 offset)
{
    u64 v;
    memcpy(&v, media.contents() + offset, sizeof(v));
    return v;
}

u64 data_offset(format::LogPosition p)
{
    return format::segment_offset({p.segment.value}) + format::segment_control_bytes + p.offset;
}

std::vector<u64> cells(u64 offset, u32 bytes)
{
    std::vector<u64> all;
    for (u32 i = 0; i < bytes; i += unit_bytes)
        all.push_back(offset + i);
    return all;
}

void add_two_slot(std::vector<Damage> &all, const Place &p, const std::string &name)
{
    for (u32 slot = 0; slot < 2; ++slot)
        for (u64 cell : cells(p.offset + slot * p.stride, p.bytes))
            all.push_back({place_name(cell), {cell}, Wanted::run, {}});
    std::vector<u64> both = cells(p.offset, unit_bytes);
    both.push_back(p.offset + p.stride);
    all.push_back({"both slots of " + name, both, p.both, {}, name == "dirty_tail"});
}

void add_superblock(std::vector<Damage> &all)
{
    for (u64 cell : cells(format::superblock_offset, format::superblock_bytes))
        all.push_back({place_name(cell),
                       {cell},
                       cell == format::superblock_offset + 8 ? Wanted::refuse : Wanted::run,
                       {}});
}

void add_segments(std::vector<Damage> &all)
{
    for (u32 i = 0; i < segment_count(); ++i) {
        const u64 at = format::segment_offset({i});
        const std::string of = " of segment " + std::to_string(i);
        add_two_slot(
            all,
            {"", at, format::segment_info_stride, sizeof(format::SegmentInfoRecord), Wanted::any},
            "segment_info" + of);
        add_two_slot(all,
                     {"", at + format::generation_offset, format::generation_stride,
                      sizeof(format::GenerationRecord), Wanted::run},
                     "the generation" + of);
    }
}

// An extended superblock, in either slot, says so.
bool says(u32 state)
{
    for (u32 slot = 0; slot < 2; ++slot) {
        format::ExtensionRecord r;
        memcpy(&r, media.contents() + format::extension_offset + slot * format::extension_stride,
               sizeof(r));
        if (format::slot_intact(&r, sizeof(r)) && (r.state & state))
            return true;
    }
    return false;
}

bool stopped_cleanly()
{
    return says(format::extension_state::clean_stop);
}

// On its way into a cache: whatever is damaged may be formatted anew, or refused.
bool being_formatted()
{
    return !word_at(format::superblock_offset + 8) || says(format::extension_state::formatting);
}

// What a damaged record behind dirty_tail must come to. The end of the log is known by the number
// of the newest numbered record (at a clean stop), or by a numbered record that stands further on;
// a record of mainline's, which has none, behind which none of ours stands cannot be told from the
// end of the log, nor can the newest record after a cut be told from a torn one.
Wanted wanted_behind(const std::vector<LogRecord> &log, usize i, bool clean_stop)
{
    for (usize k = i + 1; k < log.size(); ++k)
        if (log[k].flags.number())
            return Wanted::read_only;
    return clean_stop && log[i].flags.number() ? Wanted::read_only : Wanted::any;
}

void add_log(std::vector<Damage> &all)
{
    format::LogPosition dirty{};
    const std::vector<LogRecord> log = read_log();
    (void)read_tail(true, dirty);
    const bool clean_stop = stopped_cleanly();
    bool behind = false;
    for (usize i = 0; i < log.size(); ++i) {
        behind |= log[i].at == dirty;
        std::vector<format::Key> lost;
        for (usize k = i; behind && k < log.size() && (k == i || !log[k].flags.number()); ++k)
            lost.insert(lost.end(), log[k].keys.begin(), log[k].keys.end());
        for (u64 cell : cells(data_offset(log[i].at), log[i].bytes))
            all.push_back({"record " + std::to_string(i) + " of " + std::to_string(log.size()) +
                               ", " + place_name(cell),
                           {cell},
                           behind ? wanted_behind(log, i, clean_stop) : Wanted::run,
                           lost});
    }
}

std::vector<Damage> list()
{
    std::vector<Damage> all;
    add_superblock(all);
    for (const Place &p : two_slot_places())
        add_two_slot(all, p, p.name);
    Damage tails{"both tails", {}, Wanted::run, {}, true};
    for (u32 i = 0; i < 4; ++i)
        tails.cells.push_back(format::cache_ctrl_offset + i * format::position_stride);
    all.push_back(tails);
    add_segments(all);
    add_log(all);
    for (Damage &d : all)
        if (being_formatted() || (damage_is_expected() && d.wanted == Wanted::read_only))
            d.wanted = Wanted::any;
    return all;
}

bool apply(const Damage &d, Way way)
{
    bool changed = false;
    for (u64 cell : d.cells) {
        const u64 before = word_at(cell);
        const u64 v = way == Way::zero   ? 0
                      : way == Way::flip ? before ^ (u64{1} << (cell / 8 % 64))
                                         : before ^ 0x5A3C96E1B7D20F4B;
        changed |= v != before;
        media.put(cell, &v, sizeof(v));
    }
    return changed;
}

const char *name_of(Wanted w)
{
    return w == Wanted::run         ? "run without a loss"
           : w == Wanted::refuse    ? "be refused"
           : w == Wanted::read_only ? "be read-only"
                                    : "lose nothing silently";
}

void check(const Damage &d, u64 seed)
{
    for (const format::Key &k : d.lost)
        for (u32 i = 0; i < k.len / sector_bytes; ++i)
            oracle.forget(static_cast<u32>(k.off / sector_bytes) + i);
    oracle.suspend_order(d.order_too);
    Judgement j;
    j.may_be_read_only = j.may_be_refused = true;
    const Found found = judge(seed, j);
    oracle.suspend_order(false);
    if (violated())
        return;
    const bool as_wanted = d.wanted == Wanted::any ||
                           (d.wanted == Wanted::run && found == Found::running) ||
                           (d.wanted == Wanted::refuse && found == Found::refused) ||
                           (d.wanted == Wanted::read_only && found == Found::read_only);
    if (!as_wanted)
        violation(std::string("the cache ") +
                  (found == Found::running     ? "runs"
                   : found == Found::read_only ? "is read-only"
                                               : "is refused") +
                  "; it should " + name_of(d.wanted));
}

} // namespace

std::string place_name(u64 offset)
{
    const auto plus = [](u64 n) { return n ? " +" + std::to_string(n) : std::string(); };
    if (offset >= format::first_segment_offset) {
        const u64 segment =
            (offset - format::first_segment_offset) / format::geometry.segment_bytes;
        const u64 at = offset - format::segment_offset({static_cast<u32>(segment)});
        const std::string of = "segment " + std::to_string(segment) + ", ";
        if (at >= format::segment_control_bytes)
            return of + "data" + plus(at - format::segment_control_bytes);
        if (at >= format::generation_offset)
            return of + "generation slot " + std::to_string((at - format::generation_offset) / 16) +
                   plus(at % 16);
        return of + "segment_info slot " + std::to_string(at / format::page_bytes) +
               plus(at % format::page_bytes);
    }
    if (offset >= format::cache_ctrl_offset)
        return std::string(offset % 64 < 32 ? "key_tail" : "dirty_tail") + " slot " +
               std::to_string(offset % 32 / 16) + plus(offset % 16);
    if (offset >= format::cache_info_offset) {
        const u64 slot = (offset - format::cache_info_offset) / format::page_bytes;
        const u64 at = offset % format::page_bytes;
        return (at >= 0x800 ? "extended superblock slot " : "cache_info slot ") +
               std::to_string(slot) + plus(at % 0x800);
    }
    return "superblock" + plus(offset - format::superblock_offset);
}

void run_damage(const char *what, u32 number, u32 of)
{
    cut_to_durable();
    const Bytes image = media.durable();
    const std::vector<u64> content = disk.durable();
    const Oracle before = oracle;
    const std::vector<Damage> all = list();
    for (u32 way = 0; way < 3; ++way)
        for (u32 i = 0; i < all.size(); ++i) {
            const u32 index = way * 100000 + i;
            if (options.damage >= 0 && options.damage != index)
                continue;
            if (options.damage < 0 && (shared->violations >= 10 || (way && !options.full)))
                return;
            if (options.damage < 0 && (i + number) % of)
                continue;
            clear_violation();
            media.restore(image);
            disk.restore(content);
            oracle = before;
            if (!apply(all[i], static_cast<Way>(way)))
                continue;
            note_state(std::string(what) + ", damage " + std::to_string(index));
            count(&Shared::damaged);
            tracing = options.trace && options.damage >= 0;
            check(all[i], index);
            if (violated())
                report(std::string(what) + ", cut point " + std::to_string(number) + ", damage " +
                           std::to_string(index),
                       all[i].name, again_damage(index));
        }
}

} // namespace pcache::sim
