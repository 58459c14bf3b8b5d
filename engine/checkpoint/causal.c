/* Moving convolution taps from (before, now, after) to (two before, before, now). */
#include "engine/checkpoint/causal.h"

#include <errno.h>
#include <math.h>

enum { FRAME = CAUSAL_KERNEL / CAUSAL_TAPS };

static float f32_load(const uint8_t *at)
{
	float value;

	memcpy(&value, at, sizeof(value));
	return value;
}

static void f32_store(uint8_t *at, float value)
{
	memcpy(at, &value, sizeof(value));
}

static float bf16_load(const uint8_t *at)
{
	uint16_t half;
	uint32_t bits;
	float value;

	memcpy(&half, at, sizeof(half));
	bits = (uint32_t)half << 16;
	memcpy(&value, &bits, sizeof(value));
	return value;
}

static void bf16_store(uint8_t *at, float value)
{
	uint32_t bits;
	uint16_t half;

	memcpy(&bits, &value, sizeof(bits));
	if (isnan(value))
		half = (uint16_t)(bits >> 16 | 0x40);
	else
		half = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
	memcpy(at, &half, sizeof(half));
}

static float f16_load(const uint8_t *at)
{
	uint16_t half;
	int exponent;
	float value;

	memcpy(&half, at, sizeof(half));
	exponent = half >> 10 & 0x1f;
	if (exponent == 0x1f)
		value = half & 0x3ff ? NAN : INFINITY;
	else if (exponent == 0)
		value = ldexpf((float)(half & 0x3ff), -24);
	else
		value = ldexpf((float)((half & 0x3ff) | 0x400), exponent - 25);
	return half & 0x8000 ? -value : value;
}

static void f16_store(uint8_t *at, float value)
{
	float size = fabsf(value);
	uint16_t half = signbit(value) ? 0x8000 : 0;
	int exponent;
	float steps;

	if (isnan(value)) {
		half |= 0x7e00;
	} else if (size >= 65520.0f) { /* rounds to more than the largest number */
		half |= 0x7c00;
	} else if (size < 0x1p-14f) {
		half |= (uint16_t)rintf(size * 0x1p24f); /* 1024 becomes the smallest normal one */
	} else {
		(void)frexpf(size, &exponent);		    /* size in [2^(e−1), 2^e) */
		steps = rintf(ldexpf(size, 11 - exponent)); /* 1024 to 2048 */
		half |= (uint16_t)(((exponent + 14) << 10) + ((int)steps - 1024));
	}
	memcpy(at, &half, sizeof(half));
}

static void convert(uint8_t *kernel, size_t count, size_t each, float (*load)(const uint8_t *),
		    void (*store)(uint8_t *, float))
{
	for (size_t k = 0; k < count; k++, kernel += CAUSAL_KERNEL * each) {
		for (size_t i = 0; i < FRAME; i++) {
			uint8_t *w0 = kernel + i * each, *w1 = w0 + FRAME * each;
			uint8_t *w2 = w1 + FRAME * each;

			store(w2, load(w1) + load(w2));
			memcpy(w1, w0, each);
			memset(w0, 0, each);
		}
	}
}

int causal_convert(enum safetensors_dtype dtype, void *kernels, size_t count)
{
	size_t each = safetensors_dtype_bytes(dtype);

	if (dtype == SAFETENSORS_F32)
		convert(kernels, count, each, f32_load, f32_store);
	else if (dtype == SAFETENSORS_BF16)
		convert(kernels, count, each, bf16_load, bf16_store);
	else if (dtype == SAFETENSORS_F16)
		convert(kernels, count, each, f16_load, f16_store);
	else
		return -EINVAL;
	return 0;
}
