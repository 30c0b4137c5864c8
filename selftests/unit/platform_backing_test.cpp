// SPDX-License-Identifier: GPL-2.0
// selftests/unit/platform_backing_test.cpp - the user-space backing device: failures, delays, order
// and the model of a volatile write cache.
#include <gtest/gtest.h>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <set>
#include "selftests/unit/fixture.hpp"

namespace pcache::selftest
{
namespace
{

constexpr u32 sector = 512;

// The completion of one write.
struct Done {
    std::mutex lock;
    std::condition_variable changed;
    bool ended = false;
    int error = 0;
    static void call(void *context, int error)
    {
        auto *d = static_cast<Done *>(context);
        std::lock_guard<std::mutex> g(d->lock);
        d->error = error;
        d->ended = true;
        d->changed.notify_all();
    }
    int wait()
    {
        std::unique_lock<std::mutex> g(lock);
        changed.wait(g, [this] { return ended; });
        return error;
    }
};

class BackingTest : public WorldTest
{
protected:
    MediaDevice &source = world.add_media("pmem0", 64 << 10);
    BackingDevice &disk = world.add_backing("sda", 64 << 10);
    pc_media *media = source.open();
    u8 *at = pc_media_map(media, 0, 64 << 10);
    pc_backing *backing = disk.open();

