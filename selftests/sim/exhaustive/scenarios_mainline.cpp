// SPDX-License-Identifier: GPL-2.0
// selftests/sim/exhaustive/scenarios_mainline.cpp - sessions of ours and of mainline's model that
// take turns; the power may go in either.
#include "selftests/sim/exhaustive/explore.hpp"
#include "selftests/sim/mainline_writer.hpp"

namespace pcache::sim
{

namespace
{

void flushed_write(u32 sector, u32 count)
{
    upper_write(sector, count, false);
    upper_flush();
}

void their_flushed_write(u32 sector, u32 count)
{
    mainline::write(sector, count);
    mainline::flush();
}

// They write into a cache of ours, and the power goes in front of the terminator or behind it.
void mainline_writes()
{
    ours([] { flushed_write(0, 4); }, End::stop);
    explore(true);
    theirs(
        [] {
            their_flushed_write(2, 4);
            their_flushed_write(5, 1);
        },
        End::cut);
    ours(nullptr, End::stop);
    damage_here("a session of mainline's, and one of ours without a record");
}

void mainline_behind_a_cut_of_ours()
{
    ours(nullptr, End::stop);
    ours(
        [] {
            flushed_write(0, 4);
            upper_write(2, 2, true);
            upper_write(9, 3, false);
        },
        End::cut_all);
    explore(true);
    theirs([] { their_flushed_write(1, 2); }, End::cut_all);
    ours([] { flushed_write(3, 1); }, End::cut);
    explore(false);
    damage_here("ours, mainline's, ours");
}

// With write-back and GC in each, and sessions without a record.
void four_sessions_in_turns()
{
    ours(nullptr, End::stop);
    explore(true);
    ours(
        [] {
            device_message("gc_percent", "0");
            flushed_write(0, 4);
            flushed_write(2, 4);
        },
        End::cut);
    theirs(
        [] {
            their_flushed_write(3, 4);
            mainline::write_back(~0u);
            mainline::collect_garbage(2, false);
        },
        End::cut_all);
    ours(nullptr, End::cut);
    theirs([] {}, End::stop);
    ours(
        [] {
            flushed_write(1, 1);
            (void)wait_until_clean();
        },
        End::stop);
    explore(false);
    damage_here("five sessions in turns");
}

// Theirs leave a log of records without numbers, ours are few.
void their_log_under_ours()
{
    ours(nullptr, End::stop);
    theirs(
        [] {
            for (u32 i = 0; i < 6; ++i)
                their_flushed_write(4 * i, 3);
            mainline::write_back(2);
        },
        End::stop);
    ours(nullptr, End::cut);
    explore(true);
    theirs([] { their_flushed_write(2, 2); }, End::cut);
    ours(
        [] {
            flushed_write(5, 2);
            upper_write(20, 2, false);
        },
        End::cut_all);
    explore(false);
    damage_here("mainline's records with one of ours behind");
}

// The segment that it goes on in holds leftovers, which some cuts of mainline's own bring to light:
// those states are excepted.
void mainline_changes_log_segment()
{
    ours([] { flushed_write(0, 4); }, End::stop);
    theirs(
        [] {
            for (u32 i = 0; i < 826; ++i)
                their_flushed_write(i * 7 % 60, 1);
            mainline::write_back(~0u);
            mainline::collect_garbage(~0u, false);
            plant_leftovers();
            explore(true);
            for (u32 i = 0; i < 8; ++i)
                their_flushed_write(i * 5, 2);
            bool last = false;
            for (const LogRecord &r : read_log())
                last |= r.flags.last();
            must(last, "mainline has not changed its log segment");
        },
        End::cut);
    ours([] { flushed_write(7, 2); }, End::cut);
    theirs([] { their_flushed_write(2, 1); }, End::stop);
    ours([] { flushed_write(8, 1); }, End::stop);
}

// Segments that theirs empty are used again by ours; their pass of GC is cut.
void mainline_collects_garbage(bool generations_first)
{
    static bool first;
    first = generations_first;
    ours(
        [] {
            for (u32 i = 0; i < 6; ++i)
                flushed_write(i % 2 * 16, 48);
        },
        End::stop);
    theirs(
        [] {
            explore(true);
            mainline::write_back(4);
            mainline::collect_garbage(3, first);
            their_flushed_write(8, 4);
        },
        End::cut);
    ours([] { flushed_write(0, 40); }, End::cut);
    explore(false);
    damage_here("ours behind a GC of mainline's");
}

void mainline_gc()
{
    mainline_collects_garbage(false);
}

void mainline_gc_generations_first()
{
    mainline_collects_garbage(true);
}

} // namespace

void theirs(void (*body)(), End end)
{
    if (violated())
        return;
    next_turn();
    world_reset();
    mainline_prune();
    if (!mainline::load()) {
        violation("mainline does not load the cache");
        return;
    }
    body();
    if (end == End::stop)
        mainline::stop();
    next_turn();
    if (end == End::stop || violated())
        return;
    if (end == End::cut_all)
        cut_with_all();
    else
        cut_to_durable();
    if (mainline_spoilt())
        mainline_mend();
}

const std::vector<Scenario> &mainline_scenarios()
{
    static const std::vector<Scenario> all{
        {"mainline-writes", mainline_writes},
        {"mainline-writes-crc", mainline_writes, 64, 8, 1, true},
        {"mainline-behind-a-cut-of-ours", mainline_behind_a_cut_of_ours},
        {"four-sessions-in-turns", four_sessions_in_turns},
        {"their-log-under-ours", their_log_under_ours},
        {"mainline-changes-log-segment", mainline_changes_log_segment},
        {"mainline-gc", mainline_gc},
        {"mainline-gc-generations-first", mainline_gc_generations_first},
    };
    return all;
}

} // namespace pcache::sim
