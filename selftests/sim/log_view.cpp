// SPDX-License-Identifier: GPL-2.0
// selftests/sim/log_view.cpp - see log_view.hpp.
#include "selftests/sim/log_view.hpp"
#include <cstring>
#include "dm-pcache/format/cache_info.hpp"
#include "dm-pcache/format/extension.hpp"
#include "dm-pcache/format/position.hpp"
#include "dm-pcache/format/superblock.hpp"

namespace pcache::sim
{

namespace
{

using format::LogPosition;

u64 device_offset(LogPosition at)
{
    return format::segment_offset({at.segment.value}) + format::segment_control_bytes + at.offset;
}

// The newest good slot of a two-slot record; false: there is none.
template <class T>
bool newest(u64 offset, u64 stride, T &out)
{
    T slot[2];
    bool good[2];
    for (u32 i = 0; i < 2; ++i) {
        memcpy(&slot[i], media.contents() + offset + i * stride, sizeof(T));
        good[i] = format::slot_intact(&slot[i], sizeof(T));
    }
    const int n = format::newest_slot(good[0], slot[0].header.seq, good[1], slot[1].header.seq);
    if (n >= 0)
        out = slot[n];
    return n >= 0;
}

bool read_on(u64 last, format::RecordFlags next)
{
    if (!last || !next.number())
        return true;
    return next.start() ? format::after(next.number(), last)
                        : next.number() == format::next_number(last);
}

// The record at `at`, its keys included, if it goes on from `number`.
bool read_record(LogPosition at, u64 &number, LogView::Record &r, LogPosition &behind)
{
    if (at.offset + format::record_header_bytes > format::data_bytes)
        return false;
    r.offset = device_offset(at);
    const u8 *p = media.contents() + r.offset;
    format::RecordHeader h;
    memcpy(&h, p, sizeof(h));
    r.bytes = format::announced_bytes(h, at.offset);
    const format::RecordFlags flags{h.flags};
    if (!r.bytes || !format::record_intact(p, r.bytes) || !read_on(number, flags))
        return false;
    number = flags.number() ? flags.number() : number;
    r.last = flags.last();
    for (u32 i = 0; !r.last && i < h.num; ++i)
        r.keys.push_back(format::decode_key(p, i));
    behind = r.last ? LogPosition{{h.num}, 0} : LogPosition{at.segment, at.offset + r.bytes};
    return true;
}

} // namespace

u64 LogView::place(const format::Key &k) const
{
    return device_offset({{k.cache_seg_id}, k.cache_seg_off});
}

void LogView::trace_keys() const
{
    for (const Record &r : records)
        trace("on media: a record of %u keys at %llu to %llu, %s dirty_tail", u32(r.keys.size()),
              r.offset, r.offset + r.bytes - 1, r.dirty ? "behind" : "in front of");
    trace("on media: the head is at %llu", head);
    for (const Record &r : records)
        for (const format::Key &k : r.keys)
            if (traced_sector >= 0 && k.off / sector_bytes <= static_cast<u64>(traced_sector) &&
                (k.off + k.len) / sector_bytes > static_cast<u64>(traced_sector))
                trace("on media: the record at %llu, %s dirty_tail, has a%s key of sectors %llu to "
                      "%llu at %llu, generation %llu",
                      r.offset, r.dirty ? "behind" : "in front of",
                      k.flags & format::key_clean ? " CLEAN" : "", k.off / sector_bytes,
                      (k.off + k.len) / sector_bytes - 1, place(k), k.seg_gen);
}

LogView view_log()
{
    LogView v;
    v.segments = static_cast<u32>((media.bytes() - format::first_segment_offset) /
                                  format::geometry.segment_bytes);
    u64 magic;
    memcpy(&magic, media.contents() + format::superblock_offset + 8, sizeof(magic));
    format::PositionRecord key{}, dirty{};
    format::CacheInfoRecord info{};
    format::ExtensionRecord extension{};
    format::Extension e;
    if (magic != format::superblock_magic ||
        !newest(format::cache_info_offset, format::page_bytes, info) ||
        !newest(format::key_tail_offset, format::position_stride, key) ||
        !newest(format::dirty_tail_offset, format::position_stride, dirty) ||
        !newest(format::extension_offset, format::extension_stride, extension) ||
        format::decode_extension(extension, e) != format::ExtensionState::good || e.formatting())
        return v;
    v.clean_stop = e.clean_stop();
    LogPosition at = format::decode_position(key);
    const LogPosition dirty_tail = format::decode_position(dirty);
    u64 number = 0;
    for (;;) {
        v.good |= at == dirty_tail;
        LogView::Record r{};
        LogPosition behind{};
        if (at.segment.value >= v.segments || !read_record(at, number, r, behind))
            break;
        r.dirty = v.good;
        v.records.push_back(std::move(r));
        at = behind;
    }
    v.head = device_offset(at);
    return v;
}

std::array<u8, 16> cache_uuid()
{
    std::array<u8, 16> uuid{};
    format::ExtensionRecord r{};
    format::Extension e;
    if (newest(format::extension_offset, format::extension_stride, r) &&
        format::decode_extension(r, e) == format::ExtensionState::good)
        std::copy(std::begin(e.uuid), std::end(e.uuid), uuid.begin());
    return uuid;
}

} // namespace pcache::sim
