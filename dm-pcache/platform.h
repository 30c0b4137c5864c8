/* SPDX-License-Identifier: GPL-2.0 */
/*
 * platform.h - everything the engine needs from outside, and nothing else.
 *
 * Implemented twice and chosen at link time: by the C shims in dm-pcache/kernel/, and in user
 * space by selftests/platform/. Includes no kernel, libc or libstdc++ header. Errors are 0 or a
 * negative errno. "May sleep" means process context with no spinlock and no epoch held.
 *
 * Naming: pc_*. Opaque objects with inline storage (locks, events, works) get their sizes from
 * pc_abi.h, which the C compiler makes for each kernel configuration.
 */
#ifndef PCACHE_PLATFORM_H
#define PCACHE_PLATFORM_H

#include "cxxrt/types.h"

#ifdef __cplusplus
#define PC_NOEXCEPT noexcept
extern "C" {
#else
#define PC_NOEXCEPT
#endif
#define PC_PRINTF(a, b) __attribute__((format(printf, a, b)))

struct pc_host;    /* one active cache as its administrator sees it: log prefix and events */
struct pc_table;   /* one device-mapper table line while it exists (struct dm_target) */
struct pc_media;   /* the mapped cache device */
struct pc_backing; /* the backing device */
struct pc_bio;     /* a request of the upper layer (struct bio) */
struct pc_wio;     /* a write of media bytes to the backing device, being built or in flight */
struct pc_rio;     /* a read of the backing device into pages, ready to be sent or in flight */

/* ---- log and events -------------------------------------------------------------------- */
enum pc_level { PC_ERR, PC_WARN, PC_INFO };
/* One line, without newline, prefixed with the device's name; host may be null. Any context. */
void pc_log(struct pc_host *host, enum pc_level level, const char *format, ...) PC_NOEXCEPT
    PC_PRINTF(3, 4);
/* Raises a device-mapper event from a work item. Any context but interrupt. */
void pc_raise_event(struct pc_host *host) PC_NOEXCEPT;
/* Like scnprintf: returns the bytes written without the NUL, never more than size - 1. */
usize pc_format(char *buffer, usize size, const char *format, ...) PC_NOEXCEPT PC_PRINTF(3, 4);

/* ---- memory ---------------------------------------------------------------------------- */
enum pc_how {
    PC_MAY_SLEEP, /* waits for reclaim, for as long as it takes; starts no I/O (NOIO) */
    PC_MAY_FAIL,  /* the same, but tries once and gives up: for a worker others may wait for */
    PC_NOWAIT
};
/* Zeroed, 8-byte aligned (64 from 64 bytes on if a power of two); null when there is none. */
void *pc_alloc(usize bytes, enum pc_how how) PC_NOEXCEPT;
void pc_free(const void *p) PC_NOEXCEPT; /* null is fine; may sleep for large blocks */

/* ---- locks ----------------------------------------------------------------------------- */
struct pc_spinlock;
struct pc_mutex;
struct pc_lock_class; /* static storage in module data, one per role; lockdep wants it */
void pc_spin_init(struct pc_spinlock *l, const char *name, struct pc_lock_class *c) PC_NOEXCEPT;
void pc_spin_lock(struct pc_spinlock *l) PC_NOEXCEPT;
void pc_spin_unlock(struct pc_spinlock *l) PC_NOEXCEPT;
void pc_mutex_init(struct pc_mutex *l, const char *name, struct pc_lock_class *c) PC_NOEXCEPT;
void pc_mutex_destroy(struct pc_mutex *l) PC_NOEXCEPT;
void pc_mutex_lock(struct pc_mutex *l) PC_NOEXCEPT;
void pc_mutex_unlock(struct pc_mutex *l) PC_NOEXCEPT;

/* ---- epochs (RCU): a reader of cached data is inside one while it looks up and copies ----- */
void pc_epoch_enter(void) PC_NOEXCEPT;
void pc_epoch_exit(void) PC_NOEXCEPT;
void pc_epoch_wait(void) PC_NOEXCEPT; /* until all epochs entered before have ended; may sleep */

/* ---- work and waiting ------------------------------------------------------------------- */
struct pc_queue; /* a work queue that makes progress under memory pressure */
struct pc_work;
struct pc_queue *
pc_queue_create(const char *name) PC_NOEXCEPT; /* null: no memory. Makes threads: in ctr only */
void pc_queue_drain(struct pc_queue *q) PC_NOEXCEPT;   /* until no work is left; sleeps */
void pc_queue_destroy(struct pc_queue *q) PC_NOEXCEPT; /* drains; null is fine */
typedef void (*pc_work_function)(void *context);
/* A work runs in process context, never twice at once. Queued while it runs, it runs again. */
void pc_work_init(struct pc_work *w, struct pc_queue *q, pc_work_function f,
                  void *context) PC_NOEXCEPT;
void pc_work_kick(struct pc_work *w) PC_NOEXCEPT; /* as soon as possible, also if a delay was set */
void pc_work_kick_after(struct pc_work *w, u64 ns) PC_NOEXCEPT; /* no effect if already pending */
/* Cancels, waits until it has ended; may sleep. A kick meanwhile may get lost: stop kickers first.
 */
void pc_work_stop(struct pc_work *w) PC_NOEXCEPT;
/*
 * For a suspend of the machine. From freeze on works go on as ever until, for a moment, none of the
 * queue is running; then the queue is frozen: no work begins before the thaw, and what is kicked,
 * or whose time comes, begins behind it. So a work that runs may still wait for another one. None
 * of the three sleeps. Frozen already, or not frozen at all: no effect. Draining and destroying
 * thaw.
 */
void pc_queue_freeze(struct pc_queue *q) PC_NOEXCEPT;
int pc_queue_frozen(struct pc_queue *q) PC_NOEXCEPT;
void pc_queue_thaw(struct pc_queue *q) PC_NOEXCEPT;
struct pc_event;
typedef int (*pc_condition)(void *context);
void pc_event_init(struct pc_event *e) PC_NOEXCEPT;
void pc_event_wake(struct pc_event *e) PC_NOEXCEPT; /* any context, interrupts included */
/*
 * Until condition(context) is not 0; it is looked at first, and again after each wake. Sleeps, and
 * counts as idle however long it takes; no signal ends it. The condition may take spinlocks but
 * must not sleep.
 */
void pc_event_wait(struct pc_event *e, pc_condition condition, void *context) PC_NOEXCEPT;
/*
 * The same for a wait that an administrator asked for: 0 when the condition holds, -EINTR when a
 * signal came first. Only in the context of the process that asked.
 */
int pc_event_wait_interruptible(struct pc_event *e, pc_condition condition,
                                void *context) PC_NOEXCEPT;
void pc_yield(void) PC_NOEXCEPT; /* in long loops, where sleeping is allowed */

/* ---- time, chance, CPUs ------------------------------------------------------------------ */
u64 pc_now_ns(void) PC_NOEXCEPT; /* monotonic */
void pc_random(void *buffer, usize bytes) PC_NOEXCEPT;
u32 pc_cpus(void) PC_NOEXCEPT; /* possible CPUs; CPU numbers are below it */
u32 pc_cpu(void) PC_NOEXCEPT;  /* the current one; a hint unless pinned */
/* Between pin and unpin the caller stays on its CPU (it may be preempted, and may sleep). */
void pc_cpu_pin(void) PC_NOEXCEPT;
void pc_cpu_unpin(void) PC_NOEXCEPT;

/* ---- the cache device: only media/persist and media/device call these ---------------------- */
u64 pc_media_bytes(const struct pc_media *m) PC_NOEXCEPT;
/* As a table line may name it: major:minor. Valid while it is open. */
const char *pc_media_name(const struct pc_media *m) PC_NOEXCEPT;
/*
 * gone(context) is called once when the device is about to be taken away, at once if that has begun
 * already; null: no more. Its memory stays until pc_media_close: whoever takes it away waits for
 * that. The call may sleep and must not close the device. None is under way when this returns. Not
 * every device has such a notice. May sleep.
 */
void pc_media_watch(struct pc_media *m, void (*gone)(void *context), void *context) PC_NOEXCEPT;
/*
 * The address of bytes [offset, offset + length), contiguous in the address space; null and a log
 * line if they cannot be had. Valid until pc_media_close. May sleep.
 */
u8 *pc_media_map(struct pc_media *m, u64 offset, u64 length) PC_NOEXCEPT;
/* Copies past the CPU caches, or flushes them behind the copy; durable after the fence of this CPU.
 */
void pc_media_store(u8 *to, const void *from, usize bytes) PC_NOEXCEPT;
void pc_media_zero(u8 *to, usize bytes) PC_NOEXCEPT;
void pc_media_flush(const u8 *at,
                    usize bytes) PC_NOEXCEPT; /* write CPU cache lines back; then fence */
void pc_media_fence(void) PC_NOEXCEPT;
/*
 * The i-th stretch of pages that the driver knew to be bad when the device was opened, ascending
 * and apart from each other; bytes, multiples of 4096. 1, or 0 when there are not so many. Such a
 * page is mapped, but its bad units must not be loaded from: that would be a machine check each
 * time.
 */
struct pc_media_stretch {
    u64 offset, bytes;
};
int pc_media_bad_stretch(const struct pc_media *m, u32 i, struct pc_media_stretch *out) PC_NOEXCEPT;
/*
 * Which units (512 bytes) of such a page are bad: a bit for each, bit 0 the first. All of them
 * where the device does not say. `offset`: of the page.
 */
#define PC_MEDIA_UNIT 512
u8 pc_media_bad_units(const struct pc_media *m, u64 offset) PC_NOEXCEPT;
/* Loads one word of each line (64 bytes), machine-check safe: 0, or -EIO when one is poisoned. */
int pc_media_probe(const u8 *at, usize bytes) PC_NOEXCEPT;
/* Machine-check-safe copies out of media: 0, or -EIO when a line is poisoned. */
int pc_media_load(void *to, const u8 *from, usize bytes) PC_NOEXCEPT;
int pc_media_to_bio(struct pc_bio *bio, u32 bio_offset, const u8 *from, u32 bytes) PC_NOEXCEPT;
void pc_media_from_bio(u8 *to, struct pc_bio *bio, u32 bio_offset, u32 bytes) PC_NOEXCEPT;
/*
 * The same with a checksum in the same pass: each byte is read once, into memory of the function's
 * own, summed there, and goes on from there. So the sum is that of the bytes that arrived, whatever
 * the bio's owner does to its pages meanwhile. Sums are pc_crc32c's, continued from `crc`.
 */
u32 pc_media_from_bio_crc(u8 *to, struct pc_bio *bio, u32 bio_offset, u32 bytes,
                          u32 crc) PC_NOEXCEPT;
/* Sums `bytes` of media. 0, or -EIO when a line is poisoned; *crc is then undefined. */
int pc_media_crc(const u8 *from, usize bytes, u32 *crc) PC_NOEXCEPT;
/*
 * Sums `bytes` of media and copies pieces of them to the bio, as above: of each piece `bytes` from
 * `skip` on, to `bio_offset`. Pieces are apart from each other and ascend in both.
 */
struct pc_piece {
    u32 skip, bytes, bio_offset;
};
int pc_media_to_bio_crc(struct pc_bio *bio, const u8 *from, u32 bytes,
                        const struct pc_piece *pieces, u32 count, u32 *crc) PC_NOEXCEPT;
/*
 * Writes one page (4096 bytes) of the cache device as a block device and durably: what clears
 * poison. `offset` is a multiple of 4096; the mapping shows the page afterwards. Not an atom: what
 * a power cut inside it leaves is any mixture of old, new and zero units. 0 or -errno. May sleep.
 */
int pc_media_rewrite_page(struct pc_media *m, u64 offset, const void *page) PC_NOEXCEPT;
void pc_media_close(struct pc_media *m) PC_NOEXCEPT; /* null is fine; may sleep */
/* Identity for the registry: a range of bytes of one DAX device. */
struct pc_media_identity {
    const void *dax;
    u64 start, bytes;
};
void pc_media_identify(const struct pc_media *m, struct pc_media_identity *id) PC_NOEXCEPT;
/*
 * Not 0 if some byte of persistent memory belongs to both, whatever partitions or device-mapper
 * targets they were opened through.
 */
int pc_media_overlap(const struct pc_media *a, const struct pc_media *b) PC_NOEXCEPT;
/*
 * Two tables have opened the same device, and the engine of the older one goes over to the newer:
 * exchanges which table each object belongs to. Addresses stay valid. Afterwards each is closed by
 * the other side, before the table that it belongs to now is destroyed. No request may be mapped.
 */
void pc_media_exchange(struct pc_media *a, struct pc_media *b) PC_NOEXCEPT;

/* ---- the backing device --------------------------------------------------------------------- */
u64 pc_backing_bytes(const struct pc_backing *b) PC_NOEXCEPT;
const char *pc_backing_name(const struct pc_backing *b) PC_NOEXCEPT; /* as for media */
u32 pc_backing_block(const struct pc_backing *b) PC_NOEXCEPT; /* bytes of its logical block */
const void *pc_backing_identity(const struct pc_backing *b) PC_NOEXCEPT;
/* All three in multiples of the device's logical block; `to` from pc_alloc, 512 bytes or more.
 * Sleeps. */
int pc_backing_read(struct pc_backing *b, u64 offset, void *to, u32 bytes) PC_NOEXCEPT;
int pc_backing_flush(struct pc_backing *b) PC_NOEXCEPT; /* sleeps */
void pc_backing_close(struct pc_backing *b)
    PC_NOEXCEPT; /* nothing in flight; null is fine; sleeps */
void pc_backing_exchange(struct pc_backing *a, struct pc_backing *b) PC_NOEXCEPT; /* as for media */
/*
 * Called once when an operation has ended, possibly in interrupt context; it may be the last thing
 * that happens before pc_backing_close.
 */
typedef void (*pc_backing_done)(void *context, int error);
/*
 * A read of `bytes` at `offset` into pages, ready to be sent: pieces of 4096 bytes of a block from
 * pc_alloc that is a multiple of that, at most PC_READ_PAGES, the last one filled in part. Offset
 * and bytes in multiples of the device's logical block. Null: nothing was done, for lack of memory,
 * or (nowait) since the device takes it in parts only. nowait: a read that would have to wait in
 * the device's queue ends with -EAGAIN. Never sleeps; whoever has one submits it.
 */
#define PC_READ_PAGES 64
struct pc_rio *pc_rio_begin(struct pc_backing *b, u64 offset, void *const *pages, u32 bytes,
                            int nowait, pc_backing_done done, void *context) PC_NOEXCEPT;
/*
 * Sends it: `done` will be called, and the pages belong to the device until then. In map() it does
 * not wait, but the block layer reserves the right to sleep: not in an epoch, under a spinlock or
 * in an interrupt.
 */
void pc_rio_submit(struct pc_rio *r) PC_NOEXCEPT;
/*
 * A write at `offset`: begin, add media bytes in order (each multiple of 512; returns how many were
 * taken, fewer when it is full), submit. The offset and the sum are multiples of the backing
 * device's logical block. Begin may sleep until an earlier write has completed but always succeeds:
 * so whoever holds a write that is not submitted begins no other. Submit may sleep, too.
 */
struct pc_wio *pc_wio_begin(struct pc_backing *b, u64 offset, pc_backing_done done,
                            void *context) PC_NOEXCEPT;
u32 pc_wio_add(struct pc_wio *w, const u8 *media, u32 bytes) PC_NOEXCEPT;
void pc_wio_submit(struct pc_wio *w) PC_NOEXCEPT;
/* Instead of submit: nothing is sent; `done` is called with an error before this returns. */
void pc_wio_drop(struct pc_wio *w) PC_NOEXCEPT;

/* ---- requests of the upper layer --------------------------------------------------------------
 */
#define PC_END_REQUEUE                                                                             \
    1 /* instead of an errno: device-mapper sends it again, if pc_host_noflush() has just said so  \
       */
void pc_bio_end(struct pc_bio *bio, int error) PC_NOEXCEPT; /* 0, -errno or PC_END_REQUEUE */
/* Copies memory that is not media into the pages of a read. Never sleeps. */
void pc_bio_copy_to(struct pc_bio *bio, u32 bio_offset, const void *from, u32 bytes) PC_NOEXCEPT;

/* ---- opening the devices of a table line; called from ctr, may sleep --------------------------
 */
/* On failure *sentence says what is wrong and what would be right; details are in the log. */
int pc_media_open(struct pc_table *t, const char *path, struct pc_media **out,
                  const char **sentence) PC_NOEXCEPT;
int pc_backing_open(struct pc_table *t, const char *path, struct pc_backing **out,
                    const char **sentence) PC_NOEXCEPT;
const void *pc_table_owner(const struct pc_table *t) PC_NOEXCEPT; /* the mapped device */
int pc_table_is_read_only(const struct pc_table *t) PC_NOEXCEPT;
/* A host speaks for one active cache; attached to the table that is live. */
struct pc_host *pc_host_create(struct pc_table *t) PC_NOEXCEPT; /* null: no memory */
void pc_host_attach(struct pc_host *h, struct pc_table *t) PC_NOEXCEPT;
void pc_host_detach(struct pc_host *h,
                    struct pc_table *t) PC_NOEXCEPT; /* no-op for another table */
/*
 * Not 0: device-mapper is in a noflush suspend right now, and would send a request again that ends
 * with PC_END_REQUEUE. At all other times it makes EIO of that, also once such a suspend was
 * interrupted and presuspend_undo has not come yet: so ask for each request. May sleep.
 *
 * A request that device-mapper has split is an exception: it asks the same itself, later, from a
 * work of its own (dm_wq_requeue_work()). If the suspend is interrupted in between, EIO comes of
 * it. That cannot be closed from here.
 */
int pc_host_noflush(struct pc_host *h) PC_NOEXCEPT;
void pc_host_destroy(struct pc_host *h) PC_NOEXCEPT; /* waits for events under way; may sleep */

/* ---- hashes ---------------------------------------------------------------------------------- */
/* SipHash-2-4; `key` has 16 bytes, `data` is 8-byte aligned. Any context. */
u64 pc_siphash(const u8 *key, const void *data, usize bytes) PC_NOEXCEPT;

/* ---- what the engine does for the shims ------------------------------------------------------ */
/* crc32c, polynomial 0x82F63B78 reflected, not inverted: continues `crc`. Any context, no FPU. */
u32 pc_crc32c(u32 crc, const void *p, usize bytes) PC_NOEXCEPT;

#ifdef __cplusplus
}
#endif
#endif
