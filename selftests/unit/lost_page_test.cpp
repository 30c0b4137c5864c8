// SPDX-License-Identifier: GPL-2.0
// What a log does that may not go on where it stands, since a page of it cannot be read: nothing is
// stored there, and a FLUSH says what was given up.
#include "promise_rig.hpp"

using namespace pcache::selftest;
using namespace pcache::selftest::promise;
namespace format = pcache::format;

// ---- a page of the log that cannot be read ------------------------------------------------------

namespace
{
class LostPage : public Promise
{
protected:
    // A key is staged, the page that it would go to is lost, and somebody has met it.
    void nothing_is_stored_there(u64 staged, bool surely_given_up = true)
    {
        ASSERT_TRUE(soon([&] { return rig.read_only(); })) << rig.status();
        const int answer = rig.flush();
        EXPECT_TRUE(answer == -5 || !surely_given_up) << "what had completed was given up";
        EXPECT_EQ(rig.flush(), answer) << "and stays so";
        EXPECT_EQ(rig.try_write(0, Image(page), true), -5);
        no_violation();
        EXPECT_TRUE(as_written(staged)) << "the index has it";
        rig.keep_dirty(false);
        rig.backing.hold_writes(false);
        rig.suspend();
        ASSERT_EQ(rig.resume(), 0);
        EXPECT_TRUE(rig.read_only()) << rig.status();
        EXPECT_EQ(rig.flush(), answer);
        ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
        EXPECT_EQ(rig.flush(), 0) << "the mark has gone with the log";
        rig.write_pattern(staged + page, page, true);
        rig.check("after accept_loss");
        rig.power_cut(rng);
        rig.media.cure();
        rig.start();
        rig.check("in the next life");
    }
    // Dirty data that cannot be read: what it means is asked of the log.
    void read_bad_data(u64 offset)
    {
        Bio bio(page);
        ASSERT_EQ(rig.map(bio, {PC_READ, offset, page, 0, 0}), PC_TAKEN);
        EXPECT_EQ(bio.wait(), -5);
    }
    // Of two dirty records behind the clean ones the data of the first cannot be read, and the
    // second itself.
    void two_dirty_records()
    {
        thirty_two_clean_records();
        rig.keep_dirty(true);
        rig.write_record(40 * page, page);
        rig.write_record(41 * page, page);
        rig.poison_data(32, 0);
        rig.media.poison(DamageRig::record_at(33), 64);
    }
    // The page of the head, in a record of the log that a resume reads, and is refused for.
    void meet_it_in_a_resume()
    {
        thirty_two_clean_records();
        rig.keep_dirty(true);
        rig.write_record(40 * page, page);
        rig.suspend();
        rig.poison_record(32);
        if (frozen)
            pc_target_fall_asleep();
        rig.backing.set_logical_block(4096);
        EXPECT_EQ(rig.resume(), -5);
    }
    // Works that had not begun by then do so while it waits for them.
    void resume_before_works_begin()
    {
        std::thread later([] {
            std::this_thread::sleep_for(200ms);
            pc_target_wake_up();
        });
        EXPECT_EQ(rig.resume(), 0) << rig.last_error();
        later.join();
    }
    bool frozen = false;
};
} // namespace

TEST_F(LostPage, NothingIsStoredToOneThatGcHasMet)
{
    thirty_two_clean_records();
    rig.media.set_unmaps_pages(true);
    rig.poison_record(0);
    rig.write_pattern(50 * page, page);
    ASSERT_EQ(rig.message({"gc_percent", "0"}), 0);
    nothing_is_stored_there(50 * page);
}

