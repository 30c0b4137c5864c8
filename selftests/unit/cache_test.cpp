// SPDX-License-Identifier: GPL-2.0
// Tests of the whole engine behind face.h: what is written is read, through removal, power cuts,
// full caches and many threads. One property a test, named after it.
#include "rig.hpp"
#include <thread>

using namespace pcache::selftest;
using pcache::format::geometry;

namespace
{
// Random writes of 512 B to 64 KiB, some FUA, some followed by a FLUSH.
void scribble(Rig &rig, std::mt19937_64 &rng, unsigned writes)
{
    for (unsigned i = 0; i < writes; i++) {
        const u64 sectors = 1 + rng() % (rng() % 4 ? 8 : 128);
        const u64 at = rng() % (rig.model.size() / sector - sectors);
        rig.write_pattern(at * sector, sectors * sector, rng() % 16 == 0);
        if (rng() % 32 == 0) {
            ASSERT_EQ(rig.flush(), 0);
        }
    }
}
} // namespace

TEST(Cache, FreshCacheReadsAsTheBackingDevice)
{
    Rig rig;
    rig.model = Rig::pattern(0, rig.model.size(), 7);
    rig.backing.load(rig.model);
    rig.start();
    rig.check("fresh");
}

TEST(Cache, WhatIsWrittenIsRead)
{
    Rig rig;
    std::mt19937_64 rng(1);
    rig.start();
    scribble(rig, rng, 300);
    rig.check("after writing");
}

TEST(Cache, DirtyDataSurvivesRemoval)
{
    Rig rig;
    std::mt19937_64 rng(2);
    for (int life = 0; life < 4; life++) {
        rig.start();
        rig.check("at the beginning of a life");
        scribble(rig, rng, 100);
        rig.check("at its end");
        rig.remove();
    }
    rig.start();
    rig.check("at last");
}

TEST(Cache, SuspendAndResumeKeepTheIndex)
{
    Rig rig;
    std::mt19937_64 rng(3);
    rig.start();
    for (int i = 0; i < 4; i++) {
        scribble(rig, rng, 50);
        rig.suspend();
        ASSERT_EQ(rig.resume(), 0) << rig.last_error();
        rig.check("after a resume");
    }
    rig.remove();
    rig.start();
    rig.check("after sessions of one life");
}

TEST(Cache, FullCacheGoesOnAndLosesNothing)
{
    Rig rig(geometry.min_segments, small_world ? 4u << 20 : 640u << 20);
    std::mt19937_64 rng(4);
    rig.start();
    // Three times what the cache holds.
    const u64 cache = u64{geometry.min_segments} * pcache::format::data_bytes;
    const u64 piece = small_world ? 16u << 10 : 1u << 20;
    for (u64 written = 0; written < 3 * cache; written += piece) {
        const u64 at = rng() % ((rig.model.size() - piece) / sector) * sector;
        rig.write_pattern(at, piece);
    }
    rig.check("after three times its size");
    rig.remove();
    rig.start();
    rig.check("after removal");
}

TEST(Cache, FlushedDataSurvivesAPowerCut)
{
    Rig rig;
    std::mt19937_64 rng(5);
    rig.media.set_power_model(true);
    rig.backing.set_write_cache(true);
    for (int life = 0; life < 8; life++) {
        rig.start();
        rig.check("after a cut");
        scribble(rig, rng, 60);
        ASSERT_EQ(rig.flush(), 0);
        rig.power_cut(rng);
    }
    rig.start();
    rig.check("at last");
}

TEST(Cache, ManyThreadsOnTheirOwnRanges)
{
    Rig rig(2 * geometry.min_segments, 16u << 20);
    rig.start();
    constexpr unsigned threads = 4;
    const u64 share = rig.model.size() / threads;
    std::vector<std::thread> all;
    for (unsigned t = 0; t < threads; t++)
        all.emplace_back([&, t] {
            const OnCpu cpu(t);
            std::mt19937_64 rng(100 + t);
            for (unsigned i = 0; i < 400; i++) {
                const u64 n = (1 + rng() % 16) * sector;
                const u64 at = t * share + rng() % ((share - n) / sector) * sector;
                const Image d = Rig::pattern(at, n, (u64{t} << 32) + i);
                std::memcpy(&rig.model[at], d.data(), n);
                ASSERT_EQ(rig.try_write(at, d, rng() % 16 == 0), 0);
                if (rng() % 8 == 0) {
                    ASSERT_EQ(rig.flush(), 0);
                }
                if (rng() % 4 == 0) {
                    ASSERT_EQ(rig.read(at, n), d);
                }
            }
        });
    for (std::thread &t : all)
        t.join();
    rig.check("after the threads");
    rig.remove();
    rig.start();
    rig.check("after removal");
}

TEST(Cache, IdleCacheWritesBackByItself)
{
    Rig rig;
    rig.start();
    rig.write_pattern(0, 64u << 10);
    ASSERT_EQ(rig.flush(), 0);
    for (int i = 0; i < 500 && rig.backing.image() != rig.model; i++)
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    EXPECT_TRUE(rig.backing.image() == rig.model) << "5 s of idleness, and it is still dirty";
}
