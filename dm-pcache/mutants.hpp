// SPDX-License-Identifier: GPL-2.0
// mutants.hpp - deliberate bugs, one at a time, that show whether the tests would see them.
//
// `if (mutant(Mutant::x))` stands where a rule is kept. In the module, and in every build without
// PCACHE_MUTANTS, it is the constant false and leaves no code. The mutants' builds of the unit
// tests and of the simulator set `pcache_mutant` before the engine starts, and never again. `make
// mutants` runs each with the test that sees it; one that survives is a missing test.
// mutant_list.hpp says what is wrong with each, Documentation/testing.md what they stand for.
#pragma once
#include "cxxrt/types.h"

namespace pcache
{

enum class Mutant : u32 {
    none,
#define PCACHE_MUTANT(name, lessons, what, killer) name,
#include "dm-pcache/mutant_list.hpp"
#undef PCACHE_MUTANT
};

#ifdef PCACHE_MUTANTS
extern "C" u32 pcache_mutant;
inline bool mutant(Mutant m) noexcept
{
    return pcache_mutant == static_cast<u32>(m);
}
#else
constexpr bool mutant(Mutant) noexcept
{
    return false;
}
#endif

} // namespace pcache
