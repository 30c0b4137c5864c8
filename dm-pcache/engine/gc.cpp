// SPDX-License-Identifier: GPL-2.0
// engine/gc.cpp - see gc.hpp.
#include "dm-pcache/engine/gc.hpp"
#include "dm-pcache/engine/shard_of.hpp"
#include "dm-pcache/format/position.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::engine
{

Gc::Gc(const media::Device &device, media::Metadata &metadata, Segments &segments, Shard *shards,
       NodeBudget &budget, Log &log, Damage &damage) noexcept
    : device_(device), metadata_(metadata), segments_(segments), shards_(shards), budget_(budget),
      log_(log), damage_(damage)
{
}

rt::Error Gc::allocate(pc_queue *queue, pc_host *host, Listener listener) noexcept
{
    host_ = host;
    listener_ = listener;
    settle_work_.init(
        queue, [](void *c) { static_cast<Gc *>(c)->settle(); }, this);
    rt::Result<Array<format::Key>> keys = make_array<format::Key>(PC_MAY_SLEEP, keys_at_once);
    if (!keys)
        return keys.error();
    keys_ = rt::move(*keys);
    return reader_.allocate();
}

void Gc::stop() noexcept
{
    settle_work_.stop();
}

// Leads behind a record that cannot be read, to `stop` at most. True: to the record `r`. A log
// segment was zero before it was linked, so every good record further on is the log's; only one
// with a number can be told from a leftover of mainline's time.
bool Gc::pass_hole(format::LogPosition &at, format::LogPosition stop, media::Record &r) noexcept
{
    if (mutant(Mutant::hole_ends_at_dirty_tail))
        stop = metadata_.dirty_tail();
    const format::LogPosition hole = at;
    for (at.offset += format::position_align;
         last_number_ && at.offset <= format::data_bytes - format::record_header_bytes;
         at.offset += format::position_align) {
        if (at == stop)
            return false;
        if (reader_.read(device_, at, r) == media::ReadOutcome::good &&
            format::after(r.flags.number(), last_number_))
            return true;
        if (at.offset % format::page_bytes == 0)
            pc_yield();
    }
    SegmentId next;
    if (hole.segment == stop.segment || !segments_.log_next(hole.segment, next)) {
        at = stop;
        return false;
    }
    at = {next, 0};
    return at != stop && reader_.read(device_, at, r) == media::ReadOutcome::good;
}

// The record at `at`, which moves behind a hole if it must. False: that led to `stop`, or a second
// hole was met in this pass, which the next one will take.
bool Gc::read(format::LogPosition &at, format::LogPosition stop, media::Record &r) noexcept
{
    if (reader_.read(device_, at, r) == media::ReadOutcome::good)
        return true;
    log_.page_lost(at);
    if (has_hole_)
        return false;
    has_hole_ = true;
    const format::LogPosition hole = at;
    const bool good = pass_hole(at, stop, r);
    (void)segments_.mark_bad(hole.segment);
    pc_log(host_, PC_WARN,
           "the log cannot be read at %u:%u, where all is clean: GC goes on at %u:%u, and up to "
           "then some segments are not freed before the next activation",
           hole.segment.value, hole.offset, at.segment.value, at.offset);
    return good;
}

// Reads the records to be passed, and takes their keys along. They hold their segments no more;
// nothing is freed yet.
void Gc::count_out(format::LogPosition &end, format::LogPosition stop, u32 want_free) noexcept
{
    u32 will_be_free = segments_.free_count() + segments_.emptied_count();
    left_count_ = key_count_ = 0;
    has_hole_ = false;
    for (u32 passed = 0; end != stop && passed < keys_per_gc_pass && will_be_free < want_free;) {
        if (left_count_ == log_segments_per_pass)
            break;
        media::Record r;
        const SegmentId segment = end.segment;
        const bool good = read(end, stop, r);
        if (segment != end.segment) {
            left_[left_count_++] = segment;
            will_be_free++;
        }
        if (!good || left_count_ == log_segments_per_pass)
            break;
        if (r.flags.number())
            last_number_ = r.flags.number();
        if (mutant(Mutant::keys_of_a_pass_forgotten))
            key_count_ = 0;
        for (u32 i = 0; i < r.keys(); i++) {
            const format::Key k = reader_.key(i);
            keys_[key_count_++] = k;
            const SegmentId s{k.cache_seg_id};
            const bool holds =
                k.seg_gen >= segments_.generation(s) || mutant(Mutant::stale_key_counted_out);
            if (holds && segments_.drop_key(s))
                will_be_free++;
        }
        if (r.flags.last()) {
            left_[left_count_++] = end.segment;
            will_be_free++;
        }
        end = r.behind();
        passed += rt::max(r.keys(), 1u);
        pc_yield();
    }
    stands_ = end == stop && will_be_free < want_free;
}

void Gc::unmap() noexcept
{
    for (u32 i = 0; i < key_count_; i++) {
        unmap_key(keys_[i]);
        if (i % 128 == 127)
            pc_yield();
    }
}

void Gc::unmap_key(const format::Key &k) noexcept
{
    Shard &s = shards_[shard_of(k.off)];
    const u64 sector = k.off / format::sector_bytes;
    const u32 sectors = k.len / format::sector_bytes;
    const Place place{k.cache_seg_id, k.cache_seg_off / format::sector_bytes};
    for (u32 at = 0; at < sectors;) {
        {
            rt::Guard g(s.lock);
            if (s.can_evict()) {
                const Run run = s.tree.lookup(sector + at, sectors - at);
                const Place here{place.segment, place.sector + at};
                const bool points = run.place == here || mutant(Mutant::newer_data_unmapped);
                const bool stays = run.flags == extent_flag::lost && !mutant(Mutant::lost_unmapped);
                if (run.hit && points && !stays)
                    (void)s.tree.remove(sector + at, run.sectors);
                at += run.sectors;
                if (at == sectors && k.seg_gen >= segments_.generation({place.segment}))
                    s.sums.remove({place, sectors, k.data_crc});
                continue;
            }
        }
        // The few nodes this may take come from outside the budget: eviction must go on when the
        // budget is used up, and gives back more than it takes.
        s.provide_for_eviction(budget_);
    }
    (void)s.trim(budget_);
}

// The first emptied segment becomes a free one.
void Gc::free_next() noexcept
{
    SegmentId s;
    bool log = false;
    if (!segments_.next_emptied(s, log))
        return;
    if (log) {
        segments_.release(s);
        return;
    }
    const u64 gen = segments_.generation(s) + 1;
    const bool stored =
        mutant(Mutant::generation_not_stored) || ok(metadata_.set_generation(s, gen));
    if (metadata_.failed())
        return;
    if (!stored)
        pc_log(host_, PC_WARN, "segment %u is not used again: its generation cannot be stored",
               s.value);
    if (stored)
        segments_.raise_generation(s, gen);
    if (!stored || gen == ~u64{0})
        segments_.retire(s);
    else
        segments_.release(s);
}

// What had been emptied when the last pass ended is held by nothing and pointed to by nothing.
bool Gc::mark_ready() noexcept
{
    const u32 known = ready_.load_acquire(), emptied = segments_.emptied_count();
    if (emptied > known)
        (void)ready_.fetch_add(emptied - known);
    return settling();
}

void Gc::free_ready() noexcept
{
    const u32 n = ready_.load_acquire();
    if (!mutant(Mutant::no_grace_period))
        pc_epoch_wait();
    for (u32 i = 0; i < n; i++) {
        free_next();
        if (!mutant(Mutant::generations_without_yield))
            pc_yield();
    }
    (void)ready_.fetch_add(~n + 1);
}

void Gc::settle() noexcept
{
    while (settling()) {
        free_ready();
        if (!mutant(Mutant::freed_not_told))
            listener_.freed(listener_.context);
    }
}

rt::Error Gc::pass(u32 want_free, bool &moved) noexcept
{
    RT_TRY(pass_up_to(metadata_.dirty_tail(), want_free, moved));
    // Also without a move: a data head may have left a segment whose keys had all been passed, or a
    // suspend stopped the work.
    if (mark_ready())
        settle_work_.kick();
    return rt::Error::none;
}

rt::Error Gc::pass_all(format::LogPosition stop) noexcept
{
    bool moved = false;
    while (metadata_.key_tail() != stop) {
        RT_TRY(pass_up_to(stop, ~0u, moved));
        if (mark_ready())
            free_ready();
    }
    return rt::Error::none;
}

void Gc::drop_beyond(u64 sector, u64 end) noexcept
{
    for (u32 i = 0; i < shard_count; i++) {
        Shard &s = shards_[i];
        for (bool more = true; more; pc_yield()) {
            s.provide_for_eviction(budget_);
            rt::Guard g(s.lock);
            Extent e;
            more = s.tree.first_from(sector, e) && e.sector < end;
            if (more && s.can_evict()) {
                const Extent beyond = clip(e, sector, end);
                (void)s.tree.remove(beyond.sector, beyond.sectors);
            }
        }
        (void)s.trim(budget_);
    }
}

// A hole was met, in the page in which the log grows.
bool Gc::stuck() const noexcept
{
    return has_hole_ && !damage_.log_can_go_on();
}

rt::Error Gc::pass_up_to(format::LogPosition stop, u32 want_free, bool &moved) noexcept
{
    rt::Guard g(damage_.tails);
    const format::LogPosition from = metadata_.key_tail();
    format::LogPosition to = from;
    count_out(to, stop, want_free);
    if (stuck())
        return rt::Error::no_device;
    moved = to != from;
    if (moved) {
        if (!mutant(Mutant::key_tail_behind))
            metadata_.set_key_tail(to);
        metadata_.set_safe_tail(to);
        if (metadata_.failed())
            return rt::Error::no_device; // nothing may be freed that media still names
        key_tail_.set(to);
        if (!mutant(Mutant::unmap_left_out))
            unmap();
        for (u32 k = 0; k < left_count_; k++)
            segments_.leave_log(left_[k]);
    }
    return rt::Error::none;
}

} // namespace pcache::engine
