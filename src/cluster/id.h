/* SPDX-License-Identifier: Apache-2.0 */
/* A node's id: 16 random bytes, kept in a file so that a restarted node owns what it owned. */
#ifndef ZC_CLUSTER_ID_H
#define ZC_CLUSTER_ID_H

#include "base/error.h"
#include "cluster/cluster.h"

/* Reads the id in the file, or draws one and writes it. A file that cannot be understood is
   replaced. Blocks for the disk. -errno with words. */
int cluster_id_load(const char *file, uint8_t id[ZC_NODE_ID], struct zc_error *err);
/* Draws another one and writes it: this node is a copy of one that has it, too. */
int cluster_id_renew(const char *file, uint8_t id[ZC_NODE_ID], struct zc_error *err);

#endif
