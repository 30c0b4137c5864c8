// SPDX-License-Identifier: GPL-2.0
// engine/published.hpp - a log position that one thread moves and others may look at, never torn.
#pragma once
#include "cxxrt/atomic.hpp"
#include "dm-pcache/format/geometry.hpp"

namespace pcache::engine
{

class PublishedPosition : rt::NonCopyable
{
    rt::Atomic<u64> value_{0}; // segment in the upper half, offset in the lower

public:
    // What was stored before set() is visible to whoever gets this position.
    void set(format::LogPosition p) noexcept
    {
        value_.store_release(u64{p.segment.value} << 32 | p.offset);
    }
    format::LogPosition get() const noexcept
    {
        const u64 v = value_.load_acquire();
        return {{static_cast<u32>(v >> 32)}, static_cast<u32>(v)};
    }
};

} // namespace pcache::engine
