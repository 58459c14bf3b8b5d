/*
 * The 3×3×3 convolution on sm_90a: one warpgroup copies (pixels by cp.async, weights by TMA), two
 * multiply. A tile is four patches of 8×8 pixels; a patch with its border is 10×10 rows of 128 bytes in
 * the 128-byte swizzle, which follows addresses, so that the operand of tap (kh, kw) is the same
 * memory read from row 10·kh + kw on, eight rows apart by 10.
 */
#include "kernels/cuda/conv3d.cuh"
#include "kernels/cuda/wgmma.cuh"

enum {
	HALO = 10,
	PATCH_ROWS = HALO * HALO,
	A_ROWS = CONV3D_PATCHES * PATCH_ROWS,
	A_BYTES = A_ROWS * CONV3D_WGMMA_CHUNK * 2,
	STAGES = CONV3D_WGMMA_B_STAGES,
	TAPS = 9,
	COPIERS = 96, /* threads that copy pixels: warps 1 to 3 */
	CONSUMER_WARPS = 8,
};

#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)

struct tables {
	uint64_t a_full[2], a_empty[2], b_full[STAGES], b_empty[STAGES];
	const uint16_t *frame[3][CONV3D_PATCHES];
	int offset[A_ROWS];		  /* of border pixels inside a frame; −1 zero */
	int pixel[2][CONV3D_TILE_PIXELS]; /* of tiles in turn; conv3d_pixel */
};

static_assert(sizeof(struct tables) <= CONV3D_WGMMA_TABLE_BYTES, "shared memory");

/* What a block knows of its work: tiles blockIdx.x, + gridDim.x, …, chunks [first, last) of each. */
struct block {
	uint32_t a, b; /* shared memory */
	struct tables *tables;
	int tiles, first, last, per_tap;
};

static __device__ __forceinline__ void barriers_init(struct tables *tables)
{
	for (int i = 0; i < 2; i++) {
		mbarrier_init(shared_address(&tables->a_full[i]), COPIERS);
		mbarrier_init(shared_address(&tables->a_empty[i]), CONSUMER_WARPS);
	}
	for (int i = 0; i < STAGES; i++) {
		mbarrier_init(shared_address(&tables->b_full[i]), 1);
		mbarrier_init(shared_address(&tables->b_empty[i]), CONSUMER_WARPS);
	}
	mbarrier_init_fence();
}

/* ------------------------------------------------------------------------------------- copies */

/* Where the pixels of a tile are; and what will be added to it, on its way to L2. Consumers see it with
 * the tile's first chunk, and have left the tile before the last by its third. */
static __device__ __forceinline__ void tile_begin(const struct conv3d_params &p,
						  struct tables *tables, int tile, int turn)
{
	const int tile_m = tile / p.tiles_n, n0 = tile % p.tiles_n * p.tile_channels;
	const int me = threadIdx.x - 32;

	named_barrier(1, COPIERS);
	for (int i = me; i < A_ROWS; i += COPIERS) {
		const int in_patch = i % PATCH_ROWS, patch = i / PATCH_ROWS;
		int t, h, w;
		const bool exists = conv3d_patch(p, tile_m * CONV3D_PATCHES + patch, &t, &h, &w);

		tables->offset[i] = exists ? conv3d_offset(p, h + in_patch / HALO - 1,
							   w + in_patch % HALO - 1) :
					     -1;
		if (in_patch < 3)
			tables->frame[in_patch][patch] = conv3d_frame(p, exists ? t : 0, in_patch);
	}
	named_barrier(1, COPIERS);
	for (int r = me; r < CONV3D_TILE_PIXELS; r += COPIERS) {
		const int pixel = conv3d_pixel(p, tile_m, r);
		const uint16_t *row = (const uint16_t *)p.residual + (size_t)pixel * p.cout + n0;

		tables->pixel[turn][r] = pixel;
		if (p.residual && pixel >= 0) {
			prefetch_l2(row);
			prefetch_l2(row + min(p.tile_channels, p.cout - n0) - 1);
		}
	}
}

