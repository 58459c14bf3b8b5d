/*
 * Matrix products for every target from sm_90 on, like gemm_mma.cu, with tiles that fit the model:
 * 240 tokens by 192 features, since 2640 tokens are 11·240. Outputs of 2240 and 8960 are then 1 and 4
 * rounds of 132 multiprocessors; of 13440, 5.83, the last tiles are shorter, 13 along the tokens. A
 * temporal convolution has tiles by frames (gemm.h). The product is made transposed, rows of the tensor tile
 * being features: 48 of them by 120 tokens are a warp's, which reads less shared memory for each
 * product than 64 by 64. gemm.h has the formula.
 *
 * A warp of its own loads, in a warpgroup that gives its registers to the two that multiply. What the
 * epilogue adds (`inner`, `residual`) comes through the ring too, as steps after the last of K, so it
 * is there when the sums are.
 */
#include "kernels/cuda/gemm.cuh"

enum {
	TOKENS = 240,
	FEATURES = 192,
	DEPTH = 32, /* rows of 64 bytes */
	ALONG_FEATURES = 4,
	WARPS = 8, /* that multiply */
	/* A warpgroup more, of which one warp loads. A block begins with 3·168. */
	THREADS = 32 * WARPS + 128,
	LOADING_REGISTERS = 24,
	REGISTERS = 240,
	WARP_FEATURES = FEATURES / ALONG_FEATURES,
	M = WARP_FEATURES / 16,
	AHEAD = 2, /* groups loaded before their products */
	BARRIER_BYTES = 128,
	/* A row of `inner` or `residual` in a stage: one warp's features. */
	OTHER_ROW = WARP_FEATURES * 2,
	/* Sixteen tokens on their way out: rows of seven chunks, so that eight rows meet all banks. */
	PATCH_ROW = OTHER_ROW + 16,
	PATCH_BYTES = 16 * PATCH_ROW,
	CHUNKS = OTHER_ROW / 16,	 /* of 16 bytes, of a row */
	PATCH_CHUNKS = 16 * CHUNKS / 32, /* of a lane */
};

static_assert(3 * (TOKENS + FEATURES) * DEPTH * 2 + BARRIER_BYTES + WARPS * PATCH_BYTES <=
		      99 * 1024,
	      "three stages on sm_120");
static_assert((int)GEMM_240_MORE == (int)WARPS * PATCH_BYTES, "what the launcher adds");
static_assert((int)GEMM_240_OTHER == (int)WARP_FEATURES, "the launcher's box of other tensors");

/*
 * A warp's sums are 48 features by 8·N tokens. Sixteen tokens are one ldmatrix, a group; the last eight
 * one by half where N is odd.
 */
template <int N> constexpr int groups = (N + 1) / 2;
/* Groups in registers. */
template <int N> constexpr int ring_of = groups<N> % 4 == 1 ? 5 : 4;

/* The next step's first groups come in before the products of this one's last, into other places. */
template <int N> constexpr bool ring_holds(void)
{
	for (int next = 0; next < AHEAD; next++)
		for (int g = groups<N> - AHEAD + next; g < groups<N>; g++)
			if (g % ring_of<N> == next)
				return false;
	return groups<N> >= M + 2;
}

template <int EPILOGUE>
using shape_of = gemm_shape<TOKENS, FEATURES, DEPTH, gemm_others<EPILOGUE>, WARP_FEATURES,
			    EPILOGUE == GEMM_TEMPORAL ? 0 : GEMM_240_SHORT>;
template <int EPILOGUE>
using frames_of = gemm_shape<GEMM_FRAMES_TOKENS, FEATURES, DEPTH, gemm_others<EPILOGUE>,
			     WARP_FEATURES, GEMM_FRAMES_SHORT>;

static_assert((TOKENS + 8) * OTHER_ROW <= shape_of<GEMM_TEMPORAL>::bytes &&
		      (GEMM_FRAMES_SHORT + 8) * OTHER_ROW <= frames_of<GEMM_TEMPORAL>::bytes,
	      "half a group past the end is read");

/* ------------------------------------------------------------------------------------ products */

/* Where this lane reads fragments: of the warp's features and of its tokens. */
struct fragment_rows {
	uint32_t w, x;
};

template <int N> struct fragments {
	static_assert(ring_holds<N>(), "a group in another's place");
	uint32_t w[2][M][4]; /* of this step and of the next */
	uint32_t x[ring_of<N>][4];
};

