// SPDX-License-Identifier: GPL-2.0
// selftests/unit/lost_records_test.cpp - both slots of a record lost: what stands for it, in the
// media format and as a user sees it.
#include "damage_rig.hpp"
#include "selftests/unit/media_rig.hpp"

namespace
{

using namespace pcache;
using namespace pcache::selftest;
namespace damage = pcache::media::damage;

constexpr u32 page = 4096;

class LostRecords : public MediaRig
{
};

// ---- whose log it is ----

TEST_F(LostRecords, WithoutKeyTailTheMarkOfDirtyTailSaysWhoseLogItIs)
{
    make_ours();
    spoil_both(media::key_tail_place);
    ASSERT_EQ(inspect(), rt::Error::none) << sentence();
    EXPECT_TRUE(found.ours);
    format::PositionRecord unmarked = format::encode_position({});
    unmarked.header.res = 0;
    put_both(media::dirty_tail_place, unmarked, 2);
    ASSERT_EQ(inspect(), rt::Error::none) << sentence();
    EXPECT_FALSE(found.ours);
}

TEST_F(LostRecords, WithoutEitherTailTheExtensionThatNamesCacheInfoIsEnough)
{
    make_ours();
    spoil_both(media::key_tail_place);
    spoil_both(media::dirty_tail_place);
    ASSERT_EQ(inspect(), rt::Error::none) << sentence();
    EXPECT_TRUE(found.ours);
    extension.cache_info_crc = 77;
    put_extension();
    ASSERT_EQ(inspect(), rt::Error::none) << sentence();
    EXPECT_FALSE(found.ours);
}

// A newer key_tail of ours counts, whatever dirty_tail says.
TEST_F(LostRecords, AKeyTailWithoutTheMarkIsMainlines)
{
    make_ours();
    put_key_tail({}, false);
    ASSERT_EQ(inspect(), rt::Error::none) << sentence();
    EXPECT_FALSE(found.ours);
}

// ---- cache_info ----

TEST_F(LostRecords, WithoutCacheInfoTheChainIsFoundAndNothingIsOurs)
{
    make_ours();
    put_session({}, 10, 3);
    // 3, 0, 1, 2, 4, ...: it begins at the one that nobody names.
    put_link(3, true, 0);
    put_link(2, segments > 4, 4);
    spoil_both(media::cache_info_place);
    expect_damage(damage::cache_info);
    EXPECT_TRUE(found.cache_info_lost);
    EXPECT_FALSE(found.ours);
    EXPECT_EQ(found.cache_info.first.value, 3u);
    EXPECT_EQ(found.segments, segments);
    EXPECT_FALSE(found.cache_info.data_crc());
    EXPECT_EQ(found.cache_info.gc_percent(), format::default_gc_percent);
}

TEST_F(LostRecords, WithoutCacheInfoTheLogIsReadAndAKeySaysDataCrc)
{
    make_ours();
    Key k = key(7);
    k.data_crc = 5;
    LogPosition p = put_session({}, 10, 3);
    p = put_kset(p, {k}, number(13));
    spoil_both(media::cache_info_place);
    expect_damage(damage::cache_info);
    EXPECT_EQ(text(found.head), text(p));
    EXPECT_EQ(found.keys, 4u);
    EXPECT_TRUE(found.cache_info.data_crc());
    EXPECT_EQ(replay().size(), 4u);
}

TEST_F(LostRecords, WithoutCacheInfoAChainThatIsNotOneIsRefused)
{
    make_ours();
    spoil_both(media::cache_info_place);
    put_link(segments - 1, true, 0); // nobody is first
    expect_refused("do not say where the chain begins");
    put_link(segments - 1, false, 0);
    put_link(1, true, 3); // two are
    expect_refused("do not say where the chain begins");
    put_link(1, true, 2);
    spoil_both(media::segment_info_place({2}));
    expect_refused("a segment_info of the chain is bad");
}

// ---- as a user sees it ----

TEST(LostCacheInfo, ReadsAreServedAndAcceptLossIsTheWayOn)
{
    DamageRig rig;
    rig.start();
    rig.keep_dirty(true);
    for (u64 i = 0; i < 6; i++)
        rig.write_record(i * 8192, page);
    rig.stop(false);
    rig.keep_dirty(false);
    rig.flip(format::cache_info_offset + 8);
    rig.flip(format::cache_info_offset + page + 8);
    const Image before = rig.contents();
    rig.start();
    EXPECT_TRUE(rig.read_only()) << rig.status();
    rig.check("read-only");
    EXPECT_TRUE(before == rig.contents()) << "something was stored";
    EXPECT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    EXPECT_FALSE(rig.read_only()) << rig.status();
    rig.check("made anew");
    rig.remove();
    EXPECT_TRUE(rig.backing.image() == rig.model) << "all of it was dirty, and could be read";
}

// The power goes behind step 4 of accept_loss; the table names no option.
TEST(LostCacheInfo, AFormatThatWasCutKeepsTheSettingsOfTheCacheGivenUp)
{
    if (real_geometry)
        GTEST_SKIP() << "an image at a fence: small geometry only";
    Image media, backing_image;
    {
        DamageRig rig;
        ASSERT_EQ(rig.create({"2", "data_crc", "true"}), 0) << rig.sentence;
        ASSERT_EQ(rig.resume(), 0);
        ASSERT_EQ(rig.message({"gc_percent", "33"}), 0);
        rig.keep_dirty(true);
        for (u64 i = 0; i < 6; i++)
            rig.write_record(i * 8192, page);
        rig.stop(false);
        rig.spoil_record(2);
        rig.keep_dirty(false);
        rig.start();
        ASSERT_TRUE(rig.read_only()) << rig.status();
        rig.world.set_fence_hook([&] {
            if (!media.empty())
                return;
            const Image i = rig.media.image();
            if (format::decode_superblock(&i[format::superblock_offset]).state ==
                format::SuperblockState::no_magic) {
                media = i;
                backing_image = rig.backing.image();
            }
        });
        ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
        rig.world.set_fence_hook(nullptr);
    }
    ASSERT_FALSE(media.empty());
    {
        DamageRig rig;
        rig.media.load(media);
        rig.backing.load(backing_image);
        EXPECT_NE(rig.create({"2", "data_crc", "false"}), 0) << "a table that contradicts it";
        rig.start();
        EXPECT_NE(rig.status(1).find("data_crc true"), std::string::npos) << rig.status(1);
        EXPECT_NE(rig.status().find(" 33 "), std::string::npos) << rig.status();
    }
}

// ---- a panic ----

TEST_F(LostRecords, WhatAReadOnlyCacheReliesOnIsFlushed)
{
    if (real_geometry)
        GTEST_SKIP() << "an image of the whole device: small geometry only";
    make_ours();
    LogPosition p = put_session({}, 10, 2);
    spoil_both(media::cache_info_place); // what makes it read-only
    disk->set_power_model(true);
    with_device([&](media::Activation &, media::Device &d) {
        const media::Pin pin; // the former life stored and never came to the fence
        u8 record[one_key];
        const Key k = key(50);
        format::encode_kset(record, &k, 1, number(12));
        media::persist::store(pin, d.address(data_at(p)), record, sizeof(record));
        return 0;
    });
    disk->panic();
    with_device([&](media::Activation &a, media::Device &) {
        EXPECT_EQ(a.inspect(backing, found, why), rt::Error::none) << sentence();
        EXPECT_EQ(a.flush_for_reading(found), rt::Error::none);
        return 0;
    });
    disk->load(disk->cut([](u64, unsigned) { return false; }));
    disk->set_power_model(false);
    expect_damage(damage::cache_info);
    EXPECT_EQ(found.keys, 3u);
}

} // namespace
