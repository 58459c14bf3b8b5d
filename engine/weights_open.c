/* Weights from files: one safetensors file, or shards named by an index. */
#include "engine/weights_table.h"

#include <errno.h>
#include <limits.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "engine/checkpoint/safetensors.h"

#define ERROR_OPEN "weights.open"
#define ERROR_INDEX "weights.index"

enum { MAX_INDEX_BYTES = 16 << 20, MAX_INDEX_DEPTH = 8, MAX_SHARDS = 1024, QUOTED_BYTES = 100 };

static const char suffix[] = ".safetensors", published_prefix[] = "model.";

static enum kernel_dtype dtype_of(enum safetensors_dtype dtype)
{
	if (dtype == SAFETENSORS_F32)
		return KERNEL_F32;
	if (dtype == SAFETENSORS_BF16)
		return KERNEL_BF16;
	if (dtype == SAFETENSORS_F16)
		return KERNEL_F16;
	return KERNEL_DTYPE_INVALID;
}

static void release_file(void *file, size_t bytes)
{
	(void)bytes;
	safetensors_close(file);
}

static int no_memory(struct sana_error *error, const char *path)
{
	return sana_error_set(error, -ENOMEM, ERROR_OPEN, "%s: no memory for its tensors.",
			      file_path_tail(path));
}

/* Opens the file into the table, which owns it then; all its tensors are appended unsorted. */
static int file_append(struct weights *weights, const char *path,
		       const struct safetensors **ret_file, struct sana_error *error)
{
	struct safetensors *file = NULL;
	int r;

	r = safetensors_open(path, &file, error);
	if (r < 0)
		return r;
	r = weights_own(weights, release_file, file, 0);
	if (r < 0) {
		safetensors_close(file);
		return no_memory(error, path);
	}
	for (size_t i = 0; i < safetensors_count(file); i++) {
		const struct safetensors_tensor *found = safetensors_at(file, i);
		struct weight_tensor tensor = { .name = (char *)found->name,
						.dtype = dtype_of(found->dtype),
						.rank = found->rank,
						.data = found->data };

		for (int d = 0; d < found->rank && d < MODEL_KEY_RANK; d++)
			tensor.shape[d] = found->shape[d];
		r = weights_append(weights, &tensor);
		if (r < 0)
			return no_memory(error, path);
	}
	*ret_file = file;
	return 0;
}

/* [A-Za-z0-9._-]+\.safetensors without a leading dot: no way out of the directory. */
static bool shard_name_is_plain(const char *name)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				      "0123456789._-";
	size_t length = strlen(name), tail = sizeof(suffix) - 1;

	return length > tail && name[0] != '.' && strspn(name, allowed) == length &&
	       strcmp(name + length - tail, suffix) == 0;
}

struct shard_index {
	const char *path;  /* of the index, for errors */
	const json_t *map; /* tensor name → file name */
	const char **file; /* [files] distinct file names */
	size_t files;
};

static int refuse_key(const struct shard_index *index, struct sana_error *error, const char *key,
		      const char *what)
{
	char quoted[QUOTED_BYTES];

	json_plain_text(quoted, sizeof(quoted), key);
	return sana_error_set(error, -EINVAL, ERROR_INDEX, "%.250s: tensor \"%s\" %s.", index->path,
			      quoted, what);
}

/* The distinct file names of the map. */
static int index_files(struct shard_index *index, struct sana_error *error)
{
	const json_t *value;
	const char *key;
	size_t i;

	json_object_foreach((json_t *)index->map, key, value)
	{
		const char *name = json_string_value(value);

		if (!name || !shard_name_is_plain(name))
			return refuse_key(index, error, key,
					  "is not in a plain *.safetensors file of the same "
					  "directory");
		for (i = 0; i < index->files; i++)
			if (strcmp(index->file[i], name) == 0)
				break;
		if (i < index->files)
			continue;
		if (index->files == MAX_SHARDS)
			return refuse_key(index, error, key, "is in one file too many (1024)");
		index->file[index->files++] = name;
	}
	if (index->files == 0)
		return sana_error_set(error, -EINVAL, ERROR_INDEX,
				      "%.300s: the weight_map is empty.", index->path);
	return 0;
}

