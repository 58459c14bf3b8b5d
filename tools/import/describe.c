/* Looking without copying: headers, configurations, the manifest and the memory plan. */
#include "tools/import/describe.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "engine/sana.h"
#include "tools/import/digest.h"
#include "tools/import/plan.h"

enum { MAX_MANIFEST_BYTES = 16 << 20, MANIFEST_DEPTH = 16, VERIFY_BYTES = 4 << 20 };

int describe_print_json(json_t *object)
{
	int r = object ? json_dumpf(object, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(7)) : -1;

	if (r == 0)
		r = putchar('\n') == EOF || fflush(stdout) == EOF;
	json_decref(object);
	return r ? -EIO : 0;
}

/* -------------------------------------------------------------------------------------- facts */

/* {"BF16": {"tensors": n, "parameters": n, "bytes": n}, …} */
static json_t *precision_json(const struct set *set)
{
	json_t *types = json_object();

	for (int d = 0; d < SAFETENSORS_DTYPE_COUNT; d++) {
		uint64_t bytes = 0;
		size_t count = 0;

		for (size_t i = 0; i < set->count; i++) {
			if ((int)set->tensor[i].dtype != d)
				continue;
			bytes += set->tensor[i].bytes;
			count++;
		}
		if (count)
			(void)json_object_set_new(
				types, safetensors_dtype_name((enum safetensors_dtype)d),
				json_pack("{s:I, s:I, s:I}", "tensors", (json_int_t)count,
					  "parameters",
					  (json_int_t)(bytes / safetensors_dtype_bytes(
								       (enum safetensors_dtype)d)),
					  "bytes", (json_int_t)bytes));
	}
	return types;
}

static json_t *tensors_json(const struct set *set)
{
	json_t *list = json_array();

	for (size_t i = 0; i < set->count; i++) {
		const struct set_tensor *tensor = &set->tensor[i];
		json_t *shape = json_array();

		for (int d = 0; d < tensor->rank; d++)
			(void)json_array_append_new(shape, json_integer(tensor->shape[d]));
		(void)json_array_append_new(
			list, json_pack("{s:s, s:s, s:o, s:I}", "name", tensor->name, "dtype",
					safetensors_dtype_name(tensor->dtype), "shape", shape,
					"bytes", (json_int_t)tensor->bytes));
	}
	return list;
}

static json_t *set_json(const struct set *set, const char *looks, bool tensors)
{
	json_t *paths = json_array(), *object;

	for (size_t i = 0; i < set->files; i++)
		(void)json_array_append_new(paths, json_pack("{s:s, s:I}", "path",
							     set->file[i].path, "bytes",
							     (json_int_t)set->file[i].source.size));
	object = json_pack("{s:s, s:s, s:s, s:o, s:I, s:I, s:I, s:o}", "looks_like", looks,
			   "format", set->format, "nesting", set->nesting, "files", paths,
			   "tensors", (json_int_t)set->count, "parameters",
			   (json_int_t)set_parameters(set), "bytes", (json_int_t)set_bytes(set),
			   "precision", precision_json(set));
	if (tensors)
		(void)json_object_set_new(object, "tensor_list", tensors_json(set));
	return object;
}

static json_t *lines_json(const struct text_list *list)
{
	json_t *array = json_array();

	for (size_t i = 0; i < list->count; i++)
		(void)json_array_append_new(array, json_string(list->line[i]));
	return array;
}

/* NULL when there is none, or it is not JSON. */
static json_t *manifest_read(const char *directory)
{
	_cleanup_(freep) char *text = NULL;
	char path[PATH_MAX];
	json_t *object = NULL;
	size_t bytes;
	int n;

	n = snprintf(path, sizeof(path), "%s/manifest.json", directory);
	if (n < 0 || (size_t)n >= sizeof(path) || access(path, F_OK) < 0 ||
	    file_read(path, MAX_MANIFEST_BYTES, "import.manifest", &text, &bytes, NULL) < 0)
		return NULL;
	(void)json_parse_object(text, bytes, MANIFEST_DEPTH, path, "import.manifest", &object,
				NULL);
	return object;
}

/* ------------------------------------------------------------------------------------ digests */

