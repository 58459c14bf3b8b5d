/* Manifests of the DiT kind: the streaming sampler on given noise, source latents and prompts. */
#include "tests/golden/golden.h"

#include "engine/edit.h"

#include <errno.h>

enum { MAX_CHUNKS = 4096 };

struct run {
	struct golden *g;
	struct model_config config;
	struct dit_weights weights;
	struct editor editor;
	struct dit_tap tap;
	int boundaries[MAX_CHUNKS + 1], chunks, frames;
	int switch_chunk; /* −1: never */
	int valid;	  /* text rows */
	int height, width, first, usual;
	int call, tokens; /* the call that runs now */
	float *host;	  /* room for the largest tensor that is looked at */
};

/* ------------------------------------------------------------------------------ configuration */

static int chunks_read(struct run *run, struct json_reader *c)
{
	const int n =
		json_get_integers(c, "chunks", 0, INT32_MAX, 2, MAX_CHUNKS + 1, run->boundaries);

	if (c->status < 0)
		return c->status;
	run->chunks = n - 1;
	run->frames = run->boundaries[n - 1];
	if (run->boundaries[0] != 0)
		return json_fail(c, "chunks", "must start with 0");
	for (int i = 0; i < run->chunks; i++) {
		const int frames = run->boundaries[i + 1] - run->boundaries[i];

		if (frames < 1 || frames > MODEL_MAX_CHUNK_LATENTS)
			return json_fail(c, "chunks", "must grow by 1 to %d",
					 MODEL_MAX_CHUNK_LATENTS);
		if (i)
			run->usual = MAX_OF(run->usual, frames);
		else
			run->first = frames;
	}
	run->usual = MAX_OF(run->usual, 1);
	return 0;
}

static void blocks_read(struct dit_config *dit, struct json_reader *c)
{
	int blocks[MODEL_MAX_DEPTH];
	const int n = json_get_integers(c, "softmax_blocks", 0, dit->depth - 1, 0, MODEL_MAX_DEPTH,
					blocks);

	for (int i = 0; i < n; i++)
		dit->softmax[blocks[i]] = true;
}

static void schedule_read(struct stream_config *stream, struct json_reader *c)
{
	double steps[MODEL_MAX_STEPS];

	stream->steps = json_get_numbers(c, "timesteps", 0, 1000, 1, MODEL_MAX_STEPS, steps);
	for (int i = 0; i < stream->steps; i++) {
		stream->timesteps[i] = (int)steps[i];
		stream->sigmas[i] = (float)steps[i] / 1000.0f;
	}
}

static int config_read(struct run *run)
{
	struct json_reader c = golden_config(run->g);
	struct dit_config *dit = &run->config.dit;
	const bool switches = json_has(&c, "prompt2_from_chunk");
	double ratio;
	int heads;

	dit->depth = (int)json_get_integer(&c, "depth", 1, MODEL_MAX_DEPTH);
	dit->hidden_size = (int)json_get_integer(&c, "hidden", 1, MODEL_MAX_CHANNELS);
	heads = (int)json_get_integer(&c, "heads", 1, 4096);
	dit->head_dim = (int)json_get_integer(&c, "head_dim", 2, 512);
	dit->in_channels = (int)json_get_integer(&c, "latent_channels", 1, 4096);
	dit->source_channels = dit->in_channels;
	dit->caption_channels =
		(int)json_get_integer(&c, "caption_channels", 1, MODEL_MAX_CHANNELS);
	dit->max_tokens = (int)json_get_integer(&c, "text_tokens", 1, MODEL_MAX_TOKENS);
	run->valid = (int)json_get_integer(&c, "text_valid", 1, dit->max_tokens);
	run->height = (int)json_get_integer(&c, "latent_h", 1, 1024);
	run->width = (int)json_get_integer(&c, "latent_w", 1, 1024);
	ratio = json_get_number(&c, "mlp_ratio", 0.01, 64);
	if (json_get_integer(&c, "num_cached_blocks", 2, 2) == 2 && !json_get_bool(&c, "sink"))
		(void)json_fail(&c, "sink",
				"must be true: the window without a sink is not specified");
	run->switch_chunk =
		switches ? (int)json_get_integer(&c, "prompt2_from_chunk", 0, MAX_CHUNKS) : -1;
	if (c.status < 0)
		return c.status;
	if (heads * dit->head_dim != dit->hidden_size || dit->head_dim % 2)
		return json_fail(&c, "hidden", "must be heads times an even head_dim");
	dit->num_heads = heads;
	dit->t_kernel_size = 3;
	dit->mlp_hidden = (int)(dit->hidden_size * ratio);
	dit->pairs_y = dit->pairs_x = dit->head_dim / 6;
	dit->pairs_t = dit->head_dim / 2 - 2 * dit->pairs_y;
	blocks_read(dit, &c);
	schedule_read(&run->config.stream, &c);
	if (c.status < 0 || chunks_read(run, &c) < 0)
		return c.status;
	run->config.stream.chunk_latents = run->usual;
	return 0;
}

