// SPDX-License-Identifier: GPL-2.0
// engine/options.hpp - what a table line may ask for. A plain value; no lock.
#pragma once
#include "cxxrt/base.hpp"

namespace pcache::engine
{

// `nothing`: the option was left out and takes the media's value.
enum class Asked : u8 { nothing, no, yes };

struct Options {
    Asked data_crc = Asked::nothing;
    // A backing device that was changed behind the cache makes it read-only, and is not refused.
    bool changed_read_only = false;
};

} // namespace pcache::engine
