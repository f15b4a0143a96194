/* SPDX-License-Identifier: Apache-2.0 */
/* Asking daemons over their control sockets. */
#ifndef ZC_CLI_CLIENT_H
#define ZC_CLI_CLIENT_H

#include "base/base.h"
#include "base/error.h"
#include <jansson.h>
#include <sys/types.h>

/* One request. Filled by the caller, then run with others. */
struct zc_call {
    const char *socket;
    const char *path; /* "/v1/status" */
    const char *body; /* posted; NULL: a GET */
    /* A line of a successful answer, without its newline; may be NULL, then lines are dropped. */
    void (*line)(struct zc_call *, const char *line, size_t n);
    void *user;
    /* the outcome */
    int result; /* 0, or negative errno */
    struct zc_error err;
    void *priv;
};

/* Runs all of them at the same time until each has ended. tick is called a few times a second; true
   from it hangs up on all (result -ECANCELED). May be NULL. */
void zc_client_run(struct zc_call *calls, size_t n, bool (*tick)(void *user), void *user);

/* One request with one JSON object for an answer. New reference, or NULL with words. */
json_t *zc_client_json(const char *socket, const char *path, const char *body,
                       struct zc_error *err);

/* Process id of the daemon behind a socket, as this process sees it; 0 when it cannot be told. */
pid_t zc_client_pid(const char *socket);

#endif
