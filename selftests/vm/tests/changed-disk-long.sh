# SPDX-License-Identifier: GPL-2.0
#
# changed-disk-long.sh - every kind of content that changed-disk.sh knows, with and without dirty data.
#
# guest: --memory memmap:516M --mem 1500M --disk 700M,serial=backing,iops=600 --timeout 900
# guest: --tool tune2fs --tool resize2fs --tool mkfs.xfs --tool xfs_db --tool mkfs.btrfs --tool btrfs --tool mkswap
# guest: --tool swaplabel --tool cryptsetup --tool pvcreate --tool vgcreate --tool pvchange --tool vgchange --tool sgdisk
# guest: --guest-module xfs --guest-module btrfs --guest-module algif_skcipher
# long: 6.12 6.1
. /test/lib.sh
. /test/changed-disk-body.sh

for kind in ext4_label ext4_mount ext4_resize xfs_label xfs_mount btrfs_label btrfs_mount swap_label luks_key luks_label \
	lvm_uuid lvm_tag gpt_add gpt_name; do
	changed_when_clean $kind
	changed_when_dirty $kind
done
ok "the module can be unloaded" rmmod dm_pcache
done_testing
