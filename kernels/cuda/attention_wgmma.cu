/*
 * Softmax attention for sm_90a, heads of 112: a warpgroup loads by TMA, two multiply, 64 queries each, and
 * take turns. Scores of the next keys and the weighted values of the last ones are in flight together;
 * exponentials are taken while the other warpgroup multiplies. 112 lanes are 7·16 deep in the
 * first product and 112 wide in the second; only rows in shared memory are 128 long.
 */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/wgmma.cuh"

enum {
	KEYS = ATTENTION_WGMMA_KEYS,
	D = ATTENTION_WGMMA_HEAD,
	STAGES = ATTENTION_WGMMA_STAGES,
	TILE = ATTENTION_WGMMA_TILE,
	Q_BYTES = 2 * ATTENTION_WGMMA_ROWS * 128,
	BLOCK = KEYS * 128, /* bytes of 64 lanes of all keys of a tile */
	/* Three warpgroups start with 168 = 65536/384 each, and get no more together: 40 + 2·232. */
	LOADER_REGISTERS = 40,
	WORKER_REGISTERS = 232,
};

/* Shared memory and its barriers: full ones complete by bytes, empty ones by the eight warps. */
struct attention_memory {
	uint32_t q, k, v; /* k and v: STAGES tiles each */
	uint32_t q_full, q_empty, k_full, k_empty, v_full, v_empty;
};

static __device__ __forceinline__ struct attention_memory memory_at(uint32_t base)
{
	const uint32_t k = base + Q_BYTES, v = k + STAGES * TILE, barrier = v + STAGES * TILE;

	return { base,
		 k,
		 v,
		 barrier,
		 barrier + 8,
		 barrier + 16,
		 barrier + 16 + 8 * STAGES,
		 barrier + 16 + 16 * STAGES,
		 barrier + 16 + 24 * STAGES };
}

static __device__ __forceinline__ void memory_init(const struct attention_memory &m)
{
	enum { WARPS = 8 };

	mbarrier_init(m.q_full, 1);
	mbarrier_init(m.q_empty, WARPS);
	for (int i = 0; i < STAGES; i++) {
		mbarrier_init(m.k_full + 8 * i, 1);
		mbarrier_init(m.v_full + 8 * i, 1);
		mbarrier_init(m.k_empty + 8 * i, WARPS);
		mbarrier_init(m.v_empty + 8 * i, WARPS);
	}
	mbarrier_init_fence();
}

/* Place in a ring of STAGES; a fresh one is that of a reader. */
struct ring_place {
	int stage;
	uint32_t parity;
};

static __device__ __forceinline__ void ring_next(struct ring_place *r)
{
	if (++r->stage == STAGES) {
		r->stage = 0;
		r->parity ^= 1;
	}
}

struct tile_place {
	int segment, first, count;
};

static __device__ __forceinline__ struct tile_place tile_at(const struct attention_params &p,
							    int step)
{
	struct tile_place t = { 0, 0, 0 };

#pragma unroll
	for (int i = 0; i < 3; i++) {
		const int tokens = i < p.segments ? p.segment[i].tokens : 0;
		const int tiles = (tokens + KEYS - 1) / KEYS;

		if (step >= 0 && step < tiles)
			t = { i, step * KEYS, min((int)KEYS, tokens - step * KEYS) };
		step -= tiles;
	}
	return t;
}

/* ------------------------------------------------------------------------------ the one that loads */

static __device__ __forceinline__ void load(const struct attention_wgmma_params &p,
					    const struct attention_memory &m)
{
	struct attention_walk walk = walk_begin(p.p.split, blockIdx.x);
	struct attention_share s;
	struct ring_place r = { 0, 1 };
	uint32_t q_parity = 1;

	while (walk_next(p.p.split, blockIdx.x, &walk, &s)) {
		const int kv_head = s.head / p.p.heads_per_kv;

		mbarrier_wait(m.q_empty, q_parity);
		q_parity ^= 1;
		mbarrier_arrive_expect(m.q_full, Q_BYTES);
		tma_load_3d(m.q, &p.q, m.q_full, 0, s.head, s.row);
		tma_load_3d(m.q + Q_BYTES / 2, &p.q, m.q_full, 64, s.head, s.row);
		for (int i = 0; i < s.steps; i++, ring_next(&r)) {
			const struct tile_place t = tile_at(p.p, s.step + i);
			const uint32_t k = m.k + r.stage * TILE, v = m.v + r.stage * TILE;
			const uint32_t k_full = m.k_full + 8 * r.stage;
			const uint32_t v_full = m.v_full + 8 * r.stage;

			mbarrier_wait(m.k_empty + 8 * r.stage, r.parity);
			mbarrier_arrive_expect(k_full, TILE);
			tma_load_3d(k, &p.k[t.segment], k_full, 0, kv_head, t.first);
			tma_load_3d(k + BLOCK, &p.k[t.segment], k_full, 64, kv_head, t.first);
			mbarrier_wait(m.v_empty + 8 * r.stage, r.parity);
			mbarrier_arrive_expect(v_full, TILE);
			tma_load_3d(v, &p.v[t.segment], v_full, 0, kv_head, t.first);
			tma_load_3d(v + BLOCK, &p.v[t.segment], v_full, 64, kv_head, t.first);
		}
	}
}

