// SPDX-License-Identifier: GPL-2.0
// Tests of a cache with so many bad segments that log, data heads and reclaim have too few left: it
// is read-only and says why, and no write waits for ever.
#include "dm-pcache/engine/heads.hpp"
#include "rig.hpp"

using namespace pcache::selftest;
using pcache::format::data_bytes;
using pcache::format::geometry;
using pcache::format::segment_control_bytes;
using pcache::format::segment_offset;

namespace
{

constexpr u32 segments = 2 * geometry.min_segments;

u32 needed()
{
    return 1 + pcache::engine::log_reserve + pcache::engine::Heads::count_for(segments, pc_cpus()) +
           1;
}

class TooFewSegments : public testing::Test
{
protected:
    Rig rig{segments};

    // Bad pages in the last segments, so that so many are left.
    void leave(u32 good)
    {
        for (u32 s = good; s < segments; s++) {
            const u64 page = segment_offset({s}) + segment_control_bytes + 4096;
            rig.media.poison(page, 64);
            rig.media.know_bad(page, 4096);
        }
    }
    bool read_only() { return rig.status().find(" ro") != std::string::npos; }
};

} // namespace

TEST_F(TooFewSegments, ActivationIsReadOnlyWithASentenceAndAnEvent)
{
    rig.start();
    rig.write_pattern(0, 8192);
    rig.remove();
    leave(needed() - 1);
    const u64 events = rig.world.events();
    rig.start();
    EXPECT_TRUE(read_only()) << rig.status();
    EXPECT_TRUE(rig.world.said("too few segments"));
    EXPECT_GT(rig.world.events(), events);
    rig.check("read-only");
    EXPECT_EQ(rig.try_write(0, Rig::pattern(0, 512, 9)), -5);
}

TEST_F(TooFewSegments, WithAsManyAsNeededWritesGoOnForEver)
{
    rig.start();
    rig.write_pattern(0, 8192);
    rig.remove();
    leave(needed());
    rig.start();
    ASSERT_FALSE(read_only()) << rig.last_error();
    std::mt19937_64 rng(1);
    for (u64 written = 0; written < 30ull * segments * data_bytes; written += 16384)
        rig.write_pattern(rng() % (rig.model.size() / 16384) * 16384, 16384);
    rig.check("many times over");
}
