// SPDX-License-Identifier: GPL-2.0
// selftests/unit/rescue_test.cpp - what accept_loss finds on its own way over the data
// (engine/rescue.cpp). The steps of accept_loss as a whole: read_only_test.cpp.
#include "selftests/unit/damage_rig.hpp"

namespace pcache::selftest
{

// Found by make nth-failure (seed 5): a page that went bad in the read-only state is met by nobody
// but the rescue, and the activation of the new cache, which knows of no bad page, stored to it.
// The World reports a store to a line that could not be read.
TEST(Rescue, APageThatItAloneHasMetIsRewrittenBeforeTheNewCacheStoresThere)
{
    DamageRig rig;
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
    u8 line[64];
    pc_media *media = rig.media.open();
    u8 *at = pc_media_map(media, bad / 4096 * 4096, 4096);
    EXPECT_EQ(pc_media_load(line, at + bad % 4096, sizeof(line)), 0)
        << "the page was left as it was";
    pc_media_close(media);
    for (u32 round = 0; small_world && round < 8; round++) // through all segments
        for (u64 i = 0; i < rig.model.size() / 8192; i++)
            rig.write_pattern(i * 8192, 4096);
    EXPECT_EQ(rig.flush(), 0);
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
        rig.world.set_fence_hook([&] {
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
    for (usize n = 0; n < states.size() && !HasFailure(); n += n < 24 ? 1 : 16) {
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
