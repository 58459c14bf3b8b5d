/* Carried state of the DiT: two sets, a sink, exact re-basing. */
#include "engine/cache.h"

#include "engine/schedule.h"

#include <errno.h>

static int heads_of(const struct dit_config *config)
{
	return config->hidden_size / config->head_dim;
}

static size_t state_count(const struct dit_config *config)
{
	return (size_t)config->hidden_size * config->head_dim;
}

static size_t frame_count(const struct cache *cache)
{
	return (size_t)cache->tokens_per_frame * cache->config->hidden_size;
}

int cache_init(struct cache *cache, const struct dit_config *config, int tokens_per_frame,
	       int chunk_frames, int first_frames_max)
{
	if (tokens_per_frame < 1 || chunk_frames < 1 || first_frames_max < 1 ||
	    (size_t)config->pairs_t > ARRAY_SIZE(cache->host_cos))
		return -EINVAL;
	*cache = (struct cache){
		.config = config,
		.tokens_per_frame = tokens_per_frame,
		.chunk_frames = chunk_frames,
		.first_frames_max = first_frames_max,
	};
	return 0;
}

static void block_layout(struct cache *cache, int block, size_t act, struct arena *arena)
{
	const struct dit_config *config = cache->config;
	const size_t frame = frame_count(cache);

	for (int s = 0; s < 2; s++) {
		struct cache_block *b = &cache->set[s][block];

		b->left = arena_take(arena, "carried state/FFN left frame (two sets)", frame, act);
		if (!config->softmax[block]) {
			b->state = arena_take(arena, "carried state/GDN S (two sets)",
					      state_count(config), sizeof(float));
			b->normaliser = arena_take(arena, "carried state/GDN z (two sets)",
						   (size_t)config->hidden_size, sizeof(float));
			continue;
		}
		b->k = arena_take(arena, "carried state/softmax K+V, window (two sets)",
				  frame * cache->chunk_frames, act);
		b->v = arena_take(arena, "carried state/softmax K+V, window (two sets)",
				  frame * cache->chunk_frames, act);
	}
	if (config->softmax[block]) {
		struct cache_sink *sink = &cache->sink[block];
		const size_t count = frame * cache->first_frames_max;

		sink->k = arena_take(arena, "carried state/softmax K+V, sink", count, act);
		sink->v = arena_take(arena, "carried state/softmax K+V, sink", count, act);
		sink->k_master = arena_take(arena, "carried state/sink key master", count, act);
	}
}

void cache_layout(struct cache *cache, const struct backend *backend, struct arena *arena)
{
	const size_t pairs = (size_t)cache->config->pairs_t;

	for (int i = 0; i < cache->config->depth; i++)
		block_layout(cache, i, activation_bytes(backend), arena);
	cache->turn_cos = arena_take(arena, "carried state/rotation", pairs, sizeof(float));
	cache->turn_sin = arena_take(arena, "carried state/rotation", pairs, sizeof(float));
}

void cache_reset(struct cache *cache)
{
	cache->current = 0;
	cache->chunks = 0;
	cache->shadow = false;
	cache->sink_frames = 0;
	cache->window_frames[0] = cache->window_frames[1] = 0;
	cache->position = 0;
	cache->sink_shift = 0;
}

/* Segments a chunk attends to: nothing, the sink alone, or the sink and the chunk before it. */
static void view_segments(const struct cache *cache, int block, int64_t chunk, int read,
			  struct cache_view *view)
{
	const struct cache_sink *sink = &cache->sink[block];
	const struct cache_block *previous = &cache->set[read][block];
	const int tokens = cache->tokens_per_frame;
	const size_t ld = (size_t)cache->config->hidden_size;

	if (chunk >= 1)
		view->segment[view->segments++] = (struct kernel_segment){
			.k = sink->k, .v = sink->v, .ld = ld, .tokens = cache->sink_frames * tokens
		};
	if (chunk >= 2)
		view->segment[view->segments++] =
			(struct kernel_segment){ .k = previous->k,
						 .v = previous->v,
						 .ld = ld,
						 .tokens = cache->window_frames[read] * tokens };
}

void cache_view(const struct cache *cache, int block, bool save, bool redo, struct cache_view *ret)
{
	const int read = redo ? !cache->current : cache->current;
	const int write = !read;
	const int64_t chunk = redo ? cache->chunks - 1 : cache->chunks;
	const struct cache_block *in = &cache->set[read][block];
	const struct cache_block *out = &cache->set[write][block];
	const struct cache_sink *sink = &cache->sink[block];
	struct cache_view view = { 0 };

	if (cache->config->softmax[block])
		view_segments(cache, block, chunk, read, &view);
	if (chunk >= 1) {
		view.left_in = in->left;
		view.state_in = in->state;
		view.normaliser_in = in->normaliser;
	}
	if (save) {
		view.left_out = out->left;
		view.state_out = out->state;
		view.normaliser_out = out->normaliser;
		view.k_out = chunk == 0 ? sink->k : out->k;
		view.v_out = chunk == 0 ? sink->v : out->v;
	}
	*ret = view;
}

/* The sink's keys, freshly written, for all re-basings to come. */
static void sink_master_write(struct cache *cache, struct op_context *context)
{
	const struct dit_config *config = cache->config;
	const size_t bytes = frame_count(cache) * (size_t)cache->sink_frames *
			     activation_bytes(context->backend);

	for (int i = 0; i < config->depth; i++)
		if (config->softmax[i])
			op_copy(context, cache->sink[i].k_master, cache->sink[i].k, bytes);
	cache->sink_shift = 0;
}

