// SPDX-License-Identifier: GPL-2.0
// mutant.cpp - the switch of the deliberate bugs (dm-pcache/mutants.hpp) in the unit tests.
//
// Only a build with PCACHE_MUTANTS has it. PCACHE_MUTANT=name in the environment turns one on; a
// name that is not on the list ends the run with 2, so that a typing error does not count as
// survived or killed. Set before main() and never again, so that no thread sees it change.
#ifdef PCACHE_MUTANTS
#include "cxxrt/types.h"
#include "dm-pcache/mutants.hpp"
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace
{

const char *const names[] = {
#define PCACHE_MUTANT(name, lessons, what, killer) #name,
#include "dm-pcache/mutant_list.hpp"
#undef PCACHE_MUTANT
};

u32 chosen()
{
    const char *wanted = getenv("PCACHE_MUTANT");
    if (!wanted || !*wanted)
        return 0;
    u32 number = 1;
    for (const char *name : names) {
        if (!strcmp(name, wanted))
            return number;
        number++;
    }
    fprintf(stderr, "PCACHE_MUTANT: there is no mutant '%s'\n", wanted);
    _Exit(2);
}

} // namespace

u32 pcache_mutant = chosen();
#endif
