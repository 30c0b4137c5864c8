// SPDX-License-Identifier: GPL-2.0
// selftests/unit/format_cache_test.cpp - what may be formatted and what never is, the order of the
// steps, and that a cut at any fence leaves something that can be formatted again or is a cache.
#include <functional>
#include "selftests/unit/media_rig.hpp"

namespace
{

using namespace pcache;
using namespace pcache::selftest;

class FormatCache : public MediaRig
{
protected:
    static constexpr u64 blank_bytes = 128u << 10;

    void expect_formattable()
    {
        EXPECT_EQ(inspect(), rt::Error::none) << sentence();
        EXPECT_EQ(found.kind, media::MediaKind::blank);
    }
    // Refused by inspection and by format(), which stores nothing then.
    void expect_not_formattable(const char *part)
    {
        expect_refused(part);
        disk->set_power_model(true);
        EXPECT_NE(format(), rt::Error::none);
        EXPECT_EQ(disk->pending_units(), 0u);
        disk->set_power_model(false);
        EXPECT_NE(sentence().find(part), std::string::npos) << sentence();
    }
    void expect_new_cache()
    {
        expect_end({});
        EXPECT_EQ(found.keys, 0u);
        EXPECT_EQ(found.segments, segments);
        EXPECT_EQ(found.cache_info.flags, info().flags);
        EXPECT_TRUE(found.has_extension);
    }
    void put_formatting(u64 limit = 4711)
    {
        extension = {};
        extension.limit = limit;
        extension.seg_num = segments;
        extension.state = format::extension_state::formatting;
        memcpy(extension.label, "mine", 4);
        extension.uuid[3] = 9;
        put_extension();
    }
    // Cuts format() at every fence; what is left is a cache, or can be formatted.
    void cut_everywhere()
    {
        std::vector<Image> left;
        Rng rng(2);
        disk->set_power_model(true);
        world.set_fence_hook([&] {
            left.push_back(disk->cut([](u64, unsigned) { return false; }));
            left.push_back(disk->cut([](u64, unsigned) { return true; }));
            left.push_back(disk->cut(rng));
            left.push_back(disk->cut(rng));
        });
        EXPECT_EQ(format(), rt::Error::none) << sentence();
        world.set_fence_hook(nullptr);
        disk->set_power_model(false);
        EXPECT_GT(left.size(), 200u);
        u32 blank = 0, cache = 0;
        for (usize i = 0; i < left.size(); i++) {
            SCOPED_TRACE("cut " + std::to_string(i));
            disk->load(left[i]);
            ASSERT_EQ(inspect(), rt::Error::none) << sentence();
            if (found.kind == media::MediaKind::blank) {
                blank++;
                ASSERT_EQ(format(), rt::Error::none) << sentence();
            } else {
                cache++;
            }
            expect_new_cache();
            ASSERT_EQ(activate(), rt::Error::none) << sentence();
            ASSERT_FALSE(stored_extension(0).formatting() || stored_extension(1).formatting());
            if (HasFailure())
                return;
        }
        EXPECT_GT(blank, 0u);
        EXPECT_GT(cache, 0u);
    }
};

TEST_F(FormatCache, ABlankDeviceBecomesACache)
{
    expect_formattable();
    ASSERT_EQ(format(), rt::Error::none) << sentence();
    expect_new_cache();
    EXPECT_TRUE(found.ours);
    EXPECT_EQ(found.start_number, stored_extension().limit);
    for (u32 slot : {0u, 1u}) {
        const format::Extension e = stored_extension(slot);
        EXPECT_EQ(e.state, 0u);
        EXPECT_EQ(e.cache_info_crc, info_crc());
        EXPECT_EQ(e.backing_bytes, backing_bytes);
        EXPECT_EQ(e.seg_num, segments);
        EXPECT_EQ(stored_generation(segments - 1, slot), 1u);
        EXPECT_EQ(text(stored_position(media::key_tail_place, slot)), text({}));
        EXPECT_EQ(text(stored_position(media::dirty_tail_place, slot)), text({}));
    }
    ASSERT_EQ(activate(), rt::Error::none) << sentence();
    expect_end({});
}

TEST_F(FormatCache, TwoNewCachesDifferInUuidAndNumbers)
{
    ASSERT_EQ(format(), rt::Error::none);
    const format::Extension one = stored_extension();
    const u8 zeros[4096] = {};
    for (u64 at = 0; at < blank_bytes; at += sizeof(zeros))
        disk->write(at, zeros, sizeof(zeros));
    ASSERT_EQ(format(), rt::Error::none);
    const format::Extension two = stored_extension();
    EXPECT_NE(memcmp(one.uuid, two.uuid, 16), 0);
    EXPECT_NE(one.limit, two.limit);
}

TEST_F(FormatCache, OneByteAnywhereInTheFirst128KiBIsNotBlank)
{
    for (u64 at : {u64{0}, u64{446}, u64{0xFFF}, u64{0x1020}, u64{0x2000}, u64{0x27FF}, u64{0x2A18},
                   u64{0x37FF}, u64{0x3A18}, u64{0x4000}, u64{0x8000}, blank_bytes - 1}) {
        put(at, u8{1});
        expect_not_formattable("not blank");
        put(at, u8{0});
    }
    put(blank_bytes, u8{1});
    expect_formattable();
}

TEST_F(FormatCache, AnUnreadableByteIsNotBlank)
{
    disk->poison(0x6000, 8);
    expect_not_formattable("not blank");
}

TEST_F(FormatCache, TornSlotsOfOursAloneAreBlank)
{
    put(format::extension_offset + 40, u64{0x1234});
    put(format::extension_offset + format::extension_stride + 255, u8{1});
    put(format::disk_record_offset, u8{1});
    put(format::disk_record_offset + format::disk_record_stride + format::disk_record_bytes - 1,
        u8{1});
    expect_formattable();
    ASSERT_EQ(format(), rt::Error::none) << sentence();
    expect_new_cache();
}

TEST_F(FormatCache, ACacheIsNeverFormatted)
{
    make_ours();
    expect_end({});
    disk->set_power_model(true);
    EXPECT_EQ(format(), rt::Error::exists);
    EXPECT_EQ(disk->pending_units(), 0u);
    disk->set_power_model(false);
}

TEST_F(FormatCache, AGoodExtensionWithoutFormattingIsNotBlank)
{
    put_formatting();
    extension.state = 0;
    put_extension();
    expect_not_formattable("lost its superblock");
    make_ours();
    put(format::superblock_offset, format::SuperblockRecord{});
    expect_not_formattable("lost its superblock");
}

TEST_F(FormatCache, AnInterruptedFormatOfOursGoesOnWithItsUuidLabelAndNumbers)
{
    put_formatting();
    put(format::cache_ctrl_offset, u64{1}); // it had come to some place or other
    put(data_at({}), u64{1});
    expect_formattable();
    ASSERT_EQ(format(), rt::Error::none);
    expect_new_cache();
    EXPECT_EQ(found.start_number, 4711u);
    EXPECT_STREQ(found.extension.label, "mine");
    EXPECT_EQ(found.extension.uuid[3], 9);
}

TEST_F(FormatCache, AnInterruptedFormatOfMainlinesIsFormatted)
{
    put_superblock();
    expect_formattable();
    put_formatting();
    expect_formattable();
    ASSERT_EQ(format(), rt::Error::none) << sentence();
    expect_new_cache();
}

TEST_F(FormatCache, AnInterruptedFormatOfMainlinesWithAnythingInItIsRefused)
{
    put_superblock();
    put(0x4FF8, u64{1});
    expect_not_formattable("neither copy of cache_info");
    put(0x4FF8, u64{0});
    expect_formattable();
    put_kset({}, {key(1)}, {});
    expect_not_formattable("neither copy of cache_info");
    spoil_record({});
    expect_formattable();
    disk->poison(data_at({}), 8);
    expect_not_formattable("neither copy of cache_info");
}

TEST_F(FormatCache, AGoodExtensionBesideABareSuperblockIsNoInterruptedFormat)
{
    put_formatting();
    extension.state = 0;
    put_extension();
    put_superblock();
    expect_not_formattable("neither copy of cache_info");
}

TEST_F(FormatCache, KeysOfAFormerLifeAreStale)
{
    put_formatting();
    put_generation(2, 41);
    put_generation(3, ~u64{0});
    ASSERT_EQ(format(), rt::Error::none);
    EXPECT_EQ(stored_generation(2, 0), 42u);
    EXPECT_EQ(stored_generation(2, 1), 42u);
    EXPECT_EQ(stored_generation(3, 0), ~u64{0}) << "it cannot grow any more";
    EXPECT_EQ(stored_generation(4, 0), 1u);
}

TEST_F(FormatCache, TheLogOfAFormerLifeIsZeroedWhereTheNewOneBegins)
{
    put_formatting();
    put_session({}, 10, 5);
    put(data_at({{0}, format::data_bytes - 8}), u64{1});
    disk->poison(data_at({{0}, 8192}), 8);
    ASSERT_EQ(format(), rt::Error::none) << sentence();
    for (u32 at = 0; at < format::data_bytes; at += 8)
        ASSERT_EQ(get<u64>(data_at({{0}, at})), 0u);
    expect_new_cache();
}

TEST_F(FormatCache, TheStepsComeInTheirOrder)
{
    put_superblock(); // mainline's, interrupted
    std::vector<std::string> order;
    struct Seen {
        format::Extension e;
        u32 superblock_crc, tail_crc, dirty_crc, info_crc;
        u64 last_gen, last_link;
    };
    std::vector<Seen> seen;
    world.set_fence_hook([&] {
        Seen s{};
        const auto x = get<format::ExtensionRecord>(format::extension_offset);
        if (format::slot_intact(&x, sizeof(x)))
            (void)format::decode_extension(x, s.e);
        s.superblock_crc = get<u32>(format::superblock_offset);
        s.tail_crc = get<u32>(slot_at(media::key_tail_place, 0));
        s.dirty_crc = get<u32>(slot_at(media::dirty_tail_place, 0));
        s.info_crc = get<u32>(slot_at(media::cache_info_place, 0));
        s.last_gen = get<u64>(slot_at(media::generation_place({segments - 1}), 1) + 8);
        s.last_link = get<u64>(slot_at(media::segment_info_place({segments - 1}), 1) + 8);
        seen.push_back(s);
    });
    ASSERT_EQ(format(), rt::Error::none);
    world.set_fence_hook(nullptr);
    const u32 superblock_crc = get<u32>(format::superblock_offset);
    auto first = [&](auto is) {
        usize i = 0;
        while (i < seen.size() && !is(seen[i]))
            i++;
        return i;
    };
    const std::vector<usize> steps{
        first([](const Seen &s) { return s.e.formatting(); }),
        first([](const Seen &s) { return s.superblock_crc == 0; }),
        first([](const Seen &s) { return s.last_gen != 0; }),
        first([](const Seen &s) { return s.last_link != 0; }),
        first([](const Seen &s) { return s.tail_crc != 0; }),
        first([](const Seen &s) { return s.dirty_crc != 0; }),
        first([](const Seen &s) { return s.info_crc != 0; }),
        first([&](const Seen &s) { return s.superblock_crc == superblock_crc && s.info_crc; }),
        first([](const Seen &s) { return s.e.limit && !s.e.formatting(); })};
    for (usize i = 1; i < steps.size(); i++)
        EXPECT_LT(steps[i - 1], steps[i]) << "step " << i;
    EXPECT_LT(steps.back(), seen.size());
    EXPECT_EQ(seen[steps[0]].e.cache_info_crc, 0u);
}

TEST_F(FormatCache, ACutAtAnyFenceOfABlankDevice)
{
    if (real_geometry)
        GTEST_SKIP() << "images of every fence: small geometry only";
    cut_everywhere();
}

TEST_F(FormatCache, ACutAtAnyFenceOfAnInterruptedFormatOfMainlines)
{
    if (real_geometry)
        GTEST_SKIP() << "images of every fence: small geometry only";
    put_superblock();
    cut_everywhere();
}

TEST_F(FormatCache, ACutAtAnyFenceOverAFormerLife)
{
    if (real_geometry)
        GTEST_SKIP() << "images of every fence: small geometry only";
    make_ours();
    LogPosition p = put_session({}, 10, 3);
    put_last(p, 1, number(13));
    put_session({{1}, 0}, 14, 3);
    put_formatting(2000);
    put(format::superblock_offset, format::SuperblockRecord{});
    cut_everywhere();
}

TEST_F(FormatCache, ADeviceThatIsTooSmallIsNotOpened)
{
    MediaDevice &small =
        world.add_media("small", format::segment_offset({format::geometry.min_segments}) - 1);
    media::Device device;
    EXPECT_EQ(device.open(small.open()), rt::Error::no_space);
    MediaDevice &tiny = world.add_media("tiny", 0x4000);
    media::Device other;
    EXPECT_EQ(other.open(tiny.open()), rt::Error::no_space);
}

} // namespace
