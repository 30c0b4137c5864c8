# SPDX-License-Identifier: GPL-2.0
#
# many-cpus.sh - the smallest cache, 31 segments, where 64 CPUs are possible and more of them are at work than it
# has segments for data heads of their own.
#
# guest: --memory memmap:512M --disk 1G,serial=backing --cpus 6 --possible-cpus 64 --mem 1200M --timeout 400
# check: 6.12
# long: 6.1
. /test/lib.sh

must dmsetup create backing --noudevsync --table "0 $(sectors "$BACKING") linear $BACKING 0"
must dmsetup mknodes
BACKING=/dev/mapper/backing

ok "64 CPUs are possible" [ "$(cat /sys/devices/system/cpu/possible)" = 0-63 ]
ok "six of them are at work" [ "$(nproc)" = 6 ]
must open_cache
ok "the cache has 31 segments" [ "$(status_field 2)" = 31 ]

on_each_cpu() { # OPTION...: a writer bound to each CPU, on a range of its own
	fio --name=w --filename=$DEV --size=100m --offset_increment=100m --numjobs=6 --thread --cpus_allowed=0-5 \
		--cpus_allowed_policy=split --direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite --bsrange=4k-64k --blockalign=4k \
		--verify=crc32c --verify_fatal=1 "$@"
}
ok "writers on all of them write more than it holds, and all of it verifies" on_each_cpu --do_verify=1

dmsetup suspend --noflush --nolockfs --noudevsync backing
fio --name=full --filename=$DEV --size=900m --numjobs=6 --thread --cpus_allowed=0-5 --cpus_allowed_policy=split \
	--direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite --bs=64k --norandommap --randrepeat=0 --time_based --runtime=3600 \
	>/tmp/full.out 2>&1 &
fio_pid=$!
full() { # nothing moves any more
	before=$(dmsetup status pcache) && sleep 2 && [ "$before" = "$(dmsetup status pcache)" ] && [ "$(status_field 4)" -ge 25 ]
}
ok "with its backing device stopped it fills up" wait_until 120 full
dmsetup status pcache | sed 's/^/# /'
flush() { timeout 20 sync $DEV; }
ok "a FLUSH of the full cache completes" flush
dmsetup resume --noudevsync backing
moves() { [ "$before" != "$(dmsetup status pcache)" ]; }
ok "it goes on when the backing device does" wait_until 30 moves
kill $fio_pid
wait $fio_pid
ok "writers on all of them verify again" on_each_cpu --do_verify=1
ok "it drains" drains 120
must close_cache
ok "the backing device alone has all of it" fio --name=w --filename="$BACKING" --size=100m --offset_increment=100m --numjobs=6 \
	--thread --direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite --bsrange=4k-64k --blockalign=4k --verify=crc32c --verify_fatal=1 \
	--verify_only
ok "the module can be unloaded" rmmod dm_pcache
done_testing
