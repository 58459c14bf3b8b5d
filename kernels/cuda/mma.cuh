/*
 * Instructions that the matrix kernels share, one small function each, with its PTX name: BF16
 * tensor products of one warp, shared memory matrices, asynchronous copies and their barriers.
 *
 * All of this runs on sm_90 and later, the sm_120 family included. What only sm_90a has is in
 * wgmma.cuh. Shared memory addresses are 32 bits (`shared_address`); BF16 pairs are one 32-bit
 * word, the lower column in the lower half.
 */
#pragma once

#include <cuda.h>
#include <stdint.h>

/* 32-bit address in the shared window, as the instructions below take it. */
static __device__ __forceinline__ uint32_t shared_address(const void *p)
{
	return (uint32_t)__cvta_generic_to_shared(p);
}

/* ld.shared.b64 and st.shared.b64, for addresses of 32 bits. */
static __device__ __forceinline__ uint64_t shared_load_64(uint32_t from)
{
	uint64_t d;

	asm volatile("ld.shared.b64 %0, [%1];" : "=l"(d) : "r"(from) : "memory");
	return d;
}

static __device__ __forceinline__ void shared_store_64(uint32_t to, uint64_t v)
{
	asm volatile("st.shared.b64 [%0], %1;" ::"r"(to), "l"(v) : "memory");
}

/* ------------------------------------------------------------------------------------- numbers */

/* cvt.rn.bf16x2.f32: two F32 to one word of BF16, nearest even. */
static __device__ __forceinline__ uint32_t bf16_pack(float low, float high)
{
	uint32_t d;

	asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(high), "f"(low));
	return d;
}

static __device__ __forceinline__ float bf16_low(uint32_t pair)
{
	return __uint_as_float(pair << 16);
}

static __device__ __forceinline__ float bf16_high(uint32_t pair)
{
	return __uint_as_float(pair & 0xffff0000u);
}

static __device__ __forceinline__ float bf16_value(uint16_t bits)
{
	return __uint_as_float((uint32_t)bits << 16);
}

static __device__ __forceinline__ uint16_t bf16_bits(float value)
{
	return (uint16_t)bf16_pack(value, 0.0f);
}

/* ex2.approx.ftz.f32: 2^a, relative error 2^-22. */
static __device__ __forceinline__ float exp2_approx(float a)
{
	float d;

	asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(d) : "f"(a));
	return d;
}

/* rcp.approx.ftz.f32: 1/a, one unit in the last place. */
static __device__ __forceinline__ float reciprocal_approx(float a)
{
	float d;

	asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(d) : "f"(a));
	return d;
}

/* tanh.approx.f32: relative error 2^-11, so for results that are rounded to BF16 at once. */
static __device__ __forceinline__ float tanh_approx(float a)
{
	float d;

	asm("tanh.approx.f32 %0, %1;" : "=f"(d) : "f"(a));
	return d;
}

/* v·sigmoid(v), of v/2, for a result that is rounded to BF16 at once: two instructions. */
static __device__ __forceinline__ float silu_of_half(float half)
{
	return fmaf(half, tanh_approx(half), half);
}

static __device__ __forceinline__ float silu_approx(float v)
{
	return silu_of_half(0.5f * v);
}

/* ------------------------------------------------------------------------- products of one warp */

/*
 * mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32: d += a·b. Lane l, g = l / 4, c = l % 4:
 *   a[0] (row g, columns 2c 2c+1)  a[1] (row g+8)  a[2] (row g, columns +8)  a[3] (both)
 *   b[0] (k 2c 2c+1, column g)     b[1] (k +8)
 *   d[0] d[1] (row g, columns 2c 2c+1)  d[2] d[3] (row g+8)
 */
static __device__ __forceinline__ void mma_bf16(float d[4], const uint32_t a[4], uint32_t b0,
						uint32_t b1)
{
	asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
	    "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
	    : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
	    : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/*
 * ldmatrix.sync.aligned.m8n8.x4.shared.b16: four 8×8 matrices; lanes 8i…8i+7 give the addresses of
 * the rows (16 bytes each) of matrix i; lane l gets columns 2(l%4), +1 of row l/4 of each.
 */
static __device__ __forceinline__ void ldmatrix_x4(uint32_t d[4], uint32_t row)
{
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
		     : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
		     : "r"(row)
		     : "memory");
}

