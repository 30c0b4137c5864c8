// SPDX-License-Identifier: GPL-2.0
// Tests of the state read_only and of accept_loss, through the whole engine: what a damaged cache
// reads as, that it stores nothing, and that nothing that could be read is lost on the way out.
#include "damage_rig.hpp"
#include <set>
#include <thread>

using namespace pcache;
using namespace pcache::selftest;

namespace
{

struct Damage {
    const char *name;
    bool clean_stop; // else a power cut
    void (*make)(DamageRig &);
    std::set<u32> lost; // writes that cannot be read any more
};

const Damage damages[] = {
    {"a: dirty_tail where no record begins",
     true,
     [](DamageRig &r) {
         r.put_dirty_tail({{0}, 8});
     },
     {0}},
    {"b: a record that cannot be read", true, [](DamageRig &r) { r.poison_record(2); }, {2}},
    {"c: the last record before a clean stop", true, [](DamageRig &r) { r.spoil_record(7); }, {7}},
    {"d: one byte of a record", false, [](DamageRig &r) { r.spoil_record(5); }, {5}},
    {"d: two records",
     false,
     [](DamageRig &r) {
         r.spoil_record(1);
         r.spoil_record(6);
     },
     {1, 6}},
    {"d: the very first record", false, [](DamageRig &r) { r.spoil_record(0); }, {0}},
    {"a key out of bounds", false, [](DamageRig &r) { r.bend_key(3); }, {3}},
    {"both tails lost, and nothing stands for them",
     true,
     [](DamageRig &r) {
         r.lose_tails();
         r.forget_cache_info();
     },
     {0, 1, 2, 3, 4, 5, 6, 7}},
    {"d: without extended superblock",
     false,
     [](DamageRig &r) {
         r.lose_extension();
         r.spoil_record(3);
     },
     {3}},
};

class EveryDamage : public testing::TestWithParam<Damage>
{
protected:
    DamageRig rig;
    // A cache with this damage, activated; rig.model is what it must read as.
    void damaged()
    {
        const Damage &d = GetParam();
        rig.keep_dirty(true);
        rig.start();
        eight_writes(rig);
        rig.stop(d.clean_stop);
        d.make(rig);
        rig.model_without(d.lost);
        rig.keep_dirty(false);
        ASSERT_EQ(rig.create(), 0) << rig.sentence;
        ASSERT_EQ(rig.resume(), 0) << rig.last_error();
        ASSERT_TRUE(rig.read_only()) << rig.status();
    }
};

} // namespace

TEST_P(EveryDamage, ReadsWhatIsLeftAndStoresNothingOnEitherDevice)
{
    damaged();
    const Image media = rig.contents(), backing = rig.backing.image();
    const auto counted = rig.backing.counters();
    rig.media.set_power_model(true);
    rig.check("read-only");
    EXPECT_EQ(rig.try_write(0, Image(4096)), -5);
    EXPECT_EQ(rig.try_write(0, Image(4096), true), -5) << "a FUA write";
    EXPECT_EQ(rig.flush(), 0);
    EXPECT_EQ(rig.message({"gc_percent", "50"}), -30);
    EXPECT_TRUE(rig.world.said("send the message accept_loss"));
    EXPECT_EQ(rig.world.events(), 1u);
    rig.suspend();
    ASSERT_EQ(rig.resume(), 0);
    EXPECT_TRUE(rig.read_only());
    rig.check("after suspend and resume");
    rig.remove();
    EXPECT_EQ(rig.media.pending_units(), 0u);
    rig.media.set_power_model(false);
    EXPECT_EQ(rig.backing.counters().writes, counted.writes);
    EXPECT_EQ(rig.backing.counters().flushes, counted.flushes);
    EXPECT_TRUE(rig.contents() == media) << "something was stored on the cache device";
    EXPECT_TRUE(rig.backing.image() == backing);
    rig.media.cure();
}

