// SPDX-License-Identifier: GPL-2.0
// target/message.cpp - messages: one word and its values, strictly parsed; what is refused is
// logged.
#include "dm-pcache/target/target.hpp"

namespace pcache::target
{

namespace
{

// Designed, documented, and refused by name until they are built.
constexpr const char *later[] = {"cache_mode", "flush", "stats", "stats_reset"};

int refuse(pc_target &t, rt::Error e, const char *text) noexcept
{
    pc_log(t.instance->cache.host(), PC_ERR, "message refused: %s", text);
    return rt::to_errno(e);
}

int gc_percent(pc_target &t, rt::Span<char *> words) noexcept
{
    if (words.size() != 2)
        return refuse(t, rt::Error::invalid, "gc_percent takes one number, 0 to 90");
    const rt::Result<u32> n = parse_number(words[1], format::max_gc_percent);
    if (!n)
        return refuse(t, rt::Error::invalid, "gc_percent must be a number from 0 to 90");
    if (const rt::Error e = t.instance->cache.set_gc_percent(*n); !ok(e))
        return refuse(
            t, e, e == rt::Error::read_only ? "the cache is read-only" : "the cache is not active");
    return 0;
}

int accept_loss(pc_target &t, rt::Span<char *> words) noexcept
{
    if (words.size() != 1)
        return refuse(t, rt::Error::invalid, "accept_loss takes no value");
    media::Refusal why;
    if (const rt::Error e = t.instance->cache.accept_loss(why); !ok(e))
        return refuse(t, e, why.sentence ? why.sentence : "out of memory");
    return 0;
}

} // namespace

int run_message(pc_target &t, rt::Span<char *> words, char *, usize) noexcept
{
    if (words.empty())
        return refuse(t, rt::Error::invalid, "empty");
    if (same_word(words[0], "gc_percent"))
        return gc_percent(t, words);
    if (same_word(words[0], "accept_loss"))
        return accept_loss(t, words);
    for (const char *name : later)
        if (same_word(words[0], name))
            return refuse(
                t, rt::Error::not_supported,
                "this version does not have it; gc_percent N and accept_loss are available");
    return refuse(t, rt::Error::invalid, "unknown; gc_percent N and accept_loss are available");
}

} // namespace pcache::target
