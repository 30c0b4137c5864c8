// SPDX-License-Identifier: GPL-2.0
// Tests of the device-mapper face: table lines, life cycle, registry, status and messages, and that
// what is refused is refused with a sentence and touches nothing.
#include "rig.hpp"
#include "dm-pcache/target/table_line.hpp"

using namespace pcache::selftest;

namespace
{

struct BadLine {
    std::vector<std::string> words;
    const char *sentence;
};

void expect_refused(const BadLine &bad)
{
    std::vector<std::string> words = bad.words;
    std::vector<char *> argv;
    for (std::string &w : words)
        argv.push_back(w.data());
    static pcache::target::TableLine line;
    const char *sentence = nullptr;
    EXPECT_FALSE(ok(pcache::target::parse_table_line({argv.data(), argv.size()}, line, &sentence)))
        << bad.sentence;
    ASSERT_NE(sentence, nullptr);
    EXPECT_NE(std::string(sentence).find(bad.sentence), std::string::npos) << sentence;
}

} // namespace

TEST(TableLine, EveryWrongLineIsRefusedWithItsOwnSentence)
{
    World world;
    const BadLine lines[] = {
        {{}, "needs <cache_dev> <backing_dev>"},
        {{"a"}, "needs <cache_dev> <backing_dev>"},
        {{"", "b"}, "empty or longer"},
        {{"a", std::string(256, 'x')}, "empty or longer"},
        {{"a", "b", "x"}, "number of option words"},
        {{"a", "b", "-2"}, "number of option words"},
        {{"a", "b", "02"}, "number of option words"},
        {{"a", "b", "2"}, "fewer option words"},
        {{"a", "b", "2", "cache_mode"}, "fewer option words"},
        {{"a", "b", "1", "cache_mode"}, "no value"},
        {{"a", "b", "2", "cache_mode", "writeback", "x"}, "more words"},
        {{"a", "b", "0", "x"}, "more words"},
        {{"a", "b", "2", "cache_mode", "sideways"}, "cache_mode must be"},
        {{"a", "b", "2", "cache_mode", "writethrough"}, "writeback only"},
        {{"a", "b", "2", "data_crc", "yes"}, "data_crc must be"},
        {{"a", "b", "2", "data_crc", "True"}, "data_crc must be"},
        {{"a", "b", "2", "crc", ""}, "data_crc must be"},
        {{"a", "b", "2", "writeback_order", "fast"}, "writeback_order must be"},
        {{"a", "b", "2", "writeback_order", "relaxed"}, "strict only"},
        {{"a", "b", "2", "colour", "red"}, "unknown option"},
        {{"a", "b", "4", "data_crc", "false", "crc", "false"}, "given twice"},
    };
    for (const BadLine &bad : lines)
        expect_refused(bad);
}

TEST(TableLine, GoodLinesAreTaken)
{
    for (std::vector<std::string> words : {std::vector<std::string>{"a", "b"},
                                           {"a", "b", "0"},
                                           {"a", "b", "2", "cache_mode", "writeback"},
                                           {"a", "b", "6", "writeback_order", "strict", "crc",
                                            "false", "cache_mode", "writeback"}}) {
        std::vector<char *> argv;
        for (std::string &w : words)
            argv.push_back(w.data());
        static pcache::target::TableLine line;
        const char *sentence = nullptr;
        EXPECT_TRUE(
            ok(pcache::target::parse_table_line({argv.data(), argv.size()}, line, &sentence)));
        EXPECT_STREQ(line.cache, "a");
        EXPECT_STREQ(line.backing, "b");
    }
}

#ifdef PCACHE_SMALL_GEOMETRY // compares or copies whole images
TEST(Target, TableNeverResumedTouchesNothing)
{
    Rig rig;
    const Image before = rig.media.image();
    ASSERT_EQ(rig.create(), 0) << rig.sentence;
    EXPECT_EQ(rig.status(), "Inactive");
    rig.destroy();
    EXPECT_TRUE(rig.media.image() == before);
    EXPECT_EQ(rig.backing.counters().writes, 0u);
    EXPECT_EQ(rig.backing.counters().flushes, 0u);
}
#endif

TEST(Target, TableLongerThanTheBackingDeviceIsRefused)
{
    Rig rig;
    EXPECT_NE(rig.create({}, rig.backing.bytes() + sector), 0);
    EXPECT_NE(rig.sentence.find("longer than the backing device"), std::string::npos);
}

TEST(Target, TooSmallACacheDeviceIsRefused)
{
    Rig rig(pcache::format::geometry.min_segments - 1);
    EXPECT_NE(rig.create(), 0);
    EXPECT_NE(rig.sentence.find("too small"), std::string::npos) << rig.sentence;
}

