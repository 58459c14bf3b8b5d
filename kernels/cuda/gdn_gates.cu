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
 * Weights are the left factor: a tile of 16 rows has the betas of eight heads and the decays of the same
 * ones. This lane's rows: two of each tile, and of each tile of eight tokens one. Rows that do not exist
 * are the first again, and nobody looks at their products: so no load depends on a branch.
 */
template <int TILES> struct gate_rows {
	static constexpr int tokens = GDN_GATE_ROWS(TILES * 8), tiles = tokens / 8;
	const uint16_t *token[tiles], *weight[TILES][2];
};

template <int TILES>
static __device__ __forceinline__ struct gate_rows<TILES>
gate_rows_of(const struct gdn_gates_params &p, const uint16_t *u, int count) {
	const int g = threadIdx.x % 32 / 4, lane_channel = threadIdx.x % 4 * 8;
	struct gate_rows<TILES> rows;

#pragma unroll
	for (int i = 0; i < gate_rows<TILES>::tiles; i++)
		rows.token[i] =
			u + (size_t)(g + i * 8 < count ? g + i * 8 : 0) * p.channels + lane_channel;
#pragma unroll
	for (int n = 0; n < TILES; n++) {
		const int head = n * 8 + g < p.heads ? n * 8 + g : 0;
		const size_t at = (size_t)head * p.channels + lane_channel;

		rows.weight[n][0] = (const uint16_t *)p.weight_beta + at;
		rows.weight[n][1] = (const uint16_t *)p.weight_decay + at;
	}
	return rows;
}

/* Eight neighbouring channels of each of a lane's rows. */
template <int TILES>
struct gate_step {
	uint4 token[gate_rows<TILES>::tiles], weight[TILES][2];
};

template <int TILES>
static __device__ __forceinline__ struct gate_step<TILES>
gate_load(const struct gate_rows<TILES> &rows, int channel, bool inside) {
	const int at = inside ? channel : 0;
	struct gate_step<TILES> s;

#pragma unroll
	for (int n = 0; n < TILES; n++)
#pragma unroll
		for (int i = 0; i < 2; i++)
			s.weight[n][i] = global_load_16(rows.weight[n][i] + at);
#pragma unroll
	for (int i = 0; i < gate_rows<TILES>::tiles; i++) {
		s.token[i] = global_load_16(rows.token[i] + at);
		if (!inside)
			s.token[i] = make_uint4(0, 0, 0, 0);
	}
	return s;
}

/*
 * c += w·uᵀ of the block's tokens; the warps share the channels, 32 at a time, and a warp asks for the
 * channels of several steps at once: there is little to do but to wait for them. A lane has eight
 * neighbouring channels of its rows, 16 bytes: which of them a product takes for its k is the same in both
 * factors and changes nothing.
 */
template <int TILES>
static __device__ __forceinline__ void gates_product(const struct gdn_gates_params &p,
						     const struct gate_rows<TILES> &rows,
						     float c[TILES][gate_rows<TILES>::tiles][4])
{
	constexpr int steps = TILES < 4 ? 5 : 4; /* what the registers hold */
	const int lane_channel = threadIdx.x % 4 * 8;

#pragma unroll 1
	for (int k = threadIdx.x / 32 * 32; k < p.channels; k += steps * GDN_GATE_THREADS) {
		struct gate_step<TILES> s[steps];

#pragma unroll
		for (int j = 0; j < steps; j++) {
			const int channel = k + j * GDN_GATE_THREADS;

			s[j] = gate_load<TILES>(rows, channel, channel + lane_channel < p.channels);
		}
		/* Or they would be loaded when they are needed, to save registers. */
		__syncwarp();
#pragma unroll
		for (int j = 0; j < steps; j++)
#pragma unroll
			for (int n = 0; n < TILES; n++) {
				const uint4 a = s[j].weight[n][0], b = s[j].weight[n][1];
				const uint32_t low[4] = { a.x, b.x, a.y, b.y };
				const uint32_t high[4] = { a.z, b.z, a.w, b.w };

#pragma unroll
				for (int i = 0; i < gate_rows<TILES>::tiles; i++) {
					const uint4 u = s[j].token[i];

					mma_bf16(c[n][i], low, u.x, u.y);
					mma_bf16(c[n][i], high, u.z, u.w);
				}
			}
	}
}

template <int TILES> static __device__ __forceinline__ void gates(const struct gdn_gates_params &p)
{
	constexpr int columns = TILES * 16; /* betas, then decays */
	constexpr int tokens = gate_rows<TILES>::tokens;
	__shared__ float part[GDN_GATE_THREADS / 32][tokens][columns + 4];
	const int t = blockIdx.y, first = blockIdx.x * tokens;
	const int count = min(tokens, p.tokens - first);
	const int g = threadIdx.x % 32 / 4, pair = threadIdx.x % 4;
	const size_t token = (size_t)t * p.tokens + first;
	const uint16_t *u = (const uint16_t *)p.u + token * p.channels;
	float c[TILES][tokens / 8][4] = {};

	dependency_wait();
	dependency_launch();
	gates_product<TILES>(p, gate_rows_of<TILES>(p, u, count), c);
#pragma unroll
	for (int n = 0; n < TILES; n++)
#pragma unroll
		for (int i = 0; i < tokens / 8; i++)
#pragma unroll
			for (int e = 0; e < 4; e++)
				part[threadIdx.x / 32][i * 8 + 2 * pair + e % 2]
				    [e / 2 * TILES * 8 + n * 8 + g] = c[n][i][e];
	__syncthreads();
	for (int i = threadIdx.x; i < tokens * columns; i += GDN_GATE_THREADS) {
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
		for (int row = 0; row < tokens; row++)
			sum += row < count ? part[0][row][columns / 2 + threadIdx.x] : 0;
		p.mean[((size_t)t * gridDim.x + blockIdx.x) * p.heads + threadIdx.x] = sum;
	}
}

/* Heads: at most 8, 16, 24, 32. */
#define GATES(HEADS)                                                                 \
	extern "C" __global__ void __launch_bounds__(GDN_GATE_THREADS)               \
		gdn_gates_##HEADS(const __grid_constant__ struct gdn_gates_params p) \
	{                                                                            \
		gates<HEADS / 8>(p);                                                 \
	}
GATES(8)
GATES(16)
GATES(24)
GATES(32)

/* A warp for each frame and head adds up what gdn_gates left. */
extern "C" __global__ void gdn_decay(const __grid_constant__ struct gdn_gates_params p)
{
	const int item = blockIdx.x, t = item / p.heads, head = item % p.heads;
	const int blocks = (p.tokens + GDN_GATE_ROWS(p.heads) - 1) / GDN_GATE_ROWS(p.heads);
	float a = 0;

	dependency_wait();
	dependency_launch();
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
	const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
	const int first = blockIdx.x * GDN_GATE_TOKENS, all = p.frames * p.tokens;
	const int count = min(GDN_GATE_TOKENS, all - first);
	const uint16_t *u = (const uint16_t *)p.u + (size_t)first * p.channels;

	for (int head = warp; head < p.heads; head += GDN_GATE_THREADS / 32) {
		const uint16_t *weight = (const uint16_t *)p.weight_beta + head * p.channels;
		float sum[GDN_GATE_TOKENS] = {};

		for (int c = lane; c < p.channels; c += 32) {
			const float w = bf16_value(weight[c]);

#pragma unroll
			for (int n = 0; n < GDN_GATE_TOKENS; n++)
				if (n < count)
					sum[n] += w * bf16_value(u[n * p.channels + c]);
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
