/*
 * The 3×3×3 convolution on every target: mma.sync, fed by the copy engine.
 *
 * Eight warps multiply, a pair of patches by 8·NT channels each. A warpgroup more, which gives its
 * registers to them, loads: one warp the weights, three the pixels. Both come through rings in shared
 * memory, so nothing waits for a whole block, the next tile's first copies run while a tile's results
 * leave, and one pair's warps may finish a tile while the other's still multiply.
 */
#include "kernels/cuda/conv3d_results.cuh"

enum {
	HALO = 10,
	PIXEL_BYTES = CONV3D_CHUNK * 2,
	ROW_BYTES = HALO * PIXEL_BYTES,
	PATCH_COPIED = HALO * ROW_BYTES, /* of CONV3D_PATCH_BYTES */
	WARPS = 8,			 /* that multiply */
	WEIGHTS_WARP = WARPS,
	COPIERS = CONV3D_MMA_THREADS - 32 * (WARPS + 1), /* threads that copy pixels */
	LOADING_REGISTERS = 40,
	REGISTERS = 232,
	STEPS = 3, /* kw, of a chunk; each is two stages of weights */
};

static_assert(CONV3D_MMA_THREADS == 32 * (WARPS + 4), "two warpgroups and one");
static_assert(CONV3D_PATCH_BYTES % 512 == 0 && CONV3D_PATCH_BYTES >= PATCH_COPIED,
	      "rows of a patch are swizzled alike");

template <int NT> constexpr int tile_channels = NT * 8 * 4;
template <int NT> constexpr int stage_bytes = CONV3D_DEPTH * 2 * 3 * tile_channels<NT>;
template <int NT> constexpr int stages = CONV3D_WEIGHTS_BYTES / stage_bytes<NT>;

/* A warp's sums of squares are read by others before it is a tile further. */
static_assert(stages<2> < 3 * 2 * STEPS, "fewer stages than the shortest tile has");

/* ---------------------------------------------------------------------------------------- rings */

/* Places of shared memory in turn; `full` counts what arrives in one, `empty` who has read it. */
template <int COUNT> struct ring {
	uint32_t data, barriers; /* shared addresses */
	int at;
	uint32_t parity;
};

template <int COUNT> static __device__ __forceinline__ uint32_t full(const struct ring<COUNT> &r)
{
	return r.barriers + 8 * r.at;
}

template <int COUNT> static __device__ __forceinline__ uint32_t empty(const struct ring<COUNT> &r)
{
	return r.barriers + 8 * (COUNT + r.at);
}

template <int COUNT> static __device__ __forceinline__ void ring_next(struct ring<COUNT> *r)
{
	if (++r->at == COUNT) {
		r->at = 0;
		r->parity ^= 1;
	}
}

template <int COUNT>
static __device__ __forceinline__ void ring_init(struct ring<COUNT> r, int writers)
{
	for (r.at = 0; r.at < COUNT; r.at++) {
		mbarrier_init(full(r), writers);
		mbarrier_init(empty(r), WARPS);
	}
}

/* What is there next has arrived. */
template <int COUNT> static __device__ __forceinline__ void ring_wait(const struct ring<COUNT> &r)
{
	mbarrier_wait(full(r), r.parity);
}

/* This warp has read it. */
template <int COUNT> static __device__ __forceinline__ void ring_read(const struct ring<COUNT> &r)
{
	__syncwarp();
	if (threadIdx.x % 32 == 0)
		mbarrier_arrive(empty(r));
}

/* It may be written. */
template <int COUNT>
static __device__ __forceinline__ void ring_wait_empty(const struct ring<COUNT> &r)
{
	mbarrier_wait(empty(r), r.parity ^ 1);
}

/*
 * A run of chunks of one tile's sum. A block has whole tiles, groups of them in turn; then, where the last round would be
 * short, a share of all sums of it laid end to end: at most two runs.
 */
struct run {
	int tile, first, last;
	int left; /* chunks of the share behind this run; −1: these are whole tiles */
};

static __device__ __forceinline__ bool run_exists(const struct run &r)
{
	return r.last > r.first;
}

/* The whole tile r.tile, or the share's first run when there is no such tile. */
static __device__ __forceinline__ void run_find(const struct conv3d_params &p, struct run *r)
{
	int start, count;

	*r = { r->tile, 0, p.chunks, -1 };
	if (r->tile < p.tiles)
		return;
	r->last = 0;
	if (blockIdx.x >= p.part_blocks)
		return;
	start = conv3d_share(p, blockIdx.x);
	count = conv3d_share(p, blockIdx.x + 1) - start;
	r->tile = p.tiles + start / p.chunks;
	r->first = start % p.chunks;
	r->last = min(p.chunks, r->first + count);
	r->left = count - (r->last - r->first);
}

