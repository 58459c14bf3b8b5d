/*
 * Softmax attention for every target from sm_90 on, heads of 32, 80 and 112. A block has 256 queries of one
 * head: eight warps of 32 multiply, so that what a warp reads of shared memory serves two products; one
 * warp loads by TMA, in a warpgroup that gives its registers to the others. Of the two warps on a
 * scheduler one takes exponentials while the other multiplies. What is neither product nor exponential is
 * what a tile waits for, so there is little of it: no barrier of the block, sums of weights as products
 * with ones, no scaling of sums unless scores rise.
 *
 * A row of a head's lanes lies in up to three boxes, of 64, 32 and 16 lanes (112 = 64 + 32 + 16), each
 * swizzled to its own width: nothing is padded, and ldmatrix meets all banks.
 */
#include "kernels/cuda/attention.cuh"

enum {
	KEYS = ATTENTION_MMA_KEYS,
	ROWS = ATTENTION_MMA_ROWS,
	WARPS = ROWS / 32, /* that multiply */
	TILES = 2,	   /* of 16 queries, of a warp */
	K_STEPS = KEYS / 16,
	LOADING_REGISTERS = 24,
	REGISTERS = 240,
	RING = 4,  /* fragments of values */
	AHEAD = 3, /* of them, loaded before their products */
};

static_assert(32 * WARPS + 128 == ATTENTION_MMA_THREADS,
	      "a warpgroup more, of which one warp loads");

/* -------------------------------------------------------------------------- rows in shared memory */

/* `rows` rows of D lanes: first all boxes of 64 lanes, then those of 32 and of 16. */
template <int D> struct boxes {
	static constexpr int wide = D & 64, middle = D & 32, narrow = D & 16;
	static_assert(wide + middle + narrow == D, "a head of less than 128 lanes, in 16s");
};

/* Where this lane reads matrices: in each kind of box. */
struct row_boxes {
	uint32_t wide, middle, narrow;
};

/* Of this lane: its row, and of its first 16 lanes its chunk, within a block of rows. */
static __device__ __forceinline__ struct row_boxes lane_boxes(int row, int half)
{
	struct row_boxes r = { swizzle_128(row, half), swizzle_64(row, half),
			       swizzle_32(row, half) };

	/* Kept, not made anew for each tile. */
	asm volatile("" : "+r"(r.wide), "+r"(r.middle), "+r"(r.narrow));
	return r;
}

/* The same from row `row` on, a multiple of eight, of `rows` rows at `base`. */
template <int D>
static __device__ __forceinline__ struct row_boxes rows_from(const struct row_boxes &lane,
							     uint32_t base, int rows, int row)
{
	const uint32_t middle = base + rows * boxes<D>::wide * 2;
	const uint32_t narrow = middle + rows * boxes<D>::middle * 2;

	return { base + row * 128 + lane.wide, middle + row * 64 + lane.middle,
		 narrow + row * 32 + lane.narrow };
}

/* The lanes 16·step … +15, `rows` rows on, a multiple of eight. */
template <int D>
static __device__ __forceinline__ uint32_t lanes_at(const struct row_boxes &r, int step, int rows)
{
	constexpr int wide = boxes<D>::wide / 16, middle = boxes<D>::middle / 16;

	if (step < wide)
		return (r.wide ^ step * 32) + rows * 128;
	if (step < wide + middle)
		return (r.middle ^ (step - wide) * 32) + rows * 64;
	return r.narrow + rows * 32;
}

/*
 * Queries, then stages of keys and values, then what the warps say to each other: barriers of the queries, two
 * shares (the loading one is ahead by one), and of each stage barriers and the number of its keys.
 */
struct memory {
	uint32_t q, stage, said;
	int stages;
};

template <int D> static constexpr int queries_bytes = ROWS *D * 2;
template <int D> static constexpr int stage_bytes = 2 * KEYS *D * 2;

template <int D>
static __device__ __forceinline__ struct memory memory_at(uint32_t base, int stages)
{
	const uint32_t stage = base + queries_bytes<D>;

	return { base, stage, stage + stages * stage_bytes<D>, stages };
}

/* Full ones complete by bytes, empty ones by the warps. */
enum { FULL, EMPTY };

