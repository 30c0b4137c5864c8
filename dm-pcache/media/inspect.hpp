// SPDX-License-Identifier: GPL-2.0
// media/inspect.hpp - reads and judges a cache device without storing anything (activation step 1),
// replays its log, and then activates it (steps 2 to 6) or formats it.
//
// Nothing read is trusted: the decoders are strict, every read is machine-check safe, every
// position and count is checked before it is used. Damage is reported as a sentence and an error.
#pragma once
#include "dm-pcache/media/metadata.hpp"

namespace pcache::media
{

// Why something was refused: static text for ti->error. The details are in the log already.
struct Refusal {
    rt::Error error = rt::Error::invalid;
    const char *sentence = nullptr;
};

enum class MediaKind {
    blank,     // may be formatted (format.md, "Formatting": blank, or ours/mainline's format interrupted)
    cache,     // holds a cache; see Inspection
};

struct BackingFacts {
    u64 bytes;         // size of the backing device
    u32 first_crc;     // crc of its first 128 KiB as format.md has it; 0: not taken
};

// What step 1 found. Owns its tables. All positions are logical.
struct Inspection : rt::NonCopyable {
    MediaKind kind = MediaKind::blank;
    format::CacheInfo cache_info{};
    format::LogPosition key_tail{}, dirty_tail{}, head{}; // key_tail: as activation step 3 will set it
    u64 start_number = 0;   // the number of the next START record
    u64 newest_number = 0;  // of the newest numbered record between key_tail and head; 0: none
    u32 backing_crc = 0;    // recorded at a clean stop
    bool clean_stop = false, ours = false, has_extension = false;
    u64 records = 0, keys = 0, dirty_keys = 0;
    u64 *generations = nullptr;     // by logical segment
    u8 *log_segments = nullptr;     // by logical segment: 1 if a log segment between key_tail and head
    u32 segments = 0;
    ~Inspection();
};

// Called for each key of the log in replay order, from Inspection::key_tail to the head.
struct ReplayedKey {
    u64 offset;              // on the backing device, bytes
    u32 length;              // bytes
    format::SegmentId segment;
    u32 segment_offset;      // in its data area
    u64 generation;
    u32 data_crc;
    bool stale;              // removes what older keys said about its range and puts nothing there
    bool dirty;
    format::LogPosition record; // where its record begins
};

class KeySink
{
public:
    virtual rt::Error key(const ReplayedKey &k) noexcept = 0;

protected:
    ~KeySink() = default;
};

// One activation attempt over one Device. May sleep. Not thread safe.
class Activation : rt::NonCopyable
{
public:
    explicit Activation(Device &d, pc_host *host) noexcept;
    // Step 1. Stores nothing. After Error::none the chain of the device is set (kind == cache).
    rt::Error inspect(const BackingFacts &backing, Inspection &out, Refusal &why) noexcept;
    // Walks the log again and hands each key to `sink`; stops at its first error.
    template <class Sink> rt::Error replay(const Inspection &in, Sink &sink) noexcept;
    // kind == blank: the six steps of "Formatting"; afterwards inspect() again gives kind == cache.
    rt::Error format(const BackingFacts &backing, u32 cache_info_flags, Refusal &why) noexcept;
    // Steps 2 to 6. `metadata` is filled and ready afterwards; all of it is durable.
    rt::Error activate(const Inspection &in, u32 cache_info_flags, const BackingFacts &backing,
                       Metadata &metadata, Refusal &why) noexcept;
};

} // namespace pcache::media
