// SPDX-License-Identifier: GPL-2.0
// selftests/unit/info_pages_test.cpp - the records that share the pages of cache_info: what the
// repair of a page, or the loss of one, means for all of them.
#include "selftests/unit/media_rig.hpp"

namespace
{

using namespace pcache;
using namespace pcache::selftest;

class InfoPages : public MediaRig
{
protected:
    static constexpr u64 pages[2] = {format::cache_info_offset,
                                     format::cache_info_offset + format::page_bytes};

    void SetUp() override
    {
        MediaRig::SetUp();
        make_ours();
        put_session({}, 10, 3);
        put_disk_record({});
    }
    template <class F>
    void live(F f)
    {
        ASSERT_EQ(activate(info().flags, f), rt::Error::none) << sentence();
    }
    // Any update of the extended superblock, which repairs a page that cannot be read.
    static void update(media::Metadata &m) { m.set_safe_tail({}); }
    void expect_all_good(u32 slot)
    {
        for (const media::InfoRecord &r : media::info_records) {
            std::vector<u8> bytes(r.place.bytes);
            disk->read(slot_at(r.place, slot), bytes.data(), bytes.size());
            EXPECT_TRUE(format::slot_intact(bytes.data(), r.place.bytes))
                << "slot " << slot << " of the record at " << r.place.offset;
        }
    }
    static u32 new_flags()
    {
        return format::make_cache_flags(false, true, format::CacheMode::writeback, 11);
    }
};

TEST_F(InfoPages, AfterARepairedPageEveryRecordStandsInBothPages)
{
    for (const bool unmaps : {false, true}) {
        for (const u32 slot : {0u, 1u}) {
            for (const u32 line : {0u, 0x400u, 0x800u}) {
                SCOPED_TRACE(std::to_string(unmaps) + " " + std::to_string(slot) + " " +
                             std::to_string(line));
                live([&](media::Metadata &m) {
                    disk->set_unmaps_pages(unmaps);
                    disk->poison(pages[slot] + line, 64);
                    update(m);
                    expect_all_good(0);
                    expect_all_good(1);
                });
                EXPECT_EQ(inspect(), rt::Error::none) << sentence();
                found.clear();
            }
        }
    }
}

// The setting's own order must hold beside what the repair has changed.
TEST_F(InfoPages, ASettingAfterARepairedPageIsOldOrNewWhereverItIsCut)
{
    if (real_geometry)
        GTEST_SKIP() << "images of every fence: small geometry only";
    for (const u32 line : {0u, 0x400u}) {
        std::vector<Image> left;
        Rng rng(3);
        live([&](media::Metadata &m) {
            disk->set_unmaps_pages(line != 0);
            disk->poison(pages[0] + line, 64);
            update(m);
            disk->set_power_model(true);
            world.set_fence_hook([&] {
                left.push_back(disk->cut([](u64, unsigned) { return false; }));
                left.push_back(disk->cut([](u64, unsigned) { return true; }));
                for (int i = 0; i < 4; i++)
                    left.push_back(disk->cut(rng));
            });
            m.set_flags(new_flags());
            world.set_fence_hook(nullptr);
            disk->set_power_model(false);
        });
        for (const Image &i : left) {
            disk->load(i);
            EXPECT_EQ(inspect(), rt::Error::none) << sentence();
            EXPECT_TRUE(found.ours);
            EXPECT_TRUE(found.cache_info.gc_percent() == 11 || found.cache_info.gc_percent() == 70);
            found.clear();
        }
        make_ours();
        put_session({}, 10, 3);
    }
}

// What only the page holds that is to be rewritten goes to the other one first.
TEST_F(InfoPages, BeforeABlockWriteTheOtherPageHoldsEveryRecord)
{
    spoil(media::cache_info_place, 1);
    spoil(media::extension_place, 1);
    with_device([&](media::Activation &, media::Device &d) {
        media::InfoPages p;
        p.load(d);
        disk->poison(pages[0] + 0x400, 64);
        u32 fences = 0;
        world.set_fence_hook([&] { fences++; });
        format::ExtensionRecord r;
        format::encode_extension(extension, r);
        EXPECT_EQ(p.store(d, media::Info::extension, &r), rt::Error::none);
        world.set_fence_hook(nullptr);
        EXPECT_EQ(fences, 2u) << "extension, and cache_info, into slot 1; then the block write";
        return 0;
    });
    expect_all_good(0);
    expect_all_good(1);
}

TEST_F(InfoPages, ADeadSlotNeverWinsHoweverManyUpdatesTheOtherOneGets)
{
    for (const u32 slot : {0u, 1u}) {
        for (const u32 updates : {1u, 2u, 100u, 130u, 200u, 250u, 300u}) {
            disk->set_repairable(false);
            u64 limit = 0;
            live([&](media::Metadata &m) {
                disk->poison(pages[slot] + 0x400, 64);
                for (u32 i = 0; i < updates; i++)
                    m.set_link({i % 3}, 5000000 + i);
                limit = m.extension().limit;
                EXPECT_FALSE(m.failed());
            });
            disk->cure(); // the next life can read it again
            disk->set_repairable(true);
            EXPECT_EQ(inspect(), rt::Error::none) << sentence();
            EXPECT_EQ(found.extension.limit, limit)
                << "slot " << slot << ", after " << updates << " updates";
            found.clear();
            make_ours();
            put_session({}, 10, 3);
        }
    }
}

// Nobody can tell what a block write that failed has left: the record it carried, perhaps.
TEST_F(InfoPages, TheLiveSlotIsAheadOfWhatCouldNotBeWritten)
{
    disk->set_repairable(false);
    const u8 before = get<format::SlotHeader>(slot_at(media::extension_place, 0)).seq;
    with_device([&](media::Activation &, media::Device &d) {
        media::InfoPages p;
        p.load(d);
        disk->poison(pages[1], 64);
        for (u32 i = 0; i < 3; i++) {
            format::ExtensionRecord r;
            format::encode_extension(extension, r);
            EXPECT_EQ(p.store(d, media::Info::extension, &r), rt::Error::none);
            EXPECT_TRUE(p.dead(1));
        }
        return 0;
    });
    const u8 seq = get<format::SlotHeader>(slot_at(media::extension_place, 0)).seq;
    EXPECT_TRUE(format::newer_seq(seq, static_cast<u8>(before + 1)));
    EXPECT_FALSE(format::newer_seq(seq, static_cast<u8>(before + 3)));
}

// Else a block write for another record would bring it to the media, with nobody announcing it.
TEST_F(InfoPages, ARecordThatCannotBeStoredStaysWhatItWas)
{
    with_device([&](media::Activation &, media::Device &d) {
        media::InfoPages p;
        p.load(d);
        format::CacheInfoRecord before;
        std::memcpy(&before, p.newest(media::Info::cache_info), sizeof(before));
        disk->set_repairable(false);
        disk->poison(pages[1], 64); // of two equal slots it is stored to first
        format::CacheInfo changed = info();
        changed.flags = new_flags();
        format::CacheInfoRecord r = format::encode_cache_info(changed);
        p.seal(media::Info::cache_info, &r);
        EXPECT_EQ(p.store_sealed(d, media::Info::cache_info, &r), rt::Error::io);
        EXPECT_EQ(std::memcmp(p.newest(media::Info::cache_info), &before, sizeof(before)), 0);
        return 0;
    });
    disk->set_repairable(true);
    disk->cure();
}

TEST_F(InfoPages, ASettingIsNotKeptWhereOnePageIsDead)
{
    disk->set_repairable(false);
    live([&](media::Metadata &m) {
        disk->poison(pages[1] + 0x400, 64);
        m.set_flags(new_flags());
        m.set_flags(new_flags());
        EXPECT_EQ(m.cache_info().gc_percent(), 70u);
        EXPECT_FALSE(m.failed());
    });
    disk->cure();
    EXPECT_EQ(inspect(), rt::Error::none) << sentence();
    EXPECT_TRUE(found.ours);
    EXPECT_EQ(found.cache_info.gc_percent(), 70u);
}

// A bad line beside the records: the slots of its page can be read, and never be written.
TEST_F(InfoPages, ADeadSlotThatCanBeReadNeverWinsHoweverManyActivationsTheOtherOneGets)
{
    for (const u32 slot : {0u, 1u}) {
        disk->set_repairable(false);
        disk->poison(pages[slot] + 0xC00, 64);
        u64 limit = 0;
        for (u32 i = 0; i < 200; i++) {
            SCOPED_TRACE("slot " + std::to_string(slot) + ", activation " + std::to_string(i));
            live([&](media::Metadata &m) {
                ASSERT_TRUE(limit == 0 || found.extension.limit == limit);
                update(m);
                limit = m.extension().limit; // another one each time
                ASSERT_FALSE(m.failed());
            });
            if (HasFailure())
                return;
        }
        disk->cure();
        disk->set_repairable(true);
        EXPECT_EQ(inspect(), rt::Error::none) << sentence();
        EXPECT_EQ(found.extension.limit, limit);
        found.clear();
        make_ours();
        put_session({}, 10, 3);
    }
}

} // namespace
