/* Opening sets of tensors: one file, or the shards of an index. */
#include "tools/import/set.h"

#include <errno.h>
#include <limits.h>

#include "base/file.h"
#include "base/json.h"
#include "engine/checkpoint/looks.h"

#define ERROR_NAME "import.source"

enum { MAX_INDEX_BYTES = 16 << 20, MAX_INDEX_DEPTH = 8, MAX_SHARDS = 1024, QUOTED_BYTES = 100 };
enum { CRC_BUFFER_BYTES = 4 << 20 };

static const char suffix[] = ".safetensors", index_suffix[] = ".index.json";

static int no_memory(struct sana_error *error, const char *path)
{
	return sana_error_set(error, -ENOMEM, ERROR_NAME, "%s: no memory for its tensors.",
			      file_path_tail(path));
}

bool set_is_index(const char *path)
{
	size_t length = strlen(path), tail = sizeof(index_suffix) - 1;

	return length > tail && strcmp(path + length - tail, index_suffix) == 0;
}

/* ------------------------------------------------------------------------------------- a file */

static void file_finish(struct set_file *file)
{
	safetensors_close(file->safetensors);
	torch_file_close(file->torch);
	byte_source_close(&file->source);
	free(file->path);
}

/*
 * The header of a safetensors file is parsed from a mapping, of which only the header's pages are
 * touched; the data is read, never mapped.
 */
static int file_open(const char *path, struct set_file *file, struct sana_error *error)
{
	const char *text;
	int r;

	file->path = strdup(path);
	if (!file->path)
		return no_memory(error, path);
	r = byte_source_open(file->path, ERROR_NAME, &file->source, error);
	if (r < 0)
		return r;
	switch (file_look(&file->source, &text)) {
	case LOOK_TORCH:
		return torch_file_open(&file->source, &file->torch, error);
	case LOOK_SAFETENSORS:
		return safetensors_open(file->path, &file->safetensors, error);
	case LOOK_UNKNOWN:
	case LOOK_JSON:
	case LOOK_TORCH_LEGACY:
	case LOOK_TORCH_TAR:
	case LOOK_EMPTY:
	case LOOK_OTHER:
	case LOOK_COUNT:
		break;
	}
	return sana_error_set(error, -EINVAL, ERROR_NAME,
			      "%s is not a checkpoint; it looks like %s.", file->source.where,
			      text);
}

static size_t file_count(const struct set_file *file)
{
	return file->torch ? torch_file_count(file->torch) : safetensors_count(file->safetensors);
}

static struct set_tensor file_tensor(const struct set_file *file, size_t index)
{
	struct set_tensor tensor = { 0 };

	if (file->torch) {
		const struct torch_tensor *from = torch_file_at(file->torch, index);

		tensor = (struct set_tensor){ .name = from->name,
					      .dtype = from->dtype,
					      .rank = from->rank,
					      .offset = from->offset,
					      .bytes = from->bytes,
					      .strided = from->contiguous ? NULL : from };
		memcpy(tensor.shape, from->shape, sizeof(tensor.shape));
	} else {
		const struct safetensors_tensor *from = safetensors_at(file->safetensors, index);

		tensor = (struct set_tensor){ .name = from->name,
					      .dtype = from->dtype,
					      .rank = from->rank,
					      .offset = from->offset,
					      .bytes = from->bytes };
		memcpy(tensor.shape, from->shape, sizeof(tensor.shape));
	}
	return tensor;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(((const struct set_tensor *)a)->name, ((const struct set_tensor *)b)->name);
}

const struct set_tensor *set_find(const struct set *set, const char *name)
{
	struct set_tensor wanted = { .name = name };

	return set->count ? bsearch(&wanted, set->tensor, set->count, sizeof(*set->tensor),
				    compare_names) :
			    NULL;
}

