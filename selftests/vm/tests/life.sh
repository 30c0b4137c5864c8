# SPDX-License-Identifier: GPL-2.0
#
# life.sh - STATUS, TABLE, messages; suspend, resume, reload; one cache has one user.
#
# guest: --memory memmap:512M --disk 256M,serial=backing --disk 256M,serial=other --cpus 1 --timeout 150
# check: 6.12
# long: 6.1
. /test/lib.sh

must open_cache

nine_fields() {
	dmsetup status pcache
	dmsetup status pcache | grep -Eq \
		'^0 [0-9]+ pcache [0-9a-f]+ [0-9]+ [0-9]+ [0-9]+ [0-9]+ [0-9a-f]+ [0-9]+:[0-9]+ [0-9]+:[0-9]+ [0-9]+:[0-9]+ ?$'
}
ok "STATUS has mainline's nine fields" nine_fields
ok "STATUS counts the segments of the device" [ "$(status_field 2)" = 31 ]
ok "gc_percent is 70 at first" [ "$(status_field 5)" = 70 ]
ok "cache_flags say INIT_DONE and gc_percent 70" [ "$(status_field 6)" = 1182 ]

# Messages.
gc() { dmsetup message pcache 0 gc_percent "$@"; }
for good in 0 90 55; do
	ok "gc_percent $good is taken" gc $good
	ok "gc_percent $good is shown" [ "$(status_field 5)" = $good ]
done
for bad in 91 306 -1 "" +5 5x 0x10 "5 5" text 4294967296; do
	fails "gc_percent '$bad' is refused" gc "$bad"
done
fails "gc_percent without a number is refused" dmsetup message pcache 0 gc_percent
fails "gc_percent with two numbers is refused" dmsetup message pcache 0 gc_percent 5 6
mark_log
fails "an unknown message is refused" dmsetup message pcache 0 sing
ok "the refusal is explained in the kernel log" logged "pcache.*message"
ok "refused messages changed nothing" [ "$(status_field 5)" = 55 ]

# TABLE.
must write_pattern kept $DEV 65536 131072
printed=$(dmsetup table pcache)
ok "the device can be removed" close_cache
ok "the printed TABLE line loads again" create pcache "$printed"
ok "and prints itself" [ "$(dmsetup table pcache)" = "$printed" ]
ok "the data is still there" reads_pattern kept $DEV 65536 131072
ok "gc_percent is still there" [ "$(status_field 5)" = 55 ]

# Suspend and resume.
writes_seen() { awk '{ print $5, $7 }' "/sys/block/${BACKING#/dev/}/stat"; }
must write_pattern dirty $DEV $((8 << 20)) $((1 << 20))
ok "the device can be suspended" dmsetup suspend --noudevsync pcache
before=$(writes_seen)
sleep 2
ok "nothing touches the backing device while it is suspended" [ "$(writes_seen)" = "$before" ]
ok "STATUS answers while it is suspended" nine_fields
ok "it can be resumed" dmsetup resume --noudevsync pcache
ok "what was written before the suspend is there" reads_pattern dirty $DEV $((8 << 20)) $((1 << 20))
must write_pattern later $DEV $((16 << 20)) 65536
ok "it can be suspended without flushing" dmsetup suspend --noflush --noudevsync pcache
ok "and resumed" dmsetup resume --noudevsync pcache
ok "what was written before that is there" reads_pattern later $DEV $((16 << 20)) 65536

# Reload.
reload() {
	dmsetup load pcache --table "$1" && dmsetup suspend --noudevsync pcache && dmsetup resume --noudevsync pcache
}
ok "a reload of the same table succeeds" reload "$printed"
ok "the data is there after a reload" reads_pattern dirty $DEV $((8 << 20)) $((1 << 20))
ok "gc_percent survives a reload" [ "$(status_field 5)" = 55 ]
fails "a reload with another backing device is refused" dmsetup load pcache --table "$(table_line $CACHE "$(disk other)")"
dmsetup clear pcache >/dev/null 2>&1
ok "the device serves on after the refused reload" reads_pattern kept $DEV 65536 131072

under_load() { # reloads while fio verifies what it writes
	fio --name=load --filename=$DEV --offset=64m --size=32m --rw=randwrite --bs=4k --ioengine=libaio --iodepth=8 --direct=1 \
		--verify=crc32c --do_verify=1 >/tmp/fio.out 2>&1 &
	fio_pid=$!
	for i in 1 2 3; do
		reload "$printed" || return 1
		sleep 0.3
	done
	wait $fio_pid || { cat /tmp/fio.out; return 1; }
}
ok "reloads under load lose nothing" under_load

# One user.
refuses "a second device on the same cache" "active|use" "$(table_line $CACHE "$(disk other)")"
second_loaded() { # both loaded before either is active
	dmsetup create first --notable --noudevsync && dmsetup create second --notable --noudevsync || return 1
	dmsetup load first --table "$1" && dmsetup resume --noudevsync first || return 1
	if dmsetup load second --table "$2"; then
		! dmsetup resume --noudevsync second
	fi
}
must close_cache
ok "of two tables over one cache only one becomes active" second_loaded "$(table_line $CACHE "$BACKING")" "$(table_line $CACHE "$(disk other)")"
dmsetup remove --noudevsync second
dmsetup mknodes
ok "the active one still serves" reads_pattern kept /dev/mapper/first 65536 131072
must remove first
same_name_again() { open_cache && close_cache; }
ok "after that the cache opens as ever" same_name_again
ok "the module can be unloaded" rmmod dm_pcache
done_testing
