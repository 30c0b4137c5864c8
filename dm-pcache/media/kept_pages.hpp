// SPDX-License-Identifier: GPL-2.0
// media/kept_pages.hpp - what had been read of pages of the log in which a line then could not be.
//
// Linux unmaps a page as a whole when poison in it is consumed, so the other lines can be read no
// more; a log is read more than once. Bounded: beyond max_pages nothing is kept, and the records of
// such a page are as unreadable as the page is. Whoever stores to a page has it forgotten.
// Any thread; a spinlock inside.
#pragma once
#include "cxxrt/atomic.hpp"
#include "dm-pcache/format/geometry.hpp"
#include "dm-pcache/sync.hpp"

namespace pcache::media
{

class KeptPages : rt::NonCopyable
{
public:
    static constexpr u32 line_bytes = 64, max_pages = 1024;

    KeptPages() noexcept;
    ~KeptPages() { clear(); }
    void clear() noexcept; // by the last one
    bool any() const noexcept { return count_.read() != 0; }
    // A bit of `lines` for each line of `data` that is good; they are added to what is kept of the
    // page. May sleep.
    void keep(u64 page, const u8 *data, u64 lines) noexcept;
    void forget(u64 page) noexcept;
    // Bytes inside one page. False: not all of them are kept.
    bool load(void *to, u64 offset, u32 bytes) noexcept;

    // The lines that [from, from + bytes) of a page touches.
    static u64 lines_of(u32 from, u32 bytes) noexcept
    {
        const u32 first = from / line_bytes, last = (from + bytes - 1) / line_bytes;
        return (~u64{0} << first) & (~u64{0} >> (63 - last));
    }

private:
    struct Page {
        Page *next;
        u64 offset, lines;
        u8 data[format::page_bytes];
    };
    static_assert(format::page_bytes / line_bytes == 64);
    Page **find(u64 page) noexcept;

    SpinLock lock_;
    Page *first_ = nullptr;
    rt::Atomic<u32> count_{0};
};

} // namespace pcache::media
