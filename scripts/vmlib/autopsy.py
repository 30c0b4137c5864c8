# SPDX-License-Identifier: GPL-2.0
"""What a guest that does not end was doing: asked of QEMU's monitor, and of the guest by an NMI.

A guest that reached its time limit is either slow, waiting for something that never comes, or its CPU is
lost. The disks' counters and the CPUs' registers, taken twice, tell these apart; the NMI makes the kernel
panic (unknown_nmi_panic), with the trace of what ran and, by panic_print, of every task.
"""
import re
import socket
import time

PROMPT = b"(qemu) "
KERNEL_WORDS = ["unknown_nmi_panic", "panic_print=0x1"]
NMI_WAIT = 10    # seconds in which the guest prints its traces
BETWEEN = 1.0    # seconds between the two looks
COMMANDS = ["info status", "info registers -a", "info pic", "info lapic", "info blockstats"]


class Monitor:
    """QEMU's human monitor behind a UNIX socket."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(5)
        self.socket.connect(path)
        self._answer()

    def _answer(self):
        got = b""
        while not got.endswith(PROMPT):
            part = self.socket.recv(65536)
            if not part:
                break
            got += part
        return got.decode(errors="replace")

    def ask(self, command):
        """The answer's lines, without the echo of the command."""
        self.socket.sendall(command.encode() + b"\n")
        return [line.rstrip() for line in self._answer().split("\n")[1:-1]]


def look(path):
    """Lines about the guest's CPUs, interrupts and disks; the last says why there are no more, if so."""
    lines = []
    try:
        monitor = Monitor(path)
        for n in (1, 2):
            for command in COMMANDS:
                lines += [f"--- {command} ({n}) ---", *monitor.ask(command)]
            if n == 1:
                time.sleep(BETWEEN)
        lines += ["--- nmi ---", *monitor.ask("nmi")]
    except OSError as e:  # a timeout is one, too
        lines.append(f"--- no more: {e} ---")
    return lines


def short(lines):
    """Those of look()'s lines that tell the most: where each CPU is, and what the disks have done."""
    found, title = [], ""
    for line in lines:
        if line.startswith("--- no more"):
            found.append(line)
        elif line.startswith("--- info"):
            title = line
        elif re.match(r"RIP=|VM status", line) or (line.startswith("d") and "rd_bytes" in line):
            found.append(f"{title.strip('- ')}: {line[:160]}")
    return found
