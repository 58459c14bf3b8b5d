/*
 * What a stream carries from chunk to chunk in the DiT (dit §6, streaming §4–§8).
 *
 * Two sets of state: a cache pass reads one and writes the other, and only `cache_commit` makes the
 * written one current. So a bad state is dropped by not committing, and the set before the last
 * chunk is still there when a prompt switch wants that chunk's cache pass done again.
 *
 * The sink (chunk 0's keys and values) is written once per stream. Its keys are kept twice, in the type of
 * activations: as they were written, in the positions of then, and the working copy, which every re-basing makes
 * from the first by one rotation, so that no error accumulates over months.
 */
#pragma once

#include "engine/arena.h"
#include "engine/backend.h"
#include "engine/model_config.h"

struct cache_block {
	float *state, *normaliser; /* GDN: [heads][D][D] (v×k), [heads][D] */
	void *left;		   /* all: act [S][C], r_{T−1} of the chunk */
	void *k, *v;		   /* softmax: act [chunk tokens][C], the previous chunk */
};

struct cache_sink {
	void *k, *v;	/* act [first chunk tokens][C] */
	void *k_master; /* as they were written: what each re-basing turns */
};

struct cache {
	const struct dit_config *config;
	int tokens_per_frame; /* S */
	int chunk_frames;     /* most frames of a chunk after chunk 0 */
	int first_frames_max;
	struct cache_block set[2][MODEL_MAX_DEPTH];
	struct cache_sink sink[MODEL_MAX_DEPTH];
	int current;	      /* the set that holds the state after the last committed chunk */
	int64_t chunks;	      /* committed since the last reset; 0: no history */
	bool shadow;	      /* the other set holds the state before the last committed chunk */
	int sink_frames;      /* T₀ once chunk 0 is committed */
	int window_frames[2]; /* frames in each set's k, v */
	int64_t position;     /* position of the next chunk's first frame, small: re-based */
	int64_t sink_shift;   /* sum of all re-basings since the sink was written */
	float *turn_cos, *turn_sin; /* device [pairs_t] */
	float host_cos[MODEL_MAX_CHANNELS / 64], host_sin[MODEL_MAX_CHANNELS / 64];
};

int cache_init(struct cache *cache, const struct dit_config *config, int tokens_per_frame,
	       int chunk_frames, int first_frames_max);
void cache_layout(struct cache *cache, const struct backend *backend, struct arena *arena);

/* No history, position 0. Touches no device memory: without history nothing is read. */
void cache_reset(struct cache *cache);

/* What one block's cache pass or denoise pass reads and writes. */
struct cache_view {
	const float *state_in, *normaliser_in; /* NULL: no history */
	float *state_out, *normaliser_out;     /* NULL: not saving */
	const void *left_in;
	void *left_out;
	struct kernel_segment segment[2]; /* sink, previous chunk */
	int segments;
	void *k_out, *v_out; /* act [tokens][C], where a saving pass puts k and v */
};

/*
 * redo false: chunk `chunks` reading the current set, saving to the other. redo true: the last
 * committed chunk once more, reading the set before it, saving over the current one.
 */
void cache_view(const struct cache *cache, int block, bool save, bool redo, struct cache_view *ret);

/* A saving pass over `frames` frames has been enqueued; its results count from now on. */
void cache_commit(struct cache *cache, struct op_context *context, int frames);

/* The results of a saving pass are dropped; the current set stays. */
void cache_discard(struct cache *cache);

/* A `redo` pass has rewritten the current set (and the sink, when that chunk was chunk 0). */
void cache_redone(struct cache *cache, struct op_context *context);

/*
 * A `redo` pass has spoiled the current set: goes back to the state before the last chunk, as if that
 * chunk had never been.
 */
void cache_undo(struct cache *cache);

/* Raises *flags for non-finite or absurd values in what a saving pass wrote (redo as above). */
void cache_check(const struct cache *cache, struct op_context *context, bool redo, int frames,
		 float limit, uint32_t *flags);

/* Moves all positions by −position, exactly (streaming §8): the next chunk starts at 0. */
void cache_rebase(struct cache *cache, struct op_context *context);

/* Bytes of the table in dit §6.1 for one storage type; S and z are F32. */
struct cache_line {
	const char *name;
	int blocks;
	size_t bytes_per_block, bytes;
};

enum { CACHE_LINES = 4 };

void cache_lines(const struct dit_config *config, int tokens_per_frame, int chunk_frames,
		 int first_frames, enum kernel_dtype dtype, struct cache_line ret[CACHE_LINES]);
