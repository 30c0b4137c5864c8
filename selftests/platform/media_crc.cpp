// SPDX-License-Identifier: GPL-2.0
// selftests/platform/media_crc.cpp - copies between a bio and media that are summed in the same
// pass (platform.h), by a crc32c of the platform's own.
//
// In pieces of one sector, and the bio's owner gets a turn after each: what is stored and what is
// summed must be the same bytes all the same. No state; no lock.
#include <array>
#include <atomic>
#include <cstring>
#include "selftests/platform/internal.hpp"

using namespace pcache::selftest;

namespace
{

constexpr u32 chunk_bytes = 512;
using Chunk = std::array<u8, chunk_bytes>;

constexpr std::array<u32, 256> make_table()
{
    std::array<u32, 256> table{};
    for (u32 i = 0; i < 256; i++) {
        u32 c = i;
        for (int bit = 0; bit < 8; bit++)
            c = (c >> 1) ^ (c & 1 ? 0x82F63B78u : 0u);
        table[i] = c;
    }
    return table;
}
constexpr std::array<u32, 256> table = make_table();

std::atomic<u64> summed{0};
thread_local u64 summed_here = 0;

u32 sum(u32 crc, const u8 *p, usize bytes)
{
    summed += bytes;
    summed_here += bytes;
    for (; bytes; bytes--)
        crc = table[(crc ^ *p++) & 0xFF] ^ crc >> 8;
    return crc;
}

} // namespace

u64 pcache::selftest::bytes_summed()
{
    return summed;
}

u64 pcache::selftest::bytes_summed_here()
{
    return summed_here;
}

extern "C" {

u32 pc_media_from_bio_crc(u8 *to, pc_bio *bio, u32 bio_offset, u32 bytes, u32 crc) noexcept
{
    Chunk chunk;
    for (u32 at = 0, step; at < bytes; at += step) {
        step = std::min(bytes - at, chunk_bytes);
        memcpy(chunk.data(), bio_bytes(bio, bio_offset + at, step), step);
        bio_was_read(bio);
        crc = sum(crc, chunk.data(), step);
        pc_media_store(to + at, chunk.data(), step);
    }
    return crc;
}

int pc_media_crc(const u8 *from, usize bytes, u32 *crc) noexcept
{
    Chunk chunk;
    for (usize at = 0, step; at < bytes; at += step) {
        step = std::min<usize>(bytes - at, chunk_bytes);
        if (const int e = pc_media_load(chunk.data(), from + at, step))
            return e;
        *crc = sum(*crc, chunk.data(), step);
    }
    return 0;
}

int pc_media_to_bio_crc(pc_bio *bio, const u8 *from, u32 bytes, const pc_piece *pieces, u32 count,
                        u32 *crc) noexcept
{
    for (u32 i = 0; i < count; i++) {
        const pc_piece &p = pieces[i];
        if (!p.bytes || p.skip > bytes || p.bytes > bytes - p.skip)
            broken("bytes wanted that are not summed");
        if (i && (p.skip < pieces[i - 1].skip + pieces[i - 1].bytes ||
                  p.bio_offset < pieces[i - 1].bio_offset + pieces[i - 1].bytes))
            broken("pieces that do not ascend");
    }
    Chunk chunk;
    for (u32 at = 0, step; at < bytes; at += step) {
        step = std::min(bytes - at, chunk_bytes);
        if (const int e = pc_media_load(chunk.data(), from + at, step))
            return e;
        *crc = sum(*crc, chunk.data(), step);
        for (u32 i = 0; i < count; i++) {
            const pc_piece &p = pieces[i];
            const u32 first = std::max(at, p.skip), end = std::min(at + step, p.skip + p.bytes);
            if (first < end)
                memcpy(bio_bytes(bio, p.bio_offset + (first - p.skip), end - first),
                       chunk.data() + (first - at), end - first);
        }
    }
    return 0;
}
}
