// SPDX-License-Identifier: GPL-2.0
// selftests/unit/damage_rig.hpp - a Rig whose cache device can be damaged while it is not active,
// record by record, and which knows what is lost with each.
#pragma once
#include <mutex>
#include <set>
#include "dm-pcache/format/disk_record.hpp"
#include "dm-pcache/format/extension.hpp"
#include "dm-pcache/format/position.hpp"
#include "dm-pcache/format/segment.hpp"
#include "dm-pcache/format/superblock.hpp"
#include "dm-pcache/media/two_slot.hpp"
#include "rig.hpp"

namespace pcache::selftest
{

// Each write is one key, one record and one epoch, if it is made by write_record(): the log of a
// new cache begins at 0:0, and record i stands at i * 64.
class DamageRig : public Rig
{
public:
    explicit DamageRig(u32 segments = format::geometry.min_segments) : Rig(segments, 1u << 20)
    {
        model = pattern(0, model.size(), 0);
        backing.load(model);
        base_ = model;
        set_backing_hook(nullptr);
    }

    // While on, the backing device fails its writes: all that is written stays dirty.
    void keep_dirty(bool on)
    {
        const std::lock_guard<std::mutex> g(lock_);
        keep_dirty_ = on;
    }
    u64 writes_failed()
    {
        const std::lock_guard<std::mutex> g(lock_);
        return writes_failed_;
    }
    void set_backing_hook(std::function<int(Op, u64, u64)> f)
    {
        backing.set_hook([this, f](Op op, u64 offset, u64 bytes) {
            {
                const std::lock_guard<std::mutex> g(lock_);
                if (op == Op::write && keep_dirty_) {
                    writes_failed_++;
                    return -5;
                }
            }
            return f ? f(op, offset, bytes) : 0;
        });
    }
    void write_record(u64 offset, u32 bytes)
    {
        write_pattern(offset, bytes);
        ASSERT_EQ(flush(), 0);
        made_.push_back({offset, bytes, version});
    }
    u64 version_of(u32 i) const { return made_[i].version; }
    // The model, had these writes never been made.
    void model_without(const std::set<u32> &lost)
    {
        model = base_;
        for (u32 i = 0; i < made_.size(); i++) {
            if (lost.count(i))
                continue;
            const Image d = pattern(made_[i].offset, made_[i].bytes, made_[i].version);
            std::memcpy(&model[made_[i].offset], d.data(), d.size());
        }
    }
    // Removed; or as a power cut in which everything arrived leaves the devices.
    void stop(bool cleanly)
    {
        if (cleanly) {
            remove();
            return;
        }
        format::ExtensionRecord before[2];
        for (u32 i = 0; i < 2; i++)
            get(extension_at(i), before[i]);
        remove();
        for (u32 i = 0; i < 2; i++)
            put(extension_at(i), before[i]);
    }
    bool read_only()
    {
        const std::string s = status();
        return s.size() > 3 && s.substr(s.size() - 3) == " ro";
    }
    u32 log_segment() // where the head stands
    {
        std::string s = status();
        for (int i = 0; i < 6; i++)
            s = s.substr(s.find(' ') + 1);
        return static_cast<u32>(std::stoul(s));
    }
    // What is stored, less what the test's own poison hides.
    Image contents()
    {
        Image head(small_world ? media.bytes() : 64u << 10);
        media.read(0, head.data(), head.size());
        return head;
    }

    // The same without the disk record, which accept_loss empties before it writes anything.
    Image contents_but_disk_record()
    {
        Image all = contents();
        for (u64 slot = 0; slot < 2; slot++)
            std::memset(&all[format::disk_record_offset + slot * format::disk_record_stride], 0,
                        format::disk_record_bytes);
        return all;
    }

