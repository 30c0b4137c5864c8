// SPDX-License-Identifier: GPL-2.0
// selftests/sim/mainline.cpp - see mainline.hpp.
#include "selftests/sim/mainline.hpp"
#include <cstring>
#include "dm-pcache/format/position.hpp"
#include "dm-pcache/format/record.hpp"
#include "dm-pcache/format/segment.hpp"
#include "dm-pcache/format/superblock.hpp"
#include "selftests/sim/mainline_writer.hpp"
#include "selftests/sim/world.hpp"

namespace pcache::sim
{

namespace
{

using format::LogPosition;

template <class T>
T get(u64 offset)
{
    T v;
    memcpy(&v, media.contents() + offset, sizeof(v));
    return v;
}

bool formatted()
{
    u64 magic;
    memcpy(&magic, media.contents() + format::superblock_offset + 8, sizeof(magic));
    return magic != 0;
}

} // namespace

u32 segment_count()
{
    return static_cast<u32>((media.bytes() - format::first_segment_offset) /
                            format::geometry.segment_bytes);
}

bool read_tail(bool dirty, LogPosition &at)
{
    const u64 offset = format::cache_ctrl_offset + (dirty ? 2 * format::position_stride : 0);
    const auto a = get<format::PositionRecord>(offset);
    const auto b = get<format::PositionRecord>(offset + format::position_stride);
    const int newest = format::newest_slot(format::slot_intact(&a, sizeof(a)), a.header.seq,
                                           format::slot_intact(&b, sizeof(b)), b.header.seq);
    if (newest < 0)
        return false;
    at = format::decode_position(newest ? b : a);
    return true;
}

namespace
{

// The record at `at`, if mainline takes it for one; `bytes`: how long it is.
bool read_record(LogPosition at, format::RecordHeader &h, u32 &bytes)
{
    const u8 *p = media.contents() + format::segment_offset({at.segment.value}) +
                  format::segment_control_bytes + at.offset;
    if (at.offset + format::record_header_bytes > format::data_bytes)
        return false;
    memcpy(&h, p, sizeof(h));
    bytes = format::announced_bytes(h, at.offset);
    return bytes && format::record_intact(p, bytes);
}

// f(record's position, header, its first byte) for each record, as mainline reads; true at the end
// of the log, false when f was false or there is no end.
template <class F>
bool walk(LogPosition at, F f)
{
    for (u32 n = 0; n < 100000 && at.segment.value < segment_count(); ++n) {
        format::RecordHeader h;
        u32 bytes = 0;
        if (!read_record(at, h, bytes))
            return true;
        if (!f(at, h,
               media.contents() + format::segment_offset({at.segment.value}) +
                   format::segment_control_bytes + at.offset))
            return false;
        at = format::RecordFlags{h.flags}.last() ? LogPosition{{h.num}, 0}
                                                 : LogPosition{at.segment, at.offset + bytes};
    }
    return false;
}

// What the log says of a segment.
struct Use {
    u32 clean = 0, dirty = 0; // keys
    bool log = false;
    u64 oldest = ~0ull; // generation of a key
};

std::vector<Use> uses(LogPosition key_tail, LogPosition dirty_tail)
{
    std::vector<Use> use(segment_count());
    bool behind = false;
    walk(key_tail, [&](LogPosition at, const format::RecordHeader &h, const u8 *record) {
        behind |= at == dirty_tail;
        use[at.segment.value].log = true;
        const bool last = format::RecordFlags{h.flags}.last();
        if (last && h.num < use.size())
            use[h.num].log = true;
        for (u32 i = 0; !last && i < h.num; ++i) {
            const format::Key k = format::decode_key(record, i);
            Use &u = use[k.cache_seg_id];
            ++(behind ? u.dirty : u.clean);
            u.oldest = std::min(u.oldest, u64{k.seg_gen});
        }
        return true;
    });
    return use;
}

void raise_generation(u32 segment)
{
    const u64 at = format::segment_offset({segment}) + format::generation_offset;
    auto a = get<format::GenerationRecord>(at);
    auto b = get<format::GenerationRecord>(at + format::generation_stride);
    const int newest = format::newest_slot(format::slot_intact(&a, sizeof(a)), a.header.seq,
                                           format::slot_intact(&b, sizeof(b)), b.header.seq);
    if (newest < 0)
        return;
    format::GenerationRecord r = newest ? b : a;
    ++r.gen;
    format::seal_slot(&r, sizeof(r), static_cast<u8>(r.header.seq + 1));
    media.put(at + (newest ? 0 : format::generation_stride), &r, sizeof(r));
}

} // namespace

std::vector<LogRecord> read_log()
{
    std::vector<LogRecord> all;
    LogPosition at;
    if (!formatted() || !read_tail(false, at))
        return all;
    walk(at, [&all](LogPosition p, const format::RecordHeader &h, const u8 *record) {
        const format::RecordFlags flags{h.flags};
        all.push_back({p,
                       flags.last() ? format::last_record_bytes : format::kset_bytes(h.num),
                       flags,
                       h.crc,
                       {}});
        for (u32 i = 0; !flags.last() && i < h.num; ++i)
            all.back().keys.push_back(format::decode_key(record, i));
        return all.size() < 10000;
    });
    return all;
}

void check_mainline_view()
{
    LogPosition at;
    if (!formatted() || !read_tail(false, at))
        return;
    u64 last = 0;
    const bool ended = walk(at, [&last](LogPosition p, const format::RecordHeader &h, const u8 *) {
        const format::RecordFlags flags{h.flags};
        const u64 number = flags.number();
        if (!number && mainline_wrote(p, h.crc))
            return true;
        const bool follows = !last || (flags.start() ? format::after(number, last)
                                                     : number == format::next_number(last));
        if (number && follows) {
            last = number;
            return true;
        }
        violation("mainline's reader meets record " + std::to_string(number) + " at " +
                  std::to_string(p.segment.value) + ":" + std::to_string(p.offset) +
                  " behind record " + std::to_string(last) + ", which does not continue it");
        return false;
    });
    if (!ended)
        violation("mainline's reader finds no end of the log");
}

void cut_mainline_gc(Rng &rng)
{
    LogPosition key_tail, dirty_tail;
    if (!formatted() || media.pending() || !read_tail(false, key_tail) ||
        !read_tail(true, dirty_tail))
        return;
    const std::vector<Use> use = uses(key_tail, dirty_tail);
    const u32 first = rng.below(segment_count());
    for (u32 i = 0; i < segment_count(); ++i) {
        const u32 s = (first + i) % segment_count();
        const u64 at = format::segment_offset({s}) + format::generation_offset;
        const u64 gen = get<format::GenerationRecord>(at).gen;
        if (use[s].log || use[s].dirty || !use[s].clean || use[s].oldest < gen)
            continue;
        raise_generation(s);
        const std::vector<u8> garbage(format::data_bytes, 0x99);
        media.put(format::segment_offset({s}) + format::segment_control_bytes, garbage.data(),
                  format::data_bytes);
        trace("mainline's GC was cut: generation of segment %u raised", s);
        return;
    }
}

} // namespace pcache::sim
