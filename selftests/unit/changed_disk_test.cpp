// SPDX-License-Identifier: GPL-2.0
// selftests/unit/changed_disk_test.cpp - a backing device that somebody used while the cache was
// not there, or suspended: what a user sees. The rules of the disk record by themselves are in
// disk_record_test.cpp.
#include <chrono>
#include <thread>
#include "damage_rig.hpp"
#include "dm-pcache/format/disk_record.hpp"

using namespace pcache;
using namespace pcache::selftest;

namespace
{

// Until all that is in the log is on the backing device.
void drain(Rig &rig)
{
    ASSERT_EQ(rig.flush(), 0);
    for (int i = 0; i < 2000; i++) {
        const std::string s = rig.status();
        const usize key = s.rfind(' '), dirty = s.rfind(' ', key - 1),
                    head = s.rfind(' ', dirty - 1);
        if (s.substr(head + 1, dirty - head - 1) == s.substr(dirty + 1, key - dirty - 1))
            return;
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    ADD_FAILURE() << "never drained: " << rig.status();
}

class ChangedDisk : public testing::Test
{
protected:
    static constexpr u64 block = format::disk_block_bytes;
    static constexpr u64 outside = 512u << 10; // no block that is known
    DamageRig rig;
    Image served; // what the device holds, as the test knows it

    // Page 0 is cached clean, `dirty` pages from `outside` on are dirty; removed.
    void stop(u32 dirty)
    {
        rig.start();
        rig.write_pattern(0, block);
        drain();
        rig.keep_dirty(true);
        for (u32 i = 0; i < dirty; i++)
            rig.write_record(outside + i * block, block);
        rig.remove();
        rig.keep_dirty(false);
    }
    void drain() { ::drain(rig); }
    // Somebody writes there, past the cache.
    void change(u64 offset, u64 bytes = sector)
    {
        const Image d = Rig::pattern(offset, bytes, 7777);
        rig.backing.write(offset, d.data(), d.size());
    }
    // The same, and it is what must be read from now on.
    void change_for_good(u64 offset, u64 bytes = sector)
    {
        change(offset, bytes);
        const Image d = Rig::pattern(offset, bytes, 7777);
        std::memcpy(&rig.model[offset], d.data(), d.size());
    }
    format::DiskRecord record(u32 slot = 0) const
    {
        format::DiskRecord r;
        rig.media.read(format::disk_record_offset + u64{slot} * format::disk_record_stride, &r,
                       sizeof(r));
        return r;
    }
    u32 known() const { return record(0).known | record(1).known; }
    int create_read_only() { return rig.create({"2", "changed_backing", "read_only"}); }
    // How many lines of the log have it.
    u32 times_said(std::string_view part) const
    {
        u32 n = 0;
        for (const LogLine &l : rig.world.log())
            n += l.text.find(part) != std::string::npos;
        return n;
    }
};

TEST_F(ChangedDisk, BehindACleanStopIsReadAsItIsNow)
{
    stop(0);
    EXPECT_EQ(known(), ~0u);
    change_for_good(512);
    rig.start();
    EXPECT_TRUE(rig.world.said("4 KiB block 0"));
    EXPECT_TRUE(rig.world.said("all cached data is dropped"));
    rig.check("changed");
    rig.write_pattern(512, 1024);
    rig.remove();
    rig.start();
    rig.check("and used since");
}

constexpr const char *which_blocks = "of the blocks that were known";

TEST_F(ChangedDisk, WhatIsDroppedIsSaidOnceAndWhenItIsDone)
{
    stop(0);
    change_for_good(0);
    rig.world.clear_log();
    ASSERT_EQ(rig.create(), 0) << rig.sentence;
    EXPECT_EQ(times_said("all cached data is dropped"), 0u) << "nothing is dropped yet";
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    EXPECT_EQ(times_said("all cached data is dropped"), 1u);
    EXPECT_EQ(times_said(which_blocks), 1u);
}

TEST_F(ChangedDisk, ARefusalSaysOnceWhichBlocksDiffer)
{
    stop(2);
    change(0);
    rig.world.clear_log();
    EXPECT_EQ(rig.create(), -22);
    EXPECT_EQ(times_said(which_blocks), 1u);
}

// Nor does accept_loss find a hole in it, or say once more what is known.
TEST_F(ChangedDisk, IsNoDamageOfTheLog)
{
    stop(2);
    change_for_good(0);
    rig.world.clear_log();
    ASSERT_EQ(create_read_only(), 0) << rig.sentence;
    ASSERT_EQ(rig.resume(), 0);
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    EXPECT_EQ(times_said(which_blocks), 1u);
    EXPECT_EQ(times_said("damage at"), 0u);
    EXPECT_EQ(times_said("hole"), 0u);
    EXPECT_EQ(times_said("can be read"), 2u) << "how many keys, and that it is read-only";
    EXPECT_EQ(times_said("given up: 0 keys with 0 bytes in 0 ranges"), 1u);
}

TEST_F(ChangedDisk, WithDirtyDataIsRefusedUntilTheRightOneIsBack)
{
    stop(2);
    const Image right = rig.backing.image();
    change(5 * block);
    EXPECT_EQ(rig.create(), -22);
    EXPECT_NE(rig.sentence.find("4 KiB block 5 differs"), std::string::npos) << rig.sentence;
    EXPECT_NE(rig.sentence.find("changed_backing read_only"), std::string::npos) << rig.sentence;
    EXPECT_EQ(rig.create({"2", "changed_backing", "refuse"}), -22);
    rig.backing.load(right);
    rig.start();
    rig.check("the right one");
}

TEST_F(ChangedDisk, WhichWasChangedInMemoryOfTheLastPowerCutIsNotRefused)
{
    rig.start();
    rig.keep_dirty(true);
    rig.write_record(outside, block);
    EXPECT_EQ(known(), 0u) << "nothing is known while the cache is in use";
    rig.keep_dirty(false);
    Rng rng(1);
    rig.media.set_power_model(true);
    rig.power_cut(rng);
    rig.media.set_power_model(false);
    change_for_good(0);
    rig.start();
    rig.check("after the cut");
}

TEST_F(ChangedDisk, ReadOnlyShowsDirtyDataOverItAndAcceptLossWritesItThere)
{
    stop(2);
    change_for_good(0, 2 * block);
    change_for_good(outside + 8 * block);
    ASSERT_EQ(create_read_only(), 0) << rig.sentence;
    rig.world.clear_log();
    ASSERT_EQ(rig.resume(), 0);
    EXPECT_TRUE(rig.read_only()) << rig.status();
    EXPECT_TRUE(rig.world.said("4 KiB block 0 differs"));
    EXPECT_EQ(rig.world.events(), 1u);
    EXPECT_EQ(rig.status(1).find("changed_backing"), std::string::npos) << "never printed";
    rig.check("dirty data over what the device has");
    EXPECT_EQ(rig.try_write(0, Image(4096)), -5);
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    EXPECT_FALSE(rig.read_only());
    rig.check("after accept_loss");
    drain();
    EXPECT_EQ(known(), 0u);
    rig.remove();
    ASSERT_TRUE(rig.backing.image() == rig.model) << "all of it is on the device";
    rig.start();
    rig.check("in the next life");
}

TEST_F(ChangedDisk, ReadOnlyAlsoWithoutDirtyData)
{
    stop(0);
    change_for_good(0);
    ASSERT_EQ(create_read_only(), 0) << rig.sentence;
    ASSERT_EQ(rig.resume(), 0);
    EXPECT_TRUE(rig.read_only());
    rig.check("what was clean is ignored");
    rig.remove();
    rig.start();
    EXPECT_FALSE(rig.read_only()) << "without the option the keys go";
    rig.check("and then");
}

TEST_F(ChangedDisk, TheOptionChangesNothingOnADeviceThatAgreesAndIsRefusedAtAReload)
{
    stop(2);
    ASSERT_EQ(create_read_only(), 0) << rig.sentence;
    ASSERT_EQ(rig.resume(), 0);
    EXPECT_FALSE(rig.read_only());
    rig.check("as always");
    pc_target *const target = rig.target;
    pc_table *const table = rig.table;
    EXPECT_EQ(create_read_only(), -22);
    EXPECT_NE(rig.sentence.find("changed_backing read_only"), std::string::npos) << rig.sentence;
    rig.target = target;
    rig.table = table;
}

TEST_F(ChangedDisk, WhereTheLogIsDamagedIsReadOnlyAsEverAndCleanKeysAreIgnored)
{
    stop(3);
    // The middle one: what stands behind it is found again.
    for (u32 at = 0; at < format::data_bytes; at += 8) {
        format::RecordHeader h;
        rig.media.read(DamageRig::log_at(0, at), &h, sizeof(h));
        if (h.magic != format::record_magic)
            continue;
        format::Key k;
        rig.media.read(DamageRig::log_at(0, at) + sizeof(h), &k, sizeof(k));
        if (k.off == outside + block)
            rig.flip(DamageRig::log_at(0, at) + 20);
    }
    std::memcpy(&rig.model[outside + block], Rig::pattern(outside + block, block, 0).data(), block);
    change_for_good(0);
    ASSERT_EQ(rig.create(), 0) << rig.sentence;
    rig.world.clear_log();
    ASSERT_EQ(rig.resume(), 0);
    EXPECT_TRUE(rig.read_only());
    EXPECT_TRUE(rig.world.said("4 KiB block 0 differs"));
    EXPECT_EQ(times_said(which_blocks), 1u);
    EXPECT_TRUE(rig.world.said("newer than the first hole"));
    rig.check("clean data comes from the device");
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    EXPECT_EQ(times_said("what stood in the holes of the log (the first at 0:"), 1u);
}

TEST_F(ChangedDisk, AResumeOverItDropsAllCleanData)
{
    rig.start();
    rig.write_pattern(0, 16 * block);
    drain();
    rig.suspend();
    EXPECT_EQ(known(), ~0u) << "a suspend is a clean stop";
    change_for_good(3 * block);
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    EXPECT_EQ(known(), 0u);
    rig.check("resumed");
    rig.write_pattern(3 * block, 512);
    rig.suspend();
    ASSERT_EQ(rig.resume(), 0);
    rig.check("resumed once more");
    rig.remove();
    rig.start();
    rig.check("and in the next life");
}

// What GC has passed without being able to read it stands in no part of the log that is passed now.
TEST_F(ChangedDisk, AResumeOverItDropsWhatAHoleOfTheLogHasLeftInTheIndex)
{
    rig.start();
    for (u32 i = 0; i < 8; i++)
        rig.write_record(i * block, block);
    drain();
    rig.spoil_record(3);
    ASSERT_EQ(rig.message({"gc_percent", "0"}), 0);
    for (int i = 0; i < 2000 && !rig.world.said("the log cannot be read at 0:192"); i++)
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    ASSERT_TRUE(rig.world.said("the log cannot be read at 0:192"));
    ASSERT_EQ(rig.message({"gc_percent", "70"}), 0);
    rig.suspend();
    change_for_good(3 * block);
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    rig.check("resumed");
}

// Nobody knows what the log would have said: no key is dropped.
TEST_F(ChangedDisk, AResumeOverItThatCannotReadTheLogDropsNothing)
{
    rig.start();
    rig.write_record(0, block);
    drain();
    rig.keep_dirty(true);
    rig.write_record(outside, block);
    rig.suspend();
    rig.keep_dirty(false);
    rig.poison_record(1);
    change(0);
    EXPECT_EQ(rig.resume(), -5);
    EXPECT_FALSE(rig.world.said("all cached data is dropped"));
    rig.remove();
    rig.media.cure();
}

TEST_F(ChangedDisk, AResumeWithDirtyDataFailsAndStaysSuspendedUntilTheRightOneIsBack)
{
    rig.start();
    rig.write_pattern(0, block);
    drain();
    rig.keep_dirty(true);
    rig.write_record(outside, block);
    rig.suspend();
    rig.keep_dirty(false);
    const Image right = rig.backing.image();
    change(0);
    for (int i = 0; i < 2; i++) {
        EXPECT_EQ(rig.resume(), -22);
        EXPECT_NE(rig.last_error().find("4 KiB block 0 differs"), std::string::npos);
    }
    rig.backing.load(right);
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    rig.check("resumed");
}

TEST_F(ChangedDisk, ADeviceThatCannotBeReadIsRefusedWithItsOwnError)
{
    stop(0);
    rig.set_backing_hook([](Op op, u64, u64) { return op == Op::read ? -61 : 0; });
    EXPECT_EQ(rig.create(), -61);
    EXPECT_NE(rig.sentence.find("cannot be read"), std::string::npos) << rig.sentence;
    rig.set_backing_hook(nullptr);
    rig.start();
    rig.set_backing_hook([](Op op, u64, u64) { return op == Op::read ? -61 : 0; });
    rig.remove();
    EXPECT_TRUE(rig.world.said("will not be known"));
    EXPECT_EQ(known(), 0u);
    rig.set_backing_hook(nullptr);
    rig.start();
    rig.check("nothing is known, so nothing was compared");
}

TEST_F(ChangedDisk, ANoflushSuspendAsksTheDeviceForNothingAndKnowsNothing)
{
    rig.start();
    rig.write_pattern(0, block);
    drain();
    const auto before = rig.backing.counters();
    rig.suspend(true);
    EXPECT_EQ(rig.backing.counters().reads, before.reads);
    EXPECT_EQ(rig.backing.counters().flushes, before.flushes);
    EXPECT_EQ(known(), 0u);
    ASSERT_EQ(rig.resume(), 0);
    rig.suspend();
    EXPECT_EQ(known(), ~0u);
}

TEST_F(ChangedDisk, AStopWhoseFlushFailsKnowsNothing)
{
    rig.start();
    rig.write_pattern(0, block);
    drain();
    rig.set_backing_hook([](Op op, u64, u64) { return op == Op::flush ? -5 : 0; });
    rig.remove();
    EXPECT_EQ(known(), 0u);
    rig.set_backing_hook(nullptr);
}

// Step 0: at every operation on the backing device that accept_loss begins, and at each fence, a
// cut must leave a device that is still taken for a changed one, or a cache that is formatted.
TEST_F(ChangedDisk, ACutInAcceptLossNeverMakesItTheRightOne)
{
    if (!small_world)
        GTEST_SKIP() << "images of every fence: small geometry only";
    stop(6);
    change_for_good(0, 2 * block);
    ASSERT_EQ(create_read_only(), 0) << rig.sentence;
    ASSERT_EQ(rig.resume(), 0);
    std::vector<std::pair<Image, Image>> left;
    std::mutex lock;
    rig.media.set_power_model(true);
    rig.world.set_fence_hook([&] {
        const std::lock_guard<std::mutex> g(lock);
        if (left.size() < 60)
            left.push_back(
                {rig.media.cut([](u64, unsigned) { return false; }), rig.backing.image()});
    });
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    rig.world.set_fence_hook(nullptr);
    rig.remove();
    rig.media.set_power_model(false);
    ASSERT_GT(left.size(), 10u);
    u32 refused = 0;
    // The first fence is the one of step 0's first slot: nothing is sent before the second.
    for (const auto &[media, backing] : left) {
        rig.media.load(media);
        rig.backing.load(backing);
        if (rig.create() != 0) {
            refused++;
            EXPECT_NE(rig.sentence.find("4 KiB block 0 differs"), std::string::npos)
                << rig.sentence;
            ASSERT_EQ(create_read_only(), 0) << rig.sentence;
            ASSERT_EQ(rig.resume(), 0);
            ASSERT_TRUE(rig.read_only());
            rig.check("cut");
            ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
        } else {
            ASSERT_EQ(rig.resume(), 0) << rig.last_error();
        }
        rig.check("in the end");
        rig.remove();
    }
    EXPECT_GE(refused, 2u);
}

// ---- odd devices
// ---------------------------------------------------------------------------------

TEST(ChangedSmallDisk, BlocksThatAreNotWholeAreNotLookedAt)
{
    Rig rig(format::geometry.min_segments, (5u << 12) + 512);
    rig.start();
    rig.write_pattern(0, 4096);
    drain(rig);
    rig.remove();
    format::DiskRecord r;
    rig.media.read(format::disk_record_offset, &r, sizeof(r));
    EXPECT_EQ(r.known, 31u);
    u8 byte = 1;
    rig.backing.write(5u << 12, &byte, 1);
    rig.model[5u << 12] = 1;
    rig.start();
    rig.check("beyond the last whole block");
    rig.remove();
    rig.backing.write(4u << 12, &byte, 1);
    rig.model[4u << 12] = 1;
    rig.start();
    EXPECT_TRUE(rig.world.said("4 KiB block 4"));
    rig.check("inside it");
}

TEST(ChangedSmallDisk, AShorterTableForgetsWhatLiesBeyondIt)
{
    Rig rig;
    rig.start();
    rig.write_pattern(0, 4096);
    rig.remove();
    ASSERT_EQ(rig.create({}, 3 * 4096 + 512), 0) << rig.sentence;
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    rig.remove();
    format::DiskRecord r;
    rig.media.read(format::disk_record_offset, &r, sizeof(r));
    EXPECT_EQ(r.known, 7u);
}

} // namespace
