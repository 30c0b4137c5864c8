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
// they stood for, overridden data included. Error::busy: halted.
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
        if (halted() && !mutant(Mutant::gathered_to_the_end))
            return rt::Error::busy;
        media::Record r;
        if (reader_.read(device_, at, r) != media::ReadOutcome::good) {
            log_.page_lost(at);
            return rt::Error::no_device;
        }
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

bool WriteBack::still_in_hand() const noexcept
{
    return in_hand_ && halts_seen_ == halts_.load_acquire();
}

rt::Error WriteBack::begin_batch() noexcept
{
    halts_seen_ = halts_.load_acquire();
    found_lost_ = in_hand_ = false;
    bytes_ = 0;
    batch_.clear();
    to_send_.everything();
    RT_TRY(gather(end_, bytes_));
    to_land_.set(bytes_);
    rt::Guard g(damage_.tails);
    damage_.landed.begin(end_);
    return rt::Error::none;
}

rt::Error WriteBack::run_batch(bool &moved) noexcept
{
    const auto unless_halted = [](rt::Error e) {
        return e == rt::Error::busy ? rt::Error::none : e;
    };
    moved = false;
    if (!still_in_hand()) {
        if (const rt::Error e = begin_batch(); !ok(e))
            return unless_halted(e);
    }
    if (end_ == metadata_.dirty_tail())
        return rt::Error::none;
    if (!batch_.empty()) {
        if (mutant(Mutant::tail_before_data))
            metadata_.set_dirty_tail(end_);
        if (const rt::Error e = send_and_flush(true); !ok(e)) {
            in_hand_ = e == rt::Error::io && !failed_.empty();
            in_hand_ = mutant(Mutant::batch_sent_again) ? false : in_hand_;
            in_hand_ = mutant(Mutant::flush_alone_again) ? e == rt::Error::io : in_hand_;
            to_send_ = failed_;
            return unless_halted(e);
        }
        batches_++;
    }
    in_hand_ = false;
    // If nothing of it is lost so far, nothing will be: what cannot be read from now on is clean.
    const bool whole = !found_lost_ && damage_.landed.flush_went_well();
    // Not before: the backing device may take its time, and whoever looks at what is dirty must not
    // wait for it.
    rt::Guard g(damage_.tails);
    rt::Error e = rt::Error::none;
    if (whole || mutant(Mutant::lost_passed)) {
        move_dirty_tail(end_, bytes_);
        moved = true;
    } else {
        e = pass_lost(end_, moved);
    }
    damage_.landed.over();
    return unless_halted(e);
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

// f(const Extent &) for each part of an extent of the batch that is to be sent.
template <class F>
void WriteBack::for_pieces(const Extent &e, F &&f) noexcept
{
    for (u64 first = e.sector, end = e.end(); to_send_.next(first, end); first = end, end = e.end())
        f(clip(e, first, end));
}

// What is sent stands for all keys of the batch that have not landed, overridden ones included.
void WriteBack::count_pieces() noexcept
{
    key_sectors_ = to_land_.read() / format::sector_bytes;
    piece_sectors_ = 0;
    auto cursor = batch_.cursor();
    for (Extent e; cursor.next(e);)
        for_pieces(e, [this](const Extent &piece) { piece_sectors_ += piece.sectors; });
    piece_sectors_ = rt::max(piece_sectors_, u64{1});
    landed_sectors_.set(0);
}

// On return nothing is in flight. Error::busy: halted. Error::io, with failed_: these writes failed
// and all others have landed; without: the FLUSH failed.
rt::Error WriteBack::send_and_flush(bool verify) noexcept
{
    verify_ = verify;
    halts_before_ = halts_.load_acquire();
    cut_ = false;
    failed_.clear();
    to_send_.sort();
    count_pieces();
    ranges_.lock_sleeping(span_);
    send();
    landed_.wait([this] { return in_flight_.load_acquire() == 0; });
    ranges_.unlock(span_);
    collect_failed();
    if (cut_short())
        return rt::Error::busy;
    if (!failed_.empty() && !mutant(Mutant::write_error_ignored))
        return rt::Error::io;
    if (!mutant(Mutant::flush_left_out) && pc_backing_flush(backing_) != 0 &&
        !mutant(Mutant::flush_result_ignored))
        return rt::Error::io;
    unflushed_ = false;
    return rt::Error::none;
}

// What accept_loss sends lands for nobody.
rt::Error WriteBack::send_batch() noexcept
{
    found_lost_ = in_hand_ = false;
    to_send_.everything();
    to_land_.set(0);
    const rt::Error e = batch_.empty() ? rt::Error::none : send_and_flush(false);
    batch_.clear();
    return ok(e) && found_lost_ ? rt::Error::io : e;
}

// Beyond so many failed writes the rest waits for the next attempt, too.
void WriteBack::send() noexcept
{
    auto cursor = batch_.cursor();
    verifier_.forget();
    for (Extent e; cursor.next(e) && !cut_short();) {
        if (failed_.full()) {
            failed_.add_from(e.sector);
            break;
        }
        for_pieces(e, [this](const Extent &piece) { send_extent(piece); });
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
    for (u32 at = 0; at < e.sectors && !cut_short();) {
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
        const u32 before = flights_[flight_].bytes.read();
        const u32 room = mutant(Mutant::write_unbounded) ? ~0u : bytes_per_write - before;
        const u32 taken = pc_wio_add(write_, data, rt::min(bytes, room));
        flights_[flight_].bytes.set(before + taken);
        offset += taken;
        data += taken;
        bytes -= taken;
        write_end_ = offset;
        if (bytes || taken == room)
            close();
    }
}

// False: halted. Whoever waited here for a write to land must not send another one then.
bool WriteBack::open(u64 offset) noexcept
{
    landed_.wait([this] {
        const bool room = bytes_in_flight_.load_acquire() + bytes_per_write <= bytes_in_flight ||
                          mutant(Mutant::flight_unbounded);
        return (in_flight_.load_acquire() < writes_in_flight && room) || cut_short();
    });
    if (cut_short())
        return false;
    unflushed_ = true;
    in_flight_.fetch_add(1);
    collect_failed();
    // Fewer than there are places are in flight, so one is free.
    while (flights_[flight_].bytes.load_acquire())
        flight_ = (flight_ + 1) % writes_in_flight;
    flights_[flight_].sector = offset / format::sector_bytes;
    write_ = pc_wio_begin(
        backing_, offset,
        [](void *c, int error) {
            Flight &f = *static_cast<Flight *>(c);
            f.owner->completed(f, error);
        },
        &flights_[flight_]);
    return true;
}

// Places of writes that failed are free behind it.
void WriteBack::collect_failed() noexcept
{
    if (!any_failed_.load_acquire())
        return;
    (void)any_failed_.xchg(0); // before the look: who fails from now on says so again
    for (Flight &f : flights_) {
        if (!f.failed.load_acquire())
            continue;
        failed_.add(f.sector, f.sector + f.bytes.read() / format::sector_bytes);
        f.failed.set(0);
        f.bytes.set(0);
    }
}

// Said before it is counted: who knows the count sees that it is halted, or has been.
void WriteBack::halt() noexcept
{
    halted_.store_release(1);
    halts_.fetch_add(1);
    landed_.wake();
}

void WriteBack::fall_asleep() noexcept
{
    asleep_.store_release(1);
    halts_.fetch_add(1);
    landed_.wake();
}

void WriteBack::close() noexcept
{
    if (!write_)
        return;
    (void)bytes_in_flight_.fetch_add(flights_[flight_].bytes.read());
    if (cut_short())
        pc_wio_drop(write_);
    else
        pc_wio_submit(write_);
    write_ = nullptr;
}

// Interrupt context. The flight is the sender's again before in_flight_ says so.
void WriteBack::completed(Flight &f, int error) noexcept
{
    const EpochGuard epoch; // keeps us alive until wake() has returned
    const u32 bytes = f.bytes.read();
    u64 step = 0;
    if (error) {
        f.failed.store_release(1);
        any_failed_.store_release(1);
    } else {
        f.bytes.store_release(0);
        // The steps of all writes of an attempt add up to the bytes of the keys they stand for.
        const u64 sectors = bytes / format::sector_bytes;
        const u64 before = landed_sectors_.fetch_add(sectors);
        step = ((before + sectors) * key_sectors_ / piece_sectors_ -
                before * key_sectors_ / piece_sectors_) *
               format::sector_bytes;
        (void)to_land_.fetch_add(~step + 1);
    }
    if (step)
        listener_.landed(listener_.context, step);
    (void)bytes_in_flight_.fetch_add(~bytes + 1);
    in_flight_.fetch_add(~0u);
    landed_.wake();
}

} // namespace pcache::engine
