// SPDX-License-Identifier: GPL-2.0
// selftests/sim/sched.cpp - see sched.hpp.
#include "selftests/sim/sched.hpp"
#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include "selftests/sim/fiber.hpp"
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

int sim_countdown = 1;

namespace pcache::sim
{

bool tracing = false;
std::deque<std::string> *trace_kept = nullptr;
s64 traced_sector = -1;

namespace
{

constexpr int no_decision = 1 << 30;

struct Timer {
    u64 due, order;
    Function function;
    void *context;
};
struct Later {
    bool operator()(const Timer &a, const Timer &b) const
    {
        return a.due != b.due ? a.due > b.due : a.order > b.order;
    }
};

struct Interrupt {
    const char *name;
    Function function;
    void *context;
};

struct Scheduler {
    std::vector<std::unique_ptr<Task>> tasks; // their stacks are kept from life to life
    std::vector<Task *> ready;
    std::vector<Timer> timers; // a heap
    u64 timer_order = 0;
    sched::Temper temper;
    u32 cpus = 1;
    Rng rng;
    u64 now = second;
    u64 points = 0, cut_at = 0, limit = 50'000'000;
    int interval = 0; // that sim_countdown was set to
    Task *current = nullptr;
    void *main_sp = nullptr;
    void *main_fake_stack = nullptr;
    const void *main_stack = nullptr; // AddressSanitizer wants to know
    usize main_stack_bytes = 0;
    bool from_main = false;
    std::vector<std::unique_ptr<Interrupt>> interrupts; // of this life
    Outcome outcome = Outcome::finished;
    u64 digest = 0;
};
Scheduler s;

bool has_violation = false;
std::string text_of_violation;
s64 sector_of_violation = -1;

void note(u64 v)
{
    s.digest = (s.digest ^ v) * 0x100000001B3u;
}

// ---- changing the stack ----

void arrive(void *fake)
{
#ifdef __SANITIZE_ADDRESS__
    const void *bottom = nullptr;
    usize bytes = 0;
    __sanitizer_finish_switch_fiber(fake, &bottom, &bytes);
    if (s.from_main) {
        s.main_stack = bottom;
        s.main_stack_bytes = bytes;
    }
#endif
    (void)fake;
    s.from_main = false;
}

// `fake` is AddressSanitizer's note of the stack that is left.
void change(void **sp, void **fake, void *to_sp, const void *to_stack, usize to_bytes)
{
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(fake, to_stack, to_bytes);
#endif
    (void)to_stack;
    (void)to_bytes;
    switch_stack(sp, to_sp);
    arrive(*fake);
}

[[noreturn]] void leave_to_main(Outcome o)
{
    s.outcome = o;
    Task *t = s.current;
    s.current = nullptr;
    sim_countdown = s.interval = no_decision;
    change(&t->sp, &t->fake_stack, s.main_sp, s.main_stack, s.main_stack_bytes);
    abort(); // nobody comes back
}

void go_to(Task *t)
{
    Task *before = s.current;
    if (t == before)
        return;
    s.current = t;
    change(&before->sp, &before->fake_stack, t->sp, t->stack, stack_bytes);
}

// ---- choosing ----

void draw_interval()
{
    const u32 mean = s.temper.points_per_decision;
    s.interval = 1 + static_cast<int>(s.rng.below(2 * mean));
    if (s.cut_at && s.points + static_cast<u64>(s.interval) > s.cut_at)
        s.interval = static_cast<int>(s.cut_at - s.points);
    sim_countdown = s.interval;
}

void fire_timers()
{
    while (!s.timers.empty() && s.timers.front().due <= s.now) {
        const Timer t = s.timers.front();
        std::pop_heap(s.timers.begin(), s.timers.end(), Later());
        s.timers.pop_back();
        t.function(t.context);
    }
}

Task *choose()
{
    const u32 n = static_cast<u32>(s.ready.size());
    Task *t = s.ready[n == 1 ? 0 : s.rng.below(n)];
    if (n > 1 && s.temper.by_priority && !s.rng.one_in(8)) {
        for (Task *o : s.ready)
            if (o->priority < t->priority)
                t = o;
        if (s.rng.one_in(16)) // it has had its turn
            t->priority = static_cast<u8>(s.rng.below(256));
    }
    if (!t->pins && s.cpus > 1 && s.rng.one_in(4))
        t->cpu = s.rng.below(s.cpus);
    note(t->id * 8 + t->cpu);
    return t;
}

void remove_ready(Task *t)
{
    const auto i = std::find(s.ready.begin(), s.ready.end(), t);
    *i = s.ready.back();
    s.ready.pop_back();
}

// As a CPU does that a hypervisor has taken away.
void stall(Task *t)
{
    t->state = Task::State::blocked;
    t->waits_for = nullptr;
    t->why = "a stall";
    remove_ready(t);
    sched::at(
        s.now + s.rng.between(us, 20 * ms),
        [](void *c) {
            auto *stalled = static_cast<Task *>(c);
            stalled->state = Task::State::ready;
            s.ready.push_back(stalled);
        },
        t);
}

// The current task goes on, or not, as it is ready or not.
void decide()
{
    sim_countdown = s.interval = no_decision; // no point counts in here
    if (has_violation)
        leave_to_main(Outcome::broken);
    if (s.cut_at && s.points >= s.cut_at)
        leave_to_main(Outcome::cut);
    if (s.points > s.limit)
        violation("livelock: the life does not end; " + sched::describe_tasks());
    fire_timers();
    while (s.ready.empty()) {
        if (s.timers.empty())
            violation("deadlock: nobody can go on; " + sched::describe_tasks());
        s.now = std::max(s.now, s.timers.front().due);
        fire_timers();
    }
    Task *t = choose();
    if (s.temper.stall_one_in && s.rng.one_in(s.temper.stall_one_in)) {
        stall(t);
        decide();
        return;
    }
    draw_interval();
    go_to(t);
}

void count_points()
{
    const u64 passed = static_cast<u64>(s.interval - sim_countdown);
    s.points += passed;
    s.now += passed * s.temper.ns_per_point;
}

void task_main()
{
    arrive(nullptr);
    for (;;) {
        Task *t = s.current;
        t->function(t->context);
        if (t->atomic || t->pins || t->epochs)
            violation(std::string("a task ended inside of a lock, a pin or an epoch: ") + t->name);
        t->state = Task::State::unused;
        remove_ready(t);
        count_points();
        decide();
    }
}

} // namespace

namespace sched
{

void begin_run()
{
    s.now = second;
    s.digest = 0;
    s.timer_order = 0;
}

void reset(const Temper &t, u32 cpus, Rng rng)
{
    for (auto &task : s.tasks)
        task->state = Task::State::unused;
    s.ready.clear();
    s.timers.clear();
    s.interrupts.clear();
    s.temper = t;
    s.cpus = cpus;
    s.rng = rng;
    s.points = s.cut_at = 0;
    s.current = nullptr;
    s.interval = sim_countdown = no_decision;
}

Outcome run()
{
    s.outcome = Outcome::finished;
    if (s.ready.empty())
        return s.outcome;
    Task *t = choose();
    draw_interval();
    s.current = t;
    s.from_main = true;
    change(&s.main_sp, &s.main_fake_stack, t->sp, t->stack, stack_bytes);
    return s.outcome;
}

void stop()
{
    count_points();
    leave_to_main(Outcome::finished);
}

void cut_now()
{
    count_points();
    leave_to_main(Outcome::cut);
}

void cut_at(u64 points)
{
    count_points();
    s.cut_at = points ? std::max(points, s.points + 1) : 0;
    draw_interval();
}

u64 points()
{
    return s.current ? s.points + static_cast<u64>(s.interval - sim_countdown) : s.points;
}
u64 now()
{
    return s.current ? s.now + static_cast<u64>(s.interval - sim_countdown) * s.temper.ns_per_point
                     : s.now;
}
u32 cpus()
{
    return s.cpus;
}
Rng &rng()
{
    return s.rng;
}
Task *self()
{
    return s.current;
}
const std::vector<Task *> &ready_tasks()
{
    return s.ready;
}
u64 digest()
{
    return s.digest;
}

Task &spawn(const char *name, Function f, void *context, bool interrupt)
{
    Task *t = nullptr;
    for (auto &task : s.tasks)
        if (task->state == Task::State::unused && task.get() != s.current) {
            t = task.get();
            break;
        }
    if (!t) {
        s.tasks.push_back(std::make_unique<Task>());
        t = s.tasks.back().get();
        t->id = static_cast<u32>(s.tasks.size());
        t->stack = make_stack();
    }
    t->state = Task::State::ready;
    t->priority = static_cast<u8>(s.rng.below(256));
    t->interrupt = interrupt;
    t->cpu = s.rng.below(s.cpus);
    t->pins = t->epochs = 0;
    t->atomic = 0;
    t->spins = 0;
    t->waits_for = nullptr;
    t->name = name;
    t->function = f;
    t->context = context;
#ifdef __SANITIZE_ADDRESS__
    __asan_unpoison_memory_region(t->stack, stack_bytes); // a former life's frames
#endif
    t->sp = prepare(t->stack, task_main);
    t->fake_stack = nullptr;
    s.ready.push_back(t);
    return *t;
}

void block(const void *object, const char *why, bool spinning)
{
    if (!spinning)
        assert_may_sleep(why);
    Task *t = s.current;
    t->state = Task::State::blocked;
    t->waits_for = object;
    t->why = why;
    remove_ready(t);
    count_points();
    decide();
}

void wake(const void *object)
{
    for (auto &t : s.tasks)
        if (t->state == Task::State::blocked && t->waits_for == object) {
            t->state = Task::State::ready;
            s.ready.push_back(t.get());
        }
}

void sleep(u64 ns)
{
    at(
        now() + ns, [](void *c) { wake(c); }, s.current);
    block(s.current, "sleep");
}

void yield()
{
    count_points();
    ++s.points;
    s.now += s.temper.ns_per_point;
    decide();
}

void assert_may_sleep(const char *what)
{
    if (s.current && (s.current->atomic || s.current->epochs || s.current->interrupt))
        violation(std::string("platform.h: ") + what + " may sleep, in " + s.current->name +
                  " where sleeping is forbidden");
}

void assert_may_submit(const char *what)
{
    if (s.current && (s.current->epochs || s.current->spins || s.current->interrupt))
        violation(std::string("platform.h: ") + what + " in an epoch or under a spinlock, in " +
                  s.current->name);
}

void assert_pinned(const char *what)
{
    if (s.current && !s.current->pins)
        violation(std::string("platform.h: ") + what + " wants a pinned caller");
}

void at(u64 when, Function f, void *context)
{
    s.timers.push_back({when, ++s.timer_order, f, context});
    std::push_heap(s.timers.begin(), s.timers.end(), Later());
}

void interrupt_after(u64 ns, const char *name, Function f, void *context)
{
    s.interrupts.push_back(std::make_unique<Interrupt>(Interrupt{name, f, context}));
    at(
        now() + ns,
        [](void *c) {
            const auto *i = static_cast<Interrupt *>(c);
            spawn(i->name, i->function, i->context, true);
        },
        s.interrupts.back().get());
}

std::string describe_tasks()
{
    std::string all;
    for (auto &t : s.tasks) {
        if (t->state == Task::State::unused)
            continue;
        if (!all.empty())
            all += ", ";
        all += t->name;
        all += t->state == Task::State::ready ? " can go on" : std::string(" waits in ") + t->why;
    }
    return all;
}

} // namespace sched

void violation(const std::string &what, s64 sector)
{
    if (!has_violation) {
        has_violation = true;
        text_of_violation = what;
        sector_of_violation = sector;
        trace("violation: %s", what.c_str());
    }
    if (s.current)
        leave_to_main(Outcome::broken);
}
bool violated()
{
    return has_violation;
}
const std::string &violation_text()
{
    return text_of_violation;
}
s64 violation_sector()
{
    return sector_of_violation;
}
void clear_violation()
{
    has_violation = false;
}

void trace(const char *format, ...)
{
    if (!tracing)
        return;
    char line[512];
    const int n =
        snprintf(line, sizeof(line), "%12.6f ms %-12s ", static_cast<double>(sched::now()) / 1e6,
                 s.current ? s.current->name : "-");
    va_list a;
    va_start(a, format);
    vsnprintf(line + n, sizeof(line) - static_cast<usize>(n), format, a);
    va_end(a);
    if (!trace_kept) {
        fprintf(stderr, "%s\n", line);
        return;
    }
    trace_kept->push_back(line);
    if (trace_kept->size() > trace_lines_kept)
        trace_kept->pop_front();
}

} // namespace pcache::sim

void sim_preempt() noexcept
{
    using namespace pcache::sim;
    if (!s.current) {
        sim_countdown = no_decision;
        return;
    }
    if (s.interval == no_decision) { // inside of the scheduler
        sim_countdown = no_decision;
        return;
    }
    count_points();
    decide();
}
