// SPDX-License-Identifier: GPL-2.0
/*
 * backing.c - the backing device: reads, flushes, and writes of media pages without a copy
 * (platform.h, "the backing device").
 *
 * A write must go on when memory is short: its bio, its vector and the pc_wio around it come from a
 * bio_set of this device alone, whose reserve refills as writes complete. So a caller that holds an
 * unsubmitted write must not wait for another; with at most POOL of them begun by all callers
 * together, none waits. Writes are marked REQ_SYNC | REQ_IDLE: they make room for requests that
 * wait, and writeback throttling would count them as background.
 *
 * The reads that fill the cache are made in map() and may fail for lack of memory, so they never
 * wait; their bio_set is another one, so that they take nothing of the writes' reserve. They are
 * built inside the engine's epoch (an RCU reader) and sent after it, since submit_bio may sleep;
 * until its end such a read keeps this device open, as the engine counts it from its building on.
 */
#define pr_fmt(fmt) "dm-pcache: " fmt
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "dm-pcache/kernel/internal.h"

#define POOL 32
#define READ_POOL 4

struct pc_backing {
    struct pc_table *table;
    struct dm_dev *device;
    struct bio_set bios;
    struct bio_set reads;
};

/* A write, or a read into pages: the bio is allocated with the rest in front of it. */
struct pc_wio {
    pc_backing_done done;
    void *context;
    struct bio bio; /* last: its inline vector may follow */
};
struct pc_rio {
    struct pc_wio w;
};

int pc_backing_open(struct pc_table *t, const char *path, struct pc_backing **out,
                    const char **sentence)
{
    struct dm_dev *device;
    struct pc_backing *b;
    int error = pc_table_get_device(t, path, PC_ROLE_BACKING, &device, sentence);

    if (error)
        return error;
    if (bdev_is_zoned(device->bdev)) {
        pc_refuse(t, sentence, "backing device is zoned: give one that takes writes anywhere", "%s",
                  path);
        error = -EINVAL;
        goto put;
    }
    error = -ENOMEM;
    *sentence = "out of memory";
    b = kzalloc(sizeof(*b), GFP_KERNEL);
    if (!b)
        goto put;
    if (bioset_init(&b->bios, POOL, offsetof(struct pc_wio, bio), BIOSET_NEED_BVECS))
        goto free;
    if (bioset_init(&b->reads, READ_POOL, offsetof(struct pc_wio, bio), BIOSET_NEED_BVECS))
        goto exit_bios;
    b->table = t;
    b->device = device;
    t->backing = device->bdev;
    t->backing_device = device;
    *sentence = NULL;
    *out = b;
    return 0;
exit_bios:
    bioset_exit(&b->bios);
free:
    kfree(b);
put:
    pc_table_put_device(t, device);
    return error;
}

void pc_backing_close(struct pc_backing *b)
{
    if (!b)
        return;
    b->table->backing = NULL;
    b->table->backing_device = NULL;
    pc_table_put_device(b->table, b->device);
    bioset_exit(&b->bios);
    bioset_exit(&b->reads);
    kfree(b);
}

void pc_backing_exchange(struct pc_backing *a, struct pc_backing *b)
{
    swap(a->table, b->table);
    swap(a->device, b->device);
}

const char *pc_backing_name(const struct pc_backing *b)
{
    return b->device->name;
}

u64 pc_backing_bytes(const struct pc_backing *b)
{
    return bdev_nr_bytes(b->device->bdev);
}

u32 pc_backing_block(const struct pc_backing *b)
{
    return bdev_logical_block_size(b->device->bdev);
}

const void *pc_backing_identity(const struct pc_backing *b)
{
    return b->device->bdev;
}

int pc_backing_flush(struct pc_backing *b)
{
    return blkdev_issue_flush(b->device->bdev);
}

/* How many of `bytes` from `at` lie in one stretch of page structures: vmap'ed pages are strangers.
 */
static u32 stretch(const void *at, u32 bytes)
{
    if (!is_vmalloc_addr(at))
        return bytes;
    return min_t(u32, bytes, PAGE_SIZE - offset_in_page(at));
}

/* Returns how many bytes were added; fewer than asked for when the bio is full. */
static u32 add_bytes(struct bio *bio, const void *at, u32 bytes)
{
    u32 taken = 0;

    while (taken < bytes) {
        u32 step = stretch(at + taken, bytes - taken);

        if (bio_add_page(bio, pc_page_of(at + taken), step, offset_in_page(at + taken)) != step)
            break;
        taken += step;
    }
    return taken;
}

