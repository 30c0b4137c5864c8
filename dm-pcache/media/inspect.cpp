// SPDX-License-Identifier: GPL-2.0
// media/inspect.cpp - activation step 1: see inspect.hpp. Stores nothing.
#include "dm-pcache/media/disk_blocks.hpp"
#include "dm-pcache/media/inspect.hpp"
#include "dm-pcache/mutants.hpp"

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
    pc_free(retired);
    generations = nullptr;
    log_segments = emptied = retired = nullptr;
    kind = MediaKind::blank;
    cache_info = {};
    key_tail = dirty_tail = head = damage_at = newest_record = {};
    start_number = newest_number = records = keys = dirty_keys = 0;
    disk_differs = segments = damage = seg_num = newest_record_bytes = 0;
    clean_stop = ours = has_extension = dropped_front = dirty_tail_lost = key_tail_lost = false;
    leave_head_segment = false;
    front_passed = false;
    front_beyond = has_disk = disk_judged = false;
    disk = {};
    key_tail_until_drop = dirty_tail_until_drop = {};
    newest_until_drop = 0;
    all_keys_go = rebuild_superblock = has_newest_record = format_cut_short = false;
    former_settings = cache_info_lost = false;
    runs.clear();
    extension = {};
}

Error Activation::inspect(const BackingFacts &backing, Inspection &out, Refusal &why) noexcept
{
    out.clear();
    if (!ok(reader_.allocate_by_pages()))
        return refuse(why, Error::no_memory, no_memory_sentence);
    reader_.new_pages();
    Identity id;
    RT_TRY(identify(device_, host_, reader_, id, why));
    out.format_cut_short = id.formattable && id.has_extension;
    out.former_settings = id.former_settings;
    if (id.former_settings)
        out.cache_info = id.cache_info;
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
    if (id.has_extension && backing.bytes < id.extension.backing_bytes) {
        pc_log(host_, PC_ERR, "backing device has %llu bytes, the cache was made for %llu",
               backing.bytes, id.extension.backing_bytes);
        return refuse(why, Error::invalid, small_backing_sentence);
    }
    RT_TRY(allocate_tables(out, why));
    RT_TRY(read_chain(out, why));
    find_bad_segments(out);
    out.ours = id.has_extension && id.extension.names_cache_info(id.cache_info_crc);
    out.cache_info_lost = id.cache_info_lost;
    if (id.cache_info_lost)
        note_damage(out, damage::cache_info, {});
    if (id.newer_extension)
        note_damage(out, damage::newer, {});
    read_tails(out);
    read_disk_record(out);
    return read_log(backing, out, why);
}

Error Activation::allocate_tables(Inspection &out, Refusal &why) noexcept
{
    out.generations = allocate_table<u64>(out.segments);
    out.log_segments = allocate_table<u8>(out.segments);
    out.emptied = allocate_table<u8>(out.segments);
    out.retired = allocate_table<u8>(out.segments);
    if (!out.generations || !out.log_segments || !out.emptied || !out.retired)
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
    if (!device_.set_chain(chain, out.segments))
        return refuse(
            why, Error::io,
            "the segment chain of the active cache device has changed: remove the device");
    return Error::none;
}

void Activation::find_bad_segments(Inspection &out) noexcept
{
    if (!device_.bad_pages())
        return;
    for (u32 i = 0; i < out.segments; i++)
        out.retired[i] = device_.in_bad_page(device_.data_offset({i}), format::data_bytes);
}

void Activation::read_tails(Inspection &out) noexcept
{
    format::PositionRecord key, dirty;
    TwoSlot slots;
    const bool key_good = slots.load(device_, key_tail_place, &key);
    const bool dirty_good = slots.load(device_, dirty_tail_place, &dirty);
    if (key_good)
        out.key_tail = format::decode_position(key);
    if (dirty_good)
        out.dirty_tail = format::decode_position(dirty);
    // Mainline stores dirty_tail without our mark as soon as it has written something back.
    out.disk_judged = !dirty_good || format::has_mark(dirty) || mutant(Mutant::disk_mark_not_asked);
    // If neither can be read, that the extended superblock names the newest cache_info is enough: a
    // log taken for damaged by mistake is read-only, one taken for ended by mistake is lost.
    if (key_good)
        out.ours = out.ours && (format::has_mark(key) || mutant(Mutant::mark_not_asked));
    else if (dirty_good)
        out.ours = out.ours && format::has_mark(dirty);
    out.ours = out.ours && (key_good || !mutant(Mutant::ours_by_key_tail_alone));
    out.key_tail_lost = !key_good;
    out.dirty_tail_lost = !dirty_good;
    stand_in_for_tails(out, key_good, dirty_good);
    if (!(out.damage & damage::tails))
        judge_tails(out);
}

