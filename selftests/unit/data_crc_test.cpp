// SPDX-License-Identifier: GPL-2.0
// selftests/unit/data_crc_test.cpp - data_crc behind face.h: what is written is read through cuts,
// removals and power cuts; a changed byte of media is never handed out; the crc is that of what was
// stored, whatever the bio's owner does; options that contradict the media are refused.
#include <algorithm>
#include <thread>
#include "rig.hpp"

using namespace pcache::selftest;
using pcache::format::geometry;
using namespace std::chrono_literals;

namespace
{

void start(Rig &rig, std::vector<std::string> options = {"2", "data_crc", "true"})
{
    ASSERT_EQ(rig.create(std::move(options)), 0) << rig.sentence;
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
}

// Of 512 B to 1 MiB; most of them cut keys of earlier ones.
void scribble(Rig &rig, std::mt19937_64 &rng, unsigned writes, u64 longest = 2048)
{
    for (unsigned i = 0; i < writes; i++) {
        const u64 sizes[] = {8, 8, 64, 256, longest};
        const u64 sectors = 1 + rng() % sizes[rng() % 5];
        const u64 at = rng() % (rig.model.size() / sector - sectors);
        rig.write_pattern(at * sector, sectors * sector, rng() % 16 == 0);
        if (rng() % 32 == 0) {
            ASSERT_EQ(rig.flush(), 0);
        }
    }
}

int try_read(Rig &rig, u64 offset, u32 bytes)
{
    Bio bio(bytes);
    const pc_io io{PC_READ, offset, bytes, 0, 0};
    return rig.map(bio, io) == PC_TAKEN ? bio.wait() : 1;
}

#ifdef PCACHE_SMALL_GEOMETRY // whole images: the real size is the guests' business
// Where the newest data of this sector lies on media: it says so itself. Nobody stores meanwhile.
u64 find_on_media(Rig &rig, u64 offset)
{
    const u64 at = rig.media.find(&rig.model[offset], sector, 0x8000, sector);
    EXPECT_LT(at, rig.media.bytes()) << "sector " << offset / sector << " is not on media";
    return at;
}

u64 on_media(Rig &rig, u64 offset)
{
    rig.suspend();
    const u64 at = find_on_media(rig, offset);
    EXPECT_EQ(rig.resume(), 0) << rig.last_error();
    return at;
}

// Of that sector's newest data, so many bytes behind its beginning. While the device is suspended,
// so that nobody reads it at that moment and write-back does not come first.
void change_a_bit(Rig &rig, u64 offset, u64 behind)
{
    rig.suspend();
    const u64 at = find_on_media(rig, offset) + behind;
    u8 byte;
    rig.media.read(at, &byte, 1);
    byte ^= 4;
    rig.media.write(at, &byte, 1);
    EXPECT_EQ(rig.resume(), 0) << rig.last_error();
}

bool drained(Rig &rig)
{
    for (int i = 0; i < 2000 && rig.backing.image() != rig.model; i++)
        std::this_thread::sleep_for(10ms);
    return rig.backing.image() == rig.model;
}
#endif

} // namespace

TEST(DataCrc, WhatIsWrittenIsReadOverManyLives)
{
    Rig rig;
    std::mt19937_64 rng(1);
    start(rig);
    for (int life = 0; life < 3; life++) {
        scribble(rig, rng, 100);
        rig.check("in a life");
        rig.remove();
        start(rig, {});
        rig.check("in the next one");
    }
    EXPECT_NE(rig.status(1).find("data_crc true"), std::string::npos) << rig.status(1);
}

#ifdef PCACHE_SMALL_GEOMETRY
TEST(DataCrc, FlushedDataSurvivesAPowerCut)
{
    Rig rig;
    std::mt19937_64 rng(5);
    rig.media.set_power_model(true);
    rig.backing.set_write_cache(true);
    start(rig);
    for (int life = 0; life < 6; life++) {
        scribble(rig, rng, 40, 64);
        ASSERT_EQ(rig.flush(), 0);
        rig.power_cut(rng);
        start(rig, {});
        rig.check("after a cut");
    }
}

// Long after the first keys were passed: what GC passes leaves the index of checksums, too.
TEST(DataCrc, CacheWrittenManyTimesOverNeedsNoMoreMemoryThanOnce)
{
    Rig rig;
    std::mt19937_64 rng(6);
    start(rig);
    const u64 cache = u64{geometry.min_segments} * pcache::format::data_bytes;
    const auto fill = [&](u64 times) {
        for (u64 written = 0; written < times * cache; written += 4096)
            rig.write_pattern(rng() % (rig.model.size() / 4096) * 4096, 4096);
        return Memory::live_bytes();
    };
    const u64 before = fill(3);
    const u64 after = fill(60);
    EXPECT_LT(after, before + 60 * cache / 4096 * 12 / 4) << "checksums of passed keys stay";
    rig.check("at last");
}

