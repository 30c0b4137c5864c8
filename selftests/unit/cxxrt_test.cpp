// SPDX-License-Identifier: GPL-2.0
// selftests/unit/cxxrt_test.cpp - base, Result, Span, Guard, Locked, Queue and Atomic.
#include <gtest/gtest.h>
#include <memory>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>
#include "cxxrt/atomic.hpp"
#include "cxxrt/guard.hpp"
#include "cxxrt/list.hpp"
#include "cxxrt/result.hpp"
#include "cxxrt/span.hpp"

namespace
{

// ---- base ----

TEST(Base, RoundingGoesToTheMultipleAndKeepsMultiples)
{
    EXPECT_EQ(rt::round_up(0u, 8u), 0u);
    EXPECT_EQ(rt::round_up(1u, 8u), 8u);
    EXPECT_EQ(rt::round_up(8u, 8u), 8u);
    EXPECT_EQ(rt::round_down(15u, 8u), 8u);
    EXPECT_EQ(rt::round_down((16ull << 32) | 5, 4096ull), 16ull << 32);
}

TEST(Base, MinMaxAndSwap)
{
    EXPECT_EQ(rt::min(3, 5), 3);
    EXPECT_EQ(rt::min(5, 3), 3);
    EXPECT_EQ(rt::max(3, 5), 5);
    EXPECT_EQ(rt::max(5, 3), 5);
    std::string a = "a", b = "b";
    rt::swap(a, b);
    EXPECT_EQ(a + b, "ba");
}

TEST(Base, ForwardKeepsWhatItIsGiven)
{
    int i = 0;
    static_assert(std::is_same_v<decltype(rt::forward<int &>(i)), int &>);
    static_assert(std::is_same_v<decltype(rt::forward<int>(i)), int &&>);
    static_assert(std::is_same_v<decltype(rt::move(i)), int &&>);
    EXPECT_EQ(rt::forward<int>(i), 0);
}

TEST(Base, ConceptsTellTypesApart)
{
    static_assert(rt::TriviallyCopyable<int> && !rt::TriviallyCopyable<std::string>);
    static_assert(rt::TriviallyDestructible<int> && !rt::TriviallyDestructible<std::string>);
    static_assert(rt::SameAs<int, int> && !rt::SameAs<int, unsigned>);
    static_assert(rt::BaseOf<rt::NonCopyable, rt::Atomic<u32>> && !rt::BaseOf<int, long>);
    static_assert(!std::is_copy_constructible_v<rt::NonCopyable>);
    SUCCEED();
}

TEST(BaseDeathTest, AFailedAssertionNamesPlaceAndExpressionAndEndsTheProgram)
{
    EXPECT_DEATH(RT_ASSERT(1 + 1 == 3), "cxxrt_test.cpp:[0-9]+: assertion failed: 1 \\+ 1 == 3");
}

TEST(Base, AnAssertionThatHoldsEvaluatesOnce)
{
    int n = 0;
    RT_ASSERT(++n == 1);
    EXPECT_EQ(n, 1);
}

// ---- Result ----

struct Counted {
    static int alive;
    int value;
    explicit Counted(int v) : value(v) { ++alive; }
    Counted(Counted &&o) noexcept : value(o.value) { ++alive; }
    Counted(const Counted &) = delete;
    ~Counted() { --alive; }
};
int Counted::alive = 0;

rt::Result<Counted> make(int v)
{
    if (v < 0)
        return rt::Error::invalid;
    return Counted(v);
}

TEST(Result, HoldsEitherAValueOrAnError)
{
    auto good = make(7);
    ASSERT_TRUE(good);
    EXPECT_EQ(good->value, 7);
    EXPECT_EQ((*good).value, 7);
    EXPECT_EQ(good.error(), rt::Error::none);
    auto bad = make(-1);
    EXPECT_FALSE(bad);
    EXPECT_EQ(bad.error(), rt::Error::invalid);
}

TEST(Result, DestroysItsValueOnceAndOnlyIfThereIsOne)
{
    {
        auto a = make(1), b = make(-1);
        auto c = std::move(a);
        EXPECT_EQ(c->value, 1);
        auto d = std::move(b);
        EXPECT_FALSE(d);
        EXPECT_EQ(Counted::alive, 2); // a keeps a moved-from one
        Counted taken = *std::move(c);
        EXPECT_EQ(taken.value, 1);
    }
    EXPECT_EQ(Counted::alive, 0);
}

TEST(Result, OfATrivialTypeIsTrivial)
{
    static_assert(std::is_trivially_destructible_v<rt::Result<u64>>);
    static_assert(std::is_trivially_move_constructible_v<rt::Result<u64>>);
    static_assert(!std::is_copy_constructible_v<rt::Result<u64>>);
    const rt::Result<u64> r = u64{5};
    EXPECT_EQ(*r, 5u);
}

rt::Error tried(rt::Error first, int *reached)
{
    RT_TRY(first);
    ++*reached;
    return rt::Error::none;
}

rt::Result<int> tried_in_result(rt::Error first)
{
    RT_TRY(first);
    return 3;
}

TEST(Result, TryLeavesWithTheErrorAndOnlyThen)
{
    int reached = 0;
    EXPECT_EQ(tried(rt::Error::io, &reached), rt::Error::io);
    EXPECT_EQ(reached, 0);
    EXPECT_EQ(tried(rt::Error::none, &reached), rt::Error::none);
    EXPECT_EQ(reached, 1);
    EXPECT_EQ(tried_in_result(rt::Error::busy).error(), rt::Error::busy);
    EXPECT_EQ(*tried_in_result(rt::Error::none), 3);
}

TEST(Result, ErrorsAreNegativeErrnosAtTheEdge)
{
    EXPECT_EQ(rt::to_errno(rt::Error::none), 0);
    EXPECT_EQ(rt::to_errno(rt::Error::io), -EIO);
    EXPECT_EQ(rt::to_errno(rt::Error::no_memory), -ENOMEM);
    EXPECT_EQ(rt::to_errno(rt::Error::no_space), -ENOSPC);
    EXPECT_EQ(rt::to_errno(rt::Error::not_supported), -EOPNOTSUPP);
    EXPECT_EQ(rt::to_errno(rt::Error::not_permitted), -EPERM);
    EXPECT_EQ(rt::to_errno(rt::Error::again), -EAGAIN);
    EXPECT_EQ(rt::to_errno(rt::Error::busy), -EBUSY);
    EXPECT_EQ(rt::to_errno(rt::Error::exists), -EEXIST);
    EXPECT_EQ(rt::to_errno(rt::Error::no_device), -ENODEV);
    EXPECT_EQ(rt::to_errno(rt::Error::invalid), -EINVAL);
    EXPECT_EQ(rt::to_errno(rt::Error::read_only), -EROFS);
    EXPECT_TRUE(rt::ok(rt::Error::none));
    EXPECT_FALSE(rt::ok(rt::Error::io));
}

TEST(ResultDeathTest, TheValueOfAFailedOneIsAnAssertion)
{
    EXPECT_DEATH(
        {
            auto r = make(-1);
            (void)(*r).value;
        },
        "assertion failed");
    EXPECT_DEATH(
        {
            auto r = make(-1);
            (void)r->value;
        },
        "assertion failed");
}

TEST(ResultDeathTest, ThereIsNoResultWithTheErrorNone)
{
    EXPECT_DEATH((void)rt::Result<int>(rt::Error::none), "assertion failed");
}

// ---- Span ----

TEST(Span, SeesAnArrayAndItsSlices)
{
    int a[] = {1, 2, 3, 4};
    rt::Span<int> s = a;
    EXPECT_EQ(s.size(), 4u);
    EXPECT_EQ(s[3], 4);
    auto m = s.slice(1, 2);
    EXPECT_EQ(m.size(), 2u);
    EXPECT_EQ(m[0], 2);
    int sum = 0;
    for (int v : m)
        sum += v;
    EXPECT_EQ(sum, 5);
    s[0] = 9;
    rt::Span<const int> c = s;
    EXPECT_EQ(c[0], 9);
    EXPECT_TRUE(s.slice(4, 0).empty());
    EXPECT_TRUE(rt::Span<int>().empty());
}

TEST(SpanDeathTest, OutsideIsAnAssertion)
{
    int a[] = {1, 2};
    rt::Span<int> s = a;
    EXPECT_DEATH((void)s[2], "assertion failed");
    EXPECT_DEATH((void)s.slice(1, 2), "assertion failed");
    EXPECT_DEATH((void)s.slice(3, 0), "assertion failed");
    EXPECT_DEATH((void)s.slice(1, ~usize{0}), "assertion failed"); // from + n would wrap
}

// ---- Guard and Locked ----

struct FakeLock {
    int *held;
    explicit FakeLock(int *h) : held(h) {}
    void lock() { ++*held; }
    void unlock() { --*held; }
};

TEST(Guard, HoldsTheLockForItsScope)
{
    int held = 0;
    FakeLock l(&held);
    {
        rt::Guard g(l);
        EXPECT_EQ(held, 1);
    }
    EXPECT_EQ(held, 0);
}

TEST(Locked, GivesAccessOnlyWithTheLockHeld)
{
    struct Data {
        int n = 5;
    };
    int held = 0;
    rt::Locked<Data, FakeLock> x(&held);
    {
        auto a = x.lock();
        EXPECT_EQ(held, 1);
        EXPECT_EQ(a->n, 5);
        (*a).n = 6;
    }
    EXPECT_EQ(held, 0);
    EXPECT_EQ(x.lock()->n, 6);
    EXPECT_EQ(held, 0);
}

// ---- Queue ----

struct Item {
    int value;
    rt::Link<Item> link{};
};

std::vector<int> drain(rt::Queue<Item> &q)
{
    std::vector<int> v;
    while (Item *i = q.pop_front()) {
        EXPECT_EQ(i->link.next, nullptr);
        v.push_back(i->value);
    }
    return v;
}

TEST(Queue, GivesBackInTheOrderOfArrival)
{
    Item a{1}, b{2}, c{3};
    rt::Queue<Item> q;
    EXPECT_TRUE(q.empty());
    EXPECT_EQ(q.pop_front(), nullptr);
    q.push_back(a);
    q.push_back(b);
    q.push_front(c);
    EXPECT_FALSE(q.empty());
    EXPECT_EQ(q.front(), &c);
    EXPECT_EQ(drain(q), (std::vector<int>{3, 1, 2}));
    EXPECT_TRUE(q.empty());
}

TEST(Queue, IsUsableAgainAfterItRanEmpty)
{
    Item a{1}, b{2};
    rt::Queue<Item> q;
    q.push_front(a);
    EXPECT_EQ(q.pop_front(), &a);
    q.push_back(b); // the tail must not be a any more
    q.push_back(a);
    EXPECT_EQ(drain(q), (std::vector<int>{2, 1}));
}

TEST(Queue, SpliceMovesEverythingBehindWhatIsThere)
{
    Item a{1}, b{2}, c{3}, d{4};
    rt::Queue<Item> p, q;
    q.push_back(b);
    q.push_back(c);
    p.splice_back(q); // into an empty one
    EXPECT_TRUE(q.empty());
    q.push_back(a);
    p.splice_back(q);
    p.splice_back(q); // nothing
    p.push_back(d);   // the tail is right
    EXPECT_EQ(drain(p), (std::vector<int>{2, 3, 1, 4}));
}

// ---- Atomic ----

TEST(Atomic, ReadModifyWriteGivesTheOldValue)
{
    rt::Atomic<u32> a(5);
    EXPECT_EQ(a.fetch_add(3), 5u);
    EXPECT_EQ(a.fetch_or(0x10), 8u);
    EXPECT_EQ(a.fetch_and(0x10), 0x18u);
    EXPECT_EQ(a.xchg(1), 0x10u);
    a.add(1);
    EXPECT_EQ(a.read(), 2u);
    a.set(9);
    EXPECT_EQ(a.load_acquire(), 9u);
    a.store_release(10);
    EXPECT_EQ(a.read(), 10u);
    EXPECT_EQ(rt::Atomic<u64>().read(), 0u);
}

TEST(Atomic, CompareExchangeReportsWhatItFound)
{
    rt::Atomic<u64> a(5);
    u64 old = 4;
    EXPECT_FALSE(a.try_cmpxchg(old, 7));
    EXPECT_EQ(old, 5u);
    EXPECT_TRUE(a.try_cmpxchg(old, 7));
    EXPECT_EQ(a.read(), 7u);
}

TEST(Atomic, AddsOfManyThreadsAreNotLost)
{
    rt::Atomic<u64> a, b;
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t)
        threads.emplace_back([&] {
            for (int i = 0; i < 5000; ++i) {
                a.add(1);
                b.fetch_add(2);
            }
        });
    for (auto &t : threads)
        t.join();
    EXPECT_EQ(a.read(), 20000u);
    EXPECT_EQ(b.read(), 40000u);
}

TEST(Atomic, ReleaseAndAcquirePublishData)
{
    int data = 0; // a race, and ThreadSanitizer says so, if the orders are not there
    rt::Atomic<u32> ready;
    std::thread writer([&] {
        data = 42;
        ready.store_release(1);
    });
    while (!ready.load_acquire())
        std::this_thread::yield();
    EXPECT_EQ(data, 42);
    writer.join();
}

} // namespace
