# SPDX-License-Identifier: GPL-2.0
#
# reference.sh - dumps images for the reference reader. Run by selftests/vm/host/reference.
#
# First boot: mixed writes, removal with dirty data, dump (a.*); then more writes and a power cut. Second
# boot: dump before the cache is opened (b.*). What the cache reads as goes beside it as *.expected.
# guest: --memory nvdimm --disk 64M,serial=backing,iops=60 --cpus 1 --timeout 300
. /test/lib.sh

dump() { # FROM TO-SERIAL
	dd if="$1" of="$(disk "$2")" bs=1M oflag=direct iflag=direct conv=notrunc status=none
}

mixed() { # SEED OFFSET: sizes from 512 bytes, overwrites, a FLUSH every 32 writes
	fio --name=mixed --filename=$DEV --offset="$2" --size=24m --rw=randwrite --bsrange=512-64k --blockalign=512 \
		--ioengine=libaio --iodepth=8 --direct=1 --randseed="$1" --fsync=32 --io_size=24m --norandommap
}

if [ "$BOOT" = 1 ]; then
	must write_pattern old "$BACKING" 0 $((64 << 20))
	must open_cache
	must mixed 1 0
	must mixed 2 $((16 << 20))
	must write_pattern fua $DEV $((3 << 20)) 65536 oflag=dsync
	must dump $DEV a.expected
	must write_pattern last $DEV $((50 << 20)) $((1 << 20))
	must write_pattern last "$(disk a.expected)" $((50 << 20)) $((1 << 20))
	ok "the cache can be removed with dirty data" close_cache
	must dump $CACHE a.cache
	must dump "$BACKING" a.backing
	must open_cache
	ok "it reads the same when it is opened again" same $DEV "$(disk a.expected)"
	mixed 3 $((8 << 20)) >/tmp/fio.out 2>&1 &
	sleep 1
	power_cut 0 0.2
fi
must dump $CACHE b.cache
must dump "$BACKING" b.backing
ok "after a power cut the cache opens" open_cache
ok "what it reads can be dumped" dump $DEV b.expected
must close_cache
done_testing
