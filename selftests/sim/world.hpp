// SPDX-License-Identifier: GPL-2.0
// selftests/sim/world.hpp - what the engine meets in the simulator behind platform.h, and how it
// fails: the cache device, the backing device, requests and memory. The fault model is a contract:
// Documentation/testing.md, "The simulator".
//
// One world per process, one thread. What survives a power cut is in `media` and `disk`; all else
// is forgotten by a new life.
#pragma once
#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <vector>
#include "dm-pcache/format/geometry.hpp"
#include "dm-pcache/target/face.h"
#include "selftests/sim/bytes.hpp"
#include "selftests/sim/sched.hpp"

extern "C" u32 pcache_mutant; // process.cpp

namespace pcache::sim
{

constexpr u32 sector_bytes = 512;
constexpr u32 unit_bytes = 8; // what is never torn on the cache device

// The bytes of a sector: one word, which says what write made it, 64 times.
constexpr u64 torn = ~0ull;
u64 tag_of(const u8 *sector); // `torn` if the words differ
void fill_tag(u8 *sector, u64 tag);

// Called where the power may go with another outcome than at the place before: behind each store,
// in front of each fence, behind each change of the backing device's state and of what was
// promised. Null but in the exhaustive mode. May not return.
extern void (*at_cut_point)(const char *what);
inline void cut_point(const char *what)
{
    if (at_cut_point)
        at_cut_point(what);
}

// Device-mapper's mark of a noflush suspend, and how many requests it would still send again: one
// for each time that it was asked and the mark was there.
extern bool noflush_suspend;
extern u64 requeues;

// ---- the cache device ----
class Media
{
public:
    struct Store {
        u64 offset;
        u32 bytes;
        int cpu;    // whose fence makes it durable; -1: nobody's
        u32 data;   // where its bytes begin in data_
        bool whole; // what a key covers: one unit for the exhaustive mode
    };
    void create(u64 bytes); // zeros
    u64 bytes() const { return now_.size(); }
    u8 *base() { return now_.data(); }

