// SPDX-License-Identifier: GPL-2.0
// selftests/platform/recycled.cpp - see recycled.hpp.
#include <map>
#include <mutex>
#include <new>
#include <sanitizer/asan_interface.h>
#include <vector>
#include "selftests/platform/recycled.hpp"

namespace pcache::selftest
{

namespace
{

constexpr usize smallest = 64u << 10; // below it the allocators are fast
constexpr usize kept_at_most = 64u << 20;

struct Kept {
    std::mutex lock;
    std::map<usize, std::vector<void *>> blocks; // by size
    usize bytes = 0;
};

Kept &kept()
{
    static Kept *k = new Kept; // images may be freed behind the end of main()
    return *k;
}

} // namespace

void *take_block(usize bytes)
{
    if (bytes >= smallest) {
        Kept &k = kept();
        const std::lock_guard<std::mutex> g(k.lock);
        const auto i = k.blocks.find(bytes);
        if (i != k.blocks.end() && !i->second.empty()) {
            void *block = i->second.back();
            i->second.pop_back();
            k.bytes -= bytes;
            ASAN_UNPOISON_MEMORY_REGION(block, bytes);
            return block;
        }
    }
    return ::operator new(bytes);
}

void give_block(void *block, usize bytes)
{
    if (bytes >= smallest) {
        Kept &k = kept();
        const std::lock_guard<std::mutex> g(k.lock);
        if (k.bytes + bytes <= kept_at_most) {
            k.blocks[bytes].push_back(block);
            k.bytes += bytes;
            ASAN_POISON_MEMORY_REGION(block, bytes);
            return;
        }
    }
    ::operator delete(block);
}

} // namespace pcache::selftest
