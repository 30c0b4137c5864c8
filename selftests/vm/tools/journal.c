// SPDX-License-Identifier: GPL-2.0
/*
 * journal - writes self-describing blocks and tells the host which of them are flushed; after a
 * power cut, checks a device against what the host heard.
 *
 *   journal load  DEVICE PORT SESSION SEED    endless load; runs until the power goes
 *   journal check DEVICE PORT JOURNAL SESSION 0: every block is right; 1: one line per wrong block
 *
 * A block is BLOCK bytes. Each of its 512-byte sectors carries magic, block number, sector index,
 * session, sequence and a checksum over all of its bytes, so that a foreign, a torn and a stale
 * sector tell themselves apart. Sequences count the writes of one session; sessions count the
 * boots.
 *
 * Lines on PORT, each of them with the host before the load goes on:
 *   "s SESSION"         a session begins
 *   "w SEQ BLOCK COUNT" blocks BLOCK .. BLOCK+COUNT-1 are about to be written with sequence SEQ
 *   "f SEQ"             an fsync completed: everything up to SEQ is flushed
 *   "u SEQ"             a write with O_DSYNC (FUA) of sequence SEQ completed: it alone is flushed
 *   "k BLOCK SESSION SEQ" a check read this version of the block; blocks not named read as zeros
 *   "c SESSION"         a check before that session passed: the versions named just before stay,
 *                       and no other write of an earlier session may show again
 *
 * What is demanded of each sector by `check`: it belongs to its place; it is not older than the
 * last write of its block that is known to be flushed; it is a write that was announced; and what
 * an earlier check read is still there, or something written later (a recovery counts as a FLUSH).
 * All sectors of a write of one block need not come back together (a block may be split over keys),
 * but BLOCK-aligned blocks of BLOCK bytes become one key and so do: a torn block is an error.
 *
 * Read errors count as wrong blocks. The load's writes are O_DIRECT.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/fs.h>

#define BLOCK 4096u
#define SECTOR 512u
#define SECTORS (BLOCK / SECTOR)
#define MAX_RUN 16u      /* blocks in one write */
#define HOT_BLOCKS 4096u /* blocks written again and again: overwrites must come in order */
#define MAGIC 0x6A6F75726E616C31u

struct sector {
    uint64_t magic;
    uint64_t block;
    uint32_t index;
    uint32_t session;
    uint64_t sequence;
    uint64_t filler[59];
    uint64_t sum;
};
_Static_assert(sizeof(struct sector) == SECTOR, "a sector is 512 bytes");

/* A version of a block: sessions first, then sequences. 0, 0 is "never written". */
struct version {
    uint32_t session;
    uint64_t sequence;
};

static uint64_t random_state;

static uint64_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static uint64_t checksum(const struct sector *s)
{
    const uint64_t *w = (const uint64_t *)s;
    uint64_t h = 0x9E3779B97F4A7C15u;

    for (size_t i = 0; i < SECTOR / 8 - 1; i++)
        h = (h ^ w[i]) * 0xFF51AFD7ED558CCDu, h ^= h >> 29;
    return h;
}

static void fill_block(struct sector *s, uint64_t block, uint32_t session, uint64_t sequence)
{
    for (uint32_t i = 0; i < SECTORS; i++) {
        s[i].magic = MAGIC;
        s[i].block = block;
        s[i].index = i;
        s[i].session = session;
        s[i].sequence = sequence;
        for (size_t k = 0; k < sizeof(s[i].filler) / 8; k++)
            s[i].filler[k] = sequence * 0x9E3779B97F4A7C15u + block * 31 + k;
        s[i].sum = checksum(&s[i]);
    }
}

static void die(const char *what)
{
    fprintf(stderr, "journal: %s: %s\n", what, strerror(errno));
    exit(2);
}

static uint64_t device_blocks(int fd)
{
    uint64_t bytes;

    if (ioctl(fd, BLKGETSIZE64, &bytes))
        die("size of the device");
    return bytes / BLOCK;
}

/*
 * PORT is "io:0x402", the I/O port of QEMU's debug console: each byte is in the host's file when
 * the instruction ends, so no kill of QEMU loses what was told. Or a file, opened with O_SYNC.
 */
static unsigned short io_port;

static int open_port(const char *name)
{
    int fd = 0;

    if (!strncmp(name, "io:", 3)) {
        io_port = strtoul(name + 3, NULL, 0);
        if (ioperm(io_port, 1, 1))
            die(name);
    } else {
        fd = open(name, O_WRONLY | O_CREAT | O_APPEND | O_SYNC, 0600);
        if (fd < 0)
            die(name);
    }
    return fd;
}

