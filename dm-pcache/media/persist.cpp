// SPDX-License-Identifier: GPL-2.0
// media/persist.cpp - see persist.hpp. The const_cast below is the only one of its kind.
#include "dm-pcache/media/persist.hpp"

namespace pcache::media::persist
{

namespace
{
u8 *writable(const u8 *media) noexcept
{
    return const_cast<u8 *>(media);
}

rt::Error from_errno(int e) noexcept
{
    return e ? rt::Error::io : rt::Error::none;
}
} // namespace

void store(const Pin &, const u8 *to, const void *from, usize bytes) noexcept
{
    pc_media_store(writable(to), from, bytes);
}

void zero(const Pin &, const u8 *to, usize bytes) noexcept
{
    pc_media_zero(writable(to), bytes);
}

void store_from_bio(const Pin &, const u8 *to, pc_bio *bio, u32 bio_offset, u32 bytes) noexcept
{
    pc_media_from_bio(writable(to), bio, bio_offset, bytes);
}

void flush(const Pin &, const u8 *at, usize bytes) noexcept
{
    pc_media_flush(at, bytes);
}

void fence(const Pin &) noexcept
{
    pc_media_fence();
}

rt::Error rewrite_page(pc_media *media, u64 offset, const void *page) noexcept
{
    return from_errno(pc_media_rewrite_page(media, offset, page));
}

rt::Error load(void *to, const u8 *from, usize bytes) noexcept
{
    return from_errno(pc_media_load(to, from, bytes));
}

rt::Error load_to_bio(pc_bio *bio, u32 bio_offset, const u8 *from, u32 bytes) noexcept
{
    return from_errno(pc_media_to_bio(bio, bio_offset, from, bytes));
}

} // namespace pcache::media::persist
