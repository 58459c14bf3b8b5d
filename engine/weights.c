/*
 * The table of named tensors and reading single values from it.
 *
 * Data in a file mapping starts wherever the file puts it, so it may not be aligned for its type:
 * values are read through memcpy here, and back ends do the same.
 */
#include "engine/weights_table.h"

#include <assert.h>
#include <errno.h>

int weights_create(struct weights **ret)
{
	struct weights *weights = calloc(1, sizeof(*weights));

	if (!weights)
		return -ENOMEM;
	*ret = weights;
	return 0;
}

void weights_destroy(struct weights *weights)
{
	if (!weights)
		return;
	for (size_t i = 0; i < weights->count; i++)
		free(weights->tensor[i].name);
	for (size_t i = 0; i < weights->owned_count; i++)
		weights->owned[i].release(weights->owned[i].thing, weights->owned[i].bytes);
	free(weights->tensor);
	free(weights->owned);
	free(weights);
}

/* The list with room for one more entry of `size` bytes; NULL (and the list unchanged) if none. */
static void *list_grow(void *list, size_t count, size_t *capacity, size_t size)
{
	size_t wanted = *capacity ? *capacity * 2 : 64;
	void *grown;

	if (count < *capacity)
		return list;
	grown = reallocarray(list, wanted, size);
	if (grown)
		*capacity = wanted;
	return grown;
}

int weights_own(struct weights *weights, weights_release release, void *thing, size_t bytes)
{
	struct weights_owned *owned = list_grow(weights->owned, weights->owned_count,
						&weights->owned_capacity, sizeof(*owned));

	if (!owned)
		return -ENOMEM;
	weights->owned = owned;
	weights->owned[weights->owned_count++] = (struct weights_owned){ release, thing, bytes };
	return 0;
}

int weights_append(struct weights *weights, const struct weight_tensor *tensor)
{
	struct weight_tensor *list;
	char *name;

	list = list_grow(weights->tensor, weights->count, &weights->capacity, sizeof(*list));
	if (!list)
		return -ENOMEM;
	weights->tensor = list;
	name = strdup(tensor->name);
	if (!name)
		return -ENOMEM;
	weights->tensor[weights->count] = *tensor;
	weights->tensor[weights->count++].name = name;
	return 0;
}

static int tensor_compare(const void *a, const void *b)
{
	const struct weight_tensor *left = a, *right = b;

	return strcmp(left->name, right->name);
}

const char *weights_sort(struct weights *weights)
{
	if (weights->count == 0)
		return NULL;
	qsort(weights->tensor, weights->count, sizeof(*weights->tensor), tensor_compare);
	for (size_t i = 1; i < weights->count; i++)
		if (strcmp(weights->tensor[i - 1].name, weights->tensor[i].name) == 0)
			return weights->tensor[i].name;
	return NULL;
}

static size_t tensor_elements(const struct weight_tensor *tensor)
{
	size_t count = 1;

	for (int d = 0; d < tensor->rank && d < MODEL_KEY_RANK; d++)
		count *= (size_t)tensor->shape[d];
	return count;
}

static void release_heap(void *thing, size_t bytes)
{
	(void)bytes;
	free(thing);
}

/* A copy of the tensor's data that the table owns. */
static int data_copy(struct weights *weights, const struct weight_tensor *tensor,
		     const void **ret_data)
{
	size_t bytes = tensor_elements(tensor) * kernel_dtype_bytes(tensor->dtype);
	void *data = malloc(MAX_OF(bytes, (size_t)1));
	int r;

	if (!data)
		return -ENOMEM;
	memcpy(data, tensor->data, bytes);
	r = weights_own(weights, release_heap, data, bytes);
	if (r < 0) {
		free(data);
		return r;
	}
	*ret_data = data;
	return 0;
}

int weights_add(struct weights *weights, const struct weight_tensor *tensor, bool copy)
{
	struct weight_tensor added = *tensor;
	size_t place;
	int r;

	if (weights_find(weights, tensor->name))
		return -EEXIST;
	if (copy) {
		r = data_copy(weights, tensor, &added.data);
		if (r < 0)
			return r;
	}
	r = weights_append(weights, &added);
	if (r < 0)
		return r;
	added = weights->tensor[weights->count - 1];
	for (place = weights->count - 1; place > 0; place--) {
		if (tensor_compare(&weights->tensor[place - 1], &added) < 0)
			break;
		weights->tensor[place] = weights->tensor[place - 1];
	}
	weights->tensor[place] = added;
	return 0;
}

const struct weight_tensor *weights_find(const struct weights *weights, const char *name)
{
	struct weight_tensor wanted = { .name = (char *)name };

	if (weights->count == 0)
		return NULL;
	return bsearch(&wanted, weights->tensor, weights->count, sizeof(wanted), tensor_compare);
}

size_t weights_count(const struct weights *weights)
{
	return weights->count;
}

const struct weight_tensor *weights_at(const struct weights *weights, size_t index)
{
	assert(index < weights->count);
	return &weights->tensor[index];
}

float weight_bf16_to_float(uint16_t value)
{
	uint32_t bits = (uint32_t)value << 16;
	float number;

	memcpy(&number, &bits, sizeof(number));
	return number;
}

uint16_t weight_float_to_bf16(float value)
{
	uint32_t bits;

	memcpy(&bits, &value, sizeof(bits));
	if ((bits & 0x7fffffff) > 0x7f800000)
		return (uint16_t)(bits >> 16 |
				  0x40); /* a quiet NaN even if only low bits were set */
	return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

static float f16_to_float(uint16_t value)
{
	uint32_t sign = (uint32_t)(value & 0x8000) << 16, fraction = value & 0x3ff;
	int exponent = value >> 10 & 0x1f;
	uint32_t bits;
	float number;

	if (exponent == 0) { /* zero and subnormals: fraction·2⁻²⁴ */
		number = (float)fraction * 0x1p-24f;
		return sign ? -number : number;
	}
	/* infinities and NaN keep the highest exponent, others move from bias 15 to 127 */
	bits = sign | (uint32_t)(exponent == 31 ? 255 : exponent + 112) << 23 | fraction << 13;
	memcpy(&number, &bits, sizeof(number));
	return number;
}

void weights_read_float(const struct weight_tensor *tensor, float *to, size_t count)
{
	const char *data;
	uint16_t half;

	assert(tensor && tensor_elements(tensor) == count);
	data = tensor->data;
	switch (tensor->dtype) {
	case KERNEL_F32:
		memcpy(to, data, count * sizeof(*to));
		return;
	case KERNEL_BF16:
		for (size_t i = 0; i < count; i++) {
			memcpy(&half, data + i * sizeof(half), sizeof(half));
			to[i] = weight_bf16_to_float(half);
		}
		return;
	case KERNEL_F16:
		for (size_t i = 0; i < count; i++) {
			memcpy(&half, data + i * sizeof(half), sizeof(half));
			to[i] = f16_to_float(half);
		}
		return;
	case KERNEL_U8:
	case KERNEL_DTYPE_INVALID:
	case KERNEL_DTYPE_COUNT:
		break;
	}
	assert(!"a weight has a floating-point type");
}
