/* SPDX-License-Identifier: Apache-2.0 */
/* For tests of peers: a real node (0) whose two others (1, 2) are fakes that do what real ones do
   not. Behind it is a source in memory. */
#ifndef ZC_TESTS_PEERTEST_H
#define ZC_TESTS_PEERTEST_H

#include "cachetest.h"
#include "httptest.h"
#include "membackend.h"
#include "peer/peer.h"

#define PT_SIZE ((uint64_t)300000)
#define PT_IDENTITY "mem://test"

enum pt_mode {
    FAKE_GOOD,
    FAKE_GOOD_FRAMES,
    FAKE_SHORT_ANSWERS, /* less than was asked for, but right */
    FAKE_BYTES,         /* one at a time */
    FAKE_FLIPPED,
    FAKE_FLIPPED_FRAMES,
    FAKE_OTHER_OBJECT,
    FAKE_OTHER_PLACE,
    FAKE_SWAPPED_OBJECT, /* bytes of another object with their sums, under the right headers */
    FAKE_SWAPPED_PLACE,  /* of another place */
    FAKE_OTHER_FRAMES,   /* right bytes of another place, with their sums */
    FAKE_TOO_MUCH,
    FAKE_NO_SUMS,
    FAKE_GARBAGE,
    FAKE_CUT,
    FAKE_CUT_FRAMES,
    FAKE_STALLED,
    FAKE_SILENT,
    FAKE_LATE,
    FAKE_TRICKLE, /* 25 KB a second */
    FAKE_TICKS,
    FAKE_BUSY,
    FAKE_ABSENT,
    FAKE_BROKEN,
    FAKE_REFERS, /* to the other fake */
    FAKE_REFERS_NOBODY,
    FAKE_LONG_HEADERS,
    FAKE_MODES
};

extern const char *const pt_mode_names[FAKE_MODES];

struct pt_world;

struct pt_fake {
    struct pt_world *w;
    struct ht_server *ht;
    _Atomic int mode;
    unsigned node;           /* 1 or 2 */
    _Atomic unsigned doubts; /* how often it was told that its bytes were wrong */
};

struct pt_world {
    char *dir;
    struct zc_cache *cache;
    struct zc_fetch *fetch;
    struct pt_fake fakes[3]; /* [0] is not used */
    struct zc_cluster *cluster;
    struct zc_peer *peer;
    struct zc_backend *mem, *be;
    char path[64];
    struct zc_digest object;
    _Atomic bool end;
};

/* A test with a world as its state. */
int pt_setup(void **state);
int pt_teardown(void **state);
#define PT_TEST(f) cmocka_unit_test_setup_teardown(f, pt_setup, pt_teardown)

/* A new object whose owner is fake `first`, and whose second is fake `second` (0: this node). */
void pt_object(struct pt_world *w, unsigned first, unsigned second);
/* What a fake answers, by its mode; user: the fake. */
bool pt_answer(void *user, int fd, const struct ht_request *req);
struct zc_peer_stats pt_stats(struct pt_world *w);

#endif
