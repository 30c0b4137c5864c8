// SPDX-License-Identifier: GPL-2.0
// selftests/platform/bio.cpp - requests of the upper layer, and memory that can run out.
//
// A bio's pages belong to the engine from the call of pc_target_map to pc_bio_end and to nobody
// else's before or after: an access outside of that time is an abort. The lock of a bio guards its
// state, not its bytes.
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <malloc.h>
#include <mutex>
#include "selftests/platform/internal.hpp"
#include "dm-pcache/target/face.h"

using namespace pcache::selftest;

struct pc_bio {
    Image bytes;
    alignas(16) u8 request[PC_REQUEST_BYTES];
    mutable std::mutex lock;
    std::condition_variable changed;
    u32 size;
    bool touched = false, cut_short = false, ended = false;
    int error = 0;
    std::function<void(int)> on_end;
    std::function<void()> on_read;
};

namespace
{

std::atomic<u64> allocations{0}, live_blocks{0}, live_size{0};
std::atomic<bool> nowait_fails{false};
std::mutex failures_lock;
std::vector<std::pair<u64, u64>> failures; // first and one past the last
std::atomic<bool> any_failure{false};

bool refuse(pc_how how)
{
    u64 n = allocations.fetch_add(1, std::memory_order_relaxed) + 1;
    if (how == PC_NOWAIT && nowait_fails.load(std::memory_order_relaxed))
        return true;
    if (!any_failure.load(std::memory_order_relaxed))
        return false;
    std::lock_guard<std::mutex> g(failures_lock);
    for (auto &[first, end] : failures)
        if (n >= first && n < end)
            return true;
    return false;
}

void delete_bio(pc_bio *b)
{
    delete b;
}

std::atomic<u64> bios_out{0}; // touched and not ended

} // namespace

namespace pcache::selftest
{

// ---- bios ----

u64 live_bios()
{
    return bios_out;
}

u8 *bio_bytes(pc_bio *bio, u32 offset, u32 bytes)
{
    std::lock_guard<std::mutex> g(bio->lock);
    if (bio->ended)
        broken("the pages of a bio used after it has ended");
    if (offset > bio->size || bytes > bio->size - offset)
        broken("bytes outside of the bio");
    if (!bio->touched)
        ++bios_out;
    bio->touched = true;
    return bio->bytes.data() + offset;
}

void bio_was_read(pc_bio *bio)
{
    if (bio->on_read)
        bio->on_read();
}

Bio::Bio(u32 bytes) : Bio(Image(bytes)) {}

Bio::Bio(Image contents) : bio_(new pc_bio, delete_bio)
{
    bio_->size = static_cast<u32>(contents.size());
    bio_->bytes = std::move(contents);
    memset(bio_->request, 0xA5, sizeof(bio_->request));
}

Bio::~Bio()
{
    std::lock_guard<std::mutex> g(bio_->lock);
    if (bio_->touched && !bio_->ended)
        broken("a Bio destroyed while the engine has it");
}

void *Bio::request()
{
    return bio_->request;
}
u8 *Bio::data()
{
    return bio_->bytes.data();
}

u32 Bio::size() const
{
    std::lock_guard<std::mutex> g(bio_->lock);
    return bio_->size;
}

bool Bio::cut_short() const
{
    std::lock_guard<std::mutex> g(bio_->lock);
    return bio_->cut_short;
}

bool Bio::ended() const
{
    std::lock_guard<std::mutex> g(bio_->lock);
    return bio_->ended;
}

int Bio::wait()
{
    std::unique_lock<std::mutex> g(bio_->lock);
    bio_->changed.wait(g, [this] { return bio_->ended; });
    return bio_->error;
}

void Bio::on_end(std::function<void(int)> f)
{
    bio_->on_end = std::move(f);
}

void Bio::on_read(std::function<void()> f)
{
    bio_->on_read = std::move(f);
}

// ---- memory ----

void Memory::fail(u64 n, u64 times)
{
    std::lock_guard<std::mutex> g(failures_lock);
    u64 first = ::allocations + n;
    failures.push_back({first, first + times});
    any_failure = true;
}

void Memory::fail_nowait(bool on)
{
    nowait_fails = on;
}
u64 Memory::allocations()
{
    return ::allocations;
}
u64 Memory::live()
{
    return live_blocks;
}
u64 Memory::live_bytes()
{
    return live_size;
}

void memory_reset()
{
    std::lock_guard<std::mutex> g(failures_lock);
    failures.clear();
    any_failure = false;
    nowait_fails = false;
    ::allocations = 0;
}

} // namespace pcache::selftest

extern "C" {

void pc_bio_end(pc_bio *bio, int error) noexcept
{
    std::function<void(int)> f;
    if (error == PC_END_REQUEUE && !noflush_suspend())
        error = -5; // as device-mapper
    {
        std::lock_guard<std::mutex> g(bio->lock);
        if (bio->ended)
            broken("a bio ended twice");
        f = std::move(bio->on_end);
        if (bio->touched)
            --bios_out;
        bio->error = error;
        bio->ended = true;
        bio->changed.notify_all();
    }
    // From here on the bio may be gone: its owner may have waited for the end.
    if (f)
        f(error);
}

void pc_bio_copy_to(pc_bio *bio, u32 bio_offset, const void *from, u32 bytes) noexcept
{
    memcpy(bio_bytes(bio, bio_offset, bytes), from, bytes);
}

void pc_bio_accept(pc_bio *bio, u32 bytes) noexcept
{
    std::lock_guard<std::mutex> g(bio->lock);
    if (bio->touched || bio->ended)
        broken("a bio cut after it was touched");
    if (bytes == 0 || bytes > bio->size || bytes % 512)
        broken("a bio cut to a length that it cannot have");
    bio->cut_short = true;
    bio->size = bytes;
}

void *pc_alloc(usize bytes, pc_how how) noexcept
{
    if (how != PC_NOWAIT)
        sched::assert_may_sleep("pc_alloc");
    if (refuse(how))
        return nullptr;
    // Exactly that many bytes, so that AddressSanitizer sees the first one behind them.
    void *p = nullptr;
    if (bytes >= 64 && (bytes & (bytes - 1)) == 0) {
        if (posix_memalign(&p, 64, bytes))
            return nullptr;
    } else if (!(p = malloc(bytes ? bytes : 1))) {
        return nullptr;
    }
    memset(p, 0, bytes);
    live_blocks.fetch_add(1, std::memory_order_relaxed);
    live_size.fetch_add(malloc_usable_size(p), std::memory_order_relaxed);
    return p;
}

void pc_free(const void *p) noexcept
{
    if (!p)
        return;
    usize bytes = malloc_usable_size(const_cast<void *>(p));
    if (bytes > 8192)
        sched::assert_may_sleep("pc_free of a large block");
    live_blocks.fetch_sub(1, std::memory_order_relaxed);
    live_size.fetch_sub(bytes, std::memory_order_relaxed);
    free(const_cast<void *>(p));
}
}
