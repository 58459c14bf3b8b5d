/*
 * The 3×3×3 convolution on every target: mma.sync with cp.async, the end of a split sum, the norm of
 * wide pixels, and a plain kernel for odd numbers of channels.
 */
#include "kernels/cuda/conv3d.cuh"

enum {
	A_BYTES = CONV3D_HALO_PIXELS * CONV3D_CHUNK * 2,
	A_PIECES = (CONV3D_HALO_PIXELS * 4 + CONV3D_THREADS - 1) / CONV3D_THREADS, /* per thread */
	TAPS = 9,								   /* (kh, kw) */
	M_TILES = 4, /* of 16 pixels, per warp */
	WARP_PIXELS = 16 * M_TILES,
};

/* What a block and its threads keep during the sum. NT: columns of 8 channels per warp. */
template <int NT> struct mma_state {
	uint32_t shared_a, shared_b;
	const int *offset;	/* of border pixels inside a frame; −1 zero (shared memory) */
	const uint16_t *weight; /* row and piece of this thread of the next weights to copy */
	uint32_t rows_valid;	/* bit i: weight row + 32·i counts */
	uint32_t to;		/* swizzled place of this thread's first 16-byte piece */
	int from_a[M_TILES];	/* border pixel of this lane's row */
	uint32_t half_a;	/* which 16 bytes of a row's 32 */
	uint32_t from_b;
	float d[M_TILES][NT][4];
	uint32_t a[2][M_TILES][4], b[2][NT / 2][4];
};

static __device__ __forceinline__ uint32_t b_bytes(int nt)
{
	return 2 * nt * 8 * CONV3D_CHUNK * 2;
}

/* Fills the table of border pixels too; a barrier must follow. */
template <int NT>
static __device__ __forceinline__ void mma_init(const struct conv3d_params &p,
						struct mma_state<NT> &s, unsigned char *shared,
						int h0, int w0, int n0)
{
	const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5;
	const int pitch = p.tile_w + 2, halo = (p.tile_h + 2) * pitch;
	int *offset = (int *)(shared + 2 * A_BYTES + CONV3D_B_STAGES * b_bytes(NT));

	s.shared_a = shared_address(shared);
	s.shared_b = s.shared_a + 2 * A_BYTES;
	s.offset = offset;
	for (int i = tid; i < CONV3D_HALO_PIXELS; i += CONV3D_THREADS)
		offset[i] = i < halo ? conv3d_offset(p, h0 + i / pitch - 1, w0 + i % pitch - 1) :
				       -1;
	s.rows_valid = 0;
#pragma unroll
	for (int i = 0; i < NT / 2; i++)
		s.rows_valid |= (uint32_t)(n0 + (tid >> 2) + 32 * i < p.channels) << i;
	s.to = swizzle_64(tid >> 2, tid & 3);
#pragma unroll
	for (int m = 0; m < M_TILES; m++) {
		const int r = (warp & 1) * WARP_PIXELS + 16 * m + (lane & 15);

		s.from_a[m] = r < p.tile_h * p.tile_w ? r / p.tile_w * pitch + r % p.tile_w : 0;
	}
	s.half_a = lane >> 4;
	s.from_b = s.shared_b + swizzle_64((warp >> 1) * NT * 8 + (lane & 7) + ((lane >> 4) << 3),
					   (lane >> 3) & 1);
#pragma unroll
	for (int m = 0; m < M_TILES; m++)
#pragma unroll
		for (int n = 0; n < NT; n++)
#pragma unroll
			for (int i = 0; i < 4; i++)
				s.d[m][n][i] = 0;
}

/* Pixels 32·i … of a chunk with its border, channels from ci on, to buffer `buffer`. */
template <int NT>
static __device__ __forceinline__ void load_a(const struct conv3d_params &p,
					      const struct mma_state<NT> &s, const uint16_t *frame,
					      int ci, int i, int buffer)
{
	const int channel = ci + (threadIdx.x & 3) * 8, pixel = (threadIdx.x >> 2) + 32 * i;

	if (pixel < CONV3D_HALO_PIXELS) {
		const int offset = s.offset[pixel];
		const bool counts = offset >= 0 && channel < p.cin;

		cp_async_16(s.shared_a + buffer * A_BYTES + s.to + i * 32 * CONV3D_CHUNK * 2,
			    counts ? frame + offset + channel : frame, counts ? 16 : 0);
	}
}