static __device__ __forceinline__ struct fragment_rows fragment_rows_at(uint32_t w, uint32_t x)
{
	const uint32_t lane = threadIdx.x % 32;

	return { w + swizzle_64(lane % 16, lane / 16),
		 x + swizzle_64(lane % 8 + lane / 16 * 8, lane / 8 % 2) };
}

template <class S>
static __device__ __forceinline__ struct fragment_rows rows_of(const struct fragment_rows *first,
							       const struct gemm_ring *ring)
{
	return { first->w + ring->stage * S::bytes, first->x + ring->stage * S::bytes };
}

/* The second 16 of K: the other half of a row's chunks. */
static __device__ __forceinline__ struct fragment_rows second_step(struct fragment_rows at)
{
	return { at.w ^ 32, at.x ^ 32 };
}

template <int N>
static __device__ __forceinline__ void load_tokens(struct fragments<N> *f, uint32_t at, int group)
{
	if (2 * group + 1 < N)
		ldmatrix_x4(f->x[group % ring_of<N>], at + group * 16 * DEPTH * 2);
	else
		ldmatrix_x2(f->x[group % ring_of<N>], at + group * 16 * DEPTH * 2);
}

static __device__ __forceinline__ void load_features(uint32_t w[M][4], uint32_t at)
{
#pragma unroll
	for (int m = 0; m < M; m++)
		ldmatrix_x4(w[m], at + m * 16 * DEPTH * 2);
}

template <int N>
static __device__ __forceinline__ void load_first(struct fragments<N> *f,
						  const struct fragment_rows *at)
{
	load_features(f->w[0], at->w);
#pragma unroll
	for (int g = 0; g < AHEAD; g++)
		load_tokens(f, at->x, g);
}

template <int N>
static __device__ __forceinline__ void multiply_group(float (*d)[N][4], const uint32_t (*w)[4],
						      const uint32_t x[4], int group)
{
#pragma unroll
	for (int i = 0; i < 2; i++)
#pragma unroll
		for (int m = 0; m < M; m++)
			if (2 * group + i < N)
				mma_bf16(d[m][2 * group + i], w[m], x[2 * i], x[2 * i + 1]);
}

/* This warp has read the stage. */
static __device__ __forceinline__ void stage_read(uint32_t empty)
{
	__syncwarp();
	if (threadIdx.x % 32 == 0)
		mbarrier_arrive(empty);
}

/* The first half of a stage; meanwhile the first fragments of the second come in. */
template <int N>
static __device__ __forceinline__ void multiply_first(float (*d)[N][4], struct fragments<N> *f,
						      const struct fragment_rows *at)
{
	constexpr int GROUPS = groups<N>;
	const struct fragment_rows next = second_step(*at);

#pragma unroll
	for (int g = 0; g < GROUPS; g++) {
		if (g + AHEAD < GROUPS)
			load_tokens(f, at->x, g + AHEAD);
		else
			load_tokens(f, next.x, g + AHEAD - GROUPS);
		if (g >= 2 && g < 2 + M)
			ldmatrix_x4(f->w[1][g - 2], next.w + (g - 2) * 16 * DEPTH * 2);
		multiply_group(d, f->w[0], f->x[g % ring_of<N>], g);
	}
}

/* The second half; once all of it is in registers the stage is free, and the next one's turn comes. */
template <class S, bool MORE, int N>
static __device__ __forceinline__ void
multiply_second(float (*d)[N][4], struct fragments<N> *f, struct fragment_rows *at,
		const struct fragment_rows *first, struct gemm_ring *ring)
{
	constexpr int GROUPS = groups<N>;
	const struct fragment_rows here = second_step(*at);

#pragma unroll
	for (int g = 0; g < GROUPS; g++) {
		if (g + AHEAD == GROUPS) {
			stage_read(ring->empty + 8 * ring->stage);
			gemm_ring_next(ring);
			if (MORE) {
				mbarrier_wait(ring->full + 8 * ring->stage, ring->parity);
				*at = rows_of<S>(first, ring);
				load_features(f->w[0], at->w);
			}
		}
		if (g + AHEAD < GROUPS)
			load_tokens(f, here.x, g + AHEAD);
		else if (MORE)
			load_tokens(f, at->x, g + AHEAD - GROUPS);
		multiply_group(d, f->w[1], f->x[g % ring_of<N>], g);
	}
}

