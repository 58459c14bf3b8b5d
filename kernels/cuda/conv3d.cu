/*
 * The 3×3×3 convolution on every target: mma.sync with cp.async, the end of a split sum, the norm of
 * wide pixels, and a plain kernel for odd numbers of channels.
 */
#include <stddef.h>

#include "kernels/cuda/conv3d.cuh"

enum {
	HALO = 10,
	PATCH_ROWS = HALO * HALO,
	A_ROWS = CONV3D_PATCHES * PATCH_ROWS,
	A_BYTES = A_ROWS * CONV3D_CHUNK * 2,
	A_PIECES = (A_ROWS * 4 + CONV3D_THREADS - 1) / CONV3D_THREADS, /* 16 bytes, per thread */
	STAGES = CONV3D_B_STAGES,
	DEPTH = CONV3D_DEPTH,
	WARPS = CONV3D_THREADS / 32,
	STAGE_ROWS = CONV3D_STAGE_ROWS,
};

struct tables {
	uint64_t a_full[2], a_empty[2], b_full[STAGES], b_empty[STAGES];
	const uint16_t *frame[3][CONV3D_PATCHES];
};

static_assert(sizeof(struct tables) <= 192, "shared memory");

/* Barrier i of an array of `struct tables`. */
static __device__ __forceinline__ uint32_t at_barrier(uint32_t tables, size_t array, int i)
{
	return tables + (uint32_t)array + i * 8;
}

static __device__ __forceinline__ const uint16_t *frame_address(uint32_t tables, int kt, int patch)
{
	return (const uint16_t *)shared_load_64(tables + offsetof(struct tables, frame) +
						(kt * CONV3D_PATCHES + patch) * 8);
}

/* Stages of a chunk: three kw of two halves. Channels that are not there are zeros. */
enum { CHUNK_STAGES = 6 };

/* Chunk c of the sum: tap kt and first channel. */
struct chunk {
	int kt, ci;
};

static __device__ __forceinline__ struct chunk chunk_at(const struct conv3d_params &p, int c)
{
	const int per_tap = (p.cin + CONV3D_CHUNK - 1) / CONV3D_CHUNK, kt = c / per_tap;

	return { kt, (c - kt * per_tap) * CONV3D_CHUNK };
}

/*
 * A warp multiplies a pair of patches by NT·8 channels. A fragment of 16 pixels is a row of 8 of either
 * patch, so that tap kh of output row m reads fragment m + kh: ten of them serve all three.
 */
template <int NT> struct mma_state {
	uint32_t tables, shared_a, shared_b; /* pixels 0, weights, pixels 1: in this order */
	uint32_t a_phase, b_phase; /* bit i: parity of the first use of barrier i in this tile */
	int offset[A_PIECES];	   /* of this thread's pixels inside a frame; −1 zero */
	uint32_t from_b;
	float d[8][NT][4];
	uint32_t a[HALO][4], b[3][NT / 2][4];
};

template <int NT> static __device__ __forceinline__ constexpr int tile_channels(void)
{
	return NT * 8 * 4;
}

template <int NT> static __device__ __forceinline__ constexpr int stage_bytes(void)
{
	return 3 * tile_channels<NT>() * DEPTH * 2;
}

/* Bytes from one buffer of pixels to the other: the weights are between them. */
template <int NT> static __device__ __forceinline__ constexpr int a_stride(void)
{
	return A_BYTES + STAGES * stage_bytes<NT>();
}

/* Which pair of patches and which channels a warp has. */
static __device__ __forceinline__ int warp_pair(void)
{
	return threadIdx.x >> 5 & 1;
}

template <int NT> static __device__ __forceinline__ int warp_column(void)
{
	return (threadIdx.x >> 6) * NT * 8;
}