/* ---------------------------------------------------------------------------------- comparing */

static void compare_act(struct run *run, const char *name, const void *data, size_t count)
{
	if (!golden_find(run->g, name) || golden_read_act(run->g, data, count, run->host) < 0)
		return;
	golden_compare(run->g, name, NULL, run->host, count);
}

static void tap_block(void *context, int block, enum dit_tap_point point, const void *data)
{
	static const char *const names[] = {
		[DIT_X_IN] = "x_in",
		[DIT_X_SELF_ATTN] = "x_self_attn",
		[DIT_X_CROSS_ATTN] = "x_cross_attn",
		[DIT_X_FFN] = "x_ffn",
	};
	struct run *run = context;
	char name[GOLDEN_NAME_BYTES];

	(void)snprintf(name, sizeof(name), "call%d.block%d.%s", run->call, block, names[point]);
	compare_act(run, name, data, (size_t)run->tokens * run->config.dit.hidden_size);
}

static void compare_latent(struct run *run, const char *name, const float *host)
{
	golden_compare_channels_last(run->g, name, NULL, host, (size_t)run->config.dit.in_channels,
				     (size_t)run->tokens);
}

static void tap_velocity(void *context, const void *data)
{
	struct run *run = context;
	const size_t count = (size_t)run->tokens * run->config.dit.in_channels;
	char name[GOLDEN_NAME_BYTES];

	(void)snprintf(name, sizeof(name), "call%d.output", run->call);
	if (golden_find(run->g, name) && golden_read_act(run->g, data, count, run->host) >= 0)
		compare_latent(run, name, run->host);
}

static void compare_input(struct run *run)
{
	const size_t count = (size_t)run->tokens * run->config.dit.in_channels;
	char name[GOLDEN_NAME_BYTES];

	(void)snprintf(name, sizeof(name), "call%d.input", run->call);
	if (golden_find(run->g, name) &&
	    golden_read_float(run->g, editor_latent(&run->editor), count, run->host) >= 0)
		compare_latent(run, name, run->host);
}

/* k or v: the engine keeps [tokens][heads·D], the file [1][heads][D][tokens]. */
static void compare_keys(struct run *run, int block, const char *which, const void *data)
{
	const size_t c = (size_t)run->config.dit.hidden_size, count = c * (size_t)run->tokens;
	char name[GOLDEN_NAME_BYTES];

	(void)snprintf(name, sizeof(name), "cache%d.block%d.%s", run->call, block, which);
	if (golden_find(run->g, name) && golden_read_act(run->g, data, count, run->host) >= 0)
		golden_compare_channels_last(run->g, name, NULL, run->host, c, (size_t)run->tokens);
}

static void compare_float(struct run *run, int block, const char *which, const float *data,
			  size_t count)
{
	char name[GOLDEN_NAME_BYTES];

	(void)snprintf(name, sizeof(name), "cache%d.block%d.%s", run->call, block, which);
	if (golden_find(run->g, name) && golden_read_float(run->g, data, count, run->host) >= 0)
		golden_compare(run->g, name, NULL, run->host, count);
}

/* What the cache pass that just was committed wrote: `redo` views it as the last chunk's. */
static void compare_caches(struct run *run)
{
	const struct dit_config *dit = &run->config.dit;
	const size_t c = (size_t)dit->hidden_size, frame = (size_t)run->height * run->width;
	struct cache_view view;
	char name[GOLDEN_NAME_BYTES];

	for (int i = 0; i < dit->depth; i++) {
		cache_view(&run->editor.cache, i, true, true, &view);
		if (dit->softmax[i]) {
			compare_keys(run, i, "k", view.k_out);
			compare_keys(run, i, "v", view.v_out);
		} else {
			compare_float(run, i, "state_kv", view.state_out, c * dit->head_dim);
			compare_float(run, i, "state_z", view.normaliser_out, c);
		}
		(void)snprintf(name, sizeof(name), "cache%d.block%d.tconv", run->call, i);
		if (golden_find(run->g, name) &&
		    golden_read_act(run->g, view.left_out, c * frame, run->host) >= 0)
			golden_compare_channels_last(run->g, name, NULL, run->host, c, frame);
	}
}

/* ------------------------------------------------------------------------------------ running */

