// SPDX-License-Identifier: GPL-2.0
// Tests of read misses on their way into the cache: what is cached, what must not be, and who waits
// for whom. One property a test, named after it.
#include "rig.hpp"
#include <atomic>
#include <mutex>
#include <thread>

using namespace pcache::selftest;
using pcache::format::geometry;
using namespace std::chrono_literals;

namespace
{
constexpr u64 page = 4096;
constexpr u64 range = geometry.range_bytes;
constexpr unsigned pool_pages = small_world ? 64 : 256; // engine/limits.hpp

// A cache whose backing device is full of old data: sector and version 1.
class Misses : public Rig
{
public:
    explicit Misses(u32 segments = small_world ? 16 : geometry.min_segments,
                    u64 backing_bytes = 4u << 20)
        : Rig(segments, backing_bytes)
    {
        model = pattern(0, model.size(), ++version);
        backing.load(model);
    }
    u64 reads() const { return backing.counters().reads; }
    // A read that is answered in its own time. False: it was sent on to the backing device.
    bool ask(Bio &bio, u64 offset)
    {
        return map(bio, {PC_READ, offset, bio.size(), 0, 0}) == PC_TAKEN;
    }
    // How the read of a range is answered once no fill of it is in flight any more (one that is
    // makes a second read go to the backing device by itself). Checks what it reads.
    enum Answer { hit, miss, sent_on };
    Answer answer(u64 offset, u64 bytes)
    {
        for (int i = 0; i < 2000; i++) {
            Bio bio(static_cast<u32>(bytes));
            const u64 before = reads();
            if (ask(bio, offset)) {
                EXPECT_EQ(bio.wait(), 0);
                EXPECT_EQ(std::memcmp(bio.data(), &model[offset], bio.size()), 0)
                    << "offset " << offset << " is " << tag(bio.data()) << ", must be "
                    << tag(&model[offset]);
                return reads() == before ? hit : miss;
            }
            std::this_thread::sleep_for(1ms);
        }
        return sent_on;
    }
    // Reads are carried out from here on, and not completed: n of them were.
    bool wait_for_held(u64 n)
    {
        for (int i = 0; i < 5000 && backing.counters().reads_held != n; i++)
            std::this_thread::sleep_for(1ms);
        return backing.counters().reads_held == n;
    }
    bool wait_for_status(bool (*holds)(const std::vector<std::string> &))
    {
        for (int i = 0; i < 1000; i++) {
            std::vector<std::string> f;
            const std::string s = status();
            for (size_t at = 0; at < s.size();) {
                const size_t end = std::min(s.find(' ', at), s.size());
                f.push_back(s.substr(at, end - at));
                at = end + 1;
            }
            if (f.size() == 9 && holds(f))
                return true;
            std::this_thread::sleep_for(10ms);
        }
        return false;
    }
    bool written_back()
    {
        return wait_for_status([](const std::vector<std::string> &f) { return f[6] == f[7]; });
    }
    bool evicted()
    {
        return wait_for_status([](const std::vector<std::string> &f) { return f[6] == f[8]; });
    }
};
} // namespace

TEST(Fills, AMissIsReadOnceAndIsAHitFromThenOn)
{
    Misses rig;
    rig.start();
    const u64 sizes[] = {512, page, 2 * page + 512, 11 * 512, std::min<u64>(range / 2, 256u << 10)};
    u64 at = 0;
    for (const u64 bytes : sizes) {
        EXPECT_EQ(rig.answer(at, bytes), Misses::miss) << bytes << " bytes";
        EXPECT_EQ(rig.answer(at, bytes), Misses::hit) << bytes << " bytes";
        EXPECT_EQ(rig.answer(at + bytes - 512, 512), Misses::hit) << bytes << " bytes";
        at += 256u << 10;
    }
    rig.check("afterwards");
}

#ifndef PCACHE_SMALL_GEOMETRY // ranges are too small there
TEST(Fills, ALongMissIsCutIntoFills)
{
    Misses rig;
    rig.start();
    Bio bio(1u << 20);
    ASSERT_TRUE(rig.ask(bio, 0));
    EXPECT_EQ(bio.wait(), 0);
    EXPECT_EQ(bio.size(), 256u << 10);
    for (u64 at = 256u << 10; at < 1u << 20; at += 256u << 10)
        EXPECT_EQ(rig.answer(at, 256u << 10), Misses::miss);
    for (u64 at = 0; at < 1u << 20; at += 256u << 10)
        EXPECT_EQ(rig.answer(at, 256u << 10), Misses::hit);
}
#endif

