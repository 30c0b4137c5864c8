// SPDX-License-Identifier: GPL-2.0
/*
 * dax.c - the cache device: opened and mapped by DAX, stored to past the CPU caches, read
 * machine-check safe (platform.h, "the cache device").
 *
 * The map of the device, a table of pieces in device order, is made at open and does not
 * change; neighbours whose addresses join are one piece, so that a namespace or a partition is one,
 * an LV of several segments several. A range that the engine needs in one piece and that is not, is
 * vmap'ed alone: mapping all of a device that is larger than DRAM would fail.
 *
 * The page maps below are held from open to close, so that a removal of the device waits until it
 * is closed; removal.c has the notice of it.
 *
 * Pages that the driver knows to be bad (badblocks) are mapped like the others, by the access mode
 * for recovery, and listed; the list does not change either.
 *
 * `lock` guards the list of those extra mappings. Stores, flushes and loads take no lock and do not
 * sleep.
 */
#define pr_fmt(fmt) "dm-pcache: " fmt
#include <linux/badblocks.h>
#include <linux/blkdev.h>
#include <linux/dax.h>
#include <linux/libnvdimm.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/sort.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#include <linux/xarray.h>
#include <asm/barrier.h>

#include "dm-pcache/kernel/internal.h"
#include "dm-pcache/kernel/removal.h"

/* A table of pieces of at most 24 MiB. */
#define MOST_PIECES (1U << 20)

/* No more than this is asked for at once: some drivers count a mapping in an int of bytes. */
#define STEP_PAGES (SZ_1G >> PAGE_SHIFT)

static const char going[] = "cache device is being removed";

struct piece {
    u64 first_page, pages;
    u8 *address;
};

/* Pages that are known to be bad, one after the other. */
struct bad {
    u64 first_page, pages;
};

struct extra {
    struct extra *next; /* from the same page on, of another length */
    u64 pages;
    u8 *address;
};

/* Of the linear mapping. */
struct stretch {
    const u8 *from, *to;
};

struct pc_media {
    struct pc_table *table;
    struct dm_dev *device;
    u64 start, bytes; /* on the DAX device */
    struct piece *pieces;
    u32 count, room;
    struct bad *bad;
    u32 bad_count, bad_room;
    struct stretch *memory; /* what the pieces take, by address, joined */
    u32 memory_count;
    struct dev_pagemap **maps; /* held; few: one for each namespace */
    u32 map_count, map_room;
    struct pc_watch watch;
    struct mutex lock;
    struct xarray extras; /* by first page */
};

/* ---- the map -------------------------------------------------------------------------- */

/* An array with room for one more; `bytes`: of an element. */
static void *grown(void *array, u32 count, u32 *room, usize bytes)
{
    u32 more = *room ? 2 * *room : 16;
    void *fresh;

    if (count < *room)
        return array;
    fresh = kvmalloc_array(more, bytes, GFP_KERNEL);
    if (!fresh)
        return NULL;
    if (count)
        memcpy(fresh, array, count * bytes);
    kvfree(array);
    *room = more;
    return fresh;
}

static int append(struct pc_media *m, u64 first_page, u64 pages, u8 *address)
{
    struct piece *last = m->count ? &m->pieces[m->count - 1] : NULL;

    if (last && last->address + (last->pages << PAGE_SHIFT) == address) {
        last->pages += pages;
        return 0;
    }
    if (m->count == MOST_PIECES)
        return -E2BIG;
    last = grown(m->pieces, m->count, &m->room, sizeof(*last));
    if (!last)
        return -ENOMEM;
    m->pieces = last;
    m->pieces[m->count++] = (struct piece){first_page, pages, address};
    return 0;
}

static int append_bad(struct pc_media *m, u64 page)
{
    struct bad *last = m->bad_count ? &m->bad[m->bad_count - 1] : NULL;

    if (last && last->first_page + last->pages == page) {
        last->pages++;
        return 0;
    }
    last = grown(m->bad, m->bad_count, &m->bad_room, sizeof(*last));
    if (!last)
        return -ENOMEM;
    m->bad = last;
    m->bad[m->bad_count++] = (struct bad){page, 1};
    return 0;
}

