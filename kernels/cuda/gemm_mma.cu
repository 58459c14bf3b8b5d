/*
 * Matrix products for every target from sm_90 on: mma.sync, TMA without multicast, at most 99 KB of
 * shared memory. A block is persistent; rows of the tile are tokens, columns are output features.
 * All warps multiply, and take turns in feeding the ring: a warp more for that would leave each of
 * them 168 registers instead of 255. gemm.h has the formula.
 */
#include "kernels/cuda/gemm.cuh"

/*
 * 32 deep: rows of 64 bytes; the largest tile has 24 KB a stage, four of them. Two steps of
 * mma.sync per stage keep one set of fragments in use and one on its way.
 */
enum { DEPTH = 32, STEPS = DEPTH / 16, BARRIER_BYTES = 128 };

template <int TM, int TN> struct fragments {
	uint32_t a[TM / 16][4];
	uint32_t b[TN / 16][4];
};

/* Where this lane reads a fragment: this warp's first row of either tile, first 16 of K. */
struct fragment_rows {
	uint32_t a, b;
};

static __device__ __forceinline__ struct fragment_rows fragment_rows_at(uint32_t a, uint32_t b)
{
	const uint32_t lane = threadIdx.x % 32;

	return { a + swizzle_64(lane % 16, lane / 16),
		 b + swizzle_64(lane % 8 + lane / 16 * 8, lane / 8 % 2) };
}

/* Matrix i of a step's fragments: first those of a, then those of b. */
template <int TM, int TN>
static __device__ __forceinline__ void load_fragment(struct fragments<TM, TN> *f,
						     const struct fragment_rows *at, int i)
{
	constexpr int of_a = TM / 16;

	if (i < of_a)
		ldmatrix_x4(f->a[i], at->a + i * 16 * DEPTH * 2);
	else
		ldmatrix_x4(f->b[i - of_a], at->b + (i - of_a) * 16 * DEPTH * 2);
}

template <int TM, int TN>
static __device__ __forceinline__ void load_fragments(struct fragments<TM, TN> *f,
						      const struct fragment_rows *at)
{
#pragma unroll
	for (int i = 0; i < (TM + TN) / 16; i++)
		load_fragment(f, at, i);
}

/* d += f; meanwhile the next step's fragments come in, spread over the products. */
template <bool LOAD, int TM, int TN>
static __device__ __forceinline__ void
multiply(float (*d)[TN / 8][4], const struct fragments<TM, TN> *f, struct fragments<TM, TN> *next,
	 const struct fragment_rows *at)
{
	constexpr int loads = (TM + TN) / 16, products = TM / 16 * TN / 8;

#pragma unroll
	for (int i = 0; i < products; i++) {
		/* All of them in the first three quarters: the last one has time to arrive. */
		if (LOAD && i * loads % (products * 3 / 4) < loads &&
		    i * loads / (products * 3 / 4) < loads)
			load_fragment(next, at, i * loads / (products * 3 / 4));
		mma_bf16(d[i / (TN / 8)][i % (TN / 8)], f->a[i / (TN / 8)],
			 f->b[i % (TN / 8) / 2][i % 2 * 2], f->b[i % (TN / 8) / 2][i % 2 * 2 + 1]);
	}
}

/* The second 16 of K: the other half of a row's chunks. */
static __device__ __forceinline__ struct fragment_rows second_step(struct fragment_rows at)
{
	return { at.a ^ 32, at.b ^ 32 };
}

/* This warp has read the stage. */
static __device__ __forceinline__ void stage_read(struct gemm_ring *ring)
{
	__syncwarp();
	if (threadIdx.x % 32 == 0)
		mbarrier_arrive(ring->empty + 8 * ring->stage);
	gemm_ring_next(ring);
}

/*
 * The sum of one tile: `steps` stages of the ring. Each step loads the one stages − 2 after it, into
 * the stage that was read two steps ago, so that the loading warp does not wait for the others;
 * `turn` counts the steps until it is this warp's. a, b: offsets of this warp's rows in a stage.
 */
template <int WM, int WN, int TM, int TN>
static __device__ __forceinline__ void
accumulate(float (*d)[TN / 8][4], const struct gemm_params *p, struct gemm_ring *ring,
	   struct gemm_feed *feed, int *turn, int steps, const struct fragment_rows *rows_at)
{
	using shape = gemm_shape<WM * TM, WN * TN, DEPTH>;
	constexpr int bytes = shape::bytes;
	struct fragments<TM, TN> f[2];
	struct fragment_rows at;

#pragma unroll
	for (int i = 0; i < TM / 16; i++)
#pragma unroll
		for (int j = 0; j < TN / 8; j++)
#pragma unroll
			for (int e = 0; e < 4; e++)
				d[i][j][e] = 0;

