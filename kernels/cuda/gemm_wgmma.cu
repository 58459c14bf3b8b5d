/*
 * Matrix products for sm_90a: wgmma, a loading warpgroup and three that multiply, persistent.
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
	/* A warp's 16 features of 16 tokens, on their way out. */
	PATCH_TOKENS = 16,
	PATCH_BYTES = PATCH_TOKENS * 16 * 2,
	PATCHES = 4 * GROUPS,
	THREADS = 128 * (GROUPS + 1),
	/* 3·160 + 32 = 512 = 65536 / 128 */
	LOADER_REGISTERS = 32,
	WORKER_REGISTERS = 160,
};

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

/* Where this lane's 16 bytes of a patch are in a row-major tensor, or NULL outside of it. */
static __device__ __forceinline__ int64_t lane_offset(int64_t ld, int token, int feature)
{
	return (token + threadIdx.x % 32 / 2) * ld + feature + threadIdx.x % 2 * 8;
}

/* From a tensor's layout to the accumulator's: w[2i], w[2i+1] are features 0…7 and 8…15. */
static __device__ __forceinline__ void patch_load(uint32_t patch, uint4 v, uint32_t w[4])
{
	__syncwarp();
	shared_store_16(patch + patch_chunk(), v);
	__syncwarp();
	ldmatrix_x4_trans(w, patch + patch_matrix());
}

static __device__ __forceinline__ uint4 patch_store(uint32_t patch, const uint32_t w[4])
{
	__syncwarp();
	stmatrix_x4_trans(patch + patch_matrix(), w);
	__syncwarp();
	return shared_load_16(patch + patch_chunk());
}

/* v ← v + scale·other, or other + scale·v */
static __device__ __forceinline__ void add_patch(uint32_t patch, uint4 other, float v[8])
{
	uint32_t w[4];

	patch_load(patch, other, w);
#pragma unroll
	for (int i = 0; i < 4; i++) {
		v[2 * i] += bf16_low(w[i]);
		v[2 * i + 1] += bf16_high(w[i]);
	}
}

/*
 * A warp's sums of 16 features (from `feature`) and all tokens of the tile (from `token`): word i of
 * a patch has two tokens of one feature, as the accumulator has.
 */
template <int EPILOGUE>
static __device__ __forceinline__ void finish(const struct gemm_params *p,
					      const struct gemm_part *part, float d[TOKENS / 2],
					      int token, int feature, uint32_t patch)
{
	const int lane = threadIdx.x % 32, row = feature + lane / 4;
	const bool in = feature + lane % 2 * 8 < part->out;
	float bias[2] = { 0, 0 }, gate[2] = { 1, 1 };

#pragma unroll
	for (int h = 0; h < 2; h++) {
		if (part->bias && row + 8 * h < part->out)
			bias[h] = part->bias[row + 8 * h];
		if (part->gate && row + 8 * h < part->out)
			gate[h] = part->gate[row + 8 * h];
	}
#pragma unroll
	for (int j = 0; j < TOKENS / PATCH_TOKENS; j++, token += PATCH_TOKENS) {
		const bool valid = in && token + lane / 2 < p->rows;
		float *v = d + 8 * j;
		uint4 inner = {}, residual = {};
		uint32_t w[4];

		if (EPILOGUE == GEMM_RESIDUAL && part->inner && valid)
			inner = global_load_16((const uint16_t *)part->inner +
					       lane_offset(part->ld_inner, token, feature));
		if (EPILOGUE == GEMM_RESIDUAL && valid)
			residual = global_load_16((const uint16_t *)part->residual +
						  lane_offset(part->ld_residual, token, feature));
#pragma unroll
		for (int i = 0; i < 4; i++) {
			v[2 * i] += bias[i % 2];
			v[2 * i + 1] += bias[i % 2];
			if (EPILOGUE == GEMM_SILU)
				gemm_activate(1, &v[2 * i], &v[2 * i + 1]);
		}
		if (EPILOGUE == GEMM_RESIDUAL && part->inner)
			add_patch(patch, inner, v);
		if (EPILOGUE == GEMM_RESIDUAL) {
#pragma unroll
			for (int i = 0; i < 8; i++)
				v[i] *= gate[i / 2 % 2];
			add_patch(patch, residual, v);
		}
#pragma unroll
		for (int i = 0; i < 4; i++)
			w[i] = bf16_pack(v[2 * i], v[2 * i + 1]);
		residual = patch_store(patch, w);
		if (valid)
			global_store_16((uint16_t *)part->y +
						lane_offset(part->ldy, token, feature),
					residual);
	}
}

