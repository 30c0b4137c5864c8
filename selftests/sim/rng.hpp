// SPDX-License-Identifier: GPL-2.0
// selftests/sim/rng.hpp - chance, the same on every machine. Splitmix64, since std's distributions
// are not.
#pragma once
#include "cxxrt/types.h"

namespace pcache::sim
{

class Rng
{
    u64 state_;

public:
    Rng() : Rng(0) {}
    explicit Rng(u64 seed) : state_(seed * 0x9E3779B97F4A7C15u + 0x1234567) {}
    u64 next()
    {
        u64 z = state_ += 0x9E3779B97F4A7C15u;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
        return z ^ (z >> 31);
    }
    u32 below(u32 n) { return static_cast<u32>((u64{static_cast<u32>(next() >> 32)} * n) >> 32); }
    u64 between(u64 low, u64 high) { return low + next() % (high - low + 1); }
    bool one_in(u32 n) { return below(n) == 0; }
    bool chance(u32 of_1024) { return below(1024) < of_1024; }
};

} // namespace pcache::sim
