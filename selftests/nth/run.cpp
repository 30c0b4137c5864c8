// SPDX-License-Identifier: GPL-2.0
// selftests/nth/run.cpp - see nth.hpp: lives, endings and what is judged behind them.
#include "selftests/nth/nth.hpp"
#include "dm-pcache/format/crc32c.hpp"
#include "dm-pcache/format/record.hpp"

namespace pcache::nth
{

using namespace pcache::sim;

Case now;

namespace
{

const Scenario *scenario;
Rng chance; // what the scheduler does not draw
const int tasks_done = 0;
u32 tasks_left;
bool judged; // what reads show

constexpr u32 lost_sectors_at_most = 8; // of a page
constexpr u32 lost_sectors_at_most_crc = 64;

bool read_only()
{
    const std::string s = device_status();
    return s.size() > 3 && s.substr(s.size() - 3) == " ro";
}

// The cache has failed, or its new table was never activated because it had.
bool out_of_service()
{
    const std::string s = device_status();
    return s == "Fail" || s == "Inactive";
}

void check_leaks(const char *when)
{
    const std::string left = leaks();
    if (!left.empty())
        violation(std::string("left behind by ") + when + ":" + left);
}

// What ctr or an activation that failed leaves is given back.
void give_up_device()
{
    if (device.target)
        pc_target_dtr(device.target);
    device.target = nullptr;
    drop_table(device.table);
    check_leaks("a device that was not activated");
}

// A failure of this kind may end an activation, or a suspend.
bool excuses_activation()
{
    return injector.fired && now.kind != Failing::nowait;
}

// ... and may put the cache out of service: a suspend whose FLUSH fails, metadata that cannot be
// read nor rewritten.
bool excuses_failure()
{
    return injector.fired &&
           (now.kind == Failing::backing_flush || now.kind == Failing::media_read);
}

// ---- what is judged ----

void read_all()
{
    constexpr u32 step = 64;
    u32 lost = 0;
    for (u32 at = 0; at < disk.sectors(); at += step) {
        const u32 n = std::min(step, disk.sectors() - at);
        if (!upper_read(at, n))
            continue;
        for (u32 i = 0; i < n; ++i)
            lost += upper_read(at + i, 1) != 0;
    }
    const u32 most = scenario->data_crc ? lost_sectors_at_most_crc : lost_sectors_at_most;
    if (lost > most && !read_only() && !out_of_service())
        violation("one bad page costs " + std::to_string(lost) + " sectors");
}

// With a page that cannot be read dirty_tail may stand in front of it for good.
bool wait_a_while()
{
    for (u32 tries = 0; tries < 60; ++tries) {
        const std::string s = device_status();
        u32 head[2], dirty[2];
        if (sscanf(s.c_str(), "%*x %*u %*u %*u %*u %*x %u:%u %u:%u", &head[0], &head[1], &dirty[0],
                   &dirty[1]) != 4)
            return false;
        if (head[0] == dirty[0] && head[1] == dirty[1])
            return true;
        sched::sleep(50 * ms);
    }
    return false;
}

void verify()
{
    if (read_only() || !judged)
        return; // what is shown may be old, and nothing is promised to get better
    if (!damaged()) {
        (void)upper_flush(); // status does not count what is only staged
        read_all();
        oracle.check_whole_keys();
        if (!wait_until_clean())
            violation("a cache that has met one failure does not write back: " + device_status());
        oracle.check_disk("after everything was written back");
        oracle.check_written_back();
        read_all();
        return;
    }
    const Lenient l;
    read_all();
    (void)wait_a_while();
    read_all();
}

void end_by_removal()
{
    disarm();
    if (!device.target)
        return;
    if (out_of_service()) {
        if (!excuses_failure())
            violation("the cache has failed, for nothing that would excuse it");
    } else {
        verify();
    }
    remove();
}

// ---- lives ----

void life_before(void *)
{
    scenario->before();
    if (scenario->between == Scenario::Between::removal)
        remove();
    sched::stop();
}

void life_of_body(void *)
{
    scenario->body();
    disarm();
    trace("---- the scenario is over%s ----", injector.fired ? "" : "; nothing has failed");
    if (now.ending == Ending::removal)
        end_by_removal();
    sched::stop();
}

void life_after(void *)
{
    if (create() && judged)
        verify();
    if (device.target)
        remove();
    sched::stop();
}

bool live(Function f)
{
    world_reset();
    upper_reset();
    bad_pages.new_life();
    sched::Temper temper;
    temper.by_priority = now.seed % 2 == 0;
    sched::reset(temper, 2, Rng(chance.next()));
    pc_target_module_init();
    sched::spawn("device", f, nullptr);
    return sched::run() != sim::Outcome::broken && !violated();
}

void power_cut(bool panic)
{
    oracle.check_disk("at a power cut");
    trace("---- %s ----", panic ? "panic" : "power cut");
    if (panic) {
        media.panic();
        disk.panic(chance);
    } else {
        disk.cut(chance);
        media.cut(chance);
    }
    oracle.cut();
}

// One bit of the second record of the log.
void damage_log()
{
    const u64 at = format::segment_offset({0}) + format::segment_control_bytes;
    const auto *first = reinterpret_cast<const format::RecordHeader *>(media.contents() + at);
    const u64 second = at + format::kset_bytes(first->num);
    const u8 byte = media.contents()[second + 20] ^ 1;
    media.put(second + 20, &byte, 1);
    oracle.judge_backing = false; // what a hole takes, takes the order with it
}

void lay_out()
{
    judged = true;
    clear_violation();
    (void)format::crc32c_has_instruction();
    scenario = &scenarios[now.scenario];
    chance = Rng(now.seed);
    faults = {};
    faults.data_crc = scenario->data_crc;
    injector = {};
    injector.kind = now.kind;
    injector.nth = now.nth;
    bad_pages.clear();
    bad_pages.repairable = now.repairable;
    sched::begin_run();
    media.create(format::segment_offset({format::geometry.min_segments}));
    disk.create(scenario->sectors);
    oracle.reset(scenario->sectors);
    oracle.judge_backing = now.kind != Failing::media_read;
}

bool run_lives()
{
    if (scenario->before) {
        if (!live(life_before))
            return false;
        if (scenario->between != Scenario::Between::removal)
            power_cut(false);
        if (scenario->between == Scenario::Between::damage)
            damage_log();
    }
    if (!live(life_of_body))
        return false;
    injector.armed = false;
    if (now.ending != Ending::removal)
        power_cut(now.ending == Ending::panic);
    return live(life_after);
}

} // namespace

void judge_no_more()
{
    judged = false;
}

void arm()
{
    injector.armed = true;
    // A read of the backing device, or of a bad page, has an error to report; nothing else has.
    faults.may_fail = now.kind == Failing::backing_read || now.kind == Failing::media_read;
}

void disarm()
{
    injector.armed = false;
    faults.may_fail = damaged();
}

bool damaged()
{
    return injector.fired && now.kind == Failing::media_read;
}

bool active()
{
    return device.target && !out_of_service() && !read_only();
}

bool create()
{
    const Lenient l;
    int e = device_create();
    if (e && !excuses_activation())
        violation("a device is refused although nothing has failed");
    if (e && device.target && now.nth % 2) {
        e = device_resume();
    } else if (e) {
        give_up_device();
        e = device_create();
    }
    if (e && !damaged())
        violation("the second attempt fails, too: error " + std::to_string(e));
    if (e)
        give_up_device();
    return !e && !read_only();
}

bool resume()
{
    const Lenient l;
    int e = device_resume();
    if (e && !excuses_activation())
        violation("a device does not resume although nothing has failed");
    for (u32 tries = 0; e && !out_of_service() && tries < 4; ++tries)
        e = device_resume();
    if (e && !(out_of_service() && excuses_failure()) && !damaged())
        violation("a device does not resume any more: error " + std::to_string(e));
    if (e)
        device_open_gate(); // whoever waits gets an error
    return !e;
}

void remove()
{
    const u64 began = oracle.tick();
    const bool served = !out_of_service();
    if (device_remove() && served)
        oracle.end_flush(began);
}

void together(std::initializer_list<void (*)()> tasks)
{
    tasks_left = static_cast<u32>(tasks.size());
    for (void (*f)() : tasks)
        sched::spawn(
            "client",
            [](void *c) {
                reinterpret_cast<void (*)()>(c)();
                if (--tasks_left == 0)
                    sched::wake(&tasks_done);
            },
            reinterpret_cast<void *>(f));
    while (tasks_left)
        sched::block(&tasks_done, "clients");
}

Outcome run_case(const Case &c)
{
    now = c;
    lay_out();
    (void)run_lives();
    Outcome o;
    o.violated = violated();
    o.text = o.violated ? violation_text() : "";
    o.fired = injector.fired;
    for (u32 i = 0; i < failing_kinds; ++i)
        o.seen[i] = injector.seen[i];
    return o;
}

} // namespace pcache::nth
