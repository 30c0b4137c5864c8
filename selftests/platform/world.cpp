// SPDX-License-Identifier: GPL-2.0
// selftests/platform/world.cpp - the World itself: devices by name, tables, hosts, log and events.
//
// The state of the one World is `state`; its lock guards it all. It is never held while anything of
// the engine is called.
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <condition_variable>
#include <chrono>
#include <mutex>
#include "selftests/platform/internal.hpp"

using namespace pcache::selftest;

struct pc_table {
    pc_table(const std::string &d, bool ro) : device(d), read_only(ro) {}
    std::string device;
    bool read_only;
    std::atomic<long> handles{0};
    std::atomic<bool> noflush{false}; // device-mapper's own mark
};

struct pc_host {
    std::string device; // kept after a detach, for the log
    const pc_table *table;
};

namespace
{

struct State {
    std::vector<std::pair<std::string, std::unique_ptr<MediaDevice>>> media;
    std::vector<std::pair<std::string, std::unique_ptr<BackingDevice>>> backings;
    std::map<std::string, std::pair<int, const char *>> refusals;
    std::vector<std::unique_ptr<pc_table>> tables;
    std::map<std::string, u64> events;
    std::function<void()> event_hook;
    u64 hosts = 0;
};

std::mutex lock;
std::condition_variable changed;
State *state;
std::vector<LogLine> *lines; // outlive the World's parts that still log
std::vector<std::string> *breaches;

// Storage for the owner's address of a mapped device: one object per name.
const void *owner_of(const std::string &device)
{
    static auto *names = new std::set<std::string>;
    std::lock_guard<std::mutex> g(lock);
    return &*names->insert(device).first;
}

template <class Devices>
auto *find(Devices &devices, const char *path)
{
    for (auto &d : devices)
        if (d.first == path)
            return d.second.get();
    return static_cast<decltype(devices.front().second.get())>(nullptr);
}

// With the lock held: 0, or the refusal that a test has asked for.
int refusal(const char *path, const char **sentence)
{
    auto i = state->refusals.find(path);
    if (i == state->refusals.end())
        return 0;
    int error = i->second.first;
    *sentence = i->second.second;
    state->refusals.erase(i);
    return error;
}

} // namespace

