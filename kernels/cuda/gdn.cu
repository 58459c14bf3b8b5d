/*
 * Gated delta rule. Sums over the tokens of a frame (P, A, P_z, b of kernels.h) are matrix products on BF16
 * operands with F32 sums; the scan over frames is F32 throughout, each block having some rows of one head's
 * state, which depend on no other rows; the read-out is a product again.
 */
#include "kernels/cuda/gdn.h"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/rope.cuh"
#include "kernels/cuda/row.cuh"

static const float log2_e = 1.44269504f;

/* ---------------------------------------------------------------------------------------- gates */

static __device__ __forceinline__ float warp_sum(float v)
{
#pragma unroll
	for (int step = 16; step > 0; step /= 2)
		v += __shfl_xor_sync(0xffffffffu, v, step);
	return v;
}

/* Mean over the tokens of a frame: a lane has two channels, a warp every eighth token. */
extern "C" __global__ void __launch_bounds__(GDN_GATE_THREADS)
	gdn_mean(const __grid_constant__ struct gdn_gates_params p)
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
	gdn_beta(const __grid_constant__ struct gdn_gates_params p)
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
extern "C" __global__ void gdn_decay(const __grid_constant__ struct gdn_gates_params p)
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

/* ------------------------------------------------------------------------------- q and k norms */

/* x ← relu(RMSNorm(x)·w)·factor in place; blockIdx.y: q or k. */
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
	gdn_normalise(const __grid_constant__ struct gdn_params p)
{
	const int channels = p.heads * p.head_dim, chunks = channels / 8;
	const bool is_k = blockIdx.y;
	uint16_t *x = (uint16_t *)(is_k ? p.k : p.q) + blockIdx.x * p.ld;
	const float *weight = is_k ? p.k_norm : p.q_norm;
	const float factor = is_k ? p.kappa : 1.0f;
	float sum = 0, inverse;

	for (int c = threadIdx.x; c < chunks; c += ROW_THREADS) {
		const struct eight e = eight_load(x, c);

#pragma unroll
		for (int i = 0; i < 8; i++)
			sum += e.v[i] * e.v[i];
	}
	inverse = rsqrtf(block_sum(sum) / channels + p.epsilon);
	for (int c = threadIdx.x; c < chunks; c += ROW_THREADS) {
		struct eight e = eight_load(x, c);
		const struct eight w = eight_floats(weight, c);

#pragma unroll
		for (int i = 0; i < 8; i++)
			e.v[i] = fmaxf(e.v[i] * inverse * w.v[i], 0.0f) * factor;
		eight_store(x, c, e);
	}
}

/* ------------------------------------------------------------------------- sums over the tokens */

enum gdn_sum { GDN_SUM_P, GDN_SUM_A, GDN_SUM_PZ };

/*
 * One stage: both operands of 64 tokens, [token][lane]. A thread has the same eight lanes of every 16th
 * token. `b` adds up β·k of its tokens.
 */
template <int D>
static __device__ __forceinline__ void sums_stage(const struct gdn_params &p, int which, int t,
						  int head, int first, uint32_t x, uint32_t y,
						  float b[8])
{
	constexpr int chunks = D / 8, stride = (D + GDN_PAD) * 2;
	const int chunk = threadIdx.x % chunks;

	for (int row = threadIdx.x / chunks; row < GDN_TOKENS; row += 16) {
		const int s = first + row, n = t * p.tokens + s;
		const size_t at = n * p.ld + head * D + chunk * 8;
		const uint32_t to = row * stride + chunk * 16;
		uint4 left = make_uint4(0, 0, 0, 0);
		struct eight k = {};
		float beta;

		if (s >= p.tokens) {
			shared_store_16(x + to, left);
			shared_store_16(y + to, left);
			continue;
		}
		k = eight_load((const uint16_t *)p.k + at, 0);
		beta = p.beta[n * p.heads + head];
		if (which != GDN_SUM_PZ)
#pragma unroll
			for (int i = 0; i < 4; i++)
				rope_turn(rope_at(p.rope, n, chunk * 4 + i), &k.v[2 * i],
					  &k.v[2 * i + 1]);
		left = which == GDN_SUM_A ? global_load_16((const uint16_t *)p.v + at) :
					    eight_bits(k);
#pragma unroll
		for (int i = 0; i < 8; i++) {
			k.v[i] *= beta;
			b[i] += k.v[i];
		}
		shared_store_16(x + to, left);
		shared_store_16(y + to, eight_bits(k));
	}
}

