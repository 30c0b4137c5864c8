// SPDX-License-Identifier: GPL-2.0
// selftests/fuzz/script.hpp - runs the operations of an image and judges what they show.
#pragma once
#include "selftests/fuzz/reference.hpp"

namespace pcache::fuzz
{

// What the operations of an image mean; Op::what modulo `count`.
enum class Do : u8 {
    write,
    read,
    flush,
    fua,
    gc_percent,
    suspend,
    remove,
    cut,
    panic,
    accept_loss,
    sleep,
    reload,
    read_all,
    write_much,
    count
};

// Activation, everything is read, the operations, write-back, removal. Aborts where a promise is
// broken: see script.cpp. cut_points: a power cut at that point of the first life ends it all (for
// making seeds); 0: none. Returns the contents of the cache device at the end.
void run_script(const Image &im, u64 cut_points = 0);
// The contents of the cache device now, with what else belongs to it taken from `like`.
Image snapshot(const Image &like);

} // namespace pcache::fuzz
