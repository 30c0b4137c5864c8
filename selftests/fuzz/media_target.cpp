// SPDX-License-Identifier: GPL-2.0
// selftests/fuzz/media_target.cpp - libFuzzer: an image of a cache device, activated and used
// (script.hpp says what is judged).
#include <cstring>
#include "selftests/fuzz/mutate.hpp"
#include "selftests/fuzz/script.hpp"

using namespace pcache::fuzz;

extern "C" {

size_t LLVMFuzzerMutate(u8 *data, size_t size, size_t room);

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    static Image im; // its memory is used again
    decode(data, size, im);
    run_script(im);
    return 0;
}

size_t LLVMFuzzerCustomMutator(u8 *data, size_t size, size_t room, unsigned seed)
{
    pcache::sim::Rng rng(seed);
    if (rng.one_in(16))
        return LLVMFuzzerMutate(data, size, room);
    static Image im;
    decode(data, size, im);
    mutate(im, rng, [](u8 *p, u32 bytes) { LLVMFuzzerMutate(p, bytes, bytes); });
    size_t now = 0;
    if (!encode(im, data, room, now))
        return LLVMFuzzerMutate(data, size, room);
    return now;
}
}
