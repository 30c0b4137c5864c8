// SPDX-License-Identifier: GPL-2.0
/*
 * removal.c - the notice that a cache device is about to be removed, its namespace unbound for
 * example (internal.h, "removal").
 *
 * The DAX device tells one holder. This module is one holder for all that it has opened of a DAX
 * device (two partitions, the handles of two tables); those are in the holder's list. Another
 * module may hold the device already: then there is no notice, only the page maps' references, for
 * which the removal waits. Nor does a device-mapper target between pass one on.
 *
 * `holders_lock` guards both lists and is held over the calls: none is under way when
 * pc_watch_end() returns. The driver calls with its device's lock and DAX's srcu held.
 */
#define pr_fmt(fmt) "dm-pcache: " fmt
#include <linux/blkdev.h>
#include <linux/dax.h>
#include <linux/mutex.h>
#include <linux/slab.h>

#include "dm-pcache/kernel/removal.h"

struct holder {
    struct list_head link; /* in holders */
    struct list_head watches;
    struct dax_device *dax;
    bool gone;
};

static LIST_HEAD(holders);
static DEFINE_MUTEX(holders_lock);

static struct holder *find_holder(const struct dax_device *dax)
{
    struct holder *h;

    list_for_each_entry(h, &holders, link) if (h->dax == dax) return h;
    return NULL;
}

/* Once for each watch. Called with holders_lock held. */
static void tell(struct pc_watch *w)
{
    void (*gone)(void *) = w->gone;

    w->gone = NULL;
    if (gone)
        gone(w->context);
}

/*
 * The whole device: it is about to be removed (0 in `flags` up to 6.5, MF_MEM_PRE_REMOVE since). A
 * part: bad memory, for which the kernel does what it does without a holder.
 */
static int notify_failure(struct dax_device *dax, u64 offset, u64 length, int flags)
{
    struct holder *h;
    struct pc_watch *w;

    if (offset || length != U64_MAX)
        return -EOPNOTSUPP;
    mutex_lock(&holders_lock);
    h = find_holder(dax);
    if (h) {
        h->gone = true;
        list_for_each_entry(w, &h->watches, link) tell(w);
    }
    mutex_unlock(&holders_lock);
    return 0;
}

static const struct dax_holder_operations holder_operations = {
    .notify_failure = notify_failure,
};

/* False: the device has a holder already, or is on its way out. */
static bool hold(struct holder *h, struct block_device *bdev, struct dax_device *dax)
{
    u64 start;

    /*
     * fs_dax_get_by_bdev() leaks a reference when it finds a holder. One that comes in between
     * makes it do so all the same: only our own are kept away by holders_lock.
     */
    if (dax_holder(dax))
        return false;
    h->dax = fs_dax_get_by_bdev(bdev, &start, h, &holder_operations);
    if (!h->dax)
        return false;
    INIT_LIST_HEAD(&h->watches);
    list_add(&h->link, &holders);
    return true;
}

int pc_watch_begin(struct pc_watch *w, struct block_device *bdev, struct dax_device *dax)
{
    struct holder *fresh = kzalloc(sizeof(*fresh), GFP_KERNEL);

    if (!fresh)
        return -ENOMEM;
    mutex_lock(&holders_lock);
    w->gone = NULL;
    w->holder = find_holder(dax);
    if (!w->holder && hold(fresh, bdev, dax)) {
        w->holder = fresh;
        fresh = NULL;
    }
    if (w->holder)
        list_add(&w->link, &w->holder->watches);
    mutex_unlock(&holders_lock);
    if (!w->holder)
        pr_info("%pg: its removal is told to another user of it: this one will not hear of it\n",
                bdev);
    kfree(fresh);
    return 0;
}

void pc_watch_call(struct pc_watch *w, void (*gone)(void *context), void *context)
{
    mutex_lock(&holders_lock);
    w->gone = gone;
    w->context = context;
    if (w->holder && w->holder->gone)
        tell(w);
    mutex_unlock(&holders_lock);
}

void pc_watch_end(struct pc_watch *w)
{
    struct holder *h = w->holder;

    if (!h)
        return;
    mutex_lock(&holders_lock);
    list_del(&w->link);
    w->holder = NULL;
    if (list_empty(&h->watches)) {
        list_del(&h->link);
        fs_put_dax(h->dax, h);
        kfree(h);
    }
    mutex_unlock(&holders_lock);
}
