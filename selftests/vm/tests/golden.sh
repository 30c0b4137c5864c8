# SPDX-License-Identifier: GPL-2.0
#
# golden.sh - caches made by the mainline driver read as they must. Run by selftests/vm/host/golden.
#
# GOLDEN names the sets, each SET=EXPECTED; their images are disks c.SET, b.SET and e.EXPECTED.
# The write-back of g4, 200 thousand small keys, takes 20 s to 160 s, as the machine is idle or loaded.
# guest: --memory memmap:700M --cpus 1 --timeout 600
. /test/lib.sh

for pair in $GOLDEN; do
	set=${pair%=*}
	cache=$(disk "c.$set") || give_up "no cache image of $set"
	BACKING=$(disk "b.$set") || give_up "no backing image of $set"
	expected=$(disk "e.${pair#*=}") || give_up "no expected image of $set"
	must dd if="$cache" of=$CACHE bs=4M oflag=direct conv=notrunc status=none
	ok "$set: the mainline driver's cache opens" open_cache
	dmesg | grep -Eo 'recovered [0-9]+ keys.*' | tail -n 1 | sed "s/^/# $set: /"
	ok "$set: it reads as its expected image, byte for byte" same $DEV "$expected"
	ok "$set: it is written back when idle" drains 180
	ok "$set: the backing device alone is then the expected image" same "$BACKING" "$expected"
	must write_pattern "$set" $DEV $((1 << 20)) 65536
	ok "$set: it takes writes" reads_pattern "$set" $DEV $((1 << 20)) 65536
	must dd if="$expected" of=$DEV bs=64k skip=16 seek=16 count=1 oflag=direct conv=notrunc status=none
	ok "$set: it can be removed" close_cache
	must open_cache
	ok "$set: opened again it reads the same" same $DEV "$expected"
	must close_cache
done
done_testing
