# SPDX-License-Identifier: GPL-2.0
#
# suspend-time.sh - suspend, noflush suspend and forced removal end within 1 s, whatever waits.
#
# The clock of this guest counts instructions, so that a second is a second on any machine.
# guest: --memory memmap:516M --icount --timeout 600 --mem 1500M
# check: 6.12 6.1
. /test/lib.sh
. /test/slow-disk.sh

LOW=/dev/mapper/low
must slow_disk 700 1000000 32
must create low "0 $(sectors $SLOW) linear $SLOW 0"
BACKING=$LOW

load() { # NAME: 32 writers until they are killed or meet an error
	fio --name="$1" --filename=$DEV --rw=randwrite --bs=64k --norandommap --randrepeat=0 --size=680m --ioengine=sync \
		--direct=1 --numjobs=32 --thread --time_based --runtime=3600 >/tmp/"$1".out 2>&1 &
	fio_pid=$!
}
in_flight() { awk '{ print $2 }' "/sys/block/$NODE/inflight"; }
# The cache is as full as pacing lets it become: its low-water mark is below a quarter. One of the 32 may
# just have been admitted.
all_wait() {
	[ "$(in_flight)" -ge 31 ] && [ "$(status_field 4)" -ge "$(($(status_field 3) * 3 / 4))" ]
}
all_wait_steadily() {
	all_wait && sleep 0.02 && all_wait
}
started() { # NAME: the cache is open and its load waits
	wipe_cache
	open_cache || return 1
	NODE=$(dmsetup info -c --noheadings -o blkdevname pcache)
	load "$1"
	wait_until 60 all_wait_steadily
}
load_ends() { # SECONDS: and not by itself
	wait_until "$1" sh -c "! kill -0 $fio_pid 2>/dev/null"
}
eio() { grep -q "Input/output error" /tmp/"$1".out; }
free_for_others() { # a new table over the same devices
	wipe_cache && create next "$(table_line $CACHE "$BACKING")" && remove next
}

# ---- suspend with 32 writers waiting
must started suspended
ok "suspend with 32 writers waiting takes at most 1 s" within 100 dmsetup suspend --noudevsync pcache
echo "# $(tail -n 1 /tmp/point.out)"
ok "nothing is in flight then" [ "$(awk '{ print $1 + $2 }' /sys/block/nullb0/inflight)" = 0 ]
writes=$(disk_writes)
sleep 1
ok "nothing is sent to the backing device while it is suspended" [ "$(disk_writes)" = "$writes" ]
must dmsetup resume --noudevsync pcache
must wait_until 60 all_wait_steadily
ok "noflush suspend with 32 writers waiting takes at most 1 s" within 100 dmsetup suspend --noflush --nolockfs --noudevsync pcache
echo "# $(tail -n 1 /tmp/point.out)"
must dmsetup resume --noudevsync pcache
must wait_until 60 all_wait_steadily
fails "no writer met an error in all this" eio suspended

# ---- forced removal of a full cache
forced() { # what the command itself says does not count while the load holds the device open
	dmsetup remove --force --noudevsync pcache
	dmsetup table pcache 2>/dev/null | grep -q " error" || ! dmsetup info pcache >/dev/null 2>&1
}
ok "remove --force of a full cache takes at most 1 s" within 100 forced
echo "# $(tail -n 1 /tmp/point.out)"
ok "the cache device is free for a new table at once" free_for_others
ok "the load ends" load_ends 20
ok "with an I/O error" eio suspended
remove pcache >/dev/null 2>&1

# ---- forced removal over a backing device that holds what is sent to it
must started held
must dmsetup suspend --nolockfs --noflush --noudevsync low
sleep 0.5 # what was in flight has ended; what is sent now is held
low_writes() { awk '{ print $5 }' "/sys/block/$(dmsetup info -c --noheadings -o blkdevname low)/stat"; }
writes=$(low_writes)
forced >/tmp/forced.out 2>&1 &
force_pid=$!
sleep 0.5
fails "it waits for what is in flight there" sh -c "! kill -0 $force_pid"
begun=$(uptime_cs)
must dmsetup resume --noudevsync low
wait $force_pid
forced_status=$?
took=$(($(uptime_cs) - begun))
echo "# the removal ended $((took * 10)) ms after the writes were let go"
ok "remove --force over a backing device that holds writes succeeds" [ $forced_status = 0 ]
ok "at most 1 s after they were let go" [ $took -le 100 ]
sent=$(($(low_writes) - writes))
echo "# $sent writes were let go"
# As many as write-back has in flight at most; the batch has many more.
ok "and no write was sent behind those that were held" [ $sent -le 256 ]
ok "the load ends" load_ends 20
ok "with an I/O error" eio held
remove pcache >/dev/null 2>&1
ok "the cache device is free for a new table" free_for_others

must remove low
ok "the module can be unloaded" rmmod dm_pcache
done_testing
