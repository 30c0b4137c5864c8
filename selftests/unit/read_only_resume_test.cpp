// SPDX-License-Identifier: GPL-2.0
// selftests/unit/read_only_resume_test.cpp - a cache that is read-only, or becomes it in the
// resume, and what was done around it while the device was suspended: a shorter table, another
// backing device.
#include <thread>
#include "damage_rig.hpp"

using namespace pcache;
using namespace pcache::selftest;

namespace
{

constexpr u64 page = 4096;

bool becomes_read_only(DamageRig &rig)
{
    for (int i = 0; i < 1000 && !rig.read_only(); i++)
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    return rig.read_only();
}

// While the table is not active yet.
bool said_read_only(DamageRig &rig)
{
    for (int i = 0; i < 1000 && !rig.world.said("read-only: "); i++)
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    return rig.world.said("read-only: ");
}

bool becomes_clean(DamageRig &rig)
{
    for (int i = 0; i < 1000 && rig.backing.image() != rig.model; i++)
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    return rig.backing.image() == rig.model;
}

// What the resume of a table of this length says.
int reload(
    DamageRig &rig, u64 length, const std::function<void()> &suspended = [] {})
{
    pc_target *const old = rig.target;
    pc_table *const old_table = rig.table;
    EXPECT_EQ(rig.create({}, length), 0) << rig.sentence;
    pc_target_presuspend(old, 0);
    pc_target_postsuspend(old);
    suspended();
    const int e = rig.resume();
    pc_target_dtr(old);
    rig.world.drop_table(old_table);
    return e;
}

// Somebody else stores there, and that is what must be read from now on.
void store_behind_it(DamageRig &rig, u64 offset, u64 bytes)
{
    const Image d = Rig::pattern(offset, bytes, 4711);
    rig.backing.write(offset, d.data(), d.size());
    std::memcpy(&rig.model[offset], d.data(), d.size());
}

class ReadOnlyResume : public testing::Test
{
protected:
    DamageRig rig;
    const u64 all = rig.model.size(), half = all / 2, beyond = all - page;

    // Page 0 and the last one are cached clean, the record at `offset` is dirty and cannot be read.
    void lose_at_run_time(u64 offset)
    {
        rig.start();
        rig.write_record(beyond, page);
        rig.write_record(0, page);
        ASSERT_TRUE(becomes_clean(rig));
        rig.keep_dirty(true);
        rig.write_record(offset, page);
        rig.poison_record(2);
        ASSERT_TRUE(becomes_read_only(rig)) << rig.status();
        rig.keep_dirty(false);
    }
    // With the first thing that this thread stores.
    void goes_bad_in_the_resume(u32 i)
    {
        rig.world.clear_log();
        rig.world.set_fence_hook(
            [this, i, done = false, self = std::this_thread::get_id()]() mutable {
                if (std::this_thread::get_id() != self || done)
                    return;
                done = true;
                rig.poison_record(i);
            });
    }
    void says_that_the_log_cannot_be_read()
    {
        rig.world.set_fence_hook(nullptr);
        EXPECT_TRUE(rig.read_only()) << rig.status();
        EXPECT_TRUE(rig.world.said("read-only: ")) << rig.last_error();
        EXPECT_FALSE(rig.world.said("cannot be stored to")) << rig.last_error();
    }
    // A dirty record, the `i`th, that is lost in the next life, and one at `offset` behind it.
    void lose(u32 i, u64 offset, bool clean_stop = false)
    {
        rig.keep_dirty(true);
        rig.write_record(3 * page, page);
        rig.write_record(offset, page);
        rig.stop(clean_stop);
        rig.spoil_record(i);
        rig.model_without({i});
        rig.keep_dirty(false);
    }
};

} // namespace

// ---- a shorter table ---------------------------------------------------------------------------

