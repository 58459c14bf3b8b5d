/* An editor over a small DiT of generated weights. */
#include "tests/common/editor_rig.h"

#include "engine/model_keys.h"
#include "engine/synthetic.h"

enum {
	CAPTION_CHANNELS = 16,
	CAPTION_TOKENS = 8,
	CAPTION_ROWS = 5,
	MLP_RATIO = 1,
	WEIGHTS_SEED = 11,
};

/* Uniform values of unit variance. */
static const double unit_scale = 1.7320508;

/* Above anything a healthy run of these weights carries. */
static const float health_limit = 1e6f;

static int key_walk(const void *config, model_key_visit visit, void *context)
{
	return dit_keys_visit(config, visit, context);
}

static void config_fill(struct model_config *config, int head_dim)
{
	struct dit_config *dit = &config->dit;

	*config = (struct model_config){
		.stream = {
			.chunk_latents = RIG_CHUNK,
			.steps = 2,
			.timesteps = { 1000, 743 },
			.sigmas = { 1.0f, 0.743f, 0.0f },
		},
		.dit = {
			.depth = RIG_DEPTH,
			.hidden_size = RIG_HEADS * head_dim,
			.num_heads = RIG_HEADS,
			.head_dim = head_dim,
			.in_channels = RIG_CHANNELS,
			.source_channels = RIG_CHANNELS,
			.mlp_hidden = MLP_RATIO * RIG_HEADS * head_dim,
			.caption_channels = CAPTION_CHANNELS,
			.max_tokens = CAPTION_TOKENS,
			.t_kernel_size = 3,
			.softmax[RIG_SOFTMAX_BLOCK] = true,
		},
	};
	dit->pairs_y = dit->pairs_x = head_dim / 6;
	dit->pairs_t = head_dim / 2 - 2 * dit->pairs_y;
}

static void layout(struct editor_rig *rig, struct loader *loader,
		   const struct editor_options *options, struct op_context *planning)
{
	dit_weights_load(loader, &rig->config.dit, &rig->config.stream, &rig->weights);
	assert_int_equal(loader->status, 0);
	assert_int_equal(editor_init(&rig->editor, &rig->config, &rig->weights, options), 0);
	editor_layout_state(&rig->editor, &rig->backend, loader->arena);
	editor_layout_scratch(&rig->editor, &rig->backend, loader->arena);
	if (planning)
		editor_plan(&rig->editor, planning);
}

static void place(struct editor_rig *rig, const struct editor_options *options)
{
	struct op_context planning = { .backend = &rig->backend, .planning = true };
	const struct kernel_backend *table = rig->backend.table;
	struct arena arena;
	struct loader loader = {
		.backend = &rig->backend,
		.table = rig->table,
		.arena = &arena,
		.measuring = true,
		.prepare = true,
		.line = "weights",
	};

	arena_measure(&arena);
	layout(rig, &loader, options, &planning);
	assert_int_equal(planning.status, 0);
	(void)arena_take(&arena, "workspace", 1, planning.workspace.bytes);
	assert_false(arena.overflowed);
	rig->block_bytes = arena.used;
	assert_int_equal(table->allocate(rig->backend.device, rig->block_bytes, &rig->block), 0);
	assert_int_equal(table->queue_create(rig->backend.device, 0, &rig->queue), 0);
	loader.queue = rig->queue;
	loader.measuring = false;
	arena_place(&arena, rig->block, rig->block_bytes);
	layout(rig, &loader, options, NULL);
	rig->op = (struct op_context){ .backend = &rig->backend, .queue = rig->queue };
	rig->op.workspace.bytes = planning.workspace.bytes;
	rig->op.workspace.data = arena_take(&arena, "workspace", 1, planning.workspace.bytes);
	assert_false(arena.overflowed);
}

