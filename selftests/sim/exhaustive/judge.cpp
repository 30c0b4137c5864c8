// SPDX-License-Identifier: GPL-2.0
// selftests/sim/exhaustive/judge.cpp - sessions of ours: those of a scenario, and those that a
// crash state is judged by.
//
// Each is a life of the simulator (world.hpp), its interleaving drawn from a seed. What recovery
// shows is judged by the oracle, twice: before and behind full write-back. The state must be
// `running`: read-only is a cry of damage.
#include "selftests/sim/exhaustive/explore.hpp"
#include "selftests/sim/mainline_writer.hpp"

namespace pcache::sim
{

namespace
{

struct Now {
    u64 seed;
    Judgement j;
    Found found;
    bool last;  // the judgement's last session
    bool wrote; // go_on: the write was acknowledged
};
Now now;
bool damage_expected;

Outcome live(Function f, void *context, u64 seed)
{
    sched::Temper temper;
    temper.points_per_decision = 32;
    world_reset();
    upper_reset();
    sched::reset(temper, sched_cpus, Rng(seed));
    pc_target_module_init();
    sched::spawn("device", f, context);
    return sched::run();
}

bool read_only()
{
    const std::string s = device_status();
    return s.size() > 3 && s.compare(s.size() - 3, 3, " ro") == 0;
}

void read_all()
{
    constexpr u32 step = 32;
    for (u32 at = 0; at < disk.sectors(); at += step)
        upper_read(at, std::min(step, disk.sectors() - at));
}

// True when the cache runs.
bool open()
{
    faults.may_fail = now.j.may_be_read_only || now.j.may_be_refused;
    if (device_create()) {
        now.found = Found::refused;
        if (!now.j.may_be_refused)
            violation("the cache is refused");
        return false;
    }
    if (!read_only()) {
        now.found = Found::running;
        faults.may_fail = false;
        return true;
    }
    now.found = Found::read_only;
    if (!now.j.may_be_read_only)
        violation("the cache is read-only: it cries damage where there is none");
    return false;
}

// Read-only: nothing is stored on either device.
void stay_away()
{
    const Bytes image = media.durable();
    const std::vector<u64> content = disk.durable();
    read_all();
    upper_write(0, 1, true);
    upper_flush();
    sched::sleep(3 * second);
    if (media.pending() || media.durable() != image || disk.durable() != content ||
        !disk.pending_writes().empty())
        violation("a read-only cache has stored something");
}

} // namespace

int accept_loss()
{
    char word[] = "accept_loss", text[64];
    char *argv[] = {word};
    return pc_target_message(device.target, 1, argv, text, sizeof(text));
}

namespace
{

// The way on from damage that the scenario made.
bool accept()
{
    device.failed = true;
    read_all();
    device.failed = false;
    if (accept_loss() || read_only()) {
        violation("accept_loss does not lead out of the damage that was made");
        return false;
    }
    now.found = Found::running;
    return true;
}

void session(void *)
{
    bool runs = open();
    if (!runs && now.found == Found::read_only && now.j.torn)
        for (u32 sector : *now.j.torn)
            oracle.forget(sector);
    if (!runs && now.found == Found::read_only && damage_expected)
        runs = accept();
    else if (!runs && now.found == Found::read_only)
        stay_away();
    if (!runs) {
        sched::stop();
        return;
    }
    read_all();
    oracle.check_whole_keys();
    if (!now.last) {
        if (now.j.go_on) {
            const u32 sector = static_cast<u32>(now.seed % disk.sectors());
            upper_write(sector, 1, false);
            upper_flush();
        }
        sched::stop();
        return;
    }
    if (!wait_until_clean())
        violation("the cache has failed: no device has");
    oracle.check_disk("after everything was written back");
    oracle.check_written_back();
    read_all();
    const u64 began = oracle.tick();
    if (!device_remove())
        violation("the cache does not stop cleanly");
    oracle.end_flush(began);
    sched::stop();
}

struct Session {
    void (*body)();
    End end;
};

void scenario_session(void *c)
{
    const Session s = *static_cast<Session *>(c);
    if (device_create()) {
        sched::stop();
        return;
    }
    if (s.body)
        s.body();
    if (s.end == End::stop) {
        const u64 began = oracle.tick();
        if (!device_remove())
            violation("the cache does not stop cleanly");
        oracle.end_flush(began);
    }
    sched::stop();
}

} // namespace

u32 sched_cpus = 1;
u32 sessions;

bool damage_is_expected()
{
    return damage_expected;
}

void expect_damage(bool on)
{
    damage_expected = on;
}

void cut_to_durable()
{
    oracle.check_disk("at a power cut");
    media.restore(Bytes(media.durable()));
    disk.restore(std::vector<u64>(disk.durable()));
    disk_reset();
    oracle.cut();
}

void cut_with_all()
{
    Bytes image(media.contents(), media.contents() + media.bytes());
    std::vector<u64> content = disk.durable();
    for (const Disk::Sectors &w : disk.pending_writes())
        for (auto [sector, tag] : w)
            content[sector] = tag;
    oracle.check_disk("at a power cut");
    media.restore(image);
    disk.restore(content);
    disk_reset();
    oracle.cut();
}

Found judge(u64 seed, const Judgement &wanted)
{
    const bool crc = faults.data_crc;
    now = {seed, wanted, Found::running, false, false};
    now.j.may_be_read_only |= damage_expected || now.j.torn;
    for (u32 i = 0; i < 2 && !violated(); ++i) {
        now.last = i == 1 || !(wanted.look_twice || wanted.go_on);
        const Outcome o = live(session, nullptr, seed + i);
        if (o == Outcome::finished && now.last)
            break;
        if (o == Outcome::broken || now.found != Found::running)
            break;
        cut_to_durable();
        now.j.may_be_read_only = now.j.may_be_refused = false;
    }
    faults.may_fail = false;
    faults.data_crc = crc;
    return now.found;
}

void ours(void (*body)(), End end)
{
    if (violated())
        return;
    next_turn();
    mainline_prune();
    Session s{body, end};
    const Outcome o =
        live(scenario_session, &s, hash_name("session") + ++sessions + options.round * 1000003u);
    forked_here(); // in a child: the power has gone, and it does not return
    if (o == Outcome::broken || end == End::stop)
        return;
    if (end == End::panic) {
        media.panic();
        disk_reset();
        oracle.cut();
    } else if (end == End::cut_all)
        cut_with_all();
    else
        cut_to_durable();
}

void plant_leftovers()
{
    const std::vector<LogRecord> log = read_log();
    for (u32 s = 0; s < segment_count(); ++s) {
        bool used = false;
        for (const LogRecord &r : log) {
            used |= r.at.segment.value == s;
            for (const format::Key &k : r.keys)
                used |= k.cache_seg_id == s;
        }
        for (u32 at = 0; !used && at + format::kset_bytes(1) <= format::data_bytes;
             at += format::kset_bytes(1)) {
            const format::Key k{at % 60 * u64{sector_bytes}, sector_bytes, 0, s, 8192, 1, 0, 0};
            u8 record[format::kset_bytes(1)];
            (void)format::encode_kset(record, &k, 1, {});
            media.put(format::segment_offset({s}) + format::segment_control_bytes + at, record,
                      sizeof(record));
        }
    }
}

void must(bool reached, const char *otherwise)
{
    if (!reached)
        violation(std::string("the scenario misses its matter: ") + otherwise);
}

} // namespace pcache::sim
