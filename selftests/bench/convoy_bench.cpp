// SPDX-License-Identifier: GPL-2.0
// selftests/bench/convoy_bench.cpp - how fast writes go after one of them had to wait: four threads
// with one 512-byte write each, over real threads (selftests/platform); the log stalls for 60 ms,
// which uses up the tickets. Prints, for each phase, writes per second and the share that the admit
// worker served; a cache that has recovered shows the rate of the first line again.
//
// Build with -O2 and without sanitizers from the module's sources, selftests/platform and
// GoogleTest's library. The figures are the user-space platform's, good for comparing two builds.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include "rig.hpp"

using namespace pcache::selftest;
using namespace std::chrono_literals;

namespace
{

constexpr int phases = 7;

struct Phase {
    std::atomic<u64> inside{0}, by_worker{0};
};
Phase phase[phases];
std::atomic<int> now{0};
std::atomic<bool> stop{false}, stalled{false};
thread_local bool is_client = false;

void client(Rig &rig, u32 number)
{
    is_client = true;
    const OnCpu cpu(number);
    Rng rng(number);
    const Image data = Rig::pattern(0, sector, 1);
    const auto me = std::this_thread::get_id();
    while (!stop) {
        Bio bio(data);
        Phase &p = phase[now];
        bio.on_end(
            [&p, me](int) { ++(std::this_thread::get_id() == me ? p.inside : p.by_worker); });
        (void)rig.map(bio, {PC_WRITE, rng() % (rig.backing.bytes() / sector) * sector,
                            static_cast<u32>(sector), 0, 0});
        bio.wait();
    }
}

void run_phase(int n, const char *what, std::chrono::milliseconds time)
{
    now = n;
    std::this_thread::sleep_for(time);
    const u64 in = phase[n].inside, worker = phase[n].by_worker;
    const double s = std::chrono::duration<double>(time).count();
    std::printf("%-30s %9.0f writes/s, %5.1f %% by the admit worker\n", what,
                static_cast<double>(in + worker) / s,
                100.0 * static_cast<double>(worker) /
                    static_cast<double>(in + worker + !(in + worker)));
}

} // namespace

int main(int argc, char **argv)
{
    const int clients = argc > 1 ? std::atoi(argv[1]) : 4;
    Rig rig(u32{31}, u64{64} << 20);
    if (rig.create() || rig.resume())
        return 1;
    rig.world.set_fence_hook([] {
        if (!is_client && stalled) // whoever logs does not run for a while
            std::this_thread::sleep_for(20ms);
    });
    std::vector<std::thread> threads;
    for (int i = 0; i < clients; i++)
        threads.emplace_back([&rig, i] { client(rig, static_cast<u32>(i)); });
    run_phase(0, "before", 200ms);
    stalled = true;
    run_phase(1, "the log stalls", 60ms);
    stalled = false;
    for (int i = 2; i < phases; i++)
        run_phase(i, ("after it, tenth of a second " + std::to_string(i - 1)).c_str(), 100ms);
    stop = true;
    for (std::thread &t : threads)
        t.join();
    rig.world.set_fence_hook(nullptr);
}
