/* Inside of a model: what opening it made. Not for users of sana.h. */
#pragma once

#include "engine/dit.h"
#include "engine/prompt.h"
#include "engine/sana.h"
#include "engine/text_encoder.h"
#include "engine/vae.h"

#include <pthread.h>
#include <stdatomic.h>

enum model_network { MODEL_DIT, MODEL_VAE, MODEL_TEXT, MODEL_NETWORKS };

/* Everything that has a place in the model's block. */
struct model_networks {
	struct dit_weights dit;
	struct vae_weights vae;
	struct text_weights text;
	struct text_encoder encoder;
	float *features; /* F32 [run tokens][caption channels]: the encoder's rows, converted */
};

struct sana_model {
	atomic_int references;
	struct model_config config;
	bool with_text, synthetic;
	struct backend backend;
	struct kernel_queue *queue;
	struct weights *table[MODEL_NETWORKS];
	bool prepare[MODEL_NETWORKS]; /* widened once */
	char decoder_origin[16];      /* from manifest.json; "" when it does not say */
	struct tokenizer *tokenizer;
	struct prompt_rule rule;
	struct model_networks networks;
	pthread_mutex_t text_lock; /* one prompt at a time */
	struct op_context text_op;
	void *block;
	size_t block_bytes, mapped_bytes;
	size_t memory_limit_bytes; /* as in the options: 0 for what is free */
};

/*
 * Measures the model's block: lays `arena` out, fills networks with what planning needs, raises
 * text_op's workspace. table entries may be NULL (nothing loaded yet).
 */
int model_measure(struct sana_model *model, struct arena *arena, size_t *ret_mapped);

/* Fills the placed block: weights loaded, tables made. After model_measure over the same choice. */
int model_place(struct sana_model *model, const struct sana_model_options *options,
		struct arena *arena);

/* The configuration from a directory or a built-in shape. */
int model_config_choose(const struct sana_model_options *options, struct model_config *ret,
			struct sana_error *error);

/*
 * Chooses which networks are widened, so that model and a default stream fit `limit`; −ENOMEM
 * with the numbers when not even the smallest choice does.
 */
int model_memory_choose(struct sana_model *model, enum sana_weights_mode mode, size_t limit,
			struct sana_error *error);

/* −ENOMEM with the numbers when a stream's block does not fit beside the model's. */
int model_memory_check(const struct sana_model *model, size_t stream_bytes,
		       struct sana_error *error);

/* What of them the device is opened with. */
struct kernel_device_options model_device_options(const struct sana_model_options *options);

/* Bytes the two blocks may take: `wanted`, or (0) most of what the back end has free. */
size_t model_memory_limit(const struct sana_model *model, size_t wanted);

/* Channels of a prompt's rows: those of the model that it was made for. */
int prompt_channels(const struct sana_prompt *prompt);

/* "12.3 MiB" */
void model_bytes_text(size_t bytes, char *to, size_t to_bytes);
