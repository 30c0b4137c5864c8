// SPDX-License-Identifier: GPL-2.0
// selftests/platform/platform_work.cpp - work queues, works and events of platform.h over real
// threads.
//
// A queue has as many threads as works run at one time: a kick starts one more when none is idle,
// so that a work may wait for another one of its queue. Works and queue state are guarded by the
// queue's lock. A work is not touched any more once its function has begun, so that it may free
// itself.
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <list>
#include <mutex>
#include <pthread.h>
#include <string>
#include <thread>
#include "selftests/platform/internal.hpp"

using namespace pcache::selftest;

struct pc_work {
    pc_queue *queue;
    pc_work_function function;
    void *context;
    u64 due;      // where pending
    u32 stoppers; // in pc_work_stop: kicks have no effect
    bool pending;
};
static_assert(sizeof(pc_work) <= PC_WORK_SIZE && alignof(pc_work) <= PC_WORK_ALIGN);

std::atomic<bool> one_worker{false}; // World::set_one_worker
std::atomic<u64> work_delay_ns{0};   // World::set_work_delay_ns

struct pc_queue {
    std::string name;
    std::mutex lock;
    std::condition_variable changed; // pending, running or closing
    std::list<pc_work *> pending;    // in the order in which they were kicked
    std::vector<pc_work *> running;
    std::vector<std::thread> threads;
    usize idle = 0;
    bool closing = false;
    bool freezing = false, frozen = false;

    // With the lock held. A freeze takes effect when nothing runs.
    bool is_frozen()
    {
        frozen |= freezing && running.empty();
        return frozen;
    }

    bool runs(const pc_work *w) const
    {
        return std::find(running.begin(), running.end(), w) != running.end();
    }
    // The first one that may run now; *next_due is the time of the earliest one that may not yet.
    pc_work *take(u64 now, u64 *next_due);
    void serve();
    void kick(pc_work *w, u64 due);
};

namespace
{
std::atomic<u64> queues{0}, queues_ever{0};
thread_local const pc_work *my_work; // the one whose function this thread is in

void preempted()
{
    if (const u64 ns = work_delay_ns)
        std::this_thread::sleep_for(std::chrono::nanoseconds(ns));
}
} // namespace

u64 pcache::selftest::World::queues_made()
{
    return queues_ever;
}

u64 pcache::selftest::sched::live_queues()
{
    return queues;
}

pc_work *pc_queue::take(u64 now, u64 *next_due)
{
    *next_due = ~0ull;
    if (is_frozen())
        return nullptr;
    for (auto i = pending.begin(); i != pending.end(); ++i) {
        pc_work *w = *i;
        if (runs(w))
            continue;
        if (w->due > now) {
            *next_due = std::min(*next_due, w->due);
            continue;
        }
        pending.erase(i);
        w->pending = false;
        running.push_back(w);
        return w;
    }
    return nullptr;
}

void pc_queue::serve()
{
    std::unique_lock<std::mutex> g(lock);
    for (;;) {
        u64 now = pc_now_ns(), next_due;
        pc_work *w = take(now, &next_due);
        if (w) {
            auto f = w->function;
            void *context = w->context;
            g.unlock();
            preempted();
            my_work = w;
            sched::next_cpu(); // else what one work leaves unfenced the next one's fence covers
            f(context);
            my_work = nullptr;
            preempted();
            sched::assert_may_sleep("end of a work");
            g.lock();
            running.erase(std::find(running.begin(), running.end(), w));
            changed.notify_all();
            continue;
        }
        if (closing && pending.empty() && running.empty())
            return;
        ++idle;
        if (next_due == ~0ull)
            changed.wait(g);
        else
            changed.wait_for(g, std::chrono::nanoseconds(next_due - now));
        --idle;
    }
}

// With the lock held.
void pc_queue::kick(pc_work *w, u64 due)
{
    if (w->stoppers)
        return;
    if (closing && !(my_work && runs(my_work)))
        broken("a work kicked after its queue was destroyed");
    if (w->pending) {
        w->due = std::min(w->due, due);
    } else {
        w->pending = true;
        w->due = due;
        pending.push_back(w);
    }
    // As many threads as works are queued or run; the rest of the idle ones wait for the time.
    if (threads.empty() || (!one_worker && threads.size() < pending.size() + running.size()))
        threads.emplace_back([this] { serve(); });
    changed.notify_all();
}

namespace pcache::selftest
{
void World::set_one_worker(bool on)
{
    one_worker = on;
}

void World::set_work_delay_ns(u64 ns)
{
    work_delay_ns = ns;
}
} // namespace pcache::selftest

