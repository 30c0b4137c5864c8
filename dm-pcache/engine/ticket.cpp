// SPDX-License-Identifier: GPL-2.0
// engine/ticket.cpp - see ticket.hpp.
#include "dm-pcache/engine/ticket.hpp"
#include "cxxrt/guard.hpp"
#include "dm-pcache/mutants.hpp"

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
    memory_ = static_cast<Ticket *>(
        pc_alloc(usize{count + reserve_tickets} * sizeof(Ticket), PC_MAY_SLEEP));
    if (!memory_)
        return rt::Error::no_memory;
    for (u32 i = 0; i < count; i++)
        pool_.push_back(*::new (&memory_[i]) Ticket);
    for (u32 i = count; i < count + reserve_tickets; i++) {
        ::new (&memory_[i]) Ticket;
        memory_[i].reserve = true;
        reserve_.push_back(memory_[i]);
    }
    total_ = count;
    free_.set(count);
    return rt::Error::none;
}

u32 Tickets::take(u32 count, rt::Queue<Ticket> &to) noexcept
{
    rt::Guard g(lock_);
    if (!log_has_room() && !mutant(Mutant::log_room_not_asked))
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

Ticket *Tickets::take_reserve() noexcept
{
    rt::Guard g(lock_);
    return reserve_.pop_front();
}

void Tickets::give_reserve(rt::Queue<Ticket> &from) noexcept
{
    rt::Guard g(lock_);
    reserve_.splice_back(from);
}

bool Tickets::room_for_reserve(u32 keys) const noexcept
{
    const u64 spare = segments_.has_spare() ? format::data_bytes : 0;
    const u64 out = total_ - rt::min(free_count(), total_);
    return log_rest_.read() + spare >= (out + keys) * log_bytes_per_ticket + slack_;
}

} // namespace pcache::engine
