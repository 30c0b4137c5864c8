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

// A staged key is durable after this long at the latest.
inline constexpr u64 staged_age_limit = second;

// Write-back.
inline constexpr u32 batch_keys = 65536;     // at most, of one epoch, between two FLUSHes
inline constexpr u32 writes_in_flight = 256; // bios to the backing device at once
inline constexpr u64 idle_before_write_back = 100 * millisecond;
inline constexpr u64 dirty_age_limit = 30 * second;
inline constexpr u32 dirty_share_percent = 50; // of the cache; beyond it write-back does not wait
inline constexpr u64 retry_first = 100 * millisecond; // after a backing error; doubles
inline constexpr u64 retry_last = 30 * second;

// GC stops a pass after this many records, so that waiters are served in between.
inline constexpr u32 records_per_gc_pass = 1024;

inline constexpr u32 default_gc_percent = 70;

// Zeroing of a log segment goes in steps of this size.
inline constexpr u32 zero_step = 256u << 10;

// Rounds of group commit that a map() call does for others before it hands over to the worker.
inline constexpr u32 commit_rounds_inline = 4;

// Extents that one read bio gathers under the shard's lock.
inline constexpr u32 extents_per_read = 16;

// DRAM of the index: at most this many bytes per 4 KiB that the cache can hold. Beyond it the cache
// behaves as full: the oldest extents are evicted.
inline constexpr u32 index_bytes_per_page = 24;
// Nodes a shard may have in any case: a cache too small for the bound above must work, too.
inline constexpr u32 nodes_at_least = 16;

} // namespace pcache::engine
