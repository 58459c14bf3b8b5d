/*
 * Depth-wise 3×3 convolution with a gated unit (kernel_depthwise_glu): d = conv(a) + bias over 2F
 * channels, y = d[0:F] ⊙ silu(d[F:2F]).
 *
 * A thread has 4 channels of each half and walks along a strip of two picture rows, the nine weights and
 * a window of three columns in registers, the next column on its way: an element is read from L2 twice and
 * from memory once.
 */
#include "kernels/cuda/mixffn.h"
#include "kernels/cuda/mma.cuh"

enum {
	LANES = 4, /* channels of a thread, of each half */
	ROWS = 2,  /* of the output */
};

struct four {
	float v[LANES];
};

static __device__ __forceinline__ struct four four_of(uint2 bits)
{
	struct four f = { { bf16_low(bits.x), bf16_high(bits.x), bf16_low(bits.y),
			    bf16_high(bits.y) } };

	return f;
}

static __device__ __forceinline__ struct four four_floats(const float *from)
{
	const float4 v = *(const float4 *)from;
	struct four f = { { v.x, v.y, v.z, v.w } };

	return f;
}

/* One half's part of a column: the two rows of the output and their neighbours; zero outside. */
struct column {
	uint2 row[ROWS + 2];
};

static __device__ __forceinline__ struct column
column_load(const uint16_t *a, size_t row_elements, size_t ld, int y, int height, int x, int width)
{
	struct column c;

#pragma unroll
	for (int r = 0; r < ROWS + 2; r++) {
		const bool inside = y + r >= 1 && y + r <= height && x >= 0 && x < width;

		c.row[r] = make_uint2(0, 0);
		if (inside)
			c.row[r] = *(const uint2 *)(a + (ptrdiff_t)(r - 1) * row_elements +
						    (ptrdiff_t)x * ld);
	}
	return c;
}

/* Output row `row` of the two. */
static __device__ __forceinline__ struct four convolve(const struct column window[3], int row,
						       const struct four weight[9],
						       const struct four &bias)
{
	struct four d = bias;

#pragma unroll
	for (int r = 0; r < 3; r++)
#pragma unroll
		for (int c = 0; c < 3; c++) {
			const struct four x = four_of(window[c].row[row + r]);

#pragma unroll
			for (int i = 0; i < LANES; i++)
				d.v[i] += weight[3 * r + c].v[i] * x.v[i];
		}
	return d;
}

static __device__ __forceinline__ float silu(float a)
{
	return a * reciprocal_approx(1.0f + exp2_approx(-1.4426950408889634f * a));
}

/* Grid: quads of features, pairs of rows of all frames, strips. F a multiple of 4, 16-byte addresses. */
extern "C" __global__ void __launch_bounds__(128)
	depthwise_glu(const __grid_constant__ struct depthwise_glu_params p)
{
	const int channel = (blockIdx.x * blockDim.x + threadIdx.x) * LANES;
	const int pairs = (p.height + ROWS - 1) / ROWS, y = blockIdx.y % pairs * ROWS;
	const size_t row = (size_t)(blockIdx.y / pairs) * p.height + y;
	const int x_first = blockIdx.z * p.strip, x_end = min(x_first + p.strip, p.width);
	const size_t ld = 2 * (size_t)p.features, row_elements = ld * p.width;
	const uint16_t *a = (const uint16_t *)p.a + row * row_elements + channel;
	uint16_t *out = (uint16_t *)p.y + row * p.width * p.features + channel;
	struct four weight[2][9], bias[2];
	struct column window[2][3];

	if (channel >= p.features)
		return;
#pragma unroll
	for (int half = 0; half < 2; half++) {
#pragma unroll
		for (int k = 0; k < 9; k++)
			weight[half][k] =
				four_floats(p.weight + k * ld + half * p.features + channel);
		bias[half] = four_floats(p.bias + half * p.features + channel);
	}
	dependency_wait();
#pragma unroll
	for (int half = 0; half < 2; half++)
#pragma unroll
		for (int c = 0; c < 3; c++)
			window[half][c] = column_load(a + half * p.features, row_elements, ld, y,
						      p.height, x_first - 1 + c, p.width);
	for (int x = x_first; x < x_end; x++) {
		struct column ahead[2];

#pragma unroll
		for (int half = 0; half < 2; half++)
			ahead[half] = column_load(a + half * p.features, row_elements, ld, y,
						  p.height, x + 2, p.width);
#pragma unroll
		for (int r = 0; r < ROWS; r++) {
			const struct four d = convolve(window[0], r, weight[0], bias[0]);
			const struct four g = convolve(window[1], r, weight[1], bias[1]);
			uint2 bits;

			bits.x = bf16_pack(d.v[0] * silu(g.v[0]), d.v[1] * silu(g.v[1]));
			bits.y = bf16_pack(d.v[2] * silu(g.v[2]), d.v[3] * silu(g.v[3]));
			if (y + r < p.height)
				*(uint2 *)(out + ((size_t)r * p.width + x) * p.features) = bits;
		}
#pragma unroll
		for (int half = 0; half < 2; half++) {
			window[half][0] = window[half][1];
			window[half][1] = window[half][2];
			window[half][2] = ahead[half];
		}
	}
}

/* Any number of features: a thread makes one element. */
extern "C" __global__ void depthwise_glu_any(const __grid_constant__ struct depthwise_glu_params p)
{
	const size_t total = (size_t)p.frames * p.height * p.width * p.features;
	const size_t ld = 2 * (size_t)p.features;

	for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < total;
	     i += (size_t)gridDim.x * blockDim.x) {
		const size_t pixel = i / p.features, c = i % p.features;
		const int x = pixel % p.width, y = pixel / p.width % p.height;
		float d[2];

		for (int half = 0; half < 2; half++) {
			const size_t channel = c + half * p.features;

			d[half] = p.bias[channel];
			for (int k = 0; k < 9; k++) {
				const int dy = k / 3 - 1, dx = k % 3 - 1;

				if (y + dy < 0 || y + dy >= p.height || x + dx < 0 ||
				    x + dx >= p.width)
					continue;
				d[half] +=
					p.weight[k * ld + channel] *
					bf16_value(((const uint16_t *)
							    p.a)[(pixel + dy * p.width + dx) * ld +
								 channel]);
			}
		}
		((uint16_t *)p.y)[i] = bf16_bits(d[0] * silu(d[1]));
	}
}
