/*
 * Softmax attention. A block takes 128 queries of one head; keys and values pass through shared memory 48 at
 * a time while scores, their running maximum and sum and the output stay in registers. A warp has 32
 * queries, so that what it reads of shared memory serves two products: with 16, Hopper's shared memory
 * would be slower than its tensor units. The head's lanes are used as they are (112 = 7·16): nothing is
 * padded but the rows of shared memory.
 */
#include "kernels/cuda/attention.cuh"

enum {
	KEYS = ATTENTION_KEYS,
	THREADS = ATTENTION_THREADS,
	TILES = 2, /* of 16 queries, of a warp */
};

/* Which keys a step has: a segment's part; fewer than 48 only at a segment's end. */
struct step_keys {
	const struct attention_segment *segment;
	int first, count;
};

static __device__ __forceinline__ struct step_keys keys_at(const struct attention_params &p,
							   int step)
{
	struct step_keys s = { &p.segment[0], 0, 0 };

#pragma unroll
	for (int i = 0; i < 3; i++) {
		const int tokens = i < p.segments ? p.segment[i].tokens : 0;
		const int steps = (tokens + KEYS - 1) / KEYS;

		if (step >= 0 && step < steps)
			s = { &p.segment[i], step * KEYS, min((int)KEYS, tokens - step * KEYS) };
		step -= steps;
	}
	return s;
}

/* `rows` rows of a head's lanes to shared memory; those from `count` on become zero. */
template <int D>
static __device__ __forceinline__ void rows_load(const void *from, size_t ld, int lane, int rows,
						 int count, uint32_t to)
{
	constexpr int chunks = D / 8, lanes = chunks <= 4 ? 4 : chunks <= 8 ? 8 : 16;
	constexpr int stride = (D + ATTENTION_PAD) * 2, step = THREADS / lanes;
	const int chunk = threadIdx.x % lanes, first = threadIdx.x / lanes;
	const uint16_t *at = (const uint16_t *)from + first * ld + lane + chunk * 8;

	if (chunk >= chunks)
		return;
	to += first * stride + chunk * 16;
#pragma unroll 2
	for (int row = first; row < rows; row += step, at += step * ld, to += step * stride)
		cp_async_16(to, row < count ? at : (const uint16_t *)from, row < count ? 16 : 0);
}

template <int D>
static __device__ __forceinline__ void keys_load(const struct step_keys &s, bool values, int lane,
						 uint32_t to)
{
	const size_t ld = s.segment->ld;
	const uint16_t *from = (const uint16_t *)(values ? s.segment->v : s.segment->k);

	rows_load<D>(from + s.first * ld, ld, lane, KEYS, s.count, to);
	cp_async_commit();
}

/* s ← q·kᵀ of the warp's 32 queries; `queries` is where this lane reads its matrices. */
template <int D>
static __device__ __forceinline__ void scores_make(uint32_t queries, uint32_t keys,
						   float s[TILES][KEYS / 8][4])
{
	constexpr int stride = (D + ATTENTION_PAD) * 2;
	const int i = threadIdx.x % 32 / 8, r = threadIdx.x % 8;
	const uint32_t at = keys + ((i >> 1) * 8 + r) * stride + (i & 1) * 16;

#pragma unroll
	for (int m = 0; m < TILES; m++)
#pragma unroll
		for (int n = 0; n < KEYS / 8; n++)
			s[m][n][0] = s[m][n][1] = s[m][n][2] = s[m][n][3] = 0;
#pragma unroll
	for (int k = 0; k < D / 16; k++) {
		uint32_t q[TILES][4], b[4];

#pragma unroll
		for (int m = 0; m < TILES; m++)
			ldmatrix_x4(q[m], queries + m * 16 * stride + k * 32);
#pragma unroll
		for (int n = 0; n < KEYS / 8; n += 2) {
			ldmatrix_x4(b, at + n * 8 * stride + k * 32);
#pragma unroll
			for (int m = 0; m < TILES; m++) {
				mma_bf16(s[m][n], q[m], b[0], b[1]);
				mma_bf16(s[m][n + 1], q[m], b[2], b[3]);
			}
		}
	}
}

