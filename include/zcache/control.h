/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For programs that talk to a running daemon: HTTP/1.1 over a Unix socket, JSON bodies.
 *
 * The socket of a mount point is <run dir>/zcache/<32 hex digits>.sock. The run dir is /run for
 * root, $XDG_RUNTIME_DIR or else /tmp/zcache-<uid> for others, the digits are the XXH3-128 of the
 * mount point's absolute path. `zcache status --json` without a mount point lists all mounts.
 * Errors come as status 400 and above with {"error": "words"}. Paths are relative to the mount.
 */
#ifndef ZCACHE_CONTROL_H
#define ZCACHE_CONTROL_H

/* GET: one JSON object, the same as `zcache status --json MOUNTPOINT` prints. */
#define ZCACHE_CONTROL_STATUS "/v1/status"

/* GET: one JSON object, the same as `zcache status --cluster --json MOUNTPOINT` prints; it asks all
   nodes. POST {"paths": [...]}: with what is below these paths, and how much of it is cached. */
#define ZCACHE_CONTROL_CLUSTER "/v1/cluster"

/* "cluster": true in the next two does it on all nodes of the cluster: warming is shared out among
   them. */

/* POST {"paths": [...], "parallel": N}: a JSON object a line for each step of progress, the last
   one with "finished": true. Hanging up cancels the job. "gone" are files that left the cache again
   before the end. A job that goes on with another one's work, because the list of its paths is too
   long for one request, has that one's "mark": N in the request, so that the other one's files are
   counted there, too. */
#define ZCACHE_CONTROL_WARM "/v1/warm"

/* POST {"paths": [...]}: one JSON object with what was dropped from the cache. */
#define ZCACHE_CONTROL_FREE "/v1/free"

/* GET: {"sources": [...]}, the same objects as in the status. */
#define ZCACHE_CONTROL_SOURCES "/v1/sources"

/* POST {"path": "/a", "source": "s3://b/c", "options": {"region": "x", "requester-pays": true}}:
   shows another source; the options are those of `zcache mount`, by their names. Answers as above,
   with a "note" where something may not be meant. */
#define ZCACHE_CONTROL_SOURCE_ADD "/v1/sources/add"

/* POST {"path": "/a", "force": true}: takes it away. Answers as above. */
#define ZCACHE_CONTROL_SOURCE_REMOVE "/v1/sources/remove"

#endif
