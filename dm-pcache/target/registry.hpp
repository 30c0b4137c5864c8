// SPDX-License-Identifier: GPL-2.0
// target/registry.hpp - which caches are active, on which devices, for which mapped device.
//
// Device-mapper does not refuse a second user of a device, so this does: by range of the DAX
// device and by the memory itself (so that a linear target over a cache device is no way around),
// by backing device, and by uuid (two devices may hold copies of one cache). An active
// cache belongs to a mapped device, not to a table: a table loaded for the same mapped device with
// the same two devices takes the running cache over.
//
// Locking: one mutex for all of it; calls may sleep.
#pragma once
#include "dm-pcache/engine/cache.hpp"

namespace pcache::target
{

// A cache with what the registry knows of it. Counted by the tables that refer to it. Its devices
// belong to one of them, `home`: the one that opened it, then each that takes it over. When that
// one is destroyed the cache is closed with it, and the instance is dead: it answers as a cache
// that is not active, and the last table that refers to it frees it.
struct Instance : rt::NonCopyable {
    Instance() noexcept;
    Instance *next = nullptr;
    Mutex life;                  // taking over, and the end of the home
    pc_table *home = nullptr;    // guarded by life; null: dead
    const void *owner = nullptr; // the mapped device
    pc_media_identity media{};
    const void *backing = nullptr;
    u32 references = 1;
    bool active = false; // in the registry's list
    engine::Uuid uuid;   // guarded by the registry; all zero: none
    engine::Cache cache;
};

class Registry : rt::NonCopyable
{
public:
    Registry() noexcept;

    enum class Answer { none, takeover, refused };
    // May a table of `owner` name these devices? takeover: `out` is the owner's active instance,
    // with one reference more. refused: *sentence says why.
    Answer look_up(const void *owner, const pc_media *media, const pc_backing *backing,
                   Instance *&out, const char **sentence) noexcept;
    // Makes it active; false when another one has its devices by now.
    bool enter(Instance &i, const char **sentence) noexcept;
    // May a cache with this uuid be activated beside those that are?
    bool may_have(const engine::Uuid &uuid, const char **sentence) noexcept;
    // An instance that has entered turns out to have this uuid; false when another one has it.
    bool claim(Instance &i, const engine::Uuid &uuid, const char **sentence) noexcept;
    void leave(Instance &i) noexcept;
    // While it is forbidden begin_activation() is false. False here: one is under way.
    bool forbid_activation() noexcept;
    void allow_activation() noexcept;
    // Around every activation and resume.
    bool begin_activation(const char **sentence) noexcept;
    void end_activation() noexcept;
    // f(Instance &) for all that are active. f may not call the registry.
    template <class F>
    void for_each(F &&f) noexcept
    {
        rt::Guard g(lock_);
        for (Instance *i = first_; i; i = i->next)
            f(*i);
    }
    // One table less refers to it; true: it was the last, the caller destroys it (after leave()).
    bool drop(Instance &i) noexcept;

private:
    bool taken(const Instance *but, const engine::Uuid &uuid, const char **sentence) noexcept;
    Mutex lock_;
    Instance *first_ = nullptr;
    bool forbidden_ = false;
    u32 activating_ = 0;
};

// The one of the module, between pc_target_module_init() and _exit().
Registry &the_registry() noexcept;

} // namespace pcache::target
