/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HDFS knows owners by name, the kernel by number. The name services of this machine translate, and
 * may take their time (LDAP), so that answers are remembered for some minutes. A name that this
 * machine does not know has no number: the mount then shows the file as its own.
 */
#include "backend/hdfs_priv.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <string.h>

#define IDS_MAX 4096u
#define IDS_TTL_NS (600 * ZC_NS_PER_S)
#define IDS_NAME_MAX 256

struct ids_entry {
    char *name;
    uint32_t id;
    int64_t until_ns;
};

struct ids_table {
    struct ids_entry *e;
    size_t n, cap;
};

struct hdfs_ids {
    pthread_mutex_t lock;
    struct ids_table users, groups;
};

struct hdfs_ids *hdfs_ids_new(void)
{
    struct hdfs_ids *ids = calloc(1, sizeof(*ids));
    if (ids)
        pthread_mutex_init(&ids->lock, NULL);
    return ids;
}

static void ids_clear(struct ids_table *t)
{
    for (size_t i = 0; i < t->n; i++)
        free(t->e[i].name);
    t->n = 0;
}

void hdfs_ids_free(struct hdfs_ids *ids)
{
    if (!ids)
        return;
    ids_clear(&ids->users);
    ids_clear(&ids->groups);
    free(ids->users.e);
    free(ids->groups.e);
    pthread_mutex_destroy(&ids->lock);
    free(ids);
}

/* What has no name, or one that is none, has no number either. */
static bool ids_nobody(const char *name)
{
    return !name || !*name || strlen(name) >= IDS_NAME_MAX;
}

/* Locked. Listings have few owners, and those often in a row: the last hit is moved to the front.
 */
static bool ids_look(struct ids_table *t, const char *name, uint32_t *id)
{
    if (ids_nobody(name)) {
        *id = ZC_ID_UNSET;
        return true;
    }
    for (size_t i = 0; i < t->n; i++) {
        if (strcmp(t->e[i].name, name) != 0)
            continue;
        if (zc_now_ns() >= t->e[i].until_ns)
            return false;
        *id = t->e[i].id;
        struct ids_entry hit = t->e[i];
        t->e[i] = t->e[0];
        t->e[0] = hit;
        return true;
    }
    return false;
}

/* Locked. Not remembering costs only time. */
static void ids_keep(struct ids_table *t, const char *name, uint32_t id)
{
    int64_t until = zc_now_ns() + IDS_TTL_NS;
    for (size_t i = 0; i < t->n; i++) {
        if (strcmp(t->e[i].name, name) == 0) {
            t->e[i].id = id;
            t->e[i].until_ns = until;
            return;
        }
    }
    if (t->n == IDS_MAX)
        ids_clear(t);
    if (t->n == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 16;
        struct ids_entry *e = reallocarray(t->e, cap, sizeof(*e));
        if (!e)
            return;
        t->e = e;
        t->cap = cap;
    }
    char *copy = strdup(name);
    if (copy)
        t->e[t->n++] = (struct ids_entry){.name = copy, .id = id, .until_ns = until};
}

bool hdfs_ids_known(struct hdfs_ids *ids, const char *owner, const char *group, struct hdfs_id *out)
{
    struct hdfs_id id;
    pthread_mutex_lock(&ids->lock);
    bool known = ids_look(&ids->users, owner, &id.uid) && ids_look(&ids->groups, group, &id.gid);
    pthread_mutex_unlock(&ids->lock);
    if (known)
        *out = id;
    return known;
}

static uint32_t ids_ask(const char *name, bool group)
{
    size_t n = 4096;
    uint32_t id = ZC_ID_UNSET;
    int r;
    do {
        zc_autofree char *buf = malloc(n);
        if (!buf)
            return id;
        if (group) {
            struct group g, *found = NULL;
            r = getgrnam_r(name, &g, buf, n, &found);
            if (r == 0 && found)
                id = found->gr_gid;
        } else {
            struct passwd p, *found = NULL;
            r = getpwnam_r(name, &p, buf, n, &found);
            if (r == 0 && found)
                id = found->pw_uid;
        }
        n *= 4;
    } while (r == ERANGE && n <= ((size_t)4 << 20));
    return id;
}

struct hdfs_id hdfs_ids_find(struct hdfs_ids *ids, const char *owner, const char *group)
{
    struct hdfs_id id = {ZC_ID_UNSET, ZC_ID_UNSET};
    pthread_mutex_lock(&ids->lock);
    bool user_known = ids_look(&ids->users, owner, &id.uid);
    bool group_known = ids_look(&ids->groups, group, &id.gid);
    pthread_mutex_unlock(&ids->lock);
    if (!user_known)
        id.uid = ids_ask(owner, false);
    if (!group_known)
        id.gid = ids_ask(group, true);
    if (user_known && group_known)
        return id;
    pthread_mutex_lock(&ids->lock);
    if (!user_known)
        ids_keep(&ids->users, owner, id.uid);
    if (!group_known)
        ids_keep(&ids->groups, group, id.gid);
    pthread_mutex_unlock(&ids->lock);
    return id;
}
