// SPDX-License-Identifier: GPL-2.0
// engine/requests.cpp - where a request of the upper layer enters the engine, and FLUSHes. Reads:
// reads.cpp. Writes: writes.cpp.
#include "dm-pcache/engine/parts.hpp"

namespace pcache::engine
{

pc_verdict Cache::map(pc_bio *bio, void *memory, const pc_io &io) noexcept
{
    pc_rio *send = nullptr;
    const pc_verdict v = map_in_epoch(bio, memory, io, send);
    // The epoch does not keep us alive any more, and nothing of ours is touched. The read keeps the
    // backing device open: its fill was counted inside the epoch (Fills::drain()).
    if (send)
        pc_rio_submit(send);
    return v;
}

// `send`: the read of a fill, which is sent when the epoch has ended, since submitting may sleep.
pc_verdict Cache::map_in_epoch(pc_bio *bio, void *memory, const pc_io &io, pc_rio *&send) noexcept
{
    const EpochGuard epoch;
    if (const State now = state(); now != State::running)
        return now == State::read_only ? map_read_only(bio, memory, io, send) : PC_FAIL;
    switch (io.op) {
    case PC_READ:
        return map_read(bio, memory, io, send);
    case PC_WRITE:
        return map_write(bio, memory, io);
    case PC_FLUSH:
        return map_flush(bio, memory);
    }
    return PC_FAIL;
}

// ---- FLUSH --------------------------------------------------------------------------------

pc_verdict Cache::map_flush(pc_bio *bio, void *memory) noexcept
{
    Request &r = *::new (memory) Request;
    r.bio = bio;
    r.flush = true;
    parts_->heads.note();
    parts_->log.commit_for(r);
    return PC_TAKEN;
}

} // namespace pcache::engine