int pc_backing_read(struct pc_backing *b, u64 offset, void *to, u32 bytes)
{
    while (bytes) {
        struct bio *bio = bio_alloc_bioset(b->device->bdev, BIO_MAX_VECS, REQ_OP_READ | REQ_SYNC,
                                           GFP_NOIO, &b->bios);
        u32 taken = add_bytes(bio, to, bytes);
        int error;

        bio->bi_iter.bi_sector = offset >> SECTOR_SHIFT;
        error = taken ? submit_bio_wait(bio) : -EINVAL;
        bio_put(bio);
        if (error)
            return error;
        offset += taken;
        to += taken;
        bytes -= taken;
    }
    return 0;
}

static void ended(struct bio *bio)
{
    struct pc_wio *w = container_of(bio, struct pc_wio, bio);
    pc_backing_done done = w->done;
    void *context = w->context;
    int error = blk_status_to_errno(bio->bi_status);

    /* First: after done() the device may be closed, and the pool with it. */
    bio_put(bio);
    done(context, error);
}

struct pc_wio *pc_wio_begin(struct pc_backing *b, u64 offset, pc_backing_done done, void *context)
{
    struct bio *bio = bio_alloc_bioset(b->device->bdev, BIO_MAX_VECS,
                                       REQ_OP_WRITE | REQ_SYNC | REQ_IDLE, GFP_NOIO, &b->bios);
    struct pc_wio *w = container_of(bio, struct pc_wio, bio);

    bio->bi_iter.bi_sector = offset >> SECTOR_SHIFT;
    bio->bi_end_io = ended;
    w->done = done;
    w->context = context;
    return w;
}

u32 pc_wio_add(struct pc_wio *w, const u8 *media, u32 bytes)
{
    return add_bytes(&w->bio, media, bytes);
}

void pc_wio_submit(struct pc_wio *w)
{
    if (w->bio.bi_iter.bi_size)
        submit_bio(&w->bio);
    else
        bio_endio(&w->bio);
}

void pc_wio_drop(struct pc_wio *w)
{
    bio_io_error(&w->bio);
}

/* As the block layer counts them (get_max_io_size() in block/blk-merge.c). */
static u32 most_sectors(const struct queue_limits *limits, u64 sector)
{
    u32 physical = limits->physical_block_size >> SECTOR_SHIFT;
    u32 logical = limits->logical_block_size >> SECTOR_SHIFT;
    u32 most = limits->max_sectors;
    u32 start = sector & (physical - 1);
    u32 end;

    if (limits->chunk_sectors)
        most = min(most, limits->chunk_sectors - (u32)sector_div(sector, limits->chunk_sectors));
    end = (start + most) & ~(physical - 1);
    return end > start ? end - start : most & ~(logical - 1);
}

/*
 * A bio that the block layer has to split and must not wait ends with EAGAIN, however often it is
 * sent.
 */
static bool may_be_split(const struct bio *bio)
{
    struct request_queue *q = bdev_get_queue(bio->bi_bdev);
    u64 start = get_start_sect(bio->bi_bdev) + bio->bi_iter.bi_sector;
    u32 segments = 0;
    u16 i;

    for (i = 0; i < bio->bi_vcnt; i++)
        segments += (bio->bi_io_vec[i].bv_len - 1) / queue_max_segment_size(q) + 1;
    return segments > queue_max_segments(q) || queue_virt_boundary(q) > PAGE_SIZE - 1 ||
           bio_sectors(bio) > most_sectors(&q->limits, start);
}

struct pc_rio *pc_rio_begin(struct pc_backing *b, u64 offset, void *const *pages, u32 bytes,
                            int nowait, pc_backing_done done, void *context)
{
    const u32 page = 4096;
    struct bio *bio = bio_alloc_bioset(b->device->bdev, DIV_ROUND_UP(bytes, page),
                                       REQ_OP_READ | REQ_SYNC | (nowait ? REQ_NOWAIT : 0),
                                       GFP_NOWAIT | __GFP_NOWARN, &b->reads);
    struct pc_rio *r;
    u32 at, step;

    if (!bio)
        return NULL;
    r = container_of(bio, struct pc_rio, w.bio);
    for (at = 0; at < bytes; at += step) {
        step = min(bytes - at, page);
        if (add_bytes(bio, pages[at / page], step) != step) {
            bio_put(bio);
            return NULL;
        }
    }
    bio->bi_iter.bi_sector = offset >> SECTOR_SHIFT;
    if (nowait && may_be_split(bio)) {
        bio_put(bio);
        return NULL;
    }
    bio->bi_end_io = ended;
    r->w.done = done;
    r->w.context = context;
    return r;
}

void pc_rio_submit(struct pc_rio *r)
{
    submit_bio(&r->w.bio);
}
