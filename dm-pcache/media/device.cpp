// SPDX-License-Identifier: GPL-2.0
// media/device.cpp - see device.hpp.
#include "dm-pcache/media/device.hpp"
#include "dm-pcache/media/persist.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::media
{

using format::geometry;

Device::~Device()
{
    close();
}

void Device::close() noexcept
{
    pc_free(bad_);
    pc_free(bad_units_);
    pc_free(unreadable_);
    pc_free(chain_);
    pc_free(table_);
    pc_media_close(media_);
    bad_ = nullptr;
    bad_units_ = nullptr;
    unreadable_ = nullptr;
    kept_.clear();
    bad_count_ = 0;
    chain_ = nullptr;
    table_ = nullptr;
    meta_ = linear_ = nullptr;
    media_ = nullptr;
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

    RT_TRY(list_bad_pages());
    meta_ = pc_media_map(media, 0, format::first_segment_offset);
    table_ = static_cast<const u8 **>(pc_alloc(u64{seg_count_} * sizeof(*table_), PC_MAY_SLEEP));
    unreadable_ = static_cast<rt::Atomic<u64> *>( // zeroed memory is a valid one
        pc_alloc((u64{seg_count_} / 64 + 1) * sizeof(*unreadable_), PC_MAY_SLEEP));
    if (!table_ || !unreadable_)
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

// ---- pages known to be bad ----------------------------------------------------------------

rt::Error Device::list_bad_pages() noexcept
{
    pc_media_stretch stretch;
    u64 count = 0;
    for (u32 i = 0; pc_media_bad_stretch(media_, i, &stretch); i++)
        count += stretch.bytes / format::page_bytes;
    if (!count)
        return rt::Error::none;
    pc_log(nullptr, PC_WARN, "%llu pages of the cache device are known to be bad", count);
    if (count > max_bad_pages)
        return rt::Error::no_device;
    bad_ = static_cast<rt::Atomic<u64> *>(pc_alloc(count * sizeof(*bad_), PC_MAY_SLEEP));
    bad_units_ = static_cast<u8 *>(pc_alloc(count, PC_MAY_SLEEP));
    if (!bad_ || !bad_units_)
        return rt::Error::no_memory;
    for (u32 i = 0; pc_media_bad_stretch(media_, i, &stretch); i++) {
        const u64 first = stretch.offset / format::page_bytes;
        for (u64 n = 0; n < stretch.bytes / format::page_bytes; n++) {
            bad_units_[bad_count_] = pc_media_bad_units(media_, (first + n) * format::page_bytes);
            (::new (&bad_[bad_count_++]) rt::Atomic<u64>{0})->set(2 * (first + n));
        }
    }
    return rt::Error::none;
}

u32 Device::first_bad_from(u64 page) const noexcept
{
    u32 low = 0, high = bad_count_;
    while (low < high) {
        const u32 middle = low + (high - low) / 2;
        if (bad_[middle].read() / 2 < page)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

namespace
{
// The units of a page that [offset, offset + bytes) touches, as a mask.
u8 units_touched(u64 page, u64 offset, u64 bytes) noexcept
{
    const u64 begin = rt::max(offset, page) - page;
    const u64 last = rt::min(offset + bytes, page + format::page_bytes) - page - 1;
    const u32 from = static_cast<u32>(begin / PC_MEDIA_UNIT);
    const u32 to = static_cast<u32>(last / PC_MEDIA_UNIT);
    return static_cast<u8>((0xFFu << from) & (0xFFu >> (7 - to)));
}
} // namespace

bool Device::any_bad(u64 offset, u64 bytes, bool units) const noexcept
{
    if (!bytes)
        return false;
    const u64 last = (offset + bytes - 1) / format::page_bytes;
    for (u32 i = first_bad_from(offset / format::page_bytes); i < bad_count_; i++) {
        const u64 entry = bad_[i].read();
        if (entry / 2 > last)
            return false;
        if (entry & 1)
            continue;
        if (!units || mutant(Mutant::whole_page_given_up) ||
            (bad_units_[i] & units_touched(entry / 2 * format::page_bytes, offset, bytes)))
            return true;
    }
    return false;
}

void Device::repaired(u64 page_offset) noexcept
{
    const u64 page = page_offset / format::page_bytes;
    const u32 i = first_bad_from(page);
    if (i < bad_count_ && bad_[i].read() == 2 * page)
        bad_[i].set(2 * page + 1);
    forget(page_offset);
}

void Device::note_unreadable(u64 offset) const noexcept
{
    if (offset < format::first_segment_offset || mutant(Mutant::unreadable_not_noted))
        return;
    const u64 rest = offset - format::first_segment_offset;
    if (rest % geometry.segment_bytes < format::segment_control_bytes)
        return;
    const u64 s = rest / geometry.segment_bytes;
    (void)unreadable_[s / 64].fetch_or(u64{1} << (s % 64));
}

rt::Error Device::load(void *to, u64 offset, usize bytes) const noexcept
{
    if (known_bad(offset, bytes))
        return rt::Error::io;
    const rt::Error e = persist::load(to, address(offset), bytes);
    if (!ok(e))
        note_unreadable(offset);
    return e;
}

rt::Error Device::load_log(void *to, u64 offset, usize bytes) const noexcept
{
    if (!kept_.any())
        return load(to, offset, bytes);
    u8 *next = static_cast<u8 *>(to);
    while (bytes) {
        const u64 page = rt::round_down<u64>(offset, format::page_bytes);
        const usize n = rt::min<u64>(bytes, page + format::page_bytes - offset);
        if (!kept_.load(next, offset, static_cast<u32>(n)))
            RT_TRY(load(next, offset, n));
        next += n;
        offset += n;
        bytes -= n;
    }
    return rt::Error::none;
}

void Device::keep(u64 page_offset, const u8 *page, u64 lines) const noexcept
{
    if (!mutant(Mutant::page_of_log_not_kept))
        kept_.keep(page_offset, page, lines);
}

bool Device::set_chain(u32 *physical, u32 count) noexcept
{
    if (frozen_) {
        const bool same =
            count == chain_length_ && !physical == !chain_ &&
            (!chain_ || !__builtin_memcmp(physical, chain_, u64{count} * sizeof(u32)));
        pc_free(physical);
        return same;
    }
    pc_free(chain_);
    chain_ = physical;
    chain_length_ = count;
    return true;
}

} // namespace pcache::media
