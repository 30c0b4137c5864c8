// SPDX-License-Identifier: GPL-2.0
// selftests/sim/mainline_writer.hpp - a model of mainline's driver as a user of the same media,
// made from Part 1 of the format alone.
//
// It loads by Part 1's rules, reads, appends records without numbers with the terminator in the
// same fence, writes back record by record with a FLUSH behind each, moves tails, passes keys in GC
// and raises generations, and knows nothing of Part 2. What it does is told to the oracle like any
// client's request, and its stores, fences and writes to the backing device go the way of ours, so
// that the power may go at any of them. It is called between lives, outside of tasks, and nothing
// else runs.
//
// What mainline can do to its own session by what it leaves out is not held against us: see
// mainline_spoilt(), and Documentation/testing.md.
#pragma once
#include "selftests/sim/mainline.hpp"
#include "selftests/sim/world.hpp"

namespace pcache::sim
{

void mainline_reset(); // a new cache: it has written nothing

// One session. All but load() and stop() only between those two.
namespace mainline
{
// False: nothing to load (not formatted); what must load and does not is a violation. Reads
// everything.
bool load();
void write(u32 sector, u32 count); // at most what a key may cover; staged
void flush();
void write_back(u32 records); // at most so many
// Passes at most so many records in front of dirty_tail. `generations_first`: those of emptied
// segments are raised in front of key_tail, as in the golden image g4.
void collect_garbage(u32 records, bool generations_first);
void stop(); // staged keys are logged; dirty data stays
void random_session(Rng &rng, u32 operations);
} // namespace mainline

// The power has gone: did it leave something that mainline's own session is spoilt by? A record of
// a former life of the segment, behind the newest one without the terminator, or at the start of
// the segment that a LAST leads to. Part 1's reader takes it for the next one.
bool mainline_spoilt();
// Puts the terminator there after all: what mainline_spoilt() says is undone.
void mainline_mend();
// Whether a record without a number was written there by the model in this life of the log.
bool mainline_wrote(format::LogPosition at, u32 crc);
// Between lives: what it wrote and is in the log no more is forgotten; it is nobody's turn.
void mainline_prune();
// What Part 1's reader reads of every sector now is something that may be read. Nothing is settled.
void check_mainline_reads();

} // namespace pcache::sim
