// SPDX-License-Identifier: GPL-2.0
// selftests/platform/power.hpp - which stores to one cache device have not yet been fenced.
//
// Kept by page, since formatting stores whole segments: the durable contents, and the pending
// stores in order. A pending store holds the value of each 8-byte unit after it, and which of its
// units are still open: a unit is closed when a fence makes it, or something newer of the same
// unit, durable. No locking: power_lock() guards every Power of the world.
#pragma once
#include <bitset>
#include <functional>
#include <map>
#include <unordered_map>
#include <vector>
#include "selftests/platform/recycled.hpp"

namespace pcache::selftest
{

class Power
{
public:
    static constexpr u64 unit_bytes = 8, page_bytes = 4096, block_unit = 512;

    // The contents of the device as the CPU sees it, to the end of its last page.
    explicit Power(const u8 *contents) : contents_(contents) {}

    // Around a store to bytes [offset, offset + bytes), which lie in one page: before(), the store,
    // after(cpu). A flush is after() alone, with only_pending.
    void before(u64 offset);
    void after(u64 offset, u64 bytes, int cpu, bool only_pending);
    // The stores of this CPU to this page are durable.
    void fence(u64 page, int cpu);
    // Nobody's fence makes the pending stores durable any more.
    void orphan();
    // What stands in these bytes is durable.
    void settle(u64 offset, u64 bytes);
    void clear() { pages_.clear(); }
    // A block write of the page at `offset` begins, and ends.
    void block_begins(u64 offset, const u8 *page)
    {
        blocks_[offset] = Image(page, page + page_bytes);
    }
    void block_ends(u64 offset) { blocks_.erase(offset); }
    u64 pending_units() const;
    // Puts into `image`, a copy of the contents, what a cut leaves; see MediaDevice::cut.
    void cut(Image &image, const std::function<bool(u64, unsigned)> &arrived) const;

private:
    static constexpr u64 units = page_bytes / unit_bytes;
    struct Pending {
        int cpu; // whose fence makes it durable; -1: nobody's
        std::bitset<units> open;
        u64 first;  // byte of the page that data begins at
        Image data; // whole units
    };
    struct Page {
        u8 durable[page_bytes];
        std::vector<Pending> stores; // in order
        std::bitset<units> open() const;
    };
    static void drop_closed(Page &p);
    void cut_blocks(Image &image, const std::function<bool(u64, unsigned)> &arrived) const;
    std::unordered_map<u64, Page> pages_; // by page number
    std::map<u64, Image> blocks_;         // by offset
    const u8 *contents_;
};

} // namespace pcache::selftest
