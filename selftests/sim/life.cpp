// SPDX-License-Identifier: GPL-2.0
// selftests/sim/life.cpp - see run.hpp: what happens in a run, drawn from its seed.
//
// A life: activation; everything is read; (mostly) everything is written back, compared with the
// backing device and read again; clients at work, and an administrator; the end. The power may go
// at any point of it, activation, redo and removal included.
#include <cstdio>
#include <cstring>
#include "dm-pcache/format/crc32c.hpp"
#include "selftests/sim/damage.hpp"
#include "selftests/sim/mainline_writer.hpp"
#include "selftests/sim/run.hpp"
#include "selftests/sim/stranger.hpp"
#include "selftests/sim/upper.hpp"

namespace pcache::sim
{

namespace
{

struct State {
    Plan plan;
    Rng load; // what clients do; apart from the scheduler's chance
    Result result;
    u32 clients_left = 0;
    u64 cut_in_load = 0;     // points after the clients begin
    bool write_back = false; // this life waits for all to be written back
    bool end_cleanly = false;
    bool stopped = false; // the life before has ended so
    bool over = false;    // the device has failed, or is gone: clients stop
};
State st;
const int clients_done = 0;

u32 draw_sector(u32 count)
{
    const Plan &p = st.plan;
    const u32 span = st.load.chance(p.hot_of_1024) ? std::min(p.hot_sectors, p.sectors) : p.sectors;
    u32 at = st.load.below(span);
    if (st.load.one_in(2))
        at &= ~7u;
    return std::min(at, p.sectors - count) / p.faults.block_sectors * p.faults.block_sectors;
}

u32 draw_count()
{
    const Plan &p = st.plan;
    u32 most = p.max_write_sectors;
    if (p.big_one_in && st.load.one_in(p.big_one_in))
        most = p.sectors;
    u32 n = 1 + st.load.below(most);
    if (st.load.one_in(3))
        n = 1 + st.load.below(4);
    if (st.load.one_in(3) || p.faults.block_sectors > 1)
        n = (n + 7) & ~7u;
    return std::min(n, p.sectors);
}

bool is_read_only()
{
    return damage.on() && read_only(device_status());
}

// Without a failing disk a write fails in one state alone. While the table is being exchanged the
// new one's state says nothing of it (seed 21708).
void write_failed()
{
    while (device.blocked && !st.over && !device.failed)
        sched::sleep(100 * us);
    if (!is_read_only() && !device.failed)
        violation("a write has failed, and the cache is not read-only: " + device_status());
    else if (!damage.may_turn_read_only() && damage.expected() == Expected::running)
        violation("the cache has become read-only: nothing was damaged");
    if (st.load.one_in(4))
        st.over = true; // enough of that
}

// Like io_uring: without waiting first, and what would have to wait once more.
constexpr int eagain = -11;
bool tries_nowait()
{
    return st.plan.nowait_of_1024 && st.load.chance(st.plan.nowait_of_1024);
}

void read(u32 sector, u32 count)
{
    if (!tries_nowait() || upper_read(sector, count, true) == eagain)
        upper_read(sector, count);
}

int write(u32 sector, u32 count, bool fua)
{
    const int e = tries_nowait() ? upper_write(sector, count, fua, true) : eagain;
    return e == eagain ? upper_write(sector, count, fua) : e;
}

void client(void *)
{
    const Plan &p = st.plan;
    for (u32 i = 0; i < p.operations && !st.over; ++i) {
        ++st.result.operations;
        const u32 count = draw_count(), sector = draw_sector(count);
        if (p.faults.decay_of_1024 && st.load.chance(p.faults.decay_of_1024) && !is_read_only())
            damage.decay(st.load);
        if (st.load.chance(p.flush_of_1024))
            upper_flush();
        else if (st.load.chance(p.read_of_1024))
            read(sector, count);
        else if (write(sector, count, st.load.chance(p.fua_of_1024)) && damage.on())
            write_failed();
        if (st.load.one_in(32))
            sched::sleep(st.load.between(us, 300 * ms));
    }
    if (--st.clients_left == 0)
        sched::wake(&clients_done);
}

void read_all()
{
    constexpr u32 step = 64;
    for (u32 at = 0; at < st.plan.sectors; at += step)
        upper_read(at, std::min(step, st.plan.sectors - at));
}

bool healthy()
{
    if (device_status() != "Fail")
        return true;
    if (!st.plan.errors)
        violation("the cache has failed: no device has");
    device.failed = true;
    return false;
}

// Nothing else is at work: all is read, written back, compared, read again.
bool verify()
{
    read_all();
    if (is_read_only())
        return true;
    oracle.check_whole_keys();
    if (!st.write_back)
        return true;
    faults.write_errors = faults.flush_errors = 0; // somebody has seen to the disk
    const bool clean = wait_until_clean();
    faults.write_errors = st.plan.faults.write_errors;
    faults.flush_errors = st.plan.faults.flush_errors;
    if (!clean)
        return healthy();
    if (damage.on())
        oracle.suspend_order(false);
    oracle.check_disk("after everything was written back");
    oracle.check_written_back();
    read_all();
    return true;
}

// Half of the time with a backing device that has grown.
void reload()
{
    constexpr u32 most = 4096;
    const u32 grown = disk.sectors() + 8 * (1 + st.load.below(8));
    if (grown <= most && st.load.one_in(2)) {
        trace("the backing device grows to %u sectors", grown);
        disk.grow(grown);
        oracle.grow(grown);
    }
    if (!device_reload())
        st.plan.sectors = disk.sectors(); // from now on there are requests for them
}

// As kernel/pm.c does it, or given up on the way. The clients are kernel threads that nobody
// freezes.
void machine_sleeps()
{
    const bool gives_up = st.load.one_in(4);
    const u64 limit = sched::now() + (gives_up ? st.load.between(us, 5 * ms) : 60 * second);
    trace("the machine goes to sleep");
    pc_target_fall_asleep();
    while (!pc_target_asleep() && sched::now() < limit)
        sched::sleep(100 * us);
    if (pc_target_asleep()) {
        const u64 before = disk.completions();
        sched::sleep(st.load.between(us, second));
        if (disk.completions() != before)
            violation("something was sent to the backing device while the machine slept");
    } else if (!gives_up) {
        violation("the workers do not go to sleep");
    }
    trace("the machine wakes up");
    pc_target_wake_up();
}

void administer()
{
    char number[8];
    switch (st.load.below(8)) {
    case 0:
    case 1:
        snprintf(number, sizeof(number), "%u", st.load.below(91));
        device_message("gc_percent", number);
        break;
    case 2:
        device_suspend(false, st.load.one_in(2));
        if (st.load.one_in(2))
            sched::sleep(st.load.between(us, 200 * ms));
        break;
    case 3:
        device_suspend(true, false);
        break;
    case 6:
        device_interrupted_suspend(st.load.one_in(2));
        break;
    case 4:
        reload();
        break;
    case 5:
        sched::sleep(st.load.between(ms, second));
        break;
    case 7:
        machine_sleeps();
        break;
    }
}

void administrator(void *)
{
    while (st.clients_left > 1 && !st.over) { // itself counts
        sched::sleep(st.load.between(100 * us, 50 * ms));
        if (st.over || st.clients_left == 1 || !st.load.chance(st.plan.admin_of_1024))
            continue;
        administer();
        for (u32 i = 0; i < 8 && device.blocked && healthy(); ++i)
            device_resume(); // failing disks may need more than one attempt
        if (device.blocked || !healthy()) {
            st.over = true;
            device_open_gate(); // whoever waits gets an error
        }
    }
    if (--st.clients_left == 0)
        sched::wake(&clients_done);
}

void run_clients()
{
    const Plan &p = st.plan;
    st.over = false;
    st.clients_left = p.clients;
    if (st.cut_in_load)
        sched::cut_at(sched::points() + st.cut_in_load);
    for (u32 i = 0; i < p.clients; ++i)
        sched::spawn("client", client, nullptr);
    if (p.admin_of_1024) {
        ++st.clients_left;
        sched::spawn("administrator", administrator, nullptr);
    }
    while (st.clients_left)
        sched::block(&clients_done, "clients");
}

// What the state is against what the damage done makes it.
void judge_state()
{
    const bool ro = is_read_only();
    if (ro && damage.expected() == Expected::running)
        violation("the cache is read-only: nothing behind dirty_tail was damaged");
    if (!ro && damage.expected() == Expected::read_only)
        violation("there is a hole in the log behind dirty_tail, and the cache runs");
    if (ro)
        return;
    if (damage.formatting()) { // accept_loss was cut
        read_all();
        damage.accepted();
    }
    damage.activated();
}

// The way out of read-only, and on.
void accept_loss()
{
    damage.accepting();
    if (const int e = device_message("accept_loss", "")) {
        violation("accept_loss fails: error " + std::to_string(e));
        return;
    }
    if (is_read_only())
        violation("accept_loss has ended, and the cache is read-only");
    read_all();
    damage.accepted();
    oracle.check_disk("after accept_loss");
    oracle.check_written_back();
    trace("the loss is accepted");
    run_clients();
}

void life(void *)
{
    if (stranger.must_be_refused()) {
        stranger.expect_refusal();
        stranger.leave();
    }
    if (device_create()) {
        sched::stop();
        return;
    }
    stranger.seen();
    if (damage.on())
        judge_state();
    if (verify())
        run_clients();
    if (is_read_only() && st.load.one_in(2))
        accept_loss();
    if (st.end_cleanly) {
        const u64 began = oracle.tick();
        st.stopped = device_remove();
        if (st.stopped)
            oracle.end_flush(began);
        trace("the device has been removed");
    }
    sched::stop();
}

// How this life ends: which point, or none.
void draw_end()
{
    Rng &rng = st.load;
    st.cut_in_load = 0;
    st.end_cleanly = rng.one_in(8);
    st.write_back = rng.one_in(2);
    u64 early = 0;
    const u32 way = rng.below(16);
    if (way < 3)
        early = 1 + rng.below(3000); // in activation or in what follows
    else if (way < 12)
        st.cut_in_load = 1 + rng.below(st.plan.clients * st.plan.operations * 100);
    if (early)
        sched::cut_at(early);
    media.cut_at_fence(way < 12 || rng.one_in(2) ? 0 : 1 + rng.below(way == 12 ? 30 : 300),
                       rng.one_in(2));
}

void power_cut(bool panic)
{
    oracle.check_disk("at a power cut");
    trace("---- %s ----", panic ? "panic" : "power cut");
    if (panic) {
        media.panic();
        disk.panic(st.load);
        ++st.result.panics;
    } else {
        disk.cut(st.load);
        media.cut(st.load);
        ++st.result.cuts;
    }
    oracle.cut();
    if (damage.any() || stranger.unseen())
        return; // what mainline makes of it is its own affair
    check_mainline_view();
    if (!violated() && !panic && !damage.on())
        check_mainline_reads();
}

void one_life()
{
    faults = st.plan.faults;
    st.plan.sectors = disk.sectors();
    bool untouched = st.stopped && !damage.on() && !st.plan.errors && faults.block_sectors == 1;
    st.stopped = false;
    const bool mainline_may = !stranger.unseen(); // it knows no disk record
    if (mainline_may && st.plan.mainline_one_in && st.load.one_in(st.plan.mainline_one_in) &&
        !damage.any()) {
        cut_mainline_gc(st.load);
        untouched = false;
    }
    damage.before_life(st.load, st.plan.faults.strike_one_in);
    world_reset();
    upper_reset();
    if (mainline_may && st.plan.mainline_sessions_one_in && !media.pending() &&
        st.load.one_in(st.plan.mainline_sessions_one_in)) {
        trace("---- mainline's turn ----");
        untouched = false;
        ++st.result.mainline_sessions;
        mainline::random_session(st.load, 1 + st.load.below(60));
        if (violated())
            return;
    }
    mainline_prune();
    if (untouched)
        stranger.come(st.load);
    if (violated())
        return;
    sched::reset(st.plan.temper, st.plan.cpus, Rng(st.load.next()));
    pc_target_module_init();
    draw_end();
    sched::spawn("device", life, nullptr);
    const Outcome o = sched::run();
    stranger.leave();
    if (o == Outcome::broken)
        return;
    if (o == Outcome::finished && st.end_cleanly) {
        ++st.result.stops;
        return;
    }
    power_cut(st.load.one_in(8) && !damage.on()); // what only the CPU caches have: see testing.md
}

} // namespace

Plan draw_plan(u64 seed)
{
    Rng r(seed ^ 0x51A7);
    Plan p;
    p.seed = seed;
    p.segments = format::geometry.min_segments + r.below(7);
    p.cpus = 1 + r.below(4);
    p.sectors = 64 + 8 * r.below(24);
    if (r.one_in(4))
        p.sectors = 256 + 8 * r.below(128);
    p.clients = 1 + r.below(5);
    p.operations = 10 + r.below(60);
    p.max_write_sectors = 1u << r.below(8);
    p.big_one_in = r.one_in(4) ? 16 : 0;
    p.hot_sectors = 1u << r.between(1, 7);
    p.hot_of_1024 = r.below(1025);
    p.flush_of_1024 = r.one_in(4) ? 0 : r.below(200);
    p.fua_of_1024 = r.one_in(3) ? 0 : r.below(200);
    p.read_of_1024 = r.below(700);
    p.admin_of_1024 = r.one_in(2) ? 0 : 100 + r.below(300);
    p.temper.points_per_decision = 1u << r.between(0, 7);
    p.temper.ns_per_point = r.one_in(4) ? 20000 : 100;
    p.temper.stall_one_in = r.one_in(2) ? 0 : 16u << r.below(7);
    p.temper.by_priority = r.one_in(3);
    p.faults.disk_ns_max = r.one_in(3) ? 10 * ms : 300 * us;
    p.faults.nowait_failures = r.one_in(4) ? 64 : 0;
    p.faults.write_capacity = 4096u << r.below(6);
    p.faults.data_crc = r.one_in(3);
    p.mainline_one_in = r.one_in(2) ? 0 : 3;
    p.mainline_sessions_one_in = r.one_in(2) ? 0 : 2 + r.below(4);
    p.errors = r.one_in(8);
    p.faults.may_fail = p.errors;
    if (p.errors) {
        p.faults.read_errors = r.one_in(2) ? 5 : 0;
        p.faults.write_errors = r.one_in(2) ? 50 : 0;
        p.faults.flush_errors = r.one_in(2) ? 50 : 0;
    }
    p.nowait_of_1024 = r.one_in(3) ? 300 : 0;
    p.faults.block_sectors = r.one_in(8) ? 8 : 1;
    if (p.faults.block_sectors > 1)
        p.mainline_sessions_one_in = 0; // its model writes any sectors
    p.faults.damage = !p.errors && r.one_in(4);
    if (p.faults.damage) {
        p.mainline_sessions_one_in = 0;
        if (r.one_in(4))
            p.faults.block_sectors = 8;
        p.faults.repairable = !r.one_in(4);
        p.faults.strike_one_in = 1 + r.below(6);
        p.faults.decay_of_1024 = r.one_in(2) ? 0 : 1 + r.below(20);
    }
    return p;
}

Result run(const Plan &plan)
{
    st = State{};
    st.plan = plan;
    st.load = Rng(plan.seed);
    faults = plan.faults;
    clear_violation();
    (void)format::crc32c_has_instruction(); // its first answer takes one point more than later ones
    sched::begin_run();
    media.create(format::segment_offset({plan.segments}));
    disk.create(plan.sectors);
    oracle.reset(plan.sectors);
    damage.reset(plan.faults.damage, plan.faults.repairable);
    mainline_reset();
    stranger.reset();
    for (st.result.life = 0; st.result.life < plan.lives && !violated(); ++st.result.life)
        one_life();
    Result &r = st.result;
    r.violated = violated();
    r.text = r.violated ? violation_text() : "";
    r.sector = r.violated ? violation_sector() : -1;
    r.digest = sched::digest();
    r.checks = oracle.checks();
    return r;
}

} // namespace pcache::sim
