/* Softmax attention: what several blocks did of one item, added up; and a kernel for any head. */
#include "kernels/cuda/attention.cuh"

/* ------------------------------------------------------------------- items of more than one block */

/* The block that has a step of the line. */
static __device__ __forceinline__ int split_owner(const struct attention_split &s, int at)
{
	const int longer = s.more * (s.each + 1);

	return at < longer ? at / (s.each + 1) : s.more + (at - longer) / s.each;
}

static __device__ __forceinline__ void eight_load(const float *from, float v[8])
{
	const float4 a = ((const float4 *)from)[0], b = ((const float4 *)from)[1];

	v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
	v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}

/* Eight lanes of one query of an item whose steps are `at` … + `steps` on the line. */
static __device__ __forceinline__ float eight_sum(const struct attention_split &s, int d, int at,
						  int steps, int in, int lane, float sum[8])
{
	const int first = split_owner(s, at), last = split_owner(s, at + steps - 1);
	float top = attention_lowest, total = 0;

	for (int pass = 0; pass < 2; pass++)
		for (int block = first; block <= last; block++) {
			const int part = 2 * block + (split_begin(s, block) <= at);
			const float *from = s.parts + (size_t)part * s.rows * (d + 2);
			const float2 of = *(const float2 *)(from + s.rows * d + 2 * in);
			float weight, v[8];

			if (pass == 0) {
				top = fmaxf(top, of.x);
				continue;
			}
			eight_load(from + in * d + lane, v);
			weight = exp2_approx(of.x - top);
			total += weight * of.y;
			for (int i = 0; i < 8; i++)
				sum[i] += weight * v[i];
		}
	return total;
}

/* blockIdx.x: the split item; blockIdx.y: 16 of its queries; a thread has eight lanes of one. */
extern "C" __global__ void attention_merge(const __grid_constant__ struct attention_params p)
{
	const struct attention_split &s = p.split;
	const int chunks = p.head_dim / 8, lane = threadIdx.x % chunks * 8;
	const int in = blockIdx.y * ATTENTION_MERGE_ROWS + threadIdx.x / chunks;
	const int item = s.whole + blockIdx.x, half = item - s.fulls;
	const int steps = half < 0 ? s.steps : s.half_steps;
	const int at = half < 0 ? blockIdx.x * steps : split_fulls(s) + half * steps;
	struct attention_share share;
	float sum[8] = {}, total;
	uint32_t word[4];
	size_t row, lane_at;

	share_place(s, item, &share);
	row = share.row + in;
	lane_at = share.head * p.head_dim + lane;
	dependency_wait();
	if (split_owner(s, at) == split_owner(s, at + steps - 1) || row >= p.rows)
		return;
	total = eight_sum(s, p.head_dim, at, steps, in, lane, sum);
	total = total > 0 ? 1.0f / total : 0;
	for (int i = 0; i < 8; i++)
		sum[i] *= total;
	if (p.gate)
		for (int i = 0; i < 4; i++) {
			const uint32_t gate = *(const uint32_t *)((const uint16_t *)p.gate +
								  row * p.ldg + lane_at + 2 * i);

			sum[2 * i] *= silu(bf16_low(gate));
			sum[2 * i + 1] *= silu(bf16_high(gate));
		}
	for (int i = 0; i < 4; i++)
		word[i] = bf16_pack(sum[2 * i], sum[2 * i + 1]);
	global_store_16((uint16_t *)p.y + row * p.ldy + lane_at,
			make_uint4(word[0], word[1], word[2], word[3]));
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

enum { ANY_WARPS = ATTENTION_ANY_WARPS, ANY_LANES = ATTENTION_ANY_MOST / 32 };

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
