// SPDX-License-Identifier: GPL-2.0
// selftests/unit/block_write_test.cpp - block writes of pages that cannot be read, cut in the
// middle: each 512 bytes of the page are then old, new or zero. What else is on media must tell.
#include <map>
#include "selftests/unit/media_rig.hpp"

namespace
{

using namespace pcache;
using namespace pcache::selftest;

class BlockWrites : public MediaRig
{
protected:
    using View = std::map<u64, std::pair<u32, u32>>; // sector to its place

    void SetUp() override
    {
        MediaRig::SetUp();
        if (real_geometry)
            GTEST_SKIP() << "images of every fence: small geometry only";
    }
    View view()
    {
        View v;
        for (const media::ReplayedKey &k : replay())
            for (u32 i = 0; i < k.length / 512; i++)
                v[k.offset / 512 + i] = {k.segment.value, k.segment_offset + i * 512};
        return v;
    }
    LogPosition put_unnumbered(LogPosition p, u64 first, u32 count)
    {
        for (u32 i = 0; i < count; i++)
            p = put_kset(p, {key(first + i)}, {});
        return p;
    }
    // Cuts the activation at every fence and in every block write. What is left is the same cache,
    // or is known to be damaged.
    void expect_nothing_lost_silently(LogPosition head)
    {
        EXPECT_GT(cut_everywhere(head), 0u) << "no cut in the block write was seen";
    }
    void expect_nothing_lost(LogPosition head) { EXPECT_EQ(cut_everywhere(head), 0u); }
    u32 cut_everywhere(LogPosition head)
    {
        const View before = view();
        std::vector<Image> left;
        Rng rng(1);
        disk->set_power_model(true);
        world.set_fence_hook([&] {
            left.push_back(disk->cut([](u64, unsigned) { return false; }));
            left.push_back(disk->cut([](u64, unsigned) { return true; }));
            left.push_back(disk->cut([](u64, unsigned nth) { return nth == 0; })); // zeros
            for (int i = 0; i < 8; i++)
                left.push_back(disk->cut(rng));
        });
        EXPECT_EQ(activate(), rt::Error::none) << sentence();
        world.set_fence_hook(nullptr);
        disk->set_power_model(false);
        EXPECT_GT(left.size(), 60u);
        u32 damaged = 0;
        for (usize i = 0; i < left.size() && !HasFailure(); i++) {
            SCOPED_TRACE("cut " + std::to_string(i));
            disk->load(left[i]);
            EXPECT_EQ(inspect(), rt::Error::none) << sentence();
            damaged += found.damage != 0;
            if (found.damage)
                continue;
            EXPECT_EQ(text(found.head), text(head));
            EXPECT_EQ(view(), before);
        }
        EXPECT_LT(damaged, left.size() / 2) << "only a torn page is damage";
        return damaged;
    }
};

TEST_F(BlockWrites, ACutInThatOfTheHeadsPageIsNotTakenForTheEndOfTheLog)
{
    make_ours();
    const LogPosition p = put_session({}, 10, 12);
    disk->poison(data_at(p) + 256, 64);
    expect_nothing_lost_silently(p);
}

TEST_F(BlockWrites, ACutInThatOfTheHeadsPageAfterACleanStop)
{
    make_ours();
    const LogPosition p = put_session({}, 10, 12);
    clean_stop(22, p);
    disk->poison(data_at(p), 64);
    expect_nothing_lost_silently(p);
}

TEST_F(BlockWrites, ACutInThatOfTheHeadsPageInALogOfMainlines)
{
    make_mainline();
    const LogPosition p = put_unnumbered({}, 0, 12);
    disk->poison(data_at(p) + 256, 64);
    expect_nothing_lost_silently(p);
}

TEST_F(BlockWrites, ACutInThatOfTheHeadsPageBehindASessionOfMainlines)
{
    make_ours();
    LogPosition p = put_unnumbered({}, 0, 3);
    p = put_session(p, 10, 9);
    disk->poison(data_at(p) + 256, 64);
    expect_nothing_lost_silently(p);
}

// Nothing on media would tell that the last records are missing, so the page stays as it is.
TEST_F(BlockWrites, AHeadsPageWhoseLossNothingWouldShowIsNotRewritten)
{
    make_ours();
    LogPosition p = put_session({}, 10, 9);
    p = put_unnumbered(p, 30, 3);
    disk->poison(data_at(p) + 256, 64);
    expect_damage(media::damage::heads_page);
    EXPECT_EQ(text(found.head), text(p));
    EXPECT_EQ(found.keys, 12u);
}

TEST_F(BlockWrites, WhatIsWrittenBackNeedsNoProof)
{
    make_ours();
    LogPosition p = put_session({}, 10, 9);
    p = put_unnumbered(p, 30, 3);
    put_dirty_tail(p);
    disk->poison(data_at(p) + 256, 64);
    ASSERT_EQ(activate(), rt::Error::none) << sentence();
    expect_end(p);
}

TEST_F(BlockWrites, ACutInThatOfTheTailsPage)
{
    make_ours();
    const LogPosition p = put_session({}, 10, 12);
    extension.safe_tail = {};
    put_extension();
    put_dirty_tail({{0}, 3 * one_key});
    disk->poison(format::cache_ctrl_offset + 1024, 64);
    expect_nothing_lost(p);
}

// No extended superblock has a safe_tail yet that would stand for the tails.
TEST_F(BlockWrites, ACutInThatOfTheTailsPageOfMainlines)
{
    make_mainline();
    const LogPosition p = put_unnumbered({}, 0, 12);
    disk->poison(format::cache_ctrl_offset + 1024, 64);
    expect_nothing_lost(p);
}

TEST_F(BlockWrites, ACutInThatOfAPageOfGenerations)
{
    make_ours();
    put_generation(2, 2);
    LogPosition p = put_kset({}, {key(1, 1)}, start(10));
    p = put_kset(p, {key(2, 2)}, number(11));
    disk->poison(format::segment_offset({2}) + format::generation_offset + 1024, 64);
    put_dirty_tail({{0}, one_key});
    expect_nothing_lost(p);
}

TEST_F(BlockWrites, ACutInThatOfEitherPageOfCacheInfo)
{
    for (const u32 slot : {0u, 1u}) {
        make_ours();
        const LogPosition p = put_session({}, 10, 12);
        disk->poison(format::cache_info_offset + slot * format::page_bytes + 1024, 64);
        expect_nothing_lost(p);
        disk->cure();
    }
}

TEST_F(BlockWrites, ACutInThatOfTheSuperblocksPage)
{
    make_ours();
    const LogPosition p = put_session({}, 10, 12);
    disk->poison(format::superblock_offset, 64);
    expect_nothing_lost(p);
}

} // namespace
