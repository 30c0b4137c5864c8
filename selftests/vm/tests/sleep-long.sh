# SPDX-License-Identifier: GPL-2.0
#
# sleep-long.sh - sleep.sh, ten times in a row; and where the kernel can (test_resume of 6.1 wants the swap device for
# itself alone, and fails) an image is written and restored.
#
# guest: --memory memmap:516M --mem 1700M --disk 256M,serial=backing --disk 1G,serial=swap --timeout 600
# long: 6.12 6.1
. /test/lib.sh
. /test/slow-disk.sh
ROUNDS=10
HOW=test_resume
[ "$KERNEL" != 6.1 ] || HOW=core
. /test/sleep-body.sh
done_testing
