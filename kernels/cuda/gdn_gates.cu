/*
 * Gates of the gated delta rule: both of a token's as one product with the gates' weights, and for any
 * number of heads and channels three plain kernels.
 */
#include "kernels/cuda/gdn.h"
#include "kernels/cuda/mma.cuh"

static __device__ __forceinline__ float warp_sum(float v)
{
#pragma unroll
	for (int step = 16; step > 0; step /= 2)
		v += __shfl_xor_sync(0xffffffffu, v, step);
	return v;
}

/* Column of a gate in the products: heads' betas, then, from the next multiple of 8 on, their decays. */
static __device__ __forceinline__ uint32_t gate_weight(const struct gdn_gates_params &p, int column,
						       int k)
{
	const int rounded = (p.heads + 7) / 8 * 8;
	const bool is_decay = column >= rounded;
	const int head = is_decay ? column - rounded : column;
	const void *from = is_decay ? p.weight_decay : p.weight_beta;

	return head < p.heads ?
		       __ldg((const uint32_t *)((const uint16_t *)from + head * p.channels + k)) :
		       0;
}

/* c += u·wᵀ of the block's 16 tokens; the warps share the channels, 16 at a time. */
static __device__ __forceinline__ void gates_product(const struct gdn_gates_params &p,
						     const uint16_t *u, int count, int tiles,
						     float c[GDN_GATE_COLUMNS / 8][4])
{
	const int g = threadIdx.x % 32 / 4, pair = threadIdx.x % 4;

#pragma unroll 2
	for (int k = threadIdx.x / 32 * 16; k < p.channels; k += GDN_GATE_THREADS / 32 * 16) {
		uint32_t a[4];

#pragma unroll
		for (int i = 0; i < 4; i++) {
			const int row = g + i % 2 * 8;

			a[i] = row < count ? *(const uint32_t *)(u + (size_t)row * p.channels + k +
								 i / 2 * 8 + 2 * pair) :
					     0;
		}
#pragma unroll
		for (int n = 0; n < GDN_GATE_COLUMNS / 8; n++)
			if (n < tiles)
				mma_bf16(c[n], a, gate_weight(p, n * 8 + g, k + 2 * pair),
					 gate_weight(p, n * 8 + g, k + 2 * pair + 8));
	}
}

/*
 * Both gates of 16 tokens of a frame. The mean over a frame's tokens commutes with the product: what is
 * left of the decays is the sum over the tokens of a block, which gdn_decay adds up.
 */
extern "C" __global__ void __launch_bounds__(GDN_GATE_THREADS)
	gdn_gates(const __grid_constant__ struct gdn_gates_params p)
{
	__shared__ float part[GDN_GATE_THREADS / 32][GDN_GATE_ROWS][GDN_GATE_COLUMNS];
	const int t = blockIdx.y, first = blockIdx.x * GDN_GATE_ROWS;
	const int count = min(GDN_GATE_ROWS, p.tokens - first), tiles = 2 * ((p.heads + 7) / 8);
	const int g = threadIdx.x % 32 / 4, pair = threadIdx.x % 4, columns = tiles * 8;
	const size_t token = (size_t)t * p.tokens + first;
	float c[GDN_GATE_COLUMNS / 8][4] = {};

	gates_product(p, (const uint16_t *)p.u + token * p.channels, count, tiles, c);
#pragma unroll
	for (int n = 0; n < GDN_GATE_COLUMNS / 8; n++)
#pragma unroll
		for (int i = 0; i < 4; i++)
			part[threadIdx.x / 32][g + i / 2 * 8][n * 8 + 2 * pair + i % 2] = c[n][i];
	__syncthreads();
	for (int i = threadIdx.x; i < GDN_GATE_ROWS * columns; i += GDN_GATE_THREADS) {
		const int row = i / columns, column = i % columns;
		float sum = 0;

		for (int w = 0; w < GDN_GATE_THREADS / 32; w++)
			sum += part[w][row][column];
		part[0][row][column] = sum;
		if (column < p.heads && row < count)
			p.beta[(token + row) * p.heads + column] =
				1.0f / (1.0f + __expf(-sum - p.bias_beta[column]));
	}
	__syncthreads();
	if (threadIdx.x < p.heads) {
		float sum = 0;

		for (int row = 0; row < count; row++)
			sum += part[0][row][columns / 2 + threadIdx.x];
		p.mean[((size_t)t * gridDim.x + blockIdx.x) * p.heads + threadIdx.x] = sum;
	}
}