TEST_F(ReadOnlyResume, CleanDataBeyondAShorterTableIsNeitherSentNorServedAgain)
{
    lose_at_run_time(8 * page);
    ASSERT_EQ(reload(rig, half), 0) << rig.last_error();
    EXPECT_TRUE(rig.read_only());
    store_behind_it(rig, half, half);
    ASSERT_EQ(reload(rig, all), 0) << rig.last_error();
    rig.check("the table has grown again");
    ASSERT_EQ(reload(rig, half), 0) << rig.last_error();
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    EXPECT_TRUE(rig.backing.image() == rig.model) << "the dirty page is there, and nothing else";
    ASSERT_EQ(reload(rig, all), 0) << rig.last_error();
    rig.check("after accept_loss");
    rig.media.cure();
}

// Of the record that cannot be read only the index knows: it may be dirty.
TEST_F(ReadOnlyResume, AShorterTableIsRefusedWhileDirtyDataLiesBeyondIt)
{
    lose_at_run_time(half + page);
    EXPECT_EQ(reload(rig, half), -22);
    EXPECT_TRUE(rig.world.said("the table is too short"));
    EXPECT_EQ(rig.resume(), -22) << "it is refused as often as it is tried";
    ASSERT_EQ(reload(rig, all), 0) << rig.last_error();
    rig.check("the longer table again");
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    EXPECT_TRUE(rig.backing.image() == rig.model);
    ASSERT_EQ(reload(rig, half), 0) << rig.last_error();
    rig.media.cure();
}

// All data is on the backing device by then, and the log still names it.
TEST_F(ReadOnlyResume, AShorterTableIsTakenWhereAcceptLossHasSentAllAndFailedBehindIt)
{
    rig.start();
    rig.write_record(0, page);
    lose(1, beyond);
    rig.start();
    ASSERT_TRUE(rig.read_only()) << rig.status();
    rig.set_backing_hook([this](Op op, u64, u64) {
        if (op == Op::flush && rig.backing.image() == rig.model) {
            rig.media.set_repairable(false);
            rig.media.poison(DamageRig::extension_at(0), 64);
            rig.media.poison(DamageRig::extension_at(1), 64);
        }
        return 0;
    });
    EXPECT_EQ(rig.message({"accept_loss"}), -5);
    rig.set_backing_hook(nullptr);
    EXPECT_TRUE(rig.backing.image() == rig.model);
    rig.media.set_repairable(true);
    EXPECT_TRUE(rig.read_only()) << rig.status();
    ASSERT_EQ(reload(rig, half), 0) << rig.last_error();
    EXPECT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    EXPECT_FALSE(rig.read_only()) << rig.status();
    rig.media.cure();
}

// The state begins at activation.
TEST_F(ReadOnlyResume, AShorterTableOverADamagedLogIsTakenWhereOnlyCleanDataLiesBeyondIt)
{
    rig.start();
    rig.write_record(0, page);
    rig.write_record(beyond, page);
    ASSERT_TRUE(becomes_clean(rig));
    lose(2, 4 * page);
    ASSERT_EQ(rig.create({}, half), 0) << rig.sentence;
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    EXPECT_TRUE(rig.read_only());
    store_behind_it(rig, half, half);
    ASSERT_EQ(reload(rig, all), 0) << rig.last_error();
    rig.check("the whole table");
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    EXPECT_TRUE(rig.backing.image() == rig.model);
}

TEST_F(ReadOnlyResume, AShorterTableOverADamagedLogIsRefusedForDirtyData)
{
    rig.start();
    rig.write_record(0, page);
    lose(1, beyond);
    EXPECT_EQ(rig.create({}, half), -22);
    EXPECT_NE(rig.sentence.find("the table is too short"), std::string::npos) << rig.sentence;
    ASSERT_EQ(rig.create(), 0) << rig.sentence;
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    EXPECT_EQ(reload(rig, half), -22);
    ASSERT_EQ(reload(rig, all), 0) << rig.last_error();
    EXPECT_TRUE(rig.read_only());
    rig.check("the whole table");
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    EXPECT_TRUE(rig.backing.image() == rig.model);
}

