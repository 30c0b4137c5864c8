// SPDX-License-Identifier: GPL-2.0
// selftests/fuzz/reference.cpp - see reference.hpp.
#include "selftests/fuzz/reference.hpp"
#include <algorithm>
#include "selftests/sim/sched.hpp"

namespace pcache::fuzz
{

namespace
{

using namespace format;

class Reader
{
    const Image &im_;
    Reference &r_;
    std::vector<u32> chain_;
    std::vector<u64> generation_;
    std::vector<bool> log_, used_; // log segments; sectors of the device that keys name
    std::vector<u32> named_;       // segments that keys name
    PositionRecord key_tail_{}, dirty_tail_{};
    bool data_crc_ = false, dirty_ = false;

    // The newest good copy. False: none is good.
    template <class T>
    bool newest(u64 at, u32 stride, T &out) const
    {
        const T a = im_.get<T>(at), b = im_.get<T>(at + stride);
        const bool good_a = a.header.crc == slot_crc(&a, sizeof(T));
        const bool good_b = b.header.crc == slot_crc(&b, sizeof(T));
        if (!good_a && !good_b)
            return false;
        out = !good_a || (good_b && static_cast<s8>(b.header.seq - a.header.seq) > 0) ? b : a;
        return true;
    }

    const char *read_superblock() const
    {
        const auto s = im_.get<SuperblockRecord>(superblock_offset);
        if (s.magic != superblock_magic || s.flags || s.crc != slot_crc(&s, sizeof(s)))
            return "superblock";
        if (s.seg_num < geometry.min_segments || s.seg_num > im_.segments)
            return "seg_num";
        return nullptr;
    }

    const char *read_chain()
    {
        CacheInfoRecord c;
        if (!newest(cache_info_offset, page_bytes, c))
            return "cache_info";
        if (!(c.flags & 2) || c.flags >> 13 || c.reserved || c.n_segs < geometry.min_segments)
            return "cache_info's content";
        data_crc_ = c.flags & 1;
        for (u32 at = c.seg_id; chain_.size() < c.n_segs;) {
            SegmentInfoRecord s;
            if (at >= im_.segments || std::count(chain_.begin(), chain_.end(), at))
                return "the chain";
            if (!newest(segment_offset({at}), segment_info_stride, s))
                return "segment_info";
            if ((s.flags >> 1 & 15) != 1 || s.flags >> 5)
                return "segment_info's content";
            GenerationRecord g;
            if (!newest(segment_offset({at}) + generation_offset, generation_stride, g))
                return "a generation";
            chain_.push_back(at);
            generation_.push_back(g.gen);
            if (!(s.flags & 1) && chain_.size() < c.n_segs)
                return "the chain's end";
            at = s.next_seg;
        }
        log_.resize(chain_.size());
        return nullptr;
    }

    const char *take_key(const Key &k)
    {
        if (k.reserved || k.flags & ~2u || !k.len || (k.off | k.len | k.cache_seg_off) % 512)
            return "a key";
        if (k.off / geometry.range_bytes != (k.off + k.len - 1) / geometry.range_bytes)
            return "a key that crosses a range";
        if (k.off + k.len > u64{im_.sectors} * 512 || k.cache_seg_id >= chain_.size() ||
            k.cache_seg_off > data_bytes || k.len > data_bytes - k.cache_seg_off)
            return "a key's place";
        if (k.seg_gen > generation_[k.cache_seg_id])
            return "a lost generation";
        const bool stale = k.seg_gen < generation_[k.cache_seg_id];
        const bool dirty = dirty_ && !(k.flags & 2);
        if (stale && dirty)
            return "a dirty key that is stale";
        const u64 place = data_area(chain_[k.cache_seg_id]) + k.cache_seg_off;
        sim::trace("reference: sectors %llu to %llu at %u:%u generation %llu%s%s", k.off / 512,
                   (k.off + k.len) / 512 - 1, k.cache_seg_id, k.cache_seg_off, k.seg_gen,
                   stale ? " stale" : "", dirty ? " dirty" : "");
        Source s = stale ? Source::backing : dirty ? Source::dirty : Source::clean;
        if (s == Source::dirty && data_crc_ &&
            crc32c_by_table(crc_seed, &im_.bytes[place], k.len) != k.data_crc)
            s = Source::lost;
        for (u32 i = 0; i < k.len / 512; ++i) {
            const Source before = r_.source[k.off / 512 + i];
            if (s == Source::clean && (before == Source::dirty || before == Source::lost))
                return "a clean key over a dirty one";
            if (!stale && used_[place / 512 + i])
                return "two keys of one place";
            used_[place / 512 + i] = used_[place / 512 + i] || !stale;
            r_.source[k.off / 512 + i] = s;
            r_.place[k.off / 512 + i] = place + i * 512;
        }
        if (!stale)
            named_.push_back(k.cache_seg_id);
        return nullptr;
    }

