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
	A_ROWS = CONV3D_WGMMA_PATCHES * PATCH_ROWS,
	A_BYTES = A_ROWS * CONV3D_WGMMA_CHUNK * 2,
	STAGES = CONV3D_WGMMA_B_STAGES,
	TAPS = 9,
	COPIERS = 96, /* threads that copy pixels: warps 1 to 3 */
	CONSUMER_WARPS = 8,
};

#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define BODY(n) conv3d_wgmma<n>(p)

struct tables {
	uint64_t a_full[2], a_empty[2], b_full[STAGES], b_empty[STAGES];
	const uint16_t *frame[3][CONV3D_WGMMA_PATCHES];
	int offset[A_ROWS]; /* of border pixels inside a frame; −1 zero */
	int pixel[CONV3D_WGMMA_PIXELS];
};

static_assert(sizeof(struct tables) <= CONV3D_WGMMA_TABLE_BYTES, "shared memory");

/* What a block knows of its work. */
struct block {
	uint32_t a, b; /* shared memory */
	struct tables *tables;
	int tile_m, n0, first, last, per_tap;
};

static __device__ __forceinline__ void tables_fill(const struct conv3d_params &p,
						   const struct block &k)
{
	struct tables *tables = k.tables;

	for (int i = threadIdx.x; i < A_ROWS; i += CONV3D_WGMMA_THREADS) {
		const int in_patch = i % PATCH_ROWS;
		int t, h, w;
		const bool exists = conv3d_patch(
			p, k.tile_m * CONV3D_WGMMA_PATCHES + i / PATCH_ROWS, &t, &h, &w);

		tables->offset[i] = exists ? conv3d_offset(p, h + in_patch / HALO - 1,
							   w + in_patch % HALO - 1) :
					     -1;
		if (in_patch < 3)
			tables->frame[in_patch][i / PATCH_ROWS] =
				conv3d_frame(p, exists ? t : 0, in_patch);
	}
	for (int i = threadIdx.x; i < CONV3D_WGMMA_PIXELS; i += CONV3D_WGMMA_THREADS)
		tables->pixel[i] = conv3d_pixel(p, k.tile_m, i);
	if (threadIdx.x == 0) {
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
}

/* Pixels of every chunk; warps 1 to 3. */
static __device__ __forceinline__ void copy_pixels(const struct conv3d_params &p,
						   const struct block &k)
{
	const int me = threadIdx.x - 32, piece = me & 7, row = me >> 3;

	for (int c = k.first, i = 0; c < k.last; c++, i++) {
		const int buffer = i & 1, kt = c / k.per_tap;
		const int channel = (c - kt * k.per_tap) * CONV3D_WGMMA_CHUNK + piece * 8;
		const uint32_t to = k.a + buffer * A_BYTES;

		if (i >= 2)
			mbarrier_wait(shared_address(&k.tables->a_empty[buffer]), (i / 2 - 1) & 1);
		for (int patch = 0; patch < CONV3D_WGMMA_PATCHES; patch++) {
			const uint16_t *frame = k.tables->frame[kt][patch];

#pragma unroll
			for (int j = 0; j < (PATCH_ROWS + 11) / 12; j++) {
				const int r = patch * PATCH_ROWS + row + 12 * j;

				if (row + 12 * j < PATCH_ROWS) {
					const int offset = k.tables->offset[r];
					const bool counts = offset >= 0 && channel < p.cin;

					cp_async_16(to + swizzle_128(r, piece),
						    counts ? frame + offset + channel : frame,
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

/* Weights of every chunk and tap; one thread. */
template <int N>
static __device__ __forceinline__ void copy_weights(const struct conv3d_params &p,
						    const struct block &k)
{
	int stage = 0, phase = 0;

	for (int c = k.first; c < k.last; c++) {
		const int kt = c / k.per_tap, ci = (c - kt * k.per_tap) * CONV3D_WGMMA_CHUNK;

		for (int tap = 0; tap < TAPS; tap++) {
			const uint32_t full = shared_address(&k.tables->b_full[stage]);

			mbarrier_wait(shared_address(&k.tables->b_empty[stage]), phase ^ 1);
			mbarrier_arrive_expect(full, N * CONV3D_WGMMA_CHUNK * 2);
			tma_load_3d(k.b + stage * (N * CONV3D_WGMMA_CHUNK * 2), &p.weight_map, full,
				    ci, k.n0, kt * TAPS + tap);
			if (++stage == STAGES) {
				stage = 0;
				phase ^= 1;
			}
		}
	}
}

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

/* Two patches of this warpgroup times N channels. */
template <int N>
static __device__ __forceinline__ void multiply(const struct block &k, int group,
						float (&d)[2][N / 2])
{
	const uint32_t b_bytes = N * CONV3D_WGMMA_CHUNK * 2;
	const bool speaks = (threadIdx.x & 31) == 0;
	int stage = 0, phase = 0, before = 0;

	for (int c = k.first, i = 0; c < k.last; c++, i++) {
		const uint32_t a = k.a + (i & 1) * A_BYTES + group * 2 * PATCH_ROWS * 128;

		mbarrier_wait(shared_address(&k.tables->a_full[i & 1]), i / 2 & 1);
#pragma unroll 1
		for (int kh = 0; kh < 3; kh++) {
#pragma unroll
			for (int kw = 0; kw < 3; kw++) {
				const uint64_t a0 = pixels_descriptor(a + (kh * HALO + kw) * 128);
				const uint64_t b0 = wgmma_descriptor(k.b + stage * b_bytes);

				mbarrier_wait(shared_address(&k.tables->b_full[stage]), phase);
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
				if (speaks && (i || kh || kw)) {
					mbarrier_arrive(shared_address(&k.tables->b_empty[before]));
					if (!kh && !kw)
						mbarrier_arrive(shared_address(
							&k.tables->a_empty[(i & 1) ^ 1]));
				}
				before = stage;
				if (++stage == STAGES) {
					stage = 0;
					phase ^= 1;
				}
			}
		}
	}
	wgmma_wait<0>();
}

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

template <int N> static __device__ __forceinline__ void conv3d_wgmma(const struct conv3d_params &p)
{
	extern __shared__ unsigned char memory[];
	unsigned char *shared = memory + (-(uintptr_t)shared_address(memory) & 1023);
	const int chunks_per_tap = (p.cin + CONV3D_WGMMA_CHUNK - 1) / CONV3D_WGMMA_CHUNK;
	const int split = blockIdx.y, warp = threadIdx.x >> 5, group = warp / 4 - 1;
	const struct block k = {
		shared_address(shared),
		shared_address(shared) + 2 * A_BYTES,
		(struct tables *)(shared + 2 * A_BYTES + STAGES * N * CONV3D_WGMMA_CHUNK * 2),
		(int)blockIdx.x / p.tiles_n,
		(int)blockIdx.x % p.tiles_n * N,
		3 * chunks_per_tap * split / p.splits,
		3 * chunks_per_tap * (split + 1) / p.splits,
		chunks_per_tap,
	};
	float d[2][N / 2];

	tables_fill(p, k);
	__syncthreads();
	if (group >= 0) {
#pragma unroll
		for (int i = 0; i < N / 2; i++)
			d[0][i] = d[1][i] = 0;
		multiply<N>(k, group, d);
	} else if (warp > 0) {
		copy_pixels(p, k);
	} else if (threadIdx.x == 0) {
		copy_weights<N>(p, k);
	}
	__syncwarp();
	if (p.splits > 1) {
		if (group >= 0)
			results_put<N>(d, group,
				       p.partial + ((size_t)split * gridDim.x + blockIdx.x) *
							   (CONV3D_WGMMA_PIXELS * N),
				       N);
		return;
	}
	__syncthreads(); /* nothing reads the operands any more */
	if (group >= 0)
		results_put<N>(d, group, (float *)shared, N + CONV3D_STAGE_PAD);
	__syncthreads();
	conv3d_put(p, { (const float *)shared, k.tables->pixel, CONV3D_WGMMA_PIXELS,
			N + CONV3D_STAGE_PAD, k.n0, min(N, p.channels - k.n0), warp,
			CONV3D_WGMMA_THREADS / 32, (int)threadIdx.x & 31 });
}

#else
#define BODY(n) __trap() /* never launched here */
#endif

extern "C" __global__ void __launch_bounds__(CONV3D_WGMMA_THREADS, 1)
	conv3d_wgmma_n128(const __grid_constant__ struct conv3d_params p)
{
	BODY(128);
}

extern "C" __global__ void __launch_bounds__(CONV3D_WGMMA_THREADS, 1)
	conv3d_wgmma_n64(const __grid_constant__ struct conv3d_params p)
{
	BODY(64);
}