TEST(DataCrc, ChangedBitInDirtyDataIsAnErrorOfThatKeyAlone)
{
    Rig rig(4 * geometry.min_segments);
    start(rig);
    // Fails rather than stands still, which in so small a cache holds up writes (pacing).
    rig.backing.set_hook([](Op op, u64, u64) { return op == Op::write ? -5 : 0; });
    rig.write_pattern(0, 256u << 10);
    const u64 bad = 100 * sector;
    change_a_bit(rig, bad, 77);
    EXPECT_EQ(try_read(rig, bad, 512), -5) << "a byte that nobody wrote was handed out";
    const u64 key = bad / (16u << 10) * (16u << 10);
    EXPECT_EQ(try_read(rig, key, 4096), -5) << "a key is verified as a whole";
    EXPECT_EQ(try_read(rig, key + (16u << 10), 4096), 0);
    EXPECT_EQ(try_read(rig, key - 4096, 4096), 0);
    // A new write heals what it covers.
    rig.write_pattern(bad, 512);
    EXPECT_EQ(rig.read(bad, 512),
              Image(rig.model.begin() + long(bad), rig.model.begin() + long(bad) + 512));
    rig.backing.set_hook(nullptr);
}

TEST(DataCrc, ChangedBitInDirtyDataIsNotWrittenBackAndAllElseIs)
{
    Rig rig;
    start(rig);
    rig.write_pattern(0, 64u << 10);
    const u64 bad = 40 * sector, key = 32 * sector, key_bytes = 16u << 10;
    change_a_bit(rig, bad, 0);
    ASSERT_EQ(rig.flush(), 0);
    Image wanted = rig.model;
    std::fill(wanted.begin() + key, wanted.begin() + key + key_bytes, u8{0});
    for (int i = 0; i < 2000 && rig.backing.image() != wanted; i++)
        std::this_thread::sleep_for(10ms);
    EXPECT_TRUE(rig.backing.image() == wanted)
        << "the backing device got what nobody wrote, or not all of the rest";
    EXPECT_TRUE(rig.world.said("dirty data cannot be read"));
    // It is lost, in the next life too, until it is written anew.
    rig.remove();
    start(rig, {});
    EXPECT_EQ(try_read(rig, key, 512), -5) << "old data of the backing device was taken for it";
    EXPECT_EQ(try_read(rig, key - 512, 512), 0);
    rig.write_pattern(key, key_bytes);
    rig.check("healed");
    EXPECT_TRUE(drained(rig));
}

TEST(DataCrc, ChangedBitInCleanDataIsReadFromTheBackingDevice)
{
    Rig rig(2 * geometry.min_segments); // nothing is evicted
    start(rig);
    rig.write_pattern(0, 256u << 10);
    ASSERT_TRUE(drained(rig));
    const u64 bad = 100 * sector;
    change_a_bit(rig, bad, 300);
    rig.check("with a changed bit");
    EXPECT_TRUE(rig.world.said("come from the backing device"));
    rig.check("again");
    rig.remove();
    start(rig, {});
    rig.check("in the next life");
}

// What a read miss has put into the cache has its sum, too.
TEST(DataCrc, ChangedBitInWhatAReadMissCachedIsReadFromTheBackingDevice)
{
    Rig rig(2 * geometry.min_segments);
    rig.model = Rig::pattern(0, rig.model.size(), 7);
    rig.backing.load(rig.model);
    start(rig);
    const auto reads = [&] { return rig.backing.counters().reads; };
    const u64 offset = 8 * sector;
    const u32 bytes = 48u << 10;
    const Image wanted(rig.model.begin() + long(offset), rig.model.begin() + long(offset) + bytes);
    for (u64 before = ~u64{0}; before != reads();) { // until it is a hit
        before = reads();
        ASSERT_EQ(rig.read(offset, bytes), wanted);
        std::this_thread::sleep_for(20ms);
    }
    change_a_bit(rig, offset + 20 * sector, 0);
    EXPECT_EQ(rig.read(offset, bytes), wanted);
    EXPECT_TRUE(rig.world.said("come from the backing device"));
}

// A key on a page that is known to be bad is not summed at all: the World reports a load from
// there.
TEST(DataCrc, NothingIsLoadedForAKeyOnAPageKnownToBeBad)
{
    for (const bool dirty : {true, false}) {
        Rig rig(2 * geometry.min_segments);
        start(rig);
        if (dirty)
            rig.backing.set_hook([](Op op, u64, u64) { return op == Op::write ? -5 : 0; });
        rig.write_pattern(0, 64u << 10);
        ASSERT_EQ(rig.flush(), 0);
        ASSERT_TRUE(dirty || drained(rig));
        const u64 at = on_media(rig, 40 * sector);
        rig.remove();
        rig.backing.set_hook(nullptr);
        rig.media.poison(at, 64);
        rig.media.know_bad(at / 4096 * 4096, 4096);
        start(rig, {});
        for (u64 s = 0; s < 128; s++)
            EXPECT_EQ(try_read(rig, s * sector, 512) == -5, dirty && s >= 32 && s < 64)
                << "sector " << s << (dirty ? ", dirty" : ", clean");
        if (dirty)
            rig.write_pattern(0, 64u << 10);
        rig.check("healed");
        EXPECT_TRUE(drained(rig));
    }
}
#endif