TEST(Target, ReadOnlyTableIsRefused)
{
    Rig rig;
    pc_table *t = rig.world.add_table("ro", true);
    char a[] = "cache", b[] = "backing";
    char *argv[] = {a, b};
    const char *sentence = nullptr;
    pc_target *target = nullptr;
    EXPECT_NE(pc_target_ctr(t, 2, argv, rig.backing.bytes(), &target, &sentence), 0);
    EXPECT_NE(std::string(sentence).find("read-only"), std::string::npos);
}

#ifdef PCACHE_SMALL_GEOMETRY // compares or copies whole images
TEST(Target, ForeignMediaIsRefusedAndNotWritten)
{
    Rig rig;
    u8 foreign[4096];
    std::memset(foreign, 0x5A, sizeof(foreign));
    for (u64 at : {u64{0}, u64{0x1000}, u64{0x2000}, u64{0x3000}, u64{0x4000}, u64{0x1F000}}) {
        rig.media.load(Image(rig.media.bytes()));
        rig.media.write(at, foreign, sizeof(foreign));
        const Image before = rig.media.image();
        EXPECT_NE(rig.create(), 0) << "foreign bytes at " << at << " were taken for a blank device";
        EXPECT_FALSE(rig.sentence.empty());
        EXPECT_TRUE(rig.media.image() == before) << at;
    }
}
#endif

TEST(Target, SecondTableOnTheSameCacheDeviceIsRefused)
{
    Rig rig;
    rig.start();
    rig.world.add_backing("other", 4u << 20);
    pc_table *t = rig.world.add_table("second");
    char a[] = "cache", b[] = "other", c[] = "backing";
    char *argv[] = {a, b};
    const char *sentence = nullptr;
    pc_target *target = nullptr;
    EXPECT_EQ(pc_target_ctr(t, 2, argv, 4u << 20, &target, &sentence), -16);
    EXPECT_NE(std::string(sentence).find("in use by another"), std::string::npos);
    rig.world.add_media("cache2", rig.media.bytes());
    char a2[] = "cache2";
    char *argv2[] = {a2, c};
    EXPECT_EQ(pc_target_ctr(t, 2, argv2, 4u << 20, &target, &sentence), -16);
    EXPECT_NE(std::string(sentence).find("backing device is in use"), std::string::npos);
}

TEST(Target, TwoTablesLoadedAndOnlyOneMayBecomeActive)
{
    Rig rig;
    ASSERT_EQ(rig.create(), 0);
    pc_target *first = rig.target;
    pc_table *first_table = rig.table;
    ASSERT_EQ(rig.create({}, 0, "second"), 0) << rig.sentence;
    pc_target *second = rig.target;
    rig.target = first;
    ASSERT_EQ(rig.resume(), 0);
    rig.target = second;
    EXPECT_EQ(rig.resume(), -16);
    EXPECT_EQ(rig.status(), "Inactive");
    rig.destroy();
    rig.target = first;
    rig.table = first_table;
}

TEST(Target, ReloadTakesTheRunningCacheOver)
{
    Rig rig;
    rig.start();
    rig.write_pattern(4096, 8192);
    pc_target *old = rig.target;
    pc_table *old_table = rig.table;
    ASSERT_EQ(rig.create(), 0) << rig.sentence;
    EXPECT_EQ(rig.status(), "Inactive");
    pc_target_presuspend(old, 0);
    pc_target_postsuspend(old);
    rig.world.clear_log();
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    EXPECT_FALSE(rig.world.said("recovered")) << "the log was replayed for a reload";
    pc_target_dtr(old);
    rig.world.drop_table(old_table);
    rig.write_pattern(0, 4096);
    rig.check("after a reload");
}

TEST(Target, ReloadThatNamesOtherDevicesIsRefused)
{
    Rig rig;
    rig.start();
    rig.world.add_media("other", rig.media.bytes());
    pc_table *t = rig.world.add_table("pcache");
    char a[] = "other", b[] = "backing";
    char *argv[] = {a, b};
    const char *sentence = nullptr;
    pc_target *target = nullptr;
    EXPECT_EQ(pc_target_ctr(t, 2, argv, rig.backing.bytes(), &target, &sentence), -16);
    EXPECT_NE(std::string(sentence).find("a reload must name"), std::string::npos);
}

