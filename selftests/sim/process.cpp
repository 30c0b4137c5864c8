// SPDX-License-Identifier: GPL-2.0
// selftests/sim/process.cpp - what every program over the simulator's platform has once: the
// deliberate bug that is on (dm-pcache/mutants.hpp; 0: none), and AddressSanitizer's options.
#include "selftests/sim/world.hpp"

extern "C" {

u32 pcache_mutant = 0;

#ifdef __SANITIZE_ADDRESS__
// Fibers that a power cut leaves behind are no leak; they have stacks of their own.
const char *__asan_default_options();
const char *__asan_default_options()
{
    return "detect_leaks=0:detect_stack_use_after_return=0";
}
#endif
}
