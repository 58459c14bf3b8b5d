/*
 * Tensor products of a warpgroup (four warps, the first one's index a multiple of four), which only
 * sm_90a has. Code that calls these is compiled for other targets as a trap and must not be
 * launched there.
 *
 * Fragment of the accumulator, m64nN: d[4j + …] belongs to columns 8j…8j+7; warp w of the group has
 * rows 16w…16w+15, lane l as in mma_bf16: d[4j] d[4j+1] row l/4, columns 8j + 2(l%4), +1;
 * d[4j+2] d[4j+3] the same columns, row l/4 + 8.
 */
#pragma once

#include "kernels/cuda/mma.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define WGMMA_ASM(...) asm volatile(__VA_ARGS__)
#else
#define WGMMA_ASM(...) __trap()
#endif

/* wgmma.fence.sync.aligned: before the first product, and after registers were written. */
static __device__ __forceinline__ void wgmma_fence(void)
{
	WGMMA_ASM("wgmma.fence.sync.aligned;" ::: "memory");
}

/* wgmma.commit_group.sync.aligned */
static __device__ __forceinline__ void wgmma_commit(void)
{
	WGMMA_ASM("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* wgmma.wait_group.sync.aligned N: all but the last N groups are done. */
template <int N> static __device__ __forceinline__ void wgmma_wait(void)
{
	WGMMA_ASM("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

/*
 * Matrix descriptor of a tile of rows of 128 bytes (64 BF16, K contiguous) in the 128-byte swizzle,
 * at a multiple of 1024: groups of 8 rows are 1024 bytes apart. The next 16 of K are 32 bytes on:
 * add 2 to the descriptor.
 */
static __device__ __forceinline__ uint64_t wgmma_descriptor(uint32_t tile)
{
	return (uint64_t)((tile & 0x3ffff) >> 4) | (uint64_t)1 << 16 | (uint64_t)(1024 >> 4) << 32 |
	       (uint64_t)1 << 62;
}

#define WGMMA_D0 "%0,%1,%2,%3,%4,%5,%6,%7"
#define WGMMA_D8 "%8,%9,%10,%11,%12,%13,%14,%15"
#define WGMMA_D16 WGMMA_D0 "," WGMMA_D8
#define WGMMA_D32 WGMMA_D16 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define WGMMA_D48 WGMMA_D32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#define WGMMA_D56 WGMMA_D48 ",%48,%49,%50,%51,%52,%53,%54,%55"
#define WGMMA_D60 WGMMA_D56 ",%56,%57,%58,%59"
#define WGMMA_D64 WGMMA_D56 ",%56,%57,%58,%59,%60,%61,%62,%63"
#define WGMMA_D80 WGMMA_D64 ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79"
#define WGMMA_D88 WGMMA_D80 ",%80,%81,%82,%83,%84,%85,%86,%87"
#define WGMMA_D96 WGMMA_D80 ",%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
#define WGMMA_D112 \
	WGMMA_D96  \
	",%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111"
#define WGMMA_D120 WGMMA_D112 ",%112,%113,%114,%115,%116,%117,%118,%119"
#define WGMMA_D128 WGMMA_D120 ",%120,%121,%122,%123,%124,%125,%126,%127"

#define WGMMA_F8(i)                                                                 \
	"+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), \
		"+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define WGMMA_F16(i) WGMMA_F8(i), WGMMA_F8(i + 8)
#define WGMMA_F32(i) WGMMA_F16(i), WGMMA_F16(i + 16)
#define WGMMA_F56 WGMMA_F32(0), WGMMA_F16(32), WGMMA_F8(48)
#define WGMMA_F60 WGMMA_F56, "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59])
#define WGMMA_F64 WGMMA_F32(0), WGMMA_F32(32)
#define WGMMA_F88 WGMMA_F64, WGMMA_F16(64), WGMMA_F8(80)
#define WGMMA_F96 WGMMA_F64, WGMMA_F32(64)
#define WGMMA_F120 WGMMA_F96, WGMMA_F16(96), WGMMA_F8(112)
#define WGMMA_F128 WGMMA_F96, WGMMA_F32(96)

/*
 * wgmma.mma_async.sync.aligned.m64nNk16.f32.bf16.bf16, both factors K-contiguous:
 * wgmma_ss_N(d, a, b, keep): d ← a·bᵀ + (keep ? d : 0), factors by descriptor;
 * wgmma_rs_N(d, a, b, keep): the left factor in registers, as in mma_bf16.
 */
#define WGMMA_DEFINE(N, COUNT, LIST, R0, R1, R2, R3, R4, R5, ...)                                \
	static __device__ __forceinline__ void wgmma_ss_##N(float d[COUNT], uint64_t a,          \
							    uint64_t b, int keep)                \
	{                                                                                        \
		WGMMA_ASM("{\n.reg .pred p;\nsetp.ne.b32 p, " R2 ", 0;\n"                        \
			  "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" LIST      \
			  "}, " R0 ", " R1 ", p, 1, 1, 0, 0;\n}\n"                               \
			  : __VA_ARGS__                                                          \
			  : "l"(a), "l"(b), "r"(keep));                                          \
	}                                                                                        \
	static __device__ __forceinline__ void wgmma_rs_##N(float d[COUNT], const uint32_t a[4], \
							    uint64_t b, int keep)                \
	{                                                                                        \
		WGMMA_ASM("{\n.reg .pred p;\nsetp.ne.b32 p, " R5 ", 0;\n"                        \
			  "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" LIST      \
			  "}, {" R0 "," R1 "," R2 "," R3 "}, " R4 ", p, 1, 1, 0;\n}\n"           \
			  : __VA_ARGS__                                                          \
			  : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keep));      \
	}

WGMMA_DEFINE(64, 32, WGMMA_D32, "%32", "%33", "%34", "%35", "%36", "%37", WGMMA_F32(0))
WGMMA_DEFINE(112, 56, WGMMA_D56, "%56", "%57", "%58", "%59", "%60", "%61", WGMMA_F56)
WGMMA_DEFINE(120, 60, WGMMA_D60, "%60", "%61", "%62", "%63", "%64", "%65", WGMMA_F60)
WGMMA_DEFINE(128, 64, WGMMA_D64, "%64", "%65", "%66", "%67", "%68", "%69", WGMMA_F64)
WGMMA_DEFINE(176, 88, WGMMA_D88, "%88", "%89", "%90", "%91", "%92", "%93", WGMMA_F88)
WGMMA_DEFINE(192, 96, WGMMA_D96, "%96", "%97", "%98", "%99", "%100", "%101", WGMMA_F96)
WGMMA_DEFINE(240, 120, WGMMA_D120, "%120", "%121", "%122", "%123", "%124", "%125", WGMMA_F120)
WGMMA_DEFINE(256, 128, WGMMA_D128, "%128", "%129", "%130", "%131", "%132", "%133", WGMMA_F128)

/*
 * Matrix descriptor of the transposed kind: rows of 128 bytes hold 64 columns (N contiguous), one row for
 * each of K, in the 128-byte swizzle; the next 64 columns are `block` bytes on. The next 16 of K are
 * 2048 bytes on: add 128 to the descriptor.
 */
static __device__ __forceinline__ uint64_t wgmma_descriptor_columns(uint32_t tile, uint32_t block)
{
	return (uint64_t)((tile & 0x3ffff) >> 4) | (uint64_t)(block >> 4) << 16 |
	       (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}

/* wgmma_rs_112 with the right factor N-contiguous: d ← a·b + d. */
static __device__ __forceinline__ void wgmma_rs_columns_112(float d[56], const uint32_t a[4],
							    uint64_t b)
{
	WGMMA_ASM("wgmma.mma_async.sync.aligned.m64n112k16.f32.bf16.bf16 {" WGMMA_D56
		  "}, {%56,%57,%58,%59}, %60, 1, 1, 1, 1;\n"
		  : WGMMA_F56
		  : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