// ---- another backing device --------------------------------------------------------------------

// The resume cannot read the log, before or after it has seen the difference: what of the index is
// dirty nobody can say then.
TEST_F(ReadOnlyResume, CleanDataIsNotPutOverADeviceThatWasChangedWhileSuspended)
{
    rig.start();
    rig.write_record(0, page);
    ASSERT_TRUE(becomes_clean(rig));
    rig.keep_dirty(true);
    rig.write_record(half + page, page);
    rig.write_record(half, page);
    rig.suspend();
    rig.keep_dirty(false);
    store_behind_it(rig, 0, page);
    rig.poison_record(1);
    EXPECT_NE(rig.resume(), 0);
    EXPECT_TRUE(rig.world.said("backing device was changed while the device was suspended"));
    ASSERT_TRUE(becomes_read_only(rig)) << rig.status();
    rig.world.clear_log();
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    EXPECT_TRUE(rig.read_only()) << rig.status();
    EXPECT_TRUE(rig.world.said("what was clean is ignored")) << rig.last_error();
    EXPECT_EQ(rig.read(0, page), Image(rig.model.begin(), rig.model.begin() + page));
    EXPECT_EQ(rig.read(half, page),
              Image(rig.model.begin() + long(half), rig.model.begin() + long(half + page)));
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    const Image lost = Rig::pattern(half + page, page, 0);
    std::memcpy(&rig.model[half + page], lost.data(), page);
    EXPECT_TRUE(rig.backing.image() == rig.model) << "dirty data alone is written there";
    rig.media.cure();
}

// Here the shorter table has the log read, before anything is compared.
TEST_F(ReadOnlyResume,
       ADeviceThatWasNotComparedIsComparedByTheNextResumeIfItWasChangedWhileSuspended)
{
    rig.start();
    rig.write_record(0, page);
    ASSERT_TRUE(becomes_clean(rig));
    rig.keep_dirty(true);
    rig.write_record(page, page);
    rig.suspend();
    rig.keep_dirty(false);
    store_behind_it(rig, 0, page);
    rig.poison_record(1);
    rig.model_without({1});
    store_behind_it(rig, 0, page);
    EXPECT_NE(reload(rig, half), 0);
    EXPECT_FALSE(rig.world.said("backing device was changed"));
    ASSERT_TRUE(said_read_only(rig)) << rig.last_error();
    ASSERT_EQ(reload(rig, all), 0) << rig.last_error();
    EXPECT_TRUE(rig.world.said("4 KiB block 0 differs"));
    rig.check("what is clean comes from the device");
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    EXPECT_TRUE(rig.backing.image() == rig.model);
    rig.media.cure();
}

TEST_F(ReadOnlyResume, WhereTheDeviceIsTheSameTheIndexKeepsWhatTheLogHasLost)
{
    rig.start();
    rig.write_record(0, page);
    ASSERT_TRUE(becomes_clean(rig));
    rig.keep_dirty(true);
    rig.write_record(page, page);
    rig.suspend();
    rig.keep_dirty(false);
    rig.poison_record(1);
    EXPECT_NE(reload(rig, half), 0);
    ASSERT_TRUE(said_read_only(rig)) << rig.last_error();
    ASSERT_EQ(reload(rig, all), 0) << rig.last_error();
    rig.check("nothing is lost");
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    EXPECT_TRUE(rig.backing.image() == rig.model);
    rig.media.cure();
}

// Read-only since its activation, over the device that it knows.
TEST_F(ReadOnlyResume, AReadOnlyCacheIgnoresCleanDataOfADeviceThatWasChangedWhileSuspended)
{
    rig.start();
    rig.write_record(0, page);
    ASSERT_TRUE(becomes_clean(rig));
    lose(2, half, true);
    ASSERT_EQ(rig.create(), 0) << rig.sentence;
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    ASSERT_TRUE(rig.read_only()) << rig.status();
    rig.check("the same device");
    rig.suspend();
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    rig.check("still the same");
    rig.suspend();
    store_behind_it(rig, 0, page);
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    EXPECT_TRUE(rig.world.said("4 KiB block 0 differs"));
    rig.check("another one");
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    EXPECT_TRUE(rig.backing.image() == rig.model);
}

