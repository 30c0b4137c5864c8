// SPDX-License-Identifier: GPL-2.0
// selftests/fuzz/seeds.cpp - makes the corpus to begin with: what the engine itself leaves on a
// cache device, after removals and after power cuts at many points, as it is and as mainline's
// driver would have left it.
//
//   seeds FOLDER      must exist; writes FOLDER/NAME for each
#include <cstdio>
#include <cstdlib>
#include "selftests/fuzz/script.hpp"

using namespace pcache::fuzz;

namespace
{

const char *folder = "";
unsigned written = 0;

Op op(Do what, u8 a = 0, u8 b = 0, u8 c = 0)
{
    return {static_cast<u8>(what), a, b, c};
}

void save(const Image &im, const std::string &name)
{
    std::vector<u8> data(1u << 20);
    usize size = 0;
    if (!encode(im, data.data(), data.size(), size))
        return;
    const std::string path = std::string(folder) + "/" + name;
    FILE *f = fopen(path.c_str(), "wb");
    if (!f || fwrite(data.data(), 1, size, f) != size || fclose(f)) {
        perror(path.c_str());
        exit(1);
    }
    ++written;
}

// What is done with each of them then.
const std::vector<Op> uses[] = {
    {},
    {op(Do::write, 3, 0, 20), op(Do::flush), op(Do::cut), op(Do::read_all), op(Do::remove)},
    {op(Do::write_much, 9, 0, 60), op(Do::gc_percent, 10), op(Do::panic, 1), op(Do::accept_loss)},
    {op(Do::accept_loss), op(Do::write, 0, 0, 63), op(Do::suspend), op(Do::fua, 40, 0, 7),
     op(Do::cut), op(Do::cut)},
    {op(Do::sleep, 60), op(Do::reload), op(Do::write_much, 2, 0, 200), op(Do::remove)},
};

void save_all(const Image &im, const std::string &name)
{
    Image used = im;
    used.ops = uses[written % (sizeof(uses) / sizeof(uses[0]))];
    save(used, name);
    used.ops = uses[written % (sizeof(uses) / sizeof(uses[0]))];
    make_mainline(used);
    save(used, name + "-mainline");
}

struct Story {
    const char *name;
    std::vector<Op> ops;
    unsigned sectors, data_crc;
    unsigned cuts; // at so many points
    unsigned long long points;
};

void tell(const Story &t)
{
    Image im;
    im.sectors = t.sectors;
    im.data_crc = static_cast<u8>(t.data_crc);
    im.ops = t.ops;
    run_script(im);
    save_all(snapshot(im), t.name);
    for (unsigned i = 1; i <= t.cuts; ++i) {
        im.seed = static_cast<u8>(i);
        run_script(im, t.points * i / t.cuts);
        save_all(snapshot(im), std::string(t.name) + "-cut" + std::to_string(i));
    }
}

} // namespace

int main(int argc, char **argv)
{
    if (argc != 2)
        return 1;
    folder = argv[1];
    Image blank;
    blank.ops = uses[1];
    save(blank, "blank");
    const std::vector<Op> few = {op(Do::write, 8, 0, 7), op(Do::write, 16, 0, 3),
                                 op(Do::flush),          op(Do::write, 10, 0, 1),
                                 op(Do::fua, 30, 0, 0),  op(Do::read, 64, 0, 16)};
    const std::vector<Op> full = {op(Do::gc_percent, 20), op(Do::write_much, 3, 0, 120),
                                  op(Do::flush), op(Do::write_much, 5, 0, 120)};
    const std::vector<Op> small = {op(Do::write_much, 1, 0, 30), op(Do::flush), op(Do::remove),
                                   op(Do::write_much, 0, 0, 40), op(Do::fua, 9, 0, 2)};
    tell({"few", few, 128, 0, 12, 6000});
    tell({"few-crc", few, 128, 1, 6, 6000});
    tell({"small", small, 200, 0, 12, 40000});
    tell({"full", full, 248, 0, 10, 120000});
    tell({"full-crc", full, 248, 1, 6, 120000});
    tell({"known-backing", small, 256, 0, 6, 40000});
    printf("%u images\n", written);
    return 0;
}
