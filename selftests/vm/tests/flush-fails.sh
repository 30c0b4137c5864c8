# SPDX-License-Identifier: GPL-2.0
#
# flush-fails.sh - a backing device takes all writes and fails every FLUSH: nothing that it was sent counts as
# written back until a FLUSH has gone well.
#
# `faulty` is the disk `backing` by a way on which FLUSHes fail.
# guest: --memory memmap:512M --disk 128M,serial=backing --disk twin=backing,serial=faulty --cpus 1 --timeout 200
# check: 6.12 6.1
. /test/lib.sh

sectors=$(sectors "$BACKING")
good="0 $sectors linear $BACKING 0"
bad="0 $sectors linear $(disk faulty) 0"
open() { create pcache "$(table_line $CACHE /dev/mapper/disk)"; }

must create disk "$bad"
must write_pattern any /dev/mapper/disk $((8 << 20)) 4096 # QEMU has nothing to flush otherwise
fails "FLUSHes of that disk fail" dd if=/dev/null of=/dev/mapper/disk conv=notrunc,fsync status=none
mark_log
fails "over it a cache is not activated" open
ok "the kernel log says why" logged "pcache.*failed a FLUSH"
must swap disk "$good" --nolockfs
must open
must swap disk "$bad" --nolockfs
dirty_tail=$(status_field 8) key_tail=$(status_field 9)
mark_log
must write_pattern kept $DEV 0 $((1 << 20))
ok "a FLUSH of the cached device asks it for nothing and succeeds" sync $DEV
ok "the failure is reported, and that nothing is lost" wait_until 20 logged "pcache.*write-back failed.*nothing is lost"
ok "what was sent is there" wait_until 20 reads_pattern kept "$BACKING" 0 $((1 << 20))
log_since >/tmp/log.first
sleep 8
ok "dirty tail has not moved" [ "$(status_field 8)" = "$dirty_tail" ]
ok "nor key tail" [ "$(status_field 9)" = "$key_tail" ]
quiet() { [ "$(log_since | grep -c pcache)" -le 12 ]; }
ok "it is not tried in a hot loop" quiet
ok "the data is still served" reads_pattern kept $DEV 0 $((1 << 20))
must swap disk "$good" --nolockfs
ok "when FLUSHes go well it drains" drains 60
moved() { [ "$(status_field 8)" != "$dirty_tail" ]; }
ok "and dirty tail has moved" moved

must swap disk "$bad" --nolockfs
must write_pattern later $DEV $((2 << 20)) 65536
mark_log
ok "the device can be removed" close_cache
ok "and says that this was no clean stop" logged "not stopped cleanly: .*FLUSH"
must swap disk "$good" --nolockfs
mark_log
ok "it opens again" open
ok "what was not flushed below counts as dirty" logged "recovered [0-9]+ keys \([1-9][0-9]* dirty\)"
ok "and is read" reads_pattern later $DEV $((2 << 20)) 65536
ok "it is written back" drains 60
ok "the backing device holds it" reads_pattern later "$BACKING" $((2 << 20)) 65536
must close_cache
ok "the module can be unloaded" rmmod dm_pcache
done_testing
