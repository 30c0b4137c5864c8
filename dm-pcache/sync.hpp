// SPDX-License-Identifier: GPL-2.0
// sync.hpp - the platform's locks, events, works and epochs as C++ objects with inline storage.
//
// Thin and header-only: each member is one call across platform.h. The storage sizes come from
// pc_abi.h, which the C compiler makes for each kernel configuration (user space has its own).
// All of them are initialised once, never moved and never copied; none may be used before its
// constructor or init() has run. A lock class is one constant-initialised object of static storage
// per ROLE of a lock, never per lock: lockdep wants its key in module data, and nothing here may
// need a static constructor.
#pragma once
#include "cxxrt/base.hpp"
#include "cxxrt/guard.hpp"
#include "cxxrt/result.hpp"
#include "dm-pcache/platform.h"
#include "pc_abi.h"

namespace pcache
{

// `constinit LockClass shard_class{"pcache shard"};` - the name is what lockdep prints.
class LockClass : rt::NonCopyable
{
    const char *name_;
    alignas(PC_LOCK_CLASS_ALIGN < 8
                ? 8
                : PC_LOCK_CLASS_ALIGN) u8 key_[PC_LOCK_CLASS_SIZE ? PC_LOCK_CLASS_SIZE : 1] = {};

public:
    consteval explicit LockClass(const char *name) noexcept : name_(name) {}
    const char *name() const noexcept { return name_; }
    pc_lock_class *raw() noexcept { return reinterpret_cast<pc_lock_class *>(key_); }
};

// Held for short, bounded stretches; the holder must not sleep. Not taken in interrupts.
class SpinLock : rt::NonCopyable
{
    alignas(PC_SPINLOCK_ALIGN) u8 raw_[PC_SPINLOCK_SIZE ? PC_SPINLOCK_SIZE : 1];
    pc_spinlock *raw() noexcept { return reinterpret_cast<pc_spinlock *>(raw_); }

public:
    explicit SpinLock(LockClass &c) noexcept { pc_spin_init(raw(), c.name(), c.raw()); }
    void lock() noexcept { pc_spin_lock(raw()); }
    void unlock() noexcept { pc_spin_unlock(raw()); }
};

// The holder may sleep; lock() may sleep.
class Mutex : rt::NonCopyable
{
    alignas(PC_MUTEX_ALIGN) u8 raw_[PC_MUTEX_SIZE];
    pc_mutex *raw() noexcept { return reinterpret_cast<pc_mutex *>(raw_); }

public:
    explicit Mutex(LockClass &c) noexcept { pc_mutex_init(raw(), c.name(), c.raw()); }
    ~Mutex() { pc_mutex_destroy(raw()); }
    void lock() noexcept { pc_mutex_lock(raw()); }
    void unlock() noexcept { pc_mutex_unlock(raw()); }
};

// Waiting for a condition that somebody else makes true and then calls wake().
class Event : rt::NonCopyable
{
    alignas(PC_EVENT_ALIGN) u8 raw_[PC_EVENT_SIZE];
    pc_event *raw() noexcept { return reinterpret_cast<pc_event *>(raw_); }

public:
    Event() noexcept { pc_event_init(raw()); }
    // Any context, interrupts included. What makes the condition true is stored before the call.
    void wake() noexcept { pc_event_wake(raw()); }
    // Returns when condition() is true; it is asked first, then after each wake, in the waiter's
    // context and possibly while it is marked as sleeping: it must not sleep. Sleeps.
    template <class Condition>
    void wait(Condition condition) noexcept
    {
        pc_event_wait(
            raw(),
            [](void *context) -> int { return (*static_cast<Condition *>(context))() ? 1 : 0; },
            &condition);
    }
    // The same in the context of a process that asked for the wait: Error::interrupted when a
    // signal came before the condition held.
    template <class Condition>
    rt::Error wait_interruptible(Condition condition) noexcept
    {
        const int error = pc_event_wait_interruptible(
            raw(),
            [](void *context) -> int { return (*static_cast<Condition *>(context))() ? 1 : 0; },
            &condition);
        return error ? rt::Error::interrupted : rt::Error::none;
    }
};

// A function that runs in process context on a queue, never twice at once.
class Work : rt::NonCopyable
{
    alignas(PC_WORK_ALIGN) u8 raw_[PC_WORK_SIZE];
    pc_work *raw() noexcept { return reinterpret_cast<pc_work *>(raw_); }

public:
    Work() noexcept = default;
    // Once, before anything else here. The queue outlives the work.
    void init(pc_queue *queue, pc_work_function function, void *context) noexcept
    {
        pc_work_init(raw(), queue, function, context);
    }
    // As soon as possible; kicked while it runs, it runs once more. Any context.
    void kick() noexcept { pc_work_kick(raw()); }
    // After `ns`; no effect if it is pending already. Any context.
    void kick_after(u64 ns) noexcept { pc_work_kick_after(raw(), ns); }
    // Cancels it and waits until it has ended. May sleep. Nobody may kick it any more.
    void stop() noexcept { pc_work_stop(raw()); }
};

// A reader's epoch for a scope (RCU). The holder must not sleep.
class [[nodiscard]] EpochGuard : rt::NonCopyable
{
public:
    EpochGuard() noexcept { pc_epoch_enter(); }
    ~EpochGuard() { pc_epoch_exit(); }
};

} // namespace pcache
