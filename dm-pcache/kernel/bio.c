// SPDX-License-Identifier: GPL-2.0
/*
 * bio.c - requests of the upper layer: copies between their pages and media or memory, and their
 * end (platform.h, "the cache device" and "requests of the upper layer"; face.h, pc_bio_accept).
 *
 * A bio's own iterator is never moved: every copy walks a copy of it, so that a request may be
 * looked at as often as needed until it ends. Nothing here sleeps or takes a lock.
 */
#include <linux/bio.h>
#include <linux/blk_types.h>
#include <linux/highmem.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "dm-pcache/kernel/internal.h"
#include "dm-pcache/target/face.h"

/* The bytes [offset, offset + bytes) of a bio, which must lie inside it. */
static struct bvec_iter window(struct bio *bio, u32 offset, u32 bytes)
{
    struct bvec_iter iter = bio->bi_iter;

    bio_advance_iter(bio, &iter, offset);
    iter.bi_size = bytes;
    return iter;
}

int pc_media_to_bio(struct pc_bio *pc_bio, u32 bio_offset, const u8 *from, u32 bytes)
{
    struct bio *bio = to_bio(pc_bio);
    struct bvec_iter iter = window(bio, bio_offset, bytes);

    while (iter.bi_size) {
        struct bio_vec v = bio_iter_iovec(bio, iter);
        void *to = bvec_kmap_local(&v);
        unsigned long left = copy_mc_to_kernel(to, from, v.bv_len);

        flush_dcache_page(v.bv_page);
        kunmap_local(to);
        if (left)
            return -EIO;
        from += v.bv_len;
        bio_advance_iter_single(bio, &iter, v.bv_len);
    }
    return 0;
}

void pc_media_from_bio(u8 *to, struct pc_bio *pc_bio, u32 bio_offset, u32 bytes)
{
    struct bio *bio = to_bio(pc_bio);
    struct bvec_iter iter = window(bio, bio_offset, bytes);

    while (iter.bi_size) {
        struct bio_vec v = bio_iter_iovec(bio, iter);
        void *from = bvec_kmap_local(&v);

        memcpy_flushcache(to, from, v.bv_len);
        kunmap_local(from);
        to += v.bv_len;
        bio_advance_iter_single(bio, &iter, v.bv_len);
    }
}

void pc_bio_copy_to(struct pc_bio *pc_bio, u32 bio_offset, const void *from, u32 bytes)
{
    struct bio *bio = to_bio(pc_bio);
    struct bvec_iter iter = window(bio, bio_offset, bytes);

    while (iter.bi_size) {
        struct bio_vec v = bio_iter_iovec(bio, iter);

        memcpy_to_bvec(&v, from);
        from += v.bv_len;
        bio_advance_iter_single(bio, &iter, v.bv_len);
    }
}

/* ---- with a checksum ---------------------------------------------------------------------- */

/*
 * What is summed passes through a buffer on the stack, which stays in the first level cache. A
 * sector at a time: it divides every length here.
 */
#define CHUNK SECTOR_SIZE

/* The next `bytes` of a bio, which may lie in several of its pages. */
static void gather(struct bio *bio, struct bvec_iter *iter, u8 *to, u32 bytes)
{
    while (bytes) {
        struct bio_vec v = bio_iter_iovec(bio, *iter);
        u32 step = min(v.bv_len, bytes);
        void *from = bvec_kmap_local(&v);

        memcpy(to, from, step);
        kunmap_local(from);
        bio_advance_iter_single(bio, iter, step);
        to += step;
        bytes -= step;
    }
}

static void scatter(struct bio *bio, struct bvec_iter *iter, const u8 *from, u32 bytes)
{
    while (bytes) {
        struct bio_vec v = bio_iter_iovec(bio, *iter);
        u32 step = min(v.bv_len, bytes);
        void *to = bvec_kmap_local(&v);

        memcpy(to, from, step);
        flush_dcache_page(v.bv_page);
        kunmap_local(to);
        bio_advance_iter_single(bio, iter, step);
        from += step;
        bytes -= step;
    }
}

u32 pc_media_from_bio_crc(u8 *to, struct pc_bio *pc_bio, u32 bio_offset, u32 bytes, u32 crc)
{
    struct bio *bio = to_bio(pc_bio);
    struct bvec_iter iter = window(bio, bio_offset, bytes);
    u8 chunk[CHUNK];

    while (bytes) {
        u32 step = min_t(u32, bytes, CHUNK);

        gather(bio, &iter, chunk, step);
        crc = pc_crc32c(crc, chunk, step);
        memcpy_flushcache(to, chunk, step);
        to += step;
        bytes -= step;
    }
    return crc;
}

int pc_media_crc(const u8 *from, usize bytes, u32 *crc)
{
    u8 chunk[CHUNK];

    while (bytes) {
        u32 step = min_t(usize, bytes, CHUNK);

        if (copy_mc_to_kernel(chunk, from, step))
            return -EIO;
        *crc = pc_crc32c(*crc, chunk, step);
        from += step;
        bytes -= step;
    }
    return 0;
}

int pc_media_to_bio_crc(struct pc_bio *pc_bio, const u8 *from, u32 bytes,
                        const struct pc_piece *pieces, u32 count, u32 *crc)
{
    struct bio *bio = to_bio(pc_bio);
    struct bvec_iter iter = bio->bi_iter;
    u32 at, step, first, end, bio_at = 0;
    u8 chunk[CHUNK];

    for (at = 0; at < bytes; at += step) {
        step = min_t(u32, bytes - at, CHUNK);
        if (copy_mc_to_kernel(chunk, from + at, step))
            return -EIO;
        *crc = pc_crc32c(*crc, chunk, step);
        for (; count && pieces->skip < at + step; pieces++, count--) {
            first = max(at, pieces->skip);
            end = min(at + step, pieces->skip + pieces->bytes);
            bio_advance_iter(bio, &iter, pieces->bio_offset + (first - pieces->skip) - bio_at);
            scatter(bio, &iter, chunk + (first - at), end - first);
            bio_at = pieces->bio_offset + (end - pieces->skip);
            if (end < pieces->skip + pieces->bytes)
                break;
        }
    }
    return 0;
}

void pc_bio_end(struct pc_bio *pc_bio, int error)
{
    struct bio *bio = to_bio(pc_bio);

    if (error == -EAGAIN) {
        bio_wouldblock_error(bio);
        return;
    }
    bio->bi_status = error == PC_END_REQUEUE ? BLK_STS_DM_REQUEUE : errno_to_blk_status(error);
    bio_endio(bio);
}

void pc_bio_accept(struct pc_bio *bio, u32 bytes)
{
    dm_accept_partial_bio(to_bio(bio), bytes >> SECTOR_SHIFT);
}