/* The next weights, channels from ci on, to stage `stage`. */
template <int NT>
static __device__ __forceinline__ void load_b(const struct conv3d_params &p,
					      struct mma_state<NT> &s, int ci, int stage)
{
	const bool channels = ci + (threadIdx.x & 3) * 8 < p.cin;

#pragma unroll
	for (int i = 0; i < NT / 2; i++) {
		const bool counts = channels && (s.rows_valid >> i & 1);

		cp_async_16(s.shared_b + stage * b_bytes(NT) + s.to + i * 32 * CONV3D_CHUNK * 2,
			    counts ? s.weight + (size_t)(i * 32 * p.cin) : p.weight,
			    counts ? 16 : 0);
	}
	s.weight += (size_t)p.rows * p.cin;
}

/* The next weights to copy are those of tap (kt, 0, 0). */
template <int NT>
static __device__ __forceinline__ void seek_b(const struct conv3d_params &p,
					      struct mma_state<NT> &s, int n0, int kt, int ci)
{
	s.weight = (const uint16_t *)p.weight +
		   ((size_t)kt * TAPS * p.rows + n0 + (threadIdx.x >> 2)) * p.cin + ci +
		   (threadIdx.x & 3) * 8;
}

/* Operands of 16 of the sum: half k of a chunk, of border pixels `shift` further on. */
template <int NT>
static __device__ __forceinline__ void fragments(struct mma_state<NT> &s, int which, int k,
						 int shift, int buffer, int stage)
{
#pragma unroll
	for (int m = 0; m < M_TILES; m++) {
		const uint32_t pixel = s.from_a[m] + shift;

		ldmatrix_x4(s.a[which][m],
			    s.shared_a + buffer * A_BYTES + swizzle_64(pixel, s.half_a + 2 * k));
	}
#pragma unroll
	for (int n = 0; n < NT / 2; n++)
		ldmatrix_x4(s.b[which][n],
			    (s.from_b ^ (32 * k)) + stage * b_bytes(NT) + n * 16 * 64);
}

template <int NT>
static __device__ __forceinline__ void products(struct mma_state<NT> &s, int which)
{
#pragma unroll
	for (int n = 0; n < NT; n++)
#pragma unroll
		for (int m = 0; m < M_TILES; m++)
			mma_bf16(s.d[m][n], s.a[which][m], s.b[which][n / 2][n % 2 * 2],
				 s.b[which][n / 2][n % 2 * 2 + 1]);
}

/*
 * The sum over chunks [first, last), chunk c being channels from (c mod per_tap)·32 on of tap kt = c /
 * per_tap. The weights of (kh, kw) are in stage kw; their copies are issued two steps before, those of
 * the next chunk's pixels during this one's first steps. Operands are read half a step ahead.
 */
template <int NT>
static __device__ __forceinline__ void sum(const struct conv3d_params &p, struct mma_state<NT> &s,
					   int t, int n0, int first, int last)
{
	const int per_tap = (p.cin + CONV3D_CHUNK - 1) / CONV3D_CHUNK, pitch = p.tile_w + 2;
	int kt = first / per_tap, ci = (first - kt * per_tap) * CONV3D_CHUNK, buffer = 0;
	const uint16_t *frame = conv3d_frame(p, t, kt);

	__syncthreads();
#pragma unroll
	for (int i = 0; i < A_PIECES; i++)
		load_a(p, s, frame, ci, i, 0);
	seek_b(p, s, n0, kt, ci);
	load_b(p, s, ci, 0);
	cp_async_commit();
	load_b(p, s, ci, 1);
	cp_async_commit();
	cp_async_wait<1>();
	__syncthreads();
	fragments(s, 0, 0, 0, 0, 0);

	for (int c = first; c < last; c++) {
		const bool more = c + 1 < last, both = ci + 16 < p.cin;
		const bool next_tap = ci + CONV3D_CHUNK >= p.cin;
		const int next_kt = kt + next_tap, next_ci = next_tap ? 0 : ci + CONV3D_CHUNK;

		if (next_tap && more)
			frame = conv3d_frame(p, t, next_kt);
#pragma unroll 1
		for (int kh = 0; kh < 3; kh++) {
#pragma unroll
			for (int kw = 0; kw < 3; kw++) {
				const bool ahead = kh == 2 && kw >= 1; /* into the next chunk */

				fragments(s, 1, 1, kh * pitch + kw, buffer, kw);
				if (kw == 1 && ahead)
					seek_b(p, s, n0, next_kt, next_ci);
				if (more || !ahead)
					load_b(p, s, ahead ? next_ci : ci, (kw + 2) % 3);
				if (kw < 2 && more)
					load_a(p, s, frame, next_ci, 2 * kh + kw, buffer ^ 1);
				cp_async_commit();
				products(s, 0);
				cp_async_wait<1>();
				__syncthreads();
				fragments(s, 0, 0,
					  kw < 2  ? kh * pitch + kw + 1 :
					  kh == 2 ? 0 :
						    (kh + 1) * pitch,
					  kw == 2 && kh == 2 ? buffer ^ 1 : buffer, (kw + 1) % 3);
				if (both)
					products(s, 1);
			}
		}
		kt = next_kt;
		ci = next_ci;
		buffer ^= 1;
	}
	cp_async_wait<0>();
	__syncthreads();
}

