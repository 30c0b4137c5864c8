# SPDX-License-Identifier: GPL-2.0
#
# pacing.sh - below the low-water mark writes are admitted at the pace at which space comes back: none
# waits for 50 ms, for 5 s of twice the drain rate. In a counting guest, so that time is the cache's own.
#
# guest: --icount --memory memmap:512M --mem 1536M --guest-module null_blk --timeout 1200
# guest: --file selftests/vm/pacing-body.sh:/test/pacing-body.sh
# check: 6.12 6.1
RUN=5
. /test/pacing-body.sh
