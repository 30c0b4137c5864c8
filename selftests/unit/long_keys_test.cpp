// SPDX-License-Identifier: GPL-2.0
// Tests of data_crc over keys longer than ours, as mainline's driver writes them (1 MiB and more),
// that were overwritten in many places: what a read costs in sums, who pays for it, and that what
// is handed out is right all the same.
#include <atomic>
#include <thread>
#include "dm-pcache/engine/limits.hpp"
#include "mainline_media.hpp"
#include "rig.hpp"

using namespace pcache::selftest;
using pcache::engine::summed_bytes_per_read;
using pcache::format::geometry;
using namespace std::chrono_literals;

namespace
{

// In the small geometry as long as a segment allows, one in each range.
constexpr u32 key_bytes = small_world ? 48u << 10 : 1u << 20;
constexpr u32 stride = small_world ? geometry.range_bytes : key_bytes;
static_assert(key_bytes > summed_bytes_per_read);
constexpr u32 whole_cache = small_world ? 12 : 14; // keys

class LongKeys : public testing::Test
{
protected:
    Rig rig{small_world ? 8 * geometry.min_segments : geometry.min_segments,
            small_world ? u64{4} << 20 : u64{16} << 20};
    std::mt19937_64 rng{1};
    std::vector<u64> at; // of each key's data on the cache device

    // `keys` keys that the backing device holds as well, or not; the device is up.
    void start(u32 keys, bool clean = true)
    {
        MainlineMedia media(rig.media,
                            small_world ? 8 * geometry.min_segments : geometry.min_segments, true);
        rig.model = Rig::pattern(0, rig.model.size(), 0);
        rig.backing.load(rig.model);
        for (u32 i = 0; i < keys; i++) {
            const Image data = Rig::pattern(u64{i} * stride, key_bytes, clean ? 0 : 1);
            std::memcpy(&rig.model[u64{i} * stride], data.data(), data.size());
            at.push_back(
                media.add_key(u64{i} * stride, data, clean ? pcache::format::key_clean : 0));
        }
        media.end_log();
        again();
    }
    void again()
    {
        ASSERT_EQ(rig.create(), 0) << rig.sentence;
        ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    }
    // 228 writes of one or two sectors for each MiB of keys.
    void cut_up(u32 keys)
    {
        rig.version = 10;
        const u64 writes = u64{keys} * key_bytes * 228 >> 20;
        for (u64 i = 0; i < writes; i++) {
            const u64 bytes = (1 + rng() % 2) * sector;
            const u64 in_key = rng() % ((key_bytes - bytes) / sector) * sector;
            rig.write_pattern(rng() % keys * stride + in_key, bytes);
        }
        ASSERT_EQ(rig.flush(), 0);
    }
    void change_a_bit(u64 media_offset)
    {
        u8 byte;
        rig.media.read(media_offset, &byte, 1);
        byte ^= 16;
        rig.media.write(media_offset, &byte, 1);
    }
    int try_read(u64 offset, u32 bytes, bool nowait = false)
    {
        Bio bio(bytes);
        return rig.map(bio, {PC_READ, offset, bytes, 0, nowait}) == PC_TAKEN ? bio.wait() : 1;
    }
};

} // namespace

// The input that showed it: 94 bytes were summed for each one read, and 117 MiB for one of the
// reads.
TEST_F(LongKeys, AReadSumsEachKeyOnce)
{
    start(whole_cache);
    cut_up(whole_cache);
    for (int i = 0; i < 2000 && rig.backing.image() != rig.model; i++)
        std::this_thread::sleep_for(10ms);
    rig.suspend(); // nothing else sums from here on
    ASSERT_EQ(rig.resume(), 0);
    const u64 before = bytes_summed(), reads = rig.backing.counters().reads;
    u64 worst = 0;
    for (u32 i = 0; i < whole_cache; i++) {
        const u64 begin = bytes_summed();
        const Image got = rig.read(u64{i} * stride, key_bytes);
        ASSERT_EQ(std::memcmp(got.data(), &rig.model[u64{i} * stride], key_bytes), 0)
            << "key " << i;
        worst = std::max(worst, bytes_summed() - begin);
    }
    EXPECT_LE((bytes_summed() - before) * 10, u64{whole_cache} * key_bytes * 13);
    EXPECT_LE(worst, 2 * u64{key_bytes});
    EXPECT_EQ(rig.backing.counters().reads, reads) << "it was not the cache that was read";
}

TEST_F(LongKeys, WhatWasCutUpReadsTheSameInTheNextLife)
{
    start(4);
    cut_up(4);
    rig.remove();
    again();
    rig.check("in the next life");
}

TEST_F(LongKeys, MapSumsNoMoreThanItMay)
{
    start(2);
    cut_up(2);
    for (const u32 bytes : {512u, 4096u, key_bytes / 2, key_bytes}) {
        for (u32 i = 0; i < 64; i++) {
            const u64 offset = rng() % ((key_bytes - bytes) / sector + 1) * sector;
            Bio bio(bytes);
            const u64 before = bytes_summed_here();
            const pc_verdict v = rig.map(bio, {PC_READ, offset, bytes, 0, 0});
            EXPECT_LE(bytes_summed_here() - before, summed_bytes_per_read);
            ASSERT_EQ(v, PC_TAKEN);
            ASSERT_EQ(bio.wait(), 0);
            EXPECT_EQ(std::memcmp(bio.data(), &rig.model[offset], bio.size()), 0);
        }
    }
}

