// SPDX-License-Identifier: GPL-2.0
// Tests of a cache with so many bad segments that log, data heads and reclaim have too few left: it
// is read-only and says why, and no write waits for ever.
#include "dm-pcache/engine/heads.hpp"
#include "rig.hpp"
#include <chrono>
#include <set>
#include <thread>

using namespace pcache::selftest;
using pcache::format::data_bytes;
using pcache::format::geometry;
using pcache::format::segment_control_bytes;
using pcache::format::segment_offset;
using namespace std::chrono_literals;

namespace
{

constexpr u32 segments = 2 * geometry.min_segments;

u32 needed()
{
    return 1 + pcache::engine::log_reserve + pcache::engine::Heads::count_for(segments, pc_cpus()) +
           1;
}

class TooFewSegments : public testing::Test
{
protected:
    Rig rig{segments};

    // Bad pages in the last segments, so that so many are left.
    void leave(u32 good)
    {
        for (u32 s = good; s < segments; s++) {
            const u64 page = segment_offset({s}) + segment_control_bytes + 4096;
            rig.media.poison(page, 64);
            rig.media.know_bad(page, 4096);
        }
    }
    std::string field(unsigned n)
    {
        std::string f = rig.status() + " ";
        for (; n > 1; n--)
            f = f.substr(f.find(' ') + 1);
        return f.substr(0, f.find(' '));
    }
    template <class F>
    bool soon(F f)
    {
        for (int i = 0; i < 2000 && !f(); i++)
            std::this_thread::sleep_for(10ms);
        return f();
    }
    // Sixteen KiB after sixteen KiB, until data stands in so many segments.
    u64 fill(u32 data_segments)
    {
        EXPECT_EQ(rig.message({"gc_percent", "90"}), 0);
        u64 at = 0;
        for (; at < u64{data_segments} * data_bytes; at += 16384)
            rig.write_pattern(at, 16384);
        EXPECT_EQ(rig.flush(), 0);
        EXPECT_TRUE(soon([&] { return field(7) == field(8); })) << "it stays dirty";
        return at;
    }
    // The line in which the data of this sector lies; false: its segment is bad already.
    bool spoil_the_segment_of(u64 offset)
    {
        const u64 at = rig.media.find(&rig.model[offset], 16, segment_offset({0}), sector);
        EXPECT_LT(at, rig.media.bytes()) << "sector " << offset / sector << " is not cached";
        if (!bad.insert((at - segment_offset({0})) / geometry.segment_bytes).second)
            return false;
        rig.media.poison(at, 64);
        return true;
    }
    std::set<u64> bad;
    bool read_only() { return rig.status().find(" ro") != std::string::npos; }
};

} // namespace

TEST_F(TooFewSegments, ActivationIsReadOnlyWithASentenceAndAnEvent)
{
    rig.start();
    rig.write_pattern(0, 8192);
    rig.remove();
    leave(needed() - 1);
    const u64 events = rig.world.events();
    rig.start();
    EXPECT_TRUE(read_only()) << rig.status();
    EXPECT_TRUE(rig.world.said("too few segments"));
    EXPECT_GT(rig.world.events(), events);
    rig.check("read-only");
    EXPECT_EQ(rig.try_write(0, Rig::pattern(0, 512, 9)), -5);
}

TEST_F(TooFewSegments, WithAsManyAsNeededWritesGoOnForEver)
{
    if (!small_world)
        GTEST_SKIP() << "fills a cache many times";
    rig.start();
    rig.write_pattern(0, 8192);
    rig.remove();
    leave(needed());
    rig.start();
    ASSERT_FALSE(read_only()) << rig.last_error();
    std::mt19937_64 rng(1);
    for (u64 written = 0; written < 30ull * segments * data_bytes; written += 16384)
        rig.write_pattern(rng() % (rig.model.size() / 16384) * 16384, 16384);
    rig.check("many times over");
}

// A page of one segment after the other goes bad, and a read meets it: first in clean data, which
// the backing device has, too; when GC would free that, in data that stays dirty. With the last one
// that is needed the cache becomes read-only, and not before.
TEST_F(TooFewSegments, TheLastOneThatIsNeededMakesARunningCacheReadOnly)
{
    if (!small_world)
        GTEST_SKIP() << "fills a cache";
    const OnCpu one_head(0);
    constexpr u32 too_many = segments / 4 + 3; // GC's low-water mark, log, spare, a head
    rig.start();
    const u32 limit = segments - needed() + 1;
    const u64 end = fill(segments - too_many);
    const u64 events = rig.world.events();
    for (u64 at = 0; at < end; at += 4096) {
        if (!spoil_the_segment_of(at))
            continue;
        ASSERT_LT(bad.size(), limit) << "that much is free for GC";
        const Image got = rig.read(at, 4096);
        EXPECT_EQ(std::memcmp(got.data(), &rig.model[at], 4096), 0);
    }
    EXPECT_GE(bad.size(), limit / 2);
    rig.backing.set_hook([](Op op, u64, u64) { return op == Op::write ? -5 : 0; });
    u64 lost = end;
    for (; bad.size() < limit; lost += 4096) {
        std::this_thread::sleep_for(100ms); // what is to come has come
        ASSERT_FALSE(read_only()) << bad.size() << " of " << segments << " are bad";
        ASSERT_EQ(rig.try_write(lost, Rig::pattern(lost, 4096, ++rig.version)), 0);
        std::memcpy(&rig.model[lost], Rig::pattern(lost, 4096, rig.version).data(), 4096);
        if (spoil_the_segment_of(lost)) {
            Bio bio(4096);
            ASSERT_EQ(rig.map(bio, {PC_READ, lost, 4096, 0, 0}), PC_TAKEN);
            EXPECT_EQ(bio.wait(), -5);
        }
    }
    EXPECT_TRUE(soon([&] { return rig.world.said("too few segments"); })) << rig.status();
    EXPECT_TRUE(read_only()) << rig.status();
    EXPECT_GT(rig.world.events(), events);
    EXPECT_EQ(rig.try_write(0, Rig::pattern(0, 512, 9)), -5);
    const Image got = rig.read(0, end);
    EXPECT_EQ(std::memcmp(got.data(), rig.model.data(), end), 0) << "clean data is read as before";
    rig.remove();
    rig.backing.set_hook(nullptr);
}
