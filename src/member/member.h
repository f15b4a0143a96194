/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Membership as the daemon uses it: the core (swim.h) with sockets and a thread.
 *
 * One thread owns the core and all its sockets: UDP and TCP on one port. A second one looks up the
 * names of the seeds, because that may take long. What others see is a view: immutable, counted by
 * reference, replaced when something changed, at most every 20 ms.
 *
 * All functions may be called from any thread, but not from within the callback, which may only
 * take a view.
 */
#ifndef ZC_MEMBER_MEMBER_H
#define ZC_MEMBER_MEMBER_H

#include "member/crypt.h"
#include "member/swim.h"

#include <stdatomic.h>
#include <sys/socket.h>

#define ZC_MEMBER_PORT 7946 /* memberlist's */

struct zc_member;

struct zc_member_config {
    const char *name;    /* 1 to 200 printable bytes; a number is appended for each start */
    const uint8_t *meta; /* what this node says of itself, ZC_WIRE_META_MAX bytes at most */
    size_t meta_len;
    const struct sockaddr *bind;      /* IPv4 or IPv6; port 0: any that is free */
    const struct sockaddr *advertise; /* NULL: bind's; port 0: the one that is listened on */
    /* HOST[:PORT],... or NULL. A name stands for all its addresses, and is looked up again and
       again; a literal IPv6 address with a port is in brackets. */
    const char *seeds;
    /* Gossip is encrypted with the first of these keys. NULL: not at all. Lent until zc_member_stop
       and used by the thread; others may only call zc_keyring_primary meanwhile. */
    struct zc_keyring *keys;
    /* Where keys are read from in place of `keys`: at the start, when the file changes, and with
       zc_member_reload. What cannot be read or understood later leaves the former keys in place. */
    const char *key_file;
    /* Keys were taken from key_file: at the start on the caller's thread, later on the socket
       thread, which must not wait for anything. The ring is lent for the call. May be NULL. */
    void (*keys_taken)(void *user, const struct zc_keyring *keys);
    void *keys_user;
    const char *label;                 /* of the cluster; NULL: "zcache"; "": none */
    const struct zc_swim_config *swim; /* timing and bounds; NULL: zc_swim_defaults */
    bool compress;                     /* what is sent */
    /* The view is another one. On the socket thread: must not wait for anything. May be NULL. */
    void (*changed)(void *user);
    void *user;
};

struct zc_member_view {
    atomic_uint refs;
    unsigned n;
    /* This node, the others that are there, and the dead and those that left for half a minute.
       Nodes live as long as the view. `since` is of zc_now_ns. */
    struct zc_swim_view members[];
};

struct zc_member_stats {
    struct zc_swim_stats swim;
    uint64_t packets_refused; /* wrong key or label, broken */
    uint64_t packets_unsent;  /* the kernel did not take them */
    uint64_t streams_refused; /* too many, too large, too late, wrong key or label, broken */
    uint64_t lookups_failed;  /* of seeds' names */
    uint64_t keys_loaded;     /* key files taken */
};

/* Listens and starts the threads; everything in *c but `keys` is copied. -errno with words. */
int zc_member_start(const struct zc_member_config *c, struct zc_member **out, struct zc_error *err);
/* Reads a key file as zc_member_start does. Caller frees. Words name the file. */
int zc_member_keys_load(const char *file, struct zc_keyring **out, struct zc_error *err);
/* Tells the others that this node goes, and waits until it was said, for about two seconds at most.
 */
void zc_member_leave(struct zc_member *m);
/* Stops without a word and frees. NULL is allowed. */
void zc_member_stop(struct zc_member *m);

/* Never NULL; give it back with zc_member_view_unref. */
struct zc_member_view *zc_member_view(struct zc_member *m);
void zc_member_view_unref(struct zc_member_view *v);

/* Says something else of this node; takes effect in a moment. -EMSGSIZE. */
int zc_member_set_meta(struct zc_member *m, const uint8_t *meta, size_t n);
/* Reads the key file again (SIGHUP). Safe in a signal handler. */
void zc_member_reload(struct zc_member *m);
void zc_member_stats(struct zc_member *m, struct zc_member_stats *out);
/* Where this node listens: the port counts when bind's was 0. */
void zc_member_addr(struct zc_member *m, struct zc_swim_addr *out);

#endif
