/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DataNodes, and which of them has which block.
 *
 * A NameNode offers a DataNode that died for ten more minutes, so that we remember for ourselves
 * which ones did not answer, and ask for all replicas of a block once there is a reason to choose.
 * Locations are a hint and no more: a DataNode asked for a block that it does not have fetches it
 * from one that does.
 */
#include "backend/hdfs_priv.h"

#include "base/digest.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define NODES_MAX 65536u
#define NODES_BAD_NS (5 * ZC_NS_PER_S) /* after the first failure; doubles */
#define BLOCKS_WINDOW                                                                              \
    ((uint64_t)4 << 30)    /* bytes of a file whose locations are asked for at once */
#define BLOCKS_FILES 4096u /* windows remembered */
#define BLOCKS_MAX 65536u  /* blocks of a window, replicas of one counted each */
#define BLOCKS_TTL_NS (600 * ZC_NS_PER_S)
#define BLOCKS_BUCKETS 1024u

struct nodes_replica {
    size_t block;
    uint64_t off, end;
    struct hdfs_dn *dn;
};

struct nodes_file {
    struct zc_list hash, age; /* age: oldest use first */
    struct hdfs_key key;
    uint64_t from;
    int64_t until_ns;
    struct nodes_replica *r; /* by offset, as the NameNode gives them */
    size_t n;
};

struct hdfs_nodes {
    pthread_mutex_t lock;
    struct hdfs_dn **dn; /* hash table, open addressing */
    size_t n_dn, cap_dn;
    struct zc_list buckets[BLOCKS_BUCKETS], age;
    size_t n_files;
};

struct hdfs_nodes *hdfs_nodes_new(void)
{
    struct hdfs_nodes *n = calloc(1, sizeof(*n));
    if (!n)
        return NULL;
    pthread_mutex_init(&n->lock, NULL);
    zc_list_init(&n->age);
    for (size_t i = 0; i < BLOCKS_BUCKETS; i++)
        zc_list_init(&n->buckets[i]);
    return n;
}

static void nodes_file_free(struct hdfs_nodes *n, struct nodes_file *f)
{
    zc_list_del(&f->hash);
    zc_list_del(&f->age);
    n->n_files--;
    free(f->r);
    free(f);
}

void hdfs_nodes_free(struct hdfs_nodes *n)
{
    if (!n)
        return;
    while (!zc_list_empty(&n->age))
        nodes_file_free(n, zc_list_entry(n->age.next, struct nodes_file, age));
    for (size_t i = 0; i < n->cap_dn; i++) {
        if (n->dn[i]) {
            free(n->dn[i]->authority);
            free(n->dn[i]);
        }
    }
    free(n->dn);
    pthread_mutex_destroy(&n->lock);
    free(n);
}

/* ---- nodes ---- */

static int nodes_grow(struct hdfs_nodes *n)
{
    if (n->n_dn * 2 < n->cap_dn)
        return 0;
    size_t cap = n->cap_dn ? n->cap_dn * 2 : 64;
    struct hdfs_dn **dn = cap <= 2 * NODES_MAX ? calloc(cap, sizeof(struct hdfs_dn *)) : NULL;
    if (!dn)
        return -ENOMEM;
    for (size_t i = 0; i < n->cap_dn; i++) {
        if (!n->dn[i])
            continue;
        size_t at = zc_hash64(0, n->dn[i]->authority, strlen(n->dn[i]->authority)) % cap;
        while (dn[at])
            at = (at + 1) % cap;
        dn[at] = n->dn[i];
    }
    free(n->dn);
    n->dn = dn;
    n->cap_dn = cap;
    return 0;
}

void hdfs_nodes_each(struct hdfs_nodes *n, zc_hdfs_node_fn *fn, void *arg)
{
    pthread_mutex_lock(&n->lock);
    for (size_t i = 0; i < n->cap_dn; i++)
        if (n->dn[i])
            fn(arg, n->dn[i]->authority, hdfs_node_is_bad(n->dn[i]));
    pthread_mutex_unlock(&n->lock);
}