template <int NT>
static __device__ __forceinline__ void mma_init(struct mma_state<NT> &s, unsigned char *shared)
{
	const int lane = threadIdx.x & 31;

	s.shared_a = shared_address(shared);
	s.shared_b = s.shared_a + A_BYTES;
	s.tables = s.shared_a + STAGES * stage_bytes<NT>() + 2 * A_BYTES;
	s.a_phase = s.b_phase = 0;
	s.from_b = s.shared_b +
		   swizzle_32(warp_column<NT>() + (lane & 7) + ((lane >> 4) << 3), lane >> 3 & 1);
	if (threadIdx.x)
		return;
	for (int i = 0; i < 2; i++) {
		mbarrier_init(at_barrier(s.tables, offsetof(struct tables, a_full), i),
			      CONV3D_THREADS);
		mbarrier_init(at_barrier(s.tables, offsetof(struct tables, a_empty), i), WARPS);
	}
	for (int i = 0; i < STAGES; i++) {
		mbarrier_init(at_barrier(s.tables, offsetof(struct tables, b_full), i), 1);
		mbarrier_init(at_barrier(s.tables, offsetof(struct tables, b_empty), i), WARPS);
	}
	mbarrier_init_fence();
}

/* -------------------------------------------------------------------------------------- copies */

/* Byte of 16-byte piece `piece` of pixel `column` of a border's row: neighbours in other banks. */
static __device__ __forceinline__ uint32_t swizzle_pixel(int pixel, int column, int piece)
{
	return pixel * 64 + ((piece ^ (column >> 1 & 3)) << 4);
}

/* Piece i of this thread of the pixels of a chunk, to buffer `buffer`: without a branch. */
template <int NT>
static __device__ __forceinline__ void copy_piece(const struct conv3d_params &p,
						  const struct mma_state<NT> &s, int kt, int ci,
						  int buffer, int i)
{
	const int piece = threadIdx.x & 3, channel = ci + piece * 8;
	const int pixel = (threadIdx.x >> 2) + CONV3D_THREADS / 4 * i;
	const int patch = min(pixel / PATCH_ROWS, CONV3D_PATCHES - 1);
	const bool counts = s.offset[i] >= 0 && channel < p.cin;
	const uint16_t *from =
		frame_address(s.tables, kt, patch) + (counts ? s.offset[i] + channel : 0);

	cp_async_16_if(pixel < A_ROWS,
		       s.shared_a + buffer * a_stride<NT>() +
			       swizzle_pixel(pixel, pixel % HALO, piece),
		       from, counts ? 16 : 0);
}

/* The pixels of a chunk, all threads together; the barrier counts what arrives. */
template <int NT>
static __device__ __forceinline__ void copy_pixels(const struct conv3d_params &p,
						   const struct mma_state<NT> &s, int kt, int ci,
						   int buffer)
{
#pragma unroll
	for (int i = 0; i < A_PIECES; i++)
		copy_piece(p, s, kt, ci, buffer, i);
	cp_async_arrive(at_barrier(s.tables, offsetof(struct tables, a_full), buffer));
}

/* The weights of stage i of a tile, stage `in` of a chunk, [kh][channel][16]; one thread. */
template <int NT>
static __device__ __forceinline__ void copy_weights(const struct conv3d_params &p,
						    const struct mma_state<NT> &s, int i, int in,
						    const struct chunk &at, int n0)
{
	const uint32_t full = at_barrier(s.tables, offsetof(struct tables, b_full), i % STAGES);

	mbarrier_arrive_expect(full, stage_bytes<NT>());
	tma_load_5d(s.shared_b + i % STAGES * stage_bytes<NT>(), &p.weight_map, full,
		    at.ci + in % 2 * DEPTH, n0, in / 2, 0, at.kt);
}

/* Where the pixels of this thread are; of a residual only the way to L2. */
template <int NT>
static __device__ __forceinline__ void tile_locate(const struct conv3d_params &p,
						   struct mma_state<NT> &s, int tile_m, int n0)
{
	const int tid = threadIdx.x, first = tile_m * CONV3D_PATCHES;
	const int pixel = conv3d_pixel(p, tile_m, tid);
	int t, h, w;

#pragma unroll
	for (int i = 0; i < A_PIECES; i++) {
		const int a = (tid >> 2) + CONV3D_THREADS / 4 * i, r = a % PATCH_ROWS;

		s.offset[i] = a < A_ROWS && conv3d_patch(p, first + a / PATCH_ROWS, &t, &h, &w) ?
				      conv3d_offset(p, h + r / HALO - 1, w + r % HALO - 1) :
				      -1;
	}
	if (tid < 3 * CONV3D_PATCHES) {
		if (!conv3d_patch(p, first + tid / 3, &t, &h, &w))
			t = 0;
		shared_store_64(s.tables + offsetof(struct tables, frame) +
					(tid % 3 * CONV3D_PATCHES + tid / 3) * 8,
				(uint64_t)conv3d_frame(p, t, tid % 3));
	}
	if (p.residual && pixel >= 0) {
		const uint16_t *row = (const uint16_t *)p.residual + (size_t)pixel * p.cout + n0;

		prefetch_l2(row);
		prefetch_l2(row + min(tile_channels<NT>(), p.cout - n0) - 1);
	}
}