TEST_P(EveryDamage, AcceptLossKeepsAllThatCouldBeReadAndGoesOn)
{
    damaged();
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    EXPECT_FALSE(rig.read_only()) << rig.status();
    EXPECT_TRUE(rig.backing.image() == rig.model) << "all that could be read must be there";
    rig.check("after accept_loss");
    EXPECT_EQ(rig.message({"accept_loss"}), -22) << "it is running";
    EXPECT_EQ(rig.message({"gc_percent", "50"}), 0);
    for (u32 i = 0; i < 20; i++)
        rig.write_pattern(i * 8192, 4096, true);
    rig.check("after new writes");
    rig.remove();
    rig.start();
    EXPECT_FALSE(rig.read_only());
    rig.check("after a new activation");
}

INSTANTIATE_TEST_SUITE_P(ReadOnly, EveryDamage, testing::ValuesIn(damages),
                         [](const auto &i) { return std::to_string(i.index); });

// ---- accept_loss, step by step ------------------------------------------------------------------

TEST(AcceptLoss, EpochsGoInOrderWithAFlushBetween)
{
    DamageRig rig;
    one_hole(rig);
    std::string order;
    std::mutex lock;
    rig.set_backing_hook([&](Op op, u64 offset, u64) {
        const std::lock_guard<std::mutex> g(lock);
        if (op == Op::write)
            order += std::to_string(offset / 4096);
        else if (op == Op::flush && !order.empty() && order.back() != '|')
            order += "|";
        return 0;
    });
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    rig.set_backing_hook(nullptr);
    EXPECT_EQ(order, "0|1|3|3|2|1|0|") << "pages, a line for each FLUSH; write 2 is lost";
}

TEST(AcceptLoss, DirtyDataThatCannotBeReadIsGivenUpAndNamed)
{
    DamageRig rig;
    one_hole(rig);
    // The data of write 6 (page 1): its second sector.
    rig.poison_data(6, 1);
    Bio bio(4096);
    ASSERT_EQ(rig.map(bio, {PC_READ, 4096, 4096, 0, 0}), PC_TAKEN);
    EXPECT_EQ(bio.wait(), -5);
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    EXPECT_TRUE(rig.world.said("bytes 4608 to 5119 of the backing device are given up"));
    EXPECT_TRUE(rig.world.said("given up: 1 keys with 512 bytes in 1 ranges"));
    // That sector has what was readable before: write 1.
    const Image before = Rig::pattern(4096, 4096, rig.version_of(1));
    std::memcpy(&rig.model[4608], &before[512], 512);
    rig.check("after accept_loss");
    rig.media.cure();
}

TEST(AcceptLoss, WithDataCrcWhatFailsItsChecksumIsGivenUp)
{
    DamageRig rig;
    rig.keep_dirty(true);
    ASSERT_EQ(rig.create({"2", "data_crc", "true"}), 0) << rig.sentence;
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    eight_writes(rig);
    rig.stop(false);
    rig.spoil_record(2);
    rig.flip_data(6, 0); // page 1: what is left of it is write 1
    rig.keep_dirty(false);
    ASSERT_EQ(rig.create(), 0) << rig.sentence;
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    ASSERT_TRUE(rig.read_only()) << rig.status();
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    EXPECT_TRUE(rig.world.said("bytes 4096 to 8191 of the backing device are given up"));
    rig.model_without({2, 6});
    rig.check("after accept_loss");
    EXPECT_NE(rig.status(2).find("data_crc=true"), std::string::npos) << "a setting is kept";
    for (u32 i = 0; i < 20; i++)
        rig.write_pattern(i * 8192, 4096, true);
    rig.remove();
    rig.start();
    rig.check("at last");
}

TEST(AcceptLoss, AnErrorOfTheBackingDeviceLeavesTheCacheReadOnlyAndUntouched)
{
    for (const Op op : {Op::write, Op::flush}) {
        for (u64 n : {1u, 4u}) {
            DamageRig rig;
            one_hole(rig);
            const Image media = rig.contents_but_disk_record();
            rig.backing.fail(op, n);
            EXPECT_EQ(rig.message({"accept_loss"}), -5);
            EXPECT_TRUE(rig.read_only()) << rig.status();
            EXPECT_TRUE(rig.contents_but_disk_record() == media)
                << "something was stored before all was safe";
            rig.check("after the error");
            EXPECT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
            rig.check("the second time");
        }
    }
}

