# SPDX-License-Identifier: GPL-2.0
#
# power-cut-long.sh - power-cut.sh with 20 cuts in a chain.
#
# guest: --memory nvdimm --disk 128M,serial=backing --timeout 3000
# guest: --env CUTS=20 --file selftests/vm/tests/power-cut.sh:/test/power-cut
# long: 6.12 6.1
. /test/power-cut
