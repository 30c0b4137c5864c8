// SPDX-License-Identifier: GPL-2.0
// media/record_reader.hpp - reads one record of the log, machine-check safe, trusting nothing.
//
// "Good" as in format.md, Reading on: 24 bytes left in the segment, readable, magic, LAST or a
// possible number of keys, fits the segment, crc. Whether a good record is the next one of the log
// is the walk's question (log_walk.hpp). Not thread safe: one buffer.
//
// Whoever judges a log reads it by pages: a page is loaded line by line from the first byte that is
// asked for to its end, before anything behind it is looked at. If a line turns out to be bad, and
// the page is gone with it, the lines in front are kept (Device::keep). Nobody may store to the log
// meanwhile, or new_pages() must be called.
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
    ~RecordReader()
    {
        pc_free(buffer_);
        pc_free(page_);
    }
    // Once, before anything else. May sleep.
    rt::Error allocate() noexcept;
    rt::Error allocate_by_pages() noexcept;
    // What was loaded may have changed.
    void new_pages() noexcept { page_at_ = ~u64{0}; }

    // What can be loaded of [at, at + bytes) of the device, and zeros for the rest.
    void look(const Device &device, u8 *to, u64 at, u32 bytes) noexcept;
    // What can be loaded of a page from `from` on is kept, whatever becomes of the page.
    void hold(const Device &device, u64 page, u32 from) noexcept;
    // Bytes of the log. Error::io: not all of them can be loaded.
    rt::Error load(const Device &device, u8 *to, u64 at, u32 bytes) noexcept;

    // The record at `offset` of the data area that begins at `area` of the device. When good, `out`
    // (less its position) and key() describe it until the next read.
    ReadOutcome read(const Device &device, u64 area, u32 offset, Record &out) noexcept;
    // The same at a place of the log. A segment outside the chain holds no record.
    ReadOutcome read(const Device &device, format::LogPosition at, Record &out) noexcept;

    // i < keys() of the record read last.
    format::Key key(u32 i) const noexcept { return format::decode_key(buffer_, i); }

private:
    u64 take_page(const Device &device, u64 page, u32 from) noexcept;

    u8 *buffer_ = nullptr; // max_record_bytes
    u8 *page_ = nullptr;   // the page at page_at_; null: not by pages
    u64 page_at_ = ~u64{0};
    u64 tried_ = 0, good_ = 0; // its lines
};

} // namespace pcache::media
