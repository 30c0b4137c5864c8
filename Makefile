# SPDX-License-Identifier: GPL-2.0
#
# Makefile - what a person types. The module itself is described in Kbuild.
#
#   make                        dm-pcache.ko for the running kernel, beside the sources
#   make KVER=6.12.1-amd64      for another installed kernel; KDIR= names its build folder instead
#   make modules-all            for both supported Debian kernels, under build/module-<kernel>/
#   make modules_install        installs under updates/, in front of the distribution's modules
#   make clean                  removes what was built beside the sources
#   make demo                   shows it all in a guest, with a power cut (README)
#   make check                  the tests: unit, modules, guests (README)
#   make check-long             the longer ones
#   make unit                   the unit tests alone; TEST=name for one (selftests/Makefile)
#   make sim, sim-exhaustive, mutants, nth-failure, fuzz    Documentation/testing.md
#   make guest-shell            a shell in a guest with the module loaded
#   make compile_commands.json  for clangd, from the last build beside the sources

KVER ?= $(shell uname -r)
KDIR ?= /lib/modules/$(KVER)/build
KCFLAGS ?= -Werror
kbuild = $(MAKE) -C $(KDIR) M=$(CURDIR) KCFLAGS="$(KCFLAGS)"

all: modules

modules:
	+$(kbuild) modules
	@sh kbuild/check-ko.sh dm-pcache.ko

modules_install: modules
	+$(kbuild) INSTALL_MOD_DIR=updates modules_install
	@# The kernel's own step is skipped where its headers come without a System.map, as on Debian.
	depmod $(if $(INSTALL_MOD_PATH),-b $(INSTALL_MOD_PATH)) $$($(MAKE) -s -C $(KDIR) kernelrelease)

# Kbuild's clean removes every *.o and *.ko below; those in build/, the guests' kernels among them, stay.
clean:
	+$(kbuild) RCS_FIND_IGNORE='\( -path $(CURDIR)/build -o -name .git \) -prune -o' clean

compile_commands.json: modules
	python3 kbuild/compile-commands.py $(KDIR) $@

# The newest installed headers of each supported series.
newest = $(shell ls -d /lib/modules/$(1).*-amd64/build 2>/dev/null | sort -V | tail -n 1 | cut -d/ -f4)
KVERS ?= $(call newest,6.1) $(call newest,6.12)

modules-all: $(addprefix module-,$(KVERS))
	@[ -n "$(strip $(KVERS))" ] || { echo "modules-all: no kernel headers here; run scripts/install-deps" >&2; exit 1; }
module-%:
	+@sh kbuild/build-apart.sh $* $(CURDIR)/build/module-$* "$(KCFLAGS)"

unit unit-build:
	+@$(MAKE) -f selftests/Makefile $@

-include scripts/targets.mk

.PHONY: all modules modules_install modules-all clean compile_commands.json unit unit-build demo check check-long
