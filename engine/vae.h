/*
 * The causal video VAE, streaming (docs/model/vae.md).
 *
 * Activations are channels-last [T][H][W][C]. Each convolution keeps the last two frames of its own
 * input as context, so a video may be fed in any pieces and gives the same values. The life of an
 * encoder or decoder: zero the struct, `_init`, `_layout_state` and `_layout_scratch` over a measuring
 * arena, again over the placed one, `_reset`, then `_run` as often as wanted. Nothing allocates.
 */
#pragma once

#include "engine/arena.h"
#include "engine/backend.h"
#include "engine/loader.h"
#include "engine/model_config.h"

enum { VAE_MAX_CONVOLUTIONS = 256, VAE_SCRATCHES = 3 };

struct vae_convolution {
	struct kernel_weight weight;
	const float *bias;
};

/* All convolutions of one half in order of execution: conv_in, per block conv1, conv2, …, resampler. */
struct vae_half_weights {
	int count;
	struct vae_convolution convolution[VAE_MAX_CONVOLUTIONS];
};

struct vae_weights {
	struct vae_half_weights encoder, decoder;
	/*
	 * normalised = mean·to_scale + to_shift; mean = normalised·from_scale + from_shift. Ones and
	 * zeros without statistics.
	 */
	float *to_scale, *to_shift, *from_scale, *from_shift; /* [latent_channels] */
};

/* Fails through loader->status. with_statistics false: no latents_mean and latents_std (goldens). */
void vae_weights_load(struct loader *loader, const struct vae_config *config, bool with_statistics,
		      struct vae_weights *ret);

/*
 * Called with the output of a module by its state-dict name ("encoder.down_blocks.0",
 * "decoder.conv_in", …): act [frames][height][width][channels] in device memory.
 */
struct vae_tap {
	void (*output)(void *context, const char *module, const void *data, int frames, int height,
		       int width, int channels);
	void *context;
};

struct vae_context {
	void *frames; /* act [2][H][W][C] of the convolution's input */
	size_t bytes;
	bool set;
};

/* One temporal resampler's memory of the stream. */
struct vae_resampler_state {
	bool started;  /* first frame duplicated (down) or dropped (up) */
	void *pending; /* down: one input frame that waits for its partner, act [H][W][C] */
	bool has_pending;
};

struct vae_encoder {
	const struct vae_config *config;
	const struct vae_weights *weights;
	int height, width, max_frames; /* pixels; most frames of one run */
	struct vae_context context[VAE_MAX_CONVOLUTIONS];
	struct vae_resampler_state resampler[MODEL_MAX_VAE_BLOCKS];
	void *scratch[VAE_SCRATCHES]; /* each holds the largest activation of a run */
	size_t scratch_bytes;
	void *patches; /* one of them: room for the patches of max_frames frames, if the caller wants it */
	const struct vae_tap *tap; /* NULL in a stream */
};

/*
 * height and width multiples of the spatial ratio, at least two latents each where the padding
 * reflects; max_frames ≥ 1. weights may be NULL while only planning contexts. −EINVAL for sizes that
 * do not fit, −E2BIG for more than VAE_MAX_CONVOLUTIONS.
 */
int vae_encoder_init(struct vae_encoder *encoder, const struct vae_config *config,
		     const struct vae_weights *weights, int height, int width, int max_frames);

/* Contexts and pending frames, lines "VAE encoder contexts/…". */
void vae_encoder_layout_state(struct vae_encoder *encoder, const struct backend *backend,
			      struct arena *arena);
void vae_encoder_layout_scratch(struct vae_encoder *encoder, const struct backend *backend,
				struct arena *arena);

/* Forgets the stream: the next run starts with its first frame. */
void vae_encoder_reset(struct vae_encoder *encoder);

/*
 * patches: act [frames][H/p][W/p][3p²] as kernel_patchify makes them, 1 ≤ frames ≤ max_frames.
 * latents: F32 [n][h][w][latent_channels], normalised when the weights have statistics; n ≥ 0 of them
 * are made (latent 0 with the stream's first frame, then one per temporal_ratio frames). May be planned
 * (op_context.planning): then it walks the steady state and the first call's ops alike.
 * latents must hold frames/temporal_ratio + 1 of them. Returns the context's status.
 */
int vae_encoder_run(struct vae_encoder *encoder, struct op_context *context, const void *patches,
		    int frames, float *latents, int *ret_latents);

struct vae_decoder {
	const struct vae_config *config;
	const struct vae_weights *weights;
	int height, width, max_latents; /* pixels; most latents of one run */
	bool whole_clip;		/* not causal: no contexts, one run is the whole video */
	struct vae_context context[VAE_MAX_CONVOLUTIONS];
	struct vae_resampler_state resampler[MODEL_MAX_VAE_BLOCKS];
	void *scratch[VAE_SCRATCHES];
	size_t scratch_bytes;
	void *patches; /* one of them: where the last run left patches that the caller had no place for */
	const struct vae_tap *tap;
};

/* whole_clip true decodes with the bidirectional padding of vae §3.3: for files and tests. */
int vae_decoder_init(struct vae_decoder *decoder, const struct vae_config *config,
		     const struct vae_weights *weights, int height, int width, int max_latents,
		     bool whole_clip);
void vae_decoder_layout_state(struct vae_decoder *decoder, const struct backend *backend,
			      struct arena *arena);
void vae_decoder_layout_scratch(struct vae_decoder *decoder, const struct backend *backend,
				struct arena *arena);
void vae_decoder_reset(struct vae_decoder *decoder);

/*
 * latents F32 [count][h][w][latent_channels]; patches (NULL: decoder->patches, until the scratch is
 * used again): act [frames][H/p][W/p][3p²] with frames = temporal_ratio·count, less the
 * (temporal_ratio − 1) of the stream's first latent.
 */
int vae_decoder_run(struct vae_decoder *decoder, struct op_context *context, const float *latents,
		    int count, void *patches, int *ret_frames);

/* One line of the context table of vae §6.3. Bytes are those of `dtype`. */
struct vae_context_line {
	char name[48]; /* "encoder block 1" */
	int convolutions;
	int channels, height, width; /* of each context: [channels][2][height][width] */
	size_t bytes_each, bytes;
};

enum { VAE_MAX_CONTEXT_LINES = 4 * MODEL_MAX_VAE_BLOCKS };

/* Convolutions grouped as in the table; `which` 'e' or 'd'. Returns the number of lines. */
int vae_context_lines(const struct vae_config *config, char which, int height, int width,
		      enum kernel_dtype dtype,
		      struct vae_context_line lines[VAE_MAX_CONTEXT_LINES]);

/* Multiply-add cost (2 per MAC) of `latents` latents in steady state (vae §9). */
double vae_encode_flops(const struct vae_config *config, int height, int width, int latents);
double vae_decode_flops(const struct vae_config *config, int height, int width, int latents);