static __device__ __forceinline__ struct run run_first(const struct conv3d_params &p)
{
	struct run r = { (int)blockIdx.x * p.group, 0, 0, 0 };

	run_find(p, &r);
	return r;
}

static __device__ __forceinline__ void run_next(const struct conv3d_params &p, struct run *r)
{
	if (r->left < 0) {
		r->tile += (r->tile + 1) % p.group ? 1 : (gridDim.x - 1) * p.group + 1;
		run_find(p, r);
	} else {
		*r = { r->tile + 1, 0, r->left, 0 };
	}
}

/* Chunk c of the sum: tap kt and first channel. */
struct chunk {
	int kt, ci;
};

static __device__ __forceinline__ struct chunk chunk_at(const struct conv3d_params &p, int c)
{
	const int per_tap = (p.cin + CONV3D_CHUNK - 1) / CONV3D_CHUNK, kt = c / per_tap;

	return { kt, (c - kt * per_tap) * CONV3D_CHUNK };
}

/* --------------------------------------------------------------------------------------- copies */

/* Weights of every step, [kh][channel][16] a stage; by one warp for one thread's sake. */
template <int NT>
static __device__ __forceinline__ void copy_weights(const struct conv3d_params &p,
						    struct ring<stages<NT>> ring)
{
	for (struct run r = run_first(p); run_exists(r); run_next(p, &r)) {
		const int n0 = r.tile % p.tiles_n * tile_channels<NT>;

		for (int c = r.first; c < r.last; c++) {
			const struct chunk at = chunk_at(p, c);

			for (int i = 0; i < 2 * STEPS; i++) {
				const uint32_t barrier = full(ring);

				ring_wait_empty(ring);
				if (elect_one()) {
					mbarrier_arrive_expect(barrier, stage_bytes<NT>);
					tma_load_5d(ring.data + ring.at * stage_bytes<NT>,
						    &p.weight_map, barrier,
						    at.ci + i % 2 * CONV3D_DEPTH, n0, i / 2, 0,
						    at.kt);
				}
				__syncwarp();
				ring_next(&ring);
			}
		}
	}
}

/* A patch that is cut off and reflected, by the threads that copy pixels: 16 bytes each, in the copy
 * engine's swizzle. */
static __device__ __forceinline__ void
copy_cut(const struct conv3d_params &p, const struct chunk &at, int t, int h, int w, uint32_t to)
{
	const int me = threadIdx.x - 32 * (WEIGHTS_WARP + 1), piece = me & 3;
	const int channel = at.ci + 8 * piece;
	const uint16_t *frame = conv3d_frame(p, t, at.kt);

#pragma unroll 1
	for (int r = me >> 2; r < HALO * HALO; r += COPIERS / 4) {
		const int offset = conv3d_offset(p, h + r / HALO - 1, w + r % HALO - 1);
		const bool counts = offset >= 0 && channel < p.cin;

		cp_async_16(to + swizzle_64(r, piece), frame + (counts ? offset + channel : 0),
			    counts ? 16 : 0);
	}
}

/* A patch with its border as a box; what is outside of the picture becomes zero. One thread. */
static __device__ __forceinline__ void copy_patch(const struct conv3d_params &p,
						  const struct chunk &at, int t, int h, int w,
						  uint32_t to, uint32_t full)
{
	const int time = t + at.kt - (p.causal ? 2 : 1);

	if (time < 0 && p.context_set)
		tma_load_4d(to, &p.context_map, full, at.ci, w - 1, h - 1, time + 2);
	else
		tma_load_4d(to, &p.x_map, full, at.ci, w - 1, h - 1,
			    max(0, min(time, p.frames - 1)));
}

/* This lane's patch of a tile, lane % 4 of it. */
struct patch {
	int t, h, w;
	bool exists, cut;
};

static __device__ __forceinline__ struct patch patch_at(const struct conv3d_params &p, int tile_m)
{
	struct patch a;

	a.exists = conv3d_patch(p, tile_m * CONV3D_PATCHES + threadIdx.x % CONV3D_PATCHES, &a.t,
				&a.h, &a.w);
	if (!a.exists) {
		a.t = a.w = 0;
		a.h = p.height + HALO; /* all zeros */
	}
	a.cut = a.exists && conv3d_reflections(p, a.h, a.w) == CONV3D_CUT;
	return a;
}