/* This warp's results as they are, to a tile of partial sums. */
template <int NT>
static __device__ __forceinline__ void put_partial(const struct mma_state<NT> &s, float *tile)
{
	const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
	const int row = (warp & 1) * WARP_PIXELS + (lane >> 2);
	const int column = (warp >> 1) * NT * 8 + (lane & 3) * 2;

#pragma unroll
	for (int m = 0; m < M_TILES; m++)
#pragma unroll
		for (int n = 0; n < NT; n++)
#pragma unroll
			for (int i = 0; i < 2; i++)
				*(float2 *)(tile + (row + 16 * m + 8 * i) * (NT * 16) + column +
					    8 * n) =
					make_float2(s.d[m][n][2 * i], s.d[m][n][2 * i + 1]);
}

/* 64 rows at a time through shared memory, where the pipeline was. */
template <int NT>
static __device__ __forceinline__ void put_tile(const struct conv3d_params &p,
						const struct mma_state<NT> &s, float *stage,
						int *pixel, int tile_m, int n0)
{
	const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
	const int pitch = NT * 16 + CONV3D_STAGE_PAD;
	const int columns = min(NT * 16, p.channels - n0);

	for (int half = 0; half < CONV3D_TILE_PIXELS / WARP_PIXELS; half++) {
		if (half)
			__syncthreads();
		if ((warp & 1) == half) {
			float *to =
				stage + (lane >> 2) * pitch + (warp >> 1) * NT * 8 + (lane & 3) * 2;

#pragma unroll
			for (int m = 0; m < M_TILES; m++)
#pragma unroll
				for (int n = 0; n < NT; n++)
#pragma unroll
					for (int i = 0; i < 2; i++)
						*(float2 *)(to + (16 * m + 8 * i) * pitch + 8 * n) =
							make_float2(s.d[m][n][2 * i],
								    s.d[m][n][2 * i + 1]);
		}
		if (threadIdx.x < WARP_PIXELS)
			pixel[threadIdx.x] =
				conv3d_pixel(p, tile_m, half * WARP_PIXELS + threadIdx.x);
		__syncthreads();
		conv3d_put(p, { stage, pixel, WARP_PIXELS, pitch, n0, columns, warp,
				CONV3D_THREADS / 32, lane });
	}
}

template <int NT> static __device__ __forceinline__ void conv3d_mma(const struct conv3d_params &p)
{
	extern __shared__ __align__(1024) unsigned char shared[];
	const int tile_m = blockIdx.x / p.tiles_n, n0 = blockIdx.x % p.tiles_n * p.tile_channels;
	const int chunks = 3 * ((p.cin + CONV3D_CHUNK - 1) / CONV3D_CHUNK), split = blockIdx.y;
	struct mma_state<NT> s;
	int t, h, w;

	(void)conv3d_patch(p, tile_m, &t, &h, &w);
	mma_init(p, s, shared, h, w, n0);
	sum(p, s, t, n0, chunks * split / p.splits, chunks * (split + 1) / p.splits);
	if (p.splits > 1) {
		put_partial(s, p.partial + ((size_t)split * gridDim.x + blockIdx.x) *
						   (CONV3D_TILE_PIXELS * NT * 16));
		return;
	}
	put_tile(p, s, (float *)shared,
		 (int *)(shared + WARP_PIXELS * (NT * 16 + CONV3D_STAGE_PAD) * sizeof(float)),
		 tile_m, n0);
}

