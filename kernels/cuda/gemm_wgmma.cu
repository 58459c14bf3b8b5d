/*
 * Matrix products for sm_90a: wgmma by three warpgroups, persistent; one of the warps also feeds the
 * ring, since 240 columns of sums leave no registers for a thirteenth warp.
 *
 * The product is made transposed: rows of the tensor tile are output features, columns are tokens.
 * 192 features by 240 tokens fit the model's shapes: 2640 tokens are 11 tiles, so that 2240, 8960
 * and 13440 outputs are 1, 4 and 5.83 rounds of 132 SMs. Fragments are turned back through shared
 * memory on their way out. gemm.h has the formula.
 */
#include "kernels/cuda/gemm.cuh"
#include "kernels/cuda/wgmma.cuh"

enum {
	TOKENS = 240,
	FEATURES = 192,
	GROUPS = FEATURES / 64,
	DEPTH = 64, /* rows of 128 bytes */
	STAGES = 4, /* of 54 KB: 216 of 227 KB */
	X_BYTES = TOKENS * DEPTH * 2,
	STAGE_BYTES = (TOKENS + FEATURES) * DEPTH * 2,
	BARRIER_BYTES = 64,
	FEED_BYTES = 64,
	/* A warp's 16 features of 16 tokens, on their way out. */
	PATCH_TOKENS = 16,
	PATCH_BYTES = PATCH_TOKENS * 16 * 2,
	PATCHES = TOKENS / PATCH_TOKENS,
	/* A row of `inner` or `residual` in a stage: one warpgroup's features. */
	OTHER_ROW = 64 * 2,
};

template <int EPILOGUE>
using shape_of = gemm_shape<TOKENS, FEATURES, DEPTH, gemm_others<EPILOGUE>, 64>;

/* Token rows of 32 bytes, halves exchanged every four rows against bank conflicts. */
static __device__ __forceinline__ uint32_t patch_at(uint32_t token, uint32_t half)
{
	return token * 32 + ((half ^ (token >> 2 & 1)) << 4);
}

static __device__ __forceinline__ uint32_t patch_matrix(void)
{
	const uint32_t lane = threadIdx.x % 32;

	return patch_at(lane / 16 * 8 + lane % 8, lane / 8 % 2);
}

static __device__ __forceinline__ uint32_t patch_chunk(void)
{
	return patch_at(threadIdx.x % 32 / 2, threadIdx.x % 2);
}

static __device__ __forceinline__ uint4 patch_store(uint32_t patch, const uint32_t w[4])
{
	__syncwarp();
	stmatrix_x4_trans(patch + patch_matrix(), w);
	__syncwarp();
	return shared_load_16(patch + patch_chunk());
}

/* A lane's 16 bytes of every patch: their row, and how many rows are left. */
struct lane_rows {
	char *y;
	int left;
};

static __device__ __forceinline__ struct lane_rows
lane_rows_at(const struct gemm_params *p, const struct gemm_part *part, int token, int feature)
{
	struct lane_rows at;

	token += threadIdx.x % 32 / 2;
	feature += threadIdx.x % 2 * 8;
	at.y = (char *)part->y + 2 * (token * part->ldy + feature);
	at.left = feature < part->out ? p->rows - token : 0;
	return at;
}

/*
 * A warp's sums of 16 features (from `feature`) and all tokens of the tile (from `token`): word i of
 * a patch has two tokens of one feature, as the accumulator has. other: this lane's row of the first
 * patch of `inner` and of `residual`.
 */
template <int EPILOGUE>
static __device__ __forceinline__ void
finish(const struct gemm_params *p, const struct gemm_part *part, float d[TOKENS / 2], int token,
       int feature, uint32_t patch, const uint32_t other[2])
{
	const int row = feature + threadIdx.x % 32 / 4;
	const struct lane_rows at = lane_rows_at(p, part, token, feature);
	const float one[2] = { 1, 1 };
	float bias[2] = { 0, 0 }, gate[2] = { 1, 1 };

#pragma unroll
	for (int h = 0; h < 2; h++) {
		if (EPILOGUE != GEMM_TEMPORAL && part->bias && row + 8 * h < part->out)
			bias[h] = part->bias[row + 8 * h];
		if (part->gate && row + 8 * h < part->out)
			gate[h] = part->gate[row + 8 * h];
	}
#pragma unroll
	for (int j = 0; j < PATCHES; j++) {
		float *v = d + 8 * j;
		uint32_t w[4];
		uint4 result;

#pragma unroll
		for (int i = 0; i < 4; i++) {
			if (EPILOGUE != GEMM_TEMPORAL) {
				v[2 * i] += bias[i % 2];
				v[2 * i + 1] += bias[i % 2];
			}
			if (EPILOGUE == GEMM_SILU) {
				v[2 * i] = silu_approx(v[2 * i]);
				v[2 * i + 1] = silu_approx(v[2 * i + 1]);
			}
		}
		if (EPILOGUE == GEMM_TEMPORAL)
			gemm_add_other(other[0] + j * PATCH_TOKENS * OTHER_ROW, one, v);
		if (gemm_others<EPILOGUE>)
			gemm_add_other(other[1] + j * PATCH_TOKENS * OTHER_ROW, gate, v);
#pragma unroll
		for (int i = 0; i < 4; i++)
			w[i] = bf16_pack(v[2 * i], v[2 * i + 1]);
		result = patch_store(patch, w);
		if (at.left > j * PATCH_TOKENS)
			global_store_16(at.y + 2 * PATCH_TOKENS * j * part->ldy, result);
	}
}

/* This warp has read the stage. */
static __device__ __forceinline__ void stage_read(uint32_t empty)
{
	if (threadIdx.x % 32 == 0)
		mbarrier_arrive(empty);
}

