// SPDX-License-Identifier: GPL-2.0
// engine/removal.cpp - the cache device is taken away while the cache is open.
//
// The platform's notice comes from outside of everything that device-mapper serialises, so it only
// sets a mark and kicks a work; that one makes the state failed, as any fault of the media does.
// The memory stays until the device is closed, and whoever takes it away waits for that. An
// activation or a resume behind the mark fails.
//
// `removal_lock_` guards whether the work may be kicked: it can be while there are parts.
#include "dm-pcache/engine/parts.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::engine
{

void Cache::watch_media() noexcept
{
    pc_media_watch(
        device_.media(), [](void *c) { static_cast<Cache *>(c)->media_goes(); }, this);
}

void Cache::media_goes() noexcept
{
    if (mutant(Mutant::removal_not_heard))
        return;
    rt::Guard g(removal_lock_);
    media_gone_.store_release(1);
    if (removal_let_in_)
        removal_work_.kick();
}

// True: the parts are there and the queue serves; or a state was published that the work, had the
// notice come before, has not seen. False: the parts are about to go.
void Cache::let_removal_in(bool in) noexcept
{
    rt::Guard g(removal_lock_);
    removal_let_in_ = in;
    if (in && media_gone())
        removal_work_.kick();
}

void Cache::removal_worker() noexcept
{
    {
        rt::Guard g(parts_lock_);
        if (read_only_.accepting.read())
            stop_rescue();
    }
    const State now = state();
    if (now == State::running || now == State::suspended || now == State::read_only)
        fail(removed_sentence);
}

} // namespace pcache::engine
