/* How much a model takes and which networks are widened. */
#include "engine/model.h"

#include "engine/stream.h"

#include <errno.h>

/* The program itself and the pages of mapped weights need some of what is free. */
static const double usable_share_of_memory = 0.9;

void model_bytes_text(size_t bytes, char *to, size_t to_bytes)
{
	static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB" };
	double value = (double)bytes;
	size_t unit = 0;

	while (value >= 1024 && unit + 1 < ARRAY_SIZE(units)) {
		value /= 1024;
		unit++;
	}
	(void)snprintf(to, to_bytes, unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
}

size_t model_memory_limit(const struct sana_model *model, size_t wanted)
{
	const size_t available = model->backend.table->memory_available(model->backend.device);

	if (wanted)
		return wanted;
	return available ? (size_t)((double)available * usable_share_of_memory) : SIZE_MAX;
}

struct kernel_device_options model_device_options(const struct sana_model_options *options)
{
	return (struct kernel_device_options){ .threads = options->threads,
					       .deterministic = options->deterministic,
					       .tuning_directory = options->tuning_directory };
}

int model_config_choose(const struct sana_model_options *options, struct model_config *ret,
			struct sana_error *error)
{
	if (options->directory && options->shape)
		return sana_error_set(error, -EINVAL, "model.options",
				      "Give a model directory or a shape, not both.");
	if (options->directory)
		return model_config_load(options->directory, ret, error);
	if (options->shape)
		return model_config_builtin(options->shape, ret, error);
	return sana_error_set(error, -EINVAL, "model.options",
			      "No model: give a model directory (or a shape such as \"2b\").");
}

static void networks_load(struct sana_model *model, struct loader *loader, size_t *mapped)
{
	struct model_networks *n = &model->networks;
	const struct model_config *config = &model->config;

	for (int i = 0; i < MODEL_NETWORKS; i++) {
		const size_t before = loader->matrix_bytes;

		loader->table = model->table[i];
		loader->prepare = model->prepare[i];
		if (i == MODEL_DIT) {
			loader->line = "weights/DiT";
			dit_weights_load(loader, &config->dit, &config->stream, &n->dit);
		} else if (i == MODEL_VAE) {
			loader->line = "weights/VAE";
			vae_weights_load(loader, &config->vae, true, &n->vae);
		} else if (model->with_text) {
			loader->line = "weights/text encoder";
			text_weights_load(loader, &config->text, &n->text);
		}
		if (!model->prepare[i])
			*mapped += loader->matrix_bytes - before;
	}
}

/* The text encoder's buffers and the workspace its ops want. */
static void encoder_layout(struct sana_model *model, struct arena *arena)
{
	struct text_encoder *encoder = &model->networks.encoder;

	*encoder = (struct text_encoder){
		.config = &model->config.text,
		.weights = &model->networks.text,
		.softcap = model->config.stream.text_softcap,
		.max_tokens = model->rule.run_tokens,
	};
	text_encoder_layout(encoder, &model->backend, arena);
	model->networks.features =
		arena_take(arena, "text encoder/caption rows (F32)",
			   (size_t)model->rule.run_tokens * (size_t)model->config.text.hidden_size,
			   sizeof(float));
}

/* The second half of opening a model. */
static void weights_progress(void *context, double fraction)
{
	const struct sana_model_options *options = context;

	options->progress(options->progress_context, "preparing", 0.5 + 0.5 * fraction);
}

/*
 * Runs over the same layout twice: measuring, then placed with the weights loaded; options, for its
 * progress, are given then.
 */
static int model_layout(struct sana_model *model, struct arena *arena,
			const struct sana_model_options *options, size_t *mapped)
{
	const bool measuring = options == NULL;
	struct loader loader = {
		.backend = &model->backend,
		.queue = model->queue,
		.arena = arena,
		.measuring = measuring,
		.progress = options && options->progress ? weights_progress : NULL,
		.progress_context = (void *)(uintptr_t)options,
	};
	struct op_context *op = &model->text_op;
	const void *hidden;

	networks_load(model, &loader, mapped);
	if (loader.status < 0 || !model->with_text)
		return loader.status;
	encoder_layout(model, arena);
	if (measuring) {
		*op = (struct op_context){ .backend = &model->backend, .planning = true };
		(void)text_encoder_run(&model->networks.encoder, op, NULL, NULL,
				       model->rule.run_tokens, &hidden);
	}
	op->workspace.data = arena_take(arena, "text encoder/workspace", op->workspace.bytes, 1);
	return op->status;
}

int model_measure(struct sana_model *model, struct arena *arena, size_t *ret_mapped)
{
	size_t mapped = 0;
	int r;

	arena_measure(arena);
	r = model_layout(model, arena, NULL, &mapped);
	if (r < 0)
		return r;
	if (arena->overflowed)
		return -EOVERFLOW;
	*ret_mapped = mapped;
	return 0;
}

int model_place(struct sana_model *model, const struct sana_model_options *options,
		struct arena *arena)
{
	struct op_context *op = &model->text_op;
	size_t mapped = 0;
	int r;

	r = model_layout(model, arena, options, &mapped);
	if (r < 0 || !model->with_text)
		return r;
	op->planning = false;
	op->queue = model->queue;
	op->alive = options->alive;
	op->alive_context = options->alive_context;
	return text_encoder_prepare(&model->networks.encoder, op);
}

/* Bytes of the model's block plus those of a stream with default options. */
static int total_measure(struct sana_model *model, size_t *ret_model, size_t *ret_stream)
{
	struct sana_stream_options options;
	struct arena arena;
	size_t mapped;
	int r;

	r = model_measure(model, &arena, &mapped);
	if (r < 0)
		return r;
	*ret_model = arena.used;
	model->mapped_bytes = mapped;
	sana_stream_options_init(&options);
	r = stream_measure(model, &options, &arena, NULL);
	if (r < 0)
		return r;
	*ret_stream = arena.used;
	return 0;
}

int model_memory_choose(struct sana_model *model, enum sana_weights_mode mode, size_t limit,
			struct sana_error *error)
{
	/* The text encoder runs once per prompt, the VAE once and the DiT five times per chunk. */
	static const bool choices[][MODEL_NETWORKS] = {
		{ true, true, true },	{ true, true, false },	 { true, false, false },
		{ false, true, false }, { false, false, false },
	};
	/* Where weights must be on the device, those of the text encoder come layer by layer, or stay. */
	const bool on_device = model->backend.table->weights_on_device;
	const size_t last = on_device ? 1 : ARRAY_SIZE(choices) - 1;
	const size_t first = mode == SANA_WEIGHTS_MAPPED	    ? last :
			     on_device && mode == SANA_WEIGHTS_AUTO ? 1 :
								      0;
	size_t of_model = 0, of_stream = 0, total = 0;
	char need[24], have[24], stream_text[24];
	int r;

	for (size_t i = first; i <= last; i++) {
		memcpy(model->prepare, choices[i], sizeof(model->prepare));
		r = total_measure(model, &of_model, &of_stream);
		if (r == -ENOTSUP)
			return sana_error_set(error, r, "backend.unsupported",
					      "The back end has no kernel for a size of this "
					      "model: choose another back end.");
		if (r < 0)
			return sana_error_set(error, r, "memory",
					      "The model cannot be planned: %s.", strerror(-r));
		total = of_model + of_stream;
		if (total <= limit)
			return 0;
		if (mode == SANA_WEIGHTS_WIDENED)
			break;
	}
	model_bytes_text(total, need, sizeof(need));
	model_bytes_text(of_stream, stream_text, sizeof(stream_text));
	model_bytes_text(limit, have, sizeof(have));
	return sana_error_set(
		error, -ENOMEM, "memory",
		"The model and one stream need %s (the stream %s of it) and %s are free; "
		"choose a smaller picture, mapped weights, or free memory.",
		need, stream_text, have);
}

int model_memory_check(const struct sana_model *model, size_t stream_bytes,
		       struct sana_error *error)
{
	const size_t limit = model_memory_limit(model, model->memory_limit_bytes);
	/* What is free is so beside the model's block; a limit that was given is for both. */
	const size_t taken = model->memory_limit_bytes ? model->block_bytes : 0;
	const size_t left = limit - MIN_OF(taken, limit);
	char need[24], have[24];

	if (stream_bytes <= left)
		return 0;
	model_bytes_text(stream_bytes, need, sizeof(need));
	model_bytes_text(left, have, sizeof(have));
	return sana_error_set(
		error, -ENOMEM, "memory",
		"The stream needs %s and %s are left for it; choose a smaller picture, "
		"a higher limit, or free memory.",
		need, have);
}
