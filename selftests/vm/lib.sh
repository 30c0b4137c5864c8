# SPDX-License-Identifier: GPL-2.0
#
# lib.sh - what test scripts in a guest share. Sourced by dash: ". /test/lib.sh".
#
# KTAP: each property is one point, named after the property. A script ends with `done_testing`.
#   ok NAME CMD...        the point passes if CMD succeeds; its output is shown when it does not
#   fails NAME CMD...     the point passes if CMD fails
#   skip NAME REASON
# The cache under test: CACHE (/dev/pmem0), BACKING (the disk with serial "backing"), device `pcache`,
# opened at $DEV. TARGET=writecache puts dm-writecache in its place, to try the runner and the scripts
# on something known.
points=0
failures=0
TARGET=${TARGET:-pcache}
CACHE=/dev/pmem0
DEV=/dev/mapper/pcache

echo "KTAP version 1"

point() { # RESULT NAME
	points=$((points + 1))
	[ "$1" = "ok" ] || failures=$((failures + 1))
	echo "$1 $points $2"
}

diagnose() { # shows a command's output as KTAP diagnostics, at most 30 lines
	tail -n 30 /tmp/point.out | sed 's/^/# /'
}

ok() { # NAME CMD...
	name=$1
	shift
	if "$@" >/tmp/point.out 2>&1; then
		point "ok" "$name"
	else
		echo "# status $? of: $*"
		diagnose
		point "not ok" "$name"
	fi
}

fails() { # NAME CMD...
	name=$1
	shift
	if "$@" >/tmp/point.out 2>&1; then
		echo "# succeeded and should not: $*"
		diagnose
		point "not ok" "$name"
	else
		point "ok" "$name"
	fi
}

skip() { # NAME REASON
	points=$((points + 1))
	echo "ok $points $1 # SKIP $2"
}

done_testing() { # prints the plan and ends the script
	echo "1..$points"
	[ "$failures" = 0 ]
	exit $?
}

give_up() { # SENTENCE: a set-up step failed; nothing after it would mean anything
	echo "# $1"
	[ ! -e /tmp/setup.out ] || tail -n 30 /tmp/setup.out | sed 's/^/# /'
	point "not ok" "the test's own set-up works"
	done_testing
}

must() { # CMD...: set-up that is no property by itself
	"$@" >/tmp/setup.out 2>&1 || give_up "failed: $*"
}

power_cut() { # [LINES [DELAY_S]]: the host kills this guest; the script runs again with BOOT one higher
	echo "@@CUT ${1:-0} ${2:-0}@@"
	while :; do sleep 1; done
}

disk() { # SERIAL: its device node
	for s in /sys/block/vd*/serial; do
		[ "$(cat "$s")" = "$1" ] || continue
		s=${s%/serial}
		echo "/dev/${s##*/}"
		return 0
	done
	return 1
}

BACKING=$(disk backing)

sectors() { # DEVICE: length in 512-byte sectors
	blockdev --getsz "$1"
}

number() { # DEVICE: major:minor, as TABLE prints it
	printf '%d:%d' "0x$(stat -L -c %t "$1")" "0x$(stat -L -c %T "$1")"
}

table_line() { # CACHE BACKING [OPTION...]: a whole table over all of BACKING
	tl_cache=$1
	tl_backing=$2
	shift 2
	case "$TARGET" in
	pcache)
		tl_opts=""
		[ $# = 0 ] || tl_opts=" $# $*"
		echo "0 $(sectors "$tl_backing") pcache $tl_cache $tl_backing$tl_opts"
		;;
	writecache) echo "0 $(sectors "$tl_backing") writecache p $tl_backing $tl_cache 4096 0" ;;
	*) give_up "unknown TARGET $TARGET" ;;
	esac
}

create() { # NAME TABLE: made and resumed, with its node in /dev/mapper (no udev here)
	dmsetup create --noudevsync "$1" --table "$2" && dmsetup mknodes "$1"
}

remove() { # NAME
	dmsetup remove --noudevsync "$1"
	status=$?
	dmsetup mknodes "$1" 2>/dev/null
	return $status
}

swap() { # NAME TABLE [OPTION...]: another table for a device that is in use; options of its suspend
	sw_name=$1 sw_table=$2
	shift 2
	dmsetup load "$sw_name" --table "$sw_table" && dmsetup suspend "$@" --noudevsync "$sw_name" &&
		dmsetup resume --noudevsync "$sw_name"
}

open_cache() { # [OPTION...]: the device under test
	create pcache "$(table_line $CACHE "$BACKING" "$@")"
}

close_cache() {
	remove pcache
}

