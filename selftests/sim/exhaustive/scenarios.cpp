// SPDX-License-Identifier: GPL-2.0
// selftests/sim/exhaustive/scenarios.cpp - what happens in each scenario. To add one: a function
// and a line in the table; Documentation/testing.md says how.
//
// What leads up to the matter is not explored (explore(false)); what is explored is kept short.
#include <cstdio>
#include <cstring>
#include "dm-pcache/format/position.hpp"
#include "dm-pcache/format/segment.hpp"
#include "selftests/sim/damage.hpp"
#include "selftests/sim/exhaustive/explore.hpp"
#include "selftests/sim/mainline.hpp"
#include "selftests/sim/stranger.hpp"

namespace pcache::sim
{

namespace
{

void flushed_write(u32 sector, u32 count)
{
    upper_write(sector, count, false);
    upper_flush();
}

void new_cache()
{
    ours(nullptr, End::stop);
}

bool has_last()
{
    for (const LogRecord &r : read_log())
        if (r.flags.last())
            return true;
    return false;
}

// Of both slots.
u64 sum_of_generations()
{
    u64 sum = 0;
    for (u32 i = 0; i < segment_count(); ++i)
        for (u32 slot = 0; slot < 2; ++slot) {
            format::GenerationRecord r;
            memcpy(&r,
                   media.contents() + format::segment_offset({i}) + format::generation_offset +
                       slot * format::generation_stride,
                   sizeof(r));
            sum += r.gen;
        }
    return sum;
}

// ---- one thing at a time ----

void format()
{
    explore(true);
    damage_each_step(true);
    new_cache();
    damage_each_step(false);
    damage_here("a new cache, stopped cleanly");
}

// Whatever is left of a former life may not come back.
void format_over_a_former_life()
{
    new_cache();
    ours(
        [] {
            for (u32 i = 0; i < 6; ++i)
                flushed_write(i * 3, 5);
            (void)wait_until_clean();
        },
        End::stop);
    const std::vector<u8> zeros(128u << 10, 0);
    media.put(0, zeros.data(), static_cast<u32>(zeros.size()));
    explore(true);
    damage_each_step(true);
    ours([] { flushed_write(0, 2); }, End::cut);
}

void one_write()
{
    new_cache();
    ours(
        [] {
            explore(true);
            flushed_write(3, 5);
            explore(false);
            damage_here("one write");
        },
        End::cut);
}

void two_overlapping_writes()
{
    new_cache();
    ours(
        [] {
            explore(true);
            upper_write(0, 8, false);
            upper_write(4, 8, true);
            upper_flush();
            explore(false);
            damage_here("two overlapping writes");
        },
        End::cut);
}

void second_writer(void *done)
{
    upper_write(6, 8, false);
    upper_flush();
    *static_cast<bool *>(done) = true;
    sched::wake(done);
}

// Two clients at once, each with a FLUSH.
void two_writers()
{
    new_cache();
    ours(
        [] {
            static bool done;
            done = false;
            explore(true);
            sched::spawn("second client", second_writer, &done);
            upper_write(0, 8, false);
            upper_flush();
            while (!done)
                sched::block(&done, "the second client");
            explore(false);
            damage_here("two writers");
        },
        End::cut);
}

void kset_close()
{
    new_cache();
    ours(
        [] {
            explore(true);
            for (u32 i = 0; i < format::geometry.keys_per_kset + 1; ++i)
                upper_write(2 * i, 1, false);
            upper_flush();
            explore(false);
            damage_here("more keys than a record holds");
        },
        End::cut);
}

void log_head(u32 &segment, u32 &offset)
{
    (void)sscanf(device_status().c_str(), "%*x %*u %*u %*u %*u %*x %u:%u", &segment, &offset);
}

// Flushes writes until a record of one key more does not fit.
void fill_log_segment()
{
    u32 segment = 0, offset = 0;
    for (u32 i = 0; i < 5000; ++i) {
        log_head(segment, offset);
        if (offset + 2 * format::kset_bytes(1) + format::last_record_bytes > format::data_bytes)
            return;
        flushed_write(i * 7 % 60, 1);
    }
    violation("the scenario does not come to the end of a log segment");
}

void log_segment_change()
{
    new_cache();
    ours(
        [] {
            fill_log_segment();
            explore(true);
            for (u32 i = 0; i < 4; ++i)
                flushed_write(9 * i, 2);
            explore(false);
            must(has_last(), "the log has not changed its segment");
            damage_here("behind a change of log segment");
        },
        End::cut);
    ours(nullptr, End::stop);
    damage_here("a log of two segments, stopped cleanly");
}

void log_segment_over_leftovers()
{
    new_cache();
    ours(
        [] {
            fill_log_segment();
            (void)wait_until_clean();
        },
        End::cut);
    plant_leftovers();
    explore(true);
    ours(
        [] {
            for (u32 i = 0; i < 4; ++i)
                flushed_write(9 * i, 2);
            must(has_last(), "the log has not changed its segment");
        },
        End::cut);
}

void writes_on_two_cpus()
{
    new_cache();
    ours(
        [] {
            explore(true);
            for (u32 i = 0; i < 10; ++i)
                upper_write(i * 5, 6, true);
        },
        End::cut);
}

// Until the next one is zeroed, over what data was there.
void log_segment_zeroed()
{
    new_cache();
    ours(
        [] {
            for (u32 i = 0; i < 3; ++i) {
                fill_log_segment();
                for (u32 n = 0; n < 3; ++n)
                    flushed_write(5 * n + i, 4);
            }
            explore(true);
            for (u32 i = 0; i < 12; ++i)
                flushed_write(i, 1);
        },
        End::cut);
}

void tails()
{
    new_cache();
    ours([] { flushed_write(0, 4); }, End::cut);
    ours(
        [] {
            (void)wait_until_clean(); // the first updates behind a load
            explore(true);
            flushed_write(8, 4);
            (void)wait_until_clean();
            flushed_write(2, 4);
            (void)wait_until_clean();
            explore(false);
            damage_here("dirty_tail has moved twice");
        },
        End::cut);
}

void gc_of_a_kset()
{
    new_cache();
    ours(
        [] {
            for (u32 i = 0; i < 4; ++i)
                flushed_write(8 * i, 8);
            (void)wait_until_clean();
            flushed_write(40, 2);
            explore(true);
            device_message("gc_percent", "0");
            sched::sleep(2 * second);
            (void)wait_until_clean();
            sched::sleep(2 * second);
            explore(false);
            must(read_log().size() < 5, "GC has passed nothing");
            damage_here("behind GC");
        },
        End::cut);
}

void segment_reuse()
{
    new_cache();
    ours(
        [] {
            device_message("gc_percent", "20");
            for (u32 i = 0; i < 14; ++i)
                flushed_write(i % 2 * 16, 48);
            static u64 before;
            before = sum_of_generations();
            explore(true);
            for (u32 i = 0; i < 3; ++i)
                flushed_write(i % 2 * 16, 48);
            explore(false);
            must(sum_of_generations() > before, "no segment has been emptied");
            damage_here("segments have been used again");
        },
        End::cut);
}

void write_back_of_two_epochs()
{
    new_cache();
    ours(
        [] {
            upper_write(0, 8, false);
            upper_write(20, 1, false);
            upper_flush();
            upper_write(4, 8, false);
            upper_write(21, 1, false);
            upper_flush();
            upper_write(30, 2, false);
            damage_here("two dirty epochs");
            explore(true);
            (void)wait_until_clean();
        },
        End::cut);
}

// Somebody has used the backing device meanwhile, and the cache has nothing dirty for it: what was
// cached may not be read again, wherever the activation is cut, nor may the next stop know too
// much.
void changed_device()
{
    new_cache();
    ours(
        [] {
            for (u32 i = 0; i < 3; ++i)
                flushed_write(8 * i, 12);
            (void)wait_until_clean();
        },
        End::stop);
    stranger.write(9);
    explore(true);
    ours(
        [] {
            stranger.seen();
            explore(false);
            flushed_write(0, 2);
            (void)wait_until_clean();
            explore(true);
        },
        End::stop);
}

void clean_stop()
{
    new_cache();
    ours(
        [] {
            flushed_write(0, 8);
            upper_write(4, 8, false);
            explore(true);
        },
        End::stop);
    explore(false);
    damage_here("a clean stop with dirty data");
}

void suspend_and_resume()
{
    new_cache();
    ours(
        [] {
            flushed_write(0, 8);
            upper_write(4, 8, false);
            explore(true);
            device_suspend(false, true);
            device_resume();
            flushed_write(6, 1);
        },
        End::cut);
}

// ---- activation ----

void some_writes()
{
    flushed_write(0, 8);
    upper_write(4, 8, false);
    upper_write(20, 3, true);
    upper_write(5, 1, false);
}

void activation_after_a_cut()
{
    new_cache();
    ours(some_writes, End::cut);
    damage_here("a cut");
    explore(true);
    ours(nullptr, End::cut);
}

// A record was under way, its later half is there; behind it stands one that was good in a former
// life, just where the record after the next would begin. It may never be read.
void activation_behind_a_torn_record()
{
    new_cache();
    ours(
        [] {
            some_writes();
            (void)wait_until_clean();
            flushed_write(2, 1);
            flushed_write(9, 1);
        },
        End::cut);
    const LogRecord newest = read_log().back();
    const u64 head = format::segment_offset({newest.at.segment.value}) +
                     format::segment_control_bytes + newest.at.offset + newest.bytes;
    const u64 garbage = 0x1234567812345678;
    for (u32 offset = 32; offset < format::kset_bytes(1); offset += unit_bytes)
        media.put(head + offset, &garbage, sizeof(garbage));
    const format::Key k{0, sector_bytes, 0, 5, 8192, 1, 0, 0};
    u8 record[format::kset_bytes(1)];
    (void)format::encode_kset(record, &k, 1, {});
    media.put(head + format::kset_bytes(1), record, sizeof(record));
    damage_here("a cut, with something behind the newest record");
    explore(true);
    ours([] { flushed_write(3, 1); }, End::cut);
    damage_here("another cut");
}

// Behind the head, in its page, which has to be rewritten with the records in front.
void activation_with_a_bad_line()
{
    new_cache();
    ours(
        [] {
            for (u32 i = 0; i < 10; ++i)
                flushed_write(5 * i, 2);
        },
        End::cut);
    const LogRecord newest = read_log().back();
    damage.bad_line(format::segment_offset({newest.at.segment.value}) +
                    format::segment_control_bytes + newest.at.offset + newest.bytes + 256);
    explore(true);
    ours([] { flushed_write(1, 2); }, End::cut);
}

void activation_after_a_clean_stop()
{
    new_cache();
    ours(some_writes, End::stop);
    explore(true);
    ours([] { flushed_write(7, 2); }, End::stop);
    damage_here("two sessions, the second with a record");
}

void activation_after_a_panic()
{
    new_cache();
    ours(
        [] {
            some_writes();
            (void)wait_until_clean();
            upper_write(8, 2, false);
        },
        End::panic);
    explore(true);
    ours(nullptr, End::cut);
}

// Lives that end in GC, so that the next one has a pass to end.
void activation_in_the_middle_of_gc()
{
    new_cache();
    ours(
        [] {
            for (u32 i = 0; i < 6; ++i)
                flushed_write(i % 2 * 16, 48);
            (void)wait_until_clean();
        },
        End::cut);
    Rng rng(1);
    cut_mainline_gc(rng);
    damage_here("a pass of GC was cut");
    explore(true);
    ours(nullptr, End::cut);
    damage_here("and ended by activation");
}

// ---- a setting, accept_loss ----

void a_setting()
{
    new_cache();
    ours(
        [] {
            flushed_write(0, 8);
            explore(true);
            damage_each_step(true);
            device_message("gc_percent", "35");
            device_message("gc_percent", "70");
            damage_each_step(false);
            explore(false);
            damage_here("two settings");
        },
        End::stop);
    damage_here("two settings and a clean stop");
}

// A hole whose keys nobody misses but two sectors; what stands behind it must get to the backing
// device.
void accepting_a_loss()
{
    new_cache();
    ours(
        [] {
            flushed_write(0, 4);
            flushed_write(10, 2);
            flushed_write(2, 6);
            flushed_write(12, 3);
        },
        End::cut);
    const std::vector<LogRecord> log = read_log();
    const LogRecord &hole = log[log.size() - 3];
    for (const format::Key &k : hole.keys)
        for (u32 i = 0; i < k.len / sector_bytes; ++i)
            oracle.forget(static_cast<u32>(k.off / sector_bytes) + i);
    const u64 zero = 0;
    media.put(format::segment_offset({hole.at.segment.value}) + format::segment_control_bytes +
                  hole.at.offset + 8,
              &zero, sizeof(zero));
    expect_damage(true);
    faults.may_fail = true;
    ours(
        [] {
            explore(true);
            damage_each_step(true);
            if (accept_loss())
                violation("accept_loss fails");
            damage_each_step(false);
            faults.may_fail = false;
            flushed_write(1, 2);
        },
        End::cut);
    faults.may_fail = false;
}

// ---- sessions in a row ----

void four_sessions()
{
    explore(true);
    ours(
        [] {
            device_message("gc_percent", "0");
            flushed_write(0, 4);
            flushed_write(2, 4);
            (void)wait_until_clean();
        },
        End::stop);
    ours(nullptr, End::cut); // no record
    ours([] { flushed_write(3, 2); }, End::cut_all);
    ours(
        [] {
            flushed_write(1, 1);
            (void)wait_until_clean();
        },
        End::stop);
    explore(false);
    damage_here("four sessions");
}

void sessions_without_a_record()
{
    new_cache();
    ours([] { flushed_write(0, 4); }, End::cut);
    explore(true);
    ours(nullptr, End::cut);
    ours(nullptr, End::stop);
    ours([] { flushed_write(1, 1); }, End::cut);
    ours(nullptr, End::stop);
    explore(false);
    damage_here("sessions without a record");
}

} // namespace

const std::vector<Scenario> &scenarios()
{
    static const std::vector<Scenario> all{
        {"format", format},
        {"format-over-a-former-life", format_over_a_former_life},
        {"one-write", one_write},
        {"one-write-crc", one_write, 64, 8, 1, true},
        {"two-overlapping-writes", two_overlapping_writes},
        {"two-writers", two_writers, 64, 8, 2},
        {"kset-close", kset_close},
        {"log-segment-change", log_segment_change},
        {"log-segment-over-leftovers", log_segment_over_leftovers},
        {"writes-on-two-cpus", writes_on_two_cpus, 64, 8, 2},
        {"log-segment-zeroed", log_segment_zeroed},
        {"tails", tails},
        {"gc-of-a-kset", gc_of_a_kset},
        {"segment-reuse", segment_reuse},
        {"write-back-of-two-epochs", write_back_of_two_epochs},
        {"clean-stop", clean_stop},
        {"suspend-and-resume", suspend_and_resume},
        {"activation-after-a-cut", activation_after_a_cut},
        {"activation-behind-a-torn-record", activation_behind_a_torn_record},
        {"activation-with-a-bad-line", activation_with_a_bad_line},
        {"activation-after-a-clean-stop", activation_after_a_clean_stop},
        {"changed-device", changed_device},
        {"activation-after-a-panic", activation_after_a_panic},
        {"activation-in-the-middle-of-gc", activation_in_the_middle_of_gc},
        {"a-setting", a_setting},
        {"accepting-a-loss", accepting_a_loss},
        {"four-sessions", four_sessions},
        {"sessions-without-a-record", sessions_without_a_record},
    };
    return all;
}

} // namespace pcache::sim