/*
 * Keeps the page structures of a namespace for as long as the device is open. Takes the reference
 * over.
 */
static int hold_map(struct pc_media *m, struct dev_pagemap *map)
{
    struct dev_pagemap **maps;
    u32 i;

    if (!map)
        return 0;
    for (i = m->map_count; i; i--) {
        if (m->maps[i - 1] == map) {
            put_dev_pagemap(map);
            return 0;
        }
    }
    maps = grown(m->maps, m->map_count, &m->map_room, sizeof(*maps));
    if (!maps) {
        put_dev_pagemap(map);
        return -ENOMEM;
    }
    m->maps = maps;
    m->maps[m->map_count++] = map;
    return 0;
}

/* What map_step() has got. */
struct step {
    u8 *address;
    struct dev_pagemap *map; /* referenced; null: plain memory */
    bool bad;                /* the last page is a bad one */
};

/*
 * Between dax_read_lock() and its end, after access was given: a device that is removed is killed
 * first, which waits for us, so the page structures are there. Behind the end only a reference on
 * the map keeps them.
 */
static int take_map(struct step *s)
{
    if (!virt_addr_valid(s->address))
        return -EOPNOTSUPP;
    s->map = get_dev_pagemap(PHYS_PFN(__pa(s->address)), NULL);
    if (!s->map && is_zone_device_page(virt_to_page(s->address)))
        return -ENODEV;
    return 0;
}

/*
 * Maps one step from page `at` of the partition; how many pages, or an error. Known bad blocks make
 * plain access fail for all of it; for recovery the driver maps up to the bad page (with it, if its
 * first sectors are good), then the bad page alone.
 */
static long map_step(struct pc_media *m, u64 at, u64 wanted, struct step *s)
{
    pgoff_t page = (m->start >> PAGE_SHIFT) + at;
    struct dax_device *dax = m->device->dax_dev;
    void *address, *ignored;
    int id = dax_read_lock();
    long got = dax_direct_access(dax, page, wanted, DAX_ACCESS, &address, NULL);
    int error = 0;

    *s = (struct step){};
    if (got <= 0) {
        got = dax_direct_access(dax, page, wanted, DAX_RECOVERY_WRITE, &address, NULL);
        s->bad = got > 0 && got <= wanted &&
                 dax_direct_access(dax, page + got - 1, 1, DAX_ACCESS, &ignored, NULL) <= 0;
    }
    if (got > 0) {
        s->address = address;
        error = take_map(s);
    } else if (!dax_alive(dax)) {
        error = -ENODEV;
    }
    dax_read_unlock(id);
    if (error)
        return error;
    return got ? got : -EIO;
}

static int by_address(const void *a, const void *b)
{
    const struct stretch *x = a, *y = b;

    return x->from < y->from ? -1 : x->from > y->from;
}

/* For pc_media_overlap(): the pieces by address, neighbours joined. */
static int index_memory(struct pc_media *m, const char **sentence)
{
    u32 i, last = 0;

    if (!m->count)
        return 0;
    m->memory = kvmalloc_array(m->count, sizeof(*m->memory), GFP_KERNEL);
    if (!m->memory) {
        *sentence = "out of memory";
        return -ENOMEM;
    }
    for (i = 0; i < m->count; i++) {
        m->memory[i].from = m->pieces[i].address;
        m->memory[i].to = m->pieces[i].address + (m->pieces[i].pages << PAGE_SHIFT);
    }
    sort(m->memory, m->count, sizeof(*m->memory), by_address, NULL);
    for (i = 1; i < m->count; i++) {
        if (m->memory[i].from <= m->memory[last].to)
            m->memory[last].to = max(m->memory[last].to, m->memory[i].to);
        else
            m->memory[++last] = m->memory[i];
    }
    m->memory_count = last + 1;
    return 0;
}

/* `at`: the page from which on nothing was got. */
static void refuse_step(struct pc_media *m, const char *path, u64 at, int error,
                        const char **sentence)
{
    if (error == -ENODEV)
        pc_refuse(m->table, sentence, going, "%s", path);
    else if (error == -EOPNOTSUPP)
        pc_refuse(m->table, sentence,
                  "cache device has no page structures: use a namespace in fsdax mode", "%s", path);
    else
        pc_refuse(m->table, sentence,
                  "cache device cannot be mapped by DAX: see the log for the place",
                  "%s, byte %llu, error %d", path, at << PAGE_SHIFT, error);
}

