/*
 * Generated tensors: value[i] = offset + scale·(2u − 1), u from splitmix64 over the FNV-1a hash of
 * "tag/name" (tests/golden/README.md has the rule). Used for benchmarks without weights and by the
 * golden runner.
 */
#pragma once

#include "engine/weights.h"

/* Fills `count` values computed in double and converted to float, starting with element `first`. */
void synthetic_fill(const char *tag, const char *name, double offset, double scale, size_t first,
		    size_t count, float *to);

/* As above, rounded to BF16 (nearest even). */
void synthetic_fill_bf16(const char *tag, const char *name, double offset, double scale,
			 size_t first, size_t count, uint16_t *to);

/* Offset and scale of a key when there is no manifest, per network ("dit", "vae", "text"). */
void synthetic_scale(const char *network, const struct model_key *key, double *ret_offset,
		     double *ret_scale);

/* All keys of a walk as BF16 (latents_mean and latents_std as F32), tag "synthetic-SEED". */
int synthetic_weights(const char *network, uint64_t seed, weights_key_walk walk, const void *config,
		      struct weights **ret, struct sana_error *error);