/* One warpgroup's 64 features of a tile. Feeds the ring, unless a warpgroup of its own does. */
template <bool LOADER>
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
		for (int k = 0; k < DEPTH / 16; k++) {
			const int keep = i > 0 || k > 0;

			if (LOADER) {
				wgmma_ss_120(d, a + 2 * k, b + 2 * k, keep);
				wgmma_ss_120(d + 60, a + 2 * k, b + 120 * 128 / 16 + 2 * k, keep);
			} else {
				wgmma_ss_240(d, a + 2 * k, b + 2 * k, keep);
			}
		}
		wgmma_commit();
		wgmma_wait<1>();
		if (i > 0 && threadIdx.x % 32 == 0)
			mbarrier_arrive(before);
		if (!LOADER && warp == 0)
			gemm_feed_load<TOKENS, FEATURES, DEPTH>(p, feed);
		if (!LOADER)
			gemm_feed_next<TOKENS, FEATURES, DEPTH, STAGES>(p, feed);
		before = ring->empty + 8 * ring->stage;
		gemm_ring_next<STAGES>(ring);
	}
	wgmma_wait<0>();
	if (threadIdx.x % 32 == 0)
		mbarrier_arrive(before);
}

template <bool LOADER, int EPILOGUE>
static __device__ __forceinline__ void work(const struct gemm_params *p, struct gemm_ring *ring,
					    struct gemm_feed *feed, uint32_t patch)
{
	const int group = __shfl_sync(~0u, threadIdx.x / 128, 0);

	for (int i = blockIdx.x; i < p->tiles; i += gridDim.x) {
		const struct gemm_tile t = gemm_tile_at(p, i, TOKENS, FEATURES);
		float d[TOKENS / 2];

		accumulate<LOADER>(d, p, ring, feed, gemm_steps(p, &t, DEPTH),
				   X_BYTES + group * 64 * DEPTH * 2);
		finish<EPILOGUE>(p, &p->part[t.part], d, t.row,
				 t.column + group * 64 + threadIdx.x % 128 / 32 * 16, patch);
	}
}

template <bool LOADER, int EPILOGUE>
static __device__ __forceinline__ void gemm(const struct gemm_params *p)
{
	extern __shared__ __align__(1024) uint8_t shared[];
	const uint32_t base = shared_address(shared);
	struct gemm_ring ring = {
		.data = base,
		.full = base + STAGES * STAGE_BYTES,
		.empty = base + STAGES * STAGE_BYTES + 8 * STAGES,
		.stage = 0,
		.parity = 0,
	};
	const uint32_t patch = base + STAGES * STAGE_BYTES + 128 + threadIdx.x / 32 * PATCH_BYTES;
	struct gemm_feed feed;

	if (threadIdx.x == 0)
		gemm_ring_init<STAGES>(&ring, 4 * GROUPS);
	__syncthreads();
	dependency_wait();
	dependency_launch();

	gemm_feed_init<TOKENS, FEATURES>(p, &ring, &feed);
	if (LOADER && threadIdx.x >= 128 * GROUPS) {
		registers_give<LOADER_REGISTERS>();
		while (threadIdx.x < 128 * GROUPS + 32 && feed.index < p->tiles) {
			gemm_feed_load<TOKENS, FEATURES, DEPTH>(p, &feed);
			gemm_feed_next<TOKENS, FEATURES, DEPTH, STAGES>(p, &feed);
		}
	} else {
		if (LOADER)
			registers_take<WORKER_REGISTERS>();
		for (int i = 0; !LOADER && i < STAGES - 1; i++) {
			if (threadIdx.x < 32)
				gemm_feed_load<TOKENS, FEATURES, DEPTH>(p, &feed);
			gemm_feed_next<TOKENS, FEATURES, DEPTH, STAGES>(p, &feed);
		}
		work<LOADER, EPILOGUE>(p, &ring, &feed, patch);
	}
}

#define GEMM_KERNEL(name, loader, epilogue)                                        \
	extern "C" __global__ void __launch_bounds__(128 * (GROUPS + (loader)), 1) \
		name(const __grid_constant__ struct gemm_params params)            \
	{                                                                          \
		gemm<loader, epilogue>(&params);                                   \
	}

GEMM_KERNEL(gemm_wgmma_240x192, false, GEMM_PLAIN)
GEMM_KERNEL(gemm_wgmma_240x192_silu, false, GEMM_SILU)
GEMM_KERNEL(gemm_wgmma_240x192_residual, false, GEMM_RESIDUAL)
