/* Norms and rotations of token rows. */
#pragma once

#include <stddef.h>

struct layer_norm_params {
	const void *x;
	const float *scale, *shift;
	void *y;
	float epsilon;
	int rows, channels;
};

struct rms_norm_params {
	const void *x, *residual;
	const float *weight;
	void *y;
	float weight_offset, epsilon;
	int rows, channels;
};

/* kernel_rope, or pairs_t + pairs_y + pairs_x = 0: no rotation. */
struct rope_tables {
	const float *cos_t, *sin_t, *cos_y, *sin_y, *cos_x, *sin_x;
	int height, width, pairs_t, pairs_y, pairs_x;
};

struct qk_norm_rope_params {
	void *x;
	size_t ldx;
	const float *weight;
	struct rope_tables rope;
	float epsilon;
	int rows, channels, head_dim;
};

struct rope_half_params {
	void *x;
	size_t ldx;
	const float *cos, *sin;
	int rows, heads, head_dim;
};

struct rope_shift_params {
	const void *x;
	void *y;
	const float *cos, *sin;
	int x_is_float, y_is_float;
	size_t rows;
	int heads, head_dim, pairs;
};
