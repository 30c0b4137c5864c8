// SPDX-License-Identifier: GPL-2.0
// media/persist.hpp - the single door through which anything is stored on the cache device.
//
// Everything else holds `const u8 *` views of media. A store is durable only after a fence on the
// CPU that made it, so every store wants a Pin: while it lives the caller stays on its CPU, and the
// fence wants the same Pin. Reads are machine-check safe: a poisoned line is an error, not a crash.
#pragma once
#include "cxxrt/result.hpp"
#include "dm-pcache/platform.h"

namespace pcache::media
{

// Holds the thread on one CPU from a store to its fence.
class Pin : rt::NonCopyable
{
public:
    Pin() noexcept { pc_cpu_pin(); }
    ~Pin() { pc_cpu_unpin(); }
};

namespace persist
{

// Stores; `to` points into media. Durable after fence() under the same Pin. Never sleep.
void store(const Pin &, const u8 *to, const void *from, usize bytes) noexcept;
void zero(const Pin &, const u8 *to, usize bytes) noexcept;
void store_from_bio(const Pin &, const u8 *to, pc_bio *bio, u32 bio_offset, u32 bytes) noexcept;
// The same; returns the crc (from format::crc_seed) of the very bytes stored, also when the bio's
// owner changes its pages meanwhile.
u32 store_from_bio_crc(const Pin &, const u8 *to, pc_bio *bio, u32 bio_offset, u32 bytes) noexcept;
// Writes lines that an earlier life may have left in CPU caches back; durable after the fence.
void flush(const Pin &, const u8 *at, usize bytes) noexcept;
void fence(const Pin &) noexcept;

// Writes one page (page_bytes at `offset` of the device, a multiple of it) as a block device does:
// the only way to store to a page that could not be read. Durable on return. May sleep.
rt::Error rewrite_page(pc_media *media, u64 offset, const void *page) noexcept;

// Copies out of media. Error::io when a line cannot be read; the target is then undefined.
rt::Error load(void *to, const u8 *from, usize bytes) noexcept;
rt::Error load_to_bio(pc_bio *bio, u32 bio_offset, const u8 *from, u32 bytes) noexcept;
// Whether all of it can be read: loads a word of each line. Error::io: not.
rt::Error probe(const u8 *at, usize bytes) noexcept;

// Data that a key covers, with the crc that the key says it has.
struct SummedData {
    const u8 *at;
    u32 bytes;
    u32 crc;
};
// Reads all of it. Error::io: a line cannot be read, or the crc is another.
rt::Error verify(const SummedData &data) noexcept;
// The same; the pieces of it (platform.h), from the very copy that was summed, are in the bio when
// it returns Error::none, and undefined there otherwise.
rt::Error verify_to_bio(pc_bio *bio, const SummedData &data, const pc_piece *pieces,
                        u32 count) noexcept;
// In steps: `crc` begins as format::crc_seed, `pieces` are those of the step, and when all of the
// data was summed is_sum() says whether what is in the bio counts.
rt::Error sum_to_bio(pc_bio *bio, const u8 *from, u32 bytes, const pc_piece *pieces, u32 count,
                     u32 &crc) noexcept;
rt::Error is_sum(const SummedData &data, u32 crc) noexcept;

} // namespace persist
} // namespace pcache::media