/* Pixels of every chunk; warps 1 to 3. */
static __device__ __forceinline__ void copy_pixels(const struct conv3d_params &p,
						   const struct block &k)
{
	const int me = threadIdx.x - 32, piece = me & 7, row = me >> 3;
	int i = 0, turn = 0; /* chunks and tiles so far */

	for (int tile = blockIdx.x; tile < k.tiles; tile += gridDim.x, turn ^= 1) {
		tile_begin(p, k.tables, tile, turn);
		for (int c = k.first; c < k.last; c++, i++) {
			const int buffer = i & 1, kt = c / k.per_tap;
			const int channel = (c - kt * k.per_tap) * CONV3D_WGMMA_CHUNK + piece * 8;
			const uint32_t to = k.a + buffer * A_BYTES;

			if (i >= 2)
				mbarrier_wait(shared_address(&k.tables->a_empty[buffer]),
					      (i / 2 - 1) & 1);
			for (int patch = 0; patch < CONV3D_PATCHES; patch++) {
				const uint16_t *frame = k.tables->frame[kt][patch];

#pragma unroll
				for (int j = 0; j < (PATCH_ROWS + 11) / 12; j++) {
					const int r = patch * PATCH_ROWS + row + 12 * j;

					if (row + 12 * j < PATCH_ROWS) {
						const int offset = k.tables->offset[r];
						const bool counts = offset >= 0 && channel < p.cin;

						cp_async_16(to + swizzle_128(r, piece),
							    counts ? frame + offset + channel :
								     frame,
							    counts ? 16 : 0);
					}
				}
			}
			cp_async_commit();
			cp_async_wait<0>();
			fence_proxy_async();
			mbarrier_arrive(shared_address(&k.tables->a_full[buffer]));
		}
	}
}

/* Weights of every chunk and tap; one thread. */
template <int N>
static __device__ __forceinline__ void copy_weights(const struct conv3d_params &p,
						    const struct block &k)
{
	const uint32_t bytes = N * CONV3D_WGMMA_CHUNK * 2;
	int stage = 0, phase = 0;

	for (int tile = blockIdx.x; tile < k.tiles; tile += gridDim.x) {
		const int n0 = tile % p.tiles_n * N;

		for (int c = k.first; c < k.last; c++) {
			const int kt = c / k.per_tap;
			const int ci = (c - kt * k.per_tap) * CONV3D_WGMMA_CHUNK;

			for (int tap = 0; tap < TAPS; tap++) {
				const uint32_t full = shared_address(&k.tables->b_full[stage]);

				mbarrier_wait(shared_address(&k.tables->b_empty[stage]), phase ^ 1);
				mbarrier_arrive_expect(full, bytes);
				tma_load_5d(k.b + stage * bytes, &p.weight_map, full, ci, n0,
					    tap % 3, tap / 3, kt);
				if (++stage == STAGES) {
					stage = 0;
					phase ^= 1;
				}
			}
		}
	}
}

/* ----------------------------------------------------------------------------------- products */

/* As wgmma_descriptor, groups of 8 rows being a border's width of rows apart. */
static __device__ __forceinline__ uint64_t pixels_descriptor(uint32_t row)
{
	return (uint64_t)((row & 0x3ffff) >> 4) | (uint64_t)1 << 16 |
	       (uint64_t)(HALO * 128 >> 4) << 32 | (uint64_t)1 << 62;
}

template <int N>
static __device__ __forceinline__ void wgmma_n(float (&d)[N / 2], uint64_t a, uint64_t b, int keep)
{
	if constexpr (N == 128)
		wgmma_ss_128(d, a, b, keep);
	else
		wgmma_ss_64(d, a, b, keep);
}

/* A warpgroup's place in the rings, from tile to tile. */
struct ring {
	int chunk, stage, phase;
};

