// SPDX-License-Identifier: GPL-2.0
// The life of a cache, as Documentation/design.md, "Life", has it: suspend, resume and reload keep
// the index; tables that grow, shrink and fail; what a noflush suspend leaves alone.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include "dm-pcache/format/extension.hpp"
#include "rig.hpp"

using namespace pcache::selftest;
using namespace std::chrono_literals;

namespace
{

// The extended superblock as it stands in slot 0 (both slots are written by every update).
pcache::format::ExtensionRecord extension(const Rig &rig)
{
    pcache::format::ExtensionRecord r;
    rig.media.read(0x2800, &r, sizeof(r));
    return r;
}

bool clean_stop(const Rig &rig)
{
    return extension(rig).state & pcache::format::extension_state::clean_stop;
}

// Loads a table of that length over the running cache and resumes it, as dmsetup does; the old
// table is gone afterwards, also when the resume fails. 0 or -errno of the load or of the resume.
int reload(Rig &rig, u64 length, bool noflush = false)
{
    pc_target *const old = rig.target;
    pc_table *const old_table = rig.table;
    if (const int e = rig.create({}, length); e) {
        rig.target = old;
        rig.table = old_table;
        return e;
    }
    rig.world.set_noflush(old_table, noflush);
    pc_target_presuspend(old, noflush);
    rig.world.set_noflush(old_table, false);
    pc_target_postsuspend(old);
    rig.world.clear_log();
    const int e = rig.resume();
    pc_target_dtr(old);
    rig.world.drop_table(old_table);
    return e;
}

template <class Condition>
bool comes_true(Condition condition)
{
    for (int i = 0; i < 2000 && !condition(); i++)
        std::this_thread::sleep_for(10ms);
    return condition();
}

// STATUS says that everything logged is on the backing device.
bool drained(Rig &rig)
{
    const std::string s = rig.status();
    const usize key = s.rfind(' '), dirty = s.rfind(' ', key - 1), head = s.rfind(' ', dirty - 1);
    return s.substr(head + 1, dirty - head - 1) == s.substr(dirty + 1, key - dirty - 1);
}

// A read there is a hit.
bool cached(Rig &rig, u64 offset)
{
    Bio bio(4096);
    const u64 reads = rig.backing.counters().reads;
    if (rig.map(bio, {PC_READ, offset, 4096, 0, 0}) != PC_TAKEN)
        return false;
    EXPECT_EQ(bio.wait(), 0);
    return rig.backing.counters().reads == reads;
}

void wait_until_drained(Rig &rig)
{
    ASSERT_EQ(rig.flush(), 0);
    ASSERT_TRUE(comes_true([&] { return drained(rig); })) << rig.status();
}

} // namespace

// ---- suspend and resume -------------------------------------------------------------------------

TEST(LifeCycle, SuspendAndResumeKeepTheIndex)
{
    Rig rig;
    rig.start();
    ASSERT_TRUE(rig.world.said("recovered"));
    for (const bool noflush : {false, true}) {
        rig.write_pattern(8192, 16384);
        rig.suspend(noflush);
        rig.world.clear_log();
        ASSERT_EQ(rig.resume(), 0) << rig.last_error();
        EXPECT_FALSE(rig.world.said("recovered")) << "the log was replayed for a resume";
        rig.check("after a resume");
    }
}

TEST(LifeCycle, NothingTouchesEitherDeviceWhileSuspended)
{
    Rig rig;
    rig.start();
    rig.write_pattern(0, 256u << 10);
    rig.suspend();
    const BackingDevice::Counters before = rig.backing.counters();
    u64 fences = 0;
    rig.world.set_fence_hook([&] { fences++; });
    std::this_thread::sleep_for(1500ms); // idleness, and the age of staged keys
    rig.world.set_fence_hook(nullptr);
    const BackingDevice::Counters after = rig.backing.counters();
    EXPECT_EQ(fences, 0u) << "something was stored on the cache device";
    EXPECT_EQ(after.writes, before.writes);
    EXPECT_EQ(after.flushes, before.flushes);
    EXPECT_EQ(after.reads, before.reads);
    ASSERT_EQ(rig.resume(), 0);
    rig.check("after a resume");
}

