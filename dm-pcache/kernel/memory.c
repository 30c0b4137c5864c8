// SPDX-License-Identifier: GPL-2.0
/*
 * memory.c - memory of the engine (platform.h, "memory").
 *
 * The cache lies below file systems and swap, so nothing here may start I/O to make room: what may
 * sleep runs in a NOIO scope, which also covers the page tables that vmalloc allocates. No locks.
 */
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "dm-pcache/platform.h"

static void *alloc_sleeping(size_t bytes)
{
    const gfp_t gfp = GFP_KERNEL | __GFP_ZERO | __GFP_NOWARN;
    unsigned int scope = memalloc_noio_save();
    /* kvmalloc refuses sizes above INT_MAX, which the index of a large cache exceeds. */
    void *p = bytes > KMALLOC_MAX_SIZE ? __vmalloc(bytes, gfp) : kvmalloc(bytes, gfp);

    memalloc_noio_restore(scope);
    return p;
}

void *pc_alloc(usize bytes, enum pc_how how)
{
    if (how == PC_MAY_SLEEP)
        return alloc_sleeping(bytes);
    if (how == PC_MAY_FAIL)
        return kmalloc(bytes, GFP_NOIO | __GFP_NORETRY | __GFP_NOWARN | __GFP_ZERO);
    return kmalloc(bytes, GFP_NOWAIT | __GFP_NOWARN | __GFP_ZERO);
}

void pc_free(const void *p)
{
    kvfree(p);
}