// Whether it counts is asked when *ours* is known.
void Activation::read_disk_record(Inspection &out) noexcept
{
    format::DiskRecord r;
    TwoSlot slots;
    out.has_disk = slots.load(device_, disk_record_place, &r, format::is_disk_record) &&
                   format::decode_disk_record(r, out.disk);
    out.disk_judged = out.disk_judged && out.has_disk && out.ours &&
                      (!out.extension.former_crc || mutant(Mutant::former_crc_not_asked));
}

// Whether the extended superblock knows where key_tail stood.
bool Activation::safe_tail_stands(const Inspection &out) noexcept
{
    format::CacheInfoRecord info;
    TwoSlot slots;
    return out.has_extension && slots.load(device_, cache_info_place, &info) &&
           out.extension.names_cache_info(info.header.crc);
}

void Activation::stand_in_for_tails(Inspection &out, bool key_good, bool dirty_good) noexcept
{
    if (key_good && dirty_good)
        return;
    if (dirty_good) {
        out.key_tail = out.dirty_tail;
        pc_log(host_, PC_WARN,
               "key_tail cannot be read: clean data in front of dirty_tail is lost");
        return;
    }
    if (key_good) {
        out.dirty_tail = out.key_tail;
    } else if (safe_tail_stands(out)) {
        out.key_tail = out.dirty_tail = out.extension.safe_tail;
    } else {
        note_damage(out, damage::tails, {});
        return;
    }
    pc_log(
        host_, PC_WARN,
        "dirty_tail cannot be read: all of the log is written back again; until that is done the "
        "backing device may go back to an earlier epoch");
}

// A tail where no record can begin is damage; what is read of such a log is read as if that tail
// could not be read.
void Activation::judge_tails(Inspection &out) noexcept
{
    const bool key_possible = format::possible_position(out.key_tail, out.segments);
    const bool dirty_possible = format::possible_position(out.dirty_tail, out.segments);
    if (key_possible && dirty_possible)
        return;
    note_damage(out, damage::bad_tail, key_possible ? out.dirty_tail : out.key_tail);
    out.dirty_tail_lost = out.dirty_tail_lost || !dirty_possible;
    if (dirty_possible)
        out.key_tail = out.dirty_tail;
    else if (key_possible)
        out.dirty_tail = out.key_tail;
    else if (safe_tail_stands(out) &&
             format::possible_position(out.extension.safe_tail, out.segments))
        out.key_tail = out.dirty_tail = out.extension.safe_tail;
    else
        out.damage |= damage::tails;
}

// Walks the log and judges its end. Damage bits; 0: `w` is the walk that counts. A hole in front of
// dirty_tail costs clean data only: the walk from there counts then, if it ends well.
u32 Activation::find_end(const WalkContext &c, Inspection &out, WalkFacts &w,
                         u64 &newest_read) noexcept
{
    w = walk_log(c, out.key_tail);
    newest_read = w.newest_number;
    if (w.met_dirty_tail || mutant(Mutant::proof_a_ignored) ||
        (w.broken & (damage::newer | damage::bad_key)))
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
    return 0;
}

// Activation may have to rewrite the page in which the log ends. Where records of it are dirty, a
// cut in that block write must show: by the number of the newest record, or by none having one.
u32 Activation::judge_heads_page(Inspection &out, const WalkFacts &w) noexcept
{
    if (w.last_number || !w.newest_number || w.end.offset >= format::data_bytes)
        return 0;
    const LogPosition before = out.head;
    out.head = w.end;
    const HeadsPage p = heads_page(out);
    out.head = before;
    if (p.dirty == p.head || mutant(Mutant::rewrite_not_proved) || page_readable(device_, p.offset))
        return 0;
    return damage::heads_page;
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
    const u32 tails = out.damage & (damage::tails | damage::bad_tail);
    u32 bits = tails ? 0 : find_end(c, out, w, newest_read);
    if (!tails && !bits)
        bits = judge_heads_page(out, w);
    if (bits & damage::bad_key)
        pc_log(host_, PC_ERR, "a key of the record at %u:%u is out of bounds (fault %u)",
               w.end.segment.value, w.end.offset, static_cast<u32>(w.key_fault));
    if (bits)
        note_damage(out, bits, w.end);
    if ((bits || tails) && !ok(salvage_log(c, out, w)))
        return refuse(why, Error::no_memory, no_memory_sentence);
    take_walk(w, out);
    RT_TRY(fit_blocks(backing, w, why));
    if (out.cache_info_lost && w.any_crc)
        out.cache_info.flags |= format::cache_info_bits::data_crc;
    if (w.newest_number && (!newest_read || format::after(w.newest_number, newest_read)))
        newest_read = w.newest_number;
    choose_start_number(newest_read, out);
    read_generations(facts.get(), out);
    RT_TRY(fit_table(backing, w, out, why));
    Error e = out.dirty_tail_lost ? shorten_redo(out) : Error::none;
    if (ok(e) && !out.damage)
        e = pass_stale_front(facts.get(), backing.table_bytes, out);
    if (!ok(e))
        return refuse(why, e, unread_log_sentence);
    return compare_backing(backing, facts.get(), out, why);
}

