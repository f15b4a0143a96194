/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For programs that talk to a running daemon: HTTP/1.1 over a Unix socket, JSON bodies.
 *
 * The socket of a mount point is <run dir>/zcache/<16 hex digits>.sock, where the run dir is /run
 * for root, $XDG_RUNTIME_DIR for others, and `zcache status --json` without a mount point lists all
 * mounts. Errors come as status 400 or 500 with {"error": "words"}. Paths are relative to the
 * mount.
 */
#ifndef ZCACHE_CONTROL_H
#define ZCACHE_CONTROL_H

/* GET: one JSON object, the same as `zcache status --json MOUNTPOINT` prints. */
#define ZCACHE_CONTROL_STATUS "/v1/status"

/* POST {"paths": [...], "parallel": N}: a JSON object a line for each step of progress, the last
   one with "finished": true. Hanging up cancels the job. */
#define ZCACHE_CONTROL_WARM "/v1/warm"

/* POST {"paths": [...]}: one JSON object with what was dropped from the cache. */
#define ZCACHE_CONTROL_FREE "/v1/free"

#endif
