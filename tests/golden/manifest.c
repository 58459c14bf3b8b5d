/* A golden manifest: its JSON, the weights and inputs it describes, the tensor file beside it. */
#include "tests/golden/manifest.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>

#include "base/file.h"
#include "engine/synthetic.h"

/* Elements of all weights together: far beyond any golden, far below what a machine cannot hold. */
#define GOLDEN_ELEMENTS_LIMIT ((size_t)1 << 30)

static const char error_name[] = "golden.manifest";
static const char file_error_name[] = "golden.tensors";

/* What the manifest says of one generated tensor. */
struct recipe {
	int rank;
	int64_t shape[GOLDEN_RANK];
	size_t count;
	double offset, scale;
};

int golden_fail(struct golden *g, const char *format, ...)
{
	char text[SANA_ERROR_TEXT_BYTES];
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	return sana_error_set(g->error, -EINVAL, error_name, "%.200s: %s", g->path, text);
}

static struct json_reader reader_over(struct golden *g, const json_t *object, const char *prefix)
{
	return (struct json_reader){
		.object = object,
		.where = g->path,
		.prefix = prefix,
		.name = error_name,
		.error = g->error,
	};
}

struct json_reader golden_config(struct golden *g)
{
	return reader_over(g, g->config, "config.");
}

/* The object called `key` of the manifest; NULL and an error when it is not there. */
static const json_t *manifest_object(struct golden *g, const char *key)
{
	const json_t *object = json_object_get(g->manifest, key);

	if (json_is_object(object))
		return object;
	(void)golden_fail(g, "\"%s\" must be an object {…}.", key);
	return NULL;
}

static int recipe_read(struct golden *g, const char *group, const char *name, const json_t *entry,
		       int max_rank, struct recipe *ret)
{
	char plain[GOLDEN_NAME_BYTES], prefix[GOLDEN_NAME_BYTES + 16];
	struct recipe recipe = { .count = 1 };
	int shape[GOLDEN_RANK] = { 0 };
	struct json_reader reader;

	json_plain_text(plain, sizeof(plain), name);
	if (!json_is_object(entry))
		return golden_fail(g, "\"%s.%s\" must be an object {…}.", group, plain);
	(void)snprintf(prefix, sizeof(prefix), "%s.%s.", group, plain);
	reader = reader_over(g, entry, prefix);
	recipe.rank = json_get_integers(&reader, "shape", 1, INT32_MAX, 1, max_rank, shape);
	recipe.offset = json_get_number(&reader, "offset", -1e6, 1e6);
	recipe.scale = json_get_number(&reader, "scale", -1e6, 1e6);
	if (reader.status < 0)
		return reader.status;
	for (int d = 0; d < recipe.rank; d++) {
		recipe.shape[d] = shape[d];
		if (size_mul_overflows(recipe.count, (size_t)shape[d], &recipe.count) ||
		    recipe.count > GOLDEN_ELEMENTS_LIMIT)
			return golden_fail(g, "\"%s.%s\" has too many elements.", group, plain);
	}
	*ret = recipe;
	return 0;
}

static int weight_make(struct golden *g, const char *name, const struct recipe *recipe)
{
	_cleanup_(freep) uint16_t *values = malloc(recipe->count * sizeof(*values));
	struct weight_tensor tensor = {
		.name = (char *)name,
		.dtype = KERNEL_BF16,
		.rank = recipe->rank,
		.data = values,
	};
	int r;

	if (!values)
		return golden_fail(g, "no memory for the weight \"%.100s\".", name);
	memcpy(tensor.shape, recipe->shape, sizeof(tensor.shape));
	synthetic_fill_bf16(g->tag, name, recipe->offset, recipe->scale, 0, recipe->count, values);
	r = weights_add(g->weights, &tensor, true);
	if (r < 0)
		return golden_fail(g, "the weight \"%.100s\" cannot be kept: %s.", name,
				   strerror(-r));
	return 0;
}

static int weights_make(struct golden *g)
{
	const json_t *object = manifest_object(g, "weights");
	struct recipe recipe;
	const char *name;
	size_t total = 0;
	json_t *entry;
	int r;

	if (!object)
		return -EINVAL;
	r = weights_create(&g->weights);
	if (r < 0)
		return golden_fail(g, "no memory for a table of weights.");
	json_object_foreach((json_t *)object, name, entry)
	{
		if (!name[0] || strlen(name) >= MODEL_KEY_NAME_BYTES)
			return golden_fail(g,
					   "\"weights\" has a name that is empty or longer than %d "
					   "bytes.",
					   MODEL_KEY_NAME_BYTES - 1);
		r = recipe_read(g, "weights", name, entry, MODEL_KEY_RANK, &recipe);
		if (r < 0)
			return r;
		total += recipe.count;
		if (total > GOLDEN_ELEMENTS_LIMIT)
			return golden_fail(g, "the weights have too many elements.");
		r = weight_make(g, name, &recipe);
		if (r < 0)
			return r;
	}
	return 0;
}

