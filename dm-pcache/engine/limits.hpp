// SPDX-License-Identifier: GPL-2.0
// engine/limits.hpp - the engine's tunable numbers, each with its reason.
#pragma once
#include "dm-pcache/format/geometry.hpp"

namespace pcache::engine
{

inline constexpr u64 millisecond = 1000000; // in nanoseconds
inline constexpr u64 second = 1000 * millisecond;

// A shard is a lock, a tree and a list of staged keys. 64, so that one word says which have staged
// keys.
inline constexpr u32 shard_count = 64;

// The last free segments are the log's: with them FLUSH, removal and suspend of a full cache
// finish. One of them is zeroed and ready (the spare).
inline constexpr u32 log_reserve = 2;

// A data head per CPU, but all heads together pin at most an eighth of the cache.
inline constexpr u32 max_heads = 64;
inline constexpr u32 head_share = 8;

// Tickets a data head takes from the pool at once: one visit to the space lock per 16 writes.
inline constexpr u32 ticket_batch = 16;
inline constexpr u32 tickets_per_head = 4 * ticket_batch;
inline constexpr u32 min_tickets = 8 * ticket_batch;
// Room in the log that one ticket may come to need: a record of its own with one key.
inline constexpr u32 log_bytes_per_ticket = 64;

// Dirty keys whose data cannot be read are logged again, so many at a time, and may take so much of
// the log in all: beyond it the cache becomes read-only.
inline constexpr u32 reserve_tickets = 128;
inline constexpr u32 relog_bytes = format::data_bytes / 4;
inline constexpr u32 relog_keys = relog_bytes / log_bytes_per_ticket;

// A write for which there was no memory is tried again after this long.
inline constexpr u64 memory_retry = 10 * millisecond;

// A staged key is durable after this long at the latest.
inline constexpr u64 staged_age_limit = second;

// Write-back.
// At most so many keys of one epoch between two FLUSHes: 65,536; the small geometry fills no more.
inline constexpr u32 batch_keys = rt::max(format::geometry.segment_bytes / 256, 4096u);
// Bios to the backing device at once, what one carries, and what all carry: 1 MiB and 32 MiB. Who
// suspends or removes the device waits for no more than that.
inline constexpr u32 writes_in_flight = 256;
inline constexpr u32 bytes_per_write = rt::min(format::geometry.segment_bytes / 4, 1u << 20);
inline constexpr u32 bytes_in_flight = rt::min(format::geometry.segment_bytes * 2, 32u << 20);
inline constexpr u64 idle_before_write_back = 100 * millisecond;
inline constexpr u64 dirty_age_limit = 30 * second;
inline constexpr u32 dirty_share_percent = 50; // of the cache; beyond it write-back does not wait
inline constexpr u64 retry_first = 100 * millisecond; // after a backing error; doubles
inline constexpr u64 retry_last = 30 * second;

// While requests come a batch is no larger than this. A FLUSH takes the longer the more there is to
// flush, and neither device nor CPU do much else meanwhile: null_blk needs 20 ms for so many
// blocks.
inline constexpr u32 batch_keys_when_busy = 4096;
// While space is short a batch is small, so that dirty tail, and GC behind it, follow in small
// steps: what takes about this long, but not so few keys that FLUSHes take the time.
inline constexpr u64 batch_time_when_short = 30 * millisecond;
inline constexpr u32 batch_keys_when_short_least = 256;

// GC stops a pass after this many keys, so that write-back goes on in between: a pass costs less
// than 10 ms of a CPU, and a segment of 4 KiB writes comes back in one. It keeps so many (and a
// record's more) in memory: 170 KB.
inline constexpr u32 keys_per_gc_pass = 4096;

inline constexpr u32 default_gc_percent = 70;

// Zeroing of a log segment goes in steps of this size.
inline constexpr u32 zero_step = 256u << 10;

// What cannot be read is told at most so often.
inline constexpr u64 damage_report_interval = 5 * second;

// Rounds of group commit that a map() call does for others before it hands over to the worker.
inline constexpr u32 commit_rounds_inline = 4;

// With data_crc a key covers no more than this, so that a read verifies little more than it asked
// for.
inline constexpr u32 summed_key_bytes = 16u << 10;
// Keys of mainline's may be larger: no more than this is summed in map(), the rest by a worker,
// which looks up anew after so much (256 KiB).
inline constexpr u32 summed_bytes_per_read =
    rt::min(256u << 10, format::geometry.segment_bytes / 2);
// Those workers. Each is kept busy by some 1 GB/s of sums.
inline constexpr u32 summing_lanes = 4;

// Extents that one read bio gathers under the shard's lock.
inline constexpr u32 extents_per_read = 16;

// Fills. The pool is 1 MiB: with write-back's batch (1.8 MB), the tickets (0.3 MB at most), GC's
// keys (0.2 MB) and the reserves of the backing device's bios the fixed DRAM of a cache stays below
// 4 MB.
inline constexpr u32 fill_page_bytes = 4096;
// At 4 KiB a read so many misses at once are cached: 256, in the small geometry 64.
inline constexpr u32 fill_pages = rt::min(format::geometry.segment_bytes / 1024, 256u);
// Of one fill: 256 KiB, twice the default read-ahead; a longer miss becomes several, four at once.
inline constexpr u32 fill_max_pages = 64;
// Workers that answer and insert: one is kept busy by some 300,000 reads a second.
inline constexpr u32 fill_lanes = 8;
// Fills leave so much of the index's memory to writes (a share of the whole).
inline constexpr u32 fill_index_share = 8;

// DRAM of the index: at most this many bytes per 4 KiB that the cache can hold. Beyond it the cache
// behaves as full: the oldest extents are evicted.
inline constexpr u32 index_bytes_per_page = 24;
inline constexpr u32 index_bytes_per_page_crc = 36; // with data_crc: the checksums', too
// Nodes a shard may have in any case: a cache too small for the bound above must work, too.
inline constexpr u32 nodes_at_least = 16;

} // namespace pcache::engine
