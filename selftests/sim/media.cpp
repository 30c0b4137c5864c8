// SPDX-License-Identifier: GPL-2.0
// selftests/sim/media.cpp - the cache device: stores, flushes and fences per CPU, and what a power
// cut leaves.
//
// A store is pending until its CPU's fence. A cut leaves in every 8-byte unit what was fenced last
// or what any later store put there. That is more than x86 allows (there the units of one line
// arrive in the order of their stores, but for streaming stores), so nothing may rely on less.
#include <algorithm>
#include <cstring>
#include "selftests/sim/damage.hpp"
#include "selftests/sim/inject.hpp"
#include "selftests/sim/world.hpp"

namespace pcache::sim
{

Media media;
void (*at_cut_point)(const char *what);

u64 tag_of(const u8 *sector)
{
    u64 tag;
    memcpy(&tag, sector, sizeof(tag));
    return memcmp(sector, sector + sizeof(tag), sector_bytes - sizeof(tag)) ? torn : tag;
}

void fill_tag(u8 *sector, u64 tag)
{
    for (u32 i = 0; i < sector_bytes; i += sizeof(tag))
        memcpy(sector + i, &tag, sizeof(tag));
}

bool stretch_of(const std::set<u64> &pages, u32 i, u64 &offset, u64 &bytes)
{
    for (auto p = pages.begin(); p != pages.end();) {
        const u64 first = *p;
        u64 next = first;
        for (; p != pages.end() && *p == next; ++p)
            ++next;
        if (i-- == 0) {
            offset = first * format::page_bytes;
            bytes = (next - first) * format::page_bytes;
            return true;
        }
    }
    return false;
}

void Media::create(u64 bytes)
{
    now_ = Bytes(bytes);
    durable_ = Bytes(bytes);
    pending_.clear();
    data_.clear();
    blocks_.clear();
}

u64 Media::offset_of(const u8 *at, usize bytes) const
{
    const u64 offset = static_cast<u64>(at - now_.data());
    if (at < now_.data() || offset > now_.size() || bytes > now_.size() - offset)
        violation("platform.h: an access to media outside of what was mapped");
    return offset;
}

void Media::stored(u64 offset, u32 bytes, int cpu, bool whole)
{
    const u64 from = offset & ~u64{unit_bytes - 1};
    const u64 to = (offset + bytes + unit_bytes - 1) & ~u64{unit_bytes - 1};
    pending_.push_back(
        {from, static_cast<u32>(to - from), cpu, static_cast<u32>(data_.size()), whole});
    data_.insert(data_.end(), now_.begin() + static_cast<long>(from),
                 now_.begin() + static_cast<long>(to));
}

// What is pending in these bytes is durable with this CPU's next fence, whoever stored it.
void Media::flushed(u64 offset, u32 bytes, int cpu)
{
    const u64 end = offset + bytes;
    const usize n = pending_.size();
    for (usize i = 0; i < n; ++i) {
        const Store p = pending_[i];
        const u64 from = std::max(offset & ~u64{unit_bytes - 1}, p.offset);
        const u64 to = std::min(end, p.offset + p.bytes);
        if (from < to)
            stored(from, static_cast<u32>(to - from), cpu, p.whole);
    }
}

// The units [from, to) of the stores in front of `index` are of no matter any more.
void Media::close_older(usize index, u64 from, u64 to)
{
    for (usize i = 0; i < index; ++i) {
        Store &p = pending_[i];
        const u64 end = p.offset + p.bytes;
        if (p.offset >= to || end <= from)
            continue;
        const Store whole = p;
        p.bytes = whole.offset < from ? static_cast<u32>(from - whole.offset) : 0;
        if (end > to) {
            const Store rest{to, static_cast<u32>(end - to), whole.cpu,
                             whole.data + static_cast<u32>(to - whole.offset), whole.whole};
            if (p.bytes) {
                pending_.insert(pending_.begin() + static_cast<long>(i) + 1, rest);
                ++i;
                ++index;
            } else {
                p = rest;
            }
        }
    }
}

void Media::make_durable(usize index)
{
    const Store p = pending_[index];
    arrive(p, p.offset, p.offset + p.bytes);
    close_older(index, p.offset, p.offset + p.bytes);
}

void Media::arrive(const Store &p, u64 from, u64 to)
{
    memcpy(durable_.data() + from, data_.data() + p.data + (from - p.offset), to - from);
}

void Media::fence(int cpu)
{
    if (pending_.empty())
        return;
    for (usize i = 0; i < pending_.size(); ++i) {
        if (pending_[i].cpu != cpu || !pending_[i].bytes)
            continue;
        const u64 offset = pending_[i].offset;
        make_durable(i);
        while (pending_[i].cpu != cpu || pending_[i].offset != offset || !pending_[i].bytes)
            ++i; // splits in front of it have moved it
        pending_[i].bytes = 0;
    }
    std::erase_if(pending_, [](const Store &p) { return !p.bytes; });
    if (pending_.empty())
        data_.clear();
}

void Media::cut_at_fence(u32 n, bool small)
{
    fences_left_ = n;
    only_small_ = small;
}

void Media::at_fence(int cpu)
{
    if (!pending_.empty())
        cut_point("in front of a fence");
    if (!fences_left_)
        return;
    u64 bytes = 0;
    for (const Store &p : pending_)
        bytes += p.cpu == cpu ? p.bytes : 0;
    if (bytes && (!only_small_ || bytes <= 256) && --fences_left_ == 0)
        sched::cut_now();
}

void Media::put(u64 offset, const void *from, u32 bytes)
{
    memcpy(now_.data() + offset, from, bytes);
    settle(offset, bytes);
}

void Media::settle(u64 offset, u32 bytes)
{
    memcpy(durable_.data() + offset, now_.data() + offset, bytes);
    close_older(pending_.size(), offset, offset + bytes);
    std::erase_if(pending_, [](const Store &p) { return !p.bytes; });
}

void Media::cut(Rng &rng)
{
    static const u32 chances[] = {0, 51, 512, 922, 1024};
    const u32 chance = chances[rng.below(5)];
    const u32 way = rng.below(4); // by unit, by store, a prefix in time, all but one
    const usize odd = pending_.empty() ? 0 : rng.below(static_cast<u32>(pending_.size()));
    for (usize i = 0; i < pending_.size(); ++i) {
        const Store &p = pending_[i];
        const u64 end = p.offset + p.bytes;
        if (way == 0) {
            for (u64 at = p.offset; at < end; at += unit_bytes)
                if (rng.chance(chance))
                    arrive(p, at, at + unit_bytes);
        } else if (way == 1 ? rng.chance(chance) : way == 2 ? i < odd : i != odd) {
            arrive(p, p.offset, end);
        } else if (way == 2 && i == odd) { // it had begun
            const u32 units = rng.below(p.bytes / unit_bytes + 1);
            arrive(p, p.offset, p.offset + u64{units} * unit_bytes);
        }
    }
    for (const Store &p : pending_)
        memcpy(now_.data() + p.offset, durable_.data() + p.offset, p.bytes);
    pending_.clear();
    data_.clear();
    cut_blocks(rng);
}

void Media::block_begins(u64 offset, const void *page)
{
    const u8 *from = static_cast<const u8 *>(page);
    blocks_.push_back({offset, Bytes(format::page_bytes)});
    memcpy(blocks_.back().page.data(), from, format::page_bytes);
}

void Media::block_ends(u64 offset)
{
    const auto b = std::find_if(blocks_.begin(), blocks_.end(),
                                [=](const Block &x) { return x.offset == offset; });
    if (b == blocks_.end())
        return; // given up with the life that began it
    put(offset, b->page.data(), format::page_bytes);
    blocks_.erase(b);
}

// What was written has no poison left.
void Media::cut_blocks(Rng &rng)
{
    if (blocks_.empty())
        return;
    static const Bytes zeros(block_unit);
    const LogView before = view_log();
    std::vector<u64> changed;
    for (const Block &b : blocks_)
        for (u32 at = 0; at < format::page_bytes; at += block_unit) {
            const u32 what = rng.below(3);
            if (!what)
                continue;
            const u8 *left = what == 1 ? b.page.data() + at : zeros.data();
            if (what == 2 && memcmp(left, b.page.data() + at, block_unit))
                changed.push_back(b.offset + at);
            put(b.offset + at, left, block_unit);
            damage.unit_rewritten(b.offset + at);
        }
    trace("a block write is torn: %u units are zeros", static_cast<u32>(changed.size()));
    damage.block_write_torn(before, changed);
    blocks_.clear();
}

void Media::restore(const Bytes &image)
{
    now_ = durable_ = image; // where it lies does not change
    pending_.clear();
    data_.clear();
    blocks_.clear();
}

void Media::panic()
{
    for (Store &p : pending_)
        p.cpu = -1;
    blocks_.clear(); // as if they had not begun
}

} // namespace pcache::sim