static int refuse_piece(struct pc_media *m, const char *path, int error, const char **sentence)
{
    if (error == -E2BIG)
        pc_refuse(m->table, sentence,
                  "cache device is in too many pieces: give a striped volume larger chunks",
                  "%s, more than %u", path, MOST_PIECES);
    else
        *sentence = "out of memory";
    return error;
}

static int map_all(struct pc_media *m, const char *path, const char **sentence)
{
    u64 pages = m->bytes >> PAGE_SHIFT;
    u64 at = 0;
    int error;

    while (at < pages) {
        u64 wanted = min_t(u64, pages - at, STEP_PAGES);
        struct step s;
        long got = map_step(m, at, wanted, &s);

        if (got < 0) {
            refuse_step(m, path, at, got, sentence);
            return got;
        }
        got = min_t(u64, got, wanted);
        error = hold_map(m, s.map);
        if (!error)
            error = append(m, at, got, s.address);
        if (!error && s.bad)
            error = append_bad(m, at + got - 1);
        if (error)
            return refuse_piece(m, path, error, sentence);
        at += got;
        cond_resched();
    }
    return index_memory(m, sentence);
}

/* The piece that holds a page of the device. */
static const struct piece *find_piece(const struct pc_media *m, u64 page)
{
    u32 low = 0, high = m->count;

    while (high - low > 1) {
        u32 middle = low + (high - low) / 2;

        if (m->pieces[middle].first_page <= page)
            low = middle;
        else
            high = middle;
    }
    return &m->pieces[low];
}

/* ---- open and close ------------------------------------------------------------------- */

static int check_device(struct pc_media *m, const char *path, const char **sentence)
{
    const struct dm_dev *d = m->device;
    struct pc_table *t = m->table;

    /*
     * Its disk is deleted. No open would succeed any more, but device-mapper gives a device once
     * more that another table of the mapped device has open.
     */
    if (!m->bytes || !get_capacity(d->bdev->bd_disk)) {
        pc_refuse(t, sentence, going, "%s", path);
        return -ENODEV;
    }
    if (!IS_ALIGNED(m->start, PAGE_SIZE) || !IS_ALIGNED(m->bytes, PAGE_SIZE)) {
        pc_refuse(t, sentence,
                  "cache device does not start and end on a page: align the partition to 4 KiB",
                  "%s starts at byte %llu and has %llu", path, m->start, m->bytes);
        return -EINVAL;
    }
    if (!d->dax_dev) {
        pc_refuse(t, sentence,
                  "cache device has no DAX: give persistent memory, a namespace in fsdax mode",
                  "%s", path);
        return -EOPNOTSUPP;
    }
    if (!dax_synchronous(d->dax_dev)) {
        pc_refuse(t, sentence,
                  "cache device has asynchronous DAX: stores to it would not be durable; give "
                  "an NVDIMM rather than virtio-pmem",
                  "%s", path);
        return -EOPNOTSUPP;
    }
    return 0;
}

int pc_media_open(struct pc_table *t, const char *path, struct pc_media **out,
                  const char **sentence)
{
    struct dm_dev *device;
    struct pc_media *m;
    int error = pc_table_get_device(t, path, PC_ROLE_CACHE, &device, sentence);

    if (error)
        return error;
    m = kzalloc(sizeof(*m), GFP_KERNEL);
    if (!m) {
        *sentence = "out of memory";
        pc_table_put_device(t, device);
        return -ENOMEM;
    }
    mutex_init(&m->lock);
    xa_init(&m->extras);
    m->table = t;
    m->device = device;
    m->start = get_start_sect(device->bdev) << SECTOR_SHIFT;
    m->bytes = bdev_nr_bytes(device->bdev);
    t->media = device->bdev;

    error = check_device(m, path, sentence);
    if (!error && pc_watch_begin(&m->watch, device->bdev, device->dax_dev)) {
        *sentence = "out of memory";
        error = -ENOMEM;
    }
    if (!error)
        error = map_all(m, path, sentence);
    if (error) {
        pc_media_close(m);
        return error;
    }
    *out = m;
    return 0;
}