static void tell(int port, const char *line)
{
    size_t n = strlen(line);

    if (io_port) {
        while (*line)
            outb(*line++, io_port);
        return;
    }
    if (write(port, line, n) != (ssize_t)n)
        die("journal port");
}

static _Noreturn void load(const char *device, const char *port_name, uint32_t session,
                           uint64_t seed)
{
    int fd = open(device, O_RDWR | O_DIRECT);
    int fua = open(device, O_RDWR | O_DIRECT | O_DSYNC);
    int port = open_port(port_name);
    char line[96];
    void *raw;

    if (fd < 0 || fua < 0)
        die(device);
    if (posix_memalign(&raw, BLOCK, MAX_RUN * BLOCK))
        die("memory");
    struct sector *buffer = raw;
    uint64_t blocks = device_blocks(fd);
    random_state = seed * 0x2545F4914F6CDD1Du + session + 1;
    snprintf(line, sizeof(line), "s %u\n", session);
    tell(port, line);
    for (uint64_t sequence = 1;; sequence++) {
        uint64_t dice = next_random() % 100;
        uint64_t space = dice < 60 && blocks > HOT_BLOCKS ? HOT_BLOCKS : blocks;
        uint32_t count = dice % 3 ? 1 : 1 + next_random() % MAX_RUN;
        uint64_t block = next_random() % (space - count);
        int one_flushed = dice >= 90 && dice < 95;

        for (uint32_t i = 0; i < count; i++)
            fill_block(buffer + i * SECTORS, block + i, session, sequence);
        snprintf(line, sizeof(line), "w %llu %llu %u\n", (unsigned long long)sequence,
                 (unsigned long long)block, count);
        tell(port, line);
        if (pwrite(one_flushed ? fua : fd, buffer, count * BLOCK, block * BLOCK) !=
            (ssize_t)(count * BLOCK))
            die("write");
        if (one_flushed) {
            snprintf(line, sizeof(line), "u %llu\n", (unsigned long long)sequence);
            tell(port, line);
        } else if (dice >= 95) {
            if (fdatasync(fd))
                die("fdatasync");
            snprintf(line, sizeof(line), "f %llu\n", (unsigned long long)sequence);
            tell(port, line);
        }
    }
}

static int older(struct version a, struct version b)
{
    return a.session != b.session ? a.session < b.session : a.sequence < b.sequence;
}

/* What the journal says, per block; and per write of the newest sessions whether it was announced.
 */
struct history {
    uint64_t blocks;
    struct version *flushed; /* the least that must be there */
    struct version *read;    /* what a check that is being read from the journal found */
    struct version *kept;    /* what the last check read */
    uint32_t settled;        /* writes before this session are as the last check read them */
    struct write {
        struct version v;
        uint64_t block;
        uint32_t count;
    } * writes;
    size_t n, room, flushed_to; /* writes[0 .. flushed_to) are accounted for in `flushed` */
};

static void note_write(struct history *h, struct version v, uint64_t block, uint32_t count)
{
    if (h->n == h->room) {
        h->room = h->room ? h->room * 2 : 4096;
        h->writes = realloc(h->writes, h->room * sizeof(*h->writes));
        if (!h->writes)
            die("memory");
    }
    h->writes[h->n++] = (struct write){v, block, count};
}

static void settle(struct history *h, const struct write *w)
{
    for (uint64_t b = w->block; b < w->block + w->count && b < h->blocks; b++)
        if (older(h->flushed[b], w->v))
            h->flushed[b] = w->v;
}

static void read_history(struct history *h, const char *name)
{
    FILE *f = fopen(name, "r");
    struct version v = {0, 0};
    char line[128];

    if (!f)
        die(name);
    while (fgets(line, sizeof(line), f)) {
        unsigned long long a, b;
        unsigned c;

        if (!strchr(line, '\n'))
            break; /* cut in the middle of a line */
        if (sscanf(line, "s %u", &c) == 1) {
            v.session = c;
            h->flushed_to = h->n; /* what the last check did not see flushed stays unknown */
        } else if (sscanf(line, "w %llu %llu %u", &a, &b, &c) == 3) {
            v.sequence = a;
            note_write(h, v, b, c);
        } else if (sscanf(line, "f %llu", &a) == 1) {
            for (; h->flushed_to < h->n; h->flushed_to++)
                settle(h, &h->writes[h->flushed_to]);
        } else if (sscanf(line, "k %llu %u %llu", &a, &c, &b) == 3 && a < h->blocks) {
            h->read[a] = (struct version){c, b};
        } else if (sscanf(line, "c %u", &c) == 1) {
            h->settled = c;
            memcpy(h->kept, h->read, h->blocks * sizeof(*h->kept));
            memcpy(h->flushed, h->read, h->blocks * sizeof(*h->flushed));
            memset(h->read, 0, h->blocks * sizeof(*h->read));
        } else if (sscanf(line, "u %llu", &a) == 1 && h->n) {
            settle(h, &h->writes[h->n - 1]);
        }
    }
    fclose(f);
}