/* c[16 rows of the warp][D] += xᵀ·y over a stage. */
template <int D>
static __device__ __forceinline__ void sums_add(uint32_t x, uint32_t y, float c[D / 8][4])
{
	constexpr int stride = (D + GDN_PAD) * 2;
	const int i = threadIdx.x % 32 / 8, r = threadIdx.x % 8, row = threadIdx.x / 32 * 16;
	const uint32_t a_at = x + ((i >> 1) * 8 + r) * stride + (row + (i & 1) * 8) * 2;
	const uint32_t b_at = y + ((i & 1) * 8 + r) * stride + (i >> 1) * 16;

#pragma unroll
	for (int s = 0; s < GDN_TOKENS; s += 16) {
		uint32_t a[4], b[4];

		ldmatrix_x4_trans(a, a_at + s * stride);
#pragma unroll
		for (int n = 0; n < D / 8; n += 2) {
			ldmatrix_x4_trans(b, b_at + s * stride + n * 16);
			mma_bf16(c[n], a, b[0], b[1]);
			mma_bf16(c[n + 1], a, b[2], b[3]);
		}
	}
}

template <int D> static __device__ __forceinline__ void gdn_sums(const struct gdn_params &p)
{
	extern __shared__ __align__(128) unsigned char memory[];
	const uint32_t x = shared_address(memory), y = x + GDN_TOKENS * (D + GDN_PAD) * 2;
	float *parts = (float *)(memory + 2 * GDN_TOKENS * (D + GDN_PAD) * 2);
	const int head = blockIdx.x, t = blockIdx.y, which = blockIdx.z;
	const int item = t * p.heads + head, chunk = threadIdx.x % (D / 8);
	const int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, column = threadIdx.x % 4 * 2;
	float *to = (which == GDN_SUM_P ? p.p :
		     which == GDN_SUM_A ? p.a :
					  p.p_z) +
		    (size_t)item * D * D;
	float c[D / 8][4] = {}, b[8] = {};

	for (int first = 0; first < p.tokens; first += GDN_TOKENS) {
		sums_stage<D>(p, which, t, head, first, x, y, b);
		__syncthreads();
		sums_add<D>(x, y, c);
		__syncthreads();
	}
#pragma unroll
	for (int n = 0; n < D / 8; n++) {
		*(float2 *)(to + row * D + n * 8 + column) = make_float2(c[n][0], c[n][1]);
		*(float2 *)(to + (row + 8) * D + n * 8 + column) = make_float2(c[n][2], c[n][3]);
	}
	if (which != GDN_SUM_PZ)
		return;
#pragma unroll
	for (int i = 0; i < 8; i++)
		parts[threadIdx.x / (D / 8) * D + chunk * 8 + i] = b[i];
	__syncthreads();
	if (threadIdx.x < D) {
		float sum = 0;

		for (int i = 0; i < 16; i++)
			sum += parts[i * D + threadIdx.x];
		p.b[item * D + threadIdx.x] = sum;
	}
}

/* ------------------------------------------------------------------------------ scan over frames */

/* m ← g·m·(I − P) + A for this block's rows, or A where there was no state; a thread has a column. */
static __device__ __forceinline__ void scan_rows(const struct gdn_params &p, int item, int row,
						 bool has_state,
						 float m[GDN_SCAN_ROWS][GDN_SCAN_THREADS],
						 float next[GDN_SCAN_ROWS])
{
	const int d = p.head_dim, j = threadIdx.x;
	const float *matrix = p.p + (size_t)item * d * d, *a = p.a + (size_t)item * d * d;
	const float g = p.decay[item];
	float sum[GDN_SCAN_ROWS] = {};

	if (j < d && has_state)
#pragma unroll 8
		for (int i = 0; i < d; i++) {
			const float v = matrix[i * d + j];

#pragma unroll
			for (int r = 0; r < GDN_SCAN_ROWS; r++)
				sum[r] += m[r][i] * v;
		}
#pragma unroll
	for (int r = 0; r < GDN_SCAN_ROWS; r++) {
		next[r] = j < d && row + r < d ? a[(row + r) * d + j] : 0;
		if (j < d && has_state)
			next[r] += g * (m[r][j] - sum[r]);
	}
	__syncthreads();
#pragma unroll
	for (int r = 0; r < GDN_SCAN_ROWS; r++)
		m[r][j] = next[r];
	__syncthreads();
}

