// SPDX-License-Identifier: GPL-2.0
// media/activate.cpp - activation steps 2 to 6: see inspect.hpp, and format.md, "Order of the big
// steps". Each numbered step is durable before the next begins; a cut behind any of them leaves
// what step 1 reads as the same cache.
#include "dm-pcache/format/superblock.hpp"
#include "dm-pcache/media/inspect.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::media
{

using format::LogPosition;
using format::PhysicalSegment;
using format::SegmentId;
using rt::Error;

void Activation::flush_record(LogPosition at, u32 bytes) noexcept
{
    u8 line[KeptPages::line_bytes];
    const u64 begin = device_.data_offset(at.segment) + at.offset;
    const Pin pin;
    for (u64 i = rt::round_down<u64>(begin, sizeof(line)); i < begin + bytes; i += sizeof(line)) {
        if (ok(device_.load(line, i, sizeof(line))))
            persist::flush(pin, device_.address(i), sizeof(line));
    }
    persist::fence(pin);
}

// Step 2: after a panic or kexec what was read may be nowhere but in CPU caches. Only what can be
// read now is flushed: another read may have cost its page the mapping.
void Activation::flush_relied_on(const Inspection &in) noexcept
{
    alignas(8) u8 record[format::max_slot_bytes];
    {
        const Pin pin;
        if (ok(device_.load(record, format::superblock_offset, format::superblock_bytes)))
            persist::flush(pin, device_.meta(format::superblock_offset), format::superblock_bytes);
        static constexpr struct {
            SlotPlace place;
            TwoSlot::Accept accept;
        } relied_on[] = {{cache_info_place, nullptr},
                         {extension_place, format::is_extension},
                         {disk_record_place, format::is_disk_record},
                         {key_tail_place, nullptr},
                         {dirty_tail_place, nullptr}};
        for (const auto &o : relied_on) {
            if (o.accept == format::is_disk_record && mutant(Mutant::disk_lines_trusted))
                continue;
            TwoSlot slots;
            slots.load(device_, o.place, record, o.accept);
            slots.flush(pin, device_);
        }
        persist::fence(pin);
    }
    if (in.has_newest_record)
        flush_record(in.newest_record, in.newest_record_bytes);
    for (u32 i = 0; i < in.segments; i++) {
        const PhysicalSegment s = device_.physical({i});
        const Pin pin;
        const SlotPlace places[] = {segment_info_place(s), generation_place(s)};
        for (const SlotPlace &p : places) {
            TwoSlot slots;
            slots.load(device_, p, record);
            slots.flush(pin, device_);
        }
        persist::fence(pin);
        pc_yield();
    }
}

Error Activation::flush_for_reading(const Inspection &in) noexcept
{
    RT_TRY(reader_.allocate_by_pages());
    if (!mutant(Mutant::read_only_not_flushed))
        flush_relied_on(in);
    return Error::none;
}

// Both slots of a segment's generation, as the log proved it. What dropping all keys raises is
// raised only when key_tail has left them.
Error Activation::settle_generation(const Inspection &in, SegmentId s) noexcept
{
    const u64 gen = in.generations[s.value] - in.emptied[s.value];
    format::GenerationRecord r;
    TwoSlot slots;
    if (slots.load(device_, generation_place(device_.physical(s)), &r) && r.gen == gen)
        return slots.complete(device_, &r);
    r = format::encode_generation(gen);
    return slots.store(device_, &r);
}

// Step 3, first half. Generations come before everything else: the keys that prove them are still
// there. A segment whose generation cannot be stored is not used again; it needs none then.
Error Activation::settle_segments(Inspection &in) noexcept
{
    for (u32 i = 0; i < in.segments; i++) {
        if (const Error e = settle_generation(in, {i}); e == Error::io)
            in.retired[i] = 1;
        else
            RT_TRY(e);
        pc_yield();
    }
    for (u32 i = 0; i < in.segments; i++) {
        format::SegmentInfoRecord r;
        TwoSlot slots;
        if (slots.load(device_, segment_info_place(device_.physical({i})), &r))
            RT_TRY(tolerate(slots.complete(device_, &r), "segment_info"));
        pc_yield();
    }
    return Error::none;
}

// Where a bad page cannot be rewritten, the other slot serves.
Error Activation::tolerate(Error e, const char *record) noexcept
{
    if (e != Error::io)
        return e;
    pc_log(host_, PC_WARN, "a page of %s can be neither read nor rewritten: the other one serves",
           record);
    return Error::none;
}

// A block write of its page that is cut may leave zeros, which nobody could tell from a superblock
// that was wiped. So where the page cannot be read the extended superblock stands for it for good.
void Activation::settle_superblock(u32 seg_num) noexcept
{
    const u64 page = rt::round_down<u64>(format::superblock_offset, format::page_bytes);
    const bool stored = page_readable(device_, page) && ok(store_superblock(seg_num));
    pc_log(host_, PC_WARN,
           stored ? "the superblock is rebuilt from the extended superblock"
                  : "the superblock cannot be read: the extended superblock stands for it");
}

// Step 3, the records in front of the segments.
Error Activation::settle_records(const Inspection &in, Metadata &m) noexcept
{
    if (in.rebuild_superblock)
        settle_superblock(in.seg_num);
    rt::Guard g(m.extension_mutex_);
    m.info_.load(device_);
    RT_TRY(tolerate(m.info_.complete(device_, Info::cache_info), "cache_info"));
    RT_TRY(tolerate(m.info_.complete(device_, Info::extension), "the extended superblock"));
    if (mutant(Mutant::disk_older_slot_left))
        return Error::none;
    return tolerate(m.info_.complete(device_, Info::disk), "the disk record");
}

void Activation::load_metadata(const Inspection &in, Metadata &m) noexcept
{
    format::PositionRecord position;
    m.cache_info_ = in.cache_info;
    m.key_tail_slots_.load(device_, key_tail_place, &position);
    m.dirty_tail_slots_.load(device_, dirty_tail_place, &position);
    m.key_tail_ = in.all_keys_go ? in.key_tail_until_drop : in.key_tail;
    m.dirty_tail_ = in.all_keys_go ? in.dirty_tail_until_drop : in.dirty_tail;

    rt::Guard g(m.extension_mutex_);
    m.cache_info_crc_ = m.info_.good(Info::cache_info)
                            ? format::slot_header(m.info_.newest(Info::cache_info)).crc
                            : 0; // it was good a moment ago; 0 names none
    m.extension_ = in.extension;
    m.extension_.seg_num = in.seg_num;
    m.disk_ = m.info_.disk();
    if (!in.has_extension)
        pc_random(m.extension_.uuid, sizeof(m.extension_.uuid));
}

namespace
{

// Whether a tail on media is `wanted`, with our mark. Ends an update that a cut left in one slot.
bool tail_stands(const Device &device, const SlotPlace &place, LogPosition wanted) noexcept
{
    format::PositionRecord r;
    TwoSlot slots;
    if (!slots.load(device, place, &r) || !format::has_mark(r) ||
        !(format::decode_position(r) == wanted))
        return false;
    return slots.whole();
}

} // namespace

// Of segments that key_tail, durably, has left.
void Activation::raise_generations(Inspection &in, Metadata &m) noexcept
{
    for (u32 i = 0; i < in.segments; i++) {
        if (in.emptied[i] && !ok(m.set_generation({i}, in.generations[i])))
            in.retired[i] = 1;
        pc_yield();
    }
}

// Step 3, second half. dirty_tail goes first, so that key_tail never stands behind it.
Error Activation::settle_tails(Inspection &in, Metadata &m) noexcept
{
    if (!tail_stands(device_, dirty_tail_place, m.dirty_tail()))
        m.set_dirty_tail(m.dirty_tail());
    if (!tail_stands(device_, key_tail_place, m.key_tail()))
        m.set_key_tail(m.key_tail());
    if (in.front_passed) {
        if (in.has_extension || vouched_) // else step 6 makes it
            m.set_safe_tail(in.key_tail);
        raise_generations(in, m);
    }
    return m.failed() ? Error::io : Error::none;
}

// Of step 5: the keys of a backing device that was changed. Behind step 4: where key_tail stands at
// the head, whatever lies there is read as the log.
Error Activation::drop_keys(Inspection &in, Metadata &m) noexcept
{
    pc_log(host_, PC_WARN, "all cached data is dropped: it was clean, and may be out of date");
    m.set_dirty_tail(in.dirty_tail);
    m.set_key_tail(in.key_tail);
    if (in.has_extension || vouched_)
        m.set_safe_tail(in.key_tail);
    raise_generations(in, m);
    return m.failed() ? Error::io : Error::none;
}

// The first byte of the head's page, and of what counts in it: records from key_tail on. In front
// of key_tail nothing counts any more, a bad line included.
HeadsPage Activation::heads_page(const Inspection &in) const noexcept
{
    const u32 page = rt::round_down(in.head.offset, format::page_bytes);
    const auto from = [&](LogPosition p) {
        const u32 at = p.segment == in.head.segment ? p.offset : 0;
        return rt::min(rt::max(at, page), in.head.offset);
    };
    return {device_.data_offset(in.head.segment) + page, in.head.offset - page,
            from(in.all_keys_go ? in.key_tail_until_drop : in.key_tail) - page,
            from(in.all_keys_go ? in.dirty_tail_until_drop : in.dirty_tail) - page};
}

// The rest of the head's page. The records in front of the head must outlive a block write: they
// are copied before anything looks behind it, since Linux unmaps a page whole when poison in it is
// met.
Error Activation::zero_heads_page(const Inspection &in, Metadata &m, u64 backing_bytes) noexcept
{
    const HeadsPage p = heads_page(in);
    if (p.head == p.kept)
        return zero_durably(device_, p.offset + p.head, format::page_bytes - p.head);
    u8 *copy = static_cast<u8 *>(pc_alloc(format::page_bytes, PC_MAY_SLEEP));
    if (!copy)
        return Error::no_memory;
    __builtin_memset(copy, 0, format::page_bytes);
    Error e = reader_.load(device_, copy + p.kept, p.offset + p.kept, p.head - p.kept);
    if (ok(e) && page_readable(device_, p.offset)) {
        device_.forget(p.offset);
        const Pin pin;
        persist::zero(pin, device_.address(p.offset + p.head), format::page_bytes - p.head);
        persist::fence(pin);
    } else if (ok(e)) {
        if (p.dirty != p.head)
            vouch(in, m, backing_bytes);
        e = m.failed() ? Error::io : persist::rewrite_page(device_.media(), p.offset, copy);
        if (ok(e))
            device_.repaired(p.offset);
    }
    pc_free(copy);
    return e;
}

void Activation::vouch(const Inspection &in, Metadata &m, u64 backing_bytes) noexcept
{
    const u64 newest = in.all_keys_go ? in.newest_until_drop : in.newest_number;
    m.vouch_for(in.head, newest ? format::next_number(newest) : 0, in.start_number, backing_bytes);
    vouched_ = true;
}

// Step 4. A page behind the head's that cannot be made zero is left as it is (unless that first
// record would reach into it), and the log leaves the segment by its first record: nothing reads on
// behind a LAST record, and an unreadable page is no proof of damage.
Error Activation::zero_behind_head(Inspection &in, Metadata &m, u64 backing_bytes) noexcept
{
    const u64 data = device_.data_offset(in.head.segment);
    u32 at = in.head.offset;
    if (at < format::data_bytes) {
        at = rt::round_down(at, format::page_bytes) + format::page_bytes;
        RT_TRY(zero_heads_page(in, m, backing_bytes));
    }
    while (at < format::data_bytes) {
        const Error e = zero_durably(device_, data + at, format::page_bytes);
        if (e == Error::io && at >= in.head.offset + format::record_header_bytes)
            in.leave_head_segment = true;
        else
            RT_TRY(e);
        at += format::page_bytes;
    }
    if (in.leave_head_segment) {
        in.retired[in.head.segment.value] = 1;
        pc_log(
            host_, PC_WARN,
            "a page of the log's segment %u can be neither read nor rewritten: the log leaves it",
            in.head.segment.value);
    }
    return Error::none;
}

// Both slots. A page that is dead is no error while the other one lives.
Error Activation::store_disk_record(format::DiskState s) noexcept
{
    InfoPages pages;
    pages.load(device_);
    return pages.store_disk(device_, s);
}

// Step 2: a disk record that does not count is emptied before step 3 makes the media ours.
Error Activation::empty_unjudged_disk_record(const Inspection &in) noexcept
{
    if (in.disk_judged || mutant(Mutant::disk_unjudged_left))
        return Error::none;
    format::DiskState s = in.disk;
    s.forget();
    return store_disk_record(s);
}

Error Activation::settle(Inspection &in, u32 cache_info_flags, u64 backing_bytes,
                         Metadata &m) noexcept
{
    vouched_ = false;
    RT_TRY(empty_unjudged_disk_record(in)); // 2
    if (!mutant(Mutant::tails_before_generations))
        RT_TRY(settle_segments(in)); // 3
    RT_TRY(settle_records(in, m));
    load_metadata(in, m);
    if (!page_readable(device_, format::cache_ctrl_offset))
        vouch(in, m, backing_bytes);
    RT_TRY(settle_tails(in, m));
    if (mutant(Mutant::tails_before_generations))
        RT_TRY(settle_segments(in));
    if (!mutant(Mutant::head_not_zeroed))
        RT_TRY(zero_behind_head(in, m, backing_bytes)); // 4
    {
        rt::Guard g(m.extension_mutex_);
        m.change_cache_info(cache_info_flags, in.ours || vouched_); // 5
    }
    if (mutant(Mutant::disk_emptied_before_drop))
        m.forget_disk();
    if (in.all_keys_go)
        RT_TRY(drop_keys(in, m));
    m.forget_disk();
    return m.failed() ? Error::io : Error::none;
}

Error Activation::activate(Inspection &in, u32 cache_info_flags, const BackingFacts &backing,
                           Metadata &metadata, Refusal &why) noexcept
{
    if (in.kind != MediaKind::cache || in.damage)
        return refuse(why, Error::invalid, "only an intact cache can be activated");
    if (!ok(reader_.allocate_by_pages()))
        return refuse(why, Error::no_memory, "not enough memory to activate the cache device");
    if (!mutant(Mutant::caches_trusted))
        flush_relied_on(in);
    reader_.new_pages();
    if (const Error e = settle(in, cache_info_flags, backing.bytes, metadata); !ok(e)) {
        pc_log(host_, PC_ERR, "activation could not store to the cache device (error %d)",
               static_cast<int>(e));
        return refuse(why, e, "a page of the cache device can be neither read nor rewritten");
    }
    metadata.begin_session(in.head, in.start_number, backing.bytes); // 6
    if (metadata.failed())
        return refuse(why, Error::io,
                      "the extended superblock of the cache device cannot be rewritten");
    return Error::none;
}

} // namespace pcache::media
