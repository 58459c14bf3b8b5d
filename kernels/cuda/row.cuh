/*
 * Rows of BF16 for kernels that need all of a row at once (norms): one block of ROW_THREADS a row, kept
 * in registers between the passes when it is short enough, read again otherwise.
 */
#pragma once

#include "kernels/cuda/mma.cuh"

enum {
	ROW_THREADS = 128,
	ROW_CHUNKS = 3, /* of 8 elements a thread: rows of up to 3072 channels stay in registers */
};

/* Eight BF16 of one 16-byte access as F32. */
struct eight {
	float v[8];
};

static __device__ __forceinline__ struct eight eight_of(uint4 bits)
{
	struct eight e;

	e.v[0] = bf16_low(bits.x), e.v[1] = bf16_high(bits.x);
	e.v[2] = bf16_low(bits.y), e.v[3] = bf16_high(bits.y);
	e.v[4] = bf16_low(bits.z), e.v[5] = bf16_high(bits.z);
	e.v[6] = bf16_low(bits.w), e.v[7] = bf16_high(bits.w);
	return e;
}

static __device__ __forceinline__ uint4 eight_bits(const struct eight &e)
{
	return make_uint4(bf16_pack(e.v[0], e.v[1]), bf16_pack(e.v[2], e.v[3]),
			  bf16_pack(e.v[4], e.v[5]), bf16_pack(e.v[6], e.v[7]));
}

static __device__ __forceinline__ struct eight eight_load(const void *row, int chunk)
{
	return eight_of(((const uint4 *)row)[chunk]);
}

static __device__ __forceinline__ void eight_store(void *row, int chunk, const struct eight &e)
{
	((uint4 *)row)[chunk] = eight_bits(e);
}

/* Eight F32 parameters of a chunk. */
static __device__ __forceinline__ struct eight eight_floats(const float *from, int chunk)
{
	const float4 a = ((const float4 *)from)[2 * chunk],
		     b = ((const float4 *)from)[2 * chunk + 1];
	struct eight e = { { a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w } };

	return e;
}

/* The sum over a block of ROW_THREADS, the same in every thread; the order of additions is fixed. */
static __device__ __forceinline__ float block_sum(float value)
{
	__shared__ float partial[ROW_THREADS / 32];
	float sum = 0;

#pragma unroll
	for (int step = 16; step > 0; step /= 2)
		value += __shfl_xor_sync(0xffffffffu, value, step);
	__syncthreads();
	if (threadIdx.x % 32 == 0)
		partial[threadIdx.x / 32] = value;
	__syncthreads();
#pragma unroll
	for (int i = 0; i < ROW_THREADS / 32; i++)
		sum += partial[i];
	return sum;
}

/* Calls body(slot, chunk) for the thread's chunks of a row of `chunks`; slots are compile-time numbers. */
template <typename Body> static __device__ __forceinline__ void row_chunks(int chunks, Body body)
{
#pragma unroll
	for (int slot = 0; slot < ROW_CHUNKS; slot++) {
		const int chunk = slot * ROW_THREADS + threadIdx.x;

		if (chunk < chunks)
			body(slot, chunk);
	}
}
