// SPDX-License-Identifier: GPL-2.0
// format/slot.hpp - the head of every two-slot record, and which of two copies is the newer.
//
// cache_info, segment_info, gen, key_tail, dirty_tail, the extended superblock and the disk record
// exist twice. A slot with a bad crc is ignored; an update goes to the slot that does not hold the
// newest copy. Pure functions on byte buffers: no media access, no lock.
#pragma once
#include "dm-pcache/format/crc32c.hpp"

namespace pcache::format
{

struct SlotHeader {
    u32 crc; // over the record from byte 4 to its end
    u8 seq;
    u8 version; // mainline leaves garbage in version and res of gens and tails
    u16 res;
};
static_assert(sizeof(SlotHeader) == 8 && alignof(SlotHeader) == 4);
static_assert(__builtin_offsetof(SlotHeader, seq) == 4);
static_assert(__builtin_offsetof(SlotHeader, version) == 5);
static_assert(__builtin_offsetof(SlotHeader, res) == 6);

// The largest two-slot record: the disk record.
inline constexpr u32 max_slot_bytes = 280;

// The crc a record of `bytes` (at least a header) should have in its first field.
inline u32 slot_crc(const void *record, u32 bytes) noexcept
{
    return crc32c(crc_seed, static_cast<const u8 *>(record) + 4, bytes - 4);
}

inline SlotHeader slot_header(const void *record) noexcept
{
    SlotHeader h;
    __builtin_memcpy(&h, record, sizeof(h));
    return h;
}

inline bool slot_intact(const void *record, u32 bytes) noexcept
{
    return slot_header(record).crc == slot_crc(record, bytes);
}

// Gives the record its sequence number and then its crc; nothing in it may change afterwards.
inline void seal_slot(void *record, u32 bytes, u8 seq) noexcept
{
    SlotHeader h = slot_header(record);
    h.seq = seq;
    __builtin_memcpy(record, &h, sizeof(h));
    h.crc = slot_crc(record, bytes);
    __builtin_memcpy(record, &h, sizeof(h));
}

// Sequence numbers wrap: a is newer than b if the signed difference is positive.
constexpr bool newer_seq(u8 a, u8 b) noexcept
{
    return static_cast<s8>(static_cast<u8>(a - b)) > 0;
}

// Which slot counts: 0 or 1, or -1 if neither is good. Slot 0 if neither is newer.
constexpr int newest_slot(bool good0, u8 seq0, bool good1, u8 seq1) noexcept
{
    if (good0 && good1)
        return newer_seq(seq1, seq0) ? 1 : 0;
    return good0 ? 0 : good1 ? 1 : -1;
}

} // namespace pcache::format
