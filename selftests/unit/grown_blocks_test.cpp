// SPDX-License-Identifier: GPL-2.0
// Tests of a backing device that comes back with larger logical blocks: what is cached in whole
// blocks is served, other clean data is read from the device, and other dirty data refuses it.
#include <thread>
#include "mainline_media.hpp"
#include "rig.hpp"

using namespace pcache::selftest;
using pcache::format::geometry;
using namespace std::chrono_literals;

namespace
{

constexpr u32 block = 4096;

class GrownBlocks : public testing::TestWithParam<bool>
{
protected:
    Rig rig{4 * geometry.min_segments, 2u << 20};
    std::mt19937_64 rng{3};

    void start()
    {
        ASSERT_EQ(rig.create({"2", "data_crc", GetParam() ? "true" : "false"}), 0) << rig.sentence;
        ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    }
    // Whole blocks, over some of them writes of one sector and more, and whole blocks elsewhere. In
    // all less than what GC begins at.
    void scribble()
    {
        rig.write_pattern(0, 256u << 10);
        for (int i = 0; i < 60; i++) {
            const u64 n = 1 + rng() % 20, at = rng() % (512 - n);
            rig.write_pattern(at * sector, n * sector);
        }
        rig.write_pattern(1u << 20, 256u << 10);
        ASSERT_EQ(rig.flush(), 0);
    }
    bool drain()
    {
        const auto field = [&](unsigned n) {
            std::string s = rig.status() + " ";
            for (; n > 1; n--)
                s = s.substr(s.find(' ') + 1);
            return s.substr(0, s.find(' '));
        };
        for (int i = 0; i < 2000 && field(7) != field(8); i++)
            std::this_thread::sleep_for(10ms);
        return field(7) == field(8);
    }
    // Block by block and in long reads; what goes to the device goes in whole blocks.
    void check(const char *when)
    {
        for (const u32 step : {block, 64u << 10})
            for (u64 at = 0; at < rig.model.size();) {
                // Device-mapper cuts at multiples of the range.
                const u32 n = step - static_cast<u32>(at % step);
                Bio bio(n);
                const pc_verdict v = rig.map(bio, {PC_READ, at, n, 0, 0});
                ASSERT_EQ(bio.size() % block, 0u) << when << ": the read at " << at / sector
                                                  << " is cut inside a block, verdict " << v;
                if (v == PC_REMAP)
                    rig.backing.read(at, bio.data(), bio.size());
                else if (v != PC_TAKEN || bio.wait() != 0)
                    FAIL() << when << ": block " << at / block << " cannot be read";
                ASSERT_EQ(std::memcmp(bio.data(), &rig.model[at], bio.size()), 0)
                    << when << ": block " << at / block;
                at += bio.size();
            }
    }
    // What mainline's driver has left: whole blocks, and in the middle of one a bad line.
    void make_blocks_with_a_bad_line(bool clean)
    {
        MainlineMedia media(rig.media, 4 * geometry.min_segments, GetParam());
        rig.model = Rig::pattern(0, rig.model.size(), 0);
        rig.backing.load(rig.model);
        for (u64 at = 0; at < 4 * block; at += block) {
            const Image data = Rig::pattern(at, block, 1);
            std::memcpy(&rig.model[at], data.data(), block);
            const u64 place = media.add_key(at, data, 0);
            if (at == 2 * block)
                rig.media.poison(place + 2 * sector, sector);
        }
        media.end_log();
        if (clean) {
            rig.backing.load(rig.model);
            media.all_clean();
        }
        rig.backing.set_logical_block(block);
    }
    // Written here, drained or not; then a line in its middle goes bad, and is read.
    void make_one_block_and_spoil_its_line(bool clean)
    {
        if (!clean)
            rig.backing.set_hook([](Op op, u64, u64) { return op == Op::write ? -5 : 0; });
        rig.write_pattern(0, 2 * block);
        ASSERT_EQ(rig.flush(), 0);
        ASSERT_TRUE(!clean || drain());
        const u64 at = rig.media.find(&rig.model[2 * sector], 16,
                                      pcache::format::first_segment_offset, sector);
        ASSERT_LT(at, rig.media.bytes());
        rig.media.poison(at, 64);
        Bio bio(sector);
        const pc_verdict v = rig.map(bio, {PC_READ, 2 * sector, sector, 0, 0});
        EXPECT_EQ(v == PC_TAKEN ? bio.wait() : 0, clean ? 0 : -5);
    }
    bool hit(u64 offset)
    {
        Bio bio(block);
        return rig.map(bio, {PC_READ, offset, block, 0, 0}) == PC_TAKEN && bio.wait() == 0 &&
               bio.size() == block;
    }
};

} // namespace

