// SPDX-License-Identifier: GPL-2.0
// target/target.hpp - one table line that device-mapper holds, and the instance it speaks for.
//
// Device-mapper serialises ctr, dtr, suspend and resume of one device; status and messages may come
// at any time between ctr and dtr, also before the first resume.
#pragma once
#include "dm-pcache/target/face.h"
#include "dm-pcache/target/registry.hpp"
#include "dm-pcache/target/table_line.hpp"

struct pc_target {
    pc_table *table = nullptr;
    pcache::target::Instance *instance = nullptr;
    pcache::target::TableLine line{};
    // Of a table that will take a running cache over: its own handles of the two devices, until the
    // first resume exchanges them for those of the table before.
    pc_media *media = nullptr;
    pc_backing *backing = nullptr;
    u64 length = 0;               // bytes that the table serves
    rt::Atomic<u32> activated{0}; // it was resumed: status shows the cache
};

namespace pcache::target
{
// status.cpp
void print_status(pc_target &t, char *text, usize size) noexcept;
void print_table(pc_target &t, char *text, usize size) noexcept;
void print_ima(pc_target &t, char *text, usize size) noexcept;
// message.cpp
int run_message(pc_target &t, rt::Span<char *> words, char *text, usize size) noexcept;
} // namespace pcache::target