// The index has been given up and the cache is not made anew yet: no part is asked any more.
TEST_F(LostPage, WhatWasGivenUpIsRememberedBetweenTwoAttemptsOfAcceptLoss)
{
    thirty_two_clean_records();
    rig.media.set_unmaps_pages(true);
    rig.poison_record(0);
    rig.write_pattern(50 * page, page);
    ASSERT_EQ(rig.message({"gc_percent", "0"}), 0);
    ASSERT_TRUE(soon([&] { return rig.read_only(); })) << rig.status();
    ASSERT_EQ(rig.flush(), -5);
    rig.media.poison(format::superblock_offset, 64);
    rig.media.set_repairable(false);
    EXPECT_EQ(rig.message({"accept_loss"}), -5);
    ASSERT_TRUE(rig.world.said("could not be given up"));
    EXPECT_EQ(rig.flush(), -5) << "a write that had completed was given up";
    rig.media.set_repairable(true);
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    EXPECT_EQ(rig.flush(), 0) << "the mark has gone with the log";
    rig.media.cure();
}

// The page of the head is good, the record would reach into the next one, which is not.
TEST_F(LostPage, NothingIsStoredToOneThatARecordReachesInto)
{
    rig.start();
    rig.write_pattern(100 * page, page);
    rig.write_pattern(102 * page, page);
    ASSERT_EQ(rig.flush(), 0);
    for (u64 i = 0; i < 62; i++)
        rig.write_record(i * page, page);
    ASSERT_TRUE(soon([&] { return drained(); })) << rig.status();
    if (field(6) != "0:4072")
        GTEST_SKIP() << "the first two keys did not make one record";
    rig.media.set_unmaps_pages(true);
    rig.media.poison(DamageRig::record_at(64), 64);
    rig.spoil_record(0);
    ASSERT_EQ(rig.message({"gc_percent", "0"}), 0);
    ASSERT_TRUE(soon([&] { return rig.world.said("the log cannot be read at 0:0"); }));
    rig.write_pattern(70 * page, page);
    EXPECT_EQ(rig.flush(), -5);
    EXPECT_TRUE(soon([&] { return rig.read_only(); })) << rig.status();
    no_violation();
    rig.remove();
    rig.media.cure();
}

#ifdef PCACHE_SMALL_GEOMETRY
TEST_F(LostPage, NothingIsStoredToOneThatWriteBackHasMet)
{
    rig.start();
    rig.media.set_unmaps_pages(true);
    rig.backing.hold_writes(true);
    rig.write_record(0, page);
    rig.write_record(page, page);
    for (u64 i = 0; i < 18; i++) // more than half of the cache
        rig.write_pattern((i % 8 + 1) << 16, 52u << 10);
    ASSERT_EQ(rig.flush(), 0);
    ASSERT_TRUE(soon([&] { return rig.backing.counters().writes_in_flight != 0; }));
    rig.poison_record(1);
    rig.write_pattern(12u << 16, page);
    rig.backing.hold_writes(false);
    nothing_is_stored_there(12u << 16, false); // if the cache was idle, it was logged in front
}
#endif

// A resume that looks at every key, since the blocks have grown, and is refused: the log is told.
TEST_F(LostPage, WhatAResumeMeetsWhenBlocksHaveGrownClosesTheLog)
{
    meet_it_in_a_resume();
    EXPECT_TRUE(soon([&] { return rig.read_only(); })) << rig.status();
    rig.keep_dirty(false);
}

// The log has not come to look when the next resume begins: it must not run first.
TEST_F(LostPage, AResumeBehindOneThatMetItIsReadOnly)
{
    frozen = true; // no work begins
    meet_it_in_a_resume();
    rig.backing.set_logical_block(512);
    resume_before_works_begin();
    EXPECT_TRUE(rig.read_only()) << rig.status();
    rig.keep_dirty(false);
}

TEST_F(LostPage, AResumeBehindOneThatMetItStoresNothing)
{
    frozen = true; // no work begins
    meet_it_in_a_resume();
    rig.backing.set_logical_block(512);
    const Image before = rig.contents();
    resume_before_works_begin();
    EXPECT_TRUE(rig.read_only()) << rig.status();
    EXPECT_TRUE(rig.contents() == before);
    rig.keep_dirty(false);
}

