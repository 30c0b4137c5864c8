// SPDX-License-Identifier: GPL-2.0
// media/record_reader.hpp - reads one record of the log, machine-check safe, trusting nothing.
//
// "Good" as in format.md, Reading on: 24 bytes left in the segment, readable, magic, LAST or a
// possible number of keys, fits the segment, crc. Whether a good record is the next one of the log
// is the walk's question (log_walk.hpp). Not thread safe: one buffer.
#pragma once
#include "dm-pcache/format/record.hpp"
#include "dm-pcache/media/device.hpp"
#include "dm-pcache/media/persist.hpp"

namespace pcache::media
{

struct Record {
    format::LogPosition at;
    format::RecordFlags flags;
    u32 num = 0;   // keys; of a LAST record: the logical segment it leads to
    u32 bytes = 0; // of the whole record

    u32 keys() const noexcept { return flags.last() ? 0 : num; }
    // Where the next record begins.
    format::LogPosition behind() const noexcept
    {
        return flags.last() ? format::LogPosition{{num}, 0}
                            : format::LogPosition{at.segment, at.offset + bytes};
    }
};

enum class ReadOutcome {
    good,
    none,      // there is no good record
    unreadable // the header, or the record that a possible header announces, cannot be read
};

class RecordReader : rt::NonCopyable
{
public:
    RecordReader() noexcept = default;
    ~RecordReader() { pc_free(buffer_); }
    // Once, before anything else. May sleep.
    rt::Error allocate() noexcept;

    // The record at `offset` of the data area that begins at `area` of the device. When good, `out`
    // (less its position) and key() describe it until the next read.
    ReadOutcome read(const Device &device, u64 area, u32 offset, Record &out) noexcept;
    // The same at a place of the log. A segment outside the chain holds no record.
    ReadOutcome read(const Device &device, format::LogPosition at, Record &out) noexcept;

    // i < keys() of the record read last.
    format::Key key(u32 i) const noexcept { return format::decode_key(buffer_, i); }

private:
    u8 *buffer_ = nullptr; // max_record_bytes
};

} // namespace pcache::media
