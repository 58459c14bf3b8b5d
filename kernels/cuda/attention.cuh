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
	return block * s.each + min(block, s.more);
}

/* Where on that line the half items begin. */
static __device__ __forceinline__ int split_fulls(const struct attention_split &s)
{
	return (s.fulls - s.whole) * s.steps;
}

/* A block's share of one item. */
struct attention_share {
	int head, row;	 /* first query */
	int step, steps; /* steps of the item this block does */
	int part;	 /* where its sums go, or −1: the item is this block's alone */
};

static __device__ __forceinline__ void share_place(const struct attention_split &s, int item,
						   struct attention_share *share)
{
	if (item < s.fulls) {
		share->head = item / s.row_tiles;
		share->row = item % s.row_tiles * s.rows;
	} else {
		share->head = item - s.fulls;
		share->row = s.row_tiles * s.rows;
	}
}

/* A block's way through its shares: the next whole item, or behind them its next step on the line. */
struct attention_walk {
	int next;
};

static __device__ __forceinline__ void walk_settle(const struct attention_split &s, int block,
						   struct attention_walk *walk)
{
	if (walk->next >= s.whole)
		walk->next = s.whole + split_begin(s, block);
}

static __device__ __forceinline__ struct attention_walk walk_begin(const struct attention_split &s,
								   int block)
{
	struct attention_walk walk = { block };

	walk_settle(s, block, &walk);
	return walk;
}

/* A share of the line, at most `left` steps of it. */
static __device__ __forceinline__ void line_share(const struct attention_split &s, int block,
						  int at, int left, struct attention_share *share)
{
	const bool half = at >= split_fulls(s);
	const int steps = half ? s.half_steps : s.steps;
	int item = half ? s.fulls : s.whole;

	at -= half ? split_fulls(s) : 0;
	item += at / steps;
	share->step = at % steps;
	share->steps = min(steps - share->step, left);
	share->part = share->steps == steps ? -1 : 2 * block + (share->step == 0);
	share_place(s, item, share);
}

static __device__ __forceinline__ bool walk_next(const struct attention_split &s, int block,
						 struct attention_walk *walk,
						 struct attention_share *share)
{
	const int at = walk->next - s.whole, left = split_begin(s, block + 1) - at;

	if (at < 0) {
		share->step = 0;
		share->steps = walk->next < s.fulls ? s.steps : s.half_steps;
		share->part = -1;
		share_place(s, walk->next, share);
		walk->next += s.blocks;
		walk_settle(s, block, walk);
		return true;
	}
	if (left <= 0)
		return false;
	line_share(s, block, at, left, share);
	walk->next += share->steps;
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

/* A part: weighted values of all rows, then what their exponents were taken from and their sum. */
template <int D>
static __device__ __forceinline__ float *part_at(const struct attention_split &s, int part)
{
	return s.parts + (size_t)part * s.rows * (D + 2);
}

/* Rows of an accumulator: o[4n + i] in columns 8n + 2c + i. `in` is the row in the item. */
template <int D>
static __device__ __forceinline__ void part_store(const struct attention_params &p,
						  const struct attention_share &share, int in,
						  float most, float sum, const float *o)
{
	const int c = threadIdx.x % 4;
	float *to = part_at<D>(p.split, share.part);

	if (share.row + in >= p.rows)
		return;
#pragma unroll
	for (int n = 0; n < D / 8; n++)
		*(float2 *)(to + in * D + n * 8 + 2 * c) = make_float2(o[4 * n], o[4 * n + 1]);
	if (c == 0)
		*(float2 *)(to + p.split.rows * D + in * 2) = make_float2(most, sum);
}

/* Gates of a row; all are asked for before one is wanted. */
template <int D>
static __device__ __forceinline__ void row_gates(const struct attention_params &p,
						 const struct attention_share &share, int in,
						 uint32_t gate[D / 8])
{
	const uint32_t row = min(share.row + in, p.rows - 1);
	const uint16_t *from = (const uint16_t *)p.gate + row * p.ldg + (uint32_t)(share.head * D) +
			       threadIdx.x % 4 * 2;

#pragma unroll
	for (int n = 0; n < D / 8; n++)
		gate[n] = *(const uint32_t *)(from + n * 8);
}

/* A row to y. */
template <int D>
static __device__ __forceinline__ void row_write(const struct attention_params &p,
						 const struct attention_share &share, int in,
						 uint32_t word[D / 8])
{
	const uint32_t c = threadIdx.x % 4, row = share.row + in;
	const bool inside = row < p.rows;
	uint16_t *y = (uint16_t *)p.y + row * p.ldy + (uint32_t)(share.head * D);

#pragma unroll
	for (int n = 0; n + 4 <= D / 8; n += 4) {
		quad_transpose(word + n);
		if (inside)
			global_store_16(y + (n + c) * 8,
					make_uint4(word[n], word[n + 1], word[n + 2], word[n + 3]));
	}
#pragma unroll
	for (int n = D / 32 * 4; n < D / 8; n++)
		if (inside)
			*(uint32_t *)(y + n * 8 + 2 * c) = word[n];
}

/* Two rows of an accumulator, eight apart: to y, or to a part. `most` and `sum` are complete. */
template <int D>
static __device__ __forceinline__ void
rows_store(const struct attention_params &p, const struct attention_share &share, int in,
	   const float most[2], const float sum[2], const float *o)
{
	uint32_t word[D / 8];

	if (share.part >= 0) {
#pragma unroll
		for (int h = 0; h < 2; h++)
			part_store<D>(p, share, in + 8 * h, most[h], sum[h], o + 2 * h);
		return;
	}
#pragma unroll
	for (int h = 0; h < 2; h++) {
		const float scale = sum[h] > 0 ? reciprocal_approx(sum[h]) : 0;

		if (p.gate) {
			uint32_t gate[D / 8];

			row_gates<D>(p, share, in + 8 * h, gate);
#pragma unroll
			for (int n = 0; n < D / 8; n++)
				word[n] = bf16_pack(
					o[4 * n + 2 * h] * scale * silu(bf16_low(gate[n])),
					o[4 * n + 2 * h + 1] * scale * silu(bf16_high(gate[n])));
		} else {
#pragma unroll
			for (int n = 0; n < D / 8; n++)
				word[n] = bf16_pack(o[4 * n + 2 * h] * scale,
						    o[4 * n + 2 * h + 1] * scale);
		}
		row_write<D>(p, share, in + 8 * h, word);
	}
}
