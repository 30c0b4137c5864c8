// SPDX-License-Identifier: GPL-2.0
// selftests/unit/rig.hpp - a pcache device in user space: a World with one cache device and one
// backing device, driven through face.h as device-mapper drives it, and a model of what it must
// read as. Everything a test does to the engine it does as a user would.
#pragma once
#include <gtest/gtest.h>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>
#include "dm-pcache/format/geometry.hpp"
#include "dm-pcache/target/face.h"
#include "world.hpp"

namespace pcache::selftest
{

inline constexpr u64 sector = format::sector_bytes;
// Races know no cut and no page: where a test lives through very many, ThreadSanitizer, which takes
// twice the time, sees each eighth. The other flavours see all.
#ifdef PCACHE_TSAN
inline constexpr unsigned life_step = 8;
#else
inline constexpr unsigned life_step = 1;
#endif
inline constexpr bool small_world = format::geometry.segment_bytes < (1u << 20);

// A cache device of so many segments.
inline u64 media_bytes(u32 segments)
{
    return format::first_segment_offset + u64{segments} * format::geometry.segment_bytes;
}

class Rig
{
public:
    explicit Rig(u32 segments = format::geometry.min_segments, u64 backing_bytes = 4u << 20)
        : Rig(media_bytes(segments), backing_bytes)
    {
    }
    Rig(u64 cache_bytes, u64 backing_bytes)
        : media(world.add_media("cache", cache_bytes)),
          backing(world.add_backing("backing", backing_bytes)), model(backing_bytes)
    {
        pc_target_module_init();
    }
    ~Rig()
    {
        if (target)
            remove();
        pc_target_module_exit();
        EXPECT_EQ(world.leaks(), "");
        for (const std::string &v : world.violations())
            ADD_FAILURE() << v;
    }

    // Table line in words; default devices. 0 or -errno, with `sentence`.
    int create(std::vector<std::string> options = {}, u64 length = 0, const char *name = "pcache")
    {
        table = world.add_table(name);
        std::vector<std::string> words{"cache", "backing"};
        words.insert(words.end(), options.begin(), options.end());
        std::vector<char *> argv;
        for (std::string &w : words)
            argv.push_back(w.data());
        const char *s = nullptr;
        const int e = pc_target_ctr(table, static_cast<unsigned>(argv.size()), argv.data(),
                                    length ? length : backing.bytes(), &target, &s);
        sentence = s ? s : "";
        if (e)
            target = nullptr;
        return e;
    }
    int resume() { return pc_target_preresume(target); }
    void start()
    {
        ASSERT_EQ(create(), 0) << sentence;
        ASSERT_EQ(resume(), 0) << last_error();
    }
    // The two halves of a suspend. In between device-mapper waits for all requests: the caller sees
    // to it.
    void begin_suspend(bool noflush)
    {
        world.set_noflush(table, noflush);
        pc_target_presuspend(target, noflush);
    }
    void end_suspend()
    {
        world.set_noflush(table, false);
        pc_target_postsuspend(target);
    }
    void suspend(bool noflush = false)
    {
        begin_suspend(noflush);
        end_suspend();
    }
    void destroy()
    {
        pc_target_dtr(target);
        target = nullptr;
        world.drop_table(table);
    }
    // As `dmsetup remove`.
    void remove()
    {
        suspend();
        destroy();
    }
    // The end of a life without a word: the engine is torn down after the images were taken.
    Cut power_cut(Rng &rng)
    {
        Cut c = world.cut(rng);
        remove();
        media.load(c.media[0]);
        backing.load(c.backings[0]);
        return c;
    }

