/*
 * The editor: source latents in, edited latents out, chunk by chunk (docs/model/streaming.md §4).
 *
 * Order of calls for one chunk: the source latents are written to editor_source(); editor_begin; one
 * editor_denoise per schedule step; editor_check; then, unless the stream ends, editor_save.
 * A new prompt is set between chunks (editor_set_caption), with editor_recache where wanted.
 */
#pragma once

#include "engine/dit.h"
#include "engine/pass_graph.h"

enum { EDITOR_HOST_ROTATIONS = MODEL_MAX_CHUNK_LATENTS * 512 };

struct editor_options {
	int height, width;  /* latent grid */
	int first_frames;   /* latents of a first chunk */
	int rebase_latents; /* positions are re-based when they reach this */
	float health_limit; /* larger carried values are absurd */
};

struct editor {
	const struct stream_config *stream;
	const struct dit_config *config;
	const struct dit_weights *weights;
	struct editor_options options;
	int max_frames;
	struct cache cache;
	struct dit_text text;
	struct dit_scratch scratch;
	struct dit_text_scratch text_scratch;
	float *latent[2]; /* F32 [max_frames·S][latent channels]: noisy, then clean */
	float *source[2];
	int frames[2];
	int slot;			/* of the chunk begun last; its frames are frames[slot] */
	float *cos_t, *sin_t;		/* device, positions of the current chunk */
	float *redo_cos_t, *redo_sin_t; /* device, positions of the chunk before */
	float *cos_y, *sin_y, *cos_x, *sin_x;
	float *steps;		      /* device, σ differences */
	float *caption;		      /* device, F32 [max_tokens][caption channels] */
	uint64_t *seed, *noise_frame; /* device */
	uint32_t *flags;	      /* device */
	float host_steps[MODEL_MAX_STEPS];
	/* What the queue copies from: not touched again before it was waited for, as it is in every chunk. */
	float host_cos[EDITOR_HOST_ROTATIONS], host_sin[EDITOR_HOST_ROTATIONS];
	uint64_t host_seed, host_noise_frame;
	uint32_t own_flags;
	uint32_t *host_flags; /* own_flags, or memory of the back end's that a copy does not wait for */
	const struct dit_tap *tap; /* NULL in a stream */
	uint64_t rebases;	   /* counter */
	struct pass_graphs graphs;
	/* Tests: called before latents (latent true) or a cache pass's results are checked. */
	void (*probe)(void *context, struct editor *editor, bool latent);
	void *probe_context;
};

/* −EINVAL for sizes that do not fit the configuration. */
int editor_init(struct editor *editor, const struct model_config *config,
		const struct dit_weights *weights, const struct editor_options *options);

void editor_layout_state(struct editor *editor, const struct backend *backend, struct arena *arena);
void editor_layout_scratch(struct editor *editor, const struct backend *backend,
			   struct arena *arena);

/* Planning: one pass of a usual chunk, sink and window full; `save`: the cache pass. */
void editor_plan_pass(struct editor *editor, struct op_context *context, bool save);

/* Raises the planning context's workspace to what any pass will want. */
void editor_plan(struct editor *editor, struct op_context *context);

/* A tuning context: the passes of a first chunk and of later ones, on memory that nothing was put into. */
void editor_tune(struct editor *editor, struct op_context *context);

/* Once after the arena is placed: spatial rotations, step sizes. */
int editor_prepare(struct editor *editor, struct op_context *context, uint64_t seed);

/* Before the back end closes. */
void editor_finish(struct editor *editor, const struct backend *backend);

/* No history; the prompt stays. */
void editor_reset(struct editor *editor);

/* Where the next chunk's source latents go: F32 [frames·S][latent channels]. */
float *editor_source(struct editor *editor);

/* The clean (or, before the last step, noisy) latents of the chunk begun last. */
float *editor_latent(struct editor *editor);

/* caption: F32 [rows][caption_channels] on the host, valid until the queue has been waited for. */
void editor_set_caption(struct editor *editor, struct op_context *context, const float *caption,
			int rows);

/*
 * Starts a chunk of `frames` latents. noise: F32 [frames·S][latent channels] on the host, or NULL for
 * the counter-based noise of latents noise_frame … noise_frame + frames − 1. Waits for the noise given
 * and for re-basing alone; the chunk before must have been waited for.
 */
int editor_begin(struct editor *editor, struct op_context *context, int frames,
		 uint64_t noise_frame, const float *noise);

/* One network call and one Euler step. */
int editor_denoise(struct editor *editor, struct op_context *context, int step);

/* Enqueues a look at the latents, which editor_is_sane tells of. */
void editor_check(struct editor *editor, struct op_context *context);

/*
 * After the queue was waited for: whether all that editor_check or editor_save_begin looked at was
 * finite and below the limit. Latents that are not: the chunk must be dropped (editor_drop).
 */
bool editor_is_sane(const struct editor *editor);

/* The chunk begun last never was: state and positions stay those of the chunk before. */
void editor_drop(struct editor *editor);

/*
 * The cache pass (t = 0 on the clean latents), and, after the queue was waited for, what becomes of
 * it. 1: its state is current; 0: it was non-finite or absurd and is discarded, the last good state
 * stays; < 0: failed.
 */
void editor_save_begin(struct editor *editor, struct op_context *context);
int editor_save_end(struct editor *editor, struct op_context *context);

/* Both, waiting in between. */
int editor_save(struct editor *editor, struct op_context *context);

/*
 * Runs the last chunk's cache pass again under the caption set now (streaming §6). Waits. 1: done;
 * 0: not possible (no history, or a chunk was discarded since) or its result was absurd, in which
 * case the state before that chunk is current; < 0: failed.
 */
int editor_recache(struct editor *editor, struct op_context *context);
