# SPDX-License-Identifier: GPL-2.0
#
# removal.sh - what goes while it is in use: the namespace of the cache device, and tables beside others.
# And who else may be on the devices.
#
# A stretch taken out of the memory makes two namespaces of it: pmem0 and pmem1.
#
# guest: --memory memmap:1784M --append memmap=16M%0x14b000000-12+2 --disk 256M,serial=backing --disk 64M,serial=other --cpus 2 --timeout 320
# check: 6.12
# long: 6.1
. /test/lib.sh

OTHER=$(disk other)
DRIVER=/sys/bus/nd/drivers/nd_pmem
NAMESPACE=$(basename "$(readlink -f "/sys/block/${CACHE#/dev/}/device")")

# ---- other targets on the devices
held="another device-mapper device is on the"
must create lv "0 65536 linear $BACKING 0"
refuses "a mapped device on the backing device" "$held backing device.*/sys/class/block/NAME/holders" "$(table_line $CACHE "$BACKING")"
must remove lv
must create lv "0 65536 linear $CACHE 0"
refuses "a mapped device on the cache device" "$held cache device.*/sys/class/block/NAME/holders" "$(table_line $CACHE "$BACKING")"
must remove lv
later() { # what is removed deferred may close its devices a little later
	for l_i in 1 2 3 4 5 6; do
		create lv "0 65536 linear $CACHE 0" || return 1
		sh -c 'exec 9</dev/mapper/lv; dmsetup remove --deferred --noudevsync lv'
		while dmsetup info lv >/dev/null 2>&1; do :; done
		open_cache && close_cache || return 1
	done
	dmsetup mknodes
}
ok "one that is removed deferred is no hindrance once it is gone" later
must wipe_cache
must sh -c "printf 'label: gpt\n2048,61440\n65536,61440\n' | sfdisk -q --no-reread $OTHER; blockdev --rereadpt $OTHER"
[ -b "${OTHER}2" ] || give_up "no partitions on $OTHER"
must create lv "0 61440 linear ${OTHER}1 0"
refuses "a mapped device on the backing partition" "$held backing device" "$(table_line $CACHE "${OTHER}1")"
part_beside() { create pcache "$(table_line $CACHE "${OTHER}2")" && close_cache; }
ok "one on another partition is no hindrance" part_beside
must remove lv
ok "when it is gone the partition is taken" create pcache "$(table_line $CACHE "${OTHER}1")"
ok "and reloaded" swap pcache "$(table_line $CACHE "${OTHER}1")"
must close_cache
must wipe_cache
loaded_twice() {
	dmsetup create one --notable --noudevsync && dmsetup create two --notable --noudevsync &&
		dmsetup load one --table "$1" && dmsetup load one --table "$1" && dmsetup load two --table "$1" &&
		dmsetup resume --noudevsync one && dmsetup load one --table "$1" && dmsetup resume --noudevsync one
}
ok "one table may be loaded twice, for one device and for two" loaded_twice "$(table_line $CACHE "$BACKING")"
must dmsetup remove --noudevsync two
must dmsetup remove --noudevsync one
must wipe_cache

# ---- names
MY='/tmp/my\x20disk' # how udev and dmsetup spell a blank
must ln -s "$BACKING" "$MY"
blanks() {
	create pcache "0 $(sectors "$BACKING") pcache $CACHE $MY" && blanks_line=$(dmsetup table pcache) && close_cache &&
		create pcache "$blanks_line" && [ "$(dmsetup table pcache)" = "$blanks_line" ] && close_cache
}
ok "a table with a blank in a name loads again as printed" blanks
numbers() { echo "$blanks_line" | grep " pcache $(number $CACHE) $(number "$MY") "; }
ok "which names the devices by number" numbers

# ---- the cache device grows
must wipe_cache
must create pm "0 $((560 * 2048)) linear $CACHE 0"
must create pcache "$(table_line /dev/mapper/pm "$BACKING")"
must write_pattern grown $DEV 65536 65536
must swap pm "0 $((620 * 2048)) linear $CACHE 0" --nolockfs --noflush
ok "a reload is taken when the cache device has grown" swap pcache "$(table_line /dev/mapper/pm "$BACKING")"
ok "the data is there" reads_pattern grown $DEV 65536 65536
must close_cache
must remove pm
must wipe_cache

# ---- tables that go before the one that shall take over is resumed
T=$(table_line $CACHE "$BACKING")
E="0 $(sectors "$BACKING") error"
both() { # what is done beside each other, some of it in vain
	for b_i in 1 2 3 4 5 6; do
		create pcache "$T" || return 1
		sh -c "$1" 2>/dev/null &
		sh -c "$2" 2>/dev/null &
		wait
		dmsetup remove --force --noudevsync pcache 2>/dev/null
		dmsetup mknodes 2>/dev/null
	done
	create pcache "$T" && close_cache
}
L="for i in 1 2 3; do dmsetup load pcache --table '$T'; done"
ok "a load beside a forced removal" both "$L" "dmsetup remove --force --noudevsync pcache"
ok "a load beside a resume that swaps the target out" both "$L; dmsetup resume --noudevsync pcache" \
	"dmsetup load pcache --table '$E'; dmsetup resume --noudevsync pcache"
ok "a resume beside a removal" both "$L; dmsetup resume --noudevsync pcache" "dmsetup remove --noudevsync pcache"
ok "none of them left a reference on the module" sh -c '[ "$(cat /sys/module/dm_pcache/refcnt)" = 0 ]'

# ---- the namespace is unbound
unbind() {
	echo "$NAMESPACE" >$DRIVER/unbind
	touch /tmp/unbound
}
unbound() { [ -e /tmp/unbound ]; }
bind() {
	rm -f /tmp/unbound
	echo "$NAMESPACE" >$DRIVER/bind && wait_until 10 [ -b $CACHE ]
}
failed() { dmsetup status pcache | grep -q "pcache Fail"; }
must open_cache
must write_pattern kept $DEV 0 65536 conv=fsync,notrunc
fio --name=load --filename=$DEV --offset=64m --size=128m --rw=randrw --bs=4k --ioengine=libaio --iodepth=16 --direct=1 \
	--time_based --runtime=60 >/tmp/fio.out 2>&1 &
fio_pid=$!
sleep 2
mark_log
unbind &
ok "a cache whose namespace is unbound under load fails" wait_until 20 failed
ok "the kernel log says why" logged "failed: the cache device is being removed"
ended_with_errors() { ! wait $fio_pid; }
ok "its requests end with errors" ended_with_errors
sleep 1
fails "unbinding waits for the device" unbound
ok "which can be removed" close_cache
ok "and then ends" wait_until 20 unbound
must bind
ok "what was flushed is there when the namespace is back" sh -c ". /test/lib.sh >/dev/null; open_cache && reads_pattern kept $DEV 0 65536"

# Suspended, with another table loaded and a write that waits. Beside it a cache on other memory, which every
# table is compared with.
[ -b /dev/pmem1 ] || give_up "no second namespace"
must create beside "$(table_line /dev/pmem1 "$OTHER")"
by_number="0 $(sectors "$BACKING") pcache $(number $CACHE) $BACKING"
must dmsetup suspend --noudevsync pcache
must dmsetup load pcache --table "$T"
dd if=/dev/zero of=$DEV bs=4k count=1 oflag=direct conv=notrunc 2>/tmp/dd.out &
dd_pid=$!
sleep 1
unbind &
ok "a suspended cache fails, too" wait_until 20 failed
sleep 1 # the disk is deleted next
mark_log
fails "a table for a device that is going is refused" dmsetup load pcache --table "$by_number"
ok "with a sentence" logged "pcache.*cache device is being removed"
must kill -0 $dd_pid
ok "the failed cache is resumed" dmsetup resume --noudevsync pcache
ok "and the kernel log says what that means" logged "resumed, but the cache has failed"
waited_in_vain() { ! wait $dd_pid && grep "Input/output error" /tmp/dd.out; }
ok "what waited ends with an error" waited_in_vain
ok "and the device can be removed" close_cache
must remove beside
ok "unbinding ends then" wait_until 20 unbound
must bind

# Below a linear target nobody is told.
must create pm "0 $((600 * 2048)) linear $CACHE $((600 * 2048))"
must create pcache "$(table_line /dev/mapper/pm "$BACKING")"
must write_pattern low $DEV 0 65536
unbind &
sleep 2
fails "below a linear target unbinding waits as well" unbound
ok "and the cache serves on until then" reads_pattern low $DEV 0 65536
must close_cache
must remove pm
ok "it ends when both are removed" wait_until 20 unbound
must bind
ok "the module can be unloaded" rmmod dm_pcache
done_testing