static int source_digest(const struct byte_source *source, void *buffer, struct digest *digest)
{
	int r = 0;

	digest_init(digest);
	while (r >= 0 && digest->at < source->size) {
		size_t bytes = (size_t)MIN_OF(source->size - digest->at, (uint64_t)VERIFY_BYTES);

		r = byte_source_read(source, digest->at, buffer, bytes);
		if (r >= 0)
			digest_add(digest, buffer, bytes);
	}
	return r;
}

static int file_digest(const char *path, char to[DIGEST_TEXT_BYTES], struct sana_error *error)
{
	struct byte_source source = { .fd = -1 };
	struct digest digest;
	void *buffer;
	int r;

	r = byte_source_open(path, "import.verify", &source, error);
	if (r < 0)
		return r;
	buffer = malloc(VERIFY_BYTES);
	r = buffer ? source_digest(&source, buffer, &digest) : -ENOMEM;
	free(buffer);
	byte_source_close(&source);
	if (r < 0)
		return sana_error_set(error, r, "import.verify", "%s: cannot read: %s.",
				      file_path_tail(path), strerror(-r));
	digest_text(&digest, to);
	return 0;
}

/* One list of results of the manifest against the files. */
static int results_verify(const char *directory, const json_t *results, struct sana_error *error)
{
	const json_t *result;
	size_t i;

	json_array_foreach((json_t *)results, i, result)
	{
		const char *name = json_string_value(json_object_get(result, "path"));
		const char *wanted = json_string_value(json_object_get(result, "sha256"));
		char path[PATH_MAX], got[DIGEST_TEXT_BYTES];
		int r;

		if (!name || !wanted || name[0] == '/' || strstr(name, ".."))
			return sana_error_set(error, -EINVAL, "import.verify",
					      "%s: its manifest.json is damaged.",
					      file_path_tail(directory));
		r = snprintf(path, sizeof(path), "%s/%s", directory, name);
		if (r < 0 || (size_t)r >= sizeof(path))
			return -ENAMETOOLONG;
		r = file_digest(path, got, error);
		if (r < 0)
			return r;
		if (strcmp(got, wanted) != 0)
			return sana_error_set(error, -EBADMSG, "import.verify",
					      "%s has SHA-256 %s instead of %s; import it again.",
					      file_path_tail(path), got, wanted);
	}
	return 0;
}

static int verify(const char *directory, const json_t *manifest, struct sana_error *error)
{
	const json_t *part;
	const char *name;
	int r;

	if (!manifest)
		return sana_error_set(error, -ENOENT, "import.verify",
				      "%s has no manifest.json to compare with.",
				      file_path_tail(directory));
	r = results_verify(directory, json_object_get(manifest, "other_results"), error);
	json_object_foreach(json_object_get(manifest, "parts"), name, part)
	{
		if (r >= 0)
			r = results_verify(directory, json_object_get(part, "results"), error);
	}
	return r;
}

/* --------------------------------------------------------------------------------- memory plan */

/* NULL and *ret_why where there is none. */
static json_t *memory_json(const struct describe_options *options, const char **ret_why,
			   struct sana_error *why)
{
	_cleanup_(freep) struct sana_plan *plan = calloc(1, sizeof(*plan));
	struct sana_model_options model = { .directory = options->path };
	struct sana_stream_options stream;
	json_t *lines = json_array();

	sana_stream_options_init(&stream);
	stream.width = options->width;
	stream.height = options->height;
	if (!plan || sana_plan(&model, &stream, true, plan, why) < 0) {
		json_decref(lines);
		*ret_why = why->text[0] ? why->text : "no memory";
		return NULL;
	}
	for (int i = 0; i < plan->lines; i++)
		(void)json_array_append_new(lines, json_pack("{s:s, s:s, s:I}", "owner",
							     plan->line[i].owner, "name",
							     plan->line[i].name, "bytes",
							     (json_int_t)plan->line[i].bytes));
	return json_pack("{s:s, s:i, s:i, s:s, s:I, s:I, s:I, s:I, s:b, s:o}", "model", plan->name,
			 "width", plan->width, "height", plan->height, "backend", plan->backend,
			 "model_bytes", (json_int_t)plan->model_bytes, "stream_bytes",
			 (json_int_t)plan->stream_bytes, "mapped_bytes",
			 (json_int_t)plan->mapped_bytes, "available_bytes",
			 (json_int_t)plan->available_bytes, "fits", plan->fits, "lines", lines);
}

/* --------------------------------------------------------------------------------------- text */

static double giga(const json_t *bytes)
{
	return (double)json_integer_value(bytes) / 1e9;
}

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

