# SPDX-License-Identifier: GPL-2.0
#
# sustained.sh - random writes of three times the cache's size go through a 512 MiB cache and verify.
#
# guest: --memory memmap:512M --disk 1536M,serial=backing --cpus 2 --timeout 900
# check: 6.12
# long: 6.1
. /test/lib.sh

mark_log
must open_cache
# Each block once, in random order: what is read back comes from both devices.
ok "three times the cache's size is written and verifies" fio --name=w --filename=$DEV --size=1536m --rw=randwrite \
	--bsrange=4k-64k --blockalign=4k --direct=1 --ioengine=libaio --iodepth=32 --verify=crc32c --do_verify=1 --verify_fatal=1
dmsetup status pcache | sed 's/^/# /'
fails "no task hung" logged "blocked for more than|hung_task"
ok "an idle cache then writes back" drains 120
ok "and all of it is on the backing device alone" fio --name=w --filename="$BACKING" --size=1536m --rw=randwrite \
	--bsrange=4k-64k --blockalign=4k --direct=1 --ioengine=libaio --iodepth=32 --verify=crc32c --verify_only --verify_fatal=1
must close_cache
ok "the module can be unloaded" rmmod dm_pcache
done_testing
