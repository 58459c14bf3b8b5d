/*
 * Gated delta rule. Sums over the tokens of a frame (P, A, P_z, b of kernels.h) are matrix products on BF16
 * operands with F32 sums; the scan over frames is F32 throughout, each block having some rows of one head's
 * state, which depend on no other rows; the read-out is a product again. Norm, ReLU and rotation are
 * done where q and k are read.
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

/* 1/√(mean of squares + ε) of every row of q, then of k; a warp a row. Opens the meetings of gdn_sums. */
extern "C" __global__ void __launch_bounds__(GDN_INVERSE_THREADS)
	gdn_inverse(const __grid_constant__ struct gdn_params p)
{
	const int channels = p.heads * p.head_dim, rows = p.frames * p.tokens;
	const int row = (blockIdx.x * GDN_INVERSE_THREADS + threadIdx.x) / 32;
	const int lane = threadIdx.x % 32, thread = blockIdx.x * GDN_INVERSE_THREADS + threadIdx.x;
	const uint16_t *x = row < rows ? (const uint16_t *)p.q + row * p.ld :
					 (const uint16_t *)p.k + (row - rows) * p.ld;
	float sum = 0;

	for (int i = thread; i < p.frames * p.heads; i += gridDim.x * GDN_INVERSE_THREADS)
		p.meetings[i] = make_int2(0, 0);
	if (row >= 2 * rows)
		return;
#pragma unroll 3
	for (int c = lane; c < channels / 8; c += 32) {
		const struct eight e = eight_load(x, c);

#pragma unroll
		for (int i = 0; i < 8; i++)
			sum += e.v[i] * e.v[i];
	}
	sum = warp_sum(sum);
	if (lane == 0)
		p.inverse[row] = rsqrtf(sum / channels + p.epsilon);
}

/* Row and column of a token in its frame; exact for frames of up to 2^20 tokens. */
struct place {
	int y, x;
};

static __device__ __forceinline__ struct place place_at(const struct rope_tables &r,
							float per_width, int s)
{
	const int y = (int)((s + 0.5f) * per_width);

	return { y, s - y * r.width };
}

/* Eight lanes from lane 8·chunk on: four pairs, turned. */
static __device__ __forceinline__ void eight_turn(const struct rope_tables &r, int t,
						  struct place at, int chunk, float v[8])
{
#pragma unroll
	for (int i = 0; i < 4; i++) {
		const int pair = chunk * 4 + i, pair_y = pair - r.pairs_t;
		const int pair_x = pair_y - r.pairs_y;
		const float *cos = pair_y < 0 ? r.cos_t : pair_x < 0 ? r.cos_y : r.cos_x;
		const float *sin = pair_y < 0 ? r.sin_t : pair_x < 0 ? r.sin_y : r.sin_x;
		const int to = pair_y < 0 ? t * r.pairs_t + pair :
			       pair_x < 0 ? at.y * r.pairs_y + pair_y :
					    at.x * r.pairs_x + pair_x;

		rope_turn(make_float2(__ldg(cos + to), __ldg(sin + to)), &v[2 * i], &v[2 * i + 1]);
	}
}

/* relu(x·inverse·w) */
static __device__ __forceinline__ void eight_norm(float inverse, const struct eight &w, float v[8])
{
#pragma unroll
	for (int i = 0; i < 8; i++)
		v[i] = fmaxf(v[i] * inverse * w.v[i], 0.0f);
}

/* ------------------------------------------------------------------------- sums over the tokens */

/* Tiles of a stage of 32 tokens in shared memory, in units of tiles. */
enum gdn_tile {
	TILE_RAW = 0,	 /* 2: k as it came */
	TILE_V = 2,	 /* 3 */
	TILE_TURNED = 5, /* 2 each: k̂, β·k̂, k, β·k */
	TILE_TURNED_B = 7,
	TILE_PLAIN = 9,
	TILE_PLAIN_B = 11,
	TILES = GDN_SUMS_TILES,
};

