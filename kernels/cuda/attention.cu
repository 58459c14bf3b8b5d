/*
 * Softmax attention. A block takes 64 queries of one head; keys and values pass through shared memory 64 at
 * a time while scores, their running maximum and sum and the output stay in registers. The head's lanes
 * are used as they are (112 = 7·16): nothing is padded but the rows of shared memory.
 */
#include "kernels/cuda/attention.h"
#include "kernels/cuda/mma.cuh"

static const float log2_e = 1.44269504f;

static __device__ __forceinline__ float silu(float a)
{
	return a * reciprocal_approx(1.0f + exp2_approx(-a * log2_e));
}

/* Which keys stage `tile` holds: a segment's part; fewer than 64 only at a segment's end. */
struct stage_keys {
	const struct attention_segment *segment;
	int first, count;
};

static __device__ __forceinline__ struct stage_keys stage_of(const struct attention_params &p,
							     int tile)
{
	struct stage_keys s = { &p.segment[0], 0, 0 };

#pragma unroll
	for (int i = 0; i < 3; i++) {
		const int tiles = i < p.segments ? (p.segment[i].tokens + ATTENTION_KEYS - 1) /
							   ATTENTION_KEYS :
						   0;

		if (tile >= 0 && tile < tiles) {
			s.segment = &p.segment[i];
			s.first = tile * ATTENTION_KEYS;
			s.count = min(ATTENTION_KEYS, p.segment[i].tokens - s.first);
		}
		tile -= tiles;
	}
	return s;
}

/* One stage of keys and values to shared memory; rows past its keys become zero. */
template <int D>
static __device__ __forceinline__ void stage_load(const struct stage_keys &s, int kv_lane,
						  uint32_t keys, uint32_t values)
{
	constexpr int chunks = D / 8, stride = (D + ATTENTION_PAD) * 2;

	/* Addresses of all copies at once would not fit into the registers. */
#pragma unroll 1
	for (int i = threadIdx.x; i < ATTENTION_KEYS * chunks; i += ATTENTION_THREADS) {
		const int row = i / chunks, chunk = i % chunks;
		const int source = row < s.count ? s.first + row : 0;
		const size_t at = source * s.segment->ld + kv_lane + chunk * 8;
		const uint32_t to = row * stride + chunk * 16;
		const int bytes = row < s.count ? 16 : 0;

		cp_async_16(keys + to, (const uint16_t *)s.segment->k + at, bytes);
		cp_async_16(values + to, (const uint16_t *)s.segment->v + at, bytes);
	}
	cp_async_commit();
}

/* The warp's 16 queries as operands; rows past the last one are zero. */
template <int D>
static __device__ __forceinline__ void queries_load(const struct attention_params &p, int row,
						    int lane, uint32_t q[D / 16][4])
{
	const int g = threadIdx.x % 32 / 4, c = threadIdx.x % 4;

#pragma unroll
	for (int k = 0; k < D / 16; k++)
#pragma unroll
		for (int i = 0; i < 4; i++) {
			const int r = row + g + (i & 1) * 8;
			const size_t at = r * p.ldq + lane + k * 16 + (i >> 1) * 8 + 2 * c;

			q[k][i] = r < p.rows ? *(const uint32_t *)((const uint16_t *)p.q + at) : 0;
		}
}

template <int D>
static __device__ __forceinline__ void scores_make(const uint32_t q[D / 16][4], uint32_t keys,
						   float s[ATTENTION_KEYS / 8][4])
{
	constexpr int stride = (D + ATTENTION_PAD) * 2;
	const int i = threadIdx.x % 32 / 8, r = threadIdx.x % 8;
	const uint32_t at = keys + ((i >> 1) * 8 + r) * stride + (i & 1) * 16;

#pragma unroll
	for (int n = 0; n < ATTENTION_KEYS / 8; n++)
		s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0;
#pragma unroll
	for (int k = 0; k < D / 16; k++)
#pragma unroll
		for (int n = 0; n < ATTENTION_KEYS / 8; n += 2) {
			uint32_t b[4];

			ldmatrix_x4(b, at + n * 8 * stride + k * 32);
			mma_bf16(s[n], q[k], b[0], b[1]);
			mma_bf16(s[n + 1], q[k], b[2], b[3]);
		}
}

/* Largest and sum over the four lanes that share a row. */
static __device__ __forceinline__ float row_max(float v)
{
	v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 1));
	return fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 2));
}

static __device__ __forceinline__ float row_sum(float v)
{
	v += __shfl_xor_sync(0xffffffffu, v, 1);
	return v + __shfl_xor_sync(0xffffffffu, v, 2);
}