/* What will be added to a tile, on its way to L2. */
static __device__ __forceinline__ void prefetch_residual(const struct conv3d_params &p,
							 const struct patch &mine, int n0, int n)
{
	for (int i = 0; i < CONV3D_TILE_PIXELS; i += COPIERS) {
		const int r = threadIdx.x - 32 * (WEIGHTS_WARP + 1) + i, of = r >> 6;
		const int t = __shfl_sync(~0u, mine.t, of);
		const int h = __shfl_sync(~0u, mine.h, of) + ((r & 63) >> 3);
		const int w = __shfl_sync(~0u, mine.w, of) + (r & 7);
		const uint16_t *row = (const uint16_t *)p.residual +
				      (((size_t)t * p.height + h) * p.width + w) * p.cout + n0;

		if (r >= CONV3D_TILE_PIXELS || h >= p.height || w >= p.width)
			continue;
		prefetch_l2(row);
		prefetch_l2(row + min(n, p.cout - n0) - 1);
	}
}

/* The pixels of every chunk, three warps. All of them arrive, each after its own copies. */
template <int NT>
static __device__ __forceinline__ void copy_pixels(const struct conv3d_params &p,
						   struct ring<CONV3D_BUFFERS> ring)
{
	const bool speaks = threadIdx.x == 32 * (WEIGHTS_WARP + 1);

	for (struct run r = run_first(p); run_exists(r); run_next(p, &r)) {
		const struct patch mine = patch_at(p, r.tile / p.tiles_n);
		const uint32_t cut = __ballot_sync(~0u, mine.cut);
		const int boxes = CONV3D_PATCHES - __popc(cut & ((1 << CONV3D_PATCHES) - 1));

		if (r.left < 0 && p.residual)
			prefetch_residual(p, mine, r.tile % p.tiles_n * tile_channels<NT>,
					  tile_channels<NT>);
		for (int c = r.first; c < r.last; c++) {
			const struct chunk at = chunk_at(p, c);
			const uint32_t barrier = full(ring);

			ring_wait_empty(ring);
			if (speaks) {
				/* After what other chunks' copy_cut wrote here. */
				fence_proxy_async();
				mbarrier_expect(barrier, boxes * PATCH_COPIED);
			}
#pragma unroll 1
			for (int i = 0; i < CONV3D_PATCHES; i++) {
				const int t = __shfl_sync(~0u, mine.t, i);
				const int h = __shfl_sync(~0u, mine.h, i);
				const int w = __shfl_sync(~0u, mine.w, i);
				const uint32_t to = ring.data + ring.at * CONV3D_PIXELS_BYTES +
						    i * CONV3D_PATCH_BYTES;

				if (cut >> i & 1)
					copy_cut(p, at, t, h, w, to);
				else if (speaks)
					copy_patch(p, at, t, h, w, to, barrier);
			}
			__syncwarp();
			cp_async_arrive(barrier);
			ring_next(&ring);
		}
	}
}

/* ------------------------------------------------------------------------------------- products */

/*
 * A fragment of 16 pixels is a row of 8 of either patch, so that tap kh of output row m reads fragment
 * m + kh: ten of them serve all three.
 */
template <int NT> struct fragments {
	uint32_t a[HALO][4], b[3][NT / 2][4];
};

/* Where a warp reads. */
template <int NT> struct reader {
	struct ring<CONV3D_BUFFERS> pixels;
	struct ring<stages<NT>> weights;
	uint32_t lane_pixel, lane_weight; /* of this lane, in a place of either ring */
	uint32_t row[4]; /* this lane's pixels of fragment i % 4, without its row */
	uint32_t top, bottom;
	int reflections; /* of this lane's patch */
	int kw;
};

/*
 * Rows are 10 pixels apart, so the swizzle of a fragment depends on its row: four kinds. A reflected border
 * is read where the pixel itself is, two inside.
 */
