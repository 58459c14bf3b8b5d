/* From the entries of a torch.save zip file to the tensors of its state dict. */
#include "engine/checkpoint/torch_file.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <zlib.h>

#include "base/json.h"
#include "engine/checkpoint/pickle.h"
#include "engine/checkpoint/zip.h"

#define ERROR_NAME "checkpoint.torch"

enum { MAX_NAME_BYTES = 1024, QUOTED_BYTES = 100, SMALL_TEXT_BYTES = 16 };

static const char data_pickle[] = "/data.pkl";

struct torch_file {
	struct zip *zip;
	struct pickle *pickle; /* the names live here */
	char root[ZIP_MAX_NAME_BYTES + 1];
	const char *nesting;
	struct torch_tensor *tensor;
	size_t count, others;
};

struct reading {
	const struct byte_source *source;
	struct torch_file *file;
	struct sana_error *error;
};

static int refuse(const struct reading *reading, const char *what)
{
	return sana_error_set(reading->error, -EINVAL, ERROR_NAME, "%.250s: %s.",
			      reading->source->where, what);
}

static int refuse_tensor(const struct reading *reading, const char *name, const char *what)
{
	char quoted[QUOTED_BYTES];

	json_plain_text(quoted, sizeof(quoted), name);
	return sana_error_set(reading->error, -EINVAL, ERROR_NAME, "%.250s: tensor \"%s\" %s.",
			      reading->source->where, quoted, what);
}

static int no_memory(const struct reading *reading)
{
	return sana_error_set(reading->error, -ENOMEM, ERROR_NAME, "%.250s: no memory to read it.",
			      reading->source->where);
}

/* ------------------------------------------------------------------------------------ entries */

/* The directory inside the zip: what precedes the one data.pkl. */
static int root_find(const struct reading *reading)
{
	struct torch_file *file = reading->file;
	size_t tail = sizeof(data_pickle) - 1, found = 0;

	for (size_t i = 0; i < zip_count(file->zip); i++) {
		const char *name = zip_at(file->zip, i)->name;
		size_t length = strlen(name);

		if (length <= tail || strcmp(name + length - tail, data_pickle) != 0)
			continue;
		if (++found > 1)
			return refuse(reading, "there are two data.pkl in it");
		memcpy(file->root, name, length - tail);
		file->root[length - tail] = '\0';
	}
	if (!found)
		return refuse(reading, "a zip file without a data.pkl, so this is no checkpoint");
	return 0;
}

/* NULL when there is no such entry, or its name would be longer than any entry's. */
static const struct zip_entry *entry_find(const struct torch_file *file, const char *name)
{
	char path[ZIP_MAX_NAME_BYTES + 1];
	int n = snprintf(path, sizeof(path), "%s/%s", file->root, name);

	return n < 0 || (size_t)n >= sizeof(path) ? NULL : zip_find(file->zip, path);
}

/* A text of a few bytes, ended by NUL; "" when the entry is missing. */
static int small_text(const struct reading *reading, const char *name, char to[SMALL_TEXT_BYTES])
{
	const struct zip_entry *entry = entry_find(reading->file, name);
	int r;

	to[0] = '\0';
	if (!entry)
		return 0;
	if (entry->bytes >= SMALL_TEXT_BYTES)
		return refuse(reading, "its version or byte order is longer than a word");
	r = byte_source_read(reading->source, entry->offset, to, (size_t)entry->bytes);
	if (r < 0)
		return refuse(reading, "it cannot be read");
	to[entry->bytes] = '\0';
	return 0;
}

static int version_check(const struct reading *reading)
{
	char text[SMALL_TEXT_BYTES];
	char *end;
	int r;

	if (entry_find(reading->file, "constants.pkl"))
		return refuse(reading, "a TorchScript program; a state dict is needed");
	r = small_text(reading, "version", text);
	if (r < 0)
		return r;
	if (text[0] < '0' || text[0] > '9' || strtoul(text, &end, 10) < 1 ||
	    (strcmp(end, "") != 0 && strcmp(end, "\n") != 0))
		return refuse(reading, "it has no version number from 1 on");
	r = small_text(reading, "byteorder", text);
	if (r < 0)
		return r;
	if (text[0] && strcmp(text, "little") != 0)
		return refuse(reading, "its byte order is not little endian");
	return 0;
}

static int pickle_read(const struct reading *reading)
{
	const struct zip_entry *entry = entry_find(reading->file, "data.pkl");
	_cleanup_(freep) void *text = NULL;
	int r;

	if (!entry)
		return refuse(reading, "its data.pkl cannot be found again");
	if (entry->bytes > PICKLE_MAX_BYTES)
		return refuse(reading, "its data.pkl is larger than 16 MiB");
	text = malloc((size_t)entry->bytes + 1);
	if (!text)
		return no_memory(reading);
	r = byte_source_read(reading->source, entry->offset, text, (size_t)entry->bytes);
	if (r < 0)
		return sana_error_set(reading->error, r, ERROR_NAME, "%.250s: cannot read: %s.",
				      reading->source->where, strerror(-r));
	return pickle_parse(text, (size_t)entry->bytes, reading->source->where,
			    &reading->file->pickle, reading->error);
}

