// SPDX-License-Identifier: GPL-2.0
// selftests/unit/rules_test.cpp - rules of the log, of write-back and of GC, one by one, each at
// the very moment at which it counts: a thread is stopped in front of a fence, the backing device
// in front of a FLUSH, a reader in its epoch. What random runs see now and then is seen here each
// time.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <sstream>
#include <thread>
#include "damage_rig.hpp"
#include "dm-pcache/engine/segments.hpp"
#include "dm-pcache/platform.h"

using namespace pcache::selftest;
namespace format = pcache::format;
using format::geometry;
using namespace std::chrono_literals;

namespace
{

constexpr u64 page = 4096;

template <class F>
bool soon(F f, std::chrono::milliseconds limit = 3s)
{
    const auto end = std::chrono::steady_clock::now() + limit;
    while (!f()) {
        if (std::chrono::steady_clock::now() > end)
            return false;
        std::this_thread::sleep_for(1ms);
    }
    return true;
}

// Fields of STATUS.
enum { used = 3, key_head = 6, dirty_tail = 7, key_tail = 8 };
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

// Somebody waits here until go().
class Gate
{
    std::mutex lock_;
    std::condition_variable changed_;
    bool open_ = false, waited_ = false;

public:
    void wait()
    {
        std::unique_lock<std::mutex> g(lock_);
        waited_ = true;
        changed_.wait(g, [this] { return open_; });
    }
    void go()
    {
        const std::lock_guard<std::mutex> g(lock_);
        open_ = true;
        changed_.notify_all();
    }
    bool somebody_waits()
    {
        return soon([this] {
            const std::lock_guard<std::mutex> g(lock_);
            return waited_;
        });
    }
};

// The backing device holds its writes back while it lives, also when a test ends early.
struct Held {
    Rig &rig;
    explicit Held(Rig &r) : rig(r) { rig.backing.hold_writes(true); }
    ~Held() { rig.backing.hold_writes(false); }
};

// A FLUSH by a thread of its own, which stops in front of the fence of its record.
class StoppedFlush
{
    Rig &rig_;
    Gate gate_;
    std::atomic<std::thread::id> id_{};
    std::thread thread_;

public:
    Bio bio{0};
    explicit StoppedFlush(Rig &rig) : rig_(rig)
    {
        rig.world.set_fence_hook([this] {
            if (std::this_thread::get_id() == id_.load())
                gate_.wait();
        });
        thread_ = std::thread([this] {
            id_ = std::this_thread::get_id();
            EXPECT_EQ(rig_.map(bio, {PC_FLUSH, 0, 0, 0, 0}), PC_TAKEN);
            EXPECT_EQ(bio.wait(), 0);
        });
    }
    ~StoppedFlush()
    {
        gate_.go();
        thread_.join();
        rig_.world.set_fence_hook(nullptr);
    }
    bool stands() { return gate_.somebody_waits(); }
};

// What the backing device is asked for, in order.
struct Asked {
    Op op;
    u64 offset;
};
class Backing
{
    std::mutex lock_;
    std::vector<Asked> asked_;

public:
    explicit Backing(DamageRig &rig)
    {
        rig.set_backing_hook([this](Op op, u64 offset, u64) {
            const std::lock_guard<std::mutex> g(lock_);
            if (op != Op::read)
                asked_.push_back({op, offset});
            return 0;
        });
    }
    // Pairs of writes to one place without a FLUSH between, and all of them.
    std::pair<u32, u32> writes(u64 offset)
    {
        const std::lock_guard<std::mutex> g(lock_);
        u32 all = 0, unflushed = 0;
        bool flushed = true;
        for (const Asked &a : asked_) {
            if (a.op == Op::flush) {
                flushed = true;
            } else if (a.offset == offset) {
                unflushed += !flushed;
                flushed = false;
                all++;
            }
        }
        return {all, unflushed};
    }
};

} // namespace

// ---- the log ------------------------------------------------------------------------------------

TEST(Rules, NothingGoesByARecordThatIsNotFenced)
{
    DamageRig rig;
    rig.start();
    Held held(rig);
    rig.write_pattern(0, page);
    Bio second(0);
    {
        StoppedFlush first(rig);
        ASSERT_TRUE(first.stands()) << "a record was stored and never fenced";
        EXPECT_EQ(field(rig, key_head), "0:0") << "write-back could go by it";
        EXPECT_FALSE(first.bio.ended()) << "the FLUSH ended in front of the fence";
        ASSERT_EQ(rig.map(second, {PC_FLUSH, 0, 0, 0, 0}), PC_TAKEN);
        std::this_thread::sleep_for(20ms);
        EXPECT_FALSE(second.ended()) << "nothing is staged, but a record is under way";
    }
    EXPECT_EQ(second.wait(), 0);
    EXPECT_NE(field(rig, key_head), "0:0");
}

