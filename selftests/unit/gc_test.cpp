// SPDX-License-Identifier: GPL-2.0
// selftests/unit/gc_test.cpp - GC over a log that it cannot read throughout, and GC of very much at
// once (engine/gc.cpp). One property a test, named after it.
#include <atomic>
#include <sstream>
#include <thread>
#include "damage_rig.hpp"

using namespace pcache::selftest;
namespace format = pcache::format;
using namespace std::chrono_literals;

#ifdef PCACHE_SMALL_GEOMETRY // whole caches
namespace
{

constexpr u64 page = 4096;

template <class F>
bool soon(F f, std::chrono::milliseconds limit = 5s)
{
    const auto end = std::chrono::steady_clock::now() + limit;
    while (!f()) {
        if (std::chrono::steady_clock::now() > end)
            return false;
        std::this_thread::sleep_for(2ms);
    }
    return true;
}

// Fields of STATUS.
enum { used = 3, key_head = 6, dirty_tail = 7, key_tail = 8 };
std::string field(Rig &rig, unsigned n)
{
    std::istringstream words(rig.status());
    std::string word;
    for (unsigned i = 0; i <= n; i++)
        words >> word;
    return word;
}
bool drained(Rig &rig)
{
    return field(rig, key_head) == field(rig, dirty_tail);
}

void start(DamageRig &rig, bool data_crc)
{
    ASSERT_EQ(rig.create(data_crc ? std::vector<std::string>{"2", "data_crc", "true"}
                                  : std::vector<std::string>{}),
              0)
        << rig.sentence;
    ASSERT_EQ(rig.resume(), 0);
}

// 80 records, all clean; the head is in another page than the first ones.
void eighty_clean_records(DamageRig &rig)
{
    for (u64 i = 0; i < 80; i++)
        rig.write_record(i * page, page);
    ASSERT_TRUE(soon([&] { return drained(rig); })) << rig.status();
}

// Several times the cache's size of other data, so that each freed segment is used again.
void use_all_again(DamageRig &rig)
{
    for (u64 n = 0; n < 600; n++)
        rig.write_pattern((100 + n % 100) * page, page);
}

class GcTest : public testing::TestWithParam<bool>
{
};

} // namespace

// In front of dirty tail. The record is bad from the moment at which key tail passes it.
TEST_P(GcTest, ARecordThatGoesBadDuringItsPassLeavesNothingThatPointsIntoAFreedSegment)
{
    DamageRig rig(32);
    start(rig, GetParam());
    eighty_clean_records(rig);
    std::atomic<bool> done{false};
    rig.world.set_fence_hook([&] {
        format::PositionRecord k;
        rig.media.read(format::key_tail_offset + format::position_stride, &k, sizeof(k));
        if (k.seg_off != 0 && !done.exchange(true))
            rig.poison_record(5);
    });
    ASSERT_EQ(rig.message({"gc_percent", "0"}), 0);
    ASSERT_TRUE(soon([&] {
        return field(rig, key_tail) == field(rig, key_head) || rig.read_only();
    })) << rig.status();
    rig.world.set_fence_hook(nullptr);
    ASSERT_TRUE(done);
    EXPECT_FALSE(rig.read_only()) << "for the sake of clean data";
    use_all_again(rig);
    rig.check("after several times the cache's size");
    rig.remove();
    rig.media.cure();
    rig.start();
    rig.check("in the next life");
}

// Where the pass has met a hole already, too.
TEST_P(GcTest, ARecordThatGoesBadBehindAHoleDuringItsPassIsNoDamage)
{
    DamageRig rig(32);
    start(rig, GetParam());
    eighty_clean_records(rig);
    rig.poison_record(2);
    std::atomic<bool> done{false};
    rig.world.set_fence_hook([&] {
        format::PositionRecord k;
        rig.media.read(format::key_tail_offset + format::position_stride, &k, sizeof(k));
        if (k.seg_off != 0 && !done.exchange(true))
            rig.poison_record(5);
    });
    ASSERT_EQ(rig.message({"gc_percent", "0"}), 0);
    ASSERT_TRUE(soon([&] {
        return field(rig, key_tail) == field(rig, key_head) || rig.read_only();
    })) << rig.status();
    rig.world.set_fence_hook(nullptr);
    ASSERT_TRUE(done);
    EXPECT_FALSE(rig.read_only()) << "for the sake of clean data";
    use_all_again(rig);
    rig.check("after several times the cache's size");
    rig.remove();
    rig.media.cure();
}

