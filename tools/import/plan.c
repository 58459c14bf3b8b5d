/* From places on the command line to a checked plan of everything that will be written. */
#include "tools/import/plan.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "engine/model_keys.h"
#include "engine/tokenizer.h"

#define ERROR_NAME "import.source"

enum { MAX_CONFIG_BYTES = 1 << 20, CONFIG_DEPTH = 16, MAX_LINE_BYTES = 1024 };
enum { MAX_TOKENIZER_BYTES = 64 << 20 };

static const char builtin[] = "2b";

static const struct {
	const char *config, *weights;
} files[PART_COUNT] = {
	[PART_DIT] = { "dit/config.json", "dit/model.safetensors" },
	[PART_VAE] = { "vae/config.json", "vae/diffusion_pytorch_model.safetensors" },
	[PART_TEXT] = { "text_encoder/config.json", "text_encoder/model.safetensors" },
};

static const char tokenizer_file[] = "text_encoder/tokenizer.model", stream_file[] = "stream.json";

int text_list_add(struct text_list *list, const char *format, ...)
{
	char text[MAX_LINE_BYTES];
	va_list arguments;
	char **more;

	va_start(arguments, format);
	(void)vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	more = realloc(list->line, (list->count + 1) * sizeof(*more));
	if (!more)
		return -ENOMEM;
	list->line = more;
	list->line[list->count] = strdup(text);
	if (!list->line[list->count])
		return -ENOMEM;
	list->count++;
	return 0;
}

void text_list_finish(struct text_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->line[i]);
	free(list->line);
	*list = (struct text_list){ 0 };
}

static int no_memory(struct sana_error *error)
{
	return sana_error_set(error, -ENOMEM, "import.memory", "No memory to plan the import.");
}

/* ----------------------------------------------------------------------------- small files */

static void small_file_finish(struct small_file *file)
{
	free(file->data);
	free(file->source);
	*file = (struct small_file){ 0 };
}

/* NULL on purpose where `source` is NULL: made here. */
static int small_file_set(struct small_file *file, const char *path, const char *text, size_t bytes,
			  const char *source, struct sana_error *error)
{
	char *data = malloc(bytes + 1), *from = source ? strdup(source) : NULL;

	if (!data || (source && !from)) {
		free(data);
		free(from);
		return no_memory(error);
	}
	memcpy(data, text, bytes);
	data[bytes] = '\0';
	small_file_finish(file);
	*file = (struct small_file){ .path = path, .data = data, .bytes = bytes, .source = from };
	return 0;
}

static int small_file_builtin(struct small_file *file, const char *path, struct sana_error *error)
{
	size_t bytes = 0;
	const char *text = model_config_builtin_text(builtin, path, &bytes);

	return small_file_set(file, path, text ? text : "", bytes, NULL, error);
}

static int small_file_read(struct small_file *file, const char *path, const char *source,
			   size_t limit, struct sana_error *error)
{
	_cleanup_(freep) char *text = NULL;
	size_t bytes;
	int r;

	r = file_read(source, limit, ERROR_NAME, &text, &bytes, error);
	return r < 0 ? r : small_file_set(file, path, text, bytes, source, error);
}

/* directory-of(path)/name */
static int beside(char to[PATH_MAX], const char *path, const char *name)
{
	const char *slash = strrchr(path, '/');
	int n = snprintf(to, PATH_MAX, "%.*s%s", slash ? (int)(slash - path) + 1 : 0, path, name);

	return n < 0 || n >= PATH_MAX ? -ENAMETOOLONG : 0;
}

/* The config.json beside the weights, as an object too; −ENOENT without an error when there is none. */
static int config_beside(struct part *part, json_t **ret, struct sana_error *error)
{
	char path[PATH_MAX];
	int r;

	if (beside(path, part->set->path, "config.json") < 0 || access(path, F_OK) < 0)
		return -ENOENT;
	r = small_file_read(&part->config, files[part->kind].config, path, MAX_CONFIG_BYTES, error);
	if (r < 0)
		return r;
	return json_parse_object(part->config.data, part->config.bytes, CONFIG_DEPTH,
				 file_path_tail(path), "import.config", ret, error);
}

