// SPDX-License-Identifier: GPL-2.0
// format/disk_record.hpp - the disk record: which backing device this cache belongs to, and in
// which state it was left.
//
// A two-slot record of 280 bytes behind the extended superblock's, in the same two pages. It holds
// a SipHash-2-4, keyed by the cache's uuid, of each of the first 32 blocks of the backing device
// that is known: 4 KiB each, 128 KiB together. (A crc32c would not do: a superblock that carries a
// crc32c of itself cancels in it.) Each slot alone tells the truth at every moment.
// Pure functions on byte buffers: no media access, no lock.
#pragma once
#include "dm-pcache/format/geometry.hpp"
#include "dm-pcache/format/slot.hpp"

namespace pcache::format
{

inline constexpr u64 disk_record_magic = 0x3144454843414350; // "PCACHED1"
inline constexpr u8 disk_record_version = 1;
inline constexpr u64 disk_record_offset = 0x2900; // two slots, a page apart
inline constexpr u32 disk_record_stride = page_bytes;
inline constexpr u32 disk_record_bytes = 280;
inline constexpr u32 disk_blocks = 32;
inline constexpr u32 disk_block_bytes = 4096;

// The content, without its header.
struct DiskState {
    u32 known = 0;  // bit i: hash[i] stands
    u32 unsure = 0; // bit i: discarded, and not written whole and FLUSHed since; never known
    // 0 where the bit is clear. A known block with hash 0 differs from everything.
    u64 hash[disk_blocks] = {};

    bool empty() const noexcept { return !known; }
    // What is unsure stays so.
    void forget() noexcept
    {
        const u32 kept = unsure;
        *this = {};
        unsure = kept;
    }
    void set(u32 block, u64 h) noexcept
    {
        known |= 1u << block;
        hash[block] = h;
    }
};

struct DiskRecord {
    SlotHeader header; // version 1
    u64 magic;
    u32 known;
    u32 unsure;
    u64 hash[disk_blocks];
};
static_assert(sizeof(DiskRecord) == disk_record_bytes && disk_record_bytes <= max_slot_bytes);
static_assert(__builtin_offsetof(DiskRecord, magic) == 8);
static_assert(__builtin_offsetof(DiskRecord, known) == 16);
static_assert(__builtin_offsetof(DiskRecord, unsure) == 20);
static_assert(__builtin_offsetof(DiskRecord, hash) == 24);
static_assert(disk_record_offset + disk_record_bytes <= cache_info_offset + page_bytes);

// Unsealed: seq and crc are seal_slot's.
inline void encode_disk_record(const DiskState &s, DiskRecord &r) noexcept
{
    r = {};
    r.header.version = disk_record_version;
    r.magic = disk_record_magic;
    r.known = s.known;
    r.unsure = s.unsure;
    __builtin_memcpy(r.hash, s.hash, sizeof(r.hash));
}

// Of a slot whose crc is good. False: none of ours, of a newer version, or one that no writer
// makes; all of them count as a bad slot.
inline bool decode_disk_record(const DiskRecord &r, DiskState &s) noexcept
{
    if (r.magic != disk_record_magic || r.header.version != disk_record_version ||
        (r.known & r.unsure))
        return false;
    for (u32 i = 0; i < disk_blocks; i++) {
        if (r.hash[i] && !(r.known >> i & 1))
            return false;
    }
    s.known = r.known;
    s.unsure = r.unsure;
    __builtin_memcpy(s.hash, r.hash, sizeof(s.hash));
    return true;
}

// For TwoSlot::load.
inline bool is_disk_record(const void *record) noexcept
{
    DiskRecord r;
    DiskState s;
    __builtin_memcpy(&r, record, sizeof(r));
    return decode_disk_record(r, s);
}

} // namespace pcache::format
