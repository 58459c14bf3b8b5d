#include "tests/common/torch_writer.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <zlib.h>

enum { MAX_RANK = 8, MAX_NAME = 256, ALIGNMENT = 64, PAD_ID = 0x4246, BATCH = 1000 };
enum { COPY_BYTES = 1 << 20, MAX_MEMO = 64, LOCAL_BYTES = 30 };

struct storage {
	char type[24];
	size_t element_bytes;
	uint64_t numel;
	const void *data;
};

struct view {
	char name[MAX_NAME];
	int storage, rank;
	uint64_t offset;
	int64_t shape[MAX_RANK], stride[MAX_RANK];
};

struct torch_writer {
	struct storage *storage;
	struct view *view;
	size_t storages, views;
	char nesting[32];
	torch_fill fill;
	void *fill_context;
	bool parameters;
};

struct torch_writer *torch_writer_create(void)
{
	struct torch_writer *writer = calloc(1, sizeof(*writer));

	assert_non_null(writer);
	return writer;
}

void torch_writer_destroy(struct torch_writer *writer)
{
	free(writer->storage);
	free(writer->view);
	free(writer);
}

void torch_writer_set_nesting(struct torch_writer *writer, const char *nesting)
{
	(void)snprintf(writer->nesting, sizeof(writer->nesting), "%s", nesting);
}

void torch_writer_set_fill(struct torch_writer *writer, torch_fill fill, void *context)
{
	writer->fill = fill;
	writer->fill_context = context;
}

void torch_writer_set_parameters(struct torch_writer *writer, bool parameters)
{
	writer->parameters = parameters;
}

int torch_writer_storage(struct torch_writer *writer, const char *type, size_t element_bytes,
			 uint64_t numel, const void *data)
{
	struct storage *storage;

	writer->storage = realloc(writer->storage, (writer->storages + 1) * sizeof(*storage));
	assert_non_null(writer->storage);
	storage = &writer->storage[writer->storages];
	*storage = (struct storage){ .element_bytes = element_bytes, .numel = numel, .data = data };
	(void)snprintf(storage->type, sizeof(storage->type), "%s", type);
	return (int)writer->storages++;
}

void torch_writer_view(struct torch_writer *writer, const char *name, int storage, uint64_t offset,
		       int rank, const int64_t *shape, const int64_t *stride)
{
	struct view *view;
	int64_t step = 1;

	assert_in_range(rank, 0, MAX_RANK);
	writer->view = realloc(writer->view, (writer->views + 1) * sizeof(*view));
	assert_non_null(writer->view);
	view = &writer->view[writer->views++];
	*view = (struct view){ .storage = storage, .rank = rank, .offset = offset };
	(void)snprintf(view->name, sizeof(view->name), "%s", name);
	for (int d = rank - 1; d >= 0; d--) {
		view->shape[d] = shape[d];
		view->stride[d] = stride ? stride[d] : step;
		step *= shape[d];
	}
}