static int config_missing(const struct part *part, struct sana_error *error)
{
	return sana_error_set(error, -ENOENT, ERROR_NAME,
			      "%s: the config.json that belongs beside it is missing.",
			      file_path_tail(part->set->path));
}

/* ----------------------------------------------------------------------------------- parts */

/* The published repository has no configuration of the DiT; it is built in. */
static int dit_configure(struct plan *plan, struct part *part, struct sana_error *error)
{
	_cleanup_(json_decrefp) json_t *object = NULL;
	int r = config_beside(part, &object, error);

	if (r < 0 && r != -ENOENT)
		return r;
	if (r == -ENOENT || !json_object_get(object, "depth")) {
		r = small_file_builtin(&part->config, files[PART_DIT].config, error);
		if (r < 0)
			return r;
	}
	return dit_config_parse(part->config.data, part->config.bytes,
				part->config.source ? file_path_tail(part->config.source) :
						      files[PART_DIT].config,
				&plan->config.dit, error);
}

/* A bidirectional decoder is made causal, and the configuration says so from then on. */
static int vae_make_causal(struct plan *plan, struct part *part, json_t *object,
			   struct sana_error *error)
{
	_cleanup_(freep) char *text = NULL;
	_cleanup_(freep) char *source = TAKE_PTR(part->config.source);
	int r;

	part->converted = true;
	if (json_object_set_new(object, "decoder_causal", json_true()) == 0)
		text = json_dumps(object, JSON_INDENT(1));
	if (!text)
		return no_memory(error);
	r = small_file_set(&part->config, files[PART_VAE].config, text, strlen(text), source,
			   error);
	if (r < 0)
		return r;
	plan->config.vae.decoder_causal = true;
	r = text_list_add(
		&plan->notes,
		"the VAE's decoder looks ahead, which a stream cannot; its kernels are "
		"converted by a rule of thumb (decoder_origin: converted). Expect blurred "
		"motion; the causal VAE of SANA-Streaming is better");
	return r < 0 ? no_memory(error) : 0;
}

static int vae_configure(struct plan *plan, struct part *part, struct sana_error *error)
{
	_cleanup_(json_decrefp) json_t *object = NULL;
	int r = config_beside(part, &object, error);

	if (r == -ENOENT)
		return config_missing(part, error);
	if (r < 0)
		return r;
	r = vae_config_parse(part->config.data, part->config.bytes,
			     file_path_tail(part->config.source), &plan->config.vae, error);
	if (r < 0 || plan->config.vae.decoder_causal)
		return r;
	return vae_make_causal(plan, part, object, error);
}

/* Pieces are numbers into the encoder's table, so both must count the same. */
static int tokenizer_check_fits(const struct plan *plan, const struct part *part, const char *path,
				const json_t *config, struct sana_error *error)
{
	const json_t *bos = json_object_get(config, "bos_token_id");
	struct tokenizer *tokenizer = NULL;
	int r, pieces, first;

	r = tokenizer_open(path, &tokenizer, error);
	if (r < 0)
		return r;
	pieces = tokenizer_pieces(tokenizer);
	first = tokenizer_bos(tokenizer);
	tokenizer_close(tokenizer);
	if (pieces != plan->config.text.vocab_size)
		return sana_error_set(
			error, -EINVAL, "import.tokenizer",
			"%s has %d pieces, but the text encoder %.120s knows %d: it is "
			"another model's tokenizer.",
			file_path_tail(path), pieces, file_path_tail(part->set->path),
			plan->config.text.vocab_size);
	if (json_is_integer(bos) && json_integer_value(bos) != first)
		return sana_error_set(error, -EINVAL, "import.tokenizer",
				      "%s begins texts with piece %d, the text encoder with %d: it "
				      "is another model's tokenizer.",
				      file_path_tail(path), first, (int)json_integer_value(bos));
	return 0;
}

