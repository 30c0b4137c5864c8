/* SPDX-License-Identifier: GPL-2.0 */
/*
 * pc_abi.h - sizes of the opaque objects of platform.h with inline storage, user-space edition.
 *
 * The kernel build generates a file of the same name for its configuration; which one is found
 * is a matter of the include path. platform_threads.cpp and platform_work.cpp assert that their
 * objects fit.
 */
#ifndef PC_ABI_H
#define PC_ABI_H

#define PC_SPINLOCK_SIZE 48
#define PC_SPINLOCK_ALIGN 8
#define PC_MUTEX_SIZE 48
#define PC_MUTEX_ALIGN 8
#define PC_LOCK_CLASS_SIZE 8
#define PC_LOCK_CLASS_ALIGN 8
#define PC_WORK_SIZE 48
#define PC_WORK_ALIGN 8
#define PC_EVENT_SIZE 104
#define PC_EVENT_ALIGN 8

#endif