extern "C" __global__ void __launch_bounds__(CONV3D_THREADS, 2)
	conv3d_mma_n128(const __grid_constant__ struct conv3d_params p)
{
	conv3d_mma<8>(p);
}

extern "C" __global__ void __launch_bounds__(CONV3D_THREADS, 2)
	conv3d_mma_n64(const __grid_constant__ struct conv3d_params p)
{
	conv3d_mma<4>(p);
}

/* Adds the partial sums of a tile in the order of the splits; 64 rows per block. */
extern "C" __global__ void __launch_bounds__(CONV3D_FINISH_THREADS)
	conv3d_finish(const __grid_constant__ struct conv3d_params p)
{
	__shared__ float stage[64 * (128 + CONV3D_STAGE_PAD)];
	__shared__ int pixel[64];
	const int tile_m = blockIdx.x / p.tiles_n, n = p.tile_channels;
	const int n0 = blockIdx.x % p.tiles_n * n, row = 64 * blockIdx.y;
	const size_t stride = (size_t)gridDim.x * p.tile_pixels * n;
	const float *from = p.partial + ((size_t)blockIdx.x * p.tile_pixels + row) * n;

	for (int i = 4 * threadIdx.x; i < 64 * n; i += 4 * CONV3D_FINISH_THREADS) {
		float4 v = *(const float4 *)(from + i);

		for (int split = 1; split < p.splits; split++) {
			const float4 u = *(const float4 *)(from + split * stride + i);

			v = make_float4(v.x + u.x, v.y + u.y, v.z + u.z, v.w + u.w);
		}
		*(float4 *)(stage + i / n * (n + CONV3D_STAGE_PAD) + i % n) = v;
	}
	if (threadIdx.x < 64)
		pixel[threadIdx.x] = conv3d_pixel(p, tile_m, row + threadIdx.x);
	__syncthreads();
	conv3d_put(p, { stage, pixel, 64, n + CONV3D_STAGE_PAD, n0, min(n, p.channels - n0),
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

/* One warp per pixel, 8 channels of a lane at a time, all of them held: read once, written once. */
extern "C" __global__ void __launch_bounds__(CONV3D_NORM_THREADS)
	conv3d_norm(const __grid_constant__ struct conv3d_norm_params p)
{
	enum { PIECES = CONV3D_NORM_CHANNELS / 256 };
	const unsigned int pixel = (blockIdx.x * CONV3D_NORM_THREADS + threadIdx.x) / 32;
	const int lane = threadIdx.x & 31;
	const uint4 *from = (const uint4 *)((const uint16_t *)p.x + (size_t)pixel * p.channels);
	uint4 *to = (uint4 *)((uint16_t *)p.y + (size_t)pixel * p.channels);
	uint32_t v[PIECES][4];
	float sum = 0, scale;

	if (pixel >= p.pixels)
		return;
#pragma unroll
	for (int i = 0; i < PIECES; i++) {
		const bool mine = 8 * (lane + 32 * i) < p.channels;
		const uint4 piece = mine ? from[lane + 32 * i] : make_uint4(0, 0, 0, 0);

		v[i][0] = piece.x;
		v[i][1] = piece.y;
		v[i][2] = piece.z;
		v[i][3] = piece.w;
	}
#pragma unroll
	for (int i = 0; i < PIECES; i++)
#pragma unroll
		for (int k = 0; k < 4; k++)
			sum += bf16_low(v[i][k]) * bf16_low(v[i][k]) +
			       bf16_high(v[i][k]) * bf16_high(v[i][k]);
	scale = rsqrtf(warp_sum(sum) / (float)p.channels + 1e-8f);
#pragma unroll
	for (int i = 0; i < PIECES; i++) {
#pragma unroll
		for (int k = 0; k < 4; k++)
			v[i][k] = bf16_pack(conv3d_silu(bf16_low(v[i][k]) * scale),
					    conv3d_silu(bf16_high(v[i][k]) * scale));
		if (8 * (lane + 32 * i) < p.channels)
			to[lane + 32 * i] = make_uint4(v[i][0], v[i][1], v[i][2], v[i][3]);
	}
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
	scale = rsqrtf(warp_sum(sum) / (float)p.channels + 1e-8f);
	for (int c = threadIdx.x & 31; c < p.channels; c += 32)
		to[c] = bf16_bits(conv3d_silu(bf16_value(from[c]) * scale));
}