static __device__ __forceinline__ void scan_state(const struct gdn_params &p, int head, int row)
{
	__shared__ float m[GDN_SCAN_ROWS][GDN_SCAN_THREADS];
	const int d = p.head_dim, j = threadIdx.x, last = p.frames - 1;
	const size_t matrix = (size_t)d * d;
	float next[GDN_SCAN_ROWS];

	for (int r = 0; r < GDN_SCAN_ROWS; r++)
		m[r][j] = p.state_in && j < d && row + r < d ?
				  p.state_in[head * matrix + (row + r) * d + j] :
				  0;
	__syncthreads();
	for (int t = 0; t < p.frames; t++) {
		const int item = t * p.heads + head;

		scan_rows(p, item, row, t > 0 || p.state_in, m, next);
		for (int r = 0; r < GDN_SCAN_ROWS && j < d && row + r < d; r++) {
			const size_t at = item * matrix + (row + r) * d + j;

			if (t < last) {
				p.history[at] = next[r];
				continue;
			}
			((uint16_t *)p.read)[at] = bf16_bits(next[r]);
			if (p.state_out)
				p.state_out[head * matrix + (row + r) * d + j] = next[r];
		}
	}
	/* The other way, without the frame itself: frame t reads what t + 1 … wrote. */
	for (int t = last - 1; t >= 0; t--) {
		scan_rows(p, (t + 1) * p.heads + head, row, t < last - 1, m, next);
		for (int r = 0; r < GDN_SCAN_ROWS && j < d && row + r < d; r++) {
			const size_t at = (t * p.heads + head) * matrix + (row + r) * d + j;

			((uint16_t *)p.read)[at] = bf16_bits(p.history[at] + next[r]);
		}
	}
}

/* z ← g·(I − P_z)·z + b, or b; a thread has an element. */
static __device__ __forceinline__ float scan_vector(const struct gdn_params &p, int item,
						    bool has_state, float *z)
{
	const int d = p.head_dim, i = threadIdx.x;
	const float *matrix = p.p_z + (size_t)item * d * d;
	float next = i < d ? p.b[item * d + i] : 0, sum = 0;

	if (i < d && has_state) {
		/* P_z is symmetric, so its columns may be read where they are neighbours. */
#pragma unroll 8
		for (int j = 0; j < d; j++)
			sum += matrix[j * d + i] * z[j];
		next += p.decay[item] * (z[i] - sum);
	}
	__syncthreads();
	z[i] = next;
	__syncthreads();
	return next;
}

static __device__ __forceinline__ void scan_normaliser(const struct gdn_params &p, int head)
{
	__shared__ float z[GDN_SCAN_THREADS];
	const int d = p.head_dim, i = threadIdx.x, last = p.frames - 1;
	float next = 0;

	z[i] = p.normaliser_in && i < d ? p.normaliser_in[head * d + i] : 0;
	__syncthreads();
	for (int t = 0; t < p.frames; t++) {
		next = scan_vector(p, t * p.heads + head, t > 0 || p.normaliser_in, z);
		if (i < d)
			p.z[(t * p.heads + head) * d + i] = next;
	}
	if (p.normaliser_out && i < d)
		p.normaliser_out[head * d + i] = next;
	for (int t = last - 1; t >= 0; t--) {
		next = scan_vector(p, (t + 1) * p.heads + head, t < last - 1, z);
		if (i < d)
			p.z[(t * p.heads + head) * d + i] += next;
	}
}

/* blockIdx.x: some rows of the state, or (the last one) the normaliser; blockIdx.y: the head. */
extern "C" __global__ void __launch_bounds__(GDN_SCAN_THREADS)
	gdn_scan(const __grid_constant__ struct gdn_params p)
{
	if (blockIdx.x + 1 < gridDim.x)
		scan_state(p, blockIdx.y, blockIdx.x * GDN_SCAN_ROWS);
	else
		scan_normaliser(p, blockIdx.y);
}

/* ------------------------------------------------------------------------------------- read-out */

