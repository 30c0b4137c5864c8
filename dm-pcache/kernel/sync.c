// SPDX-License-Identifier: GPL-2.0
/*
 * sync.c - locks, epochs, CPUs, time and chance (platform.h, "locks", "epochs", "time").
 *
 * The storage of a lock belongs to the C++ side; pc_abi.h told it how much, and the assertions
 * below hold it to what this file was compiled with. Lockdep's classes come from the caller: were
 * they made here, all locks of the engine would be one class.
 */
#include <linux/build_bug.h>
#include <linux/cpumask.h>
#include <linux/ktime.h>
#include <linux/mutex.h>
#include <linux/preempt.h>
#include <linux/random.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/smp.h>
#include <linux/spinlock.h>

#include "dm-pcache/platform.h"
#include "pc_abi.h"

static_assert(sizeof(spinlock_t) == PC_SPINLOCK_SIZE);
static_assert(sizeof(struct mutex) == PC_MUTEX_SIZE);
static_assert(sizeof(struct lock_class_key) <= PC_LOCK_CLASS_SIZE);

void pc_spin_init(struct pc_spinlock *l, const char *name, struct pc_lock_class *c)
{
#if defined(CONFIG_DEBUG_SPINLOCK) && defined(CONFIG_PREEMPT_RT)
    __spin_lock_init((spinlock_t *)l, name, (struct lock_class_key *)c, false);
#elif defined(CONFIG_DEBUG_SPINLOCK)
    __raw_spin_lock_init(spinlock_check((spinlock_t *)l), name, (struct lock_class_key *)c,
                         LD_WAIT_CONFIG);
#else
    spin_lock_init((spinlock_t *)l);
#endif
}

void pc_spin_lock(struct pc_spinlock *l)
{
    spin_lock((spinlock_t *)l);
}

void pc_spin_unlock(struct pc_spinlock *l)
{
    spin_unlock((spinlock_t *)l);
}

void pc_mutex_init(struct pc_mutex *l, const char *name, struct pc_lock_class *c)
{
    __mutex_init((struct mutex *)l, name, (struct lock_class_key *)c);
}

void pc_mutex_destroy(struct pc_mutex *l)
{
    mutex_destroy((struct mutex *)l);
}

void pc_mutex_lock(struct pc_mutex *l)
{
    mutex_lock((struct mutex *)l);
}

void pc_mutex_unlock(struct pc_mutex *l)
{
    mutex_unlock((struct mutex *)l);
}

void pc_epoch_enter(void)
{
    rcu_read_lock();
}

void pc_epoch_exit(void)
{
    rcu_read_unlock();
}

void pc_epoch_wait(void)
{
    synchronize_rcu();
}

void pc_yield(void)
{
    cond_resched();
}

u64 pc_now_ns(void)
{
    return ktime_get_ns();
}

void pc_random(void *buffer, usize bytes)
{
    get_random_bytes(buffer, bytes);
}

u32 pc_cpus(void)
{
    return nr_cpu_ids;
}

u32 pc_cpu(void)
{
    return raw_smp_processor_id();
}

void pc_cpu_pin(void)
{
    migrate_disable();
}

void pc_cpu_unpin(void)
{
    migrate_enable();
}
