# SPDX-License-Identifier: GPL-2.0
#
# smoke.sh - the device does its least: create, write, read back, remove, open again.
# guest: --disk 256M,serial=backing --cpus 1 --timeout 120
# check: 6.12 6.1
. /test/lib.sh

ok "a device can be created" open_cache
ok "a 4 KiB write succeeds" write_pattern first $DEV 8192 4096
ok "it reads back" reads_pattern first $DEV 8192 4096
ok "an unaligned 1 MiB write over a 4 MiB boundary succeeds" write_pattern big $DEV $((4194304 - 51200)) 1048576
ok "it reads back, too" reads_pattern big $DEV $((4194304 - 51200)) 1048576
fails "a difference is noticed" reads_pattern second $DEV 8192 4096
ok "the device can be removed" close_cache
ok "it can be created again" open_cache
ok "the data is still there" reads_pattern first $DEV 8192 4096
must close_cache
done_testing
