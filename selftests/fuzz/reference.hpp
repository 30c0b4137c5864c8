// SPDX-License-Identifier: GPL-2.0
// selftests/fuzz/reference.hpp - a second reader of the media, from Documentation/format.md alone
// and with none of the module's reading code: what each sector must read as.
//
// It gives an answer only where the format leaves no choice: a superblock and cache_info that are
// good, tails and generations that can be read, a log that reads on from key_tail over dirty_tail
// to its end, keys that are possible. Where it does not, the engine's judgement is not compared.
#pragma once
#include "selftests/fuzz/image.hpp"

namespace pcache::fuzz
{

enum class Source : u8 {
    backing, // not in the cache, or stale
    clean,   // the cache's bytes, or the backing device's
    dirty,   // the cache's bytes
    lost     // dirty, and data_crc says that these are not the bytes: an error
};

struct Reference {
    bool certain = false;
    const char *why = "";       // not certain
    std::vector<Source> source; // by sector
    std::vector<u64> place;     // on the cache device
};

Reference read_reference(const Image &im);

} // namespace pcache::fuzz
