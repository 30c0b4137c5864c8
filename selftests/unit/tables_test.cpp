// SPDX-License-Identifier: GPL-2.0
// The tables of one mapped device, in every order in which device-mapper may make, resume and
// destroy them: whoever goes first takes along what belongs to it, and nobody is left with a crash
// or with devices that stay open (the World sees to that when a table is dropped, and the Rig at
// the end).
#include <atomic>
#include <chrono>
#include <list>
#include <random>
#include <thread>
#include "rig.hpp"

using namespace pcache::selftest;

namespace
{

constexpr int no_device = -19, busy = -16;

// The table that is live in `rig`, taken out of it.
struct Taken {
    explicit Taken(Rig &r) : rig(r), target(r.target), table(r.table) { r.target = nullptr; }
    void suspend()
    {
        pc_target_presuspend(target, 0);
        pc_target_postsuspend(target);
    }
    void destroy()
    {
        pc_target_dtr(target);
        rig.world.drop_table(table);
    }
    Rig &rig;
    pc_target *target;
    pc_table *table;
};

void expect_as_good_as_new(Rig &rig, const char *when)
{
    rig.start();
    rig.check(when);
    rig.write_pattern(4096, 4096);
    rig.check(when);
}

} // namespace

// A resume that puts another target in the place of A, beside a load of B; or a removal beside it.
TEST(Tables, ATableWhoseCacheWentWithTheOldOneIsRefusedAtItsResume)
{
    Rig rig;
    rig.start();
    rig.write_pattern(0, 64u << 10);
    Taken a(rig);
    a.suspend();
    ASSERT_EQ(rig.create(), 0) << rig.sentence; // B
    a.destroy();
    EXPECT_EQ(rig.resume(), no_device);
    EXPECT_TRUE(rig.world.said("load it again")) << rig.last_error();
    EXPECT_EQ(rig.status(), "Inactive");
    EXPECT_EQ(rig.status(1), "cache backing 4 cache_mode writeback data_crc false");
    EXPECT_EQ(rig.message({"gc_percent", "30"}), busy);
    EXPECT_EQ(rig.resume(), no_device);
    rig.destroy();
    expect_as_good_as_new(rig, "after the refusal");
}

TEST(Tables, ATableWhoseCacheWentWithTheOldOneMayGoUnresumed)
{
    Rig rig;
    rig.start();
    rig.write_pattern(0, 64u << 10);
    Taken a(rig);
    a.suspend();
    ASSERT_EQ(rig.create(), 0) << rig.sentence;
    a.destroy();
    rig.destroy();
    expect_as_good_as_new(rig, "after both");
}

// B is refused at its load, when A has just gone: the reference that it gives back is the last.
TEST(Tables, ALoadThatIsRefusedAfterTheOldTableHasGoneFreesTheCache)
{
    for (u32 at = 1; at < 6; at++) {
        Rig rig;
        rig.start();
        rig.write_pattern(0, 64u << 10);
        Taken a(rig);
        a.suspend();
        bool gone = false;
        World::at_mutex(at, [&] {
            a.destroy();
            gone = true;
        });
        const int error = rig.create({"2", "data_crc", "true"});
        World::at_mutex(0, nullptr);
        EXPECT_EQ(error, -22) << rig.sentence;
        if (!gone)
            a.destroy();
        expect_as_good_as_new(rig, "after the refusal");
    }
}

// The resume of B and the end of A at once: one of them is first, and both are served.
TEST(Tables, TheEndOfTheOldTableBesideTheResumeOfTheNewOne)
{
    unsigned taken_over = 0;
    for (unsigned life = 0; life < 32; life++) {
        Rig rig;
        rig.start();
        rig.write_pattern(0, 64u << 10);
        Taken a(rig);
        a.suspend();
        ASSERT_EQ(rig.create(), 0) << rig.sentence;
        std::atomic<bool> go{false};
        std::thread end([&] {
            while (!go)
                ;
            a.destroy();
        });
        go = true;
        std::this_thread::sleep_for(std::chrono::microseconds((life % 16) * 10));
        const int error = rig.resume();
        end.join();
        if (!error) {
            taken_over++;
            rig.check("after a reload");
            continue;
        }
        ASSERT_EQ(error, no_device);
        rig.destroy();
        expect_as_good_as_new(rig, "after the refusal");
    }
    std::cerr << "taken over: " << taken_over << "\n";
}