TEST_F(LostPage, NothingIsStoredToOneThatAReadHasMet)
{
    two_dirty_records();
    rig.media.set_unmaps_pages(true);
    rig.write_pattern(50 * page, page);
    read_bad_data(40 * page);
    EXPECT_EQ(rig.try_write(3 * page, Image(page), true), -5);
    EXPECT_EQ(rig.flush(), 0) << "whoever judges has everything logged first";
    EXPECT_TRUE(rig.read_only()) << rig.status();
    no_violation();
    EXPECT_TRUE(as_written(50 * page));
    EXPECT_TRUE(as_written(41 * page)) << "its record is lost, the index has it";
    rig.keep_dirty(false);
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    EXPECT_TRUE(rig.world.said("with 4096 bytes in 1 ranges"));
    EXPECT_EQ(rig.flush(), 0);
    EXPECT_TRUE(as_written(50 * page));
    EXPECT_TRUE(as_written(41 * page));
    rig.media.cure();
}

// What was flushed is safe, so FLUSH says so.
TEST_F(LostPage, WhereNothingWasGivenUpAFlushSucceeds)
{
    two_dirty_records();
    rig.media.set_unmaps_pages(true);
    read_bad_data(40 * page);
    ASSERT_TRUE(soon([&] { return rig.read_only(); })) << rig.status();
    ASSERT_TRUE(soon([&] { return rig.world.said("read-only: "); }));
    EXPECT_EQ(rig.flush(), 0);
    EXPECT_EQ(rig.try_write(0, Image(page)), -5);
    EXPECT_EQ(rig.flush(), 0) << "that write never began";
    rig.remove();
    rig.media.cure();
}

// A bad record in a page that can be read as such does not cost what is staged.
TEST_F(LostPage, WhatIsStagedIsLoggedWhereThePageCanStillBeRead)
{
    thirty_two_clean_records();
    rig.keep_dirty(true);
    rig.write_record(40 * page, page);
    rig.write_record(41 * page, page);
    rig.write_pattern(50 * page, page);
    rig.poison_data(32, 0);
    rig.spoil_record(33);
    rig.media.set_power_model(true);
    read_bad_data(40 * page);
    ASSERT_TRUE(soon([&] { return rig.read_only(); })) << rig.status();
    EXPECT_EQ(rig.flush(), 0);
    const Cut cut = rig.world.cut(rng);
    rig.keep_dirty(false);
    next_life_has(cut, 50 * page);
    EXPECT_TRUE(rig.read_only());
    rig.remove();
    rig.media.cure();
}

// ---- settings -----------------------------------------------------------------------------------

// The message is in the middle of its stores when the state changes.
TEST_F(LostPage, ASettingIsNotStoredBehindTheWordThatNothingIs)
{
    two_dirty_records();
    Gate gate;
    std::atomic<bool> ended{false};
    std::atomic<std::thread::id> id{};
    rig.world.set_fence_hook([&] {
        if (std::this_thread::get_id() == id.load())
            gate.wait();
    });
    std::thread sender([&] {
        const OnCpu cpu(3);
        id = std::this_thread::get_id();
        EXPECT_EQ(rig.message({"gc_percent", "33"}), 0);
        ended = true;
    });
    ASSERT_TRUE(soon([&] { return gate.somebody(); }));
    read_bad_data(40 * page);
    ASSERT_TRUE(soon([&] { return rig.read_only(); })) << rig.status();
    std::this_thread::sleep_for(50ms);
    EXPECT_FALSE(rig.world.said("nothing is stored")) << "it still stores";
    gate.open();
    sender.join();
    rig.world.set_fence_hook(nullptr);
    EXPECT_TRUE(soon([&] { return rig.world.said("nothing is stored"); }));
    EXPECT_EQ(rig.message({"gc_percent", "34"}), -30);
    rig.keep_dirty(false);
    rig.remove();
    rig.media.cure();
}
