// SPDX-License-Identifier: GPL-2.0
// engine/gc.cpp - see gc.hpp.
#include "dm-pcache/engine/gc.hpp"
#include "dm-pcache/engine/shard_of.hpp"

namespace pcache::engine
{

Gc::Gc(const media::Device &device, media::Metadata &metadata, Segments &segments, Shard *shards,
       NodeBudget &budget) noexcept
    : device_(device), metadata_(metadata), segments_(segments), shards_(shards), budget_(budget)
{
}

// The keys of the records to be passed hold their segments no more. Nothing is freed yet.
rt::Error Gc::count_out(format::LogPosition &end, u32 want_free) noexcept
{
    const format::LogPosition stop = metadata_.dirty_tail();
    u32 will_be_free = segments_.free_count();
    left_count_ = 0;
    for (u32 n = 0; end != stop && n < records_per_gc_pass && will_be_free < want_free; n++) {
        if (left_count_ == log_segments_per_pass)
            break;
        media::Record r;
        if (reader_.read(device_, end, r) != media::ReadOutcome::good)
            return rt::Error::no_device;
        for (u32 i = 0; i < r.keys(); i++) {
            const format::Key k = reader_.key(i);
            const SegmentId s{k.cache_seg_id};
            if (k.seg_gen >= segments_.generation(s) && segments_.drop_key(s))
                will_be_free++;
        }
        if (r.flags.last()) {
            left_[left_count_++] = end.segment;
            will_be_free++;
        }
        end = r.behind();
        pc_yield();
    }
    return rt::Error::none;
}

rt::Error Gc::unmap(format::LogPosition from, format::LogPosition to) noexcept
{
    while (from != to) {
        media::Record r;
        if (reader_.read(device_, from, r) != media::ReadOutcome::good)
            return rt::Error::no_device;
        for (u32 i = 0; i < r.keys(); i++)
            unmap_key(reader_.key(i));
        from = r.behind();
        pc_yield();
    }
    return rt::Error::none;
}

void Gc::unmap_key(const format::Key &k) noexcept
{
    Shard &s = shards_[shard_of(k.off)];
    for (;;) {
        {
            rt::Guard g(s.lock);
            if (s.tree.can_operate(1)) {
                (void)s.tree.remove_pointing_to(
                    k.off / format::sector_bytes, k.len / format::sector_bytes,
                    {k.cache_seg_id, k.cache_seg_off / format::sector_bytes});
                break;
            }
        }
        // The few nodes this may take come from outside the budget: eviction must go on when the
        // budget is used up, and gives back more than it takes.
        s.provide_for_eviction(budget_);
    }
    (void)s.trim(budget_);
}

void Gc::free_emptied() noexcept
{
    for (SegmentId s; segments_.next_emptied(s);) {
        const u64 gen = segments_.generation(s) + 1;
        metadata_.set_generation(s, gen);
        segments_.raise_generation(s, gen);
        if (gen == ~u64{0})
            segments_.retire(s);
        else
            segments_.release(s);
    }
    for (u32 i = 0; i < left_count_; i++)
        segments_.release(left_[i]);
}

rt::Error Gc::pass(u32 want_free, bool &moved) noexcept
{
    const format::LogPosition from = metadata_.key_tail();
    format::LogPosition to = from;
    RT_TRY(count_out(to, want_free));
    moved = to != from;
    if (moved) {
        metadata_.set_key_tail(to);
        metadata_.set_safe_tail(to);
        key_tail_.set(to);
        RT_TRY(unmap(from, to));
    }
    // Also without a move: a data head may have left a segment whose keys had all been passed.
    if (left_count_ || segments_.any_emptied()) {
        pc_epoch_wait();
        free_emptied();
        moved = true;
    }
    return rt::Error::none;
}

} // namespace pcache::engine
