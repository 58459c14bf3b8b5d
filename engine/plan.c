/* What a model and a stream take, before anything is taken. */
#include "engine/model.h"
#include "engine/stream.h"

#include <assert.h>
#include <errno.h>

static void lines_append(struct sana_plan *plan, const char *owner, const struct arena *arena)
{
	for (int i = 0; i < arena->lines && plan->lines < SANA_PLAN_LINES; i++) {
		struct sana_plan_line *line = &plan->line[plan->lines++];

		(void)snprintf(line->owner, sizeof(line->owner), "%s", owner);
		(void)snprintf(line->name, sizeof(line->name), "%s", arena->line[i].name);
		line->bytes = arena->line[i].bytes;
		line->count = arena->line[i].count;
	}
}

/* ------------------------------------------------------------------------------ state tables */

struct state_table {
	struct sana_plan *plan;
	const struct model_config *config;
	int height, width; /* latent grid */
	enum kernel_dtype dtype;
};

static struct sana_state_line *state_add(struct state_table *t, int count, size_t bytes_each)
{
	struct sana_state_line *line;

	/* Blocks and first chunk sizes are bounded, so the lines are. */
	assert(t->plan->state_lines < SANA_STATE_LINES);
	line = &t->plan->state[t->plan->state_lines++];
	line->count = count;
	line->bytes_each = bytes_each;
	line->bytes = bytes_each * (size_t)MAX_OF(count, 1);
	return line;
}

static void state_sum(struct state_table *t, size_t bytes, const char *name)
{
	struct sana_state_line *line = state_add(t, 0, bytes);

	(void)snprintf(line->name, sizeof(line->name), "%s", name);
}

static const char *dtype_text(enum kernel_dtype dtype)
{
	return dtype == KERNEL_BF16 ? "BF16" : "F32";
}

/* S, z and the left frame (dit §6.1); returns their sum with S and z in F32. */
static size_t state_fixed(struct state_table *t, const struct cache_line lines[CACHE_LINES])
{
	const struct dit_config *dit = &t->config->dit;
	const int heads = dit->hidden_size / dit->head_dim;
	struct sana_state_line *line;
	size_t sum = 0;

	for (int i = 0; i < 3; i++) {
		const struct cache_line *l = &lines[i];
		const bool left = i == 2;

		line = state_add(t, l->blocks, l->bytes_per_block);
		(void)snprintf(line->name, sizeof(line->name), "%s %s", l->name,
			       left ? dtype_text(t->dtype) : "F32");
		if (left)
			(void)snprintf(line->shape, sizeof(line->shape), "[%d][%d]",
				       t->height * t->width, dit->hidden_size);
		else
			(void)snprintf(line->shape, sizeof(line->shape),
				       i ? "[%d][%d]" : "[%d][%d][%d]", heads, dit->head_dim,
				       dit->head_dim);
		sum += l->bytes;
		if (left || t->dtype != KERNEL_BF16)
			continue;
		line = state_add(t, l->blocks, l->bytes_per_block / 2);
		(void)snprintf(line->name, sizeof(line->name), "%s BF16 (alternative)", l->name);
	}
	return sum;
}

static void state_window(struct state_table *t, const struct cache_line *kv, int first_frames,
			 size_t fixed)
{
	const struct dit_config *dit = &t->config->dit;
	const int frames = first_frames + t->config->stream.chunk_latents;
	struct sana_state_line *line;
	char name[72];

	line = state_add(t, kv->blocks, kv->bytes_per_block);
	(void)snprintf(line->name, sizeof(line->name), "softmax K+V %s, first chunk %d",
		       dtype_text(t->dtype), first_frames);
	(void)snprintf(line->shape, sizeof(line->shape), "2x[%d][%d]",
		       frames * t->height * t->width, dit->hidden_size);
	if (t->dtype == KERNEL_BF16) {
		line = state_add(t, kv->blocks, kv->bytes_per_block / 2);
		(void)snprintf(line->name, sizeof(line->name),
			       "softmax K+V 8-bit (alternative), first chunk %d", first_frames);
	}
	(void)snprintf(name, sizeof(name), "sum, S and z F32, first chunk %d", first_frames);
	state_sum(t, fixed + kv->bytes, name);
}

