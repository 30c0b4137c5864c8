// SPDX-License-Identifier: GPL-2.0
// One cache has one user: who may be active beside whom on the same devices, or on copies of them.
#include "rig.hpp"

using namespace pcache::selftest;

namespace
{
// A second mapped device over the devices of that name. What ctr says.
struct Second {
    Second(Rig &r, const char *cache, const char *backing, u64 length = 0)
        : rig(r), table(r.world.add_table("second"))
    {
        std::string a = cache, b = backing;
        char *argv[] = {a.data(), b.data()};
        const char *s = nullptr;
        error = pc_target_ctr(table, 2, argv, length ? length : r.backing.bytes(), &target, &s);
        sentence = s ? s : "";
        if (error)
            target = nullptr;
    }
    ~Second()
    {
        if (target)
            pc_target_dtr(target);
        rig.world.drop_table(table);
    }
    Second(const Second &) = delete;
    Second &operator=(const Second &) = delete;

    Rig &rig;
    pc_table *table;
    pc_target *target = nullptr;
    int error;
    std::string sentence;
};
} // namespace

TEST(LifeCycle, AFailedActivationLeavesTheDevicesFreeForOthers)
{
    Rig rig;
    ASSERT_EQ(rig.create(), 0) << rig.sentence;
    rig.backing.fail(Op::flush, 1);
    ASSERT_EQ(rig.resume(), -5);
    Second other(rig, "cache", "backing");
    ASSERT_EQ(other.error, 0) << other.sentence;
    ASSERT_EQ(pc_target_preresume(other.target), 0);
    EXPECT_EQ(rig.resume(), -16) << "two at once on one cache";
    pc_target_presuspend(other.target, 0);
    pc_target_postsuspend(other.target);
}

#ifdef PCACHE_SMALL_GEOMETRY // copies whole images
TEST(LifeCycle, ACopyOfAnActiveCacheIsRefused)
{
    Rig rig;
    rig.start(); // formatted in this life: its uuid was not on media when the table was loaded
    rig.write_pattern(0, 4096);
    rig.suspend();
    rig.world.add_media("copy", rig.media.image());
    rig.world.add_backing("copy-backing", rig.backing.image());
    {
        Second copy(rig, "copy", "copy-backing");
        EXPECT_EQ(copy.error, -16);
        EXPECT_NE(copy.sentence.find("same uuid"), std::string::npos) << copy.sentence;
    }
    rig.destroy();
    // Both loaded before either is active.
    Second copy(rig, "copy", "copy-backing");
    ASSERT_EQ(copy.error, 0) << copy.sentence;
    rig.start();
    EXPECT_EQ(pc_target_preresume(copy.target), -16);
    EXPECT_TRUE(rig.world.said("same uuid"));
    // When the original is gone the copy may.
    rig.remove();
    ASSERT_EQ(pc_target_preresume(copy.target), 0) << rig.last_error();
    pc_target_presuspend(copy.target, 0);
    pc_target_postsuspend(copy.target);
}

// The cache device was blank when the table was loaded, and a copy of an active cache when it was
// resumed.
TEST(LifeCycle, ACopyThatCameBetweenLoadAndResumeIsRefused)
{
    Rig rig;
    MediaDevice &later = rig.world.add_media("later", rig.media.bytes());
    rig.world.add_backing("copy-backing", rig.backing.image());
    Second copy(rig, "later", "copy-backing");
    ASSERT_EQ(copy.error, 0) << copy.sentence;
    rig.start();
    rig.suspend();
    later.load(rig.media.image());
    EXPECT_EQ(pc_target_preresume(copy.target), -16);
    EXPECT_TRUE(rig.world.said("same uuid"));
}
#endif
