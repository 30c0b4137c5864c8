/* SPDX-License-Identifier: GPL-2.0 */
/* host.h - what log.c needs to know of a host. */
#ifndef PCACHE_KERNEL_HOST_H
#define PCACHE_KERNEL_HOST_H

#include "dm-pcache/platform.h"

/* The cache's name for the log, valid as long as the host; never null. Any context. */
const char *pc_host_name(const struct pc_host *host);

#endif
