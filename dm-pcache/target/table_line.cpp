// SPDX-License-Identifier: GPL-2.0
// target/table_line.cpp - see table_line.hpp.
#include "dm-pcache/target/table_line.hpp"

namespace pcache::target
{

namespace
{

rt::Error refuse(const char **sentence, const char *text, const char *word,
                 rt::Error e = rt::Error::invalid) noexcept
{
    *sentence = text;
    pc_log(nullptr, PC_ERR, "%s (given: \"%s\")", text, word);
    return e;
}

bool copy_path(const char *from, char (&to)[path_bytes]) noexcept
{
    usize n = 0;
    for (; from[n]; n++) {
        if (n + 1 == path_bytes)
            return false;
        to[n] = from[n];
    }
    to[n] = 0;
    return n != 0;
}

rt::Error cache_mode(const char *value, engine::Options &, const char **sentence) noexcept
{
    if (same_word(value, "writeback"))
        return rt::Error::none;
    if (same_word(value, "writethrough") || same_word(value, "writearound") ||
        same_word(value, "writeonly"))
        return refuse(sentence, "cache_mode: this version serves writeback only", value,
                      rt::Error::not_supported);
    return refuse(sentence, "cache_mode must be writeback, writethrough, writearound or writeonly",
                  value);
}

rt::Error data_crc(const char *value, engine::Options &out, const char **sentence) noexcept
{
    out.data_crc = same_word(value, "true")    ? engine::Asked::yes
                   : same_word(value, "false") ? engine::Asked::no
                                               : engine::Asked::nothing;
    if (out.data_crc == engine::Asked::nothing)
        return refuse(sentence, "data_crc must be true or false", value);
    return rt::Error::none;
}

rt::Error writeback_order(const char *value, engine::Options &, const char **sentence) noexcept
{
    if (same_word(value, "strict"))
        return rt::Error::none;
    if (same_word(value, "relaxed"))
        return refuse(sentence, "writeback_order: this version serves strict only", value,
                      rt::Error::not_supported);
    return refuse(sentence, "writeback_order must be strict or relaxed", value);
}

rt::Error changed_backing(const char *value, engine::Options &out, const char **sentence) noexcept
{
    out.changed_read_only = same_word(value, "read_only");
    if (!out.changed_read_only && !same_word(value, "refuse"))
        return refuse(sentence, "changed_backing must be refuse or read_only", value);
    return rt::Error::none;
}

struct Option {
    const char *name;
    rt::Error (*take)(const char *value, engine::Options &out, const char **sentence) noexcept;
    u32 bit;
};
constexpr Option options[] = {
    {"cache_mode", cache_mode, 1},
    {"data_crc", data_crc, 2},
    {"crc", data_crc, 2},
    {"writeback_order", writeback_order, 4},
    {"changed_backing", changed_backing, 8},
};

rt::Error parse_option(const char *name, const char *value, u32 &seen, engine::Options &out,
                       const char **sentence) noexcept
{
    for (const Option &o : options) {
        if (!same_word(name, o.name))
            continue;
        if (seen & o.bit)
            return refuse(sentence, "an option is given twice: give each once", name);
        seen |= o.bit;
        return o.take(value, out, sentence);
    }
    return refuse(
        sentence,
        "unknown option: cache_mode, data_crc, writeback_order and changed_backing are known",
        name);
}

} // namespace

bool same_word(const char *a, const char *b) noexcept
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

rt::Result<u32> parse_number(const char *word, u32 most) noexcept
{
    if (!word[0] || (word[0] == '0' && word[1]))
        return rt::Error::invalid;
    u64 n = 0;
    for (; *word; word++) {
        if (*word < '0' || *word > '9')
            return rt::Error::invalid;
        n = n * 10 + static_cast<u64>(*word - '0');
        if (n > most)
            return rt::Error::invalid;
    }
    return static_cast<u32>(n);
}

rt::Error parse_table_line(rt::Span<char *> words, TableLine &out, const char **sentence) noexcept
{
    constexpr u32 most_words = 64;
    out.options = {};
    if (words.size() < 2)
        return refuse(sentence, "a table line needs <cache_dev> <backing_dev>",
                      words.empty() ? "" : words[0]);
    if (!copy_path(words[0], out.cache) || !copy_path(words[1], out.backing))
        return refuse(sentence, "a device name is empty or longer than 255 characters", words[0]);
    if (words.size() == 2)
        return rt::Error::none;
    const rt::Result<u32> count = parse_number(words[2], most_words);
    if (!count)
        return refuse(sentence, "the third word must be the number of option words behind it",
                      words[2]);
    if (words.size() < 3 + usize{*count})
        return refuse(sentence, "fewer option words than the third word announces", words[2]);
    if (words.size() > 3 + usize{*count})
        return refuse(sentence, "more words than the third word announces",
                      words[3 + usize{*count}]);
    if (*count % 2)
        return refuse(sentence, "an option has no value: the number of option words must be even",
                      words[2]);
    u32 seen = 0;
    for (u32 i = 0; i < *count; i += 2)
        RT_TRY(parse_option(words[3 + i], words[4 + i], seen, out.options, sentence));
    return rt::Error::none;
}

} // namespace pcache::target
