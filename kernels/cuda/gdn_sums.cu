/*
 * Gated delta rule, sums over the tokens of a frame (P, A, P_z, b of kernels.h) as matrix products on BF16
 * operands with F32 sums. With s = √beta, T = s·K̂ and U = s·K: P = TᵀT, A = (s·V)ᵀT, P_z = UᵀU, b = Uᵀs.
 * Eight warps make T and U of 32 tokens at a time (norm, ReLU and rotation where k is read), the last of
 * them what belongs to a token and not to its lanes; one warp for every 16 lanes of the head multiplies. What
 * a product takes of 16 lanes is the same for either factor, so that a fragment once loaded serves P and
 * A, on both sides; of what is symmetric half is computed.
 */
#include "kernels/cuda/gdn.cuh"

enum {
	STAGES = GDN_SUMS_STAGES,
	PASSES = GDN_TOKENS / 16, /* of a thread that makes: every sixteenth token of a stage */
};

/*
 * Tiles of a stage: T and U; behind them what makes a token's T and U (16 bytes: factor,
 * turns_token), and √beta in F32, then its upper and lower BF16.
 */
enum { TILE_T, TILE_U, TILES };

template <int D> struct shape {
	static constexpr int blocks = D / 16;		/* of 16 lanes, a warp each */
	static constexpr int warps = (blocks + 3) & ~3; /* whole warpgroups; the last ones idle */
	static constexpr int half = blocks / 2; /* farthest block that is computed, to the right */
	static constexpr int stride = (D + GDN_PAD) * 2;
	static constexpr int tile = GDN_TOKENS * stride;
	static constexpr int tokens = TILES * tile, roots = tokens + GDN_TOKENS * 16;
	static constexpr int stage = roots + GDN_TOKENS * 8;
	static constexpr int values = STAGES * stage; /* v as it came, one more of them */
	/* Of two warpgroups each, which share what sixteen warps have. */
	static constexpr int maker_registers = 80;
	static constexpr int adder_registers = 256 - maker_registers;
	static constexpr int chunks = D / 8, makers = 16 * chunks;
};

struct work {
	int head, t, first, end;	     /* tokens of the frame */
	int count;			     /* of their stages */
	uint32_t stages, full, empty, known; /* barriers: made, used, tokens' own */
	struct turns turns;
};

static __device__ __forceinline__ uint32_t barrier_of(uint32_t barriers, int stage)
{
	return barriers + stage % STAGES * 8;
}

/* ------------------------------------------------------------------------------ making of T and U */

template <int D>
static __device__ __forceinline__ uint32_t stage_at(const struct work &w, int stage)
{
	return w.stages + stage % STAGES * shape<D>::stage;
}

template <int D>
static __device__ __forceinline__ uint32_t values_at(const struct work &w, int stage)
{
	return w.stages + shape<D>::values + stage % (STAGES + 1) * shape<D>::tile;
}

/* The place of a stage is free again. */
static __device__ __forceinline__ void wait_free(const struct work &w, int stage)
{
	if (stage >= STAGES)
		mbarrier_wait(barrier_of(w.empty, stage), (stage / STAGES + 1) % 2);
}

/* What all but the warps that multiply do together. */
static __device__ __forceinline__ void share_turns(const struct gdn_params &p, const struct work &w,
						   float2 *table, int thread)
{
	turns_fill<5>(p.rope, w.t, table, thread, GDN_SUMS_MAKERS);
	named_barrier(2, GDN_SUMS_MAKERS);
}

