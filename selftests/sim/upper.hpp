// SPDX-License-Identifier: GPL-2.0
// selftests/sim/upper.hpp - the upper layer: device-mapper's part of a request's way, and of a
// table's life, as far as the engine can tell.
//
// A request is cut at multiples of the range; each part is a bio of its own, and a write of its own
// for the oracle. What pc_bio_accept cuts off is mapped anew. While the device is suspended new
// bios wait; a suspend waits for those under way (a remap included) between presuspend and
// postsuspend. Whoever waits here is a client task; bios end in whatever task ends them.
#pragma once
#include "selftests/sim/oracle.hpp"
#include "selftests/sim/world.hpp"

namespace pcache::sim
{

struct Device {
    pc_table *table = nullptr;
    pc_target *target = nullptr;
    bool blocked = true; // new bios wait
    u32 in_flight = 0;   // bios given to map() or to the backing device
    u32 waiting = 0;     // client tasks that wait for the device
    bool failed = false; // bios may end with errors from now on
    std::vector<Upper *> requeued;
};
extern Device device;

void upper_reset(); // a new life

// All return when the request has ended: 0 or -errno. nowait: one that would have to wait ends with
// -EAGAIN; like any other error that binds nothing, and part of a write may show.
int upper_write(u32 sector, u32 count, bool fua, bool nowait = false);
int upper_flush();
int upper_read(u32 sector, u32 count, bool nowait = false);

// dmsetup create, resume, suspend, resume, reload + suspend + resume, remove. 0 or -errno; for a
// device that nobody else changes meanwhile.
int device_create(); // and resume
void device_suspend(bool noflush, bool with_flush);
void device_interrupted_suspend(bool noflush); // a signal ends it before all requests have ended
int device_resume();
void device_open_gate(); // bios go to map() again, whatever it says
int device_reload();
bool device_remove(); // true: stopped cleanly, as far as one can see
int device_message(const char *word, const char *value); // "": no value
std::string device_status();
bool read_only(const std::string &status);
// Returns when nothing is dirty any more; false if the cache has failed, is read-only, or keeps
// something dirty because it cannot be read.
bool wait_until_clean();

} // namespace pcache::sim