/* The same with .trans: lane l gets rows 2(l%4), +1 of column l/4. */
static __device__ __forceinline__ void ldmatrix_x4_trans(uint32_t d[4], uint32_t row)
{
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
		     : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
		     : "r"(row)
		     : "memory");
}

/* ldmatrix.sync.aligned.m8n8.x2.shared.b16: two matrices, addresses from lanes 0…15. */
static __device__ __forceinline__ void ldmatrix_x2(uint32_t d[2], uint32_t row)
{
	asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
		     : "=r"(d[0]), "=r"(d[1])
		     : "r"(row)
		     : "memory");
}

/* stmatrix.sync.aligned.m8n8.x4.shared.b16: the way back of ldmatrix_x4. */
static __device__ __forceinline__ void stmatrix_x4(uint32_t row, const uint32_t s[4])
{
	asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(row),
		     "r"(s[0]), "r"(s[1]), "r"(s[2]), "r"(s[3])
		     : "memory");
}

/* stmatrix….trans: the way back of ldmatrix_x4_trans. */
static __device__ __forceinline__ void stmatrix_x4_trans(uint32_t row, const uint32_t s[4])
{
	asm volatile(
		"stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(row),
		"r"(s[0]), "r"(s[1]), "r"(s[2]), "r"(s[3])
		: "memory");
}

/*
 * Byte offsets in tiles as TMA writes them and ldmatrix reads them without bank conflicts: `chunk`
 * counts 16 bytes. Rows of 128 bytes (CU_TENSOR_MAP_SWIZZLE_128B), tile at a multiple of 1024:
 */
static __device__ __forceinline__ uint32_t swizzle_128(uint32_t row, uint32_t chunk)
{
	return row * 128 + ((chunk ^ (row & 7)) << 4);
}

/* Rows of 64 bytes (CU_TENSOR_MAP_SWIZZLE_64B), tile at a multiple of 512. */
static __device__ __forceinline__ uint32_t swizzle_64(uint32_t row, uint32_t chunk)
{
	return row * 64 + ((chunk ^ ((row >> 1) & 3)) << 4);
}

/* Rows of 32 bytes (CU_TENSOR_MAP_SWIZZLE_32B), tile at a multiple of 256. */
static __device__ __forceinline__ uint32_t swizzle_32(uint32_t row, uint32_t chunk)
{
	return row * 32 + ((chunk ^ ((row >> 2) & 1)) << 4);
}

/* --------------------------------------------------------------------- copies by single threads */

/* ld.global.v4, st.global.v4, ld.shared.v4, st.shared.v4: nvcc may split a uint4 into four words. */
static __device__ __forceinline__ uint4 global_load_16(const void *p)
{
	uint4 v;

	asm volatile("ld.global.v4.b32 {%0,%1,%2,%3}, [%4];"
		     : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
		     : "l"(p)
		     : "memory");
	return v;
}

static __device__ __forceinline__ void global_store_16(void *p, uint4 v)
{
	asm volatile("st.global.v4.b32 [%0], {%1,%2,%3,%4};" ::"l"(p), "r"(v.x), "r"(v.y), "r"(v.z),
		     "r"(v.w)
		     : "memory");
}

static __device__ __forceinline__ uint32_t shared_load_32(uint32_t at)
{
	uint32_t v;

	asm volatile("ld.shared.b32 %0, [%1];" : "=r"(v) : "r"(at) : "memory");
	return v;
}

static __device__ __forceinline__ void shared_store_32(uint32_t at, uint32_t v)
{
	asm volatile("st.shared.b32 [%0], %1;" ::"r"(at), "r"(v) : "memory");
}

static __device__ __forceinline__ uint4 shared_load_16(uint32_t at)
{
	uint4 v;

	asm volatile("ld.shared.v4.b32 {%0,%1,%2,%3}, [%4];"
		     : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
		     : "r"(at)
		     : "memory");
	return v;
}

static __device__ __forceinline__ void shared_store_16(uint32_t at, uint4 v)
{
	asm volatile("st.shared.v4.b32 [%0], {%1,%2,%3,%4};" ::"r"(at), "r"(v.x), "r"(v.y),
		     "r"(v.z), "r"(v.w)
		     : "memory");
}

/* cp.async.cg.shared.global, 16 bytes past L1; bytes < 16: the rest becomes zero (0: all of it). */
static __device__ __forceinline__ void cp_async_16(uint32_t to, const void *from, int bytes)
{
	asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
		     "r"(bytes)
		     : "memory");
}

