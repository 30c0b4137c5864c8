// SPDX-License-Identifier: GPL-2.0
// format/record.hpp - the records of the log: ksets, LAST records, their keys, flags and numbers.
//
// Encoders fill a caller's buffer; decoders are strict and trust nothing. Numbers are serial: they
// wrap from 2^48 - 1 to 1, and 0 means that mainline's driver wrote the record.
// Pure functions on byte buffers: no media access, no lock.
#pragma once
#include "dm-pcache/format/crc32c.hpp"
#include "dm-pcache/format/geometry.hpp"

namespace pcache::format
{

inline constexpr u64 record_magic = 0x676894A64E164F1A;

// ---- numbers ---------------------------------------------------------------------------------

inline constexpr u64 number_mask = (u64{1} << 48) - 1;
// limit is raised by this much; a log segment holds fewer records.
inline constexpr u64 number_reserve = u64{1} << 18;
// What START skips behind the last number read when no extended superblock says better.
inline constexpr u64 number_skip = u64{1} << 20;
// A segment full of the shortest ksets, the LAST record included.
static_assert(data_bytes / 64 + 1 <= number_reserve);

constexpr bool valid_number(u64 n) noexcept
{
    return n >= 1 && n <= number_mask;
}

// Whether number a comes after number b.
constexpr bool after(u64 a, u64 b) noexcept
{
    const u64 d = (a - b) & number_mask;
    return d >= 1 && d < (u64{1} << 47);
}

// The number `steps` (below 2^47) behind n; 0 is never one.
constexpr u64 advance(u64 n, u64 steps) noexcept
{
    const u64 sum = n + steps;
    return sum > number_mask ? (sum & number_mask) + 1 : sum;
}
constexpr u64 next_number(u64 n) noexcept
{
    return advance(n, 1);
}
constexpr u64 previous_number(u64 n) noexcept
{
    return n <= 1 ? number_mask : n - 1;
}

// ---- record flags ----------------------------------------------------------------------------

struct RecordFlags {
    u64 raw = 0;

    static constexpr u64 last_bit = 1u << 0, epoch_bit = 1u << 14, start_bit = 1u << 15;
    static constexpr u64 unknown_bits = 0x3FFE; // 1 .. 13: a newer driver's
    static constexpr unsigned number_shift = 16;

    constexpr bool last() const noexcept { return raw & last_bit; }
    constexpr bool epoch() const noexcept { return raw & (epoch_bit | start_bit); }
    constexpr bool start() const noexcept { return raw & start_bit; }
    constexpr bool unknown() const noexcept { return raw & unknown_bits; }
    constexpr u64 number() const noexcept { return raw >> number_shift; } // 0: mainline's

