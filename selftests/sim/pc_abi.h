/* SPDX-License-Identifier: GPL-2.0 */
/*
 * pc_abi.h - sizes of the opaque objects of platform.h with inline storage, simulator's edition.
 * platform_sync.cpp asserts that its objects fit.
 */
#ifndef PC_ABI_H
#define PC_ABI_H

#define PC_SPINLOCK_SIZE 8
#define PC_SPINLOCK_ALIGN 4
#define PC_MUTEX_SIZE 8
#define PC_MUTEX_ALIGN 4
#define PC_LOCK_CLASS_SIZE 8
#define PC_LOCK_CLASS_ALIGN 8
#define PC_WORK_SIZE 16
#define PC_WORK_ALIGN 8
#define PC_EVENT_SIZE 8
#define PC_EVENT_ALIGN 8

#endif
