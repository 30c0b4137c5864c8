// SPDX-License-Identifier: GPL-2.0
// selftests/sim/disk.cpp - the backing device: a volatile write cache, delays, reordering, errors.
//
// A write is carried out when it completes, some time after it was sent: the media's bytes are read
// then. Until a FLUSH that was sent after its completion has ended, a cut leaves in each sector
// what was flushed last or what any later write put there; of writes in flight any sectors. A write
// that ends with an error has reached any of its sectors. Writes complete in any order, overlapping
// ones too (and two in flight to one sector are a violation).
#include <cstring>
#include "selftests/sim/damage.hpp"
#include "selftests/sim/inject.hpp"
#include "selftests/sim/oracle.hpp"
#include "selftests/sim/world.hpp"

namespace pcache::sim
{

Disk disk;
Faults faults;
u64 errors_injected;

} // namespace pcache::sim

using namespace pcache::sim;

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

namespace
{

using pcache::format::page_bytes;
constexpr u32 writes_at_once = 16;         // pc_wio_begin waits beyond it
std::vector<std::unique_ptr<pc_wio>> wios; // begun and not completed
std::vector<std::pair<const Task *, const pc_wio *>> held;
const int room = 0; // what those wait for who wait for a write to complete

u64 duration()
{
    Rng &rng = sched::rng();
    const u64 ns = rng.between(faults.disk_ns_min, faults.disk_ns_max);
    return rng.one_in(faults.slow_one_in) ? ns * 100 : ns;
}

bool draw_error(Failing kind, u32 of_1024)
{
    if (injector.due(kind))
        return true;
    if (!of_1024 || !sched::rng().chance(of_1024))
        return false;
    ++errors_injected;
    return true;
}

// f(sector of the disk, tag) for each sector of a write, as media holds it now.
template <class F>
void each_sector(const pc_wio &w, F f)
{
    u32 sector = static_cast<u32>(w.offset / sector_bytes);
    for (auto &[at, bytes] : w.parts)
        for (u32 i = 0; i < bytes; i += sector_bytes)
            f(sector++, tag_of(at + i));
}

// Some blocks of a write, whose sectors are asked for in order.
struct HalfOfTheBlocks {
    explicit HalfOfTheBlocks(Rng &r) : rng(r) {}
    bool has(u32 sector)
    {
        if (sector / faults.block_sectors != block) {
            block = sector / faults.block_sectors;
            in = rng.one_in(2);
        }
        return in;
    }
    Rng &rng;
    u32 block = ~0u;
    bool in = false;
};

// Poison that came behind the probing: the device reads nothing, and says so.
bool meets_poison(const pc_wio &w)
{
    return damage.poisoned() && std::any_of(w.parts.begin(), w.parts.end(), [](const auto &p) {
               return damage.unreadable(media.offset_of(p.first, p.second), p.second);
           });
}

void carry_out(void *c)
{
    auto *w = static_cast<pc_wio *>(c);
    sched::point();
    const bool poison = meets_poison(*w);
    if (poison)
        trace("a write to the backing device meets poison");
    const bool failed = draw_error(Failing::backing_write, faults.write_errors) || poison;
    const u64 completion = disk.next_completion();
    HalfOfTheBlocks half(sched::rng());
    each_sector(*w, [&](u32 sector, u64 tag) {
        if (failed && half.has(sector))
            return;
        trace_sector(sector, "backing device: sector %u is written: %s%s", sector,
                     oracle.name(tag).c_str(), failed ? " (the write fails)" : "");
        if (tag == torn || !oracle.belongs(tag, sector))
            violation("write-back sends foreign or torn data: " + oracle.name(tag), sector);
        disk.put(sector, tag, completion);
    });
    oracle.disk_changed();
    cut_point("behind a write of the backing device");
    const pc_backing_done done = w->done;
    void *context = w->context;
    --w->handle->in_flight;
    std::erase_if(wios, [w](auto &o) { return o.get() == w; });
    sched::wake(&room);
    done(context, failed ? -5 : 0);
}

struct LaterRead {
    u64 offset;
    u8 *to;
    u32 bytes;
    void (*done)(void *, int);
    void *context;
};
std::vector<std::unique_ptr<LaterRead>> later_reads; // of this life

std::vector<std::unique_ptr<pc_rio>> pages_reads; // of this life

int read_sectors(u64 offset, u8 *to, u32 bytes)
{
    const u32 block = faults.block_sectors * sector_bytes;
    if (offset % block || bytes % block)
        violation("platform.h: the backing device is read in whole logical blocks");
    if (offset + bytes > u64{disk.sectors()} * sector_bytes ||
        draw_error(Failing::backing_read, faults.read_errors))
        return -5;
    for (u32 i = 0; i < bytes; i += sector_bytes)
        fill_tag(to + i, disk.now(static_cast<u32>((offset + i) / sector_bytes)));
    return 0;
}

void read_pages_done(void *c)
{
    const auto *r = static_cast<pc_rio *>(c);
    sched::point();
    int error = 0;
    for (u32 at = 0; at < r->bytes && !error; at += page_bytes) {
        error = read_sectors(r->offset + at, r->pages[at / page_bytes],
                             std::min(page_bytes, r->bytes - at));
        sched::point();
    }
    --r->handle->in_flight;
    r->done(r->context, error);
}

} // namespace

