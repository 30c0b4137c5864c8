// SPDX-License-Identifier: GPL-2.0
// selftests/sim/upper.cpp - see upper.hpp.
#include "selftests/sim/upper.hpp"
#include <cstdio>
#include <cstring>
#include "selftests/sim/damage.hpp"

namespace pcache::sim
{

Device device;

// One bio's owner.
struct Upper {
    pc_bio bio;
    pc_io io;
    u64 began = 0;
    WriteId write = 0;
    u32 *left; // of the request; who waits for it, waits on this address
    int *error;
    std::vector<u8> data;
};

namespace
{

constexpr int eagain = -11;
std::vector<std::unique_ptr<Upper>> uppers; // of this life, under way or free
std::vector<Upper *> unused;
const int gate = 0, idle = 0; // what those wait for who wait for the device, or for its bios

Upper *make_upper(const pc_io &io, u32 *left, int *error)
{
    if (unused.empty()) {
        uppers.push_back(std::make_unique<Upper>());
        unused.push_back(uppers.back().get());
    }
    Upper *u = unused.back();
    unused.pop_back();
    u->io = io;
    u->data.resize(io.length);
    u->left = left;
    u->error = error;
    u->write = 0;
    u->bio = {};
    u->bio.data = u->data.data();
    u->bio.size = io.length;
    u->bio.upper = u;
    memset(u->bio.request, 0x5A, sizeof(u->bio.request));
    ++*left;
    return u;
}

u32 first_sector(const Upper &u)
{
    return static_cast<u32>(u.io.offset / sector_bytes);
}

void check_read(const Upper &u)
{
    for (u32 i = 0; i < u.bio.size / sector_bytes; ++i)
        oracle.read(first_sector(u) + i, tag_of(u.bio.data + i * sector_bytes), u.began);
}

// Whether damage of the cache device stands for an error of this request, as far as is known here:
// of a write, who gave it asks the state (life.cpp).
bool excused(const Upper &u)
{
    if (!damage.on() || u.io.op == PC_FLUSH)
        return false;
    if (u.io.op == PC_WRITE)
        return true;
    const u32 sectors = u.bio.size / sector_bytes;
    if (sectors == 1) {
        oracle.failed_read(first_sector(u), u.began);
        return true;
    }
    for (u32 i = 0; i < sectors; ++i)
        if (oracle.may_fail(first_sector(u) + i, u.began))
            return true;
    return false;
}

void bio_is_back()
{
    if (--device.in_flight == 0)
        sched::wake(&idle);
}

// The bio has come back for good.
void finish(Upper *u, int error)
{
    const bool again = error == eagain && u->io.nowait;
    if (error && !again && !device.failed && !faults.may_fail && !excused(*u))
        violation("a request ended with error " + std::to_string(error) +
                      " although no device has failed",
                  first_sector(*u));
    if (u->io.op == PC_WRITE)
        oracle.end_write(u->write, error == 0);
    else if (u->io.op == PC_FLUSH && !error)
        oracle.end_flush(u->began);
    else if (u->io.op == PC_READ && !error)
        check_read(*u);
    if (error)
        *u->error = error;
    if (--*u->left == 0)
        sched::wake(u->left);
    unused.push_back(u);
    bio_is_back();
}

void remapped(void *c, int error)
{
    finish(static_cast<Upper *>(c), error);
}

// `u` may be gone when it returns. What pc_bio_accept cuts off is mapped anew; until then the
// request counts as under way.
void map(Upper *u)
{
    for (;;) {
        const pc_io io = u->io;
        const u64 began = u->began;
        u32 *left = u->left, taken = io.length;
        int *error = u->error;
        ++*left;
        ++device.in_flight;
        u->bio.ended = u->bio.touched = false;
        u->bio.accepted = &taken;
        ++sched::self()->atomic;
        const pc_verdict v = pc_target_map(device.target, &u->bio, u->bio.request, &io);
        --sched::self()->atomic;
        if (v == PC_REMAP) {
            disk_read_later(io.offset, u->bio.data, taken, remapped, u);
        } else if (v == PC_FAIL) {
            finish(u, -5);
        } else if (v == PC_REQUEUE) {
            device.requeued.push_back(u);
            bio_is_back();
        }
        u = nullptr;
        if (taken < io.length) {
            u = make_upper({io.op, io.offset + taken, io.length - taken, io.fua, io.nowait}, left,
                           error);
            u->began = began;
            ++device.in_flight;
        }
        bio_is_back(); // the hold taken above
        if (--*left == 0)
            sched::wake(left);
        if (!u)
            return;
    }
}

// Waits until the device takes bios.
void pass_gate()
{
    while (device.blocked) {
        ++device.waiting;
        sched::block(&gate, "a suspended device");
        --device.waiting;
    }
}

int wait_for(u32 &left, int &error)
{
    while (left)
        sched::block(&left, "a request");
    return error;
}

constexpr u32 range_sectors = format::geometry.range_bytes / sector_bytes;

} // namespace

void upper_reset()
{
    device = {};
    noflush_suspend = false;
    requeues = 0;
    uppers.clear();
    unused.clear();
}

void bio_copied(pc_bio *bio, u32 offset, u32 bytes)
{
    if (bio->upper->io.op == PC_WRITE)
        oracle.piece(bio->upper->write, offset / sector_bytes, bytes / sector_bytes);
}

void bio_ended(pc_bio *bio, int error)
{
    if (bio->ended)
        violation("platform.h: a bio ended twice");
    bio->ended = true;
    if (error == PC_END_REQUEUE) {
        if (!requeues)
            violation("device-mapper makes EIO of a request given back outside of a noflush "
                      "suspend");
        --requeues;
        device.requeued.push_back(bio->upper);
        bio_is_back();
        return;
    }
    finish(bio->upper, error);
}

int upper_write(u32 sector, u32 count, bool fua, bool nowait)
{
    u32 left = 1;
    int error = 0;
    for (u32 at = 0; at < count;) {
        pass_gate();
        const u32 n = std::min(count - at, range_sectors - (sector + at) % range_sectors);
        const pc_io io{PC_WRITE, u64{sector + at} * sector_bytes, n * sector_bytes, fua, nowait};
        Upper *u = make_upper(io, &left, &error);
        u->write = oracle.begin_write(sector + at, n, fua);
        for (u32 i = 0; i < n; ++i)
            fill_tag(u->bio.data + i * sector_bytes, Oracle::tag(u->write, sector + at + i));
        ++device.in_flight;
        map(u);
        sched::point();
        at += n;
    }
    --left;
    return wait_for(left, error);
}

int upper_flush()
{
    u32 left = 1;
    int error = 0;
    pass_gate();
    Upper *u = make_upper({PC_FLUSH, 0, 0, 0, 0}, &left, &error);
    u->began = oracle.tick();
    trace("a FLUSH begins");
    ++device.in_flight;
    map(u);
    --left;
    return wait_for(left, error);
}

int upper_read(u32 sector, u32 count, bool nowait)
{
    u32 left = 1;
    int error = 0;
    for (u32 at = 0; at < count;) {
        pass_gate();
        const u32 n = std::min(count - at, range_sectors - (sector + at) % range_sectors);
        Upper *u = make_upper(
            {PC_READ, u64{sector + at} * sector_bytes, n * sector_bytes, 0, nowait}, &left, &error);
        u->began = oracle.tick();
        ++device.in_flight;
        map(u);
        sched::point();
        at += n;
    }
    --left;
    wait_for(left, error);
    if (error && error != eagain && damage.on() && count > faults.block_sectors &&
        !device.failed) // what of it can be read?
        for (u32 i = 0; i < count; i += faults.block_sectors)
            upper_read(sector + i, faults.block_sectors);
    return error;
}

// ---- the device ----

namespace
{

pc_target *construct(pc_table *table)
{
    char words[][16] = {"cache", "backing", "2", "data_crc", "true"};
    char *argv[] = {words[0], words[1], words[2], words[3], words[4]};
    pc_target *target = nullptr;
    const char *sentence = "";
    const int e = pc_target_ctr(table, faults.data_crc ? 5 : 2, argv,
                                u64{disk.sectors()} * sector_bytes, &target, &sentence);
    if (!e)
        return target;
    if (!faults.may_fail)
        violation("the cache is refused: " + std::string(sentence ? sentence : "?"));
    return nullptr;
}

void wait_idle()
{
    while (device.in_flight)
        sched::block(&idle, "requests before a suspend");
}

} // namespace

void device_open_gate()
{
    device.blocked = false;
    std::vector<Upper *> again;
    again.swap(device.requeued);
    for (Upper *u : again) {
        ++device.in_flight;
        map(u);
    }
    sched::wake(&gate);
}

int device_resume()
{
    const int e = pc_target_preresume(device.target);
    if (e) {
        if (!device.failed && !faults.may_fail)
            violation("the cache is not activated: error " + std::to_string(e));
        return e;
    }
    device_open_gate();
    return 0;
}

int device_create()
{
    device.table = make_table("pcache");
    device.target = construct(device.table);
    if (!device.target)
        return -5;
    return device_resume();
}

void device_suspend(bool noflush, bool with_flush)
{
    noflush_suspend = noflush;
    pc_target_presuspend(device.target, noflush);
    if (!noflush && with_flush) // lock_fs
        upper_flush();
    device.blocked = true;
    wait_idle();
    noflush_suspend = false;
    pc_target_postsuspend(device.target);
}

void device_interrupted_suspend(bool noflush)
{
    noflush_suspend = noflush;
    pc_target_presuspend(device.target, noflush);
    device.blocked = true;
    sched::sleep(sched::rng().between(us, 10 * ms));
    noflush_suspend = false;
    sched::sleep(sched::rng().between(us, ms));
    device_open_gate(); // first, then the target is told
    sched::sleep(sched::rng().between(us, 10 * ms));
    pc_target_presuspend_undo(device.target);
}

int device_reload()
{
    pc_table *table = make_table("pcache");
    pc_target *target = construct(table);
    if (!target)
        return 0; // the old one goes on
    device_suspend(sched::rng().one_in(4), sched::rng().one_in(2));
    pc_target *old = device.target;
    pc_table *old_table = device.table;
    device.target = target;
    device.table = table;
    const int e = device_resume();
    pc_target_dtr(old);
    drop_table(old_table);
    return e;
}

bool device_remove()
{
    device.blocked = true;
    wait_idle();
    const bool failed = device_status() == "Fail";
    pc_target_presuspend(device.target, 0);
    pc_target_postsuspend(device.target);
    const bool clean = !failed && device_status() != "Fail";
    pc_target_dtr(device.target);
    drop_table(device.table);
    device.target = nullptr;
    const std::string left = leaks();
    if (!left.empty())
        violation("left behind by a removal:" + left);
    return clean;
}

int device_message(const char *word, const char *value)
{
    char a[16], b[16], text[64];
    snprintf(a, sizeof(a), "%s", word);
    snprintf(b, sizeof(b), "%s", value);
    char *argv[] = {a, b};
    return pc_target_message(device.target, *value ? 2 : 1, argv, text, sizeof(text));
}

std::string device_status()
{
    char text[256];
    pc_target_status(device.target, 0, text, sizeof(text));
    return text;
}

bool read_only(const std::string &status)
{
    return status.ends_with(" ro");
}

bool wait_until_clean()
{
    for (u32 tries = 0;; ++tries) {
        const std::string s = device_status();
        if (s == "Fail" || s == "Inactive")
            return false;
        u32 head[2], dirty[2];
        if (sscanf(s.c_str(), "%*x %*u %*u %*u %*u %*x %u:%u %u:%u", &head[0], &head[1], &dirty[0],
                   &dirty[1]) != 4)
            violation("status cannot be read: " + s);
        if (head[0] == dirty[0] && head[1] == dirty[1])
            return true;
        if (read_only(s) || (damage.on() && oracle.any_bad() && tries == 60))
            return false; // what is lost stays dirty
        if (tries == 4000)
            violation("an idle cache does not write back: " + s);
        sched::sleep(50 * ms);
    }
}

} // namespace pcache::sim
