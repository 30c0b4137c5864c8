#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""compile-commands.py KDIR OUTPUT - a compilation database from the .cmd files Kbuild left here.

The kernel's own script knows C files only. KDIR: where Kbuild ran the compiler (up to 6.12).
"""
import json
import os
import re
import sys

COMMAND = re.compile(r"^(?:saved)?cmd_(\S+\.o) := +(.*?-c -o \S+ (\S+\.(?:cpp|c)))")


def main():
    entries = []
    here = os.getcwd() + os.sep
    for folder, _, names in os.walk("."):
        if folder.startswith("./build"):
            continue
        for name in names:
            if not name.endswith(".o.cmd"):
                continue
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                lines = file.read().splitlines()
            found = COMMAND.match(lines[0]) if lines else None
            if not found:
                continue
            source = os.path.abspath(found.group(3))
            if source.startswith(here) and not source.endswith(".mod.c"):
                entries.append({
                    "directory": os.path.realpath(sys.argv[1]),
                    "command": found.group(2).replace("\\#", "#"),
                    "file": source,
                })
    entries.sort(key=lambda entry: entry["file"])
    with open(sys.argv[2], "w", encoding="utf-8") as out:
        json.dump(entries, out, indent=1)
    print(f"{sys.argv[2]}: {len(entries)} files")


if __name__ == "__main__":
    main()
