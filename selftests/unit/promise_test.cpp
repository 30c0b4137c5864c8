// SPDX-License-Identifier: GPL-2.0
// What a FLUSH promises on every way between two states; and who waits for whom when accept_loss, a
// suspend and a removal meet.
#include "promise_rig.hpp"

using namespace pcache::selftest;
using namespace pcache::selftest::promise;
namespace format = pcache::format;

// ---- on the way into read-only ------------------------------------------------------------------

#if defined(PCACHE_SMALL_GEOMETRY) && !defined(PCACHE_TSAN) // too slow there to hit the moment
// Write-back has met a record that it cannot read, and what is staged is stored and not fenced yet.
TEST_F(Promise, AFlushOnTheWayIntoReadOnlyEndsWhenWhatItCoversIsInARecord)
{
    const u64 at = 220 * page;
    Gate gate;
    Bio staged(Rig::pattern(at, page, 4711)), flush(0);
    std::atomic<std::thread::id> reclaim{}; // may go the way into read-only, too, afterwards
    rig.start();
    rig.backing.hold_writes(true);
    rig.write_record(0, page);
    rig.write_record(page, page);
    for (u64 i = 0; i < 256; i++) // more than half of the cache
        rig.write_pattern((i % 200 + 10) * page, page);
    ASSERT_EQ(rig.flush(), 0);
    ASSERT_TRUE(soon([&] { return rig.backing.counters().writes_in_flight != 0; }));
    std::memcpy(&rig.model[at], staged.data(), page);
    const u64 record = rig.next_record(); // of what will be staged
    rig.media.set_power_model(true);
    rig.set_backing_hook([&](Op op, u64, u64) { // between the first batch and the next
        if (op == Op::flush && reclaim.load() == std::thread::id{}) {
            reclaim = std::this_thread::get_id();
            rig.poison_record(1);
            EXPECT_EQ(rig.map(staged, {PC_WRITE, at, page, 0, 0}), PC_TAKEN);
        }
        return 0;
    });
    rig.world.set_fence_hook([&] {
        u64 begin = 0;
        rig.media.read(record, &begin, sizeof(begin));
        if (begin && (reclaim.load() != std::this_thread::get_id() || rig.read_only()))
            gate.wait();
    });
    std::atomic<bool> stop{false};
    std::thread busy([&] { // else the reclaim worker has what is staged committed, by itself
        while (!stop) {
            (void)rig.read(0, sector);
            std::this_thread::sleep_for(1ms);
        }
    });
    rig.backing.hold_writes(false);
    EXPECT_TRUE(soon([&] { return rig.read_only() && gate.somebody(); })) << rig.status();
    EXPECT_EQ(rig.map(flush, {PC_FLUSH, 0, 0, 0, 0}), PC_TAKEN);
    std::this_thread::sleep_for(50ms);
    EXPECT_FALSE(flush.ended());
    gate.open();
    stop = true;
    busy.join();
    EXPECT_EQ(flush.wait(), 0);
    EXPECT_EQ(staged.wait(), 0);
    const Cut cut = rig.world.cut(rng);
    rig.world.set_fence_hook(nullptr);
    rig.set_backing_hook(nullptr);
    next_life_has(cut, at);
}
#endif

// The same where it waits for a read of the backing device that shall be cached.
TEST_F(Promise, AFlushOnTheWayIntoReadOnlyDoesNotWaitForTheBackingDevice)
{
    thirty_two_clean_records();
    rig.keep_dirty(true);
    rig.write_record(40 * page, page); // record 32
    rig.write_record(41 * page, page); // record 33
    rig.media.set_power_model(true);
    rig.backing.hold_reads(true);
    Bio miss(page);
    ASSERT_EQ(rig.map(miss, {PC_READ, 200 * page, page, 0, 0}), PC_TAKEN);
    rig.media.poison(rig.record_at(33), 64);
    const u64 at = 50 * page;
    rig.write_pattern(at, page);
    rig.poison_data(32, 0);
    Bio bad(page); // asks the log what is dirty
    ASSERT_EQ(rig.map(bad, {PC_READ, 40 * page, page, 0, 0}), PC_TAKEN);
    EXPECT_EQ(bad.wait(), -5);
    ASSERT_TRUE(soon([&] { return rig.read_only(); })) << rig.status();
    const int answer = rig.flush(); // EIO where the log may not go on in that page
    const Cut cut = rig.world.cut(rng);
    EXPECT_FALSE(miss.ended());
    rig.backing.hold_reads(false);
    miss.wait();
    rig.keep_dirty(false);
    if (answer == 0)
        next_life_has(cut, at);
    rig.remove();
    rig.media.cure();
}