	mbarrier_wait(ring->full + 8 * ring->stage, ring->parity);
	at = { rows_at->a + ring->stage * bytes, rows_at->b + ring->stage * bytes };
	load_fragments(&f[0], &at);
#pragma unroll 1
	for (int i = 1;; i++) {
		if (--*turn == 0) {
			gemm_feed_load<shape>(p, feed);
			gemm_feed_pass<shape>(p, feed, WM * WN);
			*turn = WM * WN;
		}
		at = second_step(at);
		multiply<true>(d, &f[0], &f[1], &at);
		stage_read(ring);
		if (i == steps)
			break;
		mbarrier_wait(ring->full + 8 * ring->stage, ring->parity);
		at = { rows_at->a + ring->stage * bytes, rows_at->b + ring->stage * bytes };
		multiply<true>(d, &f[1], &f[0], &at);
	}
	multiply<false>(d, &f[1], &f[0], &at);
}

/* ------------------------------------------------------------------------------------ epilogue */

static __device__ __forceinline__ float2 load_pair(const float *p, int column, int columns,
						   float otherwise)
{
	float2 v = make_float2(otherwise, otherwise);

	if (p && column < columns)
		v.x = p[column];
	if (p && column + 1 < columns)
		v.y = p[column + 1];
	return v;
}

/* v ← tensor + scale·v, two columns of a row. */
static __device__ __forceinline__ void add_pair(const void *tensor, int64_t at, float2 scale,
						float v[2])
{
	const uint32_t pair = *(const uint32_t *)((const uint16_t *)tensor + at);

	v[0] = bf16_low(pair) + scale.x * v[0];
	v[1] = bf16_high(pair) + scale.y * v[1];
}

/*
 * d: this warp's sums, its first row and column being row and column. Values stay where the products
 * left them until they are words of two; lanes then exchange these for 16 bytes of a row each.
 */
template <int EPILOGUE, int TM, int TN>
static __device__ __forceinline__ void finish(const struct gemm_params *p,
					      const struct gemm_part *part, float (*d)[TN / 8][4],
					      int row, int column)
{
	const int lane = threadIdx.x % 32, c = lane % 4;
	const float2 one = make_float2(1, 1);

	row += lane / 4;
#pragma unroll
	for (int g = 0; g < TN / 32; g++, column += 32) {
		float2 bias[4], gate[4];

#pragma unroll
		for (int j = 0; j < 4; j++) {
			bias[j] = load_pair(part->bias, column + 8 * j + 2 * c, part->out, 0);
			gate[j] = load_pair(part->gate, column + 8 * j + 2 * c, part->out, 1);
		}
#pragma unroll
		for (int i = 0; i < 2 * TM / 16; i++) {
			const int64_t at = row + i * 8;
			uint32_t word[4];

#pragma unroll
			for (int j = 0; j < 4; j++) {
				const int from = column + 8 * j + 2 * c;
				const bool valid = at < p->rows && from < part->out;
				float v[2] = { d[i / 2][4 * g + j][i % 2 * 2] + bias[j].x,
					       d[i / 2][4 * g + j][i % 2 * 2 + 1] + bias[j].y };

				if (EPILOGUE == GEMM_SILU) {
					v[0] = silu_approx(v[0]);
					v[1] = silu_approx(v[1]);
				}
				if (EPILOGUE == GEMM_RESIDUAL && valid) {
					if (part->inner)
						add_pair(part->inner, at * part->ld_inner + from,
							 one, v);
					add_pair(part->residual, at * part->ld_residual + from,
						 gate[j], v);
				}
				word[j] = bf16_pack(v[0], v[1]);
			}
			quad_transpose(word);
			if (at < p->rows && column + 8 * c < part->out)
				global_store_16((uint16_t *)part->y + at * part->ldy + column +
							8 * c,
						make_uint4(word[0], word[1], word[2], word[3]));
		}
	}
}

/* One value, by what the part says; rows may begin anywhere. */
static __device__ __forceinline__ void finish_one(const struct gemm_part *part, int64_t row,
						  int column, float v)
{
	float unused = 0;

	if (part->bias)
		v += part->bias[column];
	gemm_activate(part->activation, &v, &unused);
	if (part->inner)
		v += bf16_value(((const uint16_t *)part->inner)[row * part->ld_inner + column]);
	if (part->residual)
		v = bf16_value(
			    ((const uint16_t *)part->residual)[row * part->ld_residual + column]) +
		    (part->gate ? part->gate[column] : 1.0f) * v;
	if (part->y_is_float)
		((float *)part->y)[row * part->ldy + column] = v;
	else
		((uint16_t *)part->y)[row * part->ldy + column] = bf16_bits(v);
}