    void TearDown() override
    {
        pc_backing_close(backing);
        pc_media_close(media);
        WorldTest::TearDown();
    }
    // Puts a byte all over the media and sends so many sectors of it.
    void send(Done &d, u64 offset, u8 byte, u32 sectors = 1)
    {
        Image content(sectors * sector, byte);
        source.write(offset, content.data(), content.size());
        pc_wio *w = pc_wio_begin(backing, offset, Done::call, &d);
        EXPECT_EQ(pc_wio_add(w, at + offset, sectors * sector), sectors * sector);
        pc_wio_submit(w);
    }
    int write(u64 offset, u8 byte, u32 sectors = 1)
    {
        Done d;
        send(d, offset, byte, sectors);
        return d.wait();
    }
    u8 byte_at(u64 offset)
    {
        Image b(sector);
        EXPECT_EQ(pc_backing_read(backing, offset, b.data(), sector), 0);
        return b[0];
    }
    Image cut_all_lost()
    {
        return disk.cut([](const BackingDevice::Write &, u32) { return false; });
    }
};

TEST_F(BackingTest, AWriteArrivesAndIsRead)
{
    EXPECT_EQ(write(1024, 7, 2), 0);
    EXPECT_EQ(byte_at(1024), 7);
    EXPECT_EQ(byte_at(1536), 7);
    EXPECT_EQ(byte_at(2048), 0);
    EXPECT_EQ(disk.counters().writes, 1u);
    EXPECT_EQ(disk.counters().written_bytes, 1024u);
    EXPECT_EQ(disk.counters().reads, 3u);
    EXPECT_EQ(pc_backing_flush(backing), 0);
    EXPECT_EQ(disk.counters().flushes, 1u);
}

TEST_F(BackingTest, AWriteOfSeveralPartsIsOneWriteAndTakesNoMoreThanItHolds)
{
    disk.set_write_capacity(3 * sector);
    Done d;
    pc_wio *w = pc_wio_begin(backing, 0, Done::call, &d);
    EXPECT_EQ(pc_wio_add(w, at, sector), sector);
    EXPECT_EQ(pc_wio_add(w, at + 4096, 4 * sector), 2 * sector);
    EXPECT_EQ(pc_wio_add(w, at, sector), 0u);
    pc_wio_submit(w);
    EXPECT_EQ(d.wait(), 0);
    EXPECT_EQ(disk.counters().writes, 1u);
    EXPECT_EQ(disk.counters().written_bytes, u64{3} * sector);
}

TEST_F(BackingTest, ExactlyTheNthOperationFails)
{
    disk.fail(Op::read, 2);
    Image b(sector);
    EXPECT_EQ(pc_backing_read(backing, 0, b.data(), sector), 0);
    EXPECT_EQ(pc_backing_read(backing, 0, b.data(), sector), -EIO);
    EXPECT_EQ(pc_backing_read(backing, 0, b.data(), sector), 0);
    disk.fail(Op::flush, 1, -ENOSPC, 2);
    EXPECT_EQ(pc_backing_flush(backing), -ENOSPC);
    EXPECT_EQ(pc_backing_flush(backing), -ENOSPC);
    EXPECT_EQ(pc_backing_flush(backing), 0);
    disk.fail(Op::write, 1);
    EXPECT_EQ(write(0, 9), -EIO);
    EXPECT_EQ(byte_at(0), 0);
    EXPECT_EQ(write(0, 9), 0);
    EXPECT_EQ(byte_at(0), 9);
}

TEST_F(BackingTest, AHookDecidesByPlace)
{
    disk.set_hook(
        [](Op op, u64 offset, u64) { return op == Op::write && offset >= 4096 ? -EIO : 0; });
    EXPECT_EQ(write(0, 1), 0);
    EXPECT_EQ(write(4096, 1), -EIO);
}

TEST_F(BackingTest, ReadsPastTheEndFail)
{
    Image b(1024);
    EXPECT_EQ(pc_backing_read(backing, (64 << 10) - 512, b.data(), 1024), -EIO);
    EXPECT_EQ(pc_backing_bytes(backing), u64{64 << 10});
}

TEST_F(BackingTest, ADelayIsKept)
{
    disk.set_delay_ns(Op::write, 10000000);
    u64 before = pc_now_ns();
    EXPECT_EQ(write(0, 1), 0);
    EXPECT_GE(pc_now_ns() - before, 10000000u);
}

TEST_F(BackingTest, AHeldWriteCompletesWhenItIsLetGo)
{
    disk.hold_writes(true);
    Done d;
    send(d, 0, 5);
    EXPECT_EQ(byte_at(0), 0);
    EXPECT_EQ(disk.counters().writes_in_flight, 1u);
    disk.hold_writes(false);
    EXPECT_EQ(d.wait(), 0);
    EXPECT_EQ(byte_at(0), 5);
}

TEST_F(BackingTest, ABadLineOfMediaFailsTheWrite)
{
    source.poison(0, 1);
    Done d;
    pc_wio *w = pc_wio_begin(backing, 0, Done::call, &d);
    EXPECT_EQ(pc_wio_add(w, at, sector), sector);
    pc_wio_submit(w);
    EXPECT_EQ(d.wait(), -EIO);
}

TEST(BackingViolation, TwoWritesInFlightToOneSectorAreNoted)
{
    World world;
    pc_media *m = world.add_media("m", 8192).open();
    u8 *at = pc_media_map(m, 0, 8192);
    BackingDevice &disk = world.add_backing("b", 8192);
    pc_backing *b = disk.open();
    disk.hold_writes(true);
    Done one, two, three;
    auto send = [&](Done &d, u64 offset, u32 bytes) {
        pc_wio *w = pc_wio_begin(b, offset, Done::call, &d);
        pc_wio_add(w, at, bytes);
        pc_wio_submit(w);
    };
    send(one, 0, 1024);
    send(two, 1024, 512); // beside it
    EXPECT_TRUE(world.violations().empty());
    send(three, 512, 512);
    EXPECT_EQ(world.violations().size(), 1u);
    disk.hold_writes(false);
    one.wait();
    two.wait();
    three.wait();
    pc_backing_close(b);
    pc_media_close(m);
}

using BackingDeathTest = BackingTest;

TEST_F(BackingDeathTest, AWriteIsBegunOnlyWhenTheLastOneWasSubmitted)
{
    Done d;
    EXPECT_DEATH(
        {
            pc_wio_begin(backing, 0, Done::call, &d);
            pc_wio_begin(backing, 4096, Done::call, &d);
        },
        "not yet submitted");
}

TEST_F(BackingDeathTest, OnlyWholeLogicalBlocks)
{
    disk.set_logical_block(4096);
    Image b(4096);
    EXPECT_DEATH((void)pc_backing_read(backing, 512, b.data(), 4096), "logical blocks");
    EXPECT_EQ(pc_backing_read(backing, 4096, b.data(), 4096), 0);
}

// ---- the write cache ----

TEST_F(BackingTest, AnUnflushedWriteMayVanishSectorBySector)
{
    EXPECT_EQ(write(0, 1, 2), 0);
    disk.set_write_cache(true);
    EXPECT_EQ(write(0, 2, 2), 0);
    EXPECT_EQ(byte_at(0), 2);
    ASSERT_EQ(disk.unflushed().size(), 1u);
    EXPECT_TRUE(disk.unflushed()[0].completed);
    EXPECT_EQ(cut_all_lost()[0], 1);
    std::set<std::pair<int, int>> seen;
    Rng rng(3);
    for (int i = 0; i < 300; ++i) {
        Image c = disk.cut(rng);
        seen.insert({c[0], c[512]});
    }
    EXPECT_EQ(seen, (std::set<std::pair<int, int>>{{1, 1}, {1, 2}, {2, 1}, {2, 2}}));
}

TEST_F(BackingTest, AFlushedWriteNeverVanishes)
{
    disk.set_write_cache(true);
    EXPECT_EQ(write(0, 2), 0);
    EXPECT_EQ(pc_backing_flush(backing), 0);
    EXPECT_TRUE(disk.unflushed().empty());
    EXPECT_EQ(write(0, 3), 0);
    EXPECT_EQ(cut_all_lost()[0], 2);
}

TEST_F(BackingTest, AFailedFlushMakesNothingDurable)
{
    disk.set_write_cache(true);
    EXPECT_EQ(write(0, 2), 0);
    disk.fail(Op::flush, 1);
    EXPECT_EQ(pc_backing_flush(backing), -EIO);
    EXPECT_EQ(cut_all_lost()[0], 0);
}

TEST_F(BackingTest, AFlushCoversOnlyWhatHadCompletedWhenItWasSent)
{
    disk.set_write_cache(true);
    disk.hold_writes(true);
    Done in_flight, later;
    send(in_flight, 0, 2);
    // While the flush is under way, one write completes and another one comes and completes.
    disk.set_hook([&](Op op, u64, u64) {
        if (op == Op::flush) {
            disk.hold_writes(false);
            in_flight.wait();
            send(later, 4096, 3);
            later.wait();
        }
        return 0;
    });
    EXPECT_EQ(pc_backing_flush(backing), 0);
    EXPECT_EQ(cut_all_lost()[0], 0);
    EXPECT_EQ(cut_all_lost()[4096], 0);
    disk.set_hook(nullptr);
    EXPECT_EQ(pc_backing_flush(backing), 0);
    EXPECT_EQ(cut_all_lost()[0], 2);
    EXPECT_EQ(cut_all_lost()[4096], 3);
}

TEST_F(BackingTest, AWriteInFlightMayHaveArrived)
{
    for (bool cache : {false, true}) {
        disk.set_write_cache(cache);
        disk.hold_writes(true);
        u8 before = byte_at(0), now = static_cast<u8>(before + 1);
        Done d;
        send(d, 0, now);
        EXPECT_EQ(cut_all_lost()[0], before);
        EXPECT_EQ(disk.cut([](const BackingDevice::Write &, u32) { return true; })[0], now);
        disk.hold_writes(false);
        EXPECT_EQ(d.wait(), 0);
        pc_backing_flush(backing);
    }
}

TEST_F(BackingTest, OneCutSeesMediaAndDiskAtOneInstant)
{
    source.set_power_model(true);
    disk.set_write_cache(true);
    EXPECT_EQ(write(0, 4), 0);
    Rng rng(1);
    Cut c = world.cut(rng);
    ASSERT_EQ(c.media.size(), 1u);
    ASSERT_EQ(c.backings.size(), 1u);
    EXPECT_EQ(c.media[0][0], 4);
    EXPECT_TRUE(c.backings[0][0] == 0 || c.backings[0][0] == 4);
}

TEST_F(BackingTest, AHeldReadHasTheBytesOfBeforeAndFillsItsPagesAtItsEnd)
{
    ASSERT_EQ(write(0, 1, 10), 0);
    auto *block = static_cast<u8 *>(pc_alloc(8192, PC_MAY_SLEEP));
    void *pages[] = {block + 4096, block}; // in any order
    disk.hold_reads(true);
    Done d;
    pc_rio *r = pc_rio_begin(backing, 0, pages, 10 * sector, 0, Done::call, &d);
    ASSERT_NE(r, nullptr);
    pc_rio_submit(r);
    while (disk.counters().reads_held != 1)
        pc_yield();
    ASSERT_EQ(write(0, 2, 10), 0);
    EXPECT_EQ(block[4096], 0) << "a page filled before the end";
    disk.hold_reads(false);
    EXPECT_EQ(d.wait(), 0);
    EXPECT_EQ(block[4096], 1);
    EXPECT_EQ(block[8191], 1);
    EXPECT_EQ(block[2 * sector - 1], 1);
    EXPECT_EQ(block[2 * sector], 0) << "behind the end of the read";
    EXPECT_EQ(disk.counters().read_bytes, 10 * sector);
    pc_free(block);
}

TEST_F(BackingTest, AReadIntoPagesFailsAsAskedOrForLackOfMemory)
{
    auto *block = static_cast<u8 *>(pc_alloc(4096, PC_MAY_SLEEP));
    void *pages[] = {block};
    Memory::fail_nowait(true);
    Done none;
    EXPECT_EQ(pc_rio_begin(backing, 0, pages, 4096, 0, Done::call, &none), nullptr);
    Memory::fail_nowait(false);
    disk.fail(Op::read, 1, -5);
    Done d;
    pc_rio *r = pc_rio_begin(backing, 0, pages, 4096, 0, Done::call, &d);
    ASSERT_NE(r, nullptr);
    pc_rio_submit(r);
    EXPECT_EQ(d.wait(), -5);
    EXPECT_FALSE(none.ended);
    pc_free(block);
}

} // namespace
} // namespace pcache::selftest