static void free_extras(struct pc_media *m)
{
    struct extra *e, *next;
    unsigned long page;

    xa_for_each(&m->extras, page, e)
    {
        for (; e; e = next) {
            next = e->next;
            vunmap(e->address);
            kfree(e);
        }
    }
    xa_destroy(&m->extras);
}

void pc_media_close(struct pc_media *m)
{
    u32 i;

    if (!m)
        return;
    pc_watch_end(&m->watch);
    free_extras(m);
    for (i = 0; i < m->map_count; i++)
        put_dev_pagemap(m->maps[i]);
    m->table->media = NULL;
    pc_table_put_device(m->table, m->device);
    kvfree(m->pieces);
    kvfree(m->bad);
    kvfree(m->memory);
    kvfree(m->maps);
    mutex_destroy(&m->lock);
    kfree(m);
}

void pc_media_watch(struct pc_media *m, void (*gone)(void *context), void *context)
{
    pc_watch_call(&m->watch, gone, context);
}

void pc_media_exchange(struct pc_media *a, struct pc_media *b)
{
    swap(a->table, b->table);
    swap(a->device, b->device);
}

const char *pc_media_name(const struct pc_media *m)
{
    return m->device->name;
}

u64 pc_media_bytes(const struct pc_media *m)
{
    return m->bytes;
}

void pc_media_identify(const struct pc_media *m, struct pc_media_identity *id)
{
    id->dax = m->device->dax_dev;
    id->start = m->start;
    id->bytes = m->bytes;
}

int pc_media_bad_stretch(const struct pc_media *m, u32 i, struct pc_media_stretch *out)
{
    if (i >= m->bad_count)
        return 0;
    out->offset = m->bad[i].first_page << PAGE_SHIFT;
    out->bytes = m->bad[i].pages << PAGE_SHIFT;
    return 1;
}

/*
 * The driver's list is of the whole disk, in sectors, and only a driver of persistent memory has
 * one: a device-mapper target in between hides it.
 */
u8 pc_media_bad_units(const struct pc_media *m, u64 offset)
{
    struct badblocks *list = m->device->bdev->bd_disk->bb;
    sector_t sector = (m->start + offset) >> SECTOR_SHIFT;
    int count;
    sector_t first;
    u8 units = 0;
    int i;

    if (!list)
        return 0xff;
    for (i = 0; i < PAGE_SIZE / PC_MEDIA_UNIT; i++) {
        if (badblocks_check(list, sector + i, 1, &first, &count))
            units |= 1 << i;
    }
    return units ?: 0xff;
}

/* A page of persistent memory has one address in the linear mapping. */
int pc_media_overlap(const struct pc_media *a, const struct pc_media *b)
{
    u32 i = 0, j = 0;

    while (i < a->memory_count && j < b->memory_count) {
        const struct stretch *x = &a->memory[i], *y = &b->memory[j];

        if (x->from < y->to && y->from < x->to)
            return 1;
        if (x->to <= y->to)
            i++;
        else
            j++;
    }
    return 0;
}

/* ---- stretches that are not contiguous ------------------------------------------------ */

static u8 *find_extra(struct pc_media *m, u64 first_page, u64 pages)
{
    struct extra *e;

    for (e = xa_load(&m->extras, first_page); e; e = e->next)
        if (e->pages >= pages)
            return e->address;
    return NULL;
}

static u8 *vmap_pages(struct pc_media *m, u64 first_page, u64 pages)
{
    struct page **table = kvmalloc_array(pages, sizeof(*table), GFP_KERNEL);
    const struct piece *r = find_piece(m, first_page);
    u8 *address = NULL;
    u64 i, at;

    if (!table)
        return NULL;
    for (i = 0, at = first_page; i < pages; i++, at++) {
        if (at == r->first_page + r->pages)
            r++;
        table[i] = virt_to_page(r->address + ((at - r->first_page) << PAGE_SHIFT));
    }
    address = vmap(table, pages, VM_MAP, PAGE_KERNEL);
    kvfree(table);
    return address;
}