struct sums_work {
	int t, head, first, end; /* tokens of the frame */
	int row, chunk;		 /* this thread's first row of a stage; its eight lanes */
	uint32_t tiles, beta;	 /* shared memory */
	float per_width;
	const float *weight;
};

/* k and v of a stage on their way; each thread copies what it will read itself. */
template <int D>
static __device__ __forceinline__ void sums_copy(const struct gdn_params &p,
						 const struct sums_work &w, int stage)
{
	constexpr int stride = (D + GDN_PAD) * 2, tile = GDN_TOKENS * stride;
	const uint32_t k = w.tiles + (TILE_RAW + stage % 2) * tile + w.chunk * 16;
	const uint32_t v = w.tiles + (TILE_V + stage % 3) * tile + w.chunk * 16;

#pragma unroll
	for (int row = w.row; row < GDN_TOKENS; row += 16) {
		const int s = w.first + stage * GDN_TOKENS + row;
		const bool in = s < w.end;
		const size_t at = (w.t * p.tokens + (in ? s : 0)) * p.ld + w.head * D + w.chunk * 8;

		cp_async_16(k + row * stride, (const uint16_t *)p.k + at, in ? 16 : 0);
		cp_async_16(v + row * stride, (const uint16_t *)p.v + at, in ? 16 : 0);
	}
	cp_async_commit();
}

/* β of a token in two BF16, which together have 16 bits of it. */
static __device__ __forceinline__ void beta_store(uint32_t to, int row, float beta)
{
	const uint16_t high = bf16_bits(beta), low = bf16_bits(beta - bf16_value(high));

	asm volatile("st.shared.b16 [%0], %1;" ::"r"(to + row * 2), "h"(high) : "memory");
	asm volatile("st.shared.b16 [%0], %1;" ::"r"(to + GDN_TOKENS * 2 + row * 2), "h"(low)
		     : "memory");
}

/* Factors of a stage from what this thread copied. */
template <int D>
static __device__ __forceinline__ void sums_make(const struct gdn_params &p,
						 const struct sums_work &w, int stage)
{
	constexpr int stride = (D + GDN_PAD) * 2, tile = GDN_TOKENS * stride;
	const int parity = stage % 2, rows = p.frames * p.tokens;
	const struct eight weight = eight_floats(w.weight, w.chunk);

#pragma unroll 1
	for (int row = w.row; row < GDN_TOKENS; row += 16) {
		const int s = w.first + stage * GDN_TOKENS + row, n = w.t * p.tokens + s;
		const uint32_t to = w.tiles + row * stride + w.chunk * 16;
		struct eight k = eight_of(shared_load_16(to + (TILE_RAW + parity) * tile));
		float beta = 0, inverse = 0;
		struct eight scaled;

		if (s < w.end) {
			beta = __ldg(p.beta + (size_t)n * p.heads + w.head);
			inverse = __ldg(p.inverse + rows + n);
		}
		eight_norm(inverse, weight, k.v);
#pragma unroll
		for (int i = 0; i < 8; i++)
			scaled.v[i] = k.v[i] * beta;
		shared_store_16(to + (TILE_PLAIN + parity) * tile, eight_bits(k));
		shared_store_16(to + (TILE_PLAIN_B + parity) * tile, eight_bits(scaled));
		if (s < w.end)
			eight_turn(p.rope, w.t, place_at(p.rope, w.per_width, s), w.chunk, k.v);
#pragma unroll
		for (int i = 0; i < 8; i++)
			scaled.v[i] = k.v[i] * beta;
		shared_store_16(to + (TILE_TURNED + parity) * tile, eight_bits(k));
		shared_store_16(to + (TILE_TURNED_B + parity) * tile, eight_bits(scaled));
		if (w.chunk == 0)
			beta_store(w.beta + parity * GDN_TOKENS * 4, row, beta);
	}
}

/* The warp's 16 rows of P, A and P_z, and of b in columns 0 and 1 (its two BF16). */
template <int D> struct sums {
	float p[D / 8][4], a[D / 8][4], pz[D / 8][4], b[4];
};

