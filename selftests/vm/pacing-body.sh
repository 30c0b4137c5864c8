# SPDX-License-Identifier: GPL-2.0
#
# pacing-body.sh - what pacing.sh and pacing-long.sh do, for RUN seconds of the guest's time each: 4 KiB
# random writes at more than the pace at which the backing device takes them. What is asked is fio's
# longest wait, not a percentile: a stall hides behind p99.9.
. /test/lib.sh
LONGEST_MS=50

# null_blk as in a slow disk: each write and each flush takes 1 ms, DEPTH of them at once, with a volatile cache.
slow_disk() { # NAME DEPTH
	sd=/sys/kernel/config/nullb/$1
	mkdir "$sd" || return 1
	echo 768 >"$sd/size"
	echo 1 >"$sd/memory_backed"
	echo 2 >"$sd/irqmode"
	echo 1000000 >"$sd/completion_nsec"
	echo "$2" >"$sd/hw_queue_depth"
	echo 1024 >"$sd/cache_size"
	echo 1 >"$sd/power" || return 1
	echo 0 >"/sys/block/$1/queue/wbt_lat_usec"
}
modprobe -C /dev/null null_blk nr_devices=0 || give_up "no null_blk"
[ -d /sys/kernel/config/nullb ] || must mount -t configfs none /sys/kernel/config

writes() { # SEED FIO-OPTION...: in RUN seconds; one line of fio's figures in /tmp/fio.terse
	w_seed=$1
	shift
	fio --name=w --filename=$DEV --rw=randwrite --bs=4k --direct=1 --randseed="$w_seed" --time_based \
		--output-format=terse --terse-version=3 "$@" >/tmp/fio.terse
}

figures() { # NAME: field 49 of terse version 3 is the rate, 80 the longest time of a write in us
	iops=$(cut -d ';' -f 49 /tmp/fio.terse)
	longest=$(cut -d ';' -f 80 /tmp/fio.terse | cut -d . -f 1)
	echo "# $1: $iops writes a second, the longest took $longest us; $(dmsetup status pcache)"
}
short() { # the longest wait; a 0 would mean that fio's format has changed
	echo "$longest us"
	[ "$longest" -gt 0 ] && [ "$longest" -lt $((LONGEST_MS * 1000)) ]
}

use() { # DISK
	BACKING=/dev/$1
	must wipe_cache
	must open_cache
}

full() { # so that writes wait for space: no more than a quarter of the segments is free
	[ "$(status_field 4)" -ge 22 ]
}

must slow_disk nullb0 128
use nullb0
ok "one writer over 128 writes in a millisecond" writes 1 --runtime="$RUN" --ioengine=psync
figures "QD 1, as fast as it goes"
ok "none of its writes waited for $LONGEST_MS ms" short
ok "the cache was full meanwhile" full
must close_cache

must rmdir /sys/kernel/config/nullb/nullb0 # its memory
must slow_disk nullb1 8
use nullb1
# Dirty as fast as it goes, then at twice the 8,000 writes in a second that the disk takes.
ok "a burst over 8 writes in a millisecond" writes 2 --runtime=3 --ioengine=libaio --iodepth=32
figures "QD 32, a burst"
ok "none of its writes waited for $LONGEST_MS ms, while it filled the cache" short
ok "twice the pace of the disk" writes 3 --runtime="$RUN" --ioengine=libaio --iodepth=32 --rate_iops=16000
figures "QD 32, twice the pace"
ok "none of its writes waited for $LONGEST_MS ms, with a full cache" short
ok "the cache was full then" full
paced() { # the disk's own pace: the cache neither keeps the disk idle nor takes what it cannot hold
	echo "$iops writes a second"
	[ "$iops" -ge 5000 ] && [ "$iops" -le 12000 ]
}
ok "the writes went at the disk's pace" paced
must close_cache
ok "the module can be unloaded" rmmod dm_pcache
done_testing
