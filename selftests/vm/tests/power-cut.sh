# SPDX-License-Identifier: GPL-2.0
#
# power-cut.sh - chained power cuts under load: each boot checks the last one's data and loads again.
#
# The journal client tells the host what is flushed; the host cuts the power after so many fsyncs. SEED
# varies the load, CUTS the number of cuts.
# guest: --memory nvdimm --disk 128M,serial=backing --timeout 400
# check: 6.12 6.1
. /test/lib.sh

CUTS=${CUTS:-3}
PORT=io:0x402 # QEMU's debug console

must open_cache
if [ "$BOOT" -gt 1 ]; then
	ok "cut $((BOOT - 1)): no flushed block lost, none foreign, none torn" \
		journal check $DEV "$PORT" /test/journal "$BOOT"
	echo "# $(tail -n 1 /tmp/point.out)"
	echo "# recovered: $(dmesg | grep -Eo '(pcache|writecache).*recovered.*' | tail -n 1)"
fi
if [ "$BOOT" -le "$CUTS" ]; then
	journal load $DEV "$PORT" "$BOOT" "${SEED:-1}" &
	power_cut $((1500 + 1700 * (BOOT % 4))) "0.0$BOOT"
fi
ok "after all cuts the device can be removed" close_cache
must open_cache
ok "a clean stop changed nothing" journal check $DEV "$PORT" /test/journal "$BOOT"
# The check must be able to fail: what was flushed there is gone now.
must dd if=/dev/zero of=$DEV bs=1M count=4 oflag=direct conv=notrunc status=none
fails "the check notices that flushed blocks are lost" journal check $DEV "$PORT" /test/journal "$BOOT"
must close_cache
done_testing