#ifdef PCACHE_SMALL_GEOMETRY // the same allocations in both, and many activations
TEST(AcceptLoss, WithoutMemoryItEndsWithAnErrorAndCanBeGivenAgain)
{
    bool done = false;
    for (u64 n = 1; !done && n < 200; n++) {
        DamageRig rig;
        one_hole(rig);
        Memory::fail(n);
        const int e = rig.message({"accept_loss"});
        Memory::fail(~u64{0} / 2);
        done = e == 0;
        if (!done) {
            EXPECT_EQ(e, -5) << "allocation " << n;
            EXPECT_TRUE(rig.read_only()) << rig.status();
            rig.check("after the error");
            EXPECT_EQ(rig.try_write(0, Image(4096)), -5);
            EXPECT_EQ(rig.flush(), 0);
            rig.suspend();
            ASSERT_EQ(rig.resume(), 0);
            EXPECT_EQ(rig.message({"accept_loss"}), 0) << "allocation " << n << rig.last_error();
        }
        EXPECT_FALSE(rig.read_only());
        rig.check("at last");
    }
    EXPECT_TRUE(done);
}
#endif

TEST(AcceptLoss, IsRefusedWhileRunningOrBeforeActivationAndTakesNoValue)
{
    DamageRig rig;
    ASSERT_EQ(rig.create(), 0);
    EXPECT_EQ(rig.message({"accept_loss"}), -16);
    ASSERT_EQ(rig.resume(), 0);
    EXPECT_EQ(rig.message({"accept_loss"}), -22);
    EXPECT_EQ(rig.message({"accept_loss", "yes"}), -22);
    rig.suspend();
    EXPECT_EQ(rig.message({"accept_loss"}), -22);
    ASSERT_EQ(rig.resume(), 0);
}

TEST(AcceptLoss, WhatSomethingNewerWroteIsServedReadOnlyAndNeverGivenUp)
{
    for (const bool record : {false, true}) {
        DamageRig rig;
        rig.keep_dirty(true);
        rig.start();
        eight_writes(rig);
        rig.stop(false);
        rig.make_newer(record);
        if (record)
            rig.model_without({7});
        ASSERT_EQ(rig.create(), 0) << rig.sentence;
        ASSERT_EQ(rig.resume(), 0) << rig.last_error();
        EXPECT_TRUE(rig.read_only()) << rig.status();
        const Image media = rig.contents();
        rig.check("read-only");
        EXPECT_EQ(rig.message({"accept_loss"}), -95);
        rig.check("after the refusal");
        EXPECT_TRUE(rig.contents() == media);
        EXPECT_EQ(rig.backing.counters().writes, rig.writes_failed());
    }
}

TEST(AcceptLoss, ReadsAreAnsweredAllTheWhile)
{
    DamageRig rig;
    one_hole(rig);
    rig.backing.set_delay_ns(Op::flush, 2000000);
    std::atomic<bool> stop{false};
    std::thread reader([&] {
        const OnCpu cpu(3);
        while (!stop)
            for (u64 page = 0; page < 4; page++)
                EXPECT_EQ(rig.read(page * 4096, 4096),
                          Image(rig.model.begin() + static_cast<long>(page * 4096),
                                rig.model.begin() + static_cast<long>(page * 4096 + 4096)))
                    << "page " << page;
    });
    std::thread watcher([&] {
        const OnCpu cpu(4);
        while (!stop) {
            EXPECT_NE(rig.status(), "");
            std::this_thread::yield();
        }
    });
    EXPECT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    stop = true;
    reader.join();
    watcher.join();
    rig.check("after it");
}

TEST(AcceptLoss, EndsWhenASuspendBeginsAndTwoAtOnceAreSafe)
{
    DamageRig rig;
    one_hole(rig);
    const Image media = rig.contents_but_disk_record();
    rig.backing.hold_writes(true);
    int first = 0;
    std::thread sender([&] {
        const OnCpu cpu(3);
        first = rig.message({"accept_loss"});
    });
    while (!rig.backing.counters().writes_in_flight)
        std::this_thread::yield();
    EXPECT_EQ(rig.message({"accept_loss"}), -16);
    pc_target_presuspend(rig.target, 0);
    rig.backing.hold_writes(false);
    sender.join();
    EXPECT_EQ(first, -16);
    pc_target_postsuspend(rig.target);
    EXPECT_TRUE(rig.read_only());
    EXPECT_TRUE(rig.contents_but_disk_record() == media);
    EXPECT_EQ(rig.message({"accept_loss"}), -16) << "still suspended";
    ASSERT_EQ(rig.resume(), 0);
    rig.check("after the resume");
    EXPECT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    rig.check("at last");
}