namespace pcache::selftest
{

void violation(const std::string &what)
{
    std::lock_guard<std::mutex> g(lock);
    if (breaches)
        breaches->push_back(what);
}

void hold_table(pc_table *t, int by)
{
    if (t)
        t->handles += by;
}

World::World()
{
    sched::start();
    memory_reset();
    media_reset();
    sched::set_cpus(8);
    if (const char *ms = getenv("PCACHE_TEST_WORK_DELAY_MS"))
        set_work_delay_ns(strtoull(ms, nullptr, 10) * 1'000'000);
    std::lock_guard<std::mutex> g(lock);
    state = new State;
    lines = new std::vector<LogLine>;
    breaches = new std::vector<std::string>;
}

World::~World()
{
    sched::stop();
    set_yield_hook(nullptr);
    set_one_worker(false);
    set_work_delay_ns(0);
    std::string left = leaks();
    if (!left.empty())
        fprintf(stderr, "world: left behind: %s\n", left.c_str());
    media_reset();
    std::lock_guard<std::mutex> g(lock);
    delete state;
    delete lines;
    delete breaches;
    state = nullptr;
    lines = nullptr;
    breaches = nullptr;
}

namespace
{
MediaDevice &add(const std::string &path, std::unique_ptr<Store> s)
{
    auto d = std::make_unique<MediaDevice>(std::make_unique<MediaDevice::Impl>(std::move(s)));
    std::lock_guard<std::mutex> g(lock);
    d->set_name(path);
    return *state->media.emplace_back(path, std::move(d)).second;
}

BackingDevice &add_disk(const std::string &path, std::unique_ptr<Store> s)
{
    auto d = make_backing(std::move(s));
    std::lock_guard<std::mutex> g(lock);
    d->set_name(path);
    return *state->backings.emplace_back(path, std::move(d)).second;
}
} // namespace

MediaDevice &World::add_media(const std::string &path, u64 bytes)
{
    return add(path, std::make_unique<Store>(bytes));
}

MediaDevice &World::add_media(const std::string &path, const Image &contents)
{
    MediaDevice &d = add_media(path, contents.size());
    d.load(contents);
    return d;
}

MediaDevice &World::add_media_file(const std::string &path, const std::string &file)
{
    return add(path, std::make_unique<Store>(file));
}

BackingDevice &World::add_backing(const std::string &path, u64 bytes)
{
    return add_disk(path, std::make_unique<Store>(bytes));
}

BackingDevice &World::add_backing(const std::string &path, const Image &contents)
{
    BackingDevice &d = add_backing(path, contents.size());
    d.load(contents);
    return d;
}

BackingDevice &World::add_backing_file(const std::string &path, const std::string &file)
{
    return add_disk(path, std::make_unique<Store>(file));
}

void World::refuse_open(const std::string &path, int error, const char *sentence)
{
    std::lock_guard<std::mutex> g(lock);
    state->refusals[path] = {error, sentence};
}

pc_table *World::add_table(const std::string &device, bool read_only)
{
    std::lock_guard<std::mutex> g(lock);
    state->tables.push_back(std::make_unique<pc_table>(device, read_only));
    return state->tables.back().get();
}

void World::drop_table(pc_table *t)
{
    if (t->handles) { // kept, so that they can still be closed
        violation("a table destroyed before the handles that belong to it");
        return;
    }
    std::lock_guard<std::mutex> g(lock);
    std::erase_if(state->tables, [t](auto &p) { return p.get() == t; });
}

bool noflush_suspend()
{
    std::lock_guard<std::mutex> g(lock);
    return std::any_of(state->tables.begin(), state->tables.end(),
                       [](auto &t) { return t->noflush.load(); });
}

void World::set_noflush(pc_table *t, bool on)
{
    t->noflush = on;
}

void World::set_cpus(u32 n)
{
    sched::set_cpus(n);
}

void World::set_event_hook(std::function<void()> hook)
{
    const std::lock_guard<std::mutex> g(lock);
    state->event_hook = std::move(hook);
}

void World::set_fence_hook(std::function<void()> hook)
{
    pcache::selftest::set_fence_hook(std::move(hook));
}

Cut World::cut(Rng &rng)
{
    // Nothing is added to a World while another thread cuts; the devices' own locks are what stops
    // time.
    Cut c;
    std::lock_guard<std::mutex> g(power_lock());
    for (auto &b : state->backings)
        backing_lock(b.second->impl());
    for (auto &m : state->media) {
        std::bernoulli_distribution coin(draw_chance(rng));
        c.media.push_back(cut_locked(m.second->impl(), [&](u64, unsigned) { return coin(rng); }));
    }
    for (auto &b : state->backings) {
        std::bernoulli_distribution coin(draw_chance(rng));
        c.backings.push_back(cut_locked(
            b.second->impl(), [&](const BackingDevice::Write &, u32) { return coin(rng); }));
    }
    for (auto &b : state->backings)
        backing_unlock(b.second->impl());
    return c;
}

std::vector<LogLine> World::log() const
{
    std::lock_guard<std::mutex> g(lock);
    return *lines;
}

bool World::said(std::string_view part) const
{
    std::lock_guard<std::mutex> g(lock);
    for (const LogLine &l : *lines)
        if (l.text.find(part) != std::string::npos)
            return true;
    return false;
}

void World::clear_log()
{
    std::lock_guard<std::mutex> g(lock);
    lines->clear();
}

u64 World::events(const std::string &device) const
{
    std::lock_guard<std::mutex> g(lock);
    auto i = state->events.find(device);
    return i == state->events.end() ? 0 : i->second;
}

bool World::wait_for_events(u64 n, u64 timeout_ns, const std::string &device) const
{
    std::unique_lock<std::mutex> g(lock);
    return changed.wait_for(g, std::chrono::nanoseconds(timeout_ns),
                            [&] { return state->events[device] >= n; });
}

std::vector<std::string> World::violations() const
{
    std::lock_guard<std::mutex> g(lock);
    return *breaches;
}

std::string World::leaks() const
{
    std::string s;
    auto note = [&s](u64 n, const std::string &what) {
        if (n)
            s += (s.empty() ? "" : ", ") + std::to_string(n) + " " + what;
    };
    std::lock_guard<std::mutex> g(lock);
    for (auto &m : state->media)
        note(m.second->impl().handles, "open handles of " + m.first);
    for (auto &b : state->backings)
        note(backing_handles(b.second->impl()), "open handles of " + b.first);
    note(state->hosts, "hosts");
    note(sched::live_queues(), "work queues");
    note(live_bios(), "bios not ended");
    note(Memory::live(), "blocks of memory (" + std::to_string(Memory::live_bytes()) + " bytes)");
    return s;
}

} // namespace pcache::selftest

