#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
#
# mutants.py - shows that each deliberate bug of dm-pcache/mutant_list.hpp is seen: `make mutants`.
#
#   selftests/mutants.py [--jobs N] [--seconds N] [NAME...]
#
# Each mutant names its killer there: unit tests (a filter of GoogleTest's) or "sim". First every killer
# runs without a mutant and must pass, and every filter must find a test: one that fails by itself, or is
# not there, kills nothing. Then each mutant runs with its killer alone. Killed: the killer fails, crashes
# or does not end in its time. The last line is "mutants: K of N killed"; status 0 if K is N.
import argparse
import concurrent.futures
import os
import re
import subprocess
import sys
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
UNIT = os.path.join(TOP, "build/unit/mutants-small/unit")
SIM = os.path.join(TOP, "build/sim/mutants/sim")
LIST = os.path.join(TOP, "dm-pcache/mutant_list.hpp")
SIM_SECONDS = 10  # of CPU time, until a run must have been violated
WITHOUT_SECONDS = 5  # the simulator without a mutant, which `make sim` runs for longer


class Mutant:
    def __init__(self, number, name, lessons, what, killer):
        self.number, self.name, self.lessons, self.what, self.killer = number, name, lessons, what, killer


def read_list():
    text = open(LIST).read()
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    text = re.sub(r'"\s*\n\s*"', "", text)
    mutants = []
    for call in re.findall(r"PCACHE_MUTANT\((.*?)\)\s*(?=PCACHE_MUTANT|\Z)", text, re.S):
        name, rest = call.split(",", 1)
        strings = re.findall(r'"([^"]*)"', rest)
        if len(strings) != 3 or not strings[2]:
            sys.exit(f"{LIST}: '{name}' wants lessons, what is wrong, and a killer")
        mutants.append(Mutant(len(mutants) + 1, name.strip(), *strings))
    return mutants


def unit(killer, mutant, limit):
    """(passed, seconds, what was seen)"""
    env = dict(os.environ, PCACHE_MUTANT=mutant)
    begin = time.time()
    try:
        p = subprocess.run([UNIT, f"--gtest_filter={killer}", "--gtest_brief=1"], env=env, timeout=limit,
                           capture_output=True, text=True, errors="replace")
    except subprocess.TimeoutExpired:
        return False, time.time() - begin, f"it did not end in {limit} s"
    if p.returncode == 0:
        return True, time.time() - begin, ""
    failed = re.search(r"^\[  FAILED  \] (\S+)", p.stdout, re.M)
    seen = failed.group(1).rstrip(",") if failed else f"it crashed (status {p.returncode})"
    if p.returncode == 2 and "there is no mutant" in p.stderr:
        return True, 0, p.stderr.strip()
    return False, time.time() - begin, seen


def simulate(mutant, seconds):
    begin = time.time()
    p = subprocess.run([SIM, "--mutants", "--mutant", str(mutant.number), "--seconds", str(seconds), "--jobs", "1"],
                       capture_output=True, text=True, errors="replace")
    seen = p.stdout.split("\n")[0].split(": ", 1)
    return p.returncode == 0, time.time() - begin, "sim: " + seen[-1][:80]


def tests_of(killer):
    out = subprocess.run([UNIT, "--gtest_list_tests", f"--gtest_filter={killer}"], capture_output=True, text=True)
    return sum(line.startswith("  ") for line in out.stdout.split("\n"))


def without_mutant(mutants, jobs):
    """Every killer passes when nothing is wrong. True: it is so."""
    well = True
    killers = sorted({m.killer for m in mutants if m.killer != "sim"})
    for k in killers:
        for part in k.split(":"):
            if not tests_of(part):
                print(f"no test is called '{part}'")
                well = False
    shares = [":".join(killers[i::jobs]) for i in range(min(jobs, len(killers)))]
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for passed, seconds, seen in pool.map(lambda k: unit(k, "", 300), shares):
            print(f"{'passed' if passed else 'FAILED':8} {'(no mutant)':24} {seconds:5.1f} s  unit tests {seen}")
            well = well and passed
    if any(m.killer == "sim" for m in mutants):
        p = subprocess.run([SIM, "--seconds", str(WITHOUT_SECONDS), "--jobs", "1"], capture_output=True, text=True)
        print(f"{'passed' if not p.returncode else 'FAILED':8} {'(no mutant)':24} {WITHOUT_SECONDS:5.1f} s  "
              f"{p.stdout.strip().split(chr(10))[-1]}")
        well = well and p.returncode == 0
    sys.stdout.flush()
    return well


def attempt(m, seconds):
    if m.killer == "sim":
        killed, took, seen = simulate(m, seconds)
        return killed, took, seen
    passed, took, seen = unit(m.killer, m.name, 20)
    return not passed, took, seen or "nothing was seen"


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--jobs", type=int, default=2 * os.cpu_count(), help="killers mostly wait")
    p.add_argument("--seconds", type=int, default=SIM_SECONDS)
    p.add_argument("--killer", help="this one instead of the list's, for whoever looks for one")
    p.add_argument("names", nargs="*")
    o = p.parse_args()
    every = read_list()
    unknown = set(o.names) - {m.name for m in every}
    if unknown:
        sys.exit(f"there is no mutant {', '.join(sorted(unknown))}")
    mutants = [m for m in every if not o.names or m.name in o.names]
    for m in mutants:
        m.killer = o.killer or m.killer
    o.jobs = max(o.jobs, 1)
    if not without_mutant(mutants, o.jobs):
        print(f"a killer fails by itself\nmutants: 0 of {len(mutants)} killed")
        return 1
    survivors = []
    with concurrent.futures.ThreadPoolExecutor(o.jobs) as pool:
        for m, (dead, took, seen) in zip(mutants, pool.map(lambda m: attempt(m, o.seconds), mutants)):
            line = f"{'killed' if dead else 'SURVIVED':8} {m.name:24} {took:5.1f} s  {seen}"
            print(line, flush=True)
            if not dead:
                survivors.append(line)
    for line in survivors:  # once more, where whoever reads the end sees it
        print(line)
    print(f"mutants: {len(mutants) - len(survivors)} of {len(mutants)} killed")
    return 1 if survivors else 0


sys.exit(main())
