/* Opening a model: configuration, weights, tokenizer, back end, one block of memory. */
#include "engine/model.h"

#include "base/file.h"
#include "base/json.h"
#include "engine/synthetic.h"

#include <errno.h>
#include <unistd.h>

enum { MANIFEST_MAX_BYTES = 16 << 20 };

const char *sana_version(void)
{
	return SANA_VERSION;
}

int sana_backends(struct sana_backend_info *ret, int capacity)
{
	int count = 0;

	for (const struct kernel_backend *const *b = backend_list(); *b; b++, count++)
		if (count < capacity)
			ret[count] = (struct sana_backend_info){ (*b)->name, (*b)->description };
	return count;
}

static int vae_walk(const void *config, model_key_visit visit, void *context)
{
	return vae_keys_visit(config, true, visit, context);
}

static int dit_walk(const void *config, model_key_visit visit, void *context)
{
	return dit_keys_visit(config, visit, context);
}

static int text_walk(const void *config, model_key_visit visit, void *context)
{
	return text_keys_visit(config, visit, context);
}

struct network_source {
	const char *name, *directory, *file;
	weights_key_walk walk;
	const void *config;
};

static struct network_source network_source(const struct model_config *config, int network)
{
	const struct network_source all[MODEL_NETWORKS] = {
		[MODEL_DIT] = { "dit", "dit", "model.safetensors", dit_walk, &config->dit },
		[MODEL_VAE] = { "vae", "vae", "diffusion_pytorch_model.safetensors", vae_walk,
				&config->vae },
		[MODEL_TEXT] = { "text", "text_encoder", "model.safetensors", text_walk,
				 &config->text },
	};

	return all[network];
}

static void progress(const struct sana_model_options *options, const char *what, double fraction)
{
	if (options->progress)
		options->progress(options->progress_context, what, fraction);
}

static int network_open(struct sana_model *model, const struct sana_model_options *options, int i,
			struct sana_error *error)
{
	const struct network_source source = network_source(&model->config, i);
	char path[4096];
	int r;

	if (options->shape)
		return synthetic_weights(source.name, options->synthetic_seed, source.walk,
					 source.config, &model->table[i], error);
	if (snprintf(path, sizeof(path), "%s/%s", options->directory, source.directory) >=
	    (int)sizeof(path))
		return sana_error_set(error, -ENAMETOOLONG, "file.open",
				      "The path of the model directory is too long.");
	r = weights_open(path, source.file, &model->table[i], error);
	if (r < 0)
		return r;
	return weights_check(model->table[i], path, source.walk, source.config, error);
}

static int tokenizer_attach(struct sana_model *model, const char *directory,
			    struct sana_error *error)
{
	char path[4096];
	int r, pieces;

	if (snprintf(path, sizeof(path), "%s/text_encoder/tokenizer.model", directory) >=
	    (int)sizeof(path))
		return sana_error_set(error, -ENAMETOOLONG, "file.open",
				      "The path of the model directory is too long.");
	r = tokenizer_open(path, &model->tokenizer, error);
	if (r < 0)
		return r;
	pieces = tokenizer_pieces(model->tokenizer);
	if (pieces > model->config.text.vocab_size)
		return sana_error_set(error, -EINVAL, "model.tokenizer",
				      "%s has %d pieces, the text encoder knows %d: it belongs to "
				      "another text encoder.",
				      path, pieces, model->config.text.vocab_size);
	return prompt_rule_init(&model->rule, model->tokenizer, &model->config.stream, error);
}

/* manifest.json is there after an import and may be absent. */
static int manifest_read(struct sana_model *model, const char *directory, struct sana_error *error)
{
	static const char name[] = "model.manifest";
	_cleanup_(json_decrefp) json_t *manifest = NULL;
	_cleanup_(freep) char *text = NULL;
	struct json_reader reader;
	const char *origin;
	char path[4096];
	size_t length;
	int r;

	if (snprintf(path, sizeof(path), "%s/manifest.json", directory) >= (int)sizeof(path))
		return sana_error_set(error, -ENAMETOOLONG, "file.open",
				      "The path of the model directory is too long.");
	if (access(path, F_OK) < 0)
		return 0;
	r = file_read(path, MANIFEST_MAX_BYTES, name, &text, &length, error);
	if (r < 0)
		return r;
	r = json_parse_object(text, length, JSON_DEFAULT_DEPTH, file_path_tail(path), name,
			      &manifest, error);
	if (r < 0)
		return r;
	reader = (struct json_reader){
		.object = manifest, .where = file_path_tail(path), .name = name, .error = error
	};
	origin = json_get_string_or(&reader, "decoder_origin", sizeof(model->decoder_origin) - 1,
				    "");
	if (reader.status < 0)
		return reader.status;
	(void)snprintf(model->decoder_origin, sizeof(model->decoder_origin), "%s", origin);
	return 0;
}

