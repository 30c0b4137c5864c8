// SPDX-License-Identifier: GPL-2.0
// selftests/unit/write_back_test.cpp - write-back and a backing device that fails or is slow: what
// is sent again and what not, how much is in flight, how soon it can be halted. One property a
// test, named after it.
#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <sstream>
#include <thread>
#include <utility>
#include "damage_rig.hpp"
#include "dm-pcache/engine/limits.hpp"
#include "dm-pcache/engine/resend.hpp"

using namespace pcache::selftest;
using namespace std::chrono_literals;
using pcache::engine::Resend;

namespace
{

constexpr u64 page = 4096;
using Clock = std::chrono::steady_clock;

template <class F>
bool soon(F f, std::chrono::milliseconds limit = 10s)
{
    const auto end = Clock::now() + limit;
    while (!f()) {
        if (Clock::now() > end)
            return false;
        std::this_thread::sleep_for(1ms);
    }
    return true;
}

// Fields of STATUS.
enum { key_head = 6, dirty_tail = 7 };
std::string field(Rig &rig, unsigned n)
{
    std::istringstream words(rig.status());
    std::string word;
    for (unsigned i = 0; i <= n; i++)
        words >> word;
    return word;
}
bool drained(Rig &rig)
{
    return field(rig, key_head) == field(rig, dirty_tail);
}

// What the backing device is asked to write, and what it fails.
class Backing
{
    struct Write {
        u64 offset, bytes;
        bool failed;
        Clock::time_point when;
    };
    Rig &rig_;
    mutable std::mutex lock_;
    std::map<u64, u32> to_fail_; // by offset: so often
    u32 flushes_to_fail_ = 0;
    std::vector<Write> writes_;
    std::vector<usize> flushes_; // how many writes came before

public:
    explicit Backing(Rig &rig) : rig_(rig)
    {
        rig.backing.set_hook([this](Op op, u64 offset, u64 bytes) {
            const std::lock_guard<std::mutex> g(lock_);
            if (op == Op::flush) {
                flushes_.push_back(writes_.size());
                if (!flushes_to_fail_)
                    return 0;
                flushes_to_fail_--;
                return -5;
            }
            if (op != Op::write)
                return 0;
            const auto f = to_fail_.find(offset);
            const bool fails = f != to_fail_.end() && f->second != 0;
            if (fails)
                f->second--;
            writes_.push_back({offset, bytes, fails, Clock::now()});
            return fails ? -5 : 0;
        });
    }
    ~Backing() { rig_.backing.set_hook(nullptr); }
    void fail(u64 offset, u32 times)
    {
        const std::lock_guard<std::mutex> g(lock_);
        to_fail_[offset] = times;
    }
    void fail_flushes(u32 times)
    {
        const std::lock_guard<std::mutex> g(lock_);
        flushes_to_fail_ = times;
        flushes_.clear();
    }
    u32 writes(u64 offset) const
    {
        const std::lock_guard<std::mutex> g(lock_);
        return static_cast<u32>(std::count_if(writes_.begin(), writes_.end(),
                                              [&](const Write &w) { return w.offset == offset; }));
    }
    u32 failed() const
    {
        const std::lock_guard<std::mutex> g(lock_);
        return static_cast<u32>(
            std::count_if(writes_.begin(), writes_.end(), [](const Write &w) { return w.failed; }));
    }
    // Between the n-th and the next write of an offset, from 0.
    std::chrono::milliseconds pause(u64 offset, u32 n) const
    {
        const std::lock_guard<std::mutex> g(lock_);
        std::vector<Clock::time_point> t;
        for (const Write &w : writes_)
            if (w.offset == offset)
                t.push_back(w.when);
        return t.size() > n + 1
                   ? std::chrono::duration_cast<std::chrono::milliseconds>(t[n + 1] - t[n])
                   : 0ms;
    }
    // FLUSHes between the first and the last write of an offset.
    u32 flushes_between(u64 offset) const
    {
        const std::lock_guard<std::mutex> g(lock_);
        const auto here = [&](const Write &w) { return w.offset == offset; };
        const auto first = std::find_if(writes_.begin(), writes_.end(), here);
        const auto last = std::find_if(writes_.rbegin(), writes_.rend(), here).base();
        return static_cast<u32>(std::count_if(flushes_.begin(), flushes_.end(), [&](usize n) {
            const auto at = writes_.begin() + static_cast<std::ptrdiff_t>(n);
            return at > first && at < last;
        }));
    }
};

// n writes of `bytes` each, two pages apart, in one epoch.
void write_apart(Rig &rig, u32 n, u32 bytes)
{
    for (u64 i = 0; i < n; i++)
        rig.write_pattern(i * 2 * bytes, bytes);
    ASSERT_EQ(rig.flush(), 0);
}

} // namespace

