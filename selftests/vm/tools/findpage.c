// SPDX-License-Identifier: GPL-2.0
/*
 * findpage.c - findpage DEVICE < PAGE: the byte offset of the first page (4 KiB, at a multiple of
 * it) of a device that holds the same as standard input. Exit status 1: there is none.
 *
 * Read by direct I/O: what a DAX user stored is not in the page cache. What cannot be read is
 * skipped.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PAGE 4096
#define CHUNK 256 /* pages */

static char want[PAGE];
static char got[CHUNK * PAGE] __attribute__((aligned(PAGE)));

static int find(int fd, off_t at, size_t bytes)
{
    ssize_t n = pread(fd, got, bytes, at);

    for (ssize_t i = 0; i + PAGE <= n; i += PAGE) {
        if (memcmp(got + i, want, PAGE) == 0) {
            printf("%lld\n", (long long)at + i);
            return 1;
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    int fd = argc == 2 ? open(argv[1], O_RDONLY | O_DIRECT) : -1;
    off_t end = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);

    if (end < 0 || fread(want, 1, PAGE, stdin) != PAGE) {
        fprintf(stderr, "usage: findpage DEVICE < PAGE\n");
        return 2;
    }
    for (off_t at = 0; at < end; at += CHUNK * PAGE) {
        size_t bytes = end - at < CHUNK * PAGE ? (size_t)(end - at) : CHUNK * PAGE;

        if (find(fd, at, bytes))
            return 0;
        if (pread(fd, got, bytes, at) == (ssize_t)bytes)
            continue;
        for (off_t page = at; page < at + (off_t)bytes; page += PAGE) {
            if (find(fd, page, PAGE))
                return 0;
        }
    }
    return 1;
}
