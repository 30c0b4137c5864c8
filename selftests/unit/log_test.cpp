// SPDX-License-Identifier: GPL-2.0
// selftests/unit/log_test.cpp - the log's writer alone: it needs a segment, none is left, and
// nobody frees any. What waits for it ends all the same.
#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include "dm-pcache/engine/log.hpp"
#include "selftests/unit/fixture.hpp"

namespace pcache::engine
{
namespace
{
using namespace std::chrono_literals;

class LogWithoutSegments : public selftest::WorldTest
{
protected:
    static constexpr u32 segments_in_use = format::geometry.min_segments;

    media::Device device;
    media::Metadata metadata{device};
    Segments segments;
    Tickets tickets{segments};
    std::unique_ptr<Shard[]> shards = std::make_unique<Shard[]>(shard_count);
    Log log{device, metadata, segments, tickets, shards.get()};
    std::atomic<int> told{0};
    std::atomic<bool> done{false};
    std::thread waiter;

    // No segment is free, and the first record to come must be a LAST.
    void SetUp() override
    {
        ASSERT_TRUE(ok(segments.allocate(segments_in_use)));
        for (u32 i = 0; i < segments_in_use; i++)
            segments.recover_log({i});
        segments.finish_recovery();
        ASSERT_TRUE(ok(tickets.allocate(16)));
        ASSERT_TRUE(ok(log.allocate(
            queue,
            {[](void *) noexcept {},
             [](void *c) noexcept { static_cast<LogWithoutSegments *>(c)->told++; }, this})));
        log.begin_session({}, 1, 0, true);
        rt::Queue<Ticket> one;
        one.push_back(*tickets.take_reserve());
        one.front()->reserve = true;
        one.front()->sectors = 8;
        shards[0].staged.splice_back(one);
        shards[0].staged_count = 1;
        (void)log.mark_staged(0);
    }
    void TearDown() override
    {
        log.close(); // in any case, or the waiter never ends
        if (waiter.joinable())
            waiter.join();
        log.stop();
        pc_queue_destroy(queue);
    }
    void wait_for_commit()
    {
        waiter = std::thread([this] {
            log.commit_and_wait();
            done = true;
        });
    }
    bool ends()
    {
        for (int i = 0; i < 1000 && !done; i++)
            std::this_thread::sleep_for(2ms);
        return done;
    }
    pc_queue *queue = pc_queue_create("log");
};

} // namespace

TEST_F(LogWithoutSegments, ItWaitsForGcWhileThereIsOne)
{
    wait_for_commit();
    std::this_thread::sleep_for(50ms);
    EXPECT_FALSE(done);
    EXPECT_FALSE(log.closed());
}

TEST_F(LogWithoutSegments, WhoeverWaitsIsToldThatNoneComes)
{
    wait_for_commit();
    std::this_thread::sleep_for(50ms);
    log.no_segment_comes();
    EXPECT_TRUE(ends());
    EXPECT_TRUE(log.closed());
    EXPECT_EQ(told, 1);
}

// The state of the cache is another one by then, or is being made another one.
TEST_F(LogWithoutSegments, WhoeverWaitsEndsWhenItIsClosed)
{
    wait_for_commit();
    std::this_thread::sleep_for(50ms);
    log.close();
    EXPECT_TRUE(ends());
    EXPECT_EQ(told, 1);
}

// That nobody frees segments is said of one session.
TEST_F(LogWithoutSegments, InTheNextSessionItWaitsForGcAgain)
{
    log.no_segment_comes();
    log.begin_session({}, 1, 0, true);
    wait_for_commit();
    std::this_thread::sleep_for(50ms);
    EXPECT_FALSE(done);
    EXPECT_FALSE(log.closed());
}

TEST_F(LogWithoutSegments, ItClosesAtOnceWhereNoneComes)
{
    log.no_segment_comes();
    wait_for_commit();
    EXPECT_TRUE(ends());
    EXPECT_TRUE(log.closed());
    EXPECT_EQ(told, 1) << "and whoever owns it is told: no clean stop";
}

} // namespace pcache::engine
