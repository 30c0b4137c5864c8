// SPDX-License-Identifier: GPL-2.0
// selftests/fuzz/mutate.hpp - changes of an image that know its structure.
#pragma once
#include "selftests/fuzz/image.hpp"
#include "selftests/sim/rng.hpp"

namespace pcache::fuzz
{

// Changes `bytes` at `p`, in place: libFuzzer's own way.
using Scramble = void (*)(u8 *p, u32 bytes);

// One to four changes; afterwards, mostly, all crcs are right again.
void mutate(Image &im, sim::Rng &rng, Scramble scramble);

} // namespace pcache::fuzz
