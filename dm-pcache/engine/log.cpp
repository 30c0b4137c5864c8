// SPDX-License-Identifier: GPL-2.0
// engine/log.cpp - see log.hpp.
#include "dm-pcache/engine/log.hpp"
#include "dm-pcache/media/two_slot.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::engine
{

namespace
{
constinit LockClass log_class{"pcache log"};
constinit LockClass spare_class{"pcache log spare"};
} // namespace

Log::Log(media::Device &device, media::Metadata &metadata, Segments &segments, Tickets &tickets,
         Shard *shards) noexcept
    : device_(device), metadata_(metadata), segments_(segments), tickets_(tickets), shards_(shards),
      spare_lock_(spare_class), lock_(log_class)
{
}

Log::~Log()
{
    pc_free(buffer_);
}

rt::Error Log::allocate(pc_queue *queue, Listener listener) noexcept
{
    listener_ = listener;
    buffer_ = static_cast<u8 *>(pc_alloc(format::max_record_bytes, PC_MAY_SLEEP));
    if (!buffer_)
        return rt::Error::no_memory;
    commit_work_.init(
        queue, [](void *c) { static_cast<Log *>(c)->commit_worker(); }, this);
    spare_work_.init(
        queue, [](void *c) { static_cast<Log *>(c)->spare_worker(); }, this);
    return rt::Error::none;
}

void Log::begin_session(format::LogPosition head, u64 start_number, u64 newest_number,
                        bool leave_segment) noexcept
{
    head_ = head;
    leaving_ |= leave_segment;
    next_number_ = start_number;
    starting_ = true;
    epoch_bound_.set(0);
    none_comes_.set(0);
    newest_number_.set(newest_number);
    durable_head_.set(head);
    tickets_.set_log_rest(leaving_ ? 0 : format::data_bytes - head_.offset);
}

u64 Log::next_number_at_stop() const noexcept
{
    const u64 n = newest_number_.read();
    return n ? format::next_number(n) : 0;
}

bool Log::mark_staged(u32 shard) noexcept
{
    const u64 bit = u64{1} << shard;
    if (staged_.read() & bit)
        return false;
    return staged_.fetch_or(bit) == 0;
}

void Log::staged_first() noexcept
{
    commit_work_.kick_after(staged_age_limit);
}

// ---- group commit -------------------------------------------------------------------------

void Log::commit_for(Request &r) noexcept
{
    bool idle = false;
    {
        rt::Guard g(lock_);
        const bool busy = leading_ && !mutant(Mutant::flush_overtakes_leader);
        if (busy || !nothing_staged()) {
            waiters_.push_back(r);
            if (leading_)
                return;
            leading_ = true;
        } else {
            // All that was staged is durable. What is written from now on is the next epoch's.
            if (!mutant(Mutant::epoch_not_marked))
                epoch_bound_.set(1);
            idle = true;
        }
    }
    if (idle)
        pc_bio_end(r.bio, answer());
    else
        lead(false);
}

bool Log::anybody_waiting() noexcept
{
    rt::Guard g(lock_);
    return leading_ || !waiters_.empty();
}

int Log::answer() const noexcept
{
    return gave_up() && !mutant(Mutant::given_up_forgotten) ? rt::to_errno(rt::Error::io) : 0;
}

void Log::lead(bool may_sleep) noexcept
{
    bool hand_over = false;
    for (u32 round = 0; !hand_over; round++) {
        if (may_sleep)
            pc_yield();
        u64 number = 0;
        {
            rt::Guard g(lock_);
            if (!may_sleep && round == commit_rounds_inline) {
                hand_over = handed_over_ = true;
                break;
            }
            again_ = false;
            number = ++rounds_;
            served_.splice_back(waiters_);
        }
        collect();
        const bool wrote = pending_count_ != 0;
        if (mutant(Mutant::flush_ends_early))
            while (Request *r = served_.pop_front())
                pc_bio_end(r->bio, 0);
        if (write_pending(may_sleep) == Step::needs_worker) {
            rt::Guard g(lock_);
            hand_over = handed_over_ = true;
            break;
        }
        close_if_lost();
        rounds_done_.store_release(number);
        if (awaited_.read())
            progress_.wake();
        if (!served_.empty() && !mutant(Mutant::epoch_not_marked))
            epoch_bound_.set(1);
        while (Request *r = served_.pop_front())
            pc_bio_end(r->bio, answer());
        if (wrote)
            listener_.committed(listener_.context);
        rt::Guard g(lock_);
        if (waiters_.empty() && !again_) {
            leading_ = false;
            break;
        }
    }
    progress_.wake();
    if (hand_over)
        commit_work_.kick();
}

// Takes what the shards have staged, each shard's keys in the order in which they entered the
// index.
void Log::collect() noexcept
{
    u64 shards = staged_.xchg(0);
    while (shards) {
        const u32 i = static_cast<u32>(__builtin_ctzll(shards));
        shards &= shards - 1;
        Shard &s = shards_[i];
        rt::Guard g(s.lock);
        pending_.splice_back(s.staged);
        pending_count_ += s.staged_count;
        s.staged_count = 0;
    }
}

Log::Step Log::write_pending(bool may_sleep) noexcept
{
    while (pending_count_) {
        if (closed()) {
            give_up_pending();
            break;
        }
        const u32 keys =
            rt::min(rt::min(pending_count_, format::geometry.keys_per_kset), keys_that_fit());
        if (!may_store(keys ? format::kset_bytes(keys) : format::record_header_bytes)) {
            advance(LogState::closed);
            continue;
        }
        if (keys) {
            write_kset(keys);
            if (may_sleep)
                pc_yield();
            continue;
        }
        if (!may_sleep)
            return Step::needs_worker;
        next_segment();
    }
    return Step::done;
}

// What is lost with a key is what a write promised: the key of a fill is none, and one of the
// reserve stands in the log already.
void Log::give_up_pending() noexcept
{
    rt::Queue<Ticket> ordinary, reserve;
    u32 count = 0;
    pending_count_ = 0;
    while (Ticket *t = pending_.pop_front()) {
        if (!t->reserve && !(t->flags & format::key_clean))
            gave_up_.store_release(1);
        count += !t->reserve;
        (t->reserve ? reserve : ordinary).push_back(*t);
    }
    tickets_.give(ordinary, count);
    tickets_.give_reserve(reserve);
}

// The only place that changes the state.
void Log::advance(LogState to) noexcept
{
    u32 now = state_.read();
    while (now < static_cast<u32>(to) && !state_.try_cmpxchg(now, static_cast<u32>(to)))
        ;
}

void Log::no_segment_comes() noexcept
{
    none_comes_.store_release(1);
    progress_.wake();
}

void Log::close() noexcept
{
    advance(LogState::closed);
    progress_.wake();
    commit_work_.kick();
}

// Also where nothing is staged: what comes would be given up, so the sooner the better.
void Log::close_if_lost() noexcept
{
    if (!closed() && !may_store(format::record_header_bytes))
        advance(LogState::closed);
    if (!closed() || told_ || mutant(Mutant::log_closes_in_silence))
        return;
    told_ = true;
    listener_.closed(listener_.context);
}

// Only of the head's segment does it matter: nothing is stored behind the head, and a spare is read
// before it is zeroed. The head that others see is in the leader's segment, or in the one before.
void Log::page_lost(format::LogPosition at) noexcept
{
    if (!(at.segment == durable_head().segment))
        return;
    suspect_.store_release(at.segment.value + 1);
    commit_work_.kick();
}

// Whether the next record's pages can be stored to. All of them are looked at, since a bad header
// may have led the reader beyond the head. When the log is closing for whatever was found, too.
bool Log::may_store(u32 bytes) const noexcept
{
    if ((suspect_.load_acquire() != head_.segment.value + 1 && state() == LogState::open) ||
        mutant(Mutant::lost_page_stored_to))
        return true;
    const u64 data = device_.data_offset(head_.segment);
    for (u64 page = rt::round_down(head_.offset, format::page_bytes); page < head_.offset + bytes;
         page += format::page_bytes) {
        if (!media::page_readable(device_, data + page))
            return false;
    }
    return true;
}

// 24 bytes are always kept free for the LAST record.
u32 Log::keys_that_fit() const noexcept
{
    const u32 rest = leaving_ ? 0 : format::data_bytes - head_.offset;
    const u32 fixed = (mutant(Mutant::no_room_for_last) ? 1 : 2) * format::record_header_bytes;
    return rest > fixed ? (rest - fixed) / u32{sizeof(format::Key)} : 0;
}

void Log::write_kset(u32 keys) noexcept
{
    rt::Queue<Ticket> done, done_reserve;
    u32 ordinary = 0;
    u64 dirty = 0;
    for (u32 i = 0; i < keys; i++) {
        Ticket *t = pending_.pop_front();
        format::Key k{};
        k.off = t->sector * format::sector_bytes;
        k.len = t->sectors * format::sector_bytes;
        k.cache_seg_id = t->place.segment;
        k.cache_seg_off = t->place.sector * format::sector_bytes;
        k.seg_gen = t->generation;
        k.data_crc = t->data_crc;
        k.flags = t->flags;
        __builtin_memcpy(buffer_ + format::kset_bytes(i), &k, sizeof(k));
        if (!(k.flags & format::key_clean))
            dirty += k.len;
        ordinary += !t->reserve;
        (t->reserve ? done_reserve : done).push_back(*t);
    }
    pending_count_ -= keys;
    if (ordinary)
        newest_ordinary_.set(next_number_);
    const u32 bytes = format::seal_kset(buffer_, keys, flags_of_next());
    dirty_bytes_.fetch_add(dirty);
    store_record(buffer_, bytes);
    head_.offset += bytes;
    record_stored();
    tickets_.give(done, ordinary);
    tickets_.give_reserve(done_reserve);
}

// Steps 2 and 3 of "New log segment"; step 1 was the spare's. Sleeps.
void Log::next_segment() noexcept
{
    SegmentId next;
    while (!segments_.use_spare(next)) {
        // Here and now, since no work may wait for another. Without a free segment GC is waited
        // for, while there is one: by the room that tickets have in the log there is a segment,
        // unless it cannot be zeroed.
        const bool last_chance = none_comes_.load_acquire() != 0;
        if (make_spare())
            continue;
        if (last_chance && !mutant(Mutant::log_waits_without_gc))
            advance(LogState::closed);
        if (closed())
            return;
        progress_.wait([this] {
            return segments_.has_spare() || closed() ||
                   (none_comes_.load_acquire() && !mutant(Mutant::log_waits_without_gc));
        });
    }
    const format::RecordHeader last = format::encode_last(next, flags_of_next());
    store_record(&last, sizeof(last));
    segments_.set_log_next(head_.segment, next);
    leaving_ = false;
    head_ = {next, 0};
    metadata_.set_link(next, format::advance(next_number_, format::number_reserve));
    if (metadata_.failed())
        return; // without link_seg no record may follow; closed() from here on
    record_stored();
    spare_work_.kick();
}

void Log::store_record(const void *record, u32 bytes) noexcept
{
    const media::Pin pin;
    media::persist::store(pin, device_.data(head_.segment) + head_.offset, record, bytes);
    if (mutant(Mutant::write_back_too_early))
        durable_head_.set({head_.segment, head_.offset + bytes});
    if (!mutant(Mutant::record_without_fence))
        media::persist::fence(pin);
}

// Number and marks of the record that is being made.
format::RecordFlags Log::flags_of_next() noexcept
{
    const bool epoch = epoch_bound_.xchg(0) != 0;
    const format::RecordFlags f = format::RecordFlags::make(next_number_, epoch, starting_);
    newest_number_.set(next_number_);
    next_number_ = format::next_number(next_number_);
    starting_ = false;
    return f;
}

// The record in front of head_ is durable: write-back may go by it.
void Log::record_stored() noexcept
{
    records_.add(1);
    durable_head_.set(head_);
    tickets_.set_log_rest(format::data_bytes - head_.offset);
}

// ---- workers ------------------------------------------------------------------------------

// With lock_. True: the caller leads from here on, since nobody did, or a leader that must not
// sleep has handed its role over.
bool Log::take_lead() noexcept
{
    if (leading_ && !handed_over_)
        return false;
    leading_ = true;
    handed_over_ = false;
    return true;
}

void Log::commit_worker() noexcept
{
    {
        rt::Guard g(lock_);
        if (!take_lead()) {
            again_ = true;
            return;
        }
    }
    lead(true);
}

// Both of these are called by works. They lead themselves: the commit worker may not run before the
// caller has ended, where one thread serves the queue.
void Log::commit_and_wait() noexcept
{
    for (;;) {
        bool leads = false;
        {
            rt::Guard g(lock_);
            if (!leading_ && nothing_staged())
                return;
            leads = take_lead();
        }
        if (leads) {
            lead(true);
            continue;
        }
        progress_.wait([this] {
            rt::Guard g(lock_);
            return !leading_ || handed_over_;
        });
    }
}

void Log::commit_staged_so_far() noexcept
{
    u64 round = 0;
    awaited_.fetch_add(1);
    for (;;) {
        bool leads = false;
        {
            rt::Guard g(lock_);
            // One that begins from now on. A leader at work does another one.
            round = round ? round : rounds_ + 1;
            if (rounds_done_.load_acquire() >= round || closed())
                break;
            leads = !mutant(Mutant::commit_by_the_worker) && take_lead();
            again_ = !leads;
        }
        if (leads) {
            lead(true);
            continue;
        }
        if (mutant(Mutant::commit_by_the_worker))
            commit_work_.kick();
        progress_.wait([this, round] {
            rt::Guard g(lock_);
            const bool free = !leading_ || handed_over_;
            return rounds_done_.load_acquire() >= round || closed() ||
                   (free && !mutant(Mutant::commit_by_the_worker));
        });
    }
    awaited_.fetch_add(~0u);
}

// Makes the spare: step 1 of "New log segment", in small steps and long before it is needed.
void Log::spare_worker() noexcept
{
    if (make_spare())
        listener_.committed(listener_.context); // the log has room again
}

// True: there is a spare. False: no segment is free, or the log has closed. Sleeps.
bool Log::make_spare() noexcept
{
    rt::Guard g(spare_lock_);
    SegmentId s;
    for (;;) {
        if (segments_.has_spare())
            return true;
        if (closed() || !segments_.take_for_log(s))
            return false;
        const rt::Error e = zero_segment(s);
        if (ok(e))
            break;
        if (e == rt::Error::io)
            (void)segments_.mark_bad(s);
        segments_.release(s); // if it is bad, retired by that
    }
    segments_.set_spare(s);
    progress_.wake();
    return true;
}

// Error::io: something in it cannot be read. Such a page may have lost its mapping, and is not
// stored to; and what the log stores must be readable. Error::busy: the log has closed.
rt::Error Log::zero_segment(SegmentId s) noexcept
{
    const u8 *data = device_.data(s);
    const u32 all =
        mutant(Mutant::spare_zeroed_in_part) ? format::data_bytes / 2 : format::data_bytes;
    for (u32 at = 0; at < all; at += zero_step) {
        if (closed())
            return rt::Error::busy;
        const u32 bytes = rt::min(zero_step, all - at);
        RT_TRY(media::persist::probe(data + at, bytes));
        // What was kept of an older log's page would be read in place of the new records.
        for (u32 page = 0; page < bytes && !mutant(Mutant::kept_page_survives_zeroing);
             page += format::page_bytes)
            device_.forget(device_.data_offset(s) + at + page);
        const media::Pin pin;
        if (!mutant(Mutant::spare_not_zeroed))
            media::persist::zero(pin, data + at, bytes);
        media::persist::fence(pin);
        pc_yield();
    }
    return rt::Error::none;
}

void Log::stop() noexcept
{
    commit_work_.stop();
    spare_work_.stop();
}

} // namespace pcache::engine