static void state_dit(struct state_table *t)
{
	const struct stream_config *stream = &t->config->stream;
	const struct dit_config *dit = &t->config->dit;
	struct cache_line lines[CACHE_LINES];
	struct sana_state_line *line;
	size_t fixed = 0;

	for (int i = 0; i < stream->first_chunks; i++) {
		cache_lines(dit, t->height * t->width, stream->chunk_latents,
			    stream->first_chunk_latents[i], t->dtype, lines);
		if (i == 0)
			fixed = state_fixed(t, lines);
		state_window(t, &lines[3], stream->first_chunk_latents[i], fixed);
	}
	line = state_add(t, dit->depth,
			 2 * (size_t)dit->max_tokens * (size_t)dit->hidden_size *
				 kernel_dtype_bytes(t->dtype));
	(void)snprintf(line->name, sizeof(line->name), "text K+V %s per prompt, %d tokens",
		       dtype_text(t->dtype), dit->max_tokens);
	(void)snprintf(line->shape, sizeof(line->shape), "2x[%d][%d]", dit->max_tokens,
		       dit->hidden_size);
}

static size_t state_vae(struct state_table *t, char which)
{
	struct vae_context_line lines[VAE_MAX_CONTEXT_LINES];
	const int ratio = t->config->stream.spatial_ratio;
	const int n = vae_context_lines(&t->config->vae, which, t->height * ratio, t->width * ratio,
					t->dtype, lines);
	struct sana_state_line *line;
	size_t sum = 0;

	for (int i = 0; i < n; i++) {
		line = state_add(t, lines[i].convolutions, lines[i].bytes_each);
		(void)snprintf(line->name, sizeof(line->name), "%.*s",
			       (int)sizeof(lines[i].name) - 1, lines[i].name);
		(void)snprintf(line->shape, sizeof(line->shape), "%dx2x%dx%d", lines[i].channels,
			       lines[i].height, lines[i].width);
		sum += lines[i].bytes;
	}
	state_sum(t, sum, which == 'e' ? "encoder contexts" : "decoder contexts");
	return sum;
}

static void state_lines_fill(struct sana_plan *plan, const struct model_config *config, bool bf16)
{
	struct state_table t = {
		.plan = plan,
		.config = config,
		.height = plan->height / config->stream.spatial_ratio,
		.width = plan->width / config->stream.spatial_ratio,
		.dtype = bf16 ? KERNEL_BF16 : KERNEL_F32,
	};
	size_t contexts;

	state_dit(&t);
	contexts = state_vae(&t, 'e');
	contexts += state_vae(&t, 'd');
	state_sum(&t, contexts, "encoder and decoder contexts");
}

/* -------------------------------------------------------------------------------- the plan */

/* The tokenizer counts the prefix; without one, a byte is a token at most. */
static int rule_bound(struct sana_model *model, const char *directory, struct sana_error *error)
{
	const struct stream_config *stream = &model->config.stream;
	char path[4096];
	int r;

	if (!directory) {
		model->rule = (struct prompt_rule){
			.max_tokens = stream->max_tokens,
			.run_tokens = stream->max_tokens + (int)strlen(stream->chi_prompt),
		};
		return 0;
	}
	if (snprintf(path, sizeof(path), "%s/text_encoder/tokenizer.model", directory) >=
	    (int)sizeof(path))
		return sana_error_set(error, -ENAMETOOLONG, "file.open",
				      "The path of the model directory is too long.");
	r = tokenizer_open(path, &model->tokenizer, error);
	return r < 0 ? r : prompt_rule_init(&model->rule, model->tokenizer, stream, error);
}

static int memory_fill(struct sana_model *model, const struct sana_model_options *options,
		       const struct sana_stream_options *stream, struct sana_plan *plan,
		       struct sana_error *error)
{
	struct arena arena;
	int r;

