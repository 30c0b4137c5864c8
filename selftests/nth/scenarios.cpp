// SPDX-License-Identifier: GPL-2.0
// selftests/nth/scenarios.cpp - the scenarios of nth.hpp. Small: each is run thousands of times.
#include "selftests/nth/nth.hpp"

namespace pcache::nth
{

using namespace pcache::sim;

namespace
{

// A request may end with an error if a failed read, or damage, excuses it (arm()); or if the cache
// has failed for something that excuses that.
void write(u32 sector, u32 count, bool fua = false)
{
    if (active())
        (void)upper_write(sector, count, fua);
}
void read(u32 sector, u32 count)
{
    if (active())
        (void)upper_read(sector, count);
}
void flush()
{
    if (active())
        (void)upper_flush();
}

void some_writes()
{
    write(0, 32);
    write(8, 8);
    flush();
    write(12, 20);
    write(100, 3, true);
    write(200, 16);
}

// ---- format, activation ----

void format_and_use()
{
    arm();
    if (!create())
        return;
    write(3, 8);
    flush();
    read(0, 16);
}

void prepare()
{
    create();
    some_writes();
    flush();
    write(14, 2);
    read(120, 40);
    flush();
    write(64, 20);
}

void activate()
{
    arm();
    if (create())
        read(0, 128);
}

// ---- requests ----

void overwrite()
{
    create();
    arm();
    together({[] {
                  write(0, 32);
                  flush();
                  write(8, 8);
                  write(9, 1, true);
                  read(4, 8);
              },
              [] {
                  write(4, 12);
                  write(130, 16);
                  flush();
              }});
    flush();
}

void misses()
{
    create();
    arm();
    together({[] {
                  read(0, 64);
                  read(32, 64);
                  read(128, 32);
              },
              [] {
                  read(16, 32);
                  write(20, 8);
                  read(0, 64);
              },
              [] { read(0, 128); }});
    flush();
    read(0, 128);
}

void fill_cache(u32 first, u32 step)
{
    for (u32 i = 0; i < 24; ++i) {
        write((first + i * step) % (disk.sectors() - 32), 32);
        if (i % 8 == 5)
            flush();
        if (i % 6 == 1)
            read((first + i * 5) % (disk.sectors() - 32), 16);
    }
}

void full()
{
    create();
    (void)device_message("gc_percent", "20");
    arm();
    together({[] { fill_cache(0, 32); }, [] { fill_cache(400, 40); }});
    flush();
    if (active())
        sched::sleep(400 * ms); // idle: write-back
    fill_cache(7, 33);
}

void write_back()
{
    create();
    some_writes();
    arm();
    flush();
    sched::sleep(300 * ms);
    some_writes();
    sched::sleep(300 * ms);
}

// ---- life cycle ----

void suspend_resume()
{
    create();
    some_writes();
    arm();
    device_suspend(false, true);
    if (!resume())
        return;
    write(40, 8);
    device_suspend(true, false);
    if (!resume())
        return;
    some_writes();
    flush();
}

void reload_larger()
{
    create();
    some_writes();
    disk.grow(disk.sectors() + 64);
    oracle.grow(disk.sectors());
    arm();
    {
        const Lenient l;
        for (u32 tries = 0; tries < 3 && active(); ++tries)
            if (!device_reload()) // or refused, and the old table goes on
                break;
            else if (resume())
                break;
    }
    some_writes();
    flush();
    disarm();
    if (active() && device_reload() && !resume())
        return;
    write(disk.sectors() - 20, 20);
    flush();
}

void removal()
{
    create();
    some_writes();
    arm();
    remove();
}

// ---- accept_loss: the second of these records is damaged ----

void make_records()
{
    create();
    for (u32 i = 0; i < 6; ++i) {
        (void)upper_write(i * 16, 16, false);
        (void)upper_flush();
    }
}

void give_loss_up()
{
    const Lenient l;
    device.failed = true; // reads of what is read-only are not judged
    if (create() && !damaged())
        violation("a cache with a hole in its log is not read-only");
    if (!device.target)
        return judge_no_more();
    arm();
    int e = -5;
    for (u32 tries = 0; tries < 4 && e; ++tries) {
        char word[] = "accept_loss";
        char *argv[] = {word};
        char reply[16];
        e = pc_target_message(device.target, 1, argv, reply, sizeof(reply));
    }
    disarm();
    if (e && !damaged())
        violation("accept_loss fails for one failure: error " + std::to_string(e));
    if (!active())
        return judge_no_more();
    for (u32 at = 0; at < disk.sectors(); at += 16)
        if (at != 16 && !damaged())
            (void)upper_read(at, 16);
    write(0, disk.sectors()); // now all is known again
    flush();
}

} // namespace

const Scenario scenarios[] = {
    {"format", 256, false, nullptr, Scenario::Between::removal, format_and_use},
    {"activate-clean", 256, false, prepare, Scenario::Between::removal, activate},
    {"activate-cut", 256, false, prepare, Scenario::Between::cut, activate},
    {"activate-crc", 256, true, prepare, Scenario::Between::cut, activate},
    {"overwrite", 256, false, nullptr, Scenario::Between::removal, overwrite},
    {"misses", 256, false, prepare, Scenario::Between::cut, misses},
    {"write-back", 256, false, nullptr, Scenario::Between::removal, write_back},
    {"full", 1024, false, nullptr, Scenario::Between::removal, full},
    {"full-crc", 1024, true, nullptr, Scenario::Between::removal, full},
    {"suspend", 256, false, nullptr, Scenario::Between::removal, suspend_resume},
    {"reload", 224, false, nullptr, Scenario::Between::removal, reload_larger},
    {"accept_loss", 256, false, make_records, Scenario::Between::damage, give_loss_up},
    {"removal", 256, false, nullptr, Scenario::Between::removal, removal},
    {"removal-crc", 256, true, nullptr, Scenario::Between::removal, removal},
};
const u32 scenario_count = sizeof(scenarios) / sizeof(scenarios[0]);

} // namespace pcache::nth
