// SPDX-License-Identifier: GPL-2.0
// engine/damage.cpp - see damage.hpp.
#include "dm-pcache/engine/damage.hpp"
#include "dm-pcache/engine/shard_of.hpp"
#include "dm-pcache/media/two_slot.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::engine
{

namespace
{
constinit LockClass damage_class{"pcache damage"};
constinit LockClass tails_class{"pcache tails"};
constexpr u32 buffer_bytes = 64u << 10;
// A piece may be written anew each time it is looked at, but hardly so often.
constexpr u32 attempts_per_piece = 64;
constexpr int end_io_error = rt::to_errno(rt::Error::io);
} // namespace

Damage::Damage(const media::Device &device, media::Metadata &metadata, Segments &segments,
               Shard *shards, NodeBudget &budget, Log &log, pc_backing *backing) noexcept
    : tails(tails_class), device_(device), metadata_(metadata), segments_(segments),
      shards_(shards), budget_(budget), log_(log), backing_(backing), lock_(damage_class),
      copy_(device, shards)
{
}

Damage::~Damage()
{
    pc_free(buffer_);
}

rt::Error Damage::allocate(pc_queue *queue, pc_host *host, Listener listener) noexcept
{
    host_ = host;
    listener_ = listener;
    work_.init(
        queue, [](void *c) { static_cast<Damage *>(c)->worker(); }, this);
    buffer_ = static_cast<u8 *>(pc_alloc(buffer_bytes, PC_MAY_SLEEP));
    return buffer_ ? reader_.allocate() : rt::Error::no_memory;
}

// ---- what can be read, and what the index says of it -------------------------------------------

// By the key that covers `place`; what no key covers any more is not readable (checksums.hpp, C2).
u32 Damage::alike_summed(Shard &s, Place place, u32 sectors, bool &readable) const noexcept
{
    Checksum c;
    u32 n = 0;
    {
        rt::Guard g(s.lock);
        n = s.sums.run(place, sectors, c);
    }
    readable = c.sectors && can_be_read(device_, c);
    if (c.sectors && !readable)
        segment_is_bad({place.segment});
    return n;
}

u32 Damage::alike(u64 sector, Place place, u32 sectors, bool &readable) const noexcept
{
    Shard &s = shards_[shard_of(sector * format::sector_bytes)];
    if (s.sums.on())
        return alike_summed(s, place, sectors, readable);
    return alike_lines(place, sectors, readable);
}

u32 Damage::alike_lines(Place place, u32 sectors, bool &readable) const noexcept
{
    const u64 data = device_.data_offset({place.segment});
    const u8 *at = device_.data({place.segment});
    const auto good = [&](u32 from, u32 n) {
        const u64 offset = u64{place.sector + from} * format::sector_bytes;
        const u32 bytes = n * format::sector_bytes;
        return !device_.known_bad(data + offset, bytes) &&
               ok(media::persist::probe(at + offset, bytes));
    };
    readable = good(0, sectors);
    if (readable)
        return sectors;
    segment_is_bad({place.segment});
    // By blocks of the backing device: it takes no part of one.
    const u32 block = mutant(Mutant::write_back_of_part_blocks)
                          ? 1
                          : rt::max(pc_backing_block(backing_) / format::sector_bytes, 1u);
    const auto block_good = [&](u32 from) { return good(from, rt::min(block, sectors - from)); };
    readable = block_good(0);
    u32 n = block;
    while (n < sectors && block_good(n) == readable)
        n += block;
    return rt::min(n, sectors);
}

// One run of the tree at a time; stops where nodes are lacking and cannot be had.
u32 Damage::mark_some(u64 sector, u32 sectors, Place place, u32 flag, pc_how how) noexcept
{
    Shard &s = shards_[shard_of(sector * format::sector_bytes)];
    u32 marked = 0;
    for (u32 at = 0; at < sectors;) {
        {
            rt::Guard g(s.lock);
            const Run run = s.tree.lookup(sector + at, sectors - at);
            const Place here{place.segment, place.sector + at};
            if (!run.hit || run.flags != extent_flag::live || !(run.place == here)) {
                at += run.sectors;
                continue;
            }
            if (s.tree.can_operate(1)) {
                s.tree.insert({sector + at, run.sectors, here, flag});
                at += run.sectors;
                marked += run.sectors;
                continue;
            }
        }
        if (how == PC_MAY_SLEEP)
            s.provide_for_eviction(budget_);
        else if (!s.provide(1, budget_, PC_NOWAIT))
            break;
    }
    return marked;
}

void Damage::segment_is_bad(SegmentId s) const noexcept
{
    if (segments_.mark_bad(s))
        pc_log(host_, PC_WARN, "segment %u cannot be read throughout: it gets no new data",
               s.value);
}

u32 Damage::mark(u64 sector, u32 sectors, Place place, u32 flag, pc_how how) noexcept
{
    segment_is_bad({place.segment});
    const u32 marked = mark_some(sector, sectors, place, flag, how);
    if (marked) {
        (flag == extent_flag::lost ? lost_ : healed_).fetch_add(marked);
        tell(flag, sector, sectors);
    }
    return marked;
}

bool Damage::log_can_go_on() const noexcept
{
    const format::LogPosition head = log_.durable_head();
    return media::page_readable(device_, device_.data_offset(head.segment) +
                                             rt::round_down(head.offset, format::page_bytes));
}

// At most one line and one event in a while: the statistics count all of it.
void Damage::tell(u32 flag, u64 sector, u32 sectors) noexcept
{
    const u64 now = pc_now_ns() | 1;
    u64 told = told_at_.read();
    if ((told && now - told < damage_report_interval) || !told_at_.try_cmpxchg(told, now))
        return;
    if (flag == extent_flag::lost)
        pc_log(host_, PC_ERR,
               "dirty data cannot be read: sectors %llu to %llu are lost, reads of them fail until "
               "they are written anew (%llu sectors since the activation)",
               sector, sector + sectors - 1, lost_.read());
    else
        pc_log(host_, PC_WARN,
               "cached data cannot be read: sectors %llu to %llu come from the backing device "
               "(%llu sectors since the activation)",
               sector, sector + sectors - 1, healed_.read());
    pc_raise_event(host_);
}

// ---- reads --------------------------------------------------------------------------------

void Damage::read_failed(Request &r) noexcept
{
    queued_.fetch_add(1);
    {
        rt::Guard g(lock_);
        queue_.push_back(r);
    }
    work_.kick();
}

void Damage::stop() noexcept
{
    work_.kick();
    ended_.wait([this] { return queued_.load_acquire() == 0; });
    work_.stop();
}

void Damage::worker() noexcept
{
    for (;;) {
        Request *r;
        {
            rt::Guard g(lock_);
            r = queue_.pop_front();
        }
        if (!r)
            return;
        const int error = serve(*r);
        pc_bio_end(r->bio, error); // r is gone
        queued_.fetch_add(~0u);
        ended_.wake();
        pc_yield();
    }
}

// Piece by piece, each looked up anew: meanwhile everything may have changed. With data_crc what
// else the read wants of a piece's key is served with it.
int Damage::serve(Request &r) noexcept
{
    const u64 first = r.reservation.next_sector;
    const u32 sectors = r.reservation.sectors_left;
    u32 attempts = 0;
    copy_.begin(r);
    for (u32 at = 0, last = 0; (at = copy_.next()) < sectors;) {
        attempts = at == last ? attempts + 1 : 0;
        last = at;
        const Piece p = look_up(first + at, sectors - at);
        rt::Error e = rt::Error::io; // lost
        if (!p.hit || p.flags == extent_flag::ghost) {
            e = copy_from_backing(backing_, r.bio, at * format::sector_bytes, p.sector, p.sectors,
                                  buffer_, buffer_bytes);
            copy_.set_served(at, p.sectors);
        } else if (p.flags == extent_flag::live) {
            e = copy_live(p, r, at);
        }
        if (!ok(e) && !(e == rt::Error::again && attempts < attempts_per_piece))
            return end_io_error;
        pc_yield();
    }
    return 0;
}

Damage::Piece Damage::look_up(u64 sector, u32 sectors) noexcept
{
    Shard &s = shards_[shard_of(sector * format::sector_bytes)];
    rt::Guard g(s.lock);
    const Run run = s.tree.lookup(sector, sectors);
    return {sector,    run.sectors, run.hit,
            run.flags, run.place,   run.hit ? segments_.generation({run.place.segment}) : 0};
}

// `at`: sector of the read. Error::again: it was bad, and is judged; or it has moved.
rt::Error Damage::copy_live(const Piece &p, Request &r, u32 at) noexcept
{
    if (shards_[0].sums.on()) {
        const rt::Error e = copy_.copy(at, p.place);
        if (copy_.met_unreadable())
            segment_is_bad({p.place.segment});
        if (e != rt::Error::io)
            return e;
    } else {
        const EpochGuard epoch; // the segment is not handed out again meanwhile
        const Piece now = look_up(p.sector, p.sectors);
        if (!now.hit || now.flags != p.flags || now.sectors != p.sectors || !(now.place == p.place))
            return rt::Error::again;
        if (ok(load_hit(device_, r.bio, at * format::sector_bytes, p.place, p.sectors))) {
            copy_.set_served(at, p.sectors);
            return rt::Error::none;
        }
        // Now: what is judged may have been overwritten by then.
        if (!mutant(Mutant::copy_failed_unnoted))
            segment_is_bad({p.place.segment});
    }
    const rt::Error e = judge(p);
    listener_.bad_found(listener_.context);
    return ok(e) ? rt::Error::again : e;
}

// ---- clean or dirty ------------------------------------------------------------------------

// Marks what of a live piece cannot be read, if it is still where it was. Sleeps.
rt::Error Damage::judge(const Piece &p) noexcept
{
    if (!mutant(Mutant::staged_taken_for_clean))
        log_.commit_staged_so_far();
    rt::Guard g(tails);
    const Piece now = look_up(p.sector, p.sectors);
    // A place is written once in a generation of its segment: the same key, then, as before the
    // commit.
    if (!now.hit || !(now.place == p.place) || now.generation != p.generation)
        return rt::Error::none;
    const u32 sectors = rt::min(now.sectors, p.sectors);
    for (bool flushed = landed.is_flushed();; flushed = true) {
        RT_TRY(find_dirty(p, flushed ? landed.end() : metadata_.dirty_tail()));
        if (mark_unreadable(p, sectors, flushed))
            return rt::Error::none;
    }
}

// By what find_dirty() found. False: what was dirty then has been flushed in this moment.
bool Damage::mark_unreadable(const Piece &p, u32 sectors, bool flushed) noexcept
{
    for (u32 at = 0; at < sectors;) {
        const Place place{p.place.segment, p.place.sector + at};
        bool readable;
        const u32 end = at + alike(p.sector + at, place, sectors - at, readable);
        while (at < end) {
            const auto dirty = [&](u32 i) { return (dirty_[i / 64] >> (i % 64) & 1) != 0; };
            const u32 begin = at;
            while (at < end && dirty(at) == dirty(begin))
                at++;
            if (readable)
                continue;
            const bool lost = dirty(begin) && !mutant(Mutant::lost_taken_for_clean);
            if (lost && !flushed && !landed.declare_lost())
                return false;
            (void)mark(p.sector + begin, at - begin, {place.segment, p.place.sector + begin},
                       lost ? extent_flag::lost : extent_flag::ghost, PC_MAY_SLEEP);
        }
    }
    return true;
}

// Which sectors of the piece a key of the log covers that is dirty and stands at `from` or behind
// it. Error::io: the log cannot be read, or
// nothing is stored any more; then nobody knows.
rt::Error Damage::find_dirty(const Piece &p, format::LogPosition from) noexcept
{
    __builtin_memset(dirty_, 0, sizeof(dirty_));
    const format::LogPosition head = log_.durable_head();
    for (format::LogPosition at = from; !(at == head);) {
        media::Record r;
        if (reader_.read(device_, at, r) != media::ReadOutcome::good) {
            log_.page_lost(at);
            listener_.log_unreadable(listener_.context);
            return rt::Error::io;
        }
        for (u32 i = 0; i < r.keys(); i++)
            take_dirty(p, reader_.key(i));
        at = r.behind();
        pc_yield();
    }
    return log_.closed() ? rt::Error::io : rt::Error::none;
}

void Damage::take_dirty(const Piece &p, const format::Key &k) noexcept
{
    const u64 sector = k.off / format::sector_bytes;
    const u32 sectors = k.len / format::sector_bytes;
    const u64 first = rt::max(sector, p.sector);
    const u64 end = rt::min(sector + sectors, p.sector + p.sectors);
    if (first >= end || k.flags & format::key_clean || k.cache_seg_id != p.place.segment ||
        k.seg_gen != p.generation)
        return;
    const u64 key_place = k.cache_seg_off / format::sector_bytes + (first - sector);
    if (key_place != p.place.sector + (first - p.sector))
        return;
    for (u64 s = first - p.sector; s < end - p.sector; s++)
        dirty_[s / 64] |= u64{1} << (s % 64);
}

} // namespace pcache::engine
