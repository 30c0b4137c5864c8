# SPDX-License-Identifier: GPL-2.0
#
# cycles-long.sh - cycles.sh with 200 cycles.
#
# guest: --memory memmap:516M --disk 128M,serial=backing --cpus 1 --timeout 3000 --append slub_debug=U
# guest: --env CYCLES=200 --file selftests/vm/tests/cycles.sh:/test/cycles
# long: 6.12 6.1
. /test/cycles
