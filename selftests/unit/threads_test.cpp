// SPDX-License-Identifier: GPL-2.0
// selftests/unit/threads_test.cpp - real threads on shared, overlapping ranges of a small cache
// that is always full, and a checker of what their reads show. `make threads SECONDS=3600` runs it
// for long.
//
// The checker knows of each sector the writes that may be read: each has a time at which it began,
// at which it was acknowledged, and at which a read that showed it ended. A read may show a write W
// unless a later one, which began when W had been acknowledged, was acknowledged or shown before
// the read began. What nobody can be shown any more is forgotten. Two writes at one time have no
// order here.
//
// Locking: a client holds `gate` shared while its request is in flight, as device-mapper counts
// what it has sent; who suspends or removes takes it alone. A sector's history has its own mutex.
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <thread>
#include "selftests/unit/rig.hpp"

#ifdef PCACHE_SMALL_GEOMETRY // a cache that is full in no time

namespace pcache::selftest
{
namespace
{

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr u64 never = ~u64{0};
constexpr u32 clients = 5;

struct Write {
    u64 id, began, ended = never, shown = never;
    u64 certain() const { return std::min(ended, shown); } // from then on it is there
};

class Checker
{
    struct Sector {
        std::mutex lock;
        std::deque<Write> writes{{0, 0, 0, 0}}; // in the order in which they began; 0: zeros
    };
    std::vector<Sector> sectors_;
    std::atomic<u64> clock_{1}, ids_{1};
    std::atomic<u64> busy_since_[clients];

    // Before which no request began that is still in flight.
    u64 horizon() const
    {
        u64 h = clock_.load();
        for (const std::atomic<u64> &b : busy_since_)
            h = std::min(h, b.load());
        return h;
    }
    static bool overridden(const Sector &s, const Write &w, u64 time)
    {
        for (const Write &u : s.writes)
            if (u.began > w.ended && u.certain() < time)
                return true;
        return false;
    }

public:
    explicit Checker(u64 count) : sectors_(count)
    {
        for (std::atomic<u64> &b : busy_since_)
            b = never;
    }
    // A request of this client. The client's time first: what it may be shown is then kept.
    u64 begin(u32 client)
    {
        busy_since_[client] = clock_.load();
        return clock_.fetch_add(1);
    }
    void end(u32 client) { busy_since_[client] = never; }

    u64 write_begins(u64 at, u64 count, u64 time)
    {
        const u64 id = ids_.fetch_add(1);
        for (u64 i = 0; i < count; i++) {
            Sector &s = sectors_[at + i];
            const std::lock_guard<std::mutex> g(s.lock);
            s.writes.push_back({id, time});
        }
        return id;
    }
    void write_ended(u64 at, u64 count, u64 id)
    {
        const u64 time = clock_.fetch_add(1), old = horizon();
        for (u64 i = 0; i < count; i++) {
            Sector &s = sectors_[at + i];
            const std::lock_guard<std::mutex> g(s.lock);
            for (Write &w : s.writes)
                if (w.id == id)
                    w.ended = time;
            std::erase_if(s.writes, [&](const Write &w) { return overridden(s, w, old); });
        }
    }
    // What a read that began at `began`, and has ended, shows of one sector. Empty: it may.
    std::string shown(u64 at, u64 id, u64 began)
    {
        Sector &s = sectors_[at];
        const std::lock_guard<std::mutex> g(s.lock);
        for (Write &w : s.writes)
            if (w.id == id) {
                const bool old = overridden(s, w, began);
                w.shown = std::min(w.shown, clock_.fetch_add(1));
                return old ? history(s, at, id, began, "which was overwritten") : "";
            }
        return history(s, at, id, began, "which nobody can be shown any more, or nobody wrote");
    }

private:
    static std::string history(const Sector &s, u64 at, u64 id, u64 began, const char *what)
    {
        std::string t = "sector " + std::to_string(at) + ": a read from time " +
                        std::to_string(began) + " shows write " + std::to_string(id) + ", " + what;
        for (const Write &w : s.writes)
            t += "\n  write " + std::to_string(w.id) + " from " + std::to_string(w.began) + " to " +
                 (w.ended == never ? "?" : std::to_string(w.ended)) + ", shown at " +
                 (w.shown == never ? "?" : std::to_string(w.shown));
        return t;
    }
};

// What device-mapper does around a suspend: what has been sent ends, what comes waits outside.
class Gate
{
    std::mutex lock_;
    std::condition_variable changed_;
    bool closed_ = false;
    u32 inside_ = 0;

public:
    void lock()
    {
        std::unique_lock<std::mutex> g(lock_);
        changed_.wait(g, [&] { return !closed_; });
        inside_++;
    }
    void unlock()
    {
        const std::lock_guard<std::mutex> g(lock_);
        if (!--inside_)
            changed_.notify_all();
    }
    void close()
    {
        std::unique_lock<std::mutex> g(lock_);
        closed_ = true;
        changed_.wait(g, [&] { return !inside_; });
    }
    void open()
    {
        const std::lock_guard<std::mutex> g(lock_);
        closed_ = false;
        changed_.notify_all();
    }
};
using Inside = std::lock_guard<Gate>;

// One cache, its clients and its administrator.
class Load
{
    Rig rig_;
    const bool data_crc_;
    Checker checker_;
    Gate gate_;
    std::atomic<bool> over_{false}, wrong_{false};
    std::atomic<u64> requests_{0};
    std::mt19937_64 rng_;