/* What belongs to the tokens of a stage, a lane of the last warp each. */
template <int D>
static __device__ __forceinline__ void know_all(const struct gdn_params &p, const struct work &w,
						float2 *table, int thread)
{
	const int lane = threadIdx.x % 32;

	share_turns(p, w, table, thread);
	if (thread < GDN_SUMS_MAKERS - 32)
		return;
	dependency_wait();
#pragma unroll 1
	for (int stage = 0; stage < w.count; stage++) {
		const int s = w.first + stage * GDN_TOKENS + lane, in = min(s, w.end - 1);
		const int n = w.t * p.tokens + in;
		const struct turns_token token = turns_token_of(p, in);
		const float beta = p.beta[n * p.heads + w.head];
		const float inverse = p.inverse[p.frames * p.tokens + n];
		const float root = s < w.end ? sqrtf(beta) : 0;
		const uint16_t high = bf16_bits(root), low = bf16_bits(root - bf16_value(high));
		const uint32_t at = stage_at<D>(w, stage), to = at + shape<D>::roots;

		wait_free(w, stage);
		shared_store_16(at + shape<D>::tokens + lane * 16,
				make_uint4(__float_as_uint(root * inverse), token.y, token.x, 0));
		asm volatile("st.shared.b32 [%0], %1;" ::"r"(to + lane * 4), "f"(root) : "memory");
		asm volatile("st.shared.b16 [%0], %1;" ::"r"(to + GDN_TOKENS * 4 + lane * 2),
			     "h"(high)
			     : "memory");
		asm volatile("st.shared.b16 [%0], %1;" ::"r"(to + GDN_TOKENS * 6 + lane * 2),
			     "h"(low)
			     : "memory");
		mbarrier_arrive(barrier_of(w.known, stage));
	}
}

/* A thread's share of k of a stage: eight lanes of two tokens. */
struct fetched {
	uint4 k[PASSES];
};

template <int D>
static __device__ __forceinline__ struct fetched
fetch(const struct gdn_params &p, const struct work &w, const uint16_t *k, int stage, int row)
{
	struct fetched f;

#pragma unroll
	for (int i = 0; i < PASSES; i++) {
		const int s = min(w.first + stage * GDN_TOKENS + row + 16 * i, w.end - 1);

		f.k[i] = global_load_16(k + s * (int)p.ld);
	}
	return f;
}

template <int D>
static __device__ __forceinline__ void copy_values(const struct gdn_params &p, const struct work &w,
						   const uint16_t *v, int stage, int row, int chunk)
{
	const uint32_t to = values_at<D>(w, stage) + row * shape<D>::stride + chunk * 16;

#pragma unroll
	for (int i = 0; i < PASSES && stage < w.count; i++) {
		const int s = w.first + stage * GDN_TOKENS + row + 16 * i;

		cp_async_16(to + 16 * i * shape<D>::stride, v + min(s, w.end - 1) * (int)p.ld,
			    s < w.end ? 16 : 0);
	}
	cp_async_commit();
}

template <int D>
static __device__ __forceinline__ void make_stage(const struct work &w, int stage, int row,
						  int chunk, const struct eight &weight,
						  const struct fetched &f)
{
	constexpr int together = turning<D>::pairs;
	const uint32_t at = stage_at<D>(w, stage), known = at + shape<D>::tokens + row * 16;
	const uint32_t to = at + row * shape<D>::stride + chunk * 16;
	struct eight keys[PASSES];
	uint4 bits[PASSES];

	/* Step by step for all of them, so that they wait together. */
#pragma unroll
	for (int i = 0; i < PASSES; i++)
		bits[i] = shared_load_16(known + 16 * i * 16);
#pragma unroll
	for (int i = 0; i < PASSES; i++) {
		keys[i] = eight_of(f.k[i]);
#pragma unroll
		for (int e = 0; e < 8; e++)
			keys[i].v[e] = fmaxf(keys[i].v[e] * weight.v[e], 0.0f) *
				       __uint_as_float(bits[i].x);
		shared_store_16(to + TILE_U * shape<D>::tile + 16 * i * shape<D>::stride,
				eight_bits(keys[i]));
	}
#pragma unroll
	for (int e = 0; e < 4; e += together)
#pragma unroll
		for (int i = 0; i < PASSES; i++)
			turns_apply<D>(w.turns, { (int)bits[i].y, (int)bits[i].z }, chunk * 4 + e,
				       keys[i].v + 2 * e);
#pragma unroll
	for (int i = 0; i < PASSES; i++)
		shared_store_16(to + TILE_T * shape<D>::tile + 16 * i * shape<D>::stride,
				eight_bits(keys[i]));
}

