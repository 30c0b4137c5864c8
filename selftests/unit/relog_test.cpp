// SPDX-License-Identifier: GPL-2.0
// selftests/unit/relog_test.cpp - dirty data that cannot be read is logged again before dirty tail
// passes it, whatever comes in between (engine/relog.cpp).
#include <chrono>
#include <mutex>
#include <thread>
#include "selftests/unit/rig.hpp"

namespace pcache::selftest
{
#ifdef PCACHE_SMALL_GEOMETRY // some thirty lives
namespace
{

using namespace std::chrono_literals;

constexpr u64 other = 64u << 10; // where good dirty data stands behind the lost data in the log

// One life in which a write comes over sectors 2 and 3 of the lost ones, 2 to 6, in front of the
// n-th lock that write-back takes behind its FLUSH. False: it takes fewer until the rest is written
// back.
bool write_at_lock(u32 n)
{
    constexpr u64 at = 2, count = 2;
    Rig rig(small_world ? 2 * format::geometry.min_segments : format::geometry.min_segments);
    std::atomic<bool> armed{false};
    std::mutex lock; // guards:
    bool came = false, over = false;
    rig.start();
    rig.backing.set_hook([](Op op, u64, u64) { return op == Op::write ? -5 : 0; });
    rig.write_pattern(0, 8 * sector);
    EXPECT_EQ(rig.flush(), 0);
    rig.write_pattern(other, 8 * sector);
    EXPECT_EQ(rig.flush(), 0);
    const u64 place = rig.media.find(&rig.model[0], 16, format::first_segment_offset, sector);
    for (u64 s = 2; s <= 6; s++)
        rig.media.poison(place + s * sector, 64);
    rig.backing.set_hook([&](Op op, u64, u64) {
        if (op == Op::flush && !armed.exchange(true))
            World::at_lock(n, [&] {
                const std::lock_guard<std::mutex> g(lock);
                if (over)
                    return;
                std::thread([&] { rig.write_pattern(at * sector, count * sector); }).join();
                came = true;
            });
        return 0;
    });
    const auto end = std::chrono::steady_clock::now() + 60s;
    const auto written_back = [&] {
        Image now(8 * sector);
        rig.backing.read(other, now.data(), static_cast<u32>(now.size()));
        return !std::memcmp(now.data(), &rig.model[other], now.size());
    };
    while (!written_back() && std::chrono::steady_clock::now() < end)
        std::this_thread::sleep_for(2ms);
    EXPECT_TRUE(written_back()) << "write-back does not go on behind what is lost";
    {
        const std::lock_guard<std::mutex> g(lock);
        over = true;
    }
    rig.remove();
    rig.backing.set_hook(nullptr);
    rig.start();
    for (u64 s = 0; s < 8; s++) {
        const bool lost = s >= 2 && s <= 6 && !(came && s >= at && s < at + count);
        Bio bio(sector);
        const pc_verdict v = rig.map(bio, {PC_READ, s * sector, sector, 0, 0});
        const int e = v == PC_TAKEN ? bio.wait() : 0;
        EXPECT_EQ(e, lost ? -5 : 0) << "sector " << s << ": the write came at lock " << n
                                    << ", for sectors " << at << " to " << at + count - 1;
    }
    return came;
}

} // namespace

// Found by the simulator (seed 30280 of its day): a write to the first sectors of what was about to
// be logged again, right in front of that, and the rest was passed. In the next life it read as old
// data.
TEST(Relog, AWriteOverTheBeginningOfLostDataWhileItIsLoggedAgainLeavesTheRestLost)
{
    u32 n = 1;
    while (n < 200 && !HasFailure() && write_at_lock(n))
        n += life_step;
    EXPECT_GT(n, 5u) << "write-back took hardly a lock: the write came nowhere";
    EXPECT_LT(n, 200u);
}
#endif

} // namespace pcache::selftest
