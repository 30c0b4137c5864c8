// SPDX-License-Identifier: GPL-2.0
// selftests/platform/platform_threads.cpp - locks, epochs, CPUs, time and interrupts of platform.h
// over real threads.
//
// Where platform.h says "may sleep" this file checks it: a thread that holds a spinlock, is inside
// an epoch, runs in interrupt context or under MustNotSleep aborts. Bookkeeping uses relaxed
// atomics and per-thread data only, so that no edge is added that would hide a data race from
// ThreadSanitizer.
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <mutex>
#include <pthread.h>
#include <shared_mutex>
#include <thread>
#include <utility>
#include "selftests/platform/internal.hpp"
#include "selftests/platform/siphash.hpp"
#include "cxxrt/base.hpp"

using namespace pcache::selftest;

namespace
{

constexpr u32 max_cpus = 64;
std::atomic<u32> cpus{8};
std::atomic<u32> cpu_users[max_cpus];

struct ThreadState {
    int atomic_depth = 0; // reasons not to sleep
    int epoch_depth = 0;
    int spin_depth = 0;
    int pin_depth = 0;
    int place = -1; // OnCpu
    u32 cpu = 0;    // the last one
};
thread_local ThreadState me;

} // namespace

extern "C" void rt_assert_failed(const char *file, int line, const char *expr) noexcept
{
    fprintf(stderr, "%s:%d: assertion failed: %s\n", file, line, expr);
    abort();
}

namespace pcache::selftest
{

void broken(const char *rule)
{
    fprintf(stderr, "platform: broken rule: %s\n", rule);
    abort();
}

namespace sched
{

void assert_may_sleep(const char *what)
{
    if (me.atomic_depth == 0)
        return;
    fprintf(stderr, "%s: ", what);
    broken("may sleep, called where sleeping is forbidden");
}

void assert_may_submit(const char *what)
{
    if (me.epoch_depth == 0 && me.spin_depth == 0)
        return;
    fprintf(stderr, "%s: ", what);
    broken("the block layer called in an epoch or under a spinlock");
}

void forbid_sleep()
{
    ++me.atomic_depth;
}
void allow_sleep()
{
    --me.atomic_depth;
}

void assert_pinned(const char *what)
{
    if (me.pin_depth > 0)
        return;
    fprintf(stderr, "%s: ", what);
    broken("wants a pinned caller");
}

u32 fence_cpu()
{
    return me.cpu;
}

u64 self()
{
    static std::atomic<u64> last{0};
    thread_local u64 mine = ++last;
    return mine;
}

void set_cpus(u32 n)
{
    if (n < 1 || n > max_cpus)
        broken("1 to 64 CPUs");
    cpus = n;
}

void next_cpu()
{
    static std::atomic<u32> last{0};
    if (me.pin_depth)
        broken("the CPU changes while pinned");
    me.cpu = (last.fetch_add(1, std::memory_order_relaxed) + 1) % cpus;
}

int place_on(int cpu)
{
    if (me.pin_depth)
        broken("OnCpu while pinned");
    if (cpu >= static_cast<int>(cpus.load()))
        broken("OnCpu: no such CPU");
    int before = me.place;
    me.place = cpu;
    return before;
}

void sleep_ns(u64 ns)
{
    assert_may_sleep("sleep");
    if (ns)
        std::this_thread::sleep_for(std::chrono::nanoseconds(ns));
}

// ---- interrupts: one thread that carries them out in order of time ----
namespace
{
struct Later {
    std::mutex lock;
    std::condition_variable changed;
    std::multimap<u64, std::function<void()>> due;
    bool stopping = false;
    std::thread thread;
};
Later *later;

void interrupts(Later &l)
{
    std::unique_lock<std::mutex> g(l.lock);
    for (;;) {
        if (l.due.empty()) {
            if (l.stopping)
                return;
            l.changed.wait(g);
            continue;
        }
        auto first = l.due.begin();
        u64 now = pc_now_ns();
        if (first->first > now && !l.stopping) {
            l.changed.wait_for(g, std::chrono::nanoseconds(first->first - now));
            continue;
        }
        auto f = std::move(first->second);
        l.due.erase(first);
        g.unlock();
        forbid_sleep();
        f();
        allow_sleep();
        f = nullptr;
        g.lock();
    }
}
} // namespace

void start()
{
    if (later)
        broken("two worlds at once");
    later = new Later;
    later->thread = std::thread(interrupts, std::ref(*later));
}

void stop()
{
    {
        std::lock_guard<std::mutex> g(later->lock);
        later->stopping = true;
        later->changed.notify_all();
    }
    later->thread.join();
    delete later;
    later = nullptr;
}

void run_later(u64 ns, std::function<void()> f)
{
    if (!later)
        broken("devices work only while a World exists");
    std::lock_guard<std::mutex> g(later->lock);
    later->due.emplace(pc_now_ns() + ns, std::move(f));
    later->changed.notify_all();
}

} // namespace sched

MustNotSleep::MustNotSleep()
{
    sched::forbid_sleep();
}
MustNotSleep::~MustNotSleep()
{
    sched::allow_sleep();
}
OnCpu::OnCpu(u32 cpu) : before_(sched::place_on(static_cast<int>(cpu))) {}
OnCpu::~OnCpu()
{
    sched::place_on(before_);
}

} // namespace pcache::selftest

