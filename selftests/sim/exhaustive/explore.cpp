// SPDX-License-Identifier: GPL-2.0
// selftests/sim/exhaustive/explore.cpp - see explore.hpp: cut points, what is pending there, and
// the crash states that come of it.
#include "selftests/sim/exhaustive/explore.hpp"
#include <cstdio>
#include <cstring>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <unordered_map>
#include "dm-pcache/format/crc32c.hpp"
#include "selftests/sim/damage.hpp"
#include "selftests/sim/mainline_writer.hpp"
#include "selftests/sim/stranger.hpp"

namespace pcache::sim
{

Options options;
Shared *shared;

namespace
{

constexpr s64 panic_state = 1000000; // its number among the states
constexpr u64 seen_slots = 1u << 23; // of a table of hashes
u64 *seen;

struct Item {
    // A unit: its values, the oldest first. A key's data, or a write of the backing device: one.
    // A sector of a block write under way: 1, its new bytes; 2, zeros.
    enum class Kind : u8 { unit, data, write, sector } kind;
    u64 offset = 0;
    std::vector<u64> values;
    usize index = 0; // of the store, of the write, or of the block write
    u32 choices() const
    {
        return kind == Kind::unit || kind == Kind::sector ? static_cast<u32>(values.size()) + 1 : 2;
    }
};
using Choice = std::vector<u8>; // for each item; 0: not arrived

struct Run {
    const Scenario *scenario = nullptr;
    bool on = false;
    u32 number = 0; // of cut points so far
    u32 running = 0;
    bool child = false;
    u64 signature = 0;
    bool damage_steps = false;
    u64 damaged = 0;   // damage_steps: what was durable when it was damaged last
    std::string state; // of the child, for reports
};
Run run;

u64 mix(u64 a, u64 b)
{
    u64 z = a * 0x9E3779B97F4A7C15u ^ (b + 0x632BE59BD9B4E019u) * 0xD6E8FEB86659FD93u;
    z = (z ^ (z >> 32)) * 0xBF58476D1CE4E5B9u;
    return z ^ (z >> 29);
}

u64 word(const u8 *at)
{
    u64 v;
    memcpy(&v, at, sizeof(v));
    return v;
}

u64 hash_unit(u64 offset, u64 value)
{
    return value ? mix(offset, value) : 0;
}

u64 hash_media(const u8 *p, u64 bytes)
{
    u64 h = 0;
    for (u64 at = 0; at < bytes; at += unit_bytes)
        h += hash_unit(at, word(p + at));
    return h;
}

u64 hash_disk(const std::vector<u64> &content)
{
    u64 h = 0;
    for (usize i = 0; i < content.size(); ++i)
        h += mix(~u64{i}, content[i]);
    return h;
}

// True the first time.
bool first_time(u64 hash)
{
    hash |= 1;
    for (u64 i = hash >> 20;; ++i) {
        u64 *slot = &seen[i % seen_slots];
        u64 expected = 0;
        if (__atomic_compare_exchange_n(slot, &expected, hash, false, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED))
            return true;
        if (expected == hash)
            return false;
    }
}

// ---- items ----

using Known = std::unordered_map<u64, usize>; // offset of a unit: its item

void add_units(std::vector<Item> &items, Known &known, const Media::Store &p)
{
    const u8 *bytes = media.stored_bytes(p);
    for (u32 i = 0; i < p.bytes; i += unit_bytes) {
        const u64 value = word(bytes + i), offset = p.offset + i;
        if (value == word(media.durable().data() + offset))
            continue;
        const auto [at, fresh] = known.insert({offset, items.size()});
        if (fresh)
            items.push_back({Item::Kind::unit, offset, {}, 0});
        std::vector<u64> &values = items[at->second].values;
        if (std::find(values.begin(), values.end(), value) == values.end())
            values.push_back(value);
    }
}

void add_sectors(std::vector<Item> &items, usize index)
{
    static const Bytes zeros(Media::block_unit);
    const Media::Block &b = media.blocks()[index];
    for (u32 i = 0; i < format::page_bytes; i += Media::block_unit) {
        const u8 *old = media.durable().data() + b.offset + i, *fresh = b.page.data() + i;
        Item item{Item::Kind::sector, b.offset + i, {}, index};
        if (memcmp(fresh, old, Media::block_unit))
            item.values.push_back(1);
        if (memcmp(zeros.data(), old, Media::block_unit) &&
            memcmp(zeros.data(), fresh, Media::block_unit))
            item.values.push_back(2);
        if (!item.values.empty())
            items.push_back(item);
    }
}

std::vector<Item> collect()
{
    std::vector<Item> items;
    Known known;
    const auto &stores = media.stores();
    for (usize i = 0; i < stores.size(); ++i) {
        const Media::Store &p = stores[i];
        if (!p.whole)
            add_units(items, known, p);
        else if (memcmp(media.stored_bytes(p), media.durable().data() + p.offset, p.bytes))
            items.push_back({Item::Kind::data, p.offset, {}, i});
    }
    for (usize i = 0; i < media.blocks().size(); ++i)
        add_sectors(items, i);
    const auto writes = disk.pending_writes();
    for (usize i = 0; i < writes.size(); ++i)
        items.push_back({Item::Kind::write, u64{writes[i][0].first} * sector_bytes, {}, i});
    return items;
}

u64 number_of_choices(const std::vector<Item> &items, u64 most)
{
    u64 n = 1;
    for (const Item &i : items) {
        n *= i.choices();
        if (n > most)
            return most + 1;
    }
    return n;
}

Choice newest(const std::vector<Item> &items, usize first, usize end)
{
    Choice c(items.size(), 0);
    for (usize i = first; i < end; ++i)
        c[i] = static_cast<u8>(items[i].choices() - 1);
    return c;
}

// Those of too many items: none, all, prefixes, one alone, all but one, chance.
std::vector<Choice> sample(const std::vector<Item> &items, u32 number)
{
    std::vector<Choice> all{newest(items, 0, 0), newest(items, 0, items.size())};
    Rng rng(hash_name(run.scenario->name) + number);
    const usize n = items.size();
    const usize each = options.full ? 64 : 6;
    for (usize k = 0; k < std::min(each, n); ++k) {
        const usize i = n <= each ? k : rng.below(static_cast<u32>(n));
        all.push_back(newest(items, 0, i));
        all.push_back(newest(items, i, i + 1));
        all.push_back(newest(items, 0, n));
        all.back()[i] = 0;
    }
    static const u32 chances[] = {512, 51, 973};
    for (u32 k = 0; k < (options.full ? 512u : 12u); ++k) {
        Choice c(n, 0);
        for (usize i = 0; i < n; ++i)
            if (rng.chance(chances[k % 3]))
                c[i] = static_cast<u8>(1 + rng.below(items[i].choices() - 1));
        all.push_back(c);
    }
    return all;
}

std::vector<Choice> choose(const std::vector<Item> &items, u32 number)
{
    const u64 most = options.full ? 4096 : 256;
    if (number_of_choices(items, most) > most)
        return sample(items, number);
    std::vector<Choice> all;
    for (Choice c(items.size(), 0);;) {
        all.push_back(c);
        usize i = 0;
        while (i < c.size() && ++c[i] == items[i].choices())
            c[i++] = 0;
        if (i == c.size())
            return all;
    }
}

// ---- states ----

struct Base { // a cut point
    u32 number;
    const char *what;
    Media media;
    std::vector<u64> content;
    std::vector<Disk::Sectors> writes;
    std::vector<Item> items;
    Oracle oracle;
    u64 hash;
};
// A child costs more than the states of one cut point.
constexpr usize points_per_child = 16;
std::vector<Base> batch;

Base capture(const char *what)
{
    return {run.number,
            what,
            media,
            disk.durable(),
            disk.pending_writes(),
            collect(),
            oracle,
            hash_media(media.durable().data(), media.bytes()) +
                oracle.clock() * 0x9E3779B97F4A7C15u + hash_name(run.scenario->name)};
}

// Puts the state into media, backing device and oracle; what it hashes to.
u64 build(const Base &b, const Choice &c)
{
    static Bytes image;
    image = b.media.durable();
    std::vector<u64> content = b.content;
    u64 hash = b.hash;
    const auto set = [&](u64 offset, u64 value) {
        hash += hash_unit(offset, value) - hash_unit(offset, word(image.data() + offset));
        memcpy(image.data() + offset, &value, sizeof(value));
    };
    for (usize i = 0; i < b.items.size(); ++i) {
        const Item &item = b.items[i];
        if (!c[i])
            continue;
        if (item.kind == Item::Kind::unit)
            set(item.offset, item.values[c[i] - 1u]);
        else if (item.kind == Item::Kind::data)
            for (u32 at = 0; at < b.media.stores()[item.index].bytes; at += unit_bytes)
                set(item.offset + at,
                    word(b.media.stored_bytes(b.media.stores()[item.index]) + at));
        else if (item.kind == Item::Kind::sector)
            for (u32 at = 0; at < Media::block_unit; at += unit_bytes)
                set(item.offset + at, item.values[c[i] - 1u] == 2
                                          ? 0
                                          : word(b.media.blocks()[item.index].page.data() +
                                                 item.offset % format::page_bytes + at));
        else
            for (auto [sector, tag] : b.writes[item.index])
                content[sector] = tag;
    }
    damage.reset(false, true); // what was poison can be read again
    media.restore(image);
    disk.restore(content);
    disk_reset();
    oracle = b.oracle;
    return hash + hash_disk(content);
}

std::string describe(const Base &b, const Choice &c)
{
    std::string s;
    for (usize i = 0; i < c.size(); ++i) {
        if (!c[i])
            continue;
        const Item &item = b.items[i];
        s += s.empty() ? "" : ", ";
        if (s.size() > 1500)
            return s + "...";
        if (item.kind == Item::Kind::write)
            s += "a write of sector " + std::to_string(item.offset / sector_bytes) +
                 " of the backing device";
        else
            s += (item.kind == Item::Kind::data ? "data of a key at " : "") +
                 place_name(item.offset);
        if (item.choices() > 2)
            s += " (version " + std::to_string(c[i]) + ")";
    }
    return s.empty() ? "nothing of what was pending" : s;
}

std::string again(const std::string &more)
{
    return std::string(options.self) + " --scenario " + run.scenario->name +
           (options.full ? " --full" : "") +
           (options.round ? " --round " + std::to_string(options.round) : "") +
           (pcache_mutant ? " --mutant " + std::to_string(pcache_mutant) : "") + more + " --trace";
}

// What the records of the pages that are being rewritten say, and those behind them.
std::vector<u32> told_there(const Base &b)
{
    std::vector<u32> sectors;
    if (b.media.blocks().empty())
        return sectors;
    (void)build(b, Choice(b.items.size(), 0));
    bool from_here = false;
    for (const LogView::Record &r : view_log().records) {
        for (const Media::Block &w : b.media.blocks())
            from_here |= r.offset < w.offset + format::page_bytes && w.offset < r.offset + r.bytes;
        for (const format::Key &k : r.keys)
            for (u32 i = 0; from_here && r.dirty && i < k.len / sector_bytes; ++i)
                sectors.push_back(static_cast<u32>(k.off / sector_bytes) + i);
    }
    return sectors;
}

bool tears(const Base &b, const Choice &c)
{
    for (usize i = 0; i < c.size(); ++i)
        if (c[i] && b.items[i].kind == Item::Kind::sector)
            return true;
    return false;
}

void judge_state(const Base &b, const Choice &c, u32 index, u64 hash, const std::vector<u32> &told)
{
    run.state = describe(b, c);
    note_state("cut point " + std::to_string(b.number) + ", state " + std::to_string(index));
    oracle.cut();
    if (mainline_spoilt()) {
        count(&Shared::excepted);
        return;
    }
    check_mainline_view();
    // Mainline's reader knows no proof, and takes the log that a torn block write left for whole.
    if (!violated() && !damage_is_expected() && !stranger.unseen() && !tears(b, c))
        check_mainline_reads();
    count(&Shared::states);
    Judgement j;
    const u64 way = (hash >> 7) % (options.full ? 4 : 6);
    j.look_twice = way == 0;
    j.go_on = way == 1;
    j.torn = tears(b, c) ? &told : nullptr;
    if (!violated())
        judge(hash, j);
    if (!violated())
        return;
    report(std::string(b.what) + ", cut point " + std::to_string(b.number) + ", state " +
               std::to_string(index),
           run.state,
           again(" --cut " + std::to_string(run.number) + " --state " + std::to_string(index)));
}

// A panic: everything can be read, and goes with the power cut behind the first look.
void judge_panic(const Base &b)
{
    run.state = "a panic, and a power cut behind the recovery";
    note_state("cut point " + std::to_string(b.number) + ", panic");
    media = b.media; // where it lies does not change
    disk.restore(b.content);
    disk_reset();
    oracle = b.oracle;
    damage.reset(false, true);
    media.panic();
    oracle.cut();
    if (mainline_spoilt()) {
        count(&Shared::excepted);
        return;
    }
    count(&Shared::states);
    Judgement j;
    j.look_twice = true;
    judge(b.number, j);
    if (violated())
        report(std::string(b.what) + ", cut point " + std::to_string(b.number) + ", a panic",
               run.state,
               again(" --cut " + std::to_string(b.number) + " --state " +
                     std::to_string(panic_state)));
}

[[noreturn]] void leave()
{
    fflush(stdout);
    _exit(0);
}

void explore_point(const Base &b)
{
    const std::vector<Choice> all = choose(b.items, b.number);
    const std::vector<u32> told = told_there(b);
    if (options.state == panic_state || (options.state < 0 && b.media.pending())) {
        clear_violation();
        tracing = options.trace && options.state >= 0;
        judge_panic(b);
    }
    for (u32 i = 0; i < all.size() && shared->violations < 10; ++i) {
        if (options.state >= 0 && options.state != i)
            continue;
        clear_violation();
        const u64 hash = build(b, all[i]);
        if (options.state < 0 && !first_time(hash)) {
            count(&Shared::repeated);
            continue;
        }
        tracing = options.trace && options.state >= 0;
        judge_state(b, all[i], i, hash, told);
    }
}

[[noreturn]] void explore_batch()
{
    at_cut_point = nullptr;
    run.child = false;
    for (const Base &b : batch)
        explore_point(b);
    leave();
}

// ---- cut points ----

void wait_for_one()
{
    int status = 0;
    const pid_t p = wait(&status);
    if (p < 0)
        return;
    --run.running;
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        report("a process has died, status " + std::to_string(status) + ", in " +
                   shared->notes[p % 64],
               "", again(""));
}

// In the child true.
bool fork_one()
{
    while (run.running >= options.jobs)
        wait_for_one();
    fflush(stdout);
    ++run.running;
    const pid_t p = fork();
    if (p < 0) {
        perror("fork");
        exit(2);
    }
    return p == 0;
}

u64 signature()
{
    u64 h = oracle.clock() * 0x9E3779B97F4A7C15u +
            hash_media(media.durable().data(), media.bytes()) + hash_disk(disk.durable());
    for (const Media::Store &p : media.stores())
        for (u32 i = 0; i < p.bytes; i += unit_bytes)
            h = mix(h, mix(p.offset + i, word(media.stored_bytes(p) + i)));
    for (const Media::Block &b : media.blocks())
        for (u32 i = 0; i < format::page_bytes; i += unit_bytes)
            h = mix(h, mix(b.offset + i, word(b.page.data() + i)));
    for (const Disk::Sectors &w : disk.pending_writes())
        for (auto [sector, tag] : w)
            h = mix(h, mix(sector, tag));
    return h;
}

// The child gives up what it does; where the session ends, forked_here() goes on.
void give_up()
{
    at_cut_point = nullptr;
    run.child = true;
    if (sched::self())
        sched::cut_now();
    forked_here();
}

} // namespace

static void explore_now();
static void damage_now(const char *what, u32 of);

// The damage of a step counts as a cut point of its own.
static void damage_step(const char *what)
{
    constexpr u32 of = 8;
    const u64 durable = hash_media(media.durable().data(), media.bytes());
    if (!run.damage_steps || durable == run.damaged)
        return;
    run.damaged = durable;
    damage_now(what, options.full ? 1 : of);
}

void here(const char *what)
{
    if (!run.on || shared->violations >= 10)
        return;
    const u64 s = signature();
    if (s == run.signature)
        return; // as at the place before
    run.signature = s;
    damage_step(what);
    ++run.number;
    if (explored_alone()) {
        if (run.number != options.cut || options.damage >= 0)
            return;
        batch.push_back(capture(what));
        give_up();
    }
    count(&Shared::points);
    oracle.check_disk("at a power cut");
    batch.push_back(capture(what));
    if (batch.size() == points_per_child)
        explore_now();
}

// What was captured, in a process of its own.
static void explore_now()
{
    if (batch.empty())
        return;
    if (fork_one())
        give_up();
    batch.clear();
}

namespace
{
bool damaging;
const char *damaged_what;
u32 damaged_of;
} // namespace

void note_state(const std::string &state)
{
    snprintf(shared->notes[getpid() % 64], sizeof(shared->notes[0]), "%s", state.c_str());
}

void next_turn()
{
    explore_now();
}

std::vector<Scenario> all_scenarios()
{
    std::vector<Scenario> all = scenarios();
    all.insert(all.end(), mainline_scenarios().begin(), mainline_scenarios().end());
    return all;
}

bool explored_alone()
{
    return options.cut >= 0 || options.damage >= 0;
}

void forked_here()
{
    if (!run.child)
        return;
    if (damaging) {
        at_cut_point = nullptr;
        run.child = false;
        run_damage(damaged_what, run.number, damaged_of);
        leave();
    }
    explore_batch();
}

void explore(bool on)
{
    run.on = on;
    at_cut_point = here;
    if (on)
        here("where the scenario begins");
}

static void damage_now(const char *what, u32 of)
{
    if (violated() || shared->violations >= 10)
        return;
    ++run.number;
    if (explored_alone() ? run.number != options.cut || options.damage < 0 : !fork_one())
        return;
    batch.clear();
    damaging = true;
    damaged_what = what;
    damaged_of = of;
    give_up();
}

void damage_here(const char *what)
{
    damage_now(what, 1);
}

void damage_each_step(bool on)
{
    run.damage_steps = on;
}

u64 hash_name(const char *s)
{
    u64 h = 0xCBF29CE484222325u;
    for (; *s; ++s)
        h = (h ^ static_cast<u8>(*s)) * 0x100000001B3u;
    return h;
}

std::string again_damage(u32 index)
{
    return again(" --cut " + std::to_string(run.number) + " --damage " + std::to_string(index));
}

void explore_begin()
{
    const auto share = [](usize bytes) {
        return mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    };
    shared = static_cast<Shared *>(share(sizeof(Shared)));
    seen = static_cast<u64 *>(share(seen_slots * sizeof(u64)));
}

bool explore_scenario(const Scenario &s)
{
    run = {};
    batch.clear();
    run.scenario = &s;
    faults = {};
    faults.chunk_one_in = ~0u; // a store is one; its units may arrive apart
    faults.slow_one_in = ~0u;
    faults.data_crc = s.data_crc;
    sched_cpus = s.cpus;
    sessions = 0;
    damaging = false;
    expect_damage(false);
    clear_violation();
    (void)format::crc32c_has_instruction();
    sched::begin_run();
    media.create(format::segment_offset({s.segments}));
    disk.create(s.sectors);
    oracle.reset(s.sectors);
    mainline_reset();
    stranger.reset();
    at_cut_point = here;
    s.run();
    explore_now();
    at_cut_point = nullptr;
    while (run.running)
        wait_for_one();
    if (violated())
        report("the scenario itself, behind cut point " + std::to_string(run.number), "",
               again(""));
    return !violated();
}

void report(const std::string &what, const std::string &state, const std::string &command)
{
    count(&Shared::violations);
    printf("violation in scenario %s: %s\n  %s\n", run.scenario->name, what.c_str(),
           violated() ? violation_text().c_str() : "");
    if (!state.empty())
        printf("  what had arrived, or was damaged: %s\n", state.c_str());
    printf("  again: %s\n  where it is seen: gdb -ex 'break pcache::sim::violation' -ex run --args "
           "%s\n",
           command.c_str(), command.c_str());
    fflush(stdout);
}

} // namespace pcache::sim