namespace pcache::sim
{

void Disk::create(u32 sectors)
{
    now_.assign(sectors, 0);
    durable_.assign(sectors, 0);
    versions_.assign(sectors, {});
    dirty_.clear();
    completions_ = 0;
}

void Disk::grow(u32 sectors)
{
    now_.resize(sectors);
    durable_.resize(sectors);
    versions_.resize(sectors);
}

void Disk::put(u32 sector, u64 tag, u64 completion)
{
    now_[sector] = tag;
    if (versions_[sector].empty())
        dirty_.push_back(sector);
    versions_[sector].push_back({tag, completion});
}

void Disk::flushed(u64 up_to)
{
    std::erase_if(dirty_, [&](u32 sector) {
        auto &v = versions_[sector];
        usize n = 0;
        while (n < v.size() && v[n].completed <= up_to)
            durable_[sector] = v[n++].tag;
        v.erase(v.begin(), v.begin() + static_cast<long>(n));
        return v.empty();
    });
}

void Disk::cut(Rng &rng)
{
    static const u32 chances[] = {0, 51, 512, 922, 1024};
    const u32 chance = chances[rng.below(5)];
    const u64 seed = faults.block_sectors > 1 ? rng.next() : 0;
    const auto arrives = [&](u64 write, u32 sector) { // a block arrives whole
        if (faults.block_sectors == 1)
            return rng.chance(chance);
        const u64 block = sector / faults.block_sectors;
        return Rng(seed ^ (write * 0x9E3779B97F4A7C15) ^ (block << 20)).chance(chance);
    };
    for (u32 sector : dirty_) {
        for (const Version &v : versions_[sector])
            if (arrives(v.completed, sector))
                durable_[sector] = v.tag;
        versions_[sector].clear();
        now_[sector] = durable_[sector];
    }
    dirty_.clear();
    u64 write = completions_;
    for (auto &w : wios)
        if (w->submitted && ++write)
            each_sector(*w, [&](u32 sector, u64 tag) {
                if (arrives(write, sector))
                    now_[sector] = durable_[sector] = tag;
            });
}

void Disk::panic(Rng &rng)
{
    for (auto &w : wios)
        if (w->submitted) {
            HalfOfTheBlocks half(rng);
            const u64 completion = next_completion();
            each_sector(*w, [&](u32 sector, u64 tag) {
                if (half.has(sector))
                    put(sector, tag, completion);
            });
        }
}

void Disk::each_possible(void (*f)(void *, u32, u64), void *context) const
{
    for (u32 sector = 0; sector < now_.size(); ++sector) {
        f(context, sector, durable_[sector]);
        for (const Version &v : versions_[sector])
            f(context, sector, v.tag);
    }
    for (auto &w : wios)
        if (w->submitted)
            each_sector(*w, [&](u32 sector, u64 tag) { f(context, sector, tag); });
}

std::vector<Disk::Sectors> Disk::pending_writes() const
{
    std::vector<std::pair<u64, Sectors>> by_completion;
    for (u32 sector : dirty_)
        for (const Version &v : versions_[sector]) {
            auto i = std::find_if(by_completion.begin(), by_completion.end(),
                                  [&](const auto &w) { return w.first == v.completed; });
            if (i == by_completion.end())
                i = by_completion.insert(by_completion.end(), {v.completed, {}});
            i->second.push_back({sector, v.tag});
        }
    std::sort(by_completion.begin(), by_completion.end());
    std::vector<Sectors> all;
    for (auto &[completion, sectors] : by_completion)
        all.push_back(std::move(sectors));
    for (auto &w : wios)
        if (w->submitted) {
            all.push_back({});
            each_sector(*w, [&](u32 sector, u64 tag) { all.back().push_back({sector, tag}); });
        }
    return all;
}

void Disk::restore(const std::vector<u64> &durable)
{
    now_ = durable_ = durable;
    for (u32 sector : dirty_)
        versions_[sector].clear();
    dirty_.clear();
}

void disk_reset()
{
    wios.clear();
    held.clear();
    later_reads.clear();
    pages_reads.clear();
}

u32 disk_writes_in_flight()
{
    return static_cast<u32>(wios.size());
}

void disk_read_later(u64 offset, u8 *to, u32 bytes, void (*done)(void *, int), void *context)
{
    later_reads.push_back(std::make_unique<LaterRead>(LaterRead{offset, to, bytes, done, context}));
    sched::interrupt_after(
        duration(), "remapped read",
        [](void *c) {
            const auto *r = static_cast<LaterRead *>(c);
            sched::point();
            const int error = read_sectors(r->offset, r->to, r->bytes);
            sched::point();
            r->done(r->context, error);
        },
        later_reads.back().get());
}

} // namespace pcache::sim

