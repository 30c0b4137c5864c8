// SPDX-License-Identifier: GPL-2.0
// selftests/unit/media_rig.hpp - a cache device whose content a test writes record by record, and
// what inspection, replay, activation and formatting make of it. The engine is not involved.
//
// Records are placed with the encoders of format/ and plain writes, not with the two-slot primitive
// under test, and each can be put wherever a test wants it. Works in both geometries.
#pragma once
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>
#include "dm-pcache/format/superblock.hpp"
#include "dm-pcache/media/disk_blocks.hpp"
#include "dm-pcache/media/inspect.hpp"
#include "selftests/unit/fixture.hpp"

namespace pcache::selftest
{

using format::Key;
using format::LogPosition;
using format::RecordFlags;
using media::Inspection;
using media::SlotPlace;

inline constexpr u64 backing_bytes = u64{64} << 20;
inline constexpr u64 disk_bytes = u64{format::disk_blocks} * format::disk_block_bytes;
inline constexpr u32 last_bytes = format::record_header_bytes;
inline constexpr u32 one_key = format::kset_bytes(1);
inline constexpr bool real_geometry = format::geometry.segment_bytes >= (1u << 20);

inline bool same(LogPosition a, LogPosition b)
{
    return a == b;
}
inline std::string text(LogPosition p)
{
    return std::to_string(p.segment.value) + ":" + std::to_string(p.offset);
}

// What a reader of the cached device would see: sector to (segment, offset); absent: backing
// device.
using View = std::map<u64, std::pair<u32, u32>>;

class MediaRig : public WorldTest
{
protected:
    static constexpr u32 segments = format::geometry.min_segments + 1;
    MediaDevice *disk = nullptr;
    media::BackingFacts backing{backing_bytes};
    BackingDevice *backing_disk = nullptr; // attach_disk() makes it
    Inspection found;
    media::Refusal why;
    format::Extension extension; // what put_extension() writes

    void SetUp() override { disk = &world.add_media("cache", format::segment_offset({segments})); }

    void TearDown() override
    {
        found.clear();
        pc_backing_close(backing.device);
        WorldTest::TearDown();
    }

    // ---- bytes ----
    template <class T>
    void put(u64 offset, const T &v)
    {
        disk->write(offset, &v, sizeof(v));
    }
    template <class T>
    T get(u64 offset) const
    {
        T v;
        disk->read(offset, &v, sizeof(v));
        return v;
    }
    static u64 slot_at(const SlotPlace &p, u32 slot) { return p.offset + u64{slot} * p.stride; }
    template <class T>
    void put_slot(const SlotPlace &p, u32 slot, T record, u8 seq)
    {
        format::seal_slot(&record, sizeof(record), seq);
        put(slot_at(p, slot), record);
    }
    template <class T>
    void put_both(const SlotPlace &p, const T &record, u8 seq = 1)
    {
        put_slot(p, 0, record, seq);
        put_slot(p, 1, record, seq);
    }
    void spoil(const SlotPlace &p, u32 slot)
    {
        const u8 byte = static_cast<u8>(~get<u8>(slot_at(p, slot) + 8));
        put(slot_at(p, slot) + 8, byte);
    }
    void spoil_both(const SlotPlace &p)
    {
        spoil(p, 0);
        spoil(p, 1);
    }
    u64 data_at(LogPosition p) const
    {
        return format::segment_offset({p.segment.value}) + format::segment_control_bytes + p.offset;
    }

    // ---- metadata ----
    void put_superblock(u32 seg_num = segments)
    {
        put(format::superblock_offset, format::encode_superblock(seg_num));
    }
    format::CacheInfo info() const
    {
        return {{0},
                segments,
                format::make_cache_flags(false, true, format::CacheMode::writeback,
                                         format::default_gc_percent)};
    }
    void put_cache_info() { put_both(media::cache_info_place, format::encode_cache_info(info())); }
    u32 info_crc() const
    {
        return get<format::CacheInfoRecord>(format::cache_info_offset).header.crc;
    }
    void put_generation(u32 s, u64 gen)
    {
        put_both(media::generation_place({s}), format::encode_generation(gen));
    }
    void put_link(u32 s, bool has_next, u32 next)
    {
        put_both(media::segment_info_place({s}), format::encode_segment_info({has_next, {next}}));
    }
    void put_key_tail(LogPosition p, bool mark = true)
    {
        format::PositionRecord r = format::encode_position(p);
        r.header.res = mark ? format::position_mark : 0;
        put_both(media::key_tail_place, r);
    }
    void put_dirty_tail(LogPosition p)
    {
        put_both(media::dirty_tail_place, format::encode_position(p));
    }
    void put_extension()
    {
        format::ExtensionRecord r;
        format::encode_extension(extension, r);
        put_both(media::extension_place, r);
    }
    // An empty cache, as mainline's driver would leave it: no extension, no mark.
    void make_mainline()
    {
        put_superblock();
        for (u32 i = 0; i < segments; i++) {
            put_link(i, i + 1 < segments, i + 1);
            put_generation(i, 1);
        }
        put_key_tail({}, false);
        put_dirty_tail({});
        put_cache_info();
    }
    // The same with an extension that holds *ours*; limit 1000.
    void make_ours()
    {
        make_mainline();
        put_key_tail({});
        extension = {};
        extension.backing_bytes = backing_bytes;
        extension.limit = 1000;
        extension.seg_num = segments;
        extension.cache_info_crc = info_crc();
        put_extension();
    }
    void clean_stop(u64 next_number, LogPosition head)
    {
        extension.state |= format::extension_state::clean_stop;
        extension.next_number = next_number;
        extension.head = head;
        put_extension();
    }