#ifdef PCACHE_SMALL_GEOMETRY // images, whole caches
TEST(Rules, DataIsFencedWhenItsWriteHasCompleted)
{
    Gate gate; // outlives the rig's workers
    DamageRig rig;
    rig.start();
    // Nobody else's fence makes it durable: the worker that zeroes the spare has the same CPU.
    rig.world.set_fence_hook([&, self = std::this_thread::get_id()] {
        if (std::this_thread::get_id() != self)
            gate.wait();
    });
    rig.media.set_power_model(true);
    const Image data = Rig::pattern(0, page, 1);
    Image left;
    Bio bio(data);
    bio.on_end([&](int) { left = rig.media.cut([](u64, unsigned) { return false; }); });
    EXPECT_EQ(rig.map(bio, {PC_WRITE, 0, page, 0, 0}), PC_TAKEN);
    EXPECT_EQ(bio.wait(), 0);
    gate.go();
    rig.world.set_fence_hook(nullptr);
    EXPECT_NE(std::search(left.begin(), left.end(), data.begin(), data.end()), left.end())
        << "stored, staged, and not fenced";
    rig.media.set_power_model(false);
}
#endif

TEST(Rules, AFuaWriteIsInARecordWhenItHasCompleted)
{
    DamageRig rig;
    rig.start();
    Held held(rig);
    rig.write_pattern(0, page, true);
    EXPECT_NE(field(rig, key_head), "0:0");
}

TEST(Rules, TheRecordBehindAFlushCarriesEpochWhetherTheFlushWroteOneOrNot)
{
    DamageRig rig;
    rig.start();
    rig.keep_dirty(true);
    rig.write_record(0, page);
    rig.write_record(0, page); // behind a FLUSH that wrote a record
    rig.write_record(0, page);
    EXPECT_TRUE(format::RecordFlags{rig.flags_of(1)}.epoch());
    rig.write_pattern(0, page, true);
    rig.write_pattern(0, page, true); // behind a FUA write
    EXPECT_TRUE(format::RecordFlags{rig.flags_of(4)}.epoch());
    ASSERT_EQ(rig.flush(), 0); // nothing is staged
    rig.write_pattern(0, page, true);
    EXPECT_TRUE(format::RecordFlags{rig.flags_of(5)}.epoch());
}

TEST(Rules, OfTwoStagedWritesTheLaterOneIsReadInTheNextLife)
{
    DamageRig rig;
    rig.start();
    rig.keep_dirty(true);
    rig.write_pattern(0, page);
    rig.write_pattern(0, page);
    rig.remove();
    rig.start();
    rig.check("in the next life");
}

#ifdef PCACHE_SMALL_GEOMETRY // whole log segments, used before as segments of data
// Looked at when the first record stands in it: behind it are zeros to the end, link_seg names it,
// and limit was raised for all records that it may hold.
TEST(Rules, ANewLogSegmentIsZeroAndLinkedAndCountedAhead)
{
    DamageRig rig;
    rig.start();
    u32 before = 0, changes = 0;
    for (u64 i = 0; i < 6000 && changes < 6; i++) {
        rig.write_pattern(i * page % rig.model.size(), page, true);
        const std::string head = field(rig, key_head);
        const u32 segment = static_cast<u32>(std::stoul(head));
        const u32 offset = static_cast<u32>(std::stoul(head.substr(head.find(':') + 1)));
        if (segment == before || !offset)
            continue;
        before = segment;
        changes++;
        Image rest(format::data_bytes - offset);
        rig.media.read(DamageRig::log_at(segment, offset), rest.data(), rest.size());
        ASSERT_EQ(std::count(rest.begin(), rest.end(), u8{0}), static_cast<long>(rest.size()))
            << "segment " << segment << " was linked with something in it";
        format::RecordHeader first;
        rig.media.read(DamageRig::log_at(segment, 0), &first, sizeof(first));
        format::ExtensionRecord r;
        rig.media.read(DamageRig::extension_at(0), &r, sizeof(r));
        format::Extension e;
        ASSERT_EQ(format::decode_extension(r, e), format::ExtensionState::good);
        EXPECT_EQ(e.link_seg, segment);
        EXPECT_EQ(e.limit, format::advance(format::RecordFlags{first.flags}.number(),
                                           format::number_reserve));
    }
    EXPECT_EQ(changes, 6u) << "the log has not changed its segment";
}

