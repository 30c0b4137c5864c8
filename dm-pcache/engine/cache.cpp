// SPDX-License-Identifier: GPL-2.0
// engine/cache.cpp - the life of a cache: open, start, quiesce, resume. See cache.hpp.
#include "dm-pcache/engine/memory.hpp"
#include "dm-pcache/engine/parts.hpp"
#include "dm-pcache/engine/shard_of.hpp"

namespace pcache::engine
{

namespace
{
constinit LockClass waiting_class{"pcache waiting"};
constinit LockClass settings_class{"pcache settings"};
using format::backing_crc_bytes;
} // namespace

Cache::Cache() noexcept : waiting_lock_(waiting_class), settings_lock_(settings_class) {}

Cache::~Cache()
{
    if (state() == State::running)
        quiesce();
    drop_parts();
    pc_backing_close(backing_);
    pc_host_destroy(host_);
}

void Cache::drop_parts() noexcept
{
    pc_queue_destroy(queue_); // drains: no work is left behind it
    queue_ = nullptr;
    if (parts_) {
        parts_->~Parts();
        pc_free(parts_);
    }
    parts_ = nullptr;
}

// crc of the first 128 KiB as the format records it: 1 instead of 0; 0 when it cannot be read.
rt::Result<u32> Cache::take_backing_crc() noexcept
{
    if (pc_backing_bytes(backing_) < backing_crc_bytes)
        return u32{0};
    void *buffer = pc_alloc(backing_crc_bytes, PC_MAY_SLEEP);
    if (!buffer)
        return rt::Error::no_memory;
    u32 crc = 0;
    if (pc_backing_read(backing_, 0, buffer, backing_crc_bytes) == 0) {
        crc = format::crc32c(format::crc_seed, buffer, backing_crc_bytes);
        crc = crc ? crc : 1;
    } else {
        pc_log(host_, PC_WARN,
               "the first 128 KiB of the backing device cannot be read: whether it "
               "was changed behind the cache is not known");
    }
    pc_free(buffer);
    return crc;
}

rt::Error Cache::open(pc_media *media, pc_backing *backing, pc_host *host,
                      media::Refusal &why) noexcept
{
    host_ = host;
    backing_ = backing;
    if (const rt::Error e = device_.open(media); !ok(e)) {
        why = {e, e == rt::Error::no_space ? "cache device too small: it must have 512 MiB at least"
                                           : "cache device cannot be mapped"};
        return e;
    }
    media::Inspection in;
    RT_TRY(inspect(in, why));
    if (in.has_extension)
        __builtin_memcpy(uuid_.byte, in.extension.uuid, sizeof(uuid_.byte));
    return rt::Error::none;
}

rt::Error Cache::take_facts(media::BackingFacts &facts) noexcept
{
    const rt::Result<u32> crc = take_backing_crc();
    if (!crc)
        return crc.error();
    facts = {pc_backing_bytes(backing_), *crc};
    return rt::Error::none;
}

// What is on media, judged; and whether this driver can serve it. Stores nothing.
rt::Error Cache::inspect(media::Inspection &in, media::Refusal &why) noexcept
{
    media::Activation activation(device_, host_);
    media::BackingFacts facts;
    RT_TRY(take_facts(facts));
    RT_TRY(activation.inspect(facts, in, why));
    if (in.kind != media::MediaKind::cache)
        return rt::Error::none;
    if (in.cache_info.data_crc()) {
        why = {rt::Error::not_supported,
               "the cache has data_crc, which this version cannot verify yet: open it with the "
               "driver that made it"};
        return why.error;
    }
    if (in.cache_info.mode() != format::CacheMode::writeback) {
        why = {rt::Error::not_supported,
               "the cache is in a cache_mode other than writeback, which this version does not "
               "serve yet"};
        return why.error;
    }
    return rt::Error::none;
}

rt::Error Cache::allocate_parts() noexcept
{
    void *memory = pc_alloc(alignable(sizeof(Parts)), PC_MAY_SLEEP);
    if (!memory)
        return rt::Error::no_memory;
    parts_ = ::new (memory) Parts(device_, backing_);
    queue_ = pc_queue_create("pcache");
    if (!queue_)
        return rt::Error::no_memory;
    admit_work_.init(
        queue_, [](void *c) { static_cast<Cache *>(c)->admit_worker(); }, this);
    reclaim_work_.init(
        queue_, [](void *c) { static_cast<Cache *>(c)->reclaim_worker(); }, this);

    Parts &p = *parts_;
    const u32 segments = device_.chain_length();
    RT_TRY(p.segments.allocate(segments));
    RT_TRY(p.heads.allocate(pc_cpus()));
    const u32 most = format::data_bytes / log_bytes_per_ticket / 2;
    const u32 tickets = rt::min(rt::max(p.heads.count() * tickets_per_head, min_tickets), most);
    RT_TRY(p.tickets.allocate(tickets));
    RT_TRY(p.log.allocate(queue_,
                          {[](void *c) noexcept { static_cast<Cache *>(c)->committed(); }, this}));
    RT_TRY(p.write_back.allocate());
    RT_TRY(p.gc.allocate());
    const u64 pages = u64{segments} * (format::data_bytes / format::page_bytes);
    p.budget.set_limit(pages * index_bytes_per_page / ExtentTree::node_bytes +
                       shard_count * nodes_at_least);
    return rt::Error::none;
}

namespace
{
// Puts the keys of the log into the index, in replay order.
struct Recovery {
    Segments &segments;
    Shard *shards;
    NodeBudget &budget;
    u64 dirty_bytes = 0;

