/*
 * Gated delta rule, read-out: y = (Q̂·Mᵀ / (Q·z + 1e-8)) ⊙ silu(gate), a warp 16 tokens of one head at a
 * time. Which lanes of the head a product takes for its k, and which for its columns, is free as long as
 * both factors say the same: so a thread has eight neighbouring lanes of its two tokens, 16 bytes, of q
 * as of gate and of y, and neither goes through shared memory.
 */
#include "kernels/cuda/gdn.cuh"

static const float log2_e = 1.44269504f;

/*
 * Lanes of a head in groups of 32, eight for each of the four threads of a row; where 16 are left they are
 * four each, in half as many products.
 */
template <int D> struct groups {
	static constexpr int whole = D / 32, tail = D % 32 / 16, all = whole + tail;
	static constexpr int columns = D / 8; /* tiles of eight columns */
	static constexpr int weight_at = D * D * 2, z_at = weight_at + D * 4;

	static __device__ __forceinline__ constexpr int pairs(int group)
	{
		return group < whole ? 4 : 2;
	}
	/* First lane of thread c of a row. */
	static __device__ __forceinline__ int lane(int group, int c)
	{
		return group * 32 + c * 2 * pairs(group);
	}
};

struct work {
	int t, head, lane, c; /* lane of the warp, and of those of a row */
	uint32_t memory;      /* shared: the state, then norm weights and normaliser */
	struct turns turns;
};

/*
 * A group of lanes of token s of a frame, or of the last one: one that does not exist is loaded all the same
 * and nobody looks at it, so that no load depends on a branch.
 */
template <int D>
static __device__ __forceinline__ uint4 group_load(const struct gdn_params &p, const struct work &w,
						   const void *x, int s, int group)
{
	/* 32 bits: the launcher has looked; pointers of all loads would cost their registers. */
	const uint32_t row = (uint32_t)(w.t * p.tokens + min(s, p.tokens - 1)) * (uint32_t)p.ld;
	const uint16_t *from =
		(const uint16_t *)x + (row + w.head * D + groups<D>::lane(group, w.c));
	uint4 bits = make_uint4(0, 0, 0, 0);

	if (group < groups<D>::whole)
		return global_load_16(from);
	asm volatile("ld.global.v2.b32 {%0,%1}, [%2];"
		     : "=r"(bits.x), "=r"(bits.y)
		     : "l"(from)
		     : "memory");
	return bits;
}

/* The same of this thread's two tokens, s and s + 8. */
template <int D>
static __device__ __forceinline__ void group_load_two(const struct gdn_params &p,
						      const struct work &w, const void *x, int s,
						      int group, uint4 to[2])
{
	to[0] = group_load<D>(p, w, x, s, group);
	to[1] = group_load<D>(p, w, x, s + 8, group);
}

/* The gates of both tokens on their way to the cache, 64 bytes a thread of a row. */
template <int D>
static __device__ __forceinline__ void gates_ask(const struct gdn_params &p, const struct work &w,
						 int s)
{
#pragma unroll
	for (int h = 0; h < 2; h++) {
		const uint32_t row = w.t * p.tokens + min(s + 8 * h, p.tokens - 1);
		const uint32_t lane = w.head * D + min(w.c * 32, D - 1);

		prefetch_l2((const uint16_t *)p.gate + (row * (uint32_t)p.ld + lane));
	}
}

