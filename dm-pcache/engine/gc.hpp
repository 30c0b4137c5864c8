// SPDX-License-Identifier: GPL-2.0
// engine/gc.hpp - GC: passes the oldest records of the log, in front of dirty tail only, and frees
// what nothing holds any more. What it passes is clean, so it evicts the oldest cached data.
//
// Order of a pass (Documentation/format.md, "Order of the big steps"): key tail durable behind the
// passed records, then safe_tail; what still points at the passed keys' bytes leaves the index; a
// grace period, so that no reader is left in an emptied segment; generations of emptied segments
// durable; then they are free. Log segments that key tail has left are free with it.
// Runs in the reclaim worker only.
#pragma once
#include "dm-pcache/engine/published.hpp"
#include "dm-pcache/engine/segments.hpp"
#include "dm-pcache/engine/shard.hpp"
#include "dm-pcache/media/metadata.hpp"
#include "dm-pcache/media/record_reader.hpp"

namespace pcache::engine
{

class Gc : rt::NonCopyable
{
public:
    Gc(const media::Device &device, media::Metadata &metadata, Segments &segments, Shard *shards,
       NodeBudget &budget) noexcept;
    rt::Error allocate() noexcept { return reader_.allocate(); }

    // Passes records until `want_free` segments are or will be free, dirty tail is reached, or
    // records_per_gc_pass are passed. `moved`: key tail moved, or something was freed.
    // Error::no_device: the log could not be read or a tail not be stored; the cache must stop.
    // Sleeps.
    rt::Error pass(u32 want_free, bool &moved) noexcept;
    PublishedPosition &key_tail() noexcept { return key_tail_; } // for status

private:
    static constexpr u32 log_segments_per_pass = 8;
    rt::Error count_out(format::LogPosition &end, u32 want_free) noexcept;
    rt::Error unmap(format::LogPosition from, format::LogPosition to) noexcept;
    void unmap_key(const format::Key &k) noexcept;
    void free_emptied() noexcept;

    const media::Device &device_;
    media::Metadata &metadata_;
    Segments &segments_;
    Shard *shards_;
    NodeBudget &budget_;
    media::RecordReader reader_;
    PublishedPosition key_tail_;
    SegmentId left_[log_segments_per_pass]; // log segments that key tail leaves in this pass
    u32 left_count_ = 0;
};

} // namespace pcache::engine