/* Called with m->lock held, in a NOIO scope. */
static u8 *add_extra(struct pc_media *m, u64 first_page, u64 pages)
{
    struct extra *e = kmalloc(sizeof(*e), GFP_KERNEL);

    if (!e)
        return NULL;
    e->next = xa_load(&m->extras, first_page);
    e->pages = pages;
    e->address = vmap_pages(m, first_page, pages);
    if (!e->address)
        goto free;
    if (xa_err(xa_store(&m->extras, first_page, e, GFP_KERNEL)))
        goto unmap;
    return e->address;
unmap:
    vunmap(e->address);
free:
    kfree(e);
    return NULL;
}

u8 *pc_media_map(struct pc_media *m, u64 offset, u64 length)
{
    u64 first_page = offset >> PAGE_SHIFT;
    u64 end_page = DIV_ROUND_UP_ULL(offset + length, PAGE_SIZE);
    const struct piece *r;
    unsigned int scope;
    u8 *address;

    if (offset >= m->bytes || length > m->bytes - offset) {
        pr_err("%pg: bytes %llu to %llu lie outside of the device\n", m->device->bdev, offset,
               offset + length);
        return NULL;
    }
    r = find_piece(m, first_page);
    if (end_page <= r->first_page + r->pages)
        return r->address + (offset - (r->first_page << PAGE_SHIFT));

    scope = memalloc_noio_save();
    mutex_lock(&m->lock);
    address = find_extra(m, first_page, end_page - first_page);
    if (!address)
        address = add_extra(m, first_page, end_page - first_page);
    mutex_unlock(&m->lock);
    memalloc_noio_restore(scope);
    if (!address) {
        pr_err("%pg: no memory to map bytes %llu to %llu in one piece\n", m->device->bdev, offset,
               offset + length);
        return NULL;
    }
    return address + offset_in_page(offset);
}

/*
 * Through the block device: the driver clears the poison, and the page can be used again. (A page
 * whose poison was consumed is not mapped any more until then.)
 */
int pc_media_rewrite_page(struct pc_media *m, u64 offset, const void *page)
{
    struct bio_vec vector;
    struct bio bio;
    int error = -EINVAL;

    bio_init(&bio, m->device->bdev, &vector, 1, REQ_OP_WRITE | REQ_FUA | REQ_SYNC);
    bio.bi_iter.bi_sector = offset >> SECTOR_SHIFT;
    if (bio_add_page(&bio, pc_page_of(page), PAGE_SIZE, offset_in_page(page)) == PAGE_SIZE)
        error = submit_bio_wait(&bio);
    bio_uninit(&bio);
    return error;
}

/* ---- stores and loads ----------------------------------------------------------------- */

void pc_media_store(u8 *to, const void *from, usize bytes)
{
    memcpy_flushcache(to, from, bytes);
}

void pc_media_zero(u8 *to, usize bytes)
{
    const void *zeroes = page_address(ZERO_PAGE(0));

    while (bytes) {
        usize step = min_t(usize, bytes, PAGE_SIZE);

        memcpy_flushcache(to, zeroes, step);
        to += step;
        bytes -= step;
    }
}

void pc_media_flush(const u8 *at, usize bytes)
{
    arch_wb_cache_pmem((void *)at, bytes);
}

void pc_media_fence(void)
{
    pmem_wmb();
}

int pc_media_load(void *to, const u8 *from, usize bytes)
{
    /* copy_mc_to_kernel counts in an unsigned int. */
    while (bytes) {
        usize step = min_t(usize, bytes, SZ_1G);

        if (copy_mc_to_kernel(to, from, step))
            return -EIO;
        to += step;
        from += step;
        bytes -= step;
    }
    return 0;
}

/*
 * One word of each line: what matters is that every line is loaded, and eight bytes a line are the
 * least that copy_mc_to_kernel, the only exported load of this kind, takes to do it.
 */
int pc_media_probe(const u8 *at, usize bytes)
{
    const u8 *end = at + bytes;
    u64 word;

    for (at = PTR_ALIGN_DOWN(at, SMP_CACHE_BYTES); at < end; at += SMP_CACHE_BYTES) {
        if (copy_mc_to_kernel(&word, at, sizeof(word)))
            return -EIO;
    }
    return 0;
}
