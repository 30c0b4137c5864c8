# SPDX-License-Identifier: GPL-2.0
#
# latency.sh - completion latency of 4 KiB requests, counted in instructions: pcache beside
# dm-linear over the same persistent memory (the floor for a device-mapper target) and dm-writecache.
#
#   scripts/guest selftests/vm/bench/latency.sh
#
# In an -icount guest one nanosecond is one instruction, so figures repeat to 1 % on any machine. One
# CPU, fio psync, direct I/O, a fixed number of requests over 128 MiB; the backing device is brd.
# guest: --icount --memory memmap:1G --guest-module brd --guest-module dm-writecache --timeout 300
. /test/lib.sh

RUN="--direct=1 --ioengine=psync --bs=4k --size=128m --number_ios=8000 --output-format=terse --terse-version=3"
modprobe -C /dev/null brd rd_nr=1 rd_size=262144 || give_up "no brd"
modprobe -C /dev/null dm-writecache || give_up "no dm-writecache"
BACKING=/dev/ram0
# brd allocates its pages at the first write.
must dd if=/dev/zero of=$BACKING bs=1M count=256 oflag=direct conv=notrunc status=none

field() { # FILE FIELD: mean completion latency in us, with decimals
	cut -d ';' -f "$2" "$1"
}

measure() { # NAME DEVICE
	fio --name=warm --filename="$2" --rw=write --bs=64k --size=128m --direct=1 --ioengine=psync >/dev/null
	sync
	fio --name=w --filename="$2" --rw=randwrite $RUN >/tmp/w
	fio --name=r --filename="$2" --rw=randread $RUN >/tmp/r
	fio --name=f --filename="$2" --rw=randwrite --fsync=1 $RUN >/tmp/f
	echo "# $1: 4 KiB write $(field /tmp/w 57) us, read hit $(field /tmp/r 16) us, write + fsync $(field /tmp/f 49) IOPS"
}

must create linear "0 262144 linear $CACHE 0"
measure dm-linear /dev/mapper/linear
must remove linear
must wipe_cache
must create wc "0 $(sectors $BACKING) writecache p $BACKING $CACHE 4096 0"
measure dm-writecache /dev/mapper/wc
must remove wc
must wipe_cache
must open_cache
measure pcache $DEV
ok "all three were measured" close_cache
done_testing
