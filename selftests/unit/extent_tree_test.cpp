// SPDX-License-Identifier: GPL-2.0
// selftests/unit/extent_tree_test.cpp - the extent index against a model that keeps every sector by
// itself. Tiny nodes (4 extents, 3 children) make trees deep; 512 B is what the engine uses.
#include <gtest/gtest.h>
#include <algorithm>
#include <map>
#include <random>
#include <vector>
#include "dm-pcache/engine/extent_tree_body.hpp"
#include "extent_tree_probe.hpp"

namespace pcache::engine
{
namespace
{

struct Unit {
    Place place;
    u32 flags;
    bool operator==(const Unit &) const = default;
};

// The truth: one entry per mapped sector.
class Model
{
    std::map<u64, Unit> units_;

public:
    void insert(const Extent &e)
    {
        for (u32 i = 0; i < e.sectors; i++)
            units_[e.sector + i] = {{e.place.segment, e.place.sector + i}, e.flags};
    }
    u64 remove(u64 sector, u64 sectors)
    {
        const auto from = units_.lower_bound(sector);
        const auto to = units_.lower_bound(sector + sectors);
        const u64 n = static_cast<u64>(std::distance(from, to));
        units_.erase(from, to);
        return n;
    }
    u32 remove_pointing_to(u64 sector, u32 sectors, Place place)
    {
        u32 n = 0;
        for (u32 i = 0; i < sectors; i++) {
            const auto it = units_.find(sector + i);
            if (it != units_.end() && it->second.place == Place{place.segment, place.sector + i}) {
                units_.erase(it);
                n++;
            }
        }
        return n;
    }
    // The unit at `sector`, or null; `hole`: how far nothing is mapped, not beyond `most`.
    const Unit *at(u64 sector, u64 most, u64 &hole) const
    {
        const auto it = units_.lower_bound(sector);
        if (it != units_.end() && it->first == sector)
            return &it->second;
        hole = it == units_.end() ? most : std::min(most, it->first - sector);
        return nullptr;
    }
    const std::map<u64, Unit> &units() const { return units_; }
};

// A tree and the model side by side; every step is checked against the contract.
template <usize bytes>
class World
{
    // As many nodes as one operation may take, and not one more: a wrong bound is an assertion.
    template <class F>
    auto guarded(F &&f)
    {
        pool.hold(tree.nodes_for());
        const u32 height = tree.height();
        EXPECT_TRUE(tree.can_operate());
        const usize before = tree.nodes();
        auto result = f();
        const usize grown = tree.nodes() > before ? tree.nodes() - before : 0;
        EXPECT_LE(grown, height + 1u);
        most = std::max(most, grown);
        EXPECT_EQ(pool.spare() + tree.nodes(), pool.total());
        return result;
    }

public:
    OwningPool<bytes> pool;
    BasicExtentTree<bytes> tree;
    Model model;
    std::mt19937_64 random;
    u64 base;
    usize most = 0; // nodes one operation took

