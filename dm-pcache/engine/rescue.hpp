// SPDX-License-Identifier: GPL-2.0
// engine/rescue.hpp - accept_loss, step 1: all dirty data of a damaged cache that can be read goes
// to the backing device, by the rules of replay, flush epoch by flush epoch, in log order.
//
// It is the sink of a replay, and then of the index, if the damage came at run time: that knows of
// records that cannot be read any more. Each key's data is read once before it is sent,
// machine-check safe: what cannot be read, or fails data_crc, is given up, and so is a dirty key
// that is stale. What was sent in a batch is durable before the next epoch begins. Stores nothing
// on the cache device.
//
// One thread; it may be told from another one to stop (`stop`, and WriteBack::halt()).
#pragma once
#include "dm-pcache/engine/write_back.hpp"
#include "dm-pcache/media/inspect.hpp"
#include "dm-pcache/memory.hpp"

namespace pcache::engine
{

class Rescue : rt::NonCopyable
{
public:
    struct Sum {
        u64 keys = 0, bytes = 0; // of the backing device; what later keys override included
    };

    // `stop`: not 0: end with Error::busy soon. Segments in which something cannot be read get
    // marked as bad. `block_bytes`: the backing device's logical block.
    Rescue(const media::Device &device, WriteBack &write_back, Segments &segments, pc_host *host,
           u32 block_bytes, bool data_crc, const rt::Atomic<u32> &stop) noexcept
        : device_(device), write_back_(write_back), segments_(segments), host_(host),
          block_bytes_(block_bytes), data_crc_(data_crc), stop_(stop)
    {
    }

    // For Activation::replay. Error::io: the backing device failed. Error::busy: stopped. Sleeps.
    rt::Error key(const media::ReplayedKey &k) noexcept;
    // Behind the last key, where the index knows more than the log: an extent of it, as one more
    // epoch for all of them. Errors as above.
    rt::Error extent(const Extent &e) noexcept;
    // Behind the last key or extent: the rest is sent, and all of it durable. Errors as above.
    rt::Error finish() noexcept { return write_back_.send_batch(); }

    const Sum &sent() const noexcept { return sent_; }
    const Sum &given_up() const noexcept { return given_up_; }
    u64 ranges_given_up() const noexcept { return ranges_; }

private:
    static constexpr u64 ranges_named = 16; // in the log; the others are only counted
    rt::Error put_readable(u64 offset, u32 bytes, format::SegmentId s, u32 segment_offset) noexcept;
    rt::Error put(u64 offset, u32 bytes, format::SegmentId s, u32 segment_offset) noexcept;
    void give_up(u64 offset, u32 bytes) noexcept;
    void note_bad(format::SegmentId s) noexcept;
    bool intact(const media::ReplayedKey &k) noexcept;

    const media::Device &device_;
    WriteBack &write_back_;
    Segments &segments_;
    pc_host *host_;
    const u32 block_bytes_;
    const bool data_crc_;
    const rt::Atomic<u32> &stop_;
    Sum sent_, given_up_;
    u64 ranges_ = 0;
};

} // namespace pcache::engine
