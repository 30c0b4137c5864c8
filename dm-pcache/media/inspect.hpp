// SPDX-License-Identifier: GPL-2.0
// media/inspect.hpp - reads and judges a cache device without storing anything (activation step 1),
// replays its log, and then activates it (steps 2 to 6) or formats it.
//
// Nothing read is trusted: the decoders are strict, every read is machine-check safe, every
// position and count is checked before it is used. Damage is reported as a sentence and an error.
// No locking: one caller at a time per Device, and nobody else stores meanwhile.
#pragma once
#include "dm-pcache/media/identify.hpp"
#include "dm-pcache/media/log_walk.hpp"
#include "dm-pcache/media/metadata.hpp"

namespace pcache::media
{

enum class MediaKind {
    blank, // may be formatted (format.md, "Formatting": blank, or ours/mainline's format
           // interrupted)
    cache, // holds a cache; see Inspection
};

struct BackingFacts {
    u64 bytes;     // size of the backing device
    u32 first_crc; // crc of its first 128 KiB as format.md has it; 0: not taken
};

// What step 1 found. Owns its tables. All positions are logical. Where inspect() failed for damage
// of the log, `damage` and `damage_at` say which proofs fired and where; the rest is then as far as
// it was known.
struct Inspection : rt::NonCopyable {
    MediaKind kind = MediaKind::blank;
    format::CacheInfo cache_info{};
    // key_tail: as activation step 3 will set it
    format::LogPosition key_tail{}, dirty_tail{}, head{};
    u64 start_number = 0;  // the number of the next START record
    u64 newest_number = 0; // of the newest numbered record between key_tail and head; 0: none
    u32 backing_crc = 0;   // recorded at a clean stop
    bool clean_stop = false, ours = false, has_extension = false;
    u64 records = 0, keys = 0, dirty_keys = 0;
    u64 *generations = nullptr; // by logical segment, as activation will have set them
    u8 *log_segments = nullptr; // by logical segment: 1 if a log segment between key_tail and head
    u32 segments = 0;

    u32 damage = 0; // bits of damage::
    format::LogPosition damage_at{};
    bool dropped_front = false;   // a hole in front of dirty_tail cost clean keys
    bool dirty_tail_lost = false; // it could not be read: a redo may take the backing device back
    bool key_tail_lost = false;
    bool all_keys_go = false; // the backing device was changed behind a clean stop
    bool rebuild_superblock = false;
    u32 seg_num = 0;
    format::Extension extension{};  // valid if has_extension
    bool has_newest_record = false; // between key_tail and head
    format::LogPosition newest_record{};
    u32 newest_record_bytes = 0;
    u8 *emptied = nullptr; // by logical segment: 1 if all_keys_go has raised its generation

    ~Inspection();
    void clear() noexcept;
};

// Called for each key of the log in replay order, from Inspection::key_tail to the head.
struct ReplayedKey {
    u64 offset; // on the backing device, bytes
    u32 length; // bytes
    format::SegmentId segment;
    u32 segment_offset; // in its data area
    u64 generation;
    u32 data_crc;
    bool stale; // removes what older keys said about its range and puts nothing there
    bool dirty;
    format::LogPosition record; // where its record begins
};

// One activation attempt over one Device. May sleep. Not thread safe. Every member may be called on
// an Activation of its own: what inspect() found is in the Inspection.
class Activation : rt::NonCopyable
{
public:
    explicit Activation(Device &d, pc_host *host) noexcept : device_(d), host_(host) {}

    // Step 1. Stores nothing. After Error::none the chain of the device is set (kind == cache).
    // Otherwise `why` has a sentence.
    rt::Error inspect(const BackingFacts &backing, Inspection &out, Refusal &why) noexcept;

    // Walks the log again and hands each key to `sink`; stops at its first error. Error::io if a
    // record cannot be read any more. A sink has a member `rt::Error key(const ReplayedKey &)`.
    template <class Sink>
    rt::Error replay(const Inspection &in, Sink &sink) noexcept;

    // kind == blank: the six steps of "Formatting"; afterwards inspect() again gives kind == cache.
    // INIT_DONE is added to the flags. Refused when the device is not formattable.
    rt::Error format(const BackingFacts &backing, u32 cache_info_flags, Refusal &why) noexcept;

    // Steps 2 to 6. `metadata` is filled and ready afterwards; all of it is durable.
    rt::Error activate(const Inspection &in, u32 cache_info_flags, const BackingFacts &backing,
                       Metadata &metadata, Refusal &why) noexcept;

private:
    // Step 1, in the order in which inspect() calls them.
    rt::Error allocate_tables(Inspection &out, Refusal &why) noexcept;
    rt::Error read_chain(Inspection &out, Refusal &why) noexcept;
    rt::Error read_tails(Inspection &out, Refusal &why) noexcept;
    rt::Error stand_in_for_tails(Inspection &out, bool key_good, bool dirty_good,
                                 Refusal &why) noexcept;
    rt::Error read_log(const BackingFacts &backing, Inspection &out, Refusal &why) noexcept;
    u32 find_end(const WalkContext &c, Inspection &out, WalkFacts &w, u64 &newest_read) noexcept;
    rt::Error read_generations(const SegmentFacts *facts, Inspection &out, Refusal &why) noexcept;
    rt::Error pass_stale_front(const SegmentFacts *facts, Inspection &out) noexcept;
    rt::Error compare_backing(const BackingFacts &backing, const SegmentFacts *facts,
                              Inspection &out, Refusal &why) noexcept;
    void choose_start_number(u64 newest_read, Inspection &out) noexcept;
    rt::Error refuse_damage(Inspection &out, u32 bits, format::LogPosition at,
                            Refusal &why) noexcept;

    // Steps 2 to 5; 6 is Metadata::begin_session.
    void flush_relied_on(const Inspection &in) noexcept;
    rt::Error settle_segments(const Inspection &in) noexcept;
    rt::Error settle_generation(const Inspection &in, format::SegmentId s) noexcept;
    rt::Error settle_records(const Inspection &in) noexcept;
    void load_metadata(const Inspection &in, Metadata &m) noexcept;
    rt::Error settle_tails(const Inspection &in, Metadata &m) noexcept;
    rt::Error zero_behind_head(const Inspection &in) noexcept;
    rt::Error settle(const Inspection &in, u32 cache_info_flags, Metadata &m) noexcept;

    // The steps of "Formatting".
    rt::Error format_segments() noexcept;
    rt::Error format_tails() noexcept;
    rt::Error format_cache_info(u32 cache_info_flags, u32 &crc) noexcept;
    rt::Error format_steps(const Identity &id, u64 backing_bytes, u32 cache_info_flags) noexcept;

    ReplayedKey replayed(const Inspection &in, const Record &r, u32 i, bool dirty) const noexcept;

    Device &device_;
    pc_host *host_;
    RecordReader reader_;
};

template <class Sink>
rt::Error Activation::replay(const Inspection &in, Sink &sink) noexcept
{
    RT_TRY(reader_.allocate());
    format::LogPosition at = in.key_tail;
    bool dirty = false;
    while (!(at == in.head)) {
        dirty = dirty || at == in.dirty_tail;
        Record r;
        if (reader_.read(device_, at, r) != ReadOutcome::good)
            return rt::Error::io;
        for (u32 i = 0; i < r.keys(); i++)
            RT_TRY(sink.key(replayed(in, r, i, dirty)));
        at = r.behind();
        pc_yield();
    }
    return rt::Error::none;
}

} // namespace pcache::media
