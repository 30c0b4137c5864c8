// SPDX-License-Identifier: GPL-2.0
// selftests/platform/world.hpp - what a test sees of the user-space platform: the devices, tables
// and requests that the engine meets through platform.h, and the means to make them fail.
//
// Test-facing only: the engine knows nothing of it. One World exists at a time; everything that a
// test adds lives until the World dies, after the engine has closed its handles. A device is the
// thing that survives a power cut; pc_media and pc_backing are handles to it, as many as are
// opened. How threads, time and waiting come about is not visible here, so that a platform with
// simulated time can stand behind the same header.
//
// Locking: every member may be called from any thread, unless its comment says otherwise.
#pragma once
#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <string_view>
#include <vector>
#include "dm-pcache/platform.h"
#include "selftests/platform/recycled.hpp"

namespace pcache::selftest
{

using Rng = std::mt19937_64;

// ---- the cache device ---------------------------------------------------------------------------

// Memory behind a file descriptor (sparse: only what was written takes space), so that it can be
// mapped several times. Mappings are surrounded by pages that trap.
//
// Power model (off unless asked for): a store is pending until a fence of the CPU that made it. At
// a cut every 8-byte unit holds what was fenced last, or what any later store put there.
class MediaDevice
{
public:
    // New handle; the one who gets it closes it by pc_media_close.
    pc_media *open(pc_table *table = nullptr);
    u64 bytes() const;

    // Content as the CPU sees it now. Not for use while the engine stores.
    void read(u64 offset, void *to, usize bytes) const;
    // Puts bytes there behind the engine's back; durable at once, and they cure poison.
    void write(u64 offset, const void *from, usize bytes);
    Image image() const;
    // The first of the places from, from + step, ... that holds these bytes; bytes() if there is
    // none. For data, not for zeros: holes are left out. `from` is a multiple of 4096, and `step`
    // divides it.
    u64 find(const void *what, usize n, u64 from, u64 step) const;
    void load(const Image &image); // the same size as the device
    // Copies a file in, holes left out; the device must be at least as large. False: no such file.
    bool load_file(const std::string &file);

    void set_name(const std::string &name); // pc_media_name; at first that of add_media
    void set_claimed(u64 bytes);            // of the identity of those who open it from now on
    // The notice that it goes, to all who have it open and all who open it later.
    void take_away();

    // Each pc_media_map gives addresses that do not follow those of the one before.
    void set_scattered(bool on);

    // The lines (64 bytes) that [offset, offset + bytes) touches cannot be read any more. Only
    // write() cures them; stores of the engine do not.
    void poison(u64 offset, u64 bytes);
    void cure();
    // The pages that [offset, offset + bytes) touches are poisoned, and those who open the device
    // from now on are told. To load from them afterwards is a breach of platform.h.
    void know_bad(u64 offset, u64 bytes);
    // The same of the units of 512 bytes that are touched: the rest of their pages can be loaded.
    void know_bad_units(u64 offset, u64 bytes);
    // Block writes of pages with poison fail.
    void set_repairable(bool on);
    // A load that meets poison takes the whole page with it, as Linux unmaps it.
    void set_unmaps_pages(bool on);

    void set_power_model(bool on); // what is pending when it goes off, is durable
    u64 pending_units() const;
    // What a power cut leaves: `arrived(offset, nth)` says for each pending store (in order; offset
    // of its 8-byte unit; nth of this unit) whether it reached the media. Inside a block write it
    // is asked for each unit of 512 bytes as if zeros and then the new bytes had been stored there.
    // The device is left as it is.
    Image cut(const std::function<bool(u64 offset, unsigned nth)> &arrived) const;
    Image cut(Rng &rng)
        const; // each with one chance, which is itself drawn: none, few, half, most or all
    // A panic or kexec: no fence of the former life makes anything durable now. What is pending
    // stays readable, and goes at the next cut unless it is flushed and fenced.
    void panic();

    struct Impl;
    explicit MediaDevice(std::unique_ptr<Impl> impl);
    ~MediaDevice();
    Impl &impl() const { return *impl_; }

private:
    std::unique_ptr<Impl> impl_;
};

// Bytes of data that were summed since the process began, stored ones included; and by this thread.
u64 bytes_summed();
u64 bytes_summed_here();

// ---- the backing device
// ----------------------------------------------------------------------------

enum class Op { read, write, flush };

// Memory. Writes are carried out, and completed, later and by somebody else.
//
// Write cache model (off unless asked for): a write is unflushed until a flush that was sent after
// its completion has ended. At a cut each 512-byte sector holds what was flushed last or what any
// later write, completed or in flight, put there.
class BackingDevice
{
public:
    pc_backing *open(pc_table *table = nullptr); // new handle, closed by pc_backing_close
    u64 bytes() const;
    // It shows that many bytes from now on: at most as many as it was made with, which come back
    // with their content. An LV that shrinks or grows.
    void set_bytes(u64 bytes);
    void read(u64 offset, void *to, usize bytes) const; // no count, no failure
    void write(u64 offset, const void *from, usize bytes);
    Image image() const;
    void load(const Image &image);
    bool load_file(const std::string &file);

