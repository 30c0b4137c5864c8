# SPDX-License-Identifier: GPL-2.0
#
# polled.sh - io_uring with IOPOLL, over a cache that is smaller than what is written and a device that can be polled.
# And requests that must not wait, over a device that takes few segments.
#
# guest: --memory memmap:560M --disk 64M,serial=backing,segments=14 --cpus 2 --timeout 200
# check: 6.12
# long: 6.1
. /test/lib.sh

must modprobe -C /dev/null null_blk nr_devices=1 gb=1 bs=512 submit_queues=1 poll_queues=1 irqmode=2 completion_nsec=200000
NULL=/dev/nullb0
must create pcache "$(table_line $CACHE $NULL)"
node=$(dmsetup info -c --noheadings -o blkdevname pcache)

uring() { # NAME OPTION...: direct, 16 deep
	u_name=$1
	shift
	fio --name="$u_name" --filename=$DEV --size=800m --bs=64k --direct=1 --ioengine=io_uring --iodepth=16 --randrepeat=1 "$@"
}
ok "polled writes of more than the cache holds succeed" uring fill --rw=write --hipri=1
ok "plain ones do" uring again --rw=randwrite --hipri=0 --io_size=400m
ok "polled reads and writes together do" uring mixed --rw=randrw --hipri=1 --io_size=200m

# Suspended and resumed meanwhile.
uring beside --rw=randwrite --hipri=1 --io_size=600m >/tmp/fio.out 2>&1 &
fio_pid=$!
suspends() {
	for s_i in 1 2 3; do
		dmsetup suspend --noflush --noudevsync pcache && dmsetup resume --noudevsync pcache || return 1
		sleep 0.3
	done
}
ok "suspends without a flush beside polled writes" suspends
finished() { wait $fio_pid || { cat /tmp/fio.out; return 1; }; }
ok "and the writes succeed" finished

# NOWAIT without polling is honoured as ever: nothing waits, whatever it ends with.
echo "# $node: io_poll $(cat "/sys/block/$node/queue/io_poll")"
must close_cache
must wipe_cache

# A buffer of one segment, over a device that takes 14, when the pages that fills are read into lie apart.
must open_cache
echo 8 >/proc/sys/vm/nr_hugepages
nowait() { # DEVICE
	fio --name=nowait --filename="$1" --offset=32m --size=32m --rw=read --bs=256k --direct=1 --ioengine=pvsync2 --nowait=1 \
		--iomem=mmaphuge --hugepage-size=2m
}
ok "the disk takes few segments" [ "$(cat "/sys/block/${BACKING#/dev/}/queue/max_segments")" = 14 ]
must fio --name=shuffle --filename=$DEV --size=32m --rw=randread --bsrange=4k-256k --direct=1 --ioengine=libaio --iodepth=32
ok "it takes reads that must not wait" nowait "$BACKING"
ok "reads that must not wait do not fail for ever over it" nowait $DEV
must close_cache
ok "the module can be unloaded" rmmod dm_pcache
done_testing
