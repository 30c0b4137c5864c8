// SPDX-License-Identifier: GPL-2.0
// selftests/unit/promise_rig.hpp - what the tests of promise_test and lost_page_test stand on: a
// small cache that can be damaged while it runs, and things that others can be made to wait for.
#pragma once
#include <atomic>
#include <condition_variable>
#include <functional>
#include <sstream>
#include <thread>
#include "damage_rig.hpp"
#include "dm-pcache/platform.h"

namespace pcache::selftest::promise
{
using namespace std::chrono_literals;

inline constexpr u64 page = 4096;

template <class F>
bool soon(F f, std::chrono::milliseconds limit = 20s)
{
    const auto end = std::chrono::steady_clock::now() + limit;
    while (!f()) {
        if (std::chrono::steady_clock::now() > end)
            return false;
        std::this_thread::sleep_for(1ms);
    }
    return true;
}

// A reader in an epoch, until it leaves.
class Reader
{
    std::atomic<bool> in_{false}, out_{false};
    std::thread thread_;

public:
    Reader()
        : thread_([this] {
              const OnCpu cpu(5);
              pc_epoch_enter();
              in_ = true;
              while (!out_)
                  std::this_thread::sleep_for(1ms);
              pc_epoch_exit();
          })
    {
        while (!in_)
            std::this_thread::yield();
    }
    void leave()
    {
        if (!out_.exchange(true))
            thread_.join();
    }
    ~Reader() { leave(); }
};

// Somebody waits in it until it is opened.
class Gate
{
    std::mutex lock_;
    std::condition_variable changed_;
    bool open_ = false;
    unsigned came_ = 0;

public:
    void wait()
    {
        std::unique_lock<std::mutex> g(lock_);
        came_++;
        changed_.wait(g, [this] { return open_; });
    }
    void open()
    {
        const std::lock_guard<std::mutex> g(lock_);
        open_ = true;
        changed_.notify_all();
    }
    bool somebody() // came
    {
        const std::lock_guard<std::mutex> g(lock_);
        return came_ != 0;
    }
};

class Promise : public testing::Test
{
protected:
    DamageRig rig{32};
    std::mt19937_64 rng{7};

    std::string field(unsigned n)
    {
        std::istringstream words(rig.status());
        std::string word;
        for (unsigned i = 0; i <= n; i++)
            words >> word;
        return word;
    }
    bool drained() { return field(6) == field(7); }
    // Clean, at the beginning of the log; what is written next lies in their page.
    void thirty_two_clean_records()
    {
        rig.start();
        for (u64 i = 0; i < 32; i++)
            rig.write_record(i * page, page);
        ASSERT_TRUE(soon([&] { return drained(); })) << rig.status();
    }
    bool as_written(u64 offset)
    {
        const Image got = rig.read(offset, page);
        return std::memcmp(got.data(), &rig.model[offset], page) == 0;
    }
    // What this cut of the power leaves reads at `offset` as the model says.
    void next_life_has(const Cut &cut, u64 offset)
    {
        rig.media.set_power_model(false);
        rig.remove();
        rig.media.cure();
        rig.media.load(cut.media[0]);
        rig.backing.load(cut.backings[0]);
        rig.start();
        EXPECT_TRUE(as_written(offset)) << "what was flushed is gone: " << rig.status();
    }
    void no_violation()
    {
        for (const std::string &v : rig.world.violations())
            ADD_FAILURE() << v;
    }
};

} // namespace pcache::selftest::promise
