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

ReadOutcome RecordReader::read(const Device &device, u64 area, u32 offset, Record &out) noexcept
{
    if (offset > format::data_bytes - format::record_header_bytes)
        return ReadOutcome::none;
    const u64 at = area + offset;
    if (!ok(device.load(buffer_, at, format::record_header_bytes)))
        return ReadOutcome::unreadable;
    format::RecordHeader h;
    __builtin_memcpy(&h, buffer_, sizeof(h));
    const u32 bytes = format::announced_bytes(h, offset);
    if (!bytes)
        return ReadOutcome::none;
    constexpr u32 head = format::record_header_bytes;
    if (bytes > head && !ok(device.load(buffer_ + head, at + head, bytes - head)))
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
