# SPDX-License-Identifier: GPL-2.0
#
# targets.mk - the targets that test and run guests; included by the top Makefile.

.PHONY: demo check check-long guest-shell guest-tools kernels deps

GUEST_TOOLS := pattern journal

build/guest/tools/%: selftests/vm/tools/%.c
	@mkdir -p $(@D)
	gcc -std=gnu11 -O2 -Wall -Wextra -Werror -static -o $@ $<

guest-tools: $(GUEST_TOOLS:%=build/guest/tools/%)

deps:
	scripts/install-deps

kernels:
	scripts/fetch-kernels

demo:
	scripts/demo

check:
	scripts/check

check-long:
	scripts/check --long

guest-shell:
	scripts/guest --shell --memory nvdimm --disk 2G,serial=backing