	plan->available_bytes = model_memory_limit(model, options->memory_limit_bytes);
	r = model_memory_choose(model, options->weights, plan->available_bytes, error);
	if (r < 0 && r != -ENOMEM)
		return r;
	/* Planning tells what would not fit; opening refuses it. */
	sana_error_clear(error);
	r = model_measure(model, &arena, &plan->mapped_bytes);
	if (r < 0)
		return sana_error_set(error, r, "memory", "The model cannot be planned: %s.",
				      strerror(-r));
	plan->model_bytes = arena.used;
	lines_append(plan, "model", &arena);
	r = stream_measure(model, stream, &arena, error);
	if (r < 0)
		return r;
	plan->stream_bytes = arena.used;
	lines_append(plan, "stream", &arena);
	plan->fits = plan->model_bytes <= plan->available_bytes &&
		     plan->stream_bytes <= plan->available_bytes - plan->model_bytes;
	return 0;
}

static void cost_fill(const struct model_config *config, struct sana_plan *plan)
{
	const int ratio = config->stream.spatial_ratio;
	const int area = (plan->height / ratio) * (plan->width / ratio);
	const int latents = plan->chunk_latents;

	plan->text_rows = config->dit.max_tokens;
	plan->passes = config->stream.steps + 1;
	plan->dit_pass_flops = dit_pass_flops(&config->dit, latents, area,
					      (plan->first_chunk_latents + latents) * area,
					      plan->text_rows);
	plan->encode_flops = vae_encode_flops(&config->vae, plan->height, plan->width, latents);
	plan->decode_flops = vae_decode_flops(&config->vae, plan->height, plan->width, latents);
}

static int plan_fill(struct sana_model *model, const struct sana_model_options *options,
		     const struct sana_stream_options *stream_options, bool bf16,
		     struct sana_plan *plan, struct sana_error *error)
{
	_cleanup_(freep) struct sana_stream *stream = calloc(1, sizeof(*stream));
	struct kernel_device_options device;
	int r;

	if (!stream)
		return sana_error_set(error, -ENOMEM, "memory", "No memory for a plan.");
	r = model_config_choose(options, &model->config, error);
	if (r < 0)
		return r;
	device = model_device_options(options);
	r = backend_open(options->backend ? options->backend : "cpu", &device, &model->backend,
			 error);
	if (r < 0)
		return r;
	model->with_text = !options->without_text;
	if (model->with_text) {
		r = rule_bound(model, options->directory, error);
		if (r < 0)
			return r;
	}
	r = stream_init(stream, model, stream_options, error);
	if (r < 0)
		return r;
	(void)snprintf(plan->name, sizeof(plan->name), "%s", model->config.stream.name);
	(void)snprintf(plan->backend, sizeof(plan->backend), "%s", model->backend.table->name);
	plan->width = stream->width;
	plan->height = stream->height;
	plan->chunk_latents = model->config.stream.chunk_latents;
	plan->chunk_frames = plan->chunk_latents * model->config.stream.temporal_ratio;
	plan->first_chunk_latents = stream->options.first_chunk_latents;
	r = memory_fill(model, options, stream_options, plan, error);
	if (r < 0)
		return r;
	r = plan_ops_fill(stream, plan);
	if (r < 0)
		return sana_error_set(error, r, "memory", "The ops cannot be planned: %s.",
				      strerror(-r));
	state_lines_fill(plan, &model->config, bf16);
	cost_fill(&model->config, plan);
	return 0;
}

int sana_plan(const struct sana_model_options *model_options,
	      const struct sana_stream_options *stream_options, bool state_bf16,
	      struct sana_plan *ret, struct sana_error *error)
{
	_cleanup_(freep) struct sana_model *model = calloc(1, sizeof(*model));
	_cleanup_(freep) struct sana_plan *plan = calloc(1, sizeof(*plan));
	struct sana_stream_options defaults;
	int r;

	if (!model || !plan)
		return sana_error_set(error, -ENOMEM, "memory", "No memory for a plan.");
	sana_stream_options_init(&defaults);
	r = plan_fill(model, model_options, stream_options ? stream_options : &defaults, state_bf16,
		      plan, error);
	backend_close(&model->backend);
	tokenizer_close(model->tokenizer);
	model_config_finish(&model->config);
	if (r >= 0)
		*ret = *plan;
	return r;
}
