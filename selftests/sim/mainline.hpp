// SPDX-License-Identifier: GPL-2.0
// selftests/sim/mainline.hpp - what mainline's driver would see on the cache device now: the place
// for the model of it (Documentation/testing.md). So far its reader of the log alone.
#pragma once
#include <vector>
#include "dm-pcache/format/geometry.hpp"
#include "dm-pcache/format/record.hpp"
#include "selftests/sim/rng.hpp"

namespace pcache::sim
{

// Walks the log by Part 1 of the format, which ignores record numbers. A violation if it meets a
// record that does not continue ours: one that was not written there in this life of the log.
// Between lives, on what a cut has left.
void check_mainline_view();

// ---- Part 1's reader ----
struct LogRecord {
    format::LogPosition at;
    u32 bytes; // on media
    format::RecordFlags flags;
    u32 crc;
    std::vector<format::Key> keys; // none in a LAST record
};
u32 segment_count();
bool read_tail(bool dirty, format::LogPosition &at); // key_tail, or dirty_tail
std::vector<LogRecord> read_log();                   // from key_tail to where the log ends

// Leaves the cache as a cut in mainline's GC does: the generation of one data segment is raised,
// whose keys all stand in front of dirty_tail, key_tail has not been moved, and what the segment
// held is gone. Nothing that was promised is lost by that. Between lives; no effect where no
// segment fits.
void cut_mainline_gc(Rng &rng);

} // namespace pcache::sim
