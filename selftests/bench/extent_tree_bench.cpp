// SPDX-License-Identifier: GPL-2.0
// selftests/bench/extent_tree_bench.cpp - ns per operation and bytes per extent of the extent
// index, native, one thread; random 4 KiB extents spread over trees as the engine spreads them over
// shards. The argument is the number of extents in all. Times include drawing a random sector
// (about 2 ns).
#include <benchmark/benchmark.h>
#include <sys/mman.h>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>
#include "dm-pcache/engine/extent_tree_body.hpp"

extern "C" __attribute__((weak)) void rt_assert_failed(const char *file, int line,
                                                       const char *expr) noexcept
{
    std::fprintf(stderr, "%s:%d: %s\n", file, line, expr);
    std::abort();
}

namespace pcache::engine
{
namespace
{

constexpr usize most_extents_per_tree = 100000;

struct Random {
    u64 state = 88172645463325252;
    u64 operator()()
    {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return state;
    }
    u64 below(u64 n) { return (((*this)() >> 32) * n) >> 32; } // no division
};

// Scrambles the bits of a number: a random order that needs no table, so that the benchmark's own
// cache misses are not counted.
constexpr u64 scramble(u64 v)
{
    v *= 0x9e3779b97f4a7c15;
    return (v ^ (v >> 29)) * 0xbf58476d1ce4e5b9;
}

template <usize bytes>
class Forest
{
    using Tree = BasicExtentTree<bytes>;
    NodePool pool_;
    std::vector<char *> slabs_;
    std::vector<std::unique_ptr<Tree>> trees_;
    static constexpr usize slab_bytes = 2 << 20;

public:
    explicit Forest(usize extents, bool merge = true)
    {
        for (usize i = 0; i <= (extents - 1) / most_extents_per_tree; i++)
            trees_.push_back(std::make_unique<Tree>(pool_, merge));
    }
    ~Forest()
    {
        trees_.clear();
        for (char *slab : slabs_)
            std::free(slab);
    }
    void refill()
    {
        if (pool_.count() >= 64)
            return;
        char *slab = static_cast<char *>(std::aligned_alloc(slab_bytes, slab_bytes));
        madvise(slab, slab_bytes, MADV_HUGEPAGE); // as in the kernel's linear mapping
        slabs_.push_back(slab);
        for (usize i = 0; i < slab_bytes / bytes; i++)
            pool_.give(slab + i * bytes);
    }
    Tree &tree(u64 hash) { return *trees_[((hash & 0xffffffff) * trees_.size()) >> 32]; }
    // The n-th random 4 KiB block, in one of 2^32.
    static u64 block(u64 hash) { return (hash >> 32) * 8; }
    void insert(u64 n)
    {
        const u64 h = scramble(n + 1);
        tree(h).insert({block(h), 8, {static_cast<u32>(h) >> 12, static_cast<u32>(n % 4000) * 8}});
    }
    void fill(usize extents)
    {
        for (usize i = 0; i < extents; i++) {
            refill();
            insert(i);
        }
    }
    double bytes_per_extent() const
    {
        usize nodes = 0;
        usize extents = 0;
        for (const auto &t : trees_) {
            nodes += t->nodes();
            extents += t->count();
        }
        return double(nodes * bytes) / double(extents);
    }
    const std::vector<std::unique_ptr<Tree>> &trees() const { return trees_; }
};

// A cache that is filled: a new block comes, the oldest is removed.
template <usize bytes>
void replace(benchmark::State &state)
{
    const u64 n = static_cast<u64>(state.range(0));
    Forest<bytes> f(n);
    f.fill(n);
    u64 next = n;
    for (auto _ : state) {
        f.refill();
        f.insert(next);
        const u64 h = scramble(next - n + 1);
        f.tree(h).remove_pointing_to(
            f.block(h), 8, {static_cast<u32>(h) >> 12, static_cast<u32>((next - n) % 4000) * 8});
        next++;
    }
    state.counters["B/extent"] = f.bytes_per_extent();
}

// From empty to n.
template <usize bytes>
void insert_new(benchmark::State &state)
{
    const u64 n = static_cast<u64>(state.range(0));
    double per_extent = 0;
    for (auto _ : state) {
        state.PauseTiming();
        auto f = std::make_unique<Forest<bytes>>(n);
        state.ResumeTiming();
        f->fill(n);
        state.PauseTiming();
        per_extent = f->bytes_per_extent();
        f.reset();
        state.ResumeTiming();
    }
    state.counters["B/extent"] = per_extent;
    state.counters["s/insert"] = benchmark::Counter(
        double(n), benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}

// A block that is there gets another place.
template <usize bytes>
void overwrite(benchmark::State &state)
{
    const u64 n = static_cast<u64>(state.range(0));
    Forest<bytes> f(n);
    f.fill(n);
    Random random;
    u32 place = 0;
    for (auto _ : state) {
        const u64 h = scramble(random.below(n) + 1);
        f.tree(h).insert({f.block(h), 8, {7, place++ % 4000 * 8}});
    }
}

template <usize bytes>
void lookup_hit(benchmark::State &state)
{
    const u64 n = static_cast<u64>(state.range(0));
    Forest<bytes> f(n);
    f.fill(n);
    Random random;
    u64 waits = 0; // the next sector depends on the answer: latency, not throughput
    for (auto _ : state) {
        const u64 h = scramble(random.below(n) + waits + 1);
        const Run r = f.tree(h).lookup(f.block(h), 8);
        if (!r.hit)
            state.SkipWithError("a block is missing");
        waits = r.place.segment >> 31;
    }
}

template <usize bytes>
void lookup_miss(benchmark::State &state)
{
    const u64 n = static_cast<u64>(state.range(0));
    Forest<bytes> f(n);
    f.fill(n);
    Random random;
    u64 waits = 0;
    for (auto _ : state) {
        const u64 h = random() + waits;
        waits = f.tree(h).lookup(h >> 32 << 3, 8).sectors >> 31;
    }
}

// The walk of a whole tree, per extent.
template <usize bytes>
void scan(benchmark::State &state)
{
    const u64 n = static_cast<u64>(state.range(0));
    Forest<bytes> f(n);
    f.fill(n);
    u64 sum = 0;
    for (auto _ : state)
        for (const auto &t : f.trees())
            t->for_each(0, sector_limit, [&](const Extent &e) { sum += e.place.segment; });
    benchmark::DoNotOptimize(sum);
    state.counters["s/extent"] = benchmark::Counter(
        double(n), benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}

// An ascending stream that is not merged (data_crc), per insert.
template <usize bytes>
void stream(benchmark::State &state)
{
    Forest<bytes> f(1, false);
    u64 at = 0;
    for (auto _ : state) {
        f.refill();
        f.tree(0).insert({at, 8, {1, 0}});
        at += 8;
        if (at == 8000000) {
            state.PauseTiming();
            f.tree(0).clear();
            at = 0;
            state.ResumeTiming();
        }
    }
}

#define SIZES(name, bytes) BENCHMARK(name<bytes>)->RangeMultiplier(10)->Range(10000, 10000000)
#define ALL(bytes)                                                                                 \
    SIZES(lookup_hit, bytes);                                                                      \
    SIZES(lookup_miss, bytes);                                                                     \
    SIZES(overwrite, bytes);                                                                       \
    SIZES(replace, bytes);                                                                         \
    SIZES(insert_new, bytes)->Unit(benchmark::kMillisecond);                                       \
    SIZES(scan, bytes)->Unit(benchmark::kMillisecond);                                             \
    BENCHMARK(stream<bytes>)

ALL(extent_node_bytes);
#ifdef PCACHE_BENCH_NODE_SIZES // to choose extent_node_bytes
ALL(256);
ALL(1024);
#endif

} // namespace
} // namespace pcache::engine

BENCHMARK_MAIN();
