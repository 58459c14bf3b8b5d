#include "tests/common/tensor_file.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LENGTH_BYTES = 8 };

struct tensor_file {
	char *header;
	size_t header_bytes, header_capacity;
	char *data;
	size_t data_bytes;
};

struct tensor_file *tensor_file_create(void)
{
	struct tensor_file *file = calloc(1, sizeof(*file));

	assert_non_null(file);
	return file;
}

void tensor_file_destroy(struct tensor_file *file)
{
	free(file->header);
	free(file->data);
	free(file);
}

static void header_add(struct tensor_file *file, const char *text)
{
	size_t length = strlen(text);

	while (file->header_bytes + length + 1 > file->header_capacity) {
		file->header_capacity = file->header_capacity ? file->header_capacity * 2 : 4096;
		file->header = realloc(file->header, file->header_capacity);
		assert_non_null(file->header);
	}
	memcpy(file->header + file->header_bytes, text, length + 1);
	file->header_bytes += length;
}

void tensor_file_add(struct tensor_file *file, const char *name, const char *dtype, int rank,
		     const int64_t *shape, const void *data, size_t bytes)
{
	char text[256];

	(void)snprintf(text, sizeof(text), "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[",
		       file->header_bytes ? "," : "{", name, dtype);
	header_add(file, text);
	for (int d = 0; d < rank; d++) {
		(void)snprintf(text, sizeof(text), "%s%" PRId64, d ? "," : "", shape[d]);
		header_add(file, text);
	}
	(void)snprintf(text, sizeof(text), "],\"data_offsets\":[%zu,%zu]}", file->data_bytes,
		       file->data_bytes + bytes);
	header_add(file, text);
	file->data = realloc(file->data, file->data_bytes + bytes + 1);
	assert_non_null(file->data);
	if (data)
		memcpy(file->data + file->data_bytes, data, bytes);
	else
		memset(file->data + file->data_bytes, 0, bytes);
	file->data_bytes += bytes;
}

void *tensor_file_raw(const char *header, size_t header_bytes, size_t data_bytes, size_t *ret_bytes)
{
	unsigned char *bytes = calloc(1, LENGTH_BYTES + header_bytes + data_bytes);

	assert_non_null(bytes);
	for (int i = 0; i < LENGTH_BYTES; i++)
		bytes[i] = (unsigned char)((uint64_t)header_bytes >> (8 * i));
	memcpy(bytes + LENGTH_BYTES, header, header_bytes);
	*ret_bytes = LENGTH_BYTES + header_bytes + data_bytes;
	return bytes;
}

void tensor_file_write(const struct tensor_file *file, const struct scratch *scratch,
		       const char *name)
{
	size_t capacity = file->header_bytes + 3, bytes;
	char *header = malloc(capacity), *whole;

	assert_non_null(header);
	(void)snprintf(header, capacity, "%s}", file->header_bytes ? file->header : "{");
	whole = tensor_file_raw(header, strlen(header), file->data_bytes, &bytes);
	if (file->data_bytes)
		memcpy(whole + bytes - file->data_bytes, file->data, file->data_bytes);
	scratch_write(scratch, name, whole, bytes);
	free(whole);
	free(header);
}
