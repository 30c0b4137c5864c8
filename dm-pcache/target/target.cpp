// SPDX-License-Identifier: GPL-2.0
// target/target.cpp - the life of a table line. See target.hpp and face.h.
#include "dm-pcache/target/target.hpp"
#include "dm-pcache/mutants.hpp"

using namespace pcache;
using namespace pcache::target;

namespace
{

// Made at module load in static storage; there are no static constructors in a kernel module.
alignas(Registry) constinit u8 registry_storage[sizeof(Registry)] = {};
constinit Registry *registry = nullptr;

void destroy(Instance *i) noexcept
{
    registry->leave(*i);
    i->~Instance();
    pc_free(i);
}

// One table less refers to it.
void release(Instance *i) noexcept
{
    if (registry->drop(*i))
        destroy(i);
}

// The table `t` goes. If the devices of the cache belong to it, they are closed now, whoever else
// refers to the cache: device-mapper may destroy a table before the one that was loaded to take
// the cache over is resumed.
void leave_home(Instance &i, const pc_table *t) noexcept
{
    rt::Guard g(i.life);
    if (i.home != t || mutant(Mutant::home_not_closed))
        return;
    i.home = nullptr;
    registry->leave(i);
    i.cache.close();
}

// Of the backing device: cached data of a page can then be written to it, and read from it, alone.
constexpr u32 largest_block = format::page_bytes;

// What ctr has opened so far; closed again unless it was handed on.
struct Opened : rt::NonCopyable {
    pc_media *media = nullptr;
    pc_backing *backing = nullptr;
    pc_host *host = nullptr;
    ~Opened()
    {
        pc_media_close(media);
        pc_backing_close(backing);
        pc_host_destroy(host);
    }
};

int open_devices(pc_table *table, const TableLine &line, u64 length_bytes, Opened &o,
                 const char **sentence) noexcept
{
    if (pc_table_is_read_only(table)) {
        *sentence = "a read-only table is refused: a cache stores even when it is only read";
        return rt::to_errno(rt::Error::read_only);
    }
    if (const int e = pc_backing_open(table, line.backing, &o.backing, sentence); e)
        return e;
    if (const int e = pc_media_open(table, line.cache, &o.media, sentence); e)
        return e;
    if (pc_backing_block(o.backing) > largest_block) {
        *sentence =
            "backing device has logical blocks above 4096 bytes: give one with smaller ones";
        pc_log(nullptr, PC_ERR, "the backing device %s has blocks of %u bytes", line.backing,
               pc_backing_block(o.backing));
        return rt::to_errno(rt::Error::invalid);
    }
    const u64 backing_bytes = pc_backing_bytes(o.backing);
    if (length_bytes > backing_bytes) {
        *sentence = "the table is longer than the backing device";
        pc_log(nullptr, PC_ERR, "the table has %llu sectors, the backing device %s has %llu",
               length_bytes / 512, line.backing, backing_bytes / 512);
        return rt::to_errno(rt::Error::invalid);
    }
    return 0;
}

// As TABLE prints them: they load again whatever words were given.
void take_names(pc_target &t, const Opened &o) noexcept
{
    (void)pc_format(t.line.cache, sizeof(t.line.cache), "%s", pc_media_name(o.media));
    (void)pc_format(t.line.backing, sizeof(t.line.backing), "%s", pc_backing_name(o.backing));
}

// A new instance over `o`, which is used up.
int make_instance(pc_table *table, const TableLine &line, Opened &o, u64 length_bytes,
                  Instance *&out, const char **sentence) noexcept
{
    o.host = pc_host_create(table);
    void *memory = pc_alloc(sizeof(Instance), PC_MAY_SLEEP);
    if (!o.host || !memory) {
        pc_free(memory);
        *sentence = "out of memory";
        return rt::to_errno(rt::Error::no_memory);
    }
    Instance *i = ::new (memory) Instance;
    i->owner = pc_table_owner(table);
    i->home = table;
    i->backing = pc_backing_identity(o.backing);
    pc_media_identify(o.media, &i->media);
    media::Refusal why;
    i->cache.ask(line.options);
    rt::Error e = i->cache.open(o.media, o.backing, o.host, length_bytes, why);
    o.media = nullptr; // the cache's now
    o.backing = nullptr;
    o.host = nullptr;
    if (ok(e) && !registry->may_have(i->cache.uuid(), &why.sentence))
        e = rt::Error::busy;
    if (!ok(e)) {
        destroy(i);
        *sentence = why.sentence ? why.sentence : "out of memory";
        return rt::to_errno(e);
    }
    out = i;
    return 0;
}

} // namespace

Registry &pcache::target::the_registry() noexcept
{
    return *registry;
}

int pc_target_module_init() noexcept
{
    registry = ::new (registry_storage) Registry;
    return 0;
}

void pc_target_module_exit() noexcept
{
    registry->~Registry();
}

