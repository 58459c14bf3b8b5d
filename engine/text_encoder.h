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

/* Of text_layers.c: matrices that are brought to the device during a run. */
struct text_layers {
	bool streamed; /* layers are; two places, in turn */
	bool gathered; /* so are the embedding's rows */
	void *place[2], *rows;
	struct text_layer_weights layer[2];
	struct kernel_weight embedding;
	struct kernel_queue *queue; /* of the copies */
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
	struct text_layers layers;
};

void text_encoder_layout(struct text_encoder *encoder, const struct backend *backend,
			 struct arena *arena);

/*
 * Fills the rotation table (host trigonometry, uploaded). Once after the arena is placed.
 */
int text_encoder_prepare(struct text_encoder *encoder, struct op_context *context);

/* Before the back end closes; nothing while it was never prepared. */
void text_encoder_finish(struct text_encoder *encoder, const struct backend *backend);

/*
 * ids, mask on the host, [tokens] each; mask NULL: all valid. Position of token n is n, whatever the
 * mask. ret_hidden points at act [tokens][hidden] in device memory (after the final norm), valid until
 * the next run. Padded rows hold values of no meaning. −EINVAL, nothing enqueued: tokens not in
 * [1, max_tokens], an id outside the vocabulary. While planning, ids is not read and may be NULL.
 */
int text_encoder_run(struct text_encoder *encoder, struct op_context *context, const int32_t *ids,
		     const uint8_t *mask, int tokens, const void **ret_hidden);

/* ------------------------------------------------------------------- of text_layers.c, for runs */

void text_layers_layout(struct text_encoder *encoder, const struct backend *backend,
			struct arena *arena);
int text_layers_prepare(struct text_encoder *encoder, const struct backend *backend);

/* A run: begin; for each layer take, its ops, next. Failures stick in the context. */
void text_layers_begin(struct text_encoder *encoder, struct op_context *context);
const struct text_layer_weights *text_layers_take(struct text_encoder *encoder,
						  struct op_context *context, int index);
void text_layers_next(struct text_encoder *encoder, struct op_context *context, int index);

/*
 * The embedding to look `ids` up in, and under which ids (ret_ids, [tokens]): its own, or the rows of
 * these ids alone, in order. While planning neither is read.
 */
const struct kernel_weight *text_rows_bring(struct text_encoder *encoder,
					    struct op_context *context, const int32_t *ids,
					    int tokens, int32_t *ret_ids);