    explicit World(u64 seed, bool merge = true, u64 at = 0)
        : tree(pool.nodes(), merge), random(seed), base(at)
    {
    }
    u64 below(u64 n) { return random() % n; }
    Extent extent(u64 space, u32 longest)
    {
        Extent e;
        e.sector = base + below(space);
        const u32 room = range_sectors - static_cast<u32>(e.sector % range_sectors);
        const u64 left = std::min<u64>(room, base + space - e.sector);
        e.sectors = static_cast<u32>(std::min<u64>(left, 1 + below(longest)));
        // Few segments and a place that follows the sector: neighbours are often contiguous.
        e.place.segment = static_cast<u32>(below(2));
        e.place.sector = static_cast<u32>((e.sector - base) % 8192 + (below(4) ? 0 : below(1000)));
        e.flags = below(8) ? 0 : static_cast<u32>(below(4));
        return e;
    }
    void insert(const Extent &e)
    {
        guarded([&] {
            tree.insert(e);
            return 0;
        });
        model.insert(e);
    }
    void remove(u64 sector, u64 sectors)
    {
        const u64 n = guarded([&] { return tree.remove(sector, sectors); });
        EXPECT_EQ(n, model.remove(sector, sectors));
    }
    void remove_pointing_to(u64 sector, u32 sectors, Place p)
    {
        const u32 n = guarded([&] { return tree.remove_pointing_to(sector, sectors, p); });
        EXPECT_EQ(n, model.remove_pointing_to(sector, sectors, p));
    }
    void step(u64 space, u32 longest, u32 insert_share)
    {
        const Extent e = extent(space, longest);
        if (below(100) < insert_share)
            insert(e);
        else if (below(3) == 0)
            remove(e.sector, std::min<u64>(1 + below(longest * 4), base + space - e.sector));
        else
            remove_pointing_to(e.sector, e.sectors, e.place);
    }
    void check_structure() { ASSERT_EQ(ExtentTreeProbe::check(tree), ""); }
    // Every sector, by iteration.
    void check_content()
    {
        auto it = model.units().begin();
        tree.for_each(0, sector_limit, [&](const Extent &e) {
            for (u32 i = 0; i < e.sectors; i++, ++it) {
                ASSERT_NE(it, model.units().end());
                ASSERT_EQ(it->first, e.sector + i);
                ASSERT_EQ(it->second, (Unit{{e.place.segment, e.place.sector + i}, e.flags}));
            }
        });
        ASSERT_EQ(it, model.units().end());
    }
    void check_lookup(u64 space)
    {
        const u64 sector = base + below(space);
        const u32 asked = static_cast<u32>(1 + below(200));
        const Run r = tree.lookup(sector, asked);
        ASSERT_GE(r.sectors, 1u);
        ASSERT_LE(r.sectors, asked);
        u64 hole = 0;
        const Unit *u = model.at(sector, asked, hole);
        ASSERT_EQ(r.hit, u != nullptr);
        if (!u) {
            ASSERT_EQ(r.sectors, hole);
            return;
        }
        for (u32 i = 0; i < r.sectors; i++) {
            u = model.at(sector + i, 1, hole);
            ASSERT_TRUE(u);
            ASSERT_EQ(*u, (Unit{{r.place.segment, r.place.sector + i}, r.flags}));
        }
    }
};

template <class T>
struct ExtentTreeOf : testing::Test {
};
template <usize n>
struct Bytes {
    static constexpr usize value = n;
};
using NodeSizes = testing::Types<Bytes<64>, Bytes<72>, Bytes<96>, Bytes<128>, Bytes<512>>;
TYPED_TEST_SUITE(ExtentTreeOf, NodeSizes);

template <usize bytes>
void random_walk(u64 seed, bool merge, u64 base)
{
    constexpr u64 space = 1500;
    World<bytes> w(seed, merge, base);
    for (u32 phase = 0; phase < 8; phase++) {
        const u32 longest = phase % 4 == 0 ? 3 : phase % 4 == 1 ? 40 : phase % 4 == 2 ? 1 : 300;
        const u32 share = phase % 2 ? 55 : 85;
        for (u32 i = 0; i < 500; i++) {
            w.step(space, longest, share);
            w.check_structure();
            w.check_lookup(space);
            if (testing::Test::HasFailure())
                return;
            if (i % 50 == 0)
                w.check_content();
        }
    }
    w.check_content();
    w.remove(base, space);
    ASSERT_TRUE(w.tree.empty());
    ASSERT_EQ(w.pool.spare(), w.pool.total());
}

TYPED_TEST(ExtentTreeOf, RandomOperationsMatchTheModel)
{
    for (u64 seed = 1; seed <= 4 && !this->HasFailure(); seed++)
        random_walk<TypeParam::value>(seed, true, 0);
}

TYPED_TEST(ExtentTreeOf, RandomOperationsMatchTheModelWithoutMerging)
{
    for (u64 seed = 11; seed <= 13 && !this->HasFailure(); seed++)
        random_walk<TypeParam::value>(seed, false, 0);
}

TYPED_TEST(ExtentTreeOf, TheLastSectorsOfTheLargestDeviceWork)
{
    random_walk<TypeParam::value>(21, true, sector_limit - 1500);
    World<TypeParam::value> w(1);
    // All bits of the key are ones: the same word as an unused entry.
    w.insert({sector_limit - 1, 1, {(1u << 20) - 1, (1u << 15) - 1}, 3});
    ASSERT_EQ(w.tree.lookup(sector_limit - 1, 1).place, (Place{(1u << 20) - 1, (1u << 15) - 1}));
    ASSERT_EQ(w.tree.lookup(sector_limit - 2, 2).sectors, 1u);
    w.check_structure();
    w.check_content();
    w.remove(0, sector_limit);
    ASSERT_TRUE(w.tree.empty());
}

TYPED_TEST(ExtentTreeOf, RemovingOneByOneReturnsEveryNode)
{
    for (u32 order = 0; order < 3; order++) {
        World<TypeParam::value> w(31 + order, false);
        std::vector<u64> at;
        for (u64 i = 0; i < 2000; i++)
            at.push_back(i * 2);
        std::shuffle(at.begin(), at.end(), w.random);
        for (u64 s : at)
            w.insert({s, 1, {1, static_cast<u32>(s)}});
        w.check_structure();
        if (order == 1)
            std::sort(at.begin(), at.end());
        else if (order == 2)
            std::sort(at.rbegin(), at.rend());
        for (u64 s : at) {
            w.remove(s, 1);
            if (s % 16 == 0)
                w.check_structure();
        }
        ASSERT_TRUE(w.tree.empty());
        ASSERT_EQ(w.tree.nodes(), 0u);
        ASSERT_EQ(w.tree.count(), 0u);
        ASSERT_EQ(w.pool.spare(), w.pool.total());
    }
}

TYPED_TEST(ExtentTreeOf, OneLargeInsertOverridesManyLeaves)
{
    constexpr u32 n = range_sectors;
    World<TypeParam::value> w(41, false);
    for (u32 i = 0; i < n + 40; i++)
        w.insert({i, 1, {2, n - i % n}});
    w.insert({0, n, {3, 0}});
    w.check_structure();
    w.check_content();
    ASSERT_EQ(w.tree.count(), 41u);
    w.insert({7, n - 20, {4, 5}});
    w.check_structure();
    w.check_content();
}

TYPED_TEST(ExtentTreeOf, ABoundLeftBehindByRemovalsIsMoved)
{
    // Whatever leaf boundary lies in the emptied middle, extents are put across all of it.
    for (u32 first = 0; first < 60; first++) {
        World<TypeParam::value> w(first, false);
        for (u32 i = 0; i < 120; i++)
            w.insert({i, 1, {1, 2 * i}});
        w.remove(first, 30);
        w.insert({first ? first - 1 : 0, 33, {2, 0}});
        w.check_structure();
        w.insert({first + 3, 20, {3, 0}});
        w.check_structure();
        w.check_content();
    }
}

TYPED_TEST(ExtentTreeOf, ClearGivesEveryNodeBack)
{
    World<TypeParam::value> w(51, false);
    for (u32 i = 0; i < 3000; i++)
        w.insert({w.below(1 << 20) * 8 , 8, {1, 0}});
    ASSERT_GT(w.tree.nodes(), 1u);
    w.tree.clear();
    ASSERT_EQ(w.pool.spare(), w.pool.total());
    ASSERT_EQ(ExtentTreeProbe::check(w.tree), "");
    w.insert({8, 8, {1, 0}});
    ASSERT_EQ(w.tree.count(), 1u);
}

TYPED_TEST(ExtentTreeOf, ManyInsertsInARowStayWithinNodesFor)
{
    using Tree = BasicExtentTree<TypeParam::value>;
    std::mt19937_64 random(61);
    for (u32 round = 0; round < 400; round++) {
        OwningPool<TypeParam::value> pool;
        Tree tree(pool.nodes(), false);
        const u32 start = static_cast<u32>(random() % 300);
        for (u32 i = 0; i < start; i++) {
            pool.fill(tree.nodes_for());
            tree.insert({random() % 4096, 1, {1, static_cast<u32>(random() % 1000)}});
        }
        const u32 n = 1 + static_cast<u32>(random() % 200);
        pool.hold(tree.nodes_for(n));
        ASSERT_TRUE(tree.can_insert(n));
        for (u32 i = 0; i < n; i++) { // an assertion fails when the pool runs dry
            const u32 sector = static_cast<u32>(round % 2 ? random() % 4096 : i * 3);
            const u32 room = range_sectors - sector % range_sectors;
            tree.insert({sector, std::min(3u, room), {2, sector}});
        }
        ASSERT_EQ(ExtentTreeProbe::check(tree), "");
    }
}

TYPED_TEST(ExtentTreeOf, TheWorstInsertTakesTheNodesOfTheBound)
{
    // Full nodes all the way: cuts in the middle of an extent at random until a root splits.
    World<TypeParam::value> w(71, false);
    for (u32 i = 0; i < 100000 / TypeParam::value; i++)
        w.insert({w.below(4000) * 16, 16, {1, static_cast<u32>(w.below(1000))}});
    for (u32 i = 0; i < 400000 / TypeParam::value; i++)
        w.insert({w.below(4000) * 16 + 1 + w.below(14), 1, {2, static_cast<u32>(w.below(1000))}});
    w.check_structure();
    w.check_content();
    EXPECT_GE(w.most, 2u); // else nothing was shown; World compares each with height + 1
    EXPECT_LE(w.most, w.tree.height() + 1u);
}

TYPED_TEST(ExtentTreeOf, SeveralTreesShareAPool)
{
    OwningPool<TypeParam::value> pool;
    {
        BasicExtentTree<TypeParam::value> a(pool.nodes());
        BasicExtentTree<TypeParam::value> b(pool.nodes());
        for (u32 i = 0; i < 500; i++) {
            pool.fill(a.nodes_for() + b.nodes_for());
            a.insert({u64{i} * 16, 8, {1, 0}});
            b.insert({u64{i} * 32, 8, {2, 0}});
        }
        ASSERT_EQ(pool.spare() + a.nodes() + b.nodes(), pool.total());
    }
    ASSERT_EQ(pool.spare(), pool.total());
}

// ---- what the engine's tree does, by example ----------------------------------------------------

struct ExtentTreeTest : testing::Test {
    World<extent_node_bytes> w{1};
    std::vector<Extent> all()
    {
        std::vector<Extent> v;
        w.tree.for_each(0, sector_limit, [&](const Extent &e) { v.push_back(e); });
        return v;
    }
};
using Extents = std::vector<Extent>;

TEST_F(ExtentTreeTest, AnEmptyTreeIsAHole)
{
    Extent e;
    EXPECT_FALSE(w.tree.lookup(5, 7).hit);
    EXPECT_EQ(w.tree.lookup(5, 7).sectors, 7u);
    EXPECT_FALSE(w.tree.first_from(0, e));
    EXPECT_FALSE(w.tree.cursor().next(e));
    EXPECT_EQ(w.tree.remove(0, sector_limit), 0u);
    EXPECT_EQ(w.tree.remove_pointing_to(0, 8, {0, 0}), 0u);
}

TEST_F(ExtentTreeTest, NeighboursContiguousOnBothSidesAreJoined)
{
    w.insert({0, 8, {1, 0}});
    w.insert({16, 8, {1, 16}});
    w.insert({8, 8, {1, 8}});
    EXPECT_EQ(all(), (Extents{{0, 24, {1, 0}}}));
    w.insert({24, 8, {2, 24}}); // another segment
    w.insert({32, 8, {2, 40}}); // a gap in the cache
    w.insert({41, 8, {2, 49}}); // a gap on the backing device
    w.insert({49, 8, {2, 57}, 1}); // other flags
    EXPECT_EQ(w.tree.count(), 5u);
}

TEST_F(ExtentTreeTest, WhatContinuesACutExtentIsJoinedWithIt)
{
    w.insert({0, 32, {1, 0}});
    w.insert({8, 8, {1, 8}}); // says what is there already
    EXPECT_EQ(all(), (Extents{{0, 32, {1, 0}}}));
    w.insert({8, 8, {2, 8}});
    w.insert({8, 8, {1, 8}});
    EXPECT_EQ(all(), (Extents{{0, 32, {1, 0}}}));
}

TEST_F(ExtentTreeTest, JoiningStopsAtARangeOfTheBackingDevice)
{
    w.insert({range_sectors - 8, 8, {1, 0}});
    w.insert({range_sectors, 8, {1, 8}});
    EXPECT_EQ(w.tree.count(), 2u);
    const u64 second = u64{range_sectors} * 4;
    for (u32 i = 0; i < range_sectors; i += 8)
        w.insert({second + i, 8, {3, i}});
    EXPECT_EQ(w.tree.lookup(second, range_sectors * 2).sectors, range_sectors);
    EXPECT_EQ(w.tree.count(), 3u);
}

TEST_F(ExtentTreeTest, NothingIsJoinedWithMergingOff)
{
    w.tree.set_merging(false);
    w.insert({0, 8, {1, 0}});
    w.insert({8, 8, {1, 8}});
    EXPECT_EQ(w.tree.count(), 2u);
    w.tree.set_merging(true);
    w.insert({16, 8, {1, 16}});
    EXPECT_EQ(all(), (Extents{{0, 8, {1, 0}}, {8, 16, {1, 8}}}));
}

TEST_F(ExtentTreeTest, AnInsertInTheMiddleLeavesBothEnds)
{
    w.insert({0, 64, {1, 100}});
    w.insert({16, 8, {2, 0}});
    EXPECT_EQ(all(), (Extents{{0, 16, {1, 100}}, {16, 8, {2, 0}}, {24, 40, {1, 124}}}));
}

TEST_F(ExtentTreeTest, TheVisitorSeesWhatIsOverridden)
{
    w.insert({0, 16, {1, 100}});
    w.insert({20, 4, {2, 7}});
    w.insert({28, 16, {3, 9}});
    Extents seen;
    w.pool.fill(w.tree.nodes_for());
    w.tree.insert({8, 24, {4, 0}}, [&](const Extent &e) { seen.push_back(e); });
    EXPECT_EQ(seen, (Extents{{8, 8, {1, 108}}, {20, 4, {2, 7}}, {28, 4, {3, 9}}}));
    EXPECT_EQ(all(), (Extents{{0, 8, {1, 100}}, {8, 24, {4, 0}}, {32, 12, {3, 13}}}));
}

TEST_F(ExtentTreeTest, OnlyPartsThatStillPointThereAreRemoved)
{
    w.insert({0, 64, {1, 0}});
    w.insert({16, 8, {2, 0}});  // newer
    w.insert({32, 8, {1, 33}}); // the same segment, one sector off
    EXPECT_EQ(w.tree.remove_pointing_to(8, 40, {1, 8}), 8u + 8u + 8u);
    EXPECT_EQ(all(), (Extents{{0, 8, {1, 0}}, {16, 8, {2, 0}}, {32, 8, {1, 33}}, {48, 16, {1, 48}}}));
}

TEST_F(ExtentTreeTest, FirstFromFindsTheCoveringOrTheNextExtent)
{
    for (u32 i = 0; i < 500; i++)
        w.insert({100 + u64{i} * 16, 8, {1, i}});
    Extent e;
    for (u64 at = 0; at < 100 + 499 * 16 + 8; at++) {
        ASSERT_TRUE(w.tree.first_from(at, e));
        const u64 i = at < 108 ? 0 : (at - 108) / 16 + 1;
        ASSERT_EQ(e.sector, 100 + i * 16) << at;
        ASSERT_EQ(e.sectors, 8u);
    }
    EXPECT_FALSE(w.tree.first_from(100 + 499 * 16 + 8, e));
}

TEST_F(ExtentTreeTest, ACursorClipsToItsRange)
{
    for (u32 i = 0; i < 500; i++)
        w.insert({u64{i} * 16, 8, {1, i * 16}});
    auto c = w.tree.cursor(20, 2004);
    Extent e;
    ASSERT_TRUE(c.next(e));
    EXPECT_EQ(e, (Extent{20, 4, {1, 20}}));
    u64 n = 1;
    Extent last;
    for (; c.next(e); n++)
        last = e;
    EXPECT_EQ(last, (Extent{2000, 4, {1, 2000}}));
    EXPECT_EQ(n, 125u);
    EXPECT_FALSE(c.next(e));
    EXPECT_FALSE(w.tree.cursor(9, 9).next(e));
    EXPECT_FALSE(w.tree.cursor(8, 16).next(e));
}

TEST_F(ExtentTreeTest, AHoleEndsWhereTheNextExtentOfAnotherLeafBegins)
{
    for (u32 i = 0; i < 2000; i++)
        w.insert({u64{i} * 16, 8, {1, i % 1000}});
    for (u32 i = 0; i + 1 < 2000; i++)
        ASSERT_EQ(w.tree.lookup(u64{i} * 16 + 8, 100).sectors, 8u);
    EXPECT_EQ(w.tree.lookup(1999 * 16 + 8, 100).sectors, 100u);
}

// ---- memory --------------------------------------------------------------------------------------

double bytes_per_extent(const ExtentTree &t)
{
    return double(t.nodes()) * extent_node_bytes / double(t.count());
}

TEST(ExtentTreeMemory, ARandomFillOf4KiBTakesAtMost24BytesPerExtent)
{
    OwningPool<extent_node_bytes> pool;
    ExtentTree tree(pool.nodes());
    std::mt19937_64 random(5);
    double worst = 0;
    for (u32 next = 10000; tree.count() < 1000000;) {
        pool.fill(tree.nodes_for());
        tree.insert({(random() & 0xffffffff) * 8, 8,
                     {static_cast<u32>(random() % 4096), static_cast<u32>(random() % 4000) * 8}});
        if (tree.count() >= next) { // at any size, not at a lucky one
            worst = std::max(worst, bytes_per_extent(tree));
            next += next / 20;
        }
    }
    worst = std::max(worst, bytes_per_extent(tree));
    RecordProperty("bytes_per_extent", std::to_string(bytes_per_extent(tree)));
    RecordProperty("bytes_per_extent_worst", std::to_string(worst));
    EXPECT_LE(worst, 24);
    EXPECT_GE(12 / worst, 0.66 * 0.96); // inner nodes are within 4 %
    ASSERT_EQ(ExtentTreeProbe::check(tree), "");
}

TEST(ExtentTreeMemory, ChurnAtConstantSizeKeepsTheBound)
{
    OwningPool<extent_node_bytes> pool;
    ExtentTree tree(pool.nodes());
    std::mt19937_64 random(6);
    std::vector<u64> fifo; // the oldest goes, as with GC
    double worst = 0;
    for (usize i = 0; i < 400000; i++) {
        pool.fill(tree.nodes_for(2));
        const u64 sector = (random() & 0xffffffff) * 8;
        fifo.push_back(sector);
        tree.insert({sector, 8, {static_cast<u32>(i % 4096), static_cast<u32>(i % 4000) * 8}});
        if (i < 50000)
            continue;
        tree.remove(fifo[i - 50000], 8);
        worst = std::max(worst, bytes_per_extent(tree));
    }
    RecordProperty("bytes_per_extent_worst", std::to_string(worst));
    EXPECT_LE(worst, 24);
    ASSERT_EQ(ExtentTreeProbe::check(tree), "");
}

TEST(ExtentTreeMemory, StreamsInEitherDirectionFillTheLeaves)
{
    for (int direction : {1, -1}) {
        OwningPool<extent_node_bytes> pool;
        ExtentTree tree(pool.nodes(), false);
        for (s64 i = 0; i < 100000; i++) {
            pool.fill(tree.nodes_for());
            tree.insert({static_cast<u64>(1000000 + direction * i) * 8, 8, {1, 0}});
        }
        EXPECT_LE(bytes_per_extent(tree), 14) << direction;
    }
}

TEST(ExtentTreeMemory, TheWorstRemovalsKeepTheHardBound)
{
    OwningPool<extent_node_bytes> pool;
    ExtentTree tree(pool.nodes(), false);
    for (u64 i = 0; i < 200000; i++) {
        pool.fill(tree.nodes_for());
        tree.insert({i * 8, 8, {1, 0}});
    }
    for (u64 i = 0; i < 200000; i++) { // leaves 21 of each 42 neighbours
        pool.fill(tree.nodes_for());
        if (i % 42 >= 21)
            tree.remove(i * 8, 8);
    }
    EXPECT_LE(bytes_per_extent(tree), 25.6 * (1 + 1.0 / 15));
    ASSERT_EQ(ExtentTreeProbe::check(tree), "");
}

} // namespace
} // namespace pcache::engine
