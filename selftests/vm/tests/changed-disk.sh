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

ok "the module can be unloaded" rmmod dm_pcache
done_testing
