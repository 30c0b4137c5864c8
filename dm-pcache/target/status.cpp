// SPDX-License-Identifier: GPL-2.0
// target/status.cpp - the texts of STATUS, TABLE and IMA.
//
// STATUS while running is mainline's nine fields and nothing else, since scripts count from both
// ends: sb_flags segs n_segs segs_used gc_percent cache_flags key_head dirty_tail key_tail.
#include "dm-pcache/target/target.hpp"

namespace pcache::target
{

namespace
{
const char *true_or_false(bool b) noexcept
{
    return b ? "true" : "false";
}
} // namespace

void print_status(pc_target &t, char *text, usize size) noexcept
{
    engine::Cache &cache = t.instance->cache;
    if (!t.activated.read() || cache.state() == engine::State::inactive) {
        (void)pc_format(text, size, "Inactive");
        return;
    }
    const engine::Snapshot s = cache.snapshot();
    if (s.state == engine::State::failed) {
        (void)pc_format(text, size, "Fail");
        return;
    }
    (void)pc_format(text, size, "%x %u %u %u %u %x %u:%u %u:%u %u:%u%s", s.superblock_flags,
                    s.segments, s.chain_length, s.segments_used, s.gc_percent, s.cache_flags,
                    s.key_head.segment.value, s.key_head.offset, s.dirty_tail.segment.value,
                    s.dirty_tail.offset, s.key_tail.segment.value, s.key_tail.offset,
                    s.state == engine::State::read_only ? " ro" : "");
}

// What is in force; loads again as it is printed, here and in mainline.
void print_table(pc_target &t, char *text, usize size) noexcept
{
    (void)pc_format(text, size, "%s %s 4 cache_mode writeback data_crc %s", t.line.cache,
                    t.line.backing, true_or_false(t.instance->cache.data_crc()));
}

void print_ima(pc_target &t, char *text, usize size) noexcept
{
    (void)pc_format(text, size,
                    "target_name=pcache,target_version=1.0.0,cache_mode=writeback,data_crc=%s,"
                    "writeback_order=strict;",
                    true_or_false(t.instance->cache.data_crc()));
}

} // namespace pcache::target
