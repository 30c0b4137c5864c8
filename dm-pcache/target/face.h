/* SPDX-License-Identifier: GPL-2.0 */
/*
 * face.h - the device-mapper callbacks as the C++ side implements them.
 *
 * Called by dm-pcache/kernel/dm.c only, which translates structures and return values and holds
 * no policy. Errors are 0 or a negative errno.
 */
#ifndef PCACHE_TARGET_FACE_H
#define PCACHE_TARGET_FACE_H

#include "dm-pcache/platform.h"

#ifdef __cplusplus
extern "C" {
#endif

struct pc_target; /* one table line, C++ side */

#define PC_REQUEST_BYTES 64 /* per-bio data: room for engine::Request */

enum pc_op { PC_READ, PC_WRITE, PC_FLUSH };

struct pc_io {
    enum pc_op op;
    u64 offset; /* bytes from the start of the target */
    u32 length; /* bytes; 0 for a FLUSH */
    u8 fua;
    u8 nowait;
};

enum pc_verdict {
    PC_TAKEN,   /* taken: the engine has completed the bio by pc_bio_end, or will */
    PC_REMAP,   /* it goes to the backing device at the same offset */
    PC_REQUEUE, /* give it back to device-mapper */
    PC_FAIL     /* end it with BLK_STS_IOERR */
};

/* Parses, opens, reads, refuses; allocates; writes nothing. *sentence is static text. May sleep. */
int pc_target_ctr(struct pc_table *t, unsigned argc, char **argv, u64 length_bytes,
                  struct pc_target **out, const char **sentence) PC_NOEXCEPT;
void pc_target_dtr(struct pc_target *t) PC_NOEXCEPT;
int pc_target_preresume(struct pc_target *t) PC_NOEXCEPT;
void pc_target_presuspend(struct pc_target *t, int noflush) PC_NOEXCEPT;
void pc_target_presuspend_undo(struct pc_target *t) PC_NOEXCEPT;
void pc_target_postsuspend(struct pc_target *t) PC_NOEXCEPT;

/*
 * map(), never sleeps. A read whose leading run is wholly hit, or wholly missed, and shorter than
 * the bio is cut by pc_bio_accept before the bio is touched; device-mapper maps the rest anew.
 */
enum pc_verdict pc_target_map(struct pc_target *t, struct pc_bio *bio, void *request,
                              const struct pc_io *io) PC_NOEXCEPT;
/* Upcall of pc_target_map into the shim: dm_accept_partial_bio. */
void pc_bio_accept(struct pc_bio *bio, u32 bytes) PC_NOEXCEPT;

/* Texts of STATUS, TABLE and IMA (what: 0, 1, 2), NUL-terminated, at most `size` bytes. */
void pc_target_status(struct pc_target *t, int what, char *text, usize size) PC_NOEXCEPT;
/* Message; a reply goes to `text`. 0, 1 (text holds a reply) or a negative errno. May sleep. */
int pc_target_message(struct pc_target *t, unsigned argc, char **argv, char *text,
                      usize size) PC_NOEXCEPT;
/*
 * The machine is being suspended; one thread. The workers of all caches go to sleep in two steps,
 * of which none waits: fall_asleep, then asleep once they have; from there on to wake_up they send
 * and store nothing, while map() goes on. requests_wait: some request waits for a worker now.
 * wake_up is right at any time.
 */
int pc_target_requests_wait(void) PC_NOEXCEPT;
void pc_target_fall_asleep(void) PC_NOEXCEPT;
int pc_target_asleep(void) PC_NOEXCEPT;
void pc_target_wake_up(void) PC_NOEXCEPT;
/*
 * May the machine be hibernated (or a hibernated system be restored over this one)? 0: no cache
 * will be activated or resumed before hibernation_over. -EBUSY, with a line in the log for each
 * device that is in the way: one that is not suspended (that is active).
 */
int pc_target_hibernate(int restoring) PC_NOEXCEPT;
void pc_target_hibernation_over(void) PC_NOEXCEPT;
/* At module load and unload. */
int pc_target_module_init(void) PC_NOEXCEPT;
void pc_target_module_exit(void) PC_NOEXCEPT;

#ifdef __cplusplus
}
#endif
#endif
