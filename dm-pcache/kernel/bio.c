// SPDX-License-Identifier: GPL-2.0
/*
 * bio.c - requests of the upper layer: copies between their pages and media, and their end
 * (platform.h, "the cache device" and "requests of the upper layer"; face.h, pc_bio_accept).
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
