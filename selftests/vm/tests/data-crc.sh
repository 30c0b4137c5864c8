# SPDX-License-Identifier: GPL-2.0
#
# data-crc.sh - with data_crc a byte of cached data that changed is never handed out or written back.
#
# guest: --memory memmap:512M --disk 1G,serial=backing --cpus 2 --timeout 300
# check: 6.12
# long: 6.1
. /test/lib.sh

# The backing device can be made to fail: what is written then stays dirty.
good="0 $(sectors "$BACKING") linear $BACKING 0"
bad="0 $(sectors "$BACKING") error"
must dmsetup create backing --noudevsync --table "$good"
must dmsetup mknodes
BACKING=/dev/mapper/backing
becomes() { # TABLE
	dmsetup suspend --noflush --nolockfs --noudevsync backing && dmsetup load backing --table "$1" &&
		dmsetup resume --noudevsync backing
}

must open_cache data_crc true
table_says() { dmsetup table pcache | grep -q " data_crc $1\$"; }
ok "a new cache is made with data_crc" table_says true
flag() { [ $((0x$(status_field 6) & 1)) = "$1" ]; }
ok "STATUS has the flag" flag 1

mixed() { # SEED
	fio --name=mixed --filename=$DEV --offset=16m --size=64m --rw=randwrite --bsrange=512-1m --blockalign=512 --ioengine=libaio \
		--iodepth=8 --direct=1 --verify=crc32c --do_verify=1 --verify_fatal=1 --randseed="$1" --fsync=64 --io_size=48m
}
ok "mixed sizes at random places verify" mixed 1
ok "and verify again when they are overwritten" mixed 2
ok "small reads of large writes verify" fio --name=small --filename=$DEV --offset=96m --size=4m --rw=write --bs=1m \
	--direct=1 --ioengine=libaio --iodepth=4 --verify=crc32c --verify_interval=512 --do_verify=1 --verify_fatal=1
ok "two jobs of long writes on two CPUs verify" fio --filename=$DEV --rw=randwrite --bs=1m --ioengine=libaio --iodepth=8 \
	--direct=1 --verify=crc32c --verify_fatal=1 --name=a --offset=128m --size=48m --name=b --offset=192m --size=48m
ok "an owner who changes the pages of its writes can read what became of them" restless $DEV $((8 << 20)) 200

# Decay.
must becomes "$bad"
must write_pattern dirty $DEV $((300 << 20)) 65536
must cp /tmp/pattern.w /tmp/dirty
must dd if=/tmp/dirty of=/tmp/sector bs=512 skip=40 count=1 status=none
must flip $CACHE /tmp/sector 77
cat /tmp/setup.out | sed 's/^/# /'
one_read() { dd if=$DEV of=/dev/null bs=512 skip=$((((300 << 20) + $1) / 512)) count=$(($2 / 512)) iflag=direct status=none; }
fails "a changed byte of dirty data is not handed out" one_read $((40 * 512)) 512
fails "nor is what shares its key" one_read 16384 512
ok "the keys around it can be read" one_read 0 16384
ok "on both sides" one_read 32768 16384
must write_pattern healing $DEV $(((300 << 20) + 16384)) 16384
ok "a new write over it heals it" reads_pattern healing $DEV $(((300 << 20) + 16384)) 16384
must becomes "$good"
ok "all of it is written back then" drains 60

must write_pattern clean $DEV $((400 << 20)) 65536
must cp /tmp/pattern.w /tmp/clean
ok "clean data" drains 60
must dd if=/tmp/clean of=/tmp/sector bs=512 skip=40 count=1 status=none
must flip $CACHE /tmp/sector 500
cat /tmp/setup.out | sed 's/^/# /'
ok "a changed byte of clean data is read from the backing device" reads_pattern clean $DEV $((400 << 20)) 65536

# Removal.
must write_pattern removed $DEV $((500 << 20)) $((4 << 20))
front() { dd if=$DEV bs=1M count=128 iflag=direct status=none | sha256sum; }
before=$(front)
ok "the device can be removed" close_cache
refuses "data_crc false for a cache that was made with it" "made with data_crc true" "$(table_line $CACHE "$BACKING" data_crc false)"
must open_cache
ok "left out, the option takes the media's value" table_says true
ok "what was written before reads as before" [ "$(front)" = "$before" ]
ok "and what was dirty at the removal" reads_pattern removed $DEV $((500 << 20)) $((4 << 20))
line=$(dmsetup table pcache)
must close_cache
ok "the printed table loads again" create pcache "$line"
must close_cache

must wipe_cache
must open_cache crc false
ok "crc false makes a cache without" table_says false
must close_cache
refuses "data_crc true for a cache that was made without" "made with data_crc false" "$(table_line $CACHE "$BACKING" crc true)"
must remove backing
ok "the module can be unloaded" rmmod dm_pcache
done_testing
