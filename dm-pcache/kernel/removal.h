/* SPDX-License-Identifier: GPL-2.0 */
/* removal.h - the notice that a cache device is about to be removed, for dax.c. */
#ifndef PCACHE_KERNEL_REMOVAL_H
#define PCACHE_KERNEL_REMOVAL_H

#include <linux/list.h>

struct block_device;
struct dax_device;
struct holder;

/* One handle of a cache device. */
struct pc_watch {
    struct list_head link;
    struct holder *holder; /* null: there will be no notice */
    void (*gone)(void *context);
    void *context;
};

/*
 * From here on the removal of `dax`, on which `bdev` lies, is noticed, if it can be. 0 or -ENOMEM.
 * May sleep.
 */
int pc_watch_begin(struct pc_watch *w, struct block_device *bdev, struct dax_device *dax);
/*
 * gone(context) is called once when it comes, at once if it has come already; null: no more. It
 * may sleep and must not end a watch. No call is under way when this returns. May sleep.
 */
void pc_watch_call(struct pc_watch *w, void (*gone)(void *context), void *context);
/* No call is under way when it returns. For what never began (zeroed) a no-op. May sleep. */
void pc_watch_end(struct pc_watch *w);

#endif
