// SPDX-License-Identifier: GPL-2.0
// selftests/nth/nth.hpp - one failure on order in a scenario of the simulator, and what must be
// true afterwards.
//
// A scenario is a body that runs in a life of its own, perhaps behind a life that prepares it.
// While it is armed, the n-th operation of one kind fails (selftests/sim/inject.hpp). Nothing else
// does, so all that the failure does not excuse is a violation. Then the ending: everything is
// read, written back, compared and removed, or the power is cut; a new life reads and compares it
// again.
#pragma once
#include <string>
#include "selftests/sim/inject.hpp"
#include "selftests/sim/upper.hpp"

namespace pcache::nth
{

using sim::Failing;

struct Scenario {
    const char *name;
    u32 sectors; // of the backing device
    bool data_crc;
    void (*before)(); // a life in front of it, in which nothing fails; may be null
    enum class Between : u8 { removal, cut, damage } between;
    void (*body)();
};
extern const Scenario scenarios[];
extern const u32 scenario_count;

enum class Ending : u8 { removal, cut, panic };
constexpr u32 ending_count = 3;

struct Case {
    u32 scenario = 0;
    u64 seed = 1;
    Failing kind = Failing::nothing;
    u64 nth = 0;
    Ending ending = Ending::removal;
    bool repairable = true; // a page that cannot be read can be made good
};

struct Outcome {
    bool violated = false, fired = false;
    std::string text;
    u64 seen[sim::failing_kinds] = {}; // operations of each kind while it was armed
};
Outcome run_case(const Case &c);
std::string name(const Case &c); // the options that run it again
const char *kind_name(Failing k);

// ---- for the bodies; in a task ----
extern Case now; // the one that runs
void arm();
void disarm();
// Whether requests may end with an error from now on.
class Lenient
{
    bool before_;

public:
    Lenient() : before_(sim::faults.may_fail) { sim::faults.may_fail = true; }
    ~Lenient() { sim::faults.may_fail = before_; }
};
// Creates and activates the device; once more where the failure excuses that the first attempt
// fails. False: damage, which the media is refused for, or the cache is read-only.
bool create();
// resume, tried again likewise. False: the cache has failed.
bool resume();
void remove();
// Each in a task of its own; waits for all.
void together(std::initializer_list<void (*)()> tasks);
// Nothing is known any more of what reads must show: loss was accepted, and it is not known whether
// it came to that.
void judge_no_more();
bool damaged(); // a load from media has failed
bool active();  // neither removed nor failed nor read-only

} // namespace pcache::nth
