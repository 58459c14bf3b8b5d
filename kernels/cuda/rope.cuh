/* The rotation of one lane pair of one token (kernel_rope of kernels.h). */
#pragma once

#include "kernels/cuda/norm.h"

static __device__ __forceinline__ float2 rope_at(const struct rope_tables &r, int token, int pair)
{
	const int x = token % r.width, y = token / r.width % r.height;
	const int t = token / r.width / r.height;
	const float *cos, *sin;
	int at;

	if (pair < r.pairs_t) {
		cos = r.cos_t, sin = r.sin_t;
		at = t * r.pairs_t + pair;
	} else if (pair < r.pairs_t + r.pairs_y) {
		cos = r.cos_y, sin = r.sin_y;
		at = y * r.pairs_y + pair - r.pairs_t;
	} else {
		cos = r.cos_x, sin = r.sin_x;
		at = x * r.pairs_x + pair - r.pairs_t - r.pairs_y;
	}
	return make_float2(__ldg(cos + at), __ldg(sin + at));
}

/* (a, b) turned by the pair's angle. */
static __device__ __forceinline__ void rope_turn(float2 cs, float *a, float *b)
{
	const float turned = *a * cs.x - *b * cs.y;

	*b = *b * cs.x + *a * cs.y;
	*a = turned;
}
