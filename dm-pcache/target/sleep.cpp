// SPDX-License-Identifier: GPL-2.0
// target/sleep.cpp - suspend and hibernation of the machine, for all active caches. See face.h.
//
// Locking: the registry's lock, which is held over the calls of Cache: none of them waits.
#include "dm-pcache/mutants.hpp"
#include "dm-pcache/target/target.hpp"

using namespace pcache;
using namespace pcache::target;

int pc_target_requests_wait() noexcept
{
    bool any = false;
    the_registry().for_each([&](Instance &i) { any |= i.cache.requests_wait(); });
    return any;
}

void pc_target_fall_asleep() noexcept
{
    the_registry().for_each([](Instance &i) { i.cache.fall_asleep(); });
}

int pc_target_asleep() noexcept
{
    bool all = true;
    the_registry().for_each([&](Instance &i) { all &= i.cache.asleep(); });
    return all;
}

void pc_target_wake_up() noexcept
{
    the_registry().for_each([](Instance &i) { i.cache.wake_up(); });
}

namespace
{

// What memory and media say of the cache agrees for as long as nobody activates it.
bool may_be_in_an_image(const engine::Cache &c) noexcept
{
    switch (c.state()) {
    case engine::State::inactive:
    case engine::State::suspended:
    case engine::State::failed:
        return true;
    case engine::State::read_only:
        return c.suspending();
    case engine::State::running:
        break;
    }
    return mutant(Mutant::image_of_a_running_cache);
}

} // namespace

int pc_target_hibernate(int restoring) noexcept
{
    bool good = the_registry().forbid_activation();
    if (!good)
        pc_log(nullptr, PC_ERR, "hibernation is refused: a device is being activated");
    the_registry().for_each([&](Instance &i) {
        if (restoring ? i.cache.state() == engine::State::inactive : may_be_in_an_image(i.cache))
            return;
        good = false;
        if (restoring)
            pc_log(i.cache.host(), PC_ERR,
                   "no hibernated system is restored: it would go on with what it knew of this "
                   "cache, which has been in use since; restore before any cache is activated");
        else
            pc_log(i.cache.host(), PC_ERR,
                   "hibernation is refused: the cache would go on changing behind the image; "
                   "remove the device first, or suspend it (dmsetup suspend)");
    });
    if (good)
        return 0;
    the_registry().allow_activation();
    return rt::to_errno(rt::Error::busy);
}

void pc_target_hibernation_over() noexcept
{
    the_registry().allow_activation();
}
