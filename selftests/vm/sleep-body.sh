# SPDX-License-Identifier: GPL-2.0
#
# sleep-body.sh - the machine goes to sleep over a full cache with a slow disk. ROUNDS: how often. Sourced behind
# lib.sh and slow-disk.sh.
#
# pm_test turns back at a stage: `freezer` behind the freezing of all tasks, `devices` behind the suspend of the
# devices. The kernel's trace events say what was sent to the disk in between. The disks are slow, so that the cache
# stays full. HOW: what comes of a hibernation, test_resume or a stage of pm_test. Expects a disk with the serial "swap".

must slow_disk 700 4000000 16
must mount -t tracefs none /sys/kernel/tracing
BACKING=$SLOW
TRACE=/sys/kernel/tracing
echo 1 >/sys/module/suspend/parameters/pm_test_delay # seconds

trace_on() {
	echo 0 >$TRACE/tracing_on
	echo >$TRACE/trace
	echo 4096 >$TRACE/buffer_size_kb
	echo 1 >$TRACE/events/power/suspend_resume/enable
	echo 1 >$TRACE/events/block/block_rq_issue/enable
	echo 1 >$TRACE/tracing_on
}
# What went to the disk while the kernel's threads were frozen.
sent_while_frozen() {
	echo 0 >$TRACE/tracing_on
	awk '/suspend_resume: freeze_processes\[0\] end/ { frozen = 1; seen = 1 }
		/suspend_resume: thaw_processes\[0\] begin/ { frozen = 0; thawed = 1 }
		/block_rq_issue/ && frozen { print }
		END { if (!seen || !thawed) print "no freezing in the trace" }' $TRACE/trace
}
quiet_while_frozen() {
	sent_while_frozen >/tmp/sent
	head -n 5 /tmp/sent
	[ ! -s /tmp/sent ]
}

# With requests of other kernel threads, which are not frozen, aside.
workers_quiet_while_frozen() {
	sent_while_frozen | grep -E "no freezing|\[kworker.*pcache" >/tmp/sent
	head -n 5 /tmp/sent
	[ ! -s /tmp/sent ]
}

load() { # NAME WHERE...: 16 writers until they are killed
	l_name=$1
	shift
	fio --name="$l_name" --rw=randwrite --bs=64k --norandommap --randrepeat=0 --size=680m --ioengine=sync --numjobs=16 \
		--thread --time_based --runtime=3600 "$@" >/tmp/"$l_name".out 2>&1 &
	fio_pid=$!
}
load_ends() {
	kill -INT $fio_pid
	wait $fio_pid
	! grep -q "error" /tmp/"$1".out || {
		cat /tmp/"$1".out
		return 1
	}
}
full() { # it cannot be fuller
	[ "$(status_field 4)" -ge "$(($(status_field 3) * 3 / 4))" ]
}
requests_done() {
	awk '{ print $1 + $5 }' "/sys/block/$NODE/stat"
}
goes_on() { # requests are completed again
	go_before=$(requests_done)
	wait_until 30 sh -c "[ \$(awk '{ print \$1 + \$5 }' /sys/block/$NODE/stat) -gt $go_before ]"
}
sleeps() { # STAGE
	echo "$1" >/sys/power/pm_test && echo mem >/sys/power/state
}

# ---- mem, under load on a full cache
must open_cache
NODE=$(dmsetup info -c --noheadings -o blkdevname pcache)
load writers --filename=$DEV --direct=1
must wait_until 120 full
i=1
while [ $i -le "$ROUNDS" ]; do
	stage=freezer
	[ $((i % 2)) = 1 ] || stage=devices
	trace_on
	# One second of it is pm_test's.
	ok "mem, stage $stage, succeeds within 10 s under load on a full cache (round $i of $ROUNDS)" within 1100 sleeps $stage
	echo "# $(tail -n 1 /tmp/point.out)"
	ok "nothing is sent to the disk while the kernel's threads are frozen (round $i)" quiet_while_frozen
	ok "the writers go on (round $i)" goes_on
	i=$((i + 1))
done
hibernate() { # HOW [STAGE]
	echo "${2:-none}" >/sys/power/pm_test && echo "$1" >/sys/power/disk && echo disk >/sys/power/state
}
mark_log
fails "hibernation is refused while the cache is in use" hibernate shutdown freezer
ok "the kernel log says why and names the device" logged "pcache: pcache \(dm-[0-9]+\): hibernation is refused"
ok "the writers go on after that" goes_on
ok "no writer met an error in all this" load_ends writers
must close_cache

# ---- mem, below a file system whose own threads write: they are told to freeze together with the workers
must wipe_cache
must open_cache
NODE=$(dmsetup info -c --noheadings -o blkdevname pcache)
must mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 $DEV
must mkdir -p /mnt/fs
must mount -t ext4 $DEV /mnt/fs
echo $((16 << 20)) >/proc/sys/vm/dirty_bytes # so that the sync which the kernel begins with is short
load files --directory=/mnt/fs --numjobs=4 --size=130m --fsync=64
must wait_until 120 full
i=1
while [ $i -le "$ROUNDS" ]; do
	trace_on
	ok "mem succeeds below a file system under load (round $i of $ROUNDS)" within 6000 sleeps freezer
	echo "# $(tail -n 1 /tmp/point.out)"
	ok "nothing of the workers is sent to the disk while they are frozen (round $i)" workers_quiet_while_frozen
	ok "the file system goes on (round $i)" goes_on
	i=$((i + 1))
done
ok "no writer met an error in all this" load_ends files
must umount /mnt/fs
must close_cache

# ---- disk, with a suspended cache; the slow disk's content is memory, and would be in the image
must remove_slow_disk
BACKING=$(disk backing)
SWAP=$(disk swap)
must mkswap "$SWAP"
must swapon "$SWAP"
must wipe_cache
must open_cache
must write_pattern kept $DEV 0 1048576
must dmsetup suspend --noudevsync pcache
before=$(awk '{ print $5 }' "/sys/block/${BACKING#/dev/}/stat")
mark_log
woken_from_image() { # what the kernel said behind the snapshot is not in its log
	logged "Need to copy" && ! log_since | grep -q "Image saving"
}
if [ "$HOW" = test_resume ]; then
	ok "hibernation with a suspended cache succeeds, and the image wakes up" hibernate test_resume
	ok "it came from the image" woken_from_image
else
	ok "hibernation with a suspended cache is let in (pm_test $HOW)" hibernate shutdown "$HOW"
fi
ok "nothing was written to the disk meanwhile" [ "$(awk '{ print $5 }' "/sys/block/${BACKING#/dev/}/stat")" = "$before" ]
ok "the cache can be resumed" dmsetup resume --noudevsync pcache
ok "and knows its data" reads_pattern kept $DEV 0 1048576
ok "and takes more" write_pattern more $DEV 1048576 1048576
must close_cache
must open_cache
ok "which is there in its next life" reads_pattern more $DEV 1048576 1048576
must close_cache
must swapoff "$SWAP"
ok "the module can be unloaded" rmmod dm_pcache