/* A warp for each frame and head adds up what gdn_gates left. */
extern "C" __global__ void gdn_decay(const __grid_constant__ struct gdn_gates_params p)
{
	const int item = blockIdx.x, t = item / p.heads, head = item % p.heads;
	const int blocks = (p.tokens + GDN_GATE_ROWS - 1) / GDN_GATE_ROWS;
	float a = 0;

	for (int i = threadIdx.x; i < blocks; i += 32)
		a += p.mean[((size_t)t * blocks + i) * p.heads + head];
	a = warp_sum(a) / p.tokens + p.bias_decay[head] + p.dt_bias[head];
	if (threadIdx.x == 0)
		p.decay[item] = expf(-expf(p.a_log[head]) * (a > 20 ? a : log1pf(expf(a))));
}

/* -------------------------------------------------------- gates of any number of heads and channels */

/* Mean over the tokens of a frame: a lane has two channels, a warp every eighth token. */
extern "C" __global__ void __launch_bounds__(GDN_GATE_THREADS)
	gdn_mean_any(const __grid_constant__ struct gdn_gates_params p)
{
	__shared__ float2 part[GDN_GATE_THREADS / 32][32];
	const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
	const int channel = blockIdx.x * GDN_MEAN_CHANNELS + 2 * lane, t = blockIdx.y;
	const uint16_t *u = (const uint16_t *)p.u + (size_t)t * p.tokens * p.channels + channel;
	float2 sum = make_float2(0, 0);

	for (int s = warp; s < p.tokens; s += GDN_GATE_THREADS / 32) {
		if (channel < p.channels)
			sum.x += bf16_value(u[(size_t)s * p.channels]);
		if (channel + 1 < p.channels)
			sum.y += bf16_value(u[(size_t)s * p.channels + 1]);
	}
	part[warp][lane] = sum;
	__syncthreads();
	if (warp)
		return;
	sum = make_float2(0, 0);
	for (int w = 0; w < GDN_GATE_THREADS / 32; w++) {
		sum.x += part[w][lane].x;
		sum.y += part[w][lane].y;
	}
	if (channel < p.channels)
		p.mean[t * p.channels + channel] = sum.x / p.tokens;
	if (channel + 1 < p.channels)
		p.mean[t * p.channels + channel + 1] = sum.y / p.tokens;
}

/* A block has eight tokens, each warp some heads for all of them. */
extern "C" __global__ void __launch_bounds__(GDN_GATE_THREADS)
	gdn_beta_any(const __grid_constant__ struct gdn_gates_params p)
{
	extern __shared__ __align__(16) uint16_t rows[]; /* [GDN_GATE_TOKENS][C] */
	const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
	const int first = blockIdx.x * GDN_GATE_TOKENS, all = p.frames * p.tokens;
	const int count = min(GDN_GATE_TOKENS, all - first);

	for (int i = threadIdx.x; i < GDN_GATE_TOKENS * p.channels; i += GDN_GATE_THREADS)
		rows[i] = i < count * p.channels ?
				  ((const uint16_t *)p.u)[(size_t)first * p.channels + i] :
				  0;
	__syncthreads();
	for (int head = warp; head < p.heads; head += GDN_GATE_THREADS / 32) {
		const uint16_t *weight = (const uint16_t *)p.weight_beta + head * p.channels;
		float sum[GDN_GATE_TOKENS] = {};

		for (int c = lane; c < p.channels; c += 32) {
			const float w = bf16_value(weight[c]);

#pragma unroll
			for (int n = 0; n < GDN_GATE_TOKENS; n++)
				sum[n] += w * bf16_value(rows[n * p.channels + c]);
		}
#pragma unroll
		for (int n = 0; n < GDN_GATE_TOKENS; n++) {
			const float a = warp_sum(sum[n]) + p.bias_beta[head];

			if (lane == n && n < count)
				p.beta[(first + n) * p.heads + head] = 1.0f / (1.0f + __expf(-a));
		}
	}
}

/* A warp for each frame and head. */
extern "C" __global__ void gdn_decay_any(const __grid_constant__ struct gdn_gates_params p)
{
	const int item = blockIdx.x, t = item / p.heads, head = item % p.heads;
	const uint16_t *weight = (const uint16_t *)p.weight_decay + head * p.channels;
	float a = 0;

	for (int c = threadIdx.x; c < p.channels; c += 32)
		a += bf16_value(weight[c]) * p.mean[t * p.channels + c];
	a = warp_sum(a) + p.bias_decay[head] + p.dt_bias[head];
	if (threadIdx.x == 0)
		p.decay[item] = expf(-expf(p.a_log[head]) * (a > 20 ? a : log1pf(expf(a))));
}
