# SPDX-License-Identifier: GPL-2.0
#
# fills.sh - what is read once is cached: the second read does not touch the backing device, what is
# cached is never out of date and never written back.
#
# guest: --memory memmap:512M --disk 1G,serial=backing --cpus 2 --timeout 300
# check: 6.12
# long: 6.1
. /test/lib.sh

stat_file=/sys/block/${BACKING##*/}/stat
disk_reads() { awk '{ print $3 }' $stat_file; }  # sectors
disk_writes() { awk '{ print $7 }' $stat_file; } # sectors

# The backing device can be stopped, and a part of it can fail.
DISK=$BACKING
whole="0 $(sectors "$DISK") linear $DISK 0"
must dmsetup create backing --noudevsync --table "$whole"
must dmsetup mknodes
BACKING=/dev/mapper/backing
replace() { # TABLE on standard input
	dmsetup reload backing && dmsetup suspend --noflush --nolockfs --noudevsync backing && dmsetup resume --noudevsync backing
}
stop_backing() { dmsetup suspend --noflush --nolockfs --noudevsync backing; }
start_backing() { dmsetup resume --noudevsync backing; }

must write_pattern old "$BACKING" $((1 << 20)) $((8 << 20))
must open_cache

pattern old $((8 << 20)) >/tmp/old
piece() { # BYTES: what is read and must come out, a piece of that size behind four of them
	size=$1
	at=$(((1 << 20) + size * 4))
	dd if=/tmp/old of=/tmp/want bs="$size" skip=4 count=1 status=none
}
read_it() {
	dd if=$DEV of=/tmp/got bs="$size" skip=$at count=1 iflag=direct,skip_bytes,fullblock status=none && cmp /tmp/want /tmp/got
}
# A fill goes in behind the answer: the read right behind it may still find it under way.
quiet() {
	before=$(disk_reads)
	read_it && [ "$(disk_reads)" = "$before" ]
}
for size in 512 4096 24576 262144 1048576; do
	piece $size
	ok "a read of $size bytes that misses is right" read_it
	ok "then a read of $size bytes does not touch the backing device" wait_until 5 quiet
done

must stop_backing
ok "what was read is served while the backing device stands still" timeout 20 dd if=$DEV of=/tmp/got \
	bs=1M skip=5 count=1 iflag=direct status=none
ok "and is right" cmp /tmp/want /tmp/got
must start_backing

# Clean data is never written back, and dirty tail passes it.
writes=$(disk_writes)
ok "a cache of clean data drains" drains 30
ok "and nothing was written to the backing device" [ "$(disk_writes)" = "$writes" ]

# Written after it was read.
must write_pattern new $DEV $((5 << 20)) 4096
ok "a write over cached data is read" reads_pattern new $DEV $((5 << 20)) 4096
must close_cache
must open_cache
ok "and is read after a removal" reads_pattern new $DEV $((5 << 20)) 4096
piece 262144
ok "what was read is cached in the next life, too" quiet
ok "the write is on the backing device after write-back" drains 30
ok "and nowhere else" reads_pattern new "$BACKING" $((5 << 20)) 4096

# A part of the backing device that cannot be read.
bad=$(((200 << 20) / 512))
n=$(sectors "$DISK")
must write_pattern weak "$DISK" $((200 << 20)) 65536
printf '0 %d linear %s 0\n%d 8 error\n%d %d linear %s %d\n' $bad "$DISK" $bad $((bad + 8)) $((n - bad - 8)) "$DISK" $((bad + 8)) |
	replace >/tmp/setup.out 2>&1 || give_up "the backing device cannot be replaced"
read_at() { dd if=$DEV of=/dev/null bs=4096 skip="$1" count=1 iflag=direct status=none; }
fails "a read fails where the backing device fails" read_at $((200 << 8))
ok "the blocks behind it are read" read_at $(((200 << 8) + 1))
ok "the cache goes on" [ "$(dmsetup status pcache | cut_field 4)" != Fail ]
echo "$whole" | replace >/tmp/setup.out 2>&1 || give_up "the backing device cannot be replaced"
ok "when the backing device is well again all of it is read" reads_pattern weak $DEV $((200 << 20)) 65536

# Reads and writes of the same blocks from two CPUs, while the cache evicts.
must dmsetup message pcache 0 gc_percent 0
fio --name=readers --filename=$DEV --offset=300m --size=64m --rw=randread --bsrange=512-64k --blockalign=512 --ioengine=libaio \
	--iodepth=16 --direct=1 --time_based --runtime=600 >/tmp/readers.out 2>&1 &
readers=$!
ok "writes verify while others read the same blocks and the cache evicts them" fio --name=writer --filename=$DEV --offset=300m \
	--size=64m --rw=randwrite --bsrange=512-32k --blockalign=512 --ioengine=libaio --iodepth=8 --direct=1 --verify=crc32c \
	--do_verify=1 --verify_fatal=1 --io_size=32m --fsync=64
turns() {
	i=0
	while [ $i -lt 20 ]; do
		dmsetup suspend --noudevsync pcache && dmsetup resume --noudevsync pcache || return 1
		i=$((i + 1))
	done
}
ok "20 suspends and resumes among reads that miss" turns
ok "and the readers have seen no error" kill -0 $readers
quiesced() {
	dmsetup suspend --noudevsync pcache || return 1
	before=$(disk_reads)/$(disk_writes)
	sleep 1
	[ "$(disk_reads)/$(disk_writes)" = "$before" ]
}
ok "nothing touches the backing device behind a suspend" quiesced
must dmsetup resume --noudevsync pcache
kill $readers
wait $readers 2>/dev/null
must dmsetup message pcache 0 gc_percent 70

# More is read than the cache holds.
must dd if=$DEV of=/dev/null bs=1M iflag=direct status=none
dmsetup status pcache | sed 's/^/# /'
tail_is_quiet() {
	before=$(disk_reads)
	dd if=$DEV of=/dev/null bs=64k skip=16000 count=16 iflag=direct status=none && [ "$(disk_reads)" = "$before" ]
}
ok "a cache full of clean data takes what is read last" wait_until 10 tail_is_quiet
like_the_disk() { # OFFSET_MIB MIB
	dd if=$DEV of=/tmp/a bs=1M skip="$1" count="$2" iflag=direct status=none &&
		dd if="$BACKING" of=/tmp/b bs=1M skip="$1" count="$2" iflag=direct status=none && cmp /tmp/a /tmp/b
}
ok "what was read reads as the backing device does" like_the_disk 0 16
ok "and so does what was written" like_the_disk 300 64

must close_cache
must remove backing
ok "the module can be unloaded" rmmod dm_pcache
done_testing