// ---- what is sent again
// -------------------------------------------------------------------------

TEST(WriteBack, AWriteThatFailsIsSentAgainAloneAndLaterEachTime)
{
    DamageRig rig(32);
    rig.start();
    Backing backing(rig);
    backing.fail(4 * page, 2);
    write_apart(rig, 6, page);
    ASSERT_TRUE(soon([&] { return drained(rig); })) << rig.status();
    for (u64 i = 0; i < 6; i++)
        EXPECT_EQ(backing.writes(i * 2 * page), i == 2 ? 3u : 1u) << "write " << i;
    EXPECT_EQ(backing.flushes_between(4 * page), 0u) << "in front of the last of them";
    EXPECT_GE(backing.pause(4 * page, 0), 90ms);
    EXPECT_GE(backing.pause(4 * page, 1), 190ms);
    EXPECT_TRUE(rig.backing.image() == rig.model);
    EXPECT_TRUE(soon([&] { return rig.world.said("works again"); }));
}

TEST(WriteBack, AWriteThatFailsKeepsDirtyTailWhereItIs)
{
    DamageRig rig(32);
    rig.start();
    Backing backing(rig);
    backing.fail(4 * page, 1000);
    const std::string before = field(rig, dirty_tail);
    write_apart(rig, 6, page);
    ASSERT_TRUE(soon([&] { return backing.failed() >= 2; }));
    EXPECT_EQ(field(rig, dirty_tail), before);
    rig.remove();
    backing.fail(4 * page, 0);
    rig.start();
    rig.check("in the next life");
    ASSERT_TRUE(soon([&] { return drained(rig); })) << rig.status();
    EXPECT_TRUE(rig.backing.image() == rig.model);
    rig.remove();
}

// Nobody knows what a volatile cache has kept.
TEST(WriteBack, AFlushThatFailsMakesAllSinceTheLastGoodOneGoAgain)
{
    DamageRig rig(32);
    rig.start();
    Backing backing(rig);
    backing.fail(4 * page, 1);
    backing.fail_flushes(1);
    write_apart(rig, 6, page);
    ASSERT_TRUE(soon([&] { return drained(rig); })) << rig.status();
    for (u64 i = 0; i < 6; i++)
        EXPECT_EQ(backing.writes(i * 2 * page), i == 2 ? 3u : 2u) << "write " << i;
    EXPECT_TRUE(rig.backing.image() == rig.model);
}

// More than are remembered one by one; those of the second attempt fail as well.
TEST(WriteBack, VeryManyWritesThatFailArriveAllTheSame)
{
    DamageRig rig(64);
    rig.start();
    Backing backing(rig);
    constexpr u32 n = 900;
    static_assert(n > 3 * Resend::most);
    for (u64 i = 0; i < n; i++)
        backing.fail(i * 2 * sector, 1 + i % 2);
    write_apart(rig, n, sector);
    ASSERT_TRUE(soon([&] { return drained(rig); }, 15s)) << rig.status();
    EXPECT_TRUE(rig.backing.image() == rig.model);
}