TEST_P(GrownBlocks, CleanKeysThatAreNoWholeBlocksAreReadFromTheDeviceAfterACreate)
{
    start();
    scribble();
    ASSERT_TRUE(drain());
    rig.remove();
    rig.backing.set_logical_block(block);
    start();
    EXPECT_TRUE(rig.world.said("logical blocks of 4096 bytes"));
    const u64 reads = rig.backing.counters().reads;
    EXPECT_TRUE(hit(1u << 20)) << "a whole block is served from the cache";
    EXPECT_EQ(rig.backing.counters().reads, reads);
    check("after the create");
    for (int i = 0; i < 100; i++)
        rig.write_pattern(rng() % (rig.model.size() / block) * block, block);
    check("written over");
    rig.remove();
    start();
    check("in the next life");
}

TEST_P(GrownBlocks, CleanKeysThatAreNoWholeBlocksAreReadFromTheDeviceAfterAResume)
{
    start();
    scribble();
    ASSERT_TRUE(drain());
    rig.suspend();
    rig.backing.set_logical_block(block);
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    EXPECT_TRUE(rig.world.said("logical blocks of 4096 bytes"));
    EXPECT_TRUE(hit(1u << 20));
    check("after the resume");
    for (int i = 0; i < 100; i++)
        rig.write_pattern(rng() % (rig.model.size() / block) * block, block);
    check("written over");
}

// No key is ignored: a bad line has taken a part of a block out.
TEST_P(GrownBlocks, WhatABadLineLeftOfACleanBlockIsReadFromTheDevice)
{
    make_blocks_with_a_bad_line(true);
    start();
    check("after the create");
}

TEST_P(GrownBlocks, DirtyDataBesideALostLineIsNotTakenForClean)
{
    make_blocks_with_a_bad_line(false);
    rig.backing.set_hook([](Op op, u64, u64) { return op == Op::write ? -5 : 0; });
    start();
    Bio bio(block);
    EXPECT_EQ(rig.map(bio, {PC_READ, 2 * block, block, 0, 0}), PC_TAKEN);
    rig.remove();
    rig.backing.set_hook(nullptr);
}

// The line has gone bad while blocks were 512 bytes: what it took out is a sector, not a block.
TEST_P(GrownBlocks, WhatABadLineHasTakenOutOfACleanBlockAtRunTimeTakesTheBlockAtAResume)
{
    start();
    make_one_block_and_spoil_its_line(true);
    rig.suspend();
    rig.backing.set_logical_block(block);
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    check("after the resume");
}

TEST_P(GrownBlocks, DirtyDataBesideALineLostAtRunTimeIsNotTakenForCleanAtAResume)
{
    start();
    make_one_block_and_spoil_its_line(false);
    rig.suspend(true);
    rig.backing.set_logical_block(block);
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    for (const u64 at : {u64{0}, u64{block}}) { // the block, and a whole one
        Bio bio(block);
        ASSERT_EQ(rig.map(bio, {PC_READ, at, block, 0, 0}), PC_TAKEN) << "old data is read";
        if (bio.wait() == 0) {
            EXPECT_EQ(std::memcmp(bio.data(), &rig.model[at], bio.size()), 0) << at;
        }
    }
    rig.remove();
    rig.backing.set_hook(nullptr);
}

