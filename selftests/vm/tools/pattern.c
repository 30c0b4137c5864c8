// SPDX-License-Identifier: GPL-2.0
/*
 * pattern - writes reproducible bytes to standard output.
 *
 *   pattern SEED BYTES
 *
 * SEED is any text. Different seeds give different bytes at practically every offset, and the bytes
 * at an offset do not depend on BYTES. Statically linked, for guests. Exit status: 0, or 1 on a
 * failed write or a wrong call.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static uint64_t hash_text(const char *s)
{
    uint64_t h = 0xCBF29CE484222325u;

    for (; *s; s++)
        h = (h ^ (unsigned char)*s) * 0x100000001B3u;
    return h ? h : 1;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: pattern SEED BYTES\n");
        return 1;
    }
    uint64_t state = hash_text(argv[1]);
    uint64_t left = strtoull(argv[2], NULL, 0);
    static uint64_t block[8192];

    while (left) {
        for (size_t i = 0; i < sizeof(block) / sizeof(block[0]); i++) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            block[i] = state;
        }
        size_t n = left < sizeof(block) ? left : sizeof(block);
        if (fwrite(block, 1, n, stdout) != n)
            return 1;
        left -= n;
    }
    return fflush(stdout) ? 1 : 0;
}
