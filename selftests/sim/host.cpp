// SPDX-License-Identifier: GPL-2.0
// selftests/sim/host.cpp - tables, hosts, log and memory of platform.h.
//
// Memory comes from an arena that a new life takes back whole, since a power cut leaves tasks and
// objects where they are. What is freed is filled with a pattern and used again. With
// AddressSanitizer each block is its own malloc.
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif
#include "selftests/sim/inject.hpp"
#include "selftests/sim/world.hpp"

using namespace pcache::sim;

struct pc_table {
    std::string device;
    int handles = 0;
};
struct pc_host {
    pc_table *table;
};

namespace pcache::sim
{
bool noflush_suspend = false;
u64 requeues = 0;
} // namespace pcache::sim

namespace
{

u64 live_blocks, live_media, live_backings, live_hosts;
std::vector<std::unique_ptr<pc_table>> tables;
std::vector<std::unique_ptr<pc_host>> hosts;
std::vector<std::unique_ptr<pc_media>> medias;
std::vector<std::unique_ptr<pc_backing>> backings;

// ---- memory ----

struct alignas(64) Block { // in front of what is handed out
    u32 size_class;
    Block *next;
};

#ifdef __SANITIZE_ADDRESS__

// Large blocks are few, the same in every life, and their pages are expensive: they are kept.
constexpr usize large_bytes = 8u << 10;
std::map<void *, usize> blocks; // handed out
std::multimap<usize, void *> spare_large;

void *take(usize bytes)
{
    void *p = nullptr;
    if (const auto i = spare_large.find(bytes); i != spare_large.end()) {
        p = i->second;
        spare_large.erase(i);
        __asan_unpoison_memory_region(p, bytes);
    } else if (posix_memalign(&p, bytes >= 64 && !(bytes & (bytes - 1)) ? 64 : 16,
                              bytes ? bytes : 1)) {
        abort();
    }
    blocks.emplace(p, bytes);
    return p;
}
void put_back(void *p, usize bytes)
{
    if (bytes < large_bytes) {
        free(p);
        return;
    }
    __asan_poison_memory_region(p, bytes);
    spare_large.emplace(bytes, p);
}
void give(void *p)
{
    const auto i = blocks.find(p);
    if (i == blocks.end())
        violation("memory given back that is not allocated");
    put_back(p, i->second);
    blocks.erase(i);
}
void arena_reset()
{
    for (auto &[p, bytes] : blocks)
        put_back(p, bytes);
    blocks.clear();
}

#else

constexpr usize class_count = 48;
constexpr usize chunk_bytes = 16u << 20;
std::vector<u8 *> chunks;
usize chunk_index, chunk_used;
Block *free_blocks[class_count];

void *take(usize bytes)
{
    u32 size_class = 6;
    while ((usize{1} << size_class) < bytes)
        ++size_class;
    const usize room = sizeof(Block) + (usize{1} << size_class);
    Block *b = free_blocks[size_class];
    if (b) {
        free_blocks[size_class] = b->next;
    } else {
        if (room > chunk_bytes)
            abort(); // the engine of a small cache does not ask for that
        if (chunk_index < chunks.size() && chunk_used + room > chunk_bytes) {
            ++chunk_index;
            chunk_used = 0;
        }
        if (chunk_index == chunks.size())
            chunks.push_back(static_cast<u8 *>(aligned_alloc(64, chunk_bytes)));
        b = reinterpret_cast<Block *>(chunks[chunk_index] + chunk_used);
        chunk_used += room;
        b->size_class = size_class;
    }
    return b + 1;
}
void give(void *p)
{
    Block *b = static_cast<Block *>(p) - 1;
    memset(p, 0xA5, usize{1} << b->size_class);
    b->next = free_blocks[b->size_class];
    free_blocks[b->size_class] = b;
}
void arena_reset()
{
    chunk_index = chunk_used = 0;
    memset(free_blocks, 0, sizeof(free_blocks));
}

#endif

template <class T, class... A>
T *make(std::vector<std::unique_ptr<T>> &all, A... a)
{
    all.push_back(std::make_unique<T>(T{a...}));
    return all.back().get();
}

} // namespace

namespace pcache::sim
{

void world_reset()
{
    arena_reset();
    live_blocks = live_media = live_backings = live_hosts = 0;
    tables.clear();
    hosts.clear();
    medias.clear();
    backings.clear();
    sync_reset();
    disk_reset();
}

std::string leaks()
{
    std::string s;
    const auto note = [&s](u64 n, const char *what) {
        if (n)
            s += " " + std::to_string(n) + " " + what;
    };
    note(live_blocks, "blocks of memory");
    note(live_media, "handles of the cache device");
    note(live_backings, "handles of the backing device");
    note(live_hosts, "hosts");
    note(queues_alive(), "work queues");
    note(disk_writes_in_flight(), "writes in flight");
    return s;
}

bool refuse_allocation(pc_how how)
{
    if (injector.due(how == PC_NOWAIT ? Failing::nowait : Failing::sleeping))
        return true;
    return how == PC_NOWAIT && faults.nowait_failures &&
           sched::rng().chance(faults.nowait_failures);
}

pc_table *make_table(const char *device)
{
    tables.push_back(std::make_unique<pc_table>());
    tables.back()->device = device;
    return tables.back().get();
}

void drop_table(pc_table *t)
{
    if (t->handles)
        violation("platform.h: a table destroyed before the handles that belong to it");
}

} // namespace pcache::sim

