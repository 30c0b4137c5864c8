// SPDX-License-Identifier: GPL-2.0
// The machine is suspended or hibernated (engine/sleep.cpp, target/sleep.cpp): the workers of all
// caches go to sleep and wake up, whatever they were at, and nothing is lost by it; an image is
// only taken of caches that are suspended. What the kernel's freezer does is played by the test.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include "damage_rig.hpp"

using namespace pcache::selftest;
using pcache::format::geometry;
using namespace std::chrono_literals;

namespace
{

template <class Condition>
bool comes_true(Condition condition)
{
    for (int i = 0; i < 2000 && !condition(); i++)
        std::this_thread::sleep_for(5ms);
    return condition();
}

// As kernel/pm.c does it. False: the workers did not come to an end within ten seconds.
bool fall_asleep()
{
    pc_target_fall_asleep();
    return comes_true([] { return pc_target_asleep() != 0; });
}

// The devices, watched: nothing may be stored on one, nor sent to the other.
struct Watch {
    explicit Watch(Rig &r) : rig(r), before(r.backing.counters())
    {
        rig.world.set_fence_hook([this] { fences++; });
    }
    ~Watch() { rig.world.set_fence_hook(nullptr); }
    void expect_quiet(const char *when)
    {
        const BackingDevice::Counters now = rig.backing.counters();
        EXPECT_EQ(fences, 0u) << when << ": something was stored on the cache device";
        EXPECT_EQ(now.reads, before.reads) << when;
        EXPECT_EQ(now.writes, before.writes) << when;
        EXPECT_EQ(now.flushes, before.flushes) << when;
    }
    Rig &rig;
    BackingDevice::Counters before;
    std::atomic<u64> fences{0};
};

// Writers that keep a cache full; each has a part of the device.
struct Load {
    Load(Rig &r, u32 writers) : rig(r)
    {
        for (u32 i = 0; i < writers; i++)
            threads.emplace_back([this, i, writers] { write(i, writers); });
    }
    ~Load()
    {
        stop = true;
        for (std::thread &t : threads)
            t.join();
        EXPECT_EQ(errors, 0);
    }
    void write(u32 me, u32 writers)
    {
        const u64 share = rig.backing.bytes() / writers, base = me * share;
        std::mt19937_64 rng(me);
        for (u64 version = 1; !stop; version++) {
            const u64 at = base + rng() % (share / 16384) * 16384;
            errors += rig.try_write(at, Rig::pattern(at, 16384, version), version % 16 == 0) != 0;
            done++;
        }
    }
    bool goes_on()
    {
        const u64 before = done;
        return comes_true([&] { return done > before + 4 * threads.size(); });
    }
    Rig &rig;
    std::atomic<bool> stop{false};
    std::atomic<int> errors{0};
    std::atomic<u64> done{0};
    std::vector<std::thread> threads;
};

u64 cache_bytes()
{
    return u64{geometry.min_segments} * geometry.segment_bytes;
}

} // namespace

// ---- suspend ------------------------------------------------------------------------------------

TEST(Sleep, NothingTouchesEitherDeviceAndAllGoesOnBehindIt)
{
    Rig rig;
    rig.start();
    rig.write_pattern(0, 256u << 10);
    ASSERT_TRUE(fall_asleep());
    // By a thread that nobody freezes: it is staged, for a worker to log.
    rig.write_pattern(512u << 10, 4096);
    {
        Watch watch(rig);
        std::this_thread::sleep_for(1500ms); // idleness, and the age of staged keys
        watch.expect_quiet("asleep");
    }
    pc_target_wake_up();
    EXPECT_TRUE(comes_true([&] { return rig.backing.counters().written_bytes >= 256u << 10; }))
        << "nobody writes back";
    rig.check("awake");
}