template <int D>
static __device__ __forceinline__ void make_all(const struct gdn_params &p, const struct work &w,
						float2 *table, int thread)
{
	const int row = thread / shape<D>::chunks, chunk = thread % shape<D>::chunks;
	const int lanes = w.t * p.tokens * (int)p.ld + w.head * D + chunk * 8;
	const uint16_t *k = (const uint16_t *)p.k + lanes, *v = (const uint16_t *)p.v + lanes;
	struct eight weight = eight_floats(p.k_norm + w.head * D, chunk);
	struct fetched now = fetch<D>(p, w, k, 0, row), next = fetch<D>(p, w, k, 1, row);

#pragma unroll
	for (int e = 0; e < 8; e++)
		weight.v[e] *= p.kappa;
	copy_values<D>(p, w, v, 0, row, chunk);
	copy_values<D>(p, w, v, 1, row, chunk);
	share_turns(p, w, table, thread);
#pragma unroll 1
	for (int stage = 0; stage < w.count; stage++) {
		mbarrier_wait(barrier_of(w.known, stage), stage / STAGES % 2);
		make_stage<D>(w, stage, row, chunk, weight, now);
		cp_async_wait<1>();
		mbarrier_arrive(barrier_of(w.full, stage));
		now = next;
		next = fetch<D>(p, w, k, stage + 2, row);
		/* Then the values of the stage before are free too, which is where those of the next but one go. */
		wait_free(w, stage + 1);
		copy_values<D>(p, w, v, stage + 2, row, chunk);
	}
	cp_async_wait<0>();
}

/* --------------------------------------------------------------------------------------- products */

/* A warp's row of blocks of 16x16: all of A, of P and P_z those up to half-way round to the right. */
template <int D> struct sums {
	float a[D / 16][2][4], p[D / 32 + 1][2][4], pz[D / 32 + 1][2][4], b[4];
};

/*
 * c += aᵀ·b for 16 tokens, of 16 lanes each. Fragments are in the order that the right factor wants, for
 * there are more of those; the left one wants the middle two the other way round.
 */
static __device__ __forceinline__ void block_add(float c[2][4], const uint32_t a[4],
						 const uint32_t b[4])
{
	mma_bf16(c[0], a, b[0], b[1]);
	mma_bf16(c[1], a, b[2], b[3]);
}

static __device__ __forceinline__ void left_of(const uint32_t right[4], uint32_t left[4])
{
	left[0] = right[0], left[1] = right[2], left[2] = right[1], left[3] = right[3];
}

/* v of two tokens, times their √beta. */
static __device__ __forceinline__ uint32_t pair_scaled(uint32_t v, uint64_t roots)
{
	return bf16_pack(bf16_low(v) * __uint_as_float((uint32_t)roots),
			 bf16_high(v) * __uint_as_float((uint32_t)(roots >> 32)));
}

/*
 * What a warp does with a stage: for each 16 of its tokens the blocks of T from its own on round, then those
 * of U up to half-way, one fragment each, which are loaded AHEAD of the products.
 */
template <int D> struct walk {
	static constexpr int blocks = shape<D>::blocks, fragments = blocks + shape<D>::half + 1;
	static constexpr int steps = GDN_TOKENS / 16, ahead = 2;
	uint32_t block[blocks], values; /* this lane's part */
	uint32_t fragment[ahead + 1][4], v[4], left[4];
};

