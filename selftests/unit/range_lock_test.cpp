// SPDX-License-Identifier: GPL-2.0
// Tests of the lock over ranges of the backing device. One property a test, named after it.
#include <gtest/gtest.h>
#include <atomic>
#include <random>
#include <thread>
#include "dm-pcache/engine/range_lock.hpp"
#include "selftests/unit/fixture.hpp"

using namespace pcache::selftest;
using pcache::engine::RangeLock;

namespace
{
class RangeLockTest : public WorldTest
{
};

// A range whose grant is noted in a list of names.
struct Named : RangeLock::Range {
    Named(char n, u64 from, u64 to, std::string *l) : name(n), list(l)
    {
        first = from;
        end = to;
        granted = [](Range &r) noexcept {
            auto &n = static_cast<Named &>(r);
            *n.list += n.name;
        };
    }
    char name;
    std::string *list;
};
} // namespace

TEST_F(RangeLockTest, RangesThatDoNotOverlapAreHeldTogether)
{
    RangeLock lock;
    std::string told;
    Named a('a', 0, 8, &told), b('b', 8, 16, &told), c('c', 100, 101, &told);
    EXPECT_TRUE(lock.lock(a));
    EXPECT_TRUE(lock.lock(b)) << "they only touch";
    EXPECT_TRUE(lock.lock(c));
    lock.unlock(b);
    lock.unlock(a);
    lock.unlock(c);
    EXPECT_EQ(told, "") << "told of a grant that it had at once";
}

TEST_F(RangeLockTest, AnOverlappingRangeIsToldWhenItsTurnComes)
{
    RangeLock lock;
    std::string told;
    Named a('a', 0, 8, &told), b('b', 7, 9, &told);
    EXPECT_TRUE(lock.lock(a));
    EXPECT_FALSE(lock.lock(b));
    EXPECT_EQ(told, "");
    lock.unlock(a);
    EXPECT_EQ(told, "b");
    lock.unlock(b);
}

TEST_F(RangeLockTest, WaitersThatOverlapAreLetInInTheOrderInWhichTheyCame)
{
    RangeLock lock;
    std::string told;
    Named a('a', 0, 8, &told), b('b', 0, 8, &told), c('c', 4, 12, &told), d('d', 0, 1, &told);
    EXPECT_TRUE(lock.lock(a));
    EXPECT_FALSE(lock.lock(b));
    EXPECT_FALSE(lock.lock(c));
    EXPECT_FALSE(lock.lock(d));
    lock.unlock(a);
    EXPECT_EQ(told, "b");
    lock.unlock(b);
    EXPECT_EQ(told, "bcd") << "c and d do not overlap: both were waiting for b";
    lock.unlock(c);
    lock.unlock(d);
}

TEST_F(RangeLockTest, AWideRangeIsNotOvertakenByNarrowOnesThatCameLater)
{
    RangeLock lock;
    std::string told;
    Named a('a', 0, 8, &told), wide('w', 0, 100, &told), late('l', 50, 51, &told);
    EXPECT_TRUE(lock.lock(a));
    EXPECT_FALSE(lock.lock(wide));
    EXPECT_FALSE(lock.lock(late)) << "free, but behind one that waits for it";
    lock.unlock(a);
    EXPECT_EQ(told, "w");
    lock.unlock(wide);
    EXPECT_EQ(told, "wl");
    lock.unlock(late);
}

TEST_F(RangeLockTest, AGrantedRangeMayUnlockItselfWhereItIsTold)
{
    RangeLock lock;
    struct Short : RangeLock::Range {
        RangeLock *lock = nullptr;
        int times = 0;
    } b, c;
    for (Short *s : {&b, &c}) {
        s->end = 8;
        s->lock = &lock;
        s->granted = [](RangeLock::Range &r) noexcept {
            auto &me = static_cast<Short &>(r);
            me.times++;
            me.lock->unlock(me);
        };
    }
    RangeLock::Range a;
    a.end = 8;
    EXPECT_TRUE(lock.lock(a));
    EXPECT_FALSE(lock.lock(b));
    EXPECT_FALSE(lock.lock(c));
    lock.unlock(a);
    EXPECT_EQ(b.times, 1);
    EXPECT_EQ(c.times, 1);
    EXPECT_TRUE(lock.lock(a));
    lock.unlock(a);
}

TEST_F(RangeLockTest, ThreadsNeverHoldOneSectorTogether)
{
    RangeLock lock;
    constexpr u64 sectors = 32;
    std::atomic<int> holders[sectors] = {};
    std::vector<std::thread> all;
    for (unsigned t = 0; t < 4; t++)
        all.emplace_back([&, t] {
            std::mt19937_64 rng(t);
            for (int i = 0; i < 2000; i++) {
                RangeLock::Range r;
                r.first = rng() % sectors;
                r.end = r.first + 1 + rng() % (sectors - r.first);
                lock.lock_sleeping(r);
                for (u64 s = r.first; s < r.end; s++)
                    ASSERT_EQ(holders[s].fetch_add(1), 0) << "sector " << s;
                for (u64 s = r.first; s < r.end; s++)
                    holders[s].fetch_sub(1);
                lock.unlock(r);
            }
        });
    for (std::thread &t : all)
        t.join();
}