    // `start` counts as epoch; the writer sets both. number: 1 .. 2^48 - 1, or 0.
    static constexpr RecordFlags make(u64 number, bool epoch, bool start) noexcept
    {
        return {(number << number_shift) | (epoch || start ? epoch_bit : 0) |
                (start ? start_bit : 0)};
    }
    constexpr RecordFlags with_last() const noexcept { return {raw | last_bit}; }
    friend constexpr bool operator==(RecordFlags, RecordFlags) = default;
};

// ---- keys ------------------------------------------------------------------------------------

inline constexpr u32 key_empty = 1u << 0; // never on media
inline constexpr u32 key_clean = 1u << 1;

struct Key {
    u64 off; // byte offset on the backing device
    u32 len; // bytes
    u32 flags;
    u32 cache_seg_id; // logical
    u32 cache_seg_off;
    u64 seg_gen;
    u32 data_crc; // 0 without DATA_CRC
    u32 reserved;
};
static_assert(sizeof(Key) == 40);
static_assert(__builtin_offsetof(Key, len) == 8);
static_assert(__builtin_offsetof(Key, flags) == 12);
static_assert(__builtin_offsetof(Key, cache_seg_id) == 16);
static_assert(__builtin_offsetof(Key, cache_seg_off) == 20);
static_assert(__builtin_offsetof(Key, seg_gen) == 24);
static_assert(__builtin_offsetof(Key, data_crc) == 32);
static_assert(__builtin_offsetof(Key, reserved) == 36);

// What a key is held against.
struct KeyLimits {
    u32 chain_length;  // logical segments
    u64 backing_bytes; // size of the backing device
};

enum class KeyFault {
    none,
    newer,        // flags (or a reserved field) that this driver does not know
    empty,        // EMPTY, or no length: never on media
    unaligned,    // not in whole sectors
    range,        // longer than a range, or crosses one
    past_backing, // past the end of the backing device
    segment       // outside the chain, or past the end of its segment
};

constexpr KeyFault check_key(const Key &k, const KeyLimits &limits) noexcept
{
    if ((k.flags & ~(key_empty | key_clean)) || k.reserved)
        return KeyFault::newer;
    if ((k.flags & key_empty) || k.len == 0)
        return KeyFault::empty;
    if ((k.off | k.len | k.cache_seg_off) % sector_bytes)
        return KeyFault::unaligned;
    if (k.len > geometry.range_bytes - k.off % geometry.range_bytes)
        return KeyFault::range;
    if (k.off >= limits.backing_bytes || k.len > limits.backing_bytes - k.off)
        return KeyFault::past_backing;
    if (k.cache_seg_id >= limits.chain_length || k.cache_seg_off > data_bytes ||
        k.len > data_bytes - k.cache_seg_off)
        return KeyFault::segment;
    return KeyFault::none;
}

// ---- records ---------------------------------------------------------------------------------

struct RecordHeader {
    u32 crc; // over bytes 4 .. end of record
    u32 num; // keys; in a LAST record: the next log segment, logical
    u64 magic;
    u64 flags;
};
static_assert(sizeof(RecordHeader) == 24);
static_assert(__builtin_offsetof(RecordHeader, num) == 4);
static_assert(__builtin_offsetof(RecordHeader, magic) == 8);
static_assert(__builtin_offsetof(RecordHeader, flags) == 16);
inline constexpr u32 record_header_bytes = sizeof(RecordHeader);
inline constexpr u32 record_magic_offset = 8; // inside a record

constexpr u32 kset_bytes(u32 keys) noexcept
{
    return record_header_bytes + keys * u32{sizeof(Key)};
}
inline constexpr u32 max_record_bytes = kset_bytes(geometry.keys_per_kset);
static_assert(geometry.keys_per_kset != 128 || max_record_bytes == 5144);
static_assert(max_record_bytes + record_header_bytes <= data_bytes);

// Puts header and crc in front of `count` keys (1 .. keys_per_kset) that stand at buffer + 24
// already. Returns the size of the record.
inline u32 seal_kset(u8 *buffer, u32 count, RecordFlags flags) noexcept
{
    const u32 bytes = kset_bytes(count);
    RecordHeader h{0, count, record_magic, flags.raw & ~RecordFlags::last_bit};
    __builtin_memcpy(buffer, &h, sizeof(h));
    h.crc = crc32c(crc_seed, buffer + 4, bytes - 4);
    __builtin_memcpy(buffer, &h, sizeof(h));
    return bytes;
}

// A kset of `count` keys into a buffer of kset_bytes(count). Returns its size.
inline u32 encode_kset(u8 *buffer, const Key *keys, u32 count, RecordFlags flags) noexcept
{
    __builtin_memcpy(buffer + record_header_bytes, keys, count * sizeof(Key));
    return seal_kset(buffer, count, flags);
}

// A LAST record that leads to offset 0 of `next`; always record_header_bytes.
inline RecordHeader encode_last(SegmentId next, RecordFlags flags) noexcept
{
    RecordHeader h{0, next.value, record_magic, flags.with_last().raw};
    h.crc = crc32c(crc_seed, &h.num, sizeof(h) - 4);
    return h;
}

// The size of the record that a header announces at this offset of a data area; 0 if it announces
// none: no magic, no possible number of keys, or longer than what is left of the segment.
constexpr u32 announced_bytes(const RecordHeader &h, u32 offset) noexcept
{
    if (h.magic != record_magic)
        return 0;
    u32 bytes = record_header_bytes;
    if (!RecordFlags{h.flags}.last()) {
        if (h.num < 1 || h.num > geometry.keys_per_kset)
            return 0;
        bytes = kset_bytes(h.num);
    }
    return offset <= data_bytes && bytes <= data_bytes - offset ? bytes : 0;
}

// `record`: all `bytes` of it, as announced.
inline bool record_intact(const u8 *record, u32 bytes) noexcept
{
    u32 crc;
    __builtin_memcpy(&crc, record, 4);
    return crc == crc32c(crc_seed, record + 4, bytes - 4);
}

// Key i of a record in memory; i < its number of keys.
inline Key decode_key(const u8 *record, u32 i) noexcept
{
    Key k;
    __builtin_memcpy(&k, record + kset_bytes(i), sizeof(k));
    return k;
}

} // namespace pcache::format