template <int D> static __device__ __forceinline__ void walk_load(struct walk<D> &k, int f)
{
	constexpr int fragments = walk<D>::fragments, blocks = walk<D>::blocks;
	const int step = f / fragments, i = f % fragments;
	const int tile = i < blocks ? TILE_T : TILE_U;

	if (step < walk<D>::steps)
		ldmatrix_x4_trans(k.fragment[f % (walk<D>::ahead + 1)],
				  k.block[i < blocks ? i : i - blocks] + tile * shape<D>::tile +
					  step * 16 * shape<D>::stride);
}

/* v of 16 tokens, times their √beta, as a left factor. */
template <int D>
static __device__ __forceinline__ void walk_values(struct walk<D> &k, uint32_t roots, int step)
{
	const uint64_t low = shared_load_64(roots + step * 64),
		       high = shared_load_64(roots + step * 64 + 32);
	uint32_t v[4];

	ldmatrix_x4_trans(v, k.values + step * 16 * shape<D>::stride);
	k.v[0] = pair_scaled(v[0], low);
	k.v[1] = pair_scaled(v[2], low);
	k.v[2] = pair_scaled(v[1], high);
	k.v[3] = pair_scaled(v[3], high);
}

/* b += Uᵀs: columns 0 and 1 are the upper and the lower BF16 of √beta. */
static __device__ __forceinline__ void vector_add(float c[4], const uint32_t left[4],
						  uint32_t halves)
{
	uint32_t b[2];

#pragma unroll
	for (int i = 0; i < 2; i++) {
		b[i] = shared_load_32(halves + i * 16);
		b[i] = threadIdx.x % 32 < 8 ? b[i] : 0;
	}
	mma_bf16(c, left, b[0], b[1]);
}

/* `roots`, `halves`: this lane's part of √beta in F32 and in two BF16. */
template <int D>
static __device__ __forceinline__ void stage_add(struct walk<D> &k, uint32_t roots, uint32_t halves,
						 struct sums<D> &c)
{
	constexpr int fragments = walk<D>::fragments, blocks = walk<D>::blocks;

#pragma unroll
	for (int f = 0; f < walk<D>::ahead; f++)
		walk_load<D>(k, f);
#pragma unroll
	for (int f = 0; f < walk<D>::steps * fragments; f++) {
		const int step = f / fragments, i = f % fragments;
		const uint32_t *now = k.fragment[f % (walk<D>::ahead + 1)];

		walk_load<D>(k, f + walk<D>::ahead);
		if (i == 0)
			walk_values<D>(k, roots, step);
		if (i % blocks == 0)
			left_of(now, k.left);
		if (i == blocks)
			vector_add(c.b, k.left, halves + step * 32);
		if (i < blocks)
			block_add(c.a[i], k.v, now);
		if (i <= shape<D>::half)
			block_add(c.p[i], k.left, now);
		if (i >= blocks)
			block_add(c.pz[i - blocks], k.left, now);
	}
}

/* All stages; `warp` has lanes 16·warp … of the head. */
template <int D>
static __device__ __forceinline__ void add_all(const struct work &w, int warp, struct sums<D> &c)
{
	const int i = threadIdx.x % 32 / 8, r = threadIdx.x % 8, lane = threadIdx.x % 32;
	const uint32_t lane_at = ((i & 1) * 8 + r) * shape<D>::stride + (i >> 1) * 16;

#pragma unroll 1
	for (int stage = 0; stage < w.count; stage++) {
		const uint32_t at = stage_at<D>(w, stage), roots = at + shape<D>::roots;
		struct walk<D> k;

#pragma unroll
		for (int d = 0; d < shape<D>::blocks; d++)
			k.block[d] = at + lane_at + (warp + d) % shape<D>::blocks * 32;
		k.values = values_at<D>(w, stage) + lane_at + warp * 32;
		mbarrier_wait(barrier_of(w.full, stage), stage / STAGES % 2);
		stage_add<D>(k, roots + lane % 4 * 8,
			     roots + lane % 4 * 4 + GDN_TOKENS * (4 + lane / 4 % 2 * 2), c);
		__syncwarp();
		/* Every lane for itself: one for all is no faster, and racecheck does not see that order. */
		mbarrier_arrive(barrier_of(w.empty, stage));
	}
}