/* d += two patches of this warpgroup times N channels. */
template <int N>
static __device__ __forceinline__ void multiply(const struct block &k, int group, struct ring &ring,
						float (&d)[2][N / 2])
{
	const uint32_t b_bytes = N * CONV3D_WGMMA_CHUNK * 2;
	const bool speaks = (threadIdx.x & 31) == 0;
	int before = 0;

	for (int c = k.first; c < k.last; c++, ring.chunk++) {
		const int buffer = ring.chunk & 1;
		const uint32_t a = k.a + buffer * A_BYTES + group * 2 * PATCH_ROWS * 128;

		mbarrier_wait(shared_address(&k.tables->a_full[buffer]), ring.chunk / 2 & 1);
#pragma unroll 1
		for (int kh = 0; kh < 3; kh++) {
#pragma unroll
			for (int kw = 0; kw < 3; kw++) {
				const uint64_t a0 = pixels_descriptor(a + (kh * HALO + kw) * 128);
				const uint64_t b0 = wgmma_descriptor(k.b + ring.stage * b_bytes);

				mbarrier_wait(shared_address(&k.tables->b_full[ring.stage]),
					      ring.phase);
				wgmma_fence();
#pragma unroll
				for (int step = 0; step < CONV3D_WGMMA_CHUNK / 16; step++)
#pragma unroll
					for (int patch = 0; patch < 2; patch++)
						wgmma_n<N>(d[patch],
							   a0 + patch * (PATCH_ROWS * 128 >> 4) +
								   2 * step,
							   b0 + 2 * step, 1);
				wgmma_commit();
				wgmma_wait<1>();
				/* What the group before this one read may be overwritten. */
				if (speaks && (c > k.first || kh || kw)) {
					mbarrier_arrive(shared_address(&k.tables->b_empty[before]));
					if (!kh && !kw)
						mbarrier_arrive(shared_address(
							&k.tables->a_empty[buffer ^ 1]));
				}
				before = ring.stage;
				if (++ring.stage == STAGES) {
					ring.stage = 0;
					ring.phase ^= 1;
				}
			}
		}
	}
	wgmma_wait<0>();
	if (speaks) {
		mbarrier_arrive(shared_address(&k.tables->b_empty[before]));
		mbarrier_arrive(shared_address(&k.tables->a_empty[(ring.chunk & 1) ^ 1]));
	}
}

/* ------------------------------------------------------------------------------------ results */

/* The warpgroup's results to rows of `pitch` floats. */
template <int N>
static __device__ __forceinline__ void results_put(const float (&d)[2][N / 2], int group, float *to,
						   int pitch)
{
	const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5 & 3;

	to += (128 * group + 16 * warp + (lane >> 2)) * pitch + 2 * (lane & 3);
#pragma unroll
	for (int patch = 0; patch < 2; patch++)
#pragma unroll
		for (int j = 0; j < N / 8; j++)
#pragma unroll
			for (int i = 0; i < 2; i++)
				*(float2 *)(to + (64 * patch + 8 * i) * pitch + 8 * j) =
					make_float2(d[patch][4 * j + 2 * i],
						    d[patch][4 * j + 2 * i + 1]);
}

/* Four blocks of 8 channels of a row, as the fragment has them, to memory: each lane one block. */
static __device__ __forceinline__ void row_store(void *to, const float (&v)[8], bool counts)
{
	uint32_t w[4];

#pragma unroll
	for (int j = 0; j < 4; j++)
		w[j] = bf16_pack(v[2 * j], v[2 * j + 1]);
	quad_transpose(w);
	if (counts)
		*(uint4 *)to = make_uint4(w[0], w[1], w[2], w[3]);
}

/* Bias of the fragment's columns. */
template <int N>
static __device__ __forceinline__ void bias_load(const struct conv3d_params &p, int n0,
						 float (&d)[2][N / 2])
{
#pragma unroll
	for (int j = 0; j < N / 8; j++) {
		const int c = n0 + 8 * j + 2 * (threadIdx.x & 3);
		const float2 b = c < p.channels ? *(const float2 *)(p.bias + c) : make_float2(0, 0);

#pragma unroll
		for (int patch = 0; patch < 2; patch++) {
			d[patch][4 * j] = d[patch][4 * j + 2] = b.x;
			d[patch][4 * j + 1] = d[patch][4 * j + 3] = b.y;
		}
	}
}

