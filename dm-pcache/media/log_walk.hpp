// SPDX-License-Identifier: GPL-2.0
// media/log_walk.hpp - reads the log from a position to where it ends, by the table "Reading on" of
// the format, and judges whether that end is an end or damage.
//
// Stores nothing and decides nothing beyond that: a walk is a set of facts, and each proof of
// damage is looked for separately, so that the verdict names all that fired. Not thread safe; may
// sleep.
#pragma once
#include "dm-pcache/format/extension.hpp"
#include "dm-pcache/media/record_reader.hpp"

namespace pcache::media
{

// What proves that an end of the log is damage (format.md, "Where the log ends"), as bits.
namespace damage
{
inline constexpr u32 dirty_tail_missed = 1u << 0;   // a
inline constexpr u32 unreadable = 1u << 1;          // b
inline constexpr u32 short_of_clean_stop = 1u << 2; // c
inline constexpr u32 later_record = 1u << 3;        // d
inline constexpr u32 link_missed = 1u << 4;         // e
// Records with a good crc that no writer makes.
inline constexpr u32 bad_link = 1u << 5; // a LAST record into a visited segment or out of the chain
inline constexpr u32 no_room = 1u << 6;  // a kset leaves no room for the LAST record behind it
inline constexpr u32 bad_key = 1u << 7;  // a key out of bounds
inline constexpr u32 newer = 1u << 8;    // flags of a newer driver: not damage, but read-only
inline constexpr u32 stale_dirty = 1u << 9; // a dirty key whose generation has passed
inline constexpr u32 tails = 1u << 10;      // both tails lost, and nothing stands for them
inline constexpr u32 bad_tail = 1u << 11;   // a tail where no record can begin
inline constexpr u32 cache_info = 1u << 13; // both copies lost: no damage of the log
// Not damage yet, but storing anything would risk it unseen.
inline constexpr u32 heads_page = 1u << 12; // the page of the head has to be rewritten
// No damage of the log: the backing device was changed, and the table says that this shall not be
// refused.
inline constexpr u32 changed_disk = 1u << 14;
// With nothing but these every record is there.
inline constexpr u32 whole_log = stale_dirty | cache_info | heads_page | changed_disk;
} // namespace damage

// What the keys of the log say about one segment, and what they need.
struct SegmentFacts {
    u64 highest_front = 0, highest_behind = 0; // seg_gen in front of dirty_tail; at or behind it
    u64 lowest_front = ~u64{0};
    u64 lowest_dirty = ~u64{0};
    u8 in_front = 0, behind = 0; // whether there is a key there at all
};

struct WalkFacts {
    format::LogPosition end{};       // where the log ends
    format::LogPosition newest_at{}; // where the newest record begins
    u32 newest_bytes = 0;
    u64 records = 0, keys = 0, dirty_keys = 0;
    u64 front_end = 0, behind_end = 0; // highest end of a key in front of dirty_tail; behind
    u64 dirty_end = 0;                 // of a dirty one
    u64 dirty_bits = 0;                // offsets and lengths of dirty keys, or'ed together
    u64 last_number = 0;               // of the last record read; 0: none
    u64 newest_number = 0;             // the last number read; 0: none
    u32 broken = 0;                    // damage bits that ended the walk before the end was found
    format::KeyFault key_fault = format::KeyFault::none;
    bool any_crc = false;    // a key has a data_crc
    bool unreadable = false; // what stands at the end cannot be read
    bool met_dirty_tail = false;
    bool met_recorded_head = false;
};

// What an end is judged by.
struct WalkContext {
    const Device *device;
    RecordReader *reader;
    const format::Extension *extension; // null: there is none
    bool ours;
    format::LogPosition dirty_tail;
    format::KeyLimits limits;
    u8 *visited;         // by logical segment; the walk sets 1
    SegmentFacts *facts; // by logical segment
};

// Whether a good record is the next one behind those that `so_far` counts.
bool reads_on(const WalkFacts &so_far, format::RecordFlags next) noexcept;

// Walks from `start` (a possible position). `visited` is cleared first.
WalkFacts walk_log(const WalkContext &c, format::LogPosition start) noexcept;

// Goes on from w.end with what `w` and `visited` know already. first_belongs: something else has
// proved that the record there belongs to the log, though it does not read on from the last one.
void walk_on(const WalkContext &c, WalkFacts &w, bool first_belongs) noexcept;

// The proofs b to e at the end of a walk (and what broke it), as damage bits; 0: it is the end.
u32 judge_end(const WalkContext &c, const WalkFacts &w) noexcept;

// The first good record at `from`, or at a multiple of 8 further on in its segment, that was
// written later than all that `w` has read: its number is before limit and, if a number was read,
// after the newest one. False: there is none. What cannot be read is no proof.
bool find_later_record(const WalkContext &c, const WalkFacts &w, format::LogPosition from,
                       format::LogPosition &at) noexcept;

// One sentence for the highest-ranking bit of a verdict; static text.
const char *damage_sentence(u32 bits) noexcept;

} // namespace pcache::media
