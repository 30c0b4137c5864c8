// SPDX-License-Identifier: GPL-2.0
// selftests/platform/power.cpp - see power.hpp.
#include "selftests/platform/power.hpp"
#include <algorithm>
#include <cstring>

namespace pcache::selftest
{

std::bitset<Power::units> Power::Page::open() const
{
    std::bitset<units> all;
    for (const Pending &s : stores)
        all |= s.open;
    return all;
}

void Power::drop_closed(Page &p)
{
    std::erase_if(p.stores, [](const Pending &s) { return s.open.none(); });
}

void Power::before(u64 offset)
{
    u64 page = offset / page_bytes;
    auto [i, fresh] = pages_.try_emplace(page);
    if (fresh)
        memcpy(i->second.durable, contents_ + page * page_bytes, page_bytes);
}

void Power::after(u64 offset, u64 bytes, int cpu, bool only_pending)
{
    u64 page = offset / page_bytes;
    auto i = pages_.find(page);
    if (i == pages_.end())
        return; // a flush of what is durable
    u64 first = offset % page_bytes / unit_bytes;
    u64 end = (offset % page_bytes + bytes + unit_bytes - 1) / unit_bytes;
    std::bitset<units> open;
    for (u64 u = first; u < end; ++u)
        open.set(u);
    if (only_pending)
        open &= i->second.open();
    if (open.none())
        return;
    const u8 *from = contents_ + page * page_bytes;
    i->second.stores.push_back(
        {cpu, open, first * unit_bytes, Image(from + first * unit_bytes, from + end * unit_bytes)});
}

void Power::fence(u64 page, int cpu)
{
    auto i = pages_.find(page);
    if (i == pages_.end())
        return;
    Page &p = i->second;
    for (Pending &s : p.stores) {
        if (s.cpu != cpu)
            continue;
        for (u64 u = 0; u < units; ++u)
            if (s.open[u])
                memcpy(p.durable + u * unit_bytes, s.data.data() + u * unit_bytes - s.first,
                       unit_bytes);
        std::bitset<units> closed = s.open;
        for (Pending *older = p.stores.data(); older <= &s; ++older)
            older->open &= ~closed;
    }
    drop_closed(p);
    if (p.stores.empty())
        pages_.erase(i);
}

void Power::orphan()
{
    for (auto &p : pages_)
        for (Pending &s : p.second.stores)
            s.cpu = -1;
}

void Power::settle(u64 offset, u64 bytes)
{
    if (bytes == 0)
        return;
    for (u64 u = offset / unit_bytes; u <= (offset + bytes - 1) / unit_bytes;) {
        u64 page = u / units;
        u64 end = std::min((page + 1) * units, (offset + bytes - 1) / unit_bytes + 1);
        auto i = pages_.find(page);
        if (i != pages_.end()) {
            for (u64 v = u; v < end; ++v) {
                memcpy(i->second.durable + v % units * unit_bytes, contents_ + v * unit_bytes,
                       unit_bytes);
                for (Pending &s : i->second.stores)
                    s.open.reset(v % units);
            }
            drop_closed(i->second);
            if (i->second.stores.empty())
                pages_.erase(i);
        }
        u = end;
    }
}

u64 Power::pending_units() const
{
    u64 n = 0;
    for (auto &p : pages_)
        n += p.second.open().count();
    return n;
}

void Power::cut(Image &image, const std::function<bool(u64, unsigned)> &arrived) const
{
    // In the order of addresses, so that one seed gives one image.
    std::vector<u64> order;
    for (auto &p : pages_)
        order.push_back(p.first);
    std::sort(order.begin(), order.end());
    for (u64 number : order) {
        const Page &p = pages_.at(number);
        u8 page[page_bytes];
        memcpy(page, p.durable, page_bytes);
        for (u64 u = 0; u < units; ++u) {
            unsigned nth = 0;
            for (const Pending &s : p.stores)
                if (s.open[u] && arrived(number * page_bytes + u * unit_bytes, nth++))
                    memcpy(page + u * unit_bytes, s.data.data() + u * unit_bytes - s.first,
                           unit_bytes);
        }
        u64 at = number * page_bytes;
        memcpy(image.data() + at, page, std::min(page_bytes, image.size() - at));
    }
    cut_blocks(image, arrived);
}

void Power::cut_blocks(Image &image, const std::function<bool(u64, unsigned)> &arrived) const
{
    for (const auto &[offset, page] : blocks_)
        for (u64 at = 0; at < page_bytes; at += block_unit) {
            if (arrived(offset + at, 0))
                memset(image.data() + offset + at, 0, block_unit);
            if (arrived(offset + at, 1))
                memcpy(image.data() + offset + at, page.data() + at, block_unit);
        }
}

} // namespace pcache::selftest
