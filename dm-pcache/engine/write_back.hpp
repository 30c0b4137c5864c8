// SPDX-License-Identifier: GPL-2.0
// engine/write_back.hpp - dirty data goes to the backing device, flush epoch by flush epoch.
//
// A batch is a run of durable records of one epoch, from dirty tail on. Its keys are put into a
// tree in log order, so that later ones override earlier ones of the same epoch, and then sent in
// order of the backing device, neighbours merged into large writes that carry the cache's own
// pages. When all are complete the backing device is FLUSHed, and only then dirty tail moves behind
// the batch; so nothing of the next epoch is sent before this one is durable there.
//
// One write in flight per backing sector: the extents of a batch do not overlap, and batches do not
// either. GC never passes dirty tail, so the pages cannot be reused meanwhile.
// Runs in the reclaim worker only; completions touch atomics and the event.
#pragma once
#include "dm-pcache/engine/extent_tree.hpp"
#include "dm-pcache/engine/log.hpp"
#include "dm-pcache/engine/published.hpp"
#include "dm-pcache/media/record_reader.hpp"

namespace pcache::engine
{

class WriteBack : rt::NonCopyable
{
public:
    WriteBack(const media::Device &device, media::Metadata &metadata, Log &log,
              pc_backing *backing) noexcept;
    ~WriteBack();
    // The batch's memory, fixed from here on: enough for batch_keys keys, less on a small cache.
    rt::Error allocate() noexcept;

    // One batch. True in `moved` if dirty tail moved. Error::io: the backing device failed; nothing
    // is lost, dirty tail stands. Error::no_device: the log could not be read. Sleeps.
    rt::Error run_batch(bool &moved) noexcept;
    bool anything_dirty() const noexcept { return metadata_.dirty_tail() != log_.durable_head(); }
    PublishedPosition &dirty_tail() noexcept { return dirty_tail_; } // for status
    u64 batches() const noexcept { return batches_; }

private:
    rt::Error gather(format::LogPosition &end, u64 &bytes) noexcept;
    void send() noexcept;
    void open(u64 offset) noexcept;
    void close() noexcept;
    void send_piece(u64 offset, const u8 *data, u32 bytes) noexcept;
    void completed(int error) noexcept;

    const media::Device &device_;
    media::Metadata &metadata_;
    Log &log_;
    pc_backing *backing_;
    media::RecordReader reader_;
    u8 *nodes_ = nullptr; // all nodes of the batch, in one block
    NodePool pool_;
    ExtentTree batch_;
    PublishedPosition dirty_tail_;
    u64 batches_ = 0;

    pc_wio *write_ = nullptr; // being built
    u64 write_end_ = 0;       // where it ends on the backing device
    rt::Atomic<u32> in_flight_{0};
    rt::Atomic<s32> error_{0};
    Event landed_;
};

} // namespace pcache::engine