static int layout(struct golden *g, void *context, struct loader *loader,
		  struct op_context *planning)
{
	struct run *run = context;
	const struct editor_options options = {
		.height = run->height,
		.width = run->width,
		.first_frames = run->first,
		.rebase_latents = INT32_MAX,
		.health_limit = 1e30f,
	};
	int r;

	dit_weights_load(loader, &run->config.dit, &run->config.stream, &run->weights);
	if (loader->status < 0)
		return golden_fail(g, "the weights do not fit the config: %s",
				   strerror(-loader->status));
	r = editor_init(&run->editor, &run->config, &run->weights, &options);
	if (r < 0)
		return golden_fail(g, "the config is outside what the engine runs.");
	run->editor.tap = &run->tap;
	editor_layout_state(&run->editor, &g->backend, loader->arena);
	editor_layout_scratch(&run->editor, &g->backend, loader->arena);
	if (planning)
		editor_plan(&run->editor, planning);
	return 0;
}

static int caption_set(struct run *run, const char *input)
{
	const struct dit_config *dit = &run->config.dit;
	_cleanup_(freep) float *rows = NULL;
	int r;

	r = golden_input(run->g, input, (size_t)dit->max_tokens * dit->caption_channels, &rows);
	if (r < 0)
		return r;
	editor_set_caption(&run->editor, &run->g->op, rows, run->valid);
	return op_wait(&run->g->op);
}

static int chunk_run(struct run *run, int chunk, const float *noise, const float *source,
		     float *output)
{
	const size_t row = (size_t)run->height * run->width * run->config.dit.in_channels;
	const size_t first = (size_t)run->boundaries[chunk];
	const int frames = run->boundaries[chunk + 1] - run->boundaries[chunk];
	const size_t count = row * (size_t)frames;
	struct op_context *op = &run->g->op;
	int r;

	run->tokens = frames * run->height * run->width;
	op_upload(op, editor_source(&run->editor), source + row * first, count * sizeof(float));
	r = editor_begin(&run->editor, op, frames, 0, noise + row * first);
	for (int i = 0; i < run->config.stream.steps && r >= 0; i++) {
		compare_input(run);
		r = editor_denoise(&run->editor, op, i);
		run->call++;
	}
	if (r >= 0)
		r = golden_read_float(run->g, editor_latent(&run->editor), count,
				      output + row * first);
	if (r < 0 || chunk == run->chunks - 1)
		return r;
	compare_input(run);
	r = editor_save(&run->editor, op);
	if (r == 0)
		return golden_fail(run->g, "call %d: the carried state is not finite.", run->call);
	if (r > 0)
		compare_caches(run);
	run->call++;
	return r;
}

static int stream_run(struct run *run)
{
	const size_t channels = (size_t)run->config.dit.in_channels;
	const size_t positions = (size_t)run->frames * run->height * run->width;
	_cleanup_(freep) float *noise = NULL;
	_cleanup_(freep) float *source = NULL;
	_cleanup_(freep) float *output = NULL;
	int r;

	r = golden_input_channels_last(run->g, "noise", channels, positions, &noise);
	if (r >= 0)
		r = golden_input_channels_last(run->g, "source", channels, positions, &source);
	if (r >= 0)
		r = caption_set(run, "prompt");
	if (r < 0)
		return r;
	output = malloc(channels * positions * sizeof(float));
	if (!output)
		return -ENOMEM;
	for (int i = 0; i < run->chunks && r >= 0; i++) {
		if (i == run->switch_chunk)
			r = caption_set(run, "prompt2");
		if (r >= 0)
			r = chunk_run(run, i, noise, source, output);
	}
	if (r < 0)
		return run->g->error->code ?
			       r :
			       golden_fail(run->g, "the engine failed: %s", strerror(-r));
	golden_compare_channels_last(run->g, "output", NULL, output, channels, positions);
	return 0;
}

int golden_dit(struct golden *g)
{
	_cleanup_(freep) struct run *run = calloc(1, sizeof(*run));
	_cleanup_(freep) float *host = NULL;
	size_t most;
	int r;

	if (!run)
		return -ENOMEM;
	run->g = g;
	run->tap = (struct dit_tap){ .block = tap_block, .velocity = tap_velocity, .context = run };
	r = config_read(run);
	if (r < 0)
		return r;
	r = golden_place(g, layout, run);
	if (r < 0)
		return r;
	most = (size_t)MAX_OF(run->first, run->usual) * run->height * run->width;
	most = MAX_OF(most, (size_t)run->config.dit.head_dim);
	host = malloc(most *
		      (size_t)MAX_OF(run->config.dit.hidden_size, run->config.dit.in_channels) *
		      sizeof(float));
	if (!host)
		return -ENOMEM;
	run->host = host;
	r = editor_prepare(&run->editor, &g->op, 0);
	return r < 0 ? r : stream_run(run);
}
