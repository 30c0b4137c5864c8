// SPDX-License-Identifier: GPL-2.0
// selftests/sim/sched.hpp - the simulator's scheduler: tasks that take turns on one thread of the
// host, in an order and at a virtual time that the seed alone decides.
//
// A task runs until a *point*: every lock, unlock, atomic access, wait, wake, epoch, kick, store,
// fence, load and completion is one. At a point the seed decides whether another task goes on, on
// which of the virtual CPUs, how much time has passed, and whether the power is cut. Nothing else
// interleaves: what lies between two points is atomic here. Memory is sequentially consistent, so a
// missing barrier is not found (ThreadSanitizer's flavour of the unit tests is for that).
//
// One world per process; no locking, since there is one thread.
#pragma once
#include <deque>
#include <string>
#include <vector>
#include "selftests/sim/rng.hpp"

extern "C" int sim_countdown; // points until the next decision
extern "C" void sim_preempt(void) noexcept;

namespace pcache::sim
{

constexpr u64 us = 1000, ms = 1000 * us, second = 1000 * ms;
constexpr u32 max_cpus = 8;

using Function = void (*)(void *);

struct Task {
    enum class State : u8 { unused, ready, blocked };
    u32 id = 0;
    State state = State::unused;
    u8 priority = 0;
    bool interrupt = false;
    u32 cpu = 0, pins = 0;
    u32 atomic = 0; // reasons not to sleep
    u32 spins = 0;  // of them: spinlocks held
    u32 epochs = 0;
    u64 era = 0; // when the outermost epoch was entered
    const void *waits_for = nullptr;
    const char *why = ""; // what it waits for, for people
    const char *name = "";
    Function function = nullptr;
    void *context = nullptr;
    void *sp = nullptr;
    u8 *stack = nullptr;
    void *fake_stack = nullptr; // AddressSanitizer's
};

enum class Outcome {
    finished, // stop() was called
    cut,      // the point that cut_at() named was reached
    broken    // a violation was reported
};

namespace sched
{

// How wildly tasks interleave; drawn for each life.
struct Temper {
    u32 points_per_decision = 8; // on average
    u64 ns_per_point = 100;
    u32 stall_one_in =
        0; // decisions; a task then stands still for up to 20 ms, locks and epochs held
    bool by_priority = false; // mostly the ready task with the best priority, priorities drawn
};

void begin_run(); // time, digest and all counts begin anew
// Forgets all tasks, timers and objects of the former life. Virtual time goes on.
void reset(const Temper &t, u32 cpus, Rng rng);
// Runs until one of the outcomes. Called outside of tasks.
Outcome run();
void stop();             // run() returns `finished`; called by a task, which does not go on
void cut_at(u64 points); // run() returns `cut` when that many points have passed; 0: never
void cut_now();          // by a task, which does not go on
u64 points();            // of this life
u64 now();
u32 cpus();
Rng &rng();

Task *self(); // null outside of tasks
Task &spawn(const char *name, Function f, void *context, bool interrupt = false);
// Until wake(object); the caller looks at its condition again. A violation where sleeping is
// forbidden, unless `spinning`.
void block(const void *object, const char *why, bool spinning = false);
void wake(const void *object);
void sleep(u64 ns);
void yield();
inline void point()
{
    if (--sim_countdown <= 0)
        sim_preempt();
}
void assert_may_sleep(const char *what);
// Not in an epoch, under a spinlock or in an interrupt; in map() it is fine.
void assert_may_submit(const char *what);
void assert_pinned(const char *what);
const std::vector<Task *> &ready_tasks();
// f(context) in the scheduler at that time; must not block. Timers of one time go in order.
void at(u64 when, Function f, void *context);
// f(context) as a task in interrupt context after `ns`.
void interrupt_after(u64 ns, const char *name, Function f, void *context);
std::string describe_tasks();
u64 digest(); // of all decisions so far: equal for equal runs

} // namespace sched

// A promise was broken. Only the first of a run is kept; a task that calls it does not go on.
void violation(const std::string &what, s64 sector = -1);
bool violated();
const std::string &violation_text();
s64 violation_sector();
void clear_violation();

// A line of the history of a run; formats and prints only if tracing is on.
extern bool tracing;
// Not null: lines are not printed but go there, the last ones.
extern std::deque<std::string> *trace_kept;
constexpr usize trace_lines_kept = 60;
extern s64 traced_sector; // -1: all
void trace(const char *format, ...) __attribute__((format(printf, 1, 2)));

} // namespace pcache::sim
