// SPDX-License-Identifier: GPL-2.0
// selftests/fuzz/table_target.cpp - libFuzzer: table lines. A line that is refused names the reason
// and leaves nothing behind; one that is taken prints a line that is taken again and prints itself.
// Neither stores anything before it is resumed.
#include <algorithm>
#include <cstring>
#include "selftests/fuzz/world.hpp"

using namespace pcache::fuzz;

namespace
{

constexpr u64 sectors = 64;

std::vector<std::string> split(const std::string &line)
{
    std::vector<std::string> words;
    for (usize at = 0; at <= line.size();) {
        const usize end = std::min(line.find(' ', at), line.size());
        words.push_back(line.substr(at, end - at));
        at = end + 1;
    }
    return words;
}

void check_blank()
{
    const u8 *p = pcache::sim::media.contents();
    if (*p || memcmp(p, p + 1, pcache::sim::media.bytes() - 1))
        fail("a table that was never resumed has stored something");
}

void one_line(void *c)
{
    const auto &line = *static_cast<const std::string *>(c);
    std::string sentence;
    if (construct(split(line), sectors * sector_bytes, sentence) == 0) {
        const std::string printed = status(1);
        (void)status(0);
        (void)status(2);
        remove();
        if (construct(split(printed), sectors * sector_bytes, sentence))
            fail("the printed table does not load again: " + printed + ": " + sentence);
        if (status(1) != printed)
            fail("the printed table changes: " + printed + ", then " + status(1));
        remove();
    }
    check_blank();
    pcache::sim::sched::stop();
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    std::string line(reinterpret_cast<const char *>(data), size);
    line.resize(strlen(line.c_str())); // a word ends at a NUL
    pcache::sim::clear_violation();
    pcache::sim::sched::begin_run();
    static bool made = false; // nothing is stored to it
    if (!made)
        pcache::sim::media.create(pcache::format::segment_offset({8}));
    made = true;
    backing.create(sectors, 1);
    run_life(one_line, &line, Rng(1));
    return 0;
}