// The same, met by the first look.
TEST_P(GcTest, CleanRecordsThatCannotBeReadCostCleanDataOnly)
{
    DamageRig rig(32);
    start(rig, GetParam());
    eighty_clean_records(rig);
    for (u32 i : {3u, 4u, 20u, 40u}) // one hole of two, and two more of the same pass
        rig.poison_record(i);
    ASSERT_EQ(rig.message({"gc_percent", "0"}), 0);
    ASSERT_TRUE(soon([&] {
        return field(rig, key_tail) == field(rig, key_head) || rig.read_only();
    })) << rig.status();
    ASSERT_FALSE(rig.read_only()) << rig.last_error();
    use_all_again(rig);
    rig.check("after several times the cache's size");
    rig.remove();
    rig.media.cure();
    rig.start();
    rig.check("in the next life");
}
INSTANTIATE_TEST_SUITE_P(Gc, GcTest, testing::Values(false, true),
                         [](const auto &i) { return i.param ? "DataCrc" : "Plain"; });

namespace
{
// Somebody who ends the process where a loop would go on for ever.
class Watchdog
{
    std::atomic<bool> over_{false};
    std::thread thread_;

public:
    explicit Watchdog(const char *what)
        : thread_([this, what] {
              if (soon([this] { return over_.load(); }, 10s))
                  return;
              std::printf("%s\n", what);
              std::fflush(stdout);
              std::_Exit(1);
          })
    {
    }
    ~Watchdog()
    {
        over_ = true;
        thread_.join();
    }
};
} // namespace

// Records 0 to 3, the last of them beyond the shorter table, then enough clean ones that the head's
// page is another, then dirty ones. Record `bad` cannot be read when the resume passes it.
class GcShorterTable : public testing::TestWithParam<u32>
{
};

TEST_P(GcShorterTable, AShorterTableDropsWhatIsBeyondItAndNothingBehindDirtyTail)
{
    DamageRig rig(32);
    const u64 beyond = rig.model.size() - page, half = rig.model.size() / 2;
    rig.start();
    for (u64 i = 0; i < 3; i++)
        rig.write_record(i * page, page);
    rig.write_record(beyond, page);
    for (u64 i = 4; i < 80; i++)
        rig.write_record(i % 8 * page, 512);
    ASSERT_TRUE(soon([&] { return drained(rig); })) << rig.status();
    rig.keep_dirty(true);
    for (u64 i = 4; i < 8; i++)
        rig.write_record(i * page, page);
    const std::string dirty = field(rig, dirty_tail);
    const auto reload = [&](u64 length, bool damage) {
        pc_target *const old = rig.target;
        pc_table *const old_table = rig.table;
        ASSERT_EQ(rig.create({}, length), 0) << rig.sentence;
        pc_target_presuspend(old, 0);
        pc_target_postsuspend(old);
        std::atomic<bool> done{!damage};
        const auto self = std::this_thread::get_id();
        rig.world.set_fence_hook([&] {
            if (std::this_thread::get_id() == self && !done.exchange(true))
                rig.poison_record(GetParam());
        });
        {
            const Watchdog dog("the resume does not come to its end");
            ASSERT_EQ(rig.resume(), 0) << rig.last_error();
        }
        rig.world.set_fence_hook(nullptr);
        pc_target_dtr(old);
        rig.world.drop_table(old_table);
    };
    reload(half, true);
    EXPECT_EQ(field(rig, key_tail), "0:" + std::to_string(4 * format::kset_bytes(1)));
    EXPECT_EQ(field(rig, dirty_tail), dirty);
    EXPECT_TRUE(rig.world.said("GC goes on at"));
    // Meanwhile somebody writes to what no table covers.
    const Image newer = Rig::pattern(beyond, page, 12345);
    rig.backing.write(beyond, newer.data(), newer.size());
    std::memcpy(&rig.model[beyond], newer.data(), newer.size());
    reload(rig.model.size(), false);
    rig.check("the table has grown again");
    rig.keep_dirty(false);
    EXPECT_TRUE(soon([&] { return drained(rig) && rig.backing.image() == rig.model; }));
    rig.remove();
    rig.media.cure();
}
INSTANTIATE_TEST_SUITE_P(Gc, GcShorterTable, testing::Values(0, 1, 2, 3));

