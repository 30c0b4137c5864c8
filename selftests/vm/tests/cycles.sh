# SPDX-License-Identifier: GPL-2.0
#
# cycles.sh - a cache is created, used, verified and removed again and again; nothing is left behind.
#
# CYCLES: how often (20). slub_debug=U: the slabs know who allocated each object, so that those which this module's calls
# have made, the workqueues' and bio pools' included, are counted alone and exactly. What is too large for the slabs shows in the free memory.
# guest: --memory memmap:516M --disk 128M,serial=backing --cpus 1 --timeout 900 --append slub_debug=U
# check: 6.12
# long: 6.1
. /test/lib.sh

CYCLES=${CYCLES:-20}
WARM=3

cycle() { # NUMBER
	open_cache || return 1
	fio --name=cycle --filename=$DEV --size=100m --io_size=2m --rw=randrw --bsrange=4k-64k --ioengine=libaio --iodepth=16 \
		--direct=1 --randseed="$1" --verify=crc32c --verify_fatal=1 --do_verify=1 --fsync=32 >/tmp/fio.out 2>&1 || {
		tail -n 20 /tmp/fio.out
		return 1
	}
	# What one cycle wrote the next one reads.
	[ "$1" = 1 ] || reads_pattern "cycle $(($1 - 1))" $DEV $((104 << 20)) 262144 || return 1
	write_pattern "cycle $1" $DEV $((104 << 20)) 262144 && close_cache
}
cycles() { # FROM TO
	for n in $(seq "$1" "$2"); do
		cycle "$n" || {
			echo "cycle $n failed"
			return 1
		}
	done
}

settle() { # what is free is given back, so that the counts are exact
	sync
	echo 3 >/proc/sys/vm/drop_caches
	sleep 0.5
	for s in /sys/kernel/slab/*/shrink; do
		echo 1 >"$s" 2>/dev/null
	done
}
ours() { # how many objects of the slabs, and areas of vmalloc, were made for this module and are not freed
	settle
	# What others keep for good: 6.1 forgets the names in debugfs of every slab that goes, other modules' too
	# (dm-snapshot loaded and unloaded shows it), while slub_debug is on; and the numbers of all files of sysfs lie in one tree.
	cat /sys/kernel/debug/slab/*/alloc_traces | awk -v RS= '
		/debugfs_slab_add/ || (/radix_tree_node_alloc/ && /kernfs_new_node/) { next }
		/\[dm_pcache\]/' >/tmp/ours.traces
	awk '/^ *[0-9]+ / { n += $1 } END { print n + 0 }' /tmp/ours.traces >/tmp/ours.slab
	grep -cE ' pc_[a-z_]+\+| vmap_pages\+' /proc/vmallocinfo >/tmp/ours.vmalloc
	echo $(($(cat /tmp/ours.slab) + $(cat /tmp/ours.vmalloc)))
}
free_kib() {
	settle
	awk '/^MemFree:/ { print $2 }' /proc/meminfo
}

must mount -t debugfs none /sys/kernel/debug
[ -r /sys/kernel/debug/slab/kmalloc-64/alloc_traces ] || give_up "this kernel does not say who allocated an object"
must cycles 1 $WARM
must open_cache
open=$(ours) # looking into sysfs keeps a few names there in memory, so `before` is taken behind it
must close_cache
before=$(ours)
free_before=$(free_kib)
echo "# objects of ours: $before before, $open while a cache is open"
ok "what a cache that is open holds is seen" [ "$open" -gt $((before + CYCLES)) ]
ok "$CYCLES cycles of create, random I/O with verification and remove" cycles $((WARM + 1)) $((WARM + CYCLES))
after=$(ours)
free_after=$(free_kib)
ok "not one object is left of them" [ "$after" -le "$before" ]
[ "$after" -le "$before" ] || head -n 100 /tmp/ours.traces | sed 's/^/# /'
echo "# objects of ours: $after after; memory free: $free_before KiB before, $free_after KiB after"
# One cache takes megabytes beside the slabs.
ok "nor memory beside the slabs" [ $((free_before - free_after)) -lt 16384 ]
ok "the module can be unloaded" rmmod dm_pcache
done_testing
