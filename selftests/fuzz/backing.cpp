// SPDX-License-Identifier: GPL-2.0
// selftests/fuzz/backing.cpp - the backing device of platform.h as bytes: any content can be
// written back, which the simulator's disk of tags refuses. It never fails; what is not flushed may
// be lost at a cut, sector by sector.
#include <cstring>
#include "selftests/fuzz/world.hpp"
#include "selftests/sim/damage.hpp"
#include "selftests/sim/log_view.hpp"

namespace pcache::sim
{
Faults faults;
u64 errors_injected;

// The damage of random runs is judged by their oracle; here pages go bad by inject.hpp alone.
Damage damage;
int Damage::load(u64, usize)
{
    return 0;
}
void Damage::stored(u64, usize) {}
bool Damage::can_rewrite(u64) const
{
    return true;
}
void Damage::rewritten(u64) {}
void Damage::unit_rewritten(u64) {}
void Damage::block_write_torn(const LogView &, const std::vector<u64> &) {}
LogView view_log()
{
    return {};
}
u8 Damage::known_units(u64) const
{
    return 0;
}
bool Damage::known_stretch(u32, u64 &, u64 &) const
{
    return false;
}
} // namespace pcache::sim

struct pc_rio {
    pc_backing *handle;
    u64 offset;
    u32 bytes;
    pc_backing_done done;
    void *context;
    u8 *pages[PC_READ_PAGES];
};

struct pc_wio {
    pc_backing *handle;
    u64 offset;
    pc_backing_done done;
    void *context;
    u32 bytes;
    bool submitted;
    std::vector<std::pair<const u8 *, u32>> parts;
};

using namespace pcache::sim;
using pcache::fuzz::backing;

namespace
{

constexpr u32 writes_at_once = 16;
std::vector<std::unique_ptr<pc_wio>> wios;
std::vector<std::unique_ptr<pc_rio>> pages_reads;
const int room = 0;

u64 duration()
{
    return sched::rng().between(faults.disk_ns_min, faults.disk_ns_max);
}

void check_place(u64 offset, u64 bytes)
{
    if (offset % sector_bytes || bytes % sector_bytes || !bytes)
        violation("platform.h: the backing device is used in whole logical blocks");
    if (offset > backing.now.size() || bytes > backing.now.size() - offset)
        violation("platform.h: an access past the end of the backing device");
}

void carry_out(void *c)
{
    auto *w = static_cast<pc_wio *>(c);
    sched::point();
    u32 sector = static_cast<u32>(w->offset / sector_bytes);
    for (auto &[at, bytes] : w->parts)
        for (u32 i = 0; i < bytes; i += sector_bytes)
            backing.write(sector++, at + i);
    const pc_backing_done done = w->done;
    void *context = w->context;
    --w->handle->in_flight;
    std::erase_if(wios, [w](auto &o) { return o.get() == w; });
    sched::wake(&room);
    done(context, 0);
}

void read_pages_done(void *c)
{
    const auto *r = static_cast<pc_rio *>(c);
    sched::point();
    for (u32 at = 0; at < r->bytes; at += 4096)
        memcpy(r->pages[at / 4096], backing.now.data() + r->offset + at,
               std::min(4096u, r->bytes - at));
    --r->handle->in_flight;
    r->done(r->context, 0);
}

} // namespace

namespace pcache::fuzz
{

Backing backing;

// Each sector its own word, so that a wrong one shows.
void Backing::create(u32 sectors, u8 seed)
{
    now.resize(u64{sectors} * sector_bytes);
    for (u32 i = 0; i < sectors; ++i)
        fill_tag(now.data() + i * sector_bytes, seed ? u64{seed} << 56 | i : 0);
    durable = now;
    unflushed.clear();
}

void Backing::write(u32 sector, const u8 *from)
{
    memcpy(now.data() + u64{sector} * sector_bytes, from, sector_bytes);
    unflushed.push_back(sector);
}

void Backing::cut(Rng &rng)
{
    for (u32 sector : unflushed) {
        const u64 at = u64{sector} * sector_bytes;
        if (rng.one_in(2))
            memcpy(durable.data() + at, now.data() + at, sector_bytes);
    }
    now = durable;
    unflushed.clear();
}

} // namespace pcache::fuzz

