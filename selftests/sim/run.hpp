// SPDX-License-Identifier: GPL-2.0
// selftests/sim/run.hpp - one run of the simulator: lives of one cache, one after the other, each
// ended by a power cut, a panic or a clean stop, all drawn from one seed.
#pragma once
#include <string>
#include "selftests/sim/world.hpp"

namespace pcache::sim
{

// What a seed is turned into. Options of the command line override parts of it.
struct Plan {
    u64 seed = 0;
    u32 segments = 8, cpus = 2, sectors = 256;
    u32 lives = 20;
    u32 clients = 3, operations = 60; // of each client, in one life
    u32 max_write_sectors = 32, big_one_in = 0;
    u32 hot_sectors = 64, hot_of_1024 = 512;
    u32 flush_of_1024 = 60, fua_of_1024 = 60, read_of_1024 = 400;
    u32 nowait_of_1024 = 0;           // requests that are sent with REQ_NOWAIT first
    u32 admin_of_1024 = 5;            // messages, suspend, resume, reload, removal
    u32 mainline_one_in = 0;          // lives in front of which mainline's GC was cut
    u32 mainline_sessions_one_in = 0; // lives in front of which mainline had the cache
    bool errors = false;
    sched::Temper temper;
    Faults faults;
};
Plan draw_plan(u64 seed);

struct Result {
    bool violated = false;
    std::string text;
    s64 sector = -1;
    u32 life = 0;
    u32 cuts = 0, panics = 0, stops = 0;
    u32 mainline_sessions = 0;
    u64 digest = 0, points = 0, operations = 0, checks = 0;
};
Result run(const Plan &plan);

} // namespace pcache::sim