/* --------------------------------------------------------------------------- those that multiply */

/* Registers that a product in flight writes are as they will be only after this. */
template <int N> static __device__ __forceinline__ void registers_settle(float (&r)[N])
{
#pragma unroll
	for (int i = 0; i < N; i++)
		asm volatile("" : "+f"(r[i])::"memory");
}

/*
 * The two warpgroups issue their products in turn: named barriers 1 and 2 say whose turn it is, so that one
 * takes exponentials while the other's products are made.
 */
static __device__ __forceinline__ void turn_wait(int group)
{
	named_barrier(1 + group, 2 * 128);
}

static __device__ __forceinline__ void turn_pass(int group)
{
	named_barrier_arrive(2 - group, 2 * 128);
}

static __device__ __forceinline__ void warp_arrive(uint32_t barrier)
{
	if (threadIdx.x % 32 == 0)
		mbarrier_arrive(barrier);
}

/* s ← q·kᵀ, in flight. `q` is the warpgroup's 64 rows. */
static __device__ __forceinline__ void scores_begin(float (&s)[KEYS / 2], uint32_t q, uint32_t k)
{
	const uint64_t a = wgmma_descriptor(q), b = wgmma_descriptor(k);

	wgmma_fence();
#pragma unroll
	for (int i = 0; i < D / 16; i++)
		wgmma_ss_176(s, a + i / 4 * (Q_BYTES / 2 >> 4) + i % 4 * 2,
			     b + i / 4 * (BLOCK >> 4) + i % 4 * 2, i > 0);
	wgmma_commit();
}

/* o ← o + w·v, in flight. */
static __device__ __forceinline__ void values_begin(float (&o)[D / 2],
						    const uint32_t (&w)[KEYS / 16][4], uint32_t v)
{
	const uint64_t b = wgmma_descriptor_columns(v, BLOCK);

	wgmma_fence();
#pragma unroll
	for (int i = 0; i < KEYS / 16; i++)
		wgmma_rs_columns_112(o, w[i], b + i * (2048 >> 4));
	wgmma_commit();
}

/* Keys from `count` on do not count. */
static __device__ __forceinline__ void scores_end(float (&s)[KEYS / 2], int count)
{
	const int c = threadIdx.x % 4;

	if (count >= KEYS)
		return;
#pragma unroll
	for (int i = 0; i < KEYS / 2; i++)
		if (i / 4 * 8 + 2 * c + (i & 1) >= count)
			s[i] = -INFINITY;
}

/* Scores to weights in place. True where sums so far are to be multiplied by `factor`, the same in a warp. */
static __device__ __forceinline__ bool weights_make(float (&s)[KEYS / 2], float scale,
						    float most[2], float sum[2], float factor[2])
{
	float top[2];
	bool rises = false;

#pragma unroll
	for (int h = 0; h < 2; h++) {
		top[h] = s[2 * h];
#pragma unroll
		for (int n = 0; n < KEYS / 8; n++)
			top[h] = fmaxf(top[h], fmaxf(s[4 * n + 2 * h], s[4 * n + 2 * h + 1]));
		top[h] *= scale;
		rises |= top[h] > most[h] + attention_rise;
		factor[h] = 1;
	}
	rises = __any_sync(~0u, rises);
	if (rises) {
#pragma unroll
		for (int h = 0; h < 2; h++) {
			const float before = most[h];

			most[h] = fmaxf(before, ceilf(row_max(top[h])));
			factor[h] = exp2_approx(before - most[h]);
			sum[h] *= factor[h];
		}
	}
#pragma unroll
	for (int i = 0; i < KEYS / 2; i++) {
		s[i] = exp2_approx(s[i] * scale - most[i / 2 % 2]);
		sum[i / 2 % 2] += s[i];
	}
	return rises;
}

