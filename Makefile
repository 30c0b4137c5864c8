include scripts/targets.mk
