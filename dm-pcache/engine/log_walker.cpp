// SPDX-License-Identifier: GPL-2.0
// engine/log_walker.cpp - see log_walker.hpp.
#include "dm-pcache/engine/log_walker.hpp"

namespace pcache::engine
{

rt::Error LogWalker::read(format::LogPosition at) noexcept
{
    if (at.segment.value >= device_.chain_length() ||
        at.offset > format::data_bytes - format::record_header_bytes)
        return rt::Error::io;
    const u8 *media = device_.data(at.segment) + at.offset;
    RT_TRY(media::persist::load(buffer_, media, format::record_header_bytes));
    format::RecordHeader h;
    __builtin_memcpy(&h, buffer_, sizeof(h));
    const u32 bytes = format::announced_bytes(h, at.offset);
    if (!bytes)
        return rt::Error::io;
    RT_TRY(media::persist::load(buffer_, media, bytes));
    if (!format::record_intact(buffer_, bytes))
        return rt::Error::io;
    flags_ = {h.flags};
    if (flags_.last()) {
        if (h.num >= device_.chain_length())
            return rt::Error::io;
        keys_ = 0;
        next_ = {{h.num}, 0};
    } else {
        keys_ = h.num;
        next_ = {at.segment, at.offset + bytes};
    }
    return rt::Error::none;
}

} // namespace pcache::engine
