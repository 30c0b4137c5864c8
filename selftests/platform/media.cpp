// SPDX-License-Identifier: GPL-2.0
// selftests/platform/media.cpp - the cache device of platform.h, with poison and the power model.
//
// Every address that the engine stores to or loads from is looked up in the list of mappings; one
// outside is an abort. The list is read under a shared lock, which adds no edge between two readers
// that would hide a race. With the power model a store and its note are one step under
// power_lock().
#include <cstring>
#include <utility>
#include "selftests/platform/internal.hpp"

using namespace pcache::selftest;

struct pc_media {
    MediaDevice::Impl *device;
    pc_table *table; // may be null
    u64 claimed;     // bytes
    void (*gone)(void *) = nullptr;
    void *context = nullptr;
    // Once; with watch_lock held.
    void tell()
    {
        if (auto *f = std::exchange(gone, nullptr))
            f(context);
    }
};

namespace
{

constexpr u64 line_bytes = 64;
constexpr u64 page_bytes = 4096;
constexpr u64 unit_bytes = PC_MEDIA_UNIT; // of what is known to be bad

struct Mapping {
    u64 bytes;
    u64 offset; // in the device
    MediaDevice::Impl *device;
    const pc_media *handle;
    bool own; // a mapping of its own, to be undone
};
std::shared_mutex mappings_lock;
std::multimap<const u8 *, Mapping> &mappings()
{
    static auto *m = new std::multimap<const u8 *, Mapping>;
    return *m;
}

struct Place {
    MediaDevice::Impl *device;
    u64 offset;
};

// Where [at, at + bytes) lies. Outside of what was mapped: abort.
Place find(const u8 *at, usize bytes)
{
    std::shared_lock<std::shared_mutex> g(mappings_lock);
    auto i = mappings().upper_bound(at);
    while (i != mappings().begin()) { // mappings of several handles may overlap
        --i;
        u64 skip = static_cast<u64>(at - i->first);
        if (skip <= i->second.bytes && bytes <= i->second.bytes - skip)
            return {i->second.device, i->second.offset + skip};
    }
    broken("an access to media outside of what was mapped");
}

bool is_poisoned(MediaDevice::Impl &d, u64 offset, u64 bytes)
{
    if (!d.any_poison.load(std::memory_order_relaxed) || bytes == 0)
        return false;
    std::shared_lock<std::shared_mutex> g(d.poison_lock);
    auto i = d.poisoned.lower_bound(offset / line_bytes);
    return i != d.poisoned.end() && *i <= (offset + bytes - 1) / line_bytes;
}

bool is_known_bad(MediaDevice::Impl &d, u64 offset, u64 bytes)
{
    if (!d.any_poison.load(std::memory_order_relaxed) || bytes == 0)
        return false;
    std::shared_lock<std::shared_mutex> g(d.poison_lock);
    auto i = d.known_bad.lower_bound(offset / unit_bytes);
    return i != d.known_bad.end() && *i <= (offset + bytes - 1) / unit_bytes;
}

// The pages of the poisoned lines among these bytes cannot be read any more.
void unmap_pages(MediaDevice::Impl &d, u64 offset, u64 bytes)
{
    std::lock_guard<std::shared_mutex> g(d.poison_lock);
    std::set<u64> pages;
    for (auto i = d.poisoned.lower_bound(offset / line_bytes);
         i != d.poisoned.end() && *i <= (offset + bytes - 1) / line_bytes; ++i)
        pages.insert(*i * line_bytes / page_bytes);
    for (const u64 page : pages)
        for (u64 at = page * page_bytes; at < (page + 1) * page_bytes; at += line_bytes)
            d.poisoned.insert(at / line_bytes);
}

// What a machine-check-safe load finds there.
int load_outcome(const Place &p, usize bytes)
{
    if (is_known_bad(*p.device, p.offset, bytes))
        violation("a load from a unit known to be bad at " + std::to_string(p.offset));
    if (!is_poisoned(*p.device, p.offset, bytes))
        return 0;
    if (p.device->unmaps_pages)
        unmap_pages(*p.device, p.offset, bytes);
    return -5;
}

// ---- the power model ----

// Pages with stores that a fence of this CPU makes durable. Guarded by power_lock().
std::vector<std::pair<MediaDevice::Impl *, u64>> noted[64];
std::atomic<u64> power_devices{0};
std::function<void()> fence_hook;
std::atomic<bool> hooked{false};
std::shared_mutex in_hook; // held by those who are in it; comes before power_lock()

// A change of these bytes by this CPU, noted page by page; or, with only_pending, a flush of them.
template <class Change>
void noted_change(Place p, usize bytes, bool only_pending, Change change)
{
    constexpr u64 page = Power::page_bytes;
    std::lock_guard<std::mutex> g(power_lock());
    u32 cpu = sched::fence_cpu();
    Power &power = p.device->pending;
    u64 end = p.offset + bytes;
    if (!only_pending)
        for (u64 at = p.offset; at < end; at = (at / page + 1) * page)
            power.before(at);
    change();
    for (u64 at = p.offset, next; at < end; at = next) {
        next = std::min(end, (at / page + 1) * page);
        power.after(at, next - at, static_cast<int>(cpu), only_pending);
        noted[cpu].push_back({p.device, at / page});
    }
}

template <class Copy>
void store(u8 *to, usize bytes, Copy copy)
{
    sched::assert_pinned("a store to media");
    if (bytes == 0)
        return;
    Place p = find(to, bytes);
    if (is_poisoned(*p.device, p.offset, bytes))
        violation("a store to a poisoned line of media at " + std::to_string(p.offset));
    if (p.device->power.load(std::memory_order_relaxed))
        noted_change(p, bytes, false, copy);
    else
        copy();
}

// What a cut leaves now is seen by those who look at each fence, too.
void in_block_write(MediaDevice::Impl &d, u64 offset, const u8 *page)
{
    if (!d.power.load(std::memory_order_relaxed))
        return;
    {
        std::lock_guard<std::mutex> g(power_lock());
        d.pending.block_begins(offset, page);
    }
    if (hooked.load(std::memory_order_relaxed)) {
        const std::shared_lock<std::shared_mutex> g(in_hook);
        if (fence_hook)
            fence_hook();
    }
    std::lock_guard<std::mutex> g(power_lock());
    d.pending.block_ends(offset);
}

void fence(u32 cpu)
{
    std::lock_guard<std::mutex> g(power_lock());
    for (auto &[device, page] : noted[cpu])
        device->pending.fence(page, static_cast<int>(cpu));
    noted[cpu].clear();
}

} // namespace