// ---- platform.h ----

using namespace pcache::sim;

namespace
{

int cpu()
{
    return sched::self() ? static_cast<int>(sched::self()->cpu) : 0;
}

// Sometimes in two steps, so that others see the first alone.
template <class Part>
void in_parts(usize bytes, Part part)
{
    usize first = bytes;
    if (bytes >= 128 && sched::self() && sched::rng().one_in(faults.chunk_one_in))
        first = 64 * (1 + sched::rng().below(static_cast<u32>(bytes / 64 - 1)));
    sched::point();
    part(0, first);
    if (first == bytes)
        return;
    sched::point();
    part(first, bytes - first);
}

template <class Copy>
void store(u8 *to, usize bytes, Copy copy, bool whole = false)
{
    sched::assert_pinned("a store to media");
    if (!bytes)
        return;
    const u64 offset = media.offset_of(to, bytes);
    in_parts(bytes, [&](usize from, usize n) {
        bad_pages.check_store(offset + from, n);
        copy(from, n);
        if (damage.poisoned())
            damage.stored(offset + from, n);
        media.stored(offset + from, static_cast<u32>(n), cpu(), whole);
        cut_point("behind a store");
    });
}

// Of a machine-check-safe load: 0 or -EIO.
int outcome(const u8 *from, usize bytes)
{
    return damage.poisoned() && bytes ? damage.load(media.offset_of(from, bytes), bytes) : 0;
}

u8 *bio_bytes(pc_bio *bio, u32 offset, u32 bytes)
{
    if (bio->ended)
        violation("platform.h: the pages of a bio used after it has ended");
    if (offset > bio->size || bytes > bio->size - offset)
        violation("platform.h: bytes outside of the bio");
    bio->touched = true;
    return bio->data + offset;
}

} // namespace

