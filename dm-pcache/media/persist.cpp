// SPDX-License-Identifier: GPL-2.0
// media/persist.cpp - see persist.hpp. The const_cast below is the only one of its kind.
#include "dm-pcache/media/persist.hpp"
#include "dm-pcache/format/crc32c.hpp"
#include "dm-pcache/mutants.hpp"

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

u32 store_from_bio_crc(const Pin &, const u8 *to, pc_bio *bio, u32 bio_offset, u32 bytes) noexcept
{
    const u32 crc = pc_media_from_bio_crc(writable(to), bio, bio_offset, bytes, format::crc_seed);
    if (mutant(Mutant::crc_of_another_pass))
        pc_media_from_bio(writable(to), bio, bio_offset, bytes);
    return crc;
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

rt::Error is_sum(const SummedData &data, u32 crc) noexcept
{
    return crc == data.crc || mutant(Mutant::crc_not_verified) ? rt::Error::none : rt::Error::io;
}

rt::Error verify(const SummedData &data) noexcept
{
    u32 crc = format::crc_seed;
    RT_TRY(from_errno(pc_media_crc(data.at, data.bytes, &crc)));
    return is_sum(data, crc);
}

rt::Error sum_to_bio(pc_bio *bio, const u8 *from, u32 bytes, const pc_piece *pieces, u32 count,
                     u32 &crc) noexcept
{
    return from_errno(pc_media_to_bio_crc(bio, from, bytes, pieces, count, &crc));
}

rt::Error verify_to_bio(pc_bio *bio, const SummedData &data, const pc_piece *pieces,
                        u32 count) noexcept
{
    u32 crc = format::crc_seed;
    RT_TRY(sum_to_bio(bio, data.at, data.bytes, pieces, count, crc));
    return is_sum(data, crc);
}

rt::Error probe(const u8 *at, usize bytes) noexcept
{
    return from_errno(pc_media_probe(at, bytes));
}

} // namespace pcache::media::persist

u32 pc_crc32c(u32 crc, const void *p, usize bytes) noexcept
{
    return pcache::format::crc32c(crc, p, bytes);
}
