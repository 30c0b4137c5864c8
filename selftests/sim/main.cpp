// SPDX-License-Identifier: GPL-2.0
// selftests/sim/main.cpp - the simulator's command line.
//
//   sim --mutants [--mutant N] [--seconds N]   (in the mutants' build) each, or the N-th; CPU time
//   sim [--seconds N] [--seed N] [--runs N] [--jobs N] [--trace] [--sector N] [--lives N]
//
// Without --seed: runs with seeds from 1 on (or --from N) until the time is over, on all cores.
// With it: that one run. The last line is "sim: R runs, C power cuts, V violations"; the exit
// status is 0 if there was a run and no violation.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include "selftests/sim/run.hpp"

using namespace pcache::sim;

namespace
{

struct Options {
    u64 seed = 0, from = 1, runs = ~0ull;
    u32 seconds = 0, jobs = 0;
    // Of the plan; 0: as drawn. What a violation is made smaller with.
    u32 lives = 0, clients = 0, operations = 0, most_sectors = 0, calm = 0;
    bool trace = false, mutants = false;
    u32 mutant = 0;
    s64 sector = -1;
    const char *self = "";
};

struct Totals { // shared by the jobs
    u64 runs, cuts, panics, stops, mainline, operations, checks, violations, cpu_us;
};

double cpu_seconds()
{
    timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) / 1e9;
}

double seconds_since(std::chrono::steady_clock::time_point t)
{
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - t).count();
}

Result run_seed(u64 seed, const Options &o)
{
    Plan p = draw_plan(seed);
    p.lives = o.lives ? o.lives : p.lives;
    p.clients = o.clients ? o.clients : p.clients;
    p.operations = o.operations ? o.operations : p.operations;
    if (o.most_sectors) {
        p.max_write_sectors = o.most_sectors;
        p.big_one_in = 0;
    }
    if (o.calm) { // nobody but the clients
        p.admin_of_1024 = p.mainline_one_in = 0;
        p.temper.stall_one_in = 0;
    }
    return run(p);
}

// Tries smaller runs of the same seed while one is violated, for some seconds.
Options shrink(u64 seed, const Result &r, Options o)
{
    const auto begin = std::chrono::steady_clock::now();
    const Plan p = draw_plan(seed);
    o.lives = r.life;
    o.clients = p.clients;
    o.operations = p.operations;
    o.most_sectors = p.big_one_in ? 0 : p.max_write_sectors;
    bool smaller = true;
    while (smaller && seconds_since(begin) < 10) {
        smaller = false;
        const auto attempt = [&](u32 Options::*what, u32 value) {
            if (!value || value == o.*what)
                return;
            Options tried = o;
            tried.*what = value;
            const Result again = run_seed(seed, tried);
            if (!again.violated)
                return;
            tried.lives = again.life;
            o = tried;
            smaller = true;
        };
        attempt(&Options::calm, 1);
        attempt(&Options::lives, o.lives / 2);
        attempt(&Options::clients, o.clients / 2);
        attempt(&Options::clients, o.clients - 1);
        attempt(&Options::operations, o.operations / 2);
        attempt(&Options::operations, o.operations - 1);
        attempt(&Options::most_sectors, o.most_sectors ? o.most_sectors / 2 : 8);
    }
    return o;
}

// The end of the run as it was: the sector concerned, the log, what the engine said.
void print_history(u64 seed, const Options &o, s64 sector)
{
    std::deque<std::string> lines;
    const s64 before = traced_sector;
    tracing = true;
    traced_sector = sector;
    trace_kept = &lines;
    (void)run_seed(seed, o);
    trace_kept = nullptr;
    tracing = false;
    traced_sector = before;
    for (const std::string &line : lines)
        printf("    | %.200s\n", line.c_str());
}

