/* The sampler over chunks: noise, Euler steps, cache pass, health, re-basing. */
#include "engine/edit.h"

#include "engine/schedule.h"

#include <errno.h>

int editor_init(struct editor *e, const struct model_config *config,
		const struct dit_weights *weights, const struct editor_options *options)
{
	const int max_frames = MAX_OF(options->first_frames, config->stream.chunk_latents);
	const struct dit_config *dit = &config->dit;
	int64_t tokens;
	int r;

	if (options->height < 1 || options->width < 1 || options->first_frames < 1 ||
	    max_frames > MODEL_MAX_CHUNK_LATENTS || options->rebase_latents < 1 ||
	    (size_t)max_frames * (size_t)dit->pairs_t > EDITOR_HOST_ROTATIONS ||
	    (size_t)options->height * (size_t)dit->pairs_y > EDITOR_HOST_ROTATIONS ||
	    (size_t)options->width * (size_t)dit->pairs_x > EDITOR_HOST_ROTATIONS)
		return -EINVAL;
	/* Sink, window and current chunk are counted in int. */
	tokens = (int64_t)options->height * options->width;
	if (tokens > INT32_MAX / (KERNEL_SEGMENTS * max_frames))
		return -EINVAL;
	*e = (struct editor){
		.stream = &config->stream,
		.config = dit,
		.weights = weights,
		.options = *options,
		.max_frames = max_frames,
	};
	/* The sink has room for any chunk: where chunk 0's state is discarded, a usual one becomes it. */
	r = cache_init(&e->cache, dit, (int)tokens, config->stream.chunk_latents, max_frames);
	if (r < 0)
		return r;
	schedule_steps(e->stream, e->host_steps);
	e->host_flags = &e->own_flags;
	editor_reset(e);
	return 0;
}

static int tokens_per_frame(const struct editor *e)
{
	return e->options.height * e->options.width;
}

void editor_layout_state(struct editor *e, const struct backend *backend, struct arena *arena)
{
	const struct dit_config *config = e->config;
	const size_t tokens = (size_t)e->max_frames * (size_t)tokens_per_frame(e);
	const char *tables = "editor/rotations and scalars";

	cache_layout(&e->cache, backend, arena);
	dit_text_layout(&e->text, config, backend, arena);
	for (int i = 0; i < 2; i++) {
		e->latent[i] = arena_take(arena, "editor/latents (F32, two chunks)",
					  tokens * (size_t)config->in_channels, sizeof(float));
		e->source[i] = arena_take(arena, "editor/source latents (F32, two chunks)",
					  tokens * (size_t)config->source_channels, sizeof(float));
	}
	e->cos_t =
		arena_take(arena, tables, (size_t)e->max_frames * config->pairs_t, sizeof(float));
	e->sin_t =
		arena_take(arena, tables, (size_t)e->max_frames * config->pairs_t, sizeof(float));
	e->redo_cos_t =
		arena_take(arena, tables, (size_t)e->max_frames * config->pairs_t, sizeof(float));
	e->redo_sin_t =
		arena_take(arena, tables, (size_t)e->max_frames * config->pairs_t, sizeof(float));
	e->cos_y = arena_take(arena, tables, (size_t)e->options.height * config->pairs_y,
			      sizeof(float));
	e->sin_y = arena_take(arena, tables, (size_t)e->options.height * config->pairs_y,
			      sizeof(float));
	e->cos_x = arena_take(arena, tables, (size_t)e->options.width * config->pairs_x,
			      sizeof(float));
	e->sin_x = arena_take(arena, tables, (size_t)e->options.width * config->pairs_x,
			      sizeof(float));
	e->steps = arena_take(arena, tables, (size_t)e->stream->steps, sizeof(float));
	e->seed = arena_take(arena, tables, 1, sizeof(*e->seed));
	e->noise_frame = arena_take(arena, tables, 1, sizeof(*e->noise_frame));
	e->flags = arena_take(arena, tables, 1, sizeof(*e->flags));
	e->caption = arena_take(arena, "editor/caption (F32)",
				(size_t)config->max_tokens * (size_t)config->caption_channels,
				sizeof(float));
}