/* Opens one more file; its tensors are appended unsorted. */
static int set_add_file(struct set *set, const char *path, struct sana_error *error)
{
	struct set_tensor *tensor;
	struct set_file *file;
	size_t count;
	int r;

	file = realloc(set->file, (set->files + 1) * sizeof(*file));
	if (!file)
		return no_memory(error, path);
	set->file = file;
	file = &set->file[set->files++];
	*file = (struct set_file){ .source = { .fd = -1 } };
	r = file_open(path, file, error);
	if (r < 0)
		return r;
	count = file_count(file);
	tensor = realloc(set->tensor, (set->count + count + 1) * sizeof(*tensor));
	if (!tensor)
		return no_memory(error, path);
	set->tensor = tensor;
	for (size_t i = 0; i < count; i++) {
		set->tensor[set->count] = file_tensor(file, i);
		set->tensor[set->count++].file = set->files - 1;
	}
	return 0;
}

/* ------------------------------------------------------------------------------------- shards */

/* [A-Za-z0-9._-]+\.safetensors without a leading dot: no way out of the directory. */
static bool shard_name_is_plain(const char *name)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				      "0123456789._-";
	size_t length = strlen(name), tail = sizeof(suffix) - 1;

	return length > tail && name[0] != '.' && strspn(name, allowed) == length &&
	       strcmp(name + length - tail, suffix) == 0;
}

static int refuse_key(const struct set *set, const char *key, const char *what,
		      struct sana_error *error)
{
	char quoted[QUOTED_BYTES];

	json_plain_text(quoted, sizeof(quoted), key);
	return sana_error_set(error, -EINVAL, ERROR_NAME, "%.250s: tensor \"%s\" %s.",
			      file_path_tail(set->path), quoted, what);
}

static int shard_open(struct set *set, const char *name, struct sana_error *error)
{
	const char *slash = strrchr(set->path, '/');
	char path[PATH_MAX];
	int r;

	r = snprintf(path, sizeof(path), "%.*s%s", slash ? (int)(slash - set->path) + 1 : 0,
		     set->path, name);
	if (r < 0 || (size_t)r >= sizeof(path))
		return sana_error_set(error, -ENAMETOOLONG, ERROR_NAME,
				      "%.200s… is too long for a path.", set->path);
	r = set_add_file(set, path, error);
	if (r < 0)
		return r;
	if (set->file[set->files - 1].torch)
		return sana_error_set(error, -EINVAL, ERROR_NAME,
				      "%s: this shard is no safetensors file.",
				      file_path_tail(path));
	return 0;
}