    void violated(const std::string &what)
    {
        if (!wrong_.exchange(true))
            ADD_FAILURE() << what;
        over_ = true;
    }

    // Sends until it is not pushed back by a suspend without flush.
    int send(Bio &bio, const pc_io &io, bool &remapped)
    {
        switch (rig_.map(bio, io)) {
        case PC_TAKEN:
            return bio.wait();
        case PC_REMAP:
            remapped = true;
            rig_.backing.read(io.offset, bio.data(), bio.size());
            return 0;
        default:
            return -5;
        }
    }

    // One request inside of a range of device-mapper's; what was cut off is not asked for again.
    void read(u32 client, u64 at, u64 count)
    {
        for (;;) {
            const Inside inside(gate_);
            const u64 began = checker_.begin(client);
            Bio bio(static_cast<u32>(count * sector));
            bool remapped = false;
            const int e = send(bio, {PC_READ, at * sector, bio.size(), 0, 0}, remapped);
            if (e == PC_END_REQUEUE) {
                checker_.end(client);
                continue;
            }
            if (e)
                violated("a read fails: error " + std::to_string(e));
            for (u64 i = 0; !e && i < bio.size() / sector; i++)
                check(at + i, bio.data() + i * sector, began);
            checker_.end(client);
            return;
        }
    }
    void check(u64 at, const u8 *data, u64 began)
    {
        u64 v[2];
        std::memcpy(v, data, sizeof(v));
        for (u64 i = 16; i < sector; i += 16)
            if (std::memcmp(data + i, data, 16))
                return violated("sector " + std::to_string(at) + " is torn: " + Rig::tag(data) +
                                " and " + Rig::tag(data + i));
        if (v[1] && v[0] != at)
            return violated("sector " + std::to_string(at) + " shows " + Rig::tag(data));
        if (const std::string what = checker_.shown(at, v[1], began); !what.empty())
            violated(what);
    }
    void write(u32 client, u64 at, u64 count, bool fua)
    {
        u64 id = 0;
        for (bool again = true; again;) {
            const Inside inside(gate_);
            if (!id)
                id = checker_.write_begins(at, count, checker_.begin(client));
            Bio bio(Rig::pattern(at * sector, count * sector, id));
            bool remapped = false;
            const int e = send(bio, {PC_WRITE, at * sector, bio.size(), fua, 0}, remapped);
            again = e == PC_END_REQUEUE;
            if (e && !again)
                violated("a write fails: error " + std::to_string(e));
        }
        checker_.write_ended(at, count, id);
        checker_.end(client);
    }
    void flush()
    {
        const Inside inside(gate_);
        if (const int e = rig_.flush(); e && e != PC_END_REQUEUE)
            violated("a FLUSH fails: error " + std::to_string(e));
    }