/*
 * A tile's first copies: chunk `first` of its pixels and all but one stage of weights. Of shared memory
 * nothing but the last stage and the second buffer may be in use.
 */
template <int NT>
static __device__ __forceinline__ void tile_begin(const struct conv3d_params &p,
						  struct mma_state<NT> &s, int tile, int first)
{
	const int n0 = tile % p.tiles_n * tile_channels<NT>();
	const struct chunk at = chunk_at(p, first);

	tile_locate(p, s, tile / p.tiles_n, n0);
	__syncthreads();
	copy_pixels(p, s, at.kt, at.ci, 0);
	for (int i = 0; i < STAGES - 1 && threadIdx.x == 0; i++)
		copy_weights(p, s, i, i, at, n0);
	__syncwarp();
}

/* ------------------------------------------------------------------------------------ products */

/* Address of this lane's part of the first fragment of column kw, half k. */
template <int NT>
static __device__ __forceinline__ uint32_t rows_address(const struct mma_state<NT> &s, int buffer,
							int kw, int k)
{
	const int lane = threadIdx.x & 31, column = (lane & 7) + kw;
	const int patch = 2 * warp_pair() + (lane >> 3 & 1);

	return s.shared_a + buffer * a_stride<NT>() +
	       swizzle_pixel(patch * PATCH_ROWS + column, column, 2 * k + (lane >> 4));
}

template <int NT>
static __device__ __forceinline__ void load_row(struct mma_state<NT> &s, uint32_t rows, int row)
{
	ldmatrix_x4(s.a[row], rows + row * HALO * CONV3D_CHUNK * 2);
}

template <int NT>
static __device__ __forceinline__ void load_weights(struct mma_state<NT> &s, int stage, int kh)
{
#pragma unroll
	for (int n = 0; n < NT / 2; n++)
		ldmatrix_x4(s.b[kh][n], s.from_b + stage * stage_bytes<NT>() +
						(kh * tile_channels<NT>() + 16 * n) * DEPTH * 2);
}

template <int NT>
static __device__ __forceinline__ void products(struct mma_state<NT> &s, int m, int kh)
{
#pragma unroll
	for (int n = 0; n < NT; n++)
		mma_bf16(s.d[m][n], s.a[m + kh], s.b[kh][n / 2][n % 2 * 2],
			 s.b[kh][n / 2][n % 2 * 2 + 1]);
}

/* What a stage needs to know of its tile: how many chunks, and the one at hand. */
struct work {
	int chunks, n0;
	struct chunk now, next;
};

/* Waits for use i / STAGES of a barrier of the weights' ring in this tile. */
template <int NT>
static __device__ __forceinline__ uint32_t ring_parity(const struct mma_state<NT> &s, int i)
{
	return (i / STAGES ^ s.b_phase >> i % STAGES) & 1;
}

/* The weights of stage i + 3, into the buffer that all warps left after stage i − 1. */
template <int NT>
static __device__ __forceinline__ void feed_weights(const struct conv3d_params &p,
						    const struct mma_state<NT> &s,
						    const struct work &work, int i, int in)
{
	const int later = in + STAGES - 1;

	if (i % WARPS == threadIdx.x >> 5 && (threadIdx.x & 31) == 0 &&
	    i + STAGES - 1 < work.chunks * CHUNK_STAGES) {
		if (i > 0)
			mbarrier_wait(at_barrier(s.tables, offsetof(struct tables, b_empty),
						 (i - 1) % STAGES),
				      ring_parity(s, i - 1));
		copy_weights(p, s, i + STAGES - 1, later % CHUNK_STAGES,
			     later < CHUNK_STAGES ? work.now : work.next, work.n0);
	}
	__syncwarp();
}