namespace pcache::sim
{

void disk_reset()
{
    wios.clear();
    pages_reads.clear();
}

u32 disk_writes_in_flight()
{
    return static_cast<u32>(wios.size());
}

} // namespace pcache::sim

extern "C" {

u64 pc_backing_bytes(const pc_backing *) noexcept
{
    return backing.now.size();
}

u32 pc_backing_block(const pc_backing *) noexcept
{
    return sector_bytes;
}

const void *pc_backing_identity(const pc_backing *) noexcept
{
    return &backing;
}

int pc_backing_read(pc_backing *, u64 offset, void *to, u32 bytes) noexcept
{
    sched::assert_may_sleep("pc_backing_read");
    check_place(offset, bytes);
    sched::sleep(duration());
    memcpy(to, backing.now.data() + offset, bytes);
    return 0;
}

int pc_backing_flush(pc_backing *) noexcept
{
    sched::assert_may_sleep("pc_backing_flush");
    std::vector<u32> covered;
    covered.swap(backing.unflushed);
    sched::sleep(duration());
    for (u32 sector : covered) {
        const u64 at = u64{sector} * sector_bytes;
        memcpy(backing.durable.data() + at, backing.now.data() + at, sector_bytes);
    }
    return 0;
}

pc_wio *pc_wio_begin(pc_backing *b, u64 offset, pc_backing_done done, void *context) noexcept
{
    sched::assert_may_sleep("pc_wio_begin");
    while (wios.size() >= writes_at_once)
        sched::block(&room, "pc_wio_begin");
    wios.push_back(std::make_unique<pc_wio>(pc_wio{b, offset, done, context, 0, false, {}}));
    ++b->in_flight;
    return wios.back().get();
}

u32 pc_wio_add(pc_wio *w, const u8 *from, u32 bytes) noexcept
{
    if (bytes % sector_bytes)
        violation("platform.h: the backing device is written in whole sectors");
    media.offset_of(from, bytes);
    const u32 taken = std::min(bytes, faults.write_capacity - w->bytes);
    if (taken) {
        w->parts.push_back({from, taken});
        w->bytes += taken;
    }
    return taken;
}

void pc_wio_submit(pc_wio *w) noexcept
{
    sched::assert_may_sleep("pc_wio_submit");
    check_place(w->offset, w->bytes);
    for (auto &o : wios)
        if (o.get() != w && o->submitted && w->offset < o->offset + o->bytes &&
            o->offset < w->offset + w->bytes)
            violation("two writes in flight to one sector of the backing device");
    w->submitted = true;
    sched::interrupt_after(duration(), "write completion", carry_out, w);
    sched::point();
}

void pc_wio_drop(pc_wio *w) noexcept
{
    const pc_backing_done done = w->done;
    void *context = w->context;
    --w->handle->in_flight;
    std::erase_if(wios, [w](auto &o) { return o.get() == w; });
    sched::wake(&room);
    sched::point();
    done(context, -5);
}

pc_rio *pc_rio_begin(pc_backing *b, u64 offset, void *const *pages, u32 bytes, int,
                     pc_backing_done done, void *context) noexcept
{
    sched::point();
    check_place(offset, bytes);
    if (bytes > PC_READ_PAGES * 4096)
        violation("platform.h: a read into too many pages");
    pages_reads.push_back(std::make_unique<pc_rio>(pc_rio{b, offset, bytes, done, context, {}}));
    pc_rio &r = *pages_reads.back();
    for (u32 i = 0; i * 4096 < bytes; ++i)
        r.pages[i] = static_cast<u8 *>(pages[i]);
    ++b->in_flight;
    return &r;
}

void pc_rio_submit(pc_rio *r) noexcept
{
    sched::assert_may_submit("pc_rio_submit");
    sched::interrupt_after(duration(), "read completion", read_pages_done, r);
}

void pc_backing_exchange(pc_backing *a, pc_backing *b) noexcept
{
    std::swap(a->table, b->table);
}
}
