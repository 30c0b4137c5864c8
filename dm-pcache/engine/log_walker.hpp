// SPDX-License-Identifier: GPL-2.0
// engine/log_walker.hpp - reads durable records of the running log, one at a time.
//
// For write-back and GC, which know where records begin and where the log ends; they do not judge.
// A record that cannot be read or does not check is Error::io. Not thread safe.
#pragma once
#include "cxxrt/result.hpp"
#include "dm-pcache/format/record.hpp"
#include "dm-pcache/media/device.hpp"
#include "dm-pcache/media/persist.hpp"

namespace pcache::engine
{

class LogWalker : rt::NonCopyable
{
public:
    explicit LogWalker(const media::Device &device) noexcept : device_(device) {}
    ~LogWalker() { pc_free(buffer_); }
    rt::Error allocate() noexcept
    {
        buffer_ = static_cast<u8 *>(pc_alloc(format::max_record_bytes, PC_MAY_SLEEP));
        return buffer_ ? rt::Error::none : rt::Error::no_memory;
    }

    // Reads the record at `at`; it is then described by the members below.
    rt::Error read(format::LogPosition at) noexcept;

    format::RecordFlags flags() const noexcept { return flags_; }
    u32 keys() const noexcept { return keys_; } // 0: a LAST record
    format::Key key(u32 i) const noexcept { return format::decode_key(buffer_, i); }
    format::LogPosition next() const noexcept { return next_; } // where the following record begins

private:
    const media::Device &device_;
    u8 *buffer_ = nullptr;
    format::RecordFlags flags_;
    format::LogPosition next_;
    u32 keys_ = 0;
};

} // namespace pcache::engine
