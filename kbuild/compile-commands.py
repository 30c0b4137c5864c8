#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""compile-commands.py OUTPUT - a compilation database from the .cmd files that Kbuild left here.

The kernel's own script knows C files only.
"""
import json
import os
import re
import sys

COMMAND = re.compile(r"^(?:saved)?cmd_(\S+\.o) := +(.*?-c -o \S+ (\S+\.(?:cpp|c)))")


def kernel_folder(lines):
    """Kbuild runs compilers in the kernel's build folder up to 6.12."""
    for line in lines:
        found = re.search(r"\s(/\S+)/include/generated/autoconf\.h", line)
        if found:
            return found.group(1)
    return os.getcwd()


def main():
    entries = []
    for folder, _, names in os.walk("."):
        if folder.startswith("./build"):
            continue
        for name in names:
            if not name.endswith(".o.cmd"):
                continue
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                lines = file.read().splitlines()
            found = COMMAND.match(lines[0]) if lines else None
            if found and not found.group(3).endswith(".mod.c"):
                entries.append({
                    "directory": kernel_folder(lines),
                    "command": found.group(2).replace("\\#", "#"),
                    "file": os.path.abspath(found.group(3)),
                })
    entries.sort(key=lambda entry: entry["file"])
    with open(sys.argv[1], "w", encoding="utf-8") as out:
        json.dump(entries, out, indent=1)
    print(f"{sys.argv[1]}: {len(entries)} files")


if __name__ == "__main__":
    main()
