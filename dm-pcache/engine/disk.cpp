// SPDX-License-Identifier: GPL-2.0
// engine/disk.cpp - the backing device as the disk record knows it: learnt at a clean stop,
// compared at a resume (an activation compares in media/inspect.cpp). See cache.hpp.
//
// Nothing is known from an activation or resume to the next clean stop. All of this runs while the
// cache is quiet: nobody in map(), no worker, nothing in flight to the backing device.
#include "dm-pcache/engine/parts.hpp"
#include "dm-pcache/media/disk_blocks.hpp"
#include "dm-pcache/mutants.hpp"

namespace pcache::engine
{

media::BackingFacts Cache::backing_facts() const noexcept
{
    return {pc_backing_bytes(backing_), backing_, length_, pc_backing_block(backing_),
            asked_.changed_read_only};
}

// The backing device was FLUSHed, and nothing is sent to it any more. What cannot be known now is
// not compared at the next activation or resume.
void Cache::learn_disk() noexcept
{
    media::Metadata &m = parts_->metadata;
    format::DiskState disk = m.disk();
    const format::Extension e = m.extension();
    if (!ok(media::learn_disk(backing_, backing_facts().served(), e.uuid, disk)) || disk.empty()) {
        pc_log(host_, PC_WARN,
               "the first 128 KiB of the backing device cannot be read: whether it "
               "is changed behind the cache will not be known");
        return;
    }
    m.set_disk(disk);
    read_only_.disk_unsure = true;
}

// Whether a key that is not on the backing device stands in the log.
rt::Error Cache::any_dirty(bool &dirty, media::Refusal &why) noexcept
{
    Parts &p = *parts_;
    dirty = false;
    media::RecordReader reader;
    RT_TRY(reader.allocate());
    const format::LogPosition head = p.log.durable_head();
    media::Record r;
    for (format::LogPosition at = p.metadata.dirty_tail(); at != head && !dirty; at = r.behind()) {
        if (reader.read(device_, at, r) != media::ReadOutcome::good) {
            p.log.page_lost(at);
            return media::refuse(why, rt::Error::io, media::unread_log_sentence);
        }
        for (u32 i = 0; i < r.keys(); i++)
            dirty |= !(reader.key(i).flags & format::key_clean);
        pc_yield();
    }
    return rt::Error::none;
}

// Whether the backing device is in another state than the suspend left it in. Refused if that
// concerns dirty data.
rt::Error Cache::compare_disk(bool &changed, media::Refusal &why) noexcept
{
    const format::Extension e = parts_->metadata.extension();
    const format::DiskState disk = parts_->metadata.disk();
    u32 differ = 0;
    changed = false;
    if (mutant(Mutant::resume_not_compared))
        return rt::Error::none;
    if (const rt::Error error =
            media::compare_disk(backing_, backing_facts().served(), e.uuid, disk, differ);
        !ok(error))
        return media::refuse(why, error,
                             error == rt::Error::no_memory ? nullptr : media::unread_disk_sentence);
    if (!differ)
        return rt::Error::none;
    const u32 block = media::first_block(differ);
    pc_log(host_, PC_ERR,
           "backing device was changed while the device was suspended: 4 KiB block %u differs "
           "(all that do: %#x)",
           block, differ);
    bool dirty = false;
    RT_TRY(any_dirty(dirty, why));
    if (dirty)
        return media::refuse(why, rt::Error::invalid, media::changed_disk_sentence(block));
    changed = true;
    return rt::Error::none;
}

// Nothing is dirty. Durable when it returns.
rt::Error Cache::drop_all_keys() noexcept
{
    Parts &p = *parts_;
    const format::LogPosition head = p.log.durable_head();
    pc_log(host_, PC_WARN, "all cached data is dropped: it was clean, and may be out of date");
    p.metadata.set_dirty_tail(head);
    p.write_back.dirty_tail().set(head);
    const u64 end = pc_backing_bytes(backing_) / format::sector_bytes;
    RT_TRY(p.gc.pass_all(head));
    p.gc.drop_beyond(0, end); // also what no pass could read
    read_only_.disk_unsure = false;
    return rt::Error::none;
}

} // namespace pcache::engine
