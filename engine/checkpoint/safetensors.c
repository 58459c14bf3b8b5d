/* Reading safetensors: header length, JSON header, and ranges that tile the data exactly. */
#include "engine/checkpoint/safetensors.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>

#include "base/file.h"
#include "base/json.h"

#define ERROR_NAME "checkpoint.safetensors"

/* The format allows 100 MB of header; the largest one wanted here has 30 kB. */
enum { LENGTH_BYTES = 8, MAX_HEADER_BYTES = 16 << 20, MAX_DEPTH = 4 };
enum { MAX_TENSORS = 100000, MAX_NAME_BYTES = 1024, QUOTED_BYTES = 100 };

#define MAX_INTEGER (INT64_C(1) << 53)

struct safetensors {
	struct file_map map; /* zero when parsed from memory */
	json_t *header;	     /* the names live here */
	struct safetensors_tensor *tensor;
	size_t count;
};

/* What is read at the moment. */
struct reading {
	const char *bytes, *where;
	uint64_t data_start, data_bytes;
	struct sana_error *error;
};

static const struct {
	const char *name;
	size_t bytes;
} dtypes[SAFETENSORS_DTYPE_COUNT] = {
	[SAFETENSORS_BOOL] = { "BOOL", 1 },	  [SAFETENSORS_U8] = { "U8", 1 },
	[SAFETENSORS_I8] = { "I8", 1 },		  [SAFETENSORS_F8_E4M3] = { "F8_E4M3", 1 },
	[SAFETENSORS_F8_E5M2] = { "F8_E5M2", 1 }, [SAFETENSORS_F8_E8M0] = { "F8_E8M0", 1 },
	[SAFETENSORS_I16] = { "I16", 2 },	  [SAFETENSORS_U16] = { "U16", 2 },
	[SAFETENSORS_F16] = { "F16", 2 },	  [SAFETENSORS_BF16] = { "BF16", 2 },
	[SAFETENSORS_I32] = { "I32", 4 },	  [SAFETENSORS_U32] = { "U32", 4 },
	[SAFETENSORS_F32] = { "F32", 4 },	  [SAFETENSORS_I64] = { "I64", 8 },
	[SAFETENSORS_U64] = { "U64", 8 },	  [SAFETENSORS_F64] = { "F64", 8 },
	[SAFETENSORS_C64] = { "C64", 8 },
};

const char *safetensors_dtype_name(enum safetensors_dtype dtype)
{
	return dtype >= 0 && dtype < SAFETENSORS_DTYPE_COUNT ? dtypes[dtype].name : NULL;
}

size_t safetensors_dtype_bytes(enum safetensors_dtype dtype)
{
	return dtype >= 0 && dtype < SAFETENSORS_DTYPE_COUNT ? dtypes[dtype].bytes : 0;
}

static enum safetensors_dtype dtype_from_name(const char *name)
{
	for (int d = 0; d < SAFETENSORS_DTYPE_COUNT; d++)
		if (strcmp(dtypes[d].name, name) == 0)
			return (enum safetensors_dtype)d;
	return SAFETENSORS_DTYPE_INVALID;
}

static int refuse(const struct reading *reading, const char *what)
{
	return sana_error_set(reading->error, -EINVAL, ERROR_NAME, "%.250s: %s.", reading->where,
			      what);
}

static int refuse_tensor(const struct reading *reading, const char *name, const char *what)
{
	char quoted[QUOTED_BYTES];

	json_plain_text(quoted, sizeof(quoted), name);
	return sana_error_set(reading->error, -EINVAL, ERROR_NAME, "%.250s: tensor \"%s\" %s.",
			      reading->where, quoted, what);
}

/* Header text [8, 8+N), checked for what a JSON parser would forgive. */
static int header_find(struct reading *reading, size_t length, const char **ret_text,
		       size_t *ret_length)
{
	const char *text = reading->bytes + LENGTH_BYTES;
	uint64_t n = 0;
	size_t end;

	if (length < LENGTH_BYTES)
		return refuse(reading, "shorter than 8 bytes, so this is no safetensors file");
	for (int i = LENGTH_BYTES - 1; i >= 0; i--)
		n = n << 8 | (unsigned char)reading->bytes[i];
	if (n < 2 || n > MAX_HEADER_BYTES)
		return refuse(reading, "the header length is not between 2 bytes and 16 MiB");
	if (n > length - LENGTH_BYTES)
		return refuse(reading, "the header does not fit into the file; it is truncated");
	if (text[0] != '{')
		return refuse(reading, "the header does not begin with {");
	for (end = (size_t)n; end > 0 && text[end - 1] == ' '; end--)
		;
	if (text[end - 1] != '}')
		return refuse(reading, "something other than spaces follows the header's object");
	reading->data_start = LENGTH_BYTES + n;
	reading->data_bytes = length - reading->data_start;
	*ret_text = text;
	*ret_length = end;
	return 0;
}