/* Opens each file that the map names, once. */
static int shards_open(struct set *set, const json_t *map, struct sana_error *error)
{
	const json_t *value;
	const char *key;
	int r;

	json_object_foreach((json_t *)map, key, value)
	{
		const char *name = json_string_value(value);
		size_t i;

		if (!name || !shard_name_is_plain(name))
			return refuse_key(set, key,
					  "is not in a plain *.safetensors file of the same "
					  "directory",
					  error);
		for (i = 0; i < set->files; i++) {
			const char *slash = strrchr(set->file[i].path, '/');

			if (strcmp(slash ? slash + 1 : set->file[i].path, name) == 0)
				break;
		}
		if (i < set->files)
			continue;
		if (set->files == MAX_SHARDS)
			return refuse_key(set, key, "is in one file too many (1024)", error);
		r = shard_open(set, name, error);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Each tensor in the file that the map says, and none twice; what it does not name is left out. */
static int shards_match(struct set *set, const json_t *map, struct sana_error *error)
{
	size_t kept = 0;
	const json_t *value;
	const char *key;

	for (size_t i = 0; i < set->count; i++) {
		const struct set_tensor *tensor = &set->tensor[i];
		const char *path = set->file[tensor->file].path, *slash = strrchr(path, '/');
		const char *wanted = json_string_value(json_object_get(map, tensor->name));

		if (!wanted) {
			set->left_out++;
			continue;
		}
		if (strcmp(wanted, slash ? slash + 1 : path) != 0)
			return refuse_key(set, tensor->name,
					  "is in a file other than the one named", error);
		set->tensor[kept++] = *tensor;
	}
	set->count = kept;
	qsort(set->tensor, set->count, sizeof(*set->tensor), compare_names);
	json_object_foreach((json_t *)map, key, value) if (!set_find(set, key)) return refuse_key(
		set, key, "is not in the file named", error);
	return 0;
}

static int index_open(struct set *set, struct sana_error *error)
{
	_cleanup_(json_decrefp) json_t *object = NULL;
	_cleanup_(freep) char *text = NULL;
	const json_t *map;
	size_t length;
	int r;

	r = file_read(set->path, MAX_INDEX_BYTES, ERROR_NAME, &text, &length, error);
	if (r < 0)
		return r;
	r = json_parse_object(text, length, MAX_INDEX_DEPTH, file_path_tail(set->path), ERROR_NAME,
			      &object, error);
	if (r < 0)
		return r;
	map = json_object_get(object, "weight_map");
	if (!json_is_object(map) || json_object_size(map) == 0)
		return sana_error_set(error, -EINVAL, ERROR_NAME,
				      "%s: \"weight_map\" must be an object that names tensors.",
				      file_path_tail(set->path));
	r = shards_open(set, map, error);
	return r < 0 ? r : shards_match(set, map, error);
}

/* --------------------------------------------------------------------------------------- sets */

static int single_open(struct set *set, struct sana_error *error)
{
	int r = set_add_file(set, set->path, error);

	if (r < 0)
		return r;
	set->format = set->file[0].torch ? "torch" : "safetensors";
	if (set->file[0].torch) {
		set->nesting = torch_file_nesting(set->file[0].torch);
		set->left_out = torch_file_others(set->file[0].torch);
	}
	if (set->count == 0)
		return sana_error_set(error, -EINVAL, ERROR_NAME, "%s: there are no tensors in it.",
				      file_path_tail(set->path));
	qsort(set->tensor, set->count, sizeof(*set->tensor), compare_names);
	return 0;
}

static struct set *set_allocate(const char *path)
{
	struct set *set = calloc(1, sizeof(*set));
	char *copy = strdup(path);

	if (!set || !copy) {
		free(set);
		free(copy);
		return NULL;
	}
	*set = (struct set){ .path = copy, .nesting = "", .format = "safetensors shards" };
	return set;
}

int set_open(const char *path, struct set **ret, struct sana_error *error)
{
	_cleanup_(set_closep) struct set *set = NULL;
	int r;

	set = set_allocate(path);
	if (!set)
		return no_memory(error, path);
	r = set_is_index(path) ? index_open(set, error) : single_open(set, error);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(set);
	return 0;
}

void set_close(struct set *set)
{
	if (!set)
		return;
	for (size_t i = 0; i < set->files; i++)
		file_finish(&set->file[i]);
	free(set->file);
	free(set->tensor);
	free(set->path);
	free(set);
}

uint64_t set_parameters(const struct set *set)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < set->count; i++)
		sum += set->tensor[i].bytes / safetensors_dtype_bytes(set->tensor[i].dtype);
	return sum;
}

uint64_t set_bytes(const struct set *set)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < set->count; i++)
		sum += set->tensor[i].bytes;
	return sum;
}

int set_check_crc(const struct set *set, struct sana_error *error)
{
	_cleanup_(freep) void *buffer = malloc(CRC_BUFFER_BYTES);
	int r = 0;

	if (!buffer)
		return no_memory(error, set->path);
	for (size_t i = 0; r >= 0 && i < set->files; i++)
		if (set->file[i].torch)
			r = torch_file_check_crc(&set->file[i].source, set->file[i].torch, buffer,
						 CRC_BUFFER_BYTES, error);
	return r;
}