static __device__ __forceinline__ uint32_t queries_barrier(const struct memory &m, int which)
{
	return m.said + 8 * which;
}

static __device__ __forceinline__ uint32_t share_at(const struct memory &m, uint32_t parity)
{
	return m.said + 16 + 16 * parity;
}

static __device__ __forceinline__ uint32_t stage_barrier(const struct memory &m, int stage,
							 int which)
{
	return m.said + 48 + ATTENTION_MMA_SAID * stage + 8 * which;
}

static __device__ __forceinline__ uint32_t stage_count(const struct memory &m, int stage)
{
	return stage_barrier(m, stage, 2);
}

static __device__ __forceinline__ void barriers_init(const struct memory &m)
{
	mbarrier_init(queries_barrier(m, FULL), 1);
	mbarrier_init(queries_barrier(m, EMPTY), WARPS);
	for (int i = 0; i < m.stages; i++) {
		mbarrier_init(stage_barrier(m, i, FULL), 1);
		mbarrier_init(stage_barrier(m, i, EMPTY), WARPS);
	}
	mbarrier_init_fence();
}

/* Place in the ring; a fresh one is that of a reader. */
struct place {
	int stage;
	uint32_t parity;
};

static __device__ __forceinline__ void place_next(struct place *r, int stages)
{
	if (++r->stage == stages) {
		r->stage = 0;
		r->parity ^= 1;
	}
}

/* ------------------------------------------------------------------------------ the one that loads */

/* Boxes of one head to a part of `rows` rows, `at` rows on. */
template <int D>
static __device__ __forceinline__ void rows_load(const CUtensorMap map[ATTENTION_BOXES],
						 uint32_t to, int rows, int at, uint32_t barrier,
						 int head, int first)
{
	constexpr int wide = boxes<D>::wide, middle = boxes<D>::middle, narrow = boxes<D>::narrow;

	if (wide)
		tma_load_3d(to + at * wide * 2, &map[0], barrier, 0, head, first);
	to += rows * wide * 2;
	if (middle)
		tma_load_3d(to + at * middle * 2, &map[1], barrier, wide, head, first);
	to += rows * middle * 2;
	if (narrow)
		tma_load_3d(to + at * narrow * 2, &map[2], barrier, wide + middle, head, first);
}

/* A tile of segment I: fewer keys only at its end. */
template <int D, int I>
static __device__ __forceinline__ void tile_load(const struct attention_mma_params &p,
						 const struct memory &m, const struct place &r,
						 int head, int first)
{
	const uint32_t to = m.stage + r.stage * stage_bytes<D>;
	const uint32_t full = stage_barrier(m, r.stage, FULL);

	mbarrier_wait(stage_barrier(m, r.stage, EMPTY), r.parity);
	shared_store_32(stage_count(m, r.stage), min((int)KEYS, p.p.segment[I].tokens - first));
	mbarrier_arrive_expect(full, stage_bytes<D>);
	rows_load<D>(p.k[I], to, 2 * KEYS, 0, full, head, first);
	rows_load<D>(p.v[I], to, 2 * KEYS, KEYS, full, head, first);
}

/* Of `steps` tiles from `step` on, counted from segment I's first, those of segment I. */
template <int D, int I>
static __device__ __forceinline__ void segment_load(const struct attention_mma_params &p,
						    const struct memory &m, struct place *r,
						    int head, int *step, int *steps)
{
	const int tiles = (p.p.segment[I].tokens + KEYS - 1) / KEYS;

	for (; *step<tiles && * steps> 0; ++*step, --*steps, place_next(r, m.stages))
		tile_load<D, I>(p, m, *r, head, *step * KEYS);
	*step -= tiles;
}

/* A half item: each warpgroup has its queries, and every other tile of its keys. */
static __device__ __forceinline__ bool is_half(const struct attention_params &p, int row)
{
	return p.rows - row <= ROWS / 2;
}

