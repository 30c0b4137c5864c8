// SPDX-License-Identifier: GPL-2.0
// media/kept_pages.cpp - see kept_pages.hpp.
#include "dm-pcache/media/kept_pages.hpp"

namespace pcache::media
{

namespace
{
constinit LockClass kept_class{"pcache kept pages"};
} // namespace

KeptPages::KeptPages() noexcept : lock_(kept_class) {}

void KeptPages::clear() noexcept
{
    while (first_) {
        Page *p = first_;
        first_ = p->next;
        pc_free(p);
    }
    count_.set(0);
}

// The lock is held. Where the pointer to it is, or would be.
KeptPages::Page **KeptPages::find(u64 page) noexcept
{
    Page **p = &first_;
    while (*p && (*p)->offset != page)
        p = &(*p)->next;
    return p;
}

void KeptPages::keep(u64 page, const u8 *data, u64 lines) noexcept
{
    if (!lines)
        return;
    Page *fresh = static_cast<Page *>(pc_alloc(sizeof(Page), PC_MAY_SLEEP));
    {
        rt::Guard g(lock_);
        Page **at = find(page);
        if (!*at && fresh && count_.read() < max_pages) {
            fresh->offset = page;
            *at = fresh;
            fresh = nullptr;
            count_.set(count_.read() + 1);
        }
        Page *p = *at;
        for (u32 i = 0; p && i < 64; i++) {
            if (lines >> i & 1)
                __builtin_memcpy(p->data + i * line_bytes, data + i * line_bytes, line_bytes);
        }
        if (p)
            p->lines |= lines;
    }
    pc_free(fresh);
}

void KeptPages::forget(u64 page) noexcept
{
    if (!any())
        return;
    Page *gone;
    {
        rt::Guard g(lock_);
        Page **at = find(page);
        gone = *at;
        if (gone) {
            *at = gone->next;
            count_.set(count_.read() - 1);
        }
    }
    pc_free(gone);
}

bool KeptPages::load(void *to, u64 offset, u32 bytes) noexcept
{
    const u64 page = rt::round_down<u64>(offset, format::page_bytes);
    const u32 from = static_cast<u32>(offset - page);
    const u64 wanted = lines_of(from, bytes);
    rt::Guard g(lock_);
    const Page *p = *find(page);
    if (!p || (p->lines & wanted) != wanted)
        return false;
    __builtin_memcpy(to, p->data + from, bytes);
    return true;
}

} // namespace pcache::media
