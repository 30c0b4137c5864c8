// SPDX-License-Identifier: GPL-2.0
// selftests/platform/siphash.hpp - SipHash-2-4 for the platforms in user space, from its
// definition (Aumasson and Bernstein), so that the kernel's is checked against it through the test
// vectors of the format. A pure function.
#pragma once
#include <cstring>
#include "cxxrt/types.h"

namespace pcache::selftest
{

class SipHash
{
    u64 v0_, v1_, v2_, v3_;

    static u64 rotate(u64 x, unsigned n) { return x << n | x >> (64 - n); }
    static u64 little(const u8 *p, usize bytes = 8)
    {
        u64 n = 0;
        for (usize i = 0; i < bytes; i++)
            n |= u64{p[i]} << (8 * i);
        return n;
    }
    void round()
    {
        v0_ += v1_, v1_ = rotate(v1_, 13) ^ v0_, v0_ = rotate(v0_, 32);
        v2_ += v3_, v3_ = rotate(v3_, 16) ^ v2_;
        v0_ += v3_, v3_ = rotate(v3_, 21) ^ v0_;
        v2_ += v1_, v1_ = rotate(v1_, 17) ^ v2_, v2_ = rotate(v2_, 32);
    }
    void take(u64 word)
    {
        v3_ ^= word;
        round();
        round();
        v0_ ^= word;
    }

public:
    static u64 of(const u8 *key, const void *data, usize bytes)
    {
        const u64 k0 = little(key), k1 = little(key + 8);
        SipHash h;
        h.v0_ = k0 ^ 0x736f6d6570736575;
        h.v1_ = k1 ^ 0x646f72616e646f6d;
        h.v2_ = k0 ^ 0x6c7967656e657261;
        h.v3_ = k1 ^ 0x7465646279746573;
        const u8 *p = static_cast<const u8 *>(data);
        for (usize at = 0; at + 8 <= bytes; at += 8)
            h.take(little(p + at));
        h.take(little(p + bytes / 8 * 8, bytes % 8) | u64{bytes & 0xff} << 56);
        h.v2_ ^= 0xff;
        for (int i = 0; i < 4; i++)
            h.round();
        return h.v0_ ^ h.v1_ ^ h.v2_ ^ h.v3_;
    }
};

} // namespace pcache::selftest