TEST(LifeCycle, ASuspendedDeviceIsRemovedThroughDtrAlone)
{
    Rig rig;
    rig.start();
    rig.write_pattern(0, 128u << 10);
    rig.suspend();
    EXPECT_TRUE(clean_stop(rig));
    u64 fences = 0;
    rig.world.set_fence_hook([&] { fences++; });
    rig.destroy();
    rig.world.set_fence_hook(nullptr);
    EXPECT_EQ(fences, 0u) << "dtr stored something on a cache that was stopped";
    rig.start();
    rig.check("after the removal");
}

TEST(LifeCycle, ASuspendThatIsUndoneGoesOn)
{
    Rig rig;
    rig.start();
    for (const bool noflush : {false, true}) {
        rig.begin_suspend(noflush);
        rig.write_pattern(0, 64u << 10);
        ASSERT_EQ(rig.flush(), 0) << "service goes on after presuspend: a freeze still writes";
        rig.world.set_noflush(rig.table, false);
        pc_target_presuspend_undo(rig.target);
        rig.write_pattern(0, 64u << 10);
        wait_until_drained(rig);
        EXPECT_TRUE(rig.backing.image() == rig.model);
    }
}

#ifdef PCACHE_SMALL_GEOMETRY // fills the cache
TEST(LifeCycle, FlushSuspendServesThoseWhoWait)
{
    Rig rig(pcache::format::geometry.min_segments, 64u << 20);
    rig.start();
    rig.backing.set_delay_ns(Op::write, 100000);
    rig.backing.set_delay_ns(Op::flush, 100000);
    // Each piece fits a key; together they are more than the cache holds, so that some must wait.
    const u32 bytes = std::min(pcache::format::geometry.range_bytes, 1u << 20);
    const u64 cache =
        u64{pcache::format::geometry.min_segments} * pcache::format::geometry.segment_bytes;
    const u64 pieces = std::min<u64>(cache * 5 / 4, rig.model.size()) / bytes;
    std::vector<std::unique_ptr<Bio>> bios;
    for (u64 i = 0; i < pieces; i++) {
        const Image d = Rig::pattern(i * bytes, bytes, ++rig.version);
        std::memcpy(&rig.model[i * bytes], d.data(), bytes);
        bios.push_back(std::make_unique<Bio>(d));
        ASSERT_EQ(rig.map(*bios.back(), {PC_WRITE, i * bytes, bytes, 0, 0}), PC_TAKEN);
    }
    // Device-mapper waits for them between the two.
    pc_target_presuspend(rig.target, 0);
    for (auto &b : bios)
        ASSERT_EQ(b->wait(), 0) << "a write that waited was not served by a flush suspend";
    pc_target_postsuspend(rig.target);
    EXPECT_TRUE(clean_stop(rig));
    ASSERT_EQ(rig.resume(), 0);
    rig.check("after a resume");
}
#endif

// ---- a noflush suspend --------------------------------------------------------------------------

#ifdef PCACHE_SMALL_GEOMETRY // fills the cache

namespace
{
// More writes than fit; some wait in the end.
std::vector<std::unique_ptr<Bio>> overfill(Rig &rig)
{
    std::vector<std::unique_ptr<Bio>> bios;
    const u32 bytes = pcache::format::geometry.range_bytes;
    for (u64 i = 0; i < 64; i++) {
        bios.push_back(std::make_unique<Bio>(Image(bytes)));
        EXPECT_EQ(rig.map(*bios.back(), {PC_WRITE, i * bytes % rig.model.size(), bytes, 0, 0}),
                  PC_TAKEN);
    }
    return bios;
}

unsigned pushed_back(std::vector<std::unique_ptr<Bio>> &bios)
{
    unsigned n = 0;
    for (auto &b : bios) {
        const int e = b->wait();
        EXPECT_TRUE(e == 0 || e == PC_END_REQUEUE) << e;
        n += e == PC_END_REQUEUE;
    }
    return n;
}
} // namespace