void cache_commit(struct cache *cache, struct op_context *context, int frames)
{
	if (cache->chunks == 0) {
		cache->sink_frames = frames;
		sink_master_write(cache, context);
	} else {
		cache->window_frames[!cache->current] = frames;
	}
	cache->current = !cache->current;
	cache->chunks++;
	cache->shadow = true;
	cache->position += frames;
}

void cache_discard(struct cache *cache)
{
	/* The other set holds what was dropped, no longer the state before the last chunk. */
	cache->shadow = false;
}

void cache_undo(struct cache *cache)
{
	if (cache->chunks <= 1) {
		cache_reset(cache);
		return;
	}
	cache->position -= cache->window_frames[cache->current];
	cache->current = !cache->current;
	cache->chunks--;
	cache->shadow = false;
}

void cache_redone(struct cache *cache, struct op_context *context)
{
	if (cache->chunks == 1)
		sink_master_write(cache, context);
}

static void check_one(struct op_context *context, const void *x, bool is_float, size_t count,
		      float limit, uint32_t *flags)
{
	OP(context, health,
	   { .x = x, .x_is_float = is_float, .count = count, .limit = limit, .flags = flags });
}

void cache_check(const struct cache *cache, struct op_context *context, bool redo, int frames,
		 float limit, uint32_t *flags)
{
	const struct dit_config *config = cache->config;
	const size_t frame = frame_count(cache);
	struct cache_view view;

	for (int i = 0; i < config->depth; i++) {
		cache_view(cache, i, true, redo, &view);
		check_one(context, view.left_out, false, frame, limit, flags);
		if (config->softmax[i]) {
			check_one(context, view.k_out, false, frame * frames, limit, flags);
			check_one(context, view.v_out, false, frame * frames, limit, flags);
		} else {
			check_one(context, view.state_out, true, state_count(config), limit, flags);
			check_one(context, view.normaliser_out, true, (size_t)config->hidden_size,
				  limit, flags);
		}
	}
}

static void turn_upload(struct cache *cache, struct op_context *context, int64_t shift)
{
	const int pairs = cache->config->pairs_t;
	const size_t bytes = (size_t)pairs * sizeof(float);

	schedule_rotation(shift, pairs, cache->host_cos, cache->host_sin);
	op_upload(context, cache->turn_cos, cache->host_cos, bytes);
	op_upload(context, cache->turn_sin, cache->host_sin, bytes);
	/* The host tables are used again for the next rotation. */
	(void)op_wait(context);
}

static void turn(const struct cache *cache, struct op_context *context, const void *x,
		 bool x_is_float, void *y, bool y_is_float, size_t rows, int heads)
{
	OP(context, rope_shift,
	   { .x = x,
	     .y = y,
	     .x_is_float = x_is_float,
	     .y_is_float = y_is_float,
	     .cos = cache->turn_cos,
	     .sin = cache->turn_sin,
	     .rows = rows,
	     .heads = heads,
	     .head_dim = cache->config->head_dim,
	     .pairs = cache->config->pairs_t });
}

static void set_turn(const struct cache *cache, struct op_context *context, int set, bool window)
{
	const struct dit_config *config = cache->config;
	const size_t tokens = (size_t)cache->chunk_frames * cache->tokens_per_frame;

	for (int i = 0; i < config->depth; i++) {
		const struct cache_block *b = &cache->set[set][i];

		if (!config->softmax[i])
			turn(cache, context, b->state, true, b->state, true,
			     (size_t)config->hidden_size, 1);
		else if (window)
			turn(cache, context, b->k, false, b->k, false, tokens, heads_of(config));
	}
}

void cache_rebase(struct cache *cache, struct op_context *context)
{
	const struct dit_config *config = cache->config;
	const int64_t shift = cache->position;

	if (cache->chunks == 0 || shift == 0) {
		cache->position = 0;
		return;
	}
	turn_upload(cache, context, -shift);
	set_turn(cache, context, cache->current, cache->chunks >= 2);
	/* The set before the last chunk exists from the second chunk on, its window from the third. */
	if (cache->shadow && cache->chunks >= 2)
		set_turn(cache, context, !cache->current, cache->chunks >= 3);
	cache->sink_shift -= shift;
	turn_upload(cache, context, cache->sink_shift);
	for (int i = 0; i < config->depth; i++)
		if (config->softmax[i])
			turn(cache, context, cache->sink[i].k_master, false, cache->sink[i].k,
			     false, (size_t)cache->sink_frames * cache->tokens_per_frame,
			     heads_of(config));
	cache->position = 0;
}

void cache_lines(const struct dit_config *config, int tokens_per_frame, int chunk_frames,
		 int first_frames, enum kernel_dtype dtype, struct cache_line ret[CACHE_LINES])
{
	const size_t frame =
		(size_t)tokens_per_frame * config->hidden_size * kernel_dtype_bytes(dtype);
	int softmax = 0;

	for (int i = 0; i < config->depth; i++)
		softmax += config->softmax[i];
	ret[0] = (struct cache_line){ "GDN S", config->depth - softmax,
				      state_count(config) * sizeof(float), 0 };
	ret[1] = (struct cache_line){ "GDN z", config->depth - softmax,
				      (size_t)config->hidden_size * sizeof(float), 0 };
	ret[2] = (struct cache_line){ "FFN left frame", config->depth, frame, 0 };
	ret[3] = (struct cache_line){ "softmax K+V", softmax,
				      2 * frame * (size_t)(first_frames + chunk_frames), 0 };
	for (int i = 0; i < CACHE_LINES; i++)
		ret[i].bytes = ret[i].bytes_per_block * (size_t)ret[i].blocks;
}