// ---- accept_loss, while that way has not ended --------------------------------------------------

namespace
{
class OnTheWay : public Promise
{
protected:
    Bio miss{page};
    int answer = 1;
    std::atomic<bool> done{false};
    std::thread asks;

    // Read-only at run time, on a way that waits for a read of the backing device; and accept_loss.
    void begin()
    {
        for (u64 i = 0; i < 32; i++)
            rig.write_record(i * page, page);
        ASSERT_TRUE(soon([&] { return drained(); })) << rig.status();
        rig.keep_dirty(true);
        rig.write_record(40 * page, page); // record 32
        rig.write_record(41 * page, page); // record 33
        rig.backing.hold_reads(true);
        ASSERT_EQ(rig.map(miss, {PC_READ, 200 * page, page, 0, 0}), PC_TAKEN);
        rig.poison_data(32, 0);
        rig.media.poison(DamageRig::record_at(33), 64);
        Bio bad(page); // asks the log what is dirty
        ASSERT_EQ(rig.map(bad, {PC_READ, 40 * page, page, 0, 0}), PC_TAKEN);
        EXPECT_EQ(bad.wait(), -5);
        ASSERT_TRUE(soon([&] { return rig.read_only(); })) << rig.status();
        std::this_thread::sleep_for(50ms); // write-back has been halted
        rig.keep_dirty(false);
        const u64 writes = rig.backing.counters().writes;
        asks = std::thread([this] {
            answer = rig.message({"accept_loss"});
            done = true;
        });
        std::this_thread::sleep_for(100ms);
        EXPECT_FALSE(done) << answer << ": it did not wait";
        EXPECT_EQ(rig.backing.counters().writes, writes) << "it has begun";
    }
    void end()
    {
        rig.backing.hold_reads(false);
        asks.join();
        miss.wait();
    }
};
} // namespace

TEST_F(OnTheWay, AcceptLossWaitsForItsEndTheSecondTimeToo)
{
    rig.start();
    rig.keep_dirty(true);
    rig.write_record(0, page);
    rig.write_record(page, page);
    rig.stop(false);
    rig.spoil_record(0);
    rig.start();
    ASSERT_TRUE(rig.read_only()) << rig.status();
    rig.keep_dirty(false);
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    begin();
    end();
    EXPECT_EQ(answer, 0) << rig.last_error();
    rig.media.cure();
}

TEST_F(OnTheWay, AcceptLossEndsWhenASuspendBegins)
{
    rig.start();
    begin();
    rig.begin_suspend(false);
    EXPECT_TRUE(soon([&] { return done.load(); }, 2s)) << "it waits for the backing device";
    end();
    EXPECT_EQ(answer, -16);
    rig.end_suspend();
    ASSERT_EQ(rig.resume(), 0);
    EXPECT_TRUE(rig.read_only()) << rig.status();
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    rig.media.cure();
}

// ---- what was given up --------------------------------------------------------------------------

#ifdef PCACHE_SMALL_GEOMETRY
// A new log segment cannot be linked, and whoever could change the state waits for the backing
// device: no FLUSH and no FUA write succeeds behind the keys that were given up.
TEST_F(Promise, BehindKeysThatWereGivenUpNoFlushSucceeds)
{
    rig.start();
    rig.backing.hold_writes(true);
    {
        const OnCpu cpu(1); // this head has tickets from now on
        rig.write_pattern(0, page);
    }
    rig.write_record(0, page);
    ASSERT_TRUE(soon([&] { return rig.backing.counters().writes_in_flight != 0; }));
    rig.media.set_repairable(false);
    rig.media.poison(DamageRig::extension_at(0), 64);
    rig.media.poison(DamageRig::extension_at(1), 64);
    const u64 at = 10 * page;
    int answer = 0;
    for (u32 n = 0; n < 4000 && !answer; n++) {
        (void)rig.try_write(page + n % 4 * 512, Rig::pattern(page, 512, 1000 + n));
        answer = rig.flush();
    }
    EXPECT_EQ(answer, -5);
    EXPECT_TRUE(soon([&] { return rig.status() == "Fail"; })) << rig.status();
    EXPECT_EQ(rig.flush(), -5);
    EXPECT_EQ(rig.try_write(at, Image(page), true), -5);
    EXPECT_TRUE(soon([&] { return rig.world.said("metadata could not be stored"); }));
    rig.backing.hold_writes(false);
    rig.remove();
    rig.media.cure();
}
#endif

// ---- accept_loss and a removal ------------------------------------------------------------------

namespace
{
// A read-only cache; accept_loss is sent by a thread of its own and held at a fence.
struct HeldAcceptLoss {
    DamageRig rig;
    Gate gate;
    std::atomic<u32> fences{0}; // of the sender
    std::atomic<bool> sent{false};
    std::atomic<std::thread::id> id{};
    int answer = 1;
    std::thread sender;

