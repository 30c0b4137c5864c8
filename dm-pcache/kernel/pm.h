/* SPDX-License-Identifier: GPL-2.0 */
/*
 * pm.h - at module load and unload, inside of pc_target_module_init and _exit.
 */
#ifndef PCACHE_KERNEL_PM_H
#define PCACHE_KERNEL_PM_H

int pc_pm_init(void);
void pc_pm_exit(void);

#endif
