// SPDX-License-Identifier: GPL-2.0
// selftests/sim/stranger.cpp - see stranger.hpp.
#include "selftests/sim/stranger.hpp"
#include <cstring>
#include "dm-pcache/format/disk_record.hpp"
#include "selftests/sim/log_view.hpp"
#include "selftests/sim/oracle.hpp"

namespace pcache::sim
{

Stranger stranger;

namespace
{

constexpr u32 block_sectors = format::disk_block_bytes / sector_bytes;

// Of both slots, which a clean stop leaves equal.
u32 known_blocks()
{
    u32 known = ~0u;
    for (u32 slot = 0; slot < 2; ++slot) {
        format::DiskRecord r;
        format::DiskState s;
        memcpy(&r,
               media.contents() + format::disk_record_offset + slot * format::disk_record_stride,
               sizeof(r));
        known &=
            format::slot_intact(&r, sizeof(r)) && format::decode_disk_record(r, s) ? s.known : 0;
    }
    return known;
}

void put(u32 sector, u64 tag)
{
    const u64 completion = disk.next_completion();
    disk.put(sector, tag, completion);
    disk.flushed(completion);
}

bool any_dirty(const LogView &v)
{
    for (const LogView::Record &r : v.records)
        for (const format::Key &k : r.keys)
            if (r.dirty && !(k.flags & format::key_clean))
                return true;
    return false;
}

} // namespace

void Stranger::come(Rng &rng)
{
    const LogView v = view_log();
    if (!v.good || !v.clean_stop)
        return;
    const u32 whole = std::min(disk.sectors() / block_sectors, format::disk_blocks);
    const u32 mask = whole == 32 ? ~0u : (1u << whole) - 1;
    if (known_blocks() != mask)
        return violation("a clean stop does not know the blocks of the backing device");
    if (!rng.one_in(2))
        return;
    const u32 sector = rng.below(whole * block_sectors);
    if (any_dirty(v)) {
        sector_ = sector;
        was_ = disk.now(sector);
        put(sector, was_ ^ 1);
        trace("a stranger spoils sector %u, for which there may be dirty data", sector);
        return;
    }
    write(sector);
}

void Stranger::write(u32 sector)
{
    const WriteId w = oracle.begin_write(sector, 1, true);
    put(sector, Oracle::tag(w, sector));
    oracle.end_write(w, true);
    oracle.disk_changed();
    unseen_ = true;
    trace("a stranger writes sector %u: write %u", sector, w);
}

void Stranger::expect_refusal()
{
    char words[][16] = {"cache", "backing"};
    char *argv[] = {words[0], words[1]};
    pc_table *const table = make_table("pcache");
    pc_target *target = nullptr;
    const char *sentence = "";
    if (!pc_target_ctr(table, 2, argv, u64{disk.sectors()} * sector_bytes, &target, &sentence)) {
        violation("a changed backing device is taken, and there is dirty data for it");
        return;
    }
    drop_table(table);
}

void Stranger::leave()
{
    if (sector_ >= 0)
        put(static_cast<u32>(sector_), was_);
    sector_ = -1;
}

} // namespace pcache::sim