TEST(Fills, OnlyWhatMissesIsReadFromTheBackingDevice)
{
    Misses rig;
    rig.start();
    rig.write_pattern(2 * page, page);
    rig.write_pattern(4 * page + 512, 512);
    const u64 before = rig.backing.counters().read_bytes;
    EXPECT_EQ(rig.read(0, 8 * page), Image(rig.model.begin(), rig.model.begin() + 8 * page));
    EXPECT_EQ(rig.backing.counters().read_bytes - before, 7 * page - 512);
    for (u64 at : {u64{0}, 3 * page, 4 * page + 1024})
        EXPECT_EQ(rig.answer(at, 512), Misses::hit) << "at " << at;
    rig.check("afterwards");
}

TEST(Fills, WhatIsCachedIsCleanAndNeverWrittenBack)
{
    Misses rig;
    rig.start();
    EXPECT_EQ(rig.answer(0, 4 * page), Misses::miss);
    EXPECT_EQ(rig.answer(0, 4 * page), Misses::hit);
    ASSERT_EQ(rig.flush(), 0);
    ASSERT_TRUE(rig.written_back()) << "dirty tail stands in front of clean keys: " << rig.status();
    EXPECT_EQ(rig.backing.counters().writes, 0u);
}

TEST(Fills, WhatIsCachedIsCachedInTheNextLifeToo)
{
    Misses rig;
    rig.start();
    EXPECT_EQ(rig.answer(page, 4 * page), Misses::miss);
    EXPECT_EQ(rig.answer(page, 4 * page), Misses::hit);
    rig.remove();
    rig.world.clear_log();
    rig.start();
    EXPECT_TRUE(rig.world.said("recovered 1 keys (0 dirty)"));
    EXPECT_EQ(rig.answer(page, 4 * page), Misses::hit);
    rig.check("in the next life");
}

// ---- a write while a fill is under way ----------------------------------------------------------

TEST(Fills, AWriteWhileTheReadIsInFlightCancelsTheFill)
{
    Misses rig;
    rig.start();
    rig.backing.hold_reads(true);
    Bio bio(8 * page);
    ASSERT_TRUE(rig.ask(bio, 0));
    ASSERT_TRUE(rig.wait_for_held(1));
    rig.write_pattern(3 * page, 512);
    rig.backing.hold_reads(false);
    EXPECT_EQ(bio.wait(), 0) << "it is answered all the same";
    EXPECT_EQ(rig.answer(3 * page, 512), Misses::hit);
    EXPECT_EQ(rig.answer(0, 3 * page), Misses::miss) << "a cancelled fill was inserted";
    rig.check("afterwards");
}

// The write goes between the answer and the insert: that is where the end of the bio is told.
TEST(Fills, AWriteBetweenTheAnswerAndTheInsertCancelsTheFill)
{
    Misses rig;
    rig.start();
    Bio bio(8 * page);
    bio.on_end([&](int) { rig.write_pattern(3 * page, 512); });
    ASSERT_TRUE(rig.ask(bio, 0));
    EXPECT_EQ(bio.wait(), 0);
    while (rig.version < 2)
        std::this_thread::yield();
    EXPECT_EQ(rig.answer(0, 3 * page), Misses::miss) << "a cancelled fill was inserted";
    EXPECT_EQ(rig.answer(3 * page, 512), Misses::hit);
    rig.check("afterwards");
}

TEST(Fills, AWriteBesideTheRangeCancelsNothing)
{
    Misses rig;
    rig.start();
    rig.backing.hold_reads(true);
    Bio bio(page);
    ASSERT_TRUE(rig.ask(bio, page));
    ASSERT_TRUE(rig.wait_for_held(1));
    rig.write_pattern(0, page);
    rig.write_pattern(2 * page, page);
    rig.backing.hold_reads(false);
    EXPECT_EQ(bio.wait(), 0);
    EXPECT_EQ(rig.answer(page, page), Misses::hit);
}

TEST(Fills, AWriteBehindTheInsertOverridesIt)
{
    Misses rig;
    std::mt19937_64 rng(6);
    rig.media.set_power_model(small_world);
    rig.backing.set_write_cache(true);
    rig.start();
    EXPECT_EQ(rig.answer(0, 8 * page), Misses::miss);
    EXPECT_EQ(rig.answer(0, 8 * page), Misses::hit);
    rig.write_pattern(3 * page, page);
    rig.check("at once");
    ASSERT_EQ(rig.flush(), 0);
    rig.power_cut(rng);
    rig.start();
    rig.check("after a cut: the CLEAN key came back over the newer one");
}

