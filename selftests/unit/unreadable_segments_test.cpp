// SPDX-License-Identifier: GPL-2.0
// Tests that a segment in which somebody has met a line that cannot be read gets no new data, and
// its pages no store, whoever met it: Linux has unmapped the page by then. The World reports a
// store to such a line. And that what was kept of such a page does not outlive it.
#include "damage_rig.hpp"
#include "dm-pcache/engine/limits.hpp"
#include "mainline_media.hpp"
#include <atomic>
#include <thread>

#ifdef PCACHE_SMALL_GEOMETRY // whole caches
using namespace pcache::selftest;
using pcache::format::geometry;
namespace format = pcache::format;

namespace
{
constexpr u32 key_bytes = 48u << 10;
static_assert(key_bytes > pcache::engine::summed_bytes_per_read);

template <class F>
bool soon(F f)
{
    for (int i = 0; i < 1000 && !f(); i++)
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    return f();
}
bool becomes_clean(DamageRig &rig)
{
    return soon([&] { return rig.backing.image() == rig.model; });
}
bool becomes_read_only(DamageRig &rig)
{
    return soon([&] { return rig.read_only(); });
}
void use_all_segments(DamageRig &rig)
{
    for (u32 round = 0; round < 4; round++)
        for (u64 at = 0; at < rig.model.size(); at += 32u << 10)
            rig.write_pattern(at, 32u << 10);
    EXPECT_EQ(rig.flush(), 0);
}
void expect_no_store_there(DamageRig &rig)
{
    for (const std::string &v : rig.world.violations())
        ADD_FAILURE() << v;
    rig.media.cure();
}
} // namespace

// A page of the log had a line that could not be read at activation, so what else was in it is kept
// (KeptPages). The error is cleared before the resume (ndctl clear-errors), the log leaves the
// segment, GC frees it, the log comes back and zeroes it.
TEST(UnreadableSegments, WhatWasKeptOfAPageOfTheLogIsForgottenWhenItsSegmentIsZeroed)
{
    DamageRig rig;
    rig.start();
    for (u32 i = 0; i < 100; i++)
        rig.write_record(i * 4096, 512);
    ASSERT_TRUE(becomes_clean(rig));
    rig.remove();
    rig.poison_record(5);
    ASSERT_EQ(rig.create(), 0) << rig.sentence;
    rig.media.cure();
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    ASSERT_FALSE(rig.read_only()) << rig.status();
    rig.check("a hole in front of dirty_tail");
    bool left = false;
    u32 n = 0;
    for (; n < 300000; n++) {
        rig.write_record(n * u64{4096} % rig.model.size(), 512);
        if (rig.read_only())
            break;
        const u32 at = rig.log_segment();
        left |= at != 0;
        if (left && at == 0)
            break;
    }
    ASSERT_TRUE(left && rig.log_segment() == 0) << n << " " << rig.status();
    for (u32 i = 0; i < 32; i++)
        rig.write_record((i + 7) * u64{8192} % rig.model.size(), 512);
    EXPECT_TRUE(becomes_clean(rig)) << rig.status();
    EXPECT_FALSE(rig.read_only()) << rig.status();
    rig.check("the log has come back");
}

// A line of the log in front of dirty_tail cannot be read at activation (the page has lost its
// mapping by that): clean data is lost, and the cache goes on. Nobody marks the segment: when the
// log has left it a data head gets it, and stores there.
TEST(UnreadableSegments, ALogSegmentThatCouldNotBeReadAtActivationGetsNoData)
{
    DamageRig rig;
    rig.start();
    for (u32 i = 0; i < 100; i++)
        rig.write_record(i * 4096, 512);
    ASSERT_TRUE(becomes_clean(rig));
    rig.remove();
    rig.poison_record(5);
    rig.start();
    ASSERT_FALSE(rig.read_only()) << rig.status();
    EXPECT_TRUE(rig.world.said("hole in the log at 0:320"));
    for (u32 n = 0; n < 20000 && rig.log_segment() == 0; n++)
        rig.write_record(n * u64{4096} % rig.model.size(), 512);
    ASSERT_NE(rig.log_segment(), 0u);
    ASSERT_TRUE(becomes_clean(rig));
    use_all_segments(rig);
    use_all_segments(rig);
    rig.check("at the end");
    expect_no_store_there(rig);
}