/* The one that was named itself, else the one beside the weights, else the only one. */
static int tokenizer_find(const struct part *part, const struct sources *sources,
			  char ret_path[PATH_MAX], struct sana_error *error)
{
	const struct source *found = NULL;
	bool two = false;

	for (size_t i = 0; i < sources->count; i++) {
		const struct source *source = &sources->source[i];

		if (source->kind != SOURCE_TOKENIZER || (found && found->named && !source->named))
			continue;
		two = found && found->named == source->named;
		found = source;
	}
	if ((!found || !found->named) &&
	    beside(ret_path, part->set->path, "tokenizer.model") >= 0 &&
	    access(ret_path, F_OK) == 0)
		return 0;
	if (two)
		return sana_error_set(error, -EINVAL, ERROR_NAME,
				      "There are two tokenizers, %s is one; name the one that is "
				      "meant.",
				      file_path_tail(found->path));
	if (!found)
		return sana_error_set(error, -ENOENT, ERROR_NAME,
				      "%s: the tokenizer.model that belongs to it is not among the "
				      "sources.",
				      file_path_tail(part->set->path));
	(void)snprintf(ret_path, PATH_MAX, "%s", found->path);
	return 0;
}

static int tokenizer_take(struct plan *plan, struct part *part, const struct sources *sources,
			  const json_t *config, struct sana_error *error)
{
	char path[PATH_MAX];
	int r;

	r = tokenizer_find(part, sources, path, error);
	if (r >= 0 && !plan->only_look)
		r = tokenizer_check_fits(plan, part, path, config, error);
	if (r < 0)
		return r;
	return small_file_read(&part->tokenizer, tokenizer_file, path, MAX_TOKENIZER_BYTES, error);
}

static int text_configure(struct plan *plan, struct part *part, const struct sources *sources,
			  struct sana_error *error)
{
	_cleanup_(json_decrefp) json_t *object = NULL;
	int r = config_beside(part, &object, error);

	if (r == -ENOENT)
		return config_missing(part, error);
	if (r < 0)
		return r;
	r = text_config_parse(part->config.data, part->config.bytes,
			      file_path_tail(part->config.source), &plan->config.text, error);
	return r < 0 ? r : tokenizer_take(plan, part, sources, object, error);
}

static int sum_key(void *context, const struct model_key *key)
{
	uint64_t product = 1, *sum = context;

	for (int d = 0; d < key->rank; d++)
		product *= (uint64_t)key->shape[d];
	*sum += product;
	return 0;
}

static uint64_t elements_of(const struct model_config *config, enum part_kind kind)
{
	uint64_t sum = 0;

	if (kind == PART_DIT)
		(void)dit_keys_visit(&config->dit, sum_key, &sum);
	else if (kind == PART_VAE)
		(void)vae_keys_visit(&config->vae, true, sum_key, &sum);
	else if (kind == PART_TEXT)
		(void)text_keys_visit(&config->text, sum_key, &sum);
	return sum;
}

static int part_configure(struct plan *plan, struct part *part, const struct sources *sources,
			  struct sana_error *error)
{
	_cleanup_(model_config_finish) struct model_config published = { 0 };
	int r = 0;

	if (part->kind == PART_DIT)
		r = dit_configure(plan, part, error);
	else if (part->kind == PART_VAE)
		r = vae_configure(plan, part, error);
	else
		r = text_configure(plan, part, sources, error);
	if (r < 0)
		return r;
	part->out.path = files[part->kind].weights;
	part->out.set = part->set;
	r = part_check(plan, part, error);
	if (r < 0)
		return r;
	r = model_config_builtin(builtin, &published, error);
	if (r < 0)
		return r;
	part->published = elements_of(&plan->config, part->kind) ==
			  elements_of(&published, part->kind);
	return out_file_lay(&part->out, error);
}

/* ------------------------------------------------------------------------------- choosing */

/* 1, 0: as the config.json beside it says; 0 where there is none. */
static bool vae_is_causal(const struct set *set)
{
	_cleanup_(json_decrefp) json_t *object = NULL;
	_cleanup_(freep) char *text = NULL;
	char path[PATH_MAX];
	size_t bytes;

	if (beside(path, set->path, "config.json") < 0 ||
	    file_read(path, MAX_CONFIG_BYTES, ERROR_NAME, &text, &bytes, NULL) < 0 ||
	    json_parse_object(text, bytes, CONFIG_DEPTH, path, ERROR_NAME, &object, NULL) < 0)
		return false;
	return json_is_true(json_object_get(object, "decoder_causal"));
}