template <int TM, int TN>
static __device__ __forceinline__ void finish_any(const struct gemm_params *p,
						  const struct gemm_part *part,
						  float (*d)[TN / 8][4], int row, int column)
{
	row += threadIdx.x % 32 / 4;
	column += threadIdx.x % 4 * 2;
#pragma unroll
	for (int i = 0; i < TM / 16; i++)
#pragma unroll
		for (int j = 0; j < TN / 8; j++)
#pragma unroll
			for (int e = 0; e < 4; e++) {
				const int n = row + 16 * i + e / 2 * 8, o = column + 8 * j + e % 2;

				if (n < p->rows && o < part->out)
					finish_one(part, n, o, d[i][j][e]);
			}
}

/* -------------------------------------------------------------------------------------- kernels */

template <int EPILOGUE, int WM, int WN, int TM, int TN>
static __device__ __forceinline__ void gemm(const struct gemm_params *p)
{
	constexpr int rows = WM * TM, columns = WN * TN, warps = WM * WN;
	using shape = gemm_shape<rows, columns, DEPTH>;
	constexpr int bytes = shape::bytes;
	extern __shared__ __align__(1024) uint8_t shared[];
	const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0);
	struct gemm_ring ring = {
		.data = shared_address(shared),
		.full = shared_address(shared) + p->stages * bytes,
		.empty = shared_address(shared) + p->stages * bytes + 8 * p->stages,
		.stages = p->stages,
		.stage = 0,
		.parity = 0,
	};
	const int row = warp % WM * TM, column = warp / WM * TN;
	const struct fragment_rows rows_at = fragment_rows_at(
		ring.data + row * DEPTH * 2, ring.data + (rows + column) * DEPTH * 2);
	struct gemm_feed feed;
	int turn = warp + 1;

	static_assert(4 * bytes + BARRIER_BYTES <= 99 * 1024, "four stages on sm_120");
	if (threadIdx.x == 0)
		gemm_ring_init(&ring, warps);
	__syncthreads();
	dependency_wait();
	dependency_launch();

	gemm_feed_init<shape>(p, &ring, &feed);
	for (int i = 0; i < p->stages - 2; i++) {
		if (warp == 0)
			gemm_feed_load<shape>(p, &feed);
		gemm_feed_pass<shape>(p, &feed, 1);
	}
	gemm_feed_pass<shape>(p, &feed, warp);
	for (int i = blockIdx.x; i < p->tiles; i += gridDim.x) {
		const struct gemm_tile t = gemm_tile_at<shape>(p, i);
		const struct gemm_part *part = &p->part[t.part];
		float d[TM / 16][TN / 8][4];

		accumulate<WM, WN, TM, TN>(d, p, &ring, &feed, &turn, gemm_steps(p, &t, DEPTH),
					   &rows_at);
		if (EPILOGUE == GEMM_ANY)
			finish_any<TM, TN>(p, part, d, t.row + row, t.column + column);
		else
			finish<EPILOGUE, TM, TN>(p, part, d, t.row + row, t.column + column);
	}
}

/* name, warps along rows and columns, rows and columns of a warp, blocks on one SM */
#define GEMM_KERNEL(name, epilogue, WM, WN, TM, TN, BLOCKS)                    \
	extern "C" __global__ void __launch_bounds__(32 * (WM) * (WN), BLOCKS) \
		name(const __grid_constant__ struct gemm_params params)        \
	{                                                                      \
		gemm<epilogue, WM, WN, TM, TN>(&params);                       \
	}
#define GEMM_KERNELS(name, ...)                          \
	GEMM_KERNEL(name, GEMM_PLAIN, __VA_ARGS__)       \
	GEMM_KERNEL(name##_silu, GEMM_SILU, __VA_ARGS__) \
	GEMM_KERNEL(name##_residual, GEMM_RESIDUAL, __VA_ARGS__)

GEMM_KERNELS(gemm_mma_128x256, 2, 4, 64, 64, 1)
GEMM_KERNELS(gemm_mma_128x192, 4, 2, 32, 96, 1)
GEMM_KERNELS(gemm_mma_128x128, 2, 2, 64, 64, 2)
GEMM_KERNELS(gemm_mma_128x96, 4, 1, 32, 96, 2)
GEMM_KERNEL(gemm_mma_128x128_any, GEMM_ANY, 2, 2, 64, 64, 2)
GEMM_KERNEL(gemm_mma_64x64_any, GEMM_ANY, 2, 2, 32, 32, 3)