#ifdef PCACHE_SMALL_GEOMETRY // eviction takes a whole cache
// A slow read: meanwhile its range was written, written back and evicted, and looks untouched.
TEST(Fills, AFillThatIsOlderThanAnEvictedWriteIsNotInserted)
{
    Misses rig;
    rig.start();
    ASSERT_EQ(rig.message({"gc_percent", "0"}), 0);
    rig.backing.hold_reads(true);
    Bio bio(page);
    ASSERT_TRUE(rig.ask(bio, 0));
    ASSERT_TRUE(rig.wait_for_held(1));
    rig.write_pattern(0, page);
    ASSERT_EQ(rig.flush(), 0);
    ASSERT_TRUE(rig.written_back()) << rig.status();
    // A new segment for the data head, so that the old one can be emptied; then all is evicted.
    for (u64 i = 1; i < 16; i++)
        rig.write_pattern(i * page, page);
    ASSERT_EQ(rig.flush(), 0);
    ASSERT_TRUE(rig.evicted()) << rig.status();
    Bio again(page);
    ASSERT_FALSE(rig.ask(again, 0)) << "the range is cached: this test shows nothing";
    rig.backing.hold_reads(false);
    EXPECT_EQ(bio.wait(), 0);
    EXPECT_EQ(rig.answer(0, page), Misses::miss) << "an outdated fill was inserted";
    rig.check("afterwards");
}

// Clean keys alone fill the cache: dirty tail has to move over them, though nothing is dirty.
TEST(Fills, ReadsOfMoreThanTheCacheHoldsGoOnBeingCached)
{
    Misses rig(geometry.min_segments);
    rig.start();
    const u64 cache = u64{geometry.min_segments} * pcache::format::data_bytes;
    ASSERT_GT(rig.model.size(), 3 * cache);
    for (u64 at = 0; at < 3 * cache; at += 4 * page)
        ASSERT_NE(rig.answer(at, 4 * page), Misses::sent_on) << "no room for 2 s, at " << at;
    for (u64 at = 3 * cache; at < 3 * cache + 16 * page; at += 4 * page) {
        Misses::Answer a = Misses::miss;
        for (int i = 0; i < 100 && a != Misses::hit; i++)
            a = rig.answer(at, 4 * page);
        EXPECT_EQ(a, Misses::hit) << "a full cache takes nothing new";
    }
    rig.check("afterwards");
}

TEST(Fills, NothingIsCachedWhileWritesWaitForSpace)
{
    Misses rig(geometry.min_segments);
    rig.start();
    rig.backing.hold_writes(true);
    std::vector<std::unique_ptr<Bio>> writes;
    for (u64 i = 0; i < 32; i++) {
        const Image d = Rig::pattern(i * range, range, ++rig.version);
        std::memcpy(&rig.model[i * range], d.data(), range);
        writes.push_back(std::make_unique<Bio>(d));
        ASSERT_EQ(rig.map(*writes.back(), {PC_WRITE, i * range, static_cast<u32>(range), 0, 0}),
                  PC_TAKEN);
    }
    ASSERT_FALSE(writes.back()->ended()) << "nobody waits: this test shows nothing";
    const u64 before = rig.reads();
    Bio bio(page);
    EXPECT_FALSE(rig.ask(bio, 40 * range)) << "a fill took what writes wait for";
    EXPECT_EQ(rig.reads(), before);
    rig.backing.hold_writes(false);
    for (auto &w : writes)
        EXPECT_EQ(w->wait(), 0);
    rig.check("afterwards");
}
#endif

// ---- what goes wrong ----------------------------------------------------------------------------

TEST(Fills, AFailedReadFailsThatRequestAloneAndIsNotCached)
{
    Misses rig;
    rig.start();
    rig.backing.hold_reads(true);
    Bio first(page), second(page);
    rig.backing.fail(Op::read, 1);
    ASSERT_TRUE(rig.ask(first, 0));
    ASSERT_TRUE(rig.wait_for_held(1));
    ASSERT_TRUE(rig.ask(second, page));
    ASSERT_TRUE(rig.wait_for_held(2));
    rig.backing.hold_reads(false);
    EXPECT_EQ(first.wait(), -5);
    EXPECT_EQ(second.wait(), 0);
    EXPECT_EQ(rig.answer(0, page), Misses::miss) << "what could not be read was cached";
    EXPECT_EQ(rig.answer(page, page), Misses::hit);
    EXPECT_EQ(rig.status().find("Fail"), std::string::npos);
}