    // ---- requests --------------------------------------------------------------------------
    void write(u64 offset, const Image &data, bool fua = false)
    {
        std::memcpy(model.data() + offset, data.data(), data.size());
        ASSERT_EQ(try_write(offset, data, fua), 0);
    }
    int try_write(u64 offset, const Image &data, bool fua = false, bool nowait = false)
    {
        // Device-mapper cuts at multiples of the range.
        for (u64 at = 0; at < data.size();) {
            const u64 rest =
                format::geometry.range_bytes - (offset + at) % format::geometry.range_bytes;
            const u64 n = std::min<u64>(rest, data.size() - at);
            Bio bio(Image(data.begin() + static_cast<long>(at),
                          data.begin() + static_cast<long>(at + n)));
            const pc_io io{PC_WRITE, offset + at, static_cast<u32>(n), fua, nowait};
            if (map(bio, io) != PC_TAKEN)
                return -5;
            if (const int e = bio.wait(); e)
                return e;
            at += n;
        }
        return 0;
    }
    int flush()
    {
        Bio bio(0);
        const pc_io io{PC_FLUSH, 0, 0, 0, 0};
        return map(bio, io) == PC_TAKEN ? bio.wait() : -5;
    }
    Image read(u64 offset, u64 bytes)
    {
        Image out(bytes);
        for (u64 at = 0; at < bytes;) {
            const u64 rest =
                format::geometry.range_bytes - (offset + at) % format::geometry.range_bytes;
            Bio bio(static_cast<u32>(std::min<u64>(rest, bytes - at)));
            const pc_io io{PC_READ, offset + at, bio.size(), 0, 0};
            switch (map(bio, io)) {
            case PC_TAKEN:
                EXPECT_EQ(bio.wait(), 0) << "read at " << offset + at;
                std::memcpy(out.data() + at, bio.data(), bio.size());
                break;
            case PC_REMAP:
                backing.read(offset + at, out.data() + at, bio.size());
                break;
            default:
                ADD_FAILURE() << "read at " << offset + at << " refused";
                return out;
            }
            at += bio.size();
        }
        return out;
    }
    // Everything reads as the model says.
    void check(const char *when)
    {
        constexpr u64 step = 256u << 10;
        for (u64 at = 0; at < model.size(); at += step) {
            const u64 n = std::min<u64>(step, model.size() - at);
            const Image got = read(at, n);
            for (u64 i = 0; i < n; i += sector)
                ASSERT_EQ(std::memcmp(&got[i], &model[at + i], sector), 0)
                    << when << ": sector " << (at + i) / sector << " is " << tag(&got[i])
                    << ", must be " << tag(&model[at + i]);
        }
    }
    // Self-describing data: each sector carries where it belongs and which write made it.
    static Image pattern(u64 offset, u64 bytes, u64 version)
    {
        Image d(bytes);
        for (u64 i = 0; i < bytes; i += 16) {
            const u64 v[2] = {(offset + i) / sector, version};
            std::memcpy(&d[i], v, 16);
        }
        return d;
    }
    static std::string tag(const u8 *s)
    {
        u64 v[2];
        std::memcpy(v, s, 16);
        return "(sector " + std::to_string(v[0]) + " version " + std::to_string(v[1]) + ")";
    }
    void write_pattern(u64 offset, u64 bytes, bool fua = false)
    {
        write(offset, pattern(offset, bytes, ++version), fua);
    }
    std::string status(int what = 0)
    {
        char text[256];
        pc_target_status(target, what, text, sizeof(text));
        return text;
    }
    int message(std::vector<std::string> words)
    {
        std::vector<char *> argv;
        for (std::string &w : words)
            argv.push_back(w.data());
        char text[256];
        return pc_target_message(target, static_cast<unsigned>(argv.size()), argv.data(), text,
                                 sizeof(text));
    }
    std::string last_error() const
    {
        std::string all;
        for (const LogLine &l : world.log())
            if (l.level == PC_ERR)
                all += l.text + "\n";
        return all;
    }
    pc_verdict map(Bio &bio, const pc_io &io)
    {
        const MustNotSleep in_map;
        return pc_target_map(target, bio.raw(), bio.request(), &io);
    }

    World world;
    MediaDevice &media;
    BackingDevice &backing;
    Image model;
    pc_table *table = nullptr;
    pc_target *target = nullptr;
    std::string sentence;
    u64 version = 0;
};

} // namespace pcache::selftest
