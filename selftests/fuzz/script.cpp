// SPDX-License-Identifier: GPL-2.0
// selftests/fuzz/script.cpp - see script.hpp.
//
// What is judged, beside the rules of platform.h, hangs and leaks:
// - what is refused stays as it is, both devices, to the byte; ctr stores nothing at all;
// - a cache that is read-only stores nothing until accept_loss, and refuses writes;
// - what the reference reader knows to be dirty is what is read, and what gets to the backing
// device;
// - what a read has shown stays until it is written: over removals, cuts behind a FLUSH,
// write-back.
//   (Bytes that the log calls clean may turn into the backing device's.)
#include "selftests/fuzz/script.hpp"
#include <cstring>
#include "selftests/fuzz/world.hpp"

namespace pcache::fuzz
{

namespace
{

enum class Known : u8 {
    nothing, // an error, or a write that failed
    loose,   // as the model has it, or as the backing device had it
    sure     // as the model has it
};

struct Buffers { // large, and used again by the next execution
    std::vector<u8> model, origin, before_media, before_disk, data;
};
Buffers buffers;

struct Session {
    const Image &im;
    Reference reference;
    std::vector<u8> &model = buffers.model;   // what was read or written
    std::vector<u8> &origin = buffers.origin; // what the backing device held first
    std::vector<Known> known;                 // by sector
    std::vector<u32> unflushed;               // sectors written since the last FLUSH
    std::vector<u8> &before_media = buffers.before_media, &before_disk = buffers.before_disk;
    usize next_op = 0;
    bool first_life = true, read_only = false, gave_up = false, over = false;
    bool ends_with_cut = false, panic = false;
    u32 version = 0;