extern "C" {

pc_queue *pc_queue_create(const char *name) noexcept
{
    sched::assert_may_sleep("pc_queue_create");
    void *probe = pc_alloc(sizeof(pc_queue), PC_MAY_SLEEP); // a failure that tests can ask for
    if (!probe)
        return nullptr;
    pc_free(probe);
    ++queues;
    ++queues_ever;
    auto *q = new pc_queue;
    q->name = name;
    return q;
}

void pc_queue_drain(pc_queue *q) noexcept
{
    sched::assert_may_sleep("pc_queue_drain");
    std::unique_lock<std::mutex> g(q->lock);
    q->freezing = q->frozen = false;
    q->changed.notify_all();
    for (const pc_work *w : q->pending)
        if (w->due > pc_now_ns())
            broken("a queue drained while a delayed work is pending: stop it first");
    q->changed.wait(g, [q] { return q->pending.empty() && q->running.empty(); });
}

void pc_queue_destroy(pc_queue *q) noexcept
{
    sched::assert_may_sleep("pc_queue_destroy");
    if (!q)
        return;
    std::vector<std::thread> threads;
    {
        std::unique_lock<std::mutex> g(q->lock);
        for (const pc_work *w : q->pending)
            if (w->due > pc_now_ns())
                broken("a queue destroyed while a delayed work is pending: stop it first");
        // Only works themselves kick now; they may start threads, until nothing is left.
        q->closing = true;
        q->freezing = q->frozen = false;
        q->changed.notify_all();
        q->changed.wait(g, [q] { return q->pending.empty() && q->running.empty(); });
        threads.swap(q->threads);
    }
    for (std::thread &t : threads)
        t.join();
    delete q;
    --queues;
}

void pc_queue_freeze(pc_queue *q) noexcept
{
    std::lock_guard<std::mutex> g(q->lock);
    q->freezing = true;
}

int pc_queue_frozen(pc_queue *q) noexcept
{
    std::lock_guard<std::mutex> g(q->lock);
    return q->is_frozen();
}

void pc_queue_thaw(pc_queue *q) noexcept
{
    std::lock_guard<std::mutex> g(q->lock);
    q->freezing = q->frozen = false;
    q->changed.notify_all();
}

void pc_work_init(pc_work *w, pc_queue *q, pc_work_function f, void *context) noexcept
{
    *w = pc_work{q, f, context, 0, 0, false};
}

void pc_work_kick(pc_work *w) noexcept
{
    std::lock_guard<std::mutex> g(w->queue->lock);
    w->queue->kick(w, 0);
}

void pc_work_kick_after(pc_work *w, u64 ns) noexcept
{
    std::lock_guard<std::mutex> g(w->queue->lock);
    if (!w->pending)
        w->queue->kick(w, ns ? pc_now_ns() + ns : 0);
}

void pc_work_stop(pc_work *w) noexcept
{
    sched::assert_may_sleep("pc_work_stop");
    if (my_work == w)
        broken("a work that stops itself would wait for ever");
    pc_queue *q = w->queue;
    std::unique_lock<std::mutex> g(q->lock);
    ++w->stoppers;
    if (w->pending) {
        w->pending = false;
        q->pending.remove(w);
        q->changed.notify_all();
    }
    q->changed.wait(g, [q, w] { return !q->runs(w); });
    --w->stoppers;
}
}

// ---- events
// ------------------------------------------------------------------------------------------
//
// A wake counts; a waiter notes the count before it looks at its condition and sleeps only while
// the count is the same. The condition is looked at with nothing held, but it must not sleep, as in
// the kernel. A signal is a flag of the thread and a wake of the event that the thread waits for.

struct pc_event {
    pthread_mutex_t m;
    pthread_cond_t woken;
    u64 wakes;
};
static_assert(sizeof(pc_event) <= PC_EVENT_SIZE && alignof(pc_event) <= PC_EVENT_ALIGN);

namespace
{
thread_local Signal *my_signal; // null: this thread gets none

// Until the condition holds (true), or until stopped() while it does not.
template <class Stopped>
bool wait_until(pc_event *e, pc_condition condition, void *context, Stopped stopped)
{
    for (;;) {
        pthread_mutex_lock(&e->m);
        u64 seen = e->wakes;
        pthread_mutex_unlock(&e->m);
        sched::forbid_sleep();
        int holds = condition(context);
        sched::allow_sleep();
        if (holds)
            return true;
        if (stopped())
            return false;
        pthread_mutex_lock(&e->m);
        while (e->wakes == seen)
            pthread_cond_wait(&e->woken, &e->m);
        pthread_mutex_unlock(&e->m);
    }
}
} // namespace

Signal::Signal()
{
    if (my_signal)
        broken("two Signals of one thread");
    my_signal = this;
}

Signal::~Signal()
{
    my_signal = nullptr;
}

void Signal::send()
{
    std::lock_guard<std::mutex> g(lock_);
    sent_ = true;
    if (waits_for_)
        pc_event_wake(waits_for_);
}

void Signal::wait_for(pc_event *e)
{
    std::lock_guard<std::mutex> g(lock_);
    waits_for_ = e;
}

extern "C" {

void pc_event_init(pc_event *e) noexcept
{
    pthread_mutex_init(&e->m, nullptr);
    pthread_cond_init(&e->woken, nullptr);
    e->wakes = 0;
}

void pc_event_wake(pc_event *e) noexcept
{
    pthread_mutex_lock(&e->m);
    ++e->wakes;
    pthread_cond_broadcast(&e->woken);
    pthread_mutex_unlock(&e->m);
}

void pc_event_wait(pc_event *e, pc_condition condition, void *context) noexcept
{
    sched::assert_may_sleep("pc_event_wait");
    wait_until(e, condition, context, [] { return false; });
}

int pc_event_wait_interruptible(pc_event *e, pc_condition condition, void *context) noexcept
{
    sched::assert_may_sleep("pc_event_wait_interruptible");
    if (my_work)
        broken("an interruptible wait in a work: no signal reaches a worker");
    Signal *s = my_signal;
    if (s)
        s->wait_for(e);
    const bool holds = wait_until(e, condition, context, [s] { return s && s->sent(); });
    if (s)
        s->wait_for(nullptr);
    return holds ? 0 : -EINTR;
}
}
