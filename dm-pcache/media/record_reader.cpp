// SPDX-License-Identifier: GPL-2.0
// media/record_reader.cpp - see record_reader.hpp.
#include "dm-pcache/media/record_reader.hpp"

namespace pcache::media
{

rt::Error RecordReader::allocate() noexcept
{
    if (!buffer_)
        buffer_ = static_cast<u8 *>(pc_alloc(format::max_record_bytes, PC_MAY_SLEEP));
    return buffer_ ? rt::Error::none : rt::Error::no_memory;
}

rt::Error RecordReader::allocate_by_pages() noexcept
{
    if (!page_)
        page_ = static_cast<u8 *>(pc_alloc(format::page_bytes, PC_MAY_SLEEP));
    return page_ ? allocate() : rt::Error::no_memory;
}

// The lines that are good, of those from `from` on; all of them have been tried.
u64 RecordReader::take_page(const Device &device, u64 page, u32 from) noexcept
{
    constexpr u32 line = KeptPages::line_bytes;
    if (page_at_ != page) {
        page_at_ = page;
        tried_ = good_ = 0;
    }
    bool bad = false;
    for (u32 i = from / line; i < format::page_bytes / line; i++) {
        const u64 bit = u64{1} << i;
        if (tried_ & bit)
            continue;
        tried_ |= bit;
        if (ok(device.load_log(page_ + i * line, page + i * line, line)))
            good_ |= bit;
        else
            bad = true;
    }
    if (bad)
        device.keep(page, page_, good_);
    return good_;
}

void RecordReader::hold(const Device &device, u64 page, u32 from) noexcept
{
    device.keep(page, page_, take_page(device, page, from));
}

rt::Error RecordReader::load(const Device &device, u8 *to, u64 at, u32 bytes) noexcept
{
    if (!page_)
        return device.load_log(to, at, bytes);
    while (bytes) {
        const u64 page = rt::round_down<u64>(at, format::page_bytes);
        const u32 from = static_cast<u32>(at - page);
        const u32 n = rt::min(bytes, format::page_bytes - from);
        const u64 wanted = KeptPages::lines_of(from, n);
        if ((take_page(device, page, from) & wanted) != wanted)
            return rt::Error::io;
        __builtin_memcpy(to, page_ + from, n);
        to += n;
        at += n;
        bytes -= n;
    }
    return rt::Error::none;
}

void RecordReader::look(const Device &device, u8 *to, u64 at, u32 bytes) noexcept
{
    constexpr u32 line = KeptPages::line_bytes;
    const u64 page = rt::round_down<u64>(at, format::page_bytes);
    const bool there = page_ && page_at_ == page && at + bytes <= page + format::page_bytes;
    if (!there && ok(device.load_log(to, at, bytes)))
        return;
    for (u32 i = 0; i < bytes; i += line) {
        const u32 n = rt::min(line, bytes - i);
        if (there ? !ok(load(device, to + i, at + i, n)) : !ok(device.load_log(to + i, at + i, n)))
            __builtin_memset(to + i, 0, n);
    }
}

ReadOutcome RecordReader::read(const Device &device, u64 area, u32 offset, Record &out) noexcept
{
    if (offset > format::data_bytes - format::record_header_bytes)
        return ReadOutcome::none;
    const u64 at = area + offset;
    if (!ok(load(device, buffer_, at, format::record_header_bytes)))
        return ReadOutcome::unreadable;
    format::RecordHeader h;
    __builtin_memcpy(&h, buffer_, sizeof(h));
    const u32 bytes = format::announced_bytes(h, offset);
    if (!bytes)
        return ReadOutcome::none;
    constexpr u32 head = format::record_header_bytes;
    if (bytes > head && !ok(load(device, buffer_ + head, at + head, bytes - head)))
        return ReadOutcome::unreadable;
    if (!format::record_intact(buffer_, bytes))
        return ReadOutcome::none;
    out.flags = {h.flags};
    out.num = h.num;
    out.bytes = bytes;
    return ReadOutcome::good;
}

ReadOutcome RecordReader::read(const Device &device, format::LogPosition at, Record &out) noexcept
{
    if (at.segment.value >= device.chain_length())
        return ReadOutcome::none;
    out.at = at;
    return read(device, device.data_offset(at.segment), at.offset, out);
}

} // namespace pcache::media