    // ---- the backing device, and what the disk record says of it ----
    // What lies behind its first blocks is nobody's business here.
    void attach_disk()
    {
        backing_disk = &world.add_backing("backing", 2 * disk_bytes);
        Image i(backing_disk->bytes());
        for (u64 at = 0; at < i.size(); at++)
            i[at] = static_cast<u8>(at >> 12 ^ at);
        backing_disk->load(i);
        backing.device = backing_disk->open();
    }
    // Somebody writes to a block.
    void change_block(u32 block)
    {
        u8 byte;
        const u64 at = u64{block} * format::disk_block_bytes + 1000;
        backing_disk->read(at, &byte, 1);
        byte++;
        backing_disk->write(at, &byte, 1);
    }
    format::DiskState disk_now(u64 bytes = ~u64{0})
    {
        format::DiskState s;
        EXPECT_EQ(
            media::learn_disk(backing.device, rt::min(bytes, backing_bytes), extension.uuid, s),
            rt::Error::none);
        return s;
    }
    void put_disk_record(const format::DiskState &s, u8 seq = 1)
    {
        format::DiskRecord r;
        format::encode_disk_record(s, r);
        put_both(media::disk_record_place, r, seq);
    }
    // A slot, which must be good.
    format::DiskState stored_disk(u32 slot) const
    {
        const auto r = get<format::DiskRecord>(slot_at(media::disk_record_place, slot));
        format::DiskState s;
        EXPECT_TRUE(format::slot_intact(&r, sizeof(r)) && format::decode_disk_record(r, s));
        return s;
    }

    // ---- the log ----
    static RecordFlags number(u64 n) { return RecordFlags::make(n, false, false); }
    static RecordFlags start(u64 n) { return RecordFlags::make(n, true, true); }
    // A key of one sector; data in segment 2 unless told otherwise.
    static Key key(u64 sector, u64 gen = 1, u32 flags = 0, u32 segment = 2)
    {
        return {sector * format::sector_bytes,
                format::sector_bytes,
                flags,
                segment,
                static_cast<u32>(sector % 16) * format::sector_bytes,
                gen,
                0,
                0};
    }
    // Both return where the next record begins.
    LogPosition put_kset(LogPosition at, const std::vector<Key> &keys, RecordFlags flags)
    {
        std::vector<u8> b(format::kset_bytes(static_cast<u32>(keys.size())));
        const u32 n =
            format::encode_kset(b.data(), keys.data(), static_cast<u32>(keys.size()), flags);
        disk->write(data_at(at), b.data(), n);
        return {at.segment, at.offset + n};
    }
    LogPosition put_last(LogPosition at, u32 next, RecordFlags flags)
    {
        put(data_at(at), format::encode_last({next}, flags));
        return {{next}, 0};
    }
    // `count` one-key records with consecutive numbers, the first a START.
    LogPosition put_session(LogPosition at, u64 first, u32 count)
    {
        for (u32 i = 0; i < count; i++)
            at = put_kset(at, {key(first + i)}, i ? number(first + i) : start(first));
        return at;
    }
    void spoil_record(LogPosition at)
    {
        const u8 byte = static_cast<u8>(~get<u8>(data_at(at) + 20));
        put(data_at(at) + 20, byte);
    }
    void poison_record(LogPosition at) { disk->poison(data_at(at), 8); }