namespace pcache::selftest
{

std::mutex &power_lock()
{
    static std::mutex m;
    return m;
}

void set_fence_hook(std::function<void()> hook)
{
    const std::unique_lock<std::shared_mutex> alone(in_hook);
    std::lock_guard<std::mutex> g(power_lock());
    hooked = bool(hook);
    fence_hook = std::move(hook);
}

void media_reset()
{
    set_fence_hook(nullptr);
    std::lock_guard<std::mutex> g(power_lock());
    for (auto &n : noted)
        n.clear();
    power_devices = 0;
}

double draw_chance(Rng &rng)
{
    static const double chances[] = {0.0, 0.05, 0.5, 0.9, 1.0};
    return chances[rng() % 5];
}

MediaDevice::MediaDevice(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
MediaDevice::~MediaDevice() = default;

u64 MediaDevice::bytes() const
{
    return impl_->store->bytes();
}

pc_media *MediaDevice::open(pc_table *table)
{
    ++impl_->handles;
    hold_table(table, 1);
    const u64 claimed = impl_->claimed;
    auto *m = new pc_media{impl_.get(), table, claimed ? claimed : bytes()};
    std::lock_guard<std::mutex> g(impl_->watch_lock);
    impl_->watched.insert(m);
    return m;
}

void MediaDevice::set_name(const std::string &name)
{
    impl_->name = name;
}

void MediaDevice::set_claimed(u64 bytes)
{
    impl_->claimed = bytes;
}

void MediaDevice::take_away()
{
    std::lock_guard<std::mutex> g(impl_->watch_lock);
    impl_->gone = true;
    for (pc_media *m : impl_->watched)
        m->tell();
}

void MediaDevice::read(u64 offset, void *to, usize n) const
{
    if (offset > bytes() || n > bytes() - offset)
        broken("MediaDevice::read past the end");
    impl_->store->look(offset, to, n);
}

// Durable at once, and cures poison.
static void write_through(MediaDevice::Impl &d, u64 offset, const void *from, usize n)
{
    if (offset > d.store->bytes() || n > d.store->bytes() - offset)
        broken("a write past the end of a media device");
    std::scoped_lock g(power_lock(), d.poison_lock);
    memcpy(d.store->base() + offset, from, n);
    if (n == 0)
        return;
    d.pending.settle(offset, n);
    d.poisoned.erase(d.poisoned.lower_bound(offset / line_bytes),
                     d.poisoned.upper_bound((offset + n - 1) / line_bytes));
    d.known_bad.erase(d.known_bad.lower_bound((offset + unit_bytes - 1) / unit_bytes),
                      d.known_bad.lower_bound((offset + n) / unit_bytes));
    d.any_poison = !d.poisoned.empty();
}

void MediaDevice::write(u64 offset, const void *from, usize n)
{
    write_through(*impl_, offset, from, n);
}

Image MediaDevice::image() const
{
    return impl_->store->image();
}

u64 MediaDevice::find(const void *what, usize n, u64 from, u64 step) const
{
    return impl_->store->find(what, n, from, step);
}

void MediaDevice::load(const Image &image)
{
    std::lock_guard<std::mutex> g(power_lock());
    impl_->pending.clear();
    impl_->store->load(image);
}

bool MediaDevice::load_file(const std::string &file)
{
    return impl_->store->load_file(file);
}

void MediaDevice::set_scattered(bool on)
{
    impl_->scattered = on;
}

void MediaDevice::poison(u64 offset, u64 n)
{
    std::lock_guard<std::shared_mutex> g(impl_->poison_lock);
    for (u64 line = offset / line_bytes; n && line <= (offset + n - 1) / line_bytes; ++line)
        impl_->poisoned.insert(line);
    impl_->any_poison = !impl_->poisoned.empty();
}

void MediaDevice::cure()
{
    std::lock_guard<std::shared_mutex> g(impl_->poison_lock);
    impl_->poisoned.clear();
    impl_->known_bad.clear();
    impl_->any_poison = false;
}

void MediaDevice::know_bad(u64 offset, u64 n)
{
    const u64 first = offset / page_bytes, last = (offset + n - 1) / page_bytes;
    know_bad_units(first * page_bytes, (last - first + 1) * page_bytes);
}

void MediaDevice::know_bad_units(u64 offset, u64 n)
{
    const u64 first = offset / unit_bytes, last = (offset + n - 1) / unit_bytes;
    poison(first * unit_bytes, (last - first + 1) * unit_bytes);
    std::lock_guard<std::shared_mutex> g(impl_->poison_lock);
    for (u64 unit = first; unit <= last; ++unit)
        impl_->known_bad.insert(unit);
}

void MediaDevice::set_repairable(bool on)
{
    impl_->repairable = on;
}

void MediaDevice::set_unmaps_pages(bool on)
{
    impl_->unmaps_pages = on;
}

void MediaDevice::set_power_model(bool on)
{
    std::lock_guard<std::mutex> g(power_lock());
    if (impl_->power.exchange(on) != on)
        power_devices += on ? 1 : -1;
    impl_->pending.clear();
}

u64 MediaDevice::pending_units() const
{
    std::lock_guard<std::mutex> g(power_lock());
    return impl_->pending.pending_units();
}

Image cut_locked(const MediaDevice::Impl &d, const std::function<bool(u64, unsigned)> &arrived)
{
    Image image = d.store->image();
    d.pending.cut(image, arrived);
    return image;
}

Image MediaDevice::cut(const std::function<bool(u64, unsigned)> &arrived) const
{
    std::lock_guard<std::mutex> g(power_lock());
    return cut_locked(*impl_, arrived);
}

Image MediaDevice::cut(Rng &rng) const
{
    std::bernoulli_distribution coin(draw_chance(rng));
    return cut([&](u64, unsigned) { return coin(rng); });
}

void MediaDevice::panic()
{
    std::lock_guard<std::mutex> g(power_lock());
    impl_->pending.orphan();
}

} // namespace pcache::selftest

// ---- platform.h
// ------------------------------------------------------------------------------------

extern "C" {

u64 pc_media_bytes(const pc_media *m) noexcept
{
    return m->device->store->bytes();
}

u8 *pc_media_map(pc_media *m, u64 offset, u64 length) noexcept
{
    sched::assert_may_sleep("pc_media_map");
    u64 size = m->device->store->bytes();
    if (length == 0 || offset > size || length > size - offset) {
        pc_log(nullptr, PC_ERR, "media: no bytes [%llu, %llu) to map", offset, offset + length);
        return nullptr;
    }
    std::lock_guard<std::shared_mutex> g(mappings_lock);
    bool own = m->device->scattered;
    u8 *at = own ? map_guarded(m->device->store->fd(), offset, length)
                 : m->device->store->base() + offset;
    if (at)
        mappings().emplace(at, Mapping{length, offset, m->device, m, own});
    return at;
}

void pc_media_close(pc_media *m) noexcept
{
    sched::assert_may_sleep("pc_media_close");
    if (!m)
        return;
    {
        std::lock_guard<std::shared_mutex> g(mappings_lock);
        for (auto i = mappings().begin(); i != mappings().end();) {
            if (i->second.handle != m) {
                ++i;
                continue;
            }
            if (i->second.own)
                unmap_guarded(const_cast<u8 *>(i->first), i->second.bytes);
            i = mappings().erase(i);
        }
    }
    {
        std::lock_guard<std::mutex> g(m->device->watch_lock);
        m->device->watched.erase(m);
    }
    --m->device->handles;
    hold_table(m->table, -1);
    delete m;
}

void pc_media_watch(pc_media *m, void (*gone)(void *), void *context) noexcept
{
    sched::assert_may_sleep("pc_media_watch");
    std::lock_guard<std::mutex> g(m->device->watch_lock);
    m->gone = gone;
    m->context = context;
    if (m->device->gone)
        m->tell();
}

const char *pc_media_name(const pc_media *m) noexcept
{
    return m->device->name.c_str();
}

void pc_media_exchange(pc_media *a, pc_media *b) noexcept
{
    if (a->device != b->device)
        broken("handles of two devices exchanged");
    std::swap(a->table, b->table);
}

int pc_media_rewrite_page(pc_media *m, u64 offset, const void *page) noexcept
{
    if (offset % page_bytes)
        broken("pc_media_rewrite_page of a place that is no page");
    if (!m->device->repairable && is_poisoned(*m->device, offset, page_bytes))
        return -5;
    in_block_write(*m->device, offset, static_cast<const u8 *>(page));
    write_through(*m->device, offset, page, page_bytes);
    return 0;
}

void pc_media_identify(const pc_media *m, pc_media_identity *id) noexcept
{
    *id = {m->device, 0, m->claimed};
}

int pc_media_overlap(const pc_media *a, const pc_media *b) noexcept
{
    return a->device == b->device;
}

void pc_media_store(u8 *to, const void *from, usize bytes) noexcept
{
    store(to, bytes, [=] { memcpy(to, from, bytes); });
}

void pc_media_zero(u8 *to, usize bytes) noexcept
{
    store(to, bytes, [=] { memset(to, 0, bytes); });
}

void pc_media_from_bio(u8 *to, pc_bio *bio, u32 bio_offset, u32 bytes) noexcept
{
    const u8 *from = bio_bytes(bio, bio_offset, bytes);
    store(to, bytes, [=] { memcpy(to, from, bytes); });
    bio_was_read(bio);
}

void pc_media_flush(const u8 *at, usize bytes) noexcept
{
    sched::assert_pinned("pc_media_flush");
    Place p = find(at, bytes);
    if (p.device->power.load(std::memory_order_relaxed))
        noted_change(p, bytes, true, [] {});
}

void pc_media_fence() noexcept
{
    sched::assert_pinned("pc_media_fence");
    if (!power_devices.load(std::memory_order_relaxed) && !hooked.load(std::memory_order_relaxed))
        return;
    if (hooked.load(std::memory_order_relaxed)) {
        const std::shared_lock<std::shared_mutex> g(in_hook);
        if (fence_hook)
            fence_hook();
    }
    fence(sched::fence_cpu());
}

int pc_media_load(void *to, const u8 *from, usize bytes) noexcept
{
    if (bytes == 0)
        return 0;
    if (int e = load_outcome(find(from, bytes), bytes)) {
        memset(to, 0xEE, bytes); // undefined for the caller
        return e;
    }
    memcpy(to, from, bytes);
    return 0;
}

int pc_media_probe(const u8 *at, usize bytes) noexcept
{
    return bytes ? load_outcome(find(at, bytes), bytes) : 0;
}

int pc_media_bad_stretch(const pc_media *m, u32 i, pc_media_stretch *out) noexcept
{
    std::shared_lock<std::shared_mutex> g(m->device->poison_lock);
    const std::set<u64> &bad = m->device->known_bad;
    constexpr u64 units = page_bytes / unit_bytes;
    for (auto p = bad.begin(); p != bad.end();) {
        u64 first = *p / units, next = first;
        for (; p != bad.end() && *p / units <= next; ++p)
            next = std::max(next, *p / units + 1);
        if (i-- == 0) {
            *out = {first * page_bytes, (next - first) * page_bytes};
            return 1;
        }
    }
    return 0;
}

u8 pc_media_bad_units(const pc_media *m, u64 offset) noexcept
{
    std::shared_lock<std::shared_mutex> g(m->device->poison_lock);
    u8 mask = 0;
    for (u64 i = 0; i < page_bytes / unit_bytes; ++i)
        mask |= static_cast<u8>(m->device->known_bad.count(offset / unit_bytes + i) << i);
    return mask;
}

int pc_media_to_bio(pc_bio *bio, u32 bio_offset, const u8 *from, u32 bytes) noexcept
{
    return pc_media_load(bio_bytes(bio, bio_offset, bytes), from, bytes);
}
}