static __device__ __forceinline__ void weights_pack(const float (&s)[KEYS / 2],
						    uint32_t (&w)[KEYS / 16][4])
{
#pragma unroll
	for (int i = 0; i < KEYS / 16; i++)
#pragma unroll
		for (int j = 0; j < 4; j++)
			w[i][j] = bf16_pack(s[8 * i + 2 * j], s[8 * i + 2 * j + 1]);
}

static __device__ __forceinline__ void output_scale(float (&o)[D / 2], const float factor[2])
{
#pragma unroll
	for (int i = 0; i < D / 2; i++)
		o[i] *= factor[i / 2 % 2];
}

static __device__ __forceinline__ void share_do(const struct attention_params &p,
						const struct attention_memory &m,
						const struct attention_share &share, int group,
						struct ring_place *r)
{
	float o[D / 2], s[KEYS / 2], factor[2];
	float most[2] = { attention_lowest, attention_lowest }, sum[2] = {};
	uint32_t w[KEYS / 16][4];
	struct ring_place before = *r;
	const int warp_row = threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4;
	const uint32_t q = m.q + group * 64 * 128;

#pragma unroll
	for (int i = 0; i < D / 2; i++)
		o[i] = 0;
	mbarrier_wait(m.k_full + 8 * r->stage, r->parity);
	scores_begin(s, q, m.k + r->stage * TILE);
	wgmma_wait<0>();
	registers_settle(s);
	warp_arrive(m.k_empty + 8 * r->stage);
	scores_end(s, tile_at(p, share.step).count);
	(void)weights_make(s, p.scale_log2, most, sum, factor);
	weights_pack(s, w);
	ring_next(r);
	for (int i = 1; i < share.steps; i++) {
		bool rises;

		mbarrier_wait(m.k_full + 8 * r->stage, r->parity);
		turn_wait(group);
		scores_begin(s, q, m.k + r->stage * TILE);
		mbarrier_wait(m.v_full + 8 * before.stage, before.parity);
		values_begin(o, w, m.v + before.stage * TILE);
		turn_pass(group);
		wgmma_wait<1>();
		registers_settle(s);
		warp_arrive(m.k_empty + 8 * r->stage);
		scores_end(s, tile_at(p, share.step + i).count);
		rises = weights_make(s, p.scale_log2, most, sum, factor);
		wgmma_wait<0>();
		registers_settle(o);
		warp_arrive(m.v_empty + 8 * before.stage);
		if (rises)
			output_scale(o, factor);
		weights_pack(s, w);
		before = *r;
		ring_next(r);
	}
	warp_arrive(m.q_empty);
	mbarrier_wait(m.v_full + 8 * before.stage, before.parity);
	values_begin(o, w, m.v + before.stage * TILE);
	wgmma_wait<0>();
	registers_settle(o);
	warp_arrive(m.v_empty + 8 * before.stage);
	sum[0] = row_sum(sum[0]);
	sum[1] = row_sum(sum[1]);
	rows_store<D>(p, share, group * 64 + warp_row, most, sum, o);
}

extern "C" __global__ void __launch_bounds__(ATTENTION_WGMMA_THREADS, 1)
	attention_wgmma(const __grid_constant__ struct attention_wgmma_params p)
{
	extern __shared__ __align__(1024) uint8_t shared[];
	const struct attention_memory m = memory_at(shared_address(shared));
	const int group = __shfl_sync(~0u, threadIdx.x / 128, 0);

	if (threadIdx.x == 0)
		memory_init(m);
	__syncthreads();
	dependency_wait();
	dependency_launch();
	if (group == 0) {
		registers_give<LOADER_REGISTERS>();
		if (threadIdx.x == 0)
			load(p, m);
	} else {
		struct attention_walk walk = walk_begin(p.p.split, blockIdx.x);
		struct attention_share s;
		struct ring_place r = { 0, 0 };
		uint32_t q_parity = 0;

		registers_take<WORKER_REGISTERS>();
		if (group == 2)
			turn_pass(1);
		while (walk_next(p.p.split, blockIdx.x, &walk, &s)) {
			mbarrier_wait(m.q_full, q_parity);
			q_parity ^= 1;
			share_do(p.p, m, s, group - 1, &r);
		}
		if (group == 1)
			turn_wait(0);
	}
}