    // ---- damage ----------------------------------------------------------------------------
    static u64 log_at(u32 segment, u32 offset)
    {
        return format::segment_offset({segment}) + format::segment_control_bytes + offset;
    }
    static u64 generation_at(u32 segment, u32 slot)
    {
        return format::segment_offset({segment}) + format::generation_offset +
               u64{slot} * format::generation_stride;
    }
    // Where the next record will stand.
    u64 next_record()
    {
        unsigned segment = 1, offset = 0;
        EXPECT_EQ(sscanf(status().c_str(), "%*x %*u %*u %*u %*u %*x %u:%u", &segment, &offset), 2);
        return log_at(segment, offset);
    }
    static u64 record_at(u32 i) { return log_at(0, i * format::kset_bytes(1)); }
    static u64 extension_at(u32 slot)
    {
        return format::extension_offset + u64{slot} * format::extension_stride;
    }
    void flip(u64 offset)
    {
        u8 byte;
        media.read(offset, &byte, 1);
        byte = static_cast<u8>(~byte);
        media.write(offset, &byte, 1);
    }
    void spoil_record(u32 i) { flip(record_at(i) + 20); }
    void poison_record(u32 i) { media.poison(record_at(i), 8); }
    void poison_data(u32 i, u32 nth_sector)
    {
        format::Key k;
        get(record_at(i) + format::record_header_bytes, k);
        media.poison(log_at(k.cache_seg_id, k.cache_seg_off) + nth_sector * sector, 8);
    }
    void flip_data(u32 i, u32 nth_sector)
    {
        format::Key k;
        get(record_at(i) + format::record_header_bytes, k);
        flip(log_at(k.cache_seg_id, k.cache_seg_off) + nth_sector * sector);
    }
    // Where on the cache device the newest data of this sector lies.
    u64 place_of(u64 offset)
    {
        const u64 at = media.find(&model[offset], sector, format::first_segment_offset, sector);
        EXPECT_LT(at, media.bytes())
            << "sector " << offset / sector << " is not on the cache device";
        return at;
    }
    format::Key key_of(u32 i)
    {
        format::Key k;
        get(record_at(i) + format::record_header_bytes, k);
        return k;
    }
    u64 flags_of(u32 i)
    {
        format::RecordHeader h;
        get(record_at(i), h);
        return h.flags;
    }
    // A good record with another key and other flags.
    void change_record(u32 i, const format::Key &k, u64 flags)
    {
        u8 record[format::kset_bytes(1)];
        format::encode_kset(record, &k, 1, {flags});
        put(record_at(i), record);
    }
    u64 generation(u32 segment)
    {
        format::GenerationRecord r[2];
        for (u32 i = 0; i < 2; i++)
            get(generation_at(segment, i), r[i]);
        return std::max(r[0].gen, r[1].gen);
    }
    void raise_generation(u32 segment)
    {
        format::GenerationRecord r = format::encode_generation(generation(segment) + 1);
        format::seal_slot(&r, sizeof(r), 100);
        put(generation_at(segment, 0), r);
        put(generation_at(segment, 1), r);
    }
    // A good record whose key names a segment that there is not.
    void bend_key(u32 i)
    {
        u8 record[format::kset_bytes(1)];
        get(record_at(i), record);
        format::Key k = format::decode_key(record, 0);
        k.cache_seg_id = 1u << 19;
        reseal(i, record, k, 0);
    }
    void make_newer(bool record)
    {
        if (record) {
            u8 r[format::kset_bytes(1)];
            get(record_at(7), r);
            reseal(7, r, format::decode_key(r, 0), 2);
            return;
        }
        change_extension([](format::ExtensionRecord &e) { e.state |= 4; });
    }
    void put_dirty_tail(format::LogPosition p)
    {
        for (u32 i = 0; i < 2; i++) {
            format::PositionRecord r = format::encode_position(p);
            format::seal_slot(&r, sizeof(r), 1);
            put(format::dirty_tail_offset + i * u64{format::position_stride}, r);
        }
    }
    void lose_tails()
    {
        for (u32 i = 0; i < 4; i++)
            flip(format::key_tail_offset + i * u64{format::position_stride} + 8);
    }
    void lose_extension()
    {
        flip(extension_at(0) + 20);
        flip(extension_at(1) + 20);
    }
    void forget_cache_info()
    {
        change_extension([](format::ExtensionRecord &e) { e.cache_info_crc++; });
    }
    // The LAST record of the first log segment.
    void spoil_last()
    {
        for (u32 at = 0; at < format::data_bytes; at += 8) {
            format::RecordHeader h;
            get(log_at(0, at), h);
            if (h.magic == format::record_magic && format::RecordFlags{h.flags}.last()) {
                flip(log_at(0, at) + 20);
                return;
            }
        }
        ADD_FAILURE() << "there is no LAST record in segment 0";
    }

private:
    struct Made {
        u64 offset;
        u32 bytes;
        u64 version;
    };
    template <class T>
    void get(u64 offset, T &v)
    {
        media.read(offset, &v, sizeof(v));
    }
    template <class T>
    void put(u64 offset, const T &v)
    {
        media.write(offset, &v, sizeof(v));
    }
    template <class F>
    void change_extension(F f)
    {
        for (u32 i = 0; i < 2; i++) {
            format::ExtensionRecord e;
            get(extension_at(i), e);
            f(e);
            format::seal_slot(&e, sizeof(e), e.header.seq);
            put(extension_at(i), e);
        }
    }
    void reseal(u32 i, u8 (&record)[format::kset_bytes(1)], const format::Key &k, u64 flag)
    {
        format::RecordHeader h;
        std::memcpy(&h, record, sizeof(h));
        format::encode_kset(record, &k, 1, {h.flags | flag});
        put(record_at(i), record);
    }

    std::mutex lock_;
    bool keep_dirty_ = false;
    u64 writes_failed_ = 0;
    Image base_;
    std::vector<Made> made_;
};

// Eight writes of 4 KiB, each an epoch and a record of its own; write i to page i, and 0 to 3 once
// more as 4 to 7 in reverse.
inline constexpr u32 writes = 8;
inline u64 page_of(u32 i)
{
    return (i < 4 ? i : 7 - i) * u64{4096};
}
inline void eight_writes(DamageRig &rig)
{
    for (u32 i = 0; i < writes; i++)
        rig.write_record(page_of(i), 4096);
}

// Eight writes; the record of write 2 is lost; activated.
inline void one_hole(DamageRig &rig)
{
    rig.keep_dirty(true);
    rig.start();
    eight_writes(rig);
    rig.stop(false);
    rig.spoil_record(2);
    rig.model_without({2});
    rig.keep_dirty(false);
    ASSERT_EQ(rig.create(), 0) << rig.sentence;
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    ASSERT_TRUE(rig.read_only()) << rig.status();
}

} // namespace pcache::selftest
