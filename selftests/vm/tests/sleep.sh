# SPDX-License-Identifier: GPL-2.0
#
# sleep.sh - suspend to memory under load on a full cache; hibernation is refused unless the cache is suspended.
#
# guest: --memory memmap:516M --mem 1700M --disk 256M,serial=backing --disk 1G,serial=swap --timeout 240
# check: 6.12
# long: 6.1
. /test/lib.sh
. /test/slow-disk.sh
ROUNDS=2
HOW=core
. /test/sleep-body.sh
done_testing
