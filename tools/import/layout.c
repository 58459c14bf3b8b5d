/* The order of a result's tensors, their places, and the header that says so. */
#include "tools/import/plan.h"

#include <errno.h>
#include <jansson.h>

enum { LENGTH_BYTES = 8, ALIGNMENT = 64 };

/*
 * Larger elements first, so that every tensor is aligned for its own; then as the source has them,
 * so that it is read from the front to the back.
 */
static int compare_tensors(const void *a, const void *b)
{
	const struct set_tensor *left = ((const struct out_tensor *)a)->from;
	const struct set_tensor *right = ((const struct out_tensor *)b)->from;
	size_t left_each = safetensors_dtype_bytes(left->dtype);
	size_t right_each = safetensors_dtype_bytes(right->dtype);

	if (left_each != right_each)
		return left_each > right_each ? -1 : 1;
	if (left->file != right->file)
		return left->file < right->file ? -1 : 1;
	if (left->offset != right->offset)
		return left->offset < right->offset ? -1 : 1;
	return strcmp(left->name, right->name);
}

static json_t *record_make(const struct out_tensor *tensor)
{
	const struct set_tensor *from = tensor->from;
	json_t *shape = json_array();

	for (int d = 0; d < from->rank; d++)
		(void)json_array_append_new(shape, json_integer(from->shape[d]));
	return json_pack("{s:s, s:o, s:[I, I]}", "dtype", safetensors_dtype_name(from->dtype),
			 "shape", shape, "data_offsets", (json_int_t)tensor->offset,
			 (json_int_t)(tensor->offset + from->bytes));
}

static char *header_text(const struct out_file *out)
{
	json_t *header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
	char *text;

	for (size_t i = 0; header && i < out->count; i++) {
		if (json_object_set_new(header, out->tensor[i].name, record_make(&out->tensor[i])) <
		    0) {
			json_decref(header);
			return NULL;
		}
	}
	text = header ? json_dumps(header, JSON_COMPACT) : NULL;
	json_decref(header);
	return text;
}

int out_file_lay(struct out_file *out, struct sana_error *error)
{
	_cleanup_(freep) char *text = NULL;
	uint64_t at = 0;
	size_t length, whole;

	qsort(out->tensor, out->count, sizeof(*out->tensor), compare_tensors);
	for (size_t i = 0; i < out->count; i++) {
		out->tensor[i].offset = at;
		at += out->tensor[i].from->bytes;
	}
	text = header_text(out);
	if (!text)
		return sana_error_set(error, -ENOMEM, "import.memory", "No memory for a header.");
	length = strlen(text);
	whole = align_up(LENGTH_BYTES + length, ALIGNMENT);
	out->header = malloc(whole);
	if (!out->header)
		return sana_error_set(error, -ENOMEM, "import.memory", "No memory for a header.");
	for (int i = 0; i < LENGTH_BYTES; i++)
		out->header[i] = (char)(uint8_t)((uint64_t)(whole - LENGTH_BYTES) >> 8 * i);
	memcpy(out->header + LENGTH_BYTES, text, length);
	memset(out->header + LENGTH_BYTES + length, ' ', whole - LENGTH_BYTES - length);
	out->header_bytes = whole;
	out->bytes = whole + at;
	for (size_t i = 0; i < out->count; i++)
		out->tensor[i].offset += whole;
	return 0;
}