// With data_crc, in the state read_only: a read of a long key meets poison (the page has lost its
// mapping by that), and nobody notes the segment. The new cache stores there.
TEST(UnreadableSegments, WhatASummedReadOfAReadOnlyCacheCouldNotReadIsNotStoredTo)
{
    DamageRig rig;
    rig.media.set_unmaps_pages(true);
    u64 place = 0;
    {
        MainlineMedia media(rig.media, geometry.min_segments, true);
        rig.model = Rig::pattern(0, rig.model.size(), 0);
        rig.backing.load(rig.model);
        for (u32 i = 0; i < 4; i++) { // segment 1 would be the new log's spare, which is probed
            const u64 at = u64{i} * geometry.range_bytes;
            const u64 p = media.add_key(at, Rig::pattern(at, key_bytes, 0), format::key_clean);
            place = i == 1 ? p : place;
        }
        media.end_log();
    }
    rig.put_dirty_tail({{0}, 4}); // where no record can begin
    ASSERT_EQ(rig.create(), 0) << rig.sentence;
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    ASSERT_TRUE(rig.read_only()) << rig.status();
    rig.media.poison(place + 8192, 64);
    Bio bio(key_bytes);
    ASSERT_EQ(rig.map(bio, {PC_READ, geometry.range_bytes, key_bytes, 0, 0}), PC_TAKEN);
    EXPECT_EQ(bio.wait(), -5);
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    use_all_segments(rig);
    expect_no_store_there(rig);
}