    HeldAcceptLoss()
    {
        rig.keep_dirty(true);
        rig.start();
        for (u32 i = 0; i < 8; i++)
            rig.write_record(i * 8192, page);
        rig.stop(false);
        rig.spoil_record(2);
        rig.model_without({2});
        rig.keep_dirty(false);
        rig.start();
        EXPECT_TRUE(rig.read_only());
    }
    // `here`: asked at each fence of the sender, with its number. False: it has ended.
    bool send_and_hold(std::function<bool(u32)> here)
    {
        rig.world.set_fence_hook([this, here] {
            if (std::this_thread::get_id() == id.load() && here(++fences))
                gate.wait();
        });
        sender = std::thread([this] {
            const OnCpu cpu(3);
            id = std::this_thread::get_id();
            answer = rig.message({"accept_loss"});
            sent = true;
        });
        EXPECT_TRUE(soon([this] { return sent || gate.somebody(); }));
        return !sent;
    }
    void let_go()
    {
        gate.open();
        sender.join();
        rig.world.set_fence_hook(nullptr);
    }
};
} // namespace

// At every fence of steps 3 to 5, while a reader is under way. `dmsetup remove` calls postsuspend
// without waiting for messages.
TEST(AcceptLossAndRemoval, ARemovalWaitsForIt)
{
    u32 busy = 0, done = 0;
    for (u32 nth = 1;; nth += 1 + nth / 2) {
        HeldAcceptLoss h;
        if (!h.send_and_hold([nth](u32 n) { return n == nth; })) {
            h.let_go();
            break;
        }
        pc_target_presuspend(h.rig.target, 0);
        std::atomic<bool> quiet{false};
        Reader reader;
        std::thread remover([&] {
            const OnCpu cpu(4);
            pc_target_postsuspend(h.rig.target);
            quiet = true;
        });
        std::this_thread::sleep_for(5ms);
        reader.leave();
        std::this_thread::sleep_for(5ms);
        EXPECT_FALSE(quiet) << "held at fence " << nth;
        h.let_go();
        remover.join();
        (h.answer ? busy : done)++;
        EXPECT_TRUE(h.answer == 0 || h.answer == -16) << h.answer;
        EXPECT_EQ(h.rig.message({"accept_loss"}), h.answer ? -16 : -22) << "it is suspended";
        h.rig.destroy();
        h.rig.start(); // what it was in the middle of goes on
        h.rig.check("in the next life");
    }
    EXPECT_GE(busy, 2u) << "it ends early when a suspend has begun";
    EXPECT_GE(done, 2u);
}

// Nothing looks at the device any more, whoever asks.
TEST(AcceptLossAndRemoval, BehindTheBeginningOfASuspendItIsRefused)
{
    HeldAcceptLoss h;
    const Image media = h.rig.contents();
    const auto counted = h.rig.backing.counters();
    pc_target_presuspend(h.rig.target, 0);
    EXPECT_EQ(h.rig.message({"accept_loss"}), -16);
    EXPECT_EQ(h.rig.backing.counters().reads, counted.reads);
    pc_target_postsuspend(h.rig.target);
    const u64 reads = h.rig.backing.counters().reads; // the suspend learns the disk
    EXPECT_EQ(h.rig.message({"accept_loss"}), -16);
    EXPECT_TRUE(h.rig.contents() == media);
    EXPECT_EQ(h.rig.backing.counters().reads, reads);
    EXPECT_EQ(h.rig.backing.counters().flushes, counted.flushes);
    ASSERT_EQ(h.rig.resume(), 0);
    pc_target_presuspend(h.rig.target, 1);
    pc_target_presuspend_undo(h.rig.target);
    EXPECT_EQ(h.rig.message({"accept_loss"}), 0) << h.rig.last_error();
    h.rig.check("at last");
}

