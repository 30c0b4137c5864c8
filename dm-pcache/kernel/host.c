// SPDX-License-Identifier: GPL-2.0
/*
 * host.c - one active cache as its administrator sees it: its name in the log, and its
 * device-mapper events (platform.h, pc_host_*).
 *
 * dm_table_event sleeps, and the table it needs may be swapped under a running cache: events are
 * raised from a work item, with `lock` held over the call. Detaching takes the same lock, so that
 * no event is under way for a table when pc_host_detach returns.
 */
#include <linux/mutex.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/workqueue.h>

#include "dm-pcache/kernel/host.h"
#include "dm-pcache/kernel/internal.h"

struct pc_host {
    struct mutex lock;
    struct pc_table *table; /* the live one; null between two tables */
    struct work_struct event;
    char name[DM_NAME_LEN + 16];
};

static void raise_event(struct work_struct *work)
{
    struct pc_host *h = container_of(work, struct pc_host, event);
    /* A detach waits for us while the device is suspended: do not wait for its I/O here. */
    unsigned int scope = memalloc_noio_save();

    mutex_lock(&h->lock);
    if (h->table)
        dm_table_event(h->table->ti->table);
    mutex_unlock(&h->lock);
    memalloc_noio_restore(scope);
}

/* "name (dm-0)", or "dm-0" alone while device-mapper knows no name. */
static void take_name(struct pc_host *h, struct pc_table *t)
{
    struct mapped_device *md = dm_table_get_md(t->ti->table);
    const char *disk = dm_disk(md)->disk_name;
    char *name = kzalloc(DM_NAME_LEN, GFP_NOIO);

    if (name && !dm_copy_name_and_uuid(md, name, NULL) && name[0])
        snprintf(h->name, sizeof(h->name), "%s (%s)", name, disk);
    else
        snprintf(h->name, sizeof(h->name), "%s", disk);
    kfree(name);
}

const char *pc_host_name(const struct pc_host *host)
{
    return host->name;
}

struct pc_host *pc_host_create(struct pc_table *t)
{
    struct pc_host *h = kzalloc(sizeof(*h), GFP_NOIO);

    if (!h)
        return NULL;
    mutex_init(&h->lock);
    INIT_WORK(&h->event, raise_event);
    take_name(h, t);
    return h;
}

void pc_host_attach(struct pc_host *h, struct pc_table *t)
{
    mutex_lock(&h->lock);
    h->table = t;
    mutex_unlock(&h->lock);
}

void pc_host_detach(struct pc_host *h, struct pc_table *t)
{
    mutex_lock(&h->lock);
    if (h->table == t)
        h->table = NULL;
    mutex_unlock(&h->lock);
}

int pc_host_noflush(struct pc_host *h)
{
    int on;

    mutex_lock(&h->lock);
    on = h->table && dm_noflush_suspending(h->table->ti);
    mutex_unlock(&h->lock);
    return on;
}

void pc_raise_event(struct pc_host *host)
{
    if (host)
        schedule_work(&host->event);
}

void pc_host_destroy(struct pc_host *h)
{
    if (!h)
        return;
    flush_work(&h->event);
    mutex_destroy(&h->lock);
    kfree(h);
}
