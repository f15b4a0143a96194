/* SPDX-License-Identifier: Apache-2.0 */
/* A cache in figures only: accesses in, hits out. For zcache's policy and three well-known ones. */
#ifndef POLICYSIM_H
#define POLICYSIM_H

#include "base/base.h"

enum sim_kind { SIM_ZCACHE, SIM_LRU, SIM_S3FIFO, SIM_WTINYLFU, SIM_KINDS };
extern const char *const sim_names[SIM_KINDS];

struct sim;

/* Objects 0 ... n - 1, of sizes[i] bytes; sizes must outlive it. */
struct sim *sim_new(enum sim_kind kind, const uint64_t *sizes, uint32_t n, uint64_t capacity);
void sim_free(struct sim *s);
/* One use; true on a hit. */
bool sim_use(struct sim *s, uint32_t id);
/* SIM_ZCACHE only: makes room for so much more than is needed each time. */
void sim_evict_ahead(struct sim *s, uint64_t bytes);
/* SIM_ZCACHE only: what the policy was told at the start is `capacity` * times. */
struct sim *sim_new_told(const uint64_t *sizes, uint32_t n, uint64_t capacity, double times);

/* Seeded random numbers (splitmix64). */
uint64_t sim_random(uint64_t *state);
double sim_uniform(uint64_t *state);
double sim_gauss(uint64_t *state);

#endif
