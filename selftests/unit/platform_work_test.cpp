// SPDX-License-Identifier: GPL-2.0
// selftests/unit/platform_work_test.cpp - works, events, epochs, locks and CPUs of the user-space
// platform, through the objects of sync.hpp.
#include <gtest/gtest.h>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>
#include "dm-pcache/sync.hpp"
#include "selftests/unit/fixture.hpp"

namespace pcache::selftest
{
namespace
{

constexpr u64 ms = 1000000;
constinit LockClass test_class{"test"};

// A gate that a work waits at, so that the test decides when it goes on.
class Gate
{
    std::mutex lock_;
    std::condition_variable changed_;
    bool open_ = false;

public:
    void open()
    {
        std::lock_guard<std::mutex> g(lock_);
        open_ = true;
        changed_.notify_all();
    }
    void wait()
    {
        std::unique_lock<std::mutex> g(lock_);
        changed_.wait(g, [this] { return open_; });
    }
};

struct Job {
    Work work;
    std::function<void()> body;
    Job(pc_queue *q, std::function<void()> b) : body(std::move(b))
    {
        work.init(
            q, [](void *c) { static_cast<Job *>(c)->body(); }, this);
    }
};

class WorkTest : public WorldTest
{
protected:
    pc_queue *queue = pc_queue_create("test");
    void TearDown() override
    {
        pc_queue_destroy(queue);
        WorldTest::TearDown();
    }
};

TEST_F(WorkTest, DestroyingTheQueueRunsWhatWasKicked)
{
    std::atomic<int> runs{0};
    Job a(queue, [&] { ++runs; }), b(queue, [&] { ++runs; });
    a.work.kick();
    b.work.kick();
    pc_queue_destroy(queue);
    queue = nullptr; // null is fine for destroy
    EXPECT_EQ(runs, 2);
}

TEST_F(WorkTest, KickedWhilePendingRunsOnce)
{
    std::atomic<int> runs{0};
    Gate ran;
    Job a(queue, [&] {
        ++runs;
        ran.open();
    });
    a.work.kick_after(100 * ms);
    a.work.kick_after(110 * ms);
    ran.wait();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    a.work.stop();
    EXPECT_EQ(runs, 1);
}

TEST_F(WorkTest, KickedWhileRunningRunsAgainButNeverTwiceAtOnce)
{
    std::atomic<int> runs{0}, inside{0};
    Gate entered, go;
    Job a(queue, [&] {
        EXPECT_EQ(++inside, 1);
        if (++runs == 1) {
            entered.open();
            go.wait();
        }
        --inside;
    });
    a.work.kick();
    entered.wait();
    a.work.kick(); // while it runs
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    EXPECT_EQ(runs, 1);
    go.open();
    pc_queue_destroy(queue);
    queue = nullptr;
    EXPECT_EQ(runs, 2);
}

TEST_F(WorkTest, StopWaitsForTheEndOfARun)
{
    Gate entered;
    std::atomic<bool> ended{false};
    Job a(queue, [&] {
        entered.open();
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        ended = true;
    });
    a.work.kick();
    entered.wait();
    a.work.stop();
    EXPECT_TRUE(ended);
}

TEST_F(WorkTest, AFrozenQueueBeginsNothingAndForgetsNothing)
{
    std::atomic<int> runs{0}, late{0};
    Job a(queue, [&] { ++runs; }), b(queue, [&] { ++late; }), c(queue, [&] { ++runs; });
    b.work.kick_after(10 * ms);
    pc_queue_freeze(queue);
    ASSERT_TRUE(pc_queue_frozen(queue));
    a.work.kick();
    a.work.kick();
    c.work.kick();
    c.work.stop();
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    EXPECT_EQ(runs, 0);
    EXPECT_EQ(late, 0);
    pc_queue_thaw(queue);
    EXPECT_FALSE(pc_queue_frozen(queue));
    for (int i = 0; i < 1000 && (!runs || !late); i++)
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    EXPECT_EQ(runs, 1) << "twice, or one that was stopped";
    EXPECT_EQ(late, 1);
}

TEST_F(WorkTest, AQueueIsNotFrozenWhileAWorkWaitsForAnother)
{
    Gate entered, second, go;
    std::atomic<bool> ended{false};
    Job b(queue, [&] { second.open(); });
    Job a(queue, [&] {
        entered.open();
        go.wait();
        b.work.kick();
        second.wait();
        ended = true;
    });
    a.work.kick();
    entered.wait();
    pc_queue_freeze(queue);
    EXPECT_FALSE(pc_queue_frozen(queue));
    go.open();
    for (int i = 0; i < 1000 && !pc_queue_frozen(queue); i++)
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    EXPECT_TRUE(pc_queue_frozen(queue));
    EXPECT_TRUE(ended);
    a.work.kick();
    pc_queue_destroy(queue); // thaws
    queue = nullptr;
}

TEST_F(WorkTest, StopCancelsWhatHasNotBegun)
{
    std::atomic<int> runs{0};
    Job a(queue, [&] { ++runs; });
    a.work.kick_after(10000 * ms);
    a.work.stop();
    EXPECT_EQ(runs, 0);
    a.work.kick(); // and it can be used again
    pc_queue_destroy(queue);
    queue = nullptr;
    EXPECT_EQ(runs, 1);
}

TEST_F(WorkTest, StopEndsAWorkThatKicksItself)
{
    std::atomic<int> runs{0};
    Gate entered;
    Job *self = nullptr;
    Job a(queue, [&] {
        ++runs;
        entered.open();
        self->work.kick();
    });
    self = &a;
    a.work.kick();
    entered.wait();
    a.work.stop();
    int at_stop = runs;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    EXPECT_EQ(runs, at_stop);
}

TEST_F(WorkTest, AKickOvertakesADelay)
{
    Gate ran;
    Job a(queue, [&] { ran.open(); });
    u64 before = pc_now_ns();
    a.work.kick_after(60000 * ms);
    a.work.kick();
    ran.wait();
    EXPECT_LT(pc_now_ns() - before, 30000 * ms);
    a.work.stop();
}

TEST_F(WorkTest, ADelayIsKept)
{
    std::atomic<u64> when{0};
    Gate ran;
    Job a(queue, [&] {
        when = pc_now_ns();
        ran.open();
    });
    u64 before = pc_now_ns();
    a.work.kick_after(15 * ms);
    ran.wait();
    EXPECT_GE(when - before, 15 * ms);
    a.work.stop();
}

TEST_F(WorkTest, AWorkMayWaitForAnotherOneOfItsQueue)
{
    Gate first;
    Job b(queue, [&] { first.open(); });
    Job a(queue, [&] {
        b.work.kick();
        first.wait();
    });
    a.work.kick();
    pc_queue_destroy(queue); // would hang
    queue = nullptr;
}

TEST_F(WorkTest, AWorkMayFreeItself)
{
    Job *a = nullptr;
    a = new Job(queue, [&a] { delete a; });
    a->work.kick();
    pc_queue_destroy(queue);
    queue = nullptr;
}

using WorkDeathTest = WorkTest;

TEST_F(WorkDeathTest, AQueueIsNotDestroyedWhileADelayRuns)
{
    Job a(queue, [] {});
    EXPECT_DEATH(
        {
            a.work.kick_after(60000 * ms);
            pc_queue_destroy(queue);
        },
        "delayed work");
}

// ---- events ----

TEST_F(WorldTest, AWaitLooksAtItsConditionFirst)
{
    Event e;
    int looked = 0;
    e.wait([&] {
        ++looked;
        return true;
    });
    EXPECT_EQ(looked, 1);
}

TEST_F(WorldTest, AWakeBetweenLookAndSleepIsNotLost)
{
    // The condition itself makes the other side act, so the wake falls between look and sleep.
    for (int round = 0; round < 200; ++round) {
        Event e;
        std::atomic<bool> done{false};
        std::thread other;
        e.wait([&] {
            if (!other.joinable())
                other = std::thread([&] {
                    done = true;
                    e.wake();
                });
            return done.load();
        });
        other.join();
    }
}

TEST_F(WorldTest, AWakeReachesAllWaiters)
{
    Event e;
    std::atomic<bool> go{false};
    std::vector<std::thread> waiters;
    for (int i = 0; i < 4; ++i)
        waiters.emplace_back([&] { e.wait([&] { return go.load(); }); });
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    go = true;
    e.wake();
    for (auto &w : waiters)
        w.join();
}

TEST_F(WorldTest, AnInterruptibleWaitEndsLikeAnotherWithoutASignal)
{
    Event e;
    Signal mine; // makes no difference as long as it is not sent
    std::atomic<bool> done{false};
    std::thread other([&] {
        done = true;
        e.wake();
    });
    EXPECT_EQ(e.wait_interruptible([&] { return done.load(); }), rt::Error::none);
    other.join();
}

TEST_F(WorldTest, ASignalEndsAnInterruptibleWaitWhereverItFalls)
{
    for (int round = 0; round < 200; ++round) {
        Event e;
        Signal mine;
        std::thread other;
        EXPECT_EQ(e.wait_interruptible([&] {
            if (!other.joinable())
                other = std::thread([&] { mine.send(); });
            if (round % 2)
                std::this_thread::yield();
            return false;
        }),
                  rt::Error::interrupted);
        other.join();
    }
}

TEST_F(WorldTest, AConditionThatHoldsWinsOverASignal)
{
    Event e;
    Signal mine;
    mine.send();
    EXPECT_EQ(e.wait_interruptible([] { return true; }), rt::Error::none);
    EXPECT_EQ(e.wait_interruptible([] { return false; }), rt::Error::interrupted);
}

TEST_F(WorldTest, ASignalEndsNoOtherWait)
{
    Event e;
    Signal mine;
    mine.send();
    std::atomic<bool> done{false};
    std::thread other([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
        done = true;
        e.wake();
    });
    e.wait([&] { return done.load(); });
    EXPECT_TRUE(done);
    other.join();
}

TEST(EventDeathTest, AWorkMustNotWaitInterruptibly)
{
    EXPECT_DEATH(
        {
            pc_queue *queue = pc_queue_create("test");
            Job a(queue, [] {
                Event e;
                (void)e.wait_interruptible([] { return true; });
            });
            a.work.kick();
            pc_queue_destroy(queue);
        },
        "interruptible wait in a work");
}

TEST(EventDeathTest, AConditionMustNotSleep)
{
    Mutex m(test_class);
    Event e;
    EXPECT_DEATH(e.wait([&] {
        m.lock();
        return true;
    }),
                 "may sleep");
}

// ---- epochs ----

TEST_F(WorldTest, AnEpochWaitLastsUntilEarlierReadersHaveLeft)
{
    Gate inside, leave;
    std::atomic<bool> left{false};
    std::thread reader([&] {
        EpochGuard g;
        inside.open();
        leave.wait();
        left = true;
    });
    inside.wait();
    std::atomic<bool> waited{false};
    std::thread waiter([&] {
        pc_epoch_wait();
        EXPECT_TRUE(left);
        waited = true;
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    EXPECT_FALSE(waited);
    {
        EpochGuard later; // a reader that comes later neither blocks nor is waited for
        leave.open();
        waiter.join();
        EXPECT_TRUE(waited);
    }
    reader.join();
}

TEST_F(WorldTest, EpochsNest)
{
    Gate inside, leave;
    std::thread reader([&] {
        EpochGuard a;
        {
            EpochGuard b;
        }
        inside.open();
        leave.wait();
    });
    inside.wait();
    std::atomic<bool> waited{false};
    std::thread waiter([&] {
        pc_epoch_wait();
        waited = true;
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    EXPECT_FALSE(waited); // the inner exit has not ended the epoch
    leave.open();
    waiter.join();
    reader.join();
}

TEST_F(WorldTest, WhatWasUnlinkedBeforeAnEpochWaitCanBeFreedAfterIt)
{
    std::atomic<int *> shared{new int(1)};
    std::atomic<bool> stop{false};
    std::vector<std::thread> readers;
    for (int i = 0; i < 2; ++i)
        readers.emplace_back([&] {
            while (!stop) {
                EpochGuard g;
                EXPECT_GE(*shared.load(std::memory_order_acquire), 1); // ASan sees a freed one
            }
        });
    for (int i = 2; i < 100; ++i) {
        int *old = shared.exchange(new int(i));
        pc_epoch_wait();
        *old = -1;
        delete old;
    }
    stop = true;
    for (auto &r : readers)
        r.join();
    delete shared.load();
}

// ---- locks ----

TEST_F(WorldTest, LocksExcludeEachOther)
{
    SpinLock spin(test_class);
    Mutex mutex(test_class);
    int a = 0, b = 0; // ThreadSanitizer watches
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t)
        threads.emplace_back([&] {
            for (int i = 0; i < 500; ++i) {
                {
                    rt::Guard g(spin);
                    ++a;
                }
                rt::Guard g(mutex);
                ++b;
            }
        });
    for (auto &t : threads)
        t.join();
    EXPECT_EQ(a, 1500);
    EXPECT_EQ(b, 1500);
}

TEST(LockDeathTest, NothingSleepsUnderASpinlockOrInAnEpoch)
{
    SpinLock spin(test_class);
    Mutex mutex(test_class);
    EXPECT_DEATH(
        {
            spin.lock();
            mutex.lock();
        },
        "may sleep");
    EXPECT_DEATH(
        {
            EpochGuard g;
            pc_epoch_wait();
        },
        "may sleep");
    EXPECT_DEATH(
        {
            MustNotSleep n;
            (void)pc_alloc(8, PC_MAY_SLEEP);
        },
        "may sleep");
}

TEST(LockDeathTest, TakenTwiceIsAnErrorAndNotAHang)
{
    SpinLock spin(test_class);
    EXPECT_DEATH(
        {
            spin.lock();
            spin.lock();
        },
        "taken by the thread that holds it");
}

TEST(LockDeathTest, AnEpochIsNotLeftTwice)
{
    EXPECT_DEATH(pc_epoch_exit(), "not entered");
}

// ---- CPUs ----

TEST_F(WorldTest, ThreadsPinnedAtOneTimeAreOnDifferentCpus)
{
    world.set_cpus(3);
    std::mutex lock;
    std::vector<u32> seen;
    Gate all;
    std::vector<std::thread> threads;
    for (int i = 0; i < 3; ++i)
        threads.emplace_back([&] {
            pc_cpu_pin();
            {
                std::lock_guard<std::mutex> g(lock);
                seen.push_back(pc_cpu());
                if (seen.size() == 3)
                    all.open();
            }
            all.wait();
            pc_cpu_unpin();
        });
    for (auto &t : threads)
        t.join();
    std::sort(seen.begin(), seen.end());
    EXPECT_EQ(seen, (std::vector<u32>{0, 1, 2}));
    EXPECT_EQ(pc_cpus(), 3u);
}

TEST_F(WorldTest, AThreadRunsWhereItIsPut)
{
    OnCpu here(5);
    EXPECT_EQ(pc_cpu(), 5u);
    pc_cpu_pin();
    pc_cpu_pin();
    EXPECT_EQ(pc_cpu(), 5u);
    pc_cpu_unpin();
    pc_cpu_unpin();
}

TEST(CpuDeathTest, UnpinNeedsAPin)
{
    EXPECT_DEATH(pc_cpu_unpin(), "unpin without pin");
}

} // namespace
} // namespace pcache::selftest
