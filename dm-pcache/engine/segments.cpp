// SPDX-License-Identifier: GPL-2.0
// engine/segments.cpp - see segments.hpp.
#include "dm-pcache/engine/segments.hpp"
#include "cxxrt/guard.hpp"

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
    entries_[s.value].generation = generation;
}

void Segments::recover_log(SegmentId s) noexcept
{
    entries_[s.value].state = SegmentState::log;
}

void Segments::finish_recovery() noexcept
{
    for (u32 s = 0; s < count_; s++) {
        Entry &e = entries_[s];
        if (e.state == SegmentState::log)
            continue;
        if (e.live.read() > 0)
            e.state = SegmentState::data;
        else if (e.generation == ~u64{0})
            e.state = SegmentState::retired;
        else
            push(free_list_, s);
    }
    free_.set(free_list_.count);
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

bool Segments::take_for_head(SegmentId &out) noexcept
{
    rt::Guard g(lock_);
    if (free_list_.count <= reserved() || !pop(free_list_, out.value))
        return false;
    entries_[out.value].state = SegmentState::head;
    free_.set(free_list_.count);
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
    if (!pop(free_list_, out.value))
        return false;
    entries_[out.value].state = SegmentState::spare;
    free_.set(free_list_.count);
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

bool Segments::any_emptied() noexcept
{
    rt::Guard g(lock_);
    return emptied_.count != 0;
}

bool Segments::next_emptied(SegmentId &out) noexcept
{
    rt::Guard g(lock_);
    return pop(emptied_, out.value);
}

void Segments::release(SegmentId s) noexcept
{
    rt::Guard g(lock_);
    entries_[s.value].state = SegmentState::free;
    push(free_list_, s.value);
    free_.set(free_list_.count);
}

void Segments::retire(SegmentId s) noexcept
{
    rt::Guard g(lock_);
    entries_[s.value].state = SegmentState::retired;
}

SegmentState Segments::state(SegmentId s) noexcept
{
    rt::Guard g(lock_);
    return entries_[s.value].state;
}

} // namespace pcache::engine
