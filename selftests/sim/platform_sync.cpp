// SPDX-License-Identifier: GPL-2.0
// selftests/sim/platform_sync.cpp - locks, epochs, works, events, time and CPUs of platform.h over
// the scheduler of sched.hpp.
//
// An epoch is the grace-period model of RCU: pc_epoch_wait waits for the tasks that are inside an
// epoch which they entered before. A spinlock's waiter is a task that spins: it needs no right to
// sleep.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include "pc_abi.h"
#include "selftests/platform/siphash.hpp"
#include "selftests/sim/world.hpp"

using namespace pcache::sim;

namespace pcache::sim
{

namespace
{
u64 era = 1;
const int epoch_object = 0; // what those wait for who wait for epochs
std::vector<Task *> in_epochs;
} // namespace

struct WorkSlot {
    pc_queue *queue;
    Function function;
    void *context;
    u64 due;
    u32 kick; // tells a timer that it is the newest
    u32 stoppers;
    bool pending, started, running;
};

namespace
{
std::vector<std::unique_ptr<WorkSlot>> works; // of this life, in the order of their init
std::vector<std::unique_ptr<pc_queue>> queues;
u32 live_queues;
} // namespace

void sync_reset()
{
    works.clear();
    queues.clear();
    live_queues = 0;
    in_epochs.clear();
}

u32 queues_alive()
{
    return live_queues;
}

} // namespace pcache::sim

struct pc_spinlock {
    u32 owner, waiters;
};
struct pc_mutex {
    u32 owner, waiters;
};
struct pc_work {
    WorkSlot *slot;
};
struct pc_event {
    u32 wakes;
};
struct pc_queue {
    const char *name;
    bool closing;
    bool freezing = false, frozen = false;
    u32 running = 0; // works
};
static_assert(sizeof(pc_spinlock) <= PC_SPINLOCK_SIZE && sizeof(pc_mutex) <= PC_MUTEX_SIZE);
static_assert(sizeof(pc_work) <= PC_WORK_SIZE && sizeof(pc_event) <= PC_EVENT_SIZE);

extern "C" void rt_assert_failed(const char *file, int line, const char *expr) noexcept
{
    violation(std::string("assertion failed: ") + file + ":" + std::to_string(line) + ": " + expr);
    abort();
}

namespace
{

u32 my_id()
{
    return sched::self() ? sched::self()->id : ~0u;
}

template <class L>
void lock(L *l, const char *why, bool spinning)
{
    sched::point();
    const u32 me = my_id();
    if (l->owner == me)
        violation(std::string(why) + ": taken by the task that holds it");
    while (l->owner) {
        ++l->waiters;
        sched::block(l, why, spinning);
        --l->waiters;
    }
    l->owner = me;
}

template <class L>
void unlock(L *l, const char *why)
{
    if (l->owner != my_id())
        violation(std::string(why) + ": given back by a task that does not hold it");
    l->owner = 0;
    if (l->waiters)
        sched::wake(l);
}

} // namespace

