// SPDX-License-Identifier: GPL-2.0
// selftests/sim/exhaustive/main.cpp - the exhaustive mode's command line.
//
//   sim-exhaustive [--full] [--seconds N] [--round N] [--jobs N] [--list] [--scenario NAME]
//                  [--cut N [--state N | --damage N]] [--trace] [--sector N]
//
// All scenarios, or one, in one interleaving; with --seconds in others, too, until so much CPU time
// is spent. With --cut and --state (or --damage) the one crash state that a violation
// named. The last line is "sim-exhaustive: S scenarios, P crash states, V violations"; the exit
// status is 0 if there was a scenario and no violation.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>
#include "selftests/sim/exhaustive/explore.hpp"

using namespace pcache::sim;

namespace
{

double cpu_seconds()
{
    double all = 0;
    for (int who : {RUSAGE_SELF, RUSAGE_CHILDREN}) {
        rusage u{};
        getrusage(who, &u);
        for (const timeval &t : {u.ru_utime, u.ru_stime})
            all += static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
    }
    return all;
}

void parse(int argc, char **argv)
{
    options.self = argv[0];
    for (int i = 1; i < argc; ++i) {
        const std::string a = argv[i];
        const auto value = [&]() -> const char * {
            if (i + 1 == argc) {
                fprintf(stderr, "no value for %s\n", argv[i]);
                exit(2);
            }
            return argv[++i];
        };
        if (a == "--full") {
            options.full = true;
        } else if (a == "--trace") {
            options.trace = true;
        } else if (a == "--list") {
            for (const Scenario &s : all_scenarios())
                printf("%s\n", s.name);
            exit(0);
        } else if (a == "--scenario") {
            options.scenario = value();
        } else if (a == "--cut") {
            options.cut = atoll(value());
        } else if (a == "--state") {
            options.state = atoll(value());
        } else if (a == "--damage") {
            options.damage = atoll(value());
        } else if (a == "--seconds") {
            options.seconds = static_cast<u32>(atoi(value()));
        } else if (a == "--round") {
            options.round = static_cast<u32>(atoi(value()));
        } else if (a == "--jobs") {
            options.jobs = static_cast<u32>(atoi(value()));
        } else if (a == "--sector") {
            traced_sector = atoll(value());
        } else if (a == "--mutant") {
            pcache_mutant = static_cast<u32>(atoi(value()));
        } else {
            fprintf(stderr, "unknown option: %s\n", argv[i]);
            exit(2);
        }
    }
    if (!options.jobs)
        options.jobs = static_cast<u32>(sysconf(_SC_NPROCESSORS_ONLN));
}

u32 run_round()
{
    u32 run = 0;
    for (const Scenario &s : all_scenarios()) {
        if (!options.scenario.empty() && options.scenario != s.name)
            continue;
        const Shared before = *shared;
        const double began = cpu_seconds();
        explore_scenario(s);
        ++run;
        printf("%-32s %5llu cut points, %6llu states, %6llu damaged, %5llu excepted, %llu "
               "violations, %.1f s\n",
               s.name, shared->points - before.points, shared->states - before.states,
               shared->damaged - before.damaged, shared->excepted - before.excepted,
               shared->violations - before.violations, cpu_seconds() - began);
        fflush(stdout);
    }
    return run;
}

} // namespace

int main(int argc, char **argv)
{
    parse(argc, argv);
    // Images are copied all the time: their memory stays in the process.
    mallopt(M_MMAP_THRESHOLD, 256 << 20);
    mallopt(M_TRIM_THRESHOLD, 256 << 20);
    explore_begin();
    u32 run = 0, rounds = 0;
    do {
        run = run_round();
        ++rounds;
        ++options.round;
    } while (run && !shared->violations && cpu_seconds() < options.seconds);
    printf("%u rounds, %llu states seen before and not run again; %.0f CPU seconds\n", rounds,
           shared->repeated, cpu_seconds());
    printf("sim-exhaustive: %u scenarios, %llu crash states, %llu violations\n", run,
           shared->states + shared->damaged, shared->violations);
    return run && !shared->violations ? 0 : 1;
}