/*
 * A minus sign is never allowed (the parser would take −0 for 0), and the number of objects is
 * bounded before the parser allocates one by one.
 */
static int header_scan(const struct reading *reading, const char *text, size_t length)
{
	size_t objects = 0;
	bool quoted = false;

	for (size_t i = 0; i < length; i++) {
		if (quoted && text[i] == '\\')
			i++;
		else if (text[i] == '"')
			quoted = !quoted;
		else if (!quoted && text[i] == '-')
			return refuse(reading, "a number in the header has a sign");
		else if (!quoted && text[i] == '{')
			objects++;
	}
	if (objects > MAX_TENSORS + 2) /* the header's own and __metadata__ */
		return refuse(reading, "more than 100000 tensors");
	return 0;
}

static int metadata_check(const struct reading *reading, const json_t *metadata)
{
	const json_t *value;
	const char *key;

	if (!json_is_object(metadata))
		return refuse(reading, "__metadata__ is not an object");
	json_object_foreach((json_t *)metadata, key, value) if (!json_is_string(value)) return refuse(
		reading, "__metadata__ has a value that is not a string");
	return 0;
}

static int name_check(const struct reading *reading, const char *name)
{
	size_t length = strlen(name);

	if (length > MAX_NAME_BYTES)
		return refuse_tensor(reading, name, "has a name longer than 1024 bytes");
	for (size_t i = 0; i < length; i++) {
		unsigned char c = (unsigned char)name[i], next = (unsigned char)name[i + 1];

		/* C2 80 … C2 9F are U+0080 … U+009F */
		if (c < 0x20 || c == 0x7f || (c == 0xc2 && next >= 0x80 && next < 0xa0))
			return refuse_tensor(reading, name, "has control characters in its name");
	}
	return 0;
}

static int integer_read(const struct reading *reading, const char *name, const json_t *value,
			int64_t *ret)
{
	if (!json_is_integer(value) || json_integer_value(value) < 0 ||
	    json_integer_value(value) > MAX_INTEGER)
		return refuse_tensor(reading, name,
				     "has a number that is not a plain integer from 0 to 2^53");
	*ret = json_integer_value(value);
	return 0;
}

/* Fills rank, shape and bytes. */
static int shape_read(const struct reading *reading, const json_t *list,
		      struct safetensors_tensor *tensor)
{
	uint64_t bytes = dtypes[tensor->dtype].bytes;
	bool empty = false;
	const json_t *value;
	size_t i;
	int r;

	if (!json_is_array(list))
		return refuse_tensor(reading, tensor->name, "has no list \"shape\"");
	if (json_array_size(list) > SAFETENSORS_MAX_RANK)
		return refuse_tensor(reading, tensor->name, "has more than 8 dimensions");
	json_array_foreach((json_t *)list, i, value)
	{
		r = integer_read(reading, tensor->name, value, &tensor->shape[i]);
		if (r < 0)
			return r;
		if (tensor->shape[i] == 0)
			empty = true;
		else if (__builtin_mul_overflow(bytes, (uint64_t)tensor->shape[i], &bytes))
			return refuse_tensor(reading, tensor->name,
					     "has a shape whose size overflows 64 bits");
	}
	tensor->rank = (int)json_array_size(list);
	tensor->bytes = empty ? 0 : bytes;
	return 0;
}

static int offsets_read(const struct reading *reading, const json_t *list,
			struct safetensors_tensor *tensor)
{
	int64_t begin = 0, end = 0;
	int r;

	if (!json_is_array(list) || json_array_size(list) != 2)
		return refuse_tensor(reading, tensor->name, "has no pair \"data_offsets\"");
	r = integer_read(reading, tensor->name, json_array_get(list, 0), &begin);
	if (r < 0)
		return r;
	r = integer_read(reading, tensor->name, json_array_get(list, 1), &end);
	if (r < 0)
		return r;
	if (begin > end)
		return refuse_tensor(reading, tensor->name, "ends before it begins");
	if ((uint64_t)end > reading->data_bytes)
		return refuse_tensor(reading, tensor->name,
				     "reaches beyond the end of the file; it is truncated");
	if ((uint64_t)(end - begin) != tensor->bytes)
		return refuse_tensor(reading, tensor->name,
				     "has offsets that do not match its shape and type");
	tensor->offset = reading->data_start + (uint64_t)begin;
	tensor->data = reading->bytes + tensor->offset;
	return 0;
}

static int record_read(const struct reading *reading, const char *name, const json_t *record,
		       struct safetensors_tensor *tensor)
{
	const json_t *dtype = json_object_get(record, "dtype");
	int r;

