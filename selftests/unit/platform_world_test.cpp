// SPDX-License-Identifier: GPL-2.0
// selftests/unit/platform_world_test.cpp - bios, memory, tables, hosts, log, and memory.hpp's
// owners.
#include <gtest/gtest.h>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <thread>
#include "dm-pcache/memory.hpp"
#include "dm-pcache/target/face.h"
#include "selftests/unit/fixture.hpp"

namespace pcache::selftest
{
namespace
{

// ---- bios ----

TEST_F(WorldTest, ABioCarriesItsBytesToMediaAndBack)
{
    pc_media *m = world.add_media("m", 4096).open();
    u8 *at = pc_media_map(m, 0, 4096);
    Bio w(Image(1024, 3)), r(1024);
    pc_cpu_pin();
    pc_media_from_bio(at + 64, w.raw(), 512, 512);
    pc_cpu_unpin();
    pc_bio_end(w.raw(), 0);
    EXPECT_EQ(pc_media_to_bio(r.raw(), 512, at + 64, 512), 0);
    pc_bio_end(r.raw(), 0);
    EXPECT_EQ(w.wait(), 0);
    EXPECT_EQ(r.wait(), 0);
    EXPECT_EQ(r.data()[511], 0);
    EXPECT_EQ(r.data()[512], 3);
    pc_media_close(m);
}

TEST_F(WorldTest, ABioEndsForItsWaiterAndItsCallback)
{
    Bio b(512);
    int told = 1;
    b.on_end([&](int e) { told = e; });
    EXPECT_FALSE(b.ended());
    std::thread t([&] { pc_bio_end(b.raw(), -EIO); });
    EXPECT_EQ(b.wait(), -EIO);
    t.join();
    EXPECT_TRUE(b.ended());
    EXPECT_EQ(told, -EIO);
}

TEST_F(WorldTest, AcceptCutsABioShort)
{
    Bio b(4096);
    EXPECT_FALSE(b.cut_short());
    pc_bio_accept(b.raw(), 1024);
    EXPECT_TRUE(b.cut_short());
    EXPECT_EQ(b.size(), 1024u);
    pc_bio_end(b.raw(), 0);
}

TEST_F(WorldTest, PerBioDataIsAlignedAndHoldsGarbage)
{
    Bio b(512);
    EXPECT_EQ(reinterpret_cast<usize>(b.request()) % 16, 0u);
    EXPECT_NE(*static_cast<u8 *>(b.request()), 0);
}

using BioDeathTest = WorldTest;
TEST_F(BioDeathTest, MisuseOfABioIsAnAbort)
{
    pc_media *m = world.add_media("m", 4096).open();
    u8 *at = pc_media_map(m, 0, 4096);
    Bio ended(512), touched(1024);
    pc_bio_end(ended.raw(), 0);
    EXPECT_DEATH(pc_bio_end(ended.raw(), 0), "ended twice");
    EXPECT_DEATH((void)pc_media_to_bio(ended.raw(), 0, at, 512), "after it has ended");
    EXPECT_EQ(pc_media_to_bio(touched.raw(), 0, at, 512), 0);
    EXPECT_DEATH(pc_bio_accept(touched.raw(), 512), "after it was touched");
    EXPECT_DEATH((void)pc_media_to_bio(touched.raw(), 512, at, 1024), "outside of the bio");
    EXPECT_NE(world.leaks().find("1 bios not ended"), std::string::npos);
    pc_bio_end(touched.raw(), 0);
    pc_media_close(m);
}

// ---- memory ----

TEST_F(WorldTest, MemoryIsZeroedAlignedAndCounted)
{
    u64 before = Memory::live();
    auto *a = static_cast<u8 *>(pc_alloc(128, PC_MAY_SLEEP));
    auto *b = static_cast<u8 *>(pc_alloc(24, PC_NOWAIT));
    ASSERT_TRUE(a && b);
    EXPECT_EQ(reinterpret_cast<usize>(a) % 64, 0u);
    EXPECT_EQ(reinterpret_cast<usize>(b) % 8, 0u);
    for (int i = 0; i < 24; ++i)
        EXPECT_EQ(b[i], 0);
    EXPECT_EQ(Memory::live(), before + 2);
    EXPECT_GE(Memory::live_bytes(), 152u);
    EXPECT_NE(world.leaks().find("blocks of memory"), std::string::npos);
    pc_free(a);
    pc_free(b);
    pc_free(nullptr);
    EXPECT_EQ(Memory::live(), before);
}

TEST_F(WorldTest, ExactlyTheNthAllocationFails)
{
    Memory::fail(2, 2);
    void *a = pc_alloc(8, PC_MAY_SLEEP);
    EXPECT_NE(a, nullptr);
    EXPECT_EQ(pc_alloc(8, PC_MAY_SLEEP), nullptr);
    EXPECT_EQ(pc_alloc(8, PC_NOWAIT), nullptr);
    void *b = pc_alloc(8, PC_NOWAIT);
    EXPECT_NE(b, nullptr);
    EXPECT_EQ(Memory::allocations(), 4u);
    Memory::fail_nowait(true);
    EXPECT_EQ(pc_alloc(8, PC_NOWAIT), nullptr);
    void *c = pc_alloc(8, PC_MAY_SLEEP);
    EXPECT_NE(c, nullptr);
    for (void *p : {a, b, c})
        pc_free(p);
}

TEST_F(WorldTest, OwnersTakeFromThePlatformAndGiveBack)
{
    {
        auto n = make_box<u64>(PC_MAY_SLEEP, u64{7});
        ASSERT_TRUE(n);
        EXPECT_EQ(**n, 7u);
        auto many = make_array<u32>(PC_NOWAIT, 10);
        ASSERT_TRUE(many);
        EXPECT_EQ(Memory::live(), 2u);
    }
    EXPECT_EQ(Memory::live(), 0u);
    Memory::fail(1);
    EXPECT_EQ(make_array<u32>(PC_MAY_SLEEP, 10).error(), rt::Error::no_memory);
}

// ---- devices by name ----

TEST_F(WorldTest, DevicesAreFoundByNameAndOthersAreRefusedWithASentence)
{
    world.add_media("/dev/pmem0", 4096);
    world.add_backing("/dev/sda", 8192);
    pc_table *t = world.add_table();
    pc_media *m = nullptr;
    pc_backing *b = nullptr;
    const char *sentence = nullptr;
    EXPECT_EQ(pc_media_open(t, "/dev/pmem1", &m, &sentence), -ENODEV);
    EXPECT_NE(sentence, nullptr);
    world.refuse_open("/dev/pmem0", -EOPNOTSUPP, "no DAX");
    EXPECT_EQ(pc_media_open(t, "/dev/pmem0", &m, &sentence), -EOPNOTSUPP);
    EXPECT_STREQ(sentence, "no DAX");
    EXPECT_EQ(pc_media_open(t, "/dev/pmem0", &m, &sentence), 0); // refused once
    EXPECT_EQ(pc_backing_open(t, "/dev/sda", &b, &sentence), 0);
    EXPECT_EQ(pc_backing_bytes(b), 8192u);
    EXPECT_EQ(world.leaks(), "1 open handles of /dev/pmem0, 1 open handles of /dev/sda");
    pc_media_close(m);
    pc_backing_close(b);
    pc_media_close(nullptr);
    pc_backing_close(nullptr);
    world.drop_table(t);
}

TEST_F(WorldTest, AnExchangedHandleBelongsToTheOtherTable)
{
    world.add_media("m", 4096);
    pc_table *old_table = world.add_table(), *new_table = world.add_table();
    pc_media *a = nullptr, *b = nullptr;
    const char *sentence = nullptr;
    EXPECT_EQ(pc_media_open(old_table, "m", &a, &sentence), 0);
    EXPECT_EQ(pc_media_open(new_table, "m", &b, &sentence), 0);
    u8 *at = pc_media_map(a, 0, 4096);
    pc_media_exchange(a, b);
    pc_media_close(b); // the old table's now
    world.drop_table(old_table);
    u64 v;
    EXPECT_EQ(pc_media_load(&v, at, 8), 0);
    pc_media_close(a);
    world.drop_table(new_table);
}

TEST(WorldViolation, ATableThatGoesBeforeItsHandlesIsNoted)
{
    World world;
    world.add_media("m", 4096);
    pc_table *t = world.add_table();
    pc_media *m = nullptr;
    const char *sentence = nullptr;
    ASSERT_EQ(pc_media_open(t, "m", &m, &sentence), 0);
    world.drop_table(t);
    EXPECT_EQ(world.violations().size(), 1u);
    pc_media_close(m);
    world.drop_table(t); // now it may go
    EXPECT_EQ(world.violations().size(), 1u);
}

TEST_F(WorldTest, FilesAreDevices)
{
    std::string name = testing::TempDir() + "pcache_world_" + std::to_string(pc_now_ns());
    std::ofstream(name, std::ios::binary) << std::string(8192, 'x');
    {
        MediaDevice &copy = world.add_media("copy", 12288);
        EXPECT_TRUE(copy.load_file(name));
        EXPECT_FALSE(copy.load_file(name + ".none"));
        EXPECT_EQ(copy.image()[8191], 'x');
        EXPECT_EQ(copy.image()[8192], 0);
        MediaDevice &itself = world.add_media_file("itself", name);
        itself.write(0, "y", 1);
        BackingDevice &disk = world.add_backing_file("disk", name);
        char c = 0;
        disk.read(0, &c, 1);
        EXPECT_EQ(c, 'y');
    }
    EXPECT_EQ(std::ifstream(name, std::ios::binary).get(), 'y');
    remove(name.c_str());
}

// ---- tables, hosts, log ----

TEST_F(WorldTest, TablesOfOneDeviceHaveOneOwner)
{
    pc_table *a = world.add_table("one"), *b = world.add_table("one"),
             *c = world.add_table("two", true);
    EXPECT_EQ(pc_table_owner(a), pc_table_owner(b));
    EXPECT_NE(pc_table_owner(a), pc_table_owner(c));
    EXPECT_FALSE(pc_table_is_read_only(a));
    EXPECT_TRUE(pc_table_is_read_only(c));
}

TEST_F(WorldTest, EventsCountOnlyWhileTheHostIsAttached)
{
    pc_table *a = world.add_table("one"), *b = world.add_table("two");
    pc_host *h = pc_host_create(a);
    ASSERT_NE(h, nullptr);
    pc_raise_event(h);
    pc_host_detach(h, b); // another table: nothing
    pc_raise_event(h);
    EXPECT_EQ(world.events("one"), 2u);
    pc_host_detach(h, a);
    pc_raise_event(h);
    EXPECT_EQ(world.events("one"), 2u);
    pc_host_attach(h, b);
    pc_raise_event(h);
    EXPECT_EQ(world.events("two"), 1u);
    EXPECT_TRUE(world.wait_for_events(1, 0, "two"));
    EXPECT_FALSE(world.wait_for_events(2, 1000, "two"));
    EXPECT_EQ(world.leaks(), "1 hosts");
    pc_host_destroy(h);
    Memory::fail(1);
    EXPECT_EQ(pc_host_create(a), nullptr);
}

TEST_F(WorldTest, TheLogKeepsLevelDeviceAndText)
{
    pc_host *h = pc_host_create(world.add_table("vol"));
    pc_log(h, PC_WARN, "segment %u is bad", 7u);
    pc_log(nullptr, PC_INFO, "loaded");
    auto log = world.log();
    ASSERT_EQ(log.size(), 2u);
    EXPECT_EQ(log[0].level, PC_WARN);
    EXPECT_EQ(log[0].device, "vol");
    EXPECT_EQ(log[0].text, "segment 7 is bad");
    EXPECT_EQ(log[1].device, "");
    EXPECT_TRUE(world.said("segment 7"));
    EXPECT_FALSE(world.said("segment 8"));
    world.clear_log();
    EXPECT_FALSE(world.said("segment 7"));
    pc_host_destroy(h);
}

TEST_F(WorldTest, FormatReturnsWhatFits)
{
    char b[8];
    EXPECT_EQ(pc_format(b, sizeof(b), "%d", 42), 2u);
    EXPECT_EQ(pc_format(b, sizeof(b), "%s", "0123456789"), 7u);
    EXPECT_STREQ(b, "0123456");
    EXPECT_EQ(pc_format(b, 0, "x"), 0u);
}

} // namespace
} // namespace pcache::selftest