extern "C" {

u64 pc_backing_bytes(const pc_backing *) noexcept
{
    return u64{disk.sectors()} * sector_bytes;
}

u32 pc_backing_block(const pc_backing *) noexcept
{
    return faults.block_sectors * sector_bytes;
}

const void *pc_backing_identity(const pc_backing *) noexcept
{
    return &disk;
}

int pc_backing_read(pc_backing *, u64 offset, void *to, u32 bytes) noexcept
{
    sched::assert_may_sleep("pc_backing_read");
    sched::sleep(duration());
    return read_sectors(offset, static_cast<u8 *>(to), bytes);
}

int pc_backing_flush(pc_backing *) noexcept
{
    sched::assert_may_sleep("pc_backing_flush");
    const u64 covered = disk.completions();
    sched::sleep(duration());
    if (draw_error(Failing::backing_flush, faults.flush_errors))
        return -5;
    disk.flushed(covered);
    trace("backing device: FLUSH");
    cut_point("behind a FLUSH of the backing device");
    sched::point();
    return 0;
}

pc_wio *pc_wio_begin(pc_backing *b, u64 offset, pc_backing_done done, void *context) noexcept
{
    sched::assert_may_sleep("pc_wio_begin");
    for (auto &[task, w] : held)
        if (task == sched::self())
            violation("platform.h: a write begun by one who holds a write not yet submitted");
    while (wios.size() >= writes_at_once)
        sched::block(&room, "pc_wio_begin");
    wios.push_back(std::make_unique<pc_wio>(pc_wio{b, offset, done, context, 0, false, {}}));
    ++b->in_flight;
    held.push_back({sched::self(), wios.back().get()});
    return wios.back().get();
}

u32 pc_wio_add(pc_wio *w, const u8 *from, u32 bytes) noexcept
{
    if (bytes % sector_bytes)
        violation("platform.h: the backing device is written in whole sectors");
    if (damage.poisoned() && damage.met_or_known(media.offset_of(from, bytes), bytes) &&
        damage.unreadable(media.offset_of(from, bytes), bytes))
        violation("platform.h: bytes sent to the backing device that could not be read");
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
    if (!w->bytes)
        violation("platform.h: an empty write submitted");
    if ((w->offset | w->bytes) % (faults.block_sectors * sector_bytes))
        violation("platform.h: the backing device is written in whole logical blocks",
                  static_cast<s64>(w->offset / sector_bytes));
    if (w->offset + w->bytes > u64{disk.sectors()} * sector_bytes)
        violation("platform.h: a write past the end of the backing device");
    for (auto &o : wios)
        if (o.get() != w && o->submitted && w->offset < o->offset + o->bytes &&
            o->offset < w->offset + w->bytes)
            violation("two writes in flight to one sector of the backing device",
                      static_cast<s64>(std::max(w->offset, o->offset) / sector_bytes));
    std::erase_if(held, [w](auto &h) { return h.second == w; });
    w->submitted = true;
    sched::interrupt_after(duration(), "write completion", carry_out, w);
    sched::point();
}

void pc_wio_drop(pc_wio *w) noexcept
{
    std::erase_if(held, [w](auto &h) { return h.second == w; });
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
    if (refuse_allocation(PC_NOWAIT))
        return nullptr;
    if (bytes > PC_READ_PAGES * page_bytes)
        violation("platform.h: a read into too many pages");
    pages_reads.push_back(std::make_unique<pc_rio>(pc_rio{b, offset, bytes, done, context, {}}));
    pc_rio &r = *pages_reads.back();
    for (u32 i = 0; i * page_bytes < bytes; ++i)
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
