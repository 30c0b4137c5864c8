#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# build-apart.sh KVER FOLDER KCFLAGS - build the module for one kernel in a folder of its own.
#
# Kbuild leaves its objects beside the sources. The folder holds a symbolic link for each source
# file, so that the objects of several kernels stand side by side and each build is incremental. A
# warning of any tool (compiler, objtool, modpost) is a failure.
set -eu
kver=$1 folder=$2 kcflags=$3
top=$(cd "$(dirname "$0")/.." && pwd)

mkdir -p "$folder"
# Links whose source is gone. Then those that are missing, or lead into another tree (the folder was
# copied with it).
find "$folder" -xtype l -delete
(cd "$top" && find Kbuild Makefile kbuild cxxrt dm-pcache -type f -not -path '*/generated/*' \
	\( -name '*.[ch]' -o -name '*.[ch]pp' -o -name '*.mk' -o -name '*.sh' -o -name '*.py' \
	-o -name Kbuild -o -name Makefile \)) |
while read -r file; do
	[ "$(readlink "$folder/$file")" = "$top/$file" ] && continue
	mkdir -p "$folder/$(dirname "$file")"
	ln -sf "$top/$file" "$folder/$file"
done

log=$folder/build.log status=0 jobs=
case ${MAKEFLAGS:-} in *-j*) ;; *) jobs=-j$(nproc) ;; esac
${MAKE:-make} $jobs --no-print-directory -C "$folder" KVER="$kver" KCFLAGS="$kcflags" modules >"$log" 2>&1 || status=$?
cat "$log"
if [ "$status" = 0 ] && grep -nE 'warning:|WARNING:|objtool:' "$log" >&2; then
	# The next build must say so again.
	${MAKE:-make} -C "$folder" KVER="$kver" clean >/dev/null
	echo "module for $kver: warnings, see above" >&2
	status=1
fi
exit "$status"
