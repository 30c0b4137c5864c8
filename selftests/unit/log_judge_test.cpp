// SPDX-License-Identifier: GPL-2.0
// selftests/unit/log_judge_test.cpp - reading on, and the judgement where the log ends: each of the
// proofs a to e fires alone, and each exception is no damage.
#include "selftests/unit/media_rig.hpp"

namespace
{

using namespace pcache;
using namespace pcache::selftest;
using media::reads_on;
namespace damage = pcache::media::damage;

class LogJudge : public MediaRig
{
};

constexpr LogPosition at(u32 records)
{
    return {{0}, records * one_key};
}

// ---- Reading on ---------------------------------------------------------------------------

media::WalkFacts read_so_far(u64 last, u64 newest)
{
    media::WalkFacts w;
    w.records = 1;
    w.last_number = last;
    w.newest_number = newest;
    return w;
}

TEST(ReadingOn, ARecordWithoutNumberIsAlwaysTheNext)
{
    EXPECT_TRUE(reads_on({}, {}));
    EXPECT_TRUE(reads_on(read_so_far(0, 0), {}));
    EXPECT_TRUE(reads_on(read_so_far(7, 7), {}));
}

TEST(ReadingOn, AtKeyTailAnyRecordIsTheNext)
{
    EXPECT_TRUE(reads_on({}, RecordFlags::make(5, false, false)));
    EXPECT_TRUE(reads_on({}, RecordFlags::make(5, true, true)));
}

TEST(ReadingOn, AStartIsTheNextIfItsNumberIsAfterAllReadSoFar)
{
    EXPECT_TRUE(reads_on(read_so_far(7, 7), RecordFlags::make(900, true, true)));
    EXPECT_TRUE(reads_on(read_so_far(0, 7), RecordFlags::make(900, true, true)));
    EXPECT_TRUE(reads_on(read_so_far(0, 0), RecordFlags::make(1, true, true)));
    EXPECT_FALSE(reads_on(read_so_far(7, 7), RecordFlags::make(7, true, true)));
    EXPECT_FALSE(reads_on(read_so_far(0, 7), RecordFlags::make(6, true, true)));
}

TEST(ReadingOn, InsideASessionOnlyTheSuccessorIsTheNext)
{
    EXPECT_TRUE(reads_on(read_so_far(7, 7), RecordFlags::make(8, false, false)));
    EXPECT_TRUE(reads_on(read_so_far(format::number_mask, format::number_mask),
                         RecordFlags::make(1, true, false)));
    EXPECT_FALSE(reads_on(read_so_far(7, 7), RecordFlags::make(7, false, false)));
    EXPECT_FALSE(reads_on(read_so_far(7, 7), RecordFlags::make(9, false, false)));
    EXPECT_FALSE(reads_on(read_so_far(0, 7), RecordFlags::make(8, false, false)))
        << "behind a record of mainline's no session goes on";
}

TEST_F(LogJudge, SessionsOfOursAndOfMainlineTakeTurns)
{
    make_ours();
    LogPosition p = put_session({}, 10, 3);
    p = put_kset(p, {key(100)}, {});
    p = put_kset(p, {key(101)}, {});
    p = put_kset(p, {key(102)}, start(500));
    p = put_last(p, 1, number(501));
    p = put_kset(p, {key(103)}, number(502));
    extension.link_seg = 1;
    put_extension();
    expect_end(p);
    EXPECT_EQ(found.records, 8u);
    EXPECT_EQ(found.keys, 7u);
    EXPECT_EQ(found.newest_number, 502u);
    EXPECT_EQ(found.start_number, 1000u);
    EXPECT_TRUE(found.ours);
    EXPECT_TRUE(found.log_segments[0] && found.log_segments[1] && !found.log_segments[2]);
}

TEST_F(LogJudge, NumbersWrapInsideASession)
{
    make_ours();
    extension.limit = 50;
    put_extension();
    LogPosition p = put_kset({}, {key(1)}, start(format::number_mask));
    p = put_kset(p, {key(2)}, number(1));
    expect_end(p);
    EXPECT_EQ(found.newest_number, 1u);
}

TEST_F(LogJudge, ATornNewestRecordIsTheEnd)
{
    make_ours();
    put_session({}, 10, 3);
    spoil_record(at(2));
    extension.limit = 12; // the torn record was the last one whose number was used
    put_extension();
    expect_end(at(2));
}

TEST_F(LogJudge, AMainlineLogEndsAtItsTerminatorOrGarbage)
{
    make_mainline();
    LogPosition p = {};
    for (u32 i = 0; i < 5; i++)
        p = put_kset(p, {key(i)}, {});
    const u64 garbage = 0x1234567890;
    put(data_at(p), garbage);
    expect_end(p);
    EXPECT_EQ(found.records, 5u);
    EXPECT_EQ(found.dirty_keys, 5u);
    EXPECT_FALSE(found.ours);
}

TEST_F(LogJudge, FewerThan24BytesLeftInTheSegmentEndTheLog)
{
    make_mainline();
    LogPosition p = put_kset({}, {key(1)}, {});
    p = put_last(p, 3, {});
    const LogPosition top{{3}, format::data_bytes - last_bytes};
    // A dirty tail at the last possible place of a log segment that leads nowhere else.
    put_dirty_tail(top);
    put_key_tail(top, false);
    expect_end(top);
}

TEST_F(LogJudge, AKsetThatLeavesNoRoomForLastIsDamage)
{
    make_mainline();
    const LogPosition p{{0}, format::data_bytes - one_key - 8};
    put_key_tail(p, false);
    put_dirty_tail(p);
    put_kset(p, {key(1)}, {});
    expect_damage(damage::no_room);
}

// ---- a ------------------------------------------------------------------------------------

TEST_F(LogJudge, AOnly_DirtyTailNotMetAndTheWalkFromThereEndsBadly)
{
    make_mainline();
    LogPosition p = {};
    for (u32 i = 0; i < 6; i++)
        p = put_kset(p, {key(i)}, {});
    put_dirty_tail(at(4));
    spoil_record(at(1));
    poison_record(at(5));
    expect_damage(damage::dirty_tail_missed);
    EXPECT_EQ(text(found.damage_at), text(at(1)));
}

TEST_F(LogJudge, NotDamage_AHoleInFrontOfDirtyTailCostsCleanDataOnly)
{
    make_ours();
    const LogPosition p = put_session({}, 10, 6);
    put_dirty_tail(at(4));
    spoil_record(at(1));
    expect_end(p);
    EXPECT_TRUE(found.dropped_front);
    EXPECT_EQ(text(found.key_tail), text(at(4)));
    EXPECT_EQ(found.keys, 2u);
    EXPECT_EQ(found.dirty_keys, 2u);
    EXPECT_TRUE(world.said("in front of dirty_tail"));
}

TEST_F(LogJudge, NotDamage_AnUnreadableRecordInFrontOfDirtyTail)
{
    make_ours();
    const LogPosition p = put_session({}, 10, 6);
    put_dirty_tail(p);
    poison_record(at(0));
    expect_end(p);
    EXPECT_TRUE(found.dropped_front);
    EXPECT_EQ(found.keys, 0u);
}

TEST_F(LogJudge, NotDamage_ALoopInFrontOfDirtyTail)
{
    make_mainline();
    put_last({}, 0, {});
    const LogPosition dirty{{1}, 0};
    put_dirty_tail(dirty);
    const LogPosition p = put_kset(dirty, {key(1)}, {});
    expect_end(p);
    EXPECT_TRUE(found.dropped_front);
}

// ---- b ------------------------------------------------------------------------------------

TEST_F(LogJudge, BOnly_TheNextHeaderCannotBeRead)
{
    make_mainline();
    put_session({}, 10, 2);
    poison_record(at(2));
    expect_damage(damage::unreadable);
    EXPECT_EQ(text(found.damage_at), text(at(2)));
}

TEST_F(LogJudge, BOnly_TheRecordThatAHeaderAnnouncesCannotBeRead)
{
    make_mainline();
    const std::vector<Key> keys(format::geometry.keys_per_kset, key(1));
    put_kset({}, keys, {});
    disk->poison(data_at({{0}, format::max_record_bytes - 8}), 8);
    expect_damage(damage::unreadable);
}

TEST_F(LogJudge, BOnly_EvenWhereACleanStopEndedIfTheMediaIsNotOurs)
{
    make_ours();
    const LogPosition p = put_session({}, 10, 2);
    extension.cache_info_crc = 1;
    clean_stop(12, p);
    poison_record(p);
    expect_damage(damage::unreadable);
}

TEST_F(LogJudge, NotDamage_UnreadableWhereOurCleanStopHasTheHead)
{
    make_ours();
    const LogPosition p = put_session({}, 10, 2);
    clean_stop(12, p);
    poison_record(p);
    expect_end(p);
}

// ---- c ------------------------------------------------------------------------------------

TEST_F(LogJudge, COnly_TheLogEndsBeforeTheNumberOfTheCleanStop)
{
    make_ours();
    const LogPosition p = put_session({}, 10, 4);
    clean_stop(14, p);
    spoil_record(at(3));
    expect_damage(damage::short_of_clean_stop);
}

TEST_F(LogJudge, COnly_NumbersProveItAlsoWhenTheMediaIsNotOurs)
{
    make_ours();
    put_session({}, 10, 3);
    extension.cache_info_crc = 1;
    clean_stop(14, at(4));
    put_key_tail({}, false);
    expect_damage(damage::short_of_clean_stop);
    EXPECT_FALSE(found.ours);
}

TEST_F(LogJudge, COnly_NoNumberWasReadAndTheRecordedHeadWasNotMet)
{
    make_ours();
    LogPosition p = put_kset({}, {key(1)}, {});
    p = put_kset(p, {key(2)}, {});
    clean_stop(0, p);
    spoil_record(at(1));
    expect_damage(damage::short_of_clean_stop);
}

TEST_F(LogJudge, COnly_ABadRecordAtKeyTailBehindACleanStop)
{
    make_ours();
    const LogPosition p = put_session({}, 10, 1);
    clean_stop(11, p);
    spoil_record({});
    expect_damage(damage::short_of_clean_stop);
}

TEST_F(LogJudge, NotDamage_TheCleanStopsLastNumberWasRead)
{
    make_ours();
    const LogPosition p = put_session({}, 10, 4);
    clean_stop(14, p);
    expect_end(p);
    EXPECT_TRUE(found.clean_stop);
}

TEST_F(LogJudge, NotDamage_NoNumberAtACleanStopThatIsNotOursProvesNothing)
{
    make_ours();
    const LogPosition p = put_kset({}, {key(1)}, {});
    clean_stop(0, at(7));
    put_key_tail({}, false);
    expect_end(p);
}

TEST_F(LogJudge, NotDamage_WithoutACleanStopItsFieldsSayNothing)
{
    make_ours();
    extension.next_number = 500;
    extension.head = at(40);
    put_extension();
    expect_end(put_session({}, 10, 2));
}

// ---- d ------------------------------------------------------------------------------------

TEST_F(LogJudge, DOnly_ALaterRecordStandsBehindABadOne)
{
    make_ours();
    put_session({}, 10, 4);
    spoil_record(at(2));
    expect_damage(damage::later_record);
    EXPECT_EQ(text(found.damage_at), text(at(2)));
}

TEST_F(LogJudge, DOnly_ALaterRecordStandsRightThere)
{
    make_ours();
    LogPosition p = put_session({}, 10, 2);
    put_kset(p, {key(3)}, number(13));
    expect_damage(damage::later_record);
}

TEST_F(LogJudge, DOnly_AtAnyMultipleOfEightFurtherOn)
{
    make_ours();
    put_session({}, 10, 2);
    put_kset({{0}, format::data_bytes - 3 * one_key - 8}, {key(3)}, number(14));
    expect_damage(damage::later_record);
}

TEST_F(LogJudge, DOnly_NoRecordWasReadAtAll)
{
    make_ours();
    put_session({}, 10, 2);
    spoil_record({});
    expect_damage(damage::later_record);
}

TEST_F(LogJudge, DOnly_WithoutExtensionANumberReadProvesIt)
{
    make_mainline();
    put_session({}, 10, 4);
    spoil_record(at(2));
    expect_damage(damage::later_record);
}

TEST_F(LogJudge, NotDamage_WithoutExtensionAndNumberNothingIsLater)
{
    make_mainline();
    put_session({}, 10, 2);
    spoil_record({});
    expect_end({});
}

TEST_F(LogJudge, NotDamage_ANumberBeforeTheLastReadIsALeftover)
{
    make_ours();
    LogPosition p = put_session({}, 10, 2);
    put_kset({{0}, p.offset + one_key}, {key(3)}, number(9));
    expect_end(p);
}

TEST_F(LogJudge, NotDamage_ANumberAtOrBehindLimitWasNeverUsed)
{
    make_ours();
    LogPosition p = put_session({}, 10, 2);
    put_kset({{0}, p.offset + one_key}, {key(3)}, number(1000));
    expect_end(p);
}

TEST_F(LogJudge, NotDamage_ARecordOfMainlinesFurtherOnProvesNothing)
{
    make_ours();
    LogPosition p = put_session({}, 10, 2);
    put_kset({{0}, p.offset + one_key}, {key(3)}, {});
    expect_end(p);
}

TEST_F(LogJudge, NotDamage_ALaterNumberBehindARecordOfMainlinesOnForeignMedia)
{
    make_mainline();
    LogPosition p = put_session({}, 10, 2);
    p = put_kset(p, {key(3)}, {}); // the last record read has no number
    put_kset({{0}, p.offset + one_key}, {key(4)}, number(20));
    expect_end(p);
}

TEST_F(LogJudge, NotDamage_AnUnreadablePageFurtherOn)
{
    make_ours();
    LogPosition p = put_session({}, 10, 2);
    disk->poison(data_at(p) + 8192, format::page_bytes);
    expect_end(p);
}

TEST_F(LogJudge, NotDamage_ARecordAtAnOddPlaceIsNoRecord)
{
    make_ours();
    LogPosition p = put_session({}, 10, 2);
    put_kset({{0}, p.offset + 804}, {key(3)}, number(14));
    expect_end(p);
}

// ---- e ------------------------------------------------------------------------------------

TEST_F(LogJudge, EOnly_ABadLastHidesTheNewestSegment)
{
    make_ours();
    LogPosition p = put_session({}, 10, 2);
    put_last(p, 1, number(12));
    spoil_record(p);
    put_kset({{1}, 0}, {key(5)}, number(13));
    extension.link_seg = 1;
    put_extension();
    expect_damage(damage::link_missed);
}

TEST_F(LogJudge, EOnly_ALinkOutsideTheChainCountsAsNotVisited)
{
    make_ours();
    put_session({}, 10, 2);
    extension.link_seg = format::no_link;
    put_extension();
    expect_damage(damage::link_missed);
}

TEST_F(LogJudge, EOnly_ANumberReadSufficesWhenTheMediaIsNotOurs)
{
    make_ours();
    LogPosition p = put_session({}, 10, 2);
    put_kset(p, {key(9)}, {});
    put_key_tail({}, false);
    extension.link_seg = 1;
    put_extension();
    expect_damage(damage::link_missed);
}

TEST_F(LogJudge, NotDamage_NotOursAndNoNumberReadTheLinkIsNotAsked)
{
    make_ours();
    const LogPosition p = put_kset({}, {key(9)}, {});
    put_key_tail({}, false);
    extension.link_seg = 1;
    put_extension();
    expect_end(p);
}

TEST_F(LogJudge, NotDamage_WithoutExtensionTheLinkIsNotAsked)
{
    make_mainline();
    expect_end(put_session({}, 10, 2));
}

TEST_F(LogJudge, NotDamage_LinkedButNothingWrittenThereYet)
{
    make_ours();
    LogPosition p = put_session({}, 10, 2);
    p = put_last(p, 1, number(12)); // the cut came before the extension named it
    expect_end(p);
    extension.link_seg = 1;
    put_extension();
    expect_end(p);
}

// ---- records that no writer makes -----------------------------------------------------------

TEST_F(LogJudge, ALastIntoAVisitedSegmentIsDamage)
{
    make_mainline();
    LogPosition p = put_last({}, 1, {});
    put_last(p, 0, {});
    expect_damage(damage::bad_link);
}

TEST_F(LogJudge, ALastOutOfTheChainIsDamage)
{
    make_mainline();
    put_last({}, segments, {});
    expect_damage(damage::bad_link);
}

TEST_F(LogJudge, UnknownFlagsOfARecordAreANewerDrivers)
{
    make_ours();
    put_kset({}, {key(1)}, {start(10).raw | 1u << 5});
    expect_damage(damage::newer);
    EXPECT_TRUE(found.newer());
}

TEST_F(LogJudge, UnknownFlagsOfAKeyAreANewerDriversAlsoInFrontOfDirtyTail)
{
    make_ours();
    put_kset({}, {key(1, 1, 1u << 4)}, start(10));
    put_dirty_tail(at(3));
    expect_damage(damage::newer);
}

TEST_F(LogJudge, AnImpossibleKeyIsDamageWhereverItStands)
{
    for (const LogPosition dirty : {LogPosition{}, at(1)}) {
        make_ours();
        Key k = key(1);
        k.cache_seg_id = segments;
        const LogPosition p = put_kset({}, {k}, start(10));
        put_kset(p, {key(2)}, number(11));
        put_dirty_tail(dirty);
        expect_damage(damage::bad_key);
    }
}

TEST_F(LogJudge, AnEmptyKeyIsDamage)
{
    make_mainline();
    put_kset({}, {key(1, 1, format::key_empty)}, {});
    expect_damage(damage::bad_key);
}

} // namespace