/* The sum of one tile: `steps` stages of the ring. */
template <class S, int N>
static __device__ __forceinline__ void accumulate(float (*d)[N][4], struct gemm_ring *ring,
						  int steps, const struct fragment_rows *first)
{
	struct fragments<N> f;
	struct fragment_rows at;

#pragma unroll
	for (int m = 0; m < M; m++)
#pragma unroll
		for (int n = 0; n < N; n++)
#pragma unroll
			for (int e = 0; e < 4; e++)
				d[m][n][e] = 0;

	mbarrier_wait(ring->full + 8 * ring->stage, ring->parity);
	at = rows_of<S>(first, ring);
	load_first(&f, &at);
#pragma unroll 1
	for (int i = 1;; i++) {
		multiply_first(d, &f, &at);
		if (i == steps)
			break;
		multiply_second<S, true>(d, &f, &at, first, ring);
	}
	multiply_second<S, false>(d, &f, &at, first, ring);
}

/* ------------------------------------------------------------------------------------ epilogue */

/* Of 16 tokens by 16 features in rows of `row` bytes: this lane's row of the four matrices. */
static __device__ __forceinline__ uint32_t matrix_at(uint32_t row)
{
	const uint32_t lane = threadIdx.x % 32;

	return (lane / 16 * 8 + lane % 8) * row + lane / 8 % 2 * 16;
}

/* Half of it where SiLU begins with that. */
template <int EPILOGUE> constexpr float sum_scale = EPILOGUE == GEMM_SILU ? 0.5f : 1;

/* bias and gate of this lane's features, 8 apart. */
struct feature_values {
	float bias[2 * M], gate[2 * M];
};

template <int EPILOGUE>
static __device__ __forceinline__ void feature_values_load(const struct gemm_part *part,
							   int feature, struct feature_values *v)
{
	feature += threadIdx.x % 32 / 4;
#pragma unroll
	for (int i = 0; i < 2 * M; i++) {
		const bool is = feature + 8 * i < part->out;

		v->bias[i] = EPILOGUE != GEMM_TEMPORAL && part->bias && is ?
				     sum_scale<EPILOGUE> * part->bias[feature + 8 * i] :
				     0;
		v->gate[i] =
			gemm_others<EPILOGUE> && part->gate && is ? part->gate[feature + 8 * i] : 1;
	}
}

/* 16 features of a group to words of two tokens. from: these of `inner` and `residual`. */
template <int EPILOGUE, int N>
static __device__ __forceinline__ void finish_words(const float (*d)[4], int n, const float bias[2],
						    const float gate[2], const uint32_t from[2],
						    uint32_t w[4])
{
	const float one[2] = { 1, 1 };
	float v[8];

#pragma unroll
	for (int i = 0; i < 8; i++) {
		const float sum = n + i / 4 < N ? d[n + i / 4][i % 4] : 0;

		v[i] = EPILOGUE == GEMM_SILU ?
			       silu_of_half(fmaf(sum_scale<EPILOGUE>, sum, bias[i / 2 % 2])) :
			       sum + bias[i / 2 % 2];
	}
	if (EPILOGUE == GEMM_TEMPORAL)
		gemm_add_other(from[0], one, v);
	if (gemm_others<EPILOGUE>)
		gemm_add_other(from[1], gate, v);
#pragma unroll
	for (int i = 0; i < 4; i++)
		w[i] = bf16_pack(v[2 * i], v[2 * i + 1]);
}

/* A lane's 16 bytes of each group of a warp's tokens: six lanes have a row of the patch. */
struct patch_chunk {
	uint32_t from;
	char *to;
	int left; /* rows, from its own on */
};

struct patch_chunks {
	struct patch_chunk chunk[PATCH_CHUNKS];
	int64_t step; /* bytes from group to group */
};

static __device__ __forceinline__ struct patch_chunks
patch_chunks_at(const struct gemm_part *part, uint32_t patch, int token, int token_end, int feature)
{
	struct patch_chunks at;

	at.step = 2 * 16 * part->ldy;
#pragma unroll
	for (int r = 0; r < PATCH_CHUNKS; r++) {
		const int i = threadIdx.x % 32 + 32 * r, n = i / CHUNKS, c = i % CHUNKS;
		struct patch_chunk *chunk = &at.chunk[r];

		chunk->from = patch + n * PATCH_ROW + c * 16;
		chunk->to = (char *)part->y + 2 * ((token + n) * part->ldy + feature + 8 * c);
		chunk->left = feature + 8 * c < part->out ? token_end - token - n : 0;
	}
	return at;
}

