// SPDX-License-Identifier: GPL-2.0
// target/table_line.hpp - the words of a table line and of a message, parsed strictly.
//
//   <cache_dev> <backing_dev> [<n> [cache_mode <mode>] [data_crc true|false] [writeback_order
//   <order>] [changed_backing refuse|read_only]]
//
// n counts the words behind it. Pure functions; nothing is opened. Every refusal is a static
// sentence that says what is wrong and what would be right; the words themselves go to the log.
#pragma once
#include "cxxrt/result.hpp"
#include "cxxrt/span.hpp"
#include "dm-pcache/engine/options.hpp"
#include "dm-pcache/platform.h"

namespace pcache::target
{

inline constexpr usize path_bytes = 256; // longest device name taken, its NUL included

struct TableLine {
    // As given; once they are open, as device-mapper names them.
    char cache[path_bytes];
    char backing[path_bytes];
    engine::Options options;
};

// rt::Error::invalid or not_supported (named, but not built) with *sentence set. `host` may be
// null.
rt::Error parse_table_line(rt::Span<char *> words, TableLine &out, const char **sentence) noexcept;

// 0 .. most, decimal digits only and no superfluous zero: no sign, no blank, no other base.
rt::Result<u32> parse_number(const char *word, u32 most) noexcept;

bool same_word(const char *a, const char *b) noexcept;

} // namespace pcache::target
