# SPDX-License-Identifier: GPL-2.0
"""What scripts/guest is made of: the initramfs, the machine, the report."""