wipe_cache() { # so that the next create formats
	dd if=/dev/zero of=$CACHE bs=128k count=1 oflag=direct conv=notrunc status=none
}

status_field() { # N: a field of STATUS behind start, length and target name, from 1
	dmsetup status pcache | cut_field $((3 + $1))
}

cut_field() { # N of standard input
	awk -v n="$1" '{ print $n }'
}

# pattern SEED BYTES (tools/pattern.c): reproducible bytes, different for each seed.

write_pattern() { # SEED DEVICE OFFSET_BYTES BYTES [dd options]: direct, offset and length multiples of 512
	wp_seed=$1 wp_dev=$2 wp_off=$3 wp_len=$4
	shift 4
	# Without udev a missing node would quietly become a plain file.
	[ -b "$wp_dev" ] && pattern "$wp_seed" "$wp_len" >/tmp/pattern.w &&
		dd if=/tmp/pattern.w of="$wp_dev" bs="$wp_len" count=1 seek="$wp_off" oflag=direct,seek_bytes iflag=fullblock \
			conv=notrunc status=none "$@"
}

reads_pattern() { # SEED DEVICE OFFSET_BYTES BYTES: true if the device holds what write_pattern put there
	[ -b "$2" ] && pattern "$1" "$4" >/tmp/pattern.r &&
		dd if="$2" of=/tmp/pattern.got bs="$4" count=1 skip="$3" iflag=direct,skip_bytes,fullblock status=none &&
		cmp /tmp/pattern.r /tmp/pattern.got
}

digest() { # DEVICE: of its whole content
	dd if="$1" bs=1M iflag=direct status=none | sha256sum | cut_field 1
}

same() { # DEVICE DEVICE: equal over the shorter one's length
	s_a=$(sectors "$1")
	s_b=$(sectors "$2")
	[ "$s_a" -lt "$s_b" ] || s_a=$s_b
	cmp -n $((s_a * 512)) "$1" "$2"
}

mark_log() { # log_since shows what the kernel says after this
	mark_count=$((${mark_count:-0} + 1))
	echo "mark-$$-$mark_count" >/dev/kmsg
}

log_since() {
	dmesg | sed "1,/mark-$$-$mark_count\$/d"
}

logged() { # REGEX: said since mark_log
	log_since | grep -Eq "$1" || {
		log_since
		return 1
	}
}

# refuses NAME REGEX TABLE: creating the device fails, the kernel log has a sentence that matches, and
# no device is left.
refuses() {
	mark_log
	if create refused "$3" >/tmp/point.out 2>&1; then
		remove refused
		echo "# accepted: $3"
		point "not ok" "$1"
		return
	fi
	remove refused 2>/dev/null
	log_since | grep -E "pcache" >/tmp/point.out
	if grep -E "$2" /tmp/point.out | grep -Eq "[[:alpha:]]+ [[:alpha:]]+ [[:alpha:]]+"; then
		point "ok" "$1"
	else
		echo "# no sentence like /$2/ for: $3"
		diagnose
		point "not ok" "$1"
	fi
}

drained() { # all dirty data is on the backing device: key_head is dirty_tail
	[ "$(status_field 7)" = "$(status_field 8)" ]
}

# Waits for that; when it does not come, says what the disks are doing, so that a disk that stands still
# can be told from a cache that does. A FLUSH first: what is only staged stands in front of no head.
drains() { # SECONDS
	[ ! -b "$DEV" ] || dd if=/dev/null of="$DEV" count=0 conv=notrunc,fsync status=none
	wait_until "$1" drained && return
	dmsetup status pcache
	mount -t debugfs none /sys/kernel/debug 2>/dev/null
	for d_dir in /sys/block/vd*; do
		d_name=${d_dir##*/}
		d_state=$(cat /sys/kernel/debug/block/"$d_name"/hctx0/state 2>/dev/null)
		echo "$d_name ($(cat "$d_dir"/serial)): in flight $(cat "$d_dir"/inflight), hctx0 ${d_state:-(no state)}"
	done
	timeout 10 dd if="$BACKING" of=/dev/null bs=4k count=1 iflag=direct
	echo "a direct read of the backing device: status $?"
	return 1
}

uptime_s() { # whole seconds since boot
	read -r us_now us_rest </proc/uptime
	echo "${us_now%.*}"
}

wait_until() { # SECONDS CMD...: polls until it succeeds, for so long at least
	wu_end=$(($(uptime_s) + $1))
	shift
	while ! "$@"; do
		[ "$(uptime_s)" -le $wu_end ] || return 1
		sleep 0.1
	done
}