// The backing device may be what is wrong: what is in flight there is waited for, nothing new is
// asked of it.
TEST(LifeCycle, NoflushSuspendOfAFullCacheAsksTheBackingDeviceForNothing)
{
    Rig rig;
    rig.start();
    rig.backing.hold_writes(true);
    auto bios = overfill(rig);
    ASSERT_TRUE(comes_true([&] { return rig.backing.counters().writes_in_flight > 0; }));
    rig.begin_suspend(true);
    EXPECT_GT(pushed_back(bios), 0u);
    std::atomic<u64> asked{0};
    const BackingDevice::Counters before = rig.backing.counters();
    const u64 in_flight = rig.backing.unflushed().size();
    rig.backing.set_hook([&](Op op, u64, u64) {
        asked += op != Op::write;
        return 0;
    });
    rig.backing.hold_writes(false);
    ASSERT_TRUE(comes_true([&] { return rig.backing.counters().writes_in_flight == 0; }));
    std::this_thread::sleep_for(50ms); // a write-back that goes on would do so now
    rig.end_suspend();
    rig.backing.set_hook(nullptr);
    EXPECT_LE(rig.backing.counters().writes, before.writes + in_flight)
        << "a write was sent after the suspend had begun";
    EXPECT_EQ(asked, 0u) << "a read or a FLUSH was sent to the backing device";
    EXPECT_FALSE(clean_stop(rig)) << "something was sent and not FLUSHed: that is no clean stop";
    EXPECT_NE(rig.status(), "Fail");
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    EXPECT_EQ(rig.try_write(0, Image(4096)), 0);
}

// `dmsetup suspend --noflush` and a signal: device-mapper sends the requests again before it says
// that the suspend is undone, and makes EIO of what is then given back.
TEST(LifeCycle, AnInterruptedNoflushSuspendFailsNoWrite)
{
    Rig rig;
    rig.start();
    rig.backing.hold_writes(true);
    auto bios = overfill(rig);
    rig.begin_suspend(true);
    EXPECT_GT(pushed_back(bios), 0u);
    rig.world.set_noflush(rig.table, false);
    auto again = overfill(rig);
    std::this_thread::sleep_for(50ms);
    pc_target_presuspend_undo(rig.target);
    rig.backing.hold_writes(false);
    for (auto &b : again)
        EXPECT_EQ(b->wait(), 0) << "a write that was sent again";
    wait_until_drained(rig);
}

// The batch notices the suspend while a write is in flight, and the suspend is undone before that
// write has ended: what was not sent has not been written, and is no fault of the device's.
TEST(LifeCycle, ABatchThatASuspendHasCutShortIsSentAgain)
{
    std::atomic<u32> carried_out{0};
    std::atomic<bool> held{true};
    Rig rig(32);
    rig.start();
    rig.backing.set_hook([&](Op op, u64, u64) {
        while (op == Op::write && held && carried_out == 1) // the second one
            std::this_thread::sleep_for(1ms);
        carried_out += op == Op::write;
        return 0;
    });
    rig.backing.hold_writes(true);
    for (u64 i = 0; i < 64; i++) // no two are neighbours, and more than the device takes at once
        rig.write_pattern(i * 16384, 4096);
    ASSERT_EQ(rig.flush(), 0);
    EXPECT_TRUE(comes_true([&] { return rig.backing.counters().writes_in_flight > 2; }));
    std::this_thread::sleep_for(50ms); // it waits for a write to land
    rig.begin_suspend(true);
    rig.backing.hold_writes(false);
    std::this_thread::sleep_for(50ms); // it has noticed
    rig.world.set_noflush(rig.table, false);
    pc_target_presuspend_undo(rig.target);
    held = false;
    wait_until_drained(rig);
    EXPECT_TRUE(rig.backing.image() == rig.model);
    EXPECT_FALSE(rig.world.said("write-back failed"));
    rig.backing.set_hook(nullptr);
}

TEST(LifeCycle, NoflushSuspendWithAFailingBackingDeviceFailsNothing)
{
    Rig rig;
    rig.start();
    rig.backing.set_hook([](Op op, u64, u64) { return op == Op::read ? 0 : -5; });
    auto bios = overfill(rig);
    ASSERT_TRUE(comes_true([&] { return rig.world.said("write-back failed"); }));
    rig.begin_suspend(true);
    EXPECT_GT(pushed_back(bios), 0u);
    rig.end_suspend();
    EXPECT_NE(rig.status(), "Fail");
    rig.backing.set_hook(nullptr);
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    EXPECT_EQ(rig.try_write(0, Image(4096)), 0);
    wait_until_drained(rig);
}
#endif

