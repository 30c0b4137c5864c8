// SPDX-License-Identifier: GPL-2.0
// Tests of what a read finds in an index made by hand: data, holes, ghosts, lost data.
#include <gtest/gtest.h>
#include <memory>
#include "dm-pcache/engine/lookup.hpp"

using namespace pcache::engine;

namespace
{
class Lookup : public testing::Test
{
protected:
    void SetUp() override
    {
        for (auto &n : nodes)
            pool.give(n);
    }
    void put(u64 sector, u32 sectors, u32 flags, u32 place = 0)
    {
        tree.insert({sector, sectors, {1, place}, flags});
    }
    Leading find(u64 sector, u32 sectors)
    {
        Leading l;
        look_up(tree, sector, sectors, l);
        return l;
    }
    alignas(8) unsigned char nodes[16][ExtentTree::node_bytes];
    NodePool pool;
    ExtentTree tree{pool};
};
} // namespace

TEST_F(Lookup, AHoleReachesToTheNextData)
{
    EXPECT_EQ(find(0, 16).kind, Found::nothing);
    EXPECT_EQ(find(0, 16).sectors, 16u);
    put(8, 4, extent_flag::live);
    EXPECT_EQ(find(0, 16).sectors, 8u);
}

TEST_F(Lookup, NeighboursAreOneRunOfSeveralPieces)
{
    put(8, 4, extent_flag::live, 100);
    put(12, 4, extent_flag::live, 0);
    const Leading l = find(9, 100);
    EXPECT_EQ(l.kind, Found::data);
    EXPECT_EQ(l.sectors, 7u);
    ASSERT_EQ(l.pieces, 2u);
    EXPECT_EQ(l.piece[0].place.sector, 101u);
    EXPECT_EQ(l.piece[0].sectors, 3u);
    EXPECT_EQ(l.piece[1].place.sector, 0u);
}

TEST_F(Lookup, ARunHasNoMorePiecesThanAReadMayGather)
{
    for (u32 i = 0; i < 2 * extents_per_read; i++)
        put(i, 1, extent_flag::live, 2 * i);
    EXPECT_EQ(find(0, 2 * extents_per_read).pieces, extents_per_read);
    EXPECT_EQ(find(0, 2 * extents_per_read).sectors, extents_per_read);
}

TEST_F(Lookup, ManyGhostsAreCutWhereABlockOfTheBackingDeviceEnds)
{
    for (u32 i = 0; i < 2 * extents_per_read; i++)
        put(3 + i, 1, extent_flag::ghost, 2 * i);
    const Leading l = find(0, 64);
    EXPECT_EQ(l.kind, Found::nothing);
    EXPECT_EQ(l.sectors, 16u) << "a hole of 3 sectors and 15 ghosts, to a multiple of 8";
}

TEST_F(Lookup, AGhostIsReadFromTheBackingDeviceTogetherWithTheHolesAroundIt)
{
    put(8, 4, extent_flag::ghost);
    put(20, 4, extent_flag::live);
    const Leading l = find(0, 100);
    EXPECT_EQ(l.kind, Found::nothing);
    EXPECT_EQ(l.sectors, 20u);
    EXPECT_EQ(l.pieces, 0u);
    EXPECT_EQ(find(9, 1).kind, Found::nothing);
}

TEST_F(Lookup, LostDataIsNeitherDataNorAHole)
{
    put(4, 4, extent_flag::live);
    put(8, 4, extent_flag::lost);
    EXPECT_EQ(find(4, 100).sectors, 4u) << "data in front of it is served";
    EXPECT_EQ(find(8, 100).kind, Found::lost);
    EXPECT_EQ(find(8, 100).sectors, 4u) << "and nothing behind it fails with it";
    EXPECT_EQ(find(0, 100).sectors, 4u);
}

// A fill goes only where this holds.
TEST_F(Lookup, NothingIsCachedInHolesAndGhostsOnly)
{
    put(8, 4, extent_flag::ghost);
    EXPECT_TRUE(nothing_cached(tree, 0, 100));
    put(50, 1, extent_flag::live);
    EXPECT_FALSE(nothing_cached(tree, 0, 100));
    EXPECT_TRUE(nothing_cached(tree, 0, 50));
    EXPECT_TRUE(nothing_cached(tree, 51, 49));
    put(10, 1, extent_flag::lost);
    EXPECT_FALSE(nothing_cached(tree, 0, 50)) << "dirty data that cannot be read is still dirty";
}
