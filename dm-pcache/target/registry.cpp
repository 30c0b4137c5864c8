// SPDX-License-Identifier: GPL-2.0
// target/registry.cpp - see registry.hpp.
#include "dm-pcache/target/registry.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::target
{

namespace
{
constinit LockClass registry_class{"pcache registry"};
constinit LockClass life_class{"pcache life"};

bool overlap(const pc_media_identity &a, const pc_media_identity &b) noexcept
{
    return a.dax == b.dax && a.start < b.start + b.bytes && b.start < a.start + a.bytes &&
           !mutant(Mutant::second_user_let_in);
}

// The handles of an instance in the list stay open.
bool overlap(Instance &a, const pc_media_identity &id, const pc_media *media) noexcept
{
    return overlap(a.media, id) ||
           (pc_media_overlap(a.cache.media(), media) && !mutant(Mutant::second_user_let_in));
}

// What has grown is the same device: the running cache goes on in the range that it knows.
bool same_or_grown(const pc_media_identity &running, const pc_media_identity &named) noexcept
{
    return running.dax == named.dax && running.start == named.start &&
           (running.bytes == named.bytes ||
            (running.bytes < named.bytes && !mutant(Mutant::grown_media_refused)));
}
} // namespace

Instance::Instance() noexcept : life(life_class) {}

Registry::Registry() noexcept : lock_(registry_class) {}

Registry::Answer Registry::look_up(const void *owner, const pc_media *media,
                                   const pc_backing *backing, Instance *&out,
                                   const char **sentence) noexcept
{
    rt::Guard g(lock_);
    pc_media_identity id;
    pc_media_identify(media, &id);
    const void *back = pc_backing_identity(backing);
    for (Instance *i = first_; i; i = i->next) {
        if (i->owner == owner) {
            if (same_or_grown(i->media, id) && i->backing == back) {
                i->references++;
                out = i;
                return Answer::takeover;
            }
            *sentence =
                id.dax == i->media.dax && id.start == i->media.start && id.bytes < i->media.bytes
                    ? "the cache device has become smaller than the cache that is active on it"
                    : "a reload must name the cache device and the backing device that are in "
                      "use: remove the device to change them";
            return Answer::refused;
        }
        if (overlap(*i, id, media)) {
            *sentence = "the cache device is in use by another active pcache device";
            return Answer::refused;
        }
        if (i->backing == back) {
            *sentence = "the backing device is in use by another active pcache device";
            return Answer::refused;
        }
    }
    return Answer::none;
}

bool Registry::enter(Instance &i, const char **sentence) noexcept
{
    rt::Guard g(lock_);
    if (i.active)
        return true;
    for (Instance *o = first_; o; o = o->next) {
        if (overlap(*o, i.media, i.cache.media()) || o->backing == i.backing ||
            o->owner == i.owner) {
            *sentence = "another active pcache device has one of the devices by now";
            return false;
        }
    }
    i.uuid = i.cache.uuid();
    if (taken(&i, i.uuid, sentence))
        return false;
    i.next = first_;
    first_ = &i;
    i.active = true;
    return true;
}

bool Registry::taken(const Instance *but, const engine::Uuid &uuid, const char **sentence) noexcept
{
    for (const Instance *o = first_; o && !uuid.none() && !mutant(Mutant::copies_let_in);
         o = o->next) {
        if (o != but && o->uuid == uuid) {
            *sentence = "a cache with the same uuid is active: this one is a copy of it";
            return true;
        }
    }
    return false;
}

bool Registry::may_have(const engine::Uuid &uuid, const char **sentence) noexcept
{
    rt::Guard g(lock_);
    return !taken(nullptr, uuid, sentence);
}

bool Registry::claim(Instance &i, const engine::Uuid &uuid, const char **sentence) noexcept
{
    rt::Guard g(lock_);
    if (taken(&i, uuid, sentence))
        return false;
    i.uuid = uuid;
    return true;
}

bool Registry::forbid_activation() noexcept
{
    rt::Guard g(lock_);
    forbidden_ = !mutant(Mutant::activated_in_hibernation);
    return activating_ == 0;
}

void Registry::allow_activation() noexcept
{
    rt::Guard g(lock_);
    forbidden_ = false;
}

bool Registry::begin_activation(const char **sentence) noexcept
{
    rt::Guard g(lock_);
    if (forbidden_) {
        *sentence = "the machine is being hibernated";
        return false;
    }
    activating_++;
    return true;
}

void Registry::end_activation() noexcept
{
    rt::Guard g(lock_);
    activating_--;
}

void Registry::leave(Instance &i) noexcept
{
    rt::Guard g(lock_);
    if (!i.active)
        return;
    for (Instance **at = &first_; *at; at = &(*at)->next) {
        if (*at == &i) {
            *at = i.next;
            break;
        }
    }
    i.active = false;
}

bool Registry::drop(Instance &i) noexcept
{
    rt::Guard g(lock_);
    return --i.references == 0;
}

} // namespace pcache::target
