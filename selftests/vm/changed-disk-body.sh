# SPDX-License-Identifier: GPL-2.0
#
# changed-disk-body.sh - what is on a disk is made, and changed behind the cache by its own tools. Sourced behind
# lib.sh.
#
# For each kind of content:
#   make_KIND DEVICE    puts it there, within the first 400 MiB
#   change_KIND DEVICE  changes it as its users do, and nothing by hand
HALF=$((512 << 20)) # from here on nothing but the tests' own data
MNT=/mnt/disk
mkdir -p $MNT /run/lvm /run/lock/lvm /run/cryptsetup /etc/lvm
printf 'devices { use_devicesfile = 0 obtain_device_list_from_udev = 0 }\nactivation { udev_sync = 0 udev_rules = 0 }\n' >/etc/lvm/lvm.conf

small_fs() { mkfs.ext4 -q -F "$@" "$MADE" 320m; }
make_ext4_label() { MADE=$1 && small_fs; }
change_ext4_label() { tune2fs -L other "$1"; }
make_ext4_mount() { MADE=$1 && small_fs; }
change_ext4_mount() { mount -t ext4 "$1" $MNT && touch $MNT/was-here && umount $MNT; }
make_ext4_resize() { MADE=$1 && small_fs; }
change_ext4_resize() { resize2fs -f "$1" 360m; }
make_xfs_label() { mkfs.xfs -q -f -d size=320m "$1"; }
change_xfs_label() { xfs_db -x -c "label other" "$1"; }
make_xfs_mount() { mkfs.xfs -q -f -d size=320m "$1"; }
change_xfs_mount() { mount -t xfs "$1" $MNT && touch $MNT/was-here && umount $MNT; }
make_btrfs_label() { mkfs.btrfs -q -f -b 320m "$1"; }
change_btrfs_label() { btrfs filesystem label "$1" other; }
make_btrfs_mount() { mkfs.btrfs -q -f -b 320m "$1"; }
change_btrfs_mount() { mount -t btrfs "$1" $MNT && touch $MNT/was-here && umount $MNT; }
make_swap_label() { mkswap "$1" 200000; }
change_swap_label() { swaplabel -L other "$1"; }
luks() { printf secret | cryptsetup -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 "$@"; }
make_luks_key() { luks luksFormat --type luks2 "$1" -; }
change_luks_key() {
	printf secret >/tmp/key1 && printf more >/tmp/key2 &&
		cryptsetup -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file /tmp/key1 luksAddKey "$1" /tmp/key2
}
make_luks_label() { luks luksFormat --type luks2 "$1" -; }
change_luks_label() { cryptsetup -q config --label other "$1"; }
make_lvm_uuid() { pvcreate -q -y -ff "$1"; }
change_lvm_uuid() { pvchange -q -u "$1"; }
# The disk shows the same label: LVM takes neither of two, unless a filter leaves it one (admin-guide.md).
make_lvm_tag() {
	mlt_filter='devices { global_filter = [ "a|^/dev/mapper/|", "r|.*|" ] }'
	pvcreate -q -y -ff --config "$mlt_filter" "$1" && vgcreate -q --config "$mlt_filter" vg "$1"
}
change_lvm_tag() { vgchange -q --addtag other vg; }
make_gpt_add() { echo "size=100M" | sfdisk -q --no-reread --no-tell-kernel -X gpt "$1"; }
change_gpt_add() { echo "size=100M" | sfdisk -q --no-reread --no-tell-kernel -a "$1"; }
make_gpt_name() { make_gpt_add "$1"; }
change_gpt_name() { sgdisk -c 1:other "$1" >/dev/null; }

# ---- one life
disk_writes() { # sectors: a FLUSH, which every activation sends, counts as a request of none
	awk '{ print $7 }' "/sys/block/${BACKING#/dev/}/stat"
}
wipe_start() { # so that no kind finds what another one left
	dd if=/dev/zero of="$BACKING" bs=1M count=8 oflag=direct conv=notrunc status=none
}
# So much at once that most of it is still dirty when the removal halts write-back: the disk is slow.
dirty_half() {
	fio --name=dirty --filename=$DEV --offset=$HALF --size=64m --rw=randwrite --bs=4k --ioengine=libaio --iodepth=32 \
		--direct=1 --number_ios=8000 --randrepeat=0 >/tmp/fio.out 2>&1
}
# Made through the cache; read, so that clean data of it is cached, too; then removed, clean or dirty.
first_life() { # KIND clean|dirty
	wipe_start && wipe_cache && open_cache && "make_$1" $DEV && sync &&
		dd if=$DEV of=/tmp/start bs=128k count=1 iflag=direct status=none && drains 60 || return 1
	if [ "$2" = dirty ]; then
		dirty_half && ! drained || return 1
	fi
	close_cache
}
start_differs() { # of the first 128 KiB of a device from what they were through the cache
	dd if="$1" of=/tmp/start.now bs=128k count=1 iflag=direct status=none && ! cmp -s /tmp/start /tmp/start.now
}
shows_the_disk() { # through the cache
	dd if="$BACKING" of=/tmp/disk.now bs=1M count=4 iflag=direct status=none &&
		dd if=$DEV of=/tmp/dev.now bs=1M count=4 iflag=direct status=none && cmp /tmp/disk.now /tmp/dev.now
}
accepts() { # and drops all that was cached
	mark_log
	open_cache && logged "backing device was changed behind the cache" && logged "all cached data is dropped"
}

changed_when_clean() { # KIND
	must first_life "$1" clean
	must "change_$1" "$BACKING"
	must start_differs "$BACKING"
	ok "$1: a clean cache is taken, and the kernel log says that its data was dropped" accepts
	ok "$1: what the cache shows is what the tool wrote" shows_the_disk
	close_cache
}

changed_when_dirty() { # KIND
	must first_life "$1" dirty
	must "change_$1" "$BACKING"
	refuses "$1: a cache with dirty data is refused, and the sentence names the block" \
		"was changed behind the cache, which holds dirty data.*block [0-9]+ differs" "$(table_line $CACHE "$BACKING")"
	ok "$1: what the tool wrote is still there" start_differs "$BACKING"
}
