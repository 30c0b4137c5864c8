// SPDX-License-Identifier: GPL-2.0
// selftests/nth/main.cpp - the loop: every scenario, every kind of failure, the first, the second
// ... until none is left to fail.
//
//   nth [--most N] [--seeds N] [--jobs N]   N failures of each kind in each scenario, spread evenly
//                                           (all, without it); N seeds of the scheduler
//   nth --scenario NAME --kind NAME --nth N [--seed N] [--ending 0..2] [--keep-bad] [--trace]
//
// Last line: "nth-failure: S scenarios, F failures injected, V violations". Exit status 0 if some
// were injected and nothing was violated.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>
#include "selftests/nth/nth.hpp"

using namespace pcache;
using namespace pcache::nth;

namespace
{

constexpr const char *kind_names[sim::failing_kinds] = {
    "nothing",       "sleeping",      "nowait",    "backing_read",
    "backing_write", "backing_flush", "media_read"};
constexpr u32 most_beyond = 64; // more than a run without failures has: retries
constexpr u32 violations_at_most = 20;

struct Options {
    u64 most = ~0ull, seeds = 1;
    u32 jobs = 0;
    const char *self = "";
    bool one = false;
    Case which;
};

struct Totals { // shared by the jobs
    u64 injected[64], violations;
    u64 at[64]; // by job: index of the case that it runs
};

// All failures of one kind in one scenario, with one seed and one ending.
struct Series {
    Case c;
    u64 count; // operations in a run without failures
    u64 step;
};

std::vector<Series> plan(const Options &o)
{
    std::vector<Series> all;
    for (u64 seed = 1; seed <= o.seeds; ++seed)
        for (u32 s = 0; s < scenario_count; ++s) {
            Case c;
            c.scenario = s;
            c.seed = seed;
            const nth::Outcome clean = run_case(c);
            if (clean.violated)
                printf("violation without a failure: %s\n  again: %s %s --trace\n",
                       clean.text.c_str(), o.self, name(c).c_str());
            for (u32 k = 1; k < sim::failing_kinds; ++k)
                for (u32 e = 0; e < ending_count; ++e)
                    for (u32 bad = 0;
                         bad < (Failing{static_cast<u8>(k)} == Failing::media_read ? 2u : 1u);
                         ++bad) {
                        c.kind = Failing{static_cast<u8>(k)};
                        c.ending = Ending{static_cast<u8>(e)};
                        c.repairable = bad == 0;
                        all.push_back({c, clean.seen[k],
                                       std::max<u64>(1, (clean.seen[k] + o.most - 1) / o.most)});
                    }
        }
    return all;
}

void report(const Case &c, const std::string &text, const Options &o)
{
    printf("violation in %s, %s number %llu: %s\n  again: %s %s --trace\n",
           scenarios[c.scenario].name, kind_name(c.kind), c.nth, text.c_str(), o.self,
           name(c).c_str());
    fflush(stdout);
}

// f(case, index, step of its series) for each; what an index means is the same in every process.
// Behind the count of a run without failures f says whether something failed: where nothing did,
// the series is over.
template <class F>
void each_case(const std::vector<Series> &all, const Options &o, F f)
{
    u64 base = 0;
    for (const Series &s : all) {
        Case c = s.c;
        const u64 end = o.most == ~0ull ? s.count + most_beyond : s.count;
        // Not always the same ones, where not all are done.
        for (c.nth = 1 + base % s.step; c.nth <= end; c.nth += s.step)
            if (!f(c, base + c.nth, s.step) && c.nth > s.count)
                break;
        base += end + 1;
    }
}

void work(const std::vector<Series> &all, const Options &o, u32 job, u64 from, Totals &t)
{
    each_case(all, o, [&](const Case &c, u64 index, u64 step) {
        if (index / step % o.jobs != job || index < from)
            return true;
        if (__atomic_load_n(&t.violations, __ATOMIC_RELAXED) >= violations_at_most)
            return true;
        t.at[job] = index;
        const nth::Outcome r = run_case(c);
        t.injected[job] += r.fired;
        if (r.violated) {
            report(c, r.text, o);
            __atomic_fetch_add(&t.violations, 1, __ATOMIC_RELAXED);
        }
        return r.fired;
    });
}

pid_t begin(const std::vector<Series> &all, const Options &o, u32 job, u64 from, Totals &t)
{
    fflush(stdout);
    const pid_t p = fork();
    if (p == 0) {
        work(all, o, job, from, t);
        fflush(stdout);
        _exit(0);
    }
    return p;
}

// Jobs that die are begun again behind the case that killed them.
void run_jobs(const std::vector<Series> &all, const Options &o, Totals &t)
{
    std::vector<pid_t> jobs;
    for (u32 i = 0; i < o.jobs; ++i)
        jobs.push_back(begin(all, o, i, 0, t));
    int status = 0;
    for (pid_t p; (p = wait(&status)) > 0;) {
        const u32 job = static_cast<u32>(std::find(jobs.begin(), jobs.end(), p) - jobs.begin());
        if (WIFEXITED(status) && !WEXITSTATUS(status))
            continue;
        const u64 at = t.at[job];
        each_case(all, o, [&](const Case &c, u64 index, u64) {
            if (index == at)
                report(c, "the process died: status " + std::to_string(status), o);
            return true;
        });
        ++t.injected[job];
        if (++t.violations < violations_at_most)
            jobs[job] = begin(all, o, job, at + 1, t);
    }
}

int run_one(const Options &o)
{
    const nth::Outcome r = run_case(o.which);
    if (r.violated)
        report(o.which, r.text, o);
    for (u32 k = 1; k < sim::failing_kinds; ++k)
        printf("%s: %llu\n", kind_names[k], r.seen[k]);
    printf("nth-failure: 1 scenarios, %u failures injected, %u violations\n", r.fired, r.violated);
    return r.violated;
}

u32 find_kind(const char *word)
{
    for (u32 k = 0; k < sim::failing_kinds; ++k)
        if (!strcmp(word, kind_names[k]))
            return k;
    fprintf(stderr, "nth: there is no kind '%s'\n", word);
    exit(1);
}

u32 find_scenario(const char *word)
{
    for (u32 s = 0; s < scenario_count; ++s)
        if (!strcmp(word, scenarios[s].name))
            return s;
    fprintf(stderr, "nth: there is no scenario '%s'\n", word);
    exit(1);
}

Options parse(int argc, char **argv)
{
    Options o;
    o.self = argv[0];
    for (int i = 1; i < argc; ++i) {
        const std::string a = argv[i];
        if (a == "--trace") {
            sim::tracing = true;
            continue;
        }
        if (a == "--keep-bad") {
            o.which.repairable = false;
            continue;
        }
        if (i + 1 == argc) {
            fprintf(stderr, "nth: %s wants a value\n", a.c_str());
            exit(1);
        }
        const char *value = argv[++i];
        const u64 n = strtoull(value, nullptr, 10);
        o.one = o.one || a == "--scenario";
        if (a == "--scenario")
            o.which.scenario = find_scenario(value);
        else if (a == "--kind")
            o.which.kind = Failing{static_cast<u8>(find_kind(value))};
        else if (a == "--nth")
            o.which.nth = n;
        else if (a == "--seed")
            o.which.seed = n;
        else if (a == "--ending")
            o.which.ending = Ending{static_cast<u8>(n % ending_count)};
        else if (a == "--mutant") // in the mutants' build
            pcache_mutant = static_cast<u32>(n);
        else if (a == "--most")
            o.most = std::max<u64>(1, n);
        else if (a == "--seeds")
            o.seeds = n;
        else if (a == "--jobs")
            o.jobs = static_cast<u32>(n);
    }
    if (!o.jobs)
        o.jobs = static_cast<u32>(sysconf(_SC_NPROCESSORS_ONLN));
    o.jobs = std::min(o.jobs, 64u);
    return o;
}

} // namespace

namespace pcache::nth
{

const char *kind_name(Failing k)
{
    return kind_names[static_cast<u32>(k)];
}

std::string name(const Case &c)
{
    return std::string("--scenario ") + scenarios[c.scenario].name + " --kind " +
           kind_name(c.kind) + " --nth " + std::to_string(c.nth) + " --seed " +
           std::to_string(c.seed) + " --ending " + std::to_string(static_cast<u32>(c.ending)) +
           (c.repairable ? "" : " --keep-bad");
}

} // namespace pcache::nth

int main(int argc, char **argv)
{
    const Options o = parse(argc, argv);
    if (o.one)
        return run_one(o);
    auto *t = static_cast<Totals *>(
        mmap(nullptr, sizeof(Totals), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    const std::vector<Series> all = plan(o);
    run_jobs(all, o, *t);
    u64 injected = 0;
    for (const u64 n : t->injected)
        injected += n;
    printf("nth-failure: %u scenarios, %llu failures injected, %llu violations\n", scenario_count,
           injected, t->violations);
    return injected && !t->violations ? 0 : 1;
}