/* Scores to weights in place; what was summed so far is scaled to the new maximum. */
template <int D>
static __device__ __forceinline__ void weights_make(float s[ATTENTION_KEYS / 8][4], float scale,
						    int count, float most[2], float sum[2],
						    float o[D / 8][4])
{
	const int c = threadIdx.x % 4;

	if (count < ATTENTION_KEYS) {
#pragma unroll
		for (int n = 0; n < ATTENTION_KEYS / 8; n++)
#pragma unroll
			for (int i = 0; i < 4; i++)
				if (n * 8 + 2 * c + (i & 1) >= count)
					s[n][i] = -INFINITY;
	}
#pragma unroll
	for (int h = 0; h < 2; h++) {
		float top = most[h], factor, offset, added = 0;

#pragma unroll
		for (int n = 0; n < ATTENTION_KEYS / 8; n++)
			top = fmaxf(top, fmaxf(s[n][2 * h], s[n][2 * h + 1]));
		top = row_max(top);
		factor = exp2_approx((most[h] - top) * scale);
		most[h] = top;
		offset = top * scale;
#pragma unroll
		for (int n = 0; n < ATTENTION_KEYS / 8; n++)
#pragma unroll
			for (int i = 2 * h; i < 2 * h + 2; i++) {
				s[n][i] = exp2_approx(s[n][i] * scale - offset);
				added += s[n][i];
			}
		sum[h] = sum[h] * factor + added;
#pragma unroll
		for (int n = 0; n < D / 8; n++) {
			o[n][2 * h] *= factor;
			o[n][2 * h + 1] *= factor;
		}
	}
}

template <int D>
static __device__ __forceinline__ void values_add(const float s[ATTENTION_KEYS / 8][4],
						  uint32_t values, float o[D / 8][4])
{
	constexpr int stride = (D + ATTENTION_PAD) * 2;
	const int i = threadIdx.x % 32 / 8, r = threadIdx.x % 8;
	const uint32_t at = values + ((i & 1) * 8 + r) * stride + (i >> 1) * 16;

#pragma unroll
	for (int k = 0; k < ATTENTION_KEYS / 16; k++) {
		const uint32_t a[4] = { bf16_pack(s[2 * k][0], s[2 * k][1]),
					bf16_pack(s[2 * k][2], s[2 * k][3]),
					bf16_pack(s[2 * k + 1][0], s[2 * k + 1][1]),
					bf16_pack(s[2 * k + 1][2], s[2 * k + 1][3]) };

#pragma unroll
		for (int n = 0; n < D / 8; n += 2) {
			uint32_t b[4];

			ldmatrix_x4_trans(b, at + k * 16 * stride + n * 16);
			mma_bf16(o[n], a, b[0], b[1]);
			mma_bf16(o[n + 1], a, b[2], b[3]);
		}
	}
}

template <int D>
static __device__ __forceinline__ void output_store(const struct attention_params &p, int row,
						    int lane, const float sum[2],
						    const float o[D / 8][4])
{
	const int g = threadIdx.x % 32 / 4, c = threadIdx.x % 4;

#pragma unroll
	for (int h = 0; h < 2; h++) {
		const int r = row + g + 8 * h;
		const float total = row_sum(sum[h]);
		const float factor = total > 0 ? 1.0f / total : 0;

		if (r >= p.rows)
			continue;
#pragma unroll
		for (int n = 0; n < D / 8; n++) {
			const size_t at = lane + n * 8 + 2 * c;
			float a = o[n][2 * h] * factor, b = o[n][2 * h + 1] * factor;

			if (p.gate) {
				const uint32_t gate = *(const uint32_t *)((const uint16_t *)p.gate +
									  r * p.ldg + at);

				a *= silu(bf16_low(gate));
				b *= silu(bf16_high(gate));
			}
			*(uint32_t *)((uint16_t *)p.y + r * p.ldy + at) = bf16_pack(a, b);
		}
	}
}

template <int D>
static __device__ __forceinline__ void attention_rows(const struct attention_params &p)
{
	constexpr uint32_t half = ATTENTION_KEYS * (D + ATTENTION_PAD) * 2;
	extern __shared__ __align__(128) unsigned char memory[];
	const uint32_t shared = shared_address(memory);
	const int head = blockIdx.y, lane = head * D, kv_lane = head / p.heads_per_kv * D;
	const int row = blockIdx.x * ATTENTION_ROWS + threadIdx.x / 32 * 16;
	float o[D / 8][4] = {}, s[ATTENTION_KEYS / 8][4];
	float most[2] = { -1e30f, -1e30f }, sum[2] = {};
	uint32_t q[D / 16][4];
	int tiles = 0;

	for (int i = 0; i < p.segments; i++)
		tiles += (p.segment[i].tokens + ATTENTION_KEYS - 1) / ATTENTION_KEYS;
	if (tiles)
		stage_load<D>(stage_of(p, 0), kv_lane, shared, shared + half);
	queries_load<D>(p, row, lane, q);
	for (int tile = 0; tile < tiles; tile++) {
		const uint32_t keys = shared + (tile & 1) * 2 * half;
		const uint32_t next = shared + (~tile & 1) * 2 * half;

		if (tile + 1 < tiles) {
			stage_load<D>(stage_of(p, tile + 1), kv_lane, next, next + half);
			cp_async_wait<1>();
		} else {
			cp_async_wait<0>();
		}
		__syncthreads();
		scores_make<D>(q, keys, s);
		weights_make<D>(s, p.scale * log2_e, stage_of(p, tile).count, most, sum, o);
		values_add<D>(s, keys + half, o);
		__syncthreads();
	}
	output_store<D>(p, row, lane, sum, o);
}

#define ATTENTION(D)                                                                     \
	extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS, D > 112 ? 2 : 3) \
		attention_##D(const __grid_constant__ struct attention_params p)         \
	{                                                                                \
		attention_rows<D>(p);                                                    \
	}
ATTENTION(32)
ATTENTION(80)
ATTENTION(112)

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
