// SPDX-License-Identifier: GPL-2.0
// engine/ticket.cpp - see ticket.hpp.
#include "dm-pcache/engine/ticket.hpp"
#include "cxxrt/guard.hpp"

namespace pcache::engine
{

namespace
{
constinit LockClass tickets_class{"pcache tickets"};
} // namespace

Tickets::Tickets(const Segments &segments) noexcept : segments_(segments), lock_(tickets_class) {}

Tickets::~Tickets()
{
    pc_free(memory_);
}

rt::Error Tickets::allocate(u32 count) noexcept
{
    memory_ = static_cast<Ticket *>(pc_alloc(usize{count} * sizeof(Ticket), PC_MAY_SLEEP));
    if (!memory_)
        return rt::Error::no_memory;
    for (u32 i = 0; i < count; i++)
        pool_.push_back(*::new (&memory_[i]) Ticket);
    total_ = count;
    free_.set(count);
    return rt::Error::none;
}

u32 Tickets::take(u32 count, rt::Queue<Ticket> &to) noexcept
{
    rt::Guard g(lock_);
    if (!log_has_room())
        return 0;
    u32 taken = 0;
    for (; taken < count; taken++) {
        Ticket *t = pool_.pop_front();
        if (!t)
            break;
        to.push_back(*t);
    }
    free_.set(free_.read() - taken);
    return taken;
}

void Tickets::give(rt::Queue<Ticket> &from, u32 count) noexcept
{
    rt::Guard g(lock_);
    pool_.splice_back(from);
    free_.set(free_.read() + count);
}

} // namespace pcache::engine
