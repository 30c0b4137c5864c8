// SPDX-License-Identifier: GPL-2.0
// engine/sleep.cpp - the machine is being suspended: the workers come to an end, and nothing of
// theirs is sent to either device before the machine is awake again.
//
// It is no suspend of the device: nothing is drained, and map() goes on. Requests that come all the
// same (of kernel threads that are not frozen) are served like others; what must wait for a worker
// waits until wake_up(). Only write-back is halted: all other works end by themselves, and those
// that wait for a commit get it, since no work is held back while another one is running.
//
// Locking: parts_lock_ keeps accept_loss, which makes the parts anew, away.
#include "dm-pcache/engine/parts.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::engine
{

// Is there anything to put to sleep? parts_lock_ is held.
bool Cache::has_workers() const noexcept
{
    return state() != State::inactive && !read_only_.rebuilding && parts_;
}

bool Cache::requests_wait() noexcept
{
    rt::Guard g(parts_lock_);
    return has_workers() &&
           (anybody_waiting() || parts_->fills.any_in_flight() || parts_->log.anybody_waiting());
}

void Cache::fall_asleep() noexcept
{
    rt::Guard g(parts_lock_);
    to_sleep_ = true;
    put_to_sleep();
}

// parts_lock_ is held.
void Cache::put_to_sleep() noexcept
{
    if (!has_workers())
        return;
    if (!mutant(Mutant::batch_not_halted_for_sleep))
        parts_->write_back.fall_asleep();
    if (!mutant(Mutant::workers_do_not_sleep))
        pc_queue_freeze(queue_);
}

bool Cache::asleep() noexcept
{
    rt::Guard g(parts_lock_);
    // Parts that accept_loss has made since know nothing of it.
    if (to_sleep_ && !mutant(Mutant::rebuilt_stays_awake))
        put_to_sleep();
    // What it makes is being stored, by the message itself.
    if (read_only_.rebuilding && read_only_.accepting.read())
        return mutant(Mutant::rebuilt_stays_awake);
    return !has_workers() || mutant(Mutant::workers_do_not_sleep) || pc_queue_frozen(queue_);
}

void Cache::wake_up() noexcept
{
    rt::Guard g(parts_lock_);
    to_sleep_ = false;
    if (!has_workers())
        return;
    parts_->write_back.wake_up();
    if (!mutant(Mutant::workers_sleep_on))
        pc_queue_thaw(queue_);
    if (state() == State::running)
        reclaim_work_.kick(); // nobody else asks for what the halted batch would have brought
}

} // namespace pcache::engine