void report(u64 seed, const Result &r, const Options &o)
{
    printf("violation in run %llu, life %u: %s\n", seed, r.life, r.text.c_str());
    printf("  again, with the history of the sector: %s --seed %llu --trace", o.self, seed);
    if (r.sector >= 0)
        printf(" --sector %lld", r.sector);
    printf("\n");
    const Options small = shrink(seed, r, o);
    const Result again = run_seed(seed, small);
    char command[256];
    snprintf(command, sizeof(command),
             "%s --seed %llu --lives %u --clients %u --operations %u --most-sectors %u --calm %u "
             "--trace --sector %lld",
             o.self, seed, small.lives, small.clients, small.operations, small.most_sectors,
             small.calm, again.sector);
    printf("  smaller (%llu operations instead of %llu): %s\n    %s\n", again.operations,
           r.operations, command, again.text.c_str());
    print_history(seed, small, again.sector);
    printf("  where it is seen: gdb -ex 'break pcache::sim::violation' -ex run --args %s\n",
           command);
    fflush(stdout);
}

void add(Totals &t, const Result &r)
{
    const auto plus = [](u64 &to, u64 n) { __atomic_fetch_add(&to, n, __ATOMIC_RELAXED); };
    plus(t.runs, 1);
    plus(t.cuts, r.cuts);
    plus(t.panics, r.panics);
    plus(t.stops, r.stops);
    plus(t.mainline, r.mainline_sessions);
    plus(t.operations, r.operations);
    plus(t.checks, r.checks);
    plus(t.violations, r.violated);
}

void work(u32 number, const Options &o, Totals &t)
{
    const auto begin = std::chrono::steady_clock::now();
    for (u64 n = number; n < o.runs && seconds_since(begin) < o.seconds; n += o.jobs) {
        const Result r = run_seed(o.from + n, o);
        add(t, r);
        if (r.violated)
            report(o.from + n, r, o);
        else if (n % 64 == 0 && run_seed(o.from + n, o).digest != r.digest) {
            printf("run %llu is not the same twice: the simulator itself is wrong\n", o.from + n);
            __atomic_fetch_add(&t.violations, 1, __ATOMIC_RELAXED);
        }
        if (__atomic_load_n(&t.violations, __ATOMIC_RELAXED) >= 10)
            return;
    }
}

void job(u32 number, const Options &o, Totals &t)
{
    const double begin = cpu_seconds();
    work(number, o, t);
    __atomic_fetch_add(&t.cpu_us, static_cast<u64>((cpu_seconds() - begin) * 1e6),
                       __ATOMIC_RELAXED);
}

Options parse(int argc, char **argv)
{
    Options o;
    o.self = argv[0];
    for (int i = 1; i < argc; ++i) {
        const std::string a = argv[i];
        if (a == "--mutants") {
            o.mutants = true;
            continue;
        }
        if (a == "--trace") {
            o.trace = true;
            continue;
        }
        if (i + 1 == argc) {
            fprintf(stderr, "unknown option, or no value for it: %s\n", argv[i]);
            exit(2);
        }
        const u64 v = strtoull(argv[++i], nullptr, 10);
        if (a == "--seconds")
            o.seconds = static_cast<u32>(v);
        else if (a == "--seed")
            o.seed = v;
        else if (a == "--from")
            o.from = v;
        else if (a == "--runs")
            o.runs = v;
        else if (a == "--jobs")
            o.jobs = static_cast<u32>(v);
        else if (a == "--lives")
            o.lives = static_cast<u32>(v);
        else if (a == "--clients")
            o.clients = static_cast<u32>(v);
        else if (a == "--operations")
            o.operations = static_cast<u32>(v);
        else if (a == "--most-sectors")
            o.most_sectors = static_cast<u32>(v);
        else if (a == "--calm")
            o.calm = static_cast<u32>(v);
        else if (a == "--mutant")
            o.mutant = static_cast<u32>(v);
        else if (a == "--sector")
            o.sector = static_cast<s64>(v);
    }
    if (!o.jobs)
        o.jobs = static_cast<u32>(sysconf(_SC_NPROCESSORS_ONLN));
    if (!o.seconds)
        o.seconds = o.runs == ~0ull ? 60 : 1u << 30;
    return o;
}

