// SPDX-License-Identifier: GPL-2.0
// selftests/platform/internal.hpp - what the pieces of the user-space platform share.
//
// Two layers. The scheduling layer (platform_threads.cpp, platform_work.cpp) implements locks,
// events, epochs, works, time and CPUs; everything declared in namespace `sched` is its to define.
// The devices (media, backing, bio, memory, host) are built on that layer and on platform.h alone,
// so that another scheduling layer can replace it.
#pragma once
#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <set>
#include <shared_mutex>
#include "selftests/platform/power.hpp"
#include "selftests/platform/world.hpp"
#include "selftests/platform/pc_abi.h"

namespace pcache::selftest
{

namespace sched
{
// Aborts, naming `what`, where this thread must not sleep.
void assert_may_sleep(const char *what);
// The same in an epoch or under a spinlock: map() may submit requests, though it does not sleep.
void assert_may_submit(const char *what);
void forbid_sleep(); // nests
void allow_sleep();
void assert_pinned(const char *what);
u32 fence_cpu(); // the CPU of the pinned caller
void set_cpus(u32 n);
void next_cpu();       // this thread is on another one than whoever called this before
u64 self();            // a number of the calling thread
int place_on(int cpu); // -1: anywhere; returns the former place
// Runs f in interrupt context, after that time. Before start() and after stop(): an abort.
void run_later(u64 ns, std::function<void()> f);
void sleep_ns(u64 ns);
void start();
void stop(); // everything that was to run later has run
u64 live_queues();
} // namespace sched

// Prints and aborts: a rule of platform.h was broken by its caller.
[[noreturn]] void broken(const char *rule);
// Notes it in World::violations().
void violation(const std::string &what);

// Memory of a file, mapped as a whole.
class Store
{
    int fd_ = -1;
    u64 bytes_ = 0;
    u8 *base_ = nullptr;

    std::pair<u64, u64> stretch(u64 at) const;

public:
    explicit Store(u64 bytes);               // anonymous
    explicit Store(const std::string &file); // that file; aborts if it cannot be opened
    ~Store();
    Store(const Store &) = delete;
    Store &operator=(const Store &) = delete;
    u64 bytes() const { return bytes_; }
    u8 *base() const { return base_; }
    int fd() const { return fd_; }
    void load(const Image &image);
    bool load_file(const std::string &file);
    // A look from outside: that others store there meanwhile is no race of theirs.
    void look(u64 from, void *to, usize n) const;
    Image image() const; // the same of all; reads no hole, which would give it memory
    u64 find(const void *what, usize n, u64 from, u64 step) const;
};

// An address range of a Store between two pages that trap.
u8 *map_guarded(int fd, u64 offset, u64 bytes);
void unmap_guarded(u8 *at, u64 bytes);

// Counts the handles that belong to a table; null is fine.
void hold_table(pc_table *t, int by);
bool noflush_suspend(); // of some table

// ---- media ----
struct MediaDevice::Impl {
    explicit Impl(std::unique_ptr<Store> s) : store(std::move(s)), pending(store->base()) {}
    std::unique_ptr<Store> store;
    std::atomic<bool> scattered{false};
    std::atomic<u64> handles{0};
    std::string name;
    std::atomic<u64> claimed{0}; // bytes, for the identity of those who open it; 0: all
    std::mutex watch_lock;       // held over the calls
    std::set<pc_media *> watched;
    bool gone = false;

    mutable std::shared_mutex poison_lock;
    std::set<u64> poisoned;  // line numbers
    std::set<u64> known_bad; // numbers of units (512 bytes)
    std::atomic<bool> any_poison{false};
    std::atomic<bool> repairable{true};
    std::atomic<bool> unmaps_pages{false};

    std::atomic<bool> power{false};
    Power pending; // guarded by power_lock()
};
std::mutex &power_lock();
Image cut_locked(const MediaDevice::Impl &d, const std::function<bool(u64, unsigned)> &arrived);
void set_fence_hook(std::function<void()> hook);
void media_reset(); // forgets mappings and hooks; all handles must be closed

// ---- backing ----
void backing_lock(BackingDevice::Impl &d);
void backing_unlock(BackingDevice::Impl &d);
u64 backing_handles(const BackingDevice::Impl &d);
Image cut_locked(const BackingDevice::Impl &d,
                 const std::function<bool(const BackingDevice::Write &, u32)> &arrived);
std::unique_ptr<BackingDevice> make_backing(std::unique_ptr<Store> s);
double draw_chance(Rng &rng);

// ---- bios and memory ----
// The bytes of a bio that the engine may touch; aborts if it has ended or they are not there.
u8 *bio_bytes(pc_bio *bio, u32 offset, u32 bytes);
// Some of its bytes were read.
void bio_was_read(pc_bio *bio);
u64 live_bios();

void memory_reset();

} // namespace pcache::selftest