/* Products of kh = 1 with the copies of chunk j + 1 of the tile between them. */
template <int NT>
static __device__ __forceinline__ void products_and_pixels(const struct conv3d_params &p,
							   struct mma_state<NT> &s,
							   const struct chunk &next, int j)
{
	const int other = ~j & 1;

	/* Free since the first stage of chunk j. */
	if (j > 0)
		mbarrier_wait(at_barrier(s.tables, offsetof(struct tables, a_empty), other),
			      ((j - 1) >> 1 ^ s.a_phase >> other) & 1);
	static_assert(A_PIECES <= 8, "one for each row");
#pragma unroll
	for (int m = 0; m < 8; m++) {
		products(s, m, 1);
		if (m < A_PIECES)
			copy_piece(p, s, next.kt, next.ci, other, m < A_PIECES ? m : 0);
	}
	cp_async_arrive(at_barrier(s.tables, offsetof(struct tables, a_full), other));
}

/*
 * Stage i of a tile, which is stage `in` of chunk j: 16 channels of the weights of one kw. Operands of the
 * next stage are read while the last products run, into the registers that these free.
 */
template <int NT>
static __device__ __forceinline__ void stage_products(const struct conv3d_params &p,
						      struct mma_state<NT> &s,
						      const struct work &work, int i, int j, int in)
{
	const int stages = work.chunks * CHUNK_STAGES, then = (in + 1) % CHUNK_STAGES;
	const bool ends = in == CHUNK_STAGES - 1;
	uint32_t rows;
	bool ready;

	load_weights(s, i % STAGES, 1);
#pragma unroll
	for (int m = 0; m < 8; m++)
		products(s, m, 0);
	load_weights(s, i % STAGES, 2);
	feed_weights(p, s, work, i, in);
	/* Asked for early: the answer takes a while. (Where nothing comes it would take longest.) */
	ready = i + 1 >= stages ||
		mbarrier_try_wait(at_barrier(s.tables, offsetof(struct tables, b_full),
					     (i + 1) % STAGES),
				  ring_parity(s, i + 1));
	if (in == 2 && j + 1 < work.chunks) {
		products_and_pixels(p, s, work.next, j);
	} else {
#pragma unroll
		for (int m = 0; m < 8; m++)
			products(s, m, 1);
	}
	if (!ready)
		mbarrier_wait(at_barrier(s.tables, offsetof(struct tables, b_full),
					 (i + 1) % STAGES),
			      ring_parity(s, i + 1));
	if (ends && i + 1 < stages)
		mbarrier_wait(at_barrier(s.tables, offsetof(struct tables, a_full), ~j & 1),
			      ((j + 1) >> 1 ^ s.a_phase >> (~j & 1)) & 1);
	rows = rows_address(s, (j + ends) & 1, then / 2, then % 2);
	load_weights(s, (i + 1) % STAGES, 0);
	load_row(s, rows, 0);
	load_row(s, rows, 1);
#pragma unroll
	for (int m = 0; m < 8; m++) {
		products(s, m, 2);
		load_row(s, rows, m + 2);
	}
	if ((threadIdx.x & 31) == 0) {
		mbarrier_arrive(at_barrier(s.tables, offsetof(struct tables, b_empty), i % STAGES));
		if (ends)
			mbarrier_arrive(
				at_barrier(s.tables, offsetof(struct tables, a_empty), j & 1));
	}
}

