// SPDX-License-Identifier: GPL-2.0
// selftests/unit/cxxrt_box_test.cpp - the owners: what they own is destroyed and freed exactly
// once.
#include <gtest/gtest.h>
#include <cstdlib>
#include <type_traits>
#include <utility>
#include <vector>
#include "cxxrt/box.hpp"

namespace
{

int blocks, refusals;

void *allocate(usize bytes)
{
    if (refusals > 0) {
        --refusals;
        return nullptr;
    }
    ++blocks;
    return malloc(bytes);
}

struct Free {
    static void free(const void *p) noexcept
    {
        if (p)
            --blocks;
        ::free(const_cast<void *>(p));
    }
};

struct Tracked {
    static std::vector<int> destroyed;
    int id;
    Tracked() : id(static_cast<int>(++made)) {}
    explicit Tracked(int i) : id(i) {}
    Tracked(const Tracked &) = delete;
    ~Tracked() { destroyed.push_back(id); }
    static int made;
};
std::vector<int> Tracked::destroyed;
int Tracked::made = 0;

class BoxTest : public testing::Test
{
protected:
    void SetUp() override
    {
        blocks = refusals = 0;
        Tracked::destroyed.clear();
        Tracked::made = 0;
    }
    void TearDown() override { EXPECT_EQ(blocks, 0); }
};
using ArrayTest = BoxTest;
using TrackedBox = rt::Box<Tracked, Free>;
using TrackedArray = rt::Array<Tracked, Free>;

TrackedBox make(int id)
{
    return *rt::make_box<Tracked, Free>(allocate, id);
}

TEST_F(BoxTest, DestroysAndFreesAtTheEndOfItsScope)
{
    {
        TrackedBox b = make(3);
        ASSERT_TRUE(b);
        EXPECT_EQ(b->id, 3);
        EXPECT_EQ((*b).id, 3);
        EXPECT_EQ(blocks, 1);
    }
    EXPECT_EQ(Tracked::destroyed, std::vector<int>{3});
}

TEST_F(BoxTest, MovesItsObjectAndIsEmptyAfterwards)
{
    TrackedBox a = make(1), b = make(2);
    TrackedBox c = std::move(a);
    EXPECT_FALSE(a);
    EXPECT_EQ(c->id, 1);
    c = std::move(b); // 1 goes
    EXPECT_EQ(Tracked::destroyed, std::vector<int>{1});
    EXPECT_EQ(c->id, 2);
    TrackedBox &same = c;
    c = std::move(same);
    EXPECT_EQ(c->id, 2);
    static_assert(!std::is_copy_constructible_v<TrackedBox>);
    static_assert(!std::is_copy_assignable_v<TrackedBox>);
}

TEST_F(BoxTest, ReleaseGivesUpAndAConstructorTakesOver)
{
    TrackedBox a = make(1);
    Tracked *p = a.release();
    EXPECT_FALSE(a);
    EXPECT_EQ(a.get(), nullptr);
    EXPECT_TRUE(Tracked::destroyed.empty());
    TrackedBox b(p);
    EXPECT_EQ(b.get(), p);
    b.reset();
    EXPECT_EQ(Tracked::destroyed, std::vector<int>{1});
    b.reset();
    EXPECT_EQ(Tracked::destroyed.size(), 1u);
}

TEST_F(BoxTest, NoMemoryIsAnErrorAndMakesNothing)
{
    refusals = 1;
    auto r = rt::make_box<Tracked, Free>(allocate, 1);
    EXPECT_FALSE(r);
    EXPECT_EQ(r.error(), rt::Error::no_memory);
    EXPECT_TRUE(Tracked::destroyed.empty());
}

struct Later; // incomplete here
struct Holder {
    rt::Box<Later, Free> box;
    Holder();
    ~Holder();
};
struct Later {
    int v = 4;
};
Holder::Holder() : box(*rt::make_box<Later, Free>(allocate)) {}
Holder::~Holder() = default;

TEST_F(BoxTest, MayBeDeclaredForATypeDefinedLater)
{
    Holder h;
    EXPECT_EQ(h.box->v, 4);
}

using BoxDeathTest = BoxTest;
TEST_F(BoxDeathTest, NothingBehindAnEmptyOne)
{
    TrackedBox b;
    EXPECT_DEATH((void)b->id, "assertion failed");
    EXPECT_DEATH((void)(*b).id, "assertion failed");
}

TEST_F(ArrayTest, MakesEveryElementAndDestroysThemLastFirst)
{
    {
        TrackedArray a = *rt::make_array<Tracked, Free>(allocate, 3);
        EXPECT_EQ(a.size(), 3u);
        EXPECT_EQ(a[0].id, 1);
        EXPECT_EQ(a[2].id, 3);
        EXPECT_EQ(blocks, 1);
    }
    EXPECT_EQ(Tracked::destroyed, (std::vector<int>{3, 2, 1}));
}

TEST_F(ArrayTest, OfNumbersStartsAtZeroAndIsASpan)
{
    auto a = *rt::make_array<u32, Free>(allocate, 100);
    for (u32 v : a)
        EXPECT_EQ(v, 0u);
    a[99] = 7;
    rt::Span<u32> s = a;
    EXPECT_EQ(s.size(), 100u);
    EXPECT_EQ(s[99], 7u);
}

TEST_F(ArrayTest, MovesAndLeavesNothingBehind)
{
    TrackedArray a = *rt::make_array<Tracked, Free>(allocate, 2); // 1 2
    TrackedArray b = *rt::make_array<Tracked, Free>(allocate, 1); // 3
    TrackedArray c = std::move(a);
    EXPECT_TRUE(a.empty());
    EXPECT_EQ(a.data(), nullptr);
    c = std::move(b);
    EXPECT_EQ(Tracked::destroyed, (std::vector<int>{2, 1}));
    EXPECT_EQ(c.size(), 1u);
    EXPECT_TRUE(b.empty());
    TrackedArray &same = c;
    c = std::move(same);
    EXPECT_EQ(c[0].id, 3);
    c.reset();
    EXPECT_TRUE(c.empty());
}

TEST_F(ArrayTest, OfNoElementsAllocatesNothing)
{
    auto a = rt::make_array<u32, Free>(allocate, 0);
    ASSERT_TRUE(a);
    EXPECT_TRUE(a->empty());
    EXPECT_EQ(blocks, 0);
}

TEST_F(ArrayTest, NoMemoryAndTooManyElementsAreErrors)
{
    refusals = 1;
    EXPECT_EQ((rt::make_array<u32, Free>(allocate, 10).error()), rt::Error::no_memory);
    // 2^61 elements of 8 bytes: the product wraps to 0.
    EXPECT_EQ((rt::make_array<u64, Free>(allocate, usize{1} << 61).error()), rt::Error::no_memory);
    EXPECT_EQ(blocks, 0);
}

using ArrayDeathTest = BoxTest;
TEST_F(ArrayDeathTest, OutsideIsAnAssertion)
{
    auto a = *rt::make_array<u32, Free>(allocate, 2);
    EXPECT_DEATH((void)a[2], "assertion failed");
}

} // namespace
