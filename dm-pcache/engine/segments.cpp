// SPDX-License-Identifier: GPL-2.0
// engine/segments.cpp - see segments.hpp.
#include "dm-pcache/engine/segments.hpp"
#include "cxxrt/guard.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::engine
{

namespace
{
constinit LockClass segments_class{"pcache segments"};
} // namespace

Segments::Segments() noexcept : lock_(segments_class) {}

Segments::~Segments()
{
    pc_free(entries_);
}

rt::Error Segments::allocate(u32 count) noexcept
{
    // Zeroed memory is a valid Entry: generation 0, nothing live, free.
    entries_ = static_cast<Entry *>(pc_alloc(usize{count} * sizeof(Entry), PC_MAY_SLEEP));
    if (!entries_)
        return rt::Error::no_memory;
    count_ = count;
    return rt::Error::none;
}

void Segments::set_generation(SegmentId s, u64 generation) noexcept
{
    entries_[s.value].generation.set(generation);
}

void Segments::recover_log(SegmentId s) noexcept
{
    entries_[s.value].state = SegmentState::log;
}

void Segments::finish_recovery() noexcept
{
    for (u32 s = 0; s < count_; s++) {
        Entry &e = entries_[s];
        bad_.add(e.bad.read());
        out_.add(e.bad.read() || e.generation.read() == ~u64{0});
        if (e.state == SegmentState::log)
            continue;
        e.linked = false;
        if (e.live.read() > 0)
            e.state = SegmentState::data;
        else if (e.generation.read() == ~u64{0} || e.bad.read())
            e.state = SegmentState::retired;
        else
            push(free_list_, s);
    }
    count_free();
}

void Segments::push(List &l, u32 s) noexcept
{
    if (l.count++)
        entries_[l.tail].next = s;
    else
        l.head = s;
    l.tail = s;
}

bool Segments::pop(List &l, u32 &s) noexcept
{
    if (!l.count)
        return false;
    s = l.head;
    l.head = entries_[s].next;
    l.count--;
    return true;
}

// The next free segment that is not bad; the bad ones in front of it are retired.
bool Segments::pop_free(u32 &s) noexcept
{
    while (pop(free_list_, s)) {
        if (!entries_[s].bad.read() || mutant(Mutant::bad_segment_reused))
            return true;
        entries_[s].state = SegmentState::retired;
        bad_free_--;
    }
    return false;
}

bool Segments::mark_bad(SegmentId s) noexcept
{
    rt::Guard g(lock_);
    Entry &e = entries_[s.value];
    if (e.bad.read())
        return false;
    e.bad.set(1);
    bad_.add(1);
    out_.add(e.state != SegmentState::retired && e.generation.read() != ~u64{0});
    if (e.state == SegmentState::free) {
        bad_free_++;
        count_free();
    }
    return true;
}

bool Segments::take_for_head(SegmentId &out) noexcept
{
    rt::Guard g(lock_);
    const u32 reserve = mutant(Mutant::reserve_given_away) ? 0 : reserved();
    if (free_list_.count - bad_free_ <= reserve || !pop_free(out.value))
        return false;
    entries_[out.value].state = SegmentState::head;
    count_free();
    return true;
}

bool Segments::leave_head(SegmentId s, u32 keys) noexcept
{
    rt::Guard g(lock_);
    Entry &e = entries_[s.value];
    e.state = SegmentState::data;
    if (e.live.fetch_add(static_cast<s32>(keys)) + static_cast<s32>(keys) != 0)
        return false;
    e.state = SegmentState::emptied;
    push(emptied_, s.value);
    return true;
}

bool Segments::take_for_log(SegmentId &out) noexcept
{
    rt::Guard g(lock_);
    if (!pop_free(out.value))
        return false;
    entries_[out.value].state = SegmentState::spare;
    count_free();
    return true;
}

void Segments::set_spare(SegmentId s) noexcept
{
    rt::Guard g(lock_);
    spare_ = s.value;
    has_spare_.set(1);
}

bool Segments::use_spare(SegmentId &out) noexcept
{
    rt::Guard g(lock_);
    if (!has_spare())
        return false;
    out.value = spare_;
    entries_[spare_].state = SegmentState::log;
    has_spare_.set(0);
    return true;
}

bool Segments::drop_key(SegmentId s) noexcept
{
    Entry &e = entries_[s.value];
    if (e.live.fetch_add(-1) != 1)
        return false;
    rt::Guard g(lock_);
    if (e.state != SegmentState::data || e.live.read() != 0)
        return false;
    e.state = SegmentState::emptied;
    push(emptied_, s.value);
    return true;
}

void Segments::leave_log(SegmentId s) noexcept
{
    rt::Guard g(lock_);
    push(emptied_, s.value);
}

u32 Segments::emptied_count() noexcept
{
    rt::Guard g(lock_);
    return emptied_.count;
}

bool Segments::next_emptied(SegmentId &out, bool &log) noexcept
{
    rt::Guard g(lock_);
    if (!pop(emptied_, out.value))
        return false;
    log = entries_[out.value].state == SegmentState::log;
    return true;
}

void Segments::release(SegmentId s) noexcept
{
    rt::Guard g(lock_);
    Entry &e = entries_[s.value];
    e.linked = false;
    if (e.bad.read() && !mutant(Mutant::bad_segment_reused)) {
        e.state = SegmentState::retired;
        return;
    }
    e.state = SegmentState::free;
    push(free_list_, s.value);
    count_free();
}

void Segments::retire(SegmentId s) noexcept
{
    rt::Guard g(lock_);
    Entry &e = entries_[s.value];
    e.state = SegmentState::retired;
    out_.add(!e.bad.read());
}

void Segments::set_log_next(SegmentId s, SegmentId next) noexcept
{
    rt::Guard g(lock_);
    entries_[s.value].next = next.value;
    entries_[s.value].linked = true;
}

bool Segments::log_next(SegmentId s, SegmentId &next) noexcept
{
    rt::Guard g(lock_);
    next.value = entries_[s.value].next;
    return entries_[s.value].linked;
}

SegmentState Segments::state(SegmentId s) noexcept
{
    rt::Guard g(lock_);
    return entries_[s.value].state;
}

} // namespace pcache::engine
