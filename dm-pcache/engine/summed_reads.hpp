// SPDX-License-Identifier: GPL-2.0
// engine/summed_reads.hpp - with data_crc: reads whose keys are too much to sum in map().
//
// map() hands such a read over in its own memory; nothing is allocated for it, and the queues are
// bounded by the requests that device-mapper has. A worker serves it key by key (key_copy.hpp), and
// the holes inside of its keys from the backing device. What cannot be read goes to the listener.
//
// Locking: each lane's lock guards its queue; the rest of a lane is its worker's.
#pragma once
#include "dm-pcache/engine/key_copy.hpp"
#include "dm-pcache/engine/limits.hpp"

namespace pcache::engine
{

class SummedReads : rt::NonCopyable
{
public:
    // Some of the read could not be served: it may not be readable, or has moved each time it was
    // looked at; the listener finds out. True: the read was taken over and is ended by the
    // listener; false: it ends with EIO. In process context, not in an epoch.
    struct Listener {
        bool (*bad)(void *context, Request &r) noexcept;
        void (*unreadable)(void *context, SegmentId s) noexcept; // before that; it gets no new data
        void *context;
    };
    SummedReads(const media::Device &device, Shard *shards, pc_backing *backing) noexcept
        : device_(device), shards_(shards), backing_(backing)
    {
    }
    ~SummedReads(); // drained, or never used
    // May sleep.
    rt::Error allocate(pc_queue *queue, Listener listener) noexcept;

    // A read: r.bio, and in its reservation the range. It is ended later. Never sleeps.
    void read(Request &r) noexcept;
    // Nobody hands a read over any more. On return all have ended, or been taken over, and nothing
    // runs; read() works again afterwards. Sleeps.
    void drain() noexcept;

private:
    static constexpr u32 buffer_bytes = 16u << 10;
    struct Lane;
    void serve_all(Lane &l) noexcept;
    // What ends it; taken_over: nothing.
    static constexpr int taken_over = 1;
    int serve(Lane &l, Request &r) noexcept;

    const media::Device &device_;
    Shard *shards_;
    pc_backing *backing_;
    Listener listener_{};
    Lane *lanes_ = nullptr;
    u32 lane_count_ = 0;
    rt::Atomic<u32> turn_{0};
    rt::Atomic<u32> queued_{0}; // not ended, nor taken over
    Event ended_;
};

// Copies sectors of the backing device to a read. `buffer` is of so many bytes, a multiple of 4096.
// Sleeps.
rt::Error copy_from_backing(pc_backing *backing, pc_bio *bio, u32 bio_offset, u64 sector,
                            u32 sectors, u8 *buffer, u32 buffer_bytes) noexcept;

} // namespace pcache::engine