// Where the data lies on the cache device says nothing about the backing device's blocks.
TEST_P(GrownBlocks, ALineKnownToBeBadCostsOneBlockWhereverItsKeyLies)
{
    MainlineMedia media(rig.media, 4 * geometry.min_segments, GetParam());
    rig.model = Rig::pattern(0, rig.model.size(), 0);
    rig.backing.load(rig.model);
    media.add_key(1u << 20, Rig::pattern(1u << 20, 3 * sector, 0), pcache::format::key_clean);
    const Image data = Rig::pattern(0, 4 * block, 1);
    std::memcpy(&rig.model[0], data.data(), data.size());
    const u64 place = media.add_key(0, data, 0);
    media.end_log();
    rig.media.poison(place + 2 * block + sector, sector);
    rig.media.know_bad_units(place + 2 * block + sector, sector);
    rig.backing.set_logical_block(block);
    start();
    for (u64 i = 0; i < 4; i++) {
        Bio bio(block);
        ASSERT_EQ(rig.map(bio, {PC_READ, i * block, block, 0, 0}), PC_TAKEN);
        const bool lost = i == 2 || GetParam(); // with data_crc a key is read as a whole
        EXPECT_EQ(bio.wait(), lost ? -5 : 0) << "block " << i;
        if (!lost) {
            EXPECT_EQ(std::memcmp(bio.data(), &rig.model[i * block], block), 0) << "block " << i;
        }
    }
    std::this_thread::sleep_for(300ms); // what can be read goes to the device, in whole blocks
    rig.remove();
    rig.media.cure();
}

// Until GC has passed those keys: it takes their ghosts out, and nothing else.
TEST_P(GrownBlocks, GcPassesIgnoredKeys)
{
    start();
    scribble();
    ASSERT_TRUE(drain());
    rig.remove();
    rig.backing.set_logical_block(block);
    start();
    for (int i = 0; i < 3000; i++)
        rig.write_pattern(rng() % (rig.model.size() / block) * block, block);
    check("many times over");
    EXPECT_TRUE(drain());
}

TEST_P(GrownBlocks, DirtyKeysThatAreNoWholeBlocksRefuseACreateAndTheSentenceLeadsOn)
{
    start();
    rig.backing.set_hook([](Op op, u64, u64) { return op == Op::write ? -5 : 0; });
    scribble();
    rig.remove();
    rig.backing.set_hook(nullptr);
    rig.backing.set_logical_block(block);
    const Image before = rig.media.image();
    EXPECT_EQ(rig.create(), -22);
    for (const char *part : {"512 bytes", "4096 bytes", "loop device"})
        EXPECT_NE(rig.sentence.find(part), std::string::npos) << rig.sentence;
    rig.world.drop_table(rig.table);
    EXPECT_TRUE(rig.media.image() == before) << "a refused table has stored something";
    rig.backing.set_logical_block(512); // the loop device
    start();
    ASSERT_TRUE(drain());
    rig.remove();
    rig.backing.set_logical_block(block);
    start();
    check("after the sentence's way");
}

TEST_P(GrownBlocks, DirtyKeysThatAreNoWholeBlocksRefuseAResumeAndTheDeviceStaysSuspended)
{
    start();
    rig.backing.set_hook([](Op op, u64, u64) { return op == Op::write ? -5 : 0; });
    scribble();
    rig.suspend();
    rig.backing.set_hook(nullptr);
    rig.backing.set_logical_block(block);
    EXPECT_EQ(rig.resume(), -22);
    EXPECT_TRUE(rig.world.said("4096 bytes by now: put a loop device"));
    rig.backing.set_logical_block(512);
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    EXPECT_TRUE(drain());
    rig.check("with its old blocks again");
}

TEST_P(GrownBlocks, DirtyKeysOfWholeBlocksAreTaken)
{
    start();
    rig.backing.set_hook([](Op op, u64, u64) { return op == Op::write ? -5 : 0; });
    for (int i = 0; i < 50; i++)
        rig.write_pattern(rng() % (rig.model.size() / block) * block, block);
    rig.remove();
    rig.backing.set_hook(nullptr);
    rig.backing.set_logical_block(block);
    start();
    EXPECT_TRUE(drain());
    check("written back in the next life");
}

INSTANTIATE_TEST_SUITE_P(DataCrc, GrownBlocks, testing::Bool());
