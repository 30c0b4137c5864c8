// SPDX-License-Identifier: GPL-2.0
// selftests/unit/checksums_test.cpp - the index of checksums: what it keeps of keys, however they
// overlap on media, and what it costs in DRAM beside the extents.
#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include "dm-pcache/engine/key_copy.hpp"
#include "dm-pcache/engine/shard.hpp"
#include "dm-pcache/engine/shard_of.hpp"
#include "selftests/unit/fixture.hpp"

namespace pcache::engine
{
namespace
{

class ChecksumsTest : public selftest::WorldTest
{
protected:
    std::unique_ptr<Shard> owned = std::make_unique<Shard>();
    Shard &shard = *owned;

    void SetUp() override { shard.turn_checksums_on(); }
    void TearDown() override
    {
        owned.reset();
        WorldTest::TearDown();
    }
    // Not more than it may take: too few nodes are an assertion of the tree's.
    void insert(const Checksum &c)
    {
        while (shard.pool.count() < shard.sums.nodes_for(1))
            shard.pool.give(pc_alloc(ExtentTree::node_bytes, PC_MAY_SLEEP));
        leave(shard.sums.nodes_for(1));
        shard.sums.insert(c);
    }
    void remove(const Checksum &c)
    {
        leave(0); // it needs none
        shard.sums.remove(c);
    }
    void leave(usize nodes)
    {
        while (shard.pool.count() > nodes)
            pc_free(shard.pool.take());
    }
};

TEST_F(ChecksumsTest, EverySectorOfAKeyFindsItsCrc)
{
    const Checksum keys[] = {
        {{3, 0}, 32, 0xFFFFFFFF}, {{3, 32}, 1, 0}, {{3, 33}, 8191, 0x80000001}, {{7, 32735}, 9, 5}};
    for (const Checksum &c : keys)
        insert(c);
    for (const Checksum &c : keys)
        for (u32 i = 0; i < c.sectors; i++)
            ASSERT_EQ(shard.sums.find({c.place.segment, c.place.sector + i}), c);
    EXPECT_EQ(shard.sums.find({3, 8224}).sectors, 0u) << "behind the last key";
    EXPECT_EQ(shard.sums.find({0, 0}).sectors, 0u);
}

// GC may take a key out between the look-up of its extent and that of its sum: nothing is wrong
// with the media then.
TEST_F(ChecksumsTest, AKeyThatWasEvictedMeanwhileIsLookedUpAgain)
{
    const auto shards = std::make_unique<Shard[]>(shard_count);
    for (u32 i = 0; i < shard_count; i++)
        shards[i].turn_checksums_on();
    const media::Device device;
    KeyCopy copy(device, shards.get());
    Request r;
    r.reservation.sectors_left = 8;
    copy.begin(r);
    EXPECT_EQ(copy.copy(0, {3, 0}), rt::Error::again);
}

TEST_F(ChecksumsTest, NothingIsKeptWhenItIsOff)
{
    Shard off;
    off.sums.insert({{1, 1}, 8, 77});
    EXPECT_EQ(off.sums.count(), 0u);
    EXPECT_EQ(off.sums.find({1, 1}).sectors, 0u);
    EXPECT_EQ(off.nodes_for(3), off.tree.nodes_for(3));
}

TEST_F(ChecksumsTest, OnlyTheVeryKeyIsRemoved)
{
    const Checksum c{{1, 64}, 8, 77};
    insert(c);
    remove({{1, 64}, 8, 78});
    remove({{1, 64}, 7, 77});
    remove({{1, 65}, 8, 77});
    EXPECT_EQ(shard.sums.find({1, 64}), c);
    remove(c);
    EXPECT_EQ(shard.sums.find({1, 64}).sectors, 0u);
}

// A model that keeps whole keys: a later one takes the earlier ones that it overlaps out as a
// whole, and none is ever cut, since a part has no crc.
TEST_F(ChecksumsTest, OfKeysThatOverlapOnMediaTheLastOneStaysAndNoneIsCut)
{
    std::map<u32, Checksum> model; // by sector
    std::mt19937_64 rng(1);
    for (int i = 0; i < 20000; i++) {
        const u32 sectors = 1 + static_cast<u32>(rng() % (rng() % 8 ? 8 : 200));
        const Checksum c{{5, static_cast<u32>(rng() % 4000)}, sectors, static_cast<u32>(rng())};
        if (rng() % 4 == 0 && !model.empty()) {
            auto gone = model.lower_bound(c.place.sector);
            if (gone == model.end())
                gone = model.begin();
            remove(gone->second);
            model.erase(gone);
        } else {
            const u32 end = c.place.sector + sectors;
            std::erase_if(model, [&](const auto &e) {
                return e.first < end && e.first + e.second.sectors > c.place.sector;
            });
            model[c.place.sector] = c;
            insert(c);
        }
        ASSERT_EQ(shard.sums.count(), model.size());
        const u32 at = static_cast<u32>(rng() % 4200);
        auto below = model.upper_bound(at);
        Checksum expected;
        if (below != model.begin() && (--below)->first + below->second.sectors > at)
            expected = below->second;
        ASSERT_EQ(shard.sums.find({5, at}), expected) << "sector " << at << " after " << i;
    }
}

// ---- DRAM --------------------------------------------------------------------------------------

// The index of the smallest cache as writes and GC use it: keys of 4 KiB at random places of the
// backing device, one after the other on the cache; the oldest go when the cache is full, or when
// the budget is.
class Index
{
    struct Key {
        Extent extent;
        u32 crc;
    };

public:
    static constexpr u32 page = 8;                       // sectors
    static constexpr u32 pages_per_segment = 4093;       // of the real geometry
    static constexpr u32 pages = 31 * pages_per_segment; // the smallest cache

