// SPDX-License-Identifier: GPL-2.0
// The cache device is taken away (its namespace is unbound): the cache fails, whatever it is doing,
// and gives the device back when its tables go. Beside it: what activation must not do, since the
// device may be what memory is waiting for.
#include <atomic>
#include <chrono>
#include <thread>
#include "rig.hpp"

using namespace pcache::selftest;
using namespace std::chrono_literals;

namespace
{

template <class Condition>
bool comes_true(Condition condition)
{
    for (unsigned i = 0; i < 2000; i++) {
        if (condition())
            return true;
        std::this_thread::sleep_for(5ms);
    }
    return false;
}

bool fails_then(Rig &rig)
{
    return comes_true([&] { return rig.status() == "Fail"; });
}

void all_ends_with_errors(Rig &rig)
{
    Bio read(4096);
    const pc_io io{PC_READ, 0, 4096, 0, 0};
    EXPECT_EQ(rig.try_write(0, Image(4096)), -5);
    EXPECT_EQ(rig.flush(), -5);
    EXPECT_EQ(rig.map(read, io), PC_FAIL);
    EXPECT_EQ(rig.status(), "Fail");
    EXPECT_EQ(rig.message({"gc_percent", "50"}), -16);
}

} // namespace

TEST(Removal, ACacheWhoseDeviceGoesFailsAndNoRequestIsServedAnyMore)
{
    Rig rig;
    rig.start();
    rig.write_pattern(0, 64u << 10);
    const u64 events = rig.world.events();
    rig.media.take_away();
    ASSERT_TRUE(fails_then(rig)) << rig.status();
    EXPECT_TRUE(comes_true([&] { return rig.world.said("the cache device is being removed"); }));
    EXPECT_TRUE(comes_true([&] { return rig.world.events() > events; }));
    EXPECT_EQ(rig.try_write(0, Image(4096)), -5);
    EXPECT_EQ(rig.flush(), -5);
    std::this_thread::sleep_for(100ms); // a step of zeroing may have been under way
    std::atomic<u64> fences{0};
    rig.world.set_fence_hook([&] { fences++; });
    rig.suspend();
    ASSERT_EQ(rig.resume(), 0);
    EXPECT_EQ(rig.try_write(0, Image(4096)), -5);
    rig.suspend();
    rig.destroy();
    rig.world.set_fence_hook(nullptr);
    EXPECT_EQ(fences, 0u) << "something was stored on a device that is going";
}

TEST(Removal, WritesThatWaitForSpaceEnd)
{
    if (!small_world)
        GTEST_SKIP() << "fills a cache";
    Rig rig;
    rig.start();
    rig.backing.hold_writes(true);
    std::atomic<int> error{0};
    std::thread writer([&] { // more than the cache takes
        for (u64 at = 0; at + 65536 <= rig.backing.bytes() && !error; at += 65536)
            error = rig.try_write(at, Image(65536));
    });
    std::this_thread::sleep_for(100ms);
    rig.media.take_away();
    EXPECT_TRUE(comes_true([&] { return error == -5; }));
    rig.backing.hold_writes(false);
    writer.join();
    EXPECT_TRUE(fails_then(rig)) << rig.status();
}

// What device-mapper holds back while the device is suspended must end some day.
TEST(Removal, ASuspendedCacheFailsAndIsResumedToAnswerWithErrors)
{
    for (const bool noflush : {false, true}) {
        Rig rig;
        rig.start();
        rig.write_pattern(0, 64u << 10);
        rig.suspend(noflush);
        rig.media.take_away();
        ASSERT_TRUE(fails_then(rig)) << rig.status();
        std::atomic<u64> fences{0};
        rig.world.set_fence_hook([&] { fences++; });
        for (unsigned i = 0; i < 2; i++) { // it may be suspended again
            ASSERT_EQ(rig.resume(), 0) << rig.last_error();
            EXPECT_TRUE(rig.world.said("resumed, but the cache has failed"));
            all_ends_with_errors(rig);
            rig.suspend(noflush);
        }
        rig.destroy();
        rig.world.set_fence_hook(nullptr);
        EXPECT_EQ(fences, 0u) << "something was stored on a device that is going";
    }
}

// Failed for another reason, by the suspend itself.
TEST(Removal, ACacheThatFailedInASuspendIsResumedToAnswerWithErrors)
{
    Rig rig;
    rig.start();
    rig.write_pattern(0, 64u << 10);
    rig.backing.set_hook([](Op op, u64, u64) { return op == Op::flush ? -5 : 0; });
    rig.suspend();
    ASSERT_EQ(rig.status(), "Fail");
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    all_ends_with_errors(rig);
    rig.suspend();
    EXPECT_EQ(rig.resume(), 0);
    rig.suspend();
    rig.backing.set_hook(nullptr);
    rig.destroy();
    rig.start();
    rig.check("what was flushed is there at the next activation");
}

TEST(Removal, ATableThatIsLoadedWhenItsDeviceGoesIsNotActivated)
{
    Rig rig;
    ASSERT_EQ(rig.create(), 0) << rig.sentence;
    rig.media.take_away();
    EXPECT_EQ(rig.resume(), -19);
    EXPECT_EQ(rig.status(), "Inactive");
    rig.destroy();
    ASSERT_EQ(rig.create(), 0) << rig.sentence; // opened on its way out
    EXPECT_EQ(rig.resume(), -19);
}

// The notice at any time of a life: activation, service, suspend, resume, removal.
TEST(Removal, TheNoticeMayComeAtAnyTime)
{
    for (unsigned life = 0; life < 48 / life_step; life++) {
        Rig rig;
        std::thread taker([&] {
            std::this_thread::sleep_for(std::chrono::microseconds(life * 250));
            rig.media.take_away();
        });
        bool live = rig.create() == 0 && rig.resume() == 0;
        for (unsigned i = 0; i < 8 && live; i++) {
            (void)rig.try_write(i * 8192, Image(8192));
            (void)rig.flush();
            rig.suspend();
            live = rig.resume() == 0;
        }
        taker.join();
        if (live) {
            ASSERT_TRUE(fails_then(rig)) << "life " << life << ": " << rig.status();
        }
    }
}

// New threads need memory, and memory may wait for this device.
TEST(Removal, ActivationAndResumeMakeNoThreads)
{
    Rig rig;
    ASSERT_EQ(rig.create(), 0) << rig.sentence;
    const u64 made = World::queues_made();
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    rig.suspend();
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    EXPECT_EQ(World::queues_made(), made);
}