TEST(Sleep, NothingTouchesEitherDeviceUnderALoadThatWaits)
{
    if (!small_world)
        GTEST_SKIP() << "fills a cache";
    Rig rig(geometry.min_segments, 4 * cache_bytes());
    rig.backing.set_delay_ns(Op::write, 300'000);
    rig.start();
    {
        Load load(rig, 4);
        for (int round = 0; round < 10; round++) {
            ASSERT_TRUE(load.goes_on()) << "round " << round;
            ASSERT_TRUE(fall_asleep()) << "round " << round;
            // What comes in now, finds space and needs nobody is stored; the writers soon wait.
            EXPECT_TRUE(comes_true([&] {
                const u64 before = load.done;
                std::this_thread::sleep_for(50ms);
                return load.done == before;
            })) << "four writers, and a cache of "
                << cache_bytes();
            {
                Watch watch(rig);
                std::this_thread::sleep_for(150ms);
                watch.expect_quiet("full");
            }
            EXPECT_TRUE(pc_target_asleep());
            pc_target_wake_up();
        }
        EXPECT_TRUE(load.goes_on());
    }
    rig.remove();
}

// A work that another one kicks begins while that one still runs, each time: there must be an end
// to it, else the queue is never quiet. Write-back is halted, and the cache full.
TEST(Sleep, NoTwoWorkersKeepEachOtherAwake)
{
    if (!small_world)
        GTEST_SKIP() << "fills a cache";
    Rig rig(geometry.min_segments, 4 * cache_bytes());
    rig.start();
    rig.backing.hold_writes(true);
    {
        Load load(rig, 4);
        EXPECT_TRUE(comes_true([&] {
            const u64 before = load.done;
            std::this_thread::sleep_for(300ms);
            return load.done == before;
        })) << "the cache does not become full";
        rig.world.set_work_delay_ns(20'000'000);
        pc_target_fall_asleep();
        rig.backing.hold_writes(false);
        EXPECT_TRUE(fall_asleep()) << "works kick each other without end";
        pc_target_wake_up();
        rig.world.set_work_delay_ns(0);
        EXPECT_TRUE(load.goes_on());
    }
    rig.remove();
}

TEST(Sleep, WhoWaitsForAWorkerIsKnown)
{
    if (!small_world)
        GTEST_SKIP() << "fills a cache";
    Rig rig(geometry.min_segments, 4 * cache_bytes());
    rig.start();
    EXPECT_FALSE(pc_target_requests_wait());
    rig.backing.hold_writes(true);
    {
        Load load(rig, 2);
        EXPECT_TRUE(comes_true([] { return pc_target_requests_wait() != 0; }));
        load.stop = true;
        rig.backing.hold_writes(false);
    }
    EXPECT_TRUE(comes_true([] { return !pc_target_requests_wait(); }));
    rig.backing.hold_reads(true);
    Bio bio(4096);
    if (rig.map(bio, {PC_READ, rig.backing.bytes() - 4096, 4096, 0, 0}) == PC_TAKEN) {
        EXPECT_TRUE(bio.ended() || pc_target_requests_wait()) << "a miss that is being read";
        rig.backing.hold_reads(false);
        EXPECT_EQ(bio.wait(), 0);
    }
}

// As long as the disk takes for what it has; what else the batch has is not sent.
TEST(Sleep, ABatchInHandEndsWithWhatIsInFlight)
{
    Rig rig(small_world ? 64 : geometry.min_segments);
    rig.start();
    rig.backing.hold_writes(true);
    // Each of them a write of its own, and more than are in flight at once.
    const u64 step = 8192, pieces = 400;
    for (u64 i = 0; i < pieces; i++)
        rig.write_pattern(i * step, 4096);
    ASSERT_TRUE(comes_true([&] { return rig.backing.counters().writes_in_flight >= 16; }));
    std::this_thread::sleep_for(200ms);
    const u64 sent = rig.backing.counters().writes_in_flight;
    ASSERT_LT(sent, pieces) << "all of the batch is in flight: it says nothing";
    pc_target_fall_asleep();
    std::this_thread::sleep_for(50ms);
    EXPECT_FALSE(pc_target_asleep()) << "it does not wait for what is in flight";
    rig.backing.hold_writes(false);
    ASSERT_TRUE(comes_true([] { return pc_target_asleep() != 0; }));
    EXPECT_LE(rig.backing.counters().written_bytes, (sent + 1) * 4096) << "sent behind it";
    pc_target_wake_up();
    EXPECT_TRUE(comes_true([&] { return rig.backing.counters().written_bytes >= pieces * 4096; }));
    rig.check("awake");
}

TEST(Sleep, RequestsThatNeedNobodyAreServed)
{
    Rig rig;
    rig.start();
    rig.write_pattern(0, 65536);
    ASSERT_TRUE(fall_asleep());
    rig.write_pattern(32768, 65536);
    ASSERT_EQ(rig.flush(), 0);
    rig.write_pattern(8192, 4096, true);
    const Image got = rig.read(8192, 4096);
    EXPECT_EQ(std::memcmp(got.data(), &rig.model[8192], 4096), 0);
    pc_target_wake_up();
    rig.check("awake");
}

// Everything that was flushed is there when the machine does not wake up.
TEST(Sleep, ItMayBecomeAPowerCut)
{
    Rig rig;
    rig.media.set_power_model(true);
    rig.backing.set_write_cache(true);
    Rng rng(7);
    rig.start();
    for (u64 at = 0; at < rig.backing.bytes(); at += 128u << 10)
        rig.write_pattern(at, 65536);
    ASSERT_EQ(rig.flush(), 0);
    ASSERT_TRUE(fall_asleep());
    rig.power_cut(rng);
    rig.start();
    rig.check("behind the cut");
}

TEST(Sleep, ARemovalBesideASuspendThatFailsWaitsForNobody)
{
    Rig rig;
    rig.start();
    rig.write_pattern(0, 1u << 20);
    ASSERT_TRUE(fall_asleep());
    rig.remove(); // the thread that shall wake it up is late
    pc_target_wake_up();
    rig.start();
    rig.check("in its next life");
}

TEST(Sleep, ASuspendedDeviceSleepsAndStaysSuspended)
{
    Rig rig;
    rig.start();
    rig.write_pattern(0, 1u << 20);
    rig.suspend();
    Watch watch(rig);
    ASSERT_TRUE(fall_asleep());
    pc_target_wake_up();
    std::this_thread::sleep_for(300ms);
    watch.expect_quiet("suspended");
    rig.world.set_fence_hook(nullptr);
    ASSERT_EQ(rig.resume(), 0);
    EXPECT_TRUE(comes_true([&] { return rig.backing.counters().written_bytes >= 1u << 20; }));
    rig.check("after the resume");
}

// It has no workers while it is being made, and is told once only.
TEST(Sleep, ACacheThatIsMadeAnewMeanwhileSleepsToo)
{
    DamageRig rig;
    rig.start();
    rig.keep_dirty(true);
    for (u64 i = 0; i < 8; i++)
        rig.write_record(i * 4096, 4096);
    rig.stop(false);
    rig.poison_record(4);
    rig.start();
    rig.keep_dirty(false);
    ASSERT_TRUE(rig.read_only()) << rig.status();
    std::atomic<bool> made{false}, told{false};
    rig.world.set_fence_hook([&] {
        if (made || !rig.world.said("formatted the cache device anew"))
            return;
        made = true;
        while (!told)
            std::this_thread::sleep_for(1ms);
    });
    std::thread suspend([&] {
        EXPECT_TRUE(comes_true([&] { return made.load(); }));
        pc_target_fall_asleep();
        EXPECT_FALSE(pc_target_asleep()) << "it is being stored to";
        told = true;
    });
    EXPECT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    suspend.join();
    rig.world.set_fence_hook(nullptr);
    EXPECT_TRUE(comes_true([] { return pc_target_asleep() != 0; }));
    {
        Watch watch(rig);
        std::this_thread::sleep_for(300ms); // a spare would be zeroed
        watch.expect_quiet("made anew");
    }
    pc_target_wake_up();
}

TEST(Sleep, IsNothingWhereNoCacheIsActive)
{
    Rig rig;
    EXPECT_FALSE(pc_target_requests_wait());
    EXPECT_TRUE(fall_asleep());
    pc_target_wake_up();
    ASSERT_EQ(rig.create(), 0);
    EXPECT_TRUE(fall_asleep());
    pc_target_wake_up();
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
}

// ---- hibernation
// ----------------------------------------------------------------------------------

TEST(Sleep, HibernationIsRefusedWhileACacheIsActive)
{
    Rig rig;
    EXPECT_EQ(pc_target_hibernate(0), 0);
    pc_target_hibernation_over();
    rig.start();
    EXPECT_EQ(pc_target_hibernate(0), -16);
    EXPECT_TRUE(rig.world.said("hibernation is refused"));
    const std::vector<LogLine> log = rig.world.log();
    EXPECT_TRUE(std::any_of(log.begin(), log.end(), [](const LogLine &l) {
        return l.level == PC_ERR && l.device.find("pcache") != l.device.npos &&
               l.text.find("hibernation is refused") != l.text.npos;
    })) << "no line names the device";
    rig.write_pattern(0, 65536);
    rig.suspend();
    EXPECT_EQ(pc_target_hibernate(0), 0);
    pc_target_hibernation_over();
    ASSERT_EQ(rig.resume(), 0) << "refused once hibernation was over: " << rig.last_error();
    EXPECT_EQ(pc_target_hibernate(0), -16);
    rig.check("after all that");
    ASSERT_EQ(rig.flush(), 0);
    rig.suspend();
    ASSERT_EQ(rig.resume(), 0) << "a refused hibernation forbids nothing";
}

TEST(Sleep, HibernationIsRefusedBetweenTheTwoHalvesOfASuspend)
{
    Rig rig;
    rig.start();
    pc_target_presuspend(rig.target, 0);
    EXPECT_EQ(pc_target_hibernate(0), -16);
    pc_target_postsuspend(rig.target);
    EXPECT_EQ(pc_target_hibernate(0), 0);
    pc_target_hibernation_over();
}

TEST(Sleep, NoCacheIsActivatedDuringHibernation)
{
    Rig rig;
    rig.start();
    rig.write_pattern(0, 65536);
    rig.suspend();
    ASSERT_EQ(pc_target_hibernate(0), 0);
    Watch watch(rig);
    EXPECT_EQ(rig.resume(), -16);
    EXPECT_TRUE(rig.world.said("is being hibernated"));
    watch.expect_quiet("hibernated");
    rig.world.set_fence_hook(nullptr);
    pc_target_hibernation_over();
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    rig.check("after the hibernation");
    rig.remove();
    ASSERT_EQ(rig.create(), 0);
    ASSERT_EQ(pc_target_hibernate(0), 0) << "a table that was never active";
    EXPECT_EQ(rig.resume(), -16);
    pc_target_hibernation_over();
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
}

// The system that is to be restored knows an older state of the cache than this one.
TEST(Sleep, NothingIsRestoredOverAnActiveCache)
{
    Rig rig;
    EXPECT_EQ(pc_target_hibernate(1), 0);
    pc_target_hibernation_over();
    rig.start();
    EXPECT_EQ(pc_target_hibernate(1), -16);
    EXPECT_TRUE(rig.world.said("no hibernated system is restored"));
    rig.suspend();
    EXPECT_EQ(pc_target_hibernate(1), -16) << "suspended: it has stored all the same";
    rig.remove();
    EXPECT_EQ(pc_target_hibernate(1), 0);
    pc_target_hibernation_over();
}
