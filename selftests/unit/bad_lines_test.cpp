// SPDX-License-Identifier: GPL-2.0
// selftests/unit/bad_lines_test.cpp - a bad line costs the bytes in it: what else of its page can
// be loaded is used, also where Linux unmaps the page when the line is met.
#include "damage_rig.hpp"

namespace
{

using namespace pcache;
using namespace pcache::selftest;

constexpr u32 page = 4096;
constexpr u32 records = 6; // one line each, in the first page of the log

class BadLines : public ::testing::Test
{
protected:
    static void make(DamageRig &rig, bool cleanly)
    {
        rig.start();
        rig.keep_dirty(true);
        for (u64 i = 0; i < records; i++)
            rig.write_record(i * 8192, page);
        rig.stop(cleanly);
    }
    // x: a read shows the record; -: it fails, or shows something older.
    static std::string shown(DamageRig &rig)
    {
        std::string s;
        for (u64 i = 0; i < records; i++) {
            Bio bio(512);
            const pc_verdict v = rig.map(bio, {PC_READ, i * 8192, 512, 0, 0});
            if (v == PC_REMAP)
                rig.backing.read(i * 8192, bio.data(), 512);
            const bool wrong =
                (v == PC_TAKEN && bio.wait()) || std::memcmp(bio.data(), &rig.model[i * 8192], 512);
            s += wrong ? '-' : 'x';
        }
        return s;
    }
    static void open(DamageRig &rig)
    {
        ASSERT_EQ(rig.create(), 0) << rig.sentence;
        ASSERT_EQ(rig.resume(), 0);
    }
    static void end(DamageRig &rig)
    {
        rig.keep_dirty(false);
        rig.remove();
        rig.media.cure();
    }
};

TEST_F(BadLines, OfZerosBehindTheHeadCostNothingUnmappedOrNot)
{
    for (const bool unmaps : {false, true}) {
        for (const bool cleanly : {false, true}) {
            SCOPED_TRACE(std::to_string(unmaps) + std::to_string(cleanly));
            DamageRig fresh;
            make(fresh, cleanly);
            fresh.media.set_unmaps_pages(unmaps);
            fresh.media.poison(DamageRig::log_at(0, records * 64 + 1024), 8);
            open(fresh);
            EXPECT_FALSE(fresh.read_only()) << fresh.status();
            EXPECT_EQ(shown(fresh), "xxxxxx");
            end(fresh);
            fresh.start();
            fresh.check("in the next life");
        }
    }
}

TEST_F(BadLines, ABadRecordCostsItselfAlone)
{
    DamageRig rig;
    make(rig, false);
    rig.poison_record(4);
    open(rig);
    EXPECT_TRUE(rig.read_only());
    EXPECT_EQ(shown(rig), "xxxx-x");
    end(rig);
}

// What is behind the bad line had not been loaded when the page went.
TEST_F(BadLines, WhatWasReadOfAnUnmappedPageIsKept)
{
    DamageRig rig;
    make(rig, false);
    rig.media.set_unmaps_pages(true);
    rig.poison_record(4);
    open(rig);
    EXPECT_TRUE(rig.read_only());
    EXPECT_EQ(shown(rig), "xxxx--");
    rig.keep_dirty(false);
    EXPECT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    rig.model_without({4, 5});
    rig.check("when the loss is accepted");
    end(rig);
}

// The driver has noted one unit. It must not be loaded (the platform sees to that), the others are.
TEST_F(BadLines, OfAPageKnownToBeBadTheOtherUnitsAreRead)
{
    DamageRig rig;
    make(rig, false);
    rig.media.know_bad_units(DamageRig::log_at(0, 1024), 64);
    open(rig);
    EXPECT_FALSE(rig.read_only()) << rig.status();
    EXPECT_EQ(shown(rig), "xxxxxx");
    end(rig);
}

TEST_F(BadLines, OfAPageKnownToBeBadDataInTheOtherUnitsIsRead)
{
    DamageRig rig;
    make(rig, false);
    const format::Key k = rig.key_of(2);
    rig.media.know_bad_units(DamageRig::log_at(k.cache_seg_id, k.cache_seg_off) + 3 * 512, 512);
    open(rig);
    for (u64 i = 0; i < 8; i++) {
        Bio bio(512);
        ASSERT_EQ(rig.map(bio, {PC_READ, 2 * 8192 + i * 512, 512, 0, 0}), PC_TAKEN);
        EXPECT_EQ(bio.wait(), i == 3 ? -5 : 0) << i;
        const bool same = std::memcmp(bio.data(), &rig.model[2 * 8192 + i * 512], 512) == 0;
        EXPECT_TRUE(same || i == 3) << i;
    }
    end(rig);
}

} // namespace
