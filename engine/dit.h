/*
 * The hybrid diffusion transformer: weights and one pass over a chunk (docs/model/dit.md).
 */
#pragma once

#include "engine/cache.h"
#include "engine/loader.h"

struct dit_block_weights {
	/* self-attention; softmax blocks use the centre tap of q and k */
	struct kernel_weight q, k, v, output_gate, proj;
	const float *output_gate_bias, *proj_bias, *q_norm, *k_norm;
	struct kernel_weight beta, decay; /* GDN only, as are the four vectors */
	const float *beta_bias, *decay_bias, *a_log, *dt_bias;
	/* cross-attention */
	struct kernel_weight cross_q, cross_kv, cross_proj;
	const float *cross_q_bias, *cross_kv_bias, *cross_proj_bias, *cross_q_norm, *cross_k_norm;
	/* MixFFN */
	struct kernel_weight inverted, point, temporal;
	const float *inverted_bias, *depth_weight, *depth_bias;
};

/*
 * Modulation depends on the time step alone, so it is computed once per model: entry e < steps is
 * schedule step e, entry `steps` is the cache pass (t = 0).
 */
struct dit_weights {
	struct kernel_weight patch, final, caption_fc1, caption_fc2;
	const float *patch_bias, *final_bias, *caption_fc1_bias, *caption_fc2_bias, *caption_norm;
	struct dit_block_weights block[MODEL_MAX_DEPTH];
	float *modulation; /* [entries][depth][6][C]: shift, scale, gate of attention; of MLP */
	float *final_modulation; /* [entries][2][C]: shift, scale */
};

/* Fails through loader->status. */
void dit_weights_load(struct loader *loader, const struct dit_config *config,
		      const struct stream_config *stream, struct dit_weights *ret);

/* What a tap is shown; all act [tokens][C]. See tests/golden for the names. */
enum dit_tap_point { DIT_X_IN, DIT_X_SELF_ATTN, DIT_X_CROSS_ATTN, DIT_X_FFN };

struct dit_tap {
	void (*block)(void *context, int block, enum dit_tap_point point, const void *data);
	void (*velocity)(void *context, const void *data); /* act [tokens][latent channels] */
	void *context;
};

/* Scratch of one pass, shared with other stages. */
struct dit_scratch {
	void *x, *u;	     /* act [N][C] */
	void *wide;	     /* act [N][max(4C, 2F)]: q, k, v, gate; then the expanded FFN */
	void *product;	     /* act [N][F]; the module output while tapped */
	void *input;	     /* act [N][2·latent channels] */
	void *velocity;	     /* act [N][latent channels] */
	float *beta, *decay; /* [N][heads], [T][heads] */
};

void dit_scratch_layout(struct dit_scratch *scratch, const struct dit_config *config,
			const struct backend *backend, int max_tokens, int max_frames,
			struct arena *arena);

/* Text keys and values of one prompt: per block act [rows][2C], keys then values. */
struct dit_text {
	void *kv[MODEL_MAX_DEPTH];
	int rows;
};

void dit_text_layout(struct dit_text *text, const struct dit_config *config,
		     const struct backend *backend, struct arena *arena);

/* Scratch of dit_text_compute. */
struct dit_text_scratch {
	void *caption, *hidden,
		*features; /* act [max_tokens][caption channels], [..][C], [..][C] */
};

void dit_text_scratch_layout(struct dit_text_scratch *scratch, const struct dit_config *config,
			     const struct backend *backend, struct arena *arena);

/* caption: F32 [rows][caption_channels] in device memory, valid rows only (dit §3.4, §4.6). */
void dit_text_compute(struct dit_text *text, const struct dit_config *config,
		      const struct dit_weights *weights, const struct dit_text_scratch *scratch,
		      struct op_context *context, const float *caption, int rows);

struct dit_pass {
	const struct dit_config *config;
	const struct dit_weights *weights;
	const struct dit_scratch *scratch;
	const struct dit_text *text;
	const struct cache *cache;
	const struct dit_tap *tap;
	struct kernel_rope rope; /* of this chunk's positions */
	const float *noisy;	 /* F32 [N][latent channels] */
	const float *source;	 /* F32 [N][latent channels] */
	int entry;		 /* which time step */
	bool save, redo;	 /* as in cache_view */
};

/* One network call. The velocity is left in scratch->velocity, except by an untapped saving pass. */
void dit_run(const struct dit_pass *pass, struct op_context *context);

/* Closed form of dit §7, 2 per multiply-add, text keys and values not counted. */
double dit_pass_flops(const struct dit_config *config, int frames, int tokens_per_frame,
		      int cached_tokens, int text_rows);
