# SPDX-License-Identifier: GPL-2.0
#
# damage.sh - a damaged log makes the cache read-only; accept_loss leads out, with all that can be read.
#
# The backing device fails its writes while the cache is filled, so that everything stays dirty. Each write
# is one record of 64 bytes; the log of a new cache begins at 32 KiB of the device.
# guest: --memory memmap:600M --disk 64M,serial=backing --cpus 1 --timeout 150
# check: 6.12 6.1
. /test/lib.sh

LOG=32768
sectors=$(sectors "$BACKING")
good="0 $sectors linear $BACKING 0"
bad="0 $sectors flakey $BACKING 0 0 60 1 error_writes"
DISK=/dev/mapper/disk
open() { create pcache "$(table_line $CACHE $DISK)"; }
read_only() {
	dmsetup status pcache
	dmsetup status pcache | grep -Eq ' ro *$'
}
spoil() { # BYTE_OF_THE_CACHE_DEVICE: one byte becomes 0
	page=$(($1 / 4096 * 4096))
	dd if=$CACHE of=/tmp/page bs=4096 count=1 skip=$page iflag=direct,skip_bytes status=none &&
		printf '\000' | dd of=/tmp/page bs=1 seek=$(($1 - page)) conv=notrunc status=none &&
		dd if=/tmp/page of=$CACHE bs=4096 count=1 seek=$page oflag=direct,seek_bytes conv=notrunc status=none
}
events() { dmsetup info -c --noheadings -o events pcache; }
left() { # DEVICE: what the eight writes left, the fourth excepted
	for i in 0 1 2 4 5 6 7; do
		reads_pattern "w$i" "$1" $((i * 8192)) 4096 || return 1
	done
	reads_pattern old "$1" $((3 * 8192)) 4096
}

for i in 0 1 2 3 4 5 6 7; do
	must write_pattern old "$BACKING" $((i * 8192)) 4096
done
must create disk "$good"
must open
ok "a cache that is well raises no event" [ "$(events)" = 0 ]
must swap disk "$bad" --nolockfs
for i in 0 1 2 3 4 5 6 7; do
	must write_pattern "w$i" $DEV $((i * 8192)) 4096 oflag=dsync
done
fails "a running cache has nothing to accept" dmsetup message pcache 0 accept_loss
must close_cache
must swap disk "$good" --nolockfs
before=$(digest $DISK)
must spoil $((LOG + 3 * 64 + 8)) # the magic of the fourth record

mark_log
ok "a cache with a bad byte in its log is activated" open
ok "STATUS ends with ro" read_only
ok "the log says what to do" logged "pcache.*read-only: .*accept_loss"
ok "who waits for an event is told" [ "$(events)" -ge 1 ]
ok "what stands in front of the hole and behind it is read" left $DEV
fails "a write fails" write_pattern new $DEV 0 4096
ok "an fsync succeeds" dd if=/dev/null of=$DEV conv=notrunc,fsync status=none
fails "gc_percent is refused" dmsetup message pcache 0 gc_percent 40
ok "it can be suspended" dmsetup suspend --noudevsync pcache
ok "and resumed" dmsetup resume --noudevsync pcache
ok "it is read-only still" read_only
sleep 1
ok "nothing was stored on the backing device" [ "$(digest $DISK)" = "$before" ]
ok "it can be removed" close_cache
must open
ok "activated again it is as before" read_only
ok "and reads the same" left $DEV

must swap disk "$bad" --nolockfs
fails "accept_loss fails when the backing device does" dmsetup message pcache 0 accept_loss
ok "it is read-only after that" read_only
ok "and reads the same after that" left $DEV
must swap disk "$good" --nolockfs
told=$(events)
ok "accept_loss succeeds" dmsetup message pcache 0 accept_loss
ok "and is an event, too" [ "$(events)" -gt "$told" ]
fails "STATUS has no ro any more" read_only
ok "what was given up is logged" logged "pcache.*accept_loss: 7 keys"
ok "all that could be read is there" left $DEV
ok "and on the backing device" left $DISK
ok "writes succeed" write_pattern new $DEV $((1 << 20)) $((1 << 20)) oflag=dsync
ok "they read back" reads_pattern new $DEV $((1 << 20)) $((1 << 20))
ok "it can be removed again" close_cache
must open
fails "the new cache is not read-only" read_only
ok "what was written is there" reads_pattern new $DEV $((1 << 20)) $((1 << 20))
ok "and what was kept" left $DEV
must close_cache
must remove disk
ok "the module can be unloaded" rmmod dm_pcache
done_testing
