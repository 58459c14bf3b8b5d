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

static __device__ __forceinline__ float warp_sum(float v)
{
#pragma unroll
	for (int step = 16; step > 0; step /= 2)
		v += __shfl_xor_sync(0xffffffffu, v, step);
	return v;
}

/* ------------------------------------------------------------------------------- q and k norms */

/*
 * 1/√(mean of squares + ε) of every row of q, then of k, a warp a row; the rotations of every token, side
 * by side. Opens the meetings of gdn_sums.
 */
extern "C" __global__ void __launch_bounds__(GDN_INVERSE_THREADS)
	gdn_inverse(const __grid_constant__ struct gdn_params p)
{
	const int channels = p.heads * p.head_dim, rows = p.frames * p.tokens;
	const int row = (blockIdx.x * GDN_INVERSE_THREADS + threadIdx.x) / 32;
	const int lane = threadIdx.x % 32, thread = blockIdx.x * GDN_INVERSE_THREADS + threadIdx.x;
	const uint16_t *x = row < rows ? (const uint16_t *)p.q + row * p.ld :
					 (const uint16_t *)p.k + (row - rows) * p.ld;
	float sum = 0;

	dependency_wait();
	for (int i = thread; i < p.frames * p.heads; i += gridDim.x * GDN_INVERSE_THREADS)
		p.meetings[i] = make_int2(0, 0);
	if (row >= 2 * rows)
		return;
	for (int pair = lane; row < rows && pair < p.head_dim / 2; pair += 32)
		p.rotation[(size_t)row * (p.head_dim / 2) + pair] = rope_at(p.rope, row, pair);
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
	dependency_launch();
}

/* Rotations of the four pairs of lanes 8·chunk… of a token. */
struct turn {
	float4 low, high;
};

static __device__ __forceinline__ struct turn turn_load(const struct gdn_params &p, int n,
							int chunk)
{
	const float4 *from =
		(const float4 *)(p.rotation + (size_t)n * (p.head_dim / 2)) + 2 * chunk;

	return { from[0], from[1] };
}

static __device__ __forceinline__ void eight_turn(const struct turn &r, float v[8])
{
	rope_turn(make_float2(r.low.x, r.low.y), &v[0], &v[1]);
	rope_turn(make_float2(r.low.z, r.low.w), &v[2], &v[3]);
	rope_turn(make_float2(r.high.x, r.high.y), &v[4], &v[5]);
	rope_turn(make_float2(r.high.z, r.high.w), &v[6], &v[7]);
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
	int head, first, end; /* tokens, of all frames */
	uint32_t tiles; /* shared memory; behind them weights of the norm and two stages' β */
};

/*
 * threadIdx.x, but nothing made of it is kept in registers from stage to stage: with its sums a thread
 * has none to spare, and recomputing is cheaper than local memory. Token of a stage: thread / (D / 8);
 * its eight lanes: thread % (D / 8).
 */
static __device__ __forceinline__ int sums_thread(void)
{
	int thread;

	asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
	return thread;
}

template <int D> static __device__ __forceinline__ uint32_t sums_weight(const struct sums_work &w)
{
	return w.tiles + TILES * GDN_TOKENS * (D + GDN_PAD) * 2;
}

template <int D>
static __device__ __forceinline__ uint32_t sums_beta(const struct sums_work &w, int stage)
{
	return sums_weight<D>(w) + D * 4 + stage % 2 * GDN_TOKENS * 4;
}

/* Eight F32 of shared memory. */
static __device__ __forceinline__ struct eight eight_shared(uint32_t at)
{
	const uint4 a = shared_load_16(at), b = shared_load_16(at + 16);

	return { { __uint_as_float(a.x), __uint_as_float(a.y), __uint_as_float(a.z),
		   __uint_as_float(a.w), __uint_as_float(b.x), __uint_as_float(b.y),
		   __uint_as_float(b.z), __uint_as_float(b.w) } };
}

/* Of this thread's token of a stage: β, norm, and the rotations of its lanes. */
struct sums_token {
	float beta, inverse;
	struct turn turn;
};