    // ---- what is made of it ----
    // Runs f(activation, device) on a freshly opened device.
    template <class F>
    auto with_device(F f)
    {
        media::Device device;
        EXPECT_EQ(device.open(disk->open()), rt::Error::none);
        media::Activation activation(device, nullptr);
        return f(activation, device);
    }
    // Step 1, which must store nothing, whatever it finds.
    rt::Error inspect()
    {
        why = {};
        disk->set_power_model(true);
        const rt::Error e = with_device(
            [&](media::Activation &a, media::Device &) { return a.inspect(backing, found, why); });
        EXPECT_EQ(disk->pending_units(), 0u) << "inspection has stored something";
        disk->set_power_model(false);
        EXPECT_EQ(ok(e), why.sentence == nullptr) << "an error has a sentence, success has none";
        return e;
    }
    void expect_end(LogPosition head)
    {
        EXPECT_EQ(inspect(), rt::Error::none) << why.sentence;
        EXPECT_EQ(found.kind, media::MediaKind::cache);
        EXPECT_EQ(found.damage, 0u) << media::damage_sentence(found.damage);
        EXPECT_EQ(text(found.head), text(head));
    }
    // Damage is a result, not an error: what is left can be served.
    void expect_damage(u32 bits)
    {
        EXPECT_EQ(inspect(), rt::Error::none) << sentence();
        EXPECT_EQ(found.kind, media::MediaKind::cache);
        EXPECT_EQ(found.damage, bits);
    }
    std::string sentence() const { return why.sentence ? why.sentence : ""; }
    void expect_refused(const char *part)
    {
        EXPECT_NE(inspect(), rt::Error::none);
        EXPECT_NE(sentence().find(part), std::string::npos) << sentence();
        EXPECT_EQ(found.damage, 0u);
    }

    std::vector<media::ReplayedKey> replay()
    {
        struct Sink {
            std::vector<media::ReplayedKey> keys;
            rt::Error key(const media::ReplayedKey &k)
            {
                keys.push_back(k);
                return rt::Error::none;
            }
        } sink;
        with_device([&](media::Activation &a, media::Device &) {
            EXPECT_EQ(a.inspect(backing, found, why), rt::Error::none) << sentence();
            EXPECT_EQ(a.replay(found, sink), rt::Error::none);
            return 0;
        });
        return sink.keys;
    }
    View view()
    {
        View v;
        for (const media::ReplayedKey &k : replay()) {
            for (u32 i = 0; i < k.length / 512; i++) {
                if (k.stale)
                    v.erase(k.offset / 512 + i);
                else
                    v[k.offset / 512 + i] = {k.segment.value, k.segment_offset + i * 512};
            }
        }
        return v;
    }
    template <class F>
    void at_each_fence(F f, const std::function<void()> &run)
    {
        disk->set_power_model(true);
        world.set_fence_hook(f);
        run();
        world.set_fence_hook(nullptr);
        disk->set_power_model(false);
    }
    // Cuts `run` at every fence, with no, some and all of the pending stores, and calls check()
    // with the device as each cut left it.
    void cut_everywhere(const std::function<void()> &run, const std::function<void()> &check)
    {
        std::vector<Image> left;
        Rng rng(1);
        at_each_fence(
            [&] {
                left.push_back(disk->cut([](u64, unsigned) { return false; }));
                left.push_back(disk->cut([](u64, unsigned) { return true; }));
                left.push_back(disk->cut(rng));
            },
            run);
        EXPECT_GT(left.size(), 30u);
        for (usize i = 0; i < left.size(); i++) {
            SCOPED_TRACE("cut " + std::to_string(i));
            disk->load(left[i]);
            check();
            if (HasFailure())
                return;
        }
    }
    rt::Error format()
    {
        return with_device([&](media::Activation &a, media::Device &) {
            return a.format(backing, info().flags, why);
        });
    }
    // Steps 1 to 6; f(metadata) afterwards.
    template <class F>
    rt::Error activate(u32 flags, F f)
    {
        return with_device([&](media::Activation &a, media::Device &d) {
            RT_TRY(a.inspect(backing, found, why));
            media::Metadata m(d);
            RT_TRY(a.activate(found, flags, backing, m, why));
            f(m);
            return rt::Error::none;
        });
    }
    rt::Error activate(u32 flags)
    {
        return activate(flags, [](media::Metadata &) {});
    }
    rt::Error activate() { return activate(info().flags); }

    format::Extension stored_extension(u32 slot = 0) const
    {
        const auto r = get<format::ExtensionRecord>(slot_at(media::extension_place, slot));
        EXPECT_TRUE(format::slot_intact(&r, sizeof(r)));
        format::Extension e;
        EXPECT_EQ(format::decode_extension(r, e), format::ExtensionState::good);
        return e;
    }
    LogPosition stored_position(const SlotPlace &p, u32 slot) const
    {
        const auto r = get<format::PositionRecord>(slot_at(p, slot));
        EXPECT_TRUE(format::slot_intact(&r, sizeof(r)) && format::has_mark(r));
        return format::decode_position(r);
    }
    u64 stored_generation(u32 s, u32 slot) const
    {
        const auto r = get<format::GenerationRecord>(slot_at(media::generation_place({s}), slot));
        EXPECT_TRUE(format::slot_intact(&r, sizeof(r)));
        return r.gen;
    }
};

} // namespace pcache::selftest
