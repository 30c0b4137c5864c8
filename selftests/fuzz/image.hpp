// SPDX-License-Identifier: GPL-2.0
// selftests/fuzz/image.hpp - an input of the media target: a cache device, the devices around it
// and what is done with them, in few bytes.
//
// A cache device is mostly zeros, so an input is a header, operations, and chunks of bytes that are
// laid over zeros. Any input decodes; encode() and decode() are inverse but for the chunks'
// borders.
#pragma once
#include <string>
#include <vector>
#include "dm-pcache/format/cache_info.hpp"
#include "dm-pcache/format/extension.hpp"
#include "dm-pcache/format/position.hpp"
#include "dm-pcache/format/record.hpp"
#include "dm-pcache/format/segment.hpp"
#include "dm-pcache/format/superblock.hpp"

namespace pcache::fuzz
{

struct Op {
    u8 what, a, b, c;
};

struct Image {
    u32 segments = format::geometry.min_segments;
    u32 sectors = 256;       // of the backing device
    u8 data_crc = 0;         // what the table line asks for: 0 nothing, 1 true, 2 false
    u8 backing_seed = 1;     // its content; 0: zeros
    u8 seed = 0;             // of the scheduler
    bool lost_pages = false; // block writes of bad pages fail
    std::vector<Op> ops;
    std::vector<u64> poisoned, known_bad; // offsets of pages
    std::vector<u8> bytes;                // of the cache device

    Image() { resize(); }
    void resize() { bytes.assign(format::segment_offset({segments}), 0); }
    template <class T>
    T get(u64 at) const
    {
        T t;
        __builtin_memcpy(&t, bytes.data() + at, sizeof(t));
        return t;
    }
    template <class T>
    void put(u64 at, const T &t)
    {
        __builtin_memcpy(bytes.data() + at, &t, sizeof(t));
    }
};

constexpr usize max_ops = 24;

void decode(const u8 *data, usize size, Image &im);
// At most `room` bytes; false if it does not fit.
bool encode(const Image &im, u8 *to, usize room, usize &size);

// ---- where things are ----
struct Slot {
    u64 at;
    u32 bytes;
    bool superblock; // its crc covers it like a slot's, but it is none
};
// Both slots of every two-slot record, and the superblock.
std::vector<Slot> slots_of(const Image &im);
struct Found {
    u64 at;
    u32 bytes; // as its header announces
    bool last;
};
// What looks like a record of the log, by its magic number, in any segment; in order of place.
std::vector<Found> records_of(const Image &im);
constexpr u64 data_area(u32 physical) noexcept
{
    return format::segment_offset({physical}) + format::segment_control_bytes;
}

// Gives everything the crc that it should have.
void seal_slots(Image &im);
void seal_records(Image &im);
void seal_data(Image &im); // data_crc of all keys
// The extended superblock knows the newest cache_info.
void name_cache_info(Image &im);
// As mainline's driver would have left it: no extended superblock, no numbers, no mark.
void make_mainline(Image &im);

} // namespace pcache::fuzz