    // The n-th operation of this kind from now on (1: the next) and the times - 1 behind it fail.
    void fail(Op op, u64 n, int error = -5, u64 times = 1);
    // Every operation from now on takes that long (0: as fast as it goes).
    void set_delay_ns(Op op, u64 ns);
    // Called before each operation, in its context; not 0: it fails with that. Replaces the former
    // one.
    void set_hook(std::function<int(Op op, u64 offset, u64 bytes)> hook);
    // pc_wio_add takes no more than that per write (multiple of 512).
    void set_write_capacity(u32 bytes);
    // What is read and written in other units than that is an abort (default 512). Before it is
    // opened.
    void set_logical_block(u32 bytes);
    void set_name(const std::string &name); // pc_backing_name; at first that of add_backing
    // Writes are held back, neither carried out nor completed, until it is set to false.
    void hold_writes(bool on);
    // Reads into pages (pc_rio_begin) are carried out, so that they have the bytes of now,
    // but not completed until it is set to false.
    void hold_reads(bool on);

    struct Counters {
        u64 reads, writes, flushes; // begun, failed ones included
        u64 read_bytes, written_bytes;
        u64 writes_in_flight;
        u64 reads_held;
    };
    Counters counters() const;

    void set_write_cache(bool on); // what is unflushed when it goes off, is durable
    struct Write {
        u64 id; // in the order of submission
        u64 offset;
        u32 bytes;
        bool completed;
    };
    std::vector<Write> unflushed() const; // those in flight included
    // As for MediaDevice::cut; `sector` counts from the first of the write.
    Image cut(const std::function<bool(const Write &w, u32 sector)> &arrived) const;
    Image cut(Rng &rng) const;

    struct Impl;
    explicit BackingDevice(std::unique_ptr<Impl> impl);
    ~BackingDevice();
    Impl &impl() const { return *impl_; }

private:
    std::unique_ptr<Impl> impl_;
};

// ---- requests
// --------------------------------------------------------------------------------------

// A request with its buffer. Must have ended before it is destroyed, if it was given to the engine.
class Bio
{
public:
    explicit Bio(u32 bytes);      // zeros
    explicit Bio(Image contents); // for a write
    ~Bio();
    Bio(const Bio &) = delete;
    Bio &operator=(const Bio &) = delete;

    pc_bio *raw() { return bio_.get(); }
    void *request(); // the per-bio data, 64 bytes, aligned to 16; holds garbage at first
    u8 *data();
    u32 size() const;       // less what pc_bio_accept has cut off
    bool cut_short() const; // pc_bio_accept was called
    bool ended() const;
    int wait(); // until it has ended; its error (0, -errno, PC_END_REQUEUE)
    // Called in the context of pc_bio_end. Set before the bio is given away.
    void on_end(std::function<void(int error)> f);
    // Called after the platform has read some of the bytes, which it may do in pieces: for an owner
    // who changes them meanwhile. Set before the bio is given away.
    void on_read(std::function<void()> f);

private:
    std::unique_ptr<pc_bio, void (*)(pc_bio *)> bio_;
};

// ---- memory
// ----------------------------------------------------------------------------------------

struct Memory {
    static void fail(u64 n, u64 times = 1); // the n-th allocation from now on (1: the next)
    static void fail_nowait(bool on);       // every PC_NOWAIT allocation
    static u64 allocations();               // made since the World began, failed ones included
    static u64 live();                      // blocks not yet freed
    static u64 live_bytes();
};

// ---- context
// ---------------------------------------------------------------------------------------

// While it lives, whatever may sleep aborts in this thread: for pc_target_map and for interrupts.
class MustNotSleep
{
public:
    MustNotSleep();
    ~MustNotSleep();
    MustNotSleep(const MustNotSleep &) = delete;
    MustNotSleep &operator=(const MustNotSleep &) = delete;
};

// While it lives, this thread runs on that CPU. Not while pinned.
class OnCpu
{
    int before_;

public:
    explicit OnCpu(u32 cpu);
    ~OnCpu();
    OnCpu(const OnCpu &) = delete;
    OnCpu &operator=(const OnCpu &) = delete;
};

// While it lives, send(), from any thread, interrupts the waits of the thread that made it that may
// be interrupted: the one under way and, like a signal that nobody handles, all later ones.
class Signal
{
    std::mutex lock_;
    pc_event *waits_for_ = nullptr; // guarded by lock_
    std::atomic<bool> sent_{false};

public:
    Signal();
    ~Signal();
    Signal(const Signal &) = delete;
    Signal &operator=(const Signal &) = delete;
    void send();

