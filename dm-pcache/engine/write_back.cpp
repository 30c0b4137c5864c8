// SPDX-License-Identifier: GPL-2.0
// engine/write_back.cpp - see write_back.hpp.
#include "dm-pcache/engine/write_back.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::engine
{

namespace
{
// The extents of batch_keys keys at half-filled leaves, inner nodes included.
constexpr usize batch_nodes = batch_keys / ExtentTree::leaf_min + 256;
} // namespace

WriteBack::WriteBack(const media::Device &device, media::Metadata &metadata, Log &log,
                     pc_backing *backing, Segments &segments, Tickets &tickets, Shard *shards,
                     Damage &damage, RangeLock &ranges) noexcept
    : device_(device), metadata_(metadata), log_(log), backing_(backing), segments_(segments),
      tickets_(tickets), shards_(shards), damage_(damage), ranges_(ranges), batch_(pool_),
      verifier_(device, shards)
{
}

WriteBack::~WriteBack()
{
    pc_epoch_wait(); // a completion may still be waking us
    batch_.clear();
    pc_free(nodes_);
}

rt::Error WriteBack::allocate(Listener listener) noexcept
{
    listener_ = listener;
    RT_TRY(reader_.allocate());
    nodes_ = static_cast<u8 *>(pc_alloc(batch_nodes * ExtentTree::node_bytes, PC_MAY_SLEEP));
    if (!nodes_)
        return rt::Error::no_memory;
    for (u32 i = 0; i < batch_nodes; i++)
        pool_.give(nodes_ + i * ExtentTree::node_bytes);
    for (Flight &f : flights_)
        f.owner = this;
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
    span_.first = ~u64{0};
    span_.end = 0;
    const u32 limit = limit_.read();
    while (at != head && keys < limit && bytes < limit_bytes_) {
        media::Record r;
        if (reader_.read(device_, at, r) != media::ReadOutcome::good)
            return rt::Error::no_device;
        const bool numbered = r.flags.number() != 0;
        const bool unnumbered = (alone || !numbered) && !mutant(Mutant::unnumbered_merged);
        if (keys && (unnumbered || r.flags.epoch()) && !mutant(Mutant::epochs_merged))
            break;
        if (r.keys() && !batch_.can_operate(r.keys()))
            break;
        for (u32 i = 0; i < r.keys(); i++) {
            const format::Key k = reader_.key(i);
            if (k.flags & format::key_clean && !mutant(Mutant::clean_written_back))
                continue;
            span_.first = rt::min(span_.first, k.off / format::sector_bytes);
            span_.end = rt::max(span_.end, (k.off + k.len) / format::sector_bytes);
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
    const u64 lost_before = damage_.sectors_lost();
    moved = false;
    batch_.clear();
    RT_TRY(gather(end, bytes));
    if (end == metadata_.dirty_tail())
        return rt::Error::none;
    found_lost_ = false;
    if (!batch_.empty()) {
        if (mutant(Mutant::tail_before_data))
            metadata_.set_dirty_tail(end);
        if (const rt::Error e = send_and_flush(bytes, true); !ok(e))
            return e == rt::Error::busy ? rt::Error::none : e;
        batches_++;
    }
    // Not before: the backing device may take its time, and whoever looks at what is dirty must not
    // wait for it. What a read has found lost meanwhile may be of this batch.
    rt::Guard g(damage_.tails);
    if ((found_lost_ || damage_.sectors_lost() != lost_before) && !mutant(Mutant::lost_passed))
        return pass_lost(end, moved);
    move_dirty_tail(end, bytes);
    moved = true;
    return rt::Error::none;
}

// `bytes`: what the dirty keys of the records that it passes stand for. What was not sent has not
// landed, and is passed now.
void WriteBack::move_dirty_tail(format::LogPosition to, u64 bytes) noexcept
{
    if (const u64 rest = to_land_.xchg(0))
        listener_.landed(listener_.context, rest);
    metadata_.set_dirty_tail(to);
    dirty_tail_.set(to);
    log_.dirty_written_back(bytes);
    written_ += bytes;
}

// What is sent stands for all keys of the batch, overridden ones included.
void WriteBack::count_pieces(u64 key_bytes) noexcept
{
    key_sectors_ = key_bytes / format::sector_bytes;
    piece_sectors_ = 0;
    auto cursor = batch_.cursor();
    for (Extent e; cursor.next(e);)
        piece_sectors_ += e.sectors;
    piece_sectors_ = rt::max(piece_sectors_, u64{1});
    landed_sectors_.set(0);
    to_land_.set(key_bytes);
}

// `key_bytes`: of the keys that the batch stands for; 0 if nobody waits for them to land. On return
// nothing is in flight. Error::busy: halted.
rt::Error WriteBack::send_and_flush(u64 key_bytes, bool verify) noexcept
{
    error_.set(0);
    verify_ = verify;
    count_pieces(key_bytes);
    ranges_.lock_sleeping(span_);
    send();
    landed_.wait([this] { return in_flight_.load_acquire() == 0; });
    ranges_.unlock(span_);
    if (halted())
        return rt::Error::busy;
    if (error_.read() != 0 && !mutant(Mutant::write_error_ignored))
        return rt::Error::io;
    if (!mutant(Mutant::flush_left_out) && pc_backing_flush(backing_) != 0 &&
        !mutant(Mutant::flush_result_ignored))
        return rt::Error::io;
    unflushed_ = false;
    return rt::Error::none;
}

rt::Error WriteBack::send_batch() noexcept
{
    found_lost_ = false;
    const rt::Error e = batch_.empty() ? rt::Error::none : send_and_flush(0, false);
    batch_.clear();
    return ok(e) && found_lost_ ? rt::Error::io : e;
}

void WriteBack::send() noexcept
{
    auto cursor = batch_.cursor();
    verifier_.forget();
    for (Extent e; cursor.next(e) && !halted();) {
        send_extent(e);
        pc_yield();
    }
    close();
}

// How far this piece can be read alike. With data_crc it is of one key, and the key's verification
// is the probe.
u32 WriteBack::check(const Extent &e, u32 at, bool &readable) noexcept
{
    const Place place{e.place.segment, e.place.sector + at};
    if (mutant(Mutant::bad_line_sent)) {
        readable = true;
        return e.sectors - at;
    }
    if (!verify_ || !shards_[0].sums.on())
        return damage_.alike_lines(place, e.sectors - at, readable);
    readable = verifier_.good({e.sector + at, e.sectors - at, place});
    return e.sectors - at;
}

// Probed first: what cannot be read is lost, and not sent.
void WriteBack::send_extent(const Extent &e) noexcept
{
    for (u32 at = 0; at < e.sectors;) {
        const Place place{e.place.segment, e.place.sector + at};
        bool readable;
        const u32 n = check(e, at, readable);
        if (readable) {
            send_piece((e.sector + at) * format::sector_bytes,
                       device_.data({place.segment}) + u64{place.sector} * format::sector_bytes,
                       n * format::sector_bytes);
        } else {
            (void)damage_.mark(e.sector + at, n, place, extent_flag::lost, PC_NOWAIT);
            found_lost_ = true;
        }
        at += n;
    }
}

void WriteBack::send_piece(u64 offset, const u8 *data, u32 bytes) noexcept
{
    if (write_ && write_end_ != offset)
        close();
    while (bytes) {
        if (!write_ && !open(offset))
            return;
        const u32 taken = pc_wio_add(write_, data, bytes);
        flights_[flight_].bytes.set(flights_[flight_].bytes.read() + taken);
        offset += taken;
        data += taken;
        bytes -= taken;
        write_end_ = offset;
        if (bytes)
            close();
    }
}

// False: halted. Whoever waited here for a write to land must not send another one then.
bool WriteBack::open(u64 offset) noexcept
{
    landed_.wait([this] { return in_flight_.load_acquire() < writes_in_flight || halted(); });
    if (halted())
        return false;
    unflushed_ = true;
    in_flight_.fetch_add(1);
    // Fewer than there are places are in flight, so one is free.
    while (flights_[flight_].bytes.load_acquire())
        flight_ = (flight_ + 1) % writes_in_flight;
    write_ = pc_wio_begin(
        backing_, offset,
        [](void *c, int error) {
            Flight &f = *static_cast<Flight *>(c);
            WriteBack *owner = f.owner;
            const u32 bytes = f.bytes.read();
            f.bytes.store_release(0);
            owner->completed(bytes, error);
        },
        &flights_[flight_]);
    return true;
}

void WriteBack::halt() noexcept
{
    halted_.store_release(1);
    landed_.wake();
}

void WriteBack::close() noexcept
{
    if (write_ && halted())
        pc_wio_drop(write_);
    else if (write_)
        pc_wio_submit(write_);
    write_ = nullptr;
}

// Interrupt context.
void WriteBack::completed(u32 bytes, int error) noexcept
{
    const EpochGuard epoch; // keeps us alive until wake() has returned
    if (error)
        error_.set(error);
    // The steps of all writes of a batch add up to the bytes of its keys.
    const u64 sectors = bytes / format::sector_bytes;
    const u64 before = landed_sectors_.fetch_add(sectors);
    const u64 step = ((before + sectors) * key_sectors_ / piece_sectors_ -
                      before * key_sectors_ / piece_sectors_) *
                     format::sector_bytes;
    (void)to_land_.fetch_add(~step + 1);
    listener_.landed(listener_.context, step);
    in_flight_.fetch_add(~0u);
    landed_.wake();
}

} // namespace pcache::engine