/*
 * Results that stay where they are (no resampler, channels in eights), from registers to memory: residual,
 * y, and the norm where the tile has all channels. A row is in four lanes; each moves 16 bytes.
 */
template <int N>
static __device__ __forceinline__ void results_store(const struct conv3d_params &p, int group,
						     const int *pixels, int n0,
						     float (&d)[2][N / 2])
{
	enum { QUADS = N / 32 };
	const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5 & 3;
	const int first = n0 + 8 * (lane & 3); /* channel that this lane moves */

#pragma unroll
	for (int patch = 0; patch < 2; patch++) {
		uint4 residual[2][QUADS];
		size_t at[2];
		bool exists[2];

#pragma unroll
		for (int i = 0; i < 2; i++) {
			const int pixel =
				pixels[128 * group + 64 * patch + 16 * warp + 8 * i + (lane >> 2)];

			exists[i] = pixel >= 0;
			at[i] = (size_t)pixel * p.cout + first;
#pragma unroll
			for (int q = 0; q < QUADS; q++)
				residual[i][q] =
					p.residual && exists[i] && first + 32 * q < p.cout ?
						*(const uint4 *)((const uint16_t *)p.residual +
								 at[i] + 32 * q) :
						make_uint4(0, 0, 0, 0);
		}
#pragma unroll
		for (int i = 0; i < 2; i++) {
			float v[QUADS][8], sum = 0;

#pragma unroll
			for (int q = 0; q < QUADS; q++) {
				uint32_t w[4] = { residual[i][q].x, residual[i][q].y,
						  residual[i][q].z, residual[i][q].w };

				quad_transpose(w);
#pragma unroll
				for (int j = 0; j < 4; j++) {
					const float *from = &d[patch][4 * (4 * q + j) + 2 * i];

					v[q][2 * j] = from[0] + bf16_low(w[j]);
					v[q][2 * j + 1] = from[1] + bf16_high(w[j]);
					/* A weight may have more rows. */
					if (n0 + 8 * (4 * q + j) < p.cout)
						sum += v[q][2 * j] * v[q][2 * j] +
						       v[q][2 * j + 1] * v[q][2 * j + 1];
				}
				if (p.y)
					row_store((uint16_t *)p.y + at[i] + 32 * q, v[q],
						  exists[i] && first + 32 * q < p.cout);
			}
			if (!p.y_norm)
				continue;
			sum += __shfl_xor_sync(0xffffffffu, sum, 1);
			sum += __shfl_xor_sync(0xffffffffu, sum, 2);
			sum = rsqrtf(__fdividef(sum, (float)p.cout) + 1e-8f);
#pragma unroll
			for (int q = 0; q < QUADS; q++) {
#pragma unroll
				for (int j = 0; j < 8; j++)
					v[q][j] = silu_approx(v[q][j] * sum);
				row_store((uint16_t *)p.y_norm + at[i] + 32 * q, v[q],
					  exists[i] && first + 32 * q < p.cout);
			}
		}
	}
}

/* ---------------------------------------------------------------------------------- the whole */

/* A block's own warpgroups: what the copies do. */
template <int N>
static __device__ __forceinline__ void copy(const struct conv3d_params &p, const struct block &k)
{
	if (threadIdx.x >= 32)
		copy_pixels(p, k);
	else if (threadIdx.x == 0)
		copy_weights<N>(p, k);
	__syncwarp();
}

