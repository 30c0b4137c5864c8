# SPDX-License-Identifier: GPL-2.0
#
# pacing-long.sh - below the low-water mark writes are admitted at the pace at which space comes back: none
# waits for 50 ms, for 60 s of twice the drain rate. In a counting guest, so that time is the cache's own.
#
# guest: --icount --memory memmap:512M --mem 1536M --guest-module null_blk --timeout 6000
# guest: --file selftests/vm/pacing-body.sh:/test/pacing-body.sh
# long: 6.12 6.1
RUN=60
. /test/pacing-body.sh