/* Scores from `count` on count for nothing. */
static __device__ __forceinline__ void scores_end(float s[TILES][KEYS / 8][4], int count)
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
					s[m][n][i] = -INFINITY;
}

/* Scores to weights in place; what was summed so far is scaled to the new maximum where that changed. */
template <int D>
static __device__ __forceinline__ void weights_make(float s[KEYS / 8][4], float scale,
						    float most[2], float sum[2], float o[D / 8][4])
{
	float factor[2];

#pragma unroll
	for (int h = 0; h < 2; h++) {
		float top = most[h], offset, added = 0;

#pragma unroll
		for (int n = 0; n < KEYS / 8; n++)
			top = fmaxf(top, fmaxf(s[n][2 * h], s[n][2 * h + 1]));
		top = row_max(top);
		factor[h] = exp2_approx((most[h] - top) * scale);
		most[h] = top;
		offset = top * scale;
#pragma unroll
		for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
			for (int i = 2 * h; i < 2 * h + 2; i++) {
				s[n][i] = exp2_approx(s[n][i] * scale - offset);
				added += s[n][i];
			}
		sum[h] = sum[h] * factor[h] + added;
	}
	if (!__any_sync(~0u, factor[0] != 1 || factor[1] != 1))
		return;
#pragma unroll
	for (int n = 0; n < D / 8; n++)
#pragma unroll
		for (int i = 0; i < 4; i++)
			o[n][i] *= factor[i / 2];
}

template <int D>
static __device__ __forceinline__ void values_add(const float s[TILES][KEYS / 8][4],
						  uint32_t values, float o[TILES][D / 8][4])
{
	constexpr int stride = (D + ATTENTION_PAD) * 2;
	const int i = threadIdx.x % 32 / 8, r = threadIdx.x % 8;
	const uint32_t at = values + ((i & 1) * 8 + r) * stride + (i >> 1) * 16;

#pragma unroll
	for (int k = 0; k < KEYS / 16; k++) {
		uint32_t a[TILES][4], b[4];

#pragma unroll
		for (int m = 0; m < TILES; m++)
#pragma unroll
			for (int j = 0; j < 4; j++)
				a[m][j] = bf16_pack(s[m][2 * k + j / 2][j % 2 * 2],
						    s[m][2 * k + j / 2][j % 2 * 2 + 1]);
#pragma unroll
		for (int n = 0; n < D / 8; n += 2) {
			ldmatrix_x4_trans(b, at + k * 16 * stride + n * 16);
#pragma unroll
			for (int m = 0; m < TILES; m++) {
				mma_bf16(o[m][n], a[m], b[0], b[1]);
				mma_bf16(o[m][n + 1], a[m], b[2], b[3]);
			}
		}
	}
}

/* Keys of the next step are on their way while this one's values are used, and the other way round. */
template <int D>
static __device__ __forceinline__ void
share_do(const struct attention_params &p, const struct attention_share &share, uint32_t shared)
{
	constexpr int stride = (D + ATTENTION_PAD) * 2;
	const uint32_t keys = shared + ATTENTION_ROWS * stride, values = keys + KEYS * stride;
	const int kv_lane = share.head / p.heads_per_kv * D, warp_row = threadIdx.x / 32 * 32;
	const uint32_t queries =
		shared + (warp_row + threadIdx.x % 16) * stride + threadIdx.x % 32 / 16 * 16;
	const float scale = p.scale_log2;
	float o[TILES][D / 8][4] = {}, s[TILES][KEYS / 8][4];
	float most[TILES][2] = { { attention_lowest, attention_lowest },
				 { attention_lowest, attention_lowest } };
	float sum[TILES][2] = {};

	rows_load<D>((const uint16_t *)p.q + share.row * p.ldq, p.ldq, share.head * D,
		     ATTENTION_ROWS, p.rows - share.row, shared);
	keys_load<D>(keys_at(p, share.step), false, kv_lane, keys);
	for (int i = 0; i < share.steps; i++) {
		const struct step_keys at = keys_at(p, share.step + i);

		cp_async_wait<0>();
		__syncthreads();
		keys_load<D>(at, true, kv_lane, values);
		scores_make<D>(queries, keys, s);
		scores_end(s, at.count);
		cp_async_wait<0>();
		__syncthreads();
		if (i + 1 < share.steps)
			keys_load<D>(keys_at(p, share.step + i + 1), false, kv_lane, keys);
#pragma unroll
		for (int m = 0; m < TILES; m++)
			weights_make<D>(s[m], scale, most[m], sum[m], o[m]);
		values_add<D>(s, values, o);
	}
#pragma unroll
	for (int m = 0; m < TILES; m++)
#pragma unroll
		for (int h = 0; h < 2; h++)
			row_store<D>(p, share, warp_row + 16 * m + 8 * h + threadIdx.x % 32 / 4,
				     most[m][h] * p.scale_log2, row_sum(sum[m][h]),
				     &o[m][0][2 * h]);
	/* The next item's queries take the place of these. */
	__syncthreads();
}