// ---- platform.h
// ------------------------------------------------------------------------------------

extern "C" {

void pc_log(pc_host *host, pc_level level, const char *format, ...) noexcept
{
    char text[1024];
    va_list a;
    va_start(a, format);
    vsnprintf(text, sizeof(text), format, a);
    va_end(a);
    static const bool show = getenv("PCACHE_TEST_LOG") != nullptr;
    std::lock_guard<std::mutex> g(lock);
    if (lines)
        lines->push_back({level, host ? host->device : "", text});
    if (show || !lines)
        fprintf(stderr, "pcache%s%s: %s\n", host ? " " : "", host ? host->device.c_str() : "",
                text);
}

void pc_raise_event(pc_host *host) noexcept
{
    std::function<void()> hook;
    {
        const std::lock_guard<std::mutex> g(lock);
        if (!host->table)
            return;
        ++state->events[host->table->device];
        changed.notify_all();
        hook = state->event_hook;
    }
    if (hook)
        hook();
}

usize pc_format(char *buffer, usize size, const char *format, ...) noexcept
{
    if (size == 0)
        return 0;
    va_list a;
    va_start(a, format);
    int n = vsnprintf(buffer, size, format, a);
    va_end(a);
    if (n < 0)
        return 0;
    return static_cast<usize>(n) < size ? static_cast<usize>(n) : size - 1;
}

int pc_media_open(pc_table *t, const char *path, pc_media **out, const char **sentence) noexcept
{
    sched::assert_may_sleep("pc_media_open");
    std::lock_guard<std::mutex> g(lock);
    if (int e = refusal(path, sentence))
        return e;
    MediaDevice *d = find(state->media, path);
    if (!d) {
        *sentence = "the cache device cannot be opened";
        return -19;
    }
    *out = d->open(t);
    return 0;
}

int pc_backing_open(pc_table *t, const char *path, pc_backing **out, const char **sentence) noexcept
{
    sched::assert_may_sleep("pc_backing_open");
    std::lock_guard<std::mutex> g(lock);
    if (int e = refusal(path, sentence))
        return e;
    BackingDevice *d = find(state->backings, path);
    if (!d) {
        *sentence = "the backing device cannot be opened";
        return -19;
    }
    *out = d->open(t);
    return 0;
}

const void *pc_table_owner(const pc_table *t) noexcept
{
    return owner_of(t->device);
}

int pc_table_is_read_only(const pc_table *t) noexcept
{
    return t->read_only;
}

pc_host *pc_host_create(pc_table *t) noexcept
{
    sched::assert_may_sleep("pc_host_create");
    void *probe = pc_alloc(sizeof(pc_host), PC_MAY_SLEEP); // a failure that tests can ask for
    if (!probe)
        return nullptr;
    pc_free(probe);
    std::lock_guard<std::mutex> g(lock);
    ++state->hosts;
    return new pc_host{t->device, t};
}

void pc_host_attach(pc_host *h, pc_table *t) noexcept
{
    std::lock_guard<std::mutex> g(lock);
    h->table = t;
    h->device = t->device;
}

void pc_host_detach(pc_host *h, pc_table *t) noexcept
{
    std::lock_guard<std::mutex> g(lock);
    if (h->table == t)
        h->table = nullptr;
}

int pc_host_noflush(pc_host *h) noexcept
{
    sched::assert_may_sleep("pc_host_noflush");
    std::lock_guard<std::mutex> g(lock);
    return h->table && h->table->noflush;
}

void pc_host_destroy(pc_host *h) noexcept
{
    sched::assert_may_sleep("pc_host_destroy");
    if (!h)
        return;
    std::lock_guard<std::mutex> g(lock);
    --state->hosts;
    delete h;
}
}