namespace
{

// One mapped device as device-mapper has it, with what must come of each call.
class Device
{
public:
    explicit Device(Rig &r) : rig_(r) {}
    ~Device()
    {
        swap_out();
        clear();
        while (!old_.empty())
            destroy(0);
    }
    void load()
    {
        clear();
        Table t;
        ASSERT_EQ(rig_.create(), 0) << rig_.sentence;
        t.target = rig_.target;
        t.table = rig_.table;
        for (Cache &c : caches_)
            if (c.active)
                t.cache = &c;
        if (!t.cache) {
            caches_.emplace_back();
            t.cache = &caches_.back();
            t.cache->home = t.table;
        }
        rig_.target = nullptr;
        inactive_ = t;
    }
    void clear()
    {
        if (inactive_.target)
            old_.push_back(inactive_);
        inactive_ = {};
    }
    // Another target comes into the live one's place, or the device goes.
    void swap_out()
    {
        if (!live_.target)
            return;
        pc_target_presuspend(live_.target, 0);
        pc_target_postsuspend(live_.target);
        old_.push_back(live_);
        live_ = {};
    }
    void resume()
    {
        if (!inactive_.target)
            return;
        swap_out();
        live_ = inactive_;
        inactive_ = {};
        const int error = pc_target_preresume(live_.target);
        Cache &c = *live_.cache;
        bool another = false;
        for (const Cache &o : caches_)
            another |= o.active && &o != &c;
        ASSERT_EQ(error, !c.home ? no_device : another ? busy : 0) << rig_.last_error();
        if (error) { // the device is left suspended; a load of another table is the way out
            old_.push_back(live_);
            live_ = {};
            return;
        }
        c.active = true;
        c.home = live_.table;
    }
    void destroy(usize n)
    {
        if (n >= old_.size())
            return;
        const Table t = old_[n];
        old_.erase(old_.begin() + static_cast<long>(n));
        pc_target_dtr(t.target);
        if (t.cache->home == t.table)
            *t.cache = {};
        rig_.world.drop_table(t.table);
    }
    void use()
    {
        if (!live_.target)
            return;
        rig_.target = live_.target;
        rig_.table = live_.table;
        rig_.write_pattern((rig_.version % 60) * 4096, 8192);
        rig_.check("in the middle");
        rig_.target = nullptr;
    }

private:
    struct Cache {
        pc_table *home = nullptr; // null: dead
        bool active = false;
    };
    struct Table {
        pc_target *target = nullptr;
        pc_table *table = nullptr;
        Cache *cache = nullptr;
    };
    Rig &rig_;
    std::list<Cache> caches_;
    Table live_, inactive_;
    std::vector<Table> old_; // out of use, and not destroyed yet
};

} // namespace

TEST(Tables, AnyOrderOfLoadResumeSwapAndDestroyIsSafe)
{
    for (unsigned seed = 0; seed < 40; seed += life_step) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        Rig rig;
        std::mt19937 rng(seed);
        {
            Device device(rig);
            for (unsigned step = 0; step < 24 && !testing::Test::HasFatalFailure(); step++) {
                switch (rng() % 8) {
                case 0:
                case 1:
                    device.load();
                    break;
                case 2:
                case 3:
                    device.resume();
                    break;
                case 4:
                    device.swap_out();
                    break;
                case 5:
                    device.clear();
                    break;
                case 6:
                    device.destroy(rng() % 3);
                    break;
                case 7:
                    device.use();
                    break;
                }
            }
        }
        if (testing::Test::HasFatalFailure())
            return;
        expect_as_good_as_new(rig, "at the end");
    }
}
