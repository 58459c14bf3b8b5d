/* What the attention kernels share: which part of the work a block has, and how a result leaves it. */
#pragma once

#include "kernels/cuda/attention.h"
#include "kernels/cuda/mma.cuh"

static const float log2_e = 1.44269504f;

/* Below every score, and finite: the difference of two of them is 0. */
static const float attention_lowest = -1e30f;

static __device__ __forceinline__ float silu(float a)
{
	return a * reciprocal_approx(1.0f + exp2_approx(-a * log2_e));
}

/* First step of a block on the line of the split items' steps. */
static __device__ __forceinline__ int split_begin(const struct attention_split &s, int block)
{
	return (int)((int64_t)(s.items - s.whole) * s.steps * block / s.blocks);
}

/* A block's share of one item. */
struct attention_share {
	int head, row;	 /* first query */
	int step, steps; /* steps of the item this block does */
	int part;	 /* where its sums go, or −1: the item is this block's alone */
};

/* A block's way through its shares: `item` is the next whole one, [at, end) what is left of the line. */
struct attention_walk {
	int item, at, end;
};

static __device__ __forceinline__ struct attention_walk walk_begin(const struct attention_split &s,
								   int block)
{
	return { block, split_begin(s, block), split_begin(s, block + 1) };
}

static __device__ __forceinline__ bool walk_next(const struct attention_split &s, int block,
						 struct attention_walk *walk,
						 struct attention_share *share)
{
	int item = walk->item;

	share->step = 0;
	share->steps = s.steps;
	if (item < s.whole) {
		walk->item += s.blocks;
	} else if (walk->at < walk->end) {
		item = walk->at / s.steps;
		share->step = walk->at - item * s.steps;
		share->steps = min(s.steps - share->step, walk->end - walk->at);
		walk->at += share->steps;
		item += s.whole;
	} else {
		return false;
	}
	share->head = item / s.row_tiles;
	share->row = item % s.row_tiles * ATTENTION_ROWS;
	share->part = share->steps == s.steps ? -1 : 2 * block + (share->step == 0);
	return true;
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

/* A part: weighted values of all rows, then the largest score and the sum of weights of each. */
template <int D>
static __device__ __forceinline__ float *part_at(const struct attention_split &s, int part)
{
	return s.parts + (size_t)part * ATTENTION_ROWS * (D + 2);
}

/*
 * One row of an accumulator, o[4n + i] in columns 8n + 2c + i: to y, or to a part. `in` is the row in
 * the item, `most` and `sum` are complete.
 */
template <int D>
static __device__ __forceinline__ void row_store(const struct attention_params &p,
						 const struct attention_share &share, int in,
						 float most, float sum, const float *o)
{
	const int c = threadIdx.x % 4, row = share.row + in, lane = share.head * D;

	if (row >= p.rows)
		return;
	if (share.part >= 0) {
		float *to = part_at<D>(p.split, share.part);

#pragma unroll
		for (int n = 0; n < D / 8; n++)
			*(float2 *)(to + in * D + n * 8 + 2 * c) =
				make_float2(o[4 * n], o[4 * n + 1]);
		if (c == 0)
			*(float2 *)(to + ATTENTION_ROWS * D + in * 2) = make_float2(most, sum);
		return;
	}
	sum = sum > 0 ? 1.0f / sum : 0;
#pragma unroll
	for (int n = 0; n < D / 8; n++) {
		const size_t at = lane + n * 8 + 2 * c;
		float a = o[4 * n] * sum, b = o[4 * n + 1] * sum;

		if (p.gate) {
			const uint32_t gate =
				*(const uint32_t *)((const uint16_t *)p.gate + row * p.ldg + at);

			a *= silu(bf16_low(gate));
			b *= silu(bf16_high(gate));
		}
		*(uint32_t *)((uint16_t *)p.y + row * p.ldy + at) = bf16_pack(a, b);
	}
}