/* All 48 features of group g. other: `inner` and `residual` of them, from the warp's first token on. */
template <int EPILOGUE, int N>
static __device__ __forceinline__ void group_words(const float (*d)[N][4], int g,
						   const struct feature_values *values,
						   const uint32_t other[2], uint32_t w[M][4])
{
#pragma unroll
	for (int m = 0; m < M; m++) {
		const uint32_t at = g * 16 * OTHER_ROW + m * 32;
		const uint32_t from[2] = { other[0] + at, other[1] + at };

		finish_words<EPILOGUE, N>(d[m], 2 * g, values->bias + 2 * m, values->gate + 2 * m,
					  from, w[m]);
	}
}

/*
 * This warp's sums, of tokens below token_end. The next group's words are made while this one's come back from
 * the patch; the branch keeps ptxas from making all groups' before the first is stored.
 */
template <int EPILOGUE, int N>
static __device__ __forceinline__ void finish(const struct gemm_part *part, const float (*d)[N][4],
					      int token, int token_end, int feature, uint32_t patch,
					      const uint32_t other[2])
{
	const uint32_t to = patch + matrix_at(PATCH_ROW);
	const int end = min(token_end, token + 8 * N);
	struct patch_chunks at = patch_chunks_at(part, patch, token, end, feature);
	struct feature_values values;
	uint32_t w[M][4];

	feature_values_load<EPILOGUE>(part, feature, &values);
#pragma unroll
	for (int g = -1; g < groups<N> && token + 16 * g < end; g++) {
		uint4 out[PATCH_CHUNKS];

		if (g >= 0) {
#pragma unroll
			for (int m = 0; m < M; m++)
				stmatrix_x4_trans(to + m * 32, w[m]);
			__syncwarp();
#pragma unroll
			for (int r = 0; r < PATCH_CHUNKS; r++)
				out[r] = shared_load_16(at.chunk[r].from);
		}
		if (g + 1 < groups<N>)
			group_words<EPILOGUE>(d, g + 1, &values, other, w);
#pragma unroll
		for (int r = 0; r < PATCH_CHUNKS && g >= 0; r++) {
			if (at.chunk[r].left > 16 * g)
				global_store_16(at.chunk[r].to, out[r]);
			at.chunk[r].to += at.step;
		}
		__syncwarp();
	}
}

/* Steps that are other warps'. */
static __device__ __forceinline__ void stages_pass(struct gemm_ring *ring, int count)
{
#pragma unroll 1
	for (int i = 0; i < count; i++) {
		mbarrier_wait(ring->full + 8 * ring->stage, ring->parity);
		stage_read(ring->empty + 8 * ring->stage);
		gemm_ring_next(ring);
	}
}

/* finish, with the steps of other tensors: each is the features of one warp along them. */
template <int EPILOGUE, class S, int N>
static __device__ __forceinline__ void
finish_others(const struct gemm_part *part, const float (*d)[N][4], int token, int token_end,
	      int feature, uint32_t patch, struct gemm_ring *ring, int first_token)
{
	constexpr int OTHERS = gemm_others<EPILOGUE>;
	const int before = __shfl_sync(~0u, threadIdx.x / 32, 0) % ALONG_FEATURES;
	const uint32_t lane_at = first_token * OTHER_ROW + matrix_at(OTHER_ROW);
	uint32_t other[2] = { 0, 0 }, empty[2];

	stages_pass(ring, OTHERS * before);
#pragma unroll
	for (int o = 2 - OTHERS; o < 2; o++) {
		mbarrier_wait(ring->full + 8 * ring->stage, ring->parity);
		other[o] = ring->data + ring->stage * S::bytes + lane_at;
		empty[o] = ring->empty + 8 * ring->stage;
		gemm_ring_next(ring);
	}
	finish<EPILOGUE>(part, d, token, token_end, feature, patch, other);
#pragma unroll
	for (int o = 2 - OTHERS; o < 2; o++)
		stage_read(empty[o]);
	stages_pass(ring, OTHERS * (ALONG_FEATURES - 1 - before));
}

/* -------------------------------------------------------------------------------------- kernels */

/* All steps of the block's tiles, as far ahead as the ring allows. */
template <class S>
static __device__ __forceinline__ void feed_all(const struct gemm_params *p,
						const struct gemm_ring *ring)
{
	struct gemm_feed f;

	gemm_feed_init<S>(p, ring, &f);
	while (f.index < gemm_tiles_end<S>(p)) {
		gemm_feed_load<S>(p, &f);
		gemm_feed_pass<S>(p, &f, 1);
	}
}