TEST(AcceptLoss, ASignalEndsTheWait)
{
    DamageRig rig;
    one_hole(rig);
    rig.backing.hold_writes(true);
    std::atomic<Signal *> signal{nullptr};
    std::atomic<bool> ended{false};
    int first = 0;
    std::thread sender([&] {
        const OnCpu cpu(3);
        Signal s;
        signal = &s;
        first = rig.message({"accept_loss"});
        ended = true;
        while (signal)
            std::this_thread::yield();
    });
    while (!rig.backing.counters().writes_in_flight || !signal)
        std::this_thread::yield();
    signal.load()->send();
    // The signal must be seen before what is in flight has landed.
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    rig.backing.hold_writes(false);
    while (!ended)
        std::this_thread::yield();
    signal = nullptr;
    sender.join();
    EXPECT_EQ(first, -4);
    EXPECT_TRUE(rig.read_only());
    rig.check("after the signal");
    EXPECT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    rig.check("at last");
}

TEST(AcceptLoss, SettingsSurvive)
{
    DamageRig rig;
    rig.keep_dirty(true);
    rig.start();
    ASSERT_EQ(rig.message({"gc_percent", "33"}), 0);
    eight_writes(rig);
    rig.stop(false);
    rig.spoil_record(2);
    rig.model_without({2});
    rig.keep_dirty(false);
    ASSERT_EQ(rig.create(), 0) << rig.sentence;
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    EXPECT_NE(rig.status().find(" 33 "), std::string::npos) << rig.status();
}

// A log that became unreadable at run time: what its record said is in the index alone.
TEST(AcceptLoss, WhatOnlyTheIndexKnowsIsKeptWhereTheStateBeganAtRunTime)
{
    DamageRig rig;
    rig.start();
    rig.write_record(0, 4096);
    rig.write_record(8192, 4096);
    rig.poison_record(0);
    for (int i = 0; i < 1000 && !rig.read_only(); i++)
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    ASSERT_TRUE(rig.read_only()) << rig.status();
    rig.check("read-only");
    EXPECT_EQ(rig.try_write(0, Image(4096)), -5);
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    EXPECT_TRUE(rig.backing.image() == rig.model);
    rig.check("after accept_loss");
    EXPECT_EQ(rig.try_write(0, Rig::pattern(0, 4096, 0)), 0);
    rig.media.cure();
}

// The same with data_crc, and a bit of it has changed: it is given up by name, and not sent.
TEST(AcceptLoss, WhatOnlyTheIndexKnowsIsVerifiedToo)
{
    DamageRig rig;
    ASSERT_EQ(rig.create({"2", "data_crc", "true"}), 0) << rig.sentence;
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    rig.keep_dirty(true);
    rig.write_record(0, 4096);
    rig.write_record(8192, 4096);
    rig.flip_data(0, 5);
    rig.poison_record(0);
    for (int i = 0; i < 1000 && !rig.read_only(); i++)
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    ASSERT_TRUE(rig.read_only()) << rig.status();
    rig.keep_dirty(false);
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    EXPECT_TRUE(rig.world.said("bytes 0 to 4095 of the backing device are given up"));
    rig.model_without({0});
    EXPECT_TRUE(rig.backing.image() == rig.model);
    rig.media.cure();
}

// Found by make nth-failure (accept_loss, media_read): the new cache stored to the bad page.
TEST(AcceptLoss, PagesThatCannotBeMadeGoodGetNoNewData)
{
    DamageRig rig;
    rig.start();
    eight_writes(rig);
    rig.stop(false);
    rig.spoil_record(2);
    rig.start();
    ASSERT_TRUE(rig.read_only()) << rig.status();
    rig.media.set_repairable(false);
    for (u32 i : {1u, 3u, 5u})
        rig.poison_data(i, 0);
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    EXPECT_TRUE(rig.world.said("can be neither read nor rewritten"));
    for (u64 at = 0; at < rig.model.size(); at += 64u << 10) // the World tells of a store there
        rig.write_pattern(at, 64u << 10);
    rig.check("after accept_loss");
    rig.remove();
    rig.media.cure();
}

