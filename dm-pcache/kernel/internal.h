/* SPDX-License-Identifier: GPL-2.0 */
/*
 * internal.h - the C side of the opaque structures of platform.h, for the shims alone.
 *
 * A struct pc_bio is a struct bio, a lock the kernel's own: those are cast and have no definition.
 * What only one shim knows is defined there. The others are below.
 */
#ifndef PCACHE_KERNEL_INTERNAL_H
#define PCACHE_KERNEL_INTERNAL_H

#include <linux/bio.h>
#include <linux/device-mapper.h>
#include <linux/mutex.h>
#include <linux/workqueue.h>

#include "dm-pcache/kernel/compat.h"
#include "dm-pcache/platform.h"

/* Lives in storage of the C++ side; its size is PC_WORK_SIZE. */
struct pc_work {
    struct delayed_work delayed;
    struct pc_queue *queue;
    struct list_head aside; /* where put aside, see work.c */
    pc_work_function function;
    void *context;
};

struct pc_target;

/*
 * One table line, from ctr to dtr; ti->private. The two devices are borrowed from the objects that
 * hold them open, for iterate_devices, for remapping and to tell one from the other; null while
 * closed. Written in ctr, preresume and dtr only, when no bio is mapped.
 */
struct pc_table {
    struct dm_target *ti;
    struct pc_target *target;
    struct block_device *media;
    struct block_device *backing;
    struct dm_dev *backing_device;
};

static inline struct bio *to_bio(struct pc_bio *bio)
{
    return (struct bio *)bio;
}

/* The page behind a kernel address, be it in the linear mapping or in one of vmap's. */
struct page *pc_page_of(const void *address);

/*
 * Refuses a table line: sets *out to the sentence (static text, for ti->error), and writes one line
 * with it and the details to the log. May sleep.
 */
void pc_refuse(struct pc_table *t, const char **out, const char *sentence, const char *format, ...)
    PC_PRINTF(4, 5);

/*
 * Opens a device of a table line for reading and writing. 0, or a negative errno with *sentence
 * set. Refuses a read-only table or device, one device in both roles, and a device on which
 * another device-mapper target than ours is. May sleep.
 */
enum pc_role { PC_ROLE_CACHE, PC_ROLE_BACKING };
int pc_table_get_device(struct pc_table *t, const char *path, enum pc_role role,
                        struct dm_dev **out, const char **sentence);
void pc_table_put_device(struct pc_table *t, struct dm_dev *device);

#endif
