# SPDX-License-Identifier: GPL-2.0
#
# bad-blocks.sh - bad blocks of the cache device, known before it is opened: in clean data, in dirty
# data, in metadata.
#
# guest: --memory memmap:512M --disk 512M,serial=backing --cpus 1 --timeout 400
# check: 6.12 6.1
. /test/lib.sh

bad() { # SECTOR COUNT: until a block write clears it, if the device can
	echo "$1 $2" >/sys/block/pmem0/badblocks
}
page_of() { # SEED PAGE BYTES: where this page of a pattern lies on the cache device, in sectors
	pattern "$1" "$3" | dd bs=4096 skip="$2" count=1 iflag=fullblock status=none | findpage $CACHE >/tmp/found || return 1
	echo $(($(cat /tmp/found) / 512))
}
reads_page() { # SEED OFFSET BYTES PAGE: reads right
	pattern "$1" "$3" | dd bs=4096 skip="$4" count=1 iflag=fullblock status=none >/tmp/want
	dd if=$DEV bs=4096 skip=$(($2 / 4096 + $4)) count=1 iflag=direct status=none >/tmp/got && cmp /tmp/want /tmp/got
}
all_but() { # SEED OFFSET BYTES PAGE: the pages around it read right, this one fails
	p=$(($4 - 2))
	while [ $p -le $(($4 + 2)) ]; do
		if [ $p = "$4" ]; then
			! dd if=$DEV bs=4096 skip=$(($2 / 4096 + p)) count=1 iflag=direct status=none >/dev/null 2>&1
		else
			reads_page "$1" "$2" "$3" $p
		fi || {
			echo "page $p"
			return 1
		}
		p=$((p + 1))
	done
}

# A backing device that can be made to fail its writes.
DISK=$BACKING
good="0 $(sectors "$DISK") linear $DISK 0"
failing="0 $(sectors "$DISK") flakey $DISK 0 0 60 1 error_writes"
must dmsetup create backing --noudevsync --table "$good"
must dmsetup mknodes
BACKING=/dev/mapper/backing

MB=$((1 << 20))
must open_cache
must write_pattern clean $DEV $MB 65536 conv=fsync
must wait_until 30 drained
mark_log
must swap backing "$failing" --nolockfs
must write_pattern dirty $DEV $((2 * MB)) 65536 conv=fsync
must wait_until 30 logged "next try in 6400 ms" # longer than what follows takes
must swap backing "$good" --nolockfs
must close_cache
clean=$(page_of clean 3 65536) || give_up "clean data is not found on the cache device"
dirty=$(page_of dirty 5 65536) || give_up "dirty data is not found on the cache device"
must bad $((clean + 3)) 1 # in the middle of its page
must bad "$dirty" 8

mark_log
ok "a cache with bad blocks in clean and in dirty data opens" open_cache
ok "the log says how much of it is lost" logged "1 pages of clean data .* 1 pages of dirty data are lost"
ok "clean data on a bad block is read from the backing device" reads_pattern clean $DEV $MB 65536
ok "of dirty data only the bad block fails" all_but dirty $((2 * MB)) 65536 5
rest() { reads_pattern dirty $DEV $((2 * MB)) $((5 * 4096)); }
ok "the pages in front of it read right" rest
left() { reads_pattern dirty "$BACKING" $((2 * MB)) $((5 * 4096)) && [ "$(status_field 7)" != "$(status_field 8)" ]; }
ok "the rest of it is written back, and what is lost not forgotten" wait_until 30 left
ok "it still fails then" all_but dirty $((2 * MB)) 65536 5
must close_cache
must open_cache
ok "and in the next life" all_but dirty $((2 * MB)) 65536 5
ok "a new write heals it" write_pattern new $DEV $((2 * MB + 5 * 4096)) 4096 conv=fsync
ok "it reads back" reads_pattern new $DEV $((2 * MB + 5 * 4096)) 4096
ok "and is written back" drains 30
ok "the backing device holds it" reads_pattern new "$BACKING" $((2 * MB + 5 * 4096)) 4096
must close_cache

# Metadata: superblock, a cache_info with its extended superblock, a segment_info, the generations of a
# segment, and a free segment.
segment() { echo $((40 + $1 * 32768)); } # its first sector
must bad 8 1
must bad 16 1
must bad $(($(segment 5) + 8)) 1
must bad $(($(segment 6) + 16)) 8
must bad $(($(segment 7) + 1000)) 1
mark_log
ok "with bad blocks in metadata the cache opens" open_cache
ok "the log says what stands for the superblock" logged "superblock .*the extended superblock"
sed 's/^/# bad blocks left: /' /sys/block/pmem0/badblocks
ok "clean data is there" reads_pattern clean $DEV $MB 65536
ok "and what was healed" reads_pattern new $DEV $((2 * MB + 5 * 4096)) 4096
fill() {
	fio --name=fill --filename=$DEV --offset=16m --size=400m --rw=randwrite --bs=256k --io_size=560m --ioengine=libaio --iodepth=8 \
		--direct=1 --verify=crc32c --do_verify=1 --verify_fatal=1
}
ok "it takes more than it can hold, and verifies" fill
ok "it is written back" drains 60
must close_cache
ok "it opens again" open_cache
ok "clean data is still there" reads_pattern clean $DEV $MB 65536
must close_cache
must remove backing
ok "the module can be unloaded" rmmod dm_pcache
done_testing
