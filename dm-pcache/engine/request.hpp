// SPDX-License-Identifier: GPL-2.0
// engine/request.hpp - what the engine keeps for one request of the upper layer while it waits.
//
// It lives in the per-bio data that device-mapper allocates (PC_REQUEST_BYTES). Whoever holds it
// owns it: the map() call, the queue of waiters, or the log's list of those to be told.
#pragma once
#include "dm-pcache/engine/heads.hpp"
#include "dm-pcache/target/face.h"

namespace pcache::engine
{

struct Request {
    rt::Link<Request> link;
    pc_bio *bio = nullptr;
    Reservation reservation;
    // Of the bio, from its front. The tickets of the reservation begin behind what is staged.
    u32 staged_bytes = 0;
    u32 copied_bytes = 0;  // durable in media, if not staged
    bool fua = false;      // when staged it waits for its record
    bool flush = false;    // no data
    bool admitted = false; // has taken its credit (pacing.hpp)
};
static_assert(sizeof(Request) <= PC_REQUEST_BYTES);

} // namespace pcache::engine