template <int NT> static __device__ __forceinline__ void rows_at(struct reader<NT> *r)
{
	const int lane = threadIdx.x % 32;
	int column = lane % 8 + r->kw;
	uint32_t at;

	if (column == 0 && r->reflections & CONV3D_LEFT)
		column = 2;
	if (column == HALO - 1 && r->reflections & CONV3D_RIGHT)
		column = HALO - 3;
	at = r->pixels.data + r->pixels.at * CONV3D_PIXELS_BYTES + r->lane_pixel +
	     column * PIXEL_BYTES;
#pragma unroll
	for (int i = 0; i < 4; i++)
		r->row[i] = at + ((((column >> 1) + i) & 3) ^ (lane >> 4)) * 16;
	r->top = r->reflections & CONV3D_TOP ? r->row[2] + 2 * ROW_BYTES : r->row[0];
	r->bottom = r->reflections & CONV3D_BOTTOM ? r->row[3] + (HALO - 3) * ROW_BYTES :
						     r->row[1] + (HALO - 1) * ROW_BYTES;
}

/* The other 16 channels. */
template <int NT> static __device__ __forceinline__ void rows_second(struct reader<NT> *r)
{
#pragma unroll
	for (int i = 0; i < 4; i++)
		r->row[i] ^= 32;
	r->top ^= 32;
	r->bottom ^= 32;
}

template <int NT>
static __device__ __forceinline__ void load_row(struct fragments<NT> &f, const struct reader<NT> &r,
						int row)
{
	ldmatrix_x4(f.a[row], row == 0	      ? r.top :
			      row == HALO - 1 ? r.bottom :
						r.row[row % 4] + row * ROW_BYTES);
}

template <int NT>
static __device__ __forceinline__ void load_weights(struct fragments<NT> &f,
						    const struct reader<NT> &r, int kh)
{
	const uint32_t at = r.lane_weight + r.weights.at * stage_bytes<NT>;

#pragma unroll
	for (int n = 0; n < NT / 2; n++)
		ldmatrix_x4(f.b[kh][n], at + (kh * tile_channels<NT> + 16 * n) * CONV3D_DEPTH * 2);
}

template <int NT>
static __device__ __forceinline__ void products(float (&d)[8][NT][4], const struct fragments<NT> &f,
						int m, int kh)
{
#pragma unroll
	for (int n = 0; n < NT; n++)
		mma_bf16(d[m][n], f.a[m + kh], f.b[kh][n / 2][n % 2 * 2],
			 f.b[kh][n / 2][n % 2 * 2 + 1]);
}

/*
 * A stage: 16 channels of the weights of one kw. The next one's operands are read while the last products
 * run, into the registers that these free. SECOND: of a step; MORE: there is a next one.
 */
template <int NT, bool SECOND, bool MORE>
static __device__ __forceinline__ void stage_products(float (&d)[8][NT][4], struct fragments<NT> &f,
						      struct reader<NT> &r)
{
	struct ring<stages<NT>> here;
	bool ready;

	load_weights(f, r, 1);
#pragma unroll
	for (int m = 0; m < 8; m++)
		products(d, f, m, 0);
	load_weights(f, r, 2);
	here = r.weights;
	ring_next(&r.weights);
	/* Asked for early: the answer takes a while. */
	ready = MORE && mbarrier_try_wait(full(r.weights), r.weights.parity);
#pragma unroll
	for (int m = 0; m < 8; m++)
		products(d, f, m, 1);
	ring_read(here);
	if (SECOND && ++r.kw == STEPS) {
		/* The last rows of these pixels came with the stage before. */
		r.kw = 0;
		ring_read(r.pixels);
		ring_next(&r.pixels);
		if (MORE)
			ring_wait(r.pixels);
	}
	if (MORE) {
		if (!ready)
			ring_wait(r.weights);
		if (SECOND)
			rows_at(&r);
		else
			rows_second(&r);
		load_weights(f, r, 0);
		load_row(f, r, 0);
		load_row(f, r, 1);
	}
#pragma unroll
	for (int m = 0; m < 8; m++) {
		products(d, f, m, 2);
		if (MORE)
			load_row(f, r, m + 2);
	}
}

/* The sum of a tile over some chunks. */
template <int NT>
static __device__ __forceinline__ void accumulate(float (&d)[8][NT][4], struct reader<NT> &r,
						  int chunks)
{
	struct fragments<NT> f;

#pragma unroll
	for (int m = 0; m < 8; m++)
#pragma unroll
		for (int n = 0; n < NT; n++)
#pragma unroll
			for (int e = 0; e < 4; e++)
				d[m][n][e] = 0;
	r.kw = 0;
	ring_wait(r.pixels);
	ring_wait(r.weights);
	rows_at(&r);
	load_weights(f, r, 0);
#pragma unroll
	for (int row = 0; row < HALO; row++)
		load_row(f, r, row);
#pragma unroll 1
	for (int left = STEPS * chunks;;) {
		stage_products<NT, false, true>(d, f, r);
		if (--left == 0)
			break;
		stage_products<NT, true, true>(d, f, r);
	}
	stage_products<NT, true, false>(d, f, r);
}

