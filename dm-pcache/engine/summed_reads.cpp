// SPDX-License-Identifier: GPL-2.0
// engine/summed_reads.cpp - see summed_reads.hpp.
#include "dm-pcache/engine/summed_reads.hpp"
#include "dm-pcache/engine/memory.hpp"
#include "dm-pcache/engine/shard.hpp"
#include "dm-pcache/engine/shard_of.hpp"

namespace pcache::engine
{

namespace
{
constinit LockClass lane_class{"pcache summed reads"};
constexpr int end_io_error = rt::to_errno(rt::Error::io);
// What a read of the backing device is rounded to: at least its logical block.
constexpr u32 backing_unit = 4096;
// A place in the read may be written anew each time it is looked at, but hardly so often.
constexpr u32 attempts_per_piece = 64;
} // namespace

struct SummedReads::Lane {
    Lane(SummedReads &o) noexcept : owner(o), lock(lane_class), copy(o.device_, o.shards_) {}
    SummedReads &owner;
    SpinLock lock;
    rt::Queue<Request> queue;
    Work work;
    KeyCopy copy;
    u8 buffer[buffer_bytes];
};

SummedReads::~SummedReads()
{
    for (u32 i = 0; i < lane_count_; i++)
        lanes_[i].~Lane();
    pc_free(lanes_);
}

rt::Error SummedReads::allocate(pc_queue *queue, Listener listener) noexcept
{
    listener_ = listener;
    const u32 lanes = rt::min(pc_cpus(), summing_lanes);
    lanes_ = static_cast<Lane *>(pc_alloc(lanes * sizeof(Lane), PC_MAY_SLEEP));
    if (!lanes_)
        return rt::Error::no_memory;
    for (; lane_count_ < lanes; lane_count_++) {
        Lane *l = ::new (&lanes_[lane_count_]) Lane(*this);
        l->work.init(
            queue,
            [](void *c) {
                Lane *lane = static_cast<Lane *>(c);
                lane->owner.serve_all(*lane);
            },
            l);
    }
    return rt::Error::none;
}

void SummedReads::read(Request &r) noexcept
{
    Lane &l = lanes_[turn_.fetch_add(1) % lane_count_];
    queued_.fetch_add(1);
    {
        rt::Guard g(l.lock);
        l.queue.push_back(r);
    }
    l.work.kick();
}

void SummedReads::drain() noexcept
{
    for (u32 i = 0; i < lane_count_; i++)
        lanes_[i].work.kick();
    ended_.wait([this] { return queued_.load_acquire() == 0; });
    for (u32 i = 0; i < lane_count_; i++)
        lanes_[i].work.stop();
}

void SummedReads::serve_all(Lane &l) noexcept
{
    for (;;) {
        Request *r;
        {
            rt::Guard g(l.lock);
            r = l.queue.pop_front();
        }
        if (!r)
            return;
        if (const int error = serve(l, *r); error != taken_over)
            pc_bio_end(r->bio, error); // r is gone
        queued_.fetch_add(~0u);
        ended_.wake();
        pc_yield();
    }
}

int SummedReads::serve(Lane &l, Request &r) noexcept
{
    const u64 first = r.reservation.next_sector;
    const u32 sectors = r.reservation.sectors_left;
    Shard &s = shards_[shard_of(first * format::sector_bytes)];
    u32 attempts = 0;
    l.copy.begin(r);
    for (u32 at = 0, last = 0; (at = l.copy.next()) < sectors;) {
        attempts = at == last ? attempts + 1 : 0;
        last = at;
        Run run;
        {
            rt::Guard g(s.lock);
            run = s.tree.lookup(first + at, sectors - at);
        }
        if (!run.hit || run.flags == extent_flag::ghost) {
            if (!ok(copy_from_backing(backing_, r.bio, at * format::sector_bytes, first + at,
                                      run.sectors, l.buffer, buffer_bytes)))
                return end_io_error;
            l.copy.set_served(at, run.sectors);
            continue;
        }
        if (run.flags != extent_flag::live)
            return end_io_error; // lost
        const rt::Error e = l.copy.copy(at, run.place);
        if (l.copy.met_unreadable())
            listener_.unreadable(listener_.context, {run.place.segment});
        if (ok(e) || (e == rt::Error::again && attempts < attempts_per_piece))
            continue;
        return listener_.bad(listener_.context, r) ? taken_over : end_io_error;
    }
    return 0;
}

rt::Error copy_from_backing(pc_backing *backing, pc_bio *bio, u32 bio_offset, u64 sector,
                            u32 sectors, u8 *buffer, u32 buffer_bytes) noexcept
{
    const u64 end = (sector + sectors) * format::sector_bytes;
    for (u64 offset = sector * format::sector_bytes; offset < end;) {
        const u64 from = rt::round_down<u64>(offset, backing_unit);
        const u64 to = rt::min(rt::min(from + buffer_bytes, pc_backing_bytes(backing)),
                               rt::round_up<u64>(end, backing_unit));
        if (pc_backing_read(backing, from, buffer, static_cast<u32>(to - from)) != 0)
            return rt::Error::io;
        const u32 bytes = static_cast<u32>(rt::min(to, end) - offset);
        pc_bio_copy_to(bio, bio_offset, buffer + (offset - from), bytes);
        bio_offset += bytes;
        offset += bytes;
    }
    return rt::Error::none;
}

} // namespace pcache::engine