#ifdef PCACHE_SMALL_GEOMETRY // fills a cache
// A noflush suspend begins while the cache is made anew. Requests that would wait are pushed back,
// as it wants, though the cache runs again.
TEST(AcceptLossAndRemoval, ASuspendThatBeganMeanwhileIsNotTakenBack)
{
    HeldAcceptLoss h;
    ASSERT_TRUE(
        h.send_and_hold([&](u32) { return h.rig.world.said("formatted the cache device anew"); }));
    h.rig.begin_suspend(true);
    h.let_go();
    EXPECT_EQ(h.answer, 0);
    EXPECT_FALSE(h.rig.read_only());
    h.rig.backing.hold_writes(true);
    int error = 0;
    for (u64 i = 0; i < 4096 && !error; i++) {
        Bio bio(Rig::pattern(i % 256 * page, page, 100 + i));
        ASSERT_EQ(h.rig.map(bio, {PC_WRITE, i % 256 * page, page, 0, 0}), PC_TAKEN);
        if (!soon([&] { return bio.ended(); }, 3s)) {
            ADD_FAILURE() << "write " << i << " waits";
            h.rig.backing.hold_writes(false);
        }
        error = bio.wait();
    }
    EXPECT_EQ(error, PC_END_REQUEUE);
    h.rig.backing.hold_writes(false);
    h.rig.end_suspend();
    ASSERT_EQ(h.rig.resume(), 0);
    EXPECT_EQ(h.rig.try_write(0, Image(page)), 0);
    EXPECT_EQ(h.rig.flush(), 0);
    h.rig.remove();
}
#endif

// What is written to it then stays in it: such a suspend asks the backing device for nothing.
TEST(AcceptLossAndRemoval, ACacheThatIsMadeAnewInANoflushSuspendSendsNothing)
{
    HeldAcceptLoss h;
    ASSERT_TRUE(
        h.send_and_hold([&](u32) { return h.rig.world.said("formatted the cache device anew"); }));
    h.rig.begin_suspend(true);
    h.let_go();
    ASSERT_EQ(h.answer, 0);
    const u64 writes = h.rig.backing.counters().writes;
    h.rig.write_pattern(0, page);
    ASSERT_EQ(h.rig.flush(), 0);
    EXPECT_FALSE(soon([&] { return h.rig.backing.counters().writes != writes; }, 500ms));
    h.rig.world.set_noflush(h.rig.table, false);
    pc_target_presuspend_undo(h.rig.target);
    EXPECT_TRUE(soon([&] { return h.rig.backing.image() == h.rig.model; }, 5s)) << "it goes on";
    h.rig.remove();
}

// The cache device is taken away, at fences all along the way.
TEST(AcceptLossAndRemoval, EndsWithTheStepInHandWhenTheDeviceGoes)
{
    for (u32 nth = 1;; nth += 1 + nth / 2) {
        HeldAcceptLoss h;
        const Image media = h.rig.contents_but_disk_record();
        if (!h.send_and_hold([nth](u32 n) { return n == nth; })) {
            h.let_go();
            break;
        }
        const bool rescued = h.rig.world.said("bytes) of dirty data are on the backing device");
        h.rig.media.take_away();
        std::this_thread::sleep_for(5ms);
        h.let_go();
        if (h.answer || !h.rig.world.said("was formatted anew and goes on")) {
            EXPECT_EQ(h.answer, -5) << "fence " << nth; // behind its last step nobody looks
        }
        EXPECT_TRUE(soon([&] { return h.rig.status() == "Fail"; })) << h.rig.status();
        if (!rescued) {
            EXPECT_TRUE(h.rig.contents_but_disk_record() == media) << "fence " << nth;
        }
        EXPECT_EQ(h.rig.message({"accept_loss"}), -22);
    }
}

TEST(AcceptLossAndRemoval, ADeviceThatGoesBehindAnAttemptThatFailedMakesItFailed)
{
    HeldAcceptLoss h;
    ASSERT_TRUE(
        h.send_and_hold([&](u32) { return h.rig.world.said("formatted the cache device anew"); }));
    h.rig.media.set_repairable(false);
    for (u32 i = 0; i < 2; i++)
        h.rig.media.poison(DamageRig::extension_at(i), 64);
    h.let_go();
    EXPECT_EQ(h.answer, -5);
    EXPECT_TRUE(h.rig.read_only()) << h.rig.status();
    h.rig.media.take_away();
    EXPECT_TRUE(soon([&] { return h.rig.status() == "Fail"; }, 3s)) << h.rig.status();
    h.rig.media.cure();
}

// The cache runs again, and the message has not ended. A suspend that begins in that moment must
// not halt write-back, which those wait for whom the suspend waits for. (The same where the message
// is refused, since the cache runs.)
TEST(AcceptLossAndRemoval, ASuspendAtItsVeryEndDoesNotHaltWriteBack)
{
    DamageRig rig;
    one_hole(rig);
    rig.world.set_event_hook([&] { pc_target_presuspend(rig.target, 0); });
    ASSERT_EQ(rig.message({"accept_loss"}), 0) << rig.last_error();
    rig.world.set_event_hook(nullptr);
    rig.write_pattern(100 * page, page);
    ASSERT_EQ(rig.flush(), 0);
    EXPECT_TRUE(soon([&] { return rig.backing.image() == rig.model; }, 5s)) << rig.status();
    pc_target_postsuspend(rig.target);
}
