/*
 * The Gemma-2 decoder stack as a text encoder (docs/model/text-encoder.md).
 */
#pragma once

#include "engine/arena.h"
#include "engine/backend.h"
#include "engine/loader.h"
#include "engine/model_config.h"

struct text_layer_weights {
	struct kernel_weight q, k, v, o, gate, up, down;
	const float *input_norm, *post_attention_norm, *pre_feedforward_norm,
		*post_feedforward_norm;
};

struct text_weights {
	struct kernel_weight embedding;
	struct text_layer_weights layer[MODEL_MAX_DEPTH];
	const float *norm;
};

void text_weights_load(struct loader *loader, const struct text_config *config,
		       struct text_weights *ret);

/*
 * Called with hidden states, act [tokens][hidden] in device memory: index 0 after the embedding, i
 * after layer i (the last one after the final norm).
 */
struct text_tap {
	void (*hidden)(void *context, int index, const void *data, int tokens);
	void *context;
};

struct text_encoder {
	const struct text_config *config;
	const struct text_weights *weights;
	bool softcap; /* apply attn_logit_softcapping */
	int max_tokens;
	int32_t *ids;		    /* device [max_tokens] */
	uint8_t *mask;		    /* device [max_tokens] */
	float *rope_cos, *rope_sin; /* device [max_tokens][head_dim/2], positions 0 … */
	void *hidden, *normed, *q, *k, *v, *attended, *gate, *up; /* act scratch */
	const struct text_tap *tap;
};

void text_encoder_layout(struct text_encoder *encoder, const struct backend *backend,
			 struct arena *arena);

/*
 * Fills the rotation table (host trigonometry, uploaded). Once after the arena is placed.
 */
int text_encoder_prepare(struct text_encoder *encoder, struct op_context *context);

/*
 * ids, mask on the host, [tokens] each; mask NULL: all valid. Position of token n is n, whatever the
 * mask. ret_hidden points at act [tokens][hidden] in device memory (after the final norm), valid until
 * the next run. Padded rows hold values of no meaning. −EINVAL, nothing enqueued: tokens not in
 * [1, max_tokens], an id outside the vocabulary. While planning, ids is not read and may be NULL.
 */
int text_encoder_run(struct text_encoder *encoder, struct op_context *context, const int32_t *ids,
		     const uint8_t *mask, int tokens, const void **ret_hidden);
