# SPDX-License-Identifier: GPL-2.0
#
# data.sh - what was written is read; write-back, GC, a full cache, a file system.
#
# guest: --memory memmap:512M --disk 1G,serial=backing --cpus 2 --timeout 400
# check: 6.12
# long: 6.1
. /test/lib.sh

# The backing device can be stopped: the cache's I/O to it then waits.
must dmsetup create backing --noudevsync --table "0 $(sectors "$BACKING") linear $BACKING 0"
must dmsetup mknodes
BACKING=/dev/mapper/backing
stop_backing() { dmsetup suspend --noflush --nolockfs --noudevsync backing; }
start_backing() { dmsetup resume --noudevsync backing; }

# Old content of the backing device shows through where nothing was written.
must write_pattern old "$BACKING" $((1 << 20)) $((1 << 20))
must open_cache
ok "a miss reads the backing device" reads_pattern old $DEV $((1 << 20)) $((1 << 20))
must stop_backing
ok "a write completes while the backing device stands still" \
	timeout 20 dd if=/dev/zero of=$DEV bs=64k count=1 seek=64 oflag=direct conv=notrunc status=none
must write_pattern part $DEV $(((1 << 20) + 4608)) 1536
ok "a hit is served while the backing device stands still" reads_pattern part $DEV $(((1 << 20) + 4608)) 1536
# (GNU dd, a whole page: `timeout dd` is busybox's, which writes through the page cache, and a part of a
# page then reads the backing device first.)
ok "a FLUSH completes while the backing device stands still" write_pattern flushed $DEV $((8750 << 12)) 4096 conv=fsync
head_before=$(status_field 7)
must write_pattern staged $DEV $((2 << 20)) 512
moved() { [ "$(status_field 7)" != "$head_before" ]; }
ok "a write gets into the log without a FLUSH" wait_until 10 moved
must start_backing
partly() {
	pattern old $((1 << 20)) >/tmp/want
	pattern part 1536 | dd of=/tmp/want bs=512 seek=9 conv=notrunc status=none
	dd if=$DEV of=/tmp/got bs=1M skip=1 count=1 iflag=direct status=none
	cmp /tmp/want /tmp/got
}
ok "a partial hit is put together from both devices" partly

ok "FUA writes succeed" write_pattern fua $DEV $((3 << 20)) 65536 oflag=dsync
ok "they read back" reads_pattern fua $DEV $((3 << 20)) 65536

# Sizes, offsets and overwrites.
mixed() { # SEED RW
	fio --name=mixed --filename=$DEV --offset=16m --size=96m --rw="$2" --bsrange=512-128k --blockalign=512 --ioengine=libaio \
		--iodepth=16 --direct=1 --verify=crc32c --do_verify=1 --verify_fatal=1 --randseed="$1" --fsync=64 --io_size=48m
}
ok "mixed sizes at random places verify" mixed 1 randwrite
ok "and verify again when they are overwritten" mixed 2 randwrite
ok "two jobs on two CPUs verify" fio --filename=$DEV --rw=randwrite --bs=4k --ioengine=libaio --iodepth=16 --direct=1 \
	--verify=crc32c --verify_fatal=1 --name=a --offset=128m --size=24m --name=b --offset=160m --size=24m

# Write-back.
ok "an idle cache writes back" drains 30
must dd if=$DEV of=/tmp/region bs=1M skip=16 count=96 iflag=direct status=none
written_back() { dd if="$BACKING" bs=1M skip=16 count=96 iflag=direct status=none | cmp - /tmp/region; }
ok "the backing device then holds the same" written_back
rm -f /tmp/region

# GC.
must dmsetup message pcache 0 gc_percent 0
emptied() { [ "$(status_field 4)" -le 6 ]; }
must write_pattern last $DEV $((400 << 20)) 4096
ok "with gc_percent 0 an idle cache empties its segments" wait_until 30 emptied
dmsetup status pcache | sed 's/^/# /'
ok "what was evicted is read from the backing device" reads_pattern fua $DEV $((3 << 20)) 65536
must dmsetup message pcache 0 gc_percent 70

# Dirty data over a removal.
must write_pattern removed $DEV $((300 << 20)) $((4 << 20))
ok "the device can be removed right behind a write" close_cache
must open_cache
ok "what was written is there after it" reads_pattern removed $DEV $((300 << 20)) $((4 << 20))
ok "and so is old data" reads_pattern old "$DEV" $((1 << 20)) 4096

# Full.
ok "an idle cache writes back again" drains 30
must stop_backing
# Dirty while the backing device stands: GC cannot evict it, whatever else it evicts for space.
must write_pattern pinned $DEV $((310 << 20)) 65536
fio --name=fill --filename=$DEV --offset=448m --size=544m --rw=write --bs=1m --ioengine=libaio --iodepth=4 --direct=1 \
	--verify=crc32c --verify_fatal=1 --do_verify=1 >/tmp/fill.out 2>&1 &
fill=$!
usage() { status_field 4; }
stuck() {
	a=$(usage)
	sleep 1
	[ "$(usage)" = "$a" ] && [ "$a" -ge 24 ]
}
ok "a cache whose backing device stands still fills up" wait_until 60 stuck
dmsetup status pcache | sed 's/^/# /'
ok "writers wait then" kill -0 $fill
ok "reads of dirty data are served by a full cache" reads_pattern pinned $DEV $((310 << 20)) 65536
sync_device() { timeout 20 sync $DEV; }
ok "a FLUSH of a full cache completes" sync_device
must start_backing
filled() { wait $fill || { tail -n 20 /tmp/fill.out; return 1; }; }
ok "the waiting writes complete, and all of it verifies" filled

# A file system.
must mkfs.ext4 -q -E nodiscard $DEV
must mount $DEV /mnt
copy() { cp -a /lib /usr /mnt/ && sync -f /mnt/lib && umount /mnt; }
ok "a tree is copied into an ext4" copy
must close_cache
must open_cache
ok "fsck finds it whole after a removal" fsck.ext4 -f -n $DEV
must mount -o ro $DEV /mnt
compare() {
	(cd / && find lib usr -type f -exec sha256sum {} +) >/tmp/sums && cd /mnt && sha256sum --quiet -c /tmp/sums
}
ok "every file is as it was" compare
cd /
umount /mnt
must close_cache
must remove backing
ok "the module can be unloaded" rmmod dm_pcache
done_testing
