// SPDX-License-Identifier: GPL-2.0
/*
 * longkeys - a cache as mainline's driver leaves it, with data_crc and CLEAN keys of 1 MiB each;
 * and how long reads of them take.
 *
 *   longkeys make CACHE BACKING KEYS   formats CACHE; key i holds MiB i of BACKING as it is
 *   longkeys time DEVICE FIRST KEYS    reads MiB by MiB; prints the longest and the mean in us
 *
 * By the text of the media format (Documentation/format.md, Part 1) alone. Statically linked, for
 * guests. Exit status: 0, or 1 on an error.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>
#include <linux/fs.h>

#define MIB (1u << 20)
#define SEGMENT (16ull << 20)
#define FIRST 0x5000ull
#define CONTROL 0x3000u
#define KEYS_PER_SEGMENT 15
#define SEED 0x3B15Au

static _Alignas(4096) uint8_t data[MIB];
static uint32_t table[256];
static int cache, failed;

static uint32_t crc32c(const void *p, size_t n)
{
    uint32_t crc = SEED;

    for (const uint8_t *b = p; n; n--)
        crc = table[(crc ^ *b++) & 0xFF] ^ crc >> 8;
    return crc;
}

static void put(uint64_t at, const void *p, size_t n)
{
    if (pwrite(cache, p, n, (off_t)at) != (ssize_t)n)
        failed = 1;
}

/* A slot of n bytes whose payload begins at word 2, in two places. */
static void put_slots(uint64_t at, uint64_t stride, uint32_t *slot, size_t n)
{
    slot[1] = 1; /* seq 1, version 0, res 0 */
    slot[0] = crc32c((uint8_t *)slot + 4, n - 4);
    put(at, slot, n);
    put(at + stride, slot, n);
}

static void put_frame(uint32_t segments)
{
    uint32_t super[6] = {0}, slot[6];

    memcpy(super + 2, &(uint64_t){0x65B05EFA96C596EFull}, 8);
    super[4] = segments;
    super[0] = crc32c((uint8_t *)super + 4, 20);
    put(0x1000, super, 24);
    for (uint32_t i = 0; i < segments; i++) {
        uint64_t at = FIRST + i * SEGMENT;
        int last = i + 1 == segments;

        memset(slot, 0, sizeof(slot));
        slot[2] = 1 << 1 | !last;
        slot[3] = last ? 0 : i + 1;
        put_slots(at, 0x1000, slot, 16);
        memset(slot, 0, sizeof(slot));
        put_slots(at + 0x2000, 16, slot, 16);
    }
    memset(slot, 0, sizeof(slot));
    put_slots(0x4000, 16, slot, 16);
    put_slots(0x4020, 16, slot, 16);
    slot[2] = 0;
    slot[3] = segments;
    slot[4] = 1 | 1 << 1 | 70 << 6; /* DATA_CRC, INIT_DONE, writeback, gc_percent 70 */
    slot[5] = 0;
    put_slots(0x2000, 0x1000, slot, 24);
}

/* The record of one CLEAN key at `at` of segment 0; returns where the next one begins. */
static uint32_t put_key(uint32_t at, uint32_t i, uint32_t segment, uint32_t offset)
{
    uint8_t record[64] = {0};
    uint64_t off = (uint64_t)i * MIB;
    uint32_t words[] = {MIB, 2, segment, offset}, one = 1, crc;

    memcpy(record + 4, &one, 4);
    memcpy(record + 8, &(uint64_t){0x676894A64E164F1Aull}, 8);
    memcpy(record + 24, &off, 8);
    memcpy(record + 32, words, 16);
    crc = crc32c(data, MIB);
    memcpy(record + 56, &crc, 4);
    crc = crc32c(record + 4, 60);
    memcpy(record, &crc, 4);
    put(FIRST + CONTROL + at, record, 64);
    return at + 64;
}

static int make(const char *cache_path, const char *backing_path, uint32_t keys)
{
    int backing = open(backing_path, O_RDONLY | O_DIRECT);
    uint64_t bytes = 0;
    uint32_t log = 0;

    cache = open(cache_path, O_RDWR);
    if (cache < 0 || backing < 0 || ioctl(cache, BLKGETSIZE64, &bytes)) {
        perror("open");
        return 1;
    }
    for (uint64_t at = 0; at < FIRST; at += 0x1000)
        put(at, data, 0x1000);
    for (uint32_t at = 0; at < MIB; at += 0x10000) /* behind the log */
        put(FIRST + CONTROL + at, data, 0x10000);
    put_frame((uint32_t)((bytes - FIRST) / SEGMENT));
    for (uint32_t i = 0; i < keys; i++) {
        uint32_t segment = 1 + i / KEYS_PER_SEGMENT, offset = i % KEYS_PER_SEGMENT * MIB;

        if (pread(backing, data, MIB, (off_t)i * MIB) != MIB)
            failed = 1;
        put(FIRST + segment * SEGMENT + CONTROL + offset, data, MIB);
        log = put_key(log, i, segment, offset);
    }
    return failed || fsync(cache) || close(cache);
}

static uint64_t now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static int time_reads(const char *path, uint32_t first, uint32_t keys)
{
    int fd = open(path, O_RDONLY | O_DIRECT);
    uint64_t longest = 0, all = 0;

    for (uint32_t i = 0; i < keys; i++) {
        uint64_t best = ~0ull;

        for (int turn = 0; turn < 5; turn++) { /* the machine may be busy with something else */
            uint64_t begin = now_us(), took;

            if (pread(fd, data, MIB, (off_t)(first + i) * MIB) != MIB) {
                perror("read");
                return 1;
            }
            took = now_us() - begin;
            best = took < best ? took : best;
        }
        all += best;
        longest = best > longest ? best : longest;
    }
    printf("%llu %llu\n", (unsigned long long)longest, (unsigned long long)(all / keys));
    return 0;
}

int main(int argc, char **argv)
{
    for (uint32_t i = 0; i < 256; i++) {
        table[i] = i;
        for (int bit = 0; bit < 8; bit++)
            table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0x82F63B78u : 0);
    }
    if (argc == 5 && !strcmp(argv[1], "make"))
        return make(argv[2], argv[3], (uint32_t)atoi(argv[4]));
    if (argc == 5 && !strcmp(argv[1], "time"))
        return time_reads(argv[2], (uint32_t)atoi(argv[3]), (uint32_t)atoi(argv[4]));
    fprintf(stderr, "usage: longkeys make CACHE BACKING KEYS | time DEVICE FIRST KEYS\n");
    return 1;
}
