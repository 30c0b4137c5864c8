// SPDX-License-Identifier: GPL-2.0
// selftests/fuzz/image.cpp - see image.hpp.
//
// An input: 8 bytes of header, the operations, 4 bytes each, then chunks: le32 with the kind in the
// top byte and the place in words of 8 bytes below, le16 length, payload.
#include "selftests/fuzz/image.hpp"
#include <algorithm>
#include <cstring>

namespace pcache::fuzz
{

namespace
{

using namespace format;

constexpr u32 header_bytes = 8, chunk_header_bytes = 6;
enum Kind : u8 { plain, repeated, poison, known }; // payload: bytes; one word; none; none
constexpr u32 most_words = 0xFFFF;

u64 word_at(const u8 *p)
{
    u64 w;
    memcpy(&w, p, sizeof(w));
    return w;
}

void apply(Image &im, Kind kind, u64 at, u32 words, const u8 *&data, const u8 *end)
{
    const u64 room = at < im.bytes.size() ? im.bytes.size() - at : 0;
    const u64 bytes = std::min(u64{words} * 8, room);
    switch (kind) {
    case plain: {
        const usize have = std::min<usize>(u64{words} * 8, static_cast<usize>(end - data));
        if (room)
            memcpy(im.bytes.data() + at, data, std::min<usize>(have, bytes));
        data += have;
        break;
    }
    case repeated:
        if (end - data < 8) {
            data = end;
            break;
        }
        for (u64 i = 0; i + 8 <= bytes; i += 8)
            memcpy(im.bytes.data() + at + i, data, 8);
        data += 8;
        break;
    case poison:
    case known:
        if (room && im.poisoned.size() + im.known_bad.size() < 16)
            (kind == poison ? im.poisoned : im.known_bad).push_back(at / page_bytes * page_bytes);
        break;
    }
}

class Writer
{
    u8 *to_, *end_;

public:
    bool full = false;
    Writer(u8 *to, usize room) : to_(to), end_(to + room) {}
    const u8 *at() const { return to_; }
    void put(const void *p, usize n)
    {
        full = full || n > static_cast<usize>(end_ - to_);
        if (full || !n)
            return;
        memcpy(to_, p, n);
        to_ += n;
    }
    void chunk(Kind kind, u64 at, u64 words, const u8 *payload, usize bytes)
    {
        const u32 head = static_cast<u32>(kind) << 24 | static_cast<u32>(at / 8);
        const u16 n = static_cast<u16>(words);
        put(&head, 4);
        put(&n, 2);
        put(payload, bytes);
    }
};

// The words from `i` on that are equal to the one there.
u64 same_from(const std::vector<u8> &b, u64 i)
{
    const u64 w = word_at(&b[i]);
    u64 n = 1;
    while (n < most_words && i + n * 8 < b.size() && word_at(&b[i + n * 8]) == w)
        ++n;
    return n;
}

void put_bytes(Writer &w, const std::vector<u8> &b)
{
    static const u8 zeros[512] = {};
    for (u64 i = 0; i < b.size();) {
        if (i % 512 == 0 && b.size() - i >= 512 && !memcmp(&b[i], zeros, 512)) {
            i += 512;
            continue;
        }
        if (!word_at(&b[i])) {
            i += 8;
            continue;
        }
        if (const u64 n = same_from(b, i); n >= 4) {
            w.chunk(repeated, i, n, &b[i], 8);
            i += n * 8;
            continue;
        }
        u64 end = i, zero = 0; // up to two words of zeros are cheaper than another chunk
        while (end < b.size() && (end - i) / 8 < most_words) {
            zero = word_at(&b[end]) ? 0 : zero + 1;
            if (zero == 2 || (end + 32 <= b.size() && same_from(b, end) >= 4))
                break;
            end += 8;
        }
        w.chunk(plain, i, (end - i) / 8, &b[i], end - i);
        i = end;
    }
}

} // namespace

void decode(const u8 *data, usize size, Image &im)
{
    static const u8 none[header_bytes] = {};
    if (size < header_bytes) {
        data = none;
        size = header_bytes;
    }
    im.segments = geometry.min_segments + data[0] % 4;
    im.resize();
    im.ops.clear();
    im.poisoned.clear();
    im.known_bad.clear();
    im.sectors = 8 * (1 + data[1] % 96);
    im.data_crc = (data[2] & 0x7F) % 3;
    im.lost_pages = data[2] & 0x80;
    im.backing_seed = data[3];
    im.seed = data[4];
    const usize ops = std::min<usize>({data[5], max_ops, (size - header_bytes) / 4});
    const u8 *const end = data + size;
    data += header_bytes;
    for (usize i = 0; i < ops; ++i, data += 4)
        im.ops.push_back({data[0], data[1], data[2], data[3]});
    while (end - data >= static_cast<long>(chunk_header_bytes)) {
        u32 head;
        u16 words;
        memcpy(&head, data, 4);
        memcpy(&words, data + 4, 2);
        data += chunk_header_bytes;
        apply(im, static_cast<Kind>(head >> 24 & 3), u64{head & 0xFFFFFF} * 8, words, data, end);
    }
}

bool encode(const Image &im, u8 *to, usize room, usize &size)
{
    Writer w(to, room);
    const u8 head[header_bytes] = {static_cast<u8>(im.segments - geometry.min_segments),
                                   static_cast<u8>(im.sectors / 8 - 1),
                                   static_cast<u8>(im.data_crc | (im.lost_pages ? 0x80 : 0)),
                                   im.backing_seed,
                                   im.seed,
                                   static_cast<u8>(im.ops.size()),
                                   0,
                                   0};
    w.put(head, sizeof(head));
    for (const Op &o : im.ops)
        w.put(&o, 4);
    for (u64 at : im.poisoned)
        w.chunk(poison, at, 1, nullptr, 0);
    for (u64 at : im.known_bad)
        w.chunk(known, at, 1, nullptr, 0);
    put_bytes(w, im.bytes);
    size = static_cast<usize>(w.at() - to);
    return !w.full;
}

// ---- where things are ----

std::vector<Slot> slots_of(const Image &im)
{
    std::vector<Slot> all;
    all.push_back({superblock_offset, superblock_bytes, true});
    for (u32 i = 0; i < 2; ++i) {
        all.push_back({cache_info_offset + i * page_bytes, sizeof(CacheInfoRecord), false});
        all.push_back({extension_offset + u64{i} * extension_stride, extension_bytes, false});
        all.push_back({key_tail_offset + i * position_stride, sizeof(PositionRecord), false});
        all.push_back({dirty_tail_offset + i * position_stride, sizeof(PositionRecord), false});
        for (u32 s = 0; s < im.segments; ++s) {
            const u64 at = segment_offset({s});
            all.push_back({at + u64{i} * segment_info_stride, sizeof(SegmentInfoRecord), false});
            all.push_back({at + generation_offset + u64{i} * generation_stride,
                           sizeof(GenerationRecord), false});
        }
    }
    return all;
}

std::vector<Found> records_of(const Image &im)
{
    std::vector<Found> all;
    for (u32 s = 0; s < im.segments; ++s) {
        const u64 area = data_area(s);
        for (u32 i = 0; i + record_header_bytes <= data_bytes; i += 8) {
            if (word_at(&im.bytes[area + i + record_magic_offset]) != record_magic)
                continue;
            const RecordHeader h = im.get<RecordHeader>(area + i);
            if (const u32 bytes = announced_bytes(h, i))
                all.push_back({area + i, bytes, RecordFlags{h.flags}.last()});
        }
    }
    return all;
}

void seal_slots(Image &im)
{
    for (const Slot &s : slots_of(im)) {
        u8 *p = im.bytes.data() + s.at;
        if (std::all_of(p, p + s.bytes, [](u8 b) { return !b; }))
            continue;
        const u32 crc = slot_crc(p, s.bytes);
        memcpy(p, &crc, 4);
    }
}

void seal_records(Image &im)
{
    for (const Found &f : records_of(im)) {
        const u32 crc = slot_crc(&im.bytes[f.at], f.bytes);
        im.put(f.at, crc);
    }
}

void seal_data(Image &im)
{
    for (const Found &f : records_of(im))
        for (u32 i = 0; !f.last && i < (f.bytes - record_header_bytes) / sizeof(Key); ++i) {
            const u64 at = f.at + kset_bytes(i);
            Key k = im.get<Key>(at);
            if (k.cache_seg_id >= im.segments || k.cache_seg_off > data_bytes ||
                k.len > data_bytes - k.cache_seg_off)
                continue;
            k.data_crc =
                crc32c(crc_seed, &im.bytes[data_area(k.cache_seg_id) + k.cache_seg_off], k.len);
            im.put(at, k);
        }
}

void name_cache_info(Image &im)
{
    const auto a = im.get<SlotHeader>(cache_info_offset);
    const auto b = im.get<SlotHeader>(cache_info_offset + page_bytes);
    const int newest =
        newest_slot(slot_intact(&im.bytes[cache_info_offset], 24), a.seq,
                    slot_intact(&im.bytes[cache_info_offset + page_bytes], 24), b.seq);
    if (newest < 0)
        return;
    for (u32 i = 0; i < 2; ++i) {
        const u64 at = extension_offset + u64{i} * extension_stride;
        auto e = im.get<ExtensionRecord>(at);
        if (e.magic == extension_magic) {
            e.cache_info_crc = newest ? b.crc : a.crc;
            im.put(at, e);
        }
    }
}

void make_mainline(Image &im)
{
    for (u32 i = 0; i < 2; ++i) {
        im.put(extension_offset + u64{i} * extension_stride, ExtensionRecord{});
        for (const u64 at : {key_tail_offset, dirty_tail_offset}) {
            auto p = im.get<PositionRecord>(at + u64{i} * position_stride);
            p.header.res = 0;
            im.put(at + u64{i} * position_stride, p);
        }
    }
    for (const Found &f : records_of(im)) {
        auto h = im.get<RecordHeader>(f.at);
        h.flags &= RecordFlags::last_bit;
        im.put(f.at, h);
    }
    seal_slots(im);
    seal_records(im);
}

} // namespace pcache::fuzz