/* A multiplying warp's part of one tile: 8·N of its tokens, from `token` on. */
template <int EPILOGUE, class S, int N>
static __device__ __forceinline__ void
multiply_tile(const struct gemm_params *p, const struct gemm_tile *t, struct gemm_ring *ring,
	      int token, uint32_t patch)
{
	const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0);
	const int feature = warp % ALONG_FEATURES * WARP_FEATURES;
	const struct gemm_part *part = &p->part[t->part];
	const struct fragment_rows first = fragment_rows_at(
		ring->data + S::x_bytes + feature * DEPTH * 2, ring->data + token * DEPTH * 2);
	const uint32_t none[2] = { 0, 0 };
	float d[M][N][4];

	accumulate<S>(d, ring, gemm_steps(p, t, DEPTH), &first);
	if (S::others)
		finish_others<EPILOGUE, S>(part, d, t->row + token, t->row_end, t->column + feature,
					   patch, ring, token);
	else
		finish<EPILOGUE>(part, d, t->row + token, t->row_end, t->column + feature, patch,
				 none);
}

/* What a multiplying warp does. */
template <int EPILOGUE, class S>
static __device__ __forceinline__ void multiply_all(const struct gemm_params *p,
						    struct gemm_ring ring, int half, uint32_t patch)
{
	constexpr int N = S::rows / 16, SHORT = S::short_rows / 16;
	constexpr int ODD = S::short_rows % 16 / 8;

	for (int i = gemm_tiles_first<S>(); i < gemm_tiles_end<S>(p);
	     i = gemm_tiles_next<S>(p, i)) {
		const struct gemm_tile t = gemm_tile_at<S>(p, i);

		if (!t.is_short)
			multiply_tile<EPILOGUE, S, N>(p, &t, &ring, half * 8 * N, patch);
		else if constexpr (S::short_rows > 0 && ODD == 0)
			multiply_tile<EPILOGUE, S, SHORT>(p, &t, &ring, half * 8 * SHORT, patch);
		else if constexpr (ODD) {
			if (half == 0)
				multiply_tile<EPILOGUE, S, SHORT + 1>(p, &t, &ring, 0, patch);
			else
				multiply_tile<EPILOGUE, S, SHORT>(p, &t, &ring, 8 * SHORT + 8,
								  patch);
		}
	}
}

template <int EPILOGUE, class S>
static __device__ __forceinline__ void gemm(const struct gemm_params *p)
{
	extern __shared__ __align__(1024) uint8_t shared[];
	const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0);
	const int ring_bytes = p->stages * S::bytes + BARRIER_BYTES;
	struct gemm_ring ring = {
		.data = shared_address(shared),
		.full = shared_address(shared) + p->stages * S::bytes,
		.empty = shared_address(shared) + p->stages * S::bytes + 8 * p->stages,
		.stages = p->stages,
		.stage = 0,
		.parity = 0,
	};

	if (threadIdx.x == 0)
		gemm_ring_init(&ring, WARPS);
	__syncthreads();
	dependency_wait();
	dependency_launch();

	if (warp >= WARPS) {
		registers_give<LOADING_REGISTERS>();
		if (warp == WARPS)
			feed_all<S>(p, &ring);
		return;
	}
	registers_take<REGISTERS>();
	multiply_all<EPILOGUE, S>(p, ring, warp / ALONG_FEATURES,
				  ring.data + ring_bytes + warp * PATCH_BYTES);
}

#define GEMM_KERNEL(name, epilogue, shape)                              \
	extern "C" __global__ void __launch_bounds__(THREADS, 1)        \
		name(const __grid_constant__ struct gemm_params params) \
	{                                                               \
		gemm<epilogue, shape<epilogue>>(&params);               \
	}

GEMM_KERNEL(gemm_mma_240x192, GEMM_PLAIN, shape_of)
GEMM_KERNEL(gemm_mma_240x192_silu, GEMM_SILU, shape_of)
GEMM_KERNEL(gemm_mma_240x192_residual, GEMM_RESIDUAL, shape_of)
GEMM_KERNEL(gemm_mma_240x192_temporal, GEMM_TEMPORAL, shape_of)
GEMM_KERNEL(gemm_mma_224x192_frames, GEMM_TEMPORAL, frames_of)
