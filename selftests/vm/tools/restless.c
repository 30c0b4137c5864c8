// SPDX-License-Identifier: GPL-2.0
/*
 * restless - an owner who changes the pages of its writes while they are under way.
 *
 *   restless DEVICE OFFSET ROUNDS
 *
 * Writes ROUNDS times 64 KiB to DEVICE at OFFSET, direct, while a thread changes the buffer all the
 * time, and reads it back into another. What is read is anybody's guess; that it can be read is
 * not. Exit status: 0, or 1 if a write or a read fails. Statically linked, for guests.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define BYTES (64u << 10)

static _Alignas(4096) _Atomic uint64_t words[BYTES / 8];
static _Alignas(4096) char back[BYTES];
static atomic_int done;

static void *change(void *unused)
{
    (void)unused;
    for (uint64_t n = 1; !atomic_load(&done); n++)
        for (size_t i = 0; i < BYTES / 8; i += 8)
            atomic_store_explicit(&words[i], n + i, memory_order_relaxed);
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    int status = 0;

    if (argc != 4) {
        fprintf(stderr, "usage: restless DEVICE OFFSET ROUNDS\n");
        return 1;
    }
    off_t offset = (off_t)strtoull(argv[2], NULL, 0);
    unsigned long rounds = strtoul(argv[3], NULL, 0);
    int device = open(argv[1], O_RDWR | O_DIRECT);

    if (device < 0 || pthread_create(&thread, NULL, change, NULL)) {
        perror(argv[1]);
        return 1;
    }
    for (unsigned long i = 0; i < rounds && !status; i++) {
        if (pwrite(device, words, BYTES, offset) != BYTES ||
            pread(device, back, BYTES, offset) != BYTES) {
            perror("restless");
            status = 1;
        }
    }
    atomic_store(&done, 1);
    pthread_join(thread, NULL);
    return status;
}
