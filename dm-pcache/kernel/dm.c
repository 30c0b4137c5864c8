// SPDX-License-Identifier: GPL-2.0
/*
 * dm.c - the device-mapper target "pcache": translates structures and return values between
 * device-mapper and face.h, and holds no policy.
 *
 * ctr, dtr, suspend and resume callbacks are serialised per device by device-mapper; map runs on
 * any number of CPUs between preresume and the end of postsuspend and never sleeps.
 */
#define pr_fmt(fmt) "dm-pcache: " fmt
#include <linux/bio.h>
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/sizes.h>
#include <linux/slab.h>

#include "dm-pcache/kernel/internal.h"
#include "dm-pcache/kernel/pm.h"
#include "dm-pcache/target/face.h"

/* Requests are cut at multiples of this: one write then is at most as long as what one key may
 * cover. */
#define MAX_REQUEST_SECTORS (SZ_4M >> SECTOR_SHIFT)

/* ---- life cycle ----------------------------------------------------------------------- */

static int pcache_ctr(struct dm_target *ti, unsigned int argc, char **argv)
{
    const char *sentence = NULL;
    struct pc_table *t = kzalloc(sizeof(*t), GFP_KERNEL);
    int error = -ENOMEM;

    if (t) {
        t->ti = ti;
        error = pc_target_ctr(t, argc, argv, (u64)ti->len << SECTOR_SHIFT, &t->target, &sentence);
    }
    if (!error)
        error = dm_set_target_max_io_len(ti, MAX_REQUEST_SECTORS);
    if (error) {
        if (t && t->target)
            pc_target_dtr(t->target);
        kfree(t);
        if (!sentence)
            sentence = error == -ENOMEM ? "out of memory" : "table line refused: see the log";
        ti->error = (char *)sentence;
        return error;
    }
    ti->private = t;
    ti->num_flush_bios = 1;
    ti->flush_supported = true;
    ti->num_discard_bios = 0;
    ti->limit_swap_bios = true;
    ti->per_io_data_size = PC_REQUEST_BYTES;
    return 0;
}

static void pcache_dtr(struct dm_target *ti)
{
    struct pc_table *t = ti->private;

    pc_target_dtr(t->target);
    kfree(t);
}

static int pcache_preresume(struct dm_target *ti)
{
    struct pc_table *t = ti->private;
    unsigned int scope = memalloc_noio_save();
    int error = pc_target_preresume(t->target);

    memalloc_noio_restore(scope);
    return error;
}

static void pcache_presuspend(struct dm_target *ti)
{
    struct pc_table *t = ti->private;

    pc_target_presuspend(t->target, dm_noflush_suspending(ti));
}

static void pcache_presuspend_undo(struct dm_target *ti)
{
    struct pc_table *t = ti->private;

    pc_target_presuspend_undo(t->target);
}

static void pcache_postsuspend(struct dm_target *ti)
{
    struct pc_table *t = ti->private;

    pc_target_postsuspend(t->target);
}

/* ---- requests ------------------------------------------------------------------------- */

/*
 * A polled bio carries NOWAIT as well, but an EAGAIN would reach the user as an error:
 * device-mapper sends it once more, polled no longer, and gives on what comes of that. So it waits
 * like any other; whoever polls finds it ended when it is.
 *
 * False for what this target does not take. Device-mapper sends the flush of a write that asks for
 * one ahead as an empty bio, so a bio is one thing or the other.
 */
static bool translate(struct dm_target *ti, struct bio *bio, struct pc_io *io)
{
    bool preflush = bio->bi_opf & REQ_PREFLUSH;

    *io = (struct pc_io){
        .offset = (u64)dm_target_offset(ti, bio->bi_iter.bi_sector) << SECTOR_SHIFT,
        .length = bio->bi_iter.bi_size,
        .fua = !!(bio->bi_opf & REQ_FUA),
        .nowait = (bio->bi_opf & REQ_NOWAIT) && !(bio->bi_opf & REQ_POLLED),
    };
    if (preflush && !io->length) {
        io->op = PC_FLUSH;
        io->offset = 0;
        return true;
    }
    if (preflush || !io->length)
        return false;
    switch (bio_op(bio)) {
    case REQ_OP_READ:
        io->op = PC_READ;
        return true;
    case REQ_OP_WRITE:
        io->op = PC_WRITE;
        return true;
    default:
        return false;
    }
}