template <int D>
static __device__ __forceinline__ void sums_add(const struct sums_work &w, int stage,
						struct sums<D> &c)
{
	constexpr int stride = (D + GDN_PAD) * 2, tile = GDN_TOKENS * stride;
	const int i = threadIdx.x % 32 / 8, r = threadIdx.x % 8, warp_row = threadIdx.x / 32 * 16;
	const uint32_t a_at = w.tiles + ((i >> 1) * 8 + r) * stride + (warp_row + (i & 1) * 8) * 2;
	const uint32_t b_at = w.tiles + ((i & 1) * 8 + r) * stride + (i >> 1) * 16;
	const uint32_t turned = (TILE_TURNED + stage % 2) * tile, v = (TILE_V + stage % 3) * tile;
	const uint32_t plain = (TILE_PLAIN + stage % 2) * tile;
	const int g = threadIdx.x % 32 / 4, pair = threadIdx.x % 4;
	const uint32_t beta =
		w.beta + stage % 2 * GDN_TOKENS * 4 + g % 2 * GDN_TOKENS * 2 + pair * 4;

#pragma unroll
	for (int s = 0; s < GDN_TOKENS; s += 16) {
		uint32_t a[4], av[4], b[4];

		ldmatrix_x4_trans(a, a_at + turned + s * stride);
		ldmatrix_x4_trans(av, a_at + v + s * stride);
#pragma unroll
		for (int n = 0; n < D / 8; n += 2) {
			ldmatrix_x4_trans(b, b_at + turned + 2 * tile + s * stride + n * 16);
			mma_bf16(c.p[n], a, b[0], b[1]);
			mma_bf16(c.p[n + 1], a, b[2], b[3]);
			mma_bf16(c.a[n], av, b[0], b[1]);
			mma_bf16(c.a[n + 1], av, b[2], b[3]);
		}
		ldmatrix_x4_trans(a, a_at + plain + s * stride);
#pragma unroll
		for (int n = 0; n < D / 8; n += 2) {
			ldmatrix_x4_trans(b, b_at + plain + 2 * tile + s * stride + n * 16);
			mma_bf16(c.pz[n], a, b[0], b[1]);
			mma_bf16(c.pz[n + 1], a, b[2], b[3]);
		}
#pragma unroll
		for (int h = 0; h < 2; h++) {
			asm volatile("ld.shared.b32 %0, [%1];"
				     : "=r"(b[h])
				     : "r"(beta + s * 2 + h * 16)
				     : "memory");
			b[h] = g < 2 ? b[h] : 0;
		}
		mma_bf16(c.b, a, b[0], b[1]);
	}
}

/* c, or (`adds`) c and what is there. */
template <int D>
static __device__ __forceinline__ void matrix_store(float *to, bool adds, const float c[D / 8][4])
{
	const int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, column = threadIdx.x % 4 * 2;

#pragma unroll
	for (int n = 0; n < D / 8; n++)
#pragma unroll
		for (int h = 0; h < 2; h++) {
			float2 *at = (float2 *)(to + (row + 8 * h) * D + n * 8 + column);
			float2 v = make_float2(c[n][2 * h], c[n][2 * h + 1]);

			if (adds) {
				const float2 other = __ldcg(at);

				v.x += other.x;
				v.y += other.y;
			}
			*at = v;
		}
}

template <int D>
static __device__ __forceinline__ void sums_store(const struct gdn_params &p, int item, bool adds,
						  const struct sums<D> &c)
{
	const int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;

	matrix_store<D>(p.p + (size_t)item * D * D, adds, c.p);
	matrix_store<D>(p.a + (size_t)item * D * D, adds, c.a);
	matrix_store<D>(p.p_z + (size_t)item * D * D, adds, c.pz);
	if (threadIdx.x % 4)
		return;
#pragma unroll
	for (int h = 0; h < 2; h++) {
		float *at = p.b + item * D + row + 8 * h;
		const float v = c.b[2 * h] + c.b[2 * h + 1];

		*at = adds ? v + __ldcg(at) : v;
	}
}

