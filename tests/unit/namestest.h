/* SPDX-License-Identifier: Apache-2.0 */
/* For tests of names over time: a file system whose clock is moved on by hand, of a store in memory
   that counts what it is asked. */
#ifndef ZC_TESTS_NAMESTEST_H
#define ZC_TESTS_NAMESTEST_H

#include "vfs/internal.h"
#include "vfstest.h"

#define NT_PAGE 1000u /* entries of a page of a listing */
#define NT_MANY 50000u

struct nt_shop {
    struct zc_backend be;
    struct zc_backend_stats counters;
    struct zc_entry *entries; /* of the root; there is nothing below */
    unsigned n;
    struct zc_attr root;
    unsigned lists, pages, stats; /* asked so far; root_stats not among them */
    unsigned root_stats;
    int down;                 /* errno that requests end with, or 0 */
    bool circles;             /* gives its second page for ever */
    struct zc_list_req *held; /* a listing that waits */
    bool hold;
    int64_t deadline_ns; /* of the last request */
};

/* NULL: it is not there. */
struct zc_attr *nt_find(struct nt_shop *s, const char *name);
/* Puts a file of this version, or a directory (NULL). */
struct zc_attr *nt_put(struct nt_shop *s, const char *name, const char *version);
/* NT_MANY of them. The shop is empty. */
void nt_put_many(struct nt_shop *s);
void nt_drop(struct nt_shop *s, const char *name);
/* The listing that waits goes on, and none is held any more. */
void nt_release(struct nt_shop *s);

struct nt_names {
    struct vt_world w;
    struct nt_shop shop;
    struct zc_vfs_source *source;
};

/* A minute for what is there, and for what is not. */
extern const struct zc_vfs_source_config nt_believed;

void nt_new(struct nt_names *t, struct zc_vfs_source_config cfg);
void nt_free(struct nt_names *t);
/* Moves the clock on. */
void nt_later(struct nt_names *t, unsigned seconds);
int nt_look(struct nt_names *t, const char *path, struct zc_node *out);
/* The root, opened. */
struct zc_dirh *nt_opened(struct nt_names *t);
void nt_listed(struct nt_names *t);

#endif
