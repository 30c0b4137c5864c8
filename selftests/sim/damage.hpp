// SPDX-License-Identifier: GPL-2.0
// selftests/sim/damage.hpp - what goes bad on the cache device: poisoned lines, bad bits, lines and
// pages; and what that may cost. Documentation/testing.md, "The simulator", has the contract.
//
// Poison is a property of a line (64 bytes): its bytes are still there for the simulator, and for
// nobody else. A page in which a load has failed is *met*; of a page that is *known* those who open
// the device are told, and which units (512 bytes) of it are bad, and bad throughout. Both are
// never stored to, and known units never loaded from. A store of a whole line that nobody has met
// cures it.
//
// Damage comes between lives, when nothing is pending (strike: what it costs is told from the media
// as they were, by format.md alone), or while clients are at work (decay: a line of data or of the
// log). The oracle is told what may be lost. Used by one thread; nothing here sleeps.
#pragma once
#include <array>
#include <map>
#include <set>
#include <vector>
#include "selftests/sim/log_view.hpp"
#include "selftests/sim/rng.hpp"

namespace pcache::sim
{

enum class Expected : u8 { running, read_only, either };

class Damage
{
public:
    void reset(bool on, bool repairable);
    bool on() const { return on_; }
    bool poisoned() const { return !lines_.empty(); }
    bool any() const { return poisoned() || !spoilt_.empty() || standing_ || accepting_; }

    // ---- the device, for media.cpp; [offset, offset + bytes) ----
    int load(u64 offset, usize bytes); // 0 or -EIO
    bool unreadable(u64 offset, usize bytes) const;
    // Known, or met so long ago that who reserved a place there has come to its end.
    bool met_or_known(u64 offset, usize bytes) const;
    void stored(u64 offset, usize bytes);
    bool can_rewrite(u64 offset) const; // a page, by a block write
    void rewritten(u64 offset);
    void unit_rewritten(u64 offset); // what a cut in a block write leaves of it
    // A cut in block writes has changed these units; v: the log as it was, units: of 512 bytes.
    void block_write_torn(const LogView &v, const std::vector<u64> &units);
    u8 known_units(u64 page) const;
    void bad_line(u64 offset) { poison(offset, 1); } // for a scenario
    bool known_stretch(u32 i, u64 &offset, u64 &bytes) const;

    // ---- lives ----
    // Nothing runs. Damages something perhaps (in one life of `strike_one_in`), and tells the
    // oracle what all damage there is may cost in the coming life.
    void before_life(Rng &rng, u32 strike_one_in);
    void decay(Rng &rng); // now, while clients are at work
    // What the state must be when the cache has been activated.
    Expected expected() const { return expected_; }
    bool may_turn_read_only() const { return may_turn_; } // at run time
    bool standing() const { return standing_; }    // the media are those of a read-only cache
    void activated();                              // it runs
    void accepting();                              // accept_loss has begun
    void accepted();                               // it has ended well
    bool formatting() const { return accepting_; } // accept_loss has begun, perhaps ended
    u32 strikes() const { return strikes_; }

private:
    struct Range {
        u64 offset, bytes;
    };
    void poison(u64 offset, u64 bytes);
    void make_known(u64 page, bool whole);
    void flip(Rng &rng);
    void strike(Rng &rng, const LogView &v);
    void strike_data(Rng &rng, const LogView &v);
    void strike_record(Rng &rng, const LogView &v);
    void strike_slot(Rng &rng, const LogView &v);
    void strike_tails(Rng &rng);
    void take_back(const LogView &v);
    void spoil(Rng &rng, Range r, bool may_flip);
    // Bad segments are not used again, and the smallest cache must be left (two may go).
    bool room_for(u64 offset) const;
    bool touched(u64 offset, u64 bytes) const;
    // In what is dirty, or all of it if dirty_tail is lost.
    struct Hole {
        usize first; // record; their number: there is no hole
        bool proved; // that it is one, and not the end
    };
    Hole find_hole(const LogView &v) const;
    void judge(const LogView &v);
    void judge_data(const LogView &v, const format::Key &k);
    bool spoilt(const LogView &v, const format::Key &k) const;
    void mark(u64 place, bool whole_write);

    bool on_ = false, repairable_ = true;
    std::set<u64> lines_, known_; // numbers of lines; of units
    std::map<u64, u64> met_;      // number of a page: when
    std::vector<Range> spoilt_;   // bits that are wrong, until a cache has been activated
    bool tails_lost_ = false;     // so that all of the log is dirty
    bool key_tail_lost_ = false;  // both of its slots
    u64 slot_ = 0;                // of a two-slot record or superblock that is bad; 0: none
    Expected expected_ = Expected::running;
    bool may_turn_ = false, standing_ = false, accepting_ = false;
    std::array<u8, 16> accepting_uuid_{}; // of the cache whose loss is being accepted
    u32 strikes_ = 0;
};
extern Damage damage;

} // namespace pcache::sim
