// SPDX-License-Identifier: GPL-2.0
// media/disk_blocks.cpp - see disk_blocks.hpp.
#include "dm-pcache/media/disk_blocks.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::media
{

using format::disk_block_bytes;
using format::disk_blocks;
using rt::Error;

namespace
{

struct Read {
    u32 done = 0;  // bit i: hash[i] is block i's
    int error = 0; // of the first block that could not be read
    u64 hash[disk_blocks] = {};
};

// Blocks [first, first + count): in one read, or one by one if that fails.
void read_run(pc_backing *device, const u8 *uuid, u32 first, u32 count, u8 *buffer,
              Read &out) noexcept
{
    const u64 at = u64{first} * disk_block_bytes;
    if (const int e = pc_backing_read(device, at, buffer, count * disk_block_bytes); e) {
        if (count == 1 && !out.error)
            out.error = e;
        for (u32 i = 0; count > 1 && i < count; i++)
            read_run(device, uuid, first + i, 1, buffer, out);
        return;
    }
    for (u32 i = 0; i < count; i++) {
        out.hash[first + i] = pc_siphash(uuid, buffer + i * disk_block_bytes, disk_block_bytes);
        out.done |= 1u << (first + i);
    }
}

Error read_blocks(pc_backing *device, const u8 *uuid, u32 wanted, Read &out) noexcept
{
    // A device of larger blocks has none that could be read alone.
    if (!wanted || !device || pc_backing_block(device) > disk_block_bytes)
        return Error::none;
    u8 *buffer = static_cast<u8 *>(pc_alloc(disk_blocks * disk_block_bytes, PC_MAY_SLEEP));
    if (!buffer)
        return Error::no_memory;
    for (u32 i = 0, n = 0; i < disk_blocks; i += n + 1) {
        for (n = 0; i + n < disk_blocks && (wanted >> (i + n) & 1);)
            n++;
        if (n)
            read_run(device, uuid, i, n, buffer, out);
    }
    pc_free(buffer);
    return Error::none;
}

} // namespace

u32 disk_blocks_inside(u64 bytes) noexcept
{
    const u64 whole = bytes / disk_block_bytes;
    return whole >= disk_blocks ? ~0u : (1u << whole) - 1;
}

Error learn_disk(pc_backing *device, u64 bytes, const u8 (&uuid)[16],
                 format::DiskState &state) noexcept
{
    const u32 inside = mutant(Mutant::disk_beyond_table) ? ~0u : disk_blocks_inside(bytes);
    Read read;
    RT_TRY(read_blocks(device, uuid, inside & ~state.known & ~state.unsure, read));
    for (u32 i = 0; i < disk_blocks; i++) {
        // A hash of 0 says that nothing matches.
        if ((read.done >> i & 1) && read.hash[i])
            state.set(i, read.hash[i]);
    }
    return Error::none;
}

Error compare_disk(pc_backing *device, u64 bytes, const u8 (&uuid)[16],
                   const format::DiskState &state, u32 &differ) noexcept
{
    differ = 0;
    Read read;
    RT_TRY(read_blocks(device, uuid, state.known & disk_blocks_inside(bytes), read));
    for (u32 i = 0; i < disk_blocks; i++) {
        const bool never = !state.hash[i] && !mutant(Mutant::disk_zero_hash_compared);
        if (!(state.known >> i & 1) || (!(read.done >> i & 1) && !never))
            continue;
        if (never || read.hash[i] != state.hash[i])
            differ |= 1u << i;
    }
    return read.done || differ ? Error::none : static_cast<Error>(-read.error);
}

// clang-format off
#define DISK_BLOCKS(F)                                                                             \
    F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11) F(12) F(13) F(14) F(15)          \
    F(16) F(17) F(18) F(19) F(20) F(21) F(22) F(23) F(24) F(25) F(26) F(27) F(28) F(29) F(30) F(31)
// clang-format on

const char *changed_disk_sentence(u32 block) noexcept
{
#define SENTENCE(n)                                                                                \
    "backing device was changed behind the cache, which holds dirty data for it (4 KiB block " #n  \
    " differs): attach the right device, look with changed_backing read_only, or clear the cache",
    static constexpr const char *sentences[disk_blocks] = {DISK_BLOCKS(SENTENCE)};
#undef SENTENCE
    return sentences[block % disk_blocks];
}

const char *changed_disk_read_only_sentence(u32 block) noexcept
{
#define SENTENCE(n) "backing device was changed behind the cache (4 KiB block " #n " differs)",
    static constexpr const char *sentences[disk_blocks] = {DISK_BLOCKS(SENTENCE)};
#undef SENTENCE
    return sentences[block % disk_blocks];
}

} // namespace pcache::media