/* Says which share is next, and asks for its queries. Of no tiles: it was the last. */
template <int D>
static __device__ __forceinline__ void
share_load(const struct attention_mma_params &p, const struct memory &m,
	   const struct attention_share &s, int tiles, uint32_t q_parity)
{
	mbarrier_wait(queries_barrier(m, EMPTY), q_parity ^ 1);
	shared_store_16(share_at(m, q_parity), make_uint4(s.head, s.row, tiles, s.part));
	if (!tiles) {
		mbarrier_arrive(queries_barrier(m, FULL));
		return;
	}
	mbarrier_arrive_expect(queries_barrier(m, FULL), queries_bytes<D>);
	rows_load<D>(p.q, m.q, ROWS, 0, queries_barrier(m, FULL), s.head, s.row);
}

template <int D>
static __device__ __forceinline__ void load_all(const struct attention_mma_params &p,
						const struct memory &m)
{
	struct attention_walk walk = walk_begin(p.p.split, blockIdx.x);
	struct attention_share s = {};
	struct place r = { 0, 1 };
	uint32_t q_parity = 0;

	for (; walk_next(p.p.split, blockIdx.x, &walk, &s); q_parity ^= 1) {
		const int kv_head = s.head / p.p.heads_per_kv;

		if (is_half(p.p, s.row)) {
			s.step *= 2;
			s.steps = min(2 * s.steps, p.p.split.steps - s.step);
		}
		share_load<D>(p, m, s, s.steps, q_parity);
		segment_load<D, 0>(p, m, &r, kv_head, &s.step, &s.steps);
		segment_load<D, 1>(p, m, &r, kv_head, &s.step, &s.steps);
		segment_load<D, 2>(p, m, &r, kv_head, &s.step, &s.steps);
	}
	share_load<D>(p, m, s, 0, q_parity);
}

/* --------------------------------------------------------------------------- those that multiply */

/* One warp's sums and what it has in registers of shared memory. */
template <int D> struct warp_state {
	float o[TILES][D / 8][4], s[TILES][KEYS / 8][4];
	float most[TILES][2];
	float sum[TILES][4]; /* an accumulator of which all columns are the same */
	uint32_t w[TILES][K_STEPS][4];
	uint32_t q[2][TILES][4], k[2][K_STEPS][4]; /* of 16 lanes, and of the next */
	uint32_t v[RING][4];
};

/* Group g of values: 16 keys by 16 lanes. */
template <int D>
static __device__ __forceinline__ void values_read(struct warp_state<D> &t,
						   const struct row_boxes &v, int g)
{
	ldmatrix_x4_trans(t.v[g % RING], lanes_at<D>(v, g % (D / 16), g / (D / 16) * 16));
}

/* This warp has read what `barrier` guards. */
static __device__ __forceinline__ void warp_arrive(uint32_t barrier)
{
	__syncwarp();
	if (elect_one())
		mbarrier_arrive(barrier);
}

/* One of the five fragments that 16 lanes of the scores are made of: queries, then keys. */
template <int D>
static __device__ __forceinline__ void scores_read(struct warp_state<D> &t,
						   const struct row_boxes &q,
						   const struct row_boxes &k, int step, int i)
{
	if (i < TILES)
		ldmatrix_x4(t.q[step % 2][i], lanes_at<D>(q, step, 16 * i));
	else
		ldmatrix_x4(t.k[step % 2][i - TILES], lanes_at<D>(k, step, 16 * (i - TILES)));
}

/* s ← q·kᵀ of the warp's 32 queries; the first fragments are there. */
template <int D>
static __device__ __forceinline__ void
scores_make(struct warp_state<D> &t, const struct row_boxes &q, const struct row_boxes &k)
{
	constexpr int steps = D / 16;

#pragma unroll
	for (int m = 0; m < TILES; m++)
#pragma unroll
		for (int n = 0; n < KEYS / 8; n++)
			t.s[m][n][0] = t.s[m][n][1] = t.s[m][n][2] = t.s[m][n][3] = 0;
#pragma unroll
	for (int i = 0; i < steps; i++)
#pragma unroll
		for (int n = 0; n < K_STEPS; n++) {
			if (i + 1 < steps) {
				if (n == 0) {
					scores_read<D>(t, q, k, i + 1, 0);
					scores_read<D>(t, q, k, i + 1, 1);
				}
				scores_read<D>(t, q, k, i + 1, TILES + n);
			}
#pragma unroll
			for (int m = 0; m < TILES; m++) {
				mma_bf16(t.s[m][2 * n], t.q[i % 2][m], t.k[i % 2][n][0],
					 t.k[i % 2][n][1]);
				mma_bf16(t.s[m][2 * n + 1], t.q[i % 2][m], t.k[i % 2][n][2],
					 t.k[i % 2][n][3]);
			}
		}
}