/* Gives `set` to its part, or settles which of two is meant. Takes the set in any case. */
static int part_offer(struct plan *plan, enum part_kind kind, struct set *set, const char *looks,
		      struct sana_error *error)
{
	_cleanup_(set_closep) struct set *other = set;
	struct part *part = &plan->part[kind];
	int r;

	if (!part->set) {
		part->kind = kind;
		part->set = TAKE_PTR(other);
		part->looks = looks;
		return 0;
	}
	if (kind != PART_VAE || vae_is_causal(set) == vae_is_causal(part->set))
		return sana_error_set(error, -EINVAL, ERROR_NAME,
				      "Both %.180s and %.180s look like %s; name the one that is "
				      "meant.",
				      part->set->path, set->path, looks);
	if (vae_is_causal(set)) {
		other = part->set;
		part->set = set;
	}
	r = text_list_add(&plan->notes, "%s is left out: the causal VAE %s is there", other->path,
			  part->set->path);
	return r < 0 ? no_memory(error) : 0;
}

/* A sentence that becomes part of a note, which has a full stop of its own. */
static int note_why(struct plan *plan, const struct sana_error *why, struct sana_error *error)
{
	size_t length = strlen(why->text);

	if (length && why->text[length - 1] == '.')
		length--;
	return text_list_add(&plan->notes, "left out: %.*s", (int)length, why->text) < 0 ?
		       no_memory(error) :
		       0;
}

/* What a source turned out to be; a file that was merely found may be anything. */
static int source_take(struct plan *plan, const struct source *source, struct sana_error *why,
		       struct sana_error *error)
{
	struct set *set = NULL;
	enum part_kind kind;
	const char *looks;
	int r;

	r = set_open(source->path, &set, why);
	if (r < 0) {
		if (source->named) {
			if (error)
				*error = *why;
			return r;
		}
		return note_why(plan, why, error);
	}
	kind = family_of(set, &looks);
	if (kind != PART_NONE)
		return part_offer(plan, kind, set, looks, error);
	r = sana_error_set(why, -EINVAL, "import.family",
			   "%s is no part of SANA-Streaming; it looks like %s.",
			   file_path_tail(source->path), looks);
	set_close(set);
	if (source->named) {
		if (error)
			*error = *why;
		return r;
	}
	return note_why(plan, why, error);
}

static int parts_find(struct plan *plan, const struct sources *sources, struct sana_error *error)
{
	struct sana_error why = { 0 };
	int found = 0, r;

	for (size_t i = 0; i < sources->count; i++) {
		const struct source *source = &sources->source[i];

		if (source->kind != SOURCE_WEIGHTS ||
		    (i && strcmp(source->path, sources->source[i - 1].path) == 0))
			continue;
		r = source_take(plan, source, &why, error);
		if (r < 0)
			return r;
	}
	for (int kind = 0; kind < PART_COUNT; kind++)
		found += plan->part[kind].set != NULL;
	if (found)
		return 0;
	if (why.code) {
		if (error)
			*error = why;
		return why.code;
	}
	return sana_error_set(error, -ENOENT, ERROR_NAME,
			      "There is no checkpoint among the sources (*.pth, *.safetensors).");
}

static int parts_are_complete(const struct plan *plan, struct sana_error *error)
{
	for (int kind = 0; kind < PART_COUNT; kind++)
		if (!plan->part[kind].set)
			return sana_error_set(
				error, -ENOENT, "import.incomplete",
				"%s is not among the sources; a model has a DiT, a VAE and a text "
				"encoder. Name it too, or give --partial to import what is there.",
				part_title((enum part_kind)kind));
	return 0;
}

static int stream_configure(struct plan *plan, const struct sources *sources,
			    struct sana_error *error)
{
	const char *found = NULL;
	int r;

