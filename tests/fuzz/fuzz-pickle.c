/* Any bytes as a pickle: refused by name, or values without cycles whose tensors fit their storages. */
#include "engine/checkpoint/pickle.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
	if (!holds)
		abort();
}

static void check_tensor(const struct pickle_tensor *tensor)
{
	uint64_t each = safetensors_dtype_bytes(tensor->dtype), count = 1, last = tensor->offset;
	uint64_t have = tensor->storage->numel;

	if (tensor->storage->untyped)
		have /= each;
	require(tensor->rank >= 0 && tensor->rank <= SAFETENSORS_MAX_RANK && each > 0);
	for (int d = 0; d < tensor->rank; d++) {
		require(tensor->shape[d] >= 0 && tensor->stride[d] >= 0);
		count *= (uint64_t)tensor->shape[d];
		if (tensor->shape[d])
			last += (uint64_t)(tensor->shape[d] - 1) * (uint64_t)tensor->stride[d];
	}
	require(count == tensor->count);
	require(count == 0 ? tensor->offset <= have : last < have);
	require(count == 0 || tensor->span == last - tensor->offset + 1);
	require(strspn(tensor->storage->key, "0123456789") == strlen(tensor->storage->key));
}

static void check_value(const struct pickle_value *value, int depth, size_t *budget)
{
	require(value->depth <= depth);
	if (*budget == 0)
		return;
	--*budget;
	if (value->kind == PICKLE_TENSOR)
		check_tensor(value->tensor);
	else if (value->kind == PICKLE_STRING)
		require(strlen(value->string.text) == value->string.bytes);
	else if (value->kind == PICKLE_TUPLE || value->kind == PICKLE_LIST)
		for (size_t i = 0; i < value->list.count; i++)
			check_value(value->list.item[i], depth - 1, budget);
	else if (value->kind == PICKLE_DICT)
		for (size_t i = 0; i < value->dict.count; i++)
			check_value(value->dict.pair[i].value, depth - 1, budget);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_(pickle_closep) struct pickle *pickle = NULL;
	struct sana_error error = { 0 };
	int r = pickle_parse(data, size, "input", &pickle, &error);
	size_t budget = 100000; /* shared values are visited as often as they are seen */

	if (r < 0) {
		require(error.code == r && strcmp(error.name, "checkpoint.pickle") == 0);
		require(strncmp(error.text, "input", 5) == 0 && !strchr(error.text, '\n'));
		require(!pickle);
		return 0;
	}
	check_value(pickle_top(pickle), PICKLE_MAX_DEPTH, &budget);
	return 0;
}