// ---- stale keys: rules that a log without damage and of one driver does not need
// ------------------

namespace
{
// Records, a page each, until the data goes into another segment than that of record 0. All dirty.
u32 fill_a_segment(DamageRig &rig)
{
    rig.start();
    rig.keep_dirty(true);
    u32 n = 0;
    do
        rig.write_record(u64{n} * page, page);
    while (rig.key_of(n++).cache_seg_id == rig.key_of(0).cache_seg_id && n < 100);
    return n;
}
} // namespace

// Skipping it would bring the older key back. Dirty and stale it is damage, so that the log is read
// as it is.
TEST(Rules, AStaleKeyHidesOlderOnesOfItsRange)
{
    DamageRig rig;
    const u32 n = fill_a_segment(rig);
    rig.write_record(0, page);
    rig.stop(false);
    ASSERT_NE(rig.key_of(n).cache_seg_id, rig.key_of(0).cache_seg_id);
    rig.raise_generation(rig.key_of(n).cache_seg_id);
    rig.start();
    ASSERT_TRUE(rig.read_only());
    EXPECT_EQ(rig.read(0, page), Rig::pattern(0, page, 0))
        << "neither key counts: " << Rig::tag(rig.read(0, page).data());
    EXPECT_EQ(rig.read(page, page), Rig::pattern(page, page, rig.version_of(1)));
}

namespace
{
// Record 3 is clean and stale in the next life; its segment's other keys are not.
u32 with_a_stale_key(DamageRig &rig)
{
    const u32 n = fill_a_segment(rig);
    rig.stop(false);
    format::Key k = rig.key_of(3);
    k.flags = format::key_clean;
    k.seg_gen--;
    rig.change_record(3, k, rig.flags_of(3));
    return n;
}
} // namespace

TEST(Rules, AStaleKeyHoldsNoSegment)
{
    DamageRig rig;
    with_a_stale_key(rig);
    const u32 segment = rig.key_of(0).cache_seg_id;
    const u64 gen = rig.generation(segment);
    rig.start();
    rig.keep_dirty(false);
    ASSERT_EQ(rig.message({"gc_percent", "0"}), 0);
    EXPECT_TRUE(soon([&] { return rig.generation(segment) == gen + 1; }))
        << "all its keys have been passed, and it is not free: " << rig.status();
}

TEST(Rules, AStaleKeyThatGcPassesEmptiesNoSegment)
{
    DamageRig rig;
    const u32 n = with_a_stale_key(rig);
    const u32 segment = rig.key_of(0).cache_seg_id;
    const u64 gen = rig.generation(segment), last = u64{n - 2} * page;
    ASSERT_EQ(rig.key_of(n - 2).cache_seg_id, segment);
    rig.set_backing_hook([&](Op op, u64 offset, u64) {
        return op == Op::write && offset == last ? -5
                                                 : 0; // the last key of the segment stays dirty
    });
    rig.start();
    rig.keep_dirty(false);
    ASSERT_EQ(rig.message({"gc_percent", "0"}), 0);
    const std::string stop = "0:" + std::to_string((n - 2) * format::kset_bytes(1));
    ASSERT_TRUE(soon([&] { return field(rig, key_tail) == stop; })) << rig.status();
    EXPECT_FALSE(soon([&] { return rig.generation(segment) != gen; }, 300ms))
        << "the segment was emptied under a dirty key";
    rig.set_backing_hook(nullptr);
}

// ---- write-back
// -----------------------------------------------------------------------------------

// A record without a number is an epoch of its own.
TEST(Rules, WriteBackFlushesBetweenTheRecordsOfMainline)
{
    DamageRig rig;
    rig.start();
    rig.keep_dirty(true);
    for (int i = 0; i < 4; i++)
        rig.write_record(0, page);
    rig.stop(false);
    for (u32 i = 0; i < 4; i++)
        rig.change_record(i, rig.key_of(i), 0);
    Backing backing(rig);
    rig.start();
    rig.keep_dirty(false);
    ASSERT_TRUE(soon([&] { return drained(rig); })) << rig.status();
    const auto [all, unflushed] = backing.writes(0);
    EXPECT_EQ(all, 4u) << "a key of one epoch was skipped for one of another";
    EXPECT_EQ(unflushed, 0u);
    rig.remove();
}
#endif