    void client(u32 number, u64 seed)
    {
        std::mt19937_64 rng(seed);
        const u64 range = format::geometry.range_bytes / sector,
                  all = rig_.backing.bytes() / sector;
        while (!over_) {
            requests_++;
            const u64 base =
                rng() % 2 ? 0 : rng() % (all / range) * range; // half of it in one range
            const u64 at = base + rng() % range;
            const u64 most = std::min<u64>(range - at % range, rng() % 8 ? 16 : 128);
            const u64 count = 1 + rng() % most;
            const u64 what = rng() % 16;
            if (what == 0)
                flush();
            else if (what < 8)
                read(number, at, count);
            else
                write(number, at, count, what == 15);
        }
    }

    // As dmsetup suspend and resume, with a load on the device.
    void turn(bool noflush)
    {
        rig_.begin_suspend(noflush);
        gate_.close();
        rig_.end_suspend();
        if (rng_() % 4 == 0) { // a new life
            rig_.destroy();
            start();
        } else if (rig_.resume()) {
            violated("it does not resume: " + rig_.last_error());
        }
        gate_.open();
    }
    void administrate()
    {
        std::this_thread::sleep_for(std::chrono::milliseconds(5 + rng_() % 60));
        switch (rng_() % 4) {
        case 0:
            turn(true);
            break;
        case 1:
            turn(false);
            break;
        default:
            if (rig_.message({"gc_percent", std::to_string(rng_() % 91)}))
                violated("gc_percent is refused");
        }
    }
    void start()
    {
        std::vector<std::string> options{};
        if (data_crc_)
            options = {"2", "data_crc", "true"};
        if (rig_.create(options) || rig_.resume())
            violated("it does not start: " + rig_.sentence + rig_.last_error());
    }

public:
    explicit Load(u64 seed)
        : rig_(format::geometry.min_segments + static_cast<u32>(seed % 3), 1u << 20),
          data_crc_(seed % 2), checker_(rig_.backing.bytes() / sector), rng_(seed)
    {
        rig_.backing.set_delay_ns(Op::write, 20000 * (seed % 5));
        rig_.backing.set_delay_ns(Op::read, 200000 * (seed % 3));
    }
    // Returns the number of requests.
    u64 run(Clock::time_point until)
    {
        start();
        std::vector<std::thread> all;
        for (u32 i = 0; i < clients && !over_; i++)
            all.emplace_back([this, i, s = rng_()] { client(i, s); });
        while (!over_ && Clock::now() < until)
            administrate();
        over_ = true;
        for (std::thread &t : all)
            t.join();
        if (!wrong_)
            verify();
        return requests_;
    }
    // Everything, twice: as cached, and in the next life.
    void verify()
    {
        for (const bool again : {false, true}) {
            for (u64 at = 0; at < rig_.backing.bytes() / sector; at += 8)
                read(0, at, 8);
            if (again)
                return;
            rig_.remove();
            start();
        }
    }
};

} // namespace

// PCACHE_THREADS_SECONDS: how long; each cache lives for about two seconds.
TEST(Threads, NoReadShowsWhatWasOverwrittenBeforeItBegan)
{
    const char *asked = std::getenv("PCACHE_THREADS_SECONDS");
    const auto end = Clock::now() + std::chrono::seconds(asked ? std::atol(asked) : 3);
    u64 seed = 0, requests = 0;
    while (Clock::now() < end && !HasFailure()) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        Load load(seed++);
        requests += load.run(std::min(end, Clock::now() + 2s));
    }
    printf("threads: %llu caches, %llu requests, %d violations\n", seed, requests,
           HasFailure() ? 1 : 0);
}

} // namespace pcache::selftest

#endif