/* The warp's 16 queries, turned, to shared memory; one over their products with z beside them. */
template <int D>
static __device__ __forceinline__ void read_queries(const struct gdn_params &p, int t, int head,
						    int first, unsigned char *q, const float *z,
						    float *inverse)
{
	constexpr int stride = (D + GDN_PAD) * 2;
	const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;

	for (int row = warp * 16; row < warp * 16 + 16; row++) {
		const int s = first + row, n = t * p.tokens + s;
		const uint16_t *from = (const uint16_t *)p.q + n * p.ld + head * D;
		float sum = 0;

		for (int pair = lane; pair < D / 2; pair += 32) {
			uint32_t bits = 0;

			if (s < p.tokens) {
				bits = *(const uint32_t *)(from + 2 * pair);
				float a = bf16_low(bits), b = bf16_high(bits);

				sum += a * z[2 * pair] + b * z[2 * pair + 1];
				rope_turn(rope_at(p.rope, n, pair), &a, &b);
				bits = bf16_pack(a, b);
			}
			*(uint32_t *)(q + row * stride + pair * 4) = bits;
		}
		sum = warp_sum(sum);
		if (lane == 0)
			inverse[row] = 1.0f / (sum + 1e-8f);
	}
}

template <int D>
static __device__ __forceinline__ void read_store(const struct gdn_params &p, int t, int head,
						  int first, const float *inverse,
						  const float c[D / 8][4])
{
	const int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, column = threadIdx.x % 4 * 2;

#pragma unroll
	for (int h = 0; h < 2; h++) {
		const int r = row + 8 * h, s = first + r;
		const size_t n = (size_t)t * p.tokens + s;

		if (s >= p.tokens)
			continue;
#pragma unroll
		for (int i = 0; i < D / 8; i++) {
			const int at = head * D + i * 8 + column;
			const uint32_t bits =
				*(const uint32_t *)((const uint16_t *)p.gate + n * p.ld + at);
			const float ga = bf16_low(bits), gb = bf16_high(bits);
			const float a = c[i][2 * h] * inverse[r] * ga *
					reciprocal_approx(1.0f + exp2_approx(-ga * log2_e));
			const float b = c[i][2 * h + 1] * inverse[r] * gb *
					reciprocal_approx(1.0f + exp2_approx(-gb * log2_e));

			*(uint32_t *)((uint16_t *)p.y + n * p.heads * D + at) = bf16_pack(a, b);
		}
	}
}

template <int D> static __device__ __forceinline__ void gdn_read(const struct gdn_params &p)
{
	constexpr int stride = (D + GDN_PAD) * 2;
	extern __shared__ __align__(128) unsigned char memory[];
	unsigned char *queries = memory, *state = memory + GDN_TOKENS * stride;
	float *z = (float *)(state + D * stride), *inverse = z + D;
	const int first = blockIdx.x * GDN_TOKENS, head = blockIdx.y, t = blockIdx.z;
	const int item = t * p.heads + head, i = threadIdx.x % 32 / 8, r = threadIdx.x % 8;
	const uint32_t a_at = shared_address(queries) +
			      (threadIdx.x / 32 * 16 + (i & 1) * 8 + r) * stride + (i >> 1) * 16;
	const uint32_t b_at = shared_address(state) + ((i >> 1) * 8 + r) * stride + (i & 1) * 16;
	float c[D / 8][4] = {};

	for (int e = threadIdx.x; e < D * (D / 8); e += GDN_READ_THREADS)
		cp_async_16(shared_address(state) + e / (D / 8) * stride + e % (D / 8) * 16,
			    (const uint16_t *)p.read + (size_t)item * D * D + e * 8, 16);
	cp_async_commit();
	for (int e = threadIdx.x; e < D; e += GDN_READ_THREADS)
		z[e] = p.z[item * D + e];
	__syncthreads();
	read_queries<D>(p, t, head, first, queries, z, inverse);
	cp_async_wait<0>();
	__syncthreads();
#pragma unroll
	for (int k = 0; k < D / 16; k++) {
		uint32_t a[4], b[4];

		ldmatrix_x4(a, a_at + k * 32);
#pragma unroll
		for (int n = 0; n < D / 8; n += 2) {
			ldmatrix_x4(b, b_at + n * 8 * stride + k * 32);
			mma_bf16(c[n], a, b[0], b[1]);
			mma_bf16(c[n + 1], a, b[2], b[3]);
		}
	}
	read_store<D>(p, t, head, first, inverse, c);
}

#define GDN(D)                                                            \
	extern "C" __global__ void __launch_bounds__(2 * D)               \
		gdn_sums_##D(const __grid_constant__ struct gdn_params p) \
	{                                                                 \
		gdn_sums<D>(p);                                           \
	}                                                                 \
	extern "C" __global__ void __launch_bounds__(GDN_READ_THREADS)    \
		gdn_read_##D(const __grid_constant__ struct gdn_params p) \
	{                                                                 \
		gdn_read<D>(p);                                           \
	}
GDN(32)
GDN(80)
GDN(112)