TEST(AcceptLoss, OnABackingDeviceOf4KiBBlocksABadLineTakesItsBlockAlone)
{
    DamageRig rig;
    rig.backing.set_logical_block(4096);
    const Image before = rig.backing.image();
    rig.start();
    rig.keep_dirty(true);
    rig.write_record(0, 4096);
    rig.write_record(32768, 32768);
    rig.stop(false);
    rig.spoil_record(0);
    rig.model_without({0});
    rig.start();
    ASSERT_TRUE(rig.read_only()) << rig.status();
    rig.media.poison(rig.place_of(32768 + 8192 + 512), 64);
    rig.keep_dirty(false);
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    EXPECT_TRUE(rig.world.said("bytes 40960 to 45055 of the backing device are given up"));
    std::memcpy(&rig.model[40960], &before[40960], 4096);
    EXPECT_TRUE(rig.backing.image() == rig.model);
    rig.media.cure();
}

#ifdef PCACHE_SMALL_GEOMETRY // a record holds so few keys
// Write-back had gathered the keys of the epoch up to the record that cannot be read.
TEST(AcceptLoss, WhatWriteBackHadGatheredWhenTheStateBeganIsNotSent)
{
    DamageRig rig;
    rig.start();
    rig.keep_dirty(true);
    for (u32 i = 0; i < 16; i++)
        rig.write_pattern(i * 8192, 4096);
    ASSERT_EQ(rig.flush(), 0);
    format::RecordHeader first;
    std::memcpy(&first, &rig.media.image()[DamageRig::record_at(0)], sizeof(first));
    ASSERT_LT(first.num, 16u) << "all keys are in one record";
    rig.media.poison(DamageRig::record_at(0) + format::kset_bytes(first.num), 8);
    rig.poison_data(0, 3);
    rig.keep_dirty(false);
    for (int i = 0; i < 1000 && !rig.read_only(); i++)
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    ASSERT_TRUE(rig.read_only()) << rig.status();
    EXPECT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    EXPECT_TRUE(rig.world.said("of the backing device are given up"));
    rig.media.cure();
}

// The World reports a store to a line that could not be read.
TEST(AcceptLoss, TheNewCacheStoresToNoPageThatCouldNotBeReadBefore)
{
    DamageRig rig;
    rig.start();
    rig.keep_dirty(true);
    rig.write_record(0, 4096);
    rig.write_record(8192, 4096);
    rig.write_record(0, 4096); // the first one is of no use any more
    rig.poison_data(0, 3);
    rig.poison_data(1, 3);
    rig.keep_dirty(false);
    for (int i = 0; i < 1000 && !rig.world.said("are lost"); i++)
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    rig.keep_dirty(true);
    const u64 next = rig.next_record();
    rig.write_record(16384, 4096);
    rig.write_record(24576, 4096);
    rig.media.poison(next, 8);
    rig.keep_dirty(false);
    for (int i = 0; i < 1000 && !rig.read_only(); i++)
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    ASSERT_TRUE(rig.read_only()) << rig.status();
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    for (u32 round = 0; round < 4; round++)
        for (u32 i = 0; i < 128; i++)
            rig.write_pattern(i * 8192, 4096);
    EXPECT_EQ(rig.flush(), 0);
    rig.media.cure();
}

