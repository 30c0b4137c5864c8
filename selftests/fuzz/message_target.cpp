// SPDX-License-Identifier: GPL-2.0
// selftests/fuzz/message_target.cpp - libFuzzer: messages to a cache that is at work, one per line.
// Whatever they say: what was written is read, afterwards and after a removal.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include "selftests/fuzz/world.hpp"

using namespace pcache::fuzz;

namespace
{

constexpr u32 sectors = 64;
std::vector<u8> formatted; // a cache device that was just formatted

struct Input {
    std::string text;
};

void check(u8 *data, u64 tag)
{
    if (io(PC_READ, 8 * sector_bytes, sector_bytes, false, data))
        fail("a read fails behind a message");
    if (pcache::sim::tag_of(data) != tag)
        fail("a read shows other data behind a message");
}

void start()
{
    std::string sentence;
    if (construct({"cache", "backing"}, u64{sectors} * sector_bytes, sentence) || resume())
        fail("a good cache is refused");
}

void format_it(void *)
{
    start();
    remove();
    pcache::sim::sched::stop();
}

void give(const std::string &line, bool &known)
{
    std::vector<std::string> words;
    for (usize at = 0; at < line.size();) {
        const usize end = std::min(line.find(' ', at), line.size());
        words.push_back(line.substr(at, end - at));
        at = end + 1;
    }
    const int e = message(words, nullptr, line.size() % 3 ? 512 : line.size());
    u32 n = 0;
    char rest = 0;
    known = words.size() == 2 && words[0] == "gc_percent" &&
            sscanf(words[1].c_str(), "%2u%c", &n, &rest) == 1 && n <= 90 &&
            words[1] == std::to_string(n);
    if (known && e)
        fail("a good gc_percent is refused: " + line);
    if (!known && words.size() && words[0] == "gc_percent" && !e)
        fail("a bad gc_percent is taken: " + line);
    if (known) {
        u32 now = 0;
        if (sscanf(status().c_str(), "%*x %*u %*u %*u %u", &now) != 1 || now != n)
            fail("gc_percent is not what it was set to: " + status());
    }
}

void use(void *c)
{
    const std::string &text = static_cast<Input *>(c)->text;
    std::vector<u8> data(sector_bytes);
    start();
    pcache::sim::fill_tag(data.data(), 0x1111);
    if (io(PC_WRITE, 8 * sector_bytes, sector_bytes, false, data.data()))
        fail("a write fails");
    for (usize at = 0, n = 0; at < text.size() && n < 16; ++n) {
        const usize end = std::min(text.find('\n', at), text.size());
        bool known = false;
        give(text.substr(at, end - at), known);
        at = end + 1;
    }
    check(data.data(), 0x1111);
    remove();
    start();
    check(data.data(), 0x1111);
    remove();
    pcache::sim::sched::stop();
}

void lay_out()
{
    pcache::sim::clear_violation();
    pcache::sim::sched::begin_run();
    backing.create(sectors, 1);
    if (formatted.empty()) {
        pcache::sim::media.create(pcache::format::segment_offset({8}));
        run_life(format_it, nullptr, Rng(1));
        formatted.assign(pcache::sim::media.contents(),
                         pcache::sim::media.contents() + pcache::sim::media.bytes());
    }
    memcpy(pcache::sim::media.base(), formatted.data(), formatted.size());
    pcache::sim::media.settle(0, static_cast<u32>(formatted.size()));
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    Input in{std::string(reinterpret_cast<const char *>(data), size)};
    std::erase(in.text, '\0');
    lay_out();
    run_life(use, &in, Rng(1));
    return 0;
}
