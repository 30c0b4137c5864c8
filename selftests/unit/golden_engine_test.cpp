// SPDX-License-Identifier: GPL-2.0
// Images written by the mainline driver, opened by the whole engine behind face.h: they read as
// expected byte for byte at once, after write-back, and after a clean stop; and then the backing
// device alone is the expected image.
#include <thread>
#include "rig.hpp"
#include "selftests/unit/golden.hpp"

using namespace pcache::selftest;

namespace
{

bool all_written_back(Rig &rig)
{
    // dirty_tail has reached key_head: fields 8 and 7 of nine.
    const std::string s = rig.status();
    std::vector<std::string> f;
    for (size_t at = 0; at < s.size();) {
        const size_t end = std::min(s.find(' ', at), s.size());
        f.push_back(s.substr(at, end - at));
        at = end + 1;
    }
    return f.size() == 9 && f[6] == f[7];
}

void opens_and_reads(const std::string &set, const std::string &expected)
{
    const fs::path cache = unpacked(set + ".cache"), below = unpacked(set + ".backing");
    const fs::path wanted = unpacked(expected + ".expected");
    if (small_world || cache.empty() || below.empty() || wanted.empty())
        GTEST_SKIP() << "golden image " << set << " is not there, or not of this geometry";
    Rig rig(u64{fs::file_size(cache)}, u64{fs::file_size(below)});
    ASSERT_TRUE(rig.media.load_file(cache.string()));
    ASSERT_TRUE(rig.backing.load_file(below.string()));
    rig.model = read_file(wanted);
    rig.start();
    rig.check("at once");
    for (int i = 0; i < 6000 && !all_written_back(rig); i++)
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    ASSERT_TRUE(all_written_back(rig)) << rig.status();
    rig.check("after write-back");
    EXPECT_TRUE(rig.backing.image() == rig.model) << "the backing device alone is not as expected";
    rig.remove();
    rig.start();
    rig.check("in the next life");
}

} // namespace

TEST(GoldenEngine, G1RemovedCleanly)
{
    opens_and_reads("g1", "a");
}
TEST(GoldenEngine, G2CutWithDirtyKeys)
{
    opens_and_reads("g2", "a");
}
TEST(GoldenEngine, G4CutInsideAGcPass)
{
    opens_and_reads("g4", "g4");
}

TEST(GoldenEngine, G3CutWithDirtyKeysAndDataCrc)
{
    opens_and_reads("g3", "a");
}