/* The sum over chunks of a tile that tile_begin has begun. */
template <int NT>
static __device__ __forceinline__ void sum(const struct conv3d_params &p, struct mma_state<NT> &s,
					   int first, int chunks, int n0)
{
	struct work work = { chunks, n0, chunk_at(p, first), chunk_at(p, first) };
	const int stages = chunks * CHUNK_STAGES;
	uint32_t rows;

#pragma unroll
	for (int m = 0; m < 8; m++)
#pragma unroll
		for (int n = 0; n < NT; n++)
#pragma unroll
			for (int e = 0; e < 4; e++)
				s.d[m][n][e] = 0;
	mbarrier_wait(at_barrier(s.tables, offsetof(struct tables, a_full), 0), s.a_phase & 1);
	mbarrier_wait(at_barrier(s.tables, offsetof(struct tables, b_full), 0), s.b_phase & 1);
	rows = rows_address(s, 0, 0, 0);
	load_weights(s, 0, 0);
#pragma unroll
	for (int row = 0; row < HALO; row++)
		load_row(s, rows, row);
#pragma unroll 1
	for (int j = 0; j < chunks; j++) {
		work.now = work.next;
		work.next.ci += CONV3D_CHUNK;
		if (work.next.ci >= p.cin) {
			work.next.ci = 0;
			work.next.kt++;
		}
#pragma unroll
		for (int in = 0; in < CHUNK_STAGES; in++)
			stage_products(p, s, work, j * CHUNK_STAGES + in, j, in);
	}
	/* Uses of each barrier in this tile. */
#pragma unroll
	for (int j = 0; j < STAGES; j++)
		s.b_phase ^= ((stages - j + STAGES - 1) / STAGES & 1) << j;
#pragma unroll
	for (int j = 0; j < 2; j++)
		s.a_phase ^= ((chunks - j + 1) / 2 & 1) << j;
	__syncthreads();
}

/* ------------------------------------------------------------------------------------- results */

/* One patch of this warp's pair to rows of `pitch` floats. */
template <int NT>
static __device__ __forceinline__ void results_put(const struct mma_state<NT> &s, int patch,
						   float *to, int pitch)
{
	const int lane = threadIdx.x & 31;

	to += (lane >> 2) * pitch + warp_column<NT>() + 2 * (lane & 3);
#pragma unroll
	for (int m = 0; m < 8; m++)
#pragma unroll
		for (int n = 0; n < NT; n++)
			*(float2 *)(to + 8 * m * pitch + 8 * n) =
				patch ? make_float2(s.d[m][n][2], s.d[m][n][3]) :
					make_float2(s.d[m][n][0], s.d[m][n][1]);
}

/*
 * A tile through shared memory: a patch at a time where nothing of the next tile's first copies is, or,
 * for cells of two frames, a pair of patches and no next tile.
 */
template <int NT>
static __device__ __forceinline__ void put_tile(const struct conv3d_params &p,
						const struct mma_state<NT> &s,
						unsigned char *shared, int tile_m, int n0)
{
	const int n = tile_channels<NT>(), pitch = n + CONV3D_STAGE_PAD;
	const bool pairs = p.resample == CONV3D_SPACE_TO_DEPTH;
	const int rows = pairs ? STAGE_ROWS : 64;
	float *stage = (float *)(shared + (pairs ? 0 : A_BYTES + (STAGES - 1) * stage_bytes<NT>()));
	int *pixel = (int *)(stage + rows * pitch);

	static_assert(64 * (tile_channels<NT>() + CONV3D_STAGE_PAD + 1) * sizeof(float) <=
			      A_BYTES + stage_bytes<NT>(),
		      "a patch fits");
	for (int from = 0; from < CONV3D_TILE_PIXELS; from += rows) {
		if (from)
			__syncthreads();
#pragma unroll
		for (int patch = 0; patch < 2; patch++) {
			const int at = 128 * warp_pair() + 64 * patch - from;

			if (at >= 0 && at < rows)
				results_put(s, patch, stage + at * pitch, pitch);
		}
		if (threadIdx.x < rows)
			pixel[threadIdx.x] = conv3d_pixel(p, tile_m, from + threadIdx.x);
		__syncthreads();
		conv3d_put(p, { stage, pixel, rows, pitch, n0, min(n, p.channels - n0),
				(int)threadIdx.x >> 5, WARPS, (int)threadIdx.x & 31 });
	}
}

