// SPDX-License-Identifier: GPL-2.0
/*
 * table.c - what a table line says about itself, and how its devices are opened and refused
 * (platform.h, "opening the devices of a table line").
 *
 * Called from ctr, preresume and dtr, which device-mapper serialises per table; may sleep.
 *
 * All device-mapper targets open their devices with one holder, so that the block layer refuses
 * none of them beside another. An LV on the device would be a second view of it, and neither would
 * see the other's writes. So the claims are counted: a mapped device makes one, for all its tables,
 * and of those of this module `claims` knows. Who comes later is not seen.
 *
 * `claims_lock` guards the list alone: opening and closing may wait for a device. So the list and
 * the block layer's count differ for a moment while another mapped device opens or closes, and two
 * that open a device at once may both find it taken. settle() waits for that to pass, but not for
 * ever: if it takes longer, both are refused though either could have had it.
 */
#define pr_fmt(fmt) "dm-pcache: " fmt
#include <linux/blkdev.h>
#include <linux/delay.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "dm-pcache/kernel/internal.h"

static const struct {
    const char *name;
    const char *missing, *busy, *unopened, *read_only, *mapped;
} roles[] = {
    [PC_ROLE_CACHE] =
        {
            .name = "cache device",
            .missing = "cache device not found: give the path of a block device",
            .busy = "cache device is in use: unmount it, or remove what holds it",
            .unopened = "cache device cannot be opened",
            .read_only = "cache device is read-only: a cache must be writable",
            .mapped = "another device-mapper device is on the cache device: remove it, see "
                      "/sys/class/block/NAME/holders",
        },
    [PC_ROLE_BACKING] =
        {
            .name = "backing device",
            .missing = "backing device not found: give the path of a block device",
            .busy = "backing device is in use: unmount it, or remove what holds it",
            .unopened = "backing device cannot be opened",
            .read_only = "backing device is read-only: a cache must write back to it",
            .mapped = "another device-mapper device is on the backing device: remove it, see "
                      "/sys/class/block/NAME/holders",
        },
};

void pc_refuse(struct pc_table *t, const char **out, const char *sentence, const char *format, ...)
{
    struct va_format details;
    va_list arguments;

    *out = sentence;
    va_start(arguments, format);
    details.fmt = format;
    details.va = &arguments;
    pr_err("%s: %s (%pV)\n", dm_table_device_name(t->ti->table), sentence, &details);
    va_end(arguments);
}

static const char *why_unopened(enum pc_role role, int error)
{
    switch (error) {
    case -ENOENT:
    case -ENODEV:
    case -ENXIO:
    case -ENOTBLK:
        return roles[role].missing;
    case -EBUSY:
        return roles[role].busy;
    default:
        return roles[role].unopened;
    }
}

/* What tables of one mapped device have open. */
struct claim {
    struct list_head link;
    const struct block_device *bdev;
    const struct mapped_device *md;
    u32 opened;
};
static LIST_HEAD(claims);
static DEFINE_MUTEX(claims_lock);

static struct claim *find_claim(const struct block_device *bdev, const struct mapped_device *md)
{
    struct claim *c;

    list_for_each_entry(c, &claims, link) if (c->bdev == bdev && c->md == md) return c;
    return NULL;
}

static int claim(const struct block_device *bdev, const struct mapped_device *md)
{
    struct claim *fresh = kzalloc(sizeof(*fresh), GFP_KERNEL);
    struct claim *c;

    if (!fresh)
        return -ENOMEM;
    mutex_lock(&claims_lock);
    c = find_claim(bdev, md);
    if (!c) {
        c = fresh;
        c->bdev = bdev;
        c->md = md;
        list_add(&c->link, &claims);
        fresh = NULL;
    }
    c->opened++;
    mutex_unlock(&claims_lock);
    kfree(fresh);
    return 0;
}

static void disclaim(const struct block_device *bdev, const struct mapped_device *md)
{
    struct claim *c;

    mutex_lock(&claims_lock);
    c = find_claim(bdev, md);
    if (!WARN_ON_ONCE(!c) && --c->opened == 0) {
        list_del(&c->link);
        kfree(c);
    }
    mutex_unlock(&claims_lock);
}

/* The block layer counts a claim of a whole device twice. */
static bool claimed_by_others(struct block_device *bdev)
{
    int each = bdev_is_partition(bdev) ? 1 : 2;
    int ours = 0;
    struct claim *c;

    mutex_lock(&claims_lock);
    list_for_each_entry(c, &claims, link) ours += c->bdev == bdev;
    mutex_unlock(&claims_lock);
    return READ_ONCE(bdev->bd_holders) > each * ours;
}

/*
 * A claim that is on its way out counts still: a mapped device that is removed deferred leaves the
 * close of its devices to a later fput, a jiffy or so away. And see above. True: others have it for
 * good.
 */
static bool settle(struct block_device *bdev)
{
    int looks;

    for (looks = 0; claimed_by_others(bdev); looks++) {
        if (looks == 10)
            return true;
        msleep(10);
    }
    return false;
}

/* dm_get_device, and whether somebody else has it. *mapped: that is why it is refused. */
static int open_alone(struct pc_table *t, const char *path, struct dm_dev **out, bool *mapped)
{
    struct mapped_device *md = dm_table_get_md(t->ti->table);
    int error = dm_get_device(t->ti, path, dm_table_get_mode(t->ti->table), out);

    *mapped = false;
    if (error)
        return error;
    error = claim((*out)->bdev, md);
    if (error) {
        dm_put_device(t->ti, *out);
        return error;
    }
    *mapped = settle((*out)->bdev);
    if (*mapped) {
        pc_table_put_device(t, *out);
        return -EBUSY;
    }
    return 0;
}

void pc_table_put_device(struct pc_table *t, struct dm_dev *device)
{
    disclaim(device->bdev, dm_table_get_md(t->ti->table));
    dm_put_device(t->ti, device);
}

int pc_table_get_device(struct pc_table *t, const char *path, enum pc_role role,
                        struct dm_dev **out, const char **sentence)
{
    bool mapped;
    int error;

    if (pc_table_is_read_only(t)) {
        pc_refuse(t, sentence, "table is read-only: load it without --readonly", "%s %s",
                  roles[role].name, path);
        return -EROFS;
    }
    error = open_alone(t, path, out, &mapped);
    if (error) {
        pc_refuse(t, sentence, mapped ? roles[role].mapped : why_unopened(role, error),
                  "%s, error %d", path, error);
        return error;
    }
    if (bdev_read_only((*out)->bdev)) {
        pc_refuse(t, sentence, roles[role].read_only, "%s", path);
        pc_table_put_device(t, *out);
        return -EROFS;
    }
    if ((*out)->bdev == t->media || (*out)->bdev == t->backing) {
        pc_refuse(t, sentence, "cache device and backing device are the same: give two devices",
                  "%s", path);
        pc_table_put_device(t, *out);
        return -EINVAL;
    }
    return 0;
}

const void *pc_table_owner(const struct pc_table *t)
{
    return dm_table_get_md(t->ti->table);
}

int pc_table_is_read_only(const struct pc_table *t)
{
    return !(dm_table_get_mode(t->ti->table) & PC_DM_WRITE);
}

struct page *pc_page_of(const void *address)
{
    return is_vmalloc_addr(address) ? vmalloc_to_page(address) : virt_to_page(address);
}