// ---- locks
// ---------------------------------------------------------------------------------------

struct pc_spinlock {
    pthread_mutex_t m;
};
struct pc_mutex {
    pthread_mutex_t m;
};
static_assert(sizeof(pc_spinlock) <= PC_SPINLOCK_SIZE && alignof(pc_spinlock) <= PC_SPINLOCK_ALIGN);
static_assert(sizeof(pc_mutex) <= PC_MUTEX_SIZE && alignof(pc_mutex) <= PC_MUTEX_ALIGN);

namespace
{

// World::at_lock; a plain number first, since every lock looks at it.
thread_local u32 locks_to_go;
thread_local std::function<void()> at_lock;
thread_local u32 mutexes_to_go; // World::at_mutex
thread_local std::function<void()> at_mutex;

// World::set_yield_hook.
std::atomic<bool> yield_hooked{false};
std::function<void()> yield_hook;
std::shared_mutex in_yield_hook; // held by those who are in it

// Taking it twice, and giving back what is not held, are errors and not undefined.
void init_checked(pthread_mutex_t *m)
{
    pthread_mutexattr_t a;
    pthread_mutexattr_init(&a);
    pthread_mutexattr_settype(&a, PTHREAD_MUTEX_ERRORCHECK);
    pthread_mutex_init(m, &a);
    pthread_mutexattr_destroy(&a);
}

void lock_checked(pthread_mutex_t *m)
{
    if (pthread_mutex_lock(m))
        broken("a lock taken by the thread that holds it");
}

void unlock_checked(pthread_mutex_t *m)
{
    if (pthread_mutex_unlock(m))
        broken("a lock given back by a thread that does not hold it");
}

} // namespace

namespace pcache::selftest
{

void World::at_lock(u32 n, std::function<void()> f)
{
    ::at_lock = std::move(f);
    locks_to_go = n;
}

void World::at_mutex(u32 n, std::function<void()> f)
{
    ::at_mutex = std::move(f);
    mutexes_to_go = n;
}

void World::set_yield_hook(std::function<void()> hook)
{
    const std::unique_lock<std::shared_mutex> alone(in_yield_hook);
    yield_hooked = bool(hook);
    yield_hook = std::move(hook);
}

} // namespace pcache::selftest

extern "C" {

void pc_spin_init(pc_spinlock *l, const char *, pc_lock_class *) noexcept
{
    init_checked(&l->m);
}

void pc_spin_lock(pc_spinlock *l) noexcept
{
    if (locks_to_go && !me.atomic_depth && !--locks_to_go)
        std::exchange(at_lock, nullptr)();
    lock_checked(&l->m);
    ++me.atomic_depth;
    ++me.spin_depth;
}

void pc_spin_unlock(pc_spinlock *l) noexcept
{
    --me.spin_depth;
    --me.atomic_depth;
    unlock_checked(&l->m);
}

void pc_mutex_init(pc_mutex *l, const char *, pc_lock_class *) noexcept
{
    init_checked(&l->m);
}

void pc_mutex_destroy(pc_mutex *l) noexcept
{
    if (pthread_mutex_destroy(&l->m))
        broken("a mutex destroyed while it is held");
}

void pc_mutex_lock(pc_mutex *l) noexcept
{
    sched::assert_may_sleep("pc_mutex_lock");
    if (mutexes_to_go && !--mutexes_to_go)
        std::exchange(at_mutex, nullptr)();
    lock_checked(&l->m);
}

void pc_mutex_unlock(pc_mutex *l) noexcept
{
    unlock_checked(&l->m);
}
}

