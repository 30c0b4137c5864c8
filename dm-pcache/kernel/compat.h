/* SPDX-License-Identifier: GPL-2.0 */
/*
 * compat.h - what differs between the kernels this module is built for, and nothing else.
 *
 * It asks the headers (types, macros, members), never the version: distributions back-port. Each
 * test fails loudly: a fallback that does not fit the kernel at hand does not compile.
 */
#ifndef PCACHE_KERNEL_COMPAT_H
#define PCACHE_KERNEL_COMPAT_H

#include <linux/blkdev.h>
#include <linux/device-mapper.h>

/* The mode of a table became blk_mode_t in 6.5: named here after the function that returns it. */
typedef typeof(dm_table_get_mode(NULL)) pc_dm_mode_t;
#ifdef BLK_OPEN_WRITE
#define PC_DM_WRITE BLK_OPEN_WRITE
#else
#define PC_DM_WRITE FMODE_WRITE
#endif

/*
 * From 6.9 on max_discard_sectors is computed from the hardware's limit when limits are committed;
 * before, it counts itself. Both are set.
 */
static inline void pc_limits_without_discard(struct queue_limits *limits)
{
    limits->max_hw_discard_sectors = 0;
    limits->max_discard_sectors = 0;
    limits->discard_granularity = 0;
    limits->discard_alignment = 0;
}

#endif
