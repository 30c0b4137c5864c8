// SPDX-License-Identifier: GPL-2.0
// format/crc32c.hpp - the checksum of everything on media.
//
// crc32c, reflected polynomial 0x82F63B78, no inversion at either end: what the kernel's
// crc32c(seed, p, n) computes. Uses the processor's crc32 instruction, on general registers (no FPU
// state), where there is one. Pure; any context; no lock.
#pragma once
#include "cxxrt/base.hpp"

namespace pcache::format
{

// The initial register of every checksum on media.
inline constexpr u32 crc_seed = 0x0003B15A;

// Continues `seed` (crc_seed, or the result for the bytes in front) over n bytes.
u32 crc32c(u32 seed, const void *p, usize n) noexcept;

// The same by table only: the fallback, and what tests compare the instruction with.
u32 crc32c_by_table(u32 seed, const void *p, usize n) noexcept;

// Whether crc32c() uses the instruction on this machine.
bool crc32c_has_instruction() noexcept;

} // namespace pcache::format