/* ---------------------------------------------------------------------------------- the kernels */

static __device__ __forceinline__ int patch_reflections(const struct conv3d_params &p, int tile_m,
							int patch)
{
	int t, h, w;

	return conv3d_patch(p, tile_m * CONV3D_PATCHES + patch, &t, &h, &w) ?
		       conv3d_reflections(p, h, w) :
		       0;
}

template <int NT, int FINISH>
static __device__ __forceinline__ void
multiply(const struct conv3d_params &p, int warp, const struct ring<CONV3D_BUFFERS> &pixels,
	 const struct ring<stages<NT>> &weights, unsigned char *room)
{
	const int lane = threadIdx.x % 32, pair = warp / 4, column = warp % 4 * NT * 8;
	const int patch = 2 * pair + (lane >> 3 & 1);
	int part = 2 * blockIdx.x;
	struct reader<NT> r = {
		.pixels = pixels, .weights = weights,
		.lane_pixel = (uint32_t)patch * CONV3D_PATCH_BYTES,
		.lane_weight = weights.data +
			       swizzle_32(column + lane % 8 + (lane >> 4) * 8, lane >> 3 & 1),
	};

	for (struct run run = run_first(p); run_exists(run); run_next(p, &run)) {
		float d[8][NT][4];

		r.reflections = p.reflect ? patch_reflections(p, run.tile / p.tiles_n, patch) : 0;
		accumulate(d, r, run.last - run.first);
		if (run.left < 0)
			results_put<FINISH>(p, d, run.tile, warp, room);
		else
			conv3d_keep_part(p, d, part++, pair, column);
	}
}

template <int NT, int FINISH>
static __device__ __forceinline__ void conv3d_mma(const struct conv3d_params &p)
{
	extern __shared__ __align__(1024) unsigned char shared[];
	const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0);
	unsigned char *room = shared + CONV3D_BUFFERS * CONV3D_PIXELS_BYTES + CONV3D_WEIGHTS_BYTES;
	const uint32_t data = shared_address(shared);
	const uint32_t barriers = shared_address(room) + CONV3D_ROOM_BYTES;
	const struct ring<CONV3D_BUFFERS> pixels = {
		data, barriers, 0, 0
	};
	const struct ring<stages<NT>> weights = {
		data + CONV3D_BUFFERS *CONV3D_PIXELS_BYTES, barriers + 16 * CONV3D_BUFFERS, 0, 0
	};

	static_assert(16 * (CONV3D_BUFFERS + stages<NT>) <= CONV3D_BARRIERS_BYTES, "barriers");
	if (threadIdx.x == 0) {
		ring_init(pixels, COPIERS);
		ring_init(weights, 1);
		mbarrier_init_fence();
	}
	__syncthreads();
	dependency_wait();
	dependency_launch();
	if (warp >= WARPS) {
		registers_give<LOADING_REGISTERS>();
		if (warp == WEIGHTS_WARP)
			copy_weights<NT>(p, weights);
		else
			copy_pixels<NT>(p, pixels);
		return;
	}
	registers_take<REGISTERS>();
	multiply<NT, FINISH>(p, warp, pixels, weights, room);
}

#define CONV3D_KERNEL(name, nt, finish)                                     \
	extern "C" __global__ void __launch_bounds__(CONV3D_MMA_THREADS, 1) \
		name(const __grid_constant__ struct conv3d_params p)        \
	{                                                                   \
		conv3d_mma<nt, finish>(p);                                  \
	}

CONV3D_KERNEL(conv3d_mma_n128, 4, CONV3D_FINISH_BLOCKS)
CONV3D_KERNEL(conv3d_mma_n128_211, 4, CONV3D_FINISH_211)
CONV3D_KERNEL(conv3d_mma_n128_222, 4, CONV3D_FINISH_222)
CONV3D_KERNEL(conv3d_mma_n128_up, 4, CONV3D_FINISH_UP)
CONV3D_KERNEL(conv3d_mma_n128_any, 4, CONV3D_FINISH_ANY)
CONV3D_KERNEL(conv3d_mma_n64, 2, CONV3D_FINISH_BLOCKS)
CONV3D_KERNEL(conv3d_mma_n64_122, 2, CONV3D_FINISH_122)
CONV3D_KERNEL(conv3d_mma_n64_any, 2, CONV3D_FINISH_ANY)
