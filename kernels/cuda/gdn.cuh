/* What the kernels of the gated delta rule share: rotations in shared memory, and where sums lie. */
#pragma once

#include "kernels/cuda/gdn.h"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/row.cuh"
#include "kernels/cuda/rope.cuh"

static __device__ __forceinline__ float warp_sum(float v)
{
#pragma unroll
	for (int step = 16; step > 0; step /= 2)
		v += __shfl_xor_sync(0xffffffffu, v, step);
	return v;
}

/* Chunks of eight channels of a row that a lane has on their way at once: 2304 channels a warp. */
static const int inverse_chunks = 9;

/* 1/√(mean of squares + ε) of a row of q or k, by a warp. */
static __device__ __forceinline__ void row_inverse(const struct gdn_params &p, const void *x,
						   int row, float *to)
{
	const int channels = p.heads * p.head_dim, lane = threadIdx.x % 32;
	const uint16_t *from = (const uint16_t *)x + row * p.ld;
	float sum = 0;

	for (int first = 0; first < channels / 8; first += inverse_chunks * 32) {
		uint4 bits[inverse_chunks];

		/* A chunk that does not exist is the last one again, and does not count. */
#pragma unroll
		for (int i = 0; i < inverse_chunks; i++)
			bits[i] = global_load_16(from +
						 8 * min(first + i * 32 + lane, channels / 8 - 1));
#pragma unroll
		for (int i = 0; i < inverse_chunks; i++) {
			const struct eight e = eight_of(bits[i]);
			float part = 0;

#pragma unroll
			for (int k = 0; k < 8; k++)
				part += e.v[k] * e.v[k];
			sum += first + i * 32 + lane < channels / 8 ? part : 0;
		}
	}
	sum = warp_sum(sum);
	if (lane == 0)
		to[row] = rsqrtf(sum / channels + p.epsilon);
}

/* Two F32 of shared memory. */
static __device__ __forceinline__ float2 shared_pair(uint32_t at)
{
	const uint64_t bits = shared_load_64(at);

	return make_float2(__uint_as_float((uint32_t)bits),
			   __uint_as_float((uint32_t)(bits >> 32)));
}

/*
 * Rotations of one frame, cosine and sine side by side: the pairs of its time, then those of every row of
 * the picture, then of every column (GDN_TURNS of gdn.h). A token's rotations are read 8 bytes a pair; the
 * same for every token and head would be twice the bytes of q or k from the L2 cache.
 */
struct turns {
	uint32_t at;
	int pairs_t,
		pairs_ty; /* a pair below the first belongs to time, below the second to the row */
};

/* Byte offsets of a token's rotations by row and by column, both as if they were for pair 0. */
struct turns_token {
	int y, x;
};

/* By `threads` threads, of which this one is `thread`; BATCH loads of one are on their way together. */
template <int BATCH>
static __device__ __forceinline__ void turns_fill(const struct rope_tables &r, int t, float2 *to,
						  int thread, int threads)
{
	const int rows = r.pairs_t + r.height * r.pairs_y, all = rows + r.width * r.pairs_x;

#pragma unroll 1
	for (int first = thread; first < all; first += BATCH * threads) {
		float2 turn[BATCH];

#pragma unroll
		for (int k = 0; k < BATCH; k++) {
			const int i = min(first + k * threads, all - 1);
			const float *cos = i < r.pairs_t ? r.cos_t : i < rows ? r.cos_y : r.cos_x;
			const float *sin = i < r.pairs_t ? r.sin_t : i < rows ? r.sin_y : r.sin_x;
			const int at = i < r.pairs_t ? t * r.pairs_t + i :
				       i < rows	     ? i - r.pairs_t :
						       i - rows;

			turn[k] = make_float2(__ldg(cos + at), __ldg(sin + at));
		}
#pragma unroll
		for (int k = 0; k < BATCH; k++)
			to[min(first + k * threads, all - 1)] = turn[k];
	}
}

static __device__ __forceinline__ struct turns turns_of(const struct rope_tables &r,
							const float2 *table)
{
	return { shared_address(table), r.pairs_t, r.pairs_t + r.pairs_y };
}

/* Of token s of a frame; one over the width is close enough for a million tokens. */
static __device__ __forceinline__ struct turns_token turns_token_of(const struct gdn_params &p,
								    int s)
{
	const int y = (int)((s + 0.5f) * p.inverse_width), x = s - y * p.rope.width;

	return { y * p.rope.pairs_y * 8,
		 ((p.rope.height - 1) * p.rope.pairs_y + x * p.rope.pairs_x) * 8 };
}

/* Pairs whose rotations are read together: of the published head's 20, 18 and 18 no two are of two kinds. */
template <int D> struct turning {
	static constexpr int pairs = D == 112 ? 2 : 1;
};

/* Lanes of `turning` pairs from `pair` on turned. */
template <int D>
static __device__ __forceinline__ void
turns_apply(const struct turns &turns, const struct turns_token &token, int pair, float *lanes)
{
	const int offset = pair < turns.pairs_t ? 0 : pair < turns.pairs_ty ? token.y : token.x;
	const uint32_t at = turns.at + pair * 8 + offset;

	if (turning<D>::pairs == 2) {
		const uint4 bits = shared_load_16(at);

		rope_turn(make_float2(__uint_as_float(bits.x), __uint_as_float(bits.y)), lanes,
			  lanes + 1);
		rope_turn(make_float2(__uint_as_float(bits.z), __uint_as_float(bits.w)), lanes + 2,
			  lanes + 3);
	} else {
		rope_turn(shared_pair(at), lanes, lanes + 1);
	}
}

/*
 * Sums P, A, P_z lie as the products leave them: tiles of 16 rows and 8 columns, of a row of tiles one
 * after the other, and of a tile each lane's four numbers (rows g, g, g + 8, g + 8, columns 2c, 2c + 1
 * with g = lane / 4, c = lane % 4). That is also what the scan's products take.
 */
template <int D>
static __device__ __forceinline__ size_t sums_at(int item, int row_tile, int column_tile)
{
	return (size_t)item * D * D +
	       ((row_tile * (D / 8) + column_tile) * 32 + threadIdx.x % 32) * 4;
}

/*
 * Element of the state as the read-out takes it, two rows' 16 bytes of a lane at a time: of a group of 32
 * columns and a tile of eight rows lane 4g + c has columns 8c … of row g, and of 32 rows row 8i + 2n + e is
 * row 2i + e of tile n, so that a thread's products are neighbours. What is left of 32 are 16, with four
 * columns a lane and rows 4i + 2n + e.
 */
template <int D> static __device__ __forceinline__ int read_at(int row, int column)
{
	constexpr int whole = D / 32 * 32;
	const int size = row < whole ? 8 : 4, r = row % 32;
	const int tile = row / 32 * 4 + r % size / 2, g = r / size * 2 + r % 2, k = column % 32;

	return column < whole ? ((column / 32 * (D / 8) + tile) * 32 + g * 4 + k / 8) * 8 + k % 8 :
				whole * D + (tile * 32 + g * 4 + k / 4) * 4 + k % 4;
}