TEST(Target, AReloadIsTakenWhenTheCacheDeviceHasGrownAndRefusedWhenItHasShrunk)
{
    Rig rig;
    rig.start();
    rig.write_pattern(4096, 8192);
    for (const bool grown : {false, true}) {
        pc_target *old = rig.target;
        pc_table *old_table = rig.table;
        rig.media.set_claimed(grown ? rig.media.bytes() + (64u << 10)
                                    : rig.media.bytes() - (64u << 10));
        const int error = rig.create();
        if (!grown) {
            EXPECT_EQ(error, -16);
            EXPECT_NE(rig.sentence.find("has become smaller"), std::string::npos) << rig.sentence;
            rig.target = old;
            rig.table = old_table;
            continue;
        }
        ASSERT_EQ(error, 0) << rig.sentence;
        pc_target_presuspend(old, 0);
        pc_target_postsuspend(old);
        ASSERT_EQ(rig.resume(), 0) << rig.last_error();
        pc_target_dtr(old);
        rig.world.drop_table(old_table);
    }
    rig.write_pattern(0, 4096);
    rig.check("after both");
}

TEST(Target, ABackingDeviceWithBlocksAbove4KiBIsRefused)
{
    Rig rig;
    rig.backing.set_logical_block(8192);
    EXPECT_EQ(rig.create(), -22);
    EXPECT_NE(rig.sentence.find("blocks above 4096"), std::string::npos) << rig.sentence;
    rig.backing.set_logical_block(4096);
    rig.start();
}

// A name with a blank could not be loaded again.
TEST(Target, TableNamesTheDevicesAsDeviceMapperDoes)
{
    Rig rig;
    rig.media.set_name("259:0");
    rig.backing.set_name("8:16");
    rig.start();
    EXPECT_EQ(rig.status(1), "259:0 8:16 4 cache_mode writeback data_crc false");
}

TEST(Target, StatusHasMainlinesNineFields)
{
    Rig rig;
    rig.start();
    const u32 n = pcache::format::geometry.min_segments;
    const std::string head = "0 " + std::to_string(n) + " " + std::to_string(n) + " ";
    EXPECT_EQ(rig.status().substr(0, head.size()), head) << rig.status();
    EXPECT_NE(rig.status().find(" 70 1182 0:0 0:0 0:0"), std::string::npos) << rig.status();
}

TEST(Target, TableLineLoadsAgainAsPrinted)
{
    Rig rig;
    rig.start();
    EXPECT_EQ(rig.status(1), "cache backing 4 cache_mode writeback data_crc false");
    rig.remove();
    ASSERT_EQ(rig.create({"4", "cache_mode", "writeback", "data_crc", "false"}), 0) << rig.sentence;
    ASSERT_EQ(rig.resume(), 0);
}

TEST(Target, GcPercentIsStrictAndDurable)
{
    Rig rig;
    rig.start();
    for (const char *bad : {"91", "306", "-1", "", "+5", "5 ", "0x10", "text", "007"})
        EXPECT_EQ(rig.message({"gc_percent", bad}), -22) << bad;
    EXPECT_EQ(rig.message({"gc_percent"}), -22);
    EXPECT_EQ(rig.message({"gc_percent", "1", "2"}), -22);
    EXPECT_NE(rig.status().find(" 70 "), std::string::npos);
    EXPECT_EQ(rig.message({"gc_percent", "33"}), 0);
    EXPECT_NE(rig.status().find(" 33 "), std::string::npos);
    rig.remove();
    rig.start();
    EXPECT_NE(rig.status().find(" 33 "), std::string::npos) << rig.status();
}

TEST(Target, MessagesNotBuiltAreRefusedByName)
{
    Rig rig;
    rig.start();
    for (const char *m : {"cache_mode", "flush", "stats", "stats_reset"})
        EXPECT_EQ(rig.message({m}), -95) << m;
    EXPECT_EQ(rig.message({"dance"}), -22);
}

// Every allocation of an activation fails once; each time it says so, stays inactive, leaks nothing
// and can be tried again.
TEST(Target, ActivationThatRunsOutOfMemoryCanBeTriedAgain)
{
    Rig rig;
    ASSERT_EQ(rig.create(), 0);
    u64 n = 1;
    for (;; n++) {
        const u64 before = Memory::allocations();
        const u64 live = Memory::live();
        Memory::fail(n);
        const int error = rig.resume();
        Memory::fail(0, 0);
        if (Memory::allocations() - before < n) {
            ASSERT_EQ(error, 0) << rig.last_error();
            break;
        }
        if (!error) { // it could do without that one
            rig.suspend();
            rig.destroy();
            ASSERT_EQ(rig.create(), 0);
            continue;
        }
        ASSERT_EQ(error, -12) << n << ": " << rig.last_error();
        ASSERT_EQ(rig.status(), "Inactive");
        ASSERT_EQ(Memory::live(), live) << "allocation " << n;
    }
    EXPECT_GT(n, 20u);
    rig.write_pattern(0, 4096);
    rig.check("after all tries");
}
