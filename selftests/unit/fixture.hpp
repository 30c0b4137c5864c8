// SPDX-License-Identifier: GPL-2.0
// selftests/unit/fixture.hpp - a World per test; at the end nothing may be left open, allocated or
// in breach of a rule of platform.h.
#pragma once
#include <gtest/gtest.h>
#include "selftests/platform/world.hpp"

namespace pcache::selftest
{

class WorldTest : public testing::Test
{
protected:
    World world;

    void TearDown() override
    {
        EXPECT_EQ(world.leaks(), "");
        for (const std::string &v : world.violations())
            ADD_FAILURE() << v;
    }
};

} // namespace pcache::selftest
