// SPDX-License-Identifier: GPL-2.0
// selftests/fuzz/world.cpp - see world.hpp: the device, its requests and lives.
#include "selftests/fuzz/world.hpp"
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace pcache::sim
{
struct Upper { // who waits for a bio
    bool done;
    int error;
};

void bio_ended(pc_bio *bio, int error)
{
    if (bio->ended)
        violation("platform.h: a bio ended twice");
    bio->ended = true;
    bio->upper->error = error;
    bio->upper->done = true;
    sched::wake(bio->upper);
}

void bio_copied(pc_bio *, u32, u32) {}
} // namespace pcache::sim

extern "C" {
// PCACHE_FUZZ_TRACE=1 shows what the engine would say in the kernel log, and the operations.
int LLVMFuzzerInitialize(int *, char ***)
{
    pcache::sim::tracing = getenv("PCACHE_FUZZ_TRACE") != nullptr;
    return 0;
}
}

namespace pcache::fuzz
{

using namespace pcache::sim;

Mapped mapped;

void fail(const std::string &what)
{
    fprintf(stderr, "violation: %s\n", what.c_str());
    abort();
}

namespace
{

// The words as ctr and messages get them: writable, each with its NUL.
struct Words {
    std::vector<std::vector<char>> text;
    std::vector<char *> argv;
    explicit Words(const std::vector<std::string> &words)
    {
        for (const std::string &w : words) {
            text.emplace_back(w.begin(), w.end());
            text.back().push_back(0);
        }
        for (auto &t : text)
            argv.push_back(t.data());
        argv.push_back(nullptr);
    }
    unsigned count() const { return static_cast<unsigned>(text.size()); }
};

int make_target(const std::vector<std::string> &words, u64 length, Mapped &out,
                std::string &sentence)
{
    Words w(words);
    const char *why = nullptr;
    out.table = make_table("pcache");
    out.target = nullptr;
    const int e = pc_target_ctr(out.table, w.count(), w.argv.data(), length, &out.target, &why);
    sentence = why ? why : "";
    if (!e)
        return 0;
    if (sentence.empty())
        fail("a table is refused without a sentence");
    drop_table(out.table);
    out = {};
    return e;
}

void check_leaks()
{
    const std::string left = leaks();
    if (!left.empty())
        fail("left behind by a device that is gone:" + left);
}

void drop(Mapped &m)
{
    pc_target_dtr(m.target);
    drop_table(m.table);
    m = {};
}

} // namespace

int construct(const std::vector<std::string> &words, u64 length, std::string &sentence)
{
    const int e = make_target(words, length, mapped, sentence);
    if (e)
        check_leaks();
    return e;
}

int resume()
{
    return pc_target_preresume(mapped.target);
}

void suspend(bool noflush)
{
    noflush_suspend = noflush;
    pc_target_presuspend(mapped.target, noflush);
    noflush_suspend = false;
    pc_target_postsuspend(mapped.target);
}

int reload(const std::vector<std::string> &words, u64 length)
{
    Mapped next;
    std::string sentence;
    if (const int e = make_target(words, length, next, sentence); e)
        return e;
    suspend(false);
    std::swap(next, mapped);
    const int e = resume();
    drop(next);
    return e;
}

void remove()
{
    suspend(false);
    drop(mapped);
    check_leaks();
}

int message(const std::vector<std::string> &words, std::string *reply, usize size)
{
    Words w(words);
    std::vector<char> text(size + 1, 'x');
    const int e = pc_target_message(mapped.target, w.count(), w.argv.data(), text.data(), size);
    if (text[size] != 'x')
        fail("a message's reply goes beyond its buffer");
    if (reply && e == 1)
        *reply = text.data();
    return e;
}

std::string status(int what)
{
    char text[512];
    pc_target_status(mapped.target, what, text, sizeof(text));
    return text;
}

int io(pc_op op, u64 offset, u32 length, bool fua, u8 *data)
{
    do {
        const u32 n = std::min(length, range_bytes - static_cast<u32>(offset % range_bytes));
        u32 taken = n;
        Upper u{};
        pc_bio bio{};
        memset(bio.request, 0x5A, sizeof(bio.request));
        bio.data = data;
        bio.size = n;
        bio.accepted = &taken;
        bio.upper = &u;
        const pc_io what{op, offset, n, fua, 0};
        ++sched::self()->atomic;
        const pc_verdict v = pc_target_map(mapped.target, &bio, bio.request, &what);
        --sched::self()->atomic;
        if (v == PC_REMAP) {
            if (op != PC_READ)
                fail("a request that is no read is remapped");
            memcpy(data, backing.now.data() + offset, taken);
        } else if (v == PC_FAIL) {
            u.error = -5;
        } else if (v == PC_REQUEUE) {
            fail("a request is given back although nothing is suspended");
        }
        while (v == PC_TAKEN && !u.done)
            sched::block(&u, "a request");
        if (u.error)
            return u.error;
        offset += taken;
        length -= taken;
        data += taken;
    } while (length);
    return 0;
}

LifeEnd run_life(Function f, void *context, Rng rng, u64 cut_at)
{
    world_reset();
    bad_pages.new_life();
    mapped = {};
    sched::Temper temper;
    temper.points_per_decision = 32;
    sched::reset(temper, 2, rng);
    pc_target_module_init();
    if (cut_at)
        sched::cut_at(cut_at);
    sched::spawn("device", f, context);
    const Outcome o = sched::run();
    if (o == Outcome::broken)
        fail(violation_text());
    return {o == Outcome::cut};
}

} // namespace pcache::fuzz