    explicit Index(u64 bytes_per_page)
    {
        budget_.set_limit(pages * bytes_per_page / ExtentTree::node_bytes);
        for (Shard &s : shards_)
            s.turn_checksums_on();
    }
    void write(u64 backing_page)
    {
        if (keys_.size() == pages)
            pass_oldest();
        const u64 n = written_++ % pages;
        const Place at{static_cast<u32>(n / pages_per_segment),
                       static_cast<u32>(n % pages_per_segment) * page};
        const Key k{{backing_page * page, page, at}, static_cast<u32>(rng_())};
        Shard &s = of(k);
        while (!s.can_operate(1))
            if (!s.provide(1, budget_, PC_MAY_SLEEP))
                pass_oldest();
        s.insert_key(k.extent, k.crc);
        keys_.push_back(k);
    }
    u64 keys() const { return keys_.size(); }
    u64 extents() const
    {
        u64 n = 0;
        for (const Shard &s : shards_)
            n += s.tree.count();
        return n;
    }
    double bytes() const { return double(budget_.used()) * ExtentTree::node_bytes; }
    u64 random() { return rng_(); }

private:
    Shard &of(const Key &k) { return shards_[shard_of(k.extent.sector * 512)]; }
    void pass_oldest()
    {
        const Key k = keys_.front();
        keys_.pop_front();
        Shard &s = of(k);
        if (!s.can_evict())
            s.provide_for_eviction(budget_);
        (void)s.tree.remove_pointing_to(k.extent.sector, k.extent.sectors, k.extent.place);
        s.sums.remove({k.extent.place, k.extent.sectors, k.crc});
        (void)s.trim(budget_);
    }
    NodeBudget budget_;
    Shard shards_[shard_count];
    std::deque<Key> keys_;
    std::mt19937_64 rng_{3};
    u64 written_ = 0;
};

TEST_F(ChecksumsTest, RandomFillCostsAtMost36BytesPerExtent)
{
    Index index(100); // no bound: what it would take
    for (u32 i = 0; i < Index::pages; i++)
        index.write(index.random() % (u64{1} << 34));
    const double each = index.bytes() / double(index.extents());
    RecordProperty("bytes_per_extent", std::to_string(each));
    EXPECT_EQ(index.keys(), Index::pages);
    EXPECT_LE(each, 36.0);
}

// The budget bounds it; what matters is how much of the cache is in use all the same.
TEST_F(ChecksumsTest, ACacheOverwrittenForLongKeepsItsKeysWithinTheBudget)
{
    Index index(index_bytes_per_page_crc);
    for (u32 i = 0; i < 4 * Index::pages; i++)
        index.write(index.random() % (4 * u64{Index::pages}));
    const double each = index.bytes() / double(Index::pages);
    RecordProperty("bytes_per_page", std::to_string(each));
    RecordProperty("keys", std::to_string(index.keys()));
    EXPECT_LE(each, 36.1) << "eviction may take a few nodes more";
    EXPECT_GE(index.keys(), Index::pages * 95ull / 100) << "too much of the cache lies idle";
}

// Found by make fuzz: keys of a hostile log may share data, so that the sum of an extent is that of
// a key which reaches into a page known to be bad. The World tells of a load from there.
TEST_F(ChecksumsTest, NothingIsLoadedForASumThatReachesIntoAPageKnownToBeBad)
{
    selftest::MediaDevice &disk =
        world.add_media("cache", format::segment_offset({format::geometry.min_segments}));
    const u64 data = format::segment_offset({0}) + format::segment_control_bytes;
    disk.know_bad(data + format::page_bytes, 1);
    media::Device device;
    ASSERT_EQ(device.open(disk.open()), rt::Error::none);
    EXPECT_TRUE(reaches_bad_page(device, {{0, 0}, 16, 5}));
    EXPECT_FALSE(reaches_bad_page(device, {{0, 0}, 8, 5}));
    EXPECT_FALSE(can_be_read(device, {{0, 0}, 16, 5}));
}

} // namespace
} // namespace pcache::engine
