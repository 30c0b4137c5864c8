# SPDX-License-Identifier: GPL-2.0
#
# slow-disk.sh - a null_blk device whose requests take an exact time. Sourced behind lib.sh.
#
# slow_disk MIB NANOSECONDS DEPTH: makes /dev/nullb0, memory-backed, with a volatile write cache: every read, write
#   and FLUSH takes so long, DEPTH at once. Exact in a guest whose clock counts instructions.
# remove_slow_disk: gives its memory back.
# disk_writes: writes that it has completed.
SLOW=/dev/nullb0

slow_disk() {
	modprobe -q -C /dev/null configfs
	modprobe -q -C /dev/null null_blk nr_devices=0 || return 1
	[ -d /sys/kernel/config/nullb ] || mount -t configfs none /sys/kernel/config || return 1
	sd_dir=/sys/kernel/config/nullb/nullb0
	mkdir $sd_dir &&
		echo "$1" >$sd_dir/size && echo "$2" >$sd_dir/completion_nsec && echo 2 >$sd_dir/irqmode &&
		echo "$3" >$sd_dir/hw_queue_depth && echo 1 >$sd_dir/memory_backed && echo 64 >$sd_dir/cache_size &&
		echo 1 >$sd_dir/power || return 1
	echo 0 >/sys/block/nullb0/queue/wbt_lat_usec 2>/dev/null
	[ -b $SLOW ]
}

remove_slow_disk() {
	echo 0 >/sys/kernel/config/nullb/nullb0/power && rmdir /sys/kernel/config/nullb/nullb0
}

disk_writes() {
	awk '{ print $5 }' /sys/block/nullb0/stat
}

uptime_cs() { # hundredths of a second
	awk '{ printf "%d\n", $1 * 100 }' /proc/uptime
}

# within CENTISECONDS CMD...: succeeds, and in that time
within() {
	wi_limit=$1
	shift
	wi_start=$(uptime_cs)
	"$@"
	wi_status=$?
	wi_took=$(($(uptime_cs) - wi_start))
	echo "status $wi_status after $((wi_took * 10)) ms"
	[ $wi_status = 0 ] && [ $wi_took -le "$wi_limit" ]
}
