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

/*
 * This lane's rows of both factors: two tokens, and of each tile of 8 columns one: heads' betas, then, from
 * the next multiple of 8 on, their decays. Rows that do not exist are the first again, and nobody looks
 * at their products: so no load depends on a branch, and all are on their way together.
 */
template <int TILES> struct gate_rows {
	const uint16_t *token[2], *weight[TILES];
};

template <int TILES>
static __device__ __forceinline__ struct gate_rows<TILES>
gate_rows_of(const struct gdn_gates_params &p, const uint16_t *u, int count) {
	const int g = threadIdx.x % 32 / 4;
	struct gate_rows<TILES> rows;

#pragma unroll
	for (int i = 0; i < 2; i++)
		rows.token[i] = u + (size_t)(g + i * 8 < count ? g + i * 8 : 0) * p.channels;
#pragma unroll
	for (int n = 0; n < TILES; n++) {
		const int head = n % (TILES / 2) * 8 + g;
		const void *from = n < TILES / 2 ? p.weight_beta : p.weight_decay;

		rows.weight[n] =
			(const uint16_t *)from + (size_t)(head < p.heads ? head : 0) * p.channels;
	}
	return rows;
}

/* Eight neighbouring channels of each of a lane's rows. */
template <int TILES>
struct gate_step {
	uint4 a[2], b[TILES];
};

template <int TILES>
static __device__ __forceinline__ struct gate_step<TILES>
gate_load(const struct gate_rows<TILES> &rows, int channel, int channels) {
	const bool inside = channel < channels;
	const int at = inside ? channel : 0;
	struct gate_step<TILES> s;

#pragma unroll
	for (int n = 0; n < TILES; n++)
		s.b[n] = global_load_16(rows.weight[n] + at);
#pragma unroll
	for (int i = 0; i < 2; i++)
		s.a[i] = global_load_16(rows.token[i] + at);
	if (!inside)
		s.a[0] = s.a[1] = make_uint4(0, 0, 0, 0);
	return s;
}

/*
 * c += u·wᵀ of the block's 16 tokens; the warps share the channels, 32 at a time. A lane has eight
 * neighbouring channels of its rows, 16 bytes: which of them a product takes for its k is the same in both
 * factors and changes nothing.
 */
template <int TILES>
static __device__ __forceinline__ void gates_product(const struct gdn_gates_params &p,
						     const struct gate_rows<TILES> &rows,
						     float c[TILES][4])
{
	const int lane_channel = threadIdx.x % 4 * 8;
	int k = threadIdx.x / 32 * 32;
	struct gate_step<TILES> next = gate_load<TILES>(rows, k + lane_channel, p.channels);

	while (k < p.channels) {
		const struct gate_step<TILES> s = next;
		const uint32_t low[4] = { s.a[0].x, s.a[1].x, s.a[0].y, s.a[1].y };
		const uint32_t high[4] = { s.a[0].z, s.a[1].z, s.a[0].w, s.a[1].w };

		k += GDN_GATE_THREADS;
		next = gate_load<TILES>(rows, k + lane_channel, p.channels);
#pragma unroll
		for (int n = 0; n < TILES; n++) {
			mma_bf16(c[n], low, s.b[n].x, s.b[n].y);
			mma_bf16(c[n], high, s.b[n].z, s.b[n].w);
		}
	}
}

template <int TILES> static __device__ __forceinline__ void gates(const struct gdn_gates_params &p)
{
	constexpr int columns = TILES * 8;
	__shared__ float part[GDN_GATE_THREADS / 32][GDN_GATE_ROWS][columns + 2];
	const int t = blockIdx.y, first = blockIdx.x * GDN_GATE_ROWS;
	const int count = min(GDN_GATE_ROWS, p.tokens - first);
	const int g = threadIdx.x % 32 / 4, pair = threadIdx.x % 4;
	const size_t token = (size_t)t * p.tokens + first;
	const uint16_t *u = (const uint16_t *)p.u + token * p.channels;
	float c[TILES][4] = {};

	dependency_wait();
	gates_product<TILES>(p, gate_rows_of<TILES>(p, u, count), c);
#pragma unroll
	for (int n = 0; n < TILES; n++)
#pragma unroll
		for (int h = 0; h < 2; h++)
			*(float2 *)&part[threadIdx.x / 32][g + h * 8][n * 8 + 2 * pair] =
				make_float2(c[n][2 * h], c[n][2 * h + 1]);
	__syncthreads();
	for (int i = threadIdx.x; i < GDN_GATE_ROWS * columns; i += GDN_GATE_THREADS) {
		const int row = i / columns, column = i % columns;
		float sum = 0;

#pragma unroll
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

#pragma unroll
		for (int row = 0; row < GDN_GATE_ROWS; row++)
			sum += row < count ? part[0][row][columns / 2 + threadIdx.x] : 0;
		p.mean[((size_t)t * gridDim.x + blockIdx.x) * p.heads + threadIdx.x] = sum;
	}
	dependency_launch();
}

/* Heads: at most 8, 16, 24, 32. */
#define GATES(HEADS)                                                                 \
	extern "C" __global__ void __launch_bounds__(GDN_GATE_THREADS)               \
		gdn_gates_##HEADS(const __grid_constant__ struct gdn_gates_params p) \
	{                                                                            \
		gates<HEADS / 4>(p);                                                 \
	}
GATES(8)
GATES(16)
GATES(24)
GATES(32)

/* A warp for each frame and head adds up what gdn_gates left. */
extern "C" __global__ void gdn_decay(const __grid_constant__ struct gdn_gates_params p)
{
	const int item = blockIdx.x, t = item / p.heads, head = item % p.heads;
	const int blocks = (p.tokens + GDN_GATE_ROWS - 1) / GDN_GATE_ROWS;
	float a = 0;

	dependency_wait();
	for (int i = threadIdx.x; i < blocks; i += 32)
		a += p.mean[((size_t)t * blocks + i) * p.heads + head];
	a = warp_sum(a) / p.tokens + p.bias_decay[head] + p.dt_bias[head];
	if (threadIdx.x == 0)
		p.decay[item] = expf(-expf(p.a_log[head]) * (a > 20 ? a : log1pf(expf(a))));
	dependency_launch();
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
