// SPDX-License-Identifier: GPL-2.0
// selftests/unit/platform_media_test.cpp - the user-space cache device: mappings, poison and the
// power model.
#include <gtest/gtest.h>
#include <cstring>
#include <map>
#include "selftests/unit/fixture.hpp"

namespace pcache::selftest
{
namespace
{

constexpr u64 size = 64 << 10;

class MediaTest : public WorldTest
{
protected:
    MediaDevice &device = world.add_media("pmem0", size);
    pc_media *media = device.open();
    u8 *at = pc_media_map(media, 0, size);

    void TearDown() override
    {
        pc_media_close(media);
        WorldTest::TearDown();
    }
    void store(u64 offset, u64 value)
    {
        pc_cpu_pin();
        pc_media_store(at + offset, &value, sizeof(value));
        pc_cpu_unpin();
    }
    static void fence()
    {
        pc_cpu_pin();
        pc_media_fence();
        pc_cpu_unpin();
    }
    static u64 value(const Image &i, u64 offset)
    {
        u64 v;
        memcpy(&v, i.data() + offset, sizeof(v));
        return v;
    }
    Image cut_all_lost()
    {
        return device.cut([](u64, unsigned) { return false; });
    }
};

TEST_F(MediaTest, FindsTheFirstPlaceOfTheStepThatHoldsTheBytes)
{
    const u64 wanted = 0x1122334455667788;
    store(5 * 4096 + 8, wanted); // at no multiple of the step
    store(9 * 4096 + 512, wanted);
    store(13 * 4096, wanted);
    EXPECT_EQ(device.find(&wanted, 8, 0, 512), 9u * 4096 + 512);
    EXPECT_EQ(device.find(&wanted, 8, 4096, 8), 5u * 4096 + 8);
    EXPECT_EQ(device.find(&wanted, 8, 10 * 4096, 512), 13u * 4096);
    EXPECT_EQ(device.find(&wanted, 8, 14 * 4096, 512), size);
}

TEST_F(MediaTest, WhatWasStoredIsReadBack)
{
    EXPECT_EQ(pc_media_bytes(media), size);
    store(128, 77);
    u64 v = 0;
    EXPECT_EQ(pc_media_load(&v, at + 128, 8), 0);
    EXPECT_EQ(v, 77u);
    pc_cpu_pin();
    pc_media_zero(at + 128, 8);
    pc_cpu_unpin();
    device.read(128, &v, 8);
    EXPECT_EQ(v, 0u);
}

// The check value of the media format: 20 zero bytes.
TEST_F(MediaTest, SumsAreThoseOfTheFormat)
{
    u32 crc = 0x0003B15A;
    EXPECT_EQ(pc_media_crc(at, 20, &crc), 0);
    EXPECT_EQ(crc, 0xB9B69066u);
}

TEST_F(MediaTest, WhatIsSummedIsWhatIsStoredHoweverTheOwnerChangesIt)
{
    constexpr u32 bytes = 5 * 512;
    Bio bio(bytes);
    u8 turn = 0;
    bio.on_read([&] { memset(bio.data(), ++turn, bytes); });
    pc_cpu_pin();
    const u32 stored = pc_media_from_bio_crc(at + 512, bio.raw(), 0, bytes, 7);
    pc_cpu_unpin();
    u32 loaded = 7;
    EXPECT_EQ(pc_media_crc(at + 512, bytes, &loaded), 0);
    EXPECT_EQ(loaded, stored);
    EXPECT_GT(turn, 1) << "the owner had no turn in between";
    pc_bio_end(bio.raw(), 0);
}

TEST_F(MediaTest, PiecesOfWhatIsSummedReachTheirPlacesInTheBio)
{
    Image data(4096);
    for (usize i = 0; i < data.size(); i++)
        data[i] = static_cast<u8>(i * 7 + i / 256);
    device.write(0, data.data(), data.size());
    const pc_piece piece[] = {{512, 1024, 0}, {1536, 512, 2048}, {2560, 1536, 2560}};
    Bio bio(4096);
    u32 crc = 7, whole = 7;
    EXPECT_EQ(pc_media_to_bio_crc(bio.raw(), at, 4096, piece, 3, &crc), 0);
    EXPECT_EQ(pc_media_crc(at, 4096, &whole), 0);
    EXPECT_EQ(crc, whole);
    Image wanted(4096);
    for (const pc_piece &p : piece)
        memcpy(&wanted[p.bio_offset], &data[p.skip], p.bytes);
    EXPECT_EQ(memcmp(bio.data(), wanted.data(), wanted.size()), 0);
    pc_bio_end(bio.raw(), 0);
}

TEST_F(MediaTest, PartOfWhatIsSummedReachesTheBio)
{
    Image data(3072);
    for (usize i = 0; i < data.size(); i++)
        data[i] = static_cast<u8>(i * 7 + i / 256);
    device.write(0, data.data(), data.size());
    for (const auto &[skip, wanted] :
         {std::pair{0u, 3072u}, {512u, 512u}, {512u, 2560u}, {0u, 512u}}) {
        Bio bio(4096);
        u32 crc = 7, whole = 7;
        const pc_piece piece{skip, wanted, 512};
        EXPECT_EQ(pc_media_to_bio_crc(bio.raw(), at, 3072, &piece, 1, &crc), 0);
        EXPECT_EQ(pc_media_crc(at, 3072, &whole), 0);
        EXPECT_EQ(crc, whole);
        EXPECT_EQ(memcmp(bio.data() + 512, &data[skip], wanted), 0);
        EXPECT_EQ(bio.data()[511], 0);
        EXPECT_EQ(bio.data()[512 + wanted], 0);
        pc_bio_end(bio.raw(), 0);
    }
    device.poison(2048, 64);
    Bio bio(512);
    u32 crc = 7;
    const pc_piece front{0, 512, 0};
    EXPECT_EQ(pc_media_to_bio_crc(bio.raw(), at, 3072, &front, 1, &crc), -5) << "all of it is read";
    EXPECT_EQ(pc_media_crc(at, 3072, &crc), -5);
    pc_bio_end(bio.raw(), 0);
    device.cure();
}

TEST_F(MediaTest, ContentsSurviveTheHandle)
{
    store(0, 5);
    pc_media_close(media);
    media = device.open();
    at = pc_media_map(media, 0, 4096);
    u64 v = 0;
    EXPECT_EQ(pc_media_load(&v, at, 8), 0);
    EXPECT_EQ(v, 5u);
}

TEST_F(MediaTest, ScatteredMappingsSeeTheSameBytesAtOtherAddresses)
{
    device.set_scattered(true);
    u8 *a = pc_media_map(media, 0, 8192), *b = pc_media_map(media, 8192, 8192);
    EXPECT_NE(a + 8192, b);
    device.set_power_model(true);
    u64 v = 9;
    pc_cpu_pin();
    pc_media_store(b + 16, &v, 8);
    pc_cpu_unpin();
    v = 0;
    EXPECT_EQ(pc_media_load(&v, at + 8192 + 16, 8), 0);
    EXPECT_EQ(v, 9u);
    EXPECT_EQ(device.pending_units(), 1u);
}

TEST_F(MediaTest, NothingIsMappedPastTheEnd)
{
    EXPECT_EQ(pc_media_map(media, 4096, size), nullptr);
    EXPECT_EQ(pc_media_map(media, size, 1), nullptr);
    EXPECT_TRUE(world.said("to map"));
}

TEST_F(MediaTest, TwoHandlesOfOneDeviceHaveOneIdentity)
{
    pc_media *other = device.open();
    pc_media_identity a, b;
    pc_media_identify(media, &a);
    pc_media_identify(other, &b);
    EXPECT_EQ(a.dax, b.dax);
    EXPECT_EQ(a.bytes, b.bytes);
    pc_media_map(other, 0, size);
    pc_media_close(other);
    store(0, 1); // the first handle's mapping is still there
}

using MediaDeathTest = MediaTest;

TEST_F(MediaDeathTest, StoresWantAPinAndAMapping)
{
    u64 v = 1;
    EXPECT_DEATH(pc_media_store(at, &v, 8), "pinned");
    EXPECT_DEATH(pc_media_fence(), "pinned");
    EXPECT_DEATH((void)pc_media_load(&v, at + size - 4, 8), "outside of what was mapped");
}

// ---- poison ----

TEST_F(MediaTest, APoisonedLineIsAnErrorAndItsNeighboursAreNot)
{
    Image buffer(256);
    device.poison(130, 1);
    EXPECT_EQ(pc_media_load(buffer.data(), at + 64, 64), 0);
    EXPECT_EQ(pc_media_load(buffer.data(), at + 64, 65), -EIO);
    EXPECT_EQ(pc_media_load(buffer.data(), at + 191, 1), -EIO);
    EXPECT_EQ(pc_media_load(buffer.data(), at + 192, 64), 0);
    Bio bio(512);
    EXPECT_EQ(pc_media_to_bio(bio.raw(), 0, at, 512), -EIO);
    pc_bio_end(bio.raw(), -EIO);
    device.write(128, buffer.data(), 64); // only this cures
    EXPECT_EQ(pc_media_load(buffer.data(), at + 64, 128), 0);
}

TEST(MediaViolation, AStoreToAPoisonedLineIsNoted)
{
    World world;
    MediaDevice &d = world.add_media("m", 4096);
    pc_media *m = d.open();
    u8 *at = pc_media_map(m, 0, 4096);
    d.poison(0, 64);
    u64 v = 1;
    pc_cpu_pin();
    pc_media_store(at + 8, &v, 8);
    pc_cpu_unpin();
    EXPECT_EQ(world.violations().size(), 1u);
    EXPECT_EQ(pc_media_load(&v, at + 8, 8), -EIO);
    d.cure();
    EXPECT_EQ(pc_media_load(&v, at + 8, 8), 0);
    pc_media_close(m);
}

// ---- power ----

TEST_F(MediaTest, AnUnfencedStoreMayVanishAndMayStay)
{
    store(64, 1);
    device.set_power_model(true); // 1 is durable
    store(64, 2);
    store(72, 3);
    std::map<std::pair<u64, u64>, int> seen;
    Rng rng(1);
    for (int i = 0; i < 300; ++i) {
        Image c = device.cut(rng);
        ++seen[{value(c, 64), value(c, 72)}];
    }
    EXPECT_EQ(seen.size(), 4u); // each independently: {1, 2} x {0, 3}
    for (auto &s : seen) {
        EXPECT_TRUE(s.first.first == 1 || s.first.first == 2);
        EXPECT_TRUE(s.first.second == 0 || s.first.second == 3);
    }
    EXPECT_EQ(value(device.image(), 64), 2u); // a cut changes nothing here
}

TEST_F(MediaTest, AFencedStoreNeverVanishes)
{
    device.set_power_model(true);
    store(64, 2);
    fence();
    EXPECT_EQ(device.pending_units(), 0u);
    EXPECT_EQ(value(cut_all_lost(), 64), 2u);
}

TEST_F(MediaTest, AFenceByAnotherCpuDoesNothing)
{
    device.set_power_model(true);
    {
        OnCpu here(1);
        store(64, 2);
    }
    {
        OnCpu there(2);
        fence();
    }
    EXPECT_EQ(value(cut_all_lost(), 64), 0u);
    OnCpu here(1);
    fence();
    EXPECT_EQ(value(cut_all_lost(), 64), 2u);
}

TEST_F(MediaTest, OneUnitKeepsTheOrderOfItsStores)
{
    device.set_power_model(true);
    {
        OnCpu one(1);
        store(0, 10);
    }
    {
        OnCpu two(2);
        store(0, 20);
        fence(); // 20 is durable and with it the end of 10
    }
    EXPECT_EQ(value(cut_all_lost(), 0), 20u);
    EXPECT_EQ(device.pending_units(), 0u);
    {
        OnCpu one(1);
        store(0, 30);
        fence(); // its fence of now, not the one of long ago
    }
    EXPECT_EQ(value(cut_all_lost(), 0), 30u);
}

TEST_F(MediaTest, AnotherCpusStoreBehindTheFencedOneIsStillPending)
{
    device.set_power_model(true);
    {
        OnCpu one(1);
        store(0, 10);
    }
    {
        OnCpu two(2);
        store(0, 20);
    }
    OnCpu one(1);
    fence();
    EXPECT_EQ(value(cut_all_lost(), 0), 10u);
    EXPECT_EQ(value(device.cut([](u64, unsigned) { return true; }), 0), 20u);
}

TEST_F(MediaTest, StoresOfPartsOfAUnitAreCutAsAUnit)
{
    device.set_power_model(true);
    pc_cpu_pin();
    u8 byte = 0xAA;
    pc_media_store(at + 3, &byte, 1);
    byte = 0xBB;
    pc_media_store(at + 4, &byte, 1);
    pc_cpu_unpin();
    EXPECT_EQ(device.pending_units(), 1u);
    Image first = device.cut([](u64, unsigned nth) { return nth == 0; });
    EXPECT_EQ(first[3], 0xAA);
    EXPECT_EQ(first[4], 0);
}

TEST_F(MediaTest, AfterAPanicOnlyAFlushMakesDurable)
{
    device.set_power_model(true);
    store(64, 2);
    device.panic();
    fence(); // the next life's: does nothing for it
    EXPECT_EQ(value(cut_all_lost(), 64), 0u);
    u64 v = 0;
    EXPECT_EQ(pc_media_load(&v, at + 64, 8), 0);
    EXPECT_EQ(v, 2u); // readable meanwhile
    pc_cpu_pin();
    pc_media_flush(at + 64, 8);
    EXPECT_EQ(value(cut_all_lost(), 64), 0u);
    pc_media_fence();
    pc_cpu_unpin();
    EXPECT_EQ(value(cut_all_lost(), 64), 2u);
}

TEST_F(MediaTest, TheFenceHookSeesEveryStateInFrontOfTheFence)
{
    device.set_power_model(true);
    std::vector<u64> lost;
    world.set_fence_hook([&] { lost.push_back(value(cut_all_lost(), 0)); });
    store(0, 1);
    fence();
    store(0, 2);
    fence();
    world.set_fence_hook(nullptr);
    EXPECT_EQ(lost, (std::vector<u64>{0, 1}));
}

TEST_F(MediaTest, OneSeedGivesOneCut)
{
    device.set_power_model(true);
    for (u64 i = 0; i < 100; ++i)
        store(i * 8, i + 1);
    Rng a(7), b(7);
    for (int i = 0; i < 10; ++i)
        EXPECT_EQ(device.cut(a), device.cut(b));
}

} // namespace
} // namespace pcache::selftest