    // For the platform.
    void wait_for(pc_event *e); // null: none any more
    bool sent() const { return sent_; }
};

// ---- the world
// ---------------------------------------------------------------------------------------

struct LogLine {
    pc_level level;
    std::string device; // "" without a host
    std::string text;
};

// What one power cut leaves of the devices, in the order in which they were added.
struct Cut {
    std::vector<Image> media, backings;
};

class World
{
public:
    World();
    ~World();
    World(const World &) = delete;
    World &operator=(const World &) = delete;

    // `path` is the name that pc_media_open and pc_backing_open find it by. Zeros at first.
    MediaDevice &add_media(const std::string &path, u64 bytes);
    MediaDevice &add_media(const std::string &path, const Image &contents);
    // Works on the file itself: what is stored is found there afterwards. Aborts if it is not
    // there.
    MediaDevice &add_media_file(const std::string &path, const std::string &file);
    BackingDevice &add_backing(const std::string &path, u64 bytes);
    BackingDevice &add_backing(const std::string &path, const Image &contents);
    BackingDevice &add_backing_file(const std::string &path, const std::string &file);
    // The next pc_media_open or pc_backing_open of that path fails so.
    void refuse_open(const std::string &path, int error, const char *sentence);

    // A table line of the mapped device `device`; tables of one device have one owner.
    pc_table *add_table(const std::string &device = "pcache", bool read_only = false);

    // As dtr leaves it: no handle belongs to it any more, else it is a violation.
    void drop_table(pc_table *t);

    // Device-mapper marks the device as in a noflush suspend: before presuspend, until no request
    // is left or the wait for that was interrupted. Only then it sends again what ends with
    // PC_END_REQUEUE.
    void set_noflush(pc_table *t, bool on);

    // All works of a queue in one thread, as where the kernel has no memory for more: a work that
    // waits for another then waits for ever. Before the engine starts; ends with the World.
    void set_one_worker(bool on);

    // A work begins that much later than its turn comes, and ends later, as where its thread is
    // preempted there: what it kicks begins before it has ended.
    // Ends with the World, and begins with it where PCACHE_TEST_WORK_DELAY_MS says so: no test may
    // build on how soon a work comes.
    void set_work_delay_ns(u64 ns);

    void set_cpus(u32 n); // 1 to 64, default 8; before the engine starts

    // One instant for all devices.
    Cut cut(Rng &rng);
    // Called before each fence, with stores of this CPU pending; for a cut at every point of a
    // procedure. It may call cut(), and nothing that stores; several threads may be in it at once.
    // Null: none. Returns when nobody is in the former one any more.
    void set_fence_hook(std::function<void()> hook);

    // Called by whoever yields (pc_yield), in its thread. Null: none. Returns when nobody is in the
    // former one any more.
    void set_yield_hook(std::function<void()> hook);

    // f() once, in front of the n-th spinlock (1: the next) that this thread takes from now on and
    // while it holds none: what another thread may do there, done there. 0: not any more.
    static void at_lock(u32 n, std::function<void()> f);
    // The same for mutexes, whatever the thread holds: f() takes none of what that is.
    static void at_mutex(u32 n, std::function<void()> f);

    static u64 queues_made(); // ever; threads come with each

    std::vector<LogLine> log() const;
    bool said(std::string_view part) const; // some log line contains it
    void clear_log();
    u64 events(const std::string &device = "pcache") const; // pc_raise_event of attached hosts
    // Called by whoever raises one, in its thread, behind the count. Null: none.
    void set_event_hook(std::function<void()> hook);
    bool wait_for_events(u64 n, u64 timeout_ns, const std::string &device = "pcache") const;

    // Breaches of rules that are no crash: two writes in flight to one sector, stores to poisoned
    // lines, a bio ended twice and the like. One line each.
    std::vector<std::string> violations() const;
    // What is still open or allocated, in words; "" when nothing is.
    std::string leaks() const;
};

} // namespace pcache::selftest