/* Scores from `count` on count for nothing. */
template <int D>
static __device__ __forceinline__ void scores_end(struct warp_state<D> &t, int count)
{
	const int c = threadIdx.x % 4;

	if (count == KEYS)
		return;
#pragma unroll
	for (int m = 0; m < TILES; m++)
#pragma unroll
		for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
			for (int i = 0; i < 4; i++)
				if (n * 8 + 2 * c + (i & 1) >= count)
					t.s[m][n][i] = -INFINITY;
}

/* What was summed so far, scaled to the larger of the largest scores of before and `top`. */
template <int D>
static __device__ __forceinline__ void sums_scale(struct warp_state<D> &t,
						  const float top[TILES][2])
{
#pragma unroll
	for (int m = 0; m < TILES; m++)
#pragma unroll
		for (int h = 0; h < 2; h++) {
			const float before = t.most[m][h];
			float factor;

			t.most[m][h] = fmaxf(before, ceilf(row_max(top[m][h])));
			factor = exp2_approx(before - t.most[m][h]);
			t.sum[m][2 * h] *= factor;
			t.sum[m][2 * h + 1] *= factor;
#pragma unroll
			for (int n = 0; n < D / 8; n++) {
				t.o[m][n][2 * h] *= factor;
				t.o[m][n][2 * h + 1] *= factor;
			}
		}
}

/* Scores to weights. */
template <int D>
static __device__ __forceinline__ void weights_make(struct warp_state<D> &t, float scale)
{
	float top[TILES][2];
	bool rises = false;

#pragma unroll
	for (int m = 0; m < TILES; m++)
#pragma unroll
		for (int h = 0; h < 2; h++) {
			top[m][h] = fmaxf(t.s[m][0][2 * h], t.s[m][0][2 * h + 1]);
#pragma unroll
			for (int n = 1; n < KEYS / 8; n++)
				top[m][h] = fmaxf(top[m][h],
						  fmaxf(t.s[m][n][2 * h], t.s[m][n][2 * h + 1]));
			top[m][h] *= scale;
			rises |= top[m][h] > t.most[m][h] + attention_rise;
		}
	if (__any_sync(~0u, rises))
		sums_scale<D>(t, top);
#pragma unroll
	for (int k = 0; k < K_STEPS; k++)
#pragma unroll
		for (int m = 0; m < TILES; m++)
#pragma unroll
			for (int j = 0; j < 4; j++) {
				const float *s = &t.s[m][2 * k + j / 2][j % 2 * 2];
				const float a = exp2_approx(s[0] * scale - t.most[m][j % 2]);
				const float b = exp2_approx(s[1] * scale - t.most[m][j % 2]);

				t.w[m][k][j] = bf16_pack(a, b);
			}
}

/* One group's products, and once for 16 keys what their weights add to the sums. */
template <int D> static __device__ __forceinline__ void values_group(struct warp_state<D> &t, int g)
{
	const uint32_t ones = 0x3f803f80; /* two of BF16 */
	const int k = g / (D / 16), n = g % (D / 16) * 2;

#pragma unroll
	for (int m = 0; m < TILES; m++) {
		mma_bf16(t.o[m][n], t.w[m][k], t.v[g % RING][0], t.v[g % RING][1]);
		mma_bf16(t.o[m][n + 1], t.w[m][k], t.v[g % RING][2], t.v[g % RING][3]);
		if (n == 0)
			mma_bf16(t.sum[m], t.w[m][k], ones, ones);
	}
}

/*
 * o ← o + w·v. Its first fragments are there; with MORE those of the next tile's keys are when it ends.
 */
