// SPDX-License-Identifier: GPL-2.0
// format/crc32c.cpp - see crc32c.hpp.
#include "dm-pcache/format/crc32c.hpp"
#include "cxxrt/atomic.hpp"

namespace pcache::format
{

namespace
{

constexpr u32 polynomial = 0x82F63B78;

struct Table {
    u32 entry[256];
    consteval Table() noexcept : entry{}
    {
        for (u32 i = 0; i < 256; i++) {
            u32 c = i;
            for (int bit = 0; bit < 8; bit++)
                c = (c >> 1) ^ ((c & 1) ? polynomial : 0);
            entry[i] = c;
        }
    }
};
constexpr Table table;

// 0: not asked yet. Two threads may ask at once; they get the same answer.
constinit rt::Atomic<u32> answer{0};
constexpr u32 answer_yes = 1, answer_no = 2;

#if defined(__x86_64__)
bool ask_processor() noexcept
{
    constexpr u32 feature_leaf = 1, sse42_bit = 1u << 20;
    u32 a = feature_leaf, b, c = 0, d;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    return (c & sse42_bit) != 0;
}

u32 by_instruction(u32 seed, const u8 *p, usize n) noexcept
{
    u64 c = seed;
    for (; n >= 8; p += 8, n -= 8) {
        u64 word;
        __builtin_memcpy(&word, p, 8);
        __asm__("crc32q %1, %0" : "+r"(c) : "r"(word));
    }
    u32 c32 = static_cast<u32>(c);
    for (; n; p++, n--)
        __asm__("crc32b %1, %0" : "+r"(c32) : "q"(*p));
    return c32;
}
#else
bool ask_processor() noexcept
{
    return false;
}
u32 by_instruction(u32 seed, const u8 *p, usize n) noexcept
{
    return crc32c_by_table(seed, p, n);
}
#endif

} // namespace

bool crc32c_has_instruction() noexcept
{
    u32 known = answer.read();
    if (!known) {
        known = ask_processor() ? answer_yes : answer_no;
        answer.set(known);
    }
    return known == answer_yes;
}

u32 crc32c_by_table(u32 seed, const void *p, usize n) noexcept
{
    const u8 *byte = static_cast<const u8 *>(p);
    u32 c = seed;
    for (; n; n--)
        c = table.entry[(c ^ *byte++) & 0xFF] ^ (c >> 8);
    return c;
}

u32 crc32c(u32 seed, const void *p, usize n) noexcept
{
    if (crc32c_has_instruction())
        return by_instruction(seed, static_cast<const u8 *>(p), n);
    return crc32c_by_table(seed, p, n);
}

} // namespace pcache::format