/*
 * Two blocks have half of a frame's tokens each. The first one to be ready leaves its sums where they
 * belong, the second adds its own: of two numbers the sum is the same in either order.
 */
template <int D>
static __device__ __forceinline__ void sums_meet(const struct gdn_params &p, int item,
						 const struct sums<D> &c)
{
	__shared__ int second;
	int *meeting = (int *)&p.meetings[item];

	if (threadIdx.x == 0)
		second = atomicAdd(meeting, 1);
	__syncthreads();
	if (!second) {
		sums_store<D>(p, item, false, c);
		__threadfence();
		__syncthreads();
		if (threadIdx.x == 0)
			atomicExch(meeting + 1, 1);
		return;
	}
	if (threadIdx.x == 0) {
		while (atomicAdd(meeting + 1, 0) == 0)
			;
		__threadfence();
	}
	__syncthreads();
	sums_store<D>(p, item, true, c);
}

/* blockIdx: head, frame, half of the tokens. */
template <int D> static __device__ __forceinline__ void gdn_sums(const struct gdn_params &p)
{
	constexpr int stride = (D + GDN_PAD) * 2;
	extern __shared__ __align__(128) unsigned char memory[];
	float *weight = (float *)(memory + TILES * GDN_TOKENS * stride);
	const int half = (p.tokens + 2 * GDN_TOKENS - 1) / (2 * GDN_TOKENS) * GDN_TOKENS;
	const int first = blockIdx.z * half, end = min(p.tokens, first + half);
	const struct sums_work w = { .t = (int)blockIdx.y,
				     .head = (int)blockIdx.x,
				     .first = first,
				     .end = end,
				     .row = (int)threadIdx.x / (D / 8),
				     .chunk = (int)threadIdx.x % (D / 8),
				     .tiles = shared_address(memory),
				     .beta = shared_address(weight + D),
				     .per_width = 1.0f / p.rope.width,
				     .weight = weight };
	const int stages = max(end - first + GDN_TOKENS - 1, 0) / GDN_TOKENS;
	struct sums<D> c = {};

	if (threadIdx.x < D)
		weight[threadIdx.x] = p.k_norm[w.head * D + threadIdx.x] * p.kappa;
	sums_copy<D>(p, w, 0);
	sums_copy<D>(p, w, 1);
	cp_async_wait<1>();
	__syncthreads();
	sums_make<D>(p, w, 0);
	__syncthreads();
	for (int stage = 0; stage < stages; stage++) {
		sums_copy<D>(p, w, stage + 2);
		cp_async_wait<1>();
		if (stage + 1 < stages)
			sums_make<D>(p, w, stage + 1);
		sums_add<D>(w, stage, c);
		__syncthreads();
	}
	cp_async_wait<0>();
	sums_meet<D>(p, w.t * p.heads + w.head, c);
}

/* ------------------------------------------------------------------------------ scan over frames */

/* What a block scans: some rows of one head's state with P and A, or the normaliser (one row) with P_z and b. */
struct scan {
	const float *p, *a, *in; /* in: NULL for none */
	int frames, heads, head, d;
	int row, rows; /* first one of the block; there are */
	int size;      /* elements of one frame and head of `a` */
	int j, r;      /* this thread's column and first row in the block */
};

/* The frame whose P the n-th product needs: forwards, then back; the first step of each way may need none. */
static __device__ __forceinline__ int scan_frame(const struct scan &s, int n)
{
	const int first = s.in ? 0 : 1, forward = s.frames - first;

	return n < forward ? first + n : s.frames - 2 - (n - forward);
}

static __device__ __forceinline__ int scan_products(const struct scan &s)
{
	return s.frames - (s.in ? 0 : 1) + max(s.frames - 2, 0);
}