// With data_crc, running: the lane that sums a long key meets poison, and before the damage worker
// comes to it the range is written anew. Nobody marks the segment; a data head gets it.
TEST(UnreadableSegments, WhatASummedReadCouldNotReadGetsNoNewDataThoughItIsOverwrittenMeanwhile)
{
    DamageRig rig;
    u64 place[2];
    {
        MainlineMedia media(rig.media, geometry.min_segments, true);
        rig.model = Rig::pattern(0, rig.model.size(), 0);
        rig.backing.load(rig.model);
        for (u32 i = 0; i < 2; i++)
            place[i] = media.add_key(u64{i} * geometry.range_bytes,
                                     Rig::pattern(u64{i} * geometry.range_bytes, key_bytes, 0),
                                     format::key_clean);
        media.end_log();
        media.all_clean();
    }
    ASSERT_EQ(rig.create(), 0) << rig.sentence;
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    std::atomic<bool> held{false}, go{false};
    rig.set_backing_hook([&](Op op, u64, u64) {
        if (op == Op::read && !go) {
            held = true;
            while (!go)
                std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        return 0;
    });
    rig.media.poison(place[0] + 8192, 64);
    rig.media.poison(place[1] + 8192, 64);
    Bio first(key_bytes), second(key_bytes);
    ASSERT_EQ(rig.map(first, {PC_READ, 0, key_bytes, 0, 0}), PC_TAKEN);
    for (int i = 0; i < 2000 && !held; i++)
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    ASSERT_TRUE(held);
    ASSERT_EQ(rig.map(second, {PC_READ, geometry.range_bytes, key_bytes, 0, 0}), PC_TAKEN);
    std::this_thread::sleep_for(std::chrono::milliseconds(300)); // the lane hands it over
    rig.write_pattern(geometry.range_bytes, key_bytes);
    go = true;
    EXPECT_EQ(first.wait(), 0);
    EXPECT_EQ(second.wait(), 0);
    rig.set_backing_hook(nullptr);
    use_all_segments(rig);
    use_all_segments(rig);
    rig.check("at the end");
    expect_no_store_there(rig);
}

// With data_crc, read-only since run time: step 1 of accept_loss verifies what the index has, clean
// data included; where that meets poison nobody notes the segment. And clean data is no loss.
TEST(UnreadableSegments, WhatTheRescueOfTheIndexCouldNotReadIsNotStoredTo)
{
    DamageRig rig;
    ASSERT_EQ(rig.create({"2", "data_crc", "true"}), 0) << rig.sentence;
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    rig.write_pattern(512u << 10, 48u << 10); // the first segments become the new log's, or a spare
    rig.write_pattern(640u << 10, 48u << 10);
    rig.write_pattern(0, 4096);
    ASSERT_EQ(rig.flush(), 0);
    ASSERT_TRUE(becomes_clean(rig));
    for (u32 i = 0; i < 12; i++) // more than write-back's verifier remembers
        rig.write_pattern(65536 + i * 8192, 4096);
    ASSERT_EQ(rig.flush(), 0);
    ASSERT_TRUE(becomes_clean(rig));
    const u64 next = rig.next_record();
    rig.keep_dirty(true);
    rig.write_record(8192, 4096);
    rig.media.poison(rig.place_of(3 * 512), 64);
    rig.media.poison(next, 8);
    ASSERT_TRUE(becomes_read_only(rig)) << rig.status();
    rig.keep_dirty(false);
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    EXPECT_TRUE(rig.backing.image() == rig.model);
    use_all_segments(rig);
    expect_no_store_there(rig);
}

// A copy of data by the damage worker fails (the page has lost its mapping by that), and what it
// was to copy is overwritten before the worker has judged it: nobody notes the segment.
TEST(UnreadableSegments, WhatTheDamageWorkerCouldNotReadGetsNoNewDataThoughItIsOverwrittenMeanwhile)
{
    DamageRig rig;
    rig.start();
    rig.write_pattern(0, 48u << 10);              // a segment
    rig.write_pattern(128u << 10, 48u << 10);     // another one
    rig.write_pattern(256u << 10, 4096);          // first piece of the read
    rig.write_pattern(384u << 10, 44u << 10);     // fill the segment
    rig.write_pattern((256u << 10) + 4096, 4096); // second piece of the read, in another segment
    ASSERT_EQ(rig.flush(), 0);
    ASSERT_TRUE(becomes_clean(rig));
    const u64 a = rig.place_of(256u << 10), b = rig.place_of((256u << 10) + 4096);
    rig.media.poison(a, 64);
    rig.media.poison(b + 1024, 64);
    // The worker reads the first piece from the backing device, then copies the second one and
    // fails; it then has what is staged committed: held there by the fence.
    std::atomic<bool> held{false}, go{false};
    std::atomic<int> reads{0};
    rig.set_backing_hook([&](Op op, u64, u64) {
        reads += op == Op::read;
        return 0;
    });
    const auto self = std::this_thread::get_id();
    rig.world.set_fence_hook([&] {
        if (std::this_thread::get_id() == self || !reads || go)
            return;
        held = true;
        while (!go)
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
    });
    Bio bio(8192);
    rig.write_pattern(700u << 10, 512); // something is staged
    rig.backing.set_delay_ns(Op::read, 20'000'000);
    ASSERT_EQ(rig.map(bio, {PC_READ, 256u << 10, 8192, 0, 0}), PC_TAKEN);
    for (int i = 0; i < 200 && !reads; i++)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    rig.write_pattern(708u << 10, 512); // staged while the first piece is read
    for (int i = 0; i < 400 && !held; i++)
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    EXPECT_TRUE(held);
    rig.write_pattern((256u << 10) + 4096, 4096);
    go = true;
    EXPECT_EQ(bio.wait(), 0);
    rig.world.set_fence_hook(nullptr);
    rig.set_backing_hook(nullptr);
    rig.backing.set_delay_ns(Op::read, 0);
    use_all_segments(rig);
    use_all_segments(rig);
    expect_no_store_there(rig);
}

// The lanes look at the index and at the data that accept_loss is about to give to others. Held in
// the middle of a key.
TEST(SummedReads, AcceptLossTouchesNoSuperblockWhileOneIsUnderWay)
{
    DamageRig rig;
    {
        MainlineMedia media(rig.media, geometry.min_segments, true);
        rig.model = Rig::pattern(0, rig.model.size(), 0);
        rig.backing.load(rig.model);
        media.add_key(0, Rig::pattern(0, key_bytes, 0), format::key_clean);
        media.end_log();
    }
    rig.put_dirty_tail({{0}, 4}); // where no record can begin
    ASSERT_EQ(rig.create(), 0) << rig.sentence;
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    ASSERT_TRUE(rig.read_only()) << rig.status();
    std::this_thread::sleep_for(std::chrono::milliseconds(200)); // the log's worker has ended
    std::atomic<bool> hold{true}, go{false};
    rig.world.set_yield_hook([&] { // whoever is at work by then, the lane among them
        if (!hold)
            return;
        while (!go)
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
    });
    Bio bio(key_bytes);
    ASSERT_EQ(rig.map(bio, {PC_READ, 0, key_bytes, 0, 0}), PC_TAKEN);
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    EXPECT_FALSE(bio.ended());
    hold = false;
    u8 before[64], now[64];
    rig.media.read(format::superblock_offset, before, sizeof(before));
    int answer = 1;
    std::thread asks([&] { answer = rig.message({"accept_loss"}); });
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    rig.media.read(format::superblock_offset, now, sizeof(now));
    EXPECT_EQ(std::memcmp(before, now, sizeof(now)), 0) << "the cache is given up under the read";
    EXPECT_FALSE(bio.ended());
    go = true;
    asks.join();
    EXPECT_EQ(answer, 0) << rig.last_error();
    EXPECT_EQ(bio.wait(), 0);
    EXPECT_EQ(std::memcmp(bio.data(), &rig.model[0], key_bytes), 0);
    rig.world.set_yield_hook(nullptr);
}
#endif