struct hdfs_dn *hdfs_node(struct hdfs_nodes *n, const char *authority, size_t len)
{
    struct hdfs_dn *found = NULL;
    pthread_mutex_lock(&n->lock);
    if (nodes_grow(n) == 0) {
        size_t at = zc_hash64(0, authority, len) % n->cap_dn;
        while (n->dn[at] &&
               (strncmp(n->dn[at]->authority, authority, len) != 0 || n->dn[at]->authority[len]))
            at = (at + 1) % n->cap_dn;
        if (!n->dn[at]) {
            struct hdfs_dn *dn = calloc(1, sizeof(*dn));
            char *copy = dn ? strndup(authority, len) : NULL;
            if (copy) {
                dn->authority = copy;
                n->dn[at] = dn;
                n->n_dn++;
            } else {
                free(dn);
            }
        }
        found = n->dn[at];
    }
    pthread_mutex_unlock(&n->lock);
    return found;
}

void hdfs_node_good(struct hdfs_dn *dn)
{
    if (atomic_load_explicit(&dn->fails, memory_order_relaxed) == 0)
        return;
    atomic_store(&dn->fails, 0);
    atomic_store(&dn->bad_until_ns, 0);
}

void hdfs_node_bad(struct hdfs_dn *dn)
{
    unsigned fails = atomic_fetch_add(&dn->fails, 1);
    atomic_store(&dn->bad_until_ns, zc_now_ns() + (NODES_BAD_NS << ZC_MIN(fails, 6u)));
}

bool hdfs_node_is_bad(const struct hdfs_dn *dn)
{
    int64_t until = atomic_load_explicit(&dn->bad_until_ns, memory_order_relaxed);
    return until && zc_now_ns() < until;
}

/* ---- blocks ---- */

void hdfs_blocks_window(uint64_t off, uint64_t length, uint64_t *from, uint64_t *len)
{
    *from = off - off % BLOCKS_WINDOW;
    *len = ZC_MIN(BLOCKS_WINDOW, length - ZC_MIN(*from, length));
}

static bool nodes_same(const struct nodes_file *f, const struct hdfs_key *key, uint64_t off)
{
    return f->key.inode == key->inode && f->key.length == key->length &&
           f->key.mtime_ms == key->mtime_ms && f->from == off - off % BLOCKS_WINDOW;
}

static struct zc_list *nodes_bucket(struct hdfs_nodes *n, const struct hdfs_key *key, uint64_t off)
{
    uint64_t id[2] = {key->inode, off / BLOCKS_WINDOW};
    return &n->buckets[zc_hash64(0, id, sizeof(id)) % BLOCKS_BUCKETS];
}

/* Locked. */
static struct nodes_file *nodes_find(struct hdfs_nodes *n, const struct hdfs_key *key, uint64_t off)
{
    zc_list_for_each (it, nodes_bucket(n, key, off)) {
        struct nodes_file *f = zc_list_entry(it, struct nodes_file, hash);
        if (nodes_same(f, key, off))
            return f;
    }
    return NULL;
}

struct blocks_read {
    struct hdfs_nodes *nodes;
    struct nodes_file *file;
    size_t cap;
};

static int blocks_replica(void *arg, size_t block, uint64_t off, uint64_t len, const char *host,
                          unsigned port)
{
    struct blocks_read *b = arg;
    char authority[300];
    if (port == 0)
        return 0;
    int n =
        snprintf(authority, sizeof(authority), strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, port);
    zc_autofree char *check = NULL;
    unsigned check_port;
    if (n < 0 || (size_t)n >= sizeof(authority) ||
        hdfs_hostport(authority, (size_t)n, &check, &check_port) < 0)
        return -EBADMSG;
    if (b->file->n == BLOCKS_MAX)
        return -EFBIG;
    if (b->file->n == b->cap) {
        size_t cap = b->cap ? b->cap * 2 : 24;
        struct nodes_replica *r = reallocarray(b->file->r, cap, sizeof(*r));
        if (!r)
            return -ENOMEM;
        b->file->r = r;
        b->cap = cap;
    }
    struct hdfs_dn *dn = hdfs_node(b->nodes, authority, (size_t)n);
    if (!dn)
        return -ENOMEM;
    b->file->r[b->file->n++] =
        (struct nodes_replica){.block = block, .off = off, .end = off + len, .dn = dn};
    return 0;
}