/* cp.async.ca.shared.global, 4 bytes. */
static __device__ __forceinline__ void cp_async_4(uint32_t to, const void *from)
{
	asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to), "l"(from) : "memory");
}

/* cp_async_16 under a predicate, without a branch. */
static __device__ __forceinline__ void cp_async_16_if(bool wanted, uint32_t to, const void *from,
						      int bytes)
{
	asm volatile("{\n"
		     ".reg .pred p;\n"
		     "setp.ne.b32 p, %3, 0;\n"
		     "@p cp.async.cg.shared.global [%0], [%1], 16, %2;\n"
		     "}\n" ::"r"(to),
		     "l"(from), "r"(bytes), "r"((int)wanted)
		     : "memory");
}

/* prefetch.global.L2 */
static __device__ __forceinline__ void prefetch_l2(const void *p)
{
	asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
}

/* cp.async.commit_group */
static __device__ __forceinline__ void cp_async_commit(void)
{
	asm volatile("cp.async.commit_group;" ::: "memory");
}

/* cp.async.wait_group N: all but the last N groups of this thread have arrived. */
template <int N> static __device__ __forceinline__ void cp_async_wait(void)
{
	asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/* cp.async.mbarrier.arrive.noinc: one arrival when this thread's copies so far have landed. */
static __device__ __forceinline__ void cp_async_arrive(uint32_t barrier)
{
	asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(barrier) : "memory");
}

/* ------------------------------------------------------------------------------------- barriers */

