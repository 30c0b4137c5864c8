// SPDX-License-Identifier: GPL-2.0
/*
 * work.c - work queues, works and events (platform.h, "work and waiting").
 *
 * Every work is a delayed_work, so that "now" and "later" are one object and a kick overtakes a
 * delay. A work never runs twice at once (the work queue sees to it), and a kick while it runs
 * makes it run again. pc_work_stop drops kicks that race with it: the caller stops the kickers
 * first.
 *
 * Freezing is not the work queue's (WQ_FREEZABLE): that lets no work begin while others still run,
 * which may wait for it. A work whose turn comes while its queue is frozen is put aside instead,
 * and the thaw queues it anew.
 *
 * Locking: a queue's `lock` guards its other members and the `aside` of its works; queueing works
 * nests inside.
 */
#include <linux/build_bug.h>
#include <linux/errno.h>
#include <linux/jiffies.h>
#include <linux/list.h>
#include <linux/lockdep.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "dm-pcache/kernel/internal.h"
#include "pc_abi.h"

static_assert(sizeof(struct pc_work) == PC_WORK_SIZE);
static_assert(sizeof(wait_queue_head_t) == PC_EVENT_SIZE);

struct pc_queue {
    struct workqueue_struct *wq;
    spinlock_t lock;
    unsigned int running;
    bool freezing; /* frozen as soon as nothing is running */
    bool frozen;
    struct list_head aside; /* works that begin at the thaw */
};

struct pc_queue *pc_queue_create(const char *name)
{
    struct pc_queue *q = kzalloc(sizeof(*q), GFP_NOIO);

    if (!q)
        return NULL;
    spin_lock_init(&q->lock);
    INIT_LIST_HEAD(&q->aside);
    q->wq = alloc_workqueue("pcache_%s", WQ_MEM_RECLAIM | WQ_UNBOUND, 0, name);
    if (q->wq)
        return q;
    kfree(q);
    return NULL;
}

void pc_queue_drain(struct pc_queue *q)
{
    pc_queue_thaw(q);
    drain_workqueue(q->wq);
}

void pc_queue_destroy(struct pc_queue *q)
{
    if (!q)
        return;
    pc_queue_thaw(q);
    destroy_workqueue(q->wq);
    kfree(q);
}

/* With the lock held. */
static void freeze_if_quiet(struct pc_queue *q)
{
    if (q->freezing && !q->running)
        q->frozen = true;
}

void pc_queue_freeze(struct pc_queue *q)
{
    spin_lock(&q->lock);
    q->freezing = true;
    freeze_if_quiet(q);
    spin_unlock(&q->lock);
}

int pc_queue_frozen(struct pc_queue *q)
{
    int frozen;

    spin_lock(&q->lock);
    frozen = q->frozen;
    spin_unlock(&q->lock);
    return frozen;
}

void pc_queue_thaw(struct pc_queue *q)
{
    struct pc_work *w, *next;

    spin_lock(&q->lock);
    q->freezing = q->frozen = false;
    list_for_each_entry_safe(w, next, &q->aside, aside)
    {
        list_del_init(&w->aside);
        mod_delayed_work(q->wq, &w->delayed, 0);
    }
    spin_unlock(&q->lock);
}

static void run_work(struct work_struct *work)
{
    struct pc_work *w = container_of(to_delayed_work(work), struct pc_work, delayed);
    struct pc_queue *q = w->queue;
    bool now;

    spin_lock(&q->lock);
    now = !q->frozen;
    if (now)
        q->running++;
    else if (list_empty(&w->aside))
        list_add_tail(&w->aside, &q->aside);
    spin_unlock(&q->lock);
    if (!now)
        return;
    w->function(w->context);
    /* The work may be gone; its queue waits for this function. */
    spin_lock(&q->lock);
    q->running--;
    freeze_if_quiet(q);
    spin_unlock(&q->lock);
}

void pc_work_init(struct pc_work *w, struct pc_queue *q, pc_work_function f, void *context)
{
    INIT_DELAYED_WORK(&w->delayed, run_work);
    /*
     * That gave all works one lockdep class, and a work that stops another would look like a
     * deadlock. The function's address is a static object of this module and differs per role.
     */
    lockdep_init_map(&w->delayed.work.lockdep_map, "pcache work", (struct lock_class_key *)f, 0);
    INIT_LIST_HEAD(&w->aside);
    w->queue = q;
    w->function = f;
    w->context = context;
}

void pc_work_kick(struct pc_work *w)
{
    mod_delayed_work(w->queue->wq, &w->delayed, 0);
}

void pc_work_kick_after(struct pc_work *w, u64 ns)
{
    /* Rounded up: never earlier than asked for. */
    queue_delayed_work(w->queue->wq, &w->delayed, nsecs_to_jiffies(ns + TICK_NSEC - 1));
}

void pc_work_stop(struct pc_work *w)
{
    struct pc_queue *q = w->queue;

    cancel_delayed_work_sync(&w->delayed);
    spin_lock(&q->lock);
    list_del_init(&w->aside);
    spin_unlock(&q->lock);
    /* A thaw may have been faster. */
    cancel_delayed_work_sync(&w->delayed);
}

void pc_event_init(struct pc_event *e)
{
    init_waitqueue_head((wait_queue_head_t *)e);
}

void pc_event_wake(struct pc_event *e)
{
    wake_up_all((wait_queue_head_t *)e);
}

void pc_event_wait(struct pc_event *e, pc_condition condition, void *context)
{
    /*
     * Idle: what is waited for is often the backing device, which may stall for as long as it
     * likes. A worker that waits for it is neither load nor a hung task, and a process that waits
     * (suspend, dtr) must not be interrupted.
     */
    might_sleep();
    wait_event_idle(*(wait_queue_head_t *)e, condition(context));
}

int pc_event_wait_interruptible(struct pc_event *e, pc_condition condition, void *context)
{
    /*
     * Not -ERESTARTSYS, with which the kernel might send the message again behind the back of an
     * administrator who wanted out.
     */
    might_sleep();
    return wait_event_interruptible(*(wait_queue_head_t *)e, condition(context)) ? -EINTR : 0;
}
