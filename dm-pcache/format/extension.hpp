// SPDX-License-Identifier: GPL-2.0
// format/extension.hpp - the extended superblock: what this driver knows and mainline's does not.
//
// A two-slot record of 256 bytes in the second halves of the two cache_info pages. Every update
// writes all fields, in both slots, one after the other, under one lock (media/metadata.hpp).
// Pure functions on byte buffers: no media access, no lock.
#pragma once
#include "dm-pcache/format/geometry.hpp"
#include "dm-pcache/format/record.hpp"
#include "dm-pcache/format/slot.hpp"

namespace pcache::format
{

inline constexpr u64 extension_magic = 0x3158454843414350; // "PCACHEX1"
inline constexpr u8 extension_version = 1;
inline constexpr u32 extension_stride = page_bytes;
inline constexpr u32 extension_bytes = 256;
inline constexpr u32 label_bytes = 64;

// No log segment: counts as one that was not visited.
inline constexpr u32 no_link = 0xFFFFFFFF;

namespace extension_state
{
inline constexpr u32 clean_stop = 1u << 0;
inline constexpr u32 formatting = 1u << 1;
inline constexpr u32 known = clean_stop | formatting;
} // namespace extension_state

// The content, without its header.
struct Extension {
    u8 uuid[16] = {};
    u64 backing_bytes = 0;        // size of the backing device
    u64 limit = 0;                // after every number used so far
    u64 next_number = 0;          // at a clean stop; 0: no numbered record in the log
    LogPosition head{};           // at a clean stop
    LogPosition safe_tail{};      // copy of key_tail
    u32 link_seg = 0;             // the newest log segment that was linked, logical
    u32 seg_num = 0;              // as in the superblock
    u32 state = 0;                // extension_state
    u32 cache_info_crc = 0;       // crc field of the newest cache_info slot; 0: none
    u32 former_crc = 0;           // 0; else a driver that knew no disk record stopped here
    u32 coming_info_crc = 0;      // crc field the next cache_info will have, while it is changed
    char label[label_bytes] = {}; // NUL-padded

    bool clean_stop() const noexcept { return state & extension_state::clean_stop; }
    bool formatting() const noexcept { return state & extension_state::formatting; }
    // Whether it knows this crc of a cache_info as its newest or coming one.
    bool names_cache_info(u32 crc) const noexcept
    {
        return crc && (crc == cache_info_crc || crc == coming_info_crc);
    }
};

struct ExtensionRecord {
    SlotHeader header; // version 1
    u64 magic;
    u8 uuid[16];
    u64 backing_bytes;
    u64 limit;
    u64 next_number;
    u32 head_seg, head_off;
    u32 safe_tail_seg, safe_tail_off;
    u32 link_seg;
    u32 seg_num;
    u32 state;
    u32 cache_info_crc;
    u32 former_crc;
    u32 coming_info_crc;
    char label[label_bytes];
    u8 zero[96];
};
static_assert(sizeof(ExtensionRecord) == extension_bytes && extension_bytes <= max_slot_bytes);
static_assert(__builtin_offsetof(ExtensionRecord, magic) == 8);
static_assert(__builtin_offsetof(ExtensionRecord, uuid) == 16);
static_assert(__builtin_offsetof(ExtensionRecord, backing_bytes) == 32);
static_assert(__builtin_offsetof(ExtensionRecord, limit) == 40);
static_assert(__builtin_offsetof(ExtensionRecord, next_number) == 48);
static_assert(__builtin_offsetof(ExtensionRecord, head_seg) == 56);
static_assert(__builtin_offsetof(ExtensionRecord, safe_tail_seg) == 64);
static_assert(__builtin_offsetof(ExtensionRecord, link_seg) == 72);
static_assert(__builtin_offsetof(ExtensionRecord, seg_num) == 76);
static_assert(__builtin_offsetof(ExtensionRecord, state) == 80);
static_assert(__builtin_offsetof(ExtensionRecord, cache_info_crc) == 84);
static_assert(__builtin_offsetof(ExtensionRecord, former_crc) == 88);
static_assert(__builtin_offsetof(ExtensionRecord, coming_info_crc) == 92);
static_assert(__builtin_offsetof(ExtensionRecord, label) == 96);
static_assert(__builtin_offsetof(ExtensionRecord, zero) == 160);

// Unsealed: seq and crc are seal_slot's.
inline void encode_extension(const Extension &e, ExtensionRecord &r) noexcept
{
    r = {};
    r.header.version = extension_version;
    r.magic = extension_magic;
    __builtin_memcpy(r.uuid, e.uuid, sizeof(r.uuid));
    r.backing_bytes = e.backing_bytes;
    r.limit = e.limit;
    r.next_number = e.next_number;
    r.head_seg = e.head.segment.value;
    r.head_off = e.head.offset;
    r.safe_tail_seg = e.safe_tail.segment.value;
    r.safe_tail_off = e.safe_tail.offset;
    r.link_seg = e.link_seg;
    r.seg_num = e.seg_num;
    r.state = e.state;
    r.cache_info_crc = e.cache_info_crc;
    r.former_crc = e.former_crc;
    r.coming_info_crc = e.coming_info_crc;
    __builtin_memcpy(r.label, e.label, sizeof(r.label));
}

// Whether a slot whose crc is good is an extended superblock at all, of whatever version.
inline bool is_extension(const void *record) noexcept
{
    u64 magic;
    __builtin_memcpy(&magic, static_cast<const u8 *>(record) + 8, sizeof(magic));
    return magic == extension_magic;
}

enum class ExtensionState {
    good,
    newer,     // another version, state bits or bytes that this driver does not know
    impossible // a number that is none
};

// Whether its numbers can be: what is not is refused when it is read, and so it is never stored.
inline bool possible(const Extension &e) noexcept
{
    return valid_number(e.limit) && e.next_number <= number_mask;
}

// Of a slot whose crc is good and that is_extension(). Positions and segment numbers are judged
// where they are relied on: what they are held against is not known here.
inline ExtensionState decode_extension(const ExtensionRecord &r, Extension &e) noexcept
{
    if (r.header.version != extension_version || (r.state & ~extension_state::known))
        return ExtensionState::newer;
    for (u8 b : r.zero) {
        if (b)
            return ExtensionState::newer;
    }
    __builtin_memcpy(e.uuid, r.uuid, sizeof(e.uuid));
    e.backing_bytes = r.backing_bytes;
    e.limit = r.limit;
    e.next_number = r.next_number;
    e.head = {{r.head_seg}, r.head_off};
    e.safe_tail = {{r.safe_tail_seg}, r.safe_tail_off};
    e.link_seg = r.link_seg;
    e.seg_num = r.seg_num;
    e.state = r.state;
    e.cache_info_crc = r.cache_info_crc;
    e.former_crc = r.former_crc;
    e.coming_info_crc = r.coming_info_crc;
    __builtin_memcpy(e.label, r.label, sizeof(e.label));
    return possible(e) ? ExtensionState::good : ExtensionState::impossible;
}

} // namespace pcache::format