/* ----------------------------------------------------------------------------------------- results */

/* Where a warp's block `d` to the right of the diagonal begins. */
template <int D>
static __device__ __forceinline__ float4 *block_at(float *matrix, int item, int warp, int d)
{
	return (float4 *)(matrix + sums_at<D>(item, warp, (warp + d) % shape<D>::blocks * 2));
}

/* COUNT blocks of a warp's row, from the one `first` to the right of the diagonal. */
template <int COUNT> struct blocks {
	float4 tile[COUNT][2];
};

template <int D, int COUNT>
static __device__ __forceinline__ struct blocks<COUNT> blocks_load(float *matrix, int item,
								   int warp, int first) {
	struct blocks<COUNT> there;

#pragma unroll
	for (int d = 0; d < COUNT; d++)
#pragma unroll
		for (int h = 0; h < 2; h++)
			there.tile[d][h] =
				__ldcg(block_at<D>(matrix, item, warp, first + d) + h * 32);
	return there;
}

template <int COUNT>
static __device__ __forceinline__ void blocks_add(const struct blocks<COUNT> &there,
						  float c[COUNT][2][4])
{
#pragma unroll
	for (int d = 0; d < COUNT; d++)
#pragma unroll
		for (int h = 0; h < 2; h++) {
			c[d][h][0] += there.tile[d][h].x, c[d][h][1] += there.tile[d][h].y;
			c[d][h][2] += there.tile[d][h].z, c[d][h][3] += there.tile[d][h].w;
		}
}

template <int D, int COUNT>
static __device__ __forceinline__ void blocks_store(float *matrix, int item, int warp, int first,
						    const float c[COUNT][2][4])
{
#pragma unroll
	for (int d = 0; d < COUNT; d++)
#pragma unroll
		for (int h = 0; h < 2; h++)
			__stcg(block_at<D>(matrix, item, warp, first + d) + h * 32,
			       make_float4(c[d][h][0], c[d][h][1], c[d][h][2], c[d][h][3]));
}

/* A block of 16x16 to its place across the diagonal, by way of a warp's own shared memory. */
template <int D>
static __device__ __forceinline__ void block_mirror(float *matrix, int item, int row, int column,
						    float *scratch, const float c[2][4])
{
	const int g = threadIdx.x % 32 / 4, pair = threadIdx.x % 4 * 2;

	__syncwarp();
#pragma unroll
	for (int h = 0; h < 2; h++)
#pragma unroll
		for (int e = 0; e < 4; e++)
			scratch[(8 * h + pair + e % 2) * GDN_MIRROR_ROW + g + e / 2 * 8] = c[h][e];
	__syncwarp();
#pragma unroll
	for (int h = 0; h < 2; h++) {
		const float *from = scratch + g * GDN_MIRROR_ROW + 8 * h + pair;
		const float2 low = *(const float2 *)from,
			     high = *(const float2 *)(from + 8 * GDN_MIRROR_ROW);

		__stcg((float4 *)(matrix + sums_at<D>(item, column, 2 * row + h)),
		       make_float4(low.x, low.y, high.x, high.y));
	}
}

/* The whole of a symmetric matrix from the blocks there are of it. */
template <int D>
static __device__ __forceinline__ void
symmetric_store(float *matrix, int item, int warp, float *scratch, const float c[D / 32 + 1][2][4])
{
	constexpr int count = shape<D>::blocks, half = shape<D>::half;

	blocks_store<D, half + 1>(matrix, item, warp, 0, c);
	/* Of an even number of blocks those half-way round are computed on both sides. */
#pragma unroll
	for (int d = 1; d < (count % 2 ? half + 1 : half); d++)
		block_mirror<D>(matrix, item, warp, (warp + d) % count, scratch, c[d]);
}

