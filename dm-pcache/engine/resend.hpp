// SPDX-License-Identifier: GPL-2.0
// engine/resend.hpp - which sectors of a batch of write-back are to be sent (again): ranges.
//
// Memory is bounded: beyond `most` ranges it is everything from some sector on. A set that is too
// large does no harm, since what has landed may be sent again, the same bytes to the same place.
// The ranges do not overlap: they are those of writes of one attempt.
//
// Locking: none; the sender's alone.
#pragma once
#include "cxxrt/base.hpp"
#include "cxxrt/sort.hpp"

namespace pcache::engine
{

class Resend
{
public:
    static constexpr u32 most = 256;

    void clear() noexcept
    {
        count_ = 0;
        rest_ = ~u64{0};
    }
    void everything() noexcept
    {
        count_ = 0;
        rest_ = 0;
    }
    bool empty() const noexcept { return count_ == 0 && rest_ == ~u64{0}; }
    // No further range has a place of its own.
    bool full() const noexcept { return count_ == most; }
    void add(u64 first, u64 end) noexcept
    {
        if (full())
            add_from(first);
        else
            ranges_[count_++] = {first, end};
    }
    // Everything from here on.
    void add_from(u64 first) noexcept { rest_ = rt::min(rest_, first); }
    // After the last add(), before the first next().
    void sort() noexcept
    {
        rt::heap_sort(rt::Span<Range>(ranges_, count_),
                      [](const Range &a, const Range &b) { return a.first < b.first; });
    }
    // Narrows [first, end) to the first part of it that is to be sent. False: there is none.
    bool next(u64 &first, u64 &end) const noexcept
    {
        if (first >= end)
            return false;
        u32 low = 0, high = count_; // the first range that ends behind `first`
        while (low < high) {
            const u32 middle = (low + high) / 2;
            if (ranges_[middle].end > first)
                high = middle;
            else
                low = middle + 1;
        }
        const u64 rest = rt::max(first, rest_);
        if (low < count_ && ranges_[low].first < rt::min(rest, end)) {
            first = rt::max(first, ranges_[low].first);
            end = rt::min(end, ranges_[low].end);
            return true;
        }
        first = rest;
        return rest < end;
    }

private:
    struct Range {
        u64 first, end;
    };
    Range ranges_[most];
    u32 count_ = 0;
    u64 rest_ = ~u64{0};
};

} // namespace pcache::engine