void torch_writer_tensor(struct torch_writer *writer, const char *name, const char *dtype, int rank,
			 const int64_t *shape, const void *data)
{
	static const struct {
		const char *dtype, *type;
		size_t bytes;
	} types[] = {
		{ "F32", "Float", 4 },	{ "F16", "Half", 2 }, { "BF16", "BFloat16", 2 },
		{ "F64", "Double", 8 }, { "I64", "Long", 8 }, { "I32", "Int", 4 },
		{ "I16", "Short", 2 },	{ "I8", "Char", 1 },  { "U8", "Byte", 1 },
		{ "BOOL", "Bool", 1 },
	};
	uint64_t numel = 1;
	size_t i, found = 0;

	for (int d = 0; d < rank; d++)
		numel *= (uint64_t)shape[d];
	for (i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (strcmp(types[i].dtype, dtype) == 0)
			found = i;
	assert_string_equal(types[found].dtype, dtype);
	torch_writer_view(writer, name,
			  torch_writer_storage(writer, types[found].type, types[found].bytes, numel,
					       data),
			  0, rank, shape, NULL);
}

/* ------------------------------------------------------------------------------------- pickle */

struct buffer {
	FILE *stream;
	char *data;
	size_t bytes;
	uint32_t memo; /* next free number */
	struct {
		char text[MAX_NAME];
		uint32_t number;
	} known[MAX_MEMO];
	int knowns;
};

static void put(struct buffer *b, const void *data, size_t bytes)
{
	assert_int_equal(fwrite(data, 1, bytes, b->stream), bytes);
}

static void put_number(struct buffer *b, uint64_t value, int bytes)
{
	for (int i = 0; i < bytes; i++) {
		uint8_t byte = (uint8_t)(value >> 8 * i);

		put(b, &byte, 1);
	}
}

static void op(struct buffer *b, int opcode)
{
	put_number(b, (uint64_t)opcode, 1);
}

static uint32_t memo_put(struct buffer *b)
{
	op(b, b->memo < 256 ? 'q' : 'r');
	put_number(b, b->memo, b->memo < 256 ? 1 : 4);
	return b->memo++;
}

static void memo_get(struct buffer *b, uint32_t number)
{
	op(b, number < 256 ? 'h' : 'j');
	put_number(b, number, number < 256 ? 1 : 4);
}

/* True when the text was written before: a memo read takes its place. */
static bool seen(struct buffer *b, const char *text)
{
	for (int i = 0; i < b->knowns; i++) {
		if (strcmp(b->known[i].text, text) != 0)
			continue;
		memo_get(b, b->known[i].number);
		return true;
	}
	return false;
}

static void remember(struct buffer *b, const char *text)
{
	uint32_t number = memo_put(b);

	if (b->knowns == MAX_MEMO)
		return;
	(void)snprintf(b->known[b->knowns].text, MAX_NAME, "%s", text);
	b->known[b->knowns++].number = number;
}

static void put_string(struct buffer *b, const char *text)
{
	op(b, 'X');
	put_number(b, strlen(text), 4);
	put(b, text, strlen(text));
	(void)memo_put(b);
}

static void put_shared_string(struct buffer *b, const char *text)
{
	if (seen(b, text))
		return;
	op(b, 'X');
	put_number(b, strlen(text), 4);
	put(b, text, strlen(text));
	remember(b, text);
}

static void put_symbol(struct buffer *b, const char *module, const char *name)
{
	char text[MAX_NAME];

	(void)snprintf(text, sizeof(text), "%s\n%s\n", module, name);
	if (seen(b, text))
		return;
	op(b, 'c');
	put(b, text, strlen(text));
	remember(b, text);
}

static void put_integer(struct buffer *b, uint64_t value)
{
	int bytes = 1;

	if (value < 1 << 8) {
		op(b, 'K');
		put_number(b, value, 1);
	} else if (value < 1 << 16) {
		op(b, 'M');
		put_number(b, value, 2);
	} else if (value <= INT32_MAX) {
		op(b, 'J');
		put_number(b, value, 4);
	} else {
		while (value >> (8 * bytes - 1))
			bytes++;
		op(b, 0x8a);
		put_number(b, (uint64_t)bytes, 1);
		put_number(b, value, bytes);
	}
}

static void put_integers(struct buffer *b, int count, const int64_t *values)
{
	static const int tuple[] = { ')', 0x85, 0x86, 0x87 };

	if (count > 3)
		op(b, '(');
	for (int i = 0; i < count; i++)
		put_integer(b, (uint64_t)values[i]);
	op(b, count > 3 ? 't' : tuple[count]);
	if (count)
		(void)memo_put(b);
}

static void put_empty_ordered_dict(struct buffer *b)
{
	put_symbol(b, "collections", "OrderedDict");
	op(b, ')');
	op(b, 'R');
	(void)memo_put(b);
}

static void put_storage(struct buffer *b, const struct torch_writer *writer, int number)
{
	const struct storage *storage = &writer->storage[number];
	char text[32];

	op(b, '(');
	put_shared_string(b, "storage");
	(void)snprintf(text, sizeof(text), "%sStorage", storage->type);
	put_symbol(b, "torch", text);
	(void)snprintf(text, sizeof(text), "%d", number);
	put_string(b, text);
	put_shared_string(b, "cpu");
	put_integer(b, storage->numel);
	op(b, 't');
	(void)memo_put(b);
	op(b, 'Q');
}

static void put_tensor(struct buffer *b, const struct torch_writer *writer, const struct view *view)
{
	if (writer->parameters)
		put_symbol(b, "torch._utils", "_rebuild_parameter");
	put_symbol(b, "torch._utils", "_rebuild_tensor_v2");
	op(b, '(');
	put_storage(b, writer, view->storage);
	put_integer(b, view->offset);
	put_integers(b, view->rank, view->shape);
	put_integers(b, view->rank, view->stride);
	op(b, 0x89);
	put_empty_ordered_dict(b);
	op(b, 't');
	(void)memo_put(b);
	op(b, 'R');
	(void)memo_put(b);
	if (writer->parameters) {
		op(b, 0x88);
		put_empty_ordered_dict(b);
		op(b, 0x87);
		op(b, 'R');
	}
}

static void put_state_dict(struct buffer *b, const struct torch_writer *writer, const char *prefix)
{
	char name[MAX_NAME + 16];

	put_empty_ordered_dict(b);
	for (size_t first = 0; first < writer->views; first += BATCH) {
		op(b, '(');
		for (size_t i = first; i < writer->views && i < first + BATCH; i++) {
			(void)snprintf(name, sizeof(name), "%s%s", prefix, writer->view[i].name);
			put_string(b, name);
			put_tensor(b, writer, &writer->view[i]);
		}
		op(b, 'u');
	}
	/* Module versions, an attribute of state dicts. */
	op(b, '}');
	put_string(b, "_metadata");
	put_empty_ordered_dict(b);
	op(b, 's');
	op(b, 'b');
}

/* Entries that training leaves beside a state dict; the caller has written a mark. */
static void put_others(struct buffer *b)
{
	put_string(b, "epoch");
	put_integer(b, 3);
	put_string(b, "step");
	put_integer(b, UINT64_C(1) << 40);
	put_string(b, "lr");
	op(b, 'G');
	put(b, "\x3f\x1a\x36\xe2\xeb\x1c\x43\x2d", 8); /* 0.0001 */
	put_string(b, "names");
	op(b, ']');
	op(b, '(');
	put_string(b, "a");
	op(b, 'N');
	op(b, 0x88);
	op(b, 'e');
}

static void put_nested(struct buffer *b, const struct torch_writer *writer, const char *nesting)
{
	const char *dot = strchr(nesting, '.');
	char key[32];

	if (!nesting[0] || strcmp(nesting, "bare") == 0 || (dot && !strstr(nesting, "dict"))) {
		put_state_dict(b, writer, dot ? nesting : "");
		return;
	}
	(void)snprintf(key, sizeof(key), "%.*s", dot ? (int)(dot - nesting) : (int)strlen(nesting),
		       nesting);
	op(b, '}');
	(void)memo_put(b);
	op(b, '(');
	put_string(b, key);
	put_nested(b, writer, dot ? dot + 1 : "");
	put_others(b);
	op(b, 'u');
}

void *torch_writer_pickle(const struct torch_writer *writer, size_t *ret_bytes)
{
	struct buffer b = { 0 };

	b.stream = open_memstream(&b.data, &b.bytes);
	assert_non_null(b.stream);
	op(&b, 0x80);
	op(&b, 2);
	put_nested(&b, writer, writer->nesting);
	op(&b, '.');
	assert_int_equal(fclose(b.stream), 0);
	*ret_bytes = b.bytes;
	return b.data;
}

/* ---------------------------------------------------------------------------------------- zip */

struct zip_entry_written {
	char name[64];
	uint64_t bytes, offset;
	uint32_t crc;
};

struct zip_writer {
	FILE *file;
	uint64_t at;
	struct zip_entry_written *entry;
	size_t count;
};

static void zip_put(struct zip_writer *zip, const void *data, size_t bytes)
{
	assert_int_equal(fwrite(data, 1, bytes, zip->file), bytes);
	zip->at += bytes;
}

static void zip_number(struct zip_writer *zip, uint64_t value, int bytes)
{
	uint8_t text[8];

	for (int i = 0; i < bytes; i++)
		text[i] = (uint8_t)(value >> 8 * i);
	zip_put(zip, text, (size_t)bytes);
}

/* Local header: flags say "sizes follow the data", and a padding field aligns the data. */
static size_t zip_begin(struct zip_writer *zip, const char *name)
{
	static const uint8_t zeros[ALIGNMENT];
	size_t length = strlen(name), start, pad;
	struct zip_entry_written *entry;

	zip->entry = realloc(zip->entry, (zip->count + 1) * sizeof(*entry));
	assert_non_null(zip->entry);
	entry = &zip->entry[zip->count];
	*entry = (struct zip_entry_written){ .offset = zip->at };
	assert_true(length < sizeof(entry->name));
	memcpy(entry->name, name, length + 1);
	start = (size_t)(zip->at % ALIGNMENT) + LOCAL_BYTES + length + 4;
	pad = (ALIGNMENT - start % ALIGNMENT) % ALIGNMENT;
	zip_number(zip, 0x04034b50, 4);
	zip_number(zip, 0, 2);
	zip_number(zip, 0x0808, 2);
	zip_number(zip, 0, 6); /* method, time, date */
	zip_number(zip, 0, 8); /* CRC and size: after the data */
	zip_number(zip, 0, 4);
	zip_number(zip, length, 2);
	zip_number(zip, 4 + pad, 2);
	zip_put(zip, name, length);
	zip_number(zip, PAD_ID, 2);
	zip_number(zip, pad, 2);
	zip_put(zip, zeros, pad);
	return zip->count++;
}

static void zip_data(struct zip_writer *zip, size_t index, const void *data, size_t bytes)
{
	struct zip_entry_written *entry = &zip->entry[index];

	entry->crc = (uint32_t)crc32_z(entry->crc, data, bytes);
	entry->bytes += bytes;
	zip_put(zip, data, bytes);
}

static void zip_finish_entry(struct zip_writer *zip, size_t index)
{
	const struct zip_entry_written *entry = &zip->entry[index];

	zip_number(zip, 0x08074b50, 4);
	zip_number(zip, entry->crc, 4);
	zip_number(zip, entry->bytes, 4);
	zip_number(zip, entry->bytes, 4);
}

static void zip_add(struct zip_writer *zip, const char *name, const void *data, size_t bytes)
{
	size_t index = zip_begin(zip, name);

	zip_data(zip, index, data, bytes);
	zip_finish_entry(zip, index);
}

/* Only offsets beyond 4 GiB go to the 64-bit field, as writers do it. */
static void zip_central(struct zip_writer *zip, const struct zip_entry_written *entry)
{
	const bool far = entry->offset >= UINT32_MAX;

	zip_number(zip, 0x02014b50, 4);
	zip_number(zip, 0, 4);
	zip_number(zip, 0x0808, 2);
	zip_number(zip, 0, 6);
	zip_number(zip, entry->crc, 4);
	zip_number(zip, entry->bytes, 4);
	zip_number(zip, entry->bytes, 4);
	zip_number(zip, strlen(entry->name), 2);
	zip_number(zip, far ? 12 : 0, 2);
	zip_number(zip, 0, 2); /* comment */
	zip_number(zip, 0, 8); /* disk, attributes */
	zip_number(zip, far ? UINT32_MAX : entry->offset, 4);
	zip_put(zip, entry->name, strlen(entry->name));
	if (!far)
		return;
	zip_number(zip, 1, 2);
	zip_number(zip, 8, 2);
	zip_number(zip, entry->offset, 8);
}

static uint64_t zip_finish(struct zip_writer *zip)
{
	const uint64_t start = zip->at;
	uint64_t end;

	for (size_t i = 0; i < zip->count; i++)
		zip_central(zip, &zip->entry[i]);
	end = zip->at;
	zip_number(zip, 0x06064b50, 4);
	zip_number(zip, 44, 8);
	zip_number(zip, 0x031e031e, 4);
	zip_number(zip, 0, 8);
	zip_number(zip, zip->count, 8);
	zip_number(zip, zip->count, 8);
	zip_number(zip, end - start, 8);
	zip_number(zip, start, 8);
	zip_number(zip, 0x07064b50, 4);
	zip_number(zip, 0, 4);
	zip_number(zip, end, 8);
	zip_number(zip, 1, 4);
	zip_number(zip, 0x06054b50, 4);
	zip_number(zip, 0, 4);
	zip_number(zip, zip->count, 2);
	zip_number(zip, zip->count, 2);
	zip_number(zip, end - start, 4);
	zip_number(zip, start >= UINT32_MAX ? UINT32_MAX : start, 4);
	zip_number(zip, 0, 2);
	free(zip->entry);
	return zip->at;
}

static void zip_storage(struct zip_writer *zip, const struct torch_writer *writer, int number)
{
	const struct storage *storage = &writer->storage[number];
	const uint64_t bytes = storage->numel * storage->element_bytes;
	char name[64];
	size_t index;
	void *buffer;

	(void)snprintf(name, sizeof(name), "archive/data/%d", number);
	index = zip_begin(zip, name);
	if (storage->data) {
		zip_data(zip, index, storage->data, (size_t)bytes);
		zip_finish_entry(zip, index);
		return;
	}
	buffer = malloc(COPY_BYTES);
	assert_non_null(buffer);
	for (uint64_t at = 0; at < bytes; at += COPY_BYTES) {
		size_t part = (size_t)(bytes - at < COPY_BYTES ? bytes - at : COPY_BYTES);

		assert_non_null(writer->fill);
		writer->fill(writer->fill_context, number, at, buffer, part);
		zip_data(zip, index, buffer, part);
	}
	free(buffer);
	zip_finish_entry(zip, index);
}

uint64_t torch_writer_write(const struct torch_writer *writer, FILE *file)
{
	struct zip_writer zip = { .file = file };
	size_t bytes;
	void *pickle = torch_writer_pickle(writer, &bytes);

	zip_add(&zip, "archive/data.pkl", pickle, bytes);
	free(pickle);
	zip_add(&zip, "archive/.format_version", "1", 1);
	zip_add(&zip, "archive/.storage_alignment", "64", 2);
	zip_add(&zip, "archive/byteorder", "little", 6);
	for (size_t i = 0; i < writer->storages; i++)
		zip_storage(&zip, writer, (int)i);
	zip_add(&zip, "archive/version", "3\n", 2);
	zip_add(&zip, "archive/.data/serialization_id", "0000000000000000000000000000000000000000",
		40);
	return zip_finish(&zip);
}

uint64_t torch_writer_save(const struct torch_writer *writer, const char *path)
{
	FILE *file = fopen(path, "wb");
	uint64_t bytes;

	assert_non_null(file);
	bytes = torch_writer_write(writer, file);
	assert_int_equal(fclose(file), 0);
	return bytes;
}

void *torch_writer_bytes(const struct torch_writer *writer, size_t *ret_bytes)
{
	char *data = NULL;
	FILE *stream = open_memstream(&data, ret_bytes);

	assert_non_null(stream);
	(void)torch_writer_write(writer, stream);
	assert_int_equal(fclose(stream), 0);
	return data;
}

void *torch_writer_zip(const struct zip_part *parts, size_t count, size_t *ret_bytes)
{
	struct zip_writer zip = { 0 };
	char *data = NULL;

	zip.file = open_memstream(&data, ret_bytes);
	assert_non_null(zip.file);
	for (size_t i = 0; i < count; i++)
		zip_add(&zip, parts[i].name, parts[i].data, (size_t)parts[i].bytes);
	(void)zip_finish(&zip);
	assert_int_equal(fclose(zip.file), 0);
	return data;
}