// Read well once, and bad when it is sent: not given up without a word, but found at the next try.
TEST(AcceptLoss, DataThatGoesBadOnItsWayIsNotCountedAsSent)
{
    constexpr u32 count = 400, apart = 2048, last = count; // more than is in flight at once
    DamageRig rig;
    rig.start();
    rig.keep_dirty(true);
    rig.write_record(0, apart);
    for (u32 i = 1; i <= count; i++)
        rig.write_pattern(i * apart, 512);
    ASSERT_EQ(rig.flush(), 0);
    rig.spoil_record(0);
    rig.stop(false);
    rig.start();
    ASSERT_TRUE(rig.read_only()) << rig.status();
    const u64 place = rig.place_of(last * apart);
    rig.set_backing_hook([&](Op op, u64, u64) {
        if (op == Op::write)
            rig.media.poison(place, 64);
        return 0;
    });
    rig.keep_dirty(false);
    EXPECT_EQ(rig.message({"accept_loss"}), -5) << "a page that was not sent was counted as sent";
    ASSERT_TRUE(rig.read_only()) << rig.status();
    rig.set_backing_hook(nullptr);
    EXPECT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    EXPECT_TRUE(rig.world.said("are given up"));
    rig.media.cure();
}
#endif

#ifdef PCACHE_SMALL_GEOMETRY
namespace
{
bool becomes_clean(DamageRig &rig)
{
    for (int i = 0; i < 1000 && rig.backing.image() != rig.model; i++)
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    return rig.backing.image() == rig.model;
}
void becomes_read_only(DamageRig &rig)
{
    for (int i = 0; i < 1000 && !rig.read_only(); i++)
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    ASSERT_TRUE(rig.read_only()) << rig.status();
}
// At run time.
void lose_the_next_record(DamageRig &rig)
{
    const u64 next = rig.next_record();
    rig.keep_dirty(true);
    rig.write_record(900u << 10, 4096);
    rig.media.poison(next, 8);
    becomes_read_only(rig);
}
void swap_two_segments(DamageRig &rig)
{
    const u32 order[] = {0, 2, 1, 3};
    for (u32 i = 0; i + 1 < 4; i++) {
        format::SegmentInfoRecord r = format::encode_segment_info({true, {order[i + 1]}});
        format::seal_slot(&r, sizeof(r), 1);
        const pcache::media::SlotPlace p = pcache::media::segment_info_place({order[i]});
        rig.media.write(p.offset, &r, sizeof(r));
        rig.media.write(p.offset + p.stride, &r, sizeof(r));
    }
}
} // namespace

// With data_crc: a bit of clean data changes after write-back has verified it. Step 1 of
// accept_loss goes by what write-back's verifier remembers, and puts the wrong bit over the right
// data of the backing device.
TEST(AcceptLoss, WhatOnlyTheIndexKnowsIsVerifiedThenAndNotBefore)
{
    DamageRig rig;
    ASSERT_EQ(rig.create({"2", "data_crc", "true"}), 0) << rig.sentence;
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    rig.write_record(0, 4096);
    ASSERT_TRUE(becomes_clean(rig));
    rig.flip_data(0, 3);
    rig.keep_dirty(true);
    rig.write_record(8192, 4096);
    rig.poison_record(1);
    becomes_read_only(rig);
    rig.keep_dirty(false);
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    EXPECT_TRUE(rig.backing.image() == rig.model) << "wrong bits over what was right";
    rig.media.cure();
}

// The chain of an active cache stays what it was, also of one that accept_loss has made.
TEST(AcceptLoss, AChangedChainIsRefused)
{
    DamageRig rig;
    one_hole(rig);
    swap_two_segments(rig);
    EXPECT_NE(rig.message({"accept_loss"}), 0);
    EXPECT_TRUE(rig.world.said("the segment chain of the active cache device has changed"));
}

TEST(AcceptLoss, AChangedChainIsRefusedOfACacheThatItHasMadeToo)
{
    DamageRig rig;
    one_hole(rig);
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    for (u64 at = 0; at < 192u << 10; at += 32u << 10)
        rig.write_pattern(at, 32u << 10);
    ASSERT_EQ(rig.flush(), 0);
    ASSERT_TRUE(becomes_clean(rig));
    lose_the_next_record(rig);
    rig.keep_dirty(false);
    const Image before = rig.read(0, rig.model.size());
    swap_two_segments(rig);
    EXPECT_NE(rig.message({"accept_loss"}), 0);
    EXPECT_TRUE(rig.world.said("the segment chain of the active cache device has changed"));
    EXPECT_EQ(rig.read(0, rig.model.size()), before);
    rig.media.cure();
}
#endif
