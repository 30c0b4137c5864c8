// SPDX-License-Identifier: GPL-2.0
// selftests/unit/kept_pages_test.cpp - the lines that are kept of a page of the log which has gone,
// by themselves. What they are for: bad_lines_test.cpp.
#include <array>
#include <cstring>
#include "dm-pcache/media/kept_pages.hpp"
#include "selftests/unit/fixture.hpp"

namespace pcache::media
{
namespace
{

class KeptPagesTest : public selftest::WorldTest
{
protected:
    static constexpr u64 page = 7 * format::page_bytes;
    static constexpr u32 line = KeptPages::line_bytes;
    KeptPages kept;
    std::array<u8, format::page_bytes> data;

    void SetUp() override
    {
        for (u32 i = 0; i < data.size(); i++)
            data[i] = static_cast<u8>(i / line + i * 3);
    }
    void TearDown() override { kept.clear(); }
    bool as_kept(u32 first, u32 lines)
    {
        std::array<u8, format::page_bytes> got{};
        return kept.load(got.data(), page + first * line, lines * line) &&
               !std::memcmp(got.data(), &data[first * line], lines * line);
    }
};

} // namespace

// One who reads the page again may begin further behind.
TEST_F(KeptPagesTest, WhatIsKeptLaterComesOnTop)
{
    kept.keep(page, data.data(), 0x0F);
    kept.keep(page, data.data(), 0xF0);
    EXPECT_TRUE(as_kept(0, 4));
    EXPECT_TRUE(as_kept(4, 4));
    EXPECT_TRUE(as_kept(0, 8));
}

TEST_F(KeptPagesTest, WhatIsKeptInPartIsNotGivenOut)
{
    kept.keep(page, data.data(), 0x0F);
    EXPECT_TRUE(as_kept(3, 1));
    u8 got[2 * line];
    EXPECT_FALSE(kept.load(got, page + 3 * line, 2 * line));
    EXPECT_FALSE(kept.load(got, page + 4 * line, line));
}

} // namespace pcache::media
