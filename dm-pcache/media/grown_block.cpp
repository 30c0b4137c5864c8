// SPDX-License-Identifier: GPL-2.0
// media/grown_block.cpp - what is said where dirty keys are not whole blocks of the backing device
// (identify.hpp). Sentences are static text, so there is one for each pair of sizes.
#include "dm-pcache/media/identify.hpp"

namespace pcache::media
{

#define PCACHE_GROWN(was, is)                                                                      \
    "the cache holds dirty data in blocks of " was                                                 \
    " bytes, the backing device has logical blocks of " is                                         \
    " bytes by now: put a loop device with the old block size over it (losetup -b " was            \
    "), name that as backing device until key_head equals dirty_tail, then remove it and change"

const char *grown_block_sentence(u64 dirty_bits, u32 block) noexcept
{
    if (!(dirty_bits & (block - 1)))
        return nullptr;
    const u64 unit = dirty_bits & (~dirty_bits + 1);
    if (block == 4096)
        return unit == 512    ? PCACHE_GROWN("512", "4096")
               : unit == 1024 ? PCACHE_GROWN("1024", "4096")
                              : PCACHE_GROWN("2048", "4096");
    if (block == 2048)
        return unit == 512 ? PCACHE_GROWN("512", "2048") : PCACHE_GROWN("1024", "2048");
    if (block == 1024)
        return PCACHE_GROWN("512", "1024");
    return PCACHE_GROWN("512", "more than 4096");
}

#undef PCACHE_GROWN

} // namespace pcache::media
