// SPDX-License-Identifier: GPL-2.0
// selftests/unit/golden_test.cpp - images written by the mainline driver read as they must, byte
// for byte: inspection, replay, and the keys applied to the backing image.
//
// Where the images are not (or in the small geometry, which they do not have), the tests are
// skipped by name.
#include "selftests/unit/golden.hpp"
#include "selftests/unit/media_rig.hpp"

namespace
{

using namespace pcache;
using namespace pcache::selftest;
class Golden : public MediaRig
{
protected:
    fs::path cache_file, backing_file, expected_file;

    void SetUp() override {} // the device has the image's size
    // False: skipped by the caller.
    bool find(const std::string &set, const std::string &expected)
    {
        cache_file = unpacked(set + ".cache");
        backing_file = unpacked(set + ".backing");
        expected_file = unpacked(expected + ".expected");
        if (!real_geometry || cache_file.empty() || backing_file.empty() || expected_file.empty())
            return false;
        disk = &world.add_media("cache", fs::file_size(cache_file));
        EXPECT_TRUE(disk->load_file(cache_file.string()));
        backing.bytes = fs::file_size(backing_file);
        return true;
    }
    // The backing image with the keys of the log applied: what a reader of the cached device sees.
    Image merged()
    {
        const Image below = read_file(backing_file);
        Image seen = below;
        for (const media::ReplayedKey &k : replay()) {
            if (k.stale)
                memcpy(&seen[k.offset], &below[k.offset], k.length);
            else
                disk->read(data_at({k.segment, k.segment_offset}), &seen[k.offset], k.length);
        }
        return seen;
    }
    void expect_reads_as_expected()
    {
        const Image seen = merged(), expected = read_file(expected_file);
        ASSERT_EQ(seen.size(), expected.size());
        EXPECT_EQ(memcmp(seen.data(), expected.data(), seen.size()), 0);
    }
    // Before and after an activation, which must not change what is read.
    void expect_opens_with_all_its_data(u32 mainline_flags)
    {
        expect_reads_as_expected();
        EXPECT_EQ(found.cache_info.flags, mainline_flags);
        EXPECT_FALSE(found.ours || found.has_extension || found.dropped_front);
        ASSERT_EQ(activate(mainline_flags), rt::Error::none) << sentence();
        expect_reads_as_expected();
        EXPECT_TRUE(found.ours);
    }
};

#define FIND(set, expected)                                                                        \
    if (!find(set, expected))                                                                      \
    GTEST_SKIP() << "golden image " set " is not there, or not of this geometry"

TEST_F(Golden, G1RemovedCleanlyReadsAsExpected)
{
    FIND("g1", "a");
    expect_opens_with_all_its_data(4482);
    EXPECT_EQ(found.dirty_keys, 0u);
}

// 600 keys were dirty when the writes ended; write-back had come past 60 of them at the cut.
TEST_F(Golden, G2CutWithDirtyKeysReadsAsExpected)
{
    FIND("g2", "a");
    expect_opens_with_all_its_data(3842);
    EXPECT_EQ(found.dirty_keys, 540u);
    EXPECT_EQ(found.keys, 609u);
    EXPECT_EQ(found.cache_info.gc_percent(), 60u);
}

// The data is taken as it is: verifying data_crc is the reader's.
TEST_F(Golden, G3WithDataCrcReadsAsExpected)
{
    FIND("g3", "a");
    expect_opens_with_all_its_data(3843);
    EXPECT_TRUE(found.cache_info.data_crc());
    for (const media::ReplayedKey &k : replay()) {
        std::vector<u8> data(k.length);
        disk->read(data_at({k.segment, k.segment_offset}), data.data(), data.size());
        ASSERT_EQ(format::crc32c(format::crc_seed, data.data(), data.size()), k.data_crc);
    }
}

TEST_F(Golden, G4CutInsideAGcPassReadsAsExpected)
{
    FIND("g4", "g4");
    std::vector<media::ReplayedKey> keys = replay();
    EXPECT_EQ(text(found.dirty_tail), "15:9973160");
    EXPECT_GT(found.key_tail.offset, 7580096u) << "behind the last stale record";
    EXPECT_EQ(found.dirty_keys, 208164u);
    EXPECT_TRUE(found.log_segments[15] && found.log_segments[29]);
    EXPECT_EQ(found.generations[3], 3u);
    EXPECT_EQ(found.cache_info.gc_percent(), 65u);
    for (const media::ReplayedKey &k : keys)
        ASSERT_FALSE(k.stale) << "none stands behind key_tail";
    expect_opens_with_all_its_data(4162);
}

} // namespace
