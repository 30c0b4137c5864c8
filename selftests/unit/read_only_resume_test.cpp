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

bool becomes_clean(DamageRig &rig)
{
    for (int i = 0; i < 1000 && rig.backing.image() != rig.model; i++)
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    return rig.backing.image() == rig.model;
}

// What the resume of a table of this length says.
int reload(DamageRig &rig, u64 length)
{
    pc_target *const old = rig.target;
    pc_table *const old_table = rig.table;
    EXPECT_EQ(rig.create({}, length), 0) << rig.sentence;
    pc_target_presuspend(old, 0);
    pc_target_postsuspend(old);
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
    // A dirty record, the `i`th, that is lost in the next life, and one at `offset` behind it.
    void lose(u32 i, u64 offset)
    {
        rig.keep_dirty(true);
        rig.write_record(3 * page, page);
        rig.write_record(offset, page);
        rig.stop(false);
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
