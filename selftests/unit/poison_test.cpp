// SPDX-License-Identifier: GPL-2.0
// Tests of data and log that cannot be read, while running and at activation: clean data comes from
// the backing device, dirty data fails alone and stays lost until it is written anew, nothing is
// stored to a bad page, and nothing is loaded from one that is known to be bad (the World reports
// both as breaches). One property a test, named after it.
#include "rig.hpp"
#include "dm-pcache/format/segment.hpp"
#include <thread>

using namespace pcache::selftest;
using pcache::format::data_bytes;
using pcache::format::first_segment_offset;
using pcache::format::geometry;
using pcache::format::segment_control_bytes;
using pcache::format::segment_offset;
using namespace std::chrono_literals;

namespace
{

constexpr u64 page = 4096;
using ull = unsigned long long;

class Poison : public testing::Test
{
protected:
    // Roomy enough that GC does not begin by itself.
    Rig rig{small_world ? 2 * geometry.min_segments : geometry.min_segments};

    // Write-back fails from now on, so what is written stays dirty.
    void keep_dirty()
    {
        rig.backing.set_hook([](Op op, u64, u64) { return op == Op::write ? -5 : 0; });
    }
    void let_go() { rig.backing.set_hook(nullptr); }
    template <class F>
    bool soon(F f, std::chrono::milliseconds limit = 20s)
    {
        const auto end = std::chrono::steady_clock::now() + limit;
        while (!f()) {
            if (std::chrono::steady_clock::now() > end)
                return false;
            std::this_thread::sleep_for(2ms);
        }
        return true;
    }
    // A field of STATUS, from 1.
    std::string field(unsigned n)
    {
        std::string s = rig.status() + " ";
        for (; n > 1; n--)
            s = s.substr(s.find(' ') + 1);
        return s.substr(0, s.find(' '));
    }
    bool drained() { return field(7) == field(8); }
    // Where on the cache device the newest data of this sector lies.
    u64 place_of(u64 offset)
    {
        const u64 at = rig.media.find(&rig.model[offset], 16, first_segment_offset, sector);
        EXPECT_LT(at, rig.media.bytes())
            << "sector " << offset / sector << " is not on the cache device";
        return at;
    }
    int read(u64 offset, u64 bytes, Image *out = nullptr)
    {
        Bio bio(static_cast<u32>(bytes));
        const pc_verdict v = rig.map(bio, {PC_READ, offset, bio.size(), 0, 0});
        if (v == PC_REMAP) {
            rig.backing.read(offset, bio.data(), bio.size());
        } else if (v != PC_TAKEN) {
            return -1000;
        } else if (const int e = bio.wait(); e) {
            return e;
        }
        if (bio.size() != bytes)
            return -2000;
        if (out)
            out->assign(bio.data(), bio.data() + bytes);
        return 0;
    }
    bool reads_right(u64 offset, u64 bytes)
    {
        for (u64 at = offset; at < offset + bytes; at += sector) {
            Image got;
            if (read(at, sector, &got) || std::memcmp(got.data(), &rig.model[at], sector))
                return false;
        }
        return true;
    }
    // Everything but [offset, offset + bytes) reads as it must; that range with an error.
    void only_lost(u64 offset, u64 bytes, const char *when)
    {
        for (u64 at = 0; at < rig.model.size(); at += sector) {
            Image got;
            const int e = read(at, sector, &got);
            if (at >= offset && at < offset + bytes)
                ASSERT_EQ(e, -5) << when << ": sector " << at / sector
                                 << " is dirty and cannot be read, and something was given for it";
            else
                ASSERT_TRUE(!e && !std::memcmp(got.data(), &rig.model[at], sector))
                    << when << ": sector " << at / sector << " error " << e;
        }
    }
};

// ---- reads --------------------------------------------------------------------------------

TEST_F(Poison, CleanDataOnABadLineIsReadFromTheBackingDevice)
{
    rig.start();
    rig.write_pattern(0, 64u << 10);
    ASSERT_EQ(rig.flush(), 0);
    ASSERT_TRUE(soon([&] { return drained(); }));
    rig.media.poison(place_of(5 * sector), 64);
    rig.check("with a bad line");
    EXPECT_TRUE(rig.world.said("come from the backing device"));
    EXPECT_EQ(rig.world.events(), 1u);
    rig.check("a second time");
    rig.write_pattern(0, 64u << 10);
    rig.check("written anew");
}

TEST_F(Poison, DirtyDataOnABadLineFailsThatRangeAloneUntilItIsWrittenAnew)
{
    rig.start();
    keep_dirty();
    rig.write_pattern(0, 64u << 10);
    ASSERT_EQ(rig.flush(), 0);
    rig.media.poison(place_of(5 * sector), 64);
    only_lost(5 * sector, sector, "with a bad line");
    only_lost(5 * sector, sector, "a second time");
    EXPECT_TRUE(rig.world.said("dirty data cannot be read"));
    EXPECT_EQ(rig.world.events(), 1u);
    rig.write_pattern(4 * sector, 2 * sector);
    rig.check("written anew");
    let_go();
    EXPECT_TRUE(soon([&] { return drained(); })) << "what was overwritten stands in the way";
    rig.check("written back");
}

// A key that is in no record yet is dirty like any other.
TEST_F(Poison, DirtyDataThatIsOnlyStagedFailsToo)
{
    rig.start();
    keep_dirty();
    rig.write_pattern(8 * page, page);
    rig.media.poison(place_of(8 * page), 64);
    EXPECT_EQ(read(8 * page, sector), -5);
    EXPECT_TRUE(reads_right(8 * page + sector, page - sector));
}

TEST_F(Poison, AReadThatMustNotWaitIsToldSo)
{
    rig.start();
    keep_dirty();
    rig.write_pattern(0, page);
    rig.media.poison(place_of(0), 64);
    Bio bio(page);
    ASSERT_EQ(rig.map(bio, {PC_READ, 0, page, 0, 1}), PC_TAKEN);
    EXPECT_EQ(bio.wait(), -11);
}

#ifdef PCACHE_SMALL_GEOMETRY // whole caches, and an image of the device at each step
// Had the rest of the page been stored to, the World would report it.
TEST_F(Poison, ASegmentInWhichSomethingCannotBeReadGetsNoNewData)
{
    rig.start();
    keep_dirty();
    rig.write_pattern(0, sector);
    const u64 bad = place_of(0);
    rig.media.poison(bad, page - bad % page);
    EXPECT_EQ(read(0, sector), -5);
    const u64 segment = (bad - first_segment_offset) / geometry.segment_bytes;
    for (u64 i = 1; i < 16; i++) {
        rig.write_pattern(i * sector, sector);
        ASSERT_NE((place_of(i * sector) - first_segment_offset) / geometry.segment_bytes, segment);
    }
}

// Write-back looks at all keys of a batch in which something is lost, at overwritten ones, too.
TEST_F(Poison, ASegmentIsBadAlsoWhereWhatCannotBeReadWasOverwritten)
{
    rig.start();
    keep_dirty();
    rig.write_pattern(0, page);
    const u64 overwritten = place_of(0);
    for (u64 i = 0; i < data_bytes / page; i++)
        rig.write_pattern((2 + i % 8) * page, page);
    rig.write_pattern(0, page);
    rig.write_pattern(page, page);
    const u64 lost = place_of(page);
    ASSERT_EQ(rig.flush(), 0);
    const auto segment = [](u64 at) {
        return (at - first_segment_offset) / geometry.segment_bytes;
    };
    ASSERT_NE(segment(overwritten), segment(lost));
    rig.media.poison(overwritten, page);
    rig.media.poison(lost, page);
    rig.write_pattern(page, sector); // part of it; the rest is lost, and read by nobody
    let_go();
    const std::string line =
        "segment " + std::to_string(segment(overwritten)) + " cannot be read throughout";
    EXPECT_TRUE(soon([&] { return rig.world.said(line.c_str()); }, 5s))
        << "a store may fall on a page that has lost its mapping";
}

TEST_F(Poison, ABadSegmentIsNotHandedOutAgainWhenItIsEmptied)
{
    std::mt19937_64 rng(1);
    rig.start();
    rig.write_pattern(0, 32u << 10);
    ASSERT_EQ(rig.flush(), 0);
    ASSERT_TRUE(soon([&] { return drained(); }));
    const u64 bad = place_of(8 * sector);
    rig.media.poison(bad, page - bad % page);
    rig.check("healed");
    const u64 used = std::stoul(field(4));
    for (int i = 0; i < 200; i++)
        rig.write_pattern(rng() % (rig.model.size() / (16u << 10)) * (16u << 10), 16u << 10);
    rig.check("after several times the cache's size"); // and no store to the page is reported
    ASSERT_EQ(rig.message({"gc_percent", "0"}), 0);
    ASSERT_TRUE(soon([&] { return drained() && std::stoul(field(4)) <= used + 2; }))
        << rig.status();
}
#endif

// ---- write-back ---------------------------------------------------------------------------

TEST_F(Poison, WriteBackSendsTheRestAndPassesWhatIsLost)
{
    rig.start();
    keep_dirty();
    rig.write_pattern(0, 8 * page);
    ASSERT_EQ(rig.flush(), 0);
    rig.write_pattern(32 * page, 8 * page);
    ASSERT_EQ(rig.flush(), 0);
    rig.media.poison(place_of(3 * page), 64);
    const Image before = rig.backing.image();
    let_go();
    const auto written = [&](u64 from, u64 bytes) {
        const Image now = rig.backing.image();
        return !std::memcmp(&now[from], &rig.model[from], bytes);
    };
    ASSERT_TRUE(soon([&] { return written(32 * page, 8 * page); }))
        << "readable data behind what is lost was not written back";
    EXPECT_TRUE(written(0, 3 * page));
    EXPECT_TRUE(written(3 * page + sector, 4 * page));
    EXPECT_FALSE(std::memcmp(&rig.backing.image()[3 * page], &before[3 * page], sector))
        << "something was sent for data that cannot be read";
    only_lost(3 * page, sector, "after write-back");
    EXPECT_FALSE(drained()) << "dirty tail has passed what is lost, for good";
}

TEST_F(Poison, WhatIsLostIsLostInTheNextLifeToo)
{
    rig.start();
    keep_dirty();
    rig.write_pattern(0, 8 * page);
    ASSERT_EQ(rig.flush(), 0);
    rig.write_pattern(32 * page, 8 * page);
    const u64 bad = place_of(3 * page);
    rig.media.poison(bad, 64);
    ASSERT_EQ(rig.flush(), 0);
    let_go();
    ASSERT_TRUE(soon([&] {
        const Image now = rig.backing.image();
        return !std::memcmp(&now[32 * page], &rig.model[32 * page], 8 * page);
    }));
    rig.remove();
    rig.start();
    only_lost(3 * page, sector, "after a removal");
    rig.remove();
    rig.media.know_bad(bad, 64); // by now the driver has heard of it
    rig.start();
    // The rest of the page is on the backing device by now.
    only_lost(3 * page, sector, "with the page known to be bad");
    rig.write_pattern(3 * page, page);
    rig.check("written anew");
    EXPECT_TRUE(soon([&] { return drained(); }));
}

// The device takes no part of a block: without that, write-back failed for ever behind one bad
// line.
TEST_F(Poison, OnABackingDeviceOf4KiBBlocksABadLineTakesItsBlockAlone)
{
    rig.backing.set_logical_block(page);
    rig.start();
    keep_dirty();
    rig.write_pattern(0, 8 * page);
    ASSERT_EQ(rig.flush(), 0);
    rig.media.poison(place_of(3 * page + sector), 64);
    let_go();
    EXPECT_TRUE(soon([&] {
        const Image now = rig.backing.image();
        return !std::memcmp(&now[0], &rig.model[0], 3 * page) &&
               !std::memcmp(&now[4 * page], &rig.model[4 * page], 4 * page);
    })) << "the rest is not written back";
    EXPECT_EQ(read(3 * page, page), -5);
    EXPECT_EQ(read(4 * page, page), 0);
}

// With nothing but lost keys left, write-back has nothing to do: no batch, no FLUSH, no record.
TEST_F(Poison, OnlyLostKeysLeftCauseNoWork)
{
    rig.start();
    keep_dirty();
    rig.write_pattern(0, 8 * page);
    rig.write_pattern(32 * page, 8 * page);
    ASSERT_EQ(rig.flush(), 0);
    rig.media.poison(place_of(3 * page), 64);
    rig.media.poison(place_of(33 * page), 64);
    let_go();
    // On a loaded machine the back-off may have grown to its 30 s by now.
    ASSERT_TRUE(soon([&] { return rig.backing.counters().flushes > 1; }, 60s));
    std::this_thread::sleep_for(1500ms); // what was logged again is logged by now
    const u64 flushes = rig.backing.counters().flushes;
    const std::string status = rig.status();
    std::this_thread::sleep_for(1s);
    EXPECT_LE(rig.backing.counters().flushes, flushes) << "write-back goes on and on";
    EXPECT_EQ(rig.status(), status);
    EXPECT_FALSE(drained());
    rig.write_pattern(64 * page, page); // something else to do
    EXPECT_TRUE(soon([&] {
        const Image now = rig.backing.image();
        return !std::memcmp(&now[64 * page], &rig.model[64 * page], page);
    })) << "new dirty data behind lost keys is not written back";
}

TEST_F(Poison, OverwrittenLostKeysCostNothing)
{
    rig.start();
    keep_dirty();
    rig.write_pattern(0, 8 * page);
    ASSERT_EQ(rig.flush(), 0);
    rig.media.poison(place_of(3 * page), 64);
    rig.write_pattern(2 * page, 3 * page);
    ASSERT_EQ(rig.flush(), 0);
    let_go();
    EXPECT_TRUE(soon([&] { return drained(); })) << rig.status();
    rig.check("healed before anybody knew");
    EXPECT_TRUE(rig.backing.image() == rig.model);
}

#ifdef PCACHE_SMALL_GEOMETRY
// A full cache goes on over a lost key: GC gets past it, its segment is held, it stays lost.
TEST_F(Poison, LostKeysAreCarriedAlongThroughManyLogSegments)
{
    std::mt19937_64 rng(2);
    rig.start();
    keep_dirty();
    rig.write_pattern(0, page);
    ASSERT_EQ(rig.flush(), 0);
    const u64 bad = place_of(0);
    rig.media.poison(bad, page);
    let_go();
    for (int i = 0; i < 4000; i++) {
        const u64 at = page + rng() % (rig.model.size() / page - 1) * page;
        rig.write_pattern(at, page);
        if (i % 16 == 0) {
            ASSERT_EQ(rig.flush(), 0);
        }
    }
    only_lost(0, page, "after many log segments");
    rig.remove();
    rig.start();
    only_lost(0, page, "in the next life");
    rig.write_pattern(0, page);
    rig.check("healed");
}

TEST_F(Poison, LostKeysSurvivePowerCuts)
{
    std::mt19937_64 rng(3);
    rig.media.set_power_model(true);
    rig.backing.set_write_cache(true);
    rig.start();
    keep_dirty();
    rig.write_pattern(0, page);
    ASSERT_EQ(rig.flush(), 0);
    const u64 bad = place_of(0);
    rig.media.poison(bad, page);
    let_go();
    for (int life = 0; life < 12; life++) {
        for (int i = 0; i < 40; i++) {
            const u64 at = page + rng() % (rig.model.size() / page - 1) * page;
            rig.write_pattern(at, page);
        }
        ASSERT_EQ(rig.flush(), 0);
        if (life % 3)
            std::this_thread::sleep_for(std::chrono::milliseconds(rng() % 300));
        rig.power_cut(rng);
        rig.media.poison(bad, page);
        rig.start();
        only_lost(0, page, "after a cut");
    }
}

// The log has two keys of the lost data then, the older one in front of dirty tail. Nobody has read
// the range when GC passes that one.
TEST_F(Poison, GcOfTheOlderKeyDoesNotBringBackWhatWasBeforeTheLostData)
{
    std::mt19937_64 rng(7);
    rig.media.set_power_model(true);
    rig.backing.set_write_cache(true);
    rig.start();
    keep_dirty();
    rig.write_pattern(0, page);
    ASSERT_EQ(rig.flush(), 0);
    const u64 bad = place_of(0);
    rig.media.poison(bad, page);
    rig.write_pattern(page, 4 * page); // write-back passes the lost key for the sake of these
    ASSERT_EQ(rig.flush(), 0);
    let_go();
    const std::string key_tail = field(9);
    ASSERT_TRUE(soon([&] { return field(8) != key_tail; })) << "dirty tail stands";
    std::this_thread::sleep_for(300ms); // the lost key is in a record again
    rig.power_cut(rng);
    rig.media.poison(bad, page);
    rig.start();
    const std::string oldest = field(9);
    ASSERT_EQ(rig.message({"gc_percent", "0"}), 0);
    ASSERT_TRUE(soon([&] { return field(9) != oldest; })) << "GC does not run";
    only_lost(0, page, "after GC");
}

// More than a quarter of a log segment's worth: the cache becomes read-only, and says why.
TEST_F(Poison, MoreLostKeysThanTheLogCanRememberMakeTheCacheReadOnly)
{
    rig.start();
    keep_dirty();
    constexpr u64 keys = data_bytes / 4 / 64 + 8;
    for (u64 i = 0; i < keys; i++)
        rig.write_pattern(2 * i * sector, sector);
    ASSERT_EQ(rig.flush(), 0);
    for (u64 i = 0; i < keys; i++) // a scan of the image each: by pages
        rig.media.poison(place_of(2 * i * sector), 64);
    rig.write_pattern(1u << 20, page); // it must go on
    ASSERT_EQ(rig.flush(), 0);
    let_go();
    ASSERT_TRUE(soon([&] { return rig.status().ends_with(" ro"); })) << rig.status();
    EXPECT_TRUE(soon([&] { return rig.world.said("than the log has room to remember"); }));
    EXPECT_EQ(rig.try_write(0, Image(page)), -5);
    EXPECT_TRUE(reads_right(1u << 20, page));
}
#endif

// ---- the log while running ----------------------------------------------------------------

TEST_F(Poison, ARecordBehindDirtyTailThatCannotBeReadMakesTheCacheReadOnly)
{
    rig.start();
    keep_dirty();
    rig.write_pattern(0, 64u << 10);
    ASSERT_EQ(rig.flush(), 0);
    rig.media.poison(first_segment_offset + segment_control_bytes, 64);
    let_go();
    ASSERT_TRUE(soon([&] { return rig.status().ends_with(" ro"); })) << rig.status();
    EXPECT_TRUE(soon([&] { return rig.world.said("read-only: "); }));
    EXPECT_EQ(rig.try_write(0, Rig::pattern(0, page, 9)), -5);
    rig.check("read-only");
    rig.remove();
    rig.media.cure();
}

#ifdef PCACHE_SMALL_GEOMETRY
// GC meets a record that it cannot read, in front of dirty tail: it goes on behind it.
TEST_F(Poison, ARecordInFrontOfDirtyTailThatCannotBeReadCostsCleanDataOnly)
{
    std::mt19937_64 rng(4);
    rig.start();
    for (u64 i = 0; i < 80; i++) { // into the second page of the log: the first one is nobody's
        rig.write_pattern(i * page, page);
        ASSERT_EQ(rig.flush(), 0);
    }
    ASSERT_TRUE(soon([&] { return drained(); }));
    const u64 log = first_segment_offset + segment_control_bytes;
    rig.media.poison(log + 10 * 64, 64);
    for (int i = 0; i < 2000; i++)
        rig.write_pattern(rng() % (rig.model.size() / page) * page, page);
    EXPECT_TRUE(rig.world.said("GC goes on at"));
    EXPECT_EQ(rig.status().find("ro"), std::string::npos) << rig.status();
    rig.check("after several times the cache's size");
    rig.remove();
    rig.media.know_bad(log, page); // the driver has noted the machine check
    rig.start();
    rig.check("in the next life");
}

// The page is rewritten as a whole; what is bad in it is not needed any more.
TEST_F(Poison, ABadCleanRecordInTheHeadsPageDoesNotStopActivation)
{
    std::mt19937_64 rng(6);
    rig.start();
    for (u64 i = 0; i < 8; i++) {
        rig.write_pattern(i * page, page);
        ASSERT_EQ(rig.flush(), 0);
    }
    ASSERT_TRUE(soon([&] { return drained(); }));
    rig.media.poison(first_segment_offset + segment_control_bytes + 2 * 64, 64);
    rig.power_cut(rng);
    rig.start();
    EXPECT_TRUE(rig.world.said("in front of dirty_tail: clean data is lost"));
    rig.check("after a cut");
    for (u64 i = 0; i < 8; i++)
        rig.write_pattern(i * page, page);
    ASSERT_EQ(rig.flush(), 0);
    rig.power_cut(rng);
    rig.start();
    rig.check("after a cut of the life behind it");
}

// Found by make nth-failure (full-crc, media_read): GC went on behind the record, and the log
// stored the next one to the page, which Linux has unmapped by then.
TEST_F(Poison, AnUnreadablePageInWhichTheLogGrowsMakesTheCacheReadOnly)
{
    rig.start();
    for (u64 i = 0; i < 32; i++) {
        rig.write_pattern(i * page, page);
        ASSERT_EQ(rig.flush(), 0);
    }
    ASSERT_TRUE(soon([&] { return drained(); }));
    rig.media.set_unmaps_pages(true);
    rig.media.poison(first_segment_offset + segment_control_bytes, 64); // the oldest record
    ASSERT_EQ(rig.message({"gc_percent", "0"}), 0);                     // GC begins
    ASSERT_TRUE(soon([&] { return rig.status().ends_with(" ro"); }, 5s)) << rig.status();
    rig.remove();
    rig.media.cure();
}

// All four slots of the tails lie in one line: what repairs it must bring back both records.
TEST_F(Poison, ABadLineInTheTailsIsRepairedWithBoth)
{
    std::mt19937_64 rng(5);
    rig.start();
    rig.write_pattern(0, 16 * page);
    ASSERT_EQ(rig.flush(), 0);
    ASSERT_TRUE(soon([&] { return drained(); }));
    rig.media.poison(pcache::format::cache_ctrl_offset, 64);
    rig.write_pattern(0, 16 * page);
    ASSERT_EQ(rig.flush(), 0);
    ASSERT_TRUE(soon([&] { return drained(); }));
    rig.power_cut(rng);
    rig.world.clear_log();
    rig.start();
    EXPECT_FALSE(rig.world.said("tail cannot be read")) << "the repair has lost the other tail";
    rig.check("after a cut");
}

TEST_F(Poison, ASegmentWhoseGenerationCannotBeStoredIsRetiredAndTheCacheGoesOn)
{
    std::mt19937_64 rng(6);
    rig.start();
    rig.media.set_repairable(false);
    for (u32 s = 2; s < 6; s++) // one of them may be the log's
        rig.media.poison(segment_offset({s}) + pcache::format::generation_offset, 64);
    for (int i = 0; i < 2000; i++)
        rig.write_pattern(rng() % (rig.model.size() / page) * page, page);
    EXPECT_TRUE(rig.world.said("is not used again: its generation"));
    EXPECT_NE(rig.status(), "Fail");
    rig.check("without it");
    rig.remove();
    rig.start();
    rig.check("in the next life");
}

// ---- bad pages known at activation --------------------------------------------------------

TEST_F(Poison, CleanDataOnPagesKnownToBeBadIsHealedAtActivation)
{
    rig.start();
    rig.write_pattern(0, 16 * page);
    ASSERT_EQ(rig.flush(), 0);
    ASSERT_TRUE(soon([&] { return drained(); }));
    const u64 bad = place_of(3 * page);
    rig.remove();
    rig.media.know_bad(bad, 64);
    rig.start();
    rig.check("with a page known to be bad");
    EXPECT_TRUE(rig.world.said("1 pages of clean data"));
}

TEST_F(Poison, DirtyDataOnPagesKnownToBeBadIsLostAndNothingElse)
{
    rig.start();
    keep_dirty();
    rig.write_pattern(0, 16 * page);
    const u64 bad = place_of(3 * page);
    rig.remove();
    let_go();
    rig.media.know_bad(bad, 64);
    rig.start();
    only_lost(3 * page, page, "with a page known to be bad");
    ASSERT_TRUE(soon([&] { return rig.backing.counters().flushes > 3; }));
    only_lost(3 * page, page, "after write-back");
    rig.write_pattern(3 * page, page);
    rig.check("written anew");
    EXPECT_TRUE(soon([&] { return drained(); }));
}

// A bad key hides what is older: a stale version of the range must not come back.
TEST_F(Poison, ABadPageHidesOlderDataOfItsRange)
{
    rig.start();
    keep_dirty();
    rig.write_pattern(0, 4 * page);
    ASSERT_EQ(rig.flush(), 0);
    rig.write_pattern(0, 4 * page);
    ASSERT_EQ(rig.flush(), 0);
    const u64 bad = place_of(page);
    rig.remove();
    rig.media.know_bad(bad, 64);
    rig.start();
    only_lost(page, page, "with two versions in the log");
}

// Every page of the namespace in turn, in a cache with clean and dirty data, where a block write
// clears poison and where it does not: the cache starts, and what is not dirty reads as it must.
class EveryPage : public testing::TestWithParam<bool>
{
};

TEST_P(EveryPage, OneBadBlockAnywhereDoesNotStopTheCache)
{
    std::mt19937_64 rng(7);
    Rig first(geometry.min_segments, 1u << 20);
    first.start();
    for (int i = 0; i < 32; i++)
        first.write_pattern(rng() % (first.model.size() / page) * page, page);
    ASSERT_EQ(first.flush(), 0);
    for (int i = 0; i < 4000 && first.backing.image() != first.model; i++)
        std::this_thread::sleep_for(5ms);
    first.backing.set_hook([](Op op, u64, u64) { return op == Op::write ? -5 : 0; });
    for (int i = 0; i < 24; i++)
        first.write_pattern(rng() % (first.model.size() / page) * page, page);
    first.remove();
    const Image media = first.media.image(), backing = first.backing.image();
    const Image model = first.model;
    first.backing.set_hook(nullptr);
    first.media.set_repairable(GetParam());
    u64 refused = 0;
    for (u64 at = 0; at < media.size(); at += page) {
        if (!GetParam() && at > segment_offset({3}) && at < media.size() - 8 * page &&
            at % (3 * page)) // the segments are alike
            continue;
        first.media.cure();
        first.media.load(media);
        first.backing.load(backing);
        first.media.know_bad(at, page);
        first.world.clear_log();
        // What the log has lost behind dirty_tail is damage, and for read_only's tests to judge.
        if (first.create() != 0) {
            refused += first.sentence.empty() ? 100 : 1;
            std::printf("page %llu: %s\n", ull{at / page}, first.sentence.c_str());
            continue;
        }
        if (first.resume() != 0 || first.status().ends_with(" ro")) {
            refused++;
            std::printf("page %llu: %s %s\n", ull{at / page}, first.status().c_str(),
                        first.last_error().c_str());
            first.remove();
            continue;
        }
        u64 bad = 0;
        for (u64 s = 0; s < model.size(); s += page) {
            Bio bio(page);
            const pc_verdict v = first.map(bio, {PC_READ, s, bio.size(), 0, 0});
            if (v == PC_REMAP)
                first.backing.read(s, bio.data(), bio.size());
            else if (v == PC_TAKEN && bio.wait() == -5)
                bad++;
            ASSERT_TRUE(v != PC_FAIL) << "page " << at / page;
            if (v == PC_REMAP || bio.wait() == 0) {
                ASSERT_FALSE(std::memcmp(bio.data(), &model[s], bio.size()))
                    << "bad page " << at / page << ", sector " << s / sector << " is "
                    << Rig::tag(bio.data()) << ", must be " << Rig::tag(&model[s]);
            }
        }
        EXPECT_LE(bad, 1u) << "page " << at / page << ": one bad block cost more than its bytes";
        first.remove();
    }
    first.media.cure();
    // The log's pages behind dirty_tail; and, where nothing can be rewritten, the tails'.
    EXPECT_LE(refused, GetParam() ? 2u : 3u);
}
INSTANTIATE_TEST_SUITE_P(Repair, EveryPage, testing::Values(true, false),
                         [](const auto &i) { return i.param ? "Repairable" : "NotRepairable"; });
#endif

} // namespace
