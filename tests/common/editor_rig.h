/*
 * An editor over a small DiT of generated weights, with generated source latents and noise: for tests
 * that look at the sampler and the carried state themselves. Failures are assertions.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/edit.h"

enum {
	RIG_DEPTH = 4,
	RIG_SOFTMAX_BLOCK = 3, /* the others are GDN */
	RIG_HEADS = 2,
	RIG_CHANNELS = 8, /* of a latent */
	RIG_HEIGHT = 3,
	RIG_WIDTH = 4,
	RIG_TOKENS = RIG_HEIGHT * RIG_WIDTH,
	RIG_CHUNK = 3, /* latents of a chunk after the first */
};

struct editor_rig {
	struct model_config config;
	struct weights *table;
	struct dit_weights weights;
	struct backend backend;
	struct kernel_queue *queue;
	void *block;
	size_t block_bytes;
	struct op_context op;
	struct editor editor;
};

/* A new stream under one caption. `first_frames`: latents of its first chunk. */
void editor_rig_open(struct editor_rig *rig, int head_dim, int first_frames, int rebase_latents);

/* The same weights and caption on another back end; with `table` (or NULL) in place of that back end's. */
void editor_rig_open_on(struct editor_rig *rig, const char *backend,
			const struct kernel_backend *table, int head_dim, int first_frames,
			int rebase_latents);
void editor_rig_close(struct editor_rig *rig);

/* Sets generated caption number `which`. */
void editor_rig_caption(struct editor_rig *rig, int which);

/* The first latent of chunk `chunk` of the clip, and how many latents that chunk has. */
int editor_rig_first(const struct editor_rig *rig, int chunk);
int editor_rig_frames(const struct editor_rig *rig, int chunk);

/* Floats of all latents before chunk `chunk`. */
size_t editor_rig_floats(const struct editor_rig *rig, int chunk);

/*
 * Edits chunk `chunk` of the clip: source latents and noise depend on that number alone, not on what
 * the editor went through. Writes its latents to `output` + editor_rig_floats(chunk). The first half
 * leaves out the cache pass.
 */
void editor_rig_edit(struct editor_rig *rig, int chunk, float *output);
void editor_rig_save(struct editor_rig *rig);

/* Both halves for chunks [first, end). */
void editor_rig_run(struct editor_rig *rig, int first, int end, float *output);
