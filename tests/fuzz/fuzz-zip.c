/* Any bytes as a checkpoint: the zip walk, then the pickle and the tensors it leads to. */
#include "engine/checkpoint/looks.h"
#include "engine/checkpoint/torch_file.h"
#include "engine/checkpoint/zip.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
	if (!holds)
		abort();
}

static void check_error(const struct sana_error *error, int r)
{
	require(error->code == r && strncmp(error->name, "checkpoint.", 11) == 0);
	require(strncmp(error->text, "input", 5) == 0 && !strchr(error->text, '\n'));
}

static void check_zip(const struct zip *zip, size_t size)
{
	for (size_t i = 0; i < zip_count(zip); i++) {
		const struct zip_entry *entry = zip_at(zip, i);

		require(entry->offset <= size && entry->bytes <= size - entry->offset);
		require(entry->name[0] && entry->name[0] != '/');
		require(zip_find(zip, entry->name) == entry);
		for (size_t j = 0; j < i && j < 100; j++) {
			const struct zip_entry *other = zip_at(zip, j);

			require(entry->bytes == 0 || other->bytes == 0 ||
				entry->offset + entry->bytes <= other->offset ||
				other->offset + other->bytes <= entry->offset);
		}
	}
}

/* Every byte of every tensor, the strided ones too, so that the sanitizer sees a wrong one. */
static void check_tensors(const struct byte_source *source, const struct torch_file *file)
{
	for (size_t i = 0; i < torch_file_count(file); i++) {
		const struct torch_tensor *tensor = torch_file_at(file, i);
		size_t each = safetensors_dtype_bytes(tensor->dtype);
		uint8_t *span = malloc((size_t)tensor->span_bytes + 1);
		uint8_t *values = malloc((size_t)tensor->bytes + 1);

		require(span && values);
		require(!tensor->contiguous || tensor->bytes == tensor->span_bytes);
		require(byte_source_read(source, tensor->offset, span,
					 (size_t)tensor->span_bytes) == 0);
		if (!tensor->contiguous)
			torch_tensor_gather(tensor, span, 0, (size_t)tensor->bytes / each, values);
		free(span);
		free(values);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_(torch_file_closep) struct torch_file *file = NULL;
	_cleanup_(zip_closep) struct zip *zip = NULL;
	struct sana_error error = { 0 };
	struct byte_source source;
	uint8_t buffer[64];
	const char *text;
	int r;

	byte_source_from_memory(data, size, "input", &source);
	require(file_look(&source, &text) < LOOK_COUNT && text);
	r = zip_open(&source, &zip, &error);
	if (r < 0) {
		check_error(&error, r);
		return 0;
	}
	check_zip(zip, size);
	r = torch_file_open(&source, &file, &error);
	if (r < 0) {
		check_error(&error, r);
		return 0;
	}
	check_tensors(&source, file);
	(void)torch_file_check_crc(&source, file, buffer, sizeof(buffer), &error);
	return 0;
}