extern "C" {

u64 pc_media_bytes(const pc_media *) noexcept
{
    return media.bytes();
}

u8 *pc_media_map(pc_media *, u64 offset, u64 length) noexcept
{
    sched::assert_may_sleep("pc_media_map");
    if (!length || offset > media.bytes() || length > media.bytes() - offset)
        return nullptr;
    return media.base() + offset;
}

void pc_media_store(u8 *to, const void *from, usize bytes) noexcept
{
    const u8 *source = static_cast<const u8 *>(from);
    store(to, bytes, [=](usize at, usize n) { memcpy(to + at, source + at, n); });
}

void pc_media_zero(u8 *to, usize bytes) noexcept
{
    store(to, bytes, [=](usize at, usize n) { memset(to + at, 0, n); });
}

void pc_media_from_bio(u8 *to, pc_bio *bio, u32 bio_offset, u32 bytes) noexcept
{
    bio_copied(bio, bio_offset, bytes);
    const auto copy = [=](usize at, usize n) {
        memcpy(to + at, bio_bytes(bio, bio_offset + static_cast<u32>(at), static_cast<u32>(n)), n);
    };
    store(to, bytes, copy, true);
}

u32 pc_media_from_bio_crc(u8 *to, pc_bio *bio, u32 bio_offset, u32 bytes, u32 crc) noexcept
{
    bio_copied(bio, bio_offset, bytes);
    const auto copy = [&](usize at, usize n) {
        const u8 *from = bio_bytes(bio, bio_offset + static_cast<u32>(at), static_cast<u32>(n));
        memcpy(to + at, from, n);
        crc = pc_crc32c(crc, from, n);
    };
    store(to, bytes, copy, true);
    return crc;
}

void pc_media_flush(const u8 *at, usize bytes) noexcept
{
    sched::assert_pinned("pc_media_flush");
    const u64 offset = media.offset_of(at, bytes);
    sched::point();
    media.flushed(offset, static_cast<u32>(bytes), cpu());
}

void pc_media_fence() noexcept
{
    sched::assert_pinned("pc_media_fence");
    sched::point();
    media.at_fence(cpu());
    media.fence(cpu());
    sched::point();
}

int pc_media_load(void *to, const u8 *from, usize bytes) noexcept
{
    if (!bytes)
        return 0;
    if (bad_pages.load_fails(media.offset_of(from, bytes), bytes)) {
        memset(to, 0xEE, bytes); // undefined for the caller
        return -5;
    }
    in_parts(bytes, [=](usize at, usize n) { memcpy(static_cast<u8 *>(to) + at, from + at, n); });
    if (const int e = outcome(from, bytes)) {
        memset(to, 0xEE, bytes);
        return e;
    }
    return 0;
}

int pc_media_bad_stretch(const pc_media *, u32 i, pc_media_stretch *out) noexcept
{
    u64 offset, bytes;
    if (!damage.known_stretch(i, offset, bytes))
        return bad_pages.stretch(i, out->offset, out->bytes);
    *out = {offset, bytes};
    return 1;
}

u8 pc_media_bad_units(const pc_media *, u64 offset) noexcept
{
    return bad_pages.known(offset) ? 0xFF : damage.known_units(offset);
}

int pc_media_probe(const u8 *at, usize bytes) noexcept
{
    sched::point();
    if (bytes && bad_pages.load_fails(media.offset_of(at, bytes), bytes))
        return -5;
    return outcome(at, bytes);
}

int pc_media_crc(const u8 *from, usize bytes, u32 *crc) noexcept
{
    if (bad_pages.load_fails(media.offset_of(from, bytes), bytes))
        return -5;
    in_parts(bytes, [=](usize at, usize n) { *crc = pc_crc32c(*crc, from + at, n); });
    return outcome(from, bytes);
}

int pc_media_to_bio_crc(pc_bio *bio, const u8 *from, u32 bytes, const pc_piece *pieces, u32 count,
                        u32 *crc) noexcept
{
    if (bad_pages.load_fails(media.offset_of(from, bytes), bytes))
        return -5;
    u8 chunk[4096]; // what is summed is what is copied
    for (u32 at = 0, n; at < bytes; at += n) {
        n = std::min(bytes - at, u32{sizeof(chunk)});
        sched::point();
        memcpy(chunk, from + at, n);
        *crc = pc_crc32c(*crc, chunk, n);
        for (u32 i = 0; i < count; i++) {
            const pc_piece &p = pieces[i];
            const u32 first = std::max(at, p.skip), end = std::min(at + n, p.skip + p.bytes);
            if (first < end)
                memcpy(bio_bytes(bio, p.bio_offset + (first - p.skip), end - first),
                       chunk + (first - at), end - first);
        }
    }
    return outcome(from, bytes);
}

int pc_media_to_bio(pc_bio *bio, u32 bio_offset, const u8 *from, u32 bytes) noexcept
{
    if (bad_pages.load_fails(media.offset_of(from, bytes), bytes))
        return -5;
    in_parts(bytes, [=](usize at, usize n) {
        memcpy(bio_bytes(bio, bio_offset + static_cast<u32>(at), static_cast<u32>(n)), from + at,
               n);
    });
    return outcome(from, bytes);
}

void pc_bio_copy_to(pc_bio *bio, u32 bio_offset, const void *from, u32 bytes) noexcept
{
    sched::point();
    memcpy(bio_bytes(bio, bio_offset, bytes), from, bytes);
}

int pc_media_rewrite_page(pc_media *, u64 offset, const void *page) noexcept
{
    sched::assert_may_sleep("pc_media_rewrite_page");
    sched::point();
    if (!bad_pages.can_rewrite(offset) || !damage.can_rewrite(offset))
        return -5;
    media.block_begins(offset, page);
    cut_point("in a block write");
    sched::point();
    bad_pages.rewritten(offset);
    damage.rewritten(offset);
    media.block_ends(offset);
    return 0;
}
}