    // By a task on `cpu`; [offset, offset + bytes) of the device.
    void stored(u64 offset, u32 bytes, int cpu, bool whole = false);
    void flushed(u64 offset, u32 bytes, int cpu);
    void fence(int cpu);
    void put(u64 offset, const void *from, u32 bytes); // behind the engine's back, durable
    void settle(u64 offset, u32 bytes);                // durable, whatever was pending there
    // Each pending 8-byte unit arrives or not, in the order of the stores to it.
    void cut(Rng &rng);
    // No fence of the former life counts any more; what is pending can still be read.
    void panic();
    // A block write of the page at `offset`: not an atom. Until it ends the CPUs see what was
    // there, and a cut leaves each unit of 512 bytes old, new or zero.
    struct Block {
        u64 offset;
        Bytes page;
    };
    static constexpr u32 block_unit = 512;
    void block_begins(u64 offset, const void *page);
    void block_ends(u64 offset);
    const std::vector<Block> &blocks() const { return blocks_; }
    usize pending() const { return pending_.size() + blocks_.size(); }
    const std::vector<Store> &stores() const { return pending_; } // in order
    const u8 *stored_bytes(const Store &p) const { return data_.data() + p.data; }
    const Bytes &durable() const { return durable_; }
    void restore(const Bytes &image); // of the same size; nothing is pending
    // The power goes in front of the n-th fence from now on; of those that cover few bytes, if
    // `small`. 0: never.
    void cut_at_fence(u32 n, bool small);
    void at_fence(int cpu); // by a task
    const u8 *contents() const { return now_.data(); }
    u64 offset_of(const u8 *at, usize bytes) const; // a violation outside of the device

private:
    void make_durable(usize index);
    void close_older(usize index, u64 from, u64 to);
    void arrive(const Store &p, u64 from, u64 to);
    void cut_blocks(Rng &rng);
    Bytes now_, durable_;        // as the CPUs see it; what a power cut leaves at least
    std::vector<Store> pending_; // in order
    std::vector<u8> data_;
    std::vector<Block> blocks_; // under way
    u32 fences_left_ = 0;
    bool only_small_ = false;
};
extern Media media;

// ---- the backing device ----
// A sector is its tag. `now` is what a read gets; each version is a write that no FLUSH covers.
class Disk
{
public:
    struct Version {
        u64 tag;
        u64 completed; // number of the completion
    };
    void create(u32 sectors);
    void grow(u32 sectors); // zeros behind what there is
    u32 sectors() const { return static_cast<u32>(now_.size()); }
    u64 now(u32 sector) const { return now_[sector]; }
    u64 durable(u32 sector) const { return durable_[sector]; }
    const std::vector<Version> &unflushed(u32 sector) const { return versions_[sector]; }
    void put(u32 sector, u64 tag, u64 completion);
    u64 completions() const { return completions_; }
    u64 next_completion() { return ++completions_; }
    void flushed(u64 up_to); // all of those completions are durable
    void cut(Rng &rng);
    // The machine dies, the disk does not: any sectors of the writes in flight have reached its
    // cache.
    void panic(Rng &rng);
    // f(context, sector, tag) for all that a sector may hold after a power cut now, writes in
    // flight included.
    void each_possible(void (*f)(void *, u32, u64), void *context) const;
    // What is not durable, write by write, in the order of completion; those in flight come last.
    using Sectors = std::vector<std::pair<u32, u64>>; // sector, tag
    std::vector<Sectors> pending_writes() const;
    const std::vector<u64> &durable() const { return durable_; }
    void restore(const std::vector<u64> &durable); // nothing is unflushed

private:
    std::vector<u64> now_, durable_;
    std::vector<std::vector<Version>> versions_;
    std::vector<u32> dirty_; // sectors with versions
    u64 completions_ = 0;
};
extern Disk disk;

// How the devices behave; drawn for each run, changed by clients.
struct Faults {
    u64 disk_ns_min = 10 * us, disk_ns_max = 300 * us;
    u32 slow_one_in = 64; // of those, this is how many take 100 times as long
    u32 read_errors = 0, write_errors = 0, flush_errors = 0; // of 1024
    bool may_fail = false; // errors are drawn in this run: requests may end with one
    bool data_crc = false;
    u32 nowait_failures = 0; // of 1024
    u32 write_capacity = 64u << 10;
    u32 chunk_one_in = 4;   // copies to and from media that are done in two steps
    u32 block_sectors = 1;  // the backing device's logical block: 8 on a 4Kn disk
    bool damage = false;    // of the cache device: damage.hpp
    bool repairable = true; // block writes clear its poison
    u32 decay_of_1024 = 0;  // chance that something goes bad, at each operation of a client
    u32 strike_one_in = 4;  // lives in front of which something goes bad
};
extern Faults faults;
extern u64 errors_injected;

// ---- requests of the upper layer ----
struct Upper; // life.cpp: who gave it
void bio_ended(pc_bio *bio, int error);
void bio_copied(pc_bio *bio, u32 offset, u32 bytes); // a part went to media as one key

} // namespace pcache::sim

struct pc_media {
    pc_table *table;
};
struct pc_backing {
    pc_table *table;
    u32 in_flight;
};
struct pc_bio {
    alignas(16) u8 request[PC_REQUEST_BYTES];
    u8 *data;
    u32 size;
    bool touched, ended;
    u32 *accepted; // while it is being mapped
    pcache::sim::Upper *upper;
};

namespace pcache::sim
{

// Asynchronous read for device-mapper's own remapping: done(context, error) in interrupt context.
void disk_read_later(u64 offset, u8 *to, u32 bytes, void (*done)(void *, int), void *context);

// The i-th stretch of pages in a row, in bytes, of these page numbers; false if there are fewer.
bool stretch_of(const std::set<u64> &pages, u32 i, u64 &offset, u64 &bytes);

// ---- a life ----
void world_reset(); // memory, handles, tables, queues: all of the former life is forgotten
std::string leaks();
bool refuse_allocation(pc_how how);
void sync_reset();
u32 queues_alive();
void disk_reset(); // forgets writes in flight
u32 disk_writes_in_flight();
pc_table *make_table(const char *device);
void drop_table(pc_table *t);

} // namespace pcache::sim
