// SPDX-License-Identifier: GPL-2.0
// selftests/sim/mainline_writer.cpp - see mainline_writer.hpp.
//
// The session ends at any store or fence when `left` has run out: from then on nothing is stored,
// sent or told to the oracle, as when the power goes.
#include "selftests/sim/mainline_writer.hpp"
#include <cstring>
#include <map>
#include <set>
#include "dm-pcache/format/cache_info.hpp"
#include "dm-pcache/format/position.hpp"
#include "dm-pcache/format/segment.hpp"
#include "dm-pcache/format/superblock.hpp"
#include "selftests/sim/oracle.hpp"

namespace pcache::sim
{

namespace
{

using format::LogPosition;
using Place = std::pair<u32, u32>; // segment, offset

struct Entry {      // of a sector: where its bytes are
    u64 offset = 0; // on the cache device; 0: the backing device
    u64 record = 0; // of the key, counted from the start of the session
};

struct Session {
    bool active = false;
    std::vector<LogRecord> log; // from key_tail on
    u64 first = 0;              // number of log[0]
    LogPosition key_tail, dirty_tail, head;
    u64 written_back = 0; // records in front of dirty_tail, as numbers
    std::vector<u64> generations;
    std::vector<Entry> index;
    std::vector<format::Key> staged;
    u32 data_segment = ~0u, data_offset = 0;
    bool data_crc = false;
    u64 left = ~0ull; // stores and fences until the power goes
    Rng garbage;
};
Session m;
std::map<Place, u32> written;          // records of the model's: where, and their crc
std::set<std::pair<Place, u32>> chain; // records that continue the log, that under way included

bool power()
{
    return m.left != 0;
}

bool step()
{
    if (m.left && m.left != ~0ull)
        --m.left;
    return power();
}

void store(u64 offset, const void *from, u32 bytes, bool whole = false)
{
    if (!step())
        return;
    memcpy(media.base() + offset, from, bytes);
    media.stored(offset, bytes, 0, whole);
    cut_point("behind a store of mainline's");
}

void fence()
{
    if (!step())
        return;
    media.at_fence(0);
    media.fence(0);
}

template <class T>
T get(u64 offset)
{
    T v;
    memcpy(&v, media.contents() + offset, sizeof(v));
    return v;
}

template <class T>
int newest(u64 offset, u32 stride)
{
    const T a = get<T>(offset), b = get<T>(offset + stride);
    return format::newest_slot(format::slot_intact(&a, sizeof(a)), a.header.seq,
                               format::slot_intact(&b, sizeof(b)), b.header.seq);
}

// Into the slot that does not hold the newest copy.
template <class T>
void update(u64 offset, u32 stride, T record, bool garbage)
{
    const int slot = newest<T>(offset, stride);
    const u8 seq = slot < 0 ? 0 : get<T>(offset + static_cast<u32>(slot) * stride).header.seq;
    record.header.version = garbage ? static_cast<u8>(m.garbage.next()) : 0;
    record.header.res = garbage ? static_cast<u16>(m.garbage.next() & 0x0FFF) : 0; // not our mark
    format::seal_slot(&record, sizeof(record), static_cast<u8>(seq + 1));
    store(offset + (slot == 0 ? stride : 0), &record, sizeof(record));
    fence();
}

void update_tail(bool dirty, LogPosition at)
{
    update(dirty ? format::dirty_tail_offset : format::key_tail_offset, format::position_stride,
           format::encode_position(at), true);
}

u64 data_at(u32 segment, u32 offset)
{
    return format::segment_offset({segment}) + format::segment_control_bytes + offset;
}

u64 generation_at(u32 segment)
{
    return format::segment_offset({segment}) + format::generation_offset;
}

std::vector<u64> read_generations(const std::vector<LogRecord> &log)
{
    std::vector<u64> all;
    for (u32 i = 0; i < segment_count(); ++i) {
        const u64 at = generation_at(i);
        const int slot = newest<format::GenerationRecord>(at, format::generation_stride);
        all.push_back(slot < 0 ? 0
                               : get<format::GenerationRecord>(at + static_cast<u32>(slot) *
                                                                        format::generation_stride)
                                     .gen);
    }
    for (const LogRecord &r : log) // a higher one: the newer slot was lost
        for (const format::Key &k : r.keys)
            if (k.cache_seg_id < all.size())
                all[k.cache_seg_id] = std::max(all[k.cache_seg_id], u64{k.seg_gen});
    return all;
}

void put_key(std::vector<Entry> &index, const std::vector<u64> &generations, const format::Key &k,
             u64 record)
{
    const bool stale = k.seg_gen < generations[k.cache_seg_id];
    for (u32 i = 0; i < k.len / sector_bytes; ++i) {
        const u64 sector = k.off / sector_bytes + i;
        if (sector < index.size())
            index[sector] = {
                stale ? 0 : data_at(k.cache_seg_id, k.cache_seg_off + i * sector_bytes), record};
    }
}

std::vector<Entry> replay(const std::vector<LogRecord> &log, const std::vector<u64> &generations)
{
    std::vector<Entry> index(disk.sectors());
    for (usize i = 0; i < log.size(); ++i)
        for (const format::Key &k : log[i].keys)
            put_key(index, generations, k, i);
    return index;
}

u64 show(const std::vector<Entry> &index, u32 sector)
{
    return index[sector].offset ? tag_of(media.contents() + index[sector].offset)
                                : disk.now(sector);
}

LogPosition behind(const LogRecord &r)
{
    if (!r.flags.last())
        return {r.at.segment, r.at.offset + r.bytes};
    u32 next;
    memcpy(&next, media.contents() + data_at(r.at.segment.value, r.at.offset) + 4, sizeof(next));
    return {{next}, 0};
}

bool loadable()
{
    const format::Superblock s =
        format::decode_superblock(media.contents() + format::superblock_offset);
    return s.state == format::SuperblockState::good;
}

// ---- segments ----

bool holds_a_key(u32 segment)
{
    const auto live = [segment](const format::Key &k) {
        return k.cache_seg_id == segment && k.seg_gen >= m.generations[segment];
    };
    for (const LogRecord &r : m.log)
        if (std::any_of(r.keys.begin(), r.keys.end(), live))
            return true;
    return std::any_of(m.staged.begin(), m.staged.end(), live);
}

bool in_log(u32 segment)
{
    return segment == m.head.segment.value || segment == m.key_tail.segment.value ||
           std::any_of(m.log.begin(), m.log.end(),
                       [segment](const LogRecord &r) { return r.at.segment.value == segment; });
}

bool take_segment(u32 at_least, u32 &segment)
{
    u32 free = 0;
    for (u32 i = segment_count(); i-- > 0;)
        if (i != m.data_segment && !in_log(i) && !holds_a_key(i)) {
            ++free;
            segment = i;
        }
    return free >= at_least;
}

bool take_segment_or_reclaim(u32 at_least, u32 &segment)
{
    if (take_segment(at_least, segment))
        return true;
    mainline::write_back(~0u);
    mainline::collect_garbage(~0u, false);
    return power() && take_segment(at_least, segment);
}

// ---- the log ----

void remember(LogPosition at, u32 crc)
{
    const Place p{at.segment.value, at.offset};
    written[p] = crc;
    chain.insert({p, crc});
}

void append_last(u32 next)
{
    const format::RecordHeader h = format::encode_last({next}, {});
    std::erase_if(written, [next](const auto &w) { return w.first.first == next; });
    remember(m.head, h.crc);
    store(data_at(m.head.segment.value, m.head.offset), &h, sizeof(h));
    fence();
    m.log.push_back({m.head, format::last_record_bytes, {h.flags}, h.crc, {}});
    m.head = {{next}, 0};
}

// The staged keys, at most a record of them, and the terminator in the same fence.
bool append()
{
    const u32 n = std::min(static_cast<u32>(m.staged.size()), format::geometry.keys_per_kset);
    if (m.head.offset + format::kset_bytes(n) + format::last_record_bytes > format::data_bytes) {
        u32 next = 0;
        if (!take_segment_or_reclaim(1, next))
            return false;
        append_last(next);
    }
    u8 bytes[format::max_record_bytes];
    const u32 size = format::encode_kset(bytes, m.staged.data(), n, {});
    const u8 terminator[format::record_header_bytes] = {};
    const LogPosition at = m.head;
    LogRecord r{at, size, {}, 0, {m.staged.begin(), m.staged.begin() + n}};
    memcpy(&r.crc, bytes, sizeof(r.crc));
    if (!power())
        return false;
    remember(at, r.crc);
    store(data_at(at.segment.value, at.offset), bytes, size);
    store(data_at(at.segment.value, at.offset + size), terminator, sizeof(terminator));
    fence();
    for (const format::Key &k : r.keys)
        put_key(m.index, m.generations, k, m.first + m.log.size());
    m.log.push_back(r);
    m.head.offset += size;
    m.staged.erase(m.staged.begin(), m.staged.begin() + n);
    return power();
}

void write_settings()
{
    const int slot = newest<format::CacheInfoRecord>(format::cache_info_offset, format::page_bytes);
    if (slot < 0) {
        violation("mainline cannot load: both slots of cache_info are bad");
        return;
    }
    const auto r = get<format::CacheInfoRecord>(format::cache_info_offset +
                                                static_cast<u32>(slot) * format::page_bytes);
    m.data_crc = r.flags & format::cache_info_bits::data_crc;
    update(format::cache_info_offset, format::page_bytes, r, false);
}

void read_everything()
{
    for (u32 i = 0; i < disk.sectors() && !violated(); ++i)
        oracle.read(i, show(m.index, i), oracle.tick());
    if (!violated())
        oracle.check_whole_keys();
}

// Dirty keys of one record to the backing device, and a FLUSH.
void send(const LogRecord &r)
{
    for (const format::Key &k : r.keys) {
        if ((k.flags & format::key_clean) || k.seg_gen < m.generations[k.cache_seg_id])
            continue;
        if (!step())
            return;
        const u64 completion = disk.next_completion();
        for (u32 i = 0; i < k.len / sector_bytes; ++i)
            disk.put(static_cast<u32>(k.off / sector_bytes) + i,
                     tag_of(media.contents() +
                            data_at(k.cache_seg_id, k.cache_seg_off + i * sector_bytes)),
                     completion);
        oracle.disk_changed();
        cut_point("behind a write of mainline's to the backing device");
    }
    if (!step())
        return;
    disk.flushed(disk.completions());
    cut_point("behind a FLUSH of mainline's");
}

} // namespace

void mainline_reset()
{
    m = {};
    written.clear();
    chain.clear();
}

bool mainline_wrote(format::LogPosition at, u32 crc)
{
    const auto i = written.find({at.segment.value, at.offset});
    return i != written.end() && i->second == crc;
}

void mainline_prune()
{
    m.active = false;
    if (media.pending()) // behind a panic: a power cut may bring back what the log has left
        return;
    std::map<Place, u32> left;
    for (const LogRecord &r : read_log())
        if (mainline_wrote(r.at, r.crc))
            left[{r.at.segment.value, r.at.offset}] = r.crc;
    written = left;
}

namespace mainline
{

bool load()
{
    const u64 left = m.left;
    const Rng garbage = m.garbage;
    m = {};
    m.left = left;
    m.garbage = garbage;
    if (!loadable())
        return false;
    media.cut_at_fence(0, false);
    if (!read_tail(false, m.key_tail) || !read_tail(true, m.dirty_tail)) {
        violation("mainline cannot load: a tail is bad in both slots");
        return false;
    }
    m.active = true;
    m.log = read_log();
    chain.clear();
    bool met = false;
    m.head = m.key_tail;
    for (const LogRecord &r : m.log) {
        chain.insert({{r.at.segment.value, r.at.offset}, r.crc});
        met |= r.at == m.dirty_tail;
        m.written_back += !met;
        m.head = behind(r);
    }
    if (!met && !(m.head == m.dirty_tail)) {
        violation("mainline cannot load: the log ends in front of dirty_tail");
        return false;
    }
    m.generations = read_generations(m.log);
    m.index = replay(m.log, m.generations);
    write_settings();
    if (power())
        read_everything();
    return !violated();
}

void write(u32 sector, u32 count)
{
    const u32 bytes = count * sector_bytes;
    if (m.data_segment == ~0u || m.data_offset + bytes > format::data_bytes) {
        u32 segment = 0;
        if (!take_segment_or_reclaim(2, segment))
            return;
        m.data_segment = segment;
        m.data_offset = 0;
    }
    if (!power())
        return;
    const WriteId w = oracle.begin_write(sector, count, false);
    oracle.piece(w, 0, count);
    std::vector<u8> data(bytes);
    for (u32 i = 0; i < count; ++i)
        fill_tag(data.data() + i * sector_bytes, Oracle::tag(w, sector + i));
    store(data_at(m.data_segment, m.data_offset), data.data(), bytes, true);
    fence();
    if (!power())
        return;
    m.staged.push_back({u64{sector} * sector_bytes, bytes, 0, m.data_segment, m.data_offset,
                        m.generations[m.data_segment],
                        m.data_crc ? format::crc32c(format::crc_seed, data.data(), bytes) : 0, 0});
    m.data_offset += bytes;
    if (m.staged.size() == format::geometry.keys_per_kset)
        (void)append();
    if (power())
        oracle.end_write(w, true);
}

void flush()
{
    if (!power())
        return;
    const u64 issued = oracle.tick();
    while (!m.staged.empty())
        if (!append())
            return;
    if (power())
        oracle.end_flush(issued);
}

void write_back(u32 records)
{
    for (; records && m.written_back < m.first + m.log.size() && power(); --records) {
        const LogRecord r = m.log[m.written_back - m.first];
        send(r);
        if (!power())
            return;
        m.dirty_tail = behind(r);
        ++m.written_back;
        update_tail(true, m.dirty_tail);
    }
}

void collect_garbage(u32 records, bool generations_first)
{
    u32 n = 0;
    std::set<u32> touched;
    LogPosition tail = m.key_tail;
    for (; n < records && m.first + n < m.written_back; ++n) {
        tail = behind(m.log[n]);
        for (const format::Key &k : m.log[n].keys)
            if (k.seg_gen >= m.generations[k.cache_seg_id])
                touched.insert(k.cache_seg_id);
    }
    if (!n || !power())
        return;
    m.log.erase(m.log.begin(), m.log.begin() + n);
    m.first += n;
    for (Entry &e : m.index)
        if (e.record < m.first)
            e = {};
    if (!generations_first)
        update_tail(false, tail);
    for (u32 s : touched) {
        if (s == m.data_segment || holds_a_key(s))
            continue;
        ++m.generations[s];
        update(generation_at(s), format::generation_stride,
               format::encode_generation(m.generations[s]), true);
    }
    if (generations_first)
        update_tail(false, tail);
    m.key_tail = tail;
}

void stop()
{
    flush();
    m.active = false;
}

void random_session(Rng &rng, u32 operations)
{
    m.garbage = Rng(rng.next());
    m.left = rng.one_in(2) ? ~0ull : 1 + rng.below(operations * 6);
    const bool loaded = load();
    for (u32 i = 0; loaded && i < operations && power() && !violated(); ++i) {
        constexpr u32 range = format::geometry.range_bytes / sector_bytes;
        const u32 sector = rng.below(disk.sectors());
        const u32 most = std::min({disk.sectors() - sector, range - sector % range, 24u});
        const u32 what = rng.below(16);
        if (what < 10)
            write(sector, 1 + rng.below(most));
        else if (what < 13)
            flush();
        else if (what < 15)
            write_back(1 + rng.below(4));
        else
            collect_garbage(1 + rng.below(4), rng.one_in(2));
    }
    const bool stopped = !loaded || (rng.one_in(2) && power());
    if (stopped && loaded)
        stop();
    if (!violated() && loaded && (!stopped || !power())) {
        oracle.check_disk("at a cut of mainline's");
        disk.cut(rng);
        media.cut(rng);
        oracle.cut();
        if (mainline_spoilt())
            mainline_mend();
    }
    m.left = ~0ull;
    m.active = false;
}

} // namespace mainline

bool mainline_spoilt()
{
    if (!m.active)
        return false;
    const std::vector<LogRecord> log = read_log();
    return std::any_of(log.begin(), log.end(), [](const LogRecord &r) {
        return !chain.contains({{r.at.segment.value, r.at.offset}, r.crc});
    });
}

void mainline_mend()
{
    for (const LogRecord &r : read_log())
        if (!chain.contains({{r.at.segment.value, r.at.offset}, r.crc})) {
            const u8 terminator[format::record_header_bytes] = {};
            media.put(data_at(r.at.segment.value, r.at.offset), terminator, sizeof(terminator));
            return;
        }
}

void check_mainline_reads()
{
    if (!loadable())
        return;
    const std::vector<LogRecord> log = read_log();
    const std::vector<Entry> index = replay(log, read_generations(log));
    for (u32 i = 0; i < disk.sectors(); ++i)
        if (const u64 tag = show(index, i); !oracle.may_show(i, tag)) {
            violation(
                "mainline would read " + oracle.name(tag) + " from sector " + std::to_string(i), i);
            return;
        }
}

} // namespace pcache::sim