/* A quarter of a P on its way to its place. */
static __device__ __forceinline__ void scan_fetch(const struct scan &s, uint32_t shared, int n,
						  int quarter)
{
	const int pieces = s.d * s.d / 16;

	if (n < scan_products(s)) {
		const int item = scan_frame(s, n) * s.heads + s.head;
		const float *from = s.p + ((size_t)item * 4 + quarter) * pieces * 4;

		for (int i = threadIdx.x; i < pieces; i += GDN_SCAN_THREADS)
			cp_async_16(shared + (quarter * pieces + i) * 16, from + i * 4, 16);
	}
	cp_async_commit();
}

/* sum[r] = Σ_i m[i][r]·P[i][j] of product n; the next one's P is fetched behind it. */
static __device__ __forceinline__ void scan_product(const struct scan &s, const float *matrix,
						    const float *m, int n, float sum[8])
{
	const int quarter_rows = s.d / 4;

	for (int quarter = 0; quarter < 4; quarter++) {
		cp_async_wait<3>();
		__syncthreads();
		if (s.j < s.d)
#pragma unroll 4
			for (int k = 0; k < quarter_rows; k++) {
				const int i = quarter * quarter_rows + k;
				const float v = matrix[i * s.d + s.j];
				const float4 low = *(const float4 *)(m + i * GDN_SCAN_ROWS + s.r);
				const float4 high =
					*(const float4 *)(m + i * GDN_SCAN_ROWS + s.r + 4);

				sum[0] += low.x * v;
				sum[1] += low.y * v;
				sum[2] += low.z * v;
				sum[3] += low.w * v;
				sum[4] += high.x * v;
				sum[5] += high.y * v;
				sum[6] += high.z * v;
				sum[7] += high.w * v;
			}
		__syncthreads();
		scan_fetch(s, shared_address(matrix), n + 1, quarter);
	}
}

/* m ← g·m·(I − P) + A, or A where there was no state; `n` counts products. */
static __device__ __forceinline__ void scan_step(const struct gdn_params &p, const struct scan &s,
						 int t, bool has_state, const float *matrix,
						 float *m, int *n, float next[8])
{
	const int item = t * s.heads + s.head;
	const float g = p.decay[item];
	float sum[8] = {};

#pragma unroll
	for (int r = 0; r < 8; r++)
		next[r] = s.j < s.d && s.row + s.r + r < s.rows ?
				  s.a[(size_t)item * s.size + (s.row + s.r + r) * s.d + s.j] :
				  0;
	if (has_state) {
		scan_product(s, matrix, m, (*n)++, sum);
#pragma unroll
		for (int r = 0; r < 8; r++)
			next[r] += s.j < s.d ? g * (m[s.j * GDN_SCAN_ROWS + s.r + r] - sum[r]) : 0;
	}
	/* Nobody else reads these before the next product's first barrier, nor after the last one's last. */
	if (s.j < s.d)
#pragma unroll
		for (int r = 0; r < 8; r++)
			m[s.j * GDN_SCAN_ROWS + s.r + r] = next[r];
}

/* The step's result of this thread: states of both ways added up for the read-out, the last one for later. */
static __device__ __forceinline__ void scan_store(const struct gdn_params &p, const struct scan &s,
						  int t, bool forward, const float next[8])
{
	const bool is_state = s.size != s.d, last = t == s.frames - 1;
	float *sums = is_state ? p.history : p.z;
	float *out = is_state ? p.state_out : p.normaliser_out;

	for (int r = 0; r < 8 && s.j < s.d && s.row + s.r + r < s.rows; r++) {
		const int in = (s.row + s.r + r) * s.d + s.j;
		const size_t at = (size_t)(t * s.heads + s.head) * s.size + in;
		const float sum = forward ? next[r] : sums[at] + next[r];

		if (!is_state || (forward && !last))
			sums[at] = sum;
		if (is_state && (!forward || last))
			((uint16_t *)p.read)[at] = bf16_bits(sum);
		if (forward && last && out)
			out[(size_t)s.head * s.size + in] = next[r];
	}
}

