// SPDX-License-Identifier: GPL-2.0
// selftests/unit/rescue_test.cpp - what accept_loss finds on its own way over the data
// (engine/rescue.cpp). The steps of accept_loss as a whole: read_only_test.cpp.
#include <atomic>
#include "selftests/unit/damage_rig.hpp"

namespace pcache::selftest
{

namespace
{

class RescueRig : public DamageRig
{
public:
    // Read-only by a hole in the log, all data dirty, and a bad line that nobody has met, in a
    // segment that a new cache does not zero for its log: its place.
    u64 start_with_a_bad_line(bool turned = false)
    {
        start();
        keep_dirty(true);
        write_record(0, 4096);
        for (u64 i = 1; i <= 5; i++)
            write_record(i * 32768, 32768);
        stop(false);
        spoil_record(0);
        if (turned)
            turn_chain();
        start();
        EXPECT_TRUE(read_only()) << status();
        const u64 bad = place_of(5 * 32768 + 8192);
        media.poison(bad, 64);
        keep_dirty(false);
        return bad;
    }
    // Every segment but the first stands one place further on the device than in the chain.
    void turn_chain()
    {
        constexpr u32 n = format::geometry.min_segments;
        const auto physical = [](u32 i) { return i ? 1 + i % (n - 1) : 0; };
        std::vector<Image> old(n, Image(format::geometry.segment_bytes));
        for (u32 i = 0; i < n; i++)
            media.read(format::segment_offset({i}), old[i].data(), old[i].size());
        for (u32 i = 0; i < n; i++) {
            const u32 at = physical(i), next = i + 1 < n ? physical(i + 1) : 0;
            media.write(format::segment_offset({at}), old[i].data(), old[i].size());
            format::SegmentInfoRecord r = format::encode_segment_info({i + 1 < n, {next}});
            format::seal_slot(&r, sizeof(r), 1);
            const media::SlotPlace place = media::segment_info_place({at});
            media.write(place.offset, &r, sizeof(r));
            media.write(place.offset + place.stride, &r, sizeof(r));
        }
    }
    bool can_be_read(u64 offset) // the cache device's line there
    {
        u8 line[64];
        pc_media *m = media.open();
        u8 *at = pc_media_map(m, offset / 4096 * 4096, 4096);
        const bool can = pc_media_load(line, at + offset % 4096, sizeof(line)) == 0;
        pc_media_close(m);
        return can;
    }
    void write_everywhere() // through all segments
    {
        for (u32 round = 0; small_world && round < 8; round++)
            for (u64 i = 0; i < model.size() / 8192; i++)
                write_pattern(i * 8192, 4096);
        EXPECT_EQ(flush(), 0);
    }
};

} // namespace

// Found by make nth-failure (seed 5): a page that went bad in the read-only state is met by nobody
// but the rescue, and the activation of the new cache, which knows of no bad page, stored to it.
// The World reports a store to a line that could not be read.
TEST(Rescue, APageThatItAloneHasMetIsRewrittenBeforeTheNewCacheStoresThere)
{
    RescueRig rig;
    const u64 bad = rig.start_with_a_bad_line();
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    ASSERT_TRUE(rig.world.said("are given up"));
    EXPECT_TRUE(rig.can_be_read(bad)) << "the page was left as it was";
    rig.write_everywhere();
}

// In the geometry of real devices it would be 512 MiB that are turned.
#ifdef PCACHE_SMALL_GEOMETRY
TEST(Rescue, APageThatItAloneHasMetIsRewrittenWhereverItsSegmentStandsInTheChain)
{
    RescueRig rig;
    const u64 bad = rig.start_with_a_bad_line(true);
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    ASSERT_TRUE(rig.world.said("are given up"));
    EXPECT_TRUE(rig.can_be_read(bad)) << "the page was left as it was";
    rig.write_everywhere();
}
#endif

// Where a page that step 3 of accept_loss stores to can be neither read nor rewritten, the message
// is given again, and nobody but the first attempt has met the bad page of data.
void bad_page_outlives_an_attempt(u64 refused, u64 bytes, bool behind_step_0)
{
    RescueRig rig;
    const u64 bad = rig.start_with_a_bad_line();
    const auto go_bad = [&] {
        rig.media.poison(refused, bytes);
        rig.media.set_repairable(false);
    };
    std::atomic<bool> gone{false};
    rig.set_backing_hook([&](Op op, u64, u64) {
        if (op == Op::write && behind_step_0 && !gone.exchange(true))
            go_bad();
        return 0;
    });
    if (!behind_step_0)
        go_bad();
    EXPECT_EQ(rig.message({"accept_loss"}), -5);
    ASSERT_TRUE(rig.read_only()) << rig.status();
    EXPECT_TRUE(rig.world.said("could not be given up"));
    rig.set_backing_hook(nullptr);
    rig.media.set_repairable(true);
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    EXPECT_TRUE(rig.can_be_read(bad)) << "the page was left as it was";
    rig.write_everywhere();
}

// Workers of the new cache would begin to work on a device that is suspended.
TEST(AcceptLoss, GivenAgainOnASuspendedDeviceItIsRefusedAndStoresNothing)
{
    RescueRig rig;
    (void)rig.start_with_a_bad_line();
    rig.media.poison(format::superblock_offset, 64);
    rig.media.set_repairable(false);
    EXPECT_EQ(rig.message({"accept_loss"}), -5);
    rig.media.set_repairable(true);
    rig.suspend();
    std::atomic<u64> fences{0};
    rig.world.set_fence_hook([&] { fences++; });
    EXPECT_EQ(rig.message({"accept_loss"}), -16);
    rig.world.set_fence_hook(nullptr);
    EXPECT_EQ(fences, 0u);
    EXPECT_TRUE(rig.read_only()) << rig.status();
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    rig.write_everywhere();
}

// Step 0: what cannot be cleared is not sent.
TEST(AcceptLoss, NothingIsSentWhereTheDiskRecordCannotBeEmptied)
{
    RescueRig rig;
    (void)rig.start_with_a_bad_line();
    rig.media.poison(format::disk_record_offset,
                     format::disk_record_stride + format::disk_record_bytes);
    rig.media.set_repairable(false);
    const u64 writes = rig.backing.counters().writes;
    EXPECT_EQ(rig.message({"accept_loss"}), -5);
    EXPECT_TRUE(rig.read_only());
    EXPECT_EQ(rig.backing.counters().writes, writes);
    rig.media.set_repairable(true);
    EXPECT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
}

TEST(AcceptLoss, APageMetByAnAttemptThatFailedBehindStepTwoIsMadeGoodByTheNextOne)
{
    bad_page_outlives_an_attempt(format::superblock_offset, 64, false);
    bad_page_outlives_an_attempt(format::extension_offset,
                                 format::extension_stride + format::extension_bytes, true);
}

// Found beside the test above. What the index was made of can be read at activation and not any
// more when accept_loss is given: a record; or what proved the hole, so that the log seems to end
// there. What reads had shown was given up.
void what_reads_have_shown_is_kept(u32 spoilt, u64 lost, u64 bytes)
{
    SCOPED_TRACE("record " + std::to_string(spoilt) + ", then " + std::to_string(lost));
    RescueRig rig;
    rig.start();
    rig.keep_dirty(true);
    for (u64 i = 0; i < 6; i++)
        rig.write_record(i * 8192, 4096);
    rig.stop(false);
    rig.spoil_record(spoilt);
    rig.model_without({spoilt});
    rig.start();
    ASSERT_TRUE(rig.read_only()) << rig.status();
    rig.check("what reads show");
    rig.media.poison(lost, bytes);
    rig.keep_dirty(false);
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    rig.check("behind accept_loss");
}

TEST(AcceptLoss, WhatReadsHaveShownIsKeptThoughMetadataIsLostMeanwhile)
{
    for (const u32 spoilt : {0u, 1u}) {
        what_reads_have_shown_is_kept(spoilt, format::superblock_offset, 64);
        what_reads_have_shown_is_kept(spoilt, format::extension_offset,
                                      format::extension_stride + format::extension_bytes);
        what_reads_have_shown_is_kept(spoilt, format::key_tail_offset, 64); // both tails
        what_reads_have_shown_is_kept(spoilt, DamageRig::record_at(1), 64);
        what_reads_have_shown_is_kept(spoilt, DamageRig::record_at(3), 64);
    }
}

#ifdef PCACHE_SMALL_GEOMETRY // whole images
// Found by the simulator (seed 10301): the extended superblock stood for a superblock that could
// not be read, then it said FORMATTING, and a cut there left a device that was neither a cache nor
// blank.
TEST(AcceptLoss, ACutBehindEachStepWithoutASuperblockLeavesTheDamagedCacheOrAWholeOne)
{
    struct State {
        Cut cut;
        bool readable;
    };
    std::vector<State> states;
    Image model;
    {
        DamageRig rig;
        rig.start();
        rig.keep_dirty(true);
        for (u64 i = 0; i < 4; i++)
            rig.write_record(i * 8192, 4096);
        rig.stop(false);
        rig.spoil_record(1);
        rig.model_without({1});
        rig.media.poison(format::superblock_offset, 64);
        rig.start();
        ASSERT_TRUE(rig.read_only()) << rig.status();
        rig.keep_dirty(false);
        model = rig.model;
        rig.media.set_power_model(true);
        rig.backing.set_write_cache(true);
        pc_media *media = rig.media.open();
        u8 *superblock = pc_media_map(media, format::superblock_offset, 64);
        Rng rng(7);
        std::mutex lock; // the new cache's workers are there already
        rig.world.set_fence_hook([&] {
            const std::lock_guard<std::mutex> g(lock);
            u8 line[64];
            states.push_back({rig.world.cut(rng), pc_media_load(line, superblock, 64) == 0});
            states.back().cut.media[0] = rig.media.cut([](u64, unsigned) { return false; });
        });
        ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
        rig.world.set_fence_hook(nullptr);
        rig.media.set_power_model(false);
        rig.backing.set_write_cache(false);
        pc_media_close(media);
    }
    EXPECT_TRUE(states.back().readable);
    // Steps 3 and 4 are among the first; formatting as such is format_cache_test's.
    for (usize n = 0; n < states.size() && !HasFailure(); n += n < 24 ? life_step : 16) {
        DamageRig rig;
        rig.media.load(states[n].cut.media[0]);
        rig.backing.load(states[n].cut.backings[0]);
        if (!states[n].readable)
            rig.media.poison(format::superblock_offset, 64);
        rig.model = model;
        ASSERT_EQ(rig.create(), 0) << "cut " << n << ": " << rig.sentence;
        ASSERT_EQ(rig.resume(), 0) << "cut " << n << ": " << rig.last_error();
        rig.check("after the cut");
        rig.remove();
        rig.media.cure();
    }
}
#endif

} // namespace pcache::selftest