	for (size_t i = 0; i < sources->count; i++) {
		if (sources->source[i].kind != SOURCE_STREAM)
			continue;
		if (found)
			return sana_error_set(error, -EINVAL, ERROR_NAME,
					      "Two stream.json: %.200s and %.200s.", found,
					      sources->source[i].path);
		found = sources->source[i].path;
	}
	r = found ? small_file_read(&plan->stream, stream_file, found, MAX_CONFIG_BYTES, error) :
		    small_file_builtin(&plan->stream, stream_file, error);
	if (r < 0)
		return r;
	return stream_config_parse(plan->stream.data, plan->stream.bytes,
				   found ? file_path_tail(found) : stream_file,
				   &plan->config.stream, error);
}

static int plan_model(struct plan *plan, const struct sources *sources, struct sana_error *error)
{
	int r;

	r = parts_find(plan, sources, error);
	if (r >= 0 && !plan->partial)
		r = parts_are_complete(plan, error);
	for (int kind = 0; r >= 0 && kind < PART_COUNT; kind++)
		if (plan->part[kind].set)
			r = part_configure(plan, &plan->part[kind], sources, error);
	if (r >= 0)
		r = stream_configure(plan, sources, error);
	if (r < 0 || plan->partial)
		return r;
	return model_config_check(&plan->config, error);
}

/* Any state dict, every tensor as it is. */
static int plan_raw(struct plan *plan, const struct sources *sources, struct sana_error *error)
{
	struct part *part = &plan->part[0];
	int r;

	if (sources->count != 1 || sources->source[0].kind != SOURCE_WEIGHTS)
		return sana_error_set(error, -EINVAL, ERROR_NAME,
				      "--raw takes one checkpoint file or index; %zu were found.",
				      sources->count);
	r = set_open(sources->source[0].path, &part->set, error);
	if (r < 0)
		return r;
	part->kind = PART_NONE;
	(void)family_of(part->set, &part->looks);
	part->out = (struct out_file){ .path = "model.safetensors", .set = part->set };
	part->out.tensor = calloc(part->set->count + 1, sizeof(*part->out.tensor));
	if (!part->out.tensor)
		return no_memory(error);
	for (size_t i = 0; i < part->set->count; i++)
		part->out.tensor[part->out.count++] =
			(struct out_tensor){ .name = part->set->tensor[i].name,
					     .from = &part->set->tensor[i] };
	return out_file_lay(&part->out, error);
}

static int note_left_out(struct plan *plan, struct sana_error *error)
{
	int r = 0;

	for (int kind = 0; r >= 0 && kind < PART_COUNT; kind++) {
		const struct set *set = plan->part[kind].set;

		if (set && set->left_out)
			r = text_list_add(&plan->notes,
					  "%s: %zu entries are left out, as they are no tensors or "
					  "not in the index",
					  set->path, set->left_out);
	}
	return r < 0 ? no_memory(error) : 0;
}

int plan_make(const struct plan_options *options, struct plan *ret, struct sana_error *error)
{
	_cleanup_(sources_finish) struct sources sources = { 0 };
	int r;

	*ret = (struct plan){ .raw = options->raw,
			      .partial = options->partial,
			      .only_look = options->only_look };
	r = sources_find(options->places, options->count, &sources, error);
	if (r < 0)
		return r;
	r = options->raw ? plan_raw(ret, &sources, error) : plan_model(ret, &sources, error);
	return r < 0 ? r : note_left_out(ret, error);
}

void plan_finish(struct plan *plan)
{
	for (int kind = 0; kind < PART_COUNT; kind++) {
		struct part *part = &plan->part[kind];

		set_close(part->set);
		free(part->out.tensor);
		free(part->out.header);
		small_file_finish(&part->config);
		small_file_finish(&part->tokenizer);
	}
	small_file_finish(&plan->stream);
	model_config_finish(&plan->config);
	text_list_finish(&plan->notes);
	text_list_finish(&plan->differences);
	*plan = (struct plan){ 0 };
}

uint64_t plan_bytes(const struct plan *plan)
{
	uint64_t sum = plan->stream.bytes;

	for (int kind = 0; kind < PART_COUNT; kind++) {
		const struct part *part = &plan->part[kind];

		if (part->set)
			sum += part->out.bytes + part->config.bytes + part->tokenizer.bytes;
	}
	return sum;
}
