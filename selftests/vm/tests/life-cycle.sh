# SPDX-License-Identifier: GPL-2.0
#
# life-cycle.sh - tables that grow, shrink and fail, and who may use what, as an administrator sees it.
#
# The backing device is a linear target, so that it can grow, shrink and fail.
# guest: --memory memmap:1200M --disk 256M,serial=backing --disk 256M,serial=other --cpus 1 --timeout 500
# check: 6.12 6.1
. /test/lib.sh

OTHER=$(disk other)
ALL=$(sectors "$BACKING")
HALF=$((ALL / 2))
LOW=/dev/mapper/low

low() { # SECTORS: the backing device has that size from now on
	swap low "0 $1 linear $BACKING 0" --nolockfs --noflush
}
table() { # SECTORS
	echo "0 $1 pcache $CACHE $LOW"
}
replayed() { logged "recovered"; }

# ---- tables that are not active
must create low "0 $HALF linear $BACKING 0"
must dmsetup create pcache --notable --noudevsync
must dmsetup load pcache --table "$(table "$HALF")"
must dmsetup mknodes
blank() { dd if=$CACHE bs=128k count=1 iflag=direct status=none | cmp -n 131072 - /dev/zero; }
ok "a table that was only loaded says Inactive" \
	sh -c 'dmsetup status --inactive pcache | grep -q "pcache Inactive *$"'
ok "and prints itself" [ "$(dmsetup table --inactive pcache)" = "0 $HALF pcache $(number $CACHE) $(number $LOW) 4 cache_mode writeback data_crc false" ]
must dmsetup clear pcache
ok "when it is cleared it has written nothing" blank

# ---- activation that fails
must dmsetup load pcache --table "$(table "$HALF")"
must swap low "0 $HALF flakey $BACKING 0 0 600 1 error_writes" --nolockfs --noflush
mark_log
fails "activation over a failing backing device is refused" dmsetup resume --noudevsync pcache
ok "the kernel log says why" logged "not activated: .*backing device"
ok "it says Inactive then" sh -c 'dmsetup status pcache | grep -q "pcache Inactive *$"'
fails "and takes no message" dmsetup message pcache 0 gc_percent 40
must low "$HALF"
ok "when the backing device works the same resume succeeds" dmsetup resume --noudevsync pcache
ok "and the message is taken" dmsetup message pcache 0 gc_percent 40

# ---- suspend, resume, growth
must write_pattern one $DEV $((HALF * 512 - 65536)) 65536
mark_log
must dmsetup suspend --noudevsync pcache
must dmsetup resume --noudevsync pcache
fails "a resume replays nothing" replayed
ok "the data is there" reads_pattern one $DEV $((HALF * 512 - 65536)) 65536
refuses_load() { # NAME REGEX TABLE
	mark_log
	fails "$1" dmsetup load pcache --table "$3"
	ok "the kernel log says why: $1" logged "$2"
	dmsetup clear pcache >/dev/null 2>&1
}
refuses_load "a table longer than the backing device is refused" "longer than the backing device" "$(table "$ALL")"
must low "$ALL"
mark_log
ok "when the backing device has grown the longer table is taken" swap pcache "$(table "$ALL")"
fails "and replays nothing" replayed
ok "the device has the new size" [ "$(sectors $DEV)" = "$ALL" ]
must write_pattern two $DEV $((ALL * 512 - 65536)) 65536
ok "the new range takes data" reads_pattern two $DEV $((ALL * 512 - 65536)) 65536
ok "the old data is there" reads_pattern one $DEV $((HALF * 512 - 65536)) 65536
refuses_load "a reload with another backing device is refused" "a reload must name" "0 $HALF pcache $CACHE $OTHER"

# ---- a shorter table
must low "$ALL"
must dmsetup suspend --nolockfs --noflush --noudevsync low # nothing is written back now
must write_pattern three $DEV $((ALL * 512 - 65536)) 65536 conv=fsync,notrunc
must dmsetup load pcache --table "$(table "$HALF")"
must dmsetup suspend --noflush --nolockfs --noudevsync pcache &
suspender=$!
sleep 1
must dmsetup resume --noudevsync low
wait $suspender
mark_log
fails "a shorter table is refused while dirty data lies beyond it" dmsetup resume --noudevsync pcache
ok "the kernel log says why and what to do" logged "the table is too short.*key_head equals dirty_tail"
must dmsetup load pcache --table "$(table "$ALL")"
ok "the longer table is the way out" dmsetup resume --noudevsync pcache
fails "and replays nothing even then" replayed
ok "the data is there as it was" reads_pattern three $DEV $((ALL * 512 - 65536)) 65536
ok "it drains" drains 60
mark_log
ok "when all is written back the shorter table is taken" swap pcache "$(table "$HALF")"
ok "the log says that clean data beyond it goes" logged "clean data beyond the end"
must write_pattern foreign "$BACKING" $((ALL * 512 - 65536)) 65536
must swap pcache "$(table "$ALL")"
ok "what others wrote there is read when the table grows again" \
	reads_pattern foreign $DEV $((ALL * 512 - 65536)) 65536
must close_cache
must create pcache "$(table "$ALL")"
ok "also after a removal" reads_pattern foreign $DEV $((ALL * 512 - 65536)) 65536

# ---- a suspended device is removed; a smaller backing device
must write_pattern four $DEV 0 65536
must dmsetup suspend --noudevsync pcache
ok "a suspended device can be removed" close_cache
must low "$HALF"
refuses "a backing device smaller than last time" "smaller than the one" "$(table "$HALF")"
must low "$ALL"
must create pcache "$(table "$ALL")"
ok "with its old size it is taken, and the data is there" reads_pattern four $DEV 0 65536

# ---- one cache has one user
refuses "a second device on the same cache device" "cache device is in use by another" "0 $HALF pcache $CACHE $OTHER"
must create alias "0 $(sectors $CACHE) linear $CACHE 0"
refuses "the same cache device through a linear target" "cache device is in use by another" \
	"0 $HALF pcache /dev/mapper/alias $OTHER"
must remove alias
# A window into the data of the active cache: it may look blank.
must create alias "0 $((540 * 2048)) linear $CACHE $((601 * 2048))"
refuses "a part of the cache device through a linear target" "cache device is in use by another" \
	"0 $HALF pcache /dev/mapper/alias $OTHER"
must remove alias
must close_cache

must sh -c "dd if=/dev/zero of=$CACHE bs=1M count=1 oflag=direct status=none; printf 'label: gpt\n2048,1126400\n1128448,1126400\n' | sfdisk -q --no-reread $CACHE"
must blockdev --rereadpt $CACHE
must create pcache "0 $ALL pcache ${CACHE}p1 $LOW"
must write_pattern five $DEV 0 $((1 << 20))
must drains 60 # a copy with dirty data would be refused for its backing device
refuses "the whole device when a partition of it is in use" "in use" "0 $HALF pcache $CACHE $OTHER"
refuses "the same backing device" "backing device is in use by another" "0 $HALF pcache ${CACHE}p2 $LOW"
must dmsetup suspend --noudevsync pcache
must dd if=${CACHE}p1 of=${CACHE}p2 bs=1M status=none
refuses "a copy of an active cache" "same uuid" "0 $ALL pcache ${CACHE}p2 $OTHER"
must dmsetup resume --noudevsync pcache
ok "the active one serves on" reads_pattern five $DEV 0 $((1 << 20))
must close_cache
ok "when it is gone the copy may be used" create pcache "0 $ALL pcache ${CACHE}p2 $OTHER"
must close_cache
must remove low
ok "the module can be unloaded" rmmod dm_pcache
done_testing