// More records than one pass takes: the first one meets the hole, the last one does not.
TEST(Gc, AHoleThatOnlyTheFirstPassOverAShorterTableMetDropsWhatIsBeyondIt)
{
    DamageRig rig(200);
    const u64 beyond = rig.model.size() - page, half = rig.model.size() / 2;
    rig.start();
    rig.write_record(beyond, page);
    for (u64 i = 0; i < 5300; i++)
        rig.write_record(i % 8 * page, 512);
    rig.write_record(beyond - page, page);
    ASSERT_TRUE(soon([&] { return drained(rig); })) << rig.status();
    ASSERT_EQ(field(rig, key_tail), "0:0");
    const auto reload = [&](u64 length, bool damage) {
        pc_target *const old = rig.target;
        pc_table *const old_table = rig.table;
        ASSERT_EQ(rig.create({}, length), 0) << rig.sentence;
        pc_target_presuspend(old, 0);
        pc_target_postsuspend(old);
        std::atomic<bool> done{!damage};
        const auto self = std::this_thread::get_id();
        rig.world.set_fence_hook([&] {
            if (std::this_thread::get_id() == self && !done.exchange(true))
                rig.poison_record(0);
        });
        ASSERT_EQ(rig.resume(), 0) << rig.last_error();
        rig.world.set_fence_hook(nullptr);
        pc_target_dtr(old);
        rig.world.drop_table(old_table);
    };
    reload(half, true);
    EXPECT_TRUE(rig.world.said("GC goes on at"));
    const Image newer = Rig::pattern(beyond, page, 12345);
    rig.backing.write(beyond, newer.data(), newer.size());
    std::memcpy(&rig.model[beyond], newer.data(), newer.size());
    reload(rig.model.size(), false);
    rig.check("the table has grown again");
    rig.remove();
    rig.media.cure();
}

// GC has passed a hole: what its keys have cached stays in the index, unknown to the log. No walk
// of the log can find it when the table gets shorter.
TEST(Gc, WhatAHoleHasLeftInTheIndexGoesWithTheEndOfAShorterTable)
{
    DamageRig rig(32);
    const u64 beyond = rig.model.size() - page, half = rig.model.size() / 2;
    rig.start();
    rig.write_record(0, page);
    rig.write_record(beyond, page);
    for (u64 i = 2; i < 80; i++)
        rig.write_record(i % 8 * page, 512);
    ASSERT_TRUE(soon([&] { return drained(rig); })) << rig.status();
    rig.poison_record(1);
    ASSERT_EQ(rig.message({"gc_percent", "0"}), 0);
    ASSERT_TRUE(soon([&] { return rig.world.said("GC goes on at") && drained(rig); }));
    const u64 reads = rig.backing.counters().reads;
    (void)rig.read(beyond, page);
    ASSERT_EQ(rig.backing.counters().reads, reads) << "it is not cached: this test shows nothing";
    const auto reload = [&](u64 length) {
        pc_target *const old = rig.target;
        pc_table *const old_table = rig.table;
        ASSERT_EQ(rig.create({}, length), 0) << rig.sentence;
        pc_target_presuspend(old, 0);
        pc_target_postsuspend(old);
        ASSERT_EQ(rig.resume(), 0) << rig.last_error();
        pc_target_dtr(old);
        rig.world.drop_table(old_table);
    };
    reload(half);
    const Image newer = Rig::pattern(beyond, page, 12345);
    rig.backing.write(beyond, newer.data(), newer.size());
    std::memcpy(&rig.model[beyond], newer.data(), newer.size());
    reload(rig.model.size());
    rig.check("the table has grown again");
    rig.remove();
    rig.media.cure();
}

// What is stored for one segment after the other is no work of one go: a preemptible kernel or not,
// others want the CPU. A reader keeps the segments from being freed until all are emptied.
TEST(Gc, ManyGenerationsAreStoredWithYieldsBetween)
{
    DamageRig rig(200);
    rig.start();
    for (u64 i = 0; i < 1500; i++)
        rig.write_pattern(i * page % rig.model.size(), page);
    ASSERT_EQ(rig.flush(), 0);
    ASSERT_TRUE(soon([&] { return drained(rig); })) << rig.status();
    std::atomic<bool> go{false}, in{false};
    std::thread reader([&] {
        pc_epoch_enter();
        in = true;
        while (!go)
            std::this_thread::sleep_for(1ms);
        pc_epoch_exit();
    });
    while (!in)
        std::this_thread::sleep_for(1ms);
    const bool sent = rig.message({"gc_percent", "0"}) == 0;
    const bool passed = soon([&] { return field(rig, key_tail) == field(rig, key_head); });
    std::this_thread::sleep_for(50ms);
    static thread_local u32 in_one_go;
    std::atomic<u32> most{0};
    rig.world.set_fence_hook([&] {
        in_one_go++;
        u32 m = most;
        while (in_one_go > m && !most.compare_exchange_weak(m, in_one_go)) {
        }
    });
    rig.world.set_yield_hook([] { in_one_go = 0; });
    const u64 before = std::stoul(field(rig, used));
    go = true;
    reader.join();
    ASSERT_TRUE(sent && passed) << rig.status();
    ASSERT_TRUE(soon([&] { return std::stoul(field(rig, used)) < 20; })) << rig.status();
    rig.world.set_fence_hook(nullptr);
    rig.world.set_yield_hook(nullptr);
    EXPECT_GT(before, 80u);
    EXPECT_LE(most, 8u) << "fences of one thread without a yield";
}

#endif