void editor_rig_open_on(struct editor_rig *rig, const char *backend,
			const struct kernel_backend *table, int head_dim, int first_frames,
			int rebase_latents)
{
	const struct editor_options options = {
		.height = RIG_HEIGHT,
		.width = RIG_WIDTH,
		.first_frames = first_frames,
		.rebase_latents = rebase_latents,
		.health_limit = health_limit,
	};
	struct sana_error error = { 0 };

	*rig = (struct editor_rig){ 0 };
	config_fill(&rig->config, head_dim);
	/* One thread: an op here takes less time than waking a second one. */
	if (synthetic_weights("dit", WEIGHTS_SEED, key_walk, &rig->config.dit, &rig->table,
			      &error) < 0 ||
	    backend_open(backend, &(struct kernel_device_options){ .threads = 1 }, &rig->backend,
			 &error) < 0)
		fail_msg("%s", error.text);
	if (table)
		rig->backend.table = table;
	place(rig, &options);
	assert_int_equal(editor_prepare(&rig->editor, &rig->op, 0), 0);
	editor_rig_caption(rig, 0);
}

void editor_rig_open(struct editor_rig *rig, int head_dim, int first_frames, int rebase_latents)
{
	editor_rig_open_on(rig, "cpu", NULL, head_dim, first_frames, rebase_latents);
}

void editor_rig_close(struct editor_rig *rig)
{
	editor_finish(&rig->editor, &rig->backend);
	rig->backend.table->queue_destroy(rig->backend.device, rig->queue);
	rig->backend.table->release(rig->backend.device, rig->block, rig->block_bytes);
	backend_close(&rig->backend);
	weights_destroy(rig->table);
}

void editor_rig_caption(struct editor_rig *rig, int which)
{
	float rows[CAPTION_ROWS * CAPTION_CHANNELS];

	synthetic_fill("rig", "caption", 0, unit_scale, (size_t)which * ARRAY_SIZE(rows),
		       ARRAY_SIZE(rows), rows);
	editor_set_caption(&rig->editor, &rig->op, rows, CAPTION_ROWS);
	assert_int_equal(op_wait(&rig->op), 0);
}

int editor_rig_first(const struct editor_rig *rig, int chunk)
{
	return chunk == 0 ? 0 : rig->editor.options.first_frames + (chunk - 1) * RIG_CHUNK;
}

int editor_rig_frames(const struct editor_rig *rig, int chunk)
{
	return chunk == 0 ? rig->editor.options.first_frames : RIG_CHUNK;
}

size_t editor_rig_floats(const struct editor_rig *rig, int chunk)
{
	return (size_t)editor_rig_first(rig, chunk) * RIG_TOKENS * RIG_CHANNELS;
}

void editor_rig_edit(struct editor_rig *rig, int chunk, float *output)
{
	float values[MODEL_MAX_CHUNK_LATENTS * RIG_TOKENS * RIG_CHANNELS];
	const size_t first = editor_rig_floats(rig, chunk);
	const size_t count = editor_rig_floats(rig, chunk + 1) - first;
	const int frames = editor_rig_frames(rig, chunk);

	synthetic_fill("rig", "source", 0, unit_scale, first, count, values);
	op_upload(&rig->op, editor_source(&rig->editor), values, count * sizeof(float));
	assert_int_equal(op_wait(&rig->op), 0);
	synthetic_fill("rig", "noise", 0, unit_scale, first, count, values);
	assert_int_equal(editor_begin(&rig->editor, &rig->op, frames, 0, values), 0);
	for (int i = 0; i < rig->config.stream.steps; i++)
		assert_int_equal(editor_denoise(&rig->editor, &rig->op, i), 0);
	editor_check(&rig->editor, &rig->op);
	assert_int_equal(op_wait(&rig->op), 0);
	assert_true(editor_is_sane(&rig->editor));
	op_download(&rig->op, output + first, editor_latent(&rig->editor), count * sizeof(float));
	assert_int_equal(op_wait(&rig->op), 0);
}

void editor_rig_save(struct editor_rig *rig)
{
	assert_int_equal(editor_save(&rig->editor, &rig->op), 1);
}

void editor_rig_run(struct editor_rig *rig, int first, int end, float *output)
{
	for (int chunk = first; chunk < end; chunk++) {
		editor_rig_edit(rig, chunk, output);
		editor_rig_save(rig);
	}
}
