// SPDX-License-Identifier: GPL-2.0
/*
 * flip - changes one bit of data on a device, wherever the data lies: for data that decays.
 *
 *   flip DEVICE FILE OFFSET
 *
 * Finds the place on DEVICE, at a multiple of 512, that holds the first 512 bytes of FILE, and
 * changes a bit of its byte OFFSET (0 to 511), past all caches. Tells where. There must be one such
 * place. Statically linked, for guests. Exit status: 0, or 1 when there is none, or more than one,
 * or on an error.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SECTOR 512
#define STEP (1u << 20)

static _Alignas(4096) unsigned char block[STEP], wanted[SECTOR];

static int fail(const char *what)
{
    perror(what);
    return 1;
}

int main(int argc, char **argv)
{
    off_t found = -1;
    ssize_t n;

    if (argc != 4) {
        fprintf(stderr, "usage: flip DEVICE FILE OFFSET\n");
        return 1;
    }
    size_t byte = strtoull(argv[3], NULL, 0) % SECTOR;
    int file = open(argv[2], O_RDONLY);
    int device = open(argv[1], O_RDWR | O_DIRECT | O_SYNC);

    if (file < 0 || read(file, wanted, SECTOR) != SECTOR)
        return fail(argv[2]);
    if (device < 0)
        return fail(argv[1]);
    for (off_t at = 0; (n = pread(device, block, STEP, at)) > 0; at += n)
        for (ssize_t i = 0; i + SECTOR <= n; i += SECTOR)
            if (!memcmp(block + i, wanted, SECTOR)) {
                if (found >= 0) {
                    fprintf(stderr, "at %lld and at %lld\n", (long long)found, (long long)(at + i));
                    return 1;
                }
                found = at + i;
            }
    if (n < 0)
        return fail(argv[1]);
    if (found < 0) {
        fprintf(stderr, "not on the device\n");
        return 1;
    }
    memcpy(block, wanted, SECTOR);
    block[byte] ^= 4;
    if (pwrite(device, block, SECTOR, found) != SECTOR)
        return fail("pwrite");
    printf("byte %zu of the sector at %lld\n", byte, (long long)found);
    return 0;
}
