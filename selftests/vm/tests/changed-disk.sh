# SPDX-License-Identifier: GPL-2.0
#
# changed-disk.sh - the backing disk is changed behind the cache by the tools that people use, while the cache is
# removed: old content is never served, and dirty data never goes over what was written meanwhile.
#
# guest: --memory memmap:516M --mem 1500M --disk 700M,serial=backing,iops=600 --timeout 300
# guest: --tool tune2fs --tool mkfs.xfs --tool xfs_db --tool mkswap --tool swaplabel --tool cryptsetup --tool pvcreate
# guest: --tool vgcreate --tool pvchange --tool sgdisk --guest-module xfs --guest-module algif_skcipher
# check: 6.12
# long: 6.1
. /test/lib.sh
. /test/changed-disk-body.sh

for kind in ext4_label xfs_mount swap_label luks_label lvm_uuid gpt_name; do
	changed_when_clean $kind
done
for kind in ext4_label gpt_add; do
	changed_when_dirty $kind
done

# A bootloader's installer writes boot code into the first sector, and the cache has dirty data: the disk fails its
# writes while that is made, so that it stays dirty through the removal.
DISK=$BACKING MB=$((1 << 20))
good="0 $(sectors "$DISK") linear $DISK 0"
failing="0 $(sectors "$DISK") flakey $DISK 0 0 60 1 error_writes"
must wipe_cache
must create backing "$good"
BACKING=/dev/mapper/backing
read_only="$(table_line $CACHE $BACKING changed_backing read_only)"
boot_code() { # SEED DEVICE OFFSET: the 440 bytes in front of the partition table
	pattern "$1" 440 | dd of="$2" bs=440 count=1 seek="$3" oflag=seek_bytes conv=notrunc,fsync status=none
}
boot_code_is() { # SEED DEVICE
	pattern "$1" 440 >/tmp/boot && dd if="$2" bs=512 count=1 iflag=direct status=none | cmp -n 440 - /tmp/boot
}
must open_cache
must write_pattern clean $DEV 0 65536 conv=fsync
must boot_code old $DEV 0
must drains 60
must swap backing "$failing" --nolockfs
mark_log
must write_pattern dirty $DEV $((2 * MB)) 65536 conv=fsync
must wait_until 30 logged "next try in 6400 ms" # longer than what follows takes
must swap backing "$good" --nolockfs
must close_cache
must boot_code new $BACKING 0
refuses "boot code: a cache with dirty data is refused, and the sentence names the block and the way to look" \
	"holds dirty data.*block 0 differs.*changed_backing read_only" "$(table_line $CACHE $BACKING)"
before=$(digest $BACKING)
ok "boot code: with changed_backing read_only the device opens" create pcache "$read_only"
is_read_only() { dmsetup status pcache | grep ' ro$'; }
ok "boot code: STATUS says that it is read-only" is_read_only
ok "boot code: what the disk has now is read" boot_code_is new $DEV
ok "boot code: dirty data is read from the cache" reads_pattern dirty $DEV $((2 * MB)) 65536
fails "boot code: a write fails" write_pattern other $DEV $((4 * MB)) 4096
unchanged() { [ "$(digest $BACKING)" = "$before" ]; }
ok "boot code: nothing was written to the disk" unchanged
ok "boot code: accept_loss goes on with both" dmsetup message pcache 0 accept_loss
ok "boot code: the dirty data is on the disk" reads_pattern dirty $BACKING $((2 * MB)) 65536
ok "boot code: and so is the boot code" boot_code_is new $BACKING
ok "boot code: the cache takes writes again" write_pattern other $DEV $((4 * MB)) 4096
ok "boot code: which are written back" drains 60
must close_cache
must remove backing

ok "the module can be unloaded" rmmod dm_pcache
done_testing