TEST(LifeCycle, NoflushSuspendWithNothingUnflushedIsACleanStopThatAsksNothing)
{
    Rig rig;
    rig.start();
    rig.write_pattern(0, 64u << 10);
    wait_until_drained(rig);
    const BackingDevice::Counters before = rig.backing.counters();
    rig.suspend(true);
    EXPECT_EQ(rig.backing.counters().reads, before.reads);
    EXPECT_EQ(rig.backing.counters().flushes, before.flushes);
    EXPECT_TRUE(clean_stop(rig));
    ASSERT_EQ(rig.resume(), 0);
    rig.suspend();
    EXPECT_TRUE(clean_stop(rig));
}

// ---- tables that grow and shrink ----------------------------------------------------------------

TEST(LifeCycle, ALongerBackingDeviceIsUsedAfterAReloadWithoutReplay)
{
    Rig rig;
    const u64 all = rig.backing.bytes(), half = all / 2;
    rig.backing.set_bytes(half);
    ASSERT_EQ(rig.create({}, half), 0) << rig.sentence;
    ASSERT_EQ(rig.resume(), 0);
    rig.write_pattern(half - 65536, 65536);
    EXPECT_NE(reload(rig, all), 0) << "the backing device has not grown yet";
    EXPECT_NE(rig.sentence.find("longer than the backing device"), std::string::npos);

    rig.backing.set_bytes(all);
    ASSERT_EQ(reload(rig, all), 0) << rig.last_error();
    EXPECT_FALSE(rig.world.said("recovered")) << "the log was replayed for a reload";
    EXPECT_EQ(extension(rig).backing_bytes, all);
    rig.write_pattern(all - 65536, 65536);
    rig.write_pattern(half - 4096, 8192);
    rig.check("after the growth");
    rig.remove();
    rig.start();
    rig.check("after removal");
    rig.remove();
    rig.backing.set_bytes(half);
    EXPECT_NE(rig.create({}, half), 0) << "the recorded size must be the new one";
    EXPECT_NE(rig.sentence.find("smaller than the one"), std::string::npos) << rig.sentence;
    rig.backing.set_bytes(all);
}

TEST(LifeCycle, ABackingDeviceThatShrankWhileSuspendedIsRefusedUntilItIsBack)
{
    Rig rig;
    const u64 all = rig.backing.bytes(), half = all / 2;
    ASSERT_EQ(rig.create({}, half), 0); // the table does not need the other half
    ASSERT_EQ(rig.resume(), 0);
    rig.write_pattern(0, 65536);
    rig.suspend();
    rig.backing.set_bytes(half);
    EXPECT_NE(rig.resume(), 0);
    EXPECT_TRUE(rig.world.said("smaller than the one"));
    rig.backing.set_bytes(all);
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    rig.check("after the way back");
}

TEST(LifeCycle, AShorterTableIsRefusedWhileDirtyDataLiesBeyondIt)
{
    Rig rig;
    const u64 all = rig.backing.bytes(), half = all / 2;
    rig.start();
    rig.backing.hold_writes(true); // it stays dirty
    rig.write_pattern(0, 65536);
    rig.write_pattern(half - 4096, 8192); // of one write half lies beyond
    EXPECT_EQ(reload(rig, half, true), -22);
    EXPECT_TRUE(rig.world.said("the table is too short"));
    const std::string details =
        "the table has " + std::to_string(half / sector) +
        " sectors, the cache holds data that is not written back up to sector " +
        std::to_string((half + 4096) / sector);
    EXPECT_TRUE(rig.world.said(details));
    EXPECT_EQ(rig.status(), "Inactive") << "the table before is gone by then";
    EXPECT_EQ(rig.resume(), -22) << "it is refused as often as it is tried";
    // The way out: the longer table again.
    ASSERT_EQ(reload(rig, all), 0) << rig.last_error();
    EXPECT_FALSE(rig.world.said("recovered"));
    rig.check("after the longer table");
    ASSERT_EQ(rig.flush(), 0);
    rig.begin_suspend(true); // held writes land, and nothing more is sent
    rig.backing.hold_writes(false);
    rig.end_suspend();
    rig.destroy();
    // The same when the media is read from scratch.
    rig.world.clear_log();
    EXPECT_EQ(rig.create({}, half), -22);
    EXPECT_NE(rig.sentence.find("the table is too short"), std::string::npos) << rig.sentence;
    // What the check has read is cached by then, behind dirty_tail, and further out.
    EXPECT_TRUE(rig.world.said(details.substr(0, details.rfind(' '))));
    rig.start();
    rig.check("after all refusals");
}

