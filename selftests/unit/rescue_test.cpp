// SPDX-License-Identifier: GPL-2.0
// selftests/unit/rescue_test.cpp - what accept_loss finds on its own way over the data
// (engine/rescue.cpp). The steps of accept_loss as a whole: read_only_test.cpp.
#include "selftests/unit/damage_rig.hpp"

namespace pcache::selftest
{

namespace
{

class RescueRig : public DamageRig
{
public:
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
    rig.start();
    rig.keep_dirty(true);
    rig.write_record(0, 4096);
    for (u64 i = 1; i <= 5; i++) // into a segment that the new cache does not zero for its log
        rig.write_record(i * 32768, 32768);
    rig.stop(false);
    rig.spoil_record(0);
    rig.start();
    ASSERT_TRUE(rig.read_only()) << rig.status();
    const u64 bad = rig.place_of(5 * 32768 + 8192);
    rig.media.poison(bad, 64);
    rig.keep_dirty(false);
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    ASSERT_TRUE(rig.world.said("are given up"));
    EXPECT_TRUE(rig.can_be_read(bad)) << "the page was left as it was";
    rig.write_everywhere();
}

// Where a page that step 3 of accept_loss stores to can be neither read nor rewritten, the message
// is given again, and nobody but the first attempt has met the bad page of data.
void bad_page_outlives_an_attempt(u64 refused, u64 bytes)
{
    RescueRig rig;
    rig.start();
    rig.keep_dirty(true);
    rig.write_record(0, 4096);
    for (u64 i = 1; i <= 5; i++) // into a segment that the new cache does not zero for its log
        rig.write_record(i * 32768, 32768);
    rig.stop(false);
    rig.spoil_record(0);
    rig.start();
    ASSERT_TRUE(rig.read_only()) << rig.status();
    const u64 bad = rig.place_of(5 * 32768 + 8192);
    rig.media.poison(bad, 64);
    rig.media.poison(refused, bytes);
    rig.media.set_repairable(false);
    rig.keep_dirty(false);
    EXPECT_EQ(rig.message({"accept_loss"}), -5);
    ASSERT_TRUE(rig.read_only()) << rig.status();
    EXPECT_TRUE(rig.world.said("could not be given up"));
    rig.media.set_repairable(true);
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    EXPECT_TRUE(rig.can_be_read(bad)) << "the page was left as it was";
    rig.write_everywhere();
}

TEST(AcceptLoss, APageMetByAnAttemptThatFailedBehindStepTwoIsMadeGoodByTheNextOne)
{
    bad_page_outlives_an_attempt(format::superblock_offset, 64);
    bad_page_outlives_an_attempt(format::extension_offset,
                                 format::extension_stride + format::max_slot_bytes);
}

// Found beside the test above: without the extended superblock nothing proves the hole, so that the
// log seems to end there, and what reads had shown was given up without a word.
TEST(AcceptLoss, WhatReadsHaveShownIsKeptThoughMetadataIsLostMeanwhile)
{
    struct Lost {
        u64 offset, bytes;
    };
    for (const Lost &lost : {Lost{format::extension_offset, format::extension_stride + 64},
                             Lost{format::key_tail_offset, format::position_stride + 64},
                             Lost{format::dirty_tail_offset, format::position_stride + 64},
                             Lost{format::superblock_offset, 64}, Lost{DamageRig::record_at(3), 64},
                             Lost{DamageRig::record_at(1), 64}}) {
        SCOPED_TRACE("lost: " + std::to_string(lost.offset));
        RescueRig rig;
        rig.start();
        rig.keep_dirty(true);
        for (u64 i = 0; i < 6; i++)
            rig.write_record(i * 8192, 4096);
        rig.stop(false);
        rig.spoil_record(1);
        rig.model_without({1});
        rig.start();
        ASSERT_TRUE(rig.read_only()) << rig.status();
        rig.check("what reads show");
        rig.media.poison(lost.offset, lost.bytes);
        rig.keep_dirty(false);
        ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
        rig.check("behind accept_loss");
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