TEST_F(ReadOnlyResume, AcceptLossIsRefusedWhereOnlyItHasSeenThatTheDeviceWasChanged)
{
    rig.start();
    rig.write_record(0, page);
    ASSERT_TRUE(becomes_clean(rig));
    lose(2, half, true);
    ASSERT_EQ(rig.create(), 0) << rig.sentence;
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    store_behind_it(rig, 0, page);
    const Image before = rig.backing.image();
    EXPECT_EQ(rig.message({"accept_loss"}), -5);
    EXPECT_TRUE(rig.world.said("was changed while the cache was read-only")) << rig.last_error();
    EXPECT_TRUE(rig.world.said("the first one is 4 KiB block 0")) << rig.last_error();
    EXPECT_TRUE(rig.backing.image() == before);
    rig.suspend();
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    rig.check("what accept_loss will leave there");
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    EXPECT_TRUE(rig.backing.image() == rig.model);
}

// ---- a record goes bad in the resume itself ----------------------------------------------------

// What was to be dropped had been read a moment ago. It cannot be passed any more, and the log must
// not grow in that page.
TEST_F(ReadOnlyResume, WhereTheDropForAShorterTableMeetsAnUnreadablePageTheStateIsReadOnly)
{
    rig.start();
    rig.write_record(0, page);
    rig.write_record(beyond, page);
    ASSERT_TRUE(becomes_clean(rig));
    ASSERT_EQ(reload(rig, half, [this] { goes_bad_in_the_resume(1); }), 0) << rig.last_error();
    says_that_the_log_cannot_be_read();
    store_behind_it(rig, half, half);
    ASSERT_EQ(reload(rig, all), 0) << rig.last_error();
    rig.check("the table has grown again");
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    EXPECT_TRUE(rig.backing.image() == rig.model);
    rig.media.cure();
}

TEST_F(ReadOnlyResume, WhereTheDropForAChangedDeviceMeetsAnUnreadablePageTheStateIsReadOnly)
{
    rig.start();
    rig.write_record(0, page);
    rig.write_record(beyond, page);
    ASSERT_TRUE(becomes_clean(rig));
    rig.suspend();
    store_behind_it(rig, 0, page);
    goes_bad_in_the_resume(1);
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    says_that_the_log_cannot_be_read();
    rig.check("all that was clean is ignored");
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    EXPECT_TRUE(rig.backing.image() == rig.model);
    rig.media.cure();
}

// A record that would reach into a lost page is given up: the log reads whole, the index alone has
// the data, and it is on no device.
TEST(ReadOnlyResumeOfAWholeLog, WhatWasGivenUpBeyondAShorterTableIsNotDropped)
{
    DamageRig rig{32};
    const u64 all = rig.model.size(), half = all / 2;
    rig.start();
    rig.write_pattern(100 * page, page);
    rig.write_pattern(102 * page, page);
    ASSERT_EQ(rig.flush(), 0);
    for (u64 i = 0; i < 62; i++)
        rig.write_record(i * page, page);
    ASSERT_TRUE(becomes_clean(rig));
    for (int i = 0; i < 200; i++) { // dirty_tail follows
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
        if (rig.status().find("0:4072 0:4072") != std::string::npos)
            break;
    }
    if (rig.status().find("0:4072 0:4072") == std::string::npos)
        GTEST_SKIP() << "the first two keys did not make one record: " << rig.status();
    rig.media.set_unmaps_pages(true);
    rig.media.poison(DamageRig::record_at(64), 64);
    rig.spoil_record(0);
    ASSERT_EQ(rig.message({"gc_percent", "0"}), 0);
    for (int i = 0; i < 1000 && !rig.world.said("the log cannot be read at 0:0"); i++)
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    rig.write_pattern(half + page, page);
    ASSERT_EQ(rig.flush(), -5);
    ASSERT_TRUE(becomes_read_only(rig)) << rig.status();
    rig.check("the index has it");
    EXPECT_EQ(reload(rig, half), -22);
    ASSERT_EQ(reload(rig, all), 0) << rig.last_error();
    rig.check("the longer table again");
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    EXPECT_TRUE(rig.backing.image() == rig.model);
    rig.media.cure();
}

