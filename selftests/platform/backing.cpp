// SPDX-License-Identifier: GPL-2.0
// selftests/platform/backing.cpp - the backing device of platform.h, with failures, delays and the
// model of a volatile write cache.
//
// A write is carried out and completed in interrupt context, some time after its submission: the
// media pages are read then, not before, as a DMA engine would. The device's spinlock guards
// everything in Impl; data moves under it, except the read of media pages, which ThreadSanitizer
// shall see bare.
#include <cstring>
#include "selftests/platform/internal.hpp"

using namespace pcache::selftest;

namespace
{
constexpr u32 sector = 512;
constexpr u64 page = 4096;
constexpr usize writes_at_once = 16; // pc_wio_begin waits beyond it
} // namespace

struct pc_backing {
    BackingDevice::Impl *device;
    pc_table *table;               // may be null
    std::atomic<u64> in_flight{0}; // operations begun and not completed
};

struct pc_wio {
    BackingDevice::Impl *device;
    pc_backing *handle;
    u64 offset;
    pc_backing_done done;
    void *context;
    u64 id;
    u32 bytes;
    std::vector<std::pair<const u8 *, u32>> parts;
};

// A read into pages. What the device reads it reads when it carries the read out; the pages are
// filled at the completion, which may be much later.
struct pc_rio {
    BackingDevice::Impl *device;
    pc_backing *handle;
    u64 offset;
    u32 bytes;
    std::vector<u8 *> pages;
    pc_backing_done done;
    void *context;
    Image data;
    int error;
};

namespace pcache::selftest
{

struct BackingDevice::Impl {
    explicit Impl(std::unique_ptr<Store> s) : store(std::move(s)), shown(store->bytes())
    {
        pc_spin_init(lock(), "backing", nullptr);
        pc_event_init(completed());
    }
    pc_spinlock *lock() const { return reinterpret_cast<pc_spinlock *>(lock_room); }
    pc_event *completed() const { return reinterpret_cast<pc_event *>(event_room); }

    std::unique_ptr<Store> store;
    std::string name;
    std::atomic<u64> shown; // of its bytes
    alignas(PC_SPINLOCK_ALIGN) mutable u8 lock_room[PC_SPINLOCK_SIZE];
    alignas(PC_EVENT_ALIGN) mutable u8 event_room[PC_EVENT_SIZE];

    struct Failure {
        u64 first, times;
        int error;
    };
    std::vector<Failure> failures[3]; // by Op; `first` counts like `begun`
    u64 begun[3] = {};
    u64 delay_ns[3] = {};
    std::function<int(Op, u64, u64)> hook;
    u64 read_bytes = 0, written_bytes = 0;
    u32 write_capacity = 1u << 20;
    bool hold = false;
    std::vector<pc_wio *> held;
    bool hold_reads = false;
    std::vector<pc_rio *> held_reads;
    u64 handles = 0;
    u64 begun_wios = 0; // between pc_wio_begin and the completion
    u64 next_id = 1;
    u32 block = sector;
    std::map<u64, const pc_wio *> unsubmitted; // by the thread that began it