// The pages of a bio belong to its owner, who may change them at any time.
TEST(DataCrc, OwnerWhoChangesPagesMeanwhileNeverMakesABadCrc)
{
    Rig rig;
    start(rig);
    for (const u32 bytes : {512u, 4096u, 16384u, 49152u}) {
        Bio bio(Rig::pattern(0, bytes, 1));
        u32 turn = 0;
        bio.on_read([&] {
            for (u32 i = 0; i < bytes; i += 64)
                bio.data()[i] = static_cast<u8>(turn + i);
            turn++;
        });
        ASSERT_EQ(rig.map(bio, {PC_WRITE, 0, bytes, 0, 0}), PC_TAKEN);
        ASSERT_EQ(bio.wait(), 0);
        EXPECT_GT(turn, 0u);
        EXPECT_EQ(try_read(rig, 0, bytes), 0) << bytes << " bytes";
    }
}

TEST(DataCrc, ManyThreadsWithLongWrites)
{
    Rig rig(2 * geometry.min_segments, 16u << 20);
    start(rig);
    constexpr unsigned threads = 6;
    const u64 share = rig.model.size() / threads / sector * sector;
    std::vector<std::thread> all;
    for (unsigned t = 0; t < threads; t++)
        all.emplace_back([&, t] {
            const OnCpu cpu(t);
            std::mt19937_64 rng(100 + t);
            for (unsigned i = 0; i < (small_world ? 20 : 4); i++) {
                const u64 n = (1 + rng() % (share / sector / 8)) * sector;
                const u64 at = t * share + rng() % ((share - n) / sector) * sector;
                const Image d = Rig::pattern(at, n, (u64{t} << 32) + i);
                std::memcpy(&rig.model[at], d.data(), n);
                ASSERT_EQ(rig.try_write(at, d, rng() % 16 == 0), 0);
                ASSERT_EQ(rig.read(at, n), d);
            }
        });
    for (std::thread &t : all)
        t.join();
    rig.check("after the threads");
    rig.remove();
    start(rig, {});
    rig.check("after removal");
}

#ifdef PCACHE_SMALL_GEOMETRY // compares whole images
TEST(DataCrc, WrittenBackCacheEqualsTheBackingDevice)
{
    Rig rig;
    std::mt19937_64 rng(8);
    start(rig);
    scribble(rig, rng, 60);
    EXPECT_TRUE(drained(rig));
}

TEST(DataCrc, OptionThatContradictsTheMediaIsRefused)
{
    for (const bool made_with : {true, false}) {
        const char *const is = made_with ? "true" : "false", *const other =
                                                                 made_with ? "false" : "true";
        Rig rig;
        start(rig, {"2", "data_crc", is});
        EXPECT_NE(rig.status().find(made_with ? " 1183 " : " 1182 "), std::string::npos)
            << rig.status();
        EXPECT_EQ(rig.status(1),
                  std::string("cache backing 4 cache_mode writeback data_crc ") + is);
        EXPECT_NE(rig.status(2).find(std::string("data_crc=") + is), std::string::npos);
        rig.write_pattern(0, 4096);
        // A reload of the running cache.
        pc_target *const running = rig.target;
        pc_table *const table = rig.table;
        EXPECT_EQ(rig.create({"2", "crc", other}), -22);
        EXPECT_NE(rig.sentence.find(std::string("made with data_crc ") + is), std::string::npos)
            << rig.sentence;
        rig.world.drop_table(rig.table);
        rig.target = running;
        rig.table = table;
        rig.remove();
        const Image before = rig.media.image();
        EXPECT_EQ(rig.create({"2", "data_crc", other}), -22);
        EXPECT_NE(rig.sentence.find(std::string("made with data_crc ") + is), std::string::npos);
        rig.world.drop_table(rig.table);
        EXPECT_TRUE(rig.media.image() == before) << "a refused table has stored something";
        start(rig, {"2", "crc", is});
        rig.check("opened with what it was made with");
    }
}
#endif

TEST(DataCrc, LeftOutItIsFalseForANewCache)
{
    Rig rig;
    start(rig, {});
    EXPECT_EQ(rig.status(1), "cache backing 4 cache_mode writeback data_crc false");
    EXPECT_NE(rig.status().find(" 1182 "), std::string::npos) << rig.status();
}
