/*
 * A table of named tensors, wherever they come from: safetensors files mapped read-only, generated
 * synthetic weights, or memory of the caller (tests).
 */
#pragma once

#include "base/error.h"
#include "engine/model_keys.h"
#include "kernels/kernels.h"

struct weight_tensor {
	char *name;
	enum kernel_dtype dtype; /* F32, BF16 or F16; INVALID for any other, which weights_check
				    accepts for optional keys only */
	int rank; /* may exceed MODEL_KEY_RANK in a file, never after weights_check */
	int64_t shape[MODEL_KEY_RANK];
	const void *data; /* may be unaligned for its type only if the file is so; see weights.c */
};

struct weights; /* sorted table; owns its backing memory or mappings */

/*
 * Opens `directory/file` (file.safetensors) or, when that does not exist and
 * `directory/file.index.json` does, all the shards it names. Checks per docs/model/checkpoint.md §4.
 * When every name starts with "model.", as in published text encoders, that prefix is dropped.
 */
int weights_open(const char *directory, const char *file, struct weights **ret,
		 struct sana_error *error);

/* An empty table to which tensors are added; the data is copied (owned) or borrowed as asked.
 * The name is always copied; one that is there already is refused with −EEXIST. */
int weights_create(struct weights **ret);
int weights_add(struct weights *weights, const struct weight_tensor *tensor, bool copy);

/*
 * Hands the table something that its tensors live in: release(thing, bytes) is called by
 * weights_destroy. On failure (−ENOMEM) the thing stays with the caller.
 */
typedef void (*weights_release)(void *thing, size_t bytes);
int weights_own(struct weights *weights, weights_release release, void *thing, size_t bytes);

/* NULL accepted. Tensors borrowed from files die with it. */
void weights_destroy(struct weights *weights);

static inline void weights_destroyp(struct weights **weights)
{
	weights_destroy(*weights);
}

/* NULL when there is no such tensor. */
const struct weight_tensor *weights_find(const struct weights *weights, const char *name);
size_t weights_count(const struct weights *weights);
const struct weight_tensor *weights_at(const struct weights *weights, size_t index);

/*
 * Compares with what the configuration wants and names every difference in one error (as many as
 * fit, then a count): missing, unexpected, wrong shape, wrong type. `visit_keys` walks the expected
 * keys. 0 when equal; optional keys may be missing or there.
 */
typedef int (*weights_key_walk)(const void *config, model_key_visit visit, void *context);
int weights_check(const struct weights *weights, const char *where, weights_key_walk walk,
		  const void *config, struct sana_error *error);

/*
 * One F32 vector or small tensor of `count` elements, widened to `to`. The tensor must exist and
 * have that many elements (weights_check has seen to it).
 */
void weights_read_float(const struct weight_tensor *tensor, float *to, size_t count);

float weight_bf16_to_float(uint16_t value);
uint16_t weight_float_to_bf16(float value); /* nearest even; NaN stays NaN */
