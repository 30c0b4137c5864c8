// SPDX-License-Identifier: GPL-2.0
/*
 * log.c - the kernel log, and the engine's text formatting (platform.h, "log and events").
 *
 * Lines begin with the module's and the cache's name. Nothing here sleeps or takes a lock of ours.
 */
#define pr_fmt(fmt) "dm-pcache: " fmt
#include <linux/kernel.h>
#include <linux/printk.h>

#include "dm-pcache/kernel/host.h"

void pc_log(struct pc_host *host, enum pc_level level, const char *format, ...)
{
    const char *name = host ? pc_host_name(host) : "";
    const char *colon = host ? ": " : "";
    struct va_format text;
    va_list arguments;

    va_start(arguments, format);
    text.fmt = format;
    text.va = &arguments;
    if (level == PC_ERR)
        pr_err("%s%s%pV\n", name, colon, &text);
    else if (level == PC_WARN)
        pr_warn("%s%s%pV\n", name, colon, &text);
    else
        pr_info("%s%s%pV\n", name, colon, &text);
    va_end(arguments);
}

usize pc_format(char *buffer, usize size, const char *format, ...)
{
    va_list arguments;
    usize written;

    va_start(arguments, format);
    written = vscnprintf(buffer, size, format, arguments);
    va_end(arguments);
    return written;
}

/* An invariant of our own code does not hold; the caller traps after this returns (RT_ASSERT). */
void rt_assert_failed(const char *file, int line, const char *expression);
void rt_assert_failed(const char *file, int line, const char *expression)
{
    pr_crit("assertion failed at %s:%d: %s\n", file, line, expression);
}