// As many as are remembered one by one, and no other: what was left for the next attempt begins
// with the first write that was not sent.
TEST(WriteBack, WhatIsNotSentBehindAsManyFailuresAsAreRememberedArrives)
{
    DamageRig rig(64);
    rig.start();
    Backing backing(rig);
    constexpr u32 n = 900;
    for (u64 i = 0; i < Resend::most; i++)
        backing.fail(i * 2 * sector, 1);
    write_apart(rig, n, sector);
    ASSERT_TRUE(soon([&] { return drained(rig); }, 15s)) << rig.status();
    for (u64 i = 0; i < n; i++)
        EXPECT_NE(backing.writes(i * 2 * sector), 0u) << "write " << i;
    EXPECT_TRUE(rig.backing.image() == rig.model);
}

// What was written meanwhile is newer, and stays so.
TEST(WriteBack, ANewerWriteOverARangeThatFailedLandsBehindIt)
{
    DamageRig rig(32);
    rig.start();
    Backing backing(rig);
    backing.fail(4 * page, 2);
    write_apart(rig, 6, page);
    ASSERT_TRUE(soon([&] { return backing.failed() >= 1; }));
    rig.write_pattern(4 * page, page);
    ASSERT_EQ(rig.flush(), 0);
    rig.check("while the older one waits");
    ASSERT_TRUE(soon([&] { return drained(rig); })) << rig.status();
    EXPECT_TRUE(rig.backing.image() == rig.model);
}

// ---- while an attempt is waited for
// -------------------------------------------------------------

TEST(WriteBack, ASuspendBetweenTwoAttemptsDoesNotWaitForTheNextOne)
{
    for (const bool noflush : {true, false}) {
        DamageRig rig(32);
        rig.start();
        Backing backing(rig);
        backing.fail(4 * page, 3); // the fourth attempt is 700 ms behind the first
        write_apart(rig, 6, page);
        ASSERT_TRUE(soon([&] { return backing.failed() >= 3; }));
        const auto begin = Clock::now();
        rig.suspend(noflush);
        EXPECT_LT(Clock::now() - begin, 300ms);
        const u32 sent = backing.writes(0);
        ASSERT_EQ(rig.resume(), 0);
        ASSERT_TRUE(soon([&] { return drained(rig); })) << rig.status();
        EXPECT_GT(backing.writes(0), sent) << "who knows what was done while it was suspended";
        EXPECT_TRUE(rig.backing.image() == rig.model);
        rig.remove();
    }
}

// It was read when the batch was gathered; the next batch meets what cannot be read.
TEST(WriteBack, TheBatchInHandIsSentOutWhateverHappensToTheLogMeanwhile)
{
    DamageRig rig(32);
    rig.start();
    Backing backing(rig);
    backing.fail(0, 2);
    for (u64 i = 0; i < 6; i++)
        rig.write_record(i * 2 * page, page);
    ASSERT_TRUE(soon([&] { return backing.failed() >= 1; }));
    rig.poison_record(0);
    rig.poison_record(1);
    ASSERT_TRUE(soon([&] { return rig.read_only(); })) << rig.status();
    EXPECT_EQ(backing.writes(0), 3u);
    EXPECT_NE(field(rig, dirty_tail), "0:0");
    EXPECT_EQ(backing.writes(2 * page), 0u);
    rig.remove();
    rig.media.cure();
}

