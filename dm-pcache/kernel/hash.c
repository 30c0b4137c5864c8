// SPDX-License-Identifier: GPL-2.0
/*
 * hash.c - the kernel's SipHash-2-4 (platform.h, "hashes"). No locks.
 */
#include <linux/siphash.h>
#include <linux/string.h>

#include "dm-pcache/platform.h"

u64 pc_siphash(const u8 *key, const void *data, usize bytes)
{
    __le64 halves[2];
    siphash_key_t k;

    memcpy(halves, key, sizeof(halves));
    k.key[0] = le64_to_cpu(halves[0]);
    k.key[1] = le64_to_cpu(halves[1]);
    return siphash(data, bytes, &k);
}
