// SPDX-License-Identifier: GPL-2.0
// selftests/unit/two_slot_test.cpp - the two-slot primitive: which copy counts, where an update
// goes, what a cut at any of its stores leaves, and pages that cannot be read.
#include "selftests/unit/media_rig.hpp"

namespace
{

using namespace pcache;
using namespace pcache::selftest;
using format::GenerationRecord;
using media::TwoSlot;

class TwoSlotTest : public MediaRig
{
protected:
    static constexpr SlotPlace shared = media::generation_place({0});  // one page, one line
    static constexpr SlotPlace apart = media::segment_info_place({0}); // two pages
    static_assert(sizeof(format::SegmentInfoRecord) == sizeof(GenerationRecord));

    // Values are generations in both places: the primitive does not look inside.
    void put_value(const SlotPlace &p, u32 slot, u64 v, u8 seq)
    {
        put_slot(p, slot, format::encode_generation(v), seq);
    }
    u64 newest(const SlotPlace &p)
    {
        return with_device([&](media::Activation &, media::Device &d) {
            GenerationRecord r{};
            TwoSlot s;
            return s.load(d, p, &r) ? r.gen : ~u64{0};
        });
    }
    void update(const SlotPlace &p, u64 v)
    {
        with_device([&](media::Activation &, media::Device &d) {
            GenerationRecord r{};
            TwoSlot s;
            s.load(d, p, &r);
            r = format::encode_generation(v);
            EXPECT_EQ(s.store(d, &r), rt::Error::none);
            EXPECT_TRUE(s.whole());
            return 0;
        });
    }
    u8 seq_in(const SlotPlace &p, u32 slot) const
    {
        return get<GenerationRecord>(slot_at(p, slot)).header.seq;
    }
    u64 value_in(const SlotPlace &p, u32 slot) const
    {
        return get<GenerationRecord>(slot_at(p, slot)).gen;
    }
    static constexpr u64 none = ~u64{0};
};

TEST_F(TwoSlotTest, FreshMediaHasNoGoodSlot)
{
    EXPECT_EQ(newest(shared), none);
    EXPECT_EQ(newest(apart), none);
}

TEST_F(TwoSlotTest, TheNewerOfTwoGoodSlotsCounts)
{
    put_value(shared, 0, 1, 7);
    put_value(shared, 1, 2, 8);
    EXPECT_EQ(newest(shared), 2u);
    put_value(shared, 0, 3, 9);
    EXPECT_EQ(newest(shared), 3u);
    put_value(shared, 0, 4, 255);
    put_value(shared, 1, 5, 0);
    EXPECT_EQ(newest(shared), 5u) << "the sequence number wraps";
}

TEST_F(TwoSlotTest, ABadSlotIsIgnoredWhicheverItIs)
{
    for (u32 bad : {0u, 1u}) {
        put_value(apart, bad, 1, 9); // would be the newer one
        put_value(apart, 1 - bad, 2, 8);
        spoil(apart, bad);
        EXPECT_EQ(newest(apart), 2u) << bad;
    }
    spoil(apart, 0);
    EXPECT_EQ(newest(apart), none);
}

TEST_F(TwoSlotTest, AnUnreadableSlotIsIgnored)
{
    put_value(apart, 0, 1, 9);
    put_value(apart, 1, 2, 8);
    disk->poison(slot_at(apart, 0), 8);
    EXPECT_EQ(newest(apart), 2u);
    disk->poison(slot_at(apart, 1), 8);
    EXPECT_EQ(newest(apart), none);
}

TEST_F(TwoSlotTest, AnUpdateLeavesTheSameBytesInBothSlots)
{
    update(shared, 5);
    EXPECT_EQ(value_in(shared, 0), 5u);
    EXPECT_EQ(value_in(shared, 1), 5u);
    EXPECT_EQ(seq_in(shared, 0), 1);
    EXPECT_EQ(seq_in(shared, 1), 1);
    update(shared, 6);
    EXPECT_EQ(value_in(shared, 1), 6u);
    EXPECT_EQ(seq_in(shared, 1), 2);
    EXPECT_EQ(newest(shared), 6u);
}

TEST_F(TwoSlotTest, CompleteCopiesTheNewestSequenceNumberIncluded)
{
    put_value(apart, 0, 1, 8);
    put_value(apart, 1, 2, 9);
    with_device([&](media::Activation &, media::Device &d) {
        GenerationRecord r{};
        TwoSlot s;
        EXPECT_TRUE(s.load(d, apart, &r));
        EXPECT_FALSE(s.whole());
        EXPECT_EQ(s.complete(d, &r), rt::Error::none);
        return 0;
    });
    EXPECT_EQ(value_in(apart, 0), 2u);
    EXPECT_EQ(seq_in(apart, 0), 9);
    EXPECT_EQ(seq_in(apart, 1), 9);
}

// Every subset of 8-byte stores at every fence of two updates, from each state that a record can be
// found in: what is read afterwards is the old or the new value, and there always is one.
TEST_F(TwoSlotTest, ACutAtAnyStoreOfAnUpdateLeavesTheOldOrTheNewValue)
{
    if (real_geometry)
        GTEST_SKIP() << "images of every fence: small geometry only";
    struct Before {
        const char *name;
        u8 seq[2];
        bool good[2];
    };
    const Before states[] = {{"after an update of ours", {4, 4}, {true, true}},
                             {"slot 0 newer", {5, 4}, {true, true}},
                             {"slot 1 newer", {4, 5}, {true, true}},
                             {"wrapping", {255, 0}, {true, true}},
                             {"slot 0 bad", {4, 4}, {false, true}},
                             {"slot 1 bad", {4, 4}, {true, false}}};
    for (const SlotPlace &place : {shared, apart}) {
        for (const Before &b : states) {
            SCOPED_TRACE(b.name);
            for (u32 i : {0u, 1u}) {
                put_value(place, i, 10, b.seq[i]);
                if (!b.good[i])
                    spoil(place, i);
            }
            std::vector<u64> allowed{10};
            u32 cuts = 0;
            disk->set_power_model(true);
            world.set_fence_hook([&] {
                for (u32 subset = 0; subset < 4; subset++) {
                    const Image left = disk->cut(
                        [&](u64 offset, unsigned) { return (subset >> (offset / 8 % 2)) & 1; });
                    GenerationRecord r[2];
                    for (u32 i : {0u, 1u})
                        memcpy(&r[i], &left[slot_at(place, i)], sizeof(r[i]));
                    const int slot = format::newest_slot(
                        format::slot_intact(&r[0], sizeof(r[0])), r[0].header.seq,
                        format::slot_intact(&r[1], sizeof(r[1])), r[1].header.seq);
                    ASSERT_GE(slot, 0);
                    EXPECT_TRUE(r[slot].gen == allowed.front() || r[slot].gen == allowed.back());
                    cuts++;
                }
            });
            allowed = {10, 11};
            update(place, 11);
            allowed = {11, 12};
            update(place, 12);
            world.set_fence_hook(nullptr);
            disk->set_power_model(false);
            EXPECT_EQ(cuts, 16u) << "two updates of two slots each";
            EXPECT_EQ(newest(place), 12u);
        }
    }
}

TEST_F(TwoSlotTest, TheNewestCopyStandsUntilTheOtherSlotIsDurable)
{
    for (u32 newer : {0u, 1u}) {
        put_value(apart, newer, 10, 5);
        put_value(apart, 1 - newer, 9, 4);
        u32 fences = 0;
        world.set_fence_hook([&] {
            EXPECT_EQ(value_in(apart, newer), fences == 0 ? 10u : 11u) << "fence " << fences;
            fences++;
        });
        update(apart, 11);
        world.set_fence_hook(nullptr);
        EXPECT_EQ(fences, 2u);
    }
}

TEST_F(TwoSlotTest, APoisonedPageIsRewrittenByABlockWriteAndKeepsTheRest)
{
    put_value(apart, 0, 1, 8);
    put_value(apart, 1, 2, 9);
    const u64 neighbour = 0x1122334455667788;
    put(slot_at(apart, 0) + 512, neighbour);
    disk->poison(slot_at(apart, 0), 8); // a store through the mapping would be a violation
    update(apart, 3);
    EXPECT_EQ(value_in(apart, 0), 3u);
    EXPECT_EQ(get<u64>(slot_at(apart, 0) + 512), neighbour);
    EXPECT_EQ(newest(apart), 3u);
}

TEST_F(TwoSlotTest, APageWithPoisonAnywhereIsNotStoredToThroughTheMapping)
{
    put_value(shared, 0, 1, 8);
    put_value(shared, 1, 2, 9);
    disk->poison(slot_at(shared, 0) + 2048, 8);
    update(shared, 3);
    EXPECT_EQ(newest(shared), 3u);
    u8 line[64];
    with_device([&](media::Activation &, media::Device &d) {
        EXPECT_EQ(media::persist::load(line, d.address(slot_at(shared, 0) + 2048), sizeof(line)),
                  rt::Error::none)
            << "the block write has cleared the poison";
        return 0;
    });
}

TEST_F(TwoSlotTest, ASlotThatIsNoSuchRecordIsNotAccepted)
{
    put_value(apart, 0, 1, 9);
    put_value(apart, 1, 2, 8);
    with_device([&](media::Activation &, media::Device &d) {
        GenerationRecord r{};
        TwoSlot s;
        EXPECT_TRUE(s.load(d, apart, &r, [](const void *p) {
            return static_cast<const GenerationRecord *>(p)->gen == 2;
        }));
        EXPECT_EQ(r.gen, 2u);
        return 0;
    });
}

TEST_F(TwoSlotTest, ZeroDurablyZeroesExactlyItsRange)
{
    const u64 begin = data_at({{1}, 1000 - 8}), bytes = 3 * format::page_bytes;
    const u64 mark = ~u64{0};
    for (u64 at = begin - 8; at <= begin + bytes; at += 8)
        put(at, mark);
    disk->poison(begin + format::page_bytes, 8);
    with_device([&](media::Activation &, media::Device &d) {
        EXPECT_EQ(media::zero_durably(d, begin, bytes), rt::Error::none);
        return 0;
    });
    EXPECT_EQ(get<u64>(begin - 8), mark);
    EXPECT_EQ(get<u64>(begin + bytes), mark);
    for (u64 at = begin; at < begin + bytes; at += 8)
        ASSERT_EQ(get<u64>(at), 0u);
}

} // namespace