/* Resident blocks walk over the tiles; the next one's first copies run while results are stored. */
template <int NT> static __device__ __forceinline__ void conv3d_mma(const struct conv3d_params &p)
{
	extern __shared__ unsigned char memory[];
	unsigned char *shared = memory + (-shared_address(memory) & 255);
	const int n = tile_channels<NT>(), split = blockIdx.y, tiles = p.tiles_m * p.tiles_n;
	const int chunks = 3 * ((p.cin + CONV3D_CHUNK - 1) / CONV3D_CHUNK);
	const int first = chunks * split / p.splits, last = chunks * (split + 1) / p.splits;
	struct mma_state<NT> s;

	mma_init(s, shared);
	tile_begin(p, s, blockIdx.x, first); /* its barrier is the one after mma_init too */
	for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
		const int next = tile + gridDim.x;

		sum(p, s, first, last - first, tile % p.tiles_n * n);
		if (p.splits > 1) {
			float *to =
				p.partial + (((size_t)split * tiles + tile) * CONV3D_TILE_PIXELS +
					     128 * warp_pair()) *
						    n;

			results_put(s, 0, to, n);
			results_put(s, 1, to + 64 * n, n);
			return;
		}
		if (next < tiles)
			tile_begin(p, s, next, first);
		put_tile(p, s, shared, tile / p.tiles_n, tile % p.tiles_n * n);
		fence_proxy_async();
		__syncthreads();
	}
}

extern "C" __global__ void __launch_bounds__(CONV3D_THREADS, 1)
	conv3d_mma_n128(const __grid_constant__ struct conv3d_params p)
{
	conv3d_mma<4>(p);
}

extern "C" __global__ void __launch_bounds__(CONV3D_THREADS, 1)
	conv3d_mma_n64(const __grid_constant__ struct conv3d_params p)
{
	conv3d_mma<2>(p);
}

/* Adds the partial sums of a tile in the order of the splits; 128 rows per block. */
extern "C" __global__ void __launch_bounds__(CONV3D_FINISH_THREADS)
	conv3d_finish(const __grid_constant__ struct conv3d_params p)
{
	extern __shared__ float4 stage4[];
	__shared__ int pixel[STAGE_ROWS];
	float *stage = (float *)stage4;
	const int tile_m = blockIdx.x / p.tiles_n, n = p.tile_channels;
	const int n0 = blockIdx.x % p.tiles_n * n, row = STAGE_ROWS * blockIdx.y;
	const size_t stride = (size_t)gridDim.x * CONV3D_TILE_PIXELS * n;
	const float *from = p.partial + ((size_t)blockIdx.x * CONV3D_TILE_PIXELS + row) * n;

	for (int i = 4 * threadIdx.x; i < STAGE_ROWS * n; i += 4 * CONV3D_FINISH_THREADS) {
		float4 v = *(const float4 *)(from + i);

		for (int split = 1; split < p.splits; split++) {
			const float4 u = *(const float4 *)(from + split * stride + i);

			v = make_float4(v.x + u.x, v.y + u.y, v.z + u.z, v.w + u.w);
		}
		*(float4 *)(stage + i / n * (n + CONV3D_STAGE_PAD) + i % n) = v;
	}
	if (threadIdx.x < STAGE_ROWS)
		pixel[threadIdx.x] = conv3d_pixel(p, tile_m, row + threadIdx.x);
	__syncthreads();
	conv3d_put(p, { stage, pixel, STAGE_ROWS, n + CONV3D_STAGE_PAD, n0, min(n, p.channels - n0),
			(int)threadIdx.x >> 5, CONV3D_FINISH_THREADS / 32, (int)threadIdx.x & 31 });
}

/* Any sizes: one warp per output pixel, lanes over the output channels. */
extern "C" __global__ void conv3d_plain(const __grid_constant__ struct conv3d_params p)
{
	const int pixel = blockIdx.x;
	const int w = pixel % p.width, h = pixel / p.width % p.height;
	const int t = pixel / p.width / p.height;

	for (int c = threadIdx.x; c < p.channels; c += blockDim.x) {
		float v = 0;

		for (int tap = 0; tap < 27; tap++) {
			const uint16_t *frame = conv3d_frame(p, t, tap / 9);
			const int at = conv3d_offset(p, h + tap / 3 % 3 - 1, w + tap % 3 - 1);
			const uint16_t *weight =
				(const uint16_t *)p.weight + ((size_t)tap * p.rows + c) * p.cin;

			for (int i = 0; at >= 0 && i < p.cin; i++)
				v = fmaf(bf16_value(weight[i]), bf16_value(frame[at + i]), v);
		}
		if (p.resample == CONV3D_NONE)
			conv3d_put_plain(p, pixel, c, v);
		else if (p.resample == CONV3D_SPACE_TO_DEPTH)
			conv3d_put_down(p, pixel, c, v);
		else
			conv3d_put_up(p, pixel, c, v);
	}
}

