// SPDX-License-Identifier: GPL-2.0
// engine/write_back.cpp - see write_back.hpp.
#include "dm-pcache/engine/write_back.hpp"

namespace pcache::engine
{

namespace
{
// The extents of batch_keys keys at half-filled leaves, inner nodes included.
constexpr usize batch_nodes = batch_keys / ExtentTree::leaf_min + 256;
} // namespace

WriteBack::WriteBack(const media::Device &device, media::Metadata &metadata, Log &log,
                     pc_backing *backing) noexcept
    : device_(device), metadata_(metadata), log_(log), backing_(backing), batch_(pool_)
{
}

WriteBack::~WriteBack()
{
    pc_epoch_wait(); // a completion may still be waking us
    batch_.clear();
    pc_free(nodes_);
}

rt::Error WriteBack::allocate() noexcept
{
    RT_TRY(reader_.allocate());
    nodes_ = static_cast<u8 *>(pc_alloc(batch_nodes * ExtentTree::node_bytes, PC_MAY_SLEEP));
    if (!nodes_)
        return rt::Error::no_memory;
    for (u32 i = 0; i < batch_nodes; i++)
        pool_.give(nodes_ + i * ExtentTree::node_bytes);
    return rt::Error::none;
}

// Fills batch_ with the keys of one epoch, from dirty tail to `end`; `bytes`: how much dirty data
// they stood for, overridden data included.
rt::Error WriteBack::gather(format::LogPosition &end, u64 &bytes) noexcept
{
    const format::LogPosition head = log_.durable_head();
    format::LogPosition at = metadata_.dirty_tail();
    bool alone = false; // the previous record is an epoch of its own
    u32 keys = 0;
    while (at != head && keys < batch_keys) {
        media::Record r;
        if (reader_.read(device_, at, r) != media::ReadOutcome::good)
            return rt::Error::no_device;
        const bool numbered = r.flags.number() != 0;
        if (keys && (alone || !numbered || r.flags.epoch()))
            break;
        if (r.keys() && !batch_.can_operate(r.keys()))
            break;
        for (u32 i = 0; i < r.keys(); i++) {
            const format::Key k = reader_.key(i);
            if (k.flags & format::key_clean)
                continue;
            batch_.insert({k.off / format::sector_bytes,
                           k.len / format::sector_bytes,
                           {k.cache_seg_id, k.cache_seg_off / format::sector_bytes}});
            bytes += k.len;
            keys++;
        }
        alone = !numbered;
        at = r.behind();
        pc_yield();
    }
    end = at;
    return rt::Error::none;
}

rt::Error WriteBack::run_batch(bool &moved) noexcept
{
    format::LogPosition end;
    u64 bytes = 0;
    moved = false;
    batch_.clear();
    RT_TRY(gather(end, bytes));
    if (end == metadata_.dirty_tail())
        return rt::Error::none;
    if (!batch_.empty()) {
        error_.set(0);
        send();
        landed_.wait([this] { return in_flight_.load_acquire() == 0; });
        if (error_.read() != 0 || pc_backing_flush(backing_) != 0)
            return rt::Error::io;
        batches_++;
    }
    metadata_.set_dirty_tail(end);
    dirty_tail_.set(end);
    log_.dirty_written_back(bytes);
    moved = true;
    return rt::Error::none;
}

void WriteBack::send() noexcept
{
    auto cursor = batch_.cursor();
    for (Extent e; cursor.next(e);) {
        send_piece(e.sector * format::sector_bytes,
                   device_.data({e.place.segment}) + u64{e.place.sector} * format::sector_bytes,
                   e.sectors * format::sector_bytes);
        pc_yield();
    }
    close();
}

void WriteBack::send_piece(u64 offset, const u8 *data, u32 bytes) noexcept
{
    if (write_ && write_end_ != offset)
        close();
    while (bytes) {
        if (!write_)
            open(offset);
        const u32 taken = pc_wio_add(write_, data, bytes);
        offset += taken;
        data += taken;
        bytes -= taken;
        write_end_ = offset;
        if (bytes)
            close();
    }
}

void WriteBack::open(u64 offset) noexcept
{
    landed_.wait([this] { return in_flight_.load_acquire() < writes_in_flight; });
    in_flight_.fetch_add(1);
    write_ = pc_wio_begin(
        backing_, offset, [](void *c, int error) { static_cast<WriteBack *>(c)->completed(error); },
        this);
}

void WriteBack::close() noexcept
{
    if (write_)
        pc_wio_submit(write_);
    write_ = nullptr;
}

// Interrupt context.
void WriteBack::completed(int error) noexcept
{
    const EpochGuard epoch; // keeps us alive until wake() has returned
    if (error)
        error_.set(error);
    in_flight_.fetch_add(~0u);
    landed_.wake();
}

} // namespace pcache::engine