// Halted right behind the gathering, and let go in front of the n-th spinlock from there: when it
// has seen that it is halted, or before. Nothing was in flight that could tell.
void halt_behind_gathering(u32 n)
{
    DamageRig rig(32);
    static thread_local bool sends; // the thread that has FLUSHed is the one that will gather
    std::atomic<bool> undone{false};
    rig.start();
    rig.keep_dirty(true);
    rig.write_record(0, page);
    rig.write_record(8 * page, page);
    rig.write_record(16 * page, page);
    rig.set_backing_hook([&](Op op, u64, u64) {
        sends |= op == Op::flush;
        return 0;
    });
    rig.world.set_yield_hook([&] {
        if (std::exchange(sends, false) && !undone)
            World::at_mutex(1, [&] {
                pc_target_presuspend(rig.target, 1);
                World::at_lock(n, [&] {
                    pc_target_presuspend_undo(rig.target);
                    undone = true;
                });
            });
    });
    rig.keep_dirty(false);
    EXPECT_TRUE(soon([&] { return undone.load(); }));
    rig.world.set_yield_hook(nullptr);
    rig.set_backing_hook(nullptr);
    EXPECT_TRUE(soon([&] { return drained(rig); })) << rig.status();
    EXPECT_TRUE(rig.backing.image() == rig.model) << "let go at lock " << n;
    rig.remove();
}

TEST(WriteBack, WhatIsHaltedBetweenGatheringAndSendingIsSentLater)
{
    for (u32 n = 1; n <= 2 && !HasFailure(); n++) // of the range lock: taken, given back
        halt_behind_gathering(n);
}

#ifdef PCACHE_SMALL_GEOMETRY // some hundred records; the bounds are smaller than the platform's
// ---- how much, how long
// -----------------------------------------------------------------------------

TEST(WriteBack, WhatIsInFlightIsBoundedInBytesAndSoIsEachWrite)
{
    using namespace pcache::engine;
    DamageRig rig(64);
    rig.start();
    rig.backing.hold_writes(true);
    rig.write_pattern(0, rig.model.size() / 2);
    ASSERT_EQ(rig.flush(), 0);
    ASSERT_TRUE(soon([&] { return rig.backing.counters().writes_in_flight >= 4; }));
    std::this_thread::sleep_for(100ms);
    u64 all = 0;
    for (const auto &w : rig.backing.unflushed()) {
        EXPECT_LE(w.bytes, bytes_per_write);
        all += w.bytes;
    }
    EXPECT_LE(all, bytes_in_flight);
    EXPECT_GE(all, bytes_in_flight / 2) << "nothing is in the way of more";
    std::thread later([&] {
        std::this_thread::sleep_for(50ms);
        rig.backing.hold_writes(false);
    });
    const u64 sent = rig.backing.counters().writes;
    rig.suspend(true);
    later.join();
    EXPECT_LE(rig.backing.counters().writes, sent + bytes_in_flight / bytes_per_write)
        << "more than what was in flight";
    ASSERT_EQ(rig.resume(), 0);
    ASSERT_TRUE(soon([&] { return drained(rig); })) << rig.status();
    EXPECT_TRUE(rig.backing.image() == rig.model);
}

// A thread that has yielded so often without a break gathers: it is halted there and then.
TEST(WriteBack, ABatchThatIsBeingGatheredIsGivenUpWhenItIsHalted)
{
    DamageRig rig(64);
    rig.start();
    rig.backing.hold_writes(true);
    rig.write_pattern(rig.model.size() - page, page); // a batch that keeps write-back busy
    ASSERT_EQ(rig.flush(), 0);
    ASSERT_TRUE(soon([&] { return rig.backing.counters().writes_in_flight == 1; }));
    for (u64 i = 0; i < 900; i++) // one epoch, in more than a hundred records
        rig.write_pattern(i % 100 * page, sector);
    ASSERT_EQ(rig.flush(), 0);
    std::atomic<u32> behind{0};
    std::atomic<bool> halted{false};
    static thread_local u32 in_a_row;
    static thread_local bool gathers;
    rig.world.set_yield_hook([&] {
        if (!halted && ++in_a_row == 10) {
            gathers = true;
            pc_target_presuspend(rig.target, 1);
            halted = true;
        } else if (gathers) {
            behind++;
        }
    });
    rig.backing.hold_writes(false);
    EXPECT_TRUE(soon([&] { return halted.load(); }));
    pc_target_postsuspend(rig.target);
    rig.world.set_yield_hook(nullptr);
    EXPECT_LE(behind, 4u) << "records read after it was halted";
    ASSERT_EQ(rig.resume(), 0);
    ASSERT_TRUE(soon([&] { return drained(rig); })) << rig.status();
}
#endif