int hdfs_blocks_put(struct hdfs_nodes *n, const struct hdfs_key *key, uint64_t off, bool tls,
                    const char *json, size_t len)
{
    struct nodes_file *f = calloc(1, sizeof(*f));
    if (!f)
        return -ENOMEM;
    struct blocks_read b = {.nodes = n, .file = f};
    uint64_t length;
    int r = hdfs_json_blocks(json, len, tls, blocks_replica, &b, &length);
    if (r == 0 && length != key->length)
        r = -ESTALE;
    if (r < 0) {
        free(f->r);
        free(f);
        return r;
    }
    f->key = *key;
    f->from = off - off % BLOCKS_WINDOW;
    f->until_ns = zc_now_ns() + BLOCKS_TTL_NS;
    pthread_mutex_lock(&n->lock);
    struct nodes_file *old = nodes_find(n, key, off);
    if (old)
        nodes_file_free(n, old);
    if (n->n_files >= BLOCKS_FILES)
        nodes_file_free(n, zc_list_entry(n->age.next, struct nodes_file, age));
    zc_list_push_back(nodes_bucket(n, key, off), &f->hash);
    zc_list_push_back(&n->age, &f->age);
    n->n_files++;
    pthread_mutex_unlock(&n->lock);
    return 0;
}

void hdfs_blocks_drop(struct hdfs_nodes *n, const struct hdfs_key *key, uint64_t off)
{
    pthread_mutex_lock(&n->lock);
    struct nodes_file *f = nodes_find(n, key, off);
    if (f)
        nodes_file_free(n, f);
    pthread_mutex_unlock(&n->lock);
}

static bool blocks_avoided(const struct hdfs_dn *dn, struct hdfs_dn *const *avoid, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (avoid[i] == dn)
            return true;
    }
    return false;
}

/* Locked. First replica whose block ends behind off. */
static size_t blocks_first(const struct nodes_file *f, uint64_t off)
{
    size_t lo = 0, hi = f->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (f->r[mid].end <= off)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

struct hdfs_dn *hdfs_blocks_pick(struct hdfs_nodes *n, const struct hdfs_key *key, uint64_t off,
                                 unsigned turn, struct hdfs_dn *const *avoid, size_t n_avoid,
                                 bool *known)
{
    struct hdfs_dn *good = NULL, *bad = NULL;
    *known = false;
    pthread_mutex_lock(&n->lock);
    struct nodes_file *f = nodes_find(n, key, off);
    if (f && zc_now_ns() >= f->until_ns) {
        nodes_file_free(n, f);
        f = NULL;
    }
    size_t first = f ? blocks_first(f, off) : 0, count = 0;
    while (f && first + count < f->n && f->r[first + count].off <= off &&
           f->r[first + count].block == f->r[first].block)
        count++;
    if (count) {
        *known = true;
        zc_list_del(&f->age);
        zc_list_push_back(&n->age, &f->age);
    }
    for (size_t i = 0; i < count && !good; i++) {
        struct hdfs_dn *dn = f->r[first + (turn + i) % count].dn;
        if (blocks_avoided(dn, avoid, n_avoid))
            continue;
        if (!hdfs_node_is_bad(dn))
            good = dn;
        else if (!bad || atomic_load(&dn->fails) < atomic_load(&bad->fails))
            bad = dn;
    }
    pthread_mutex_unlock(&n->lock);
    return good ? good : bad;
}
