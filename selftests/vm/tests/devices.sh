# SPDX-License-Identifier: GPL-2.0
#
# devices.sh - kinds of devices: 4Kn, partitions, other targets below; and ones that fail.
#
# guest: --memory memmap:1200M --disk 256M,serial=backing --disk 256M,serial=large,block=4096 --cpus 1 --timeout 150
# check: 6.12
# long: 6.1
. /test/lib.sh

# A backing device with 4 KiB sectors.
LARGE=$(disk large)
must create pcache "$(table_line $CACHE "$LARGE")"
node=$(dmsetup info -c --noheadings -o blkdevname pcache)
ok "over a 4Kn disk the logical block is 4096 bytes" [ "$(cat "/sys/block/$node/queue/logical_block_size")" = 4096 ]
fails "a 512-byte write to it fails" write_pattern small $DEV 512 512
ok "4 KiB writes succeed" write_pattern big $DEV 40960 20480
ok "they read back" reads_pattern big $DEV 40960 20480
ok "no discards are offered yet" [ "$(cat "/sys/block/$node/queue/discard_max_bytes")" = 0 ]
ok "the device says that it has a volatile cache to flush" grep -q "write back" "/sys/block/$node/queue/write_cache"
must close_cache
must wipe_cache

# Partitions of persistent memory.
must sh -c "printf 'label: gpt\n2048,1126400\n1128448,1126400\n' | sfdisk -q --no-reread $CACHE"
must blockdev --rereadpt $CACHE
[ -b ${CACHE}p2 ] || give_up "no partitions on $CACHE"
must create one "$(table_line ${CACHE}p1 "$BACKING")"
must create two "$(table_line ${CACHE}p2 "$LARGE")"
ok "two partitions of one device are two caches" write_pattern p1 /dev/mapper/one 4096 $((1 << 20))
ok "both take writes" write_pattern p2 /dev/mapper/two 4096 $((1 << 20))
ok "the first reads back" reads_pattern p1 /dev/mapper/one 4096 $((1 << 20))
ok "the second reads back" reads_pattern p2 /dev/mapper/two 4096 $((1 << 20))
superblock() { dd if="$1" bs=4096 skip=1 count=1 status=none | dd bs=8 skip=1 count=1 status=none | od -An -tx8 | tr -d ' '; }
ok "the first superblock lies at 4 KiB of its partition" [ "$(superblock ${CACHE}p1)" = 65b05efa96c596ef ]
ok "the second superblock lies at 4 KiB of its partition" [ "$(superblock ${CACHE}p2)" = 65b05efa96c596ef ]
table_intact() { sfdisk -l $CACHE | grep -q "${CACHE}p2"; }
ok "the partition table is intact" table_intact
refuses "the whole device, while a cache is on a partition of it" "use|active|blank|belongs|busy" "$(table_line $CACHE "$BACKING")"
must remove one
must remove two
must create one "$(table_line ${CACHE}p1 "$BACKING")"
ok "a cache on a partition opens again" reads_pattern p1 /dev/mapper/one 4096 $((1 << 20))
must remove one

# Both as one striped volume: 281,600 pieces.
stripes="0 2252800 striped 2 8 ${CACHE}p1 0 ${CACHE}p2 0"
must create striped "$stripes"
must dd if=/dev/zero of=/dev/mapper/striped bs=128k count=1 oflag=direct conv=notrunc status=none
begin=$(uptime_s)
ok "a cache on a volume of 4 KiB stripes is made" create pcache "$(table_line /dev/mapper/striped "$LARGE")"
ok "in a few seconds" [ $(($(uptime_s) - begin)) -le 10 ]
ok "it takes writes" write_pattern striped $DEV 0 $((4 << 20))
ok "they read back" reads_pattern striped $DEV 0 $((4 << 20))
refuses "one of its partitions, while it is in use" "in use|is on the" "$(table_line ${CACHE}p1 "$BACKING")"
must close_cache
must create pcache "$(table_line /dev/mapper/striped "$LARGE")"
ok "it opens again" reads_pattern striped $DEV 0 $((4 << 20))
must close_cache
must remove striped
must wipe_cache
must blockdev --rereadpt $CACHE

# A linear target over persistent memory, not at its beginning.
must create pm "0 $((520 * 2048)) linear $CACHE $((600 * 2048))"
must dd if=/dev/zero of=/dev/mapper/pm bs=128k count=1 oflag=direct conv=notrunc status=none
if create pcache "$(table_line /dev/mapper/pm "$BACKING")" >/tmp/point.out 2>&1; then
	ok "a cache on a linear target takes writes" write_pattern lin $DEV 0 65536
	ok "they read back" reads_pattern lin $DEV 0 65536
	ok "its superblock lies at 4 KiB of the linear target" [ "$(superblock /dev/mapper/pm)" = 65b05efa96c596ef ]
	must close_cache
	must create pcache "$(table_line /dev/mapper/pm "$BACKING")"
	ok "it opens again" reads_pattern lin $DEV 0 65536
	must close_cache
else
	refuses "a linear target is refused with a sentence" "DAX|pmem|map" "$(table_line /dev/mapper/pm "$BACKING")"
fi
must remove pm

# A backing device that stands still for a while: what waits for it is no hung task. The knob's 3 s are
# the time after which one is reported, at the latest after twice that.
must wipe_cache
sectors=$(sectors "$BACKING")
good="0 $sectors linear $BACKING 0"
bad="0 $sectors flakey $BACKING 0 0 60 1 error_writes"
must create weak "$good"
must create pcache "$(table_line $CACHE /dev/mapper/weak)"
hung=/proc/sys/kernel/hung_task_timeout_secs
none_hung() { ! log_since | grep "blocked for more than"; }
none_blocked() { ! grep "^State:.*disk sleep" /proc/[0-9]*/status; }
mark_log
must dmsetup suspend --nolockfs --noudevsync weak
[ ! -e $hung ] || echo 3 >$hung
must write_pattern stalled $DEV 0 $((1 << 20))
sleep 8
fails "nothing is written back while the backing device is suspended" drained
ok "a worker that waits for it does not count as load" none_blocked
if [ -e $hung ]; then
	ok "and is not reported as hung" none_hung
	echo 60 >$hung
else
	skip "and is not reported as hung" "this kernel does not look for hung tasks"
fi
must dmsetup resume --noudevsync weak
ok "write-back goes on when the backing device does" drains 20

# One that fails its writes for a while.
must swap weak "$bad" --nolockfs
mark_log
must write_pattern kept $DEV 0 $((1 << 20))
ok "a failing write-back is reported" wait_until 20 logged "pcache.*(write-back|backing device)"
log_since >/tmp/log.first
sleep 3
quiet() { [ "$(log_since | grep -c pcache)" -le 10 ]; }
ok "and not in a hot loop" quiet
ok "the data is still served" reads_pattern kept $DEV 0 $((1 << 20))
must swap weak "$good" --nolockfs
ok "write-back goes on when the device works again" drains 60
ok "the backing device then holds the data" reads_pattern kept "$BACKING" 0 $((1 << 20))
must close_cache
must remove weak
ok "the module can be unloaded" rmmod dm_pcache
done_testing
