/* Strided tensors, element by element in row-major order. */
#include "engine/checkpoint/torch_file.h"

void torch_tensor_gather(const struct torch_tensor *tensor, const void *span, uint64_t first,
			 size_t count, void *to)
{
	const size_t each = safetensors_dtype_bytes(tensor->dtype);
	int64_t index[SAFETENSORS_MAX_RANK] = { 0 };
	uint64_t rest = first, at = 0;
	uint8_t *next = to;

	for (int d = tensor->rank - 1; d >= 0; d--) {
		index[d] = (int64_t)(rest % (uint64_t)tensor->shape[d]);
		rest /= (uint64_t)tensor->shape[d];
		at += (uint64_t)index[d] * (uint64_t)tensor->stride[d];
	}
	for (size_t i = 0; i < count; i++, next += each) {
		memcpy(next, (const uint8_t *)span + at * each, each);
		/* the next index: count up the last dimension, carry into the ones before */
		for (int d = tensor->rank - 1; d >= 0; d--) {
			at += (uint64_t)tensor->stride[d];
			if (++index[d] < tensor->shape[d])
				break;
			at -= (uint64_t)tensor->shape[d] * (uint64_t)tensor->stride[d];
			index[d] = 0;
		}
	}
}