extern "C" {

void pc_spin_init(pc_spinlock *l, const char *, pc_lock_class *) noexcept
{
    *l = {};
}

void pc_spin_lock(pc_spinlock *l) noexcept
{
    lock(l, "a spinlock", true);
    if (Task *t = sched::self())
        ++t->atomic, ++t->spins;
}

void pc_spin_unlock(pc_spinlock *l) noexcept
{
    if (Task *t = sched::self())
        --t->atomic, --t->spins;
    unlock(l, "a spinlock");
    sched::point();
}

void pc_mutex_init(pc_mutex *l, const char *, pc_lock_class *) noexcept
{
    *l = {};
}

void pc_mutex_destroy(pc_mutex *l) noexcept
{
    if (l->owner)
        violation("a mutex destroyed while it is held");
}

void pc_mutex_lock(pc_mutex *l) noexcept
{
    sched::assert_may_sleep("pc_mutex_lock");
    lock(l, "a mutex", false);
}

void pc_mutex_unlock(pc_mutex *l) noexcept
{
    unlock(l, "a mutex");
    sched::point();
}

// ---- epochs ----

void pc_epoch_enter() noexcept
{
    sched::point();
    Task *t = sched::self();
    if (!t || t->epochs++)
        return;
    t->era = era;
    in_epochs.push_back(t);
}

void pc_epoch_exit() noexcept
{
    Task *t = sched::self();
    if (!t)
        return;
    if (!t->epochs)
        violation("an epoch left that was not entered");
    if (--t->epochs == 0) {
        std::erase(in_epochs, t);
        sched::wake(&epoch_object);
    }
    sched::point();
}

void pc_epoch_wait() noexcept
{
    sched::assert_may_sleep("pc_epoch_wait");
    sched::point();
    const u64 mine = ++era;
    for (;;) {
        bool older = false;
        for (const Task *t : in_epochs)
            older |= t->era < mine;
        if (!older)
            return;
        sched::block(&epoch_object, "pc_epoch_wait");
    }
}

// ---- works ----

pc_queue *pc_queue_create(const char *name) noexcept
{
    sched::assert_may_sleep("pc_queue_create");
    if (refuse_allocation(PC_MAY_SLEEP))
        return nullptr;
    queues.push_back(std::make_unique<pc_queue>(pc_queue{.name = name, .closing = false}));
    ++live_queues;
    return queues.back().get();
}

// Until no work of it is left; `what` waits.
static void wait_for_works(pc_queue *q, const char *what)
{
    for (auto &w : works)
        if (w->queue == q && w->pending && !w->started && w->due > sched::now())
            violation(std::string(what) + " while a delayed work is pending: stop it first");
    for (usize i = 0; i < works.size(); ++i)
        while (works[i]->queue == q && (works[i]->pending || works[i]->running))
            sched::block(works[i].get(), what);
}

void pc_queue_drain(pc_queue *q) noexcept
{
    sched::assert_may_sleep("pc_queue_drain");
    pc_queue_thaw(q);
    wait_for_works(q, "pc_queue_drain");
}

void pc_queue_destroy(pc_queue *q) noexcept
{
    sched::assert_may_sleep("pc_queue_destroy");
    if (!q)
        return;
    pc_queue_thaw(q);
    q->closing = true;
    wait_for_works(q, "pc_queue_destroy");
    --live_queues;
}

void pc_work_init(pc_work *w, pc_queue *q, pc_work_function f, void *context) noexcept
{
    works.push_back(
        std::make_unique<WorkSlot>(WorkSlot{q, f, context, 0, 0, 0, false, false, false}));
    w->slot = works.back().get();
}

// A freeze takes effect when nothing runs.
static bool is_frozen(pc_queue *q)
{
    q->frozen |= q->freezing && !q->running;
    return q->frozen;
}

// The work as a task. It runs again if it was kicked meanwhile.
static void work_main(void *c)
{
    auto *w = static_cast<WorkSlot *>(c);
    if (!w->pending || is_frozen(w->queue)) { // stopped before it began, or begins at the thaw
        w->started = false;
        sched::wake(w);
        return;
    }
    w->pending = w->started = false;
    w->running = true;
    ++w->queue->running;
    w->function(w->context);
    sched::assert_may_sleep("end of a work");
    w->running = false;
    --w->queue->running;
    if (w->pending && w->due <= sched::now() && !w->started) {
        w->started = true;
        sched::spawn("worker", work_main, w);
    }
    sched::wake(w);
}

static void start(WorkSlot *w)
{
    if (w->running || w->started || is_frozen(w->queue))
        return; // begins again at its end, or at the thaw
    w->started = true;
    sched::spawn("worker", work_main, w);
}

void pc_queue_freeze(pc_queue *q) noexcept
{
    sched::point();
    q->freezing = true;
}

int pc_queue_frozen(pc_queue *q) noexcept
{
    sched::point();
    return is_frozen(q);
}

void pc_queue_thaw(pc_queue *q) noexcept
{
    sched::point();
    q->freezing = q->frozen = false;
    for (auto &w : works)
        if (w->queue == q && w->pending && w->due <= sched::now())
            start(w.get());
}

static void kick(WorkSlot *w, u64 due)
{
    if (w->stoppers)
        return;
    if (w->queue->closing && !w->running)
        violation("a work kicked after its queue was destroyed");
    w->due = w->pending ? std::min(w->due, due) : due;
    w->pending = true;
    if (w->due <= sched::now()) {
        start(w);
        return;
    }
    sched::at(
        w->due,
        [](void *c) {
            auto *slot = static_cast<WorkSlot *>(c);
            if (slot->pending && slot->due <= sched::now())
                start(slot);
        },
        w);
}

void pc_work_kick(pc_work *w) noexcept
{
    sched::point();
    kick(w->slot, 0);
}

void pc_work_kick_after(pc_work *w, u64 ns) noexcept
{
    sched::point();
    if (!w->slot->pending)
        kick(w->slot, sched::now() + ns);
}

void pc_work_stop(pc_work *work) noexcept
{
    sched::assert_may_sleep("pc_work_stop");
    sched::point();
    WorkSlot *w = work->slot;
    ++w->stoppers;
    w->pending = false;
    while (w->running || w->started)
        sched::block(w, "pc_work_stop");
    --w->stoppers;
}

// ---- events ----

void pc_event_init(pc_event *e) noexcept
{
    *e = {};
}

void pc_event_wake(pc_event *e) noexcept
{
    sched::point();
    ++e->wakes;
    sched::wake(e);
}

void pc_event_wait(pc_event *e, pc_condition condition, void *context) noexcept
{
    sched::assert_may_sleep("pc_event_wait");
    for (;;) {
        const u32 seen = e->wakes;
        ++sched::self()->atomic;
        const int holds = condition(context);
        --sched::self()->atomic;
        if (holds)
            return;
        if (e->wakes == seen)
            sched::block(e, "pc_event_wait");
    }
}

int pc_event_wait_interruptible(pc_event *e, pc_condition condition, void *context) noexcept
{
    pc_event_wait(e, condition, context); // no signal comes here
    return 0;
}

void pc_yield() noexcept
{
    sched::assert_may_sleep("pc_yield");
    sched::point();
}

// ---- time, chance, CPUs ----

u64 pc_now_ns() noexcept
{
    sched::point();
    return sched::now();
}

u64 pc_siphash(const u8 *key, const void *data, usize bytes) noexcept
{
    return pcache::selftest::SipHash::of(key, data, bytes);
}

void pc_random(void *buffer, usize bytes) noexcept
{
    for (usize i = 0; i < bytes; ++i)
        static_cast<u8 *>(buffer)[i] = static_cast<u8>(sched::rng().next());
}

u32 pc_cpus() noexcept
{
    return sched::cpus();
}

u32 pc_cpu() noexcept
{
    sched::point();
    return sched::self() ? sched::self()->cpu : 0;
}

void pc_cpu_pin() noexcept
{
    sched::point();
    if (Task *t = sched::self())
        ++t->pins;
}

void pc_cpu_unpin() noexcept
{
    Task *t = sched::self();
    if (!t)
        return;
    if (!t->pins)
        violation("unpin without pin");
    --t->pins;
    sched::point();
}
}