/* mbarrier.init: `arrivals` complete a phase. Follow a block of these by mbarrier_init_fence. */
static __device__ __forceinline__ void mbarrier_init(uint32_t barrier, uint32_t arrivals)
{
	asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

/* fence.mbarrier_init + fence.proxy.async: the copy engine sees initialised barriers. */
static __device__ __forceinline__ void mbarrier_init_fence(void)
{
	asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
	asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* mbarrier.arrive */
static __device__ __forceinline__ void mbarrier_arrive(uint32_t barrier)
{
	asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/* mbarrier.arrive.expect_tx: one arrival, and `bytes` of copies must land too. */
static __device__ __forceinline__ void mbarrier_arrive_expect(uint32_t barrier, uint32_t bytes)
{
	asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
		     : "memory");
}

/* mbarrier.expect_tx: `bytes` of copies must land too; no arrival. */
static __device__ __forceinline__ void mbarrier_expect(uint32_t barrier, uint32_t bytes)
{
	asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(barrier),
		     "r"(bytes)
		     : "memory");
}

/* mbarrier.try_wait.parity: true once the phase of that parity is complete; sleeps a while. */
static __device__ __forceinline__ bool mbarrier_try_wait(uint32_t barrier, uint32_t parity)
{
	uint32_t done;

	asm volatile("{\n"
		     ".reg .pred p;\n"
		     "mbarrier.try_wait.parity.shared.b64 p, [%1], %2;\n"
		     "selp.u32 %0, 1, 0, p;\n"
		     "}\n"
		     : "=r"(done)
		     : "r"(barrier), "r"(parity)
		     : "memory");
	return done;
}

static __device__ __forceinline__ void mbarrier_wait(uint32_t barrier, uint32_t parity)
{
	while (!mbarrier_try_wait(barrier, parity))
		;
}

/* bar.sync id, threads: a barrier of part of a block; ids 1…15, 0 is __syncthreads. */
static __device__ __forceinline__ void named_barrier(int id, int threads)
{
	asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/* bar.arrive id, threads: counts for the others, waits for nobody. */
static __device__ __forceinline__ void named_barrier_arrive(int id, int threads)
{
	asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/* elect.sync: true in one lane of a converged warp. */
static __device__ __forceinline__ bool elect_one(void)
{
	uint32_t is;

	asm volatile("{\n"
		     ".reg .pred p;\n"
		     "elect.sync _|p, 0xffffffff;\n"
		     "selp.u32 %0, 1, 0, p;\n"
		     "}\n"
		     : "=r"(is));
	return is;
}

/* ----------------------------------------------------------------------- tensor memory access */

/* prefetch.tensormap */
static __device__ __forceinline__ void tma_prefetch_map(const CUtensorMap *map)
{
	asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

/*
 * cp.async.bulk.tensor.Nd, tile mode, no multicast: the box at (c0, c1, …), c0 fastest, to shared
 * memory at `to`; its bytes count on `barrier`. Elements outside the tensor become zero and count.
 */
static __device__ __forceinline__ void tma_load_2d(uint32_t to, const CUtensorMap *map,
						   uint32_t barrier, int c0, int c1)
{
	asm volatile("cp.async.bulk.tensor.2d.shared::cta.global.tile.mbarrier::complete_tx::"
		     "bytes [%0], [%1, {%3,%4}], [%2];" ::"r"(to),
		     "l"(map), "r"(barrier), "r"(c0), "r"(c1)
		     : "memory");
}

static __device__ __forceinline__ void tma_load_3d(uint32_t to, const CUtensorMap *map,
						   uint32_t barrier, int c0, int c1, int c2)
{
	asm volatile("cp.async.bulk.tensor.3d.shared::cta.global.tile.mbarrier::complete_tx::"
		     "bytes [%0], [%1, {%3,%4,%5}], [%2];" ::"r"(to),
		     "l"(map), "r"(barrier), "r"(c0), "r"(c1), "r"(c2)
		     : "memory");
}

static __device__ __forceinline__ void tma_load_4d(uint32_t to, const CUtensorMap *map,
						   uint32_t barrier, int c0, int c1, int c2, int c3)
{
	asm volatile("cp.async.bulk.tensor.4d.shared::cta.global.tile.mbarrier::complete_tx::"
		     "bytes [%0], [%1, {%3,%4,%5,%6}], [%2];" ::"r"(to),
		     "l"(map), "r"(barrier), "r"(c0), "r"(c1), "r"(c2), "r"(c3)
		     : "memory");
}

static __device__ __forceinline__ void tma_load_5d(uint32_t to, const CUtensorMap *map,
						   uint32_t barrier, int c0, int c1, int c2, int c3,
						   int c4)
{
	asm volatile("cp.async.bulk.tensor.5d.shared::cta.global.tile.mbarrier::complete_tx::"
		     "bytes [%0], [%1, {%3,%4,%5,%6,%7}], [%2];" ::"r"(to),
		     "l"(map), "r"(barrier), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(c4)
		     : "memory");
}

/* cp.async.bulk.tensor.2d.global.shared::cta: the way back; parts outside are not written. */
static __device__ __forceinline__ void tma_store_2d(const CUtensorMap *map, uint32_t from, int c0,
						    int c1)
{
	asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group "
		     "[%0, {%2,%3}], [%1];" ::"l"(map),
		     "r"(from), "r"(c0), "r"(c1)
		     : "memory");
}

/* cp.async.bulk.commit_group */
static __device__ __forceinline__ void tma_store_commit(void)
{
	asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

/* cp.async.bulk.wait_group.read N: shared memory of all but the last N stores may be reused. */
template <int N> static __device__ __forceinline__ void tma_store_wait_read(void)
{
	asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(N) : "memory");
}

/* fence.proxy.async.shared::cta: own writes to shared memory, then copy engine or wgmma reads. */
static __device__ __forceinline__ void fence_proxy_async(void)
{
	asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* ------------------------------------------------------------------------------------ registers */

/* setmaxnreg.dec / .inc: registers per thread of the executing warpgroup. sm_90a, the sm_120 family. */
template <int N> static __device__ __forceinline__ void registers_give(void)
{
	asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

template <int N> static __device__ __forceinline__ void registers_take(void)
{
	asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}

/* Word j of lane c of four lanes becomes word c of lane j. */
static __device__ __forceinline__ void quad_transpose(uint32_t w[4])
{
	const bool odd = threadIdx.x & 1, high = threadIdx.x & 2;

#pragma unroll
	for (int i = 0; i < 4; i += 2) {
		const uint32_t got = __shfl_xor_sync(~0u, odd ? w[i] : w[i + 1], 1);

		w[i] = odd ? got : w[i];
		w[i + 1] = odd ? w[i + 1] : got;
	}
#pragma unroll
	for (int i = 0; i < 2; i++) {
		const uint32_t got = __shfl_xor_sync(~0u, high ? w[i] : w[i + 2], 2);

		w[i] = high ? got : w[i];
		w[i + 2] = high ? w[i + 2] : got;
	}
}

/* --------------------------------------------------------------------------- dependent launches */

/* griddepcontrol.wait: what the kernels before this one wrote is there. No effect without them. */
static __device__ __forceinline__ void dependency_wait(void)
{
	asm volatile("griddepcontrol.wait;" ::: "memory");
}

/* griddepcontrol.launch_dependents: the next kernel's blocks may start where there is room. */
static __device__ __forceinline__ void dependency_launch(void)
{
	asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}