/*
 * PIXELS pixels of a warp, PIECES times 256 channels of each: all loads before the first use. The last
 * pixels come first: the convolution has just written them, they are in L2.
 */
template <int PIXELS, int PIECES>
static __device__ __forceinline__ void norm(const struct conv3d_norm_params &p)
{
	const int lane = threadIdx.x & 31;
	const int last = (int)p.pixels - 1 -
			 (int)((blockIdx.x * CONV3D_NORM_THREADS + threadIdx.x) / 32 * PIXELS);
	uint32_t v[PIXELS][PIECES][4];

#pragma unroll
	for (int j = 0; j < PIXELS; j++)
#pragma unroll
		for (int i = 0; i < PIECES; i++) {
			const int c = 8 * (lane + 32 * i);
			uint4 w = make_uint4(0, 0, 0, 0);

			if (last - j >= 0 && c < p.channels)
				w = *(const uint4 *)((const uint16_t *)p.x +
						     (size_t)(last - j) * p.channels + c);
			v[j][i][0] = w.x;
			v[j][i][1] = w.y;
			v[j][i][2] = w.z;
			v[j][i][3] = w.w;
		}
#pragma unroll
	for (int j = 0; j < PIXELS; j++) {
		float sum = 0, scale;

#pragma unroll
		for (int i = 0; i < PIECES; i++)
#pragma unroll
			for (int k = 0; k < 4; k++)
				sum += bf16_low(v[j][i][k]) * bf16_low(v[j][i][k]) +
				       bf16_high(v[j][i][k]) * bf16_high(v[j][i][k]);
		scale = rsqrtf(__fdividef(warp_sum(sum), (float)p.channels) + 1e-8f);
#pragma unroll
		for (int i = 0; i < PIECES; i++) {
			const int c = 8 * (lane + 32 * i);
			uint32_t w[4];

#pragma unroll
			for (int k = 0; k < 4; k++)
				w[k] = bf16_pack(conv3d_silu(bf16_low(v[j][i][k]) * scale),
						 conv3d_silu(bf16_high(v[j][i][k]) * scale));
			if (last - j >= 0 && c < p.channels)
				*(uint4 *)((uint16_t *)p.y + (size_t)(last - j) * p.channels + c) =
					make_uint4(w[0], w[1], w[2], w[3]);
		}
	}
}

extern "C" __global__ void __launch_bounds__(CONV3D_NORM_THREADS)
	conv3d_norm(const __grid_constant__ struct conv3d_norm_params p)
{
	if (p.channels <= 256)
		norm<4, 1>(p);
	else if (p.channels <= 512)
		norm<2, 2>(p);
	else if (p.channels <= 1024)
		norm<1, 4>(p);
	else
		norm<1, 8>(p);
}

/* The same for any number of channels, which are read twice. */
extern "C" __global__ void __launch_bounds__(CONV3D_NORM_THREADS)
	conv3d_norm_any(const __grid_constant__ struct conv3d_norm_params p)
{
	const unsigned int pixel = (blockIdx.x * CONV3D_NORM_THREADS + threadIdx.x) / 32;
	const uint16_t *from = (const uint16_t *)p.x + (size_t)pixel * p.channels;
	uint16_t *to = (uint16_t *)p.y + (size_t)pixel * p.channels;
	float sum = 0, scale;

	if (pixel >= p.pixels)
		return;
	for (int c = threadIdx.x & 31; c < p.channels; c += 32)
		sum += bf16_value(from[c]) * bf16_value(from[c]);
	scale = rsqrtf(__fdividef(warp_sum(sum), (float)p.channels) + 1e-8f);
	for (int c = threadIdx.x & 31; c < p.channels; c += 32)
		to[c] = bf16_bits(conv3d_silu(bf16_value(from[c]) * scale));
}