    // Whether a record with these flags is the next one.
    static bool reads_on(bool any, u64 last, u64 newest_number, u64 flags)
    {
        const u64 n = flags >> 16;
        if (n == 0 || !any)
            return true;
        if (flags & RecordFlags::start_bit)
            return !newest_number || after(n, newest_number);
        return last && n == advance(last, 1);
    }

    const char *read_log()
    {
        LogPosition at{{key_tail_.cache_seg_id}, key_tail_.seg_off};
        const LogPosition turn{{dirty_tail_.cache_seg_id}, dirty_tail_.seg_off};
        if (at.segment.value >= chain_.size() || at.offset % 8 || at.offset > data_bytes - 24)
            return "key_tail";
        log_[at.segment.value] = true;
        u64 last = 0, newest_number = 0;
        for (bool any = false;; any = true) {
            dirty_ = dirty_ || at == turn;
            const u64 place = data_area(chain_[at.segment.value]) + at.offset;
            if (at.offset > data_bytes - record_header_bytes)
                return nullptr;
            const auto h = im_.get<RecordHeader>(place);
            const u32 bytes = announced_bytes(h, at.offset);
            if (!bytes || h.crc != crc32c_by_table(crc_seed, &im_.bytes[place + 4], bytes - 4) ||
                !reads_on(any, last, newest_number, h.flags))
                return nullptr;
            if (h.flags & RecordFlags::unknown_bits)
                return "flags of a newer driver";
            last = h.flags >> 16;
            sim::trace("reference: %s of %u at %u:%u, number %llu%s%s",
                       h.flags & RecordFlags::last_bit ? "LAST" : "kset", h.num, at.segment.value,
                       at.offset, last, h.flags & RecordFlags::epoch_bit ? " EPOCH" : "",
                       h.flags & RecordFlags::start_bit ? " START" : "");
            newest_number = last ? last : newest_number;
            if (h.flags & RecordFlags::last_bit) {
                if (h.num >= chain_.size() || log_[h.num])
                    return "a link";
                at = {{h.num}, 0};
                log_[h.num] = true;
                continue;
            }
            for (u32 i = 0; i < h.num; ++i)
                if (const char *w = take_key(im_.get<Key>(place + kset_bytes(i))))
                    return w;
            at.offset += bytes;
        }
    }

    const char *read()
    {
        if (const char *w = read_superblock())
            return w;
        if (const char *w = read_chain())
            return w;
        if (!newest(key_tail_offset, position_stride, key_tail_) ||
            !newest(dirty_tail_offset, position_stride, dirty_tail_))
            return "a tail";
        if (const char *w = read_log())
            return w;
        if (!dirty_)
            return "dirty_tail is not met";
        for (const u32 s : named_)
            if (log_[s])
                return "data in a log segment";
        return nullptr;
    }

public:
    Reader(const Image &im, Reference &r) : im_(im), r_(r), used_(im.bytes.size() / 512) {}
    void run()
    {
        const char *w = im_.poisoned.empty() && im_.known_bad.empty() ? read() : "bad pages";
        r_.certain = !w;
        r_.why = w ? w : "";
    }
};

} // namespace

Reference read_reference(const Image &im)
{
    Reference r;
    r.source.assign(im.sectors, Source::backing);
    r.place.assign(im.sectors, 0);
    Reader(im, r).run();
    return r;
}

} // namespace pcache::fuzz
