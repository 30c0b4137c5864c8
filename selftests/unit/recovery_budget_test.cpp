// SPDX-License-Identifier: GPL-2.0
// Tests of a log with more keys than the index may have memory for, as mainline's driver, which
// knows no bound, can leave it: the bound holds after activation, and everything reads right.
#include <algorithm>
#include <thread>
#include "dm-pcache/engine/extent_tree.hpp"
#include "dm-pcache/engine/limits.hpp"
#include "mainline_media.hpp"
#include "rig.hpp"

// In the real geometry so many keys fit any cache; and ThreadSanitizer sees recovery elsewhere.
#if defined(PCACHE_SMALL_GEOMETRY) && !defined(PCACHE_TSAN)

using namespace pcache::selftest;
using namespace pcache::engine;
using pcache::format::data_bytes;
using pcache::format::geometry;
using namespace std::chrono_literals;

namespace
{

constexpr u32 segments = geometry.max_segments;
constexpr u32 keys = 85000, places = 75000; // of one sector, none beside another

u64 bound(bool data_crc)
{
    const u64 pages = u64{segments} * (data_bytes / 4096);
    const u64 nodes = pages * (data_crc ? index_bytes_per_page_crc : index_bytes_per_page) /
                          ExtentTree::node_bytes +
                      shard_count * nodes_at_least * (data_crc ? 2 : 1);
    return (nodes + shard_count) * ExtentTree::node_bytes;
}

class RecoveryBudget : public testing::TestWithParam<bool>
{
protected:
    Rig rig{segments, u64{2 * places} * sector};
    u64 empty = 0; // blocks of memory that a cache of this size takes with nothing in it

    void start()
    {
        ASSERT_EQ(rig.create(), 0) << rig.sentence;
        ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    }
    void measure_empty()
    {
        MainlineMedia media(rig.media, segments, GetParam());
        start();
        empty = Memory::live();
        rig.remove();
        rig.media.load(Image(rig.media.bytes()));
    }
    // Each key of another place, then some again with newer data. `dirty`: all of them are.
    void make(bool dirty)
    {
        measure_empty();
        MainlineMedia media(rig.media, segments, GetParam());
        rig.model = Rig::pattern(0, rig.model.size(), 0);
        rig.backing.load(rig.model);
        std::mt19937_64 rng(1);
        std::vector<u32> order(places);
        for (u32 i = 0; i < places; i++)
            order[i] = i;
        std::shuffle(order.begin(), order.end(), rng);
        for (u32 i = 0; i < keys; i++) {
            const u64 offset = u64{order[i % places]} * 2 * sector;
            const Image data = Rig::pattern(offset, sector, 1 + i);
            std::memcpy(&rig.model[offset], data.data(), sector);
            media.add_key(offset, data, 0);
        }
        media.end_log();
        if (!dirty) {
            rig.backing.load(rig.model);
            media.all_clean();
        }
        start();
    }
    // By number: malloc rounds the size of a node up, and without a sanitizer says so.
    u64 index_bytes() { return (Memory::live() - empty) * ExtentTree::node_bytes; }
};

} // namespace

TEST_P(RecoveryBudget, TheOldestCleanKeysAreDroppedAndTheBoundHolds)
{
    make(false);
    EXPECT_LE(index_bytes(), bound(GetParam()));
    EXPECT_GE(index_bytes(), bound(GetParam()) * 8 / 10) << "too much was dropped";
    EXPECT_TRUE(rig.world.said("keys of clean data are dropped"));
    rig.check("after activation");
    std::mt19937_64 rng(2);
    for (int i = 0; i < 3000; i++)
        rig.write_pattern(rng() % (rig.model.size() / 4096) * 4096, 4096);
    ASSERT_EQ(rig.flush(), 0);
    rig.check("written to");
    rig.remove();
    start();
    rig.check("in the next life");
}

// Dirty ones cannot be dropped. They are written back at once, whatever else says that there is
// time.
TEST_P(RecoveryBudget, DirtyKeysAreWrittenBackUntilTheBoundHolds)
{
    make(true);
    rig.write_pattern(sector, sector); // it is served meanwhile
    for (int i = 0; i < 3000 && index_bytes() > bound(GetParam()); i++)
        std::this_thread::sleep_for(10ms);
    EXPECT_LE(index_bytes(), bound(GetParam()));
    rig.check("within the bound");
}

INSTANTIATE_TEST_SUITE_P(DataCrc, RecoveryBudget, testing::Bool());
#endif