TEST(Rules, WriteBackFlushesBetweenTwoEpochs)
{
    DamageRig rig;
    Backing backing(rig);
    rig.start();
    rig.keep_dirty(true);
    for (int i = 0; i < 4; i++)
        rig.write_record(0, page);
    rig.keep_dirty(false);
    ASSERT_TRUE(soon([&] { return drained(rig); }, 10s)) << rig.status();
    const auto [all, unflushed] = backing.writes(0);
    EXPECT_GE(all, 4u) << "a key of one epoch was skipped for one of another";
    EXPECT_EQ(unflushed, all - 4) << "more than the writes that failed";
    rig.remove();
}

TEST(Rules, DirtyTailWaitsForTheWrite)
{
    DamageRig rig;
    rig.start();
    Held held(rig);
    rig.write_record(0, page);
    ASSERT_TRUE(soon([&] { return rig.backing.counters().writes_in_flight != 0; }));
    EXPECT_EQ(field(rig, dirty_tail), "0:0");
    format::PositionRecord r;
    rig.media.read(format::dirty_tail_offset, &r, sizeof(r));
    EXPECT_TRUE(format::decode_position(r) == format::LogPosition{}) << "on media";
}

TEST(Rules, DirtyTailMovesBehindAFlushThatWentWell)
{
    DamageRig rig;
    rig.start();
    const u64 before = rig.backing.counters().flushes;
    rig.backing.fail(Op::flush, 1);
    rig.write_record(0, page);
    ASSERT_TRUE(soon([&] { return field(rig, dirty_tail) != "0:0"; }));
    EXPECT_EQ(rig.backing.counters().flushes, before + 2) << "one that failed, and one behind it";
}

TEST(Rules, DirtyTailMovesBehindAWriteThatWentWell)
{
    DamageRig rig;
    rig.start();
    rig.backing.fail(Op::write, 1);
    rig.write_record(0, page);
    ASSERT_TRUE(soon([&] { return field(rig, dirty_tail) != "0:0"; }));
    EXPECT_TRUE(rig.backing.image() == rig.model);
}

#ifdef PCACHE_SMALL_GEOMETRY // place_of looks at an image
TEST(Rules, WriteBackSendsNoPageThatCannotBeRead)
{
    DamageRig rig;
    rig.start();
    rig.keep_dirty(true);
    rig.write_record(0, 2 * page);
    const u64 place = rig.place_of(0);
    rig.media.poison(place, 64);
    const u64 before = rig.backing.counters().flushes;
    rig.world.clear_log();
    rig.keep_dirty(false);
    ASSERT_TRUE(soon([&] {
        return rig.backing.counters().flushes != before || rig.world.said("write-back failed");
    }));
    EXPECT_FALSE(rig.world.said("write-back failed")) << "the write was sent with a bad page in it";
}
#endif

TEST(Rules, WithDataCrcNeighboursOfDifferentKeysAreVerifiedEachByItsOwn)
{
    DamageRig rig;
    ASSERT_EQ(rig.create({"2", "data_crc", "true"}), 0) << rig.sentence;
    ASSERT_EQ(rig.resume(), 0);
    Held held(rig);
    for (u64 i = 0; i < 3; i++) // side by side on both devices, in one epoch
        rig.write_pattern(i * page, page);
    ASSERT_EQ(rig.flush(), 0);
    rig.backing.hold_writes(false);
    ASSERT_TRUE(soon([&] { return drained(rig) || rig.world.said("cannot be read"); }));
    EXPECT_FALSE(rig.world.said("cannot be read")) << "good data was taken for bad";
}

// ---- GC
// -------------------------------------------------------------------------------------------

TEST(Rules, SafeTailFollowsKeyTail)
{
    DamageRig rig;
    rig.start();
    rig.write_record(0, page);
    ASSERT_TRUE(soon([&] { return drained(rig); }));
    ASSERT_EQ(rig.message({"gc_percent", "0"}), 0);
    ASSERT_TRUE(soon([&] { return field(rig, key_tail) != "0:0"; })) << rig.status();
    for (u32 slot = 0; slot < 2; slot++) {
        format::ExtensionRecord r;
        rig.media.read(DamageRig::extension_at(slot), &r, sizeof(r));
        format::Extension e;
        ASSERT_EQ(format::decode_extension(r, e), format::ExtensionState::good);
        EXPECT_EQ("0:" + std::to_string(e.safe_tail.offset), field(rig, key_tail));
    }
}