    explicit Session(const Image &i) : im(i) {}
};

std::vector<std::string> table_words(const Image &im)
{
    std::vector<std::string> w = {"cache", "backing"};
    if (im.data_crc)
        w.insert(w.end(), {"2", "data_crc", im.data_crc == 1 ? "true" : "false"});
    return w;
}

u64 length(const Session &s)
{
    return u64{s.im.sectors} * sector_bytes;
}

bool bad(const Session &s)
{
    return !s.im.poisoned.empty() || !s.im.known_bad.empty();
}

void take_state(Session &s)
{
    s.before_media.assign(sim::media.contents(), sim::media.contents() + sim::media.bytes());
    s.before_disk = backing.now;
}

void check_untouched(const Session &s, const char *when)
{
    const usize bytes = s.before_media.size();
    const bool same = !memcmp(s.before_media.data(), sim::media.contents(), bytes);
    for (usize i = 0; !same && i < bytes; ++i)
        if (s.before_media[i] != sim::media.contents()[i])
            fail("the cache device was stored to at " + std::to_string(i) + ", " + when);
    if (s.before_disk != backing.now)
        fail(std::string("the backing device was written to, ") + when);
}

bool is_read_only()
{
    const std::string text = status();
    return text.size() > 3 && text.substr(text.size() - 3) == " ro";
}

bool has_failed()
{
    return status() == "Fail";
}

// ---- reads ----

void check_sector(Session &s, u32 sector, const u8 *got)
{
    const u64 at = u64{sector} * sector_bytes;
    if (s.known[sector] != Known::nothing && memcmp(got, &s.model[at], sector_bytes) &&
        (s.known[sector] == Known::sure || memcmp(got, &s.origin[at], sector_bytes)))
        fail("sector " + std::to_string(sector) + " reads as something else than before");
    memcpy(&s.model[at], got, sector_bytes);
    // Where the reference is not certain, keys may name each other's data, or the log's.
    if (s.known[sector] == Known::nothing && s.reference.certain)
        s.known[sector] = Known::loose;
}

void read_error(Session &s, u32 sector)
{
    if (s.known[sector] == Known::sure && !bad(s) && !has_failed() && !is_read_only())
        fail("sector " + std::to_string(sector) + " can no longer be read");
    s.known[sector] = Known::nothing;
}

// Not judged while the cache is read-only: what it shows may be old.
void read_some(Session &s, u32 sector, u32 count)
{
    std::vector<u8> &got = buffers.data;
    got.resize(u64{count} * sector_bytes);
    const u64 at = u64{sector} * sector_bytes;
    const bool whole = io(PC_READ, at, count * sector_bytes, false, got.data()) == 0;
    for (u32 i = 0; i < count; ++i) {
        u8 *p = &got[u64{i} * sector_bytes];
        const bool ok = whole || io(PC_READ, at + i * sector_bytes, sector_bytes, false, p) == 0;
        if (s.read_only || has_failed())
            continue;
        if (ok)
            check_sector(s, sector + i, p);
        else
            read_error(s, sector + i);
    }
}

void read_all(Session &s)
{
    constexpr u32 step = 64;
    for (u32 at = 0; at < s.im.sectors; at += step)
        read_some(s, at, std::min(step, s.im.sectors - at));
}

// Everything has been read once, behind the first activation.
void compare_with_reference(Session &s)
{
    for (u32 i = 0; i < s.im.sectors; ++i) {
        const u64 at = u64{i} * sector_bytes;
        const Source from = s.reference.source[i];
        const bool shown = s.known[i] != Known::nothing; // certain: so it was read
        const u8 *cached = &s.im.bytes[s.reference.place[i]];
        const bool is_cached = shown && !memcmp(&s.model[at], cached, sector_bytes);
        const bool is_backing = shown && !memcmp(&s.model[at], &s.origin[at], sector_bytes);
        const std::string name = "sector " + std::to_string(i);
        if (from == Source::dirty && !is_cached)
            fail(name + " is dirty in the cache and reads as something else");
        if (from == Source::lost && shown && !is_cached)
            fail(name + " is dirty in the cache, its data is damaged, and it reads as other data");
        if (from == Source::clean && !is_cached && !is_backing)
            fail(name + " is clean in the cache and reads as something else");
        if (from == Source::backing && !is_backing)
            fail(name + " is not in the cache and reads as something else");
        if (from == Source::dirty)
            s.known[i] = Known::sure;
    }
}

// ---- operations ----

void write_some(Session &s, u32 sector, u32 count, bool fua)
{
    std::vector<u8> &data = buffers.data;
    data.resize(u64{count} * sector_bytes);
    ++s.version;
    for (u32 i = 0; i < count; ++i)
        sim::fill_tag(&data[u64{i} * sector_bytes],
                      u64{0xF0000000u + s.version} << 32 | (sector + i));
    const u64 at = u64{sector} * sector_bytes;
    const int e = io(PC_WRITE, at, count * sector_bytes, fua, data.data());
    if (s.read_only && !e)
        fail("a read-only cache takes a write");
    if (s.read_only)
        return;
    if (e && !bad(s) && !has_failed() && !is_read_only())
        fail("a write ends with error " + std::to_string(e) + " while the cache is running");
    memcpy(&s.model[at], data.data(), data.size());
    for (u32 i = 0; i < count; ++i) {
        s.known[sector + i] = e ? Known::nothing : Known::sure;
        if (!e && !fua)
            s.unflushed.push_back(sector + i);
    }
}

void flush(Session &s)
{
    const int e = io(PC_FLUSH, 0, 0, false, nullptr);
    if (!e)
        s.unflushed.clear();
    else if (!bad(s) && !has_failed() && !is_read_only())
        fail("a FLUSH ends with error " + std::to_string(e));
}

void forget_unflushed(Session &s)
{
    for (const u32 sector : s.unflushed)
        s.known[sector] = Known::nothing;
    s.unflushed.clear();
}

void forget_all(Session &s)
{
    s.known.assign(s.known.size(), Known::nothing);
    s.unflushed.clear();
}

void accept_loss(Session &s)
{
    const bool was_read_only = is_read_only();
    const int e = message({"accept_loss"});
    if (e) {
        if (s.read_only && !bad(s) &&
            memcmp(s.before_media.data(), sim::media.contents(), s.before_media.size()))
            fail("accept_loss was refused and the cache device stored to");
        if (s.read_only)
            take_state(s); // what it could send may be on the backing device
        return;
    }
    if (was_read_only)
        forget_all(s);
    s.read_only = is_read_only();
    s.gave_up = true;
    if (s.read_only && !bad(s))
        fail("accept_loss succeeded and the cache is read-only still");
}

void stop_life(Session &s, bool cut, bool panic)
{
    s.ends_with_cut = cut;
    s.panic = panic;
    sim::sched::stop();
}

void one_op(Session &s, const Op &o)
{
    const u32 sector = (o.a | u32{o.b} << 8) % s.im.sectors;
    const u32 count = std::min(1u + o.c % 64, s.im.sectors - sector);
    static const char *const names[] = {"write",   "read",   "FLUSH",    "FUA write", "gc_percent",
                                        "suspend", "remove", "cut",      "panic",     "accept_loss",
                                        "sleep",   "reload", "read all", "write much"};
    sim::trace("---- %s, sector %u, count %u (%u %u)", names[o.what % static_cast<u8>(Do::count)],
               sector, count, o.a, o.c);
    switch (static_cast<Do>(o.what % static_cast<u8>(Do::count))) {
    case Do::write:
        return write_some(s, sector, count, false);
    case Do::fua:
        return write_some(s, sector, count, true);
    case Do::write_much:
        for (u32 i = 0; i < o.c; ++i)
            write_some(s, (sector + i * (1 + o.a % 7)) % (s.im.sectors - 7), 8, false);
        return;
    case Do::read:
        return read_some(s, sector, count);
    case Do::flush:
        return flush(s);
    case Do::gc_percent:
        (void)message({"gc_percent", std::to_string(o.a)});
        return;
    case Do::suspend:
        suspend(o.a & 1);
        if (const int e = resume(); e && !bad(s) && !s.read_only)
            fail("a suspended device does not resume: error " + std::to_string(e));
        return;
    case Do::reload:
        if (const int e = reload(table_words(s.im), length(s)); e && !bad(s) && !s.read_only)
            fail("a table that was good does not load again: error " + std::to_string(e));
        return;
    case Do::accept_loss:
        return accept_loss(s);
    case Do::sleep:
        return sim::sched::sleep((1 + o.a) * 10 * sim::ms);
    case Do::read_all:
        return read_all(s);
    case Do::cut:
    case Do::panic:
        if (o.a & 1)
            flush(s);
        return stop_life(s, true,
                         static_cast<Do>(o.what % static_cast<u8>(Do::count)) == Do::panic);
    case Do::remove: {
        const bool failed = has_failed();
        remove();
        if (!failed)
            s.unflushed.clear();
        return stop_life(s, false, false);
    }
    case Do::count:
        break;
    }
}

// Everything readable gets to the backing device, and is there what was read.
void write_back(Session &s)
{
    u32 head[2], dirty[2];
    flush(s); // status does not count what is only staged
    for (u32 tries = 0;; ++tries) {
        const std::string text = status();
        if (sscanf(text.c_str(), "%*x %*u %*u %*u %*u %*x %u:%u %u:%u", &head[0], &head[1],
                   &dirty[0], &dirty[1]) != 4)
            return; // failed
        if (head[0] == dirty[0] && head[1] == dirty[1])
            break;
        if (is_read_only())
            return;
        bool lost = bad(s);
        for (const Known k : s.known)
            lost = lost || k == Known::nothing;
        if (tries == (lost ? 40u : 1000u)) {
            if (!lost)
                fail("an idle cache does not write back: " + text);
            return;
        }
        sim::sched::sleep(50 * sim::ms);
    }
    for (u32 i = 0; i < s.im.sectors; ++i) {
        const u64 at = u64{i} * sector_bytes;
        if (s.known[i] == Known::sure && memcmp(&s.model[at], &backing.durable[at], sector_bytes))
            fail("all is written back, and the backing device has something else in sector " +
                 std::to_string(i));
    }
}

bool start(Session &s)
{
    take_state(s);
    std::string sentence;
    int e = construct(table_words(s.im), length(s), sentence);
    check_untouched(s, "by the construction of a table");
    if (e && !s.first_life && !bad(s) && !s.read_only)
        fail("what was served before is refused: " + sentence);
    if (e)
        return false;
    e = resume();
    if (e && !bad(s))
        check_untouched(s, "by an activation that was refused");
    if (e && !s.first_life && !bad(s) && !s.read_only)
        fail("what was served before is not activated");
    if (e) {
        remove();
        return false;
    }
    const bool was = s.read_only;
    s.read_only = is_read_only();
    sim::trace("---- activated: %s", status().c_str());
    if (s.read_only && !s.first_life && !was && !bad(s))
        fail("a cache that was good is read-only now");
    return true;
}

void life(void *c)
{
    auto &s = *static_cast<Session *>(c);
    s.over = true; // unless an operation begins another life
    if (!start(s))
        sim::sched::stop();
    read_all(s);
    if (s.first_life && !s.read_only && !has_failed() && s.reference.certain)
        compare_with_reference(s);
    s.first_life = false;
    while (s.next_op < s.im.ops.size()) {
        s.over = false;
        const Op o = s.im.ops[s.next_op++];
        one_op(s, o);
        if (s.read_only)
            check_untouched(s, "by a cache that is read-only");
    }
    s.over = true;
    if (!s.read_only && !has_failed()) {
        write_back(s);
        read_all(s);
    }
    remove();
    if (s.read_only)
        check_untouched(s, "by the removal of a cache that is read-only");
    sim::sched::stop();
}

void lay_out(const Image &im)
{
    sim::media.create(im.bytes.size());
    memcpy(sim::media.base(), im.bytes.data(), im.bytes.size());
    sim::media.settle(0, static_cast<u32>(im.bytes.size()));
    sim::bad_pages.clear();
    sim::bad_pages.repairable = !im.lost_pages;
    for (const u64 at : im.poisoned)
        sim::bad_pages.poison(at);
    for (const u64 at : im.known_bad)
        sim::bad_pages.know(at);
    backing.create(im.sectors, im.backing_seed);
}

} // namespace

void run_script(const Image &im, u64 cut_points)
{
    sim::clear_violation();
    (void)format::crc32c_has_instruction();
    sim::sched::begin_run();
    lay_out(im);
    Session s(im);
    s.reference = read_reference(im);
    sim::trace("reference: %s%s",
               s.reference.certain ? "certain" : "not certain: ", s.reference.why);
    s.origin = s.model = backing.now;
    s.known.assign(im.sectors, Known::nothing);
    Rng rng(im.seed);
    do {
        const LifeEnd end = run_life(life, &s, Rng(rng.next()), cut_points);
        if (end.cut || s.ends_with_cut) {
            if (s.panic) {
                sim::media.panic();
            } else {
                sim::media.cut(rng);
                backing.cut(rng);
            }
            forget_unflushed(s);
        }
        if (end.cut || s.over)
            return;
        s.ends_with_cut = s.panic = false;
    } while (true);
}

Image snapshot(const Image &like)
{
    Image im = like;
    im.bytes.assign(sim::media.contents(), sim::media.contents() + sim::media.bytes());
    return im;
}

} // namespace pcache::fuzz