    // The write cache. `writes` holds those in flight, whether the cache is modelled or not.
    bool cache = false;
    std::map<u64, Write> writes;
    std::map<u64, const pc_wio *> in_flight;
    struct Version {
        u64 id;
        Image data;
    };
    struct Sector {
        Image durable;
        std::vector<Version> later;
    };
    std::map<u64, Sector> unflushed; // by sector number
};

namespace
{

using Impl = BackingDevice::Impl;

class Lock
{
    pc_spinlock *l_;

public:
    explicit Lock(const Impl &d) : l_(d.lock()) { pc_spin_lock(l_); }
    ~Lock() { pc_spin_unlock(l_); }
    Lock(const Lock &) = delete;
    Lock &operator=(const Lock &) = delete;
};

// Counts an operation; the error that it has been told to fail with, or 0.
int begin_operation(Impl &d, Op op, u64 offset, u64 bytes)
{
    std::function<int(Op, u64, u64)> hook;
    int error = 0;
    {
        Lock g(d);
        u64 n = ++d.begun[static_cast<int>(op)];
        for (const Impl::Failure &f : d.failures[static_cast<int>(op)])
            if (n >= f.first && n - f.first < f.times)
                error = f.error;
        hook = d.hook;
    }
    if (hook && !error)
        error = hook(op, offset, bytes);
    return error;
}

u64 delay(Impl &d, Op op)
{
    Lock g(d);
    return d.delay_ns[static_cast<int>(op)];
}

// With the lock held. The write reaches the device's cache, or with `durable` the device.
void put_sectors(Impl &d, u64 id, u64 offset, const Image &data)
{
    for (u64 at = 0; at < data.size(); at += sector) {
        u8 *to = d.store->base() + offset + at;
        if (d.cache) {
            auto [i, fresh] = d.unflushed.try_emplace((offset + at) / sector);
            if (fresh)
                i->second.durable.assign(to, to + sector);
            i->second.later.push_back({id, Image(data.begin() + static_cast<long>(at),
                                                 data.begin() + static_cast<long>(at) + sector)});
        }
        memcpy(to, data.data() + at, sector);
    }
}

// With the lock held: what the writes up to `ids` (completed ones) put there is durable now.
void make_durable(Impl &d, const std::set<u64> &ids)
{
    for (auto i = d.unflushed.begin(); i != d.unflushed.end();) {
        auto &later = i->second.later;
        for (usize n = later.size(); n-- > 0;) {
            if (!ids.count(later[n].id))
                continue;
            i->second.durable = later[n].data;
            later.erase(later.begin(), later.begin() + static_cast<long>(n) + 1);
            break;
        }
        i = later.empty() ? d.unflushed.erase(i) : std::next(i);
    }
    for (u64 id : ids)
        d.writes.erase(id);
}

// In interrupt context: the DMA and the completion.
void carry_out(pc_wio *w)
{
    Impl &d = *w->device;
    int error = begin_operation(d, Op::write, w->offset, w->bytes);
    Image data(w->bytes);
    u64 at = 0;
    for (auto &[media, bytes] : w->parts) {
        if (pc_media_load(data.data() + at, media, bytes) && !error)
            error = -5;
        at += bytes;
    }
    {
        Lock g(d);
        if (!error) {
            put_sectors(d, w->id, w->offset, data);
            d.written_bytes += w->bytes;
        }
        d.in_flight.erase(w->id);
        if (error || !d.cache)
            d.writes.erase(w->id);
        else
            d.writes.at(w->id).completed = true;
    }
    // Before `done`, which may make somebody close the handle.
    --w->handle->in_flight;
    w->done(w->context, error);
    {
        Lock g(d);
        --d.begun_wios;
    }
    pc_event_wake(d.completed());
    delete w;
}

void schedule(pc_wio *w)
{
    sched::run_later(delay(*w->device, Op::write), [w] { carry_out(w); });
}

} // namespace

namespace
{

// In interrupt context.
void complete(pc_rio *r)
{
    for (u64 at = 0; at < r->data.size() && !r->error; at += page)
        memcpy(r->pages[at / page], r->data.data() + at, std::min(page, r->data.size() - at));
    --r->handle->in_flight; // before `done`, which may make somebody close the handle
    r->done(r->context, r->error);
    delete r;
}

// In interrupt context.
void carry_out(pc_rio *r)
{
    Impl &d = *r->device;
    r->error = begin_operation(d, Op::read, r->offset, r->bytes);
    {
        Lock g(d);
        const u8 *from = d.store->base() + r->offset;
        if (!r->error) {
            r->data.assign(from, from + r->bytes);
            d.read_bytes += r->bytes;
        }
        if (d.hold_reads) {
            d.held_reads.push_back(r);
            return;
        }
    }
    complete(r);
}

} // namespace

std::unique_ptr<BackingDevice> make_backing(std::unique_ptr<Store> s)
{
    return std::make_unique<BackingDevice>(std::make_unique<Impl>(std::move(s)));
}

void backing_lock(Impl &d)
{
    pc_spin_lock(d.lock());
}
void backing_unlock(Impl &d)
{
    pc_spin_unlock(d.lock());
}

u64 backing_handles(const Impl &d)
{
    Lock g(d);
    return d.handles;
}

BackingDevice::BackingDevice(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
BackingDevice::~BackingDevice() = default;

u64 BackingDevice::bytes() const
{
    return impl_->shown;
}

pc_backing *BackingDevice::open(pc_table *table)
{
    hold_table(table, 1);
    Lock g(*impl_);
    ++impl_->handles;
    return new pc_backing{impl_.get(), table};
}

void BackingDevice::set_name(const std::string &name)
{
    impl_->name = name;
}

void BackingDevice::set_bytes(u64 n)
{
    if (n > impl_->store->bytes())
        broken("a backing device cannot grow beyond what it was made with");
    impl_->shown = n;
}

void BackingDevice::read(u64 offset, void *to, usize n) const
{
    const u64 all = impl_->store->bytes();
    if (offset > all || n > all - offset)
        broken("BackingDevice::read past the end");
    Lock g(*impl_);
    memcpy(to, impl_->store->base() + offset, n);
}

void BackingDevice::write(u64 offset, const void *from, usize n)
{
    const u64 all = impl_->store->bytes();
    if (offset > all || n > all - offset)
        broken("BackingDevice::write past the end");
    Lock g(*impl_);
    memcpy(impl_->store->base() + offset, from, n);
    for (u64 s = offset / sector; n && s <= (offset + n - 1) / sector; ++s)
        impl_->unflushed.erase(s);
}

Image BackingDevice::image() const
{
    Lock g(*impl_);
    return impl_->store->image();
}

void BackingDevice::load(const Image &image)
{
    Lock g(*impl_);
    impl_->unflushed.clear();
    impl_->store->load(image);
}

bool BackingDevice::load_file(const std::string &file)
{
    Lock g(*impl_);
    return impl_->store->load_file(file);
}

void BackingDevice::fail(Op op, u64 n, int error, u64 times)
{
    Lock g(*impl_);
    int i = static_cast<int>(op);
    impl_->failures[i].push_back({impl_->begun[i] + n, times, error});
}

void BackingDevice::set_delay_ns(Op op, u64 ns)
{
    Lock g(*impl_);
    impl_->delay_ns[static_cast<int>(op)] = ns;
}

void BackingDevice::set_hook(std::function<int(Op, u64, u64)> hook)
{
    Lock g(*impl_);
    impl_->hook = std::move(hook);
}

void BackingDevice::set_write_capacity(u32 n)
{
    Lock g(*impl_);
    impl_->write_capacity = n;
}

void BackingDevice::set_logical_block(u32 n)
{
    Lock g(*impl_);
    impl_->block = n;
}

void BackingDevice::hold_writes(bool on)
{
    std::vector<pc_wio *> go;
    {
        Lock g(*impl_);
        impl_->hold = on;
        if (!on)
            go.swap(impl_->held);
    }
    for (pc_wio *w : go)
        schedule(w);
}

void BackingDevice::hold_reads(bool on)
{
    std::vector<pc_rio *> go;
    {
        Lock g(*impl_);
        impl_->hold_reads = on;
        if (!on)
            go.swap(impl_->held_reads);
    }
    for (pc_rio *r : go)
        sched::run_later(0, [r] { complete(r); });
}

BackingDevice::Counters BackingDevice::counters() const
{
    Lock g(*impl_);
    const Impl &d = *impl_;
    return {d.begun[0],      d.begun[1],   d.begun[2],         d.read_bytes,
            d.written_bytes, d.begun_wios, d.held_reads.size()};
}

void BackingDevice::set_write_cache(bool on)
{
    Lock g(*impl_);
    impl_->cache = on;
    impl_->unflushed.clear();
    std::erase_if(impl_->writes, [](auto &w) { return w.second.completed; });
}

std::vector<BackingDevice::Write> BackingDevice::unflushed() const
{
    Lock g(*impl_);
    std::vector<Write> all;
    for (auto &w : impl_->writes)
        all.push_back(w.second);
    return all;
}

Image cut_locked(const Impl &d,
                 const std::function<bool(const BackingDevice::Write &, u32)> &arrived)
{
    Image image = d.store->image();
    for (auto &[number, s] : d.unflushed) {
        const Image *data = &s.durable;
        for (const Impl::Version &v : s.later) {
            const BackingDevice::Write &w = d.writes.at(v.id);
            if (arrived(w, static_cast<u32>(number - w.offset / sector)))
                data = &v.data;
        }
        memcpy(image.data() + number * sector, data->data(), sector);
    }
    // Those in flight are newer than all that have completed. Their bytes still lie in media.
    for (auto &[id, w] : d.in_flight) {
        Image data;
        for (auto &[media, bytes] : w->parts)
            data.insert(data.end(), media, media + bytes);
        for (u32 s = 0; s < data.size() / sector; ++s)
            if (arrived(d.writes.at(id), s))
                memcpy(image.data() + w->offset + u64{s} * sector, data.data() + s * sector,
                       sector);
    }
    return image;
}

Image BackingDevice::cut(const std::function<bool(const Write &, u32)> &arrived) const
{
    Lock g(*impl_);
    return cut_locked(*impl_, arrived);
}

Image BackingDevice::cut(Rng &rng) const
{
    std::bernoulli_distribution coin(draw_chance(rng));
    return cut([&](const Write &, u32) { return coin(rng); });
}

} // namespace pcache::selftest

// ---- platform.h
// ------------------------------------------------------------------------------------

namespace
{

int can_begin(void *context)
{
    auto *d = static_cast<Impl *>(context);
    Lock g(*d);
    if (d->begun_wios >= writes_at_once)
        return 0;
    ++d->begun_wios;
    return 1;
}

} // namespace

extern "C" {

u64 pc_backing_bytes(const pc_backing *b) noexcept
{
    return b->device->shown;
}

u32 pc_backing_block(const pc_backing *b) noexcept
{
    return b->device->block;
}

const void *pc_backing_identity(const pc_backing *b) noexcept
{
    return b->device;
}

int pc_backing_read(pc_backing *b, u64 offset, void *to, u32 bytes) noexcept
{
    sched::assert_may_sleep("pc_backing_read");
    Impl &d = *b->device;
    if (offset % d.block || bytes % d.block)
        broken("the backing device is read in whole logical blocks");
    int error = begin_operation(d, Op::read, offset, bytes);
    sched::sleep_ns(delay(d, Op::read));
    if (!error && (offset > d.shown || bytes > d.shown - offset))
        error = -5;
    if (error)
        return error;
    Lock g(d);
    d.read_bytes += bytes;
    memcpy(to, d.store->base() + offset, bytes);
    return 0;
}

int pc_backing_flush(pc_backing *b) noexcept
{
    sched::assert_may_sleep("pc_backing_flush");
    Impl &d = *b->device;
    std::set<u64> covered; // what had completed when it was sent
    {
        Lock g(d);
        for (auto &w : d.writes)
            if (w.second.completed)
                covered.insert(w.first);
    }
    int error = begin_operation(d, Op::flush, 0, 0);
    sched::sleep_ns(delay(d, Op::flush));
    if (error)
        return error;
    Lock g(d);
    make_durable(d, covered);
    return 0;
}

void pc_backing_close(pc_backing *b) noexcept
{
    sched::assert_may_sleep("pc_backing_close");
    if (!b)
        return;
    if (b->in_flight)
        broken("the backing device closed with an operation in flight");
    {
        Lock g(*b->device);
        --b->device->handles;
    }
    hold_table(b->table, -1);
    delete b;
}

const char *pc_backing_name(const pc_backing *b) noexcept
{
    return b->device->name.c_str();
}

void pc_backing_exchange(pc_backing *a, pc_backing *b) noexcept
{
    if (a->device != b->device)
        broken("handles of two devices exchanged");
    std::swap(a->table, b->table);
}

pc_rio *pc_rio_begin(pc_backing *b, u64 offset, void *const *pages, u32 bytes, int,
                     pc_backing_done done, void *context) noexcept
{
    Impl &d = *b->device;
    const u64 size = d.store->bytes();
    if (offset % d.block || bytes % d.block || !bytes)
        broken("the backing device is read in whole logical blocks");
    if (offset > size || bytes > size - offset || bytes > PC_READ_PAGES * page)
        broken("a read past the end of the backing device, or longer than it may be");
    void *probe = pc_alloc(sizeof(pc_rio), PC_NOWAIT); // a failure that tests can ask for
    if (!probe)
        return nullptr;
    pc_free(probe);
    auto *r = new pc_rio{&d, b, offset, bytes, {}, done, context, {}, 0};
    for (u64 at = 0; at < bytes; at += page)
        r->pages.push_back(static_cast<u8 *>(pages[at / page]));
    ++b->in_flight;
    return r;
}

void pc_rio_submit(pc_rio *r) noexcept
{
    sched::assert_may_submit("pc_rio_submit");
    sched::run_later(delay(*r->device, Op::read), [r] { carry_out(r); });
}

pc_wio *pc_wio_begin(pc_backing *b, u64 offset, pc_backing_done done, void *context) noexcept
{
    Impl &d = *b->device;
    {
        Lock g(d);
        if (d.unsubmitted.count(sched::self()))
            broken("a write begun by a thread that holds one not yet submitted");
    }
    pc_event_wait(d.completed(), can_begin, &d);
    ++b->in_flight;
    auto *w = new pc_wio{&d, b, offset, done, context, 0, 0, {}};
    Lock g(d);
    d.unsubmitted[sched::self()] = w;
    return w;
}

u32 pc_wio_add(pc_wio *w, const u8 *media, u32 bytes) noexcept
{
    if (bytes % sector)
        broken("the backing device is written in whole sectors");
    u32 capacity;
    {
        Lock g(*w->device);
        capacity = w->device->write_capacity;
    }
    u32 taken = std::min(bytes, capacity - std::min(capacity, w->bytes));
    if (taken) {
        w->parts.push_back({media, taken});
        w->bytes += taken;
    }
    return taken;
}

void pc_wio_drop(pc_wio *w) noexcept
{
    Impl &d = *w->device;
    {
        Lock g(d);
        std::erase_if(d.unsubmitted, [w](auto &u) { return u.second == w; });
    }
    --w->handle->in_flight;
    w->done(w->context, -5);
    {
        Lock g(d);
        --d.begun_wios;
    }
    pc_event_wake(d.completed());
    delete w;
}

void pc_wio_submit(pc_wio *w) noexcept
{
    sched::assert_may_sleep("pc_wio_submit");
    Impl &d = *w->device;
    u64 size = d.shown;
    if (w->bytes == 0)
        broken("an empty write submitted");
    if (w->offset % d.block || w->bytes % d.block)
        broken("the backing device is written in whole logical blocks");
    if (w->offset > size || w->bytes > size - w->offset)
        broken("a write past the end of the backing device");
    bool clash = false;
    {
        Lock g(d);
        std::erase_if(d.unsubmitted, [w](auto &u) { return u.second == w; });
        w->id = d.next_id++;
        for (auto &o : d.writes)
            clash |= !o.second.completed && w->offset < o.second.offset + o.second.bytes &&
                     o.second.offset < w->offset + w->bytes;
        d.writes[w->id] = {w->id, w->offset, w->bytes, false};
        d.in_flight[w->id] = w;
        if (d.hold) {
            d.held.push_back(w);
            w = nullptr;
        }
    }
    if (clash)
        violation("two writes in flight to one sector of the backing device");
    if (w)
        schedule(w);
}
}
