// SPDX-License-Identifier: GPL-2.0
// media/inspect.cpp - activation step 1: see inspect.hpp. Stores nothing.
#include "dm-pcache/media/inspect.hpp"

namespace pcache::media
{

using format::LogPosition;
using rt::Error;

namespace
{

constexpr const char *no_memory_sentence = "not enough memory to read the cache device";

template <class T>
T *allocate_table(u32 count) noexcept
{
    return static_cast<T *>(pc_alloc(u64{count} * sizeof(T), PC_MAY_SLEEP));
}

// Freed at the end of the scope.
template <class T>
class Table : rt::NonCopyable
{
    T *data_;

public:
    explicit Table(u32 count) noexcept : data_(allocate_table<T>(count)) {}
    ~Table() { pc_free(data_); }
    T *get() const noexcept { return data_; }
};

} // namespace

Inspection::~Inspection()
{
    clear();
}

void Inspection::clear() noexcept
{
    pc_free(generations);
    pc_free(log_segments);
    pc_free(emptied);
    generations = nullptr;
    log_segments = emptied = nullptr;
    kind = MediaKind::blank;
    cache_info = {};
    key_tail = dirty_tail = head = damage_at = newest_record = {};
    start_number = newest_number = records = keys = dirty_keys = 0;
    backing_crc = segments = damage = seg_num = newest_record_bytes = 0;
    clean_stop = ours = has_extension = dropped_front = dirty_tail_lost = key_tail_lost = false;
    all_keys_go = rebuild_superblock = has_newest_record = false;
    extension = {};
}

Error Activation::refuse_damage(Inspection &out, u32 bits, LogPosition at, Refusal &why) noexcept
{
    out.damage = bits;
    out.damage_at = at;
    pc_log(host_, PC_ERR, "damage at %u:%u of the log (proofs %#x): %s", at.segment.value,
           at.offset, bits, damage_sentence(bits));
    return refuse(why, bits & damage::newer ? Error::not_supported : Error::io,
                  damage_sentence(bits));
}

Error Activation::inspect(const BackingFacts &backing, Inspection &out, Refusal &why) noexcept
{
    out.clear();
    if (!ok(reader_.allocate()))
        return refuse(why, Error::no_memory, no_memory_sentence);
    Identity id;
    RT_TRY(identify(device_, host_, reader_, id, why));
    if (id.formattable)
        return Error::none;
    out.kind = MediaKind::cache;
    out.cache_info = id.cache_info;
    out.segments = id.cache_info.n_segs;
    out.seg_num = id.seg_num;
    out.rebuild_superblock = id.rebuild_superblock;
    out.has_extension = id.has_extension;
    out.extension = id.extension;
    out.clean_stop = id.has_extension && id.extension.clean_stop();
    out.backing_crc = out.clean_stop ? id.extension.backing_crc : 0;
    if (id.has_extension && backing.bytes < id.extension.backing_bytes) {
        pc_log(host_, PC_ERR, "backing device has %llu bytes, the cache was made for %llu",
               backing.bytes, id.extension.backing_bytes);
        return refuse(why, Error::invalid,
                      "backing device is smaller than the one this cache belongs to");
    }
    RT_TRY(allocate_tables(out, why));
    RT_TRY(read_chain(out, why));
    out.ours = id.has_extension && id.extension.names_cache_info(id.cache_info_crc);
    RT_TRY(read_tails(out, why));
    return read_log(backing, out, why);
}

Error Activation::allocate_tables(Inspection &out, Refusal &why) noexcept
{
    out.generations = allocate_table<u64>(out.segments);
    out.log_segments = allocate_table<u8>(out.segments);
    out.emptied = allocate_table<u8>(out.segments);
    if (!out.generations || !out.log_segments || !out.emptied)
        return refuse(why, Error::no_memory, no_memory_sentence);
    return Error::none;
}

// The chain maps logical segments to physical ones; no segment may be in it twice.
Error Activation::read_chain(Inspection &out, Refusal &why) noexcept
{
    Table<u8> seen(out.seg_num);
    u32 *chain = allocate_table<u32>(out.segments);
    if (!seen.get() || !chain) {
        pc_free(chain);
        return refuse(why, Error::no_memory, no_memory_sentence);
    }
    const char *bad = nullptr;
    bool identity = true;
    format::PhysicalSegment at = out.cache_info.first;
    u32 i = 0;
    for (; i < out.segments && !bad; i++) {
        format::SegmentInfoRecord r;
        format::SegmentLink link;
        TwoSlot slots;
        if (at.value >= out.seg_num || seen.get()[at.value]) {
            bad = "cache device is damaged: its segment chain is not a chain";
            break;
        }
        seen.get()[at.value] = 1;
        chain[i] = at.value;
        identity = identity && at.value == i;
        if (!slots.load(device_, segment_info_place(at), &r))
            bad = "cache device is damaged: neither copy of a segment_info is good";
        else if (const auto state = format::decode_segment_info(r, link);
                 state != format::SegmentInfoState::good)
            bad = state == format::SegmentInfoState::newer
                      ? "a segment_info was written by a newer driver: use that one"
                      : "cache device is damaged: a segment of the chain is of another type";
        else if (i + 1 < out.segments && !link.has_next)
            bad = "cache device is damaged: its segment chain is too short";
        at = link.next;
        pc_yield();
    }
    if (bad) {
        pc_log(host_, PC_ERR, "segment chain, position %u, segment %u: %s", i, at.value, bad);
        pc_free(chain);
        return refuse(why, Error::io, bad);
    }
    if (identity) {
        pc_free(chain);
        chain = nullptr;
    }
    device_.set_chain(chain, out.segments);
    return Error::none;
}

Error Activation::read_tails(Inspection &out, Refusal &why) noexcept
{
    format::PositionRecord key, dirty;
    TwoSlot slots;
    const bool key_good = slots.load(device_, key_tail_place, &key);
    const bool dirty_good = slots.load(device_, dirty_tail_place, &dirty);
    if (key_good)
        out.key_tail = format::decode_position(key);
    if (dirty_good)
        out.dirty_tail = format::decode_position(dirty);
    out.ours = out.ours && key_good && format::has_mark(key);
    out.key_tail_lost = !key_good;
    out.dirty_tail_lost = !dirty_good;
    RT_TRY(stand_in_for_tails(out, key_good, dirty_good, why));
    const bool key_possible = format::possible_position(out.key_tail, out.segments);
    if (key_possible && format::possible_position(out.dirty_tail, out.segments))
        return Error::none;
    return refuse_damage(out, damage::bad_tail, key_possible ? out.dirty_tail : out.key_tail, why);
}

Error Activation::stand_in_for_tails(Inspection &out, bool key_good, bool dirty_good,
                                     Refusal &why) noexcept
{
    if (key_good && dirty_good)
        return Error::none;
    if (dirty_good) {
        out.key_tail = out.dirty_tail;
        pc_log(host_, PC_WARN,
               "key_tail cannot be read: clean data in front of dirty_tail is lost");
        return Error::none;
    }
    if (key_good) {
        out.dirty_tail = out.key_tail;
    } else {
        format::CacheInfoRecord info;
        TwoSlot slots;
        if (!out.has_extension || !slots.load(device_, cache_info_place, &info) ||
            !out.extension.names_cache_info(info.header.crc))
            return refuse_damage(out, damage::tails, {}, why);
        out.key_tail = out.dirty_tail = out.extension.safe_tail;
    }
    pc_log(
        host_, PC_WARN,
        "dirty_tail cannot be read: all of the log is written back again; until that is done the "
        "backing device may go back to an earlier epoch");
    return Error::none;
}

// Walks the log and judges its end. Damage bits; 0: `w` is the walk that counts. A hole in front of
// dirty_tail costs clean data only: the walk from there counts then, if it ends well.
u32 Activation::find_end(const WalkContext &c, Inspection &out, WalkFacts &w,
                         u64 &newest_read) noexcept
{
    w = walk_log(c, out.key_tail);
    newest_read = w.newest_number;
    if (w.met_dirty_tail || (w.broken & (damage::newer | damage::bad_key)))
        return judge_end(c, w);

    const LogPosition hole = w.end;
    w = walk_log(c, out.dirty_tail);
    if (w.newest_number && (!newest_read || format::after(w.newest_number, newest_read)))
        newest_read = w.newest_number;
    if (const u32 bits = judge_end(c, w)) {
        pc_log(host_, PC_ERR, "the log from dirty_tail on ends badly, too, at %u:%u (proofs %#x)",
               w.end.segment.value, w.end.offset, bits);
        w.end = hole;
        return bits & (damage::newer | damage::bad_key) ? bits : damage::dirty_tail_missed;
    }
    pc_log(host_, PC_WARN, "hole in the log at %u:%u, in front of dirty_tail: clean data is lost",
           hole.segment.value, hole.offset);
    out.dropped_front = true;
    out.key_tail = out.dirty_tail;
    for (u32 i = 0; i < out.segments; i++)
        c.facts[i].lowest_front = ~u64{0}; // what was dropped is not asked for staleness
    return 0;
}

Error Activation::read_log(const BackingFacts &backing, Inspection &out, Refusal &why) noexcept
{
    Table<SegmentFacts> facts(out.segments);
    if (!facts.get())
        return refuse(why, Error::no_memory, no_memory_sentence);
    for (u32 i = 0; i < out.segments; i++)
        facts.get()[i] = {};
    const WalkContext c{
        &device_,         &reader_,       out.has_extension ? &out.extension : nullptr,
        out.ours,         out.dirty_tail, {out.segments, backing.bytes},
        out.log_segments, facts.get()};
    WalkFacts w;
    u64 newest_read = 0;
    const u32 bits = find_end(c, out, w, newest_read);
    if (bits & damage::bad_key)
        pc_log(host_, PC_ERR, "a key of the record at %u:%u is out of bounds (fault %u)",
               w.end.segment.value, w.end.offset, static_cast<u32>(w.key_fault));
    if (bits)
        return refuse_damage(out, bits, w.end, why);
    out.head = w.end;
    out.records = w.records;
    out.keys = w.keys;
    out.dirty_keys = w.dirty_keys;
    out.newest_number = w.newest_number;
    out.has_newest_record = w.records != 0;
    out.newest_record = w.newest_at;
    out.newest_record_bytes = w.newest_bytes;
    choose_start_number(newest_read, out);
    RT_TRY(read_generations(facts.get(), out, why));
    if (const Error e = pass_stale_front(facts.get(), out); !ok(e))
        return refuse(why, e, "the log of the cache device cannot be read a second time");
    return compare_backing(backing, facts.get(), out, why);
}

// A START record takes `limit`, so that no number is used twice in a cache's life.
void Activation::choose_start_number(u64 newest_read, Inspection &out) noexcept
{
    if (out.has_extension && (!newest_read || format::after(out.extension.limit, newest_read))) {
        out.start_number = out.extension.limit;
        return;
    }
    if (newest_read) {
        out.start_number = format::advance(newest_read, format::number_skip);
        return;
    }
    u64 random = 0;
    pc_random(&random, sizeof(random));
    random &= format::number_mask;
    out.start_number = random ? random : 1;
}

// Generations from media and, where a slot was lost, from the log.
Error Activation::read_generations(const SegmentFacts *facts, Inspection &out,
                                   Refusal &why) noexcept
{
    for (u32 i = 0; i < out.segments; i++) {
        const SegmentFacts &f = facts[i];
        format::GenerationRecord r;
        TwoSlot slots;
        u64 gen;
        if (slots.load(device_, generation_place(device_.physical({i})), &r)) {
            gen = r.gen;
            if (f.in_front)
                gen = rt::max(gen, f.highest_front);
            if (f.behind)
                gen = rt::max(gen, f.highest_behind);
        } else {
            gen = f.behind     ? f.highest_behind
                  : f.in_front ? format::next_generation(f.highest_front)
                               : format::first_generation;
        }
        out.generations[i] = gen;
        if (f.lowest_dirty < gen && !out.dirty_tail_lost) {
            pc_log(host_, PC_ERR, "segment %u has generation %llu, a dirty key says %llu", i, gen,
                   f.lowest_dirty);
            return refuse_damage(out, damage::stale_dirty, out.dirty_tail, why);
        }
        pc_yield();
    }
    return Error::none;
}

// key_tail goes behind the last record in front of dirty_tail that holds a stale key: this ends a
// GC pass that was cut.
Error Activation::pass_stale_front(const SegmentFacts *facts, Inspection &out) noexcept
{
    bool any = false;
    for (u32 i = 0; i < out.segments && !any; i++)
        any = facts[i].in_front && facts[i].lowest_front < out.generations[i];
    if (!any)
        return Error::none;

    LogPosition tail = out.key_tail;
    Record r;
    for (LogPosition at = out.key_tail; !(at == out.dirty_tail); at = r.behind()) {
        if (reader_.read(device_, at, r) != ReadOutcome::good)
            return Error::io;
        for (u32 i = 0; i < r.keys(); i++) {
            const format::Key k = reader_.key(i);
            if (k.seg_gen < out.generations[k.cache_seg_id])
                tail = r.behind();
        }
        pc_yield();
    }
    // What is counted from key_tail on is counted anew.
    out.key_tail = tail;
    out.records = out.keys = out.newest_number = 0;
    __builtin_memset(out.log_segments, 0, out.segments);
    out.log_segments[tail.segment.value] = 1;
    for (LogPosition at = tail; !(at == out.head); at = r.behind()) {
        if (reader_.read(device_, at, r) != ReadOutcome::good)
            return Error::io;
        out.records++;
        out.keys += r.keys();
        if (r.flags.number())
            out.newest_number = r.flags.number();
        out.log_segments[r.behind().segment.value] = 1;
        pc_yield();
    }
    return Error::none;
}

// Somebody mounted, formatted or swapped the backing device behind a clean stop.
Error Activation::compare_backing(const BackingFacts &backing, const SegmentFacts *facts,
                                  Inspection &out, Refusal &why) noexcept
{
    if (!out.ours || !out.clean_stop || !out.backing_crc || !backing.first_crc ||
        out.backing_crc == backing.first_crc)
        return Error::none;
    pc_log(host_, PC_WARN, "backing device has changed: crc %08x at the clean stop, %08x now",
           out.backing_crc, backing.first_crc);
    if (out.dirty_keys)
        return refuse(why, Error::invalid,
                      "backing device was changed behind the cache, which holds dirty data for it: "
                      "attach the right device, or clear the cache");
    pc_log(host_, PC_WARN, "all cached data is dropped: it was clean, and may be out of date");
    out.all_keys_go = true;
    for (u32 i = 0; i < out.segments; i++) {
        if (!facts[i].in_front && !facts[i].behind)
            continue;
        const u64 raised = format::next_generation(out.generations[i]);
        out.emptied[i] = raised != out.generations[i];
        out.generations[i] = raised;
    }
    out.key_tail = out.dirty_tail = out.head;
    out.records = out.keys = out.newest_number = 0;
    __builtin_memset(out.log_segments, 0, out.segments);
    out.log_segments[out.head.segment.value] = 1;
    return Error::none;
}

ReplayedKey Activation::replayed(const Inspection &in, const Record &r, u32 i,
                                 bool dirty) const noexcept
{
    const format::Key k = reader_.key(i);
    return {k.off,
            k.len,
            {k.cache_seg_id},
            k.cache_seg_off,
            k.seg_gen,
            k.data_crc,
            k.seg_gen < in.generations[k.cache_seg_id],
            dirty && !(k.flags & format::key_clean),
            r.at};
}

} // namespace pcache::media