template <int N>
static __device__ __forceinline__ struct block block_init(const struct conv3d_params &p)
{
	extern __shared__ unsigned char memory[];
	unsigned char *shared = memory + (-shared_address(memory) & 1023);
	const int per_tap = (p.cin + CONV3D_WGMMA_CHUNK - 1) / CONV3D_WGMMA_CHUNK;
	const int split = blockIdx.y;
	const struct block k = {
		shared_address(shared),
		shared_address(shared) + 2 * A_BYTES,
		(struct tables *)(shared + 2 * A_BYTES + STAGES * N * CONV3D_WGMMA_CHUNK * 2),
		p.tiles_m * p.tiles_n,
		3 * per_tap * split / p.splits,
		3 * per_tap * (split + 1) / p.splits,
		per_tap,
	};

	if (threadIdx.x == 0)
		barriers_init(k.tables);
	__syncthreads();
	return k;
}

/* Resident blocks walk over the tiles; the next one's copies run while results are stored. */
template <int N> static __device__ __forceinline__ void conv3d_walk(const struct conv3d_params &p)
{
	const struct block k = block_init<N>(p);
	const int group = threadIdx.x / 128 - 1;

	if (group < 0) {
		registers_give<56>();
		copy<N>(p, k);
	} else {
		struct ring ring = { 0, 0, 0 };
		float d[2][N / 2];

		registers_take<224>();
		for (int tile = blockIdx.x, turn = 0; tile < k.tiles;
		     tile += gridDim.x, turn ^= 1) {
			const int n0 = tile % p.tiles_n * N;

			bias_load<N>(p, n0, d);
			multiply<N>(k, group, ring, d);
			results_store<N>(p, group, k.tables->pixel[turn], n0, d);
		}
	}
}

/* One tile a block: partial sums, or results through shared memory to where the resampler wants them. */
template <int N> static __device__ __forceinline__ void conv3d_once(const struct conv3d_params &p)
{
	const struct block k = block_init<N>(p);
	const int group = (int)threadIdx.x / 128 - 1;
	const int n0 = blockIdx.x % p.tiles_n * N;
	unsigned char *shared =
		(unsigned char *)k.tables - 2 * A_BYTES - STAGES * N * CONV3D_WGMMA_CHUNK * 2;
	struct ring ring = { 0, 0, 0 };
	float d[2][N / 2];

	if (group >= 0) {
#pragma unroll
		for (int i = 0; i < N / 2; i++)
			d[0][i] = d[1][i] = 0;
		multiply<N>(k, group, ring, d);
	} else {
		copy<N>(p, k);
	}
	if (p.splits > 1) {
		if (group >= 0)
			results_put<N>(d, group,
				       p.partial + ((size_t)blockIdx.y * k.tiles + blockIdx.x) *
							   (CONV3D_TILE_PIXELS * N),
				       N);
		return;
	}
	__syncthreads(); /* nothing reads the operands any more */
	if (group >= 0)
		results_put<N>(d, group, (float *)shared, N + CONV3D_STAGE_PAD);
	__syncthreads();
	conv3d_put(p, { (float *)shared, k.tables->pixel[0], CONV3D_TILE_PIXELS,
			N + CONV3D_STAGE_PAD, n0, min(N, p.channels - n0), (int)threadIdx.x >> 5,
			CONV3D_WGMMA_THREADS / 32, (int)threadIdx.x & 31 });
}

#define BODY(call) call(p)
#else
#define BODY(call) __trap() /* never launched here */
#endif

extern "C" __global__ void __launch_bounds__(CONV3D_WGMMA_THREADS, 1)
	conv3d_wgmma_n128(const __grid_constant__ struct conv3d_params p)
{
	BODY(conv3d_walk<128>);
}

extern "C" __global__ void __launch_bounds__(CONV3D_WGMMA_THREADS, 1)
	conv3d_wgmma_n64(const __grid_constant__ struct conv3d_params p)
{
	BODY(conv3d_walk<64>);
}

extern "C" __global__ void __launch_bounds__(CONV3D_WGMMA_THREADS, 1)
	conv3d_wgmma_n128_once(const __grid_constant__ struct conv3d_params p)
{
	BODY(conv3d_once<128>);
}

extern "C" __global__ void __launch_bounds__(CONV3D_WGMMA_THREADS, 1)
	conv3d_wgmma_n64_once(const __grid_constant__ struct conv3d_params p)
{
	BODY(conv3d_once<64>);
}