void editor_layout_scratch(struct editor *e, const struct backend *backend, struct arena *arena)
{
	struct arena_union shared;

	arena_union_begin(arena, &shared);
	dit_scratch_layout(&e->scratch, e->config, backend, e->max_frames * tokens_per_frame(e),
			   e->max_frames, arena);
	arena_union_next(arena, &shared);
	dit_text_scratch_layout(&e->text_scratch, e->config, backend, arena);
	arena_union_end(arena, &shared);
}

/* ------------------------------------------------------------------------------------- passes */

static struct dit_pass pass_of(const struct editor *e, int slot, int entry)
{
	return (struct dit_pass){
		.config = e->config,
		.weights = e->weights,
		.scratch = &e->scratch,
		.text = &e->text,
		.cache = &e->cache,
		.tap = e->tap,
		.rope = {
			.cos_t = e->cos_t, .sin_t = e->sin_t,
			.cos_y = e->cos_y, .sin_y = e->sin_y,
			.cos_x = e->cos_x, .sin_x = e->sin_x,
			.frames = e->frames[slot], .height = e->options.height, .width = e->options.width,
			.pairs_t = e->config->pairs_t,
			.pairs_y = e->config->pairs_y,
			.pairs_x = e->config->pairs_x,
		},
		.noisy = e->latent[slot],
		.source = e->source[slot],
		.entry = entry,
	};
}

static struct dit_pass cache_pass_of(const struct editor *e, int slot, bool redo)
{
	struct dit_pass pass = pass_of(e, slot, e->stream->steps);

	pass.save = true;
	pass.redo = redo;
	if (redo) {
		pass.rope.cos_t = e->redo_cos_t;
		pass.rope.sin_t = e->redo_sin_t;
	}
	return pass;
}

void editor_plan_pass(struct editor *e, struct op_context *op, bool save)
{
	const struct cache saved = e->cache;
	struct dit_pass pass;

	e->cache.chunks = 2;
	e->cache.sink_frames = e->options.first_frames;
	e->cache.window_frames[0] = e->cache.window_frames[1] = e->stream->chunk_latents;
	e->frames[0] = e->stream->chunk_latents;
	e->text.rows = e->config->max_tokens;
	pass = save ? cache_pass_of(e, 0, false) : pass_of(e, 0, 0);
	dit_run(&pass, op);
	if (save)
		cache_check(&e->cache, op, false, e->frames[0], 1.0f, e->flags);
	e->cache = saved;
	e->frames[0] = 0;
	e->text.rows = 0;
}

/* Both kinds of passes over chunk 0, 1 or any later one (2). */
static void passes_pretend(struct editor *e, struct op_context *op, int chunk)
{
	struct dit_pass pass;

	e->cache.chunks = chunk;
	e->cache.sink_frames = e->max_frames;
	e->cache.window_frames[0] = e->cache.window_frames[1] = e->stream->chunk_latents;
	e->frames[0] = chunk ? e->stream->chunk_latents : e->max_frames;
	pass = pass_of(e, 0, 0);
	dit_run(&pass, op);
	pass = cache_pass_of(e, 0, false);
	dit_run(&pass, op);
}

void editor_tune(struct editor *e, struct op_context *op)
{
	const struct cache saved = e->cache;

	passes_pretend(e, op, 0);
	passes_pretend(e, op, 2);
	e->cache = saved;
	e->frames[0] = 0;
}

void editor_plan(struct editor *e, struct op_context *op)
{
	const struct cache saved = e->cache;

	dit_text_compute(&e->text, e->config, e->weights, &e->text_scratch, op, e->caption,
			 e->config->max_tokens);
	for (int chunk = 0; chunk < 3; chunk++) {
		passes_pretend(e, op, chunk);
		cache_check(&e->cache, op, false, e->frames[0], 1.0f, e->flags);
	}
	e->cache.position = 1;
	cache_rebase(&e->cache, op);
	OP(op, noise,
	   { .y = e->latent[0],
	     .seed = e->seed,
	     .first_frame = e->noise_frame,
	     .frames = e->max_frames,
	     .height = e->options.height,
	     .width = e->options.width,
	     .channels = e->config->in_channels });
	OP(op, euler_step,
	   { .x = e->latent[0],
	     .v = e->scratch.velocity,
	     .step = e->steps,
	     .count = (size_t)e->max_frames * tokens_per_frame(e) * e->config->in_channels });
	e->cache = saved;
	e->frames[0] = 0;
	e->text.rows = 0;
}

