# SPDX-License-Identifier: GPL-2.0
#
# table.sh - table lines and devices that are wrong get a sentence; nothing is formatted or left behind.
#
# guest: --memory memmap:512M --virtio-pmem 512M --disk 64M,serial=backing --disk 64M,serial=other
# guest: --disk 64M,serial=readonly,ro=1 --cpus 1 --timeout 150
# check: 6.12 6.1
. /test/lib.sh

B=$BACKING
N=$(sectors "$B")
RO=$(disk readonly)
must write_pattern before "$B" 0 65536
backing_before=$(digest "$B")

line() { # WORDS: a table over all of the backing device
	echo "0 $N pcache $*"
}

refuses "no devices" "cache_dev|backing_dev" "$(line)"
refuses "no backing device" "backing_dev" "$(line $CACHE)"
refuses "a cache device that does not exist" "cache device" "$(line /dev/nothing "$B")"
refuses "a backing device that does not exist" "backing device" "$(line $CACHE /dev/nothing)"
refuses "the same device twice" "same|two devices" "$(line $CACHE $CACHE)"
refuses "an option count that is no number" "number" "$(line $CACHE "$B" many)"
refuses "a negative option count" "number" "$(line $CACHE "$B" -1)"
refuses "an odd option count" "value|even" "$(line $CACHE "$B" 1 cache_mode)"
refuses "more words announced than given" "fewer|announce" "$(line $CACHE "$B" 4 cache_mode writeback)"
refuses "trailing words" "more words|announce" "$(line $CACHE "$B" 2 cache_mode writeback extra)"
refuses "trailing words behind a count of 0" "more words|announce" "$(line $CACHE "$B" 0 extra)"
refuses "an option given twice" "twice" "$(line $CACHE "$B" 4 cache_mode writeback cache_mode writeback)"
refuses "an option given twice under its two names" "twice" "$(line $CACHE "$B" 4 crc false data_crc false)"
refuses "an unknown option" "unknown" "$(line $CACHE "$B" 2 colour blue)"
refuses "an unknown cache mode" "cache_mode" "$(line $CACHE "$B" 2 cache_mode fast)"
refuses "an upper-case cache mode" "cache_mode" "$(line $CACHE "$B" 2 cache_mode WRITEBACK)"
refuses "data_crc that is neither true nor false" "data_crc" "$(line $CACHE "$B" 2 data_crc 1)"
refuses "an unknown writeback_order" "writeback_order" "$(line $CACHE "$B" 2 writeback_order loose)"
refuses "a table longer than the backing device" "longer|size|length" "0 $((N + 8)) pcache $CACHE $B"
refuses "a cache device without DAX" "DAX" "$(line "$(disk other)" "$B")"
refuses "a read-only backing device" "read-only" "$(line $CACHE "$RO")"
if [ -b /dev/pmem1 ]; then
	refuses "asynchronous persistent memory (virtio-pmem)" "asynchronous|synchronous" "$(line /dev/pmem1 "$B")"
else
	skip "asynchronous persistent memory (virtio-pmem)" "no virtio-pmem in this guest"
fi
modprobe -q null_blk nr_devices=1 zoned=1 zone_size=16 gb=1 memory_backed=0 2>/dev/null
if [ -b /dev/nullb0 ]; then
	refuses "a zoned backing device" "zoned" "0 2097152 pcache $CACHE /dev/nullb0"
else
	skip "a zoned backing device" "null_blk has no zones here"
fi
must dmsetup create small --noudevsync --table "0 $((300 * 2048)) linear $CACHE 0"
must dmsetup mknodes
refuses "a cache device under 512 MiB" "512 MiB|small" "$(line /dev/mapper/small "$B")"
must remove small

read_only_table() {
	mark_log
	! dmsetup create refused --noudevsync --readonly --table "$(line $CACHE "$B")" && logged "pcache.*read-only"
}
ok "a read-only table" read_only_table
remove refused 2>/dev/null

blank() { cmp -n $((64 << 20)) $CACHE /dev/zero; }
ok "none of them wrote to the cache device" blank
unchanged() { [ "$(digest "$B")" = "$backing_before" ]; }
ok "none of them wrote to the backing device" unchanged
ok "none of them left a reference on the module" sh -c '[ "$(cat /sys/module/dm_pcache/refcnt)" = 0 ]'

# A table that is loaded and never resumed.
must dmsetup create idle --notable --noudevsync
must dmsetup load idle --table "$(line $CACHE "$B")"
says_inactive() { dmsetup status --inactive idle | grep -q "Inactive"; }
ok "a table that is loaded and not resumed says Inactive" says_inactive
sleep 1
must remove idle
ok "a table that is never resumed stores nothing on the cache device" blank
ok "a table that is never resumed stores nothing on the backing device" unchanged

# Media that is not blank.
foreign() { # WHERE NAME: 8 bytes of somebody else's at that offset
	must wipe_cache
	printf 'somebody' | dd of=$CACHE bs=8 seek=$(($1 / 8)) conv=notrunc,fsync status=none
	refuses "$2" "blank|belongs|zero its first" "$(line $CACHE "$B")"
	kept=$(dd if=$CACHE bs=8 skip=$(($1 / 8)) count=1 status=none)
	ok "$2: it is left alone" [ "$kept" = somebody ]
}
foreign 0 "a boot block in front"
foreign $((0x1008)) "a foreign magic in the superblock"
foreign $((0x4000)) "bytes where the tails would be"
foreign $((127 * 1024)) "bytes at the end of the first 128 KiB"
must wipe_cache

# Good lines.
accepted() {
	must wipe_cache
	create good "$1" && dmsetup table good >/tmp/printed && remove good
}
ok "no option at all" accepted "$(line $CACHE "$B")"
ok "an option count of 0" accepted "$(line $CACHE "$B" 0)"
ok "cache_mode writeback" accepted "$(line $CACHE "$B" 2 cache_mode writeback)"
ok "crc is read as data_crc" accepted "$(line $CACHE "$B" 2 crc false)"
ok "all options, in any order" accepted "$(line $CACHE "$B" 6 writeback_order strict data_crc false cache_mode writeback)"
ok "a table shorter than the backing device" accepted "0 $((N - 8)) pcache $CACHE $B"
ok "the module can be unloaded" rmmod dm_pcache
done_testing
