// SPDX-License-Identifier: GPL-2.0
// selftests/unit/mainline_media.hpp - makes a cache device that mainline's driver could have left:
// no extension, no marks, no numbers, keys of any length it writes. By the encoders of format/ and
// plain writes; the engine is not involved. The device is not active meanwhile.
#pragma once
#include <vector>
#include "dm-pcache/format/crc32c.hpp"
#include "dm-pcache/format/position.hpp"
#include "dm-pcache/format/record.hpp"
#include "dm-pcache/format/segment.hpp"
#include "dm-pcache/format/superblock.hpp"
#include "dm-pcache/media/two_slot.hpp"
#include "world.hpp"

namespace pcache::selftest
{

class MainlineMedia
{
public:
    // An empty cache of so many segments; the log begins in segment 0, data goes behind it.
    MainlineMedia(MediaDevice &media, u32 segments, bool data_crc)
        : media_(media), data_crc_(data_crc), next_log_(segments)
    {
        put(format::superblock_offset, format::encode_superblock(segments));
        for (u32 i = 0; i < segments; i++) {
            put_both(
                media::segment_info_place({i}),
                format::encode_segment_info({i + 1 < segments, {i + 1 < segments ? i + 1 : 0}}));
            put_both(media::generation_place({i}), format::encode_generation(0));
        }
        put_tail(media::key_tail_place, {});
        put_tail(media::dirty_tail_place, {});
        put_both(media::cache_info_place,
                 format::encode_cache_info(
                     {{0},
                      segments,
                      format::make_cache_flags(data_crc, true, format::CacheMode::writeback,
                                               format::default_gc_percent)}));
    }
    // A key, and its data. Returns where that lies on the device. Its record is there after the
    // next end_log(), or when enough keys have come together.
    u64 add_key(u64 offset, const Image &data, u32 flags)
    {
        const u32 bytes = static_cast<u32>(data.size());
        if (used_ + bytes > format::data_bytes) {
            segment_++;
            used_ = 0;
        }
        const u32 crc = data_crc_ ? format::crc32c(format::crc_seed, data.data(), bytes) : 0;
        const u64 at = data_at({{segment_}, used_});
        media_.write(at, data.data(), bytes);
        keys_.push_back({offset, bytes, flags, segment_, used_, 0, crc, 0});
        used_ += bytes;
        if (keys_.size() == format::geometry.keys_per_kset)
            end_log();
        return at;
    }
    // All keys so far are in the log.
    void end_log()
    {
        if (!keys_.empty())
            put_kset();
    }
    // They have been written back.
    void all_clean() { put_tail(media::dirty_tail_place, head_); }

private:
    template <class T>
    void put(u64 offset, const T &v)
    {
        media_.write(offset, &v, sizeof(v));
    }
    template <class T>
    void put_both(const media::SlotPlace &p, T record)
    {
        format::seal_slot(&record, sizeof(record), 1);
        put(p.offset, record);
        put(p.offset + p.stride, record);
    }
    void put_tail(const media::SlotPlace &p, format::LogPosition at)
    {
        format::PositionRecord r = format::encode_position(at);
        r.header.res = 0;
        put_both(p, r);
    }
    void put_kset()
    {
        const u32 n = static_cast<u32>(keys_.size()), bytes = format::kset_bytes(n);
        if (head_.offset + bytes > format::data_bytes - format::record_header_bytes) {
            next_log_--; // log segments from the last one downwards
            put(data_at(head_), format::encode_last({next_log_}, format::RecordFlags{}));
            head_ = {{next_log_}, 0};
        }
        std::vector<u8> record(bytes);
        media_.write(data_at(head_), record.data(),
                     format::encode_kset(record.data(), keys_.data(), n, format::RecordFlags{}));
        head_.offset += bytes;
        keys_.clear();
    }
    static u64 data_at(format::LogPosition p)
    {
        return format::segment_offset({p.segment.value}) + format::segment_control_bytes + p.offset;
    }

    MediaDevice &media_;
    bool data_crc_;
    format::LogPosition head_;
    u32 next_log_;                  // one behind where the log will go on
    std::vector<format::Key> keys_; // not in a record yet
    u32 segment_ = 1, used_ = 0;    // where the next data goes
};

} // namespace pcache::selftest