// What lies beyond a shorter table may be changed by others: it must not come back when the table
// grows again.
namespace
{
enum class How { reload, scratch };

void expect_clean_data_beyond_is_dropped(How how)
{
    Rig rig(8 * pcache::format::geometry.min_segments); // roomy: GC has no business of its own
    const u64 all = rig.backing.bytes(), half = all / 2;
    rig.start();
    rig.write_pattern(0, 65536);
    rig.write_pattern(half - 4096, 65536);
    rig.write_pattern(all - 65536, 65536);
    ASSERT_EQ(rig.flush(), 0);
    rig.write_pattern(65536, 65536); // behind them in the log
    wait_until_drained(rig);
    ASSERT_TRUE(cached(rig, half + 4096) && cached(rig, all - 4096)) << "this test shows nothing";
    if (how == How::reload) {
        ASSERT_EQ(reload(rig, half), 0) << rig.last_error();
    } else {
        rig.remove();
        ASSERT_EQ(rig.create({}, half), 0) << rig.sentence;
        ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    }
    EXPECT_TRUE(rig.world.said("clean data beyond the end of the table is dropped"));
    EXPECT_TRUE(cached(rig, 65536)) << "what stands behind the last key beyond the end stays";
    EXPECT_EQ(rig.read(0, 65536), Image(rig.model.begin(), rig.model.begin() + 65536));
    rig.write_pattern(131072, 65536);

    // Somebody else has the rest for a while.
    const Image foreign = Rig::pattern(half, half, ++rig.version);
    rig.backing.write(half, foreign.data(), foreign.size());
    std::memcpy(&rig.model[half], foreign.data(), foreign.size());
    ASSERT_EQ(reload(rig, all), 0) << rig.last_error();
    rig.check("after growing again");
    rig.remove();
    rig.start();
    rig.check("after removal");
}
} // namespace

TEST(LifeCycle, AShorterTableByReloadDropsCleanDataBeyondItForGood)
{
    expect_clean_data_beyond_is_dropped(How::reload);
}

// What was read a moment ago stands behind dirty tail as clean: that is no reason to refuse.
namespace
{
void expect_fills_beyond_are_no_obstacle(How how)
{
    Rig rig(8 * pcache::format::geometry.min_segments);
    const u64 all = rig.backing.bytes(), half = all / 2;
    const Image before = Rig::pattern(half, half, ++rig.version);
    rig.backing.write(half, before.data(), before.size());
    std::memcpy(&rig.model[half], before.data(), before.size());
    rig.start();
    ASSERT_TRUE(comes_true([&] { return cached(rig, half + 65536); })) << "a miss is cached";
    if (how == How::reload) {
        ASSERT_EQ(reload(rig, half), 0) << rig.last_error();
    } else {
        rig.remove();
        ASSERT_EQ(rig.create({}, half), 0) << rig.sentence;
        ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    }
    EXPECT_TRUE(rig.world.said("clean data beyond the end of the table is dropped"));
    rig.write_pattern(0, 65536);
    const Image foreign = Rig::pattern(half, half, ++rig.version);
    rig.backing.write(half, foreign.data(), foreign.size());
    std::memcpy(&rig.model[half], foreign.data(), foreign.size());
    ASSERT_EQ(reload(rig, all), 0) << rig.last_error();
    rig.check("after growing again");
}
} // namespace

TEST(LifeCycle, AShorterTableByReloadIsTakenWhenOnlyFillsLieBeyondIt)
{
    expect_fills_beyond_are_no_obstacle(How::reload);
}

TEST(LifeCycle, AShorterTableFromScratchIsTakenWhenOnlyFillsLieBeyondIt)
{
    expect_fills_beyond_are_no_obstacle(How::scratch);
}

TEST(LifeCycle, AShorterTableFromScratchDropsCleanDataBeyondItForGood)
{
    expect_clean_data_beyond_is_dropped(How::scratch);
}

