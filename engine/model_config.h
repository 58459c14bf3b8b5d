/*
 * What a model directory says about itself: the four JSON files, parsed and checked.
 *
 * Every size the engine uses comes from here (docs/model/directory.md); nothing is hard-coded. All
 * numbers are range-checked on the way in, so later arithmetic on them cannot overflow.
 */
#pragma once

#include "base/error.h"

enum {
	MODEL_MAX_DEPTH = 256, /* transformer blocks of either network */
	MODEL_MAX_VAE_BLOCKS = 8,
	MODEL_MAX_VAE_LAYERS = 64,  /* resnets of one block */
	MODEL_MAX_STEPS = 64,	    /* denoising steps */
	MODEL_MAX_FIRST_CHUNKS = 8, /* allowed sizes of a first chunk */
	MODEL_MAX_CHUNK_LATENTS = 16,
	MODEL_MAX_TOKENS = 4096,
	MODEL_MAX_PIXELS = 16384, /* of one picture side */
	MODEL_MAX_PROMPTS = 64,
	MODEL_MAX_CHANNELS = 65536,
};

/* What a new prompt does to a running stream (docs/model/streaming.md §6). */
enum sana_prompt_switch {
	SANA_SWITCH_INVALID = -1,
	SANA_SWITCH_KEEP,    /* everything carried over stays */
	SANA_SWITCH_RECACHE, /* the previous chunk's cache pass is run again with the new prompt */
	SANA_SWITCH_RESTART, /* VAE contexts, caches and the frame counter are cleared */
	SANA_SWITCH_COUNT,
};

/* "keep", "recache", "restart"; also reads "restart_stream". INVALID / NULL for anything else. */
const char *sana_prompt_switch_name(enum sana_prompt_switch value);
enum sana_prompt_switch sana_prompt_switch_from_name(const char *name);

struct model_prompt {
	char *edit, *prompt, *meaning; /* never NULL; "" where the file has none */
};

struct stream_config {
	char *name;
	int width, height;		   /* default picture, pixels */
	int spatial_ratio, temporal_ratio; /* pixels and frames per latent */
	int latent_channels;
	int chunk_latents;
	int first_chunks; /* how many entries of first_chunk_latents */
	int first_chunk_latents[MODEL_MAX_FIRST_CHUNKS]; /* ascending; the last is the default */
	int steps;
	int timesteps[MODEL_MAX_STEPS]; /* integers, truncated as the network wants them */
	float sigmas[MODEL_MAX_STEPS + 1];
	int num_cached_blocks; /* 2 is the only window policy specified with a sink */
	bool sink;
	int max_tokens;
	char *chi_prompt; /* prompt prefix, "" for none */
	double fps;	  /* 0 when absent */
	enum sana_prompt_switch on_prompt_switch;
	bool text_softcap;
	int prompts;
	struct model_prompt prompt[MODEL_MAX_PROMPTS];
};

struct dit_config {
	int depth, hidden_size; /* C */
	int num_heads;		/* cross-attention; head dim C / num_heads */
	int head_dim;		/* self-attention D; heads C / D */
	int in_channels, source_channels;
	int mlp_hidden; /* F = int(C·mlp_ratio) */
	int caption_channels, max_tokens;
	int t_kernel_size;	       /* 3 */
	bool softmax[MODEL_MAX_DEPTH]; /* else GDN */
	int pairs_t, pairs_y, pairs_x; /* RoPE lane pairs */
};

enum vae_resample_kind { VAE_SPATIAL, VAE_TEMPORAL, VAE_SPATIOTEMPORAL };

struct vae_block {
	int cin, cout; /* around the resampler; resnets are cin wide going down, cout going up */
	int resnets;
	int stride_t, stride_h, stride_w;
};

struct vae_config {
	int pixel_channels; /* 3 */
	int latent_channels, patch;
	int spatial_ratio, temporal_ratio; /* products of the strides (and patch); checked */
	int encoder_blocks, decoder_blocks;
	struct vae_block encoder[MODEL_MAX_VAE_BLOCKS]; /* in order of execution */
	struct vae_block decoder[MODEL_MAX_VAE_BLOCKS]; /* in order of execution */
	int encoder_first, encoder_mid,
		encoder_mid_resnets; /* widths after conv_in, of mid block */
	int decoder_mid, decoder_mid_resnets, decoder_last;
	bool encoder_reflect, decoder_reflect; /* else zeros */
	bool decoder_causal;
	float scaling_factor;
};

struct text_config {
	int vocab_size, hidden_size, intermediate_size, layers;
	int heads, kv_heads, head_dim;
	int sliding_window;				     /* even layers; 0 for none */
	float query_pre_attn_scalar, attn_logit_softcapping; /* cap 0: none */
	float rms_norm_eps, rope_theta;
};

struct model_config {
	struct stream_config stream;
	struct dit_config dit;
	struct vae_config vae;
	struct text_config text;
};

/*
 * Parse one file's text (length bytes, need not end in NUL). `where` names the file in errors
 * ("dit/config.json"). On failure: −EINVAL, nothing allocated, error named "model.config".
 */
int stream_config_parse(const char *text, size_t length, const char *where,
			struct stream_config *ret, struct sana_error *error);
int dit_config_parse(const char *text, size_t length, const char *where, struct dit_config *ret,
		     struct sana_error *error);
int vae_config_parse(const char *text, size_t length, const char *where, struct vae_config *ret,
		     struct sana_error *error);
int text_config_parse(const char *text, size_t length, const char *where, struct text_config *ret,
		      struct sana_error *error);

/* Checks the four against each other (latent channels, ratios, caption width, token counts). */
int model_config_check(const struct model_config *config, struct sana_error *error);

/* Reads and checks all four files of a model directory. */
int model_config_load(const char *directory, struct model_config *ret, struct sana_error *error);

/* A configuration embedded in the program: "2b" (the published model) or "demo". */
int model_config_builtin(const char *name, struct model_config *ret, struct sana_error *error);

/*
 * One of its files as text, by its name in a model directory ("dit/config.json"); static. NULL when
 * there is none such.
 */
const char *model_config_builtin_text(const char *name, const char *file, size_t *ret_length);

/* Frees what parsing allocated and zeroes the struct. Accepts a zeroed one. */
void stream_config_finish(struct stream_config *config);
void model_config_finish(struct model_config *config);