/* --------------------------------------------------------------------------------- state dict */

/*
 * Distillation checkpoints have a "generator", training ones a "state_dict"; *ret_bare: neither, so
 * that names may carry prefixes.
 */
static int state_find(const struct reading *reading, const struct pickle_value **ret,
		      bool *ret_bare)
{
	const struct pickle_value *top = pickle_top(reading->file->pickle), *inner;
	bool generator = false;

	if (top->kind != PICKLE_DICT)
		return sana_error_set(reading->error, -EINVAL, ERROR_NAME,
				      "%.250s: it holds %s; a dictionary of tensors is needed.",
				      reading->source->where, pickle_kind_name(top->kind));
	inner = pickle_get(top, "generator");
	if (inner) {
		top = inner;
		generator = true;
	}
	inner = pickle_get(top, "state_dict");
	if (inner)
		reading->file->nesting = generator ? "generator.state_dict" : "state_dict";
	else
		reading->file->nesting = generator ? "generator" : "";
	*ret = inner ? inner : top;
	*ret_bare = !inner;
	if ((*ret)->kind != PICKLE_DICT)
		return refuse(reading, "its state dict is not a dictionary");
	return 0;
}

static const char *without(const char *name, const char *prefix)
{
	size_t length = strlen(prefix);

	return strncmp(name, prefix, length) == 0 ? name + length : name;
}

static int name_check(const struct reading *reading, const char *name)
{
	size_t length = strlen(name);

	if (length == 0 || length > MAX_NAME_BYTES)
		return refuse_tensor(reading, name, "has no name or one longer than 1024 bytes");
	for (size_t i = 0; i < length; i++) {
		unsigned char c = (unsigned char)name[i], next = (unsigned char)name[i + 1];

		/* C2 80 … C2 9F are U+0080 … U+009F */
		if (c < 0x20 || c == 0x7f || (c == 0xc2 && next >= 0x80 && next < 0xa0))
			return refuse_tensor(reading, name, "has control characters in its name");
	}
	return 0;
}

/* Dimensions of size 1 may have any stride. */
static bool is_contiguous(const struct pickle_tensor *tensor)
{
	int64_t step = 1;

	for (int d = tensor->rank - 1; d >= 0; d--) {
		if (tensor->shape[d] != 1 && tensor->stride[d] != step)
			return false;
		step *= tensor->shape[d];
	}
	return true;
}

/* The bytes of the storage, which must be as many as the pickle says. */
static int storage_find(const struct reading *reading, const char *name,
			const struct pickle_storage *storage, const struct zip_entry **ret)
{
	uint64_t bytes = storage->numel;
	char path[32];

	(void)snprintf(path, sizeof(path), "data/%s", storage->key);
	*ret = entry_find(reading->file, path);
	if (!*ret)
		return refuse_tensor(reading, name, "has no data in the file");
	if (!storage->untyped &&
	    __builtin_mul_overflow(bytes, safetensors_dtype_bytes(storage->dtype), &bytes))
		return refuse_tensor(reading, name, "has a storage whose size overflows 64 bits");
	if ((*ret)->bytes != bytes)
		return sana_error_set(reading->error, -EINVAL, ERROR_NAME,
				      "%.200s: storage %s of tensor \"%.100s\" has %" PRIu64
				      " bytes instead of %" PRIu64 ".",
				      reading->source->where, storage->key, name, (*ret)->bytes,
				      bytes);
	return 0;
}

static int tensor_add(const struct reading *reading, const char *name,
		      const struct pickle_tensor *from)
{
	struct torch_tensor *to = &reading->file->tensor[reading->file->count];
	uint64_t each = safetensors_dtype_bytes(from->dtype);
	const struct zip_entry *entry;
	int r;

	r = name_check(reading, name);
	if (r >= 0)
		r = storage_find(reading, name, from->storage, &entry);
	if (r < 0)
		return r;
	/* The pickle has seen that all of it lies in the storage, so nothing overflows here. */
	*to = (struct torch_tensor){ .name = name,
				     .dtype = from->dtype,
				     .rank = from->rank,
				     .contiguous = from->count == 0 || is_contiguous(from),
				     .offset = entry->offset + from->offset * each,
				     .bytes = from->count * each,
				     .span_bytes = from->span * each };
	memcpy(to->shape, from->shape, sizeof(to->shape));
	memcpy(to->stride, from->stride, sizeof(to->stride));
	/* Strides of 0 can make a few bytes into any number of them. */
	if (to->bytes > reading->source->size)
		return refuse_tensor(reading, name, "is larger than the whole file");
	reading->file->count++;
	return 0;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(((const struct torch_tensor *)a)->name,
		      ((const struct torch_tensor *)b)->name);
}