TEST_F(LongKeys, ANowaitReadThatWouldGoToAWorkerEndsWithAgain)
{
    start(1);
    EXPECT_EQ(try_read(0, 4096, true), -11);
    EXPECT_EQ(try_read(0, 4096, false), 0);
    rig.write_pattern(0, 4096);
    EXPECT_EQ(try_read(0, 4096, true), 0) << "a key of our own is summed in map()";
}

TEST_F(LongKeys, AChangedBitOfALongCleanKeyIsReadFromTheBackingDevice)
{
    start(2);
    cut_up(2);
    rig.suspend();
    change_a_bit(at[0] + key_bytes -
                 100); // what was read before the sum was known counts for nothing
    ASSERT_EQ(rig.resume(), 0);
    rig.check("with a changed bit");
    EXPECT_TRUE(rig.world.said("come from the backing device"));
}

TEST_F(LongKeys, AChangedBitOfALongDirtyKeyIsAnError)
{
    start(1, false);
    rig.backing.set_hook([](Op op, u64, u64) { return op == Op::write ? -5 : 0; });
    rig.write_pattern(4096, 512);
    rig.suspend();
    change_a_bit(at[0] + key_bytes - 100);
    ASSERT_EQ(rig.resume(), 0);
    EXPECT_EQ(try_read(0, 4096), -5);
    EXPECT_EQ(try_read(0, key_bytes), -5);
    EXPECT_EQ(try_read(4096, 512), 0) << "what was written over it is fine";
    rig.backing.set_hook(nullptr);
}

// A clean key inside of a long one went bad, and left a hole.
TEST_F(LongKeys, HolesInsideOfALongKeyAreReadFromTheBackingDevice)
{
    start(1);
    cut_up(1);
    for (int i = 0; i < 2000 && rig.backing.image() != rig.model; i++)
        std::this_thread::sleep_for(10ms);
    rig.suspend();
    u32 changed = 0;
    for (u64 s = sector; s + sector < key_bytes && changed < 5; s += sector) {
        u64 version;
        std::memcpy(&version, &rig.model[s + 8], 8);
        if (version <= 10)
            continue;
        const u64 place = rig.media.find(&rig.model[s], sector, 0x8000, sector);
        if (place >= rig.media.bytes())
            continue;
        change_a_bit(place + 99);
        changed++;
    }
    ASSERT_EQ(changed, 5u);
    ASSERT_EQ(rig.resume(), 0);
    rig.check("the first time");
    const u64 before = bytes_summed();
    const Image got = rig.read(0, key_bytes);
    EXPECT_EQ(std::memcmp(got.data(), &rig.model[0], key_bytes), 0);
    EXPECT_LE(bytes_summed() - before, 2 * u64{key_bytes});
}

// Old and new of a sector, never a mixture, while the pieces change under the worker's eyes.
TEST_F(LongKeys, ReadsBesideOverwritesAreOfOneWritePerSector)
{
    start(2);
    std::atomic<bool> stop{false};
    std::thread writer([&] {
        const OnCpu cpu(1);
        std::mt19937_64 r(7);
        for (u64 v = 100; !stop; v++) {
            const u64 offset = r() % (key_bytes / sector - 4) * sector;
            ASSERT_EQ(rig.try_write(offset, Rig::pattern(offset, (1 + r() % 4) * sector, v)), 0);
        }
    });
    for (int i = 0; i < 40; i++) {
        const Image got = rig.read(0, key_bytes);
        for (u64 s = 0; s < key_bytes; s += sector) {
            u64 v;
            std::memcpy(&v, &got[s + 8], 8);
            const Image wanted = Rig::pattern(s, sector, v);
            ASSERT_EQ(std::memcmp(&got[s], wanted.data(), sector), 0) << "sector " << s / sector;
        }
    }
    stop = true;
    writer.join();
}

// One record: a long key, and five short ones that cut it in six. A record is one batch.
TEST_F(LongKeys, WriteBackSumsEachKeyOnce)
{
    MainlineMedia media(rig.media, small_world ? 8 * geometry.min_segments : geometry.min_segments,
                        true);
    const auto add = [&](u64 offset, u32 bytes, u64 version) {
        const Image data = Rig::pattern(offset, bytes, version);
        std::memcpy(&rig.model[offset], data.data(), bytes);
        media.add_key(offset, data, 0);
    };
    rig.backing.load(rig.model);
    add(0, key_bytes, 1);
    for (u64 i = 1; i <= 5; i++)
        add(i * key_bytes / 8, sector, 1 + i);
    media.end_log();
    const u64 before = bytes_summed();
    again();
    const u64 recovered = bytes_summed();
    for (int i = 0; i < 2000 && rig.backing.image() != rig.model; i++)
        std::this_thread::sleep_for(10ms);
    EXPECT_TRUE(rig.backing.image() == rig.model);
    EXPECT_LE(bytes_summed() - before, 3 * u64{key_bytes}) << recovered - before << " by recovery";
}