static int input_recipe(struct golden *g, const char *name, struct recipe *ret)
{
	const json_t *inputs = manifest_object(g, "inputs");
	const json_t *entry;

	if (!inputs)
		return -EINVAL;
	entry = json_object_get(inputs, name);
	if (!entry)
		return golden_fail(g, "\"inputs\" has no \"%s\".", name);
	return recipe_read(g, "inputs", name, entry, GOLDEN_RANK, ret);
}

bool golden_has_input(const struct golden *g, const char *name)
{
	return json_object_get(json_object_get(g->manifest, "inputs"), name);
}

int golden_input_shape(struct golden *g, const char *name, int *ret_rank,
		       int64_t ret_shape[GOLDEN_RANK])
{
	struct recipe recipe;
	int r;

	r = input_recipe(g, name, &recipe);
	if (r < 0)
		return r;
	*ret_rank = recipe.rank;
	memcpy(ret_shape, recipe.shape, sizeof(recipe.shape));
	return 0;
}

int golden_input(struct golden *g, const char *name, size_t count, float **ret)
{
	struct recipe recipe;
	float *values;
	int r;

	r = input_recipe(g, name, &recipe);
	if (r < 0)
		return r;
	if (recipe.count != count)
		return golden_fail(g, "\"inputs.%s\" has %zu elements where the config wants %zu.",
				   name, recipe.count, count);
	values = malloc(count * sizeof(*values));
	if (!values)
		return golden_fail(g, "no memory for the input \"%s\".", name);
	synthetic_fill(g->tag, name, recipe.offset, recipe.scale, 0, count, values);
	*ret = values;
	return 0;
}

int golden_input_channels_last(struct golden *g, const char *name, size_t channels,
			       size_t positions, float **ret)
{
	_cleanup_(freep) float *values = NULL;
	float *turned;
	int r;

	r = golden_input(g, name, channels * positions, &values);
	if (r < 0)
		return r;
	turned = malloc(channels * positions * sizeof(*turned));
	if (!turned)
		return golden_fail(g, "no memory for the input \"%s\".", name);
	for (size_t c = 0; c < channels; c++)
		for (size_t p = 0; p < positions; p++)
			turned[p * channels + c] = values[c * positions + p];
	*ret = turned;
	return 0;
}

/* ---------------------------------------------------------------------------- the tensor file */

static int tensors_fail(struct golden *g, const char *path, const char *name, const char *text)
{
	char plain[GOLDEN_NAME_BYTES];

	json_plain_text(plain, sizeof(plain), name);
	return sana_error_set(g->error, -EINVAL, file_error_name, "%.200s: %s%s%s%s.", path,
			      name[0] ? "tensor \"" : "", plain, name[0] ? "\" " : "", text);
}

/* Fills one tensor with a copy of its values from the `bytes` bytes of data behind the header. */
static int tensor_read(struct golden *g, const char *path, const char *name, const json_t *entry,
		       const char *data, size_t bytes, struct golden_tensor *ret)
{
	struct golden_tensor tensor = { .count = 1 };
	struct json_reader reader = reader_over(g, entry, NULL);
	const json_t *offsets = json_object_get(entry, "data_offsets");
	int shape[GOLDEN_RANK] = { 0 };
	json_int_t start, end;
	const char *type;
	void *values;

	if (!name[0] || strlen(name) >= sizeof(tensor.name) || !json_is_object(entry))
		return tensors_fail(g, path, name, "has no usable name or is not an object");
	(void)snprintf(tensor.name, sizeof(tensor.name), "%s", name);
	reader.where = path;
	type = json_get_string(&reader, "dtype", 16);
	tensor.rank = json_get_integers(&reader, "shape", 1, INT32_MAX, 0, GOLDEN_RANK, shape);
	if (reader.status < 0)
		return reader.status;
	tensor.is_integer = strcmp(type, "I32") == 0;
	if (!tensor.is_integer && strcmp(type, "F32") != 0)
		return tensors_fail(g, path, name, "is neither F32 nor I32");
	for (int d = 0; d < tensor.rank; d++) {
		tensor.shape[d] = shape[d];
		if (size_mul_overflows(tensor.count, (size_t)shape[d], &tensor.count) ||
		    tensor.count > GOLDEN_ELEMENTS_LIMIT)
			return tensors_fail(g, path, name, "has too many elements");
	}
	start = json_integer_value(json_array_get(offsets, 0));
	end = json_integer_value(json_array_get(offsets, 1));
	if (json_array_size(offsets) != 2 || start < 0 || end < start || (size_t)end > bytes ||
	    (size_t)(end - start) != tensor.count * sizeof(float))
		return tensors_fail(g, path, name,
				    "has data_offsets that do not fit its shape or the file");
	values = malloc((size_t)(end - start));
	if (!values)
		return tensors_fail(g, path, name, "does not fit into memory");
	memcpy(values, data + start, (size_t)(end - start));
	tensor.data = values;
	*ret = tensor;
	return 0;
}

