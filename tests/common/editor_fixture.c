/* The editor without a stream around it. */
#include "tests/common/editor_fixture.h"

static void layout(struct editor_fixture *f, struct arena *arena)
{
	editor_layout_state(&f->editor, &f->model->backend, arena);
	editor_layout_scratch(&f->editor, &f->model->backend, arena);
	f->op.workspace.data = arena_take(arena, "workspace", f->op.workspace.bytes, 1);
}

/* Takes the block for what a dry run of all passes wants. */
static void block_take(struct editor_fixture *f)
{
	const struct backend *backend = &f->model->backend;
	struct op_context planning = { .backend = backend, .planning = true };
	struct arena arena;

	arena_measure(&arena);
	layout(f, &arena);
	editor_plan(&f->editor, &planning);
	assert_int_equal(planning.status, 0);
	f->op.workspace.bytes = planning.workspace.bytes;
	arena_measure(&arena);
	layout(f, &arena);
	f->block_bytes = arena.used;
	assert_int_equal(backend->table->allocate(backend->device, f->block_bytes, &f->block), 0);
	arena_place(&arena, f->block, f->block_bytes);
	layout(f, &arena);
	assert_false(arena.overflowed);
}

struct editor_fixture *editor_fixture_open(const struct stream_fixture *fixture,
					   const struct sana_stream_options *options)
{
	const struct model_config *config = &fixture->model->config;
	const int *sizes = config->stream.first_chunk_latents;
	const int first = options->first_chunk_latents;
	const struct editor_options wanted = {
		.height = options->height / FIXTURE_RATIO,
		.width = options->width / FIXTURE_RATIO,
		.first_frames = first ? first : sizes[config->stream.first_chunks - 1],
		.rebase_latents = options->rebase_latents ? options->rebase_latents : 512,
		.health_limit = 1e6f,
	};
	struct editor_fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->model = sana_model_ref(fixture->model);
	f->latent = options->first_latent;
	assert_int_equal(editor_init(&f->editor, config, &fixture->model->networks.dit, &wanted),
			 0);
	block_take(f);
	f->op.backend = &f->model->backend;
	assert_int_equal(f->op.backend->table->queue_create(f->op.backend->device, 0, &f->op.queue),
			 0);
	assert_int_equal(editor_prepare(&f->editor, &f->op, options->seed), 0);
	return f;
}

void editor_fixture_close(struct editor_fixture *f)
{
	const struct backend *backend = &f->model->backend;

	editor_finish(&f->editor, backend);
	backend->table->queue_destroy(backend->device, f->op.queue);
	backend->table->release(backend->device, f->block, f->block_bytes);
	(void)sana_model_unref(f->model);
	free(f);
}

void editor_fixture_caption(struct editor_fixture *f, const struct sana_prompt *prompt)
{
	const float *features;
	int rows;

	features = sana_prompt_features(prompt, &rows);
	editor_set_caption(&f->editor, &f->op, features, rows);
	assert_int_equal(op_wait(&f->op), 0);
}

void editor_fixture_edit(struct editor_fixture *f, const float *source, int latents)
{
	struct editor *e = &f->editor;
	const size_t floats = (size_t)latents * (size_t)e->options.height *
			      (size_t)e->options.width * FIXTURE_CHANNELS;

	memcpy(editor_source(e), source, floats * sizeof(*source));
	assert_int_equal(editor_begin(e, &f->op, latents, f->latent, NULL), 0);
	for (int i = 0; i < f->model->config.stream.steps; i++)
		assert_int_equal(editor_denoise(e, &f->op, i), 0);
	assert_int_equal(op_wait(&f->op), 0);
	f->latent += (uint64_t)latents;
}

void editor_fixture_follow(struct editor_fixture *f, const struct recording *recording, int n)
{
	const ptrdiff_t first = recording_chunk(recording, n) - recording->latent;

	editor_fixture_edit(f, recording->source + first, recording->chunk_latents[n]);
}

void editor_fixture_assert_same(const struct editor_fixture *f, const struct recording *recording,
				int n)
{
	assert_int_equal(f->editor.frames[f->editor.slot], recording->chunk_latents[n]);
	assert_memory_equal(f->editor.latent[f->editor.slot], recording_chunk(recording, n),
			    recording_chunk_floats(recording, n) * sizeof(float));
}

/* Appends to `to` unless it is NULL; returns the floats so far. */
static size_t append(float *to, size_t at, const void *from, size_t count)
{
	if (to)
		memcpy(to + at, from, count * sizeof(*to));
	return at + count;
}

static size_t cache_walk(const struct cache *cache, float *to)
{
	const struct dit_config *config = cache->config;
	const size_t frame = (size_t)cache->tokens_per_frame * (size_t)config->hidden_size;
	const size_t width = (size_t)config->hidden_size;
	size_t at = 0;

	if (cache->chunks == 0)
		return 0;
	for (int i = 0; i < config->depth; i++) {
		const struct cache_block *b = &cache->set[cache->current][i];
		const size_t window = frame * (size_t)cache->window_frames[cache->current];
		const size_t sink = frame * (size_t)cache->sink_frames;

		at = append(to, at, b->left, frame);
		if (!config->softmax[i]) {
			at = append(to, at, b->state, width * (size_t)config->head_dim);
			at = append(to, at, b->normaliser, width);
			continue;
		}
		if (cache->chunks > 1) {
			at = append(to, at, b->k, window);
			at = append(to, at, b->v, window);
		}
		at = append(to, at, cache->sink[i].k, sink);
		at = append(to, at, cache->sink[i].v, sink);
		at = append(to, at, cache->sink[i].k_master, sink);
	}
	return at;
}

float *cache_copy(const struct cache *cache, size_t *ret_floats)
{
	const size_t floats = cache_walk(cache, NULL);
	float *copy = malloc(MAX_OF(floats, (size_t)1) * sizeof(*copy));

	assert_non_null(copy);
	*ret_floats = cache_walk(cache, copy);
	return copy;
}
