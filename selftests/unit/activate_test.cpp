// SPDX-License-Identifier: GPL-2.0
// selftests/unit/activate_test.cpp - activation steps 2 to 6 and the live metadata: what is on
// media afterwards, in which order it came there, and what a cut at any fence leaves.
#include "selftests/unit/media_rig.hpp"

namespace
{

using namespace pcache;
using namespace pcache::selftest;
namespace damage = pcache::media::damage;

class Activate : public MediaRig
{
protected:
    static constexpr LogPosition at(u32 records) { return {{0}, records * one_key}; }

    bool zero_from(LogPosition p)
    {
        std::vector<u8> b(format::data_bytes - p.offset);
        disk->read(data_at(p), b.data(), b.size());
        for (u8 x : b) {
            if (x)
                return false;
        }
        return true;
    }
    void expect_both(const SlotPlace &p, LogPosition v)
    {
        EXPECT_EQ(text(stored_position(p, 0)), text(v));
        EXPECT_EQ(text(stored_position(p, 1)), text(v));
    }
    // A log with a stale front, unmarked tails in one slot, a lost generation and a bad slot: every
    // part of step 3 has something to do. Ends at the returned place.
    LogPosition make_worn()
    {
        make_ours();
        put_generation(2, 2);
        LogPosition p = put_kset({}, {key(1, 1)}, start(10));
        p = put_kset(p, {key(2, 2)}, number(11));
        put_dirty_tail(p);
        p = put_kset(p, {key(3, 2), key(4, 3, 0, 4)}, number(12));
        spoil(media::dirty_tail_place, 1);
        spoil(media::cache_info_place, 0);
        spoil(media::extension_place, 0);
        spoil_both(media::generation_place({5}));
        const u64 garbage = 0x5A5A5A5A5A5A5A5A;
        put(data_at(p) + 4096, garbage);
        return p;
    }
};

TEST_F(Activate, ACacheOfMainlinesGetsMarksAndAnExtension)
{
    make_mainline();
    LogPosition p = {};
    for (u32 i = 0; i < 3; i++)
        p = put_kset(p, {key(i)}, {});
    put_dirty_tail(at(1));
    put(data_at({{0}, 8192}), u64{77});
    ASSERT_EQ(activate(), rt::Error::none) << sentence();
    const u64 started = found.start_number;
    for (u32 slot : {0u, 1u}) {
        const format::Extension e = stored_extension(slot);
        EXPECT_EQ(e.state, 0u);
        EXPECT_EQ(e.limit, format::advance(started, 1u << 18));
        EXPECT_EQ(e.link_seg, 0u);
        EXPECT_EQ(text(e.safe_tail), text({}));
        EXPECT_EQ(e.cache_info_crc, info_crc());
        EXPECT_EQ(e.backing_bytes, backing_bytes);
        EXPECT_EQ(e.seg_num, segments);
        EXPECT_NE(get<u64>(format::extension_offset + 16), 0u) << "a uuid of its own";
    }
    expect_both(media::key_tail_place, {});
    expect_both(media::dirty_tail_place, at(1));
    EXPECT_TRUE(zero_from(p));
    expect_end(p);
    EXPECT_TRUE(found.ours);
}

TEST_F(Activate, EverythingThatWasWornIsSettled)
{
    const LogPosition p = make_worn();
    ASSERT_EQ(activate(), rt::Error::none) << sentence();
    expect_both(media::key_tail_place, at(1));
    expect_both(media::dirty_tail_place, at(2));
    for (u32 slot : {0u, 1u}) {
        EXPECT_EQ(stored_generation(4, slot), 3u) << "proved by the log";
        EXPECT_EQ(stored_generation(5, slot), 1u) << "lost, and no key";
        EXPECT_EQ(text(stored_extension(slot).safe_tail), text(at(1)));
        const auto i = get<format::CacheInfoRecord>(slot_at(media::cache_info_place, slot));
        EXPECT_TRUE(format::slot_intact(&i, sizeof(i)));
        EXPECT_EQ(i.header.seq, 1) << "a copy, its sequence number included";
    }
    EXPECT_TRUE(zero_from(p));
}

TEST_F(Activate, ActivatingTwiceFindsTheSame)
{
    const LogPosition p = make_worn();
    const View before = view();
    ASSERT_EQ(activate(), rt::Error::none);
    EXPECT_EQ(view(), before);
    const u64 limit = stored_extension().limit;
    ASSERT_EQ(activate(), rt::Error::none);
    EXPECT_EQ(found.start_number, limit) << "no number is used twice";
    EXPECT_EQ(view(), before);
    expect_end(p);
}

TEST_F(Activate, LinesThatWereNotReliedOnAreLeftAlone)
{
    make_ours();
    const LogPosition p = put_session({}, 10, 3);
    put(data_at({{3}, 4096}), u64{99}); // another segment's data
    ASSERT_EQ(activate(), rt::Error::none);
    EXPECT_EQ(get<u64>(data_at({{3}, 4096})), 99u);
    expect_end(p);
}

TEST_F(Activate, TheStepsComeInTheirOrder)
{
    if (real_geometry)
        GTEST_SKIP() << "images of every fence: small geometry only";
    make_worn();
    std::vector<std::string> order;
    Image last = disk->image();
    auto changed = [&](const Image &now, u64 from, u64 bytes) {
        return memcmp(&now[from], &last[from], bytes) != 0;
    };
    auto look = [&] {
        const Image now = disk->image();
        std::string what;
        for (u32 i = 0; i < segments; i++) {
            if (changed(now, slot_at(media::generation_place({i}), 0), 32))
                what = "generation";
        }
        if (changed(now, format::cache_info_offset, 24) ||
            changed(now, format::cache_info_offset + 4096, 24))
            what = order.empty() || order.back() == "generation" ? "bad slot" : "cache_info";
        if (changed(now, format::extension_offset, 256) ||
            changed(now, format::extension_offset + 4096, 256)) {
            format::Extension e = stored_extension(1);
            what = e.coming_info_crc ? "announce" : e.limit == 1000 ? "bad slot" : "extension";
        }
        if (changed(now, format::key_tail_offset, 64))
            what = "tails";
        if (changed(now, data_at({{0}, 0}), format::data_bytes))
            what = "zeros";
        if (!what.empty() && (order.empty() || order.back() != what))
            order.push_back(what);
        last = now;
    };
    const u32 flags = format::make_cache_flags(false, true, format::CacheMode::writeback, 33);
    at_each_fence(look, [&] { ASSERT_EQ(activate(flags), rt::Error::none) << sentence(); });
    const std::vector<std::string> wanted{"generation", "bad slot",   "tails",    "zeros",
                                          "announce",   "cache_info", "extension"};
    EXPECT_EQ(order, wanted);
}

TEST_F(Activate, ACutAtAnyFenceLeavesTheSameCache)
{
    if (real_geometry)
        GTEST_SKIP() << "images of every fence: small geometry only";
    const LogPosition p = make_worn();
    const View before = view();
    const u32 flags = format::make_cache_flags(false, true, format::CacheMode::writeback, 33);
    cut_everywhere([&] { ASSERT_EQ(activate(flags), rt::Error::none); },
                   [&] {
                       ASSERT_EQ(view(), before);
                       ASSERT_EQ(text(found.head), text(p));
                       ASSERT_TRUE(found.ours);
                       ASSERT_EQ(found.generations[4], 3u);
                       ASSERT_EQ(activate(flags), rt::Error::none) << sentence();
                       ASSERT_EQ(view(), before);
                       ASSERT_EQ(stored_extension().cache_info_crc, info_crc());
                   });
}

TEST_F(Activate, ACutAtAnyFenceAfterMainlinesTurnLeavesTheSameCache)
{
    if (real_geometry)
        GTEST_SKIP() << "images of every fence: small geometry only";
    make_ours();
    LogPosition p = put_session({}, 10, 2);
    clean_stop(12, p);
    p = put_kset(p, {key(30)}, {}); // mainline went on, and wrote cache_info and the tails
    put_both(media::cache_info_place, format::encode_cache_info(info()), 2);
    put_key_tail({}, false);
    put_dirty_tail(at(1));
    const View before = view();
    cut_everywhere([&] { ASSERT_EQ(activate(), rt::Error::none); },
                   [&] {
                       ASSERT_EQ(view(), before);
                       ASSERT_EQ(text(found.head), text(p));
                       ASSERT_EQ(activate(), rt::Error::none) << sentence();
                       ASSERT_EQ(view(), before);
                       ASSERT_TRUE(!stored_extension(0).clean_stop() &&
                                   !stored_extension(1).clean_stop());
                   });
}

TEST_F(Activate, TailsThatNobodyCanReadAreRestoredFromSafeTailAtAnyCut)
{
    if (real_geometry)
        GTEST_SKIP() << "images of every fence: small geometry only";
    make_ours();
    put_session({}, 10, 4);
    extension.safe_tail = at(1);
    put_extension();
    spoil_both(media::key_tail_place);
    spoil_both(media::dirty_tail_place);
    const View before = view();
    cut_everywhere([&] { ASSERT_EQ(activate(), rt::Error::none); },
                   [&] {
                       ASSERT_EQ(view(), before);
                       ASSERT_EQ(found.dirty_keys, 3u) << "all is written back again";
                   });
}

TEST_F(Activate, TheSuperblockIsRebuilt)
{
    make_ours();
    put(format::superblock_offset + 20, u8{1}); // its crc is wrong now
    ASSERT_EQ(activate(), rt::Error::none) << sentence();
    const auto r = get<format::SuperblockRecord>(format::superblock_offset);
    EXPECT_EQ(format::decode_superblock(&r).state, format::SuperblockState::good);
    EXPECT_EQ(r.seg_num, segments);
    expect_end({});
    EXPECT_FALSE(found.rebuild_superblock);
}

// A cut in a block write of its page could not be told from a wiped superblock.
TEST_F(Activate, ASuperblockWhosePageCannotBeReadIsLeftAndTheExtensionStandsForIt)
{
    make_ours();
    disk->poison(format::superblock_offset, 8);
    for (int life = 0; life < 2; life++) {
        ASSERT_EQ(activate(), rt::Error::none) << sentence();
        expect_end({});
        EXPECT_TRUE(found.rebuild_superblock);
    }
}

TEST_F(Activate, UnreadablePagesOfMetadataAndBehindTheHeadAreRewritten)
{
    make_ours();
    const LogPosition p = put_session({}, 10, 3);
    extension.safe_tail = at(1);
    put_extension();
    disk->poison(format::cache_ctrl_offset, 64);
    disk->poison(format::cache_info_offset, 64);
    disk->poison(format::extension_offset + 4096, 64);
    disk->poison(slot_at(media::segment_info_place({3}), 1), 64);
    disk->poison(slot_at(media::generation_place({4}), 0), 64);
    disk->poison(data_at(p) - data_at(p) % 4096 + 2 * 4096, 64);
    disk->poison(data_at({{0}, format::data_bytes - 64}), 64);
    ASSERT_EQ(activate(), rt::Error::none) << sentence();
    EXPECT_TRUE(zero_from(p));
    expect_both(media::key_tail_place, at(1));
    expect_end(p);
    EXPECT_TRUE(found.ours);
    EXPECT_FALSE(found.key_tail_lost);
}

TEST_F(Activate, AnUnreadableLineBehindTheHeadKeepsTheRecordsOfItsPage)
{
    make_ours();
    const LogPosition p = put_session({}, 10, 3);
    clean_stop(13, p);
    disk->poison(data_at(p), 64);
    ASSERT_EQ(activate(), rt::Error::none) << sentence();
    EXPECT_TRUE(zero_from(p));
    expect_end(p);
    EXPECT_EQ(found.keys, 3u);
}

// Found by make nth-failure (activate-clean, media_read): what could not be read any more became
// zeros, and the log with it.
TEST_F(Activate, APageThatIsUnmappedForPoisonBehindTheHeadKeepsItsRecords)
{
    make_mainline(); // so that nothing looks behind the head before it is zeroed
    LogPosition p{{0}, 0};
    for (u64 i = 0; i < 3; i++)
        p = put_kset(p, {key(i)}, {});
    disk->set_unmaps_pages(true);
    disk->poison(data_at(p) + 128, 8);
    ASSERT_EQ(activate(), rt::Error::none) << sentence();
    EXPECT_TRUE(zero_from(p));
    expect_end(p);
    EXPECT_EQ(found.keys, 3u);
}

// A cache without an extension, whose oldest keys recovery had no room for: step 6 makes the
// extension, and nothing stores a part of it before.
TEST_F(Activate, ACutAtAnyFenceWithAPassedFrontAndNoExtensionCanBeActivatedAgain)
{
    if (real_geometry)
        GTEST_SKIP() << "images of every fence: small geometry only";
    make_mainline();
    put_kset(put_kset({}, {key(1, 1, 0, 4)}, {}), {key(2)}, {});
    put_dirty_tail(at(1));
    const auto pass_and_activate = [&] {
        return with_device([&](media::Activation &a, media::Device &d) {
            RT_TRY(a.inspect(backing, found, why));
            EXPECT_EQ(found.damage, 0u);
            RT_TRY(a.pass_front(found, at(1)));
            found.emptied[4] = 1;
            found.generations[4]++;
            media::Metadata m(d);
            return a.activate(found, info().flags, backing, m, why);
        });
    };
    cut_everywhere([&] { ASSERT_EQ(pass_and_activate(), rt::Error::none) << sentence(); },
                   [&] {
                       ASSERT_EQ(pass_and_activate(), rt::Error::none) << sentence();
                       ASSERT_EQ(text(stored_extension().safe_tail), text(at(1)));
                   });
}

// What vouches for the tails then is complete: uuid, limit, segments.
TEST_F(Activate, ACutWhileTheTailsPageIsRewrittenAndNoExtensionStandsCanBeActivatedAgain)
{
    if (real_geometry)
        GTEST_SKIP() << "images of every fence: small geometry only";
    make_mainline();
    const LogPosition p = put_kset(put_kset({}, {key(1)}, {}), {key(2)}, {});
    disk->poison(format::cache_ctrl_offset + 2048, 8);
    cut_everywhere([&] { ASSERT_EQ(activate(), rt::Error::none) << sentence(); },
                   [&] {
                       ASSERT_EQ(inspect(), rt::Error::none) << sentence();
                       if (!found.damage) { // a torn page is
                           ASSERT_EQ(text(found.head), text(p));
                           ASSERT_EQ(activate(), rt::Error::none) << sentence();
                           ASSERT_EQ(stored_extension().seg_num, segments);
                       }
                   });
}

TEST_F(Activate, DamageIsNeverActivated)
{
    make_ours();
    put_session({}, 10, 4);
    spoil_record(at(2));
    expect_damage(damage::later_record);
    disk->set_power_model(true);
    with_device([&](media::Activation &a, media::Device &d) {
        media::Metadata m(d);
        EXPECT_EQ(a.activate(found, info().flags, backing, m, why), rt::Error::invalid);
        return 0;
    });
    EXPECT_EQ(disk->pending_units(), 0u);
    disk->set_power_model(false);
}

// ---- panic --------------------------------------------------------------------------------------

TEST_F(Activate, WhatOnlyCpuCachesHeldAfterAPanicIsDurableAfterwards)
{
    if (real_geometry)
        GTEST_SKIP() << "an image of the whole device: small geometry only";
    make_ours();
    put_session({}, 10, 2);
    disk->set_power_model(true);
    with_device([&](media::Activation &, media::Device &d) {
        const media::Pin pin; // the former life stored and never came to the fence
        u8 record[one_key];
        const Key k = key(50);
        format::encode_kset(record, &k, 1, number(12));
        const u64 to = data_at(at(2));
        media::persist::store(pin, d.address(to), record, sizeof(record));
        for (const SlotPlace &p : {media::dirty_tail_place, media::key_tail_place}) {
            format::PositionRecord r = format::encode_position(at(1));
            format::seal_slot(&r, sizeof(r), 2);
            media::persist::store(pin, d.address(slot_at(p, 1)), &r, sizeof(r));
        }
        return 0;
    });
    disk->panic();
    ASSERT_EQ(activate(), rt::Error::none) << sentence();
    disk->load(disk->cut([](u64, unsigned) { return false; }));
    disk->set_power_model(false);
    expect_end(at(3));
    EXPECT_EQ(text(found.key_tail), text(at(1)));
}

// Nothing in the steps behind rewrites these lines: only step 2 can have made them durable.
TEST_F(Activate, RecordsThatNoStepRewritesAreFlushed)
{
    if (real_geometry)
        GTEST_SKIP() << "an image of the whole device: small geometry only";
    make_ours();
    struct Line {
        SlotPlace place;
        u64 value[2];
    };
    disk->set_power_model(true);
    with_device([&](media::Activation &, media::Device &d) {
        const media::Pin pin;
        for (u32 i : {0u, 1u}) {
            format::GenerationRecord g = format::encode_generation(6);
            format::seal_slot(&g, sizeof(g), 2);
            media::persist::store(pin, d.address(slot_at(media::generation_place({3}), i)), &g,
                                  sizeof(g));
            format::CacheInfo c = info();
            c.flags = format::make_cache_flags(false, true, format::CacheMode::writeback, 11);
            format::CacheInfoRecord r = format::encode_cache_info(c);
            format::seal_slot(&r, sizeof(r), 2);
            media::persist::store(pin, d.address(slot_at(media::cache_info_place, i)), &r,
                                  sizeof(r));
        }
        return 0;
    });
    disk->panic();
    ASSERT_EQ(activate(format::make_cache_flags(false, true, format::CacheMode::writeback, 11)),
              rt::Error::none);
    disk->load(disk->cut([](u64, unsigned) { return false; }));
    disk->set_power_model(false);
    expect_end({});
    EXPECT_EQ(found.generations[3], 6u);
    EXPECT_EQ(found.cache_info.gc_percent(), 11u);
}

// ---- the backing device was changed
// ----------------------------------------------------------------

// ---- the live metadata
// -----------------------------------------------------------------------------

class LiveMetadata : public Activate
{
protected:
    // Runs f on an activated cache; every setter must have made durable what it stored.
    void live(const std::function<void(media::Metadata &)> &f)
    {
        make_ours();
        put_session({}, 10, 3);
        EXPECT_EQ(activate(info().flags,
                           [&](media::Metadata &m) {
                               disk->set_power_model(true);
                               f(m);
                               EXPECT_FALSE(m.failed());
                               EXPECT_EQ(disk->pending_units(), 0u);
                               disk->set_power_model(false);
                           }),
                  rt::Error::none)
            << sentence();
    }
};

TEST_F(LiveMetadata, IsReadyAfterActivation)
{
    live([&](media::Metadata &m) {
        EXPECT_EQ(text(m.key_tail()), text({}));
        EXPECT_EQ(text(m.dirty_tail()), text({}));
        EXPECT_EQ(m.cache_info().flags, info().flags);
        EXPECT_EQ(m.extension().limit, 1000u + (1u << 18));
    });
}

TEST_F(LiveMetadata, TailsAreInBothSlotsWithOurMark)
{
    live([&](media::Metadata &m) {
        for (u32 i : {1u, 2u, 3u}) {
            m.set_dirty_tail(at(i));
            m.set_key_tail(at(i - 1));
            expect_both(media::dirty_tail_place, at(i));
            expect_both(media::key_tail_place, at(i - 1));
            EXPECT_EQ(text(m.dirty_tail()), text(at(i)));
        }
    });
}

TEST_F(LiveMetadata, GenerationsGrowInBothSlots)
{
    live([&](media::Metadata &m) {
        EXPECT_EQ(m.set_generation({3}, 2), rt::Error::none);
        EXPECT_EQ(m.set_generation({3}, 3), rt::Error::none);
        EXPECT_EQ(stored_generation(3, 0), 3u);
        EXPECT_EQ(stored_generation(3, 1), 3u);
    });
}

TEST_F(LiveMetadata, EveryUpdateOfTheExtensionKeepsAllOtherFields)
{
    live([&](media::Metadata &m) {
        m.set_safe_tail(at(1));
        m.set_link({4}, 777777);
        m.set_clean_stop(13, at(3));
        for (u32 slot : {0u, 1u}) {
            const format::Extension e = stored_extension(slot);
            EXPECT_EQ(text(e.safe_tail), text(at(1)));
            EXPECT_EQ(e.link_seg, 4u);
            EXPECT_EQ(e.limit, 777777u);
            EXPECT_TRUE(e.clean_stop());
            EXPECT_EQ(e.next_number, 13u);
            EXPECT_EQ(text(e.head), text(at(3)));
            EXPECT_EQ(e.cache_info_crc, info_crc());
        }
    });
}

TEST_F(LiveMetadata, ACleanStopIsReadBackAndClearedByTheNextActivationInBothSlots)
{
    live([&](media::Metadata &m) { m.set_clean_stop(13, at(3)); });
    expect_end(at(3));
    EXPECT_TRUE(found.clean_stop);
    ASSERT_EQ(activate(), rt::Error::none);
    for (u32 slot : {0u, 1u})
        EXPECT_EQ(stored_extension(slot).state, 0u);
}

TEST_F(LiveMetadata, ASettingThatDoesNotChangeStoresNothing)
{
    live([&](media::Metadata &m) {
        u32 fences = 0;
        world.set_fence_hook([&] { fences++; });
        m.set_flags(info().flags);
        world.set_fence_hook(nullptr);
        EXPECT_EQ(fences, 0u);
    });
}

TEST_F(LiveMetadata, ASettingCutAnywhereIsOldOrNewAndTheMediaStaysOurs)
{
    if (real_geometry)
        GTEST_SKIP() << "images of every fence: small geometry only";
    std::vector<Image> left;
    Rng rng(3);
    live([&](media::Metadata &m) {
        world.set_fence_hook([&] {
            left.push_back(disk->cut([](u64, unsigned) { return false; }));
            left.push_back(disk->cut([](u64, unsigned) { return true; }));
            left.push_back(disk->cut(rng));
        });
        m.set_flags(format::make_cache_flags(false, true, format::CacheMode::writeback, 11));
        world.set_fence_hook(nullptr);
    });
    EXPECT_EQ(left.size(), 18u) << "extension, cache_info, extension: two slots each";
    for (const Image &i : left) {
        disk->load(i);
        expect_end(at(3));
        EXPECT_TRUE(found.ours);
        EXPECT_TRUE(found.cache_info.gc_percent() == 11 || found.cache_info.gc_percent() == 70);
    }
    disk->load(left.front());
}

TEST_F(LiveMetadata, AResumeBeginsASessionWithTheFormerLimit)
{
    live([&](media::Metadata &m) {
        m.set_clean_stop(13, at(3));
        const u64 limit = m.extension().limit;
        m.set_key_tail(at(1));
        m.begin_session(at(3), limit, backing_bytes);
        const format::Extension e = stored_extension(0);
        EXPECT_EQ(e.state, 0u);
        EXPECT_EQ(e.limit, limit + (1u << 18));
        EXPECT_EQ(text(e.safe_tail), text(at(1)));
    });
}

TEST_F(LiveMetadata, AnImpossibleExtensionIsNotStored)
{
    make_mainline();
    disk->set_power_model(true);
    with_device([&](media::Activation &, media::Device &d) {
        media::Metadata m(d); // of no activation: its limit is 0
        m.set_safe_tail(at(1));
        EXPECT_TRUE(m.failed());
        return 0;
    });
    EXPECT_EQ(disk->pending_units(), 0u);
    disk->set_power_model(false);
    EXPECT_TRUE(world.said("impossible"));
    expect_end({});
}

// A LAST record leads out of a segment with a page that can be neither read nor rewritten, if it
// fits in front of that page.
TEST_F(Activate, TheLogLeavesItsSegmentOnlyWhereALastRecordFitsInFrontOfTheBadPage)
{
    for (const bool fits : {true, false}) {
        make_ours();
        LogPosition p{};
        // 13 records with 94 keys, or 15 with 93: up to 24 or 16 bytes in front of the second page.
        for (u32 i = 0; i < (fits ? 13u : 15u); i++) {
            const u32 more = 3, n = (fits ? 7u : 6u) + (i < more);
            p = put_kset(p, std::vector<format::Key>(n, key(i)), i ? number(10 + i) : start(10));
        }
        ASSERT_EQ(p.offset, format::page_bytes - (fits ? 24 : 16));
        clean_stop(10 + (fits ? 13 : 15), p);
        disk->set_repairable(false);
        disk->poison(data_at({{0}, format::page_bytes}), 64);
        EXPECT_EQ(activate(), fits ? rt::Error::none : rt::Error::io) << sentence();
        EXPECT_EQ(found.leave_head_segment, fits);
        disk->set_repairable(true);
        disk->cure();
        found.clear();
    }
}

} // namespace
