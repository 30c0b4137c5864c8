// SPDX-License-Identifier: GPL-2.0
// media/metadata.hpp - the live copy of all metadata that is not the log, and the only way to
// change it on media after activation.
//
// Every setter returns when the new value is durable in both slots (format.md: two-slot records;
// extended superblock: all fields, both slots, one after the other). Values are read from the DRAM
// copy. Locking: the extended superblock has a mutex of its own inside; the other records have one
// writer each (key tail and generations: GC; dirty tail: write-back; cache_info: messages) and may
// be read by that writer only, unless said otherwise. All setters may sleep.
//
// A store cannot fail, but for one case: a page that turned out to be unreadable is rewritten by a
// block write, and that may fail. Then, of two records in two pages, the other one serves: the
// extended superblock is updated in place, a cache_info is not changed any more. Where nothing else
// serves (the tails; both pages), failed() is true from there on, nothing more is stored here, and
// the engine has to go to the state `failed`.
#pragma once
#include "cxxrt/atomic.hpp"
#include "dm-pcache/format/cache_info.hpp"
#include "dm-pcache/format/extension.hpp"
#include "dm-pcache/format/position.hpp"
#include "dm-pcache/format/segment.hpp"
#include "dm-pcache/media/device.hpp"
#include "dm-pcache/media/info_pages.hpp"
#include "dm-pcache/media/persist.hpp"
#include "dm-pcache/media/two_slot.hpp"
#include "dm-pcache/sync.hpp"

namespace pcache::media
{

class Metadata : rt::NonCopyable
{
public:
    explicit Metadata(Device &d) noexcept;
    ~Metadata();

    format::LogPosition key_tail() const noexcept { return key_tail_; }
    format::LogPosition dirty_tail() const noexcept { return dirty_tail_; }
    // The two positions, our mark included, both slots.
    void set_key_tail(format::LogPosition p) noexcept;
    void set_dirty_tail(format::LogPosition p) noexcept;

    // Generation of a logical segment: both slots. The value is not kept here (the engine's segment
    // table has it); the slots are read for their seq. Error::io: it cannot be stored, the segment
    // must not be used again.
    rt::Error set_generation(format::SegmentId s, u64 gen) noexcept;

    format::CacheInfo cache_info() const noexcept { return cache_info_; } // seq excluded
    // "A setting": extension (crc of newest and coming), cache_info, extension (new crc alone).
    // INIT_DONE is added. Nothing is stored when the content does not change, or when a page of
    // cache_info can be neither read nor rewritten (said in the log): cache_info() tells.
    void set_flags(u32 cache_info_flags) noexcept;

    format::Extension extension() const noexcept; // a copy, consistent; any thread
    void set_safe_tail(format::LogPosition p) noexcept;
    // New log segment, step 3.
    void set_link(format::SegmentId link_seg, u64 limit) noexcept;
    // Clean stop, last step, one update.
    void set_clean_stop(u64 next_number, format::LogPosition head) noexcept;

    // The disk record: a copy, consistent. Setting it: the backing device was FLUSHed and nothing
    // is sent to it until it is empty again. Where one page of it is dead nothing gets known.
    format::DiskState disk() const noexcept;
    void set_disk(const format::DiskState &s) noexcept;
    void forget_disk() noexcept; // nothing is stored if nothing is known

    // Activation, step 6, also for a resume of a running cache: CLEAN_STOP and FORMATTING clear,
    // limit = start_number + 2^18, link_seg = the head's segment, safe_tail = key_tail. Before it
    // nothing else may be stored and no request answered. start_number: what the first record of
    // the session, a START, will bear; at a resume it is extension().limit.
    void begin_session(format::LogPosition head, u64 start_number, u64 backing_bytes) noexcept;

    // Activation, before a page with tails, or with records of the log at or behind dirty_tail, is
    // rewritten by a block write: safe_tail stands for the tails, and CLEAN_STOP with the head
    // makes a log that is shorter damage. begin_session() takes it back. next_number as for
    // set_clean_stop(); limit: the number of the START to come.
    void vouch_for(format::LogPosition head, u64 next_number, u64 limit,
                   u64 backing_bytes) noexcept;

    // A store could not be made. Any thread.
    bool failed() const noexcept { return failed_.read() != 0; }

private:
    friend class Activation; // fills it

    // The mutex is held. One that no activation would take is not stored: failed().
    void store_extension() noexcept;
    // Steps 1 (if asked to announce) and 2 of "A setting". Step 3 is due afterwards.
    void change_cache_info(u32 flags, bool announce) noexcept;
    void store_tail(TwoSlot &slots, format::LogPosition p) noexcept;
    rt::Error rewrite_tails() noexcept;
    void note(rt::Error e) noexcept;

    Device &device_;
    TwoSlot key_tail_slots_, dirty_tail_slots_;
    format::LogPosition key_tail_{}, dirty_tail_{};
    format::CacheInfo cache_info_{};
    u32 cache_info_crc_ = 0; // of the newest slot; under extension_mutex_

    bool extension_halved_ = false; // one slot cannot be stored; under extension_mutex_

    mutable Mutex extension_mutex_; // guards the next three, and what is stored from them
    InfoPages info_;                // cache_info, the extended superblock, the disk record
    format::Extension extension_{};
    format::DiskState disk_{};

    rt::Atomic<u32> failed_{0};
};

} // namespace pcache::media