template <int D> static __device__ __forceinline__ void attention(const struct attention_params &p)
{
	extern __shared__ __align__(128) unsigned char memory[];
	struct attention_walk walk = walk_begin(p.split, blockIdx.x);
	struct attention_share share;

	while (walk_next(p.split, blockIdx.x, &walk, &share))
		share_do<D>(p, share, shared_address(memory));
}

#define ATTENTION(D)                                                             \
	extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS, 2)       \
		attention_##D(const __grid_constant__ struct attention_params p) \
	{                                                                        \
		attention<D>(p);                                                 \
	}
ATTENTION(32)
ATTENTION(80)
ATTENTION(112)

/* ------------------------------------------------------------------- items of more than one block */

/* The block that has a step of the line. */
static __device__ __forceinline__ int split_owner(const struct attention_split &s, int at)
{
	int block = (int)((int64_t)at * s.blocks / ((int64_t)(s.items - s.whole) * s.steps));

	while (split_begin(s, block + 1) <= at)
		block++;
	while (split_begin(s, block) > at)
		block--;
	return block;
}

/* blockIdx.x: the split item; blockIdx.y: 16 of its queries; a thread has eight lanes of one. */
extern "C" __global__ void attention_merge(const __grid_constant__ struct attention_params p)
{
	const int d = p.head_dim, chunks = d / 8, at = blockIdx.x * p.split.steps;
	const int in = blockIdx.y * ATTENTION_MERGE_ROWS + threadIdx.x / chunks;
	const int chunk = threadIdx.x % chunks, first = split_owner(p.split, at);
	const int last = split_owner(p.split, at + p.split.steps - 1);
	const int item = p.split.whole + blockIdx.x, head = item / p.split.row_tiles;
	const int row = item % p.split.row_tiles * ATTENTION_ROWS + in;
	float top = attention_lowest, total = 0, sum[8] = {};

	if (first == last || row >= p.rows)
		return;
	for (int pass = 0; pass < 2; pass++)
		for (int block = first; block <= last; block++) {
			const int part = 2 * block + (split_begin(p.split, block) <= at);
			const float *from = p.split.parts + (size_t)part * ATTENTION_ROWS * (d + 2);
			const float2 s = *(const float2 *)(from + ATTENTION_ROWS * d + 2 * in);
			float weight;

			if (split_begin(p.split, block) == split_begin(p.split, block + 1))
				continue;
			if (pass == 0) {
				top = fmaxf(top, s.x);
				continue;
			}
			weight = exp2_approx(s.x - top);
			total += weight * s.y;
			for (int i = 0; i < 8; i++)
				sum[i] += weight * from[in * d + chunk * 8 + i];
		}
	total = total > 0 ? 1.0f / total : 0;
	for (int i = 0; i < 8; i++) {
		const size_t lane = head * d + chunk * 8 + i;
		float a = sum[i] * total;

		if (p.gate)
			a *= silu(bf16_value(((const uint16_t *)p.gate)[row * p.ldg + lane]));
		((uint16_t *)p.y)[row * p.ldy + lane] = bf16_bits(a);
	}
}

/* ------------------------------------------------------------------- any head, masks, soft caps */