static int shard_append(struct weights *weights, const struct shard_index *index,
			const char *directory, const char *name, struct sana_error *error)
{
	const struct safetensors *file = NULL;
	char path[PATH_MAX];
	int r;

	r = snprintf(path, sizeof(path), "%s/%s", directory, name);
	if (r < 0 || (size_t)r >= sizeof(path))
		return sana_error_set(error, -ENAMETOOLONG, ERROR_OPEN,
				      "%.200s… is too long for a path.", directory);
	r = file_append(weights, path, &file, error);
	if (r < 0)
		return r;
	for (size_t i = 0; i < safetensors_count(file); i++) {
		const char *key = safetensors_at(file, i)->name;
		const char *mapped = json_string_value(json_object_get(index->map, key));

		if (mapped && strcmp(mapped, name) != 0)
			return refuse_key(index, error, key,
					  "is in a file other than the one named");
	}
	return 0;
}

/* Drops tensors that the map does not name; each one that it names must be there. */
static int index_apply(struct weights *weights, const struct shard_index *index,
		       struct sana_error *error)
{
	const json_t *value;
	const char *key;
	size_t kept = 0;

	json_object_foreach(
		(json_t *)index->map, key,
		value) if (!weights_find(weights,
					 key)) return refuse_key(index, error, key,
								 "is not in the file named");
	for (size_t i = 0; i < weights->count; i++) {
		if (json_object_get(index->map, weights->tensor[i].name))
			weights->tensor[kept++] = weights->tensor[i];
		else
			free(weights->tensor[i].name);
	}
	weights->count = kept;
	return 0;
}

static int shards_load(struct weights *weights, struct shard_index *index, const char *directory,
		       struct sana_error *error)
{
	const char *twice;
	int r;

	r = index_files(index, error);
	if (r < 0)
		return r;
	for (size_t i = 0; i < index->files; i++) {
		r = shard_append(weights, index, directory, index->file[i], error);
		if (r < 0)
			return r;
	}
	twice = weights_sort(weights);
	if (twice)
		return refuse_key(index, error, twice, "is in two files");
	return index_apply(weights, index, error);
}

static int index_load(struct weights *weights, const char *directory, const char *path,
		      struct sana_error *error)
{
	_cleanup_(json_decrefp) json_t *object = NULL;
	_cleanup_(freep) const char **file = NULL;
	_cleanup_(freep) char *text = NULL;
	struct shard_index index = { .path = file_path_tail(path) };
	size_t length;
	int r;

	r = file_read(path, MAX_INDEX_BYTES, ERROR_INDEX, &text, &length, error);
	if (r < 0)
		return r;
	r = json_parse_object(text, length, MAX_INDEX_DEPTH, index.path, ERROR_INDEX, &object,
			      error);
	if (r < 0)
		return r;
	index.map = json_object_get(object, "weight_map");
	if (!json_is_object(index.map))
		return sana_error_set(error, -EINVAL, ERROR_INDEX,
				      "%s: \"weight_map\" must be an object.", index.path);
	file = calloc(MAX_SHARDS, sizeof(*file));
	if (!file)
		return no_memory(error, path);
	index.file = file;
	return shards_load(weights, &index, directory, error);
}

/* Published text encoders write "model." before every name; all or none. Order is kept. */
static void prefix_drop(struct weights *weights)
{
	size_t length = sizeof(published_prefix) - 1;

	for (size_t i = 0; i < weights->count; i++)
		if (strncmp(weights->tensor[i].name, published_prefix, length) != 0)
			return;
	for (size_t i = 0; i < weights->count; i++) {
		char *name = weights->tensor[i].name;

		memmove(name, name + length, strlen(name + length) + 1);
	}
}

int weights_open(const char *directory, const char *file, struct weights **ret,
		 struct sana_error *error)
{
	_cleanup_(weights_destroyp) struct weights *weights = NULL;
	const struct safetensors *opened;
	char path[PATH_MAX], index[PATH_MAX];
	int r;

	r = weights_create(&weights);
	if (r < 0)
		return no_memory(error, directory);
	r = snprintf(path, sizeof(path), "%s/%s", directory, file);
	if (r >= 0 && (size_t)r < sizeof(path))
		r = snprintf(index, sizeof(index), "%s.index.json", path);
	if (r < 0 || (size_t)r >= sizeof(index))
		return sana_error_set(error, -ENAMETOOLONG, ERROR_OPEN,
				      "%.200s… is too long for a path.", directory);
	if (access(path, F_OK) < 0 && access(index, F_OK) < 0)
		return sana_error_set(error, -ENOENT, ERROR_OPEN,
				      "%s: there is neither this file nor its .index.json.",
				      file_path_tail(path));
	if (access(path, F_OK) == 0) {
		r = file_append(weights, path, &opened, error);
		if (r >= 0)
			(void)weights_sort(weights); /* names are unique within one file */
	} else {
		r = index_load(weights, directory, index, error);
	}
	if (r < 0)
		return r;
	prefix_drop(weights);
	*ret = TAKE_PTR(weights);
	return 0;
}