/* Of column 0 and 1 of the sums of U: rows g and g + 8 of b, which the lanes of column 0 have. */
template <int D>
static __device__ __forceinline__ float *vector_at(const struct gdn_params &p, int item, int warp)
{
	return p.b + item * D + warp * 16 + threadIdx.x % 32 / 4;
}

template <int D>
static __device__ __forceinline__ void vector_store(const struct gdn_params &p, int item, int warp,
						    const float c[4], float2 more)
{
	float *at = vector_at<D>(p, item, warp);

	if (threadIdx.x % 4)
		return;
	__stcg(at, c[0] + c[1] + more.x);
	__stcg(at + 8, c[2] + c[3] + more.y);
}

template <int D>
static __device__ __forceinline__ float2 vector_load(const struct gdn_params &p, int item, int warp)
{
	const float *at = vector_at<D>(p, item, warp);

	return threadIdx.x % 4 ? make_float2(0, 0) : make_float2(__ldcg(at), __ldcg(at + 8));
}

/*
 * Two blocks share a frame's tokens. Each leaves what the other one is to complete, where it belongs, and
 * waits for the other to have done so: of two numbers the sum is the same in either order. They are
 * neighbours in the grid: blocks start in the order of their index, so only the newest can wait for one that
 * has not started, and its place comes free as soon as another pair ends. The launcher sees to it that two
 * run at once.
 */
template <int D>
static __device__ __forceinline__ void sums_exchange(const struct gdn_params &p, int item,
						     int share)
{
	constexpr int threads = shape<D>::blocks * 32;
	unsigned int *left = (unsigned int *)&p.meetings[item];

	named_barrier(1, threads);
	if (threadIdx.x == 0) {
		__threadfence();
		atomicExch(left + share, 1);
		while (atomicAdd(left + !share, 0) == 0)
			;
		__threadfence();
	}
	named_barrier(1, threads);
}

/*
 * The first block completes P, b and of each row of A the blocks nearest to the diagonal, the second P_z and
 * the other blocks of A.
 */
template <int D>
static __device__ __forceinline__ void sums_first(const struct gdn_params &p, int item, int warp,
						  float *scratch, struct sums<D> &c)
{
	constexpr int half = shape<D>::half, far = shape<D>::blocks - half;

	blocks_store<D, half + 1>(p.p_z, item, warp, 0, c.pz);
	blocks_store<D, far>(p.a, item, warp, half, c.a + half);
	sums_exchange<D>(p, item, 0);
	{
		const struct blocks<half + 1> more = blocks_load<D, half + 1>(p.p, item, warp, 0);
		const struct blocks<half> a = blocks_load<D, half>(p.a, item, warp, 0);
		const float2 b = vector_load<D>(p, item, warp);

		blocks_add<half + 1>(more, c.p);
		blocks_add<half>(a, c.a);
		vector_store<D>(p, item, warp, c.b, b);
	}
	blocks_store<D, half>(p.a, item, warp, 0, c.a);
	symmetric_store<D>(p.p, item, warp, scratch, c.p);
}

template <int D>
static __device__ __forceinline__ void sums_second(const struct gdn_params &p, int item, int warp,
						   float *scratch, struct sums<D> &c)
{
	constexpr int half = shape<D>::half, far = shape<D>::blocks - half;

	blocks_store<D, half + 1>(p.p, item, warp, 0, c.p);
	blocks_store<D, half>(p.a, item, warp, 0, c.a);
	vector_store<D>(p, item, warp, c.b, make_float2(0, 0));
	sums_exchange<D>(p, item, 1);
	{
		const struct blocks<half + 1> more = blocks_load<D, half + 1>(p.p_z, item, warp, 0);
		const struct blocks<far> a = blocks_load<D, far>(p.a, item, warp, half);

		blocks_add<half + 1>(more, c.pz);
		blocks_add<far>(a, c.a + half);
	}
	blocks_store<D, far>(p.a, item, warp, half, c.a + half);
	symmetric_store<D>(p.p_z, item, warp, scratch, c.pz);
}

