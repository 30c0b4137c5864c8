// SPDX-License-Identifier: GPL-2.0
/*
 * table.c - what a table line says about itself, and how its devices are opened and refused
 * (platform.h, "opening the devices of a table line").
 *
 * Called from ctr and preresume, which device-mapper serialises per table; may sleep.
 */
#define pr_fmt(fmt) "dm-pcache: " fmt
#include <linux/blkdev.h>
#include <linux/mm.h>
#include <linux/vmalloc.h>

#include "dm-pcache/kernel/internal.h"

static const struct {
    const char *name;
    const char *missing, *busy, *unopened, *read_only;
} roles[] = {
    [PC_ROLE_CACHE] =
        {
            .name = "cache device",
            .missing = "cache device not found: give the path of a block device",
            .busy = "cache device is in use: unmount it, or remove what holds it",
            .unopened = "cache device cannot be opened",
            .read_only = "cache device is read-only: a cache must be writable",
        },
    [PC_ROLE_BACKING] =
        {
            .name = "backing device",
            .missing = "backing device not found: give the path of a block device",
            .busy = "backing device is in use: unmount it, or remove what holds it",
            .unopened = "backing device cannot be opened",
            .read_only = "backing device is read-only: a cache must write back to it",
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

int pc_table_get_device(struct pc_table *t, const char *path, enum pc_role role,
                        struct dm_dev **out, const char **sentence)
{
    int error;

    if (pc_table_is_read_only(t)) {
        pc_refuse(t, sentence, "table is read-only: load it without --readonly", "%s %s",
                  roles[role].name, path);
        return -EROFS;
    }
    error = dm_get_device(t->ti, path, dm_table_get_mode(t->ti->table), out);
    if (error) {
        pc_refuse(t, sentence, why_unopened(role, error), "%s, error %d", path, error);
        return error;
    }
    if (bdev_read_only((*out)->bdev)) {
        pc_refuse(t, sentence, roles[role].read_only, "%s", path);
        dm_put_device(t->ti, *out);
        return -EROFS;
    }
    if ((*out)->bdev == t->media || (*out)->bdev == t->backing) {
        pc_refuse(t, sentence, "cache device and backing device are the same: give two devices",
                  "%s", path);
        dm_put_device(t->ti, *out);
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
