// SPDX-License-Identifier: GPL-2.0
// engine/relog.cpp - write-back's way past dirty keys whose data cannot be read. See write_back.hpp
// for when; everything here runs in a batch, after what could be read of it is durable on the
// backing device, and with Damage::tails held.
//
// A key is logged again as keys of its own for the runs of it that are lost and still current, that
// is, at which the index still points. They enter the staged list under the shard's lock, in one
// step with that look, so log order stays index order: a write that comes later is staged behind.
// They take tickets of the reserve, and are durable before dirty tail passes the old key.
//
// The room they may take in the log is bounded (relog_keys). While other keys keep coming each lost
// key is logged again about once a round: a round ends when dirty tail has come to where the head
// was when it began.
#include "dm-pcache/engine/shard_of.hpp"
#include "dm-pcache/engine/write_back.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::engine
{

bool WriteBack::anything_to_do() const noexcept
{
    const format::LogPosition head = log_.durable_head();
    if (dirty_tail_.get() == head)
        return false;
    if (!settled_.read() || !(settled_head_.get() == head))
        return true;
    return space_needed_.read() && more_than_relogged();
}

// How far the index agrees, or does not, that these sectors are at `place` and what follows.
u32 WriteBack::current_run(u64 sector, u32 sectors, Place place, bool &current) noexcept
{
    Shard &s = shards_[shard_of(sector * format::sector_bytes)];
    rt::Guard g(s.lock);
    const Run run = s.tree.lookup(sector, sectors);
    current = run.hit && run.place == place;
    return run.sectors;
}

// f(skip, sectors) -> bool for each run of the key that is lost and still current, until it says
// false.
template <class F>
void WriteBack::for_lost_runs(const format::Key &k, F &&f) noexcept
{
    const u32 sectors = k.len / format::sector_bytes;
    const Place first{k.cache_seg_id, k.cache_seg_off / format::sector_bytes};
    for (u32 at = 0; at < sectors;) {
        const Place place{first.segment, first.sector + at};
        bool current, readable;
        u32 n = current_run(k.off / format::sector_bytes + at, sectors - at, place, current);
        if (current) {
            n = damage_.alike(k.off / format::sector_bytes + at, place, n, readable);
            if (!readable && !f(at, n))
                return;
        }
        at += n;
    }
}

bool WriteBack::any_readable(const format::Key &k, bool only_current) noexcept
{
    const u32 sectors = k.len / format::sector_bytes;
    const Place first{k.cache_seg_id, k.cache_seg_off / format::sector_bytes};
    for (u32 at = 0; at < sectors;) {
        const Place place{first.segment, first.sector + at};
        bool current = true, readable;
        u32 n = sectors - at;
        if (only_current)
            n = current_run(k.off / format::sector_bytes + at, n, place, current);
        if (current) {
            n = damage_.alike(k.off / format::sector_bytes + at, place, n, readable);
            if (readable)
                return true;
        }
        at += n;
    }
    return false;
}

// Error::busy here and below: halted.
rt::Error WriteBack::look_at_batch(format::LogPosition end, Findings &f) noexcept
{
    for (format::LogPosition at = metadata_.dirty_tail(); !(at == end);) {
        if (halted())
            return rt::Error::busy;
        media::Record r;
        if (reader_.read(device_, at, r) != media::ReadOutcome::good) {
            log_.page_lost(at);
            return rt::Error::no_device;
        }
        if (at == metadata_.dirty_tail())
            f.first_number = r.flags.number();
        bool useful = false;
        for (u32 i = 0; i < r.keys(); i++) {
            const format::Key k = reader_.key(i);
            if (k.flags & format::key_clean)
                continue;
            useful = useful || any_readable(k, false);
            for_lost_runs(k, [&](u32, u32) {
                f.lost_behind++;
                return true;
            });
        }
        at = r.behind();
        if (useful) {
            f.useful = true;
            f.useful_end = at;
            f.lost += f.lost_behind;
            f.lost_behind = 0;
        }
        pc_yield();
    }
    return rt::Error::none;
}

// Whether readable dirty data stands between `from` and the head.
rt::Error WriteBack::look_behind(format::LogPosition from, format::LogPosition head,
                                 bool &goes_on) noexcept
{
    goes_on = false;
    while (!(from == head) && !goes_on) {
        if (halted())
            return rt::Error::busy;
        media::Record r;
        if (reader_.read(device_, from, r) != media::ReadOutcome::good) {
            log_.page_lost(from);
            return rt::Error::no_device;
        }
        for (u32 i = 0; i < r.keys() && !goes_on; i++) {
            const format::Key k = reader_.key(i);
            goes_on = !(k.flags & format::key_clean) && any_readable(k, true);
        }
        from = r.behind();
        pc_yield();
    }
    return rt::Error::none;
}

// Stages the beginning of a piece if it is current at this moment, in one step with that look.
// `sectors`: how far that goes; a write may have come over the rest since somebody looked. False:
// it is not marked as lost, and cannot be for want of memory. GC would take it for clean.
bool WriteBack::relog_piece(const format::Key &k, u32 skip, u32 &sectors, Ticket &t) noexcept
{
    const u32 shard = shard_of(k.off);
    Shard &s = shards_[shard];
    rt::Queue<Ticket> back;
    bool marked = true;
    {
        rt::Guard g(s.lock);
        const u64 sector = k.off / format::sector_bytes + skip;
        const Run run = s.tree.lookup(sector, sectors);
        const Place here{k.cache_seg_id, k.cache_seg_off / format::sector_bytes + skip};
        const bool current = run.hit && run.place == here;
        if (!mutant(Mutant::relog_stops_at_a_write))
            sectors = run.sectors;
        marked = !current || run.flags == extent_flag::lost;
        if (current && marked) {
            t.sector = sector;
            t.sectors = sectors;
            t.place = here;
            t.generation = k.seg_gen;
            t.data_crc = k.data_crc;
            t.flags = mutant(Mutant::relogged_as_clean) ? format::key_clean : k.flags;
            segments_.hold({here.segment});
            s.staged.push_back(t);
            s.staged_count++;
            (void)log_.mark_staged(shard);
        } else {
            back.push_back(t);
        }
    }
    tickets_.give_reserve(back);
    return marked;
}

// The same for a run, which may be several pieces of the index: there is room in the log for one,
// and more is asked for. Sleeps.
bool WriteBack::relog_run(const format::Key &k, u32 skip, u32 sectors) noexcept
{
    const u64 sector = k.off / format::sector_bytes;
    const Place first{k.cache_seg_id, k.cache_seg_off / format::sector_bytes};
    (void)damage_.mark(sector + skip, sectors, {first.segment, first.sector + skip},
                       extent_flag::lost, PC_NOWAIT);
    bool another = false;
    for (u32 at = skip; at < skip + sectors;) {
        bool current;
        u32 n = current_run(sector + at, skip + sectors - at, {first.segment, first.sector + at},
                            current);
        if (current) {
            if (another && !tickets_.room_for_reserve(1))
                return false;
            Ticket *t = tickets_.take_reserve();
            if (!t) { // they come back by a commit
                log_.commit_staged_so_far();
                if (log_.closed())
                    return false;
                continue;
            }
            if (!relog_piece(k, at, n, *t))
                return false;
            another = true;
            relogged_keys_++;
        }
        at += n;
    }
    return true;
}

// Logs again what is lost between dirty tail and `end`, durably. `passed`: up to where that went
// well, at a record; `bytes`: of the dirty keys in front of it.
rt::Error WriteBack::relog(format::LogPosition end, format::LogPosition &passed,
                           u64 &bytes) noexcept
{
    bool well = true;
    passed = metadata_.dirty_tail();
    bytes = 0;
    while (!(passed == end) && well) {
        media::Record r;
        if (reader_.read(device_, passed, r) != media::ReadOutcome::good) {
            log_.page_lost(passed);
            return rt::Error::no_device;
        }
        u64 dirty = 0;
        for (u32 i = 0; i < r.keys() && well; i++) {
            const format::Key k = reader_.key(i);
            if (k.flags & format::key_clean)
                continue;
            dirty += k.len;
            for_lost_runs(k, [&](u32 skip, u32 sectors) {
                well = relog_run(k, skip, sectors);
                return well;
            });
        }
        if (well) {
            passed = r.behind();
            bytes += dirty;
            relogged_number_.set(r.flags.number());
        }
        pc_yield();
    }
    log_.commit_staged_so_far();
    return rt::Error::none;
}

// Is there anything else behind what was passed than lost keys that were logged again? They share
// records with what else was staged then, so the number of the newest record would not tell (found
// by the simulator, seed 30355: fills held the segments that writes waited for, for ever).
bool WriteBack::more_than_relogged() const noexcept
{
    const u64 passed = relogged_number_.read(), newest = log_.newest_ordinary();
    return !passed || (newest && format::after(newest, passed));
}

// Whether lost keys go on for the sake of what stands behind them. A force goes up to the record
// that was the newest when it began, and another begins only when something else was logged.
bool WriteBack::forced(u64 first_number) noexcept
{
    const u64 newest = log_.newest_number();
    if (space_needed_.xchg(0) && more_than_relogged())
        force_to_ = newest;
    return force_to_ && !(first_number && format::after(first_number, force_to_));
}

rt::Error WriteBack::pass(const Findings &f, bool &moved) noexcept
{
    if (!round_number_ || (f.first_number && format::after(f.first_number, round_number_))) {
        round_number_ = log_.newest_number();
        relogged_keys_ = 0;
    }
    if (relogged_keys_ + f.lost > relog_keys)
        return rt::Error::no_space;
    if (f.lost && !tickets_.room_for_reserve(f.lost))
        return rt::Error::none; // it comes back with a spare segment
    format::LogPosition passed;
    u64 bytes = 0;
    RT_TRY(relog(f.useful_end, passed, bytes));
    if (log_.closed() || passed == metadata_.dirty_tail())
        return rt::Error::none;
    move_dirty_tail(passed, bytes);
    moved = true;
    return rt::Error::none;
}

// Everything readable of the batch is on the backing device. How far may dirty tail go?
rt::Error WriteBack::pass_lost(format::LogPosition end, bool &moved) noexcept
{
    Findings f;
    bool goes_on = false;
    const format::LogPosition head = log_.durable_head();
    f.useful_end = metadata_.dirty_tail();
    RT_TRY(look_at_batch(end, f));
    RT_TRY(look_behind(end, head, goes_on));
    if (goes_on || !f.lost_behind || forced(f.first_number)) {
        f.useful_end = end;
        f.lost += f.lost_behind;
        f.useful = true;
    }
    if (f.useful)
        RT_TRY(pass(f, moved));
    if (!goes_on && !(f.useful_end == end)) {
        settled_head_.set(head);
        settled_.set(1);
    }
    return rt::Error::none;
}

} // namespace pcache::engine