void Activation::take_walk(const WalkFacts &w, Inspection &out) noexcept
{
    if (!out.runs.count())
        out.head = w.end;
    out.records = w.records;
    out.keys = w.keys;
    out.dirty_keys = w.dirty_keys;
    out.newest_number = w.newest_number;
    out.has_newest_record = w.records != 0;
    out.newest_record = w.newest_at;
    out.newest_record_bytes = w.newest_bytes;
}

// A START record takes `limit`, so that no number is used twice in a cache's life.
void Activation::choose_start_number(u64 newest_read, Inspection &out) noexcept
{
    if (mutant(Mutant::start_follows_last) && newest_read) {
        out.start_number = format::next_number(newest_read);
        return;
    }
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

// Generations from media and, where a slot was lost, from the log. The same rules hold for a
// damaged log, with the records that count: a segment is given a new generation only when key_tail
// has left its keys, so all its keys between key_tail and the head have the same one, and those
// that are lost in a hole say no more than those that are left. With none left, and no slot good,
// nothing points there.
void Activation::read_generations(const SegmentFacts *facts, Inspection &out) noexcept
{
    for (u32 i = 0; i < out.segments; i++) {
        const SegmentFacts &f = facts[i];
        format::GenerationRecord r;
        TwoSlot slots;
        u64 gen;
        if (slots.load(device_, generation_place(device_.physical({i})), &r)) {
            gen = r.gen;
            if (f.in_front && !mutant(Mutant::generation_not_proved))
                gen = rt::max(gen, f.highest_front);
            if (f.behind && !mutant(Mutant::generation_not_proved))
                gen = rt::max(gen, f.highest_behind);
        } else {
            gen = f.behind     ? f.highest_behind
                  : f.in_front ? format::next_generation(f.highest_front)
                               : format::first_generation;
        }
        out.generations[i] = gen;
        if (f.lowest_dirty < gen && !out.dirty_tail_lost && !mutant(Mutant::stale_dirty_accepted)) {
            pc_log(host_, PC_ERR, "segment %u has generation %llu, a dirty key says %llu", i, gen,
                   f.lowest_dirty);
            if (!(out.damage & damage::stale_dirty))
                note_damage(out, damage::stale_dirty, out.dirty_tail);
        }
        pc_yield();
    }
}

// Where the last record of [from, stop) that holds a stale key, or one beyond table_bytes, ends;
// `from` if none does.
Error Activation::find_end_of_stale(const Inspection &out, LogPosition from, LogPosition stop,
                                    u64 table_bytes, LogPosition &end) noexcept
{
    end = from;
    Record r;
    for (LogPosition at = from; !(at == stop); at = r.behind()) {
        if (reader_.read(device_, at, r) != ReadOutcome::good)
            return Error::io;
        for (u32 i = 0; i < r.keys(); i++) {
            const format::Key k = reader_.key(i);
            if (k.seg_gen < out.generations[k.cache_seg_id] || k.off + k.len > table_bytes)
                end = r.behind();
        }
        pc_yield();
    }
    return Error::none;
}

// key_tail goes to `tail`: what is counted from there on is counted anew.
Error Activation::move_key_tail(Inspection &out, LogPosition tail) noexcept
{
    out.key_tail = tail;
    out.records = out.keys = out.newest_number = 0;
    __builtin_memset(out.log_segments, 0, out.segments);
    out.log_segments[tail.segment.value] = 1;
    Record r;
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

Error Activation::pass_front(Inspection &in, LogPosition tail) noexcept
{
    RT_TRY(reader_.allocate());
    in.front_passed = true;
    return move_key_tail(in, tail);
}

// The logical block of the backing device may have grown. Clean keys that are not whole blocks are
// recovery's to ignore.
Error Activation::fit_blocks(const BackingFacts &backing, const WalkFacts &w, Refusal &why) noexcept
{
    const char *sentence = grown_block_sentence(w.dirty_bits, backing.block);
    if (!sentence || mutant(Mutant::block_not_compared))
        return Error::none;
    return refuse(why, Error::invalid, sentence);
}

// Keys beyond the end of the table: dirty ones, and clean ones behind dirty_tail, must be written
// back first, unless all that stands behind it is clean; others leave the log. No key leaves a
// damaged log: clean ones beyond are not served (Cache::build_read_only).
Error Activation::fit_table(const BackingFacts &backing, const WalkFacts &w, Inspection &out,
                            Refusal &why) noexcept
{
    if (out.damage)
        return w.dirty_end > backing.table_bytes
                   ? refuse(why, Error::invalid, short_read_only_sentence)
                   : Error::none;
    out.front_beyond = w.front_end > backing.table_bytes;
    if (w.behind_end > backing.table_bytes && !w.dirty_keys) {
        out.front_beyond = true;
        out.dirty_tail = out.head; // as write-back would do
    } else if (w.behind_end > backing.table_bytes) {
        return refuse_short_table(host_, backing.table_bytes, w.behind_end, why);
    }
    if (out.front_beyond)
        pc_log(host_, PC_WARN, "clean data beyond the end of the table is dropped");
    return Error::none;
}

// key_tail goes behind the last record in front of dirty_tail that holds a stale key, which ends a
// GC pass that was cut, or a key beyond the end of the table.
Error Activation::pass_stale_front(const SegmentFacts *facts, u64 table_bytes,
                                   Inspection &out) noexcept
{
    // The facts may speak of keys that were dropped with a hole: nothing is left in front then.
    bool any = out.front_beyond;
    for (u32 i = 0; i < out.segments && !any && !(out.key_tail == out.dirty_tail); i++)
        any = facts[i].in_front && facts[i].lowest_front < out.generations[i];
    if (!any || mutant(Mutant::stale_front_kept))
        return Error::none;
    LogPosition tail;
    RT_TRY(find_end_of_stale(out, out.key_tail, out.dirty_tail, table_bytes, tail));
    return move_key_tail(out, tail);
}

// dirty_tail could not be read, and key_tail stands for it. What stands in front of a stale key had
// been written back, since a segment is emptied in front of dirty_tail only: writing it again would
// bring back what was older than the stale key, or send what its segment holds now.
Error Activation::shorten_redo(Inspection &out) noexcept
{
    LogPosition tail;
    const Run run = out.run(0);
    RT_TRY(find_end_of_stale(out, run.begin, run.end, ~u64{0}, tail));
    if (tail == run.begin || mutant(Mutant::redo_not_shortened))
        return Error::none;
    out.dirty_tail = tail;
    if (!out.runs.count())
        return move_key_tail(out, tail);
    out.key_tail = tail;
    out.runs.set_begin(0, tail);
    return Error::none;
}

const char *Inspection::read_only_sentence() const noexcept
{
    return damage == damage::changed_disk
               ? changed_disk_read_only_sentence(first_block(disk_differs))
               : damage_sentence(damage);
}

// Somebody mounted, formatted or swapped the backing device while no cache was there.
Error Activation::compare_backing(const BackingFacts &backing, const SegmentFacts *facts,
                                  Inspection &out, Refusal &why) noexcept
{
    if (!out.disk_judged || mutant(Mutant::backing_not_compared))
        return Error::none;
    const Error e = compare_disk(backing.device, backing.served(), out.extension.uuid, out.disk,
                                 out.disk_differs);
    if (!ok(e))
        return refuse(why, e, e == Error::no_memory ? no_memory_sentence : unread_disk_sentence);
    if (!out.disk_differs)
        return Error::none;
    if (out.damage)
        return Error::none; // read-only as ever; see clean_ignored()
    if (backing.changed_read_only) {
        out.damage = damage::changed_disk;
        return Error::none;
    }
    if (out.dirty_keys) {
        tell_changed_disk(out);
        return refuse(why, Error::invalid, changed_disk_sentence(first_block(out.disk_differs)));
    }
    drop_all_keys(facts, out);
    return Error::none;
}

void Activation::tell_changed_disk(const Inspection &in) const noexcept
{
    if (in.disk_differs)
        pc_log(host_, PC_ERR,
               "backing device was changed behind the cache: of the blocks that were known (%#x) "
               "these differ: %#x; the first one is 4 KiB block %u",
               in.disk.known, in.disk_differs, first_block(in.disk_differs));
}

// Nothing is dirty, so nothing is lost.
void Activation::drop_all_keys(const SegmentFacts *facts, Inspection &out) noexcept
{
    out.all_keys_go = true;
    out.key_tail_until_drop = out.key_tail;
    out.dirty_tail_until_drop = out.dirty_tail;
    out.newest_until_drop = out.newest_number;
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
}

ReplayedKey Activation::replayed(const Inspection &in, const Record &r, u32 i) const noexcept
{
    const format::Key k = reader_.key(i);
    return {k.off,
            k.len,
            {k.cache_seg_id},
            k.cache_seg_off,
            k.seg_gen,
            k.data_crc,
            k.seg_gen < in.generations[k.cache_seg_id],
            !(k.flags & format::key_clean),
            false,
            r.at};
}

} // namespace pcache::media