// ---- epochs
// ----------------------------------------------------------------------------------------
//
// A reader writes the current era into its slot, and 0 when it leaves. pc_epoch_wait begins a new
// era and waits until no slot holds an older one. The reader looks at the era again after it has
// written it, so that it either is seen by the waiter or sees all that was done before the wait.

namespace
{

constexpr u32 max_readers = 256;
struct alignas(64) ReaderSlot {
    std::atomic<u64> era{0};
    std::atomic<bool> taken{false};
};
ReaderSlot reader_slots[max_readers];
std::atomic<u64> current_era{1};

// Found when the thread first enters an epoch, given back when it ends.
struct MySlot {
    ReaderSlot *slot = nullptr;
    ReaderSlot &get()
    {
        for (u32 i = 0; !slot && i < max_readers; ++i) {
            bool expected = false;
            if (reader_slots[i].taken.compare_exchange_strong(expected, true))
                slot = &reader_slots[i];
        }
        if (!slot)
            broken("too many threads in epochs");
        return *slot;
    }
    ~MySlot()
    {
        if (slot)
            slot->taken.store(false);
    }
};
thread_local MySlot my_slot;

} // namespace

extern "C" {

void pc_epoch_enter() noexcept
{
    ++me.atomic_depth;
    if (me.epoch_depth++)
        return;
    ReaderSlot &s = my_slot.get();
    u64 era = current_era.load();
    for (;;) {
        s.era.exchange(era);
        u64 again = current_era.load();
        if (again == era)
            return;
        era = again;
    }
}

void pc_epoch_exit() noexcept
{
    if (me.epoch_depth == 0)
        broken("an epoch left that was not entered");
    --me.atomic_depth;
    if (--me.epoch_depth == 0)
        my_slot.get().era.store(0, std::memory_order_release);
}

void pc_epoch_wait() noexcept
{
    sched::assert_may_sleep("pc_epoch_wait");
    u64 mine = current_era.fetch_add(1) + 1;
    for (ReaderSlot &s : reader_slots) {
        for (;;) {
            u64 era = s.era.load();
            if (era == 0 || era >= mine)
                break;
            std::this_thread::sleep_for(std::chrono::microseconds(20));
        }
    }
}

// ---- time, chance, CPUs
// ------------------------------------------------------------------------------

u64 pc_now_ns() noexcept
{
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<u64>(t.tv_sec) * 1000000000u + static_cast<u64>(t.tv_nsec);
}

u64 pc_siphash(const u8 *key, const void *data, usize bytes) noexcept
{
    return SipHash::of(key, data, bytes);
}

void pc_random(void *buffer, usize bytes) noexcept
{
    static std::mutex lock;
    static std::mt19937_64 *rng = new std::mt19937_64(std::random_device{}());
    std::lock_guard<std::mutex> g(lock);
    for (usize i = 0; i < bytes; ++i)
        static_cast<u8 *>(buffer)[i] = static_cast<u8>((*rng)());
}

void pc_yield() noexcept
{
    sched::assert_may_sleep("pc_yield");
    if (yield_hooked.load(std::memory_order_relaxed)) {
        const std::shared_lock<std::shared_mutex> g(in_yield_hook);
        if (yield_hook)
            yield_hook();
    }
    std::this_thread::yield();
}

u32 pc_cpus() noexcept
{
    return cpus.load(std::memory_order_relaxed);
}

u32 pc_cpu() noexcept
{
    return me.place >= 0 ? static_cast<u32>(me.place) : rt::min(me.cpu, pc_cpus() - 1);
}

// Threads that are pinned at one time are on different CPUs as long as there are enough.
void pc_cpu_pin() noexcept
{
    if (me.pin_depth++)
        return;
    u32 n = pc_cpus();
    if (me.place >= 0) {
        me.cpu = static_cast<u32>(me.place);
        cpu_users[me.cpu].fetch_add(1, std::memory_order_relaxed);
        return;
    }
    u32 first = me.cpu < n ? me.cpu : 0;
    for (u32 i = 0; i < n; ++i) {
        u32 cpu = (first + i) % n, expected = 0;
        if (cpu_users[cpu].compare_exchange_strong(expected, 1, std::memory_order_relaxed)) {
            me.cpu = cpu;
            return;
        }
    }
    me.cpu = first;
    cpu_users[first].fetch_add(1, std::memory_order_relaxed);
}

void pc_cpu_unpin() noexcept
{
    if (me.pin_depth == 0)
        broken("unpin without pin");
    if (--me.pin_depth == 0)
        cpu_users[me.cpu].fetch_sub(1, std::memory_order_relaxed);
}
}
