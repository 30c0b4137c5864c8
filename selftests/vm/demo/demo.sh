# SPDX-License-Identifier: GPL-2.0
#
# demo.sh - the guest's part of `make demo`: shows each command as a user would type it.
#
# First boot: device, file system, tree, fio side by side, status, write load, power cut. Second boot:
# recovery, fsck, checksums. A point per claim, so that the runner judges it like any other test.
. /test/lib.sh

BARE=$(disk bare)
TREE=$(disk tree)
dmesg -n 4

run() { # LINE: shows a command line, then runs it; the demo ends where one fails
	echo
	echo "# $1"
	eval "$1" >/tmp/setup.out 2>&1 || give_up "that failed"
	cat /tmp/setup.out
}

fio_line() { # KIND FILE: one 4 KiB random job, each write followed by fdatasync; result in iops.KIND
	echo "fio --name=$1 --filename=$2 --size=64m --rw=randwrite --bs=4k --fdatasync=1 --runtime=8 --time_based" \
		"--ioengine=psync --output-format=terse --terse-version=3"
}

show_fio() { # NAME FILE: field 49 is the IOPS of writes, each of them made durable before the next
	awk -F';' -v n="$1" '{ printf "%-12s %6d durable writes/s, %8.2f ms each\n", n, $49, 1000 / $49 }' "$2"
}

first_boot() {
	run "dmsetup create pcache --table \"$(table_line $CACHE "$BACKING")\""
	dmsetup mknodes
	run "mkfs.ext4 -q $DEV"
	run "mkdir -p /mnt/fast /mnt/bare /mnt/src; mount $DEV /mnt/fast"
	run "mount -o ro $TREE /mnt/src"
	start=$(cut -d' ' -f1 /proc/uptime)
	run "cp -r /mnt/src/. /mnt/fast/tree"
	run "sync -f /mnt/fast/tree"
	awk -v a="$start" -v b="$(cut -d' ' -f1 /proc/uptime)" -v n="$(wc -l </test/tree.sha256)" \
		'BEGIN { printf "%d files copied and on stable storage in %.1f s\n", n, b - a }'

	echo
	echo "The same job on the bare disk (an ext4 on a second disk of the same kind) and on pcache:"
	run "mkfs.ext4 -q $BARE; mount $BARE /mnt/bare"
	fio_line "bare" /mnt/bare/job | sed 's/^/# /'
	$(fio_line "bare" /mnt/bare/job) >/tmp/fio.bare || give_up "fio on the bare disk"
	fio_line "fast" /mnt/fast/job | sed 's/^/# /'
	$(fio_line "fast" /mnt/fast/job) >/tmp/fio.fast || give_up "fio on the cached disk"
	show_fio "bare disk" /tmp/fio.bare
	show_fio "$TARGET" /tmp/fio.fast
	umount /mnt/bare

	run "dmsetup status pcache"
	[ "$TARGET" != pcache ] || echo "(sb_flags segs n_segs segs_used gc_percent cache_flags key_head dirty_tail key_tail)"
	echo
	echo "A write load, and in the middle of it the power goes:"
	echo "# while :; do dd if=/dev/urandom of=/mnt/fast/load.\$i bs=64k count=64 conv=fsync; done &"
	load &
	sleep 4
	echo "$(ls /mnt/fast | grep -c '^load') files written, the next one is on its way"
	power_cut 0 0.3
}

load() {
	i=0
	while :; do
		i=$((i + 1))
		dd if=/dev/urandom of=/mnt/fast/load.$i bs=64k count=64 conv=fsync status=none
	done
}

second_boot() {
	run "dmsetup create pcache --table \"$(table_line $CACHE "$BACKING")\""
	dmsetup mknodes
	dmesg | grep -E "$TARGET.*recovered" | tail -n 1
	if [ "$TARGET" = pcache ]; then
		ok "the kernel log says how many keys were recovered, and in how many ms" \
			sh -c 'dmesg | grep -Eq "pcache.*recovered [0-9]+ keys.* in [0-9]+ ms"'
	fi
	run "mkdir -p /mnt/fast; mount $DEV /mnt/fast; umount /mnt/fast"
	run "fsck.ext4 -f -n $DEV"
	point "ok" "the file system is whole"
	run "mount -o ro $DEV /mnt/fast"
	echo
	echo "# cd /mnt/fast/tree && sha256sum -c tree.sha256"
	cd /mnt/fast/tree || give_up "the tree is gone"
	ok "every file has its checksum" sha256sum --quiet -c /test/tree.sha256
	cd /
	run "umount /mnt/fast; dmsetup remove pcache"
	done_testing
}

if [ "$BOOT" = 1 ]; then
	first_boot
else
	second_boot
fi
