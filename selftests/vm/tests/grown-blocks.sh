# SPDX-License-Identifier: GPL-2.0
#
# grown-blocks.sh - the backing device comes back with logical blocks of 4096 bytes, as a 4Kn member
# makes an array: what is cached in whole blocks is served, other clean data is read from the disk,
# dirty data refuses the device, and the way on that the sentence names leads on.
#
# guest: --memory memmap:512M --disk 256M,serial=backing --cpus 2 --timeout 300
# check: 6.12
# long: 6.1
. /test/lib.sh

DISK=$BACKING
must modprobe loop
# The disk as it is, behind a loop device with blocks of 512 or 4096 bytes.
attach() { # BLOCK
	BACKING=$(losetup -f) && losetup -b "$1" "$BACKING" "$DISK" &&
		[ "$(blockdev --getss "$BACKING")" = "$1" ]
}
detach() { losetup -d "$BACKING"; }
table_of() { table_line $CACHE "$BACKING"; }

must attach 512
must open_cache
must write_pattern whole $DEV $((1 << 20)) 65536
must write_pattern part $DEV $(((2 << 20) + 512)) 512
must write_pattern parts $DEV $(((3 << 20) + 1536)) 9728
ok "clean data in blocks of 512 bytes" drains 60
must close_cache
must detach
must attach 4096
mark_log
ok "the device comes back with larger blocks and is taken" open_cache
ok "the log says that some clean data is ignored" logged "logical blocks of 4096 bytes"
ok "whole blocks are right" reads_pattern whole $DEV $((1 << 20)) 65536
# dd's own reads are of whole blocks here.
around() { # SEED OFFSET BYTES: inside of the blocks around it
	a_from=$(($2 / 4096 * 4096)) a_end=$((($2 + $3 + 4095) / 4096 * 4096))
	pattern "$1" "$3" >/tmp/want
	dd if=$DEV of=/tmp/blocks bs=4096 skip=$((a_from / 4096)) count=$(((a_end - a_from) / 4096)) iflag=direct status=none &&
		dd if=/tmp/blocks of=/tmp/got bs=512 skip=$((($2 - a_from) / 512)) count=$(($3 / 512)) status=none && cmp /tmp/want /tmp/got
}
ok "a block with one cached sector in it is read" around part $(((2 << 20) + 512)) 512
ok "and those with several" around parts $(((3 << 20) + 1536)) 9728
must write_pattern block $DEV $((2 << 20)) 4096
ok "it can be written over" reads_pattern block $DEV $((2 << 20)) 4096
ok "and is written back" drains 60
must close_cache
must detach

# Dirty data: writes to the disk fail until the device has been removed.
under() { # DEVICE or error: what /dev/mapper/backing shows
	u_table="0 $(sectors "$DISK") linear $1 0"
	[ "$1" != error ] || u_table="0 $(sectors "$DISK") error"
	dmsetup suspend --noflush --nolockfs --noudevsync backing && dmsetup load backing --table "$u_table" &&
		dmsetup resume --noudevsync backing
}
must attach 512
LOOP=$BACKING
must dmsetup create backing --noudevsync --table "0 $(sectors "$DISK") linear $LOOP 0"
must dmsetup mknodes
BACKING=/dev/mapper/backing
must open_cache
must under error
must write_pattern dirty $DEV $(((5 << 20) + 512)) 512 conv=fsync
must close_cache
must dmsetup remove backing
BACKING=$LOOP
must detach
must attach 4096
refuses "dirty data in smaller blocks" "blocks of 512 bytes.*4096 bytes by now: put a loop device" "$(table_of)"
# The way on.
must detach
must attach 512
must open_cache
ok "with the old block size over it all is written back" drains 60
must close_cache
must detach
must attach 4096
ok "then the device is taken" open_cache
ok "and has what was dirty" around dirty $(((5 << 20) + 512)) 512

# A reload: an array under the device gets a member with larger blocks.
must close_cache
LARGE=$BACKING
must attach 512
SMALL=$BACKING
must dmsetup create backing --noudevsync --table "0 $(sectors "$DISK") linear $SMALL 0"
must dmsetup mknodes
BACKING=/dev/mapper/backing
must open_cache
must write_pattern again $DEV $(((7 << 20) + 1024)) 1536
ok "clean again" drains 60
reload() {
	dmsetup suspend --noudevsync pcache && under "$LARGE" && dmsetup load pcache --table "$(table_of)" &&
		[ "$(blockdev --getss "$BACKING")" = 4096 ] && dmsetup resume --noudevsync pcache
}
ok "a reload with larger blocks is taken" reload
ok "and reads them right" around again $(((7 << 20) + 1024)) 1536
must close_cache
must dmsetup remove backing
must losetup -d "$SMALL"
must losetup -d "$LARGE"
ok "the module can be unloaded" rmmod dm_pcache
done_testing