/* One warpgroup's 64 features of a tile; the first warp of all feeds the ring. */
template <class S>
static __device__ __forceinline__ void accumulate(float d[TOKENS / 2], const struct gemm_params *p,
						  struct gemm_ring *ring, struct gemm_feed *feed,
						  int steps, uint32_t features)
{
	const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0);
	uint32_t before = 0;

	for (int i = 0; i < steps; i++) {
		const uint32_t stage = ring->data + ring->stage * STAGE_BYTES;
		const uint64_t a = wgmma_descriptor(stage + features);
		const uint64_t b = wgmma_descriptor(stage);

		mbarrier_wait(ring->full + 8 * ring->stage, ring->parity);
		wgmma_fence();
#pragma unroll
		for (int k = 0; k < DEPTH / 16; k++)
			wgmma_ss_240(d, a + 2 * k, b + 2 * k, i > 0 || k > 0);
		wgmma_commit();
		wgmma_wait<1>();
		if (i > 0)
			stage_read(before);
		if (warp == 0)
			gemm_feed_step<S>(p, feed, 1);
		before = ring->empty + 8 * ring->stage;
		gemm_ring_next(ring);
	}
	wgmma_wait<0>();
	stage_read(before);
}

/* finish, with the steps of other tensors: each is the features of one warpgroup along them. */
template <int EPILOGUE>
static __device__ __forceinline__ void
finish_others(const struct gemm_params *p, const struct gemm_part *part, float d[TOKENS / 2],
	      int token, int feature, uint32_t patch, struct gemm_ring *ring,
	      struct gemm_feed *feed)
{
	const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
	const uint32_t lane_at = swizzle_128(lane / 16 * 8 + lane % 8, warp % 4 * 2 + lane / 8 % 2);

#pragma unroll 1
	for (int i = 0; i < GROUPS; i++) {
		uint32_t other[2] = { 0, 0 }, empty[2];

		if (warp == 0)
			gemm_feed_step<shape_of<EPILOGUE>>(p, feed, 1);
#pragma unroll
		for (int o = 2 - gemm_others<EPILOGUE>; o < 2; o++) {
			mbarrier_wait(ring->full + 8 * ring->stage, ring->parity);
			other[o] = ring->data + ring->stage * STAGE_BYTES + lane_at;
			empty[o] = ring->empty + 8 * ring->stage;
			gemm_ring_next(ring);
		}
		if (i == warp / 4)
			finish<EPILOGUE>(p, part, d, token, feature, patch, other);
		__syncwarp();
#pragma unroll
		for (int o = 2 - gemm_others<EPILOGUE>; o < 2; o++)
			stage_read(empty[o]);
		/* Of two steps, the second one's load waits for the first to be read. */
		if (warp == 0 && gemm_others<EPILOGUE> == 2)
			gemm_feed_step<shape_of<EPILOGUE>>(p, feed, 1);
	}
}

template <int EPILOGUE> static __device__ __forceinline__ void gemm(const struct gemm_params *p)
{
	using shape = shape_of<EPILOGUE>;
	extern __shared__ __align__(1024) uint8_t shared[];
	const uint32_t base = shared_address(shared), barriers = base + STAGES * STAGE_BYTES;
	const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0);
	const uint32_t patch = barriers + BARRIER_BYTES + FEED_BYTES + warp * PATCH_BYTES;
	/* Of the loading warp; in registers it would cost all the others too. */
	struct gemm_feed *feed =
		(struct gemm_feed *)(shared + STAGES * STAGE_BYTES + BARRIER_BYTES);
	struct gemm_ring ring = {
		.data = base,
		.full = barriers,
		.empty = barriers + 8 * STAGES,
		.stages = STAGES,
		.stage = 0,
		.parity = 0,
	};

	static_assert(sizeof(*feed) <= FEED_BYTES, "room for the feed");
	if (threadIdx.x == 0)
		gemm_ring_init(&ring, 4 * GROUPS);
	__syncthreads();
	dependency_wait();
	dependency_launch();

	if (warp == 0) {
		struct gemm_feed begin;

		gemm_feed_init<shape>(p, &ring, &begin);
		gemm_feed_keep(feed, &begin);
		for (int i = 0; i < STAGES - 1; i++)
			gemm_feed_step<shape>(p, feed, 1);
	}
	for (int i = blockIdx.x; i < p->tiles; i += gridDim.x) {
		const struct gemm_tile t = gemm_tile_at<shape>(p, i);
		const struct gemm_part *part = &p->part[t.part];
		const uint32_t none[2] = { 0, 0 };
		float d[TOKENS / 2];

		accumulate<shape>(d, p, &ring, feed, gemm_steps(p, &t, DEPTH),
				  X_BYTES + warp / 4 * 64 * DEPTH * 2);
		if (shape::others)
			finish_others<EPILOGUE>(p, part, d, t.row, t.column + warp * 16, patch,
						&ring, feed);
		else
			finish<EPILOGUE>(p, part, d, t.row, t.column + warp * 16, patch, none);
	}
}

#define GEMM_KERNEL(name, epilogue)                                     \
	extern "C" __global__ void __launch_bounds__(128 * GROUPS, 1)   \
		name(const __grid_constant__ struct gemm_params params) \
	{                                                               \
		gemm<epilogue>(&params);                                \
	}

GEMM_KERNEL(gemm_wgmma_240x192, GEMM_PLAIN)
GEMM_KERNEL(gemm_wgmma_240x192_silu, GEMM_SILU)
GEMM_KERNEL(gemm_wgmma_240x192_residual, GEMM_RESIDUAL)
GEMM_KERNEL(gemm_wgmma_240x192_temporal, GEMM_TEMPORAL)