	*tensor = (struct safetensors_tensor){ .name = name };
	r = name_check(reading, name);
	if (r < 0)
		return r;
	if (!json_is_object(record))
		return refuse_tensor(reading, name, "is not described by an object");
	if (!json_is_string(dtype))
		return refuse_tensor(reading, name, "has no string \"dtype\"");
	tensor->dtype = dtype_from_name(json_string_value(dtype));
	if (tensor->dtype == SAFETENSORS_DTYPE_INVALID)
		return refuse_tensor(reading, name, "has an unknown dtype");
	r = shape_read(reading, json_object_get(record, "shape"), tensor);
	if (r < 0)
		return r;
	r = offsets_read(reading, json_object_get(record, "data_offsets"), tensor);
	if (r < 0)
		return r;
	if (json_object_size(record) != 3)
		return refuse_tensor(reading, name,
				     "has members other than dtype, shape and data_offsets");
	return 0;
}

static int offset_compare(const void *a, const void *b)
{
	const struct safetensors_tensor *left = a, *right = b;

	if (left->offset != right->offset)
		return left->offset < right->offset ? -1 : 1;
	return left->bytes < right->bytes ? -1 : left->bytes > right->bytes;
}

/* The ranges, sorted, must leave neither hole nor overlap. Empty ones sit at the running end. */
static int tiling_check(const struct reading *reading, const struct safetensors *file)
{
	uint64_t end = reading->data_start;

	for (size_t i = 0; i < file->count; i++) {
		const struct safetensors_tensor *tensor = &file->tensor[i];

		if (tensor->offset < end)
			return refuse_tensor(reading, tensor->name, "overlaps another one");
		if (tensor->offset > end)
			return refuse_tensor(reading, tensor->name, "leaves a hole before it");
		end += tensor->bytes;
	}
	if (end != reading->data_start + reading->data_bytes)
		return refuse(reading, "bytes follow the last tensor");
	return 0;
}

static int records_read(const struct reading *reading, struct safetensors *file)
{
	const json_t *value;
	const char *key;
	int r;

	if (json_object_size(file->header) > MAX_TENSORS + 1)
		return refuse(reading, "more than 100000 tensors");
	file->tensor = calloc(json_object_size(file->header) + 1, sizeof(*file->tensor));
	if (!file->tensor)
		return sana_error_set(reading->error, -ENOMEM, ERROR_NAME,
				      "%.250s: no memory for the list of tensors.", reading->where);
	json_object_foreach(file->header, key, value)
	{
		if (strcmp(key, "__metadata__") == 0)
			r = metadata_check(reading, value);
		else
			r = record_read(reading, key, value, &file->tensor[file->count++]);
		if (r < 0)
			return r;
	}
	if (file->count > MAX_TENSORS)
		return refuse(reading, "more than 100000 tensors");
	if (file->count)
		qsort(file->tensor, file->count, sizeof(*file->tensor), offset_compare);
	return tiling_check(reading, file);
}

int safetensors_parse(const void *bytes, size_t length, const char *where, struct safetensors **ret,
		      struct sana_error *error)
{
	_cleanup_(safetensors_closep) struct safetensors *file = NULL;
	struct reading reading = { .bytes = bytes, .where = where, .error = error };
	const char *text = NULL;
	size_t text_length = 0;
	int r;

	r = header_find(&reading, length, &text, &text_length);
	if (r < 0)
		return r;
	r = header_scan(&reading, text, text_length);
	if (r < 0)
		return r;
	file = calloc(1, sizeof(*file));
	if (!file)
		return sana_error_set(error, -ENOMEM, ERROR_NAME, "%.250s: no memory to read it.",
				      where);
	r = json_parse_object(text, text_length, MAX_DEPTH, where, ERROR_NAME, &file->header,
			      error);
	if (r < 0)
		return r;
	r = records_read(&reading, file);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(file);
	return 0;
}

int safetensors_open(const char *path, struct safetensors **ret, struct sana_error *error)
{
	_cleanup_(file_unmap) struct file_map map = { 0 };
	struct safetensors *file = NULL;
	int r;

	r = file_map(path, ERROR_NAME, &map, error);
	if (r < 0)
		return r;
	r = safetensors_parse(map.data, map.size, file_path_tail(path), &file, error);
	if (r < 0)
		return r;
	file->map = map;
	map = (struct file_map){ 0 };
	*ret = file;
	return 0;
}

void safetensors_close(struct safetensors *file)
{
	if (!file)
		return;
	free(file->tensor);
	json_decref(file->header);
	file_unmap(&file->map);
	free(file);
}

size_t safetensors_count(const struct safetensors *file)
{
	return file->count;
}

const struct safetensors_tensor *safetensors_at(const struct safetensors *file, size_t index)
{
	assert(index < file->count);
	return &file->tensor[index];
}
