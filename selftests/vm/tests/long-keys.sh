# SPDX-License-Identifier: GPL-2.0
#
# long-keys.sh - data_crc over a cache of mainline's: CLEAN keys of 1 MiB that 43,722 small writes have
# cut up, and a power cut. They are read right, and nearly as fast as keys in one piece.
#
# guest: --memory nvdimm --disk 256M,serial=backing --cpus 2 --timeout 600
# long: 6.12 6.1
. /test/lib.sh

keys=192
uncut=8 # the last ones
cut=$((keys - uncut))
note=$((250 << 20)) # on the disk alone

content() { dd if=$DEV bs=1M count=$keys iflag=direct status=none | sha256sum | cut_field 1; }

if [ "$BOOT" = 1 ]; then
	must fio --name=fill --filename="$BACKING" --size=${keys}m --rw=write --bs=1m --direct=1 --refill_buffers
	must longkeys make $CACHE "$BACKING" $keys
	must open_cache
	ok "what mainline cached is served" cmp -n $((keys << 20)) $DEV "$BACKING"
	must fio --name=cut --filename=$DEV --size=${cut}m --rw=randwrite --bsrange=512-1k --blockalign=512 --ioengine=libaio \
		--iodepth=8 --direct=1 --number_ios=43722 --norandommap --randseed=7
	must sync $DEV
	content >/tmp/note
	truncate -s 512 /tmp/note
	must dd if=/tmp/note of="$BACKING" bs=512 seek=$note oflag=direct,seek_bytes conv=notrunc,fsync status=none
	power_cut
fi

dd if="$BACKING" bs=512 count=1 skip=$note iflag=direct,skip_bytes status=none | tr -d '\000' >/tmp/note
must open_cache
ok "all of it reads the same after a power cut" [ "$(content)" = "$(cat /tmp/note)" ]
must longkeys time $DEV $cut $uncut
read -r plain_longest plain_mean </tmp/setup.out
must longkeys time $DEV 0 $cut
read -r cut_longest cut_mean </tmp/setup.out
echo "# 1 MiB reads, longest and mean in us: keys in one piece $plain_longest $plain_mean, cut up $cut_longest $cut_mean"
ok "the slowest read of a key that was cut up takes five times one of a whole key at most" \
	[ "$cut_longest" -le $((5 * plain_mean)) ]
ok "small reads of such keys are right" \
	fio --name=small --filename=$DEV --size=${keys}m --rw=randread --bs=4k --ioengine=libaio --iodepth=8 --direct=1 --number_ios=500
must close_cache
ok "the module can be unloaded" rmmod dm_pcache
done_testing