#ifdef PCACHE_SMALL_GEOMETRY // whole images
// The same with the power gone right after the shorter table became active.
TEST(LifeCycle, CleanDataBeyondAShorterTableStaysGoneAfterAPowerCut)
{
    Rig rig(8 * pcache::format::geometry.min_segments);
    std::mt19937_64 rng(17);
    const u64 all = rig.backing.bytes(), half = all / 2;
    rig.media.set_power_model(true);
    for (int life = 0; life < 6; life++) {
        rig.start();
        rig.write_pattern(half + life * 65536, 65536);
        rig.write_pattern(life * 65536, 65536);
        wait_until_drained(rig);
        ASSERT_TRUE(cached(rig, half + static_cast<u64>(life) * 65536))
            << "this test shows nothing";
        ASSERT_EQ(reload(rig, half), 0) << rig.last_error();
        rig.power_cut(rng);
        const Image foreign = Rig::pattern(half, half, ++rig.version);
        rig.backing.write(half, foreign.data(), foreign.size());
        std::memcpy(&rig.model[half], foreign.data(), foreign.size());
        rig.start();
        rig.check("after the cut");
        rig.remove();
    }
}
#endif

// ---- activation that fails, and tables that are not active --------------------------------------

TEST(LifeCycle, ActivationOverABackingDeviceThatFailsItsFlushCanBeTriedAgain)
{
    Rig rig;
    ASSERT_EQ(rig.create(), 0) << rig.sentence;
    rig.backing.fail(Op::flush, 1);
    EXPECT_EQ(rig.resume(), -5);
    EXPECT_TRUE(rig.world.said("the backing device failed a FLUSH"));
    EXPECT_EQ(rig.status(), "Inactive");
    EXPECT_EQ(rig.message({"gc_percent", "50"}), -16);
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    rig.write_pattern(0, 65536);
    rig.remove();
    // And over a cache that holds data.
    ASSERT_EQ(rig.create(), 0) << rig.sentence;
    rig.backing.fail(Op::flush, 1, -5, 2);
    EXPECT_EQ(rig.resume(), -5);
    EXPECT_EQ(rig.resume(), -5);
    ASSERT_EQ(rig.resume(), 0) << rig.last_error();
    rig.check("after all tries");
}

TEST(LifeCycle, ATableThatIsNotActiveAnswersInactiveAndTakesNoMessage)
{
    Rig rig;
    rig.start();
    pc_target *const old = rig.target;
    pc_table *const old_table = rig.table;
    const std::string line = rig.status(1);
    ASSERT_EQ(rig.create(), 0) << rig.sentence; // what --inactive asks for
    EXPECT_EQ(rig.status(), "Inactive");
    EXPECT_EQ(rig.status(1), line);
    EXPECT_EQ(rig.message({"gc_percent", "50"}), -16);
    EXPECT_EQ(rig.message({"dance"}), -16);
    pc_target_presuspend(old, 0);
    pc_target_postsuspend(old); // swapped now, and not activated yet
    EXPECT_EQ(rig.status(), "Inactive");
    EXPECT_EQ(rig.message({"gc_percent", "50"}), -16);
    ASSERT_EQ(rig.resume(), 0);
    EXPECT_NE(rig.status(), "Inactive");
    EXPECT_EQ(rig.message({"gc_percent", "50"}), 0);
    pc_target_dtr(old);
    rig.world.drop_table(old_table);
}

// A table that was loaded beside a running one and is cleared again.
TEST(LifeCycle, AReloadThatIsClearedLeavesTheRunningCacheAlone)
{
    Rig rig;
    rig.start();
    rig.write_pattern(0, 65536);
    pc_target *const running = rig.target;
    pc_table *const table = rig.table;
    ASSERT_EQ(rig.create(), 0) << rig.sentence;
    rig.destroy();
    rig.target = running;
    rig.table = table;
    rig.write_pattern(65536, 65536);
    rig.check("after the clear");
}

TEST(LifeCycle, AReloadThatOnlyAddsLengthWithinTheBackingDeviceIsNoReplay)
{
    Rig rig;
    const u64 all = rig.backing.bytes(), half = all / 2;
    ASSERT_EQ(rig.create({}, half), 0);
    ASSERT_EQ(rig.resume(), 0);
    rig.write_pattern(0, 65536);
    for (const bool noflush : {false, true}) {
        ASSERT_EQ(reload(rig, all, noflush), 0) << rig.last_error();
        EXPECT_FALSE(rig.world.said("recovered"));
        rig.write_pattern(half - 4096, 8192);
        rig.check("after the reload");
    }
}
