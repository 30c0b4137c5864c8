// SPDX-License-Identifier: GPL-2.0
/*
 * pm.c - suspend and hibernation of the machine.
 *
 * The kernel freezes user space first, then the kernel's own threads. The workers must go on up to
 * the second: a task that waits in a write for space cannot be frozen. Nothing calls back in
 * between, so one freezable thread stands for the workers of all caches: when it is told to freeze
 * it puts them to sleep, and is frozen itself when they are; the kernel waits for it. Behind the
 * thaw it wakes them up. If they do not come to an end (a disk that does not answer) the kernel
 * gives up by itself after its time, 20 s, and the suspend fails.
 *
 * Other kernel threads are told to freeze at the same time, and may not be able to before a request
 * of theirs has ended. So nothing is put to sleep while requests wait for it, for a while.
 *
 * Hibernation is another thing: the image knows a past of the cache, and what happens behind the
 * snapshot (the image itself may be written through the cache) would be a future that the restored
 * system knows nothing of. It is refused unless all caches are suspended, and none may be activated
 * before it is over.
 */
#define pr_fmt(fmt) "dm-pcache: " fmt
#include <linux/err.h>
#include <linux/freezer.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/notifier.h>
#include <linux/sched.h>
#include <linux/suspend.h>

#include "dm-pcache/kernel/pm.h"
#include "dm-pcache/target/face.h"

#define LOOK_EVERY msecs_to_jiffies(10)
#define QUIET_FOR msecs_to_jiffies(50)
#define WAIT_AT_MOST (5 * HZ) /* of the 20 s that the kernel waits */

static struct task_struct *sleeper;

/* Until no request has waited for a moment. */
static void let_requests_end(void)
{
    unsigned long now = jiffies, give_up = now + WAIT_AT_MOST, quiet_since = now;

    while (freezing(current) && time_before(now, give_up) &&
           time_before(now, quiet_since + QUIET_FOR)) {
        schedule_timeout_idle(LOOK_EVERY);
        now = jiffies;
        if (pc_target_requests_wait())
            quiet_since = now;
    }
}

static void sleep_through(void)
{
    let_requests_end();
    pc_target_fall_asleep();
    while (freezing(current) && !pc_target_asleep())
        schedule_timeout_idle(LOOK_EVERY);
    try_to_freeze();
    pc_target_wake_up();
}

static int sleeper_main(void *unused)
{
    set_freezable();
    while (!kthread_should_stop()) {
        set_current_state(TASK_INTERRUPTIBLE);
        if (!freezing(current) && !kthread_should_stop())
            schedule();
        __set_current_state(TASK_RUNNING);
        if (freezing(current))
            sleep_through();
    }
    return 0;
}

static int notified(struct notifier_block *block, unsigned long what, void *unused)
{
    switch (what) {
    case PM_HIBERNATION_PREPARE:
        return notifier_from_errno(pc_target_hibernate(0));
    case PM_RESTORE_PREPARE:
        return notifier_from_errno(pc_target_hibernate(1));
    case PM_POST_HIBERNATION:
    case PM_POST_RESTORE:
        pc_target_hibernation_over();
        break;
    }
    return NOTIFY_OK;
}

static struct notifier_block notifier = {.notifier_call = notified};

int pc_pm_init(void)
{
    int error;

    sleeper = kthread_run(sleeper_main, NULL, "pcache_sleep");
    if (IS_ERR(sleeper))
        return PTR_ERR(sleeper);
    error = register_pm_notifier(&notifier);
    if (error)
        kthread_stop(sleeper);
    return error;
}

void pc_pm_exit(void)
{
    unregister_pm_notifier(&notifier);
    kthread_stop(sleeper);
}
