/* What the attention kernels share: which part of the work a block has, and how a result leaves it. */
#pragma once

#include "kernels/cuda/attention.h"
#include "kernels/cuda/mma.cuh"

static const float log2_e = 1.44269504f;

/* Below every score, and finite: the difference of two of them is 0. */
static const float attention_lowest = -1e30f;

/*
 * Weights may exceed 1 by as much as F32 and BF16 hold without loss, so what was summed is scaled only
 * when a score exceeds the largest of before by this many powers of two, which is seldom.
 */
static const float attention_rise = 8;

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

/* A block's way through its shares: `item` is the next whole one, `at` its next step on the line. */
struct attention_walk {
	int item, at;
};

static __device__ __forceinline__ struct attention_walk walk_begin(const struct attention_split &s,
								   int block)
{
	return { block, split_begin(s, block) };
}

static __device__ __forceinline__ bool walk_next(const struct attention_split &s, int block,
						 struct attention_walk *walk,
						 struct attention_share *share)
{
	int item = walk->item, left = 0;

	if (item >= s.whole)
		left = split_begin(s, block + 1) - walk->at;
	share->step = 0;
	share->steps = s.steps;
	if (item < s.whole) {
		walk->item += s.blocks;
	} else if (left > 0) {
		item = walk->at / s.steps;
		share->step = walk->at - item * s.steps;
		share->steps = min(s.steps - share->step, left);
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

/* Word i of lane c to word c of lane i, of the four lanes that share a row: a lane then has 16 bytes. */
static __device__ __forceinline__ void quad_turn(uint32_t word[4])
{
#pragma unroll
	for (int step = 1; step <= 2; step *= 2) {
		const bool upper = threadIdx.x & step;

#pragma unroll
		for (int i = 0; i < 4; i++) {
			uint32_t got;

			if (i & step)
				continue;
			got = __shfl_xor_sync(~0u, upper ? word[i] : word[i + step], step);
			if (upper)
				word[i] = got;
			else
				word[i + step] = got;
		}
	}
}

/* A part: weighted values of all rows, then what their exponents were taken from and their sum. */
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
	const bool inside = row < p.rows;
	uint16_t *y = (uint16_t *)p.y + row * p.ldy + lane;
	uint32_t word[D / 8];

	if (share.part >= 0 && !inside)
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
	sum = sum > 0 ? reciprocal_approx(sum) : 0;
#pragma unroll
	for (int n = 0; n < D / 8; n++) {
		float a = o[4 * n] * sum, b = o[4 * n + 1] * sum;

		if (p.gate && inside) {
			const uint32_t gate =
				*(const uint32_t *)((const uint16_t *)p.gate + row * p.ldg + lane +
						    n * 8 + 2 * c);

			a *= silu(bf16_low(gate));
			b *= silu(bf16_high(gate));
		}
		word[n] = bf16_pack(a, b);
	}
#pragma unroll
	for (int n = 0; n + 4 <= D / 8; n += 4) {
		quad_turn(word + n);
		if (inside)
			global_store_16(y + (n + c) * 8,
					make_uint4(word[n], word[n + 1], word[n + 2], word[n + 3]));
	}
#pragma unroll
	for (int n = D / 32 * 4; n < D / 8; n++)
		if (inside)
			*(uint32_t *)(y + n * 8 + 2 * c) = word[n];
}
