// SPDX-License-Identifier: GPL-2.0
/*
 * pc_abi.c - sizes of the kernel's objects that live in storage of the C++ side.
 *
 * Compiled to assembly only; Kbuild makes pc_abi.h of it. They differ between configurations (a
 * spinlock has 4 bytes, or 64 with lockdep), so that they cannot be written down anywhere.
 */
#include <linux/kbuild.h>
#include <linux/lockdep.h>
#include <linux/mutex.h>
#include <linux/spinlock.h>
#include <linux/wait.h>

#include "dm-pcache/kernel/internal.h"

int main(void)
{
    DEFINE(PC_SPINLOCK_SIZE, sizeof(spinlock_t));
    DEFINE(PC_SPINLOCK_ALIGN, __alignof__(spinlock_t));
    DEFINE(PC_MUTEX_SIZE, sizeof(struct mutex));
    DEFINE(PC_MUTEX_ALIGN, __alignof__(struct mutex));
    /* Empty without lockdep; an object of C++ has at least one byte. */
    DEFINE(PC_LOCK_CLASS_SIZE, sizeof(struct lock_class_key) ? sizeof(struct lock_class_key) : 1);
    DEFINE(PC_LOCK_CLASS_ALIGN, __alignof__(struct lock_class_key));
    DEFINE(PC_WORK_SIZE, sizeof(struct pc_work));
    DEFINE(PC_WORK_ALIGN, __alignof__(struct pc_work));
    DEFINE(PC_EVENT_SIZE, sizeof(wait_queue_head_t));
    DEFINE(PC_EVENT_ALIGN, __alignof__(wait_queue_head_t));
    return 0;
}