#ifdef PCACHE_SMALL_GEOMETRY // a segment is filled
// A reader that found its data before GC took it out of the index copies it all the same.
TEST(Rules, ASegmentIsNotFreedUnderAReader)
{
    DamageRig rig;
    fill_a_segment(rig);
    const u32 segment = rig.key_of(0).cache_seg_id;
    const u64 gen = rig.generation(segment);
    Gate gate;
    std::thread reader([&] {
        pc_epoch_enter();
        gate.wait();
        pc_epoch_exit();
    });
    ASSERT_TRUE(gate.somebody_waits());
    rig.keep_dirty(false);
    ASSERT_EQ(rig.message({"gc_percent", "0"}), 0);
    const bool passed =
        soon([&] { return drained(rig) && field(rig, key_tail) == field(rig, key_head); });
    const bool freed = soon([&] { return rig.generation(segment) != gen; }, 100ms);
    gate.go();
    reader.join();
    EXPECT_TRUE(passed) << rig.status();
    EXPECT_FALSE(freed) << "its generation was raised while a reader was in it";
    EXPECT_TRUE(soon([&] { return rig.generation(segment) == gen + 1; }))
        << "freed, and its generation on media is that of its former keys";
}
#endif

// ---- the life cycle
// -------------------------------------------------------------------------------

TEST(Rules, WhoStopsOverABackingDeviceThatFailsItsFlushHasFailed)
{
    DamageRig rig;
    rig.start();
    rig.write_record(0, page);
    ASSERT_TRUE(soon([&] { return drained(rig); }));
    rig.backing.fail(Op::flush, 1, -5, 100);
    rig.suspend();
    EXPECT_EQ(rig.status(), "Fail");
    format::ExtensionRecord r;
    rig.media.read(DamageRig::extension_at(0), &r, sizeof(r));
    EXPECT_FALSE(r.state & format::extension_state::clean_stop);
    rig.destroy();
}

// ---- parts
// ----------------------------------------------------------------------------------------

TEST(Segments, ABadOneIsHandedOutToNobody)
{
    World world;
    pcache::engine::Segments segments;
    ASSERT_TRUE(ok(segments.allocate(geometry.min_segments)));
    segments.finish_recovery();
    pcache::engine::SegmentId s, log;
    ASSERT_TRUE(segments.take_for_head(s));
    (void)segments.mark_bad(s); // while it is in use
    EXPECT_TRUE(segments.leave_head(s, 0));
    bool is_log;
    ASSERT_TRUE(segments.next_emptied(s, is_log));
    segments.release(s);
    (void)segments.mark_bad({3}); // while it is free
    u32 handed_out = 0;
    while (segments.take_for_log(log)) {
        EXPECT_NE(log.value, s.value) << "it had become bad while it was in use";
        EXPECT_NE(log.value, 3u) << "it had become bad while it was free";
        handed_out++;
    }
    EXPECT_EQ(handed_out, geometry.min_segments - 2);
}

// Found by the simulator: what write-back had sent, with nobody's FLUSH behind it, was read in the
// read-only state and gone after the next cut.
TEST(Rules, WhatAReadOnlyCacheReadsFromTheBackingDeviceStaysOverAPowerCut)
{
    DamageRig rig;
    rig.backing.set_write_cache(true);
    rig.keep_dirty(true);
    rig.start();
    rig.set_backing_hook([](Op op, u64, u64) { return op == Op::flush ? -5 : 0; });
    for (u32 i = 0; i < 3; i++)
        rig.write_record(i * 2 * page, page);
    rig.keep_dirty(false); // the first epoch is sent, and its FLUSH fails
    ASSERT_TRUE(soon(
        [&] {
            const Image now = rig.backing.image();
            return std::equal(now.begin(), now.begin() + page, rig.model.begin());
        },
        20s));
    rig.stop(false);
    rig.spoil_record(0);
    rig.set_backing_hook(nullptr);
    rig.start();
    ASSERT_TRUE(rig.read_only()) << rig.status();
    const Image seen = rig.read(0, page);
    const Image left = rig.backing.cut([](const auto &, u32) { return false; });
    EXPECT_TRUE(std::equal(seen.begin(), seen.end(), left.begin()))
        << "what was read is gone after a power cut";
}