/* The norms of q, a row a warp. q was whole before the norms of k began, so nothing is waited for. */
static __device__ __forceinline__ void query_norms(const struct gdn_params &p, int block,
						   int blocks)
{
	const int warps = blockDim.x / 32;

	for (int row = block * warps + threadIdx.x / 32; row < p.frames * p.tokens;
	     row += blocks * warps)
		row_inverse(p, p.q, row, p.inverse);
}

/*
 * blockIdx.x: of each frame and head the two shares of the tokens; behind those blocks, where some
 * multiprocessors have none, the norms of q, which the read-out wants.
 */
template <int D> static __device__ __forceinline__ void gdn_sums(const struct gdn_params &p)
{
	extern __shared__ __align__(128) unsigned char memory[];
	__shared__ uint64_t barriers[3 * STAGES];
	float2 *table = (float2 *)(memory + GDN_SUMS_TILES(D));
	const int half = (p.tokens + GDN_TOKENS - 1) / GDN_TOKENS / 2 * GDN_TOKENS;
	const int warp = threadIdx.x / 32, item = blockIdx.x / 2, share = blockIdx.x % 2;
	const int first = share ? 0 : half, end = share ? half : p.tokens;
	const struct work w = { .head = item % p.heads,
				.t = item / p.heads,
				.first = first,
				.end = end,
				.count = max(end - first + GDN_TOKENS - 1, 0) / GDN_TOKENS,
				.stages = shared_address(memory),
				.full = shared_address(barriers),
				.empty = shared_address(barriers + STAGES),
				.known = shared_address(barriers + 2 * STAGES),
				.turns = turns_of(p.rope, table) };

	if (item >= p.heads * p.frames) {
		query_norms(p, blockIdx.x - 2 * p.heads * p.frames,
			    gridDim.x - 2 * p.heads * p.frames);
		return;
	}
	if (threadIdx.x == 0) {
		for (int i = 0; i < STAGES; i++) {
			mbarrier_init(barrier_of(w.full, i), shape<D>::makers);
			mbarrier_init(barrier_of(w.empty, i), 32 * shape<D>::blocks);
			mbarrier_init(barrier_of(w.known, i), 32);
		}
		mbarrier_init_fence();
	}
	__syncthreads();
	if (warp >= shape<D>::warps) {
		const int thread = threadIdx.x - shape<D>::warps * 32;

		if (shape<D>::warps == 8)
			registers_give<shape<D>::maker_registers>();
		if (w.count == 0)
			return;
		if (thread < shape<D>::makers)
			make_all<D>(p, w, table, thread);
		else
			know_all<D>(p, w, table, thread);
		return;
	}
	if (shape<D>::warps == 8)
		registers_take<shape<D>::adder_registers>();
	if (warp < shape<D>::blocks) {
		float *scratch = (float *)memory + warp * 16 * GDN_MIRROR_ROW;
		struct sums<D> c = {};

		/* The norms' kernel opens the meetings. */
		dependency_wait();
		dependency_launch();
		add_all<D>(w, warp, c);
		if (share == 0)
			sums_first<D>(p, item, warp, scratch, c);
		else
			sums_second<D>(p, item, warp, scratch, c);
	}
}

#define GDN_SUMS(D)                                                          \
	extern "C" __global__ void __launch_bounds__(GDN_SUMS_THREADS(D), 1) \
		gdn_sums_##D(const __grid_constant__ struct gdn_params p)    \
	{                                                                    \
		gdn_sums<D>(p);                                              \
	}
GDN_SUMS(32)
GDN_SUMS(80)
GDN_SUMS(112)