template <int D, bool MORE>
static __device__ __forceinline__ void
values_add(struct warp_state<D> &t, const struct memory &m, const struct row_boxes &v,
	   const struct row_boxes &q, const struct row_boxes &k, const struct place &r,
	   const struct place &next)
{
	constexpr int groups = K_STEPS * (D / 16);

#pragma unroll
	for (int g = 0; g < groups; g++) {
		if (g + AHEAD < groups)
			values_read<D>(t, v, g + AHEAD);
		if (g + AHEAD == groups) {
			warp_arrive(stage_barrier(m, r.stage, EMPTY));
			if (MORE) {
				mbarrier_wait(stage_barrier(m, next.stage, FULL), next.parity);
				scores_read<D>(t, q, k, 0, 0);
				scores_read<D>(t, q, k, 0, 1);
			}
		}
		if (MORE && g + AHEAD >= groups) /* K_STEPS == AHEAD */
			scores_read<D>(t, q, k, 0, TILES + g + AHEAD - groups);
		values_group<D>(t, g);
	}
}

static_assert((int)K_STEPS == (int)AHEAD, "keys are read in the place of values");

/* What a lane reads of queries and values, rows of products, and of keys, columns. */
struct lanes {
	struct row_boxes row, column;
};

static __device__ __forceinline__ struct lanes lanes_make(void)
{
	const int lane = threadIdx.x % 32;

	return { lane_boxes(lane % 16, lane / 16),
		 lane_boxes(lane / 16 * 8 + lane % 8, lane / 8 % 2) };
}

template <int D>
static __device__ __forceinline__ struct row_boxes keys_at(const struct memory &m,
							   const struct lanes &l, int stage)
{
	return rows_from<D>(l.column, m.stage + stage * stage_bytes<D>, 2 * KEYS, 0);
}

template <int D>
static __device__ __forceinline__ struct row_boxes values_at(const struct memory &m,
							     const struct lanes &l, int stage)
{
	return rows_from<D>(l.row, m.stage + stage * stage_bytes<D>, 2 * KEYS, KEYS);
}

/* Values' first fragments, before the weights are made; how many keys there are comes with them. */
template <int D>
static __device__ __forceinline__ int values_begin(struct warp_state<D> &t, const struct memory &m,
						   const struct row_boxes &v, const struct place &r)
{
#pragma unroll
	for (int g = 0; g < AHEAD; g++)
		values_read<D>(t, v, g);
	return (int)shared_load_32(stage_count(m, r.stage));
}

/* Tiles of a share, of which a half item's warpgroup has every other. */
static __device__ __forceinline__ struct attention_share share_read(const struct memory &m,
								    uint32_t q_parity)
{
	const uint4 s = shared_load_16(share_at(m, q_parity));

	return { (int)s.x, (int)s.y, 0, (int)s.z, (int)s.w };
}

/* A tile of the other warpgroup's. */
static __device__ __forceinline__ void tile_pass(const struct memory &m, struct place *r)
{
	mbarrier_wait(stage_barrier(m, r->stage, FULL), r->parity);
	warp_arrive(stage_barrier(m, r->stage, EMPTY));
	place_next(r, m.stages);
}

template <int D> static __device__ __forceinline__ void sums_clear(struct warp_state<D> &t)
{
#pragma unroll
	for (int i = 0; i < TILES; i++) {
		t.most[i][0] = t.most[i][1] = attention_lowest;
		t.sum[i][0] = t.sum[i][1] = t.sum[i][2] = t.sum[i][3] = 0;
#pragma unroll
		for (int n = 0; n < D / 8; n++)
			t.o[i][n][0] = t.o[i][n][1] = t.o[i][n][2] = t.o[i][n][3] = 0;
	}
}

/* Of a scheduler's two warps one at a time makes scores. Barriers 1 … 8 say whose turn it is. */
static __device__ __forceinline__ void turn_wait(int warp)
{
	named_barrier(1 + warp, 64);
}

static __device__ __forceinline__ void turn_pass(int warp)
{
	named_barrier_arrive(1 + (warp ^ WARPS / 2), 64);
}

/*
 * `tiles` of the ring, with those of the other warpgroup between them where `half`. Products of one tile's
 * values are followed by those of the next one's keys.
 */