TEST(Fills, WithoutMemoryAMissGoesToTheBackingDevice)
{
    Misses rig;
    rig.start();
    Memory::fail_nowait(true);
    Bio bio(page);
    EXPECT_FALSE(rig.ask(bio, 0));
    Memory::fail_nowait(false);
    EXPECT_EQ(rig.answer(0, page), Misses::miss) << "its entry was left behind";
    EXPECT_EQ(rig.answer(0, page), Misses::hit);
}

TEST(Fills, WithoutABufferAMissGoesToTheBackingDevice)
{
    Misses rig;
    rig.start();
    rig.backing.hold_reads(true);
    std::vector<std::unique_ptr<Bio>> bios;
    for (u64 i = 0; i + 2 < pool_pages; i++) {
        bios.push_back(std::make_unique<Bio>(page));
        ASSERT_TRUE(rig.ask(*bios.back(), 2 * i * page)) << i;
    }
    Bio large(3 * page), fits(2 * page), small(512);
    EXPECT_FALSE(rig.ask(large, 900 * page)) << "cut to what there is";
    EXPECT_FALSE(large.cut_short());
    EXPECT_TRUE(rig.ask(fits, 900 * page));
    EXPECT_FALSE(rig.ask(small, 904 * page));
    ASSERT_TRUE(rig.wait_for_held(pool_pages - 1));
    rig.backing.hold_reads(false);
    for (u64 i = 0; i + 2 < pool_pages; i++) {
        EXPECT_EQ(bios[i]->wait(), 0);
        EXPECT_EQ(std::memcmp(bios[i]->data(), &rig.model[2 * i * page], page), 0) << i;
    }
    EXPECT_EQ(fits.wait(), 0);
    // All of it came back.
    rig.check("afterwards");
    EXPECT_NE(rig.answer(1000 * page, page), Misses::sent_on);
}

TEST(Fills, OfTwoReadsOfOneRangeOneFills)
{
    Misses rig;
    rig.start();
    rig.backing.hold_reads(true);
    Bio first(4 * page), second(4 * page), beside(page);
    ASSERT_TRUE(rig.ask(first, 0));
    EXPECT_FALSE(rig.ask(second, 2 * page));
    EXPECT_FALSE(second.cut_short());
    EXPECT_TRUE(rig.ask(beside, 4 * page));
    ASSERT_TRUE(rig.wait_for_held(2));
    rig.backing.hold_reads(false);
    EXPECT_EQ(first.wait(), 0);
    EXPECT_EQ(beside.wait(), 0);
    EXPECT_EQ(rig.answer(0, 5 * page), Misses::hit);
}

// The pages of a request are its owner's: he writes to them while the read is in flight, and as
// soon as it has ended.
TEST(Fills, ScribblingOnTheBufferDoesNotReachTheCache)
{
    Misses rig;
    rig.start();
    rig.backing.hold_reads(true);
    Bio bio(4 * page);
    bio.on_end([&](int) { std::memset(bio.data(), 0xEE, 4 * page); });
    ASSERT_TRUE(rig.ask(bio, 0));
    ASSERT_TRUE(rig.wait_for_held(1));
    std::memset(bio.data(), 0xDD, 4 * page);
    rig.backing.hold_reads(false);
    EXPECT_EQ(bio.wait(), 0);
    EXPECT_EQ(rig.answer(0, 4 * page), Misses::hit); // it compares
}

// ---- cuts, suspend, removal ---------------------------------------------------------------------

#ifdef PCACHE_SMALL_GEOMETRY
TEST(Fills, APowerCutAtAnyFenceOfAFillLeavesNoOldData)
{
    std::mt19937_64 rng(12);
    std::vector<Cut> cuts;
    std::mutex lock; // of the two above: workers fence, too
    Image model;
    {
        Misses rig;
        rig.media.set_power_model(true);
        rig.backing.set_write_cache(true);
        rig.start();
        rig.write_pattern(page, page);
        ASSERT_EQ(rig.flush(), 0);
        model = rig.model;
        rig.world.set_fence_hook([&] {
            const std::lock_guard<std::mutex> g(lock);
            cuts.push_back(rig.world.cut(rng));
        });
        for (u64 at : {u64{0}, 2 * page, 5 * page}) {
            Bio bio(page);
            ASSERT_TRUE(rig.ask(bio, at));
            ASSERT_EQ(bio.wait(), 0);
            EXPECT_EQ(rig.answer(at, page), Misses::hit);
        }
        ASSERT_EQ(rig.flush(), 0);
        rig.remove();
        rig.world.set_fence_hook(nullptr);
    }
    ASSERT_GE(cuts.size(), 4u) << "data of three fills, and a record";
    for (Cut &c : cuts) {
        Misses rig;
        rig.media.load(c.media[0]);
        rig.backing.load(c.backings[0]);
        rig.model = model;
        rig.start();
        rig.check("after a cut");
    }
}
#endif

