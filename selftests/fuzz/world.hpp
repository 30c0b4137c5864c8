// SPDX-License-Identifier: GPL-2.0
// selftests/fuzz/world.hpp - what a fuzz target sees of the engine: the simulator's scheduler and
// cache device, a backing device of bytes, and the calls that device-mapper would make.
//
// One thread, and nothing is left of an execution: the next one begins anew. Whatever breaks a rule
// of platform.h, hangs or leaks ends in fail(), which aborts: libFuzzer then keeps the input.
#pragma once
#include <string>
#include <vector>
#include "selftests/sim/inject.hpp"
#include "selftests/sim/world.hpp"

namespace pcache::fuzz
{

using sim::Rng;
using sim::sector_bytes;
constexpr u32 range_bytes = format::geometry.range_bytes;

[[noreturn]] void fail(const std::string &what);

// ---- the backing device ----
struct Backing {
    std::vector<u8> now, durable;
    std::vector<u32> unflushed; // sectors, some twice

    void create(u32 sectors, u8 seed);
    u32 sectors() const { return static_cast<u32>(now.size() / sector_bytes); }
    void write(u32 sector, const u8 *from);
    void cut(Rng &rng);
    void panic() {}
};
extern Backing backing;

// ---- the device; all of these in a task of run_life() ----
struct Mapped {
    pc_table *table = nullptr;
    pc_target *target = nullptr;
};
extern Mapped mapped;

// dmsetup create without its resume. What is given up again is closed.
int construct(const std::vector<std::string> &words, u64 length, std::string &sentence);
// The same for a table that follows the one in force; then suspend, resume.
int reload(const std::vector<std::string> &words, u64 length);
int resume();
void suspend(bool noflush);
void remove(); // in whatever state; a violation if something is left behind
int message(const std::vector<std::string> &words, std::string *reply = nullptr, usize size = 4096);
std::string status(int what = 0);
// One request of the upper layer, waited for. 0 or -errno. length: multiple of 512; 0 for a FLUSH.
int io(pc_op op, u64 offset, u32 length, bool fua, u8 *data);

// ---- a life ----
struct LifeEnd {
    bool cut; // at the point that was asked for; else it stopped by itself
};
// A new life with this one task; aborts on a violation. cut_at: points; 0: never.
LifeEnd run_life(sim::Function f, void *context, Rng rng, u64 cut_at = 0);

} // namespace pcache::fuzz
