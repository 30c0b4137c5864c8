// SPDX-License-Identifier: GPL-2.0
// selftests/sim/log_view.hpp - the log as it lies on the cache device, read by format.md's rules
// from bytes that are all there: for those who judge what damage to them may cost. Stores nothing.
#pragma once
#include <array>
#include <vector>
#include "dm-pcache/format/record.hpp"
#include "selftests/sim/world.hpp"

namespace pcache::sim
{

struct LogView {
    struct Record {
        u64 offset; // of the device
        u32 bytes;
        bool last;  // leads to another segment
        bool dirty; // at or behind dirty_tail
        std::vector<format::Key> keys;
    };
    bool good = false; // there is a cache, its tails are good, dirty_tail was met
    bool clean_stop = false;
    u32 segments = 0;
    std::vector<Record> records;           // from key_tail to the head
    u64 head = 0;                          // offset of the device
    void trace_keys() const;               // those of the traced sector
    u64 place(const format::Key &k) const; // where its data lies: offset of the device
};
LogView view_log();

// Of the cache that the media hold; zeros if its extension cannot be read.
std::array<u8, 16> cache_uuid();

} // namespace pcache::sim