template <int D>
static __device__ __forceinline__ struct sums_token sums_fetch(const struct gdn_params &p,
							       const struct sums_work &w, int stage)
{
	const int thread = sums_thread(), s = w.first + stage * GDN_TOKENS + thread / (D / 8);
	const int n = min(s, w.end - 1);
	struct sums_token token = { p.beta[(size_t)n * p.heads + w.head],
				    p.inverse[p.frames * p.tokens + n],
				    turn_load(p, n, thread % (D / 8)) };

	if (s >= w.end)
		token.beta = token.inverse = 0;
	return token;
}

/* k and v of a stage on their way; each thread copies what it will read itself. */
template <int D>
static __device__ __forceinline__ void sums_copy(const struct gdn_params &p,
						 const struct sums_work &w, int stage)
{
	constexpr int stride = (D + GDN_PAD) * 2, tile = GDN_TOKENS * stride;
	const int thread = sums_thread(), row = thread / (D / 8), chunk = thread % (D / 8);
	const uint32_t to = w.tiles + row * stride + chunk * 16;
	const int s = w.first + stage * GDN_TOKENS + row;
	const bool in = s < w.end;
	const size_t at = (size_t)(in ? s : w.end - 1) * p.ld + w.head * D + chunk * 8;

	cp_async_16(to + (TILE_RAW + stage % 2) * tile, (const uint16_t *)p.k + at, in ? 16 : 0);
	cp_async_16(to + (TILE_V + stage % 3) * tile, (const uint16_t *)p.v + at, in ? 16 : 0);
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

static __device__ __forceinline__ struct eight eight_scaled(const struct eight &e, float factor)
{
	struct eight scaled;

#pragma unroll
	for (int i = 0; i < 8; i++)
		scaled.v[i] = e.v[i] * factor;
	return scaled;
}

/* Factors of a stage from what this thread copied. */
template <int D>
static __device__ __forceinline__ void sums_make(const struct sums_work &w, int stage,
						 const struct sums_token &token)
{
	constexpr int stride = (D + GDN_PAD) * 2, tile = GDN_TOKENS * stride;
	const int thread = sums_thread(), row = thread / (D / 8), chunk = thread % (D / 8);
	const int parity = stage % 2;
	const uint32_t to = w.tiles + row * stride + chunk * 16;
	struct eight k = eight_of(shared_load_16(to + (TILE_RAW + parity) * tile));

	eight_norm(token.inverse, eight_shared(sums_weight<D>(w) + chunk * 32), k.v);
	shared_store_16(to + (TILE_PLAIN + parity) * tile, eight_bits(k));
	shared_store_16(to + (TILE_PLAIN_B + parity) * tile,
			eight_bits(eight_scaled(k, token.beta)));
	eight_turn(token.turn, k.v);
	shared_store_16(to + (TILE_TURNED + parity) * tile, eight_bits(k));
	shared_store_16(to + (TILE_TURNED_B + parity) * tile,
			eight_bits(eight_scaled(k, token.beta)));
	if (chunk == 0)
		beta_store(sums_beta<D>(w, stage), row, token.beta);
}

/* The warp's 16 rows and half of the columns of P, A and P_z; of b in columns 0 and 1 (its two BF16). */
template <int D> struct sums {
	float p[D / 16][4], a[D / 16][4], pz[D / 16][4], b[4];
};

/* c += a·b over 16 tokens, and c2 += a2·b where there is one; `b_at` is this lane's part of the tile of b. */
template <int D>
static __device__ __forceinline__ void half_add(const uint32_t a[4], const uint32_t a2[4],
						uint32_t b_at, float c[D / 16][4], float (*c2)[4])
{
	uint32_t b[4];

#pragma unroll
	for (int n = 0; n < D / 16; n += 2) {
		/* The last tile of an odd number: the second pair of matrices is not used. */
		ldmatrix_x4_trans(b, b_at + n * 16 -
					     (n + 1 < D / 16 ? 0 : threadIdx.x % 32 / 16 * 16));
#pragma unroll
		for (int i = 0; i < 2 && n + i < D / 16; i++) {
			mma_bf16(c[n + i], a, b[2 * i], b[2 * i + 1]);
			if (c2)
				mma_bf16(c2[n + i], a2, b[2 * i], b[2 * i + 1]);
		}
	}
}

template <int D>
static __device__ __forceinline__ void sums_add(const struct sums_work &w, int stage,
						struct sums<D> &c)
{
	constexpr int stride = (D + GDN_PAD) * 2, tile = GDN_TOKENS * stride;
	const int i = threadIdx.x % 32 / 8, r = threadIdx.x % 8, warp = threadIdx.x / 32;
	const uint32_t a_at =
		w.tiles + ((i >> 1) * 8 + r) * stride + (warp / 2 * 16 + (i & 1) * 8) * 2;
	const uint32_t b_at = w.tiles + ((i & 1) * 8 + r) * stride + (i >> 1) * 16 + warp % 2 * D;
	const uint32_t turned = (TILE_TURNED + stage % 2) * tile, v = (TILE_V + stage % 3) * tile;
	const uint32_t plain = (TILE_PLAIN + stage % 2) * tile;
	const int g = threadIdx.x % 32 / 4, pair = threadIdx.x % 4;
	const uint32_t beta = sums_beta<D>(w, stage) + g % 2 * GDN_TOKENS * 2 + pair * 4;

#pragma unroll 1
	for (int s = 0; s < GDN_TOKENS; s += 16) {
		uint32_t a[4], av[4], b[2];

		ldmatrix_x4_trans(a, a_at + turned + s * stride);
		ldmatrix_x4_trans(av, a_at + v + s * stride);
		half_add<D>(a, av, b_at + turned + 2 * tile + s * stride, c.p, c.a);
		ldmatrix_x4_trans(a, a_at + plain + s * stride);
		half_add<D>(a, a, b_at + plain + 2 * tile + s * stride, c.pz, NULL);
		if (warp % 2)
			continue;
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
static __device__ __forceinline__ void matrix_store(float *to, bool adds, const float c[D / 16][4])
{
	const int row = threadIdx.x / 64 * 16 + threadIdx.x % 32 / 4;
	const int column = threadIdx.x / 32 % 2 * (D / 2) + threadIdx.x % 4 * 2;

#pragma unroll
	for (int n = 0; n < D / 16; n++)
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
	const int row = threadIdx.x / 64 * 16 + threadIdx.x % 32 / 4;

	matrix_store<D>(p.p + (size_t)item * D * D, adds, c.p);
	matrix_store<D>(p.a + (size_t)item * D * D, adds, c.a);
	matrix_store<D>(p.p_z + (size_t)item * D * D, adds, c.pz);
	if (threadIdx.x % 4 || threadIdx.x / 32 % 2)
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
	const int frame = blockIdx.y * p.tokens;
	const struct sums_work w = { .head = (int)blockIdx.x,
				     .first = frame + first,
				     .end = frame + end,
				     .tiles = shared_address(memory) };
	const int stages = max(end - first + GDN_TOKENS - 1, 0) / GDN_TOKENS;
	struct sums<D> c = {};
	struct sums_token token;

	if (threadIdx.x < D)
		weight[threadIdx.x] = p.k_norm[w.head * D + threadIdx.x] * p.kappa;
	dependency_wait();
	sums_copy<D>(p, w, 0);
	sums_copy<D>(p, w, 1);
	token = sums_fetch<D>(p, w, 0);
	cp_async_wait<1>();
	__syncthreads();
	sums_make<D>(w, 0, token);
	token = sums_fetch<D>(p, w, 1);
	__syncthreads();
	for (int stage = 0; stage < stages; stage++) {
		sums_copy<D>(p, w, stage + 2);
		cp_async_wait<1>();
		/* Of the warps of one scheduler some make the next stage while the others use this one. */
#pragma unroll
		for (int turn = 0; turn < 2; turn++) {
			if ((threadIdx.x / 128 + turn) % 2) {
				sums_add<D>(w, stage, c);
			} else if (stage + 1 < stages) {
				sums_make<D>(w, stage + 1, token);
				/* A stage ahead: it has all of that to arrive. */
				token = sums_fetch<D>(p, w, stage + 2);
			}
		}
		__syncthreads();
	}
	cp_async_wait<0>();
	dependency_launch();
	sums_meet<D>(p, blockIdx.y * p.heads + w.head, c);
}

/* ------------------------------------------------------------------------------ scan over frames */

/*
 * The frame whose P the n-th product of a scan needs: forwards, then back; the first step of each way
 * needs none where there is no state.
 */
static __device__ __forceinline__ int scan_frame(const struct gdn_params &p, int n)
{
	const int first = p.state_in ? 0 : 1, forward = p.frames - first;

	return n < forward ? first + n : p.frames - 2 - (n - forward);
}

static __device__ __forceinline__ int scan_products(const struct gdn_params &p)
{
	return p.frames - (p.state_in ? 0 : 1) + max(p.frames - 2, 0);
}

/*
 * Two TF32 that together have 21 bits of a number: its upper bits, cut off where TF32 ends, and what is
 * left, of which the product takes the upper bits. Rounding instead (cvt.rna.tf32.f32) is five
 * instructions here and one bit better.
 */
struct tf32_pair {
	uint32_t high, low;
};

static __device__ __forceinline__ struct tf32_pair tf32_split(float a)
{
	const uint32_t high = __float_as_uint(a) & 0xffffe000u;

	return { high, __float_as_uint(a - __uint_as_float(high)) };
}

/* mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32: d += a·b */
static __device__ __forceinline__ void mma_tf32(float d[4], const uint32_t a[4], uint32_t b0,
						uint32_t b1)
{
	asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
	    "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
	    : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
	    : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/*
 * A thread's part of P for product n, what the fragments of its warp's 16 columns hold, on its way to
 * shared memory: there each thread has its own words, and waits for no other.
 */
template <int D>
static __device__ __forceinline__ void scan_copy(const struct gdn_params &p, int head, int n,
						 uint32_t to)
{
	const int column = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, c = threadIdx.x % 4;
	const float *from;

	if (n >= scan_products(p))
		return;
	from = p.p + (size_t)(scan_frame(p, n) * p.heads + head) * D * D + c * D + column;
#pragma unroll
	for (int k = 0; k < D / 8; k++)
#pragma unroll
		for (int i = 0; i < 4; i++)
			cp_async_4(to + (4 * k + i) * 2 * D * 4,
				   from + (8 * k + i % 2 * 4) * D + i / 2 * 8);
	cp_async_commit();
}

/* What scan_copy brought, and the next one on its way. */
template <int D>
static __device__ __forceinline__ void scan_fetch(const struct gdn_params &p, int head, int next,
						  uint32_t at, float f[D / 2])
{
	cp_async_wait<0>();
#pragma unroll
	for (int i = 0; i < D / 2; i++)
		f[i] = __uint_as_float(shared_load_32(at + i * 2 * D * 4));
	scan_copy<D>(p, head, next, at);
}

/* sum = m·P for the warp's 16 columns; both factors in two TF32, the product of both lower parts left out. */
template <int D>
static __device__ __forceinline__ void scan_product(const float *m, const float f[D / 2],
						    float sum[2][4])
{
	const int g = threadIdx.x % 32 / 4, c = threadIdx.x % 4;
	float small[2][4] = {};

#pragma unroll
	for (int k = 0; k < D / 8; k++) {
		uint32_t high[4], low[4];

#pragma unroll
		for (int i = 0; i < 4; i++) {
			const struct tf32_pair a =
				tf32_split(m[(g + i % 2 * 8) * (D + 4) + 8 * k + c + i / 2 * 4]);

			high[i] = a.high;
			low[i] = a.low;
		}
#pragma unroll
		for (int n = 0; n < 2; n++) {
			const struct tf32_pair b0 = tf32_split(f[4 * k + 2 * n]);
			const struct tf32_pair b1 = tf32_split(f[4 * k + 2 * n + 1]);

			mma_tf32(sum[n], high, b0.high, b1.high);
			mma_tf32(small[n], low, b0.high, b1.high);
			mma_tf32(small[n], high, b0.low, b1.low);
		}
	}
#pragma unroll
	for (int n = 0; n < 2; n++)
#pragma unroll
		for (int i = 0; i < 4; i++)
			sum[n][i] += small[n][i];
}

/* Where a thread's eight elements of a strip of 16 rows are: [2n + h] is a pair of columns of one row. */
template <int D> static __device__ __forceinline__ int strip_at(int i, int ld)
{
	const int g = threadIdx.x % 32 / 4, c = threadIdx.x % 4;

	return (g + i % 2 * 8) * ld + threadIdx.x / 32 * 16 + i / 2 * 8 + 2 * c;
}

/* M ← g·M·(I − P) + A of a strip, or A where there was no state. All of the block calls it. */
template <int D>
static __device__ __forceinline__ void scan_step(const struct gdn_params &p, int item, int row,
						 bool has_state, const float f[D / 2], float *m,
						 float2 next[4])
{
	const float *a = p.a + ((size_t)item * D + row) * D, g = p.decay[item];
	float sum[2][4] = {};

#pragma unroll
	for (int i = 0; i < 4; i++)
		next[i] = *(const float2 *)(a + strip_at<D>(i, D));
	if (has_state) {
		__syncthreads();
		scan_product<D>(m, f, sum);
#pragma unroll
		for (int i = 0; i < 4; i++) {
			const float2 before = *(const float2 *)(m + strip_at<D>(i, D + 4));

			next[i].x += g * (before.x - sum[i / 2][i % 2 * 2]);
			next[i].y += g * (before.y - sum[i / 2][i % 2 * 2 + 1]);
		}
		__syncthreads();
	}
#pragma unroll
	for (int i = 0; i < 4; i++)
		*(float2 *)(m + strip_at<D>(i, D + 4)) = next[i];
}

template <int D>
static __device__ __forceinline__ void scan_store(const struct gdn_params &p, int t, int head,
						  int row, bool forward, const float2 next[4])
{
	const size_t item = ((size_t)(t * p.heads + head) * D + row) * D;
	const bool last = t == p.frames - 1;

#pragma unroll
	for (int i = 0; i < 4; i++) {
		const int at = strip_at<D>(i, D);
		float2 *history = (float2 *)(p.history + item + at), sum = next[i];

		if (forward && !last) {
			*history = sum;
			continue;
		}
		if (!forward) {
			sum.x += history->x;
			sum.y += history->y;
		}
		*(uint32_t *)((uint16_t *)p.read + item + at) = bf16_pack(sum.x, sum.y);
		if (forward && p.state_out)
			*(float2 *)(p.state_out + ((size_t)head * D + row) * D + at) = sum;
	}
}

template <int D>
static __device__ __forceinline__ void scan_state(const struct gdn_params &p, int head, int row,
						  float *m, uint32_t own)
{
	const int last = p.frames - 1;
	float f[D / 2] = {};
	float2 next[4];
	int n = 0;

	scan_copy<D>(p, head, 0, own);
	if (p.state_in)
#pragma unroll
		for (int i = 0; i < 4; i++)
			*(float2 *)(m + strip_at<D>(i, D + 4)) =
				*(const float2 *)(p.state_in + ((size_t)head * D + row) * D +
						  strip_at<D>(i, D));
	for (int step = 0; step < 2 * p.frames - 1; step++) {
		/* There, and back without the frame itself: frame t reads what t + 1 … wrote. */
		const bool forward = step < p.frames;
		const int t = forward ? step : 2 * last - step;
		const bool has_state = forward ? step > 0 || p.state_in : t < last - 1;

		if (has_state)
			scan_fetch<D>(p, head, ++n, own, f);
		scan_step<D>(p, (forward ? t : t + 1) * p.heads + head, row, has_state, f, m, next);
		scan_store<D>(p, t, head, row, forward, next);
	}
}

/* z ← g·(I − P_z)·z + b, or b; a thread has half of the sum of an element. */
template <int D>
static __device__ __forceinline__ float scan_vector(const struct gdn_params &p, int item,
						    bool has_state, float *z)
{
	const int j = threadIdx.x % D, half = threadIdx.x / D;
	const float *matrix = p.p_z + ((size_t)item * D + half * (D / 2)) * D + j;
	float next = p.b[item * D + j], f[D / 2], sum = 0;

	__syncthreads();
	if (has_state) {
		/* P_z is symmetric: its columns may be read where they are neighbours. */
#pragma unroll
		for (int k = 0; k < D / 2; k++)
			f[k] = matrix[k * D];
#pragma unroll
		for (int k = 0; k < D / 2; k++)
			sum += f[k] * z[half * (D / 2) + k];
		z[(1 + half) * D + j] = sum;
		__syncthreads();
		next += p.decay[item] * (z[j] - (z[D + j] + z[2 * D + j]));
		__syncthreads();
	}
	if (half == 0)
		z[j] = next;
	return next;
}

template <int D>
static __device__ __forceinline__ void scan_normaliser(const struct gdn_params &p, int head,
						       float *z)
{
	const int j = threadIdx.x % D, last = p.frames - 1;
	const bool mine = (int)threadIdx.x < D;

	if (mine)
		z[j] = p.normaliser_in ? p.normaliser_in[head * D + j] : 0;
	for (int step = 0; step < 2 * p.frames - 1; step++) {
		const bool forward = step < p.frames;
		const int t = forward ? step : 2 * last - step;
		const bool has_state = forward ? step > 0 || p.state_in : t < last - 1;
		float *sum = p.z + (t * p.heads + head) * D + j;
		const float next =
			scan_vector<D>(p, (forward ? t : t + 1) * p.heads + head, has_state, z);

		if (!mine)
			continue;
		*sum = forward ? next : *sum + next;
		if (step == last && p.normaliser_out)
			p.normaliser_out[head * D + j] = next;
	}
}

/* blockIdx.x: 16 rows of the state, or (the last one) the normaliser; blockIdx.y: the head. */
template <int D> static __device__ __forceinline__ void gdn_scan(const struct gdn_params &p)
{
	__shared__ float m[16 * (D + 4)];
	extern __shared__ __align__(128) unsigned char memory[];

	dependency_wait();
	if (blockIdx.x + 1 < gridDim.x)
		scan_state<D>(p, blockIdx.y, blockIdx.x * 16, m,
			      shared_address(memory) + threadIdx.x * 4);
	else
		scan_normaliser<D>(p, blockIdx.y, m);
	dependency_launch();
}

/* ------------------------------------------------------------------------------------- read-out */

/* Lanes that share a row: a power of two, so that a row's sum stays in a warp. */
template <int D> struct read_lanes {
	static constexpr int value = D / 8 <= 4 ? 4 : D / 8 <= 8 ? 8 : 16;
};

/* A thread's rows: every GDN_READ_THREADS / lanes-th, in batches that are loaded together. */
template <int D> struct read_rows {
	static constexpr int lanes = read_lanes<D>::value, step = GDN_READ_THREADS / lanes;
	static constexpr int count = GDN_READ_TOKENS / step, batch = count < 4 ? count : 4;
};

/* All queries of the block, normed and turned, to shared memory; one over their products with z beside them. */
template <int D>
static __device__ __forceinline__ void read_queries(const struct gdn_params &p, int t, int head,
						    int first, uint32_t q, const float *z,
						    float *inverse)
{
	using rows = read_rows<D>;
	constexpr int stride = (D + GDN_PAD) * 2, batch = rows::batch;
	const int chunk = threadIdx.x % rows::lanes, row0 = threadIdx.x / rows::lanes;
	const bool has = chunk < D / 8;
	const struct eight none = {}, w = has ? eight_floats(p.q_norm + head * D, chunk) : none;
	const struct eight zs = has ? eight_floats(z, chunk) : none;

#pragma unroll 1
	for (int at = 0; at < rows::count; at += batch) {
		uint4 bits[batch];
		struct turn turn[batch];
		float norm[batch];

#pragma unroll
		for (int i = 0; i < batch; i++) {
			const int s = first + row0 + (at + i) * rows::step;
			const int n = t * p.tokens + (s < p.tokens ? s : 0);

			bits[i] = make_uint4(0, 0, 0, 0);
			norm[i] = s < p.tokens ? p.inverse[n] : 0;
			if (!has)
				continue;
			turn[i] = turn_load(p, n, chunk);
			if (s < p.tokens)
				bits[i] = ((const uint4 *)((const uint16_t *)p.q + n * p.ld +
							   head * D))[chunk];
		}
#pragma unroll
		for (int i = 0; i < batch; i++) {
			const int row = row0 + (at + i) * rows::step;
			struct eight v = eight_of(bits[i]);
			float sum = 0;

			eight_norm(norm[i], w, v.v);
#pragma unroll
			for (int e = 0; e < 8; e++)
				sum += v.v[e] * zs.v[e];
			if (has) {
				eight_turn(turn[i], v.v);
				shared_store_16(q + row * stride + chunk * 16, eight_bits(v));
			}
#pragma unroll
			for (int step = rows::lanes / 2; step > 0; step /= 2)
				sum += __shfl_xor_sync(0xffffffffu, sum, step);
			if (chunk == 0)
				inverse[row] = 1.0f / (sum + 1e-8f);
		}
	}
}

/* The gates of a thread's rows, on their way while the products are made. */
template <int D>
static __device__ __forceinline__ void read_gates(const struct gdn_params &p, int t, int head,
						  int first, uint4 gate[read_rows<D>::count])
{
	using rows = read_rows<D>;
	const int chunk = threadIdx.x % rows::lanes, row0 = threadIdx.x / rows::lanes;

#pragma unroll
	for (int i = 0; i < rows::count; i++) {
		const int s = first + row0 + i * rows::step;
		const size_t n = (size_t)t * p.tokens + s;

		if (chunk < D / 8 && s < p.tokens)
			gate[i] = ((const uint4 *)((const uint16_t *)p.gate + n * p.ld +
						   head * D))[chunk];
	}
}

/* y of the block's tokens from the products in shared memory, eight lanes a thread. */
template <int D>
static __device__ __forceinline__ void
read_store(const struct gdn_params &p, int t, int head, int first, const float *product,
	   const float *inverse, const uint4 gate[read_rows<D>::count])
{
	using rows = read_rows<D>;
	const int chunk = threadIdx.x % rows::lanes, row0 = threadIdx.x / rows::lanes;

	if (chunk >= D / 8)
		return;
#pragma unroll
	for (int i = 0; i < rows::count; i++) {
		const int row = row0 + i * rows::step, s = first + row;
		const size_t n = (size_t)t * p.tokens + s;
		struct eight v, g;

		if (s >= p.tokens)
			continue;
		v = eight_floats(product + row * (D + 4), chunk);
		g = eight_of(gate[i]);
#pragma unroll
		for (int e = 0; e < 8; e++)
			v.v[e] *= inverse[row] * g.v[e] *
				  reciprocal_approx(1.0f + exp2_approx(-g.v[e] * log2_e));
		eight_store((uint16_t *)p.y + n * p.heads * D + head * D, chunk, v);
	}
}

template <int D> static __device__ __forceinline__ void gdn_read(const struct gdn_params &p)
{
	constexpr int stride = (D + GDN_PAD) * 2;
	extern __shared__ __align__(128) unsigned char memory[];
	unsigned char *queries = memory, *state = memory + GDN_READ_TOKENS * stride;
	float *z = (float *)(memory + GDN_READ_TILES(D)), *inverse = z + D,
	      *product = (float *)memory;
	const int first = blockIdx.x * GDN_READ_TOKENS, head = blockIdx.y, t = blockIdx.z;
	const int item = t * p.heads + head, i = threadIdx.x % 32 / 8, r = threadIdx.x % 8;
	const int row = threadIdx.x / 32 * 16, g = threadIdx.x % 32 / 4, pair = threadIdx.x % 4;
	const uint32_t a_at =
		shared_address(queries) + (row + (i & 1) * 8 + r) * stride + (i >> 1) * 16;
	const uint32_t b_at = shared_address(state) + ((i >> 1) * 8 + r) * stride + (i & 1) * 16;
	uint4 gate[read_rows<D>::count];
	float c[D / 8][4] = {};

	dependency_wait();
	for (int e = threadIdx.x; e < D * (D / 8); e += GDN_READ_THREADS)
		cp_async_16(shared_address(state) + e / (D / 8) * stride + e % (D / 8) * 16,
			    (const uint16_t *)p.read + (size_t)item * D * D + e * 8, 16);
	cp_async_commit();
	for (int e = threadIdx.x; e < D; e += GDN_READ_THREADS)
		z[e] = p.z[item * D + e];
	__syncthreads();
	read_queries<D>(p, t, head, first, shared_address(queries), z, inverse);
	read_gates<D>(p, t, head, first, gate);
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
	dependency_launch();
	read_store<D>(p, t, head, first, product, inverse, gate);
}

#define GDN(D)                                                            \
	extern "C" __global__ void __launch_bounds__(4 * D, 1)            \
		gdn_sums_##D(const __grid_constant__ struct gdn_params p) \
	{                                                                 \
		gdn_sums<D>(p);                                           \
	}                                                                 \
	extern "C" __global__ void __launch_bounds__(2 * D)               \
		gdn_scan_##D(const __grid_constant__ struct gdn_params p) \
	{                                                                 \
		gdn_scan<D>(p);                                           \
	}                                                                 \
	extern "C" __global__ void __launch_bounds__(GDN_READ_THREADS, 3) \
		gdn_read_##D(const __grid_constant__ struct gdn_params p) \
	{                                                                 \
		gdn_read<D>(p);                                           \
	}
GDN(32)
GDN(80)
GDN(112)