    rt::Error key(const media::ReplayedKey &k) noexcept
    {
        Shard &s = shards[shard_of(k.offset)];
        while (!s.tree.can_operate(1))
            s.provide_for_eviction(budget);
        const u64 sector = k.offset / format::sector_bytes;
        const u32 sectors = k.length / format::sector_bytes;
        if (k.stale) {
            (void)s.tree.remove(sector, sectors);
            return rt::Error::none;
        }
        s.tree.insert(
            {sector, sectors, {k.segment.value, k.segment_offset / format::sector_bytes}});
        segments.recover_key(k.segment);
        if (k.dirty)
            dirty_bytes += k.length;
        return rt::Error::none;
    }
};
} // namespace

rt::Error Cache::recover(media::Activation &activation, const media::Inspection &in) noexcept
{
    Parts &p = *parts_;
    for (u32 i = 0; i < in.segments; i++) {
        p.segments.set_generation({i}, in.generations[i]);
        if (in.log_segments[i])
            p.segments.recover_log({i});
    }
    Recovery recovery{p.segments, p.shards, p.budget};
    RT_TRY(activation.replay(in, recovery));
    p.segments.finish_recovery();
    p.log.dirty_recovered(recovery.dirty_bytes);
    return rt::Error::none;
}

// Everything up to the last step of activation; nothing runs yet.
rt::Error Cache::build(media::Refusal &why) noexcept
{
    media::Activation activation(device_, host_);
    media::BackingFacts facts;
    RT_TRY(take_facts(facts));
    {
        media::Inspection in;
        RT_TRY(inspect(in, why));
        if (in.kind == media::MediaKind::blank) {
            const u32 flags = format::make_cache_flags(false, true, format::CacheMode::writeback,
                                                       default_gc_percent);
            RT_TRY(activation.format(facts, flags, why));
            pc_log(host_, PC_INFO, "formatted the blank cache device: %u segments",
                   device_.seg_count());
        }
    }
    const u64 begin = pc_now_ns();
    media::Inspection in;
    RT_TRY(inspect(in, why));
    // What the backing device was sent before is durable from here on.
    if (pc_backing_flush(backing_) != 0) {
        why = {rt::Error::io, "the backing device failed a FLUSH: see to it first"};
        return why.error;
    }
    why = {rt::Error::no_memory, "out of memory"};
    RT_TRY(allocate_parts());
    RT_TRY(recover(activation, in));
    why = {};
    RT_TRY(activation.activate(in, in.cache_info.flags, facts, parts_->metadata, why));
    parts_->log.begin_session(in.head, in.start_number, in.newest_number);
    publish_tails();
    pc_log(host_, PC_INFO, "recovered %llu keys (%llu dirty) in %llu ms", in.keys, in.dirty_keys,
           (pc_now_ns() - begin) / millisecond);
    return rt::Error::none;
}

void Cache::publish_tails() noexcept
{
    Parts &p = *parts_;
    p.gc.key_tail().set(p.metadata.key_tail());
    p.write_back.dirty_tail().set(p.metadata.dirty_tail());
    cache_flags_.set(p.metadata.cache_info().flags);
    gc_percent_.set(p.metadata.cache_info().gc_percent());
}

rt::Error Cache::start(media::Refusal &why) noexcept
{
    if (const rt::Error e = build(why); !ok(e)) {
        drop_parts();
        return e;
    }
    run();
    return rt::Error::none;
}

void Cache::run() noexcept
{
    push_back_.set(0);
    backing_failing_.set(0);
    retry_at_ = retry_delay_ = 0;
    last_change_ = pc_now_ns();
    state_.store_release(static_cast<u32>(State::running));
    parts_->log.prepare_spare();
    reclaim_work_.kick();
}

// ---- suspend and resume -------------------------------------------------------------------

void Cache::begin_suspend(bool noflush) noexcept
{
    if (state() != State::running)
        return;
    push_back_.set(noflush);
    if (noflush)
        admit_work_.kick();
}

void Cache::undo_suspend() noexcept
{
    push_back_.set(0);
}

// Waiting writes are served, unless the backing device, which they wait for, fails.
void Cache::drain_waiting() noexcept
{
    admit_work_.kick();
    reclaim_work_.kick();
    waiting_changed_.wait([this] {
        return !anybody_waiting() || state() != State::running || backing_failing_.read();
    });
    if (anybody_waiting() && state() == State::running)
        fail("write requests wait for space, and the backing device reports errors");
    waiting_changed_.wait([this] { return !anybody_waiting(); });
}

// A write that came between the last look and the end of map() ends with an error; device-mapper
// lets none come then.
void Cache::drain_waiting_after_stop() noexcept
{
    admit_work_.kick();
    waiting_changed_.wait([this] { return !anybody_waiting(); });
}

void Cache::quiesce() noexcept
{
    if (!parts_ || state() == State::suspended)
        return;
    drain_waiting();
    const bool clean = state() == State::running;
    if (clean)
        state_.store_release(static_cast<u32>(State::suspended));
    pc_epoch_wait(); // nobody is in map() any more
    drain_waiting_after_stop();
    parts_->log.commit_and_wait();
    admit_work_.stop();
    reclaim_work_.stop();
    parts_->log.stop();
    admit_work_.stop(); // the log's last words may have kicked them
    reclaim_work_.stop();
    if (clean)
        stop_cleanly();
}

void Cache::stop_cleanly() noexcept
{
    parts_->heads.leave_all();
    if (pc_backing_flush(backing_) != 0) {
        state_.store_release(static_cast<u32>(State::failed));
        pc_raise_event(host_);
        pc_log(host_, PC_ERR,
               "not stopped cleanly: the backing device failed a FLUSH; all data is "
               "in the cache and will be written back at the next activation");
        return;
    }
    const rt::Result<u32> crc = take_backing_crc();
    parts_->metadata.set_clean_stop(parts_->log.next_number_at_stop(), parts_->log.durable_head(),
                                    crc ? *crc : 0);
}

rt::Error Cache::resume(media::Refusal &why) noexcept
{
    if (state() != State::suspended) {
        why = {rt::Error::io, "the cache has failed: remove the device"};
        return why.error;
    }
    const format::LogPosition head = parts_->log.durable_head();
    const u64 start_number = parts_->metadata.extension().limit;
    parts_->metadata.begin_session(head, start_number, pc_backing_bytes(backing_));
    parts_->log.begin_session(head, start_number, parts_->log.newest_number());
    run();
    return rt::Error::none;
}

// ---- messages and status ------------------------------------------------------------------

rt::Error Cache::set_gc_percent(u32 percent) noexcept
{
    rt::Guard g(settings_lock_);
    if (state() != State::running)
        return rt::Error::busy;
    const format::CacheInfo now = parts_->metadata.cache_info();
    parts_->metadata.set_flags(format::make_cache_flags(now.data_crc(), true, now.mode(), percent));
    cache_flags_.set(parts_->metadata.cache_info().flags);
    gc_percent_.set(percent);
    reclaim_work_.kick();
    return rt::Error::none;
}

Snapshot Cache::snapshot() noexcept
{
    Snapshot s;
    s.state = state();
    if (s.state == State::inactive)
        return s;
    s.segments = device_.seg_count();
    s.chain_length = device_.chain_length();
    s.segments_used = parts_->segments.used();
    s.gc_percent = gc_percent_.read();
    s.cache_flags = cache_flags_.read();
    s.key_head = parts_->log.durable_head();
    s.dirty_tail = parts_->write_back.dirty_tail().get();
    s.key_tail = parts_->gc.key_tail().get();
    return s;
}

} // namespace pcache::engine
