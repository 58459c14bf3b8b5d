/* Any bytes as a safetensors file: refused by name, or tensors that tile the data exactly. */
#include "engine/checkpoint/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
	if (!holds)
		abort();
}

/* Reads every byte, so that the sanitizer sees one outside the input. */
static uint64_t tensor_sum(const struct safetensors_tensor *tensor)
{
	uint64_t sum = 0;

	for (uint64_t i = 0; i < tensor->bytes; i++)
		sum += ((const uint8_t *)tensor->data)[i];
	return sum;
}

static void check_file(const struct safetensors *file, const uint8_t *data, size_t size)
{
	uint64_t end = 0, sum = 0;

	for (size_t i = 0; i < safetensors_count(file); i++) {
		const struct safetensors_tensor *tensor = safetensors_at(file, i);
		uint64_t bytes = safetensors_dtype_bytes(tensor->dtype);

		require(tensor->rank >= 0 && tensor->rank <= SAFETENSORS_MAX_RANK);
		for (int d = 0; d < tensor->rank; d++)
			bytes *= (uint64_t)tensor->shape[d];
		require(bytes == tensor->bytes);
		require(i == 0 || tensor->offset == end);
		require(tensor->data == data + tensor->offset);
		require(strlen(tensor->name) <= 1024);
		end = tensor->offset + tensor->bytes;
		sum += tensor_sum(tensor);
	}
	require(safetensors_count(file) == 0 || end == size);
	require(sum <= 255 * (uint64_t)size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_(safetensors_closep) struct safetensors *file = NULL;
	struct sana_error error = { 0 };
	int r = safetensors_parse(data, size, "input", &file, &error);

	if (r < 0) {
		require(error.code == r && strcmp(error.name, "checkpoint.safetensors") == 0);
		require(strncmp(error.text, "input", 5) == 0 && !strchr(error.text, '\n'));
		require(!file);
		return 0;
	}
	check_file(file, data, size);
	return 0;
}