static __device__ __forceinline__ uint32_t &word_of(uint4 &v, int i)
{
	return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

/* Two or four F32 of shared memory. */
template <int PAIRS>
static __device__ __forceinline__ void floats_load(uint32_t at, float to[2 * PAIRS])
{
	if (PAIRS == 2) {
		const uint4 bits = shared_load_16(at);

		to[0] = __uint_as_float(bits.x), to[1] = __uint_as_float(bits.y);
		to[2] = __uint_as_float(bits.z), to[3] = __uint_as_float(bits.w);
	} else {
		const float2 pair = shared_pair(at);

		to[0] = pair.x, to[1] = pair.y;
	}
}

/*
 * A group of queries in place: relu(q·w) turned, but for the factor of the norm, which belongs to the
 * result; and added up, this thread's part of their products with z.
 */
template <int D>
static __device__ __forceinline__ void group_make(const struct work &w, int group,
						  const struct turns_token token[2], uint4 q[2],
						  float product[2])
{
	constexpr int together = turning<D>::pairs;

#pragma unroll
	for (int e = 0; e < groups<D>::pairs(group); e += together) {
		const int lane = groups<D>::lane(group, w.c) + 2 * e;
		float weight[2 * together], z[2 * together];

		floats_load<together>(w.memory + groups<D>::weight_at + lane * 4, weight);
		floats_load<together>(w.memory + groups<D>::z_at + lane * 4, z);
#pragma unroll
		for (int h = 0; h < 2; h++) {
			float v[2 * together];

#pragma unroll
			for (int k = 0; k < 2 * together; k++) {
				const uint32_t bits = word_of(q[h], e + k / 2);

				v[k] = k % 2 ? bf16_high(bits) : bf16_low(bits);
				v[k] = fmaxf(v[k] * weight[k], 0.0f);
				product[h] += v[k] * z[k];
			}
			turns_apply<D>(w.turns, token[h], lane / 2, v);
#pragma unroll
			for (int k = 0; k < together; k++)
				word_of(q[h], e + k) = bf16_pack(v[2 * k], v[2 * k + 1]);
		}
	}
}

/* State of tile `column` for the lanes of `group`. */
template <int D>
static __device__ __forceinline__ uint4 state_load(const struct work &w, int group, int column)
{
	const uint32_t lane = w.lane;
	uint64_t bits;

	if (group < groups<D>::whole)
		return shared_load_16(w.memory +
				      ((group * groups<D>::columns + column) * 32 + lane) * 16);
	bits = shared_load_64(w.memory + groups<D>::whole * groups<D>::columns * 512 +
			      (column * 32 + lane) * 8);
	return make_uint4((uint32_t)bits, (uint32_t)(bits >> 32), 0, 0);
}

/* c += products of a group of queries with all of the state. */
template <int D>
static __device__ __forceinline__ void group_product(const struct work &w, int group,
						     const uint4 q[2], float c[D / 8][4])
{
	const uint32_t low[4] = { q[0].x, q[1].x, q[0].y, q[1].y };
	const uint32_t high[4] = { q[0].z, q[1].z, q[0].w, q[1].w };

#pragma unroll
	for (int n = 0; n < D / 8; n++) {
		const uint4 m = state_load<D>(w, group, n);

		mma_bf16(c[n], low, m.x, m.y);
		if (group < groups<D>::whole)
			mma_bf16(c[n], high, m.z, m.w);
	}
}

/* Two neighbours of y from their products, the row's factor and their gates. */
static __device__ __forceinline__ uint32_t pair_gated(float a, float b, float factor,
						      uint32_t gates)
{
	const float low = bf16_low(gates), high = bf16_high(gates);

	return bf16_pack(a * factor * low * reciprocal_approx(1.0f + exp2_approx(-low * log2_e)),
			 b * factor * high * reciprocal_approx(1.0f + exp2_approx(-high * log2_e)));
}

/* y of one group, of token s + 8·h; `gate` becomes it. */
template <int D>
static __device__ __forceinline__ void group_store(const struct gdn_params &p, const struct work &w,
						   int group, int s, int h, float factor,
						   uint4 gate, const float c[4][4])
{
	const uint32_t row = (uint32_t)(w.t * p.tokens + s + 8 * h) * (p.heads * D);
	uint16_t *to = (uint16_t *)p.y + (row + w.head * D + groups<D>::lane(group, w.c));

#pragma unroll
	for (int n = 0; n < groups<D>::pairs(group); n++) {
		uint32_t &bits = word_of(gate, n);

		bits = pair_gated(c[n][2 * h], c[n][2 * h + 1], factor, bits);
	}
	if (s + 8 * h >= p.tokens)
		return;
	if (group < groups<D>::whole)
		global_store_16(to, gate);
	else
		*(uint2 *)to = make_uint2(gate.x, gate.y);
}

/*
 * 16 tokens, of which this thread has s and s + 8. `ahead`: its first group of queries, later that of the tile
 * `step` tokens on.
 */
template <int D>
static __device__ __forceinline__ void tile_read(const struct gdn_params &p, const struct work &w,
						 int s, int step, uint4 ahead[2])
{
	constexpr int all = groups<D>::all;
	struct turns_token token[2];
	float c[D / 8][4] = {}, product[2] = {}, inverse[2];
	uint4 gate[2][2] = {}; /* of this group and the next */

#pragma unroll
	for (int h = 0; h < 2; h++) {
		token[h] = turns_token_of(p, min(s + 8 * h, p.tokens - 1));
	}
#pragma unroll
	for (int i = 0; i < all; i++) {
		uint4 q[2] = { ahead[0], ahead[1] };

		group_load_two<D>(p, w, p.q, s + (i + 1) / all * step, (i + 1) % all, ahead);
		/* Of the first two groups of y, while the last two of the queries are multiplied. */
#pragma unroll
		for (int g = 0; g < 2 && g < all; g++)
			if (i == (all < 2 ? 0 : all - 2 + g))
				group_load_two<D>(p, w, p.gate, s, g, gate[g]);
#pragma unroll
		for (int h = 0; h < 2 && i == (all < 2 ? 0 : all - 2); h++)
			inverse[h] = p.inverse[w.t * p.tokens + min(s + 8 * h, p.tokens - 1)];
		/* Of the warp alone: or loads from shared memory of all groups come first, into memory. */
		named_barrier(1 + threadIdx.x / 32, 32);
		group_make<D>(w, i, token, q, product);
		group_product<D>(w, i, q, c);
	}
#pragma unroll
	for (int h = 0; h < 2; h++) {
		product[h] += __shfl_xor_sync(0xffffffffu, product[h], 1);
		product[h] += __shfl_xor_sync(0xffffffffu, product[h], 2);
		product[h] = inverse[h] * reciprocal_approx(inverse[h] * product[h] + 1e-8f);
	}
#pragma unroll
	for (int i = 0; i < all; i++) {
		uint4 later[2] = {};

		if (i + 2 < all)
			group_load_two<D>(p, w, p.gate, s, i + 2, later);
#pragma unroll
		for (int h = 0; h < 2; h++)
			group_store<D>(p, w, i, s, h, product[h], gate[0][h], c + 4 * i);
#pragma unroll
		for (int h = 0; h < 2; h++)
			gate[0][h] = gate[1][h], gate[1][h] = later[h];
	}
}

/* A float of every lane of the head. */
template <int D> static __device__ __forceinline__ void floats_copy(uint32_t to, const float *from)
{
	if (threadIdx.x < D / 4)
		cp_async_16(to + threadIdx.x * 16, from + threadIdx.x * 4, 16);
}

/* The state, which the scan has left as it is wanted here. */
template <int D>
static __device__ __forceinline__ void state_copy(const struct gdn_params &p, const struct work &w,
						  int item)
{
	const uint16_t *from = (const uint16_t *)p.read + (size_t)item * D * D;

#pragma unroll
	for (int e = threadIdx.x; e < D * D / 8; e += 32 * GDN_READ_WARPS)
		cp_async_16(w.memory + e * 16, from + e * 8, 16);
}

/* blockIdx: share of the tokens, head, frame. */
template <int D> static __device__ __forceinline__ void gdn_read(const struct gdn_params &p)
{
	extern __shared__ __align__(128) unsigned char memory[];
	float2 *table = (float2 *)(memory + GDN_READ_STATE(D));
	struct work w = { .t = (int)blockIdx.z,
			  .head = (int)blockIdx.y,
			  .lane = (int)threadIdx.x % 32,
			  .c = (int)threadIdx.x % 4,
			  .memory = shared_address(memory),
			  .turns = turns_of(p.rope, table) };
	const int item = w.t * p.heads + w.head;
	const int step = GDN_READ_WARPS * 16;
	int s = (blockIdx.x * GDN_READ_TILES + threadIdx.x / 32) * 16 + threadIdx.x % 32 / 4;
	uint4 ahead[2];

	/* What the scan has nothing to do with. */
	group_load_two<D>(p, w, p.q, s, 0, ahead);
#pragma unroll
	for (int i = 0; i < 2; i++)
		gates_ask<D>(p, w, s + i * step);
	floats_copy<D>(w.memory + groups<D>::weight_at, p.q_norm + w.head * D);
	turns_fill<6>(p.rope, w.t, table, threadIdx.x, 32 * GDN_READ_WARPS);
	dependency_wait();
	dependency_launch();
	state_copy<D>(p, w, item);
	floats_copy<D>(w.memory + groups<D>::z_at, p.z + item * D);
	cp_async_commit();
	cp_async_wait<0>();
	__syncthreads();
#pragma unroll 1
	for (int block = blockIdx.x; s < (block + 1) * GDN_READ_TILES * 16; s += step) {
		/* Again for every tile: what is made of it would be kept in registers that are wanted. */
		asm volatile("mov.u32 %0, %%laneid;" : "=r"(w.lane));
		asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(block));
		w.c = w.lane % 4;
		tile_read<D>(p, w, s, step, ahead);
	}
}

#define GDN_READ(D)                                                          \
	extern "C" __global__ void __launch_bounds__(GDN_READ_WARPS * 32, 2) \
		gdn_read_##D(const __grid_constant__ struct gdn_params p)    \
	{                                                                    \
		gdn_read<D>(p);                                              \
	}
GDN_READ(32)
GDN_READ(80)
GDN_READ(112)