extern "C" {

void pc_log(pc_host *, pc_level level, const char *format, ...) noexcept
{
    if (!tracing)
        return;
    char text[512];
    va_list a;
    va_start(a, format);
    vsnprintf(text, sizeof(text), format, a);
    va_end(a);
    trace("log: %s%s", level == PC_ERR ? "ERROR " : "", text);
}

void pc_raise_event(pc_host *) noexcept {}

usize pc_format(char *buffer, usize size, const char *format, ...) noexcept
{
    if (!size)
        return 0;
    va_list a;
    va_start(a, format);
    const int n = vsnprintf(buffer, size, format, a);
    va_end(a);
    return n < 0 ? 0 : std::min(static_cast<usize>(n), size - 1);
}

void *pc_alloc(usize bytes, pc_how how) noexcept
{
    if (how != PC_NOWAIT)
        sched::assert_may_sleep("pc_alloc");
    sched::point();
    if (refuse_allocation(how))
        return nullptr;
    void *p = take(bytes);
    memset(p, 0, bytes);
    ++live_blocks;
    return p;
}

void pc_free(const void *p) noexcept
{
    if (!p)
        return;
    --live_blocks;
    give(const_cast<void *>(p));
}

int pc_media_open(pc_table *t, const char *, pc_media **out, const char **sentence) noexcept
{
    sched::assert_may_sleep("pc_media_open");
    if (refuse_allocation(PC_MAY_SLEEP)) {
        *sentence = "out of memory";
        return -12;
    }
    *out = make(medias, t);
    ++t->handles;
    ++live_media;
    return 0;
}

void pc_media_close(pc_media *m) noexcept
{
    sched::assert_may_sleep("pc_media_close");
    if (!m)
        return;
    --m->table->handles;
    --live_media;
}

const char *pc_media_name(const pc_media *) noexcept
{
    return "cache";
}

const char *pc_backing_name(const pc_backing *) noexcept
{
    return "backing";
}

void pc_media_watch(pc_media *, void (*)(void *), void *) noexcept {} // it never goes

void pc_media_identify(const pc_media *, pc_media_identity *id) noexcept
{
    *id = {&media, 0, media.bytes()};
}

int pc_media_overlap(const pc_media *, const pc_media *) noexcept
{
    return 1; // there is one cache device
}

void pc_media_exchange(pc_media *a, pc_media *b) noexcept
{
    std::swap(a->table, b->table);
}

int pc_backing_open(pc_table *t, const char *, pc_backing **out, const char **sentence) noexcept
{
    sched::assert_may_sleep("pc_backing_open");
    if (refuse_allocation(PC_MAY_SLEEP)) {
        *sentence = "out of memory";
        return -12;
    }
    *out = make(backings, t, u32{0});
    ++t->handles;
    ++live_backings;
    return 0;
}

void pc_backing_close(pc_backing *b) noexcept
{
    sched::assert_may_sleep("pc_backing_close");
    if (!b)
        return;
    if (b->in_flight)
        violation("platform.h: the backing device closed with something in flight");
    --b->table->handles;
    --live_backings;
}

const void *pc_table_owner(const pc_table *) noexcept
{
    return &tables; // one mapped device
}

int pc_table_is_read_only(const pc_table *) noexcept
{
    return 0;
}

pc_host *pc_host_create(pc_table *t) noexcept
{
    sched::assert_may_sleep("pc_host_create");
    if (refuse_allocation(PC_MAY_SLEEP))
        return nullptr;
    ++live_hosts;
    return make(hosts, t);
}

void pc_host_attach(pc_host *h, pc_table *t) noexcept
{
    h->table = t;
}

void pc_host_detach(pc_host *h, pc_table *t) noexcept
{
    if (h->table == t)
        h->table = nullptr;
}

int pc_host_noflush(pc_host *) noexcept
{
    sched::assert_may_sleep("pc_host_noflush");
    requeues += noflush_suspend;
    return noflush_suspend;
}

void pc_host_destroy(pc_host *h) noexcept
{
    sched::assert_may_sleep("pc_host_destroy");
    if (h)
        --live_hosts;
}

void pc_bio_end(pc_bio *bio, int error) noexcept
{
    pcache::sim::sched::point();
    pcache::sim::bio_ended(bio, error);
}

void pc_bio_accept(pc_bio *bio, u32 bytes) noexcept
{
    if (bio->touched || bio->ended)
        pcache::sim::violation("platform.h: a bio cut after it was touched");
    if (!bytes || bytes > bio->size || bytes % pcache::sim::sector_bytes)
        pcache::sim::violation("platform.h: a bio cut to a length that it cannot have");
    bio->size = bytes;
    *bio->accepted = bytes;
}
}
