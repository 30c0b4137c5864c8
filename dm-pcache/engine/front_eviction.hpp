// SPDX-License-Identifier: GPL-2.0
// engine/front_eviction.hpp - recovery of more keys than the index may have nodes for: the oldest
// ones leave it again, as if GC had passed them.
//
// Only keys in front of dirty tail go, record by record from key tail on: the backing device has
// their data, or newer data, and all that they hide stood in front of them. What was read of the
// log behind them stays as it is. Whoever activates moves key tail behind them before anything is
// served, and raises the generations of the segments that nothing holds any more.
//
// Locking: recovery's, nothing else runs. Sleeps.
#pragma once
#include "dm-pcache/engine/segments.hpp"
#include "dm-pcache/engine/shard.hpp"
#include "dm-pcache/media/record_reader.hpp"
#include "dm-pcache/memory.hpp"

namespace pcache::engine
{

class FrontEviction : rt::NonCopyable
{
public:
    // [from, stop): what may go.
    FrontEviction(const media::Device &device, Segments &segments, Shard *shards,
                  NodeBudget &budget, format::LogPosition from, format::LogPosition stop) noexcept
        : device_(device), segments_(segments), shards_(shards), budget_(budget), at_(from),
          stop_(stop)
    {
    }
    rt::Error allocate() noexcept
    {
        rt::Result<Array<u8>> touched = make_array<u8>(PC_MAY_SLEEP, segments_.count());
        if (!touched)
            return touched.error();
        touched_ = rt::move(*touched);
        return reader_.allocate();
    }
    // If the index has too many nodes: what stands in front of `upto` goes until it has a few less
    // than it may have, or nothing more can go.
    void make_room(format::LogPosition upto) noexcept
    {
        if (budget_.used() > budget_.limit())
            evict(upto);
    }
    format::LogPosition reached() const noexcept { return at_; }
    u64 keys() const noexcept { return keys_; }
    // A key in `s` has gone.
    bool touched(SegmentId s) const noexcept { return touched_[s.value] != 0; }

private:
    void evict(format::LogPosition upto) noexcept;
    void forget(const format::Key &k) noexcept;

    const media::Device &device_;
    Segments &segments_;
    Shard *shards_;
    NodeBudget &budget_;
    media::RecordReader reader_;
    Array<u8> touched_;
    format::LogPosition at_, stop_;
    u64 keys_ = 0;
};

} // namespace pcache::engine
