/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loans: complete objects whose backing file the kernel keeps open (passthrough) after the last
 * close, so that the next open asks neither for its path nor for the disk.
 *
 * The borrower is a number that its owner gives; zc_fetch_on_recall's function gets it back when
 * the cache wants the file's space. Threads: any.
 */
#ifndef ZC_FETCH_LOAN_H
#define ZC_FETCH_LOAN_H

#include "fetch/fetch.h"

struct zc_loan {
    struct zc_fetch_src *src;
    struct zc_cloan at;
    uint64_t size; /* of the object */
};

/* See zc_cache_on_recall. */
void zc_fetch_on_recall(struct zc_fetch *f, void (*recall)(void *user, uint64_t borrower),
                        void *user);
/* The caller has the object open, and may close it afterwards: the loan, which is in use now, keeps
   its bytes where they are. False: not to be had, keep the object open. */
bool zc_object_lend(struct zc_object *o, uint64_t borrower, struct zc_loan *out);
/* One more open of what is lent. idle: the loan was not in use. False: it is no loan any more. */
bool zc_loan_reuse(const struct zc_loan *l, bool idle);
/* The last of these was closed. keep: the borrower keeps the file open, idle; else the loan ends.
 */
void zc_loan_unused(const struct zc_loan *l, bool keep);
/* Ends an idle loan. */
void zc_loan_end(const struct zc_loan *l);

#endif
