// SPDX-License-Identifier: GPL-2.0
// Tests of accept_loss and power cuts: behind each of its steps, and at any of its stores.
#include "damage_rig.hpp"
#include <mutex>

using namespace pcache;
using namespace pcache::selftest;

#ifdef PCACHE_SMALL_GEOMETRY // whole images
namespace
{
struct Phase {
    bool formatting = false, superblock = false;
};
Phase phase_of(const Image &media)
{
    format::ExtensionRecord r;
    std::memcpy(&r, &media[format::extension_offset], sizeof(r));
    const bool other = media[format::extension_offset + format::extension_stride + 80] &
                       format::extension_state::formatting;
    return {(r.state & format::extension_state::formatting) || other,
            format::decode_superblock(&media[format::superblock_offset]).state ==
                format::SuperblockState::good};
}

// What a cut leaves is either the damaged cache or one that holds everything; and then it goes on.
void expect_whole(const Cut &cut, const Image &model, unsigned n)
{
    DamageRig rig;
    rig.media.load(cut.media[0]);
    rig.backing.load(cut.backings[0]);
    rig.model = model;
    ASSERT_EQ(rig.create(), 0) << "cut " << n << ": " << rig.sentence;
    ASSERT_EQ(rig.resume(), 0) << "cut " << n << ": " << rig.last_error();
    rig.check("after the cut");
    if (rig.read_only()) {
        ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    }
    EXPECT_FALSE(rig.read_only());
    rig.check("at last");
}

// Cuts behind each fence of accept_loss; `draw`: also what was stored and not yet fenced, by
// chance.
void cut_everywhere(bool draw)
{
    std::vector<Cut> cuts;
    std::string phases;
    Image model;
    {
        DamageRig rig;
        one_hole(rig);
        model = rig.model;
        rig.media.set_power_model(true);
        rig.backing.set_write_cache(true);
        Rng rng(7);
        std::mutex lock; // the new cache's workers are there already
        rig.world.set_fence_hook([&] {
            const std::lock_guard<std::mutex> g(lock);
            Cut c = rig.world.cut(rng);
            if (!draw)
                c.media[0] = rig.media.cut([](u64, unsigned) { return false; });
            const Phase p = phase_of(c.media[0]);
            const std::string s =
                std::string(p.formatting ? "F" : "-") + (p.superblock ? "S" : "-");
            if (phases.size() < 2 || phases.substr(phases.size() - 2) != s)
                phases += (phases.empty() ? "" : " ") + s;
            if (p.formatting) {
                EXPECT_TRUE(c.backings[0] == model) << "given up before all was durable below";
            }
            cuts.push_back(std::move(c));
        });
        ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
        rig.world.set_fence_hook(nullptr);
        cuts.push_back(rig.world.cut(rng));
        rig.media.set_power_model(false);
        rig.backing.set_write_cache(false);
    }
    if (!draw) {
        EXPECT_EQ(phases, "-S FS F- FS -S") << "damaged, 3, 4, 5 (its superblock), 5 (its end)";
    }
    for (unsigned n = 0; n < cuts.size(); n += life_step)
        expect_whole(cuts[n], model, n);
}
} // namespace

TEST(AcceptLoss, ACutBehindEachStepLeavesTheDamagedCacheOrAWholeOne)
{
    cut_everywhere(false);
}

TEST(AcceptLoss, ACutAtAnyStoreLeavesTheDamagedCacheOrAWholeOne)
{
    cut_everywhere(true);
}

// The LAST record of the first log segment is lost: link_seg leads to the rest.
TEST(AcceptLoss, DataBehindALostLinkGoesToTheBackingDevice)
{
    DamageRig rig(2 * format::geometry.min_segments);
    rig.keep_dirty(true);
    rig.start();
    u32 n = 0;
    while (n < 2000 && rig.log_segment() == 0)
        rig.write_record((n++ % 64) * 4096, 512);
    const u32 second = rig.log_segment();
    ASSERT_NE(second, 0u);
    for (u32 i = 0; i < 5; i++)
        rig.write_record((n++ % 64) * 4096, 512);
    rig.stop(false);
    rig.spoil_last();
    rig.keep_dirty(false);
    ASSERT_EQ(rig.create(), 0) << rig.sentence;
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    ASSERT_TRUE(rig.read_only()) << rig.status();
    rig.check("read-only: only the link is lost");
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    rig.check("after accept_loss");
    EXPECT_TRUE(rig.backing.image() == rig.model);
}
#endif
