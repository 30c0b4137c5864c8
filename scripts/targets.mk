# SPDX-License-Identifier: GPL-2.0
#
# targets.mk - the targets that test and run guests; included by the top Makefile.

# SECONDS=60, or SEED=n for one run, FROM=n for other seeds than 1, 2, ...
sim:
	+@$(MAKE) -s -f selftests/sim/Makefile sim

# The same in the geometry of real devices: a hundredth of the power cuts per second
sim-real:
	+@$(MAKE) -s -f selftests/sim/Makefile sim FLAVOUR=real

# NAME="a b": these alone
mutants:
	+@$(MAKE) -s -f selftests/Makefile unit-build FLAVOUR=mutants-small
	+@$(MAKE) -s -f selftests/sim/Makefile build FLAVOUR=mutants
	@selftests/mutants.py $(if $(SECONDS),--seconds $(SECONDS)) $(NAME)

# Every cut of small scenarios: about a minute of CPU time; FULL=1: all subsets of up to 12 units.
sim-exhaustive:
	+@$(MAKE) -s -f selftests/sim/Makefile sim-exhaustive

# SECONDS=60 over all targets; TARGET=media for one
fuzz:
	+@$(MAKE) -s -f selftests/fuzz/Makefile fuzz

# The short form takes about 30 s of CPU time; nth-failure-all is the whole loop
nth-failure nth-failure-all:
	+@$(MAKE) -s -f selftests/sim/Makefile $@

# Real threads under ThreadSanitizer, and what their reads show: SECONDS=60
threads:
	+@PCACHE_THREADS_SECONDS=$(or $(SECONDS),60) $(MAKE) -s -f selftests/Makefile unit TEST=threads FLAVOUR=tsan-small

.PHONY: threads sim sim-real sim-exhaustive mutants fuzz nth-failure nth-failure-all demo check check-long guest-shell guest-tools kernels deps

GUEST_TOOLS := pattern journal flip restless iowatch findpage longkeys

build/guest/tools/%: selftests/vm/tools/%.c
	@mkdir -p $(@D)
	gcc -std=gnu11 -O2 -Wall -Wextra -Werror -static -pthread -o $@ $<

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