// ---- what cannot be read right behind the FLUSH
// -------------------------------------------------

// In front of the very lock under which dirty tail moves. What stands behind the batch is lost as
// ever.
TEST(WriteBack, WhatABatchHasFlushedIsCleanThoughDirtyTailHasNotPassedItYet)
{
    DamageRig rig(32);
    std::atomic<bool> armed{false};
    int of_the_batch = 1, behind_it = 1;
    const auto read = [&](u64 offset) {
        Bio bio(page);
        const pc_verdict v = rig.map(bio, {PC_READ, offset, page, 0, 0});
        if (v != PC_TAKEN)
            return -1000;
        const int e = bio.wait();
        return e ? e : std::memcmp(bio.data(), &rig.model[offset], page) ? -2000 : 0;
    };
    rig.start();
    rig.keep_dirty(true);
    rig.write_record(0, page);
    rig.write_record(8 * page, page);
    rig.set_backing_hook([&](Op op, u64, u64) {
        if (op == Op::flush && !armed.exchange(true))
            World::at_mutex(1, [&] {
                rig.poison_data(0, 0);
                rig.poison_data(1, 0);
                of_the_batch = read(0);
                behind_it = read(8 * page);
            });
        return 0;
    });
    rig.keep_dirty(false);
    ASSERT_TRUE(soon([&] { return armed && field(rig, dirty_tail) != "0:0"; })) << rig.status();
    EXPECT_EQ(of_the_batch, 0) << "the backing device has it";
    EXPECT_EQ(behind_it, -5);
    EXPECT_EQ(read(8 * page), -5);
    rig.set_backing_hook(nullptr);
    rig.remove();
    rig.start();
    EXPECT_TRUE(rig.read(0, page) == Rig::pattern(0, page, rig.version_of(0)));
    EXPECT_EQ(read(8 * page), -5) << "in the next life";
    rig.remove();
    rig.media.cure();
}

// ---- the set of ranges
// -----------------------------------------------------------------------------

TEST(ResendTest, GivesBackWhatWasAddedAndBeyondItsRoomTheRest)
{
    std::mt19937_64 rng(5);
    for (int round = 0; round < 50; round++) {
        const u64 space = 4000;
        std::vector<bool> wanted(space);
        Resend r;
        EXPECT_TRUE(r.empty());
        std::vector<std::pair<u64, u64>> ranges;
        for (u64 at = rng() % 20; at + 20 < space; at += 1 + rng() % (round % 2 ? 6 : 300)) {
            const u64 end = at + 1 + rng() % 5;
            ranges.push_back({at, end});
            at = end;
        }
        std::shuffle(ranges.begin(), ranges.end(), rng);
        for (auto [first, end] : ranges) {
            const bool all = r.full();
            r.add(first, end);
            std::fill(wanted.begin() + static_cast<long>(first),
                      all ? wanted.end() : wanted.begin() + static_cast<long>(end), true);
        }
        r.sort();
        std::vector<bool> got(space);
        for (u64 from = 0; from < space;) {
            const u64 to = std::min(space, from + 1 + rng() % 50);
            for (u64 first = from, end = to; r.next(first, end); first = end, end = to) {
                ASSERT_LT(first, end);
                ASSERT_LE(end, to);
                for (u64 s = first; s < end; s++) {
                    ASSERT_FALSE(got[s]) << "twice";
                    got[s] = true;
                }
            }
            from = to;
        }
        ASSERT_TRUE(got == wanted) << "round " << round;
    }
}