void run_jobs(const Options &o, Totals &t)
{
    if (o.jobs == 1) {
        job(0, o, t);
        return;
    }
    for (u32 i = 0; i < o.jobs; ++i)
        if (fork() == 0) {
            job(i, o, t);
            fflush(stdout);
            _exit(0);
        }
    int status = 0;
    while (wait(&status) > 0)
        if (!WIFEXITED(status) || WEXITSTATUS(status)) {
            printf("a job has died: status %#x\n", static_cast<unsigned>(status));
            ++t.violations;
        }
}

// Each mutant in a process of its own, as many at once as there are jobs. Killed: a violation, or a
// crash, within the time.
struct Verdict {
    u32 violated, dead;
    u64 seed;
    double seconds;
    char text[160];
};

void try_mutant(u32 m, const Options &o, Verdict &v)
{
    pcache_mutant = m;
    const double begin = cpu_seconds();
    for (v.seed = o.from; cpu_seconds() - begin < o.seconds; ++v.seed) {
        const Result r = run_seed(v.seed, o);
        v.seconds = cpu_seconds() - begin;
        if (r.violated) {
            v.violated = 1;
            snprintf(v.text, sizeof(v.text), "%s", r.text.c_str());
            return;
        }
    }
}

const char *const mutant_names[] = {
#define PCACHE_MUTANT(name, lessons, what, killer) #name,
#include "dm-pcache/mutant_list.hpp"
#undef PCACHE_MUTANT
};

int run_mutants(const Options &o)
{
    constexpr u32 count = sizeof(mutant_names) / sizeof(mutant_names[0]);
    auto *v =
        static_cast<Verdict *>(mmap(nullptr, (count + 1) * sizeof(Verdict), PROT_READ | PROT_WRITE,
                                    MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    std::vector<std::pair<pid_t, u32>> running;
    u32 killed = 0;
    const u32 first = o.mutant ? o.mutant : 1, last = o.mutant ? o.mutant : count;
    for (u32 next = first; next <= last || !running.empty();) {
        if (next <= last && running.size() < o.jobs) {
            const pid_t p = fork();
            if (p == 0) {
                try_mutant(next, o, v[next]);
                _exit(0);
            }
            running.push_back({p, next++});
            continue;
        }
        int status = 0;
        const pid_t p = wait(&status);
        const auto i = std::find_if(running.begin(), running.end(),
                                    [p](const auto &r) { return r.first == p; });
        const u32 m = i->second;
        running.erase(i);
        v[m].dead = !WIFEXITED(status) || WEXITSTATUS(status);
        const bool dead = v[m].violated || v[m].dead;
        killed += dead;
        printf("%-8s %-24s %5.1f s, seed %llu: %s\n", dead ? "killed" : "SURVIVED",
               mutant_names[m - 1], v[m].seconds, v[m].seed,
               v[m].violated ? v[m].text
               : v[m].dead   ? "it crashed"
                             : "nothing was seen");
        fflush(stdout);
    }
    printf("mutants: %u of %u killed\n", killed, last - first + 1);
    return killed == last - first + 1 ? 0 : 1;
}

} // namespace

int main(int argc, char **argv)
{
    const Options o = parse(argc, argv);
    auto *t = static_cast<Totals *>(
        mmap(nullptr, sizeof(Totals), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    tracing = o.trace;
    traced_sector = o.sector;
    pcache_mutant = o.mutant;
    if (o.mutants)
        return run_mutants(o);
    if (o.seed) {
        const Result r = run_seed(o.seed, o);
        add(*t, r);
        if (r.violated && !o.trace)
            report(o.seed, r, o);
        printf("seed %llu: digest %016llx\n", o.seed, r.digest);
    } else {
        run_jobs(o, *t);
    }
    printf("%llu panics, %llu clean stops, %llu sessions of mainline's, %llu operations, %llu "
           "checks; %.0f power cuts per second "
           "of CPU time\n",
           t->panics, t->stops, t->mainline, t->operations, t->checks,
           t->cpu_us ? static_cast<double>(t->cuts) * 1e6 / static_cast<double>(t->cpu_us) : 0);
    printf("sim: %llu runs, %llu power cuts, %llu violations\n", t->runs, t->cuts, t->violations);
    return t->runs && !t->violations ? 0 : 1;
}