template <int D>
static __device__ __forceinline__ void tiles_do(struct warp_state<D> &t, const struct memory &m,
						int row, int tiles, bool half, int warp,
						float scale, struct place *r)
{
	const struct lanes l = lanes_make();
	struct row_boxes q = rows_from<D>(l.row, m.q, ROWS, row);
	struct row_boxes k = keys_at<D>(m, l, r->stage), v;

	mbarrier_wait(stage_barrier(m, r->stage, FULL), r->parity);
#pragma unroll
	for (int i = 0; i < TILES + K_STEPS; i++)
		scores_read<D>(t, q, k, 0, i);
	if (!half)
		turn_wait(warp);
	scores_make<D>(t, q, k);
	if (!half)
		turn_pass(warp);
	for (int i = 1; i < tiles; i++) {
		struct place next = *r;
		uint32_t base = m.q;

		asm volatile("" : "+r"(base)); /* addresses of queries are made anew, not kept */
		q = rows_from<D>(l.row, base, ROWS, row);
		place_next(&next, m.stages);
		v = values_at<D>(m, l, r->stage);
		scores_end<D>(t, values_begin<D>(t, m, v, *r));
		weights_make<D>(t, scale);
		if (half)
			tile_pass(m, &next);
		k = keys_at<D>(m, l, next.stage);
		values_add<D, true>(t, m, v, q, k, *r, next);
		if (!half)
			turn_wait(warp);
		scores_make<D>(t, q, k);
		if (!half)
			turn_pass(warp);
		*r = next;
	}
	if (!half)
		warp_arrive(queries_barrier(m, EMPTY));
	v = values_at<D>(m, l, r->stage);
	scores_end<D>(t, values_begin<D>(t, m, v, *r));
	weights_make<D>(t, scale);
	values_add<D, false>(t, m, v, q, k, *r, *r);
	place_next(r, m.stages);
}

template <int D>
static __device__ __forceinline__ void item_do(const struct attention_params &p,
					       const struct memory &m, uint32_t q_parity, int warp,
					       struct place *r)
{
	struct warp_state<D> t;

	sums_clear<D>(t);
	tiles_do<D>(t, m, warp * 32, share_read(m, q_parity).steps, false, warp, p.scale_log2, r);
#pragma unroll
	for (int i = 0; i < TILES; i++) {
		const float sum[2] = { t.sum[i][0], t.sum[i][2] };

		rows_store<D>(p, share_read(m, q_parity), warp * 32 + 16 * i + threadIdx.x % 32 / 4,
			      t.most[i], sum, t.o[i][0]);
	}
}

/* ---------------------------------------------------------------------------------- half items */

/* A barrier of the two warpgroups. */
static __device__ __forceinline__ void groups_meet(void)
{
	named_barrier(1 + WARPS, 32 * WARPS);
}

/* Largest scores and sums of both warpgroups, and this one's sums scaled to them. */
template <int D>
static __device__ __forceinline__ void halves_scale(struct warp_state<D> &t, uint32_t mine,
						    uint32_t theirs)
{
#pragma unroll
	for (int i = 0; i < TILES; i++) {
		t.sum[i][1] = t.sum[i][2];
		shared_store_16(mine + i * 2048, make_uint4(__float_as_uint(t.most[i][0]),
							    __float_as_uint(t.most[i][1]),
							    __float_as_uint(t.sum[i][0]),
							    __float_as_uint(t.sum[i][1])));
	}
	groups_meet();
#pragma unroll
	for (int i = 0; i < TILES; i++) {
		const uint4 of = shared_load_16(theirs + i * 2048);
		const float most[2] = { __uint_as_float(of.x), __uint_as_float(of.y) };
		const float sum[2] = { __uint_as_float(of.z), __uint_as_float(of.w) };

#pragma unroll
		for (int h = 0; h < 2; h++) {
			const float top = fmaxf(t.most[i][h], most[h]);
			const float factor = exp2_approx(t.most[i][h] - top);

			t.sum[i][h] = t.sum[i][h] * factor + sum[h] * exp2_approx(most[h] - top);
			t.most[i][h] = top;
#pragma unroll
			for (int n = 0; n < D / 8; n++) {
				t.o[i][n][2 * h] *= factor;
				t.o[i][n][2 * h + 1] *= factor;
			}
		}
	}
	groups_meet();
}

/*
 * The sums of both warpgroups, in the place of the queries: each gets those of one tile of 16 rows of each
 * warp, and becomes its first.
 */
