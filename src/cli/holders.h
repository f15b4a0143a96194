/* SPDX-License-Identifier: Apache-2.0 */
/* Who keeps a mount busy. */
#ifndef ZC_CLI_HOLDERS_H
#define ZC_CLI_HOLDERS_H

#include "base/buf.h"

/* Appends a line for each process that has a file, a mapping or its directory below `point`, at
   most `max` lines: "  1234 (python3): /mnt/data/a". Returns how many other processes hold it;
   those of other users are seen by root only. */
size_t zc_holders(const char *point, size_t max, struct zc_buf *out);

#endif