int pc_target_ctr(pc_table *t, unsigned argc, char **argv, u64 length_bytes, pc_target **out,
                  const char **sentence) noexcept
{
    void *memory = pc_alloc(sizeof(pc_target), PC_MAY_SLEEP);
    if (!memory)
        return rt::to_errno(rt::Error::no_memory);
    pc_target *target = ::new (memory) pc_target;
    target->table = t;
    target->length = length_bytes;
    int error = rt::to_errno(parse_table_line({argv, argc}, target->line, sentence));
    Opened o;
    if (!error)
        error = open_devices(t, target->line, length_bytes, o, sentence);
    if (!error) {
        take_names(*target, o);
        switch (
            registry->look_up(pc_table_owner(t), o.media, o.backing, target->instance, sentence)) {
        case Registry::Answer::takeover:
            if (target->instance->cache.contradicts_in_use(target->line.options, sentence)) {
                error = rt::to_errno(rt::Error::invalid);
                release(target->instance);
                break;
            }
            target->media = o.media;
            target->backing = o.backing;
            o.media = nullptr;
            o.backing = nullptr;
            break;
        case Registry::Answer::refused:
            error = rt::to_errno(rt::Error::busy);
            break;
        case Registry::Answer::none:
            error = make_instance(t, target->line, o, length_bytes, target->instance, sentence);
            break;
        }
    }
    if (error) {
        if (*sentence)
            pc_log(nullptr, PC_ERR, "table refused: %s", *sentence);
        target->~pc_target();
        pc_free(target);
        return error;
    }
    *out = target;
    return 0;
}

void pc_target_dtr(pc_target *t) noexcept
{
    Instance *i = t->instance;
    pc_media_close(t->media);
    pc_backing_close(t->backing);
    pc_host_detach(i->cache.host(), t->table);
    leave_home(*i, t->table);
    release(i);
    t->~pc_target();
    pc_free(t);
}

namespace
{

// The devices that the running cache works with belong to this table from now on; the old table,
// which still exists, gives back those that this one opened. False: the old table is gone, and the
// cache with it.
bool take_over(pc_target *t) noexcept
{
    rt::Guard g(t->instance->life);
    if (!t->instance->home)
        return false;
    if (!t->media)
        return true;
    t->instance->home = t->table;
    pc_media_exchange(t->media, t->instance->cache.media());
    pc_backing_exchange(t->backing, t->instance->cache.backing());
    pc_media_close(t->media);
    pc_backing_close(t->backing);
    t->media = nullptr;
    t->backing = nullptr;
    return true;
}

bool claim_uuid(void *instance, const engine::Uuid &uuid, const char **sentence) noexcept
{
    return registry->claim(*static_cast<Instance *>(instance), uuid, sentence);
}

rt::Error activate(pc_target *t, media::Refusal &why) noexcept
{
    Instance &i = *t->instance;
    rt::Error e = rt::Error::none;
    switch (i.cache.state()) {
    case engine::State::inactive:
        if (!registry->enter(i, &why.sentence)) {
            e = rt::Error::busy;
            break;
        }
        e = i.cache.start(why, {claim_uuid, &i});
        if (!ok(e))
            registry->leave(i);
        break;
    case engine::State::suspended:
    case engine::State::read_only:
    case engine::State::failed:
        e = i.cache.resume(why);
        break;
    case engine::State::running:
        i.cache.undo_suspend();
        break;
    }
    if (i.cache.state() != engine::State::failed)
        return e;
    if (mutant(Mutant::failed_not_resumed))
        return rt::Error::io;
    // Refused, the device would stay suspended: what device-mapper holds back would never end, and
    // no one who waits for it lets the device be removed.
    pc_log(i.cache.host(), PC_WARN,
           "resumed, but the cache has failed: all I/O ends with an error: remove the device");
    return rt::Error::none;
}

} // namespace

int pc_target_preresume(pc_target *t) noexcept
{
    Instance &i = *t->instance;
    media::Refusal why;
    rt::Error e = rt::Error::busy;
    if (!take_over(t)) {
        pc_log(i.cache.host(), PC_ERR,
               "not activated: the cache that this table was to take over was removed after the "
               "table had been loaded: load it again");
        return rt::to_errno(rt::Error::no_device);
    }
    pc_host_attach(i.cache.host(), t->table);
    i.cache.set_length(t->length);
    if (registry->begin_activation(&why.sentence)) {
        e = activate(t, why);
        registry->end_activation();
    }
    if (!ok(e)) {
        pc_log(i.cache.host(), PC_ERR, "not activated: %s",
               why.sentence ? why.sentence : "out of memory");
        return rt::to_errno(e);
    }
    t->activated.set(1);
    return 0;
}

void pc_target_presuspend(pc_target *t, int noflush) noexcept
{
    if (t->activated.read())
        t->instance->cache.begin_suspend(noflush != 0);
}

void pc_target_presuspend_undo(pc_target *t) noexcept
{
    if (t->activated.read())
        t->instance->cache.undo_suspend();
}

void pc_target_postsuspend(pc_target *t) noexcept
{
    if (t->activated.read())
        t->instance->cache.quiesce();
}

pc_verdict pc_target_map(pc_target *t, pc_bio *bio, void *request, const pc_io *io) noexcept
{
    return t->instance->cache.map(bio, request, *io);
}

void pc_target_status(pc_target *t, int what, char *text, usize size) noexcept
{
    if (!size)
        return;
    text[0] = 0;
    if (what == 0)
        print_status(*t, text, size);
    else if (what == 1)
        print_table(*t, text, size);
    else
        print_ima(*t, text, size);
}

int pc_target_message(pc_target *t, unsigned argc, char **argv, char *text, usize size) noexcept
{
    if (!t->activated.read()) {
        pc_log(t->instance->cache.host(), PC_ERR, "message refused: the table is not active yet");
        return rt::to_errno(rt::Error::busy);
    }
    return run_message(*t, {argv, argc}, text, size);
}
