// SPDX-License-Identifier: GPL-2.0
// selftests/fuzz/mutate.cpp - see mutate.hpp. One function for each kind of change.
#include "selftests/fuzz/mutate.hpp"
#include <algorithm>
#include <cstring>
#include "selftests/fuzz/script.hpp"
#include "selftests/sim/world.hpp"

namespace pcache::fuzz
{

namespace
{

using namespace format;
using sim::Rng;

struct Change {
    Image &im;
    Rng &rng;
    Scramble scramble;

    template <class V>
    auto &any_of(V &v)
    {
        return v[rng.below(static_cast<u32>(v.size()))];
    }
    // A number that may matter where `old` stands.
    u64 number(u64 old)
    {
        switch (rng.below(10)) {
        case 0:
            return old + 1;
        case 1:
            return old - 1;
        case 2:
            return 0;
        case 3:
            return ~u64{0} >> rng.below(64);
        case 4:
            return u64{1} << rng.below(64);
        case 5:
            return rng.below(im.segments + 1);
        case 6:
            return rng.below(data_bytes + 512) & ~511u;
        case 7:
            return old ^ u64 { 1 } << rng.below(64);
        case 8:
            return rng.below(im.sectors + 2) * 512;
        default:
            return rng.next();
        }
    }
    template <class T>
    void change(T &field)
    {
        field = static_cast<T>(number(field));
    }
    Slot any_slot()
    {
        auto all = slots_of(im);
        if (rng.one_in(2)) // not mostly those of segments
            return all[rng.below(9)];
        return any_of(all);
    }
};

void a_field_of_a_slot(Change &c)
{
    const Slot s = c.any_slot();
    const u64 at = s.at + 4 + 4 * c.rng.below((s.bytes - 4) / 4);
    if (c.rng.one_in(2) && at + 8 <= s.at + s.bytes) {
        u64 v = c.im.get<u64>(at);
        c.change(v);
        c.im.put(at, v);
    } else {
        u32 v = c.im.get<u32>(at);
        c.change(v);
        c.im.put(at, v);
    }
}

void a_slot_is_gone(Change &c)
{
    const Slot s = c.any_slot();
    memset(&c.im.bytes[s.at], c.rng.one_in(4) ? 0xFF : 0, s.bytes);
}

void a_slot_is_scrambled(Change &c)
{
    const Slot s = c.any_slot();
    c.scramble(&c.im.bytes[s.at], s.bytes);
}

// One slot becomes the other, older or newer than it or the same.
void slots_trade(Change &c)
{
    static const struct {
        u64 at;
        u32 stride, bytes;
    } pairs[] = {{cache_info_offset, page_bytes, 24},
                 {extension_offset, extension_stride, extension_bytes},
                 {key_tail_offset, position_stride, 16},
                 {dirty_tail_offset, position_stride, 16}};
    u64 at = 0;
    u32 stride = 0, bytes = 16;
    if (const u32 i = c.rng.below(6); i < 4) {
        at = pairs[i].at;
        stride = pairs[i].stride;
        bytes = pairs[i].bytes;
    } else {
        at = segment_offset({c.rng.below(c.im.segments)}) + (i == 4 ? 0 : generation_offset);
        stride = i == 4 ? segment_info_stride : generation_stride;
    }
    const u64 from = c.rng.one_in(2) ? at : at + stride, to = from == at ? at + stride : at;
    memcpy(&c.im.bytes[to], &c.im.bytes[from], bytes);
    c.im.bytes[to + 4] = static_cast<u8>(c.im.bytes[to + 4] + c.rng.below(3) - 1);
}

void a_key(Change &c)
{
    auto all = records_of(c.im);
    std::erase_if(all, [](const Found &f) { return f.last; });
    if (all.empty())
        return;
    const Found &f = c.any_of(all);
    const u64 at = f.at + kset_bytes(c.rng.below((f.bytes - record_header_bytes) / sizeof(Key)));
    Key k = c.im.get<Key>(at);
    switch (c.rng.below(9)) {
    case 0:
        k.off = c.rng.below(c.im.sectors + 1) * 512;
        break;
    case 1:
        k.len = 512 * c.rng.below(130);
        break;
    case 2:
        k.flags ^= c.rng.one_in(4) ? 1u << c.rng.below(32) : key_clean;
        break;
    case 3:
        k.cache_seg_id = c.rng.below(c.im.segments + 1);
        break;
    case 4:
        k.cache_seg_off = 512 * c.rng.below(data_bytes / 512 + 1);
        break;
    case 5:
        c.change(k.seg_gen);
        break;
    case 6:
        c.change(k.off);
        break;
    case 7:
        c.change(k.data_crc);
        break;
    case 8:
        k = c.im.get<Key>(c.any_of(all).at + kset_bytes(0));
        break;
    }
    c.im.put(at, k);
}

void a_record_header(Change &c)
{
    auto all = records_of(c.im);
    if (all.empty())
        return;
    const Found &f = c.any_of(all);
    auto h = c.im.get<RecordHeader>(f.at);
    switch (c.rng.below(6)) {
    case 0:
        h.num = c.rng.below(geometry.keys_per_kset + 2);
        break;
    case 1:
        h.flags ^= u64{1} << c.rng.below(16);
        break;
    case 2:
        h.flags ^= RecordFlags::start_bit | (c.rng.one_in(2) ? RecordFlags::epoch_bit : 0);
        break;
    case 3:
        h.flags = (h.flags & 0xFFFF) | c.number(h.flags >> 16) << 16;
        break;
    case 4:
        h.flags &= 0xFFFF; // mainline's
        break;
    case 5:
        c.change(h.num);
        break;
    }
    c.im.put(f.at, h);
}

// A record (or what lies there) is put somewhere else: behind another, into another segment.
void a_record_is_copied(Change &c)
{
    auto all = records_of(c.im);
    if (all.empty())
        return;
    const Found from = c.any_of(all), behind = c.any_of(all);
    u64 to = behind.at + behind.bytes;
    if (c.rng.one_in(4))
        to = data_area(c.rng.below(c.im.segments));
    if (to + from.bytes > c.im.bytes.size())
        return;
    std::vector<u8> record(&c.im.bytes[from.at], &c.im.bytes[from.at] + from.bytes);
    memcpy(&c.im.bytes[to], record.data(), record.size());
    if (c.rng.one_in(4))
        return;
    auto h = c.im.get<RecordHeader>(to);
    const u64 number = c.im.get<RecordHeader>(behind.at).flags >> 16;
    h.flags = (h.flags & 0xFFFF) | (number ? next_number(number) : 0) << 16;
    c.im.put(to, h);
}

void a_record_is_gone(Change &c)
{
    auto all = records_of(c.im);
    if (all.empty())
        return;
    const Found &f = c.any_of(all);
    memset(&c.im.bytes[f.at], 0, c.rng.one_in(2) ? f.bytes : 8);
}

void a_record_is_scrambled(Change &c)
{
    auto all = records_of(c.im);
    if (all.empty())
        return;
    const Found &f = c.any_of(all);
    c.scramble(&c.im.bytes[f.at + 4], f.bytes - 4);
}

// A LAST record behind some record.
void a_link(Change &c)
{
    auto all = records_of(c.im);
    if (all.empty())
        return;
    const Found &f = c.any_of(all);
    if (f.at + f.bytes + record_header_bytes > c.im.bytes.size())
        return;
    const u64 number = c.im.get<RecordHeader>(f.at).flags >> 16;
    c.im.put(f.at + f.bytes,
             encode_last({c.rng.below(c.im.segments)},
                         RecordFlags::make(number ? next_number(number) : 0, false, false)));
}

void a_tail(Change &c)
{
    auto all = records_of(c.im);
    if (all.empty())
        return;
    const Found &f = c.any_of(all);
    const u64 place = f.at + (c.rng.one_in(4) ? f.bytes : 0) - first_segment_offset;
    const u32 segment = static_cast<u32>(place / geometry.segment_bytes);
    const u32 offset = static_cast<u32>(place % geometry.segment_bytes) - segment_control_bytes;
    const u64 at = c.rng.one_in(2) ? key_tail_offset : dirty_tail_offset;
    for (u32 i = 0; i < 2; ++i) {
        auto p = c.im.get<PositionRecord>(at + u64{i} * position_stride);
        p.cache_seg_id = segment;
        p.seg_off = offset;
        if (c.rng.one_in(16))
            p.header.res ^= position_mark;
        c.im.put(at + u64{i} * position_stride, p);
        if (c.rng.one_in(8))
            break;
    }
}

void a_generation(Change &c)
{
    const u64 at = segment_offset({c.rng.below(c.im.segments)}) + generation_offset;
    for (u32 i = 0; i < 2; ++i) {
        auto g = c.im.get<GenerationRecord>(at + u64{i} * generation_stride);
        if (c.rng.one_in(3))
            c.change(g.gen);
        else
            g.gen += c.rng.below(3) - 1u;
        c.im.put(at + u64{i} * generation_stride, g);
    }
}

void the_chain(Change &c)
{
    const u32 a = c.rng.below(c.im.segments), b = c.rng.below(c.im.segments);
    for (u32 i = 0; i < 2; ++i) {
        const u64 at = segment_offset({a}) + u64{i} * segment_info_stride;
        auto s = c.im.get<SegmentInfoRecord>(at);
        s.next_seg = b;
        s.flags ^= c.rng.one_in(8) ? 1u : 0u;
        c.im.put(at, s);
    }
}

void some_data(Change &c)
{
    const u64 at = data_area(c.rng.below(c.im.segments)) + 512 * c.rng.below(data_bytes / 512);
    if (c.rng.one_in(2))
        sim::fill_tag(&c.im.bytes[at], c.rng.next());
    else
        c.im.bytes[at + c.rng.below(512)] ^= static_cast<u8>(1 + c.rng.below(255));
}

void bad_pages(Change &c)
{
    if (c.rng.one_in(2)) {
        c.im.poisoned.clear();
        c.im.known_bad.clear();
        return;
    }
    u64 at = c.any_slot().at;
    if (auto all = records_of(c.im); !all.empty() && c.rng.one_in(2))
        at = c.any_of(all).at;
    else if (c.rng.one_in(2))
        at = data_area(c.rng.below(c.im.segments)) + 512 * c.rng.below(data_bytes / 512);
    auto &pages = c.rng.one_in(2) ? c.im.poisoned : c.im.known_bad;
    if (pages.size() < 8)
        pages.push_back(at / page_bytes * page_bytes);
    c.im.lost_pages = c.rng.one_in(4);
}

void surroundings(Change &c)
{
    switch (c.rng.below(4)) {
    case 0:
        c.im.sectors = 8 * (1 + c.rng.below(96));
        break;
    case 1:
        c.im.data_crc = static_cast<u8>(c.rng.below(3));
        break;
    case 2:
        c.im.seed = static_cast<u8>(c.rng.next());
        break;
    case 3:
        c.im.backing_seed = static_cast<u8>(c.rng.next());
        break;
    }
}

void operations(Change &c)
{
    auto &ops = c.im.ops;
    const auto draw = [&c] {
        const u64 r = c.rng.next();
        return Op{static_cast<u8>(c.rng.below(static_cast<u32>(Do::count))), static_cast<u8>(r),
                  static_cast<u8>(r >> 8), static_cast<u8>(r >> 16)};
    };
    if (ops.size() < max_ops && c.rng.one_in(2))
        ops.insert(ops.begin() + c.rng.below(static_cast<u32>(ops.size() + 1)), draw());
    else if (!ops.empty() && c.rng.one_in(2))
        ops.erase(ops.begin() + c.rng.below(static_cast<u32>(ops.size())));
    else if (!ops.empty())
        c.any_of(ops) = draw();
}

void whose_it_is(Change &c)
{
    if (c.rng.one_in(4))
        make_mainline(c.im);
    else
        name_cache_info(c.im);
}

constexpr void (*changes[])(Change &) = {a_field_of_a_slot,
                                         a_slot_is_gone,
                                         a_slot_is_scrambled,
                                         slots_trade,
                                         a_key,
                                         a_key,
                                         a_key,
                                         a_record_header,
                                         a_tail,
                                         a_record_is_copied,
                                         a_record_is_gone,
                                         bad_pages,
                                         a_record_is_scrambled,
                                         a_link,
                                         a_generation,
                                         the_chain,
                                         some_data,
                                         surroundings,
                                         operations,
                                         operations,
                                         whose_it_is};

} // namespace

void mutate(Image &im, Rng &rng, Scramble scramble)
{
    Change c{im, rng, scramble};
    for (u32 n = 1 + rng.below(4); n; --n)
        changes[rng.below(sizeof(changes) / sizeof(changes[0]))](c);
    if (rng.one_in(16))
        return;
    if (rng.one_in(2))
        seal_data(im);
    seal_records(im);
    seal_slots(im);
    if (rng.one_in(4))
        return;
    name_cache_info(im);
    seal_slots(im);
}

} // namespace pcache::fuzz
