// SPDX-License-Identifier: GPL-2.0
// selftests/unit/salvage_test.cpp - which records of a damaged log count, proof by proof: what
// stands in front of the hole, what proves itself behind it, and never anything older.
#include "selftests/unit/media_rig.hpp"

namespace
{

using namespace pcache;
using namespace pcache::selftest;
namespace damage = pcache::media::damage;

constexpr LogPosition at(u32 records)
{
    return {{0}, records * one_key};
}

// Keys are told apart by their sector; put_session() gives record n the sector n.
class Salvage : public MediaRig
{
protected:
    // What replay gives, as "10 11 13s 14c": s: stale, c: clean.
    std::string replayed()
    {
        std::string s;
        for (const media::ReplayedKey &k : replay()) {
            s += (s.empty() ? "" : " ") + std::to_string(k.offset / format::sector_bytes);
            s += k.stale ? "s" : "";
            s += k.dirty ? "" : "c";
        }
        return s;
    }
    void expect(u32 bits, const char *keys)
    {
        expect_damage(bits);
        EXPECT_EQ(replayed(), keys);
    }
};

// ---- proof by proof -----------------------------------------------------------------------------

TEST_F(Salvage, A_KeysInFrontOfDirtyTailAreDroppedWithTheHole)
{
    make_ours();
    LogPosition p = put_session({}, 10, 8);
    spoil_record(at(1)); // between key_tail and dirty_tail,
    put_dirty_tail(at(3));
    spoil_record(at(5)); // and one behind it
    expect(damage::dirty_tail_missed, "13 14 16 17");
    EXPECT_EQ(text(found.key_tail), text(at(3)));
    EXPECT_EQ(text(found.head), text(at(5)));
    EXPECT_EQ(text(found.run(1).end), text(p));
    EXPECT_EQ(found.keys, 4u);
    EXPECT_EQ(found.dirty_keys, 4u);
}

TEST_F(Salvage, A_KeysInFrontOfDirtyTailCountIfNoHoleLiesBetween)
{
    make_ours();
    put_session({}, 10, 8);
    put_dirty_tail(at(3));
    spoil_record(at(5));
    expect(damage::later_record, "10c 11c 12c 13 14 16 17");
}

TEST_F(Salvage, A_DirtyTailItselfIsTheHole)
{
    make_ours();
    put_session({}, 10, 5);
    put_dirty_tail(at(2));
    spoil_record(at(2));
    expect(damage::later_record, "10c 11c 13 14");
}

TEST_F(Salvage, B_AnUnreadableRecord)
{
    make_ours();
    put_session({}, 10, 5);
    poison_record(at(2));
    expect(damage::unreadable | damage::later_record, "10 11 13 14");
}

TEST_F(Salvage, B_NothingBehindTheUnreadablePlace)
{
    make_ours();
    put_session({}, 10, 2);
    poison_record(at(2));
    expect(damage::unreadable, "10 11");
    EXPECT_EQ(found.run_count(), 1u);
}

TEST_F(Salvage, C_TheLastRecordBeforeACleanStop)
{
    make_ours();
    const LogPosition p = put_session({}, 10, 4);
    clean_stop(14, p);
    spoil_record(at(3));
    expect(damage::short_of_clean_stop, "10 11 12");
}

TEST_F(Salvage, D_RecordsAtMultiplesOfEight)
{
    make_ours();
    LogPosition p = put_session({}, 10, 2);
    p.offset += 8 * 5; // a record of another length stood here
    p = put_kset(p, {key(13)}, number(13));
    p = put_kset(p, {key(14)}, number(14));
    expect(damage::later_record, "10 11 13 14");
}

TEST_F(Salvage, E_TheSegmentThatLinkSegNames)
{
    make_ours();
    LogPosition p = put_session({}, 10, 3);
    put_last(p, 1, number(13));
    spoil_record(p);
    put_kset({{1}, 0}, {key(14)}, number(14));
    put_kset({{1}, one_key}, {key(15)}, number(15));
    extension.link_seg = 1;
    put_extension();
    expect(damage::link_missed, "10 11 12 14 15");
    EXPECT_TRUE(found.log_segments[1]);
}

TEST_F(Salvage, E_TheFirstRecordOfTheLinkedSegmentIsBadToo)
{
    make_ours();
    LogPosition p = put_session({}, 10, 2);
    put_last(p, 1, number(12));
    spoil_record(p);
    put_kset({{1}, 0}, {key(13)}, number(13));
    put_kset({{1}, one_key}, {key(14)}, number(14));
    spoil_record({{1}, 0});
    extension.link_seg = 1;
    put_extension();
    expect(damage::link_missed, "10 11 14");
}

// ---- what is never taken
// -------------------------------------------------------------------------

TEST_F(Salvage, LeftoversOfOtherSegmentsAreNeverRead)
{
    make_ours();
    LogPosition p = put_session({}, 10, 3);
    put_last(p, 1, number(13));
    spoil_record(p);
    put_kset({{1}, 0}, {key(14)}, number(14));
    for (u32 s : {3u, 4u, segments - 1}) // later numbers, but nothing leads there
        put_kset({{s}, 0}, {key(99)}, number(15));
    extension.link_seg = 1;
    put_extension();
    expect(damage::link_missed, "10 11 12 14");
}

TEST_F(Salvage, OnlyNumbersAfterTheLastReadAndBeforeLimitCount)
{
    make_ours();
    LogPosition p = put_session({}, 10, 4);
    spoil_record(at(2));
    p.offset += 8;
    p = put_kset(p, {key(90)}, number(9));   // a leftover
    p = put_kset(p, {key(91)}, number(999)); // the last number before limit
    p.offset += 8;
    p = put_kset(p, {key(92)}, number(1000)); // never used
    put_kset(p, {key(93)}, number(998));      // before the last one read
    expect(damage::later_record, "10 11 13 91");
}

TEST_F(Salvage, ARecordWithoutNumberCountsOnlyByReadingOn)
{
    make_ours();
    LogPosition p = put_session({}, 10, 3);
    spoil_record(at(2));
    p = put_kset(p, {key(50)}, {}); // mainline's, behind the hole: nothing dates it
    p = put_kset(p, {key(51)}, number(14));
    p = put_kset(p, {key(52)}, {}); // reads on
    put_kset(p, {key(53)}, start(500));
    expect(damage::later_record, "10 11 51 52 53");
}

TEST_F(Salvage, WithoutANumberReadNothingBehindCountsOnForeignMedia)
{
    make_mainline();
    LogPosition p = put_kset({}, {key(1)}, {});
    p = put_kset(p, {key(2, 1, format::key_empty)}, {}); // damage
    p = put_kset(p, {key(3)}, {});
    put_kset(p, {key(4)}, number(7));
    expect(damage::bad_key, "1");
}

TEST_F(Salvage, WithoutExtensionANumberReadIsEnough)
{
    make_mainline();
    put_session({}, 10, 5);
    spoil_record(at(2));
    expect(damage::later_record, "10 11 13 14");
}

// ---- reading on behind the hole
// ------------------------------------------------------------------

TEST_F(Salvage, ARunFollowsItsLastRecordIntoAnotherSegment)
{
    make_ours();
    LogPosition p = put_session({}, 10, 4);
    spoil_record(at(1));
    p = put_last(p, 4, number(14));
    p = put_kset(p, {key(15)}, number(15));
    p.offset += 16; // a second hole, in that segment
    p = put_kset(p, {key(17)}, number(17));
    p = put_last(p, 5, number(18));
    p = put_kset(p, {key(19)}, number(19));
    extension.link_seg = 5;
    put_extension();
    expect(damage::later_record | damage::link_missed, "10 12 13 15 17 19");
    EXPECT_EQ(found.run_count(), 3u);
}

TEST_F(Salvage, ALaterRecordOverridesAcrossTheHole)
{
    make_ours();
    LogPosition p = put_kset({}, {key(1)}, start(10));
    p = put_kset(p, {key(2)}, number(11));
    put_kset(p, {key(1, 1, 0, 3)}, number(12));
    spoil_record(at(1));
    expect_damage(damage::later_record);
    const auto keys = replay();
    ASSERT_EQ(keys.size(), 2u);
    EXPECT_EQ(keys[1].segment.value, 3u) << "the newer key comes last";
}

TEST_F(Salvage, ALoopBehindTheHoleEnds)
{
    make_ours();
    LogPosition p = put_session({}, 10, 3);
    spoil_record(at(1));
    p = put_last(p, 3, number(13));
    p = put_kset(p, {key(14)}, number(14));
    put_last(p, 0, number(15));
    expect(damage::later_record, "10 12 14");
}

// ---- records that no writer makes
// ----------------------------------------------------------------

TEST_F(Salvage, ARecordWithAnImpossibleKeyIsLeftOutWholeAndProvesNoGeneration)
{
    make_ours();
    LogPosition p = put_kset({}, {key(1)}, start(10));
    Key bad = key(3);
    bad.cache_seg_id = segments;
    p = put_kset(p, {key(2, 77), bad}, number(11));
    put_kset(p, {key(4)}, number(12));
    expect(damage::bad_key, "1 4");
    EXPECT_EQ(found.generations[2], 1u);
}

TEST_F(Salvage, AnImpossibleKeyInFrontOfDirtyTailCostsWhatStandsInFront)
{
    make_ours();
    Key bad = key(1);
    bad.cache_seg_id = segments;
    LogPosition p = put_kset({}, {bad}, start(10));
    put_dirty_tail(p);
    put_kset(p, {key(2)}, number(11));
    expect(damage::bad_key, "2");
}

TEST_F(Salvage, ANewerDriversRecordIsLeftOutAndRemembered)
{
    make_ours();
    LogPosition p = put_kset({}, {key(1)}, start(10));
    p = put_kset(p, {key(2)}, {RecordFlags::make(11, false, false).raw | 2});
    put_kset(p, {key(3)}, number(12));
    expect(damage::newer, "1 3");
    EXPECT_TRUE(found.newer());
}

TEST_F(Salvage, ANewerDriversRecordBehindAHoleIsNoticed)
{
    make_ours();
    LogPosition p = put_session({}, 10, 3);
    spoil_record(at(1));
    put_kset(p, {key(13)}, {RecordFlags::make(13, false, false).raw | 2});
    expect(damage::later_record | damage::newer, "10 12");
}

// ---- tails
// ---------------------------------------------------------------------------------------

TEST_F(Salvage, BothTailsLostAndNothingStandsForThem)
{
    make_ours();
    put_session({}, 10, 3);
    extension.cache_info_crc = 5;
    put_extension();
    spoil_both(media::key_tail_place);
    spoil_both(media::dirty_tail_place);
    expect(damage::tails, "");
}

TEST_F(Salvage, ABadKeyTailLeavesWhatIsDirty)
{
    make_ours();
    put_session({}, 10, 4);
    put_key_tail({{0}, 4});
    put_dirty_tail(at(2));
    expect(damage::bad_tail, "12 13");
}

TEST_F(Salvage, ABadDirtyTailMakesEverythingDirty)
{
    make_ours();
    put_session({}, 10, 3);
    put_dirty_tail({{segments}, 0});
    expect(damage::bad_tail, "10 11 12");
}

TEST_F(Salvage, TwoBadTailsAndSafeTailStandsForBoth)
{
    make_ours();
    put_session({}, 10, 3);
    extension.safe_tail = at(1);
    put_extension();
    put_key_tail({{segments}, 0});
    put_dirty_tail({{0}, 4});
    expect(damage::bad_tail, "11 12");
}

// ---- generations
// ---------------------------------------------------------------------------------

TEST_F(Salvage, ADirtyKeyThatIsStaleHidesWhatIsOlder)
{
    make_ours();
    put_generation(3, 5);
    LogPosition p = put_kset({}, {key(1)}, start(10));
    p = put_kset(p, {key(1, 4, 0, 3)}, number(11));
    put_kset(p, {key(2)}, number(12));
    expect(damage::stale_dirty, "1 1s 2");
}

TEST_F(Salvage, LostGenerationsComeFromTheRecordsThatCount)
{
    make_ours();
    LogPosition p = put_kset({}, {key(1, 6)}, start(10));
    p = put_kset(p, {key(2, 1, 0, 3)}, number(11));
    p = put_kset(p, {key(3, 9, 0, 4)}, number(12));
    put_kset(p, {key(4, 6)}, number(13));
    spoil_record(at(2));
    for (u32 s : {2u, 4u})
        spoil_both(media::generation_place({s}));
    expect(damage::later_record, "1 2 4");
    EXPECT_EQ(found.generations[2], 6u);
    EXPECT_EQ(found.generations[3], 1u);
    EXPECT_EQ(found.generations[4], format::first_generation) << "nothing points there any more";
}

// ---- epochs
// --------------------------------------------------------------------------------------

TEST_F(Salvage, ReplaySaysWhereAnEpochBegins)
{
    make_ours();
    LogPosition p = put_kset({}, {key(1), key(2)}, start(10));
    p = put_kset(p, {key(3)}, number(11));
    p = put_kset(p, {key(4)}, RecordFlags::make(12, true, false));
    p = put_last(p, 1, RecordFlags::make(13, true, false));
    p = put_kset(p, {key(5)}, number(14));
    p = put_kset(p, {key(6)}, number(15)); // spoilt
    const LogPosition bad{{1}, one_key};
    p = put_kset(p, {key(7)}, number(16));
    p = put_kset(p, {key(8)}, {});
    p = put_kset(p, {key(9)}, start(100));
    spoil_record(bad);
    extension.link_seg = 1;
    put_extension();
    std::string epochs;
    for (const media::ReplayedKey &k : replay())
        epochs += (k.epoch ? "|" : " ") + std::to_string(k.offset / format::sector_bytes);
    EXPECT_EQ(epochs, "|1 2 3|4|5|7|8|9");
}

// ---- giving up: accept_loss, steps 3 and 4
// -------------------------------------------------------

class GiveUp : public Salvage
{
protected:
    rt::Error give_up()
    {
        return with_device([&](media::Activation &a, media::Device &) {
            RT_TRY(a.inspect(backing, found, why));
            return a.give_up(backing, found, why);
        });
    }
    bool superblock_good()
    {
        u8 bytes[format::superblock_bytes];
        disk->read(format::superblock_offset, bytes, sizeof(bytes));
        return format::decode_superblock(bytes).state == format::SuperblockState::good;
    }
};

#ifdef PCACHE_SMALL_GEOMETRY // whole images
TEST_F(GiveUp, NothingChangesButFormattingAndLimitThenTheSuperblockGoes)
{
    make_ours();
    extension.uuid[3] = 7;
    extension.label[0] = 'x';
    const LogPosition p = put_session({}, 10, 4);
    clean_stop(14, p);
    spoil_record(at(2));
    std::vector<std::string> seen;
    disk->set_power_model(true);
    world.set_fence_hook([&] {
        // What is durable before this fence; both slots are the same after the second.
        const Image cut = disk->cut([](u64, unsigned) { return false; });
        format::ExtensionRecord r[2];
        for (u32 i = 0; i < 2; i++)
            std::memcpy(&r[i], &cut[slot_at(media::extension_place, i)], sizeof(r[i]));
        const bool magic = cut[format::superblock_offset + 8] != 0;
        std::string s;
        for (const format::ExtensionRecord &e : r)
            s += e.state & format::extension_state::formatting ? "F" : "-";
        seen.push_back(s + (magic ? "S" : "-"));
    });
    ASSERT_EQ(give_up(), rt::Error::none) << sentence();
    world.set_fence_hook(nullptr);
    disk->set_power_model(false);
    EXPECT_EQ(seen, (std::vector<std::string>{"--S", "-FS", "FFS"}));
    EXPECT_FALSE(superblock_good());
    format::Extension e = stored_extension(), was = extension;
    EXPECT_TRUE(e.formatting());
    EXPECT_EQ(e.limit, format::advance(1000, format::number_reserve));
    e.state = was.state;
    e.limit = was.limit;
    format::ExtensionRecord a, b;
    format::encode_extension(e, a);
    format::encode_extension(was, b);
    EXPECT_EQ(std::memcmp(&a, &b, sizeof(a)), 0) << "something else was changed";
    ASSERT_EQ(format(), rt::Error::none) << sentence();
    expect_end({});
    EXPECT_EQ(found.keys, 0u);
    EXPECT_EQ(found.extension.uuid[3], 7) << "it is the same cache";
    EXPECT_TRUE(format::after(found.start_number, 999)) << "numbers are never used twice";
}

TEST_F(GiveUp, WhatSomethingNewerWroteIsRefusedAndStaysUntouched)
{
    make_ours();
    put_session({}, 10, 3);
    extension.state = 8;
    put_extension();
    const Image before = disk->image();
    EXPECT_EQ(give_up(), rt::Error::not_supported);
    EXPECT_TRUE(disk->image() == before);
}
#endif

TEST_F(GiveUp, WithoutExtensionOneIsMade)
{
    make_mainline();
    put_session({}, 10, 5);
    spoil_record(at(2));
    ASSERT_EQ(give_up(), rt::Error::none) << sentence();
    const format::Extension e = stored_extension();
    EXPECT_EQ(e.state, format::extension_state::formatting);
    EXPECT_EQ(e.link_seg, format::no_link);
    EXPECT_EQ(e.cache_info_crc, 0u);
    EXPECT_EQ(e.coming_info_crc, 0u);
    EXPECT_EQ(e.seg_num, segments);
    EXPECT_EQ(e.limit, format::advance(14, format::number_skip + format::number_reserve));
    ASSERT_EQ(format(), rt::Error::none) << sentence();
    expect_end({});
}

TEST_F(GiveUp, ACutBetweenTheTwoStepsLeavesTheDamagedCacheAsItWas)
{
    make_ours();
    put_session({}, 10, 5);
    spoil_record(at(2));
    extension.state = format::extension_state::formatting;
    extension.limit = format::advance(1000, format::number_reserve);
    put_extension();
    expect(damage::later_record, "10 11 13 14");
    ASSERT_EQ(give_up(), rt::Error::none) << "it can be given up again";
}

} // namespace
