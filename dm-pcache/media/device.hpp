// SPDX-License-Identifier: GPL-2.0
// media/device.hpp - where things are on the mapped cache device: read-only addresses.
//
// Also knows the pages that the driver knew to be bad when the device was opened, and which units
// (512 bytes) of them are. Those units are never loaded from: metadata and log are read by load(),
// and whoever wants data asks known_bad() first. New data is never put into such a page, so the
// paths of a request need not ask. A page that a block write has made good leaves the list.
//
// Linux unmaps a page when poison in it is consumed. What had been read of a page of the log by
// then is kept (KeptPages), and load_log() goes on with it. The segment in whose data that happened
// is noted: whoever hands segments out asks, since a store to an unmapped page would fault.
//
// Immutable after open() and freeze_chain(), but for what is kept, which has a lock of its own, and
// what is noted, which is atomic; may be read from anywhere without a lock.
#pragma once
#include "cxxrt/atomic.hpp"
#include "cxxrt/result.hpp"
#include "dm-pcache/format/geometry.hpp"
#include "dm-pcache/media/kept_pages.hpp"
#include "dm-pcache/platform.h"

namespace pcache::media
{

class Device : rt::NonCopyable
{
public:
    Device() noexcept = default;
    ~Device();

    // Maps the five metadata pages and segments 0 .. seg_count() - 1 (as many as the device holds,
    // at most geometry.max_segments), each contiguous in the address space. Takes `media` over
    // (closes it in the destructor, and when it fails). May sleep. Error::no_space: too small.
    // Error::no_device: more than max_bad_pages are known to be bad.
    rt::Error open(pc_media *media) noexcept;
    // Nothing below may be used afterwards, except bytes() and seg_count(). May sleep.
    void close() noexcept;

    u64 bytes() const noexcept { return bytes_; }
    u32 seg_count() const noexcept { return seg_count_; } // that fit on the device
    const pc_media *media() const noexcept { return media_; }
    pc_media *media() noexcept { return media_; }

    // Address of a byte below first_segment_offset.
    const u8 *meta(u64 offset) const noexcept { return meta_ + offset; }
    // First byte of a segment, its control pages included.
    const u8 *segment(format::PhysicalSegment s) const noexcept
    {
        return linear_ ? linear_ + u64{s.value} * format::geometry.segment_bytes : table_[s.value];
    }

    // Address of any byte of the device; metadata pages and segments do not adjoin.
    const u8 *address(u64 offset) const noexcept
    {
        if (offset < format::first_segment_offset)
            return meta(offset);
        const u64 rest = offset - format::first_segment_offset;
        return segment({static_cast<u32>(rest / format::geometry.segment_bytes)}) +
               rest % format::geometry.segment_bytes;
    }

    // The chain: logical to physical. Null: the identity (nothing is kept). Takes the table over
    // (pc_free), and frees the one before. Before anything below is used. False, and nothing
    // changes: the chain is frozen, and this is another one.
    bool set_chain(u32 *physical, u32 count) noexcept;
    // While a cache is active its readers use the chain without a lock.
    void freeze_chain() noexcept { frozen_ = true; }
    void thaw_chain() noexcept { frozen_ = false; }
    u32 chain_length() const noexcept { return chain_length_; } // number of logical segments
    format::PhysicalSegment physical(format::SegmentId s) const noexcept
    {
        return {chain_ ? chain_[s.value] : s.value};
    }
    // First byte of the data area of a logical segment.
    const u8 *data(format::SegmentId s) const noexcept
    {
        return segment(physical(s)) + format::segment_control_bytes;
    }
    // The same as an offset of the device.
    u64 data_offset(format::SegmentId s) const noexcept
    {
        return format::segment_offset(physical(s)) + format::segment_control_bytes;
    }

    // ---- pages known to be bad ----
    static constexpr u32 max_bad_pages = 1u << 18; // 1 GiB; the list then takes 2 MiB
    u32 bad_pages() const noexcept { return bad_count_; }
    // Whether [offset, offset + bytes) touches a bad unit, so that it must not be loaded. Costs a
    // branch where there is none.
    bool known_bad(u64 offset, u64 bytes) const noexcept
    {
        return bad_count_ && any_bad(offset, bytes, true);
    }
    // Whether it touches such a page, so that it must not be stored to.
    bool in_bad_page(u64 offset, u64 bytes) const noexcept
    {
        return bad_count_ && any_bad(offset, bytes, false);
    }
    // A block write has made this page good. Any thread, but one at a time for one page.
    void repaired(u64 page_offset) noexcept;
    // Copies [offset, offset + bytes) out, machine-check safe. Error::io when a line cannot be read
    // or it touches a unit known to be bad (nothing is loaded then); the target is undefined. Does
    // not sleep.
    rt::Error load(void *to, u64 offset, usize bytes) const noexcept;
    // The same of the log: of a page that is kept, what is kept.
    rt::Error load_log(void *to, u64 offset, usize bytes) const noexcept;
    // For who reads a page of the log and meets a line that cannot be: `lines` has a bit for each
    // of the 64 that were read before into `page`. May sleep.
    void keep(u64 page_offset, const u8 *page, u64 lines) const noexcept;
    // Something else is stored in the page. Any thread.
    void forget(u64 page_offset) const noexcept { kept_.forget(page_offset); }

    // ---- segments in whose data area load() or load_log() met a line that could not be read ----
    bool met_unreadable(format::PhysicalSegment s) const noexcept
    {
        return unreadable_[s.value / 64].read() >> (s.value % 64) & 1;
    }
    // All of its data area has been made good.
    void made_readable(format::PhysicalSegment s) noexcept
    {
        (void)unreadable_[s.value / 64].fetch_and(~(u64{1} << (s.value % 64)));
    }

private:
    void note_unreadable(u64 offset) const noexcept;
    rt::Error list_bad_pages() noexcept;
    bool any_bad(u64 offset, u64 bytes, bool units) const noexcept;
    u32 first_bad_from(u64 page) const noexcept;

    pc_media *media_ = nullptr;
    const u8 *meta_ = nullptr;
    const u8 *linear_ = nullptr; // when all segments lie in one stretch of addresses
    const u8 **table_ = nullptr; // else: the address of each
    u32 *chain_ = nullptr;
    u64 bytes_ = 0;
    u32 seg_count_ = 0;
    u32 chain_length_ = 0;
    bool frozen_ = false;
    rt::Atomic<u64> *bad_ = nullptr; // page number * 2, ascending; + 1: repaired
    u8 *bad_units_ = nullptr;        // of each, a bit for each bad unit
    u32 bad_count_ = 0;
    rt::Atomic<u64> *unreadable_ = nullptr; // a bit for each segment
    mutable KeptPages kept_;
};

} // namespace pcache::media
