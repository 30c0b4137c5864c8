// SPDX-License-Identifier: GPL-2.0
// selftests/unit/format_test.cpp - the media format: test vectors, layout, strict decoders, serial
// numbers. No media, no platform: pure functions.
#include <gtest/gtest.h>
#include <cstring>
#include <random>
#include <vector>
#include "dm-pcache/format/cache_info.hpp"
#include "dm-pcache/format/disk_record.hpp"
#include "dm-pcache/format/extension.hpp"
#include "dm-pcache/format/position.hpp"
#include "dm-pcache/format/segment.hpp"
#include "dm-pcache/format/superblock.hpp"
#include "dm-pcache/platform.h"

namespace
{

using namespace pcache::format;

constexpr u32 chain_length = 8;
constexpr u64 backing = u64{64} << 20;
constexpr KeyLimits limits{chain_length, backing};

template <class Record>
u32 sealed_crc(Record r, u8 seq)
{
    seal_slot(&r, sizeof(r), seq);
    return r.header.crc;
}

Key vector_key()
{
    return {4096, 4096, 0, 3, 8192, 0, 0, 0};
}
Key good_key()
{
    return {8192, 4096, key_clean, 3, 4096, 7, 0, 0};
}

u32 kset_crc(RecordFlags flags)
{
    u8 b[kset_bytes(1)];
    const Key k = vector_key();
    EXPECT_EQ(encode_kset(b, &k, 1, flags), sizeof(b));
    u32 crc;
    memcpy(&crc, b, 4);
    return crc;
}

ExtensionRecord vector_extension()
{
    Extension e;
    for (u8 i = 0; i < 16; i++)
        e.uuid[i] = i;
    e.backing_bytes = backing;
    e.limit = 0x123456800000;
    e.next_number = 0x123456789ABC;
    e.head = {{0}, 264};
    e.seg_num = 31;
    e.state = extension_state::clean_stop;
    e.cache_info_crc = 0xDDCAFE6D;
    memcpy(e.label, "test", 4);
    ExtensionRecord r;
    encode_extension(e, r);
    seal_slot(&r, sizeof(r), 1);
    return r;
}

TEST(FormatVectors, Superblocks)
{
    EXPECT_EQ(encode_superblock(31).crc, 0x047F7742u);
    EXPECT_EQ(encode_superblock(2015).crc, 0x379B9A9Du);
}

TEST(FormatVectors, CacheInfo)
{
    EXPECT_EQ(sealed_crc(encode_cache_info({{0}, 31, 0x1182}), 1), 0xDDCAFE6Du);
}

TEST(FormatVectors, LastRecords)
{
    EXPECT_EQ(encode_last({1}, {}).crc, 0x84181C51u);
    EXPECT_EQ(encode_last({1}, {0x123456789ABC0001}).crc, 0xA1AA942Eu);
    EXPECT_EQ(encode_last({1}, {0x123456789ABCC001}).crc, 0x2E739DA0u);
    EXPECT_EQ(encode_last({1}, RecordFlags::make(0x123456789ABC, true, true)).flags,
              0x123456789ABCC001u);
}

TEST(FormatVectors, Ksets)
{
    EXPECT_EQ(kset_crc({}), 0xC1B67CDCu);
    EXPECT_EQ(kset_crc(RecordFlags::make(0x123456789ABC, false, false)), 0xA7C2CFAAu);
    EXPECT_EQ(kset_crc(RecordFlags::make(0x123456789ABC, true, true)), 0x1538DC5Eu);
}

TEST(FormatVectors, Positions)
{
    PositionRecord r = encode_position({});
    EXPECT_EQ(sealed_crc(r, 1), 0xAF253A6Eu);
    r.header.res = 0;
    EXPECT_EQ(sealed_crc(r, 1), 0x6EF5DFB0u);
}

TEST(FormatVectors, SegmentInfo)
{
    EXPECT_EQ(sealed_crc(encode_segment_info({true, {1}}), 2), 0x3B668E31u);
}

TEST(FormatVectors, ZeroesAndExtension)
{
    const u8 zeros[20] = {};
    EXPECT_EQ(crc32c(crc_seed, zeros, sizeof(zeros)), 0xB9B69066u);
    EXPECT_EQ(vector_extension().header.crc, 0xBA87E8EDu);
}

constexpr u8 vector_uuid[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

TEST(FormatVectors, SipHash)
{
    alignas(8) u8 b[disk_block_bytes];
    for (u32 i = 0; i < sizeof(b); i++)
        b[i] = static_cast<u8>(i);
    EXPECT_EQ(pc_siphash(vector_uuid, b, 15), 0xA129CA6149BE45E5u);
    EXPECT_EQ(pc_siphash(vector_uuid, b, sizeof(b)), 0xBF18B72DE2C1553Cu);
    memset(b, 0, sizeof(b));
    EXPECT_EQ(pc_siphash(vector_uuid, b, sizeof(b)), 0xAAB5AD1AA66DFCA2u);
}

DiskRecord disk_record(const DiskState &s)
{
    DiskRecord r;
    encode_disk_record(s, r);
    return r;
}

TEST(FormatVectors, DiskRecords)
{
    DiskState s;
    EXPECT_EQ(sealed_crc(disk_record(s), 1), 0xDB1B961Du);
    for (u32 i = 0; i < disk_blocks; i++)
        s.set(i, 0xAAB5AD1AA66DFCA2);
    EXPECT_EQ(sealed_crc(disk_record(s), 1), 0xA9675A23u);
}

TEST(Crc32c, InstructionAndTableAgreeAtEveryLengthAndAlignment)
{
    std::mt19937_64 rng(1);
    u8 b[160];
    for (u8 &x : b)
        x = static_cast<u8>(rng());
    for (usize from = 0; from < 9; from++) {
        for (usize n = 0; from + n <= sizeof(b); n++)
            ASSERT_EQ(crc32c(crc_seed, b + from, n), crc32c_by_table(crc_seed, b + from, n));
    }
}

TEST(Crc32c, CanBeContinued)
{
    const u8 b[] = "any piece behind any other one";
    EXPECT_EQ(crc32c(crc32c(crc_seed, b, 11), b + 11, sizeof(b) - 11),
              crc32c(crc_seed, b, sizeof(b)));
}

TEST(Layout, DeviceMap)
{
    EXPECT_EQ(superblock_offset, 0x1000u);
    EXPECT_EQ(cache_info_offset, 0x2000u);
    EXPECT_EQ(extension_offset + extension_stride, 0x3800u);
    EXPECT_EQ(key_tail_offset + position_stride, 0x4010u);
    EXPECT_EQ(dirty_tail_offset, 0x4020u);
    EXPECT_EQ(segment_offset({0}), 0x5000u);
    EXPECT_EQ(mainline_geometry.segment_bytes - segment_control_bytes, 16764928u);
    if (geometry.keys_per_kset == 128) {
        EXPECT_EQ(max_record_bytes, 5144u);
        EXPECT_EQ((u64{512} << 20) / geometry.segment_bytes - 1, geometry.min_segments);
    }
}

TEST(Layout, DiskRecordMagicSpellsPcached1)
{
    const DiskRecord r = disk_record({});
    EXPECT_EQ(memcmp(reinterpret_cast<const u8 *>(&r) + 8, "PCACHED1", 8), 0);
}

TEST(Layout, ExtensionMagicSpellsPcachex1)
{
    EXPECT_EQ(memcmp(&extension_magic, "PCACHEX1", 8), 0);
}

TEST(Slots, NewerIsDecidedByTheSignedDifference)
{
    EXPECT_TRUE(newer_seq(1, 0));
    EXPECT_TRUE(newer_seq(0, 255));
    EXPECT_TRUE(newer_seq(127, 0));
    EXPECT_FALSE(newer_seq(128, 0));
    EXPECT_FALSE(newer_seq(0, 128));
    EXPECT_FALSE(newer_seq(5, 5));
}

TEST(Slots, SlotZeroCountsIfNeitherIsNewer)
{
    EXPECT_EQ(newest_slot(true, 7, true, 7), 0);
    EXPECT_EQ(newest_slot(true, 0, true, 128), 0);
    EXPECT_EQ(newest_slot(true, 7, true, 8), 1);
    EXPECT_EQ(newest_slot(false, 9, true, 8), 1);
    EXPECT_EQ(newest_slot(true, 7, false, 8), 0);
    EXPECT_EQ(newest_slot(false, 7, false, 8), -1);
}

TEST(Slots, EveryByteButTheCrcIsCoveredAndAllZeroIsInvalid)
{
    GenerationRecord r = encode_generation(5);
    seal_slot(&r, sizeof(r), 3);
    EXPECT_TRUE(slot_intact(&r, sizeof(r)));
    for (usize i = 0; i < sizeof(r); i++) {
        GenerationRecord bad = r;
        reinterpret_cast<u8 *>(&bad)[i] ^= 1;
        EXPECT_FALSE(slot_intact(&bad, sizeof(bad))) << i;
    }
    const GenerationRecord zero{};
    EXPECT_FALSE(slot_intact(&zero, sizeof(zero)));
}

SuperblockState state_of(SuperblockRecord r, bool seal = true)
{
    if (seal)
        r.crc = crc32c(crc_seed, &r.flags, sizeof(r) - 4);
    return decode_superblock(&r).state;
}

TEST(SuperblockDecoder, AcceptsWhatWasEncoded)
{
    const SuperblockRecord r = encode_superblock(geometry.min_segments);
    EXPECT_EQ(state_of(r, false), SuperblockState::good);
    EXPECT_EQ(decode_superblock(&r).seg_num, geometry.min_segments);
}

TEST(SuperblockDecoder, RejectsEachBadField)
{
    const SuperblockRecord good = encode_superblock(geometry.min_segments);
    SuperblockRecord r = good;
    r.magic = 0;
    EXPECT_EQ(state_of(r), SuperblockState::no_magic);
    r.magic = 1;
    EXPECT_EQ(state_of(r), SuperblockState::foreign);
    r = good;
    r.padding = 1; // covered by the crc
    EXPECT_EQ(state_of(r, false), SuperblockState::bad_crc);
    EXPECT_EQ(state_of(r), SuperblockState::good);
    r = good;
    r.flags = superblock_big_endian;
    EXPECT_EQ(state_of(r), SuperblockState::big_endian);
    r.flags = 2;
    EXPECT_EQ(state_of(r), SuperblockState::newer);
    for (u32 n : {0u, geometry.min_segments - 1, geometry.max_segments + 1, ~0u}) {
        r = encode_superblock(n);
        EXPECT_EQ(state_of(r), SuperblockState::bad_size) << n;
    }
}

CacheInfoState info_state(const CacheInfoRecord &r)
{
    CacheInfo c;
    return decode_cache_info(r, geometry.min_segments + 1, c);
}

TEST(CacheInfoDecoder, FieldsComeBack)
{
    const u32 flags = make_cache_flags(true, true, CacheMode::writearound, 65);
    CacheInfo c;
    const CacheInfoRecord r = encode_cache_info({{2}, geometry.min_segments, flags});
    ASSERT_EQ(decode_cache_info(r, geometry.min_segments, c), CacheInfoState::good);
    EXPECT_TRUE(c.data_crc() && c.init_done());
    EXPECT_EQ(c.mode(), CacheMode::writearound);
    EXPECT_EQ(c.gc_percent(), 65u);
    EXPECT_EQ(c.first.value, 2u);
    EXPECT_EQ(make_cache_flags(false, true, CacheMode::writeback, 70), 0x1182u);
}

TEST(CacheInfoDecoder, RejectsEachBadField)
{
    const u32 flags = make_cache_flags(false, true, CacheMode::writeback, 90);
    const CacheInfoRecord good = encode_cache_info({{0}, geometry.min_segments, flags});
    EXPECT_EQ(info_state(good), CacheInfoState::good);
    CacheInfoRecord r = good;
    r.reserved = 1;
    EXPECT_EQ(info_state(r), CacheInfoState::newer);
    r = good;
    r.flags |= 1u << 13;
    EXPECT_EQ(info_state(r), CacheInfoState::newer);
    r = good;
    r.flags &= ~cache_info_bits::init_done;
    EXPECT_EQ(info_state(r), CacheInfoState::not_completed);
    r.flags = make_cache_flags(false, true, CacheMode{4}, 0);
    EXPECT_EQ(info_state(r), CacheInfoState::bad_mode);
    for (u32 percent : {91u, 127u}) {
        r.flags = make_cache_flags(false, true, CacheMode::writeback, percent);
        EXPECT_EQ(info_state(r), CacheInfoState::bad_gc);
    }
    r = good;
    r.n_segs = geometry.min_segments + 2;
    EXPECT_EQ(info_state(r), CacheInfoState::bad_chain);
    r.n_segs = 0;
    EXPECT_EQ(info_state(r), CacheInfoState::bad_chain);
    r = good;
    r.seg_id = geometry.min_segments + 1;
    EXPECT_EQ(info_state(r), CacheInfoState::bad_chain);
}

TEST(SegmentInfoDecoder, RejectsEachBadField)
{
    SegmentLink l;
    SegmentInfoRecord r = encode_segment_info({true, {9}});
    EXPECT_EQ(decode_segment_info(r, l), SegmentInfoState::good);
    EXPECT_TRUE(l.has_next && l.next.value == 9);
    r.flags |= 1u << 5;
    EXPECT_EQ(decode_segment_info(r, l), SegmentInfoState::newer);
    r.flags = segment_bits::has_next;
    EXPECT_EQ(decode_segment_info(r, l), SegmentInfoState::bad_type);
    r.flags = 2u << segment_bits::type_shift;
    EXPECT_EQ(decode_segment_info(r, l), SegmentInfoState::bad_type);
    EXPECT_EQ(decode_segment_info(encode_segment_info({false, {}}), l), SegmentInfoState::good);
    EXPECT_FALSE(l.has_next);
}

TEST(Positions, AreWholeEightBytesAndLeaveRoomForLast)
{
    const u32 top = data_bytes - last_record_bytes;
    EXPECT_TRUE(possible_position({{chain_length - 1}, top}, chain_length));
    EXPECT_FALSE(possible_position({{chain_length}, 0}, chain_length));
    EXPECT_FALSE(possible_position({{0}, top + 8}, chain_length));
    EXPECT_FALSE(possible_position({{0}, 4}, chain_length));
    EXPECT_FALSE(possible_position({{0}, ~7u}, chain_length));
}

KeyFault fault(Key k, void (*spoil)(Key &))
{
    spoil(k);
    return check_key(k, limits);
}

TEST(KeyDecoder, AcceptsGoodKeysToTheVeryEdge)
{
    EXPECT_EQ(check_key(good_key(), limits), KeyFault::none);
    Key k = good_key();
    k.off = backing - k.len;
    EXPECT_EQ(check_key(k, limits), KeyFault::none);
    k = good_key();
    k.off = geometry.range_bytes - k.len;
    EXPECT_EQ(check_key(k, limits), KeyFault::none);
    k.cache_seg_off = data_bytes - k.len;
    EXPECT_EQ(check_key(k, limits), KeyFault::none);
    k.seg_gen = ~u64{0}; // every generation is a possible one
    EXPECT_EQ(check_key(k, limits), KeyFault::none);
}

TEST(KeyDecoder, RejectsEachBadField)
{
    const Key k = good_key();
    EXPECT_EQ(fault(k, [](Key &b) { b.flags = 4; }), KeyFault::newer);
    EXPECT_EQ(fault(k, [](Key &b) { b.reserved = 1; }), KeyFault::newer);
    EXPECT_EQ(fault(k, [](Key &b) { b.flags = key_empty; }), KeyFault::empty);
    EXPECT_EQ(fault(k, [](Key &b) { b.len = 0; }), KeyFault::empty);
    EXPECT_EQ(fault(k, [](Key &b) { b.len = 513; }), KeyFault::unaligned);
    EXPECT_EQ(fault(k, [](Key &b) { b.off += 1; }), KeyFault::unaligned);
    EXPECT_EQ(fault(k, [](Key &b) { b.cache_seg_off += 8; }), KeyFault::unaligned);
    EXPECT_EQ(fault(k, [](Key &b) { b.off = geometry.range_bytes - 512; }), KeyFault::range);
    EXPECT_EQ(fault(k, [](Key &b) { b.len = geometry.range_bytes + 512; }), KeyFault::range);
    EXPECT_EQ(fault(k, [](Key &b) { b.len = ~511u; }), KeyFault::range);
    EXPECT_EQ(fault(k, [](Key &b) { b.off = backing; }), KeyFault::past_backing);
    EXPECT_EQ(fault(k, [](Key &b) { b.off = ~u64{8191}; }), KeyFault::past_backing);
    EXPECT_EQ(fault(k, [](Key &b) { b.cache_seg_id = chain_length; }), KeyFault::segment);
    EXPECT_EQ(fault(k, [](Key &b) { b.cache_seg_off = data_bytes - 512; }), KeyFault::segment);
    EXPECT_EQ(fault(k, [](Key &b) { b.cache_seg_off = ~511u; }), KeyFault::segment);
}

TEST(KeyDecoder, ABackingDeviceThatEndsInsideAKeyRejectsIt)
{
    Key k = good_key();
    EXPECT_EQ(check_key(k, {chain_length, k.off + k.len}), KeyFault::none);
    EXPECT_EQ(check_key(k, {chain_length, k.off + k.len - 512}), KeyFault::past_backing);
}

TEST(RecordDecoder, AnnouncesOnlyPossibleRecords)
{
    RecordHeader h{0, 1, record_magic, 0};
    EXPECT_EQ(announced_bytes(h, 0), kset_bytes(1));
    EXPECT_EQ(announced_bytes(h, data_bytes - kset_bytes(1)), kset_bytes(1));
    EXPECT_EQ(announced_bytes(h, data_bytes - kset_bytes(1) + 8), 0u);
    EXPECT_EQ(announced_bytes(h, ~0u), 0u);
    h.num = geometry.keys_per_kset;
    EXPECT_EQ(announced_bytes(h, 0), max_record_bytes);
    for (u32 n : {0u, geometry.keys_per_kset + 1, ~0u}) {
        h.num = n;
        EXPECT_EQ(announced_bytes(h, 0), 0u) << n;
    }
    h.flags = RecordFlags::last_bit; // any segment is announced; the chain decides
    EXPECT_EQ(announced_bytes(h, 0), record_header_bytes);
    h.magic ^= 1;
    EXPECT_EQ(announced_bytes(h, 0), 0u);
}

TEST(RecordDecoder, EveryByteIsCoveredAndKeysComeBack)
{
    const u32 n = geometry.keys_per_kset;
    std::vector<Key> keys(n, good_key());
    for (u32 i = 0; i < n; i++)
        keys[i].seg_gen = i;
    std::vector<u8> b(max_record_bytes);
    ASSERT_EQ(encode_kset(b.data(), keys.data(), n, RecordFlags::make(9, false, false)), b.size());
    EXPECT_TRUE(record_intact(b.data(), max_record_bytes));
    for (u32 i = 0; i < n; i++)
        EXPECT_EQ(decode_key(b.data(), i).seg_gen, i);
    for (usize i = 0; i < b.size(); i++) {
        b[i] ^= 0x80;
        ASSERT_FALSE(record_intact(b.data(), max_record_bytes)) << i;
        b[i] ^= 0x80;
    }
}

TEST(RecordFlagsTest, FieldsAreWhereTheFormatHasThem)
{
    const RecordFlags s = RecordFlags::make(0x123456789ABC, false, true);
    EXPECT_EQ(s.raw, 0x123456789ABCC000u);
    EXPECT_TRUE(s.start() && s.epoch() && !s.last() && !s.unknown());
    EXPECT_EQ(s.number(), 0x123456789ABCu);
    EXPECT_EQ(RecordFlags::make(1, true, false).raw, 0x14000u);
    EXPECT_EQ(RecordFlags::make(1, false, false).with_last().raw, 0x10001u);
    for (int bit = 1; bit <= 13; bit++)
        EXPECT_TRUE(RecordFlags{u64{1} << bit}.unknown()) << bit;
    for (int bit : {0, 14, 15, 16, 63})
        EXPECT_FALSE(RecordFlags{u64{1} << bit}.unknown()) << bit;
    EXPECT_TRUE(RecordFlags{RecordFlags::start_bit}.epoch()) << "START counts as EPOCH";
}

TEST(Numbers, AreSerial)
{
    const u64 top = number_mask;
    EXPECT_EQ(next_number(top), 1u);
    EXPECT_EQ(previous_number(1), top);
    EXPECT_EQ(previous_number(7), 6u);
    EXPECT_TRUE(after(1, top));
    EXPECT_FALSE(after(top, 1));
    EXPECT_FALSE(after(5, 5));
    EXPECT_TRUE(after(5 + (u64{1} << 47) - 1, 5));
    EXPECT_FALSE(after(5 + (u64{1} << 47), 5));
}

TEST(Numbers, AdvancingIsTheSameAsCountingAndNeverGivesZero)
{
    u64 n = number_mask - 20;
    for (u64 i = 0; i < 40; i++, n = next_number(n)) {
        EXPECT_EQ(advance(number_mask - 20, i), n) << i;
        EXPECT_TRUE(valid_number(n));
    }
}

TEST(ExtensionDecoder, FieldsComeBack)
{
    Extension e;
    ASSERT_EQ(decode_extension(vector_extension(), e), ExtensionState::good);
    EXPECT_EQ(e.uuid[15], 15);
    EXPECT_EQ(e.limit, 0x123456800000u);
    EXPECT_EQ(e.next_number, 0x123456789ABCu);
    EXPECT_EQ(e.head.offset, 264u);
    EXPECT_TRUE(e.clean_stop() && !e.formatting());
    EXPECT_STREQ(e.label, "test");
    ExtensionRecord again;
    encode_extension(e, again);
    seal_slot(&again, sizeof(again), 1);
    EXPECT_EQ(again.header.crc, 0xBA87E8EDu);
}

TEST(ExtensionDecoder, NamesACacheInfoByEitherFieldButNeverByZero)
{
    Extension e;
    EXPECT_FALSE(e.names_cache_info(0));
    e.cache_info_crc = 5;
    e.coming_info_crc = 6;
    EXPECT_TRUE(e.names_cache_info(5) && e.names_cache_info(6));
    EXPECT_FALSE(e.names_cache_info(7) || e.names_cache_info(0));
}

TEST(ExtensionDecoder, RejectsEachBadField)
{
    const ExtensionRecord good = vector_extension();
    Extension e;
    ExtensionRecord r = good;
    r.header.version = 2;
    EXPECT_EQ(decode_extension(r, e), ExtensionState::newer);
    r.header.version = 0;
    EXPECT_EQ(decode_extension(r, e), ExtensionState::newer);
    r = good;
    r.state |= 4;
    EXPECT_EQ(decode_extension(r, e), ExtensionState::newer);
    for (u32 i : {0u, 95u}) {
        r = good;
        r.zero[i] = 1;
        EXPECT_EQ(decode_extension(r, e), ExtensionState::newer) << i;
    }
    for (u64 limit : {u64{0}, number_mask + 1}) {
        r = good;
        r.limit = limit;
        EXPECT_EQ(decode_extension(r, e), ExtensionState::impossible);
    }
    r = good;
    r.next_number = number_mask + 1;
    EXPECT_EQ(decode_extension(r, e), ExtensionState::impossible);
    EXPECT_TRUE(is_extension(&good));
    r = good;
    r.magic ^= 1;
    EXPECT_FALSE(is_extension(&r));
}

TEST(DiskRecordDecoder, FieldsComeBack)
{
    DiskState s, again;
    s.unsure = 1u << 4;
    s.set(0, 7);
    s.set(31, 0); // differs from everything, and is no impossible record
    ASSERT_TRUE(decode_disk_record(disk_record(s), again));
    EXPECT_EQ(again.known, 1u | 1u << 31);
    EXPECT_EQ(again.unsure, 1u << 4);
    EXPECT_EQ(again.hash[0], 7u);
    again.forget();
    EXPECT_TRUE(again.empty());
    EXPECT_EQ(again.unsure, 1u << 4) << "what is unsure stays so";
    EXPECT_EQ(again.hash[0], 0u);
}

TEST(DiskRecordDecoder, RejectsWhatIsNewerOrNoWriterMakes)
{
    DiskState s, out;
    s.set(3, 9);
    DiskRecord r = disk_record(s);
    EXPECT_TRUE(is_disk_record(&r));
    r.magic++;
    EXPECT_FALSE(is_disk_record(&r));
    r = disk_record(s);
    r.header.version = 2;
    EXPECT_FALSE(is_disk_record(&r));
    r = disk_record(s);
    r.unsure = 1u << 3;
    EXPECT_FALSE(decode_disk_record(r, out)) << "known and unsure";
    r = disk_record(s);
    r.hash[5] = 1;
    EXPECT_FALSE(decode_disk_record(r, out)) << "a hash of a block that is not known";
    EXPECT_TRUE(out.empty());
}

} // namespace
