/* Element-wise ops on tokens, latents and carried state. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct embedding_params {
	const void *table; /* BF16 [vocabulary][channels] */
	const int32_t *ids;
	void *y;
	float scale;
	int rows, channels, vocabulary;
};

struct glu_gelu_params {
	const void *gate, *up;
	void *y;
	size_t count;
};

struct concat_params {
	const float *a, *b;
	void *y;
	int rows, channels_a, channels_b;
};

struct euler_step_params {
	float *x;
	const void *v;
	const float *step;
	size_t count;
};

struct health_params {
	const void *x;
	int x_is_float;
	size_t count;
	float limit;
	uint32_t *flags;
};

struct channel_affine_params {
	const void *x;
	void *y;
	int x_is_float, y_is_float;
	const float *scale, *shift;
	size_t rows, ldx;
	int channels;
};

struct noise_params {
	float *y;
	const uint64_t *seed, *first_frame;
	int frames, height, width, channels;
};
