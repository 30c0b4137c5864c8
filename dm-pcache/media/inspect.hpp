// SPDX-License-Identifier: GPL-2.0
// media/inspect.hpp - reads and judges a cache device without storing anything (activation step 1),
// replays its log, and then activates it (steps 2 to 6) or formats it.
//
// Nothing read is trusted: the decoders are strict, every read is machine-check safe, every
// position and count is checked before it is used. Damage of the log, or what a newer driver wrote
// there, is a result: the records that count can be replayed, but such a cache is not activated.
// What cannot be served at all is an error with a sentence.
// No locking: one caller at a time per Device, and nobody else stores meanwhile.
#pragma once
#include "dm-pcache/media/identify.hpp"
#include "dm-pcache/media/log_walk.hpp"
#include "dm-pcache/media/metadata.hpp"
#include "dm-pcache/media/salvage.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::media
{

enum class MediaKind {
    blank, // may be formatted (format.md, "Formatting": blank, or ours/mainline's format
           // interrupted)
    cache, // holds a cache; see Inspection
};

struct BackingFacts {
    u64 bytes; // size of the backing device
    // What the disk record is held against; null: none of it can be read.
    pc_backing *device = nullptr;
    // How much of it the table serves. Keys beyond must be gone before anything is served: the
    // table may grow again, and who knows what was done there meanwhile.
    u64 table_bytes = ~u64{0};
    u32 block = format::sector_bytes; // its logical block
    // A device that the disk record does not know makes the cache read-only, and is not refused.
    bool changed_read_only = false;

    u64 served() const noexcept { return rt::min(bytes, table_bytes); }
};

// What step 1 found. Owns its tables. All positions are logical. With damage, `damage` and
// `damage_at` say what proves it and where; records, keys and generations are then those of the
// runs that count, `head` is the end of the first run, and key_tail and dirty_tail say from where
// on its keys count and are dirty (all keys of the other runs are).
struct Inspection : rt::NonCopyable {
    MediaKind kind = MediaKind::blank;
    format::CacheInfo cache_info{};
    // key_tail: as activation will have set it
    format::LogPosition key_tail{}, dirty_tail{}, head{};
    u64 start_number = 0;  // the number of the next START record
    u64 newest_number = 0; // of the newest numbered record between key_tail and head; 0: none
    bool clean_stop = false, ours = false, has_extension = false;
    u64 records = 0, keys = 0, dirty_keys = 0;
    u64 *generations = nullptr; // by logical segment, as activation will have set them
    u8 *log_segments = nullptr; // by logical segment: 1 if a log segment between key_tail and head
    u32 segments = 0;

    u32 damage = 0; // bits of damage::; 0: intact
    format::LogPosition damage_at{};
    Runs runs; // in log order, the first one perhaps empty; of an intact log: none, see run()
    bool dropped_front = false;   // a hole in front of dirty_tail cost clean keys
    bool dirty_tail_lost = false; // it could not be read: a redo may take the backing device back
    bool key_tail_lost = false;
    bool front_beyond = false; // keys in front of dirty_tail lie beyond the end of the table
    bool front_passed = false; // pass_front() was called
    // The disk record, if a slot is good; whether it counts; and which of its blocks differ.
    bool has_disk = false, disk_judged = false;
    format::DiskState disk{};
    u32 disk_differs = 0;
    // The device was changed, and nothing is dirty: step 5 drops all keys. key_tail, dirty_tail,
    // generations and counts are those afterwards; before it these stand.
    bool all_keys_go = false;
    format::LogPosition key_tail_until_drop{}, dirty_tail_until_drop{};
    u64 newest_until_drop = 0;
    bool rebuild_superblock = false;
    bool format_cut_short = false; // kind == blank: by a power cut, or an error
    bool former_settings = false;  // kind == blank: cache_info has those of the cache given up
    bool cache_info_lost = false;  // its settings are defaults, but for data_crc if a key has one
    u32 seg_num = 0;
    format::Extension extension{};  // valid if has_extension
    bool has_newest_record = false; // between key_tail and head
    format::LogPosition newest_record{};
    u32 newest_record_bytes = 0;
    // By logical segment: 1 if its generation is one higher than key_tail's way there allows yet.
    u8 *emptied = nullptr;
    // By logical segment: 1 if it must not be used for anything new. Pages of its data area are
    // known to be bad; or, known after activate(), something in it can be neither read nor stored.
    u8 *retired = nullptr;
    // Set by activate(): the head's segment could not be made zero up to its end, so the first
    // record must be a LAST.
    bool leave_head_segment = false;

    ~Inspection();
    void clear() noexcept;
    // Nothing on media may be given up: a driver that knows more can read it.
    bool newer() const noexcept { return damage & damage::newer; }
    // Clean data is of a backing device in another state.
    bool clean_ignored() const noexcept { return damage && disk_differs; }
    // Records are missing from the log, or cannot be understood: what they said is not known.
    bool log_has_holes() const noexcept { return damage & ~damage::whole_log; }
    const char *read_only_sentence() const noexcept;
    u32 run_count() const noexcept { return runs.count() ? runs.count() : 1; }
    Run run(u32 i) const noexcept { return runs.count() ? runs[i] : Run{key_tail, head}; }
};

// Called for each key of the log in replay order, run by run.
struct ReplayedKey {
    u64 offset; // on the backing device, bytes
    u32 length; // bytes
    format::SegmentId segment;
    u32 segment_offset; // in its data area
    u64 generation;
    u32 data_crc;
    bool stale; // removes what older keys said about its range and puts nothing there
    bool dirty;
    bool epoch; // begins a flush epoch: the first key behind a mark, or behind a hole
    format::LogPosition record; // where its record begins
};

// The page in which the log ends: its offset on the device, and in it the head, the first byte that
// counts, and the first that counts and is dirty (head if there is none).
struct HeadsPage {
    u64 offset;
    u32 head, kept, dirty;
};

// One activation attempt over one Device. May sleep. Not thread safe. Every member may be called on
// an Activation of its own: what inspect() found is in the Inspection.
class Activation : rt::NonCopyable
{
public:
    explicit Activation(Device &d, pc_host *host) noexcept : device_(d), host_(host) {}

    // Step 2, for a cache that is not activated: a power cut shall find what was relied on.
    // Error::no_memory. Stores nothing new.
    rt::Error flush_for_reading(const Inspection &in) noexcept;

    // Step 1. Stores nothing. After Error::none the chain of the device is set (kind == cache), and
    // `out` says whether the log is damaged. Otherwise `why` has a sentence.
    rt::Error inspect(const BackingFacts &backing, Inspection &out, Refusal &why) noexcept;

    // Which blocks of the backing device differ, if any. For the caller that acts on it: inspect()
    // says it only where it refuses.
    void tell_changed_disk(const Inspection &in) const noexcept;

    // Walks the log again and hands each key to `sink`; stops at its first error. Error::io if a
    // record cannot be read any more. A sink has a member `rt::Error key(const ReplayedKey &)`.
    template <class Sink>
    rt::Error replay(const Inspection &in, Sink &sink) noexcept;

    // What stands in front of `tail`, which is in front of dirty_tail or there, is not needed:
    // activate() will move key_tail there. For an intact log. The caller sets emptied and
    // generations of segments that no key holds any more. Error::io: the log cannot be read again.
    rt::Error pass_front(Inspection &in, format::LogPosition tail) noexcept;

    // kind == blank: the six steps of "Formatting"; afterwards inspect() again gives kind == cache.
    // INIT_DONE is added to the flags. Refused when the device is not formattable.
    rt::Error format(const BackingFacts &backing, u32 cache_info_flags, Refusal &why) noexcept;

    // accept_loss, step 0: durable before the first write to the backing device. Its disk record is
    // empty then; or, if the device was found changed, names the blocks that differ and nothing
    // else, so that a cut does not make it the right one. May sleep.
    rt::Error begin_rescue(const Inspection &in, Refusal &why) noexcept;

    // accept_loss, steps 3 and 4: what lies on the device may be formatted afterwards, and a cut
    // leaves the damaged cache or that. All dirty data that can be read must be durable on the
    // backing device by now. Refused where something newer wrote the media.
    rt::Error give_up(const BackingFacts &backing, const Inspection &in, Refusal &why) noexcept;

    // Steps 2 to 6. `metadata` is filled and ready afterwards; all of it is durable. May add to
    // in.retired, and set in.leave_head_segment.
    rt::Error activate(Inspection &in, u32 cache_info_flags, const BackingFacts &backing,
                       Metadata &metadata, Refusal &why) noexcept;

private:
    // Step 1, in the order in which inspect() calls them.
    rt::Error allocate_tables(Inspection &out, Refusal &why) noexcept;
    rt::Error read_chain(Inspection &out, Refusal &why) noexcept;
    void read_tails(Inspection &out) noexcept;
    bool safe_tail_stands(const Inspection &out) noexcept;
    void stand_in_for_tails(Inspection &out, bool key_good, bool dirty_good) noexcept;
    void judge_tails(Inspection &out) noexcept;
    rt::Error read_log(const BackingFacts &backing, Inspection &out, Refusal &why) noexcept;
    u32 find_end(const WalkContext &c, Inspection &out, WalkFacts &w, u64 &newest_read) noexcept;
    void find_bad_segments(Inspection &out) noexcept;
    u32 judge_heads_page(Inspection &out, const WalkFacts &w) noexcept;
    void take_walk(const WalkFacts &w, Inspection &out) noexcept;
    void read_generations(const SegmentFacts *facts, Inspection &out) noexcept;
    rt::Error fit_table(const BackingFacts &backing, const WalkFacts &w, Inspection &out,
                        Refusal &why) noexcept;
    rt::Error fit_blocks(const BackingFacts &backing, const WalkFacts &w, Refusal &why) noexcept;
    rt::Error find_end_of_stale(const Inspection &out, format::LogPosition from,
                                format::LogPosition stop, u64 table_bytes,
                                format::LogPosition &end) noexcept;
    rt::Error move_key_tail(Inspection &out, format::LogPosition tail) noexcept;
    rt::Error shorten_redo(Inspection &out) noexcept;
    rt::Error pass_stale_front(const SegmentFacts *facts, u64 table_bytes,
                               Inspection &out) noexcept;
    void read_disk_record(Inspection &out) noexcept;
    rt::Error compare_backing(const BackingFacts &backing, const SegmentFacts *facts,
                              Inspection &out, Refusal &why) noexcept;
    void drop_all_keys(const SegmentFacts *facts, Inspection &out) noexcept;
    void choose_start_number(u64 newest_read, Inspection &out) noexcept;
    // salvage.cpp
    void note_damage(Inspection &out, u32 bits, format::LogPosition at) noexcept;
    rt::Error salvage_log(const WalkContext &c, Inspection &out, WalkFacts &w) noexcept;

    // Steps 2 to 5; 6 is Metadata::begin_session.
    void flush_relied_on(const Inspection &in) noexcept;
    void flush_record(format::LogPosition at, u32 bytes) noexcept;
    rt::Error settle_segments(Inspection &in) noexcept;
    rt::Error settle_generation(const Inspection &in, format::SegmentId s) noexcept;
    rt::Error tolerate(rt::Error e, const char *record) noexcept;
    rt::Error store_disk_record(format::DiskState s) noexcept;
    rt::Error empty_unjudged_disk_record(const Inspection &in) noexcept;
    rt::Error settle_records(const Inspection &in, Metadata &m) noexcept;
    void load_metadata(const Inspection &in, Metadata &m) noexcept;
    void raise_generations(Inspection &in, Metadata &m) noexcept;
    rt::Error settle_tails(Inspection &in, Metadata &m) noexcept;
    void settle_superblock(u32 seg_num) noexcept;
    HeadsPage heads_page(const Inspection &in) const noexcept;
    void vouch(const Inspection &in, Metadata &m, u64 backing_bytes) noexcept;
    rt::Error zero_heads_page(const Inspection &in, Metadata &m, u64 backing_bytes) noexcept;
    rt::Error zero_behind_head(Inspection &in, Metadata &m, u64 backing_bytes) noexcept;
    rt::Error drop_keys(Inspection &in, Metadata &m) noexcept;
    rt::Error settle(Inspection &in, u32 cache_info_flags, u64 backing_bytes, Metadata &m) noexcept;

    // The steps of "Formatting".
    rt::Error store_superblock(u32 seg_num) noexcept;
    rt::Error format_segments() noexcept;
    rt::Error format_disk_record(const Identity &id) noexcept;
    rt::Error format_tails() noexcept;
    rt::Error format_cache_info(u32 cache_info_flags, u32 &crc) noexcept;
    rt::Error format_steps(const Identity &id, u64 backing_bytes, u32 cache_info_flags) noexcept;

    ReplayedKey replayed(const Inspection &in, const Record &r, u32 i) const noexcept;
    template <class Sink>
    rt::Error replay_run(const Inspection &in, u32 index, Sink &sink) noexcept;

    Device &device_;
    pc_host *host_;
    RecordReader reader_;
    bool vouched_ = false; // the media are ours already, in front of step 6
};

template <class Sink>
rt::Error Activation::replay_run(const Inspection &in, u32 index, Sink &sink) noexcept
{
    const Run run = in.run(index);
    bool dirty = index != 0, epoch = true, alone = false;
    for (format::LogPosition at = run.begin; !(at == run.end);) {
        dirty = dirty || at == in.dirty_tail;
        Record r;
        if (reader_.read(device_, at, r) != ReadOutcome::good)
            return rt::Error::io;
        const bool numbered = r.flags.number() != 0;
        epoch = epoch || alone || !numbered || r.flags.epoch();
        alone = !numbered;
        for (u32 i = 0; i < r.keys(); i++) {
            ReplayedKey k = replayed(in, r, i);
            k.dirty = k.dirty && dirty;
            if (in.clean_ignored() && !k.dirty && !mutant(Mutant::changed_clean_served))
                k.stale = true;
            k.epoch = epoch;
            epoch = false;
            RT_TRY(sink.key(k));
        }
        at = r.behind();
        pc_yield();
    }
    return rt::Error::none;
}

template <class Sink>
rt::Error Activation::replay(const Inspection &in, Sink &sink) noexcept
{
    RT_TRY(reader_.allocate_by_pages());
    reader_.new_pages();
    for (u32 i = 0; i < in.run_count(); i++)
        RT_TRY(replay_run(in, i, sink));
    return rt::Error::none;
}

} // namespace pcache::media
