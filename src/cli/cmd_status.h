/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of `zcache status` share. */
#ifndef ZC_CLI_CMD_STATUS_H
#define ZC_CLI_CMD_STATUS_H

#include <jansson.h>

/* Prints what GET /v1/cluster gives. */
void zc_status_cluster_print(const json_t *v);

#endif