static long long number_of(const json_t *object, const char *key)
{
	return (long long)json_integer_value(json_object_get(object, key));
}

static void tensor_print(const json_t *tensor)
{
	const json_t *shape = json_object_get(tensor, "shape");

	(void)printf("  %-64s %-5s [", text_of(tensor, "name"), text_of(tensor, "dtype"));
	for (size_t d = 0; d < json_array_size(shape); d++)
		(void)printf("%s%lld", d ? ", " : "",
			     (long long)json_integer_value(json_array_get(shape, d)));
	(void)printf("]\n");
}

/* What the manifest says of a part; nothing where there is none. */
static void manifest_print(const json_t *manifest)
{
	const char *origin = text_of(manifest, "decoder_origin");
	const json_t *result;
	size_t i;

	json_array_foreach(json_object_get(manifest, "results"), i, result)
	{
		(void)printf("  sha256   %s  %s\n", text_of(result, "sha256"),
			     text_of(result, "path"));
	}
	if (origin[0])
		(void)printf("  decoder  %s\n",
			     strcmp(origin, "converted") == 0 ?
				     "converted from the bidirectional VAE by a rule: a stand-in" :
				     "causal, as published");
	if (manifest)
		(void)printf("  licence  %s\n", text_of(manifest, "licence"));
}

static void part_print(const char *name, const json_t *part, const json_t *manifest)
{
	const json_t *entry;
	const char *key;
	size_t i;

	(void)printf("%s: %s, %lld tensors, %lld parameters, %.3f GB\n", name,
		     text_of(part, "looks_like"), number_of(part, "tensors"),
		     number_of(part, "parameters"), giga(json_object_get(part, "bytes")));
	json_object_foreach(json_object_get(part, "precision"), key, entry)
	{
		(void)printf("  %-8s %lld tensors, %lld parameters\n", key,
			     number_of(entry, "tensors"), number_of(entry, "parameters"));
	}
	json_array_foreach(json_object_get(part, "files"), i, entry)
	{
		(void)printf("  file     %s, %.3f GB\n", text_of(entry, "path"),
			     giga(json_object_get(entry, "bytes")));
	}
	if (text_of(part, "nesting")[0])
		(void)printf("  nesting  %s\n", text_of(part, "nesting"));
	manifest_print(manifest);
	json_array_foreach(json_object_get(part, "tensor_list"), i, entry)
	{
		tensor_print(entry);
	}
}

static void memory_print(const json_t *object)
{
	const json_t *memory = json_object_get(object, "memory");
	const char *why = json_string_value(json_object_get(object, "no_memory_plan"));

	if (why)
		(void)printf("memory: no plan: %s\n", why);
	if (!memory)
		return;
	(void)printf("memory at %" JSON_INTEGER_FORMAT "x%" JSON_INTEGER_FORMAT
		     " on the back end \"%s\": model %.3f GB, stream %.3f GB, left in files %.3f "
		     "GB; %.3f GB are free: it %s\n",
		     json_integer_value(json_object_get(memory, "width")),
		     json_integer_value(json_object_get(memory, "height")),
		     json_string_value(json_object_get(memory, "backend")),
		     giga(json_object_get(memory, "model_bytes")),
		     giga(json_object_get(memory, "stream_bytes")),
		     giga(json_object_get(memory, "mapped_bytes")),
		     giga(json_object_get(memory, "available_bytes")),
		     json_is_true(json_object_get(memory, "fits")) ? "fits" : "does not fit");
}

static int text_print(const json_t *object)
{
	const json_t *manifest = json_object_get(object, "manifest"), *part, *line;
	const char *name;
	size_t i;

	(void)printf("%s: %s\n", json_string_value(json_object_get(object, "path")),
		     json_string_value(json_object_get(object, "what")));
	json_object_foreach(json_object_get(object, "parts"), name, part)
	{
		part_print(name, part, json_object_get(json_object_get(manifest, "parts"), name));
	}
	json_array_foreach(json_object_get(object, "notes"), i, line)
	{
		(void)printf("note: %s\n", json_string_value(line));
	}
	json_array_foreach(json_object_get(object, "differences"), i, line)
	{
		(void)printf("difference: %s\n", json_string_value(line));
	}
	memory_print(object);
	if (json_is_true(json_object_get(object, "verified")))
		(void)printf("digests: all files are those of the manifest\n");
	return fflush(stdout) == EOF ? -EIO : 0;
}

