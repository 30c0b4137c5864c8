# SPDX-License-Identifier: GPL-2.0
"""What a guest run says: KTAP lines counted over all boots, and the kernel log judged.

The .ktap file of a run is a KTAP document of its own: the points of all boots numbered through,
then the runner's own points (kernel log, end of the guest), then the plan.
"""
import re

POINT = re.compile(r"^(ok|not ok) \d+ ?-? ?(.*)$")
PLAN = re.compile(r"^1\.\.(\d+)( # SKIP.*)?$")
TROUBLE = re.compile(
    r"WARNING: |\bBUG: |kernel BUG|KASAN|KCSAN|UBSAN|Oops|Call Trace|Kernel panic|"
    r"possible (recursive|circular) locking|inconsistent lock state|suspicious RCU usage|"
    r"INFO: task .* blocked for more|rcu.*detected.*stall|soft lockup|hard LOCKUP|"
    r"general protection fault|refcount_t: |list_(add|del) corruption|sleeping function called|"
    r"unreferenced object|page allocation failure|Bad page")
TRACE_REACH = 100  # lines behind an expected warning in which its trace is excused


class Report:
    def __init__(self, expect_log):
        self.expected = [re.compile(e) for e in expect_log]
        self.points = []     # (passed, text)
        self.boot_points = 0
        self.plan = None
        self.status = None
        self.trouble = []    # lines of the kernel log
        self.excused = 0     # lines left in which a trace is excused

    def new_boot(self):
        self.boot_points, self.plan, self.status, self.excused = 0, None, None, 0

    def test_line(self, line):
        """Takes a line of the test's output; returns True when it is a point."""
        m = POINT.match(line)
        if m:
            self.boot_points += 1
            self.points.append((m.group(1) == "ok", m.group(2)))
            return True
        m = PLAN.match(line)
        if m:
            self.plan = int(m.group(1))
        m = re.match(r"^@@EXIT (\d+)@@", line)
        if m:
            self.status = int(m.group(1))
        return False

    def kernel_line(self, line):
        self.excused = max(0, self.excused - 1)
        if any(e.search(line) for e in self.expected):
            self.excused = TRACE_REACH
        elif TROUBLE.search(line) and not (self.excused and "Call Trace" in line):
            self.trouble.append(line)

    def own_point(self, passed, text):
        self.points.append((passed, text))

    def finish_boot(self, how, last):
        """Judges how a boot ended: 'ended', 'cut', 'timeout'. last: no boot follows."""
        if how == "timeout":
            self.own_point(False, "the guest ends within its time limit")
        elif last:
            whole = self.plan is not None and self.plan == self.boot_points
            self.own_point(self.status is not None and whole and self.status == 0,
                           f"the test runs to its end (status {self.status}, "
                           f"{self.boot_points} of {self.plan if self.plan is not None else '?'} points)")

    def finish(self):
        self.own_point(not self.trouble, "the kernel log shows no warning, bug or hang")

    def counts(self):
        skipped = sum(1 for ok, text in self.points if ok and "# SKIP" in text)
        failed = sum(1 for ok, _ in self.points if not ok)
        return len(self.points) - skipped - failed, failed, skipped

    def ktap(self):
        lines = ["KTAP version 1", f"1..{len(self.points)}"]
        lines += [f"{'ok' if ok else 'not ok'} {n} {text}" for n, (ok, text) in enumerate(self.points, 1)]
        return "\n".join(lines) + "\n"
