// SPDX-License-Identifier: GPL-2.0
// selftests/sim/stranger.hpp - somebody who uses the backing device behind a clean stop, while no
// cache is there: one sector of a block that the disk record knows is written.
//
// Where nothing in the cache is dirty that is a write like any other, completed and durable, and
// the next life must show it: every read of older data is a violation of the oracle's. Where
// something is dirty the next life must refuse the device, and serve when the sector is back.
#pragma once
#include "selftests/sim/world.hpp"

namespace pcache::sim
{

class Stranger
{
public:
    void reset() { *this = {}; }
    // Behind a clean stop, when nobody else has touched the media since. Judges what the stop has
    // made known; may change a sector.
    void come(Rng &rng);
    // Nothing in the cache is dirty: it shall be read from now on.
    void write(u32 sector);
    // The device must be refused now: judged by a table that is loaded and dropped again.
    bool must_be_refused() const { return sector_ >= 0; }
    void expect_refusal();
    // Something was written that no activation has ended behind yet.
    bool unseen() const { return unseen_; }
    void seen() { unseen_ = false; }
    // What a cache with dirty data may not find is put back. Also when the power goes.
    void leave();

private:
    s64 sector_ = -1; // that was changed and has to be put back
    u64 was_ = 0;     // what it held
    bool unseen_ = false;
};
extern Stranger stranger;

} // namespace pcache::sim