template <int D>
static __device__ __forceinline__ void halves_add(struct warp_state<D> &t, const struct memory &m,
						  int group)
{
	const uint32_t at = m.q + threadIdx.x % 128 * 16;
	const uint32_t mine = at + group * (queries_bytes<D> / 2);
	const uint32_t theirs = at + (1 - group) * (queries_bytes<D> / 2);

	groups_meet();
	halves_scale<D>(t, mine, theirs);
#pragma unroll
	for (int n = 0; n < D / 8; n++) {
		uint4 v;

#pragma unroll
		for (int i = 0; i < 4; i++) {
			const float first = t.o[0][n][i], second = t.o[1][n][i];

			t.o[0][n][i] = group ? second : first;
			(&v.x)[i] = __float_as_uint(group ? first : second);
		}
		shared_store_16(mine + n * 2048, v);
	}
#pragma unroll
	for (int h = 0; h < 2; h++) {
		t.sum[0][h] = group ? t.sum[1][h] : t.sum[0][h];
		t.most[0][h] = group ? t.most[1][h] : t.most[0][h];
	}
	groups_meet();
#pragma unroll
	for (int n = 0; n < D / 8; n++) {
		const uint4 v = shared_load_16(theirs + n * 2048);

		t.o[0][n][0] += __uint_as_float(v.x);
		t.o[0][n][1] += __uint_as_float(v.y);
		t.o[0][n][2] += __uint_as_float(v.z);
		t.o[0][n][3] += __uint_as_float(v.w);
	}
	/* The copy engine writes there next. */
	fence_proxy_async();
	warp_arrive(queries_barrier(m, EMPTY));
}

template <int D>
static __device__ __forceinline__ void half_do(const struct attention_params &p,
					       const struct memory &m, uint32_t q_parity, int warp,
					       struct place *r)
{
	const int tiles = share_read(m, q_parity).steps, group = warp / 4;
	const int mine = (tiles + 1 - group) / 2, row = warp % 4 * 32;
	struct warp_state<D> t;

	sums_clear<D>(t);
	if (group)
		tile_pass(m, r);
	if (mine)
		tiles_do<D>(t, m, row, mine, true, warp, p.scale_log2, r);
	if (mine && 2 * mine + group == tiles)
		tile_pass(m, r);
	halves_add<D>(t, m, group);
	rows_store<D>(p, share_read(m, q_parity), row + 16 * group + threadIdx.x % 32 / 4,
		      t.most[0], t.sum[0], t.o[0][0]);
}

template <int D>
static __device__ __forceinline__ void multiply_all(const struct attention_params &p,
						    const struct memory &m, int warp)
{
	struct place r = { 0, 0 };
	uint32_t q_parity = 0;

	if (warp >= WARPS / 2)
		turn_pass(warp);
	for (;; q_parity ^= 1) {
		struct attention_share s;

		mbarrier_wait(queries_barrier(m, FULL), q_parity);
		s = share_read(m, q_parity);
		if (!s.steps)
			break;
		if (is_half(p, s.row))
			half_do<D>(p, m, q_parity, warp, &r);
		else
			item_do<D>(p, m, q_parity, warp, &r);
	}
	if (warp < WARPS / 2)
		turn_wait(warp);
}

template <int D>
static __device__ __forceinline__ void attention(const struct attention_mma_params &p)
{
	extern __shared__ __align__(1024) uint8_t shared[];
	const struct memory m = memory_at<D>(shared_address(shared), p.stages);
	const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0);

	if (threadIdx.x == 0)
		barriers_init(m);
	__syncthreads();
	dependency_wait();
	dependency_launch();
	if (warp >= WARPS) {
		registers_give<LOADING_REGISTERS>();
		if (threadIdx.x == 32 * WARPS)
			load_all<D>(p, m);
		return;
	}
	registers_take<REGISTERS>();
	multiply_all<D>(p.p, m, warp);
}

#define ATTENTION(D)                                                                     \
	extern "C" __global__ void __launch_bounds__(ATTENTION_MMA_THREADS, 1)           \
		attention_mma_##D(const __grid_constant__ struct attention_mma_params p) \
	{                                                                                \
		attention<D>(p);                                                         \
	}
ATTENTION(32)
ATTENTION(80)
ATTENTION(112)
