// SPDX-License-Identifier: GPL-2.0
// selftests/unit/cxxrt_test.cpp - base, Result, Span, Guard, Locked, Queue and Atomic.
#include <gtest/gtest.h>
#include <memory>
#include <string>
#include <thread>
#include <vector>
#include "cxxrt/atomic.hpp"
#include "cxxrt/guard.hpp"
#include "cxxrt/list.hpp"
#include "cxxrt/result.hpp"
#include "cxxrt/span.hpp"

namespace
{

TEST(Base, RoundingGoesToTheMultipleAndKeepsMultiples)
{
    EXPECT_EQ(rt::round_up(0u, 8u), 0u);
    EXPECT_EQ(rt::round_up(1u, 8u), 8u);
    EXPECT_EQ(rt::round_up(8u, 8u), 8u);
    EXPECT_EQ(rt::round_down(15u, 8u), 8u);
    EXPECT_EQ(rt::round_down(16ull << 32 | 5, 4096ull), 16ull << 32);
}

TEST(Base, MinMaxAndSwap)
{
    EXPECT_EQ(rt::min(3, 5), 3);
    EXPECT_EQ(rt::max(3, 5), 5);
    std::string a = "a", b = "b";
    rt::swap(a, b);
    EXPECT_EQ(a + b, "ba");
}

} // namespace