const char *sana_model_decoder_origin(const struct sana_model *model)
{
	return model->decoder_origin;
}

static int weights_and_tokenizer_open(struct sana_model *model,
				      const struct sana_model_options *options,
				      struct sana_error *error)
{
	const int networks = model->with_text ? MODEL_NETWORKS : MODEL_TEXT;
	int r;

	for (int i = 0; i < networks; i++) {
		progress(options, "weights", 0.5 * i / networks);
		r = network_open(model, options, i, error);
		if (r < 0)
			return r;
	}
	if (options->directory) {
		r = manifest_read(model, options->directory, error);
		if (r < 0)
			return r;
	}
	return model->with_text ? tokenizer_attach(model, options->directory, error) : 0;
}

static int block_take(struct sana_model *model, const struct sana_model_options *options,
		      struct sana_error *error)
{
	const struct kernel_backend *table = model->backend.table;
	struct arena arena;
	const size_t limit = model_memory_limit(model, options->memory_limit_bytes);
	size_t mapped;
	char text[24];
	int r;

	r = model_memory_choose(model, options->weights, limit, error);
	if (r < 0)
		return r;
	r = model_measure(model, &arena, &mapped);
	if (r < 0)
		return sana_error_set(error, r, "memory", "The model cannot be planned: %s.",
				      strerror(-r));
	model->mapped_bytes = mapped;
	model->block_bytes = MAX_OF(arena.used, (size_t)KERNEL_ALIGNMENT);
	r = table->allocate(model->backend.device, model->block_bytes, &model->block);
	if (r < 0 && r != -ENOMEM)
		return backend_fail(error, r);
	if (r < 0) {
		model_bytes_text(model->block_bytes, text, sizeof(text));
		return sana_error_set(error, r, "memory",
				      "No memory for the model's %s: the plan fitted a moment ago, "
				      "so another program has taken it since.",
				      text);
	}
	progress(options, "preparing", 0.5);
	arena_place(&arena, model->block, model->block_bytes);
	r = model_place(model, options, &arena);
	if (r == -ENOENT)
		return sana_error_set(error, r, "model.weights",
				      "The weights cannot be loaded: %s.", strerror(-r));
	if (r < 0)
		return backend_fail(error, r);
	progress(options, "ready", 1.0);
	return 0;
}

static int model_fill(struct sana_model *model, const struct sana_model_options *options,
		      struct sana_error *error)
{
	struct kernel_device_options device;
	int r;

	r = model_config_choose(options, &model->config, error);
	if (r < 0)
		return r;
	model->synthetic = options->shape != NULL;
	model->memory_limit_bytes = options->memory_limit_bytes;
	model->with_text = !options->without_text && !model->synthetic;
	device = model_device_options(options);
	r = backend_open(options->backend ? options->backend : "cpu", &device, &model->backend,
			 error);
	if (r < 0)
		return r;
	r = model->backend.table->queue_create(model->backend.device, 0, &model->queue);
	if (r < 0)
		return backend_fail(error, r);
	r = weights_and_tokenizer_open(model, options, error);
	return r < 0 ? r : block_take(model, options, error);
}

static void model_destroy(struct sana_model *model)
{
	struct backend *backend = &model->backend;

	if (model->queue)
		(void)backend->table->queue_wait(backend->device, model->queue);
	text_encoder_finish(&model->networks.encoder, backend);
	if (model->block)
		backend->table->release(backend->device, model->block, model->block_bytes);
	if (model->queue)
		backend->table->queue_destroy(backend->device, model->queue);
	backend_close(backend);
	for (int i = 0; i < MODEL_NETWORKS; i++)
		weights_destroy(model->table[i]);
	tokenizer_close(model->tokenizer);
	model_config_finish(&model->config);
	(void)pthread_mutex_destroy(&model->text_lock);
	free(model);
}

int sana_model_open(const struct sana_model_options *options, struct sana_model **ret,
		    struct sana_error *error)
{
	struct sana_model *model = calloc(1, sizeof(*model));
	int r;

	if (!model)
		return sana_error_set(error, -ENOMEM, "memory", "No memory for a model.");
	atomic_init(&model->references, 1);
	(void)pthread_mutex_init(&model->text_lock, NULL);
	r = model_fill(model, options, error);
	if (r < 0) {
		model_destroy(model);
		return r;
	}
	*ret = model;
	return 0;
}

struct sana_model *sana_model_ref(struct sana_model *model)
{
	atomic_fetch_add(&model->references, 1);
	return model;
}

struct sana_model *sana_model_unref(struct sana_model *model)
{
	if (model && atomic_fetch_sub(&model->references, 1) == 1)
		model_destroy(model);
	return NULL;
}

const struct model_config *sana_model_config(const struct sana_model *model)
{
	return &model->config;
}

const char *sana_model_backend(const struct sana_model *model)
{
	return model->backend.table->name;
}

const char *sana_model_backend_note(const struct sana_model *model)
{
	return model->backend.note;
}