static void remap(struct pc_table *t, struct bio *bio)
{
    bio_set_dev(bio, t->backing);
    if (bio->bi_opf & REQ_POLLED)
        bio->bi_opf &= ~REQ_NOWAIT; /* see translate() */
    if (bio_sectors(bio))
        bio->bi_iter.bi_sector = dm_target_offset(t->ti, bio->bi_iter.bi_sector);
}

static int pcache_map(struct dm_target *ti, struct bio *bio)
{
    struct pc_table *t = ti->private;
    struct pc_io io;

    if (!translate(ti, bio, &io)) {
        bio->bi_status = BLK_STS_NOTSUPP;
        bio_endio(bio);
        return DM_MAPIO_SUBMITTED;
    }
    switch (pc_target_map(t->target, (struct pc_bio *)bio, dm_per_bio_data(bio, PC_REQUEST_BYTES),
                          &io)) {
    case PC_TAKEN:
        return DM_MAPIO_SUBMITTED;
    case PC_REMAP:
        remap(t, bio);
        return DM_MAPIO_REMAPPED;
    case PC_REQUEUE:
        return DM_MAPIO_REQUEUE;
    case PC_FAIL:
        break;
    }
    return DM_MAPIO_KILL;
}

/* ---- the administrator's side --------------------------------------------------------- */

static void pcache_status(struct dm_target *ti, status_type_t type, unsigned int flags,
                          char *result, unsigned int size)
{
    struct pc_table *t = ti->private;
    int what = type == STATUSTYPE_INFO ? 0 : type == STATUSTYPE_TABLE ? 1 : 2;

    result[0] = '\0';
    pc_target_status(t->target, what, result, size);
}

static int pcache_message(struct dm_target *ti, unsigned int argc, char **argv, char *result,
                          unsigned int size)
{
    struct pc_table *t = ti->private;

    return pc_target_message(t->target, argc, argv, result, size);
}

/* The backing device alone: its limits are ours, and the cache device does not see our bios. */
static int pcache_iterate_devices(struct dm_target *ti, iterate_devices_callout_fn fn, void *data)
{
    struct pc_table *t = ti->private;

    return fn(ti, t->backing_device, 0, ti->len, data);
}

static void pcache_io_hints(struct dm_target *ti, struct queue_limits *limits)
{
    /* The backing device's discards were stacked before; ours do not reach it. */
    pc_limits_without_discard(limits);
}

static struct target_type pcache_target = {
    .name = "pcache",
    .version = {1, 0, 0},
    .features = DM_TARGET_SINGLETON | DM_TARGET_NOWAIT,
    .module = THIS_MODULE,
    .ctr = pcache_ctr,
    .dtr = pcache_dtr,
    .map = pcache_map,
    .preresume = pcache_preresume,
    .presuspend = pcache_presuspend,
    .presuspend_undo = pcache_presuspend_undo,
    .postsuspend = pcache_postsuspend,
    .status = pcache_status,
    .message = pcache_message,
    .iterate_devices = pcache_iterate_devices,
    .io_hints = pcache_io_hints,
};

static int __init pcache_init(void)
{
    int error = pc_target_module_init();

    if (error)
        return error;
    error = pc_pm_init();
    if (error)
        goto exit_target;
    error = dm_register_target(&pcache_target);
    if (error)
        goto exit_pm;
    return 0;
exit_pm:
    pc_pm_exit();
exit_target:
    pc_target_module_exit();
    return error;
}

static void __exit pcache_exit(void)
{
    dm_unregister_target(&pcache_target);
    pc_pm_exit();
    pc_target_module_exit();
}

module_init(pcache_init);
module_exit(pcache_exit);

MODULE_DESCRIPTION("device-mapper persistent memory cache target");
MODULE_AUTHOR("dm-pcache authors");
MODULE_VERSION("1.0.0");
MODULE_LICENSE("GPL");
