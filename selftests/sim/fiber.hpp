// SPDX-License-Identifier: GPL-2.0
// selftests/sim/fiber.hpp - changing from one stack to another: by hand on x86-64, by ucontext
// elsewhere.
#pragma once
#include "cxxrt/types.h"

namespace pcache::sim
{

constexpr usize stack_bytes = 256u << 10; // touched pages only cost memory

// A stack between guard pages; lives as long as the process.
u8 *make_stack();
// What to switch to so that entry(), which never returns, begins on that stack.
void *prepare(u8 *stack, void (*entry)());
// Saves where it is in *from and goes on at `to`.
void switch_stack(void **from, void *to);

} // namespace pcache::sim
