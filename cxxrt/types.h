/* SPDX-License-Identifier: GPL-2.0 */
/*
 * cxxrt/types.h - the fixed-width integer names, for C and C++ alike.
 *
 * In the kernel's C files they are the kernel's own; C++ spells them the same way
 * (u64 is unsigned long long), so that one prototype means one type on both sides.
 */
#ifndef CXXRT_TYPES_H
#define CXXRT_TYPES_H

#ifdef __cplusplus
using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;
using s8 = signed char;
using s16 = short;
using s32 = int;
using s64 = long long;
using usize = decltype(sizeof(0));
#else
/* A kernel shim, which has included <linux/types.h>: this folder knows no kernel header. */
typedef size_t usize;
#endif

#endif