static int compare_places(const void *a, const void *b)
{
	const struct torch_tensor *left = a, *right = b;

	if (left->offset != right->offset)
		return left->offset < right->offset ? -1 : 1;
	return compare_names(a, b);
}

static int tensors_read(const struct reading *reading)
{
	struct torch_file *file = reading->file;
	const struct pickle_value *state = NULL;
	bool bare = false;
	int r;

	r = state_find(reading, &state, &bare);
	if (r < 0)
		return r;
	file->tensor = calloc(state->dict.count + 1, sizeof(*file->tensor));
	if (!file->tensor)
		return no_memory(reading);
	for (size_t i = 0; i < state->dict.count; i++) {
		const struct pickle_pair *pair = &state->dict.pair[i];
		const char *name = pair->key->string.text;

		if (pair->value->kind != PICKLE_TENSOR || pair->key->kind != PICKLE_STRING) {
			file->others++;
			continue;
		}
		if (bare)
			name = without(without(name, "model."), "module.");
		r = tensor_add(reading, name, pair->value->tensor);
		if (r < 0)
			return r;
	}
	if (file->count == 0)
		return refuse(reading, "there are no tensors in it");
	qsort(file->tensor, file->count, sizeof(*file->tensor), compare_names);
	for (size_t i = 1; i < file->count; i++)
		if (compare_names(&file->tensor[i - 1], &file->tensor[i]) == 0)
			return refuse_tensor(reading, file->tensor[i].name,
					     "is there twice once the prefixes are gone");
	qsort(file->tensor, file->count, sizeof(*file->tensor), compare_places);
	return 0;
}

int torch_file_open(const struct byte_source *source, struct torch_file **ret,
		    struct sana_error *error)
{
	_cleanup_(torch_file_closep) struct torch_file *file = calloc(1, sizeof(*file));
	struct reading reading = { .source = source, .file = file, .error = error };
	int r;

	if (!file)
		return no_memory(&reading);
	r = zip_open(source, &file->zip, error);
	if (r >= 0)
		r = root_find(&reading);
	if (r >= 0)
		r = version_check(&reading);
	if (r >= 0)
		r = pickle_read(&reading);
	if (r >= 0)
		r = tensors_read(&reading);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(file);
	return 0;
}

void torch_file_close(struct torch_file *file)
{
	if (!file)
		return;
	free(file->tensor);
	pickle_close(file->pickle);
	zip_close(file->zip);
	free(file);
}

size_t torch_file_count(const struct torch_file *file)
{
	return file->count;
}

const struct torch_tensor *torch_file_at(const struct torch_file *file, size_t index)
{
	assert(index < file->count);
	return &file->tensor[index];
}

const char *torch_file_nesting(const struct torch_file *file)
{
	return file->nesting;
}

size_t torch_file_others(const struct torch_file *file)
{
	return file->others;
}

/* ---------------------------------------------------------------------------------------- CRC */

static int entry_check(const struct reading *reading, const struct zip_entry *entry, void *buffer,
		       size_t buffer_bytes)
{
	uLong crc = crc32(0, NULL, 0);
	char quoted[QUOTED_BYTES];

	for (uint64_t done = 0; done < entry->bytes;) {
		size_t bytes = (size_t)MIN_OF((uint64_t)buffer_bytes, entry->bytes - done);
		int r = byte_source_read(reading->source, entry->offset + done, buffer, bytes);

		if (r < 0)
			return sana_error_set(reading->error, r, ERROR_NAME,
					      "%.250s: cannot read: %s.", reading->source->where,
					      strerror(-r));
		crc = crc32_z(crc, buffer, bytes);
		done += bytes;
	}
	if (crc == entry->crc)
		return 0;
	json_plain_text(quoted, sizeof(quoted), entry->name);
	return sana_error_set(reading->error, -EINVAL, ERROR_NAME,
			      "%.200s: entry \"%s\" has CRC-32 %08lx instead of %08" PRIx32
			      "; the file is damaged.",
			      reading->source->where, quoted, (unsigned long)crc, entry->crc);
}

int torch_file_check_crc(const struct byte_source *source, const struct torch_file *file,
			 void *buffer, size_t buffer_bytes, struct sana_error *error)
{
	struct reading reading = { .source = source, .error = error };

	for (size_t i = 0; i < zip_count(file->zip); i++) {
		const struct zip_entry *entry = zip_at(file->zip, i);
		int r = entry->crc ? entry_check(&reading, entry, buffer, buffer_bytes) : 0;

		if (r < 0)
			return r;
	}
	return 0;
}