/* blockIdx.x: some rows of the state, or (the last one) the normaliser; blockIdx.y: the head. */
extern "C" __global__ void __launch_bounds__(GDN_SCAN_THREADS)
	gdn_scan(const __grid_constant__ struct gdn_params p)
{
	extern __shared__ __align__(16) float scanned[];
	const bool is_state = blockIdx.x + 1 < gridDim.x;
	const int d = p.head_dim, size = is_state ? d * d : d, head = blockIdx.y;
	const float *in = is_state ? p.state_in : p.normaliser_in;
	const struct scan s = { .p = is_state ? p.p : p.p_z,
				.a = is_state ? p.a : p.b,
				.in = in ? in + (size_t)head * size : NULL,
				.frames = p.frames,
				.heads = p.heads,
				.head = head,
				.d = d,
				.row = is_state ? (int)blockIdx.x * GDN_SCAN_ROWS : 0,
				.rows = size / d,
				.size = size,
				.j = (int)threadIdx.x % 128,
				.r = (int)threadIdx.x / 128 * 8 };
	float *m = scanned + d * d, next[8];
	int n = 0;

	for (int quarter = 0; quarter < 4; quarter++)
		scan_fetch(s, shared_address(scanned), 0, quarter);
	for (int r = 0; r < 8 && s.j < d; r++)
		m[s.j * GDN_SCAN_ROWS + s.r + r] =
			s.in && s.row + s.r + r < s.rows ? s.in[(s.row + s.r + r) * d + s.j] : 0;
	for (int t = 0; t < s.frames; t++) {
		scan_step(p, s, t, t > 0 || s.in, scanned, m, &n, next);
		scan_store(p, s, t, true, next);
	}
	/* The other way, without the frame itself: frame t reads what t + 1 … wrote. */
	for (int t = s.frames - 2; t >= 0; t--) {
		scan_step(p, s, t + 1, t < s.frames - 2, scanned, m, &n, next);
		scan_store(p, s, t, false, next);
	}
	cp_async_wait<0>();
}

/* ------------------------------------------------------------------------------------- read-out */

/* Lanes that share a row: a power of two, so that a row's sum stays in a warp. */
template <int D> struct read_lanes {
	static constexpr int value = D / 8 <= 4 ? 4 : D / 8 <= 8 ? 8 : 16;
};

/* All queries of the block, normed and turned, to shared memory; one over their products with z beside them. */
template <int D>
static __device__ __forceinline__ void read_queries(const struct gdn_params &p, int t, int head,
						    int first, uint32_t q, const float *z,
						    float *inverse)
{
	constexpr int stride = (D + GDN_PAD) * 2, lanes = read_lanes<D>::value;
	const int chunk = threadIdx.x % lanes;
	const bool has = chunk < D / 8;
	const float per_width = 1.0f / p.rope.width;
	const struct eight none = {}, w = has ? eight_floats(p.q_norm + head * D, chunk) : none;
	const struct eight zs = has ? eight_floats(z, chunk) : none;

#pragma unroll 4
	for (int row = threadIdx.x / lanes; row < GDN_READ_TOKENS;
	     row += GDN_READ_THREADS / lanes) {
		const int s = first + row, n = t * p.tokens + s;
		struct eight v = {};
		float sum = 0;

		if (has && s < p.tokens) {
			v = eight_load((const uint16_t *)p.q + n * p.ld + head * D, chunk);
			eight_norm(__ldg(p.inverse + n), w, v.v);
#pragma unroll
			for (int i = 0; i < 8; i++)
				sum += v.v[i] * zs.v[i];
			eight_turn(p.rope, t, place_at(p.rope, per_width, s), chunk, v.v);
		}
		if (has)
			shared_store_16(q + row * stride + chunk * 16, eight_bits(v));
#pragma unroll
		for (int step = lanes / 2; step > 0; step /= 2)
			sum += __shfl_xor_sync(0xffffffffu, sum, step);
		if (chunk == 0)
			inverse[row] = 1.0f / (sum + 1e-8f);
	}
}