static int tensors_read(struct golden *g, const char *path, const struct file_map *map)
{
	_cleanup_(json_decrefp) json_t *header = NULL;
	const char *text = map->data;
	uint64_t length = 0;
	const char *name;
	json_t *entry;
	int r;

	if (map->size >= sizeof(length)) {
		for (size_t i = sizeof(length); i-- > 0;)
			length = length << 8 | (unsigned char)text[i];
	}
	if (map->size < sizeof(length) || length > map->size - sizeof(length) ||
	    length > GOLDEN_TEXT_LIMIT)
		return tensors_fail(g, path, "", "is shorter than its header says");
	text += sizeof(length);
	r = json_parse_object(text, length, JSON_DEFAULT_DEPTH, path, file_error_name, &header,
			      g->error);
	if (r < 0)
		return r;
	g->expected = calloc(json_object_size(header) + 1, sizeof(*g->expected));
	if (!g->expected)
		return tensors_fail(g, path, "", "does not fit into memory");
	json_object_foreach(header, name, entry)
	{
		if (strcmp(name, "__metadata__") == 0)
			continue;
		r = tensor_read(g, path, name, entry, text + length,
				map->size - sizeof(length) - length,
				&g->expected[g->expected_count]);
		if (r < 0)
			return r;
		g->expected_count++;
	}
	if (!g->expected_count)
		return tensors_fail(g, path, "", "holds no tensors to compare with");
	return 0;
}

/* NAME.json → NAME.safetensors */
static int tensors_open(struct golden *g)
{
	static const char ending[] = ".json";
	_cleanup_(file_unmap) struct file_map map = { 0 };
	_cleanup_(freep) char *path = NULL;
	size_t length = strlen(g->path), tail = sizeof(ending) - 1;
	int r;

	if (length <= tail || strcmp(g->path + length - tail, ending) != 0)
		return golden_fail(g, "a manifest is a file called NAME.json.");
	if (asprintf(&path, "%.*s.safetensors", (int)(length - tail), g->path) < 0) {
		path = NULL;
		return golden_fail(g, "no memory for a path.");
	}
	r = file_map(path, file_error_name, &map, g->error);
	if (r < 0)
		return r;
	return tensors_read(g, path, &map);
}

int golden_open(struct golden *g)
{
	_cleanup_(freep) char *text = NULL;
	struct json_reader reader;
	size_t size;
	int r;

	r = file_read(g->path, GOLDEN_TEXT_LIMIT, error_name, &text, &size, g->error);
	if (r < 0)
		return r;
	r = json_parse_object(text, size, JSON_DEFAULT_DEPTH, g->path, error_name, &g->manifest,
			      g->error);
	if (r < 0)
		return r;
	reader = reader_over(g, g->manifest, NULL);
	g->tag = json_get_string(&reader, "tag", 256);
	if (reader.status < 0)
		return reader.status;
	g->config = manifest_object(g, "config");
	if (!g->config)
		return -EINVAL;
	r = tensors_open(g);
	if (r < 0)
		return r;
	return weights_make(g);
}

void golden_close(struct golden *g)
{
	for (size_t i = 0; i < g->expected_count; i++)
		free((void *)g->expected[i].data);
	free(g->expected);
	weights_destroy(g->weights);
	json_decref(g->manifest);
	g->expected = NULL;
	g->expected_count = 0;
	g->weights = NULL;
	g->manifest = NULL;
	g->config = NULL;
	g->tag = NULL;
}