// Read-only in a resume that went on in front of begin_next_session(): the disk record is still
// there, and the next resume does not look at it.
TEST_F(ReadOnlyResume, ADeviceChangedInTheSecondSuspendIsNoticed)
{
    rig.start();
    rig.write_record(0, page);
    ASSERT_TRUE(becomes_clean(rig));
    rig.keep_dirty(true);
    rig.write_record(page, page);
    rig.suspend();
    rig.keep_dirty(false);
    rig.poison_record(1);
    EXPECT_NE(reload(rig, half), 0);
    ASSERT_TRUE(said_read_only(rig)) << rig.last_error();
    ASSERT_EQ(reload(rig, all), 0) << rig.last_error();
    rig.check("nothing is lost");
    rig.suspend();
    store_behind_it(rig, 0, page);
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    EXPECT_TRUE(rig.world.said("4 KiB block 0 differs")) << "not noticed";
    EXPECT_EQ(rig.read(0, page), Image(rig.model.begin(), rig.model.begin() + page))
        << "clean data of another device is served";
    rig.media.cure();
}

TEST_F(ReadOnlyResume, AfterAFailedAcceptLossAChangeIsNoticed)
{
    rig.start();
    rig.write_record(0, page);
    ASSERT_TRUE(becomes_clean(rig));
    lose(2, half, true);
    ASSERT_EQ(rig.create(), 0) << rig.sentence;
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    ASSERT_TRUE(rig.read_only()) << rig.status();
    rig.keep_dirty(true);
    EXPECT_EQ(rig.message({"accept_loss"}), -5);
    rig.keep_dirty(false);
    rig.suspend();
    store_behind_it(rig, 0, page);
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    EXPECT_TRUE(rig.world.said("4 KiB block 0 differs"));
    EXPECT_TRUE(rig.read(0, page) == Image(rig.model.begin(), rig.model.begin() + page));
}
TEST_F(ReadOnlyResume, AChangeIsNoticedThoughTheRecordOnTheMediaIsEmpty)
{
    lose_at_run_time(8 * page);
    rig.suspend();
    store_behind_it(rig, 0, page);
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    EXPECT_TRUE(rig.world.said("4 KiB block 0 differs"));
    EXPECT_TRUE(rig.read(0, page) == Image(rig.model.begin(), rig.model.begin() + page));
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    const Image now = rig.backing.image();
    EXPECT_TRUE(std::memcmp(&now[0], &rig.model[0], page) == 0)
        << "accept_loss has written clean data over what somebody else stored";
    rig.media.cure();
}

// A noflush suspend and its resume must not wait for the backing device, which may be what is
// wrong.
TEST_F(ReadOnlyResume, ANoflushSuspendOfAReadOnlyCacheAsksTheBackingDeviceForNothing)
{
    rig.start();
    rig.write_record(0, page);
    ASSERT_TRUE(becomes_clean(rig));
    lose(2, half, true);
    ASSERT_EQ(rig.create(), 0) << rig.sentence;
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    ASSERT_TRUE(rig.read_only()) << rig.status();
    const u64 reads = rig.backing.counters().reads;
    rig.begin_suspend(true);
    rig.end_suspend();
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    EXPECT_EQ(rig.backing.counters().reads, reads);
}
