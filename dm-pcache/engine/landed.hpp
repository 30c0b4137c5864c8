// SPDX-License-Identifier: GPL-2.0
// engine/landed.hpp - the moment between the FLUSH of a batch of write-back and the move of dirty
// tail: what the batch has made durable on the backing device is clean already, though the log does
// not say so yet.
//
//     open ------ FLUSH went well, all was sent ------> flushed ---- dirty tail moves ----> open
//       `-------- something is declared lost ---------> lost ------- the next batch ------> open
//
// Who finds dirty data that cannot be read (Damage) and write-back decide by one exchange which of
// them was first. In `flushed` nothing in front of the batch's end is lost any more; in `lost`
// dirty tail moves by relog.cpp's rules.
//
// In `flushed` what of it cannot be read becomes a ghost in the index, though dirty tail still
// stands in front of its key: the log says that it is dirty. A cut in that moment loses nothing
// that the backing device has, but the next activation takes the key for dirty, and where it still
// cannot be read the range is lost: reads of it fail until it is written anew.
//
// Locking: Damage::tails for all but flush_went_well(), which must not wait for it.
#pragma once
#include "dm-pcache/engine/published.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::engine
{

class Landed : rt::NonCopyable
{
    enum State : u32 { open, lost, flushed };
    rt::Atomic<u32> state_{open};
    PublishedPosition end_;

public:
    // A batch has been gathered, up to `end`.
    void begin(format::LogPosition end) noexcept
    {
        end_.set(end);
        state_.store_release(open);
    }
    // False: something was declared lost since, perhaps of this batch.
    bool flush_went_well() noexcept
    {
        u32 s = open;
        return state_.try_cmpxchg(s, flushed);
    }
    // Dirty tail has moved, or not.
    void over() noexcept { state_.store_release(open); }

    bool is_flushed() const noexcept
    {
        return state_.load_acquire() == flushed && !mutant(Mutant::flushed_yet_lost);
    }
    format::LogPosition end() const noexcept { return end_.get(); }
    // Dirty data is about to be marked as lost. False: flushed meanwhile, so look again.
    bool declare_lost() noexcept
    {
        u32 s = open;
        return state_.try_cmpxchg(s, lost) || s == lost || mutant(Mutant::flushed_yet_lost);
    }
};

} // namespace pcache::engine
