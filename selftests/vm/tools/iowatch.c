// SPDX-License-Identifier: GPL-2.0
/*
 * iowatch - when a disk is written to, how much, and when it ends.
 *
 *   iowatch DISK QUIET_MS COMMAND...
 *
 * Runs COMMAND, and watches the counters of DISK (a name in /sys/block) from its start until no
 * write and no flush was under way for QUIET_MS. One line: "FIRST END WRITES KIB FLUSHES": times in
 * ms with decimals since COMMAND began, of the first write sent and of the last thing completed.
 * A look costs some 5 us; there is one each 50 us. Statically linked, for guests. Exit status: 0; 1
 * on a wrong call or when nothing was written within 60 s.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct counters {
    unsigned long long writes, sectors, flushes, in_flight;
};

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int look(int fd, struct counters *c)
{
    char text[512];
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

    if (n <= 0)
        return -1;
    text[n] = '\0';
    /* Documentation/block/stat.rst of the kernel: 5, 7, 9 and 16 of the fields. */
    return sscanf(text, "%*u %*u %*u %*u %llu %*u %llu %*u %llu %*u %*u %*u %*u %*u %*u %llu",
                  &c->writes, &c->sectors, &c->in_flight, &c->flushes) == 4
               ? 0
               : -1;
}

int main(int argc, char **argv)
{
    char path[128];
    struct counters first, last, c;
    uint64_t begin, began = 0, end = 0;

    if (argc < 4) {
        fprintf(stderr, "usage: iowatch DISK QUIET_MS COMMAND...\n");
        return 1;
    }
    snprintf(path, sizeof(path), "/sys/block/%s/stat", argv[1]);
    int fd = open(path, O_RDONLY);
    uint64_t quiet = strtoull(argv[2], NULL, 10) * 1000000u;

    if (fd < 0 || look(fd, &first)) {
        perror(path);
        return 1;
    }
    begin = now_ns();
    pid_t child = fork();
    if (child == 0) {
        execvp(argv[3], argv + 3);
        _exit(127);
    }
    for (last = first;;) {
        struct timespec pause = {0, 50000};
        uint64_t now;

        if (look(fd, &c))
            return 1;
        now = now_ns();
        if (c.in_flight || c.writes != last.writes || c.flushes != last.flushes) {
            if (!began)
                began = now;
            end = now;
        }
        last = c;
        if (began && now - end > quiet)
            break;
        if (!began && now - begin > 60000000000u)
            return 1;
        nanosleep(&pause, NULL);
    }
    waitpid(child, NULL, 0);
    printf("%.2f %.2f %llu %llu %llu\n", (double)(began - begin) / 1e6, (double)(end - begin) / 1e6,
           last.writes - first.writes, (last.sectors - first.sectors) / 2,
           last.flushes - first.flushes);
    return 0;
}