/* y of the block's tokens from the products in shared memory, eight lanes a thread. */
template <int D>
static __device__ __forceinline__ void read_store(const struct gdn_params &p, int t, int head,
						  int first, const float *product,
						  const float *inverse)
{
	constexpr int lanes = read_lanes<D>::value;
	const int chunk = threadIdx.x % lanes;

	if (chunk >= D / 8)
		return;
#pragma unroll 4
	for (int row = threadIdx.x / lanes; row < GDN_READ_TOKENS;
	     row += GDN_READ_THREADS / lanes) {
		const int s = first + row;
		const size_t n = (size_t)t * p.tokens + s;
		struct eight v, g;

		if (s >= p.tokens)
			break;
		v = eight_floats(product + row * (D + 4), chunk);
		g = eight_load((const uint16_t *)p.gate + n * p.ld + head * D, chunk);
#pragma unroll
		for (int i = 0; i < 8; i++)
			v.v[i] *= inverse[row] * g.v[i] *
				  reciprocal_approx(1.0f + exp2_approx(-g.v[i] * log2_e));
		eight_store((uint16_t *)p.y + n * p.heads * D + head * D, chunk, v);
	}
}

template <int D> static __device__ __forceinline__ void gdn_read(const struct gdn_params &p)
{
	constexpr int stride = (D + GDN_PAD) * 2;
	extern __shared__ __align__(128) unsigned char memory[];
	unsigned char *queries = memory, *state = memory + GDN_READ_TOKENS * stride;
	float *z = (float *)(state + D * stride), *inverse = z + D, *product = (float *)memory;
	const int first = blockIdx.x * GDN_READ_TOKENS, head = blockIdx.y, t = blockIdx.z;
	const int item = t * p.heads + head, i = threadIdx.x % 32 / 8, r = threadIdx.x % 8;
	const int row = threadIdx.x / 32 * 16, g = threadIdx.x % 32 / 4, pair = threadIdx.x % 4;
	const uint32_t a_at =
		shared_address(queries) + (row + (i & 1) * 8 + r) * stride + (i >> 1) * 16;
	const uint32_t b_at = shared_address(state) + ((i >> 1) * 8 + r) * stride + (i & 1) * 16;
	float c[D / 8][4] = {};

	for (int e = threadIdx.x; e < D * (D / 8); e += GDN_READ_THREADS)
		cp_async_16(shared_address(state) + e / (D / 8) * stride + e % (D / 8) * 16,
			    (const uint16_t *)p.read + (size_t)item * D * D + e * 8, 16);
	cp_async_commit();
	for (int e = threadIdx.x; e < D; e += GDN_READ_THREADS)
		z[e] = p.z[item * D + e];
	__syncthreads();
	read_queries<D>(p, t, head, first, shared_address(queries), z, inverse);
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
	/* Products take the place of queries and state: a thread's eight lanes of a row lie together then. */
	__syncthreads();
#pragma unroll
	for (int n = 0; n < D / 8; n++)
#pragma unroll
		for (int h = 0; h < 2; h++)
			*(float2 *)(product + (row + g + 8 * h) * (D + 4) + n * 8 + 2 * pair) =
				make_float2(c[n][2 * h], c[n][2 * h + 1]);
	__syncthreads();
	read_store<D>(p, t, head, first, product, inverse);
}

#define GDN(D)                                                            \
	extern "C" __global__ void __launch_bounds__(2 * D, 1)            \
		gdn_sums_##D(const __grid_constant__ struct gdn_params p) \
	{                                                                 \
		gdn_sums<D>(p);                                           \
	}                                                                 \
	extern "C" __global__ void __launch_bounds__(GDN_READ_THREADS, 4) \
		gdn_read_##D(const __grid_constant__ struct gdn_params p) \
	{                                                                 \
		gdn_read<D>(p);                                           \
	}
GDN(32)
GDN(80)
GDN(112)