/* By way of the host tables: whoever fills them again must have waited. */
static void rotations_upload(struct editor *e, struct op_context *op, float *cos_to, float *sin_to,
			     int64_t first, int count, int pairs)
{
	const size_t bytes = (size_t)count * (size_t)pairs * sizeof(float);

	for (int i = 0; i < count; i++)
		schedule_rotation(first + i, pairs, e->host_cos + (size_t)i * pairs,
				  e->host_sin + (size_t)i * pairs);
	op_upload(op, cos_to, e->host_cos, bytes);
	op_upload(op, sin_to, e->host_sin, bytes);
}

int editor_prepare(struct editor *e, struct op_context *op, uint64_t seed)
{
	rotations_upload(e, op, e->cos_y, e->sin_y, 0, e->options.height, e->config->pairs_y);
	(void)op_wait(op);
	rotations_upload(e, op, e->cos_x, e->sin_x, 0, e->options.width, e->config->pairs_x);
	op_upload(op, e->steps, e->host_steps, sizeof(float) * (size_t)e->stream->steps);
	e->host_seed = seed;
	op_upload(op, e->seed, &e->host_seed, sizeof(e->host_seed));
	return op_wait(op);
}

void editor_finish(struct editor *e, const struct backend *backend)
{
	pass_graphs_clear(&e->graphs, backend);
}

void editor_reset(struct editor *e)
{
	cache_reset(&e->cache);
	e->frames[0] = e->frames[1] = 0;
}

float *editor_source(struct editor *e)
{
	return e->source[!e->slot];
}

float *editor_latent(struct editor *e)
{
	return e->latent[e->slot];
}

void editor_set_caption(struct editor *e, struct op_context *op, const float *caption, int rows)
{
	op_upload(op, e->caption, caption,
		  (size_t)rows * (size_t)e->config->caption_channels * sizeof(float));
	dit_text_compute(&e->text, e->config, e->weights, &e->text_scratch, op, e->caption, rows);
}

static size_t latent_count(const struct editor *e, int slot)
{
	return (size_t)e->frames[slot] * (size_t)tokens_per_frame(e) *
	       (size_t)e->config->in_channels;
}

int editor_begin(struct editor *e, struct op_context *op, int frames, uint64_t noise_frame,
		 const float *noise)
{
	/* A chunk 0 whose state was discarded is followed by a usual chunk that becomes chunk 0. */
	const int limit = e->cache.chunks ? e->stream->chunk_latents : e->max_frames;

	if (frames < 1 || frames > limit)
		return -EINVAL;
	if (e->cache.position >= e->options.rebase_latents) {
		cache_rebase(&e->cache, op);
		e->rebases++;
	}
	e->slot = !e->slot;
	e->frames[e->slot] = frames;
	rotations_upload(e, op, e->cos_t, e->sin_t, e->cache.position, frames, e->config->pairs_t);
	if (noise) {
		op_upload(op, e->latent[e->slot], noise, latent_count(e, e->slot) * sizeof(float));
		return op_wait(op);
	}
	e->host_noise_frame = noise_frame;
	op_upload(op, e->noise_frame, &e->host_noise_frame, sizeof(noise_frame));
	OP(op, noise,
	   { .y = e->latent[e->slot],
	     .seed = e->seed,
	     .first_frame = e->noise_frame,
	     .frames = frames,
	     .height = e->options.height,
	     .width = e->options.width,
	     .channels = e->config->in_channels });
	return op->status;
}

/* ------------------------------------------------------------------------------- their ops */

enum pass_kind { PASS_DENOISE, PASS_SAVE, PASS_REDO };

struct pass_run {
	struct editor *editor;
	enum pass_kind kind;
	int step, slot;
};

/* All that a pass's parameter blocks depend on, beside what never changes in an editor. */
static struct pass_key pass_key(const struct pass_run *run)
{
	const struct editor *e = run->editor;
	const struct cache *cache = &e->cache;
	const bool redo = run->kind == PASS_REDO;
	const int64_t chunk = cache->chunks - redo;

