// SPDX-License-Identifier: GPL-2.0
// engine/fills.cpp - see fills.hpp.
#include "dm-pcache/engine/fills.hpp"
#include "cxxrt/guard.hpp"
#include "dm-pcache/engine/memory.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::engine
{

namespace
{
constinit LockClass fills_class{"pcache fills"};

constexpr u32 pages_for(u32 sectors) noexcept
{
    return (sectors * format::sector_bytes + fill_page_bytes - 1) / fill_page_bytes;
}
} // namespace

// ---- entries ------------------------------------------------------------------------------

bool FillEntries::enter(Fill &f) noexcept
{
    for (const Fill *e = first_; e; e = e->behind)
        if (e->overlaps(f.sector, f.sectors))
            return false;
    f.cancelled = false;
    f.before = nullptr;
    f.behind = first_;
    if (first_)
        first_->before = &f;
    first_ = &f;
    return true;
}

void FillEntries::leave(Fill &f) noexcept
{
    if (f.before)
        f.before->behind = f.behind;
    else
        first_ = f.behind;
    if (f.behind)
        f.behind->before = f.before;
}

void FillEntries::cancel(u64 sector, u32 sectors) noexcept
{
    for (Fill *e = first_; e; e = e->behind)
        if (e->overlaps(sector, sectors))
            e->cancelled = true;
}

// ---- pool ---------------------------------------------------------------------------------

Fills::Fills() noexcept : lock_(fills_class) {}

Fills::~Fills()
{
    for (u32 i = 0; i < lane_count_; i++)
        lanes_[i].~Lane();
    pc_free(lanes_);
    pc_free(fills_);
    pc_free(memory_);
}

rt::Error Fills::allocate(pc_queue *queue, Listener listener) noexcept
{
    listener_ = listener;
    const u32 lanes = rt::min(pc_cpus(), fill_lanes);
    memory_ = static_cast<u8 *>(pc_alloc(usize{fill_pages} * fill_page_bytes, PC_MAY_SLEEP));
    fills_ = static_cast<Fill *>(pc_alloc(fill_pages * sizeof(Fill), PC_MAY_SLEEP));
    lanes_ = static_cast<Lane *>(pc_alloc(alignable(lanes * sizeof(Lane)), PC_MAY_SLEEP));
    if (!memory_ || !fills_ || !lanes_)
        return rt::Error::no_memory;
    for (u32 i = 0; i < fill_pages; i++) {
        pages_[i] = static_cast<u16>(i);
        Fill *f = ::new (&fills_[i]) Fill;
        f->owner = this;
        f->next = spare_;
        spare_ = f;
    }
    pages_left_ = fill_pages;
    for (u32 i = 0; i < lanes; i++) {
        Lane *l = ::new (&lanes_[i]) Lane;
        l->owner = this;
        l->work.init(
            queue,
            [](void *c) {
                Lane *lane = static_cast<Lane *>(c);
                lane->owner->serve(*lane);
            },
            l);
    }
    lane_count_ = lanes;
    return rt::Error::none;
}

Fill *Fills::take(u64 sector, u32 sectors) noexcept
{
    const u32 pages = pages_for(sectors);
    rt::Guard g(lock_);
    if (pages_left_ < pages)
        return nullptr;
    Fill *f = spare_; // there are as many fills as pages
    spare_ = f->next;
    pages_left_ -= pages;
    for (u32 i = 0; i < pages; i++)
        f->page[i] = pages_[pages_left_ + i];
    f->sector = sector;
    f->sectors = sectors;
    f->error = 0;
    in_flight_++;
    return f;
}

void Fills::give(Fill &f) noexcept
{
    const u32 pages = pages_for(f.sectors);
    bool last = false;
    {
        rt::Guard g(lock_);
        for (u32 i = 0; i < pages; i++)
            pages_[pages_left_++] = f.page[i];
        f.next = spare_;
        spare_ = &f;
        last = --in_flight_ == 0;
    }
    if (last)
        given_.wake();
}

bool Fills::any_in_flight() noexcept
{
    rt::Guard g(lock_);
    return in_flight_ != 0;
}

// A fill counts from take() on, which map() calls inside its epoch. So after a grace period behind
// the end of service every fill is counted here, one whose read is not sent yet included, and the
// backing device stays open until that read has ended.
void Fills::drain() noexcept
{
    given_.wait([this] {
        rt::Guard g(lock_);
        return in_flight_ == 0;
    });
    pc_epoch_wait(); // an interrupt may still be kicking a lane
    for (u32 i = 0; i < lane_count_; i++)
        lanes_[i].work.stop();
}

// ---- the read and its end -----------------------------------------------------------------

pc_rio *Fills::read(Fill &f, pc_bio *bio, pc_backing *backing, bool nowait) noexcept
{
    void *pages[fill_max_pages];
    const u32 count = pages_for(f.sectors);
    for (u32 i = 0; i < count; i++)
        pages[i] = memory_ + usize{f.page[i]} * fill_page_bytes;
    f.bio = bio;
    return pc_rio_begin(backing, f.sector * format::sector_bytes, pages,
                        f.sectors * format::sector_bytes, nowait, &Fills::read_ended, &f);
}

// Interrupt context.
void Fills::read_ended(void *fill, int error) noexcept
{
    const EpochGuard epoch; // keeps us alive until the kick has returned
    Fill &f = *static_cast<Fill *>(fill);
    Lane &l = f.owner->lanes_[pc_cpu() % f.owner->lane_count_];
    f.error = error;
    Fill *before = l.ended.read();
    do
        f.next = before;
    while (!l.ended.try_cmpxchg(before, &f));
    // Who put the first one there kicks for those that follow before the worker looks.
    if (!before)
        l.work.kick();
}

// All bios are answered before the first fill is inserted: somebody waits for them.
void Fills::serve(Lane &l) noexcept
{
    Fill *f = l.ended.xchg(nullptr);
    Fill *oldest = nullptr;
    while (f) {
        Fill *next = f->next;
        f->next = oldest;
        oldest = f;
        f = next;
    }
    for (f = oldest; f; f = f->next) {
        answer(*f);
        pc_yield();
    }
    for (f = oldest; f; f = oldest) {
        oldest = f->next;
        listener_.ended(listener_.context, *f);
        give(*f);
        pc_yield();
    }
}

void Fills::answer(Fill &f) noexcept
{
    const u32 bytes = f.sectors * format::sector_bytes;
    if (mutant(Mutant::bio_used_after_end))
        pc_bio_end(f.bio, f.error);
    for (u32 at = 0; at < bytes && !f.error; at += fill_page_bytes)
        pc_bio_copy_to(f.bio, at, page(f, at / fill_page_bytes),
                       rt::min(fill_page_bytes, bytes - at));
    pc_bio_end(f.bio, f.error);
    f.bio = nullptr;
}

} // namespace pcache::engine
