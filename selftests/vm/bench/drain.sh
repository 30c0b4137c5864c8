# SPDX-License-Identifier: GPL-2.0
#
# drain.sh - how fast dirty data gets to a slow disk: 8,192 random 4 KiB blocks in 768 MiB, and the same
# number dense, over null_blk with 1 ms writes and flushes, 128 at once, with and without a volatile write
# cache; pcache beside dm-writecache in the same guest, and the bare disk as the floor.
#
#   scripts/guest selftests/vm/bench/drain.sh
#
# A counting guest: times repeat to 1 %. dm-writecache drains by its message `flush`. pcache has no such
# message yet: a FLUSH makes all keys durable, and write-back then starts by itself after 100 ms without a
# request. So compare "end - first", and look at "first" for what the rule of idleness adds.
# guest: --icount --memory memmap:512M --mem 1600M --guest-module null_blk --guest-module dm-writecache --timeout 900
. /test/lib.sh

modprobe -C /dev/null null_blk nr_devices=0 || give_up "no null_blk"
modprobe -C /dev/null dm-writecache || give_up "no dm-writecache"
[ -d /sys/kernel/config/nullb ] || must mount -t configfs none /sys/kernel/config

slow_disk() { # NAME CACHE_MIB: null_blk allocates a page at its first write, so all of it is written once
	sd=/sys/kernel/config/nullb/$1
	mkdir "$sd" || return 1
	echo 768 >"$sd/size"
	echo 1 >"$sd/memory_backed"
	echo 2 >"$sd/irqmode"
	echo 1000000 >"$sd/completion_nsec"
	echo 128 >"$sd/hw_queue_depth"
	[ "$2" = 0 ] || echo "$2" >"$sd/cache_size"
	echo 1 >"$sd/power" || return 1
	echo 0 >"/sys/block/$1/queue/wbt_lat_usec"
	dd if=/dev/zero of="/dev/$1" bs=1M count=768 oflag=direct conv=notrunc,fsync status=none
}

dirty() { # DEVICE random|dense
	case $2 in
	random) d_how="--rw=randwrite --size=768m" ;;
	dense) d_how="--rw=randwrite --size=32m" ;;
	esac
	fio --name=d --filename="$1" $d_how --bs=4k --number_ios=8192 --direct=1 --ioengine=psync --end_fsync=1 >/dev/null
}

show() { # NAME: of the line in /tmp/watch
	read -r w_first w_end w_writes w_kib w_flushes </tmp/watch || return 1
	echo "# $1: first write after $w_first ms, end after $w_end ms, $w_writes writes, $w_kib KiB, $w_flushes flushes"
}

for cached in 1024 0; do
	must slow_disk nullb0 $cached
	BACKING=/dev/nullb0
	for where in random dense; do
		[ $where = random ] && size=768m || size=32m
		title="$where, write cache of the disk: $cached MiB"
		must iowatch nullb0 300 fio --name=f --filename=$BACKING --rw=randwrite --size=$size --bs=4k --number_ios=8192 \
			--direct=1 --ioengine=libaio --iodepth=128 --end_fsync=1
		cp /tmp/setup.out /tmp/watch.all && tail -n 1 /tmp/watch.all >/tmp/watch
		show "$title: bare disk, QD 128 (fio's start included)"
		must wipe_cache
		must create wc "0 $(sectors $BACKING) writecache p $BACKING $CACHE 4096 2 autocommit_time 100000"
		must dirty /dev/mapper/wc $where
		must iowatch nullb0 300 dmsetup message wc 0 flush
		tail -n 1 /tmp/setup.out >/tmp/watch
		show "$title: dm-writecache"
		must remove wc
		must wipe_cache
		must open_cache
		must dirty $DEV $where
		must iowatch nullb0 300 true
		tail -n 1 /tmp/setup.out >/tmp/watch
		show "$title: pcache"
		must close_cache
	done
	must rmdir /sys/kernel/config/nullb/nullb0
done
ok "all of them were measured" true
done_testing
