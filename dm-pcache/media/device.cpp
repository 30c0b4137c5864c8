// SPDX-License-Identifier: GPL-2.0
// media/device.cpp - see device.hpp.
#include "dm-pcache/media/device.hpp"

namespace pcache::media
{

using format::geometry;

Device::~Device()
{
    pc_free(chain_);
    pc_free(table_);
    pc_media_close(media_);
}

rt::Error Device::open(pc_media *media) noexcept
{
    media_ = media; // the destructor closes it, whatever happens below
    bytes_ = pc_media_bytes(media);
    if (bytes_ < format::first_segment_offset)
        return rt::Error::no_space;
    const u64 fit = (bytes_ - format::first_segment_offset) / geometry.segment_bytes;
    if (fit < geometry.min_segments)
        return rt::Error::no_space;
    seg_count_ = static_cast<u32>(rt::min<u64>(fit, geometry.max_segments));

    meta_ = pc_media_map(media, 0, format::first_segment_offset);
    table_ = static_cast<const u8 **>(pc_alloc(u64{seg_count_} * sizeof(*table_), PC_MAY_SLEEP));
    if (!table_)
        return rt::Error::no_memory;
    if (!meta_)
        return rt::Error::io;
    bool one_stretch = true;
    for (u32 i = 0; i < seg_count_; i++) {
        table_[i] = pc_media_map(media, format::segment_offset({i}), geometry.segment_bytes);
        if (!table_[i])
            return rt::Error::io;
        if (i && table_[i] != table_[i - 1] + geometry.segment_bytes)
            one_stretch = false;
        pc_yield();
    }
    if (one_stretch) { // the table would cost a cache line per access
        linear_ = table_[0];
        pc_free(table_);
        table_ = nullptr;
    }
    return rt::Error::none;
}

void Device::set_chain(u32 *physical, u32 count) noexcept
{
    pc_free(chain_);
    chain_ = physical;
    chain_length_ = count;
}

} // namespace pcache::media