static int announced(const struct history *h, struct version v, uint64_t block)
{
    size_t low = 0, high = h->n;

    while (low < high) {
        size_t mid = (low + high) / 2;

        if (older(h->writes[mid].v, v))
            low = mid + 1;
        else
            high = mid;
    }
    return low < h->n && !older(v, h->writes[low].v) && block >= h->writes[low].block &&
           block < h->writes[low].block + h->writes[low].count;
}

/* NULL, or what is wrong with the block as it was read. */
static const char *judge(const struct history *h, uint64_t block, const struct sector *s)
{
    struct version v = {s[0].session, s[0].sequence};
    int blank = 1;

    for (size_t i = 0; blank && i < BLOCK / 8; i++)
        blank = ((const uint64_t *)s)[i] == 0;
    if (blank)
        return h->flushed[block].session ? "lost: never written, but a flushed write was reported"
                                         : NULL;
    for (uint32_t i = 0; i < SECTORS; i++) {
        if (s[i].magic != MAGIC || s[i].sum != checksum(&s[i]))
            return "a sector that no write made";
        if (s[i].block != block || s[i].index != i)
            return "a sector of another place";
        if (s[i].session != v.session || s[i].sequence != v.sequence)
            return "torn: sectors of two writes";
    }
    if (v.session < h->settled && (older(v, h->kept[block]) || older(h->kept[block], v)))
        return "changed since the last check, and not by a write after it";
    if (!announced(h, v, block))
        return "a write that was never announced";
    if (older(v, h->flushed[block]))
        return "old: a later write was reported as flushed";
    return NULL;
}

static int check(const char *device, const char *port_name, const char *journal, uint32_t session)
{
    int fd = open(device, O_RDONLY | O_DIRECT);
    int port = open_port(port_name);
    struct history h = {0};
    uint64_t bad = 0, present = 0, must = 0;
    enum { CHUNK = 256 };
    char line[96];
    void *raw;

    if (fd < 0)
        die(device);
    h.blocks = device_blocks(fd);
    h.flushed = calloc(h.blocks, sizeof(*h.flushed));
    h.read = calloc(h.blocks, sizeof(*h.read));
    h.kept = calloc(h.blocks, sizeof(*h.kept));
    if (!h.flushed || !h.read || !h.kept || posix_memalign(&raw, BLOCK, CHUNK * BLOCK))
        die("memory");
    read_history(&h, journal);
    for (uint64_t first = 0; first < h.blocks; first += CHUNK) {
        uint64_t n = h.blocks - first < CHUNK ? h.blocks - first : CHUNK;
        ssize_t got = pread(fd, raw, n * BLOCK, first * BLOCK);

        for (uint64_t i = 0; i < n; i++) {
            struct sector *s = (struct sector *)((char *)raw + i * BLOCK);
            const char *why = got == (ssize_t)(n * BLOCK) ? judge(&h, first + i, s) : "read error";

            must += h.flushed[first + i].session != 0;
            if (why && bad++ < 20)
                printf("block %llu: %s (has %u/%llu, flushed %u/%llu)\n",
                       (unsigned long long)(first + i), why, s->session,
                       (unsigned long long)s->sequence, h.flushed[first + i].session,
                       (unsigned long long)h.flushed[first + i].sequence);
            if (s->magic == MAGIC) {
                present++;
                snprintf(line, sizeof(line), "k %llu %u %llu\n", (unsigned long long)(first + i),
                         s->session, (unsigned long long)s->sequence);
                tell(port, line);
            }
        }
    }
    printf("%zu writes announced, %llu blocks hold data, %llu had to, %llu wrong\n", h.n,
           (unsigned long long)present, (unsigned long long)must, (unsigned long long)bad);
    if (!bad && must) {
        snprintf(line, sizeof(line), "c %u\n", session);
        tell(port, line);
    }
    return bad != 0 || must == 0;
}

int main(int argc, char **argv)
{
    if (argc == 6 && !strcmp(argv[1], "load"))
        load(argv[2], argv[3], (uint32_t)strtoul(argv[4], NULL, 0), strtoull(argv[5], NULL, 0));
    if (argc == 6 && !strcmp(argv[1], "check"))
        return check(argv[2], argv[3], argv[4], (uint32_t)strtoul(argv[5], NULL, 0));
    fprintf(stderr, "usage: journal load DEVICE PORT SESSION SEED\n"
                    "       journal check DEVICE PORT JOURNAL SESSION\n");
    return 2;
}
