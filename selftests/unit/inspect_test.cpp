// SPDX-License-Identifier: GPL-2.0
// selftests/unit/inspect_test.cpp - activation step 1: what is refused and with which words, tails
// that cannot be read, generations from the log, the key_tail rule, a changed backing device. Every
// call of inspect() also checks that nothing was stored.
#include "selftests/unit/media_rig.hpp"

namespace
{

using namespace pcache;
using namespace pcache::selftest;
namespace damage = pcache::media::damage;

class Inspect : public MediaRig
{
protected:
    static constexpr LogPosition at(u32 records) { return {{0}, records * one_key}; }
};

// ---- superblock, extension, cache_info -------------------------------------------------------

TEST_F(Inspect, AnEmptyCacheOfMainlinesAndOneOfOurs)
{
    make_mainline();
    expect_end({});
    EXPECT_FALSE(found.has_extension || found.ours);
    EXPECT_EQ(found.segments, segments);
    make_ours();
    expect_end({});
    EXPECT_TRUE(found.has_extension && found.ours);
    EXPECT_EQ(found.start_number, 1000u);
}

TEST_F(Inspect, OursNeedsTheCrcOfCacheInfoAndTheMark)
{
    make_ours();
    extension.coming_info_crc = extension.cache_info_crc;
    extension.cache_info_crc = 77;
    put_extension();
    expect_end({});
    EXPECT_TRUE(found.ours) << "the coming crc counts, too";
    extension.coming_info_crc = 0;
    put_extension();
    expect_end({});
    EXPECT_FALSE(found.ours);
    make_ours();
    put_key_tail({}, false);
    expect_end({});
    EXPECT_FALSE(found.ours);
}

TEST_F(Inspect, ASuperblockOfSomebodyElseIsRefused)
{
    make_mainline();
    put(format::superblock_offset + 8, u64{0x534F4D4544495345});
    expect_refused("belongs to something else");
}

TEST_F(Inspect, ABigEndianOrNewerSuperblockIsRefused)
{
    make_mainline();
    format::SuperblockRecord r = format::encode_superblock(segments);
    for (const auto &[flags, word] : {std::pair{1u, "big-endian"}, std::pair{2u, "newer"}}) {
        r.flags = flags;
        r.crc = format::crc32c(format::crc_seed, &r.flags, sizeof(r) - 4);
        put(format::superblock_offset, r);
        expect_refused(word);
        EXPECT_EQ(why.error, rt::Error::not_supported);
    }
}

TEST_F(Inspect, MoreSegmentsThanTheDeviceHoldsAreRefused)
{
    make_mainline();
    put_superblock(segments + 1);
    expect_refused("smaller than when");
}

TEST_F(Inspect, AnImpossibleNumberOfSegmentsIsRefused)
{
    make_mainline();
    put_superblock(0);
    expect_refused("impossible seg_num");
}

TEST_F(Inspect, ABadSuperblockIsRebuiltFromTheExtension)
{
    make_ours();
    put(format::superblock_offset, u32{1});
    expect_end({});
    EXPECT_TRUE(found.rebuild_superblock);
    extension.state = format::extension_state::formatting;
    put_extension();
    expect_end({});
    EXPECT_TRUE(found.rebuild_superblock) << "also when FORMATTING is set";
}

TEST_F(Inspect, AnUnreadableSuperblockIsRebuiltUnlessFormatting)
{
    make_ours();
    disk->poison(format::superblock_offset, 8);
    expect_end({});
    EXPECT_TRUE(found.rebuild_superblock);
    extension.state = format::extension_state::formatting;
    put_extension();
    expect_refused("zero its first 128 KiB");
}

TEST_F(Inspect, ABadOrUnreadableSuperblockWithoutExtensionIsRefused)
{
    make_mainline();
    put(format::superblock_offset, u32{1});
    expect_refused("bad checksum");
    disk->poison(format::superblock_offset, 8);
    expect_refused("cannot be read");
}

TEST_F(Inspect, AGoodSuperblockBeatsFormatting)
{
    make_ours();
    extension.state = format::extension_state::formatting;
    put_extension();
    expect_end({});
}

TEST_F(Inspect, AnExtensionOfANewerDriverMakesTheCacheReadOnly)
{
    make_ours();
    const LogPosition p = put_session({}, 10, 3);
    extension.state = 4;
    put_extension();
    expect_damage(damage::newer);
    EXPECT_TRUE(found.newer());
    EXPECT_EQ(text(found.run(0).end), text(p));
    EXPECT_EQ(replay().size(), 3u);
}

TEST_F(Inspect, WithoutASuperblockAnExtensionOfANewerDriverIsRefused)
{
    make_ours();
    extension.state = 4;
    put_extension();
    put(format::superblock_offset, format::SuperblockRecord{});
    expect_refused("newer driver");
    make_ours();
    extension.state = 4;
    put_extension();
    spoil_both(media::cache_info_place);
    expect_refused("neither copy of cache_info");
}

TEST_F(Inspect, AnExtensionWithImpossibleNumbersOrAnotherSizeIsRefused)
{
    make_ours();
    extension.limit = 0;
    put_extension();
    expect_refused("impossible numbers");
    extension.limit = 1000;
    extension.seg_num++;
    put_extension();
    expect_refused("disagree");
}

TEST_F(Inspect, OneGoodSlotOfEveryRecordIsEnough)
{
    for (u32 bad : {0u, 1u}) {
        make_ours();
        const LogPosition p = put_session({}, 10, 3);
        put_dirty_tail(at(1));
        put_key_tail(at(1));
        for (const SlotPlace &place :
             {media::extension_place, media::cache_info_place, media::key_tail_place,
              media::dirty_tail_place, media::segment_info_place({1}),
              media::generation_place({2})})
            spoil(place, bad);
        expect_end(p);
        EXPECT_TRUE(found.ours);
        EXPECT_EQ(text(found.key_tail), text(at(1)));
    }
}

TEST_F(Inspect, BothCopiesOfCacheInfoBadAreNeverANewCache)
{
    make_ours();
    spoil_both(media::cache_info_place);
    expect_damage(damage::cache_info);
    make_mainline();
    spoil_both(media::cache_info_place);
    for (u32 slot : {0u, 1u})
        spoil(media::extension_place, slot);
    expect_refused("neither copy of cache_info");
}

TEST_F(Inspect, ACacheInfoThatWasNeverCompletedIsRefused)
{
    make_mainline();
    format::CacheInfo c = info();
    c.flags &= ~format::cache_info_bits::init_done;
    put_both(media::cache_info_place, format::encode_cache_info(c));
    expect_refused("INIT_DONE");
}

TEST_F(Inspect, BadSettingsOnMediaAreRefused)
{
    make_mainline();
    format::CacheInfo c = info();
    c.flags = format::make_cache_flags(false, true, format::CacheMode::writeback, 127);
    put_both(media::cache_info_place, format::encode_cache_info(c));
    expect_refused("gc_percent above 90");
    c.flags = format::make_cache_flags(false, true, format::CacheMode{9}, 70);
    put_both(media::cache_info_place, format::encode_cache_info(c));
    expect_refused("unknown cache mode");
    c = info();
    c.n_segs = segments + 1;
    put_both(media::cache_info_place, format::encode_cache_info(c));
    expect_refused("segment chain");
}

TEST_F(Inspect, DataCrcIsReportedAndLeftToTheCaller)
{
    make_mainline();
    format::CacheInfo c = info();
    c.flags |= format::cache_info_bits::data_crc;
    put_both(media::cache_info_place, format::encode_cache_info(c));
    expect_end({});
    EXPECT_TRUE(found.cache_info.data_crc());
}

// ---- the chain -------------------------------------------------------------------------------

TEST_F(Inspect, AChainInAnotherOrderMapsLogicalToPhysical)
{
    make_mainline();
    for (u32 i = 0; i < segments; i++) // backwards
        put_link(i, i > 0, i - 1);
    format::CacheInfo c = info();
    c.first = {segments - 1};
    put_both(media::cache_info_place, format::encode_cache_info(c));
    put_generation(segments - 1 - 2, 5); // logical 2
    // Logical segment 0 is the last physical one.
    put_kset({{segments - 1}, 0}, {key(3, 5)}, {});
    expect_end({{0}, one_key});
    EXPECT_EQ(found.generations[2], 5u);
    ASSERT_EQ(replay().size(), 1u);
}

TEST_F(Inspect, ALoopOrAnOutsiderInTheChainIsRefused)
{
    make_mainline();
    put_link(3, true, 1);
    expect_refused("not a chain");
    put_link(3, true, segments);
    expect_refused("not a chain");
    put_link(3, true, 3);
    expect_refused("not a chain");
}

TEST_F(Inspect, AChainThatEndsEarlyIsRefused)
{
    make_mainline();
    put_link(3, false, 0);
    expect_refused("too short");
}

TEST_F(Inspect, ASegmentInfoWithoutGoodSlotOrOfAnotherTypeIsRefused)
{
    make_mainline();
    format::SegmentInfoRecord r = format::encode_segment_info({true, {5}});
    r.flags = format::segment_bits::has_next | 2u << format::segment_bits::type_shift;
    put_both(media::segment_info_place({4}), r);
    expect_refused("another type");
    spoil_both(media::segment_info_place({4}));
    expect_refused("neither copy of a segment_info");
}

// ---- tails that cannot be read -----------------------------------------------------------------

TEST_F(Inspect, KeyTailAloneLostTheWalkStartsAtDirtyTail)
{
    make_ours();
    const LogPosition p = put_session({}, 10, 4);
    put_dirty_tail(at(2));
    spoil_both(media::key_tail_place);
    expect_end(p);
    EXPECT_EQ(text(found.key_tail), text(at(2)));
    EXPECT_EQ(found.keys, 2u);
    EXPECT_TRUE(found.key_tail_lost && !found.dirty_tail_lost);
    EXPECT_TRUE(found.ours) << "the mark of dirty_tail stands for that of key_tail";
}

TEST_F(Inspect, DirtyTailAloneLostKeyTailStandsForItAndTheLogSaysSo)
{
    make_ours();
    const LogPosition p = put_session({}, 10, 4);
    put_key_tail(at(1));
    spoil_both(media::dirty_tail_place);
    expect_end(p);
    EXPECT_EQ(text(found.dirty_tail), text(at(1)));
    EXPECT_EQ(found.dirty_keys, 3u);
    EXPECT_TRUE(world.said("earlier epoch"));
}

TEST_F(Inspect, BothTailsLostSafeTailStandsForBoth)
{
    make_ours();
    const LogPosition p = put_session({}, 10, 4);
    extension.safe_tail = at(1);
    put_extension();
    disk->poison(format::cache_ctrl_offset, 64);
    expect_end(p);
    EXPECT_EQ(text(found.key_tail), text(at(1)));
    EXPECT_EQ(text(found.dirty_tail), text(at(1)));
    EXPECT_EQ(found.dirty_keys, 3u);
    EXPECT_TRUE(world.said("earlier epoch"));
}

TEST_F(Inspect, BothTailsLostIsDamageIfTheExtensionDoesNotKnowTheCacheInfo)
{
    make_ours();
    extension.cache_info_crc = 5;
    put_extension();
    disk->poison(format::cache_ctrl_offset, 64);
    expect_damage(damage::tails);
    make_mainline();
    spoil_both(media::extension_place);
    spoil_both(media::key_tail_place);
    spoil_both(media::dirty_tail_place);
    expect_damage(damage::tails);
}

TEST_F(Inspect, ATailWhereNoRecordCanBeginIsDamage)
{
    for (const LogPosition bad : {LogPosition{{segments}, 0}, LogPosition{{0}, 4},
                                  LogPosition{{0}, format::data_bytes - 16}}) {
        make_ours();
        put_key_tail(bad);
        expect_damage(damage::bad_tail);
        make_ours();
        put_dirty_tail(bad);
        expect_damage(damage::bad_tail);
    }
    make_ours();
    extension.safe_tail = {{0}, 12};
    put_extension();
    disk->poison(format::cache_ctrl_offset, 64);
    expect_damage(damage::bad_tail | damage::tails);
}

// ---- generations -------------------------------------------------------------------------------

TEST_F(Inspect, AHigherSegGenProvesThatTheNewerGenerationWasLost)
{
    make_ours();
    LogPosition p = put_kset({}, {key(1, 1)}, start(10));
    p = put_kset(p, {key(2, 4), key(3, 3, 0, 3)}, number(11));
    put_dirty_tail(p);
    p = put_kset(p, {key(4, 6, 0, 4)}, number(12));
    expect_end(p);
    EXPECT_EQ(found.generations[4], 6u);
    EXPECT_EQ(found.generations[2], 4u);
    EXPECT_EQ(found.generations[3], 3u);
    EXPECT_EQ(found.generations[1], 1u);
}

TEST_F(Inspect, NeitherSlotGoodTheHighestSegGenAtOrBehindDirtyTail)
{
    make_ours();
    LogPosition p = put_kset({}, {key(1, 9)}, start(10));
    put_dirty_tail(p);
    p = put_kset(p, {key(2, 3, format::key_clean)}, number(11));
    p = put_kset(p, {key(3, 3)}, number(12));
    spoil_both(media::generation_place({2}));
    expect_end(p);
    EXPECT_EQ(found.generations[2], 3u);
}

TEST_F(Inspect, NeitherSlotGoodTheHighestInFrontOfDirtyTailPlusOne)
{
    make_ours();
    const LogPosition p = put_kset({}, {key(1, 9)}, start(10));
    put_dirty_tail(p);
    spoil_both(media::generation_place({2}));
    expect_end(p);
    EXPECT_EQ(found.generations[2], 10u);
}

TEST_F(Inspect, NeitherSlotGoodAndNoKeyAtAllGenerationOne)
{
    make_ours();
    disk->poison(slot_at(media::generation_place({4}), 0), 8);
    expect_end({});
    EXPECT_EQ(found.generations[4], 1u);
}

TEST_F(Inspect, ADirtyKeyThatIsStaleIsDamage)
{
    make_ours();
    put_generation(2, 5);
    put_kset({}, {key(1, 4)}, start(10));
    expect_damage(damage::stale_dirty);
}

TEST_F(Inspect, NotDamage_AStaleKeyThatIsCleanOrInFrontOfDirtyTail)
{
    make_ours();
    put_generation(2, 5);
    LogPosition p = put_kset({}, {key(1, 4, format::key_clean)}, start(10));
    expect_end(p);
    make_ours();
    put_generation(2, 5);
    p = put_kset({}, {key(1, 4)}, start(10));
    put_dirty_tail(p);
    expect_end(p);
}

TEST_F(Inspect, NotDamage_AStaleDirtyKeyWhereDirtyTailCouldNotBeRead)
{
    make_ours();
    put_generation(2, 5);
    const LogPosition p = put_kset({}, {key(1, 4)}, start(10));
    spoil_both(media::dirty_tail_place);
    expect_end(p);
    EXPECT_EQ(text(found.dirty_tail), text(p)) << "what the segment holds now would be sent";
}

// Found by review: the redo of a log whose dirty_tail is lost began at key_tail.
TEST_F(Inspect, WhereDirtyTailIsLostTheRedoBeginsBehindTheLastStaleKey)
{
    make_ours();
    put_generation(3, 5);
    LogPosition p = put_kset({}, {key(1)}, start(10));
    p = put_kset(p, {key(1, 4, 0, 3), key(2)}, number(11)); // overrode it, and is on the backing
    const LogPosition behind = p;
    p = put_kset(p, {key(7)}, number(12));
    spoil_both(media::dirty_tail_place);
    expect_end(p);
    EXPECT_EQ(text(found.dirty_tail), text(behind)) << "older data would be written back over it";
    EXPECT_EQ(text(found.key_tail), text(behind));
    EXPECT_EQ(found.keys, 1u);
}

// ---- key_tail, replay
// ----------------------------------------------------------------------------

TEST_F(Inspect, KeyTailGoesBehindTheLastStaleRecordInFrontOfDirtyTail)
{
    make_ours();
    put_generation(2, 2);
    LogPosition p = put_kset({}, {key(1, 2)}, start(10));
    p = put_kset(p, {key(2, 1), key(3, 2)}, number(11)); // a GC pass had come to here
    const LogPosition behind = p;
    p = put_kset(p, {key(4, 2)}, number(12));
    put_dirty_tail(p);
    const LogPosition newest = p;
    p = put_kset(p, {key(5, 2), key(6, 1, format::key_clean)}, number(13));
    expect_end(p);
    EXPECT_EQ(text(found.key_tail), text(behind));
    EXPECT_EQ(found.records, 2u);
    EXPECT_EQ(found.keys, 3u);
    EXPECT_EQ(found.newest_number, 13u);
    const auto keys = replay();
    ASSERT_EQ(keys.size(), 3u);
    EXPECT_EQ(keys[0].offset, 4 * format::sector_bytes);
    EXPECT_FALSE(keys[0].dirty || keys[0].stale);
    EXPECT_TRUE(keys[1].dirty && !keys[1].stale);
    EXPECT_TRUE(keys[2].stale && !keys[2].dirty) << "CLEAN, and behind dirty_tail";
    EXPECT_EQ(text(keys[2].record), text(newest));
}

TEST_F(Inspect, SegmentsThatKeyTailLeavesAreNoLogSegmentsAnyMore)
{
    make_ours();
    put_generation(2, 2);
    LogPosition p = put_kset({}, {key(1, 1)}, start(10));
    p = put_last(p, 1, number(11));
    p = put_kset(p, {key(2, 1)}, number(12));
    put_dirty_tail(p);
    extension.link_seg = 1;
    put_extension();
    expect_end(p);
    EXPECT_EQ(text(found.key_tail), text(p));
    EXPECT_FALSE(found.log_segments[0]);
    EXPECT_TRUE(found.log_segments[1]);
    EXPECT_EQ(found.newest_number, 0u) << "none between key_tail and head";
}

TEST_F(Inspect, ReplayStopsAtTheFirstErrorOfItsSink)
{
    make_ours();
    put_session({}, 10, 4);
    struct Sink {
        u32 calls = 0;
        rt::Error key(const media::ReplayedKey &)
        {
            return ++calls == 2 ? rt::Error::no_memory : rt::Error::none;
        }
    } sink;
    with_device([&](media::Activation &a, media::Device &) {
        EXPECT_EQ(a.inspect(backing, found, why), rt::Error::none);
        EXPECT_EQ(a.replay(found, sink), rt::Error::no_memory);
        return 0;
    });
    EXPECT_EQ(sink.calls, 2u);
}

// ---- the number of the next START
// -----------------------------------------------------------------

TEST_F(Inspect, StartTakesLimitAlsoWhenMainlineWasHereMeanwhile)
{
    make_ours();
    put_kset({}, {key(1)}, {});
    put_key_tail({}, false);
    expect_end(at(1));
    EXPECT_EQ(found.start_number, 1000u);
}

TEST_F(Inspect, WithoutExtensionStartSkipsFarBehindTheLastNumberRead)
{
    make_mainline();
    put_session({}, 10, 3);
    expect_end(at(3));
    EXPECT_EQ(found.start_number, 12u + (1u << 20));
}

TEST_F(Inspect, WithoutExtensionAndNumberStartIsRandom)
{
    make_mainline();
    expect_end({});
    const u64 one = found.start_number;
    EXPECT_TRUE(format::valid_number(one));
    expect_end({});
    EXPECT_NE(found.start_number, one);
}

// ---- the backing device
// ----------------------------------------------------------------------------

TEST_F(Inspect, ASmallerBackingDeviceIsRefused)
{
    make_ours();
    backing.bytes -= 512;
    expect_refused("smaller than the one");
    backing.bytes += 1024;
    expect_end({});
}

TEST_F(Inspect, AKeyPastTheBackingDeviceIsDamageEvenWithoutExtension)
{
    make_mainline();
    put_kset({}, {key(backing_bytes / 512)}, {});
    expect_damage(damage::bad_key);
    EXPECT_NE(std::string(media::damage_sentence(found.damage)).find("backing device"),
              std::string::npos);
}

TEST_F(Inspect, NoMemoryIsAnErrorWhereverItStrikes)
{
    make_ours();
    put_session({}, 10, 3);
    u64 n = 1;
    for (; n < 50; n++) {
        rt::Error e = rt::Error::none;
        {
            media::Device device;
            ASSERT_EQ(device.open(disk->open()), rt::Error::none);
            Memory::fail(n);
            media::Activation a(device, nullptr);
            e = a.inspect(backing, found, why);
            Memory::fail(0, 0);
        }
        found.clear();
        if (ok(e))
            break;
        EXPECT_EQ(e, rt::Error::no_memory);
    }
    EXPECT_GT(n, 5u);
    EXPECT_LT(n, 50u);
}

TEST_F(Inspect, SegmentsThatDoNotAdjoinInTheAddressSpaceReadTheSame)
{
    disk->set_scattered(true);
    make_ours();
    LogPosition p = put_session({}, 10, 2);
    p = put_last(p, 3, number(12));
    p = put_kset(p, {key(9)}, number(13));
    extension.link_seg = 3;
    put_extension();
    expect_end(p);
    EXPECT_EQ(replay().size(), 3u);
}

} // namespace
