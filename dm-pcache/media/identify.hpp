// SPDX-License-Identifier: GPL-2.0
// media/identify.hpp - what lies on a device: a cache, something that may be formatted, or
// something that is never written to.
//
// Formatted is only what is blank, or an interrupted format of ours or of mainline's (format.md,
// "Formatting"). All else that is no cache is refused with a sentence that says how to clear it.
// Where neither copy of cache_info is good, a good extended superblock says that there is a cache,
// and the segment_infos say which chain it has: it can be read, but is damaged.
// Stores nothing; may sleep. Not thread safe.
#pragma once
#include "dm-pcache/format/cache_info.hpp"
#include "dm-pcache/format/extension.hpp"
#include "dm-pcache/media/device.hpp"
#include "dm-pcache/media/record_reader.hpp"
#include "dm-pcache/media/two_slot.hpp"

namespace pcache::media
{

// Why something was refused: static text for ti->error. The details are in the log already.
struct Refusal {
    rt::Error error = rt::Error::invalid;
    const char *sentence = nullptr;
};

struct Identity {
    bool formattable = false;
    bool has_extension = false;
    bool newer_extension = false;    // has_extension is false then: it says nothing to us
    bool rebuild_superblock = false; // it is bad, and the extension knows what was in it
    format::Extension extension{};   // valid if has_extension
    bool former_settings = false;    // formattable, and cache_info has those of the cache given up
    bool cache_info_lost = false;    // neither slot is good: cache_info is put together, see below
    u32 seg_num = 0;                 // of a cache
    u32 cache_info_crc = 0;          // crc field of the newest slot, of a cache; 0: none is good
    format::CacheInfo cache_info{};  // of a cache
};

// Fills `out`, or says in `why` what is refused.
rt::Error identify(const Device &device, pc_host *host, RecordReader &reader, Identity &out,
                   Refusal &why) noexcept;

inline constexpr const char *short_read_only_sentence =
    "the table is too short: the read-only cache holds data beyond its end that is not written "
    "back, or not known to be; load the longer table and send accept_loss first";
inline constexpr const char *unread_disk_sentence =
    "the first 128 KiB of the backing device cannot be read: whether it is the right one is not "
    "known";
inline constexpr const char *unread_log_sentence =
    "the log of the cache device cannot be read a second time";
inline constexpr const char *small_backing_sentence =
    "backing device is smaller than the one this cache belongs to";

// `dirty_bits`: offsets and lengths of all dirty keys, or'ed together. Null: they are whole blocks
// of a backing device with logical blocks of so many bytes. Else a sentence with both sizes.
const char *grown_block_sentence(u64 dirty_bits, u32 block) noexcept;

// Sets `why` and returns the error.
inline rt::Error refuse(Refusal &why, rt::Error e, const char *sentence) noexcept
{
    why = {e, sentence};
    return e;
}

// Dirty data ends beyond the end of the table: said with both numbers, and refused.
rt::Error refuse_short_table(pc_host *host, u64 table_bytes, u64 dirty_end, Refusal &why) noexcept;

} // namespace pcache::media
