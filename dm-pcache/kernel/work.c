// SPDX-License-Identifier: GPL-2.0
/*
 * work.c - work queues, works and events (platform.h, "work and waiting").
 *
 * Every work is a delayed_work, so that "now" and "later" are one object and a kick overtakes a
 * delay. A work never runs twice at once (the work queue sees to it), and a kick while it runs
 * makes it run again. pc_work_stop drops kicks that race with it: the caller stops the kickers
 * first.
 */
#include <linux/build_bug.h>
#include <linux/errno.h>
#include <linux/jiffies.h>
#include <linux/lockdep.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "dm-pcache/kernel/internal.h"
#include "pc_abi.h"

static_assert(sizeof(struct pc_work) == PC_WORK_SIZE);
static_assert(sizeof(wait_queue_head_t) == PC_EVENT_SIZE);

struct pc_queue *pc_queue_create(const char *name)
{
    return (struct pc_queue *)alloc_workqueue("pcache_%s", WQ_MEM_RECLAIM | WQ_UNBOUND, 0, name);
}

void pc_queue_drain(struct pc_queue *q)
{
    drain_workqueue((struct workqueue_struct *)q);
}

void pc_queue_destroy(struct pc_queue *q)
{
    if (q)
        destroy_workqueue((struct workqueue_struct *)q);
}

static void run_work(struct work_struct *work)
{
    struct pc_work *w = container_of(to_delayed_work(work), struct pc_work, delayed);

    w->function(w->context);
}

void pc_work_init(struct pc_work *w, struct pc_queue *q, pc_work_function f, void *context)
{
    INIT_DELAYED_WORK(&w->delayed, run_work);
    /*
     * That gave all works one lockdep class, and a work that stops another would look like a
     * deadlock. The function's address is a static object of this module and differs per role.
     */
    lockdep_init_map(&w->delayed.work.lockdep_map, "pcache work", (struct lock_class_key *)f, 0);
    w->queue = (struct workqueue_struct *)q;
    w->function = f;
    w->context = context;
}

void pc_work_kick(struct pc_work *w)
{
    mod_delayed_work(w->queue, &w->delayed, 0);
}

void pc_work_kick_after(struct pc_work *w, u64 ns)
{
    /* Rounded up: never earlier than asked for. */
    queue_delayed_work(w->queue, &w->delayed, nsecs_to_jiffies(ns + TICK_NSEC - 1));
}

void pc_work_stop(struct pc_work *w)
{
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