/* -------------------------------------------------------------------------------------- whole */

static int file_describe(const struct describe_options *options, json_t *object,
			 struct sana_error *error)
{
	_cleanup_(set_closep) struct set *set = NULL;
	const char *looks;
	int r = set_open(options->path, &set, error);

	if (r < 0)
		return r;
	(void)family_of(set, &looks);
	(void)json_object_set_new(object, "what", json_string("one checkpoint"));
	(void)json_object_set_new(object, "parts",
				  json_pack("{s:o}", "file",
					    set_json(set, looks, options->tensors)));
	return 0;
}

static const char *directory_kind(const struct plan *plan, const char *directory)
{
	char path[PATH_MAX];
	int parts = 0;

	for (int kind = 0; kind < PART_COUNT; kind++)
		parts += plan->part[kind].set != NULL;
	(void)snprintf(path, sizeof(path), "%s/stream.json", directory);
	if (access(path, F_OK) < 0)
		return plan->raw ? "an imported state dict" : "downloaded files";
	return parts == PART_COUNT ? "a model directory" : "an incomplete model directory";
}

static int directory_describe(const struct describe_options *options, json_t *object,
			      struct plan *plan, struct sana_error *error)
{
	const char *place = options->path, *kind, *why_text = NULL;
	struct plan_options wanted = {
		.places = (char *const *)&place, .count = 1, .partial = true, .only_look = true
	};
	struct sana_error why = { 0 };
	json_t *parts = json_object(), *memory;
	int r;

	(void)json_object_set_new(object, "parts", parts);
	r = plan_make(&wanted, plan, error);
	if (r < 0 && !plan->differences.count) {
		struct sana_error raw_error = { 0 };
		struct plan raw;

		/* An imported state dict of any other model. */
		wanted.raw = true;
		if (json_object_get(json_object_get(object, "manifest"), "raw") &&
		    plan_make(&wanted, &raw, &raw_error) >= 0) {
			plan_finish(plan);
			*plan = raw;
			r = 0;
		}
	}
	if (r < 0 && !plan->differences.count)
		return r;
	for (int i = 0; i < PART_COUNT; i++) {
		const struct part *part = &plan->part[i];

		if (part->set)
			(void)json_object_set_new(parts, plan->raw ? "raw" : part_name(part->kind),
						  set_json(part->set, part->looks,
							   options->tensors));
	}
	kind = directory_kind(plan, options->path);
	(void)json_object_set_new(object, "what", json_string(kind));
	(void)json_object_set_new(object, "notes", lines_json(&plan->notes));
	(void)json_object_set_new(object, "differences", lines_json(&plan->differences));
	if (strcmp(kind, "a model directory") != 0 || r < 0)
		return r;
	memory = memory_json(options, &why_text, &why);
	if (memory)
		(void)json_object_set_new(object, "memory", memory);
	else
		(void)json_object_set_new(object, "no_memory_plan", json_string(why_text));
	/* A size that was asked for and cannot be is an answer, not a note. */
	if (memory || !options->width)
		return 0;
	if (error)
		*error = why;
	return why.code ? why.code : -ENOMEM;
}

int describe(const struct describe_options *options, struct sana_error *error)
{
	json_t *object = json_pack("{s:s}", "path", options->path), *manifest;
	struct plan plan = { 0 };
	struct stat status;
	int r, printed;

	if (!object)
		return sana_error_set(error, -EINVAL, "import.source", "The path is not UTF-8.");
	if (stat(options->path, &status) < 0) {
		json_decref(object);
		return sana_error_set(error, -errno, "import.source", "%s: %s.",
				      file_path_tail(options->path), strerror(errno));
	}
	manifest = S_ISDIR(status.st_mode) ? manifest_read(options->path) : NULL;
	if (manifest)
		(void)json_object_set_new(object, "manifest", manifest);
	r = S_ISDIR(status.st_mode) ? directory_describe(options, object, &plan, error) :
				      file_describe(options, object, error);
	if (r >= 0 && options->verify) {
		r = verify(options->path, manifest, error);
		(void)json_object_set_new(object, "verified", json_boolean(r >= 0));
	}
	if (json_object_get(object, "what")) {
		printed = options->json ? describe_print_json(json_incref(object)) :
					  text_print(object);
		r = r < 0 ? r : printed;
	}
	json_decref(object);
	plan_finish(&plan);
	return r;
}