TEST(Fills, ASuspendWaitsForFillsInFlightAndTheyAreAnswered)
{
    Misses rig;
    rig.start();
    rig.backing.hold_reads(true);
    Bio bio(page);
    ASSERT_TRUE(rig.ask(bio, 0));
    ASSERT_TRUE(rig.wait_for_held(1));
    std::atomic<bool> suspended{false};
    std::thread t([&] {
        rig.suspend();
        suspended = true;
    });
    std::this_thread::sleep_for(50ms);
    EXPECT_FALSE(suspended) << "a read is in flight that the engine made";
    rig.backing.hold_reads(false);
    t.join();
    EXPECT_TRUE(bio.ended());
    EXPECT_EQ(bio.wait(), 0);
    const auto before = rig.backing.counters();
    std::this_thread::sleep_for(20ms);
    EXPECT_EQ(rig.backing.counters().reads, before.reads) << "the backing device was touched";
    ASSERT_EQ(rig.resume(), 0);
    rig.check("after a resume");
}

// The bios have ended, their inserts perhaps not.
TEST(Fills, SuspendRightBehindTheAnswersLosesNothingAndLeavesNothing)
{
    Misses rig;
    rig.start();
    for (u64 round = 0; round < 30; round++) {
        std::vector<std::unique_ptr<Bio>> bios;
        for (u64 i = 0; i < 8; i++) {
            bios.push_back(std::make_unique<Bio>(page));
            if (!rig.ask(*bios.back(), (round * 8 + i) * page))
                bios.pop_back();
        }
        for (auto &b : bios)
            EXPECT_EQ(b->wait(), 0);
        rig.suspend();
        ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    }
    rig.check("at last");
    rig.remove();
    rig.start();
    rig.check("in the next life");
}

TEST(Fills, RemovalRightBehindTheAnswersLeavesNothing)
{
    Misses rig;
    for (u64 round = 0; round < (small_world ? 10 : 2); round++) {
        rig.start();
        for (u64 i = 0; i < 8; i++) {
            Bio bio(page);
            if (rig.ask(bio, (round * 8 + i) * page)) {
                EXPECT_EQ(bio.wait(), 0);
            }
        }
        rig.remove();
    }
    rig.start();
    rig.check("at last");
}

// ---- many at once -------------------------------------------------------------------------------

// Writers raise the version of their blocks one by one; a reader must never see an older one than
// was complete when it began, while a small cache evicts all the time.
TEST(Fills, ReadersNeverSeeOlderDataThanWasWrittenBeforeTheyBegan)
{
    Misses rig(geometry.min_segments, 2u << 20);
    rig.start();
    ASSERT_EQ(rig.message({"gc_percent", "0"}), 0);
    constexpr u64 blocks = 32;
    const u64 stride = rig.model.size() / blocks / page * page;
    std::atomic<u64> done[blocks] = {};
    std::atomic<bool> stop{false};
    std::vector<std::thread> all;
    for (unsigned t = 0; t < 2; t++)
        all.emplace_back([&, t] {
            std::mt19937_64 rng(t);
            for (u64 v = 2; v < 600; v++) {
                const u64 b = rng() % (blocks / 2) * 2 + t;
                ASSERT_EQ(rig.try_write(b * stride, Rig::pattern(b * stride, page, v)), 0);
                done[b] = v;
                if (v % 16 == 0)
                    std::this_thread::sleep_for(2ms); // so that GC gets its turn
            }
        });
    std::vector<std::thread> readers;
    for (unsigned t = 0; t < 2; t++)
        readers.emplace_back([&, t] {
            std::mt19937_64 rng(100 + t);
            while (!stop) {
                const u64 b = rng() % blocks;
                const u64 least = done[b];
                const Image got = rig.read(b * stride, page);
                for (u64 s = 0; s < page; s += sector) {
                    u64 v[2];
                    std::memcpy(v, &got[s], 16);
                    ASSERT_EQ(v[0], (b * stride + s) / sector);
                    ASSERT_GE(v[1], least) << "block " << b << ": old data";
                }
            }
        });
    for (std::thread &t : all)
        t.join();
    stop = true;
    for (std::thread &t : readers)
        t.join();
    for (u64 b = 0; b < blocks; b++)
        if (done[b]) {
            const Image d = Rig::pattern(b * stride, page, done[b]);
            std::memcpy(&rig.model[b * stride], d.data(), page);
        }
    rig.check("afterwards");
    rig.remove();
    rig.start();
    rig.check("in the next life");
}