static __device__ __forceinline__ bool key_counts(const struct attention_params &p, int position,
						  int key)
{
	if (p.causal && key > position)
		return false;
	if (p.window > 0 && position - key >= p.window)
		return false;
	return !p.key_mask || p.key_mask[key];
}

enum { ANY_WARPS = 4, ANY_LANES = ATTENTION_ANY_MOST / 32 };

/* One query of one head: each warp takes every fourth key, a lane every 32nd element of the head. */
struct any_state {
	float most, sum, o[ANY_LANES];
};

static __device__ __forceinline__ float any_score(const struct attention_params &p, const float *q,
						  const uint16_t *key)
{
	const int lane = threadIdx.x % 32;
	float dot = 0;

#pragma unroll
	for (int i = 0; i < ANY_LANES; i++)
		if (i * 32 + lane < p.head_dim)
			dot += q[i] * bf16_value(key[i * 32 + lane]);
#pragma unroll
	for (int step = 16; step > 0; step /= 2)
		dot += __shfl_xor_sync(0xffffffffu, dot, step);
	dot *= p.scale;
	return p.softcap > 0 ? p.softcap * tanhf(dot / p.softcap) : dot;
}

static __device__ __forceinline__ void any_key(const struct attention_params &p, const float *q,
					       const struct attention_segment &segment, int j,
					       int kv_lane, struct any_state *state)
{
	const size_t at = j * segment.ld + kv_lane;
	const float score = any_score(p, q, (const uint16_t *)segment.k + at);
	const float most = fmaxf(state->most, score);
	const float factor = __expf(state->most - most), weight = __expf(score - most);

	state->most = most;
	state->sum = state->sum * factor + weight;
#pragma unroll
	for (int i = 0; i < ANY_LANES; i++)
		if (i * 32 + threadIdx.x % 32 < p.head_dim)
			state->o[i] =
				state->o[i] * factor +
				weight * bf16_value(((const uint16_t *)segment
							     .v)[at + i * 32 + threadIdx.x % 32]);
}

extern "C" __global__ void __launch_bounds__(32 * ANY_WARPS)
	attention_any(const __grid_constant__ struct attention_params p)
{
	__shared__ float most[ANY_WARPS], sum[ANY_WARPS], part[ANY_WARPS][ATTENTION_ANY_MOST];
	const int row = blockIdx.x, lane = blockIdx.y * p.head_dim;
	const int kv_lane = blockIdx.y / p.heads_per_kv * p.head_dim;
	const int warp = threadIdx.x / 32, l = threadIdx.x % 32;
	struct any_state state = { .most = -1e30f };
	float q[ANY_LANES], total = 0, top = -1e30f;
	int before = 0;

#pragma unroll
	for (int i = 0; i < ANY_LANES; i++)
		q[i] = i * 32 + l < p.head_dim ?
			       bf16_value(
				       ((const uint16_t *)p.q)[row * p.ldq + lane + i * 32 + l]) :
			       0;
	for (int i = 0; i < p.segments; before += p.segment[i++].tokens)
		for (int j = warp; j < p.segment[i].tokens; j += ANY_WARPS)
			if (key_counts(p, p.query_offset + row, before + j))
				any_key(p, q, p.segment[i], j, kv_lane, &state);
	if (l == 0)
		most[warp] = state.most, sum[warp] = state.sum;
#pragma unroll
	for (int i = 0; i < ANY_LANES; i++)
		if (i * 32 + l < p.head_dim)
			part[warp][i * 32 + l] = state.o[i];
	__syncthreads();
	for (int w = 0; w < ANY_WARPS; w++)
		top = fmaxf(top, most[w]);
	for (int w = 0; w < ANY_WARPS; w++)
		total += sum[w] * __expf(most[w] - top);
	for (int d = threadIdx.x; d < p.head_dim; d += 32 * ANY_WARPS) {
		float value = 0;

		for (int w = 0; w < ANY_WARPS; w++)
			value += part[w][d] * __expf(most[w] - top);
		value = total > 0 ? value / total : 0;
		if (p.gate)
			value *= silu(
				bf16_value(((const uint16_t *)p.gate)[row * p.ldg + lane + d]));
		((uint16_t *)p.y)[row * p.ldy + lane + d] = bf16_bits(value);
	}
}
