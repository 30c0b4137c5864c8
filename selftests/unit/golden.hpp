// SPDX-License-Identifier: GPL-2.0
// selftests/unit/golden.hpp - finds and unpacks images that the mainline driver wrote.
//
// They are looked for in the folder that the environment variable PCACHE_GOLDEN names, else in
// ../shared/golden beside the repository, and unpacked to build/golden once.
#pragma once
#include <unistd.h>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include "world.hpp"

namespace pcache::selftest
{

namespace fs = std::filesystem;

inline fs::path golden_folder()
{
    const char *named = getenv("PCACHE_GOLDEN");
    return named && *named ? fs::path(named) : fs::path("../shared/golden");
}

// The unpacked image, or an empty path. Another flavour of the tests may unpack at the same time,
// so a file appears under its name only when it is whole.
inline fs::path unpacked(const std::string &name)
{
    const fs::path packed = golden_folder() / (name + ".img.zst");
    const fs::path to = fs::path("build/golden") / (name + ".img");
    std::error_code ignored;
    if (fs::exists(to, ignored))
        return to;
    if (!fs::exists(packed, ignored))
        return {};
    fs::create_directories(to.parent_path(), ignored);
    const std::string part = to.string() + "." + std::to_string(getpid());
    const std::string command = "zstd -dqf --sparse '" + packed.string() + "' -o '" + part +
                                "' && chmod u+w '" + part + "'";
    if (system(command.c_str()) != 0)
        return {};
    fs::rename(part, to, ignored);
    return to;
}

inline Image read_file(const fs::path &p)
{
    std::ifstream f(p, std::ios::binary);
    Image bytes(fs::file_size(p));
    f.read(reinterpret_cast<char *>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    return bytes;
}

} // namespace pcache::selftest
