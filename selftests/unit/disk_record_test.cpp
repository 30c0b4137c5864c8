// SPDX-License-Identifier: GPL-2.0
// selftests/unit/disk_record_test.cpp - the disk record by the rules of the format: when it counts,
// what differs, and at every fence of activation, formatting and accept_loss what a cut leaves of
// it. The engine is not involved; changed_disk_test.cpp shows what a user sees.
#include <array>
#include "selftests/unit/media_rig.hpp"

namespace
{

using namespace pcache;
using namespace pcache::selftest;
namespace damage = pcache::media::damage;

class DiskRecord : public MediaRig
{
protected:
    LogPosition head;
    bool dirty_ = false;

    // Three keys, all of them clean or one dirty; a clean stop that knows all 32 blocks.
    void make_stopped(bool dirty = false)
    {
        if (!backing_disk)
            attach_disk();
        disk->cure();
        make_ours();
        head = put_session({}, 10, 3);
        put_dirty_tail(dirty ? LogPosition{{0}, 2 * one_key} : head);
        clean_stop(13, head);
        put_disk_record(disk_now());
    }
    void expect_judged(bool judged, const char *what)
    {
        EXPECT_EQ(inspect(), rt::Error::none) << what << ": " << sentence();
        EXPECT_EQ(found.all_keys_go, judged) << what;
        EXPECT_EQ(found.disk_differs != 0, judged) << what;
        found.clear();
    }
    bool raw_empty(u32 slot) const
    {
        const auto r = get<format::DiskRecord>(slot_at(media::disk_record_place, slot));
        return format::slot_intact(&r, sizeof(r)) && !r.known;
    }
    bool both_empty() const { return raw_empty(0) && raw_empty(1); }
    bool clean_stop_stands() const
    {
        for (u32 slot : {0u, 1u}) {
            const auto r = get<format::ExtensionRecord>(slot_at(media::extension_place, slot));
            if (r.state & format::extension_state::clean_stop)
                return true;
        }
        return false;
    }
    rt::Error begin_rescue()
    {
        return with_device([&](media::Activation &a, media::Device &) {
            RT_TRY(a.inspect(backing, found, why));
            return a.begin_rescue(found, why);
        });
    }
};

TEST_F(DiskRecord, AnUnchangedDeviceIsTakenAndAChangedOneCostsAllCleanKeys)
{
    make_stopped();
    expect_judged(false, "nothing was changed");
    change_block(31);
    expect_end(head);
    EXPECT_TRUE(found.all_keys_go);
    EXPECT_EQ(found.disk_differs, 1u << 31);
    EXPECT_EQ(text(found.key_tail), text(head));
    EXPECT_EQ(text(found.dirty_tail), text(head));
    EXPECT_EQ(found.keys, 0u);
    EXPECT_EQ(found.generations[2], 2u) << "its data segment is emptied";
    EXPECT_EQ(found.generations[3], 1u);
    EXPECT_TRUE(replay().empty());
}

TEST_F(DiskRecord, AChangedDeviceWithDirtyDataInTheCacheIsRefusedAndTheFirstBlockNamed)
{
    make_stopped(true);
    expect_end(head);
    change_block(9);
    change_block(17);
    expect_refused("attach the right device");
    EXPECT_NE(sentence().find("block 9 differs"), std::string::npos) << sentence();
    EXPECT_NE(sentence().find("changed_backing read_only"), std::string::npos) << sentence();
}

// ext4 keeps a crc32c of its superblock in the superblock, at its end.
TEST_F(DiskRecord, AChangeThatCancelsInACrc32cIsNoticed)
{
    attach_disk();
    const auto seal = [](Image &i) {
        const u32 crc = format::crc32c(~0u, &i[1024], 1020);
        std::memcpy(&i[2044], &crc, 4);
    };
    Image before = backing_disk->image();
    seal(before);
    Image after = before;
    for (u32 i = 0; i < 9; i++)
        after[1024 + 0x78 + i]++; // the label
    seal(after);
    for (u32 seed : {format::crc_seed, 0u, ~0u})
        ASSERT_EQ(format::crc32c(seed, before.data(), disk_bytes),
                  format::crc32c(seed, after.data(), disk_bytes));
    backing_disk->load(before);
    make_stopped();
    backing_disk->load(after);
    expect_judged(true, "a label of ext4");
    EXPECT_TRUE(found.disk_differs == 0) << "cleared";
}

TEST_F(DiskRecord, CountsOnlyWhereTheMediaIsOursAndNobodyElseStoppedHere)
{
    attach_disk();
    const struct {
        const char *what;
        bool judged;
        std::function<void()> make;
    } cases[] = {
        {"as we left it", true, [&] {}},
        {"not stopped cleanly", true,
         [&] {
             extension.state = 0;
             put_extension();
         }},
        {"dirty_tail cannot be read", true, [&] { spoil_both(media::dirty_tail_place); }},
        {"one slot is bad", true, [&] { spoil(media::disk_record_place, 0); }},
        {"both slots are bad", false, [&] { spoil_both(media::disk_record_place); }},
        {"mainline has stored key_tail", false, [&] { put_key_tail({}, false); }},
        {"mainline has stored dirty_tail", false,
         [&] {
             format::PositionRecord r = format::encode_position(head);
             r.header.res = 0;
             put_both(media::dirty_tail_place, r);
         }},
        {"mainline has stored cache_info", false,
         [&] { put_both(media::cache_info_place, format::encode_cache_info(info()), 2); }},
        {"no extension", false, [&] { spoil_both(media::extension_place); }},
        {"a driver that knew no disk record stopped here", false,
         [&] {
             extension.former_crc = 1;
             put_extension();
         }},
        {"a newer version of it", false,
         [&] {
             format::DiskRecord r;
             format::encode_disk_record(disk_now(), r);
             r.header.version = 2;
             put_both(media::disk_record_place, r, 9);
         }},
        {"nothing is known", false, [&] { put_disk_record({}, 9); }},
    };
    const Image was = backing_disk->image();
    for (const auto &c : cases) {
        backing_disk->load(was);
        make_stopped(std::strstr(c.what, "dirty_tail cannot"));
        c.make();
        change_block(3);
        if (std::strstr(c.what, "dirty_tail cannot")) {
            EXPECT_NE(inspect(), rt::Error::none) << "all of the log is dirty then";
            continue;
        }
        expect_judged(c.judged, c.what);
    }
}

TEST_F(DiskRecord, ABlockWithHash0DiffersReadOrNotInsideTheLengthOrNot)
{
    make_stopped();
    format::DiskState s = disk_now();
    s.known = 1u << 30;
    std::memset(s.hash, 0, sizeof(s.hash));
    put_disk_record(s, 9);
    expect_judged(true, "it can be read");
    backing.table_bytes = 20u * 4096;
    expect_judged(true, "not inside the table");
    backing.table_bytes = ~u64{0};
    backing_disk->fail(Op::read, 1, -5, 100);
    expect_judged(true, "it cannot be read");
}

TEST_F(DiskRecord, OnlyWholeBlocksInsideDeviceAndTableAreKnownAndCompared)
{
    attach_disk();
    EXPECT_EQ(disk_now().known, ~0u);
    EXPECT_EQ(disk_now(disk_bytes - 512).known, ~0u >> 1);
    EXPECT_EQ(disk_now(4096 * 3 + 512).known, 7u);
    EXPECT_EQ(disk_now(4095).known, 0u);
    make_stopped();
    change_block(5);
    backing.table_bytes = 6 * 4096 - 512;
    expect_judged(false, "block 5 is not served whole");
    backing.table_bytes = 6 * 4096;
    expect_judged(true, "block 5 is served");
}

TEST_F(DiskRecord, ADeviceOf4KiBBlocksIsReadInWholeBlocks)
{
    backing_disk = &world.add_backing("backing", 2 * disk_bytes);
    backing_disk->set_logical_block(4096);
    backing.device = backing_disk->open();
    EXPECT_EQ(disk_now(5 * 4096).known, 31u);
    make_stopped();
    change_block(2);
    expect_judged(true, "block 2");
}

TEST_F(DiskRecord, OnlyBlocksThatAreAskedForAreRead)
{
    make_stopped();
    format::DiskState s = disk_now();
    for (u32 i = 0; i < 32; i++) {
        if (i == 4 || i == 5 || i == 31)
            continue;
        s.known &= ~(1u << i);
        s.hash[i] = 0;
    }
    put_disk_record(s, 9);
    const u64 before = backing_disk->counters().read_bytes;
    expect_end(head);
    EXPECT_EQ(backing_disk->counters().read_bytes - before, 3u * 4096);
    s.unsure = ~s.known & ~1u; // block 0 alone may be learnt
    const u64 then = backing_disk->counters().read_bytes;
    ASSERT_EQ(media::learn_disk(backing.device, disk_bytes, extension.uuid, s), rt::Error::none);
    EXPECT_EQ(backing_disk->counters().read_bytes - then, 4096u);
    EXPECT_EQ(s.known, 1u | 1u << 4 | 1u << 5 | 1u << 31);
}

TEST_F(DiskRecord, BlocksThatCannotBeReadAreNeitherKnownNorComparedButOneMustBe)
{
    make_stopped();
    const auto bad = [](u64 from, u64 to) {
        return [=](Op op, u64 offset, u64 bytes) {
            return op == Op::read && offset < to && offset + bytes > from ? -61 : 0;
        };
    };
    backing_disk->set_hook(bad(4096, 3 * 4096));
    EXPECT_EQ(disk_now().known, ~6u);
    change_block(1);
    expect_judged(false, "what was changed cannot be read");
    change_block(3);
    expect_judged(true, "another one can");
    backing_disk->set_hook(bad(0, ~u64{0}));
    EXPECT_EQ(inspect(), static_cast<rt::Error>(61)) << "the device's own error";
    EXPECT_NE(sentence().find("cannot be read"), std::string::npos);
    put_disk_record({}, 9);
    expect_judged(false, "nothing is known, so nothing need be read");
}

TEST_F(DiskRecord, NothingIsKnownFromStep6On)
{
    if (real_geometry)
        GTEST_SKIP() << "images of every fence: small geometry only";
    make_stopped();
    at_each_fence(
        [&] {
            if (!clean_stop_stands()) {
                ASSERT_TRUE(both_empty()) << "step 6 is done, and blocks are known";
            }
        },
        [&] { ASSERT_EQ(activate(), rt::Error::none) << sentence(); });
    EXPECT_TRUE(both_empty());
    EXPECT_EQ(stored_disk(0).unsure, 0u);
}

TEST_F(DiskRecord, NothingIsKnownWhereACutOfActivationLeavesASession)
{
    if (real_geometry)
        GTEST_SKIP() << "images of every fence: small geometry only";
    make_stopped(true);
    cut_everywhere([&] { ASSERT_EQ(activate(), rt::Error::none); },
                   [&] {
                       ASSERT_EQ(inspect(), rt::Error::none) << sentence();
                       ASSERT_EQ(found.disk_differs, 0u);
                       ASSERT_TRUE(found.clean_stop || both_empty());
                       ASSERT_EQ(found.dirty_keys, 1u);
                       found.clear();
                   });
}

TEST_F(DiskRecord, WhatDoesNotCountIsEmptyBeforeTheMediaIsOurs)
{
    if (real_geometry)
        GTEST_SKIP() << "images of every fence: small geometry only";
    make_stopped();
    put_key_tail({}, false); // mainline was here, and wrote to the device
    change_block(0);
    const auto marked = [&](u32 slot) {
        return format::has_mark(get<format::PositionRecord>(slot_at(media::key_tail_place, slot)));
    };
    at_each_fence(
        [&] {
            if (marked(0) || marked(1)) {
                ASSERT_TRUE(both_empty());
            }
        },
        [&] {
            const Image before = disk->image();
            ASSERT_EQ(activate(), rt::Error::none);
            disk->load(before);
        });
    cut_everywhere([&] { ASSERT_EQ(activate(), rt::Error::none); },
                   [&] {
                       ASSERT_EQ(inspect(), rt::Error::none) << sentence();
                       ASSERT_EQ(found.disk_differs, 0u) << "a session of mainline's is no change";
                       found.clear();
                   });
    EXPECT_TRUE(both_empty());
}

TEST_F(DiskRecord, AChangedDeviceIsNoticedUntilAllKeysHaveGoneAtWhateverFenceItIsCut)
{
    if (real_geometry)
        GTEST_SKIP() << "images of every fence: small geometry only";
    make_stopped();
    put_generation(2, 7);
    put_kset({}, {key(1, 7)}, start(10));
    head = put_kset({{0}, one_key}, {key(2, 7, format::key_clean)}, number(11));
    put(data_at(head), std::array<u8, one_key>{});
    put_dirty_tail({{0}, one_key}); // that it moves can be seen
    clean_stop(12, head);
    change_block(0);
    u64 fence = 0, dirty_at = 0, tail_at = 0, safe_at = 0, raised_at = 0, empty_at = 0,
        begun_at = 0;
    const auto note = [&](u64 &at, bool is) {
        if (is && !at)
            at = fence;
    };
    const Image before = disk->image();
    at_each_fence(
        [&] {
            fence++;
            note(dirty_at, same(stored_position(media::dirty_tail_place, 0), head) &&
                               same(stored_position(media::dirty_tail_place, 1), head));
            note(tail_at, same(stored_position(media::key_tail_place, 0), head) &&
                              same(stored_position(media::key_tail_place, 1), head));
            note(safe_at, same(stored_extension(0).safe_tail, head) &&
                              same(stored_extension(1).safe_tail, head));
            note(raised_at,
                 get<format::GenerationRecord>(slot_at(media::generation_place({2}), 1)).gen == 8);
            note(empty_at, raw_empty(0) || raw_empty(1));
            note(begun_at, !stored_extension(0).clean_stop() || !stored_extension(1).clean_stop());
        },
        [&] { ASSERT_EQ(activate(), rt::Error::none) << sentence(); });
    EXPECT_TRUE(dirty_at && dirty_at < tail_at) << dirty_at << " " << tail_at;
    EXPECT_LT(tail_at, safe_at);
    EXPECT_LT(safe_at, raised_at) << "a generation comes behind key_tail and safe_tail";
    EXPECT_LT(raised_at, empty_at) << "the change is known until all keys have gone";
    EXPECT_LT(empty_at, begun_at) << "and no longer when the session begins";
    disk->load(before);
    cut_everywhere([&] { ASSERT_EQ(activate(), rt::Error::none); },
                   [&] {
                       ASSERT_TRUE(view().empty()) << "a key over a device that was changed";
                       ASSERT_EQ(activate(), rt::Error::none) << sentence();
                       ASSERT_EQ(text(found.head), text(head));
                       ASSERT_GE(found.generations[2], 7u);
                       ASSERT_TRUE(both_empty());
                   });
}

// What a former life left behind the head must not be read as the log because the tails stand
// there.
TEST_F(DiskRecord, TheKeysOfAChangedDeviceGoBehindTheZerosAtTheHead)
{
    if (real_geometry)
        GTEST_SKIP() << "images of every fence: small geometry only";
    make_stopped();
    put_kset(head, {key(40)}, number(9)); // older than all that was read
    change_block(0);
    cut_everywhere([&] { ASSERT_EQ(activate(), rt::Error::none); },
                   [&] { ASSERT_TRUE(view().empty()); });
}

TEST_F(DiskRecord, AfterAPanicNeitherSlotComesBackFromTheCpuCaches)
{
    if (real_geometry)
        GTEST_SKIP() << "an image of the whole device: small geometry only";
    for (const u32 stored : {1u, 2u}) { // slots that the former life has emptied
        make_stopped(true);
        disk->set_power_model(true);
        with_device([&](media::Activation &, media::Device &d) {
            const media::Pin pin;
            format::DiskRecord r;
            format::encode_disk_record({}, r);
            format::seal_slot(&r, sizeof(r), 2);
            for (u32 slot = 0; slot < stored; slot++)
                media::persist::store(pin, d.address(slot_at(media::disk_record_place, slot)), &r,
                                      sizeof(r));
            return 0;
        });
        disk->panic();
        ASSERT_EQ(activate(), rt::Error::none) << sentence();
        disk->load(disk->cut([](u64, unsigned) { return false; }));
        disk->set_power_model(false);
        EXPECT_TRUE(both_empty()) << stored;
    }
}

TEST_F(DiskRecord, AnOlderSlotIsMadeEqual)
{
    make_stopped(true);
    format::DiskRecord r;
    format::encode_disk_record({}, r);
    put_slot(media::disk_record_place, 1, r, 2);
    change_block(0);
    ASSERT_EQ(activate(), rt::Error::none) << "the newer slot knows nothing";
    EXPECT_TRUE(both_empty());
}

TEST_F(DiskRecord, NothingIsKnownWhileOneSlotIsDeadAndItNeverWinsAgain)
{
    for (const u32 dead : {0u, 1u}) {
        make_stopped(true);
        const u64 page = slot_at(media::disk_record_place, dead) / 4096 * 4096;
        ASSERT_EQ(activate(info().flags,
                           [&](media::Metadata &m) {
                               disk->poison(page, 64);
                               disk->set_repairable(false);
                               m.set_disk(disk_now());
                               EXPECT_TRUE(m.disk().empty());
                               for (u32 i = 0; i < 300; i++) {
                                   m.set_disk(disk_now());
                                   m.forget_disk();
                               }
                               EXPECT_FALSE(m.failed());
                           }),
                  rt::Error::none)
            << sentence();
        EXPECT_TRUE(raw_empty(1 - dead));
        disk->set_repairable(true);
        disk->cure();
        // Whatever the dead one holds, as old as the last update, is older than the live one.
        const auto live = get<format::DiskRecord>(slot_at(media::disk_record_place, 1 - dead));
        const auto was = get<format::DiskRecord>(slot_at(media::disk_record_place, dead));
        EXPECT_TRUE(format::newer_seq(live.header.seq, was.header.seq));
        EXPECT_TRUE(format::newer_seq(live.header.seq, static_cast<u8>(was.header.seq + 1)))
            << "its last update may have arrived";
        expect_end(head);
        EXPECT_TRUE(found.disk.empty());
        found.clear();
    }
}

TEST_F(DiskRecord, ADeadSlotAtActivationCostsWhatIsKnownAndNothingElse)
{
    for (const u32 dead : {0u, 1u}) {
        make_stopped();
        change_block(0);
        disk->poison(slot_at(media::disk_record_place, dead), 8);
        disk->set_repairable(false);
        ASSERT_EQ(activate(), rt::Error::none) << sentence();
        EXPECT_TRUE(found.all_keys_go) << "the other one was good";
        EXPECT_TRUE(raw_empty(1 - dead));
        found.clear();
        disk->set_repairable(true);
    }
}

TEST_F(DiskRecord, WhereTheLogIsDamagedCleanKeysOfAChangedDeviceAreIgnored)
{
    make_stopped(true);
    spoil_record({{0}, 2 * one_key}); // the dirty one
    put_kset({{0}, 3 * one_key}, {key(40)}, number(13));
    expect_damage(damage::short_of_clean_stop | damage::later_record);
    EXPECT_FALSE(found.clean_ignored());
    change_block(6);
    expect_damage(damage::short_of_clean_stop | damage::later_record);
    EXPECT_TRUE(found.clean_ignored());
    for (const media::ReplayedKey &k : replay())
        EXPECT_EQ(k.stale, !k.dirty) << k.offset;
}

TEST_F(DiskRecord, ChangedBackingReadOnlyIsNoRefusalAndIgnoresCleanKeys)
{
    for (const bool dirty : {false, true}) {
        make_stopped(dirty);
        backing.changed_read_only = true;
        expect_end(head);
        change_block(6);
        expect_damage(damage::changed_disk);
        EXPECT_NE(std::string(found.read_only_sentence()).find("block 6 differs"),
                  std::string::npos);
        u32 served = 0;
        for (const media::ReplayedKey &k : replay())
            served += !k.stale;
        EXPECT_EQ(served, dirty ? 1u : 0u);
        EXPECT_EQ(activate(), rt::Error::invalid) << "nothing may be stored";
    }
}

// ---- formatting and accept_loss -----------------------------------------------------------------

TEST_F(DiskRecord, FormattingLeavesAnEmptyOne)
{
    attach_disk();
    format::DiskState s = disk_now();
    s.known = 1;
    s.unsure = 6;
    std::memset(&s.hash[1], 0, sizeof(s.hash) - sizeof(s.hash[0]));
    put_disk_record(s, 200); // of a former life; the device is blank all the same
    ASSERT_EQ(format(), rt::Error::none) << sentence();
    EXPECT_TRUE(both_empty());
    EXPECT_EQ(stored_disk(0).unsure, 0u) << "that life's discards are nobody's business";
    expect_end({});
    EXPECT_TRUE(found.disk_judged);
}

TEST_F(DiskRecord, FormattingBehindAcceptLossKeepsWhatIsUnsure)
{
    make_stopped();
    format::DiskState s;
    s.unsure = 6;
    put_disk_record(s, 9);
    with_device([&](media::Activation &a, media::Device &) {
        EXPECT_EQ(a.inspect(backing, found, why), rt::Error::none);
        EXPECT_EQ(a.begin_rescue(found, why), rt::Error::none);
        EXPECT_EQ(a.give_up(backing, found, why), rt::Error::none);
        EXPECT_EQ(a.format(backing, info().flags, why), rt::Error::none);
        return 0;
    });
    EXPECT_TRUE(both_empty());
    for (u32 slot : {0u, 1u})
        EXPECT_EQ(stored_disk(slot).unsure, 6u);
}

TEST_F(DiskRecord, AnInterruptedFormatOfMainlinesMayHaveADiskRecordOfOurs)
{
    put_superblock();
    put_disk_record({}, 3);
    ASSERT_EQ(inspect(), rt::Error::none) << sentence();
    EXPECT_EQ(found.kind, media::MediaKind::blank);
    put(format::disk_record_offset + format::disk_record_bytes, u8{1});
    EXPECT_NE(inspect(), rt::Error::none) << "the byte behind it belongs to somebody";
}

TEST_F(DiskRecord, AcceptLossEmptiesItBeforeItWrites)
{
    make_stopped(true);
    ASSERT_EQ(begin_rescue(), rt::Error::none) << sentence();
    EXPECT_TRUE(both_empty());
}

TEST_F(DiskRecord, AcceptLossLeavesAChangedDeviceAChangedOneAtWhateverFenceItIsCut)
{
    if (real_geometry)
        GTEST_SKIP() << "images of every fence: small geometry only";
    make_stopped(true);
    backing.changed_read_only = true;
    change_block(6);
    change_block(8);
    std::vector<Image> left;
    Rng rng(1);
    at_each_fence(
        [&] {
            left.push_back(disk->cut([](u64, unsigned) { return false; }));
            left.push_back(disk->cut([](u64, unsigned) { return true; }));
            left.push_back(disk->cut(rng));
        },
        [&] { ASSERT_EQ(begin_rescue(), rt::Error::none) << sentence(); });
    ASSERT_GE(left.size(), 6u);
    for (u32 slot : {0u, 1u}) {
        EXPECT_EQ(stored_disk(slot).known, 1u << 6 | 1u << 8);
        EXPECT_EQ(stored_disk(slot).hash[6], 0u);
    }
    left.push_back(disk->image());
    for (const Image &i : left) {
        disk->load(i);
        expect_damage(damage::changed_disk);
        EXPECT_EQ(found.disk_differs, 1u << 6 | 1u << 8);
        found.clear();
    }
}

} // namespace