	return (struct pass_key){
		.kind = run->kind,
		.entry = run->step,
		.slot = run->slot,
		.set = cache->current,
		.frames = e->frames[run->slot],
		.history = (int)MIN_OF(chunk, 2),
		.sink_frames = cache->sink_frames,
		.window_frames = cache->window_frames[redo ? !cache->current : cache->current],
		.text_rows = e->text.rows,
	};
}

static void denoise_ops(void *argument, struct op_context *op)
{
	const struct pass_run *run = argument;
	struct editor *e = run->editor;
	const struct dit_pass pass = pass_of(e, run->slot, run->step);

	dit_run(&pass, op);
	OP(op, euler_step,
	   { .x = e->latent[run->slot],
	     .v = e->scratch.velocity,
	     .step = e->steps + run->step,
	     .count = latent_count(e, run->slot) });
}

static void save_ops(void *argument, struct op_context *op)
{
	const struct pass_run *run = argument;
	struct editor *e = run->editor;
	const bool redo = run->kind == PASS_REDO;
	const struct dit_pass pass = cache_pass_of(e, run->slot, redo);

	op_zero(op, e->flags, sizeof(*e->flags));
	dit_run(&pass, op);
	if (e->probe)
		e->probe(e->probe_context, e, false);
	cache_check(&e->cache, op, redo, e->frames[run->slot], e->options.health_limit, e->flags);
}

static void pass_run(struct pass_run *run, struct op_context *op)
{
	struct editor *e = run->editor;
	const struct pass_key key = pass_key(run);
	void (*ops)(void *, struct op_context *) = run->kind == PASS_DENOISE ? denoise_ops :
									       save_ops;

	/* Taps and probes look at what an op has just done. */
	if (e->tap || e->probe)
		ops(run, op);
	else
		pass_graph_run(&e->graphs, op, &key, ops, run);
}

int editor_denoise(struct editor *e, struct op_context *op, int step)
{
	struct pass_run run = { e, PASS_DENOISE, step, e->slot };

	pass_run(&run, op);
	return op->status;
}

static void flags_download(struct editor *e, struct op_context *op)
{
	op_download(op, e->host_flags, e->flags, sizeof(*e->host_flags));
}

bool editor_is_sane(const struct editor *e)
{
	return *e->host_flags == 0;
}

void editor_check(struct editor *e, struct op_context *op)
{
	if (e->probe)
		e->probe(e->probe_context, e, true);
	op_zero(op, e->flags, sizeof(*e->flags));
	OP(op, health,
	   { .x = e->latent[e->slot],
	     .x_is_float = true,
	     .count = latent_count(e, e->slot),
	     .limit = e->options.health_limit,
	     .flags = e->flags });
	flags_download(e, op);
}

void editor_drop(struct editor *e)
{
	cache_discard(&e->cache);
}

static void save_pass(struct editor *e, struct op_context *op, bool redo)
{
	struct pass_run run = { e, redo ? PASS_REDO : PASS_SAVE, e->stream->steps, e->slot };

	pass_run(&run, op);
	flags_download(e, op);
}

void editor_save_begin(struct editor *e, struct op_context *op)
{
	save_pass(e, op, false);
}

int editor_save_end(struct editor *e, struct op_context *op)
{
	if (op->status < 0)
		return op->status;
	if (!editor_is_sane(e)) {
		cache_discard(&e->cache);
		return 0;
	}
	cache_commit(&e->cache, op, e->frames[e->slot]);
	return op->status < 0 ? op->status : 1;
}

int editor_save(struct editor *e, struct op_context *op)
{
	editor_save_begin(e, op);
	(void)op_wait(op);
	return editor_save_end(e, op);
}

int editor_recache(struct editor *e, struct op_context *op)
{
	const int frames = e->frames[e->slot];
	int r;

	if (!e->cache.shadow || e->cache.chunks < 1)
		return 0;
	rotations_upload(e, op, e->redo_cos_t, e->redo_sin_t, e->cache.position - frames, frames,
			 e->config->pairs_t);
	save_pass(e, op, true);
	r = op_wait(op);
	if (r < 0)
		return r;
	if (!editor_is_sane(e)) {
		cache_undo(&e->cache);
		return 0;
	}
	cache_redone(&e->cache, op);
	return op->status < 0 ? op->status : 1;
}
