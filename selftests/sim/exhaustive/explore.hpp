// SPDX-License-Identifier: GPL-2.0
// selftests/sim/exhaustive/explore.hpp - a scenario, and what is done at each place of it where the
// power may go.
//
// A scenario runs once, in one order. At each *cut point* (world.hpp) the process forks: the child
// gives the scenario up, builds one *crash state* after the other and has a fresh engine recover
// from each, while the parent goes on. A crash state is a choice for each *item* that is pending:
// - an 8-byte unit of metadata: what was fenced last, or one of the later stores to it;
// - the data of a key, as one unit;
// - each 512 bytes of a block write under way: old, new, or zero;
// - a write of the backing device that no FLUSH covers: not there, or there.
// Up to max_items items: every subset. Beyond: none, all, prefixes in time, each alone, all but
// one, and random ones, from a seed that scenario and cut point give. What was seen before (the
// same media, the same backing device, the same promises) is not run again.
//
// One thread per process; what the processes share is in `Shared`, changed atomically.
#pragma once
#include <string>
#include <vector>
#include "selftests/sim/oracle.hpp"
#include "selftests/sim/upper.hpp"
#include "selftests/sim/world.hpp"

namespace pcache::sim
{

struct Scenario {
    const char *name;
    void (*run)(); // outside of tasks: sessions, one after the other
    u32 sectors = 64, segments = format::geometry.min_segments, cpus = 1;
    bool data_crc = false;
};
std::vector<Scenario> all_scenarios();
const std::vector<Scenario> &scenarios(); // of ours alone
const std::vector<Scenario> &mainline_scenarios();

struct Options {
    bool full = false;
    std::string scenario;                  // empty: all
    s64 cut = -1, state = -1, damage = -1; // one state alone
    u32 jobs = 0;
    u32 seconds = 0; // of CPU time: rounds until then; 0: one round
    u32 round = 0;   // which interleaving the scenarios run in
    bool trace = false;
    const char *self = "";
};
extern Options options;

struct Shared {
    u64 points, states, repeated, damaged, excepted, violations;
    char notes[64][120]; // of processes: what they are at
};
extern Shared *shared;
inline void count(u64 Shared::*what)
{
    __atomic_fetch_add(&(shared->*what), 1, __ATOMIC_RELAXED);
}

void explore_begin(); // once per process, in front of all scenarios
bool explore_scenario(const Scenario &s);

// ---- for scenarios ----
enum class End { stop, cut, cut_all, panic };
// A session of ours: activation, body(), the end. What is pending at a cut is lost, or (cut_all)
// has arrived. Behind a panic it can still be read.
void ours(void (*body)(), End end);
// The same with mainline's model. What its own terminators leave behind is mended at its end.
void theirs(void (*body)(), End end);
void explore(bool on); // cut points count from here on
// In a session or between two: what is durable now is damaged cell by cell. No cut point.
void damage_here(const char *what);
// At each cut point from here on where what is durable has changed, too: of the cells every eighth,
// others at each point; with --full all of them.
void damage_each_step(bool on);
// From here on recovery may find damage: it is read-only then, and accept_loss is the way on.
void expect_damage(bool on);
bool damage_is_expected();
int accept_loss(); // the message; in a session
// Every segment that is not in use holds records that were good once, as a former life leaves them,
// or a user who wrote them into a file. None may be read. Between two sessions, or in mainline's.
void plant_leftovers();
void must(bool reached, const char *otherwise); // the scenario comes to what it is for
bool explored_alone();                          // one state is to be run: no process is forked
void here(const char *what);                    // a cut point of the scenario itself

// ---- for the parts of this folder ----
enum class Found { running, read_only, refused };
struct Judgement {
    bool may_be_read_only = false, may_be_refused = false, must_run = true;
    bool look_twice = false; // the power goes once more behind the first reading
    bool go_on = false;      // a write and a FLUSH, and the power goes
    // A block write was torn: if the cache sees it, and is read-only, these sectors may be lost.
    const std::vector<u32> *torn = nullptr;
};
// Media, backing device and oracle are as a cut has left them. A fresh engine recovers; everything
// is read, written back, compared and read again. Violations are reported by violation().
Found judge(u64 seed, const Judgement &j);
// The power goes; nothing that is pending arrives.
void cut_to_durable();
void cut_with_all(); // all of it arrives
void next_turn();    // what was captured is explored: mainline's turn begins, or ends
u64 hash_name(const char *s);
extern u32 sched_cpus;
extern u32 sessions; // of the scenario, so far
void forked_here();  // in the child of a cut point: explores, and does not return
std::string again_damage(u32 index);
std::string place_name(u64 offset); // of a byte of the cache device, for people
// In the child: never returns. Of the cells every one, or every `of`-th.
void run_damage(const char *what, u32 number, u32 of);
void report(const std::string &what, const std::string &state, const std::string &again);
// What to say if this process dies.
void note_state(const std::string &state);

} // namespace pcache::sim
