// SPDX-License-Identifier: GPL-2.0
// engine/key_copy.hpp - with data_crc: a read served key by key. A key that was overwritten in many
// places is in the index as many pieces; all that the read wants of it is copied while it is
// summed, once.
//
// Invariants
//  K1 What reaches the bio are the very bytes that were summed. Until copy() has returned
//     Error::none they count for nothing.
//  K2 Summing goes in steps of summed_bytes_per_read, each in an epoch of its own that begins with
//  a
//     look at the checksums: while the key has its entry there its data is not reused. What is
//     overwritten between two steps is no piece of the key any more, and is served by the newer
//     one.
//
// Locking: one thread at a time; takes the shard's lock. Not in an epoch, since copy() yields.
#pragma once
#include "dm-pcache/engine/checksums.hpp"
#include "dm-pcache/engine/request.hpp"

namespace pcache::engine
{

class KeyCopy : rt::NonCopyable
{
public:
    KeyCopy(const media::Device &device, Shard *shards) noexcept : device_(device), shards_(shards)
    {
    }
    // A read: r.bio, and in its reservation the range, which lies in one shard. Nothing is served.
    void begin(const Request &r) noexcept;
    // The first of its sectors that is not served yet; their number when all are. Never goes back.
    u32 next() noexcept;
    void set_served(u32 at, u32 sectors) noexcept;
    // The index had `place` for sector `at`: sums the key that lies there, and serves what the
    // index has of it from `at` on. Error::io: it cannot be read or is not what was written;
    // `again`: the index has something else there by now, or the key has left the cache. Sleeps.
    rt::Error copy(u32 at, Place place) noexcept;
    // The last copy() met a line that could not be read: the page may have lost its mapping, and
    // whoever called it marks the segment.
    bool met_unreadable() const noexcept { return met_unreadable_; }

private:
    static constexpr u32 pieces_per_step = 32;
    static constexpr u32 words = range_sectors / 64;
    struct Step;
    bool gather(Step &s) noexcept;
    void note(u32 at, u32 sectors) noexcept;

    const media::Device &device_;
    Shard *shards_;
    pc_bio *bio_ = nullptr;
    u64 first_ = 0; // sector of the backing device
    u32 sectors_ = 0, next_ = 0;
    bool met_unreadable_ = false;
    // A bit for each sector of the read: served; in the bio, of the key that is being summed.
    u64 served_[words], copied_[words];
};

} // namespace pcache::engine
