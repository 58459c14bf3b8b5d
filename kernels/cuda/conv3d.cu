/*
 * What the fast kernels of the 3×3×3 convolution leave: the end of a split sum, the norm of wide pixels,
 * and a plain convolution for odd numbers of channels.
 */
#include "kernels/cuda/conv3d.cuh"

enum { STAGE_ROWS = CONV3D_STAGE_ROWS };

/*
 * Where a tile's parts are in p.partial, in order: one of each split, or one of each block whose share of
 * the sums has some of it, which keeps its first run, then its second.
 */
struct parts {
	int tile, next, end; /* splits, or chunks */
	int block;
};

static __device__ __forceinline__ struct parts parts_of(const struct conv3d_params &p, int tile)
{
	struct parts s = { tile, 0, p.splits, 0 };

	if (p.part_blocks) {
		s.next = tile * p.chunks;
		s.end = s.next + p.chunks;
		s.block = tile * p.part_blocks / p.rest;
		while (conv3d_share(p, s.block) > s.next)
			s.block--;
		while (conv3d_share(p, s.block + 1) <= s.next)
			s.block++;
	}
	return s;
}

/* The next one's index, −1 behind the last. */
static __device__ __forceinline__ int parts_next(const struct conv3d_params &p, struct parts *s)
{
	int second;

	if (s->next >= s->end)
		return -1;
	if (!p.part_blocks)
		return s->next++ * gridDim.x + s->tile;
	second = conv3d_share(p, s->block) < s->end - p.chunks;
	s->next = conv3d_share(p, ++s->block);
	return 2 * (s->block - 1) + second;
}

/* Adds a tile's parts; 128 rows per block. */
extern "C" __global__ void __launch_bounds__(CONV3D_FINISH_THREADS, 2)
	conv3d_finish(const __grid_constant__ struct conv3d_params p)
{
	enum { MOST = STAGE_ROWS * 128 / (4 * CONV3D_FINISH_THREADS) }; /* loads in flight */
	extern __shared__ float4 stage4[];
	__shared__ int pixel[STAGE_ROWS];
	float *stage = (float *)stage4;
	const int tile = (p.rest ? p.tiles : 0) + blockIdx.x, tile_m = tile / p.tiles_n;
	const int n = p.tile_channels, n0 = tile % p.tiles_n * n, row = STAGE_ROWS * blockIdx.y;
	const float *from = p.partial + row * n + 4 * threadIdx.x;
	struct parts parts = parts_of(p, blockIdx.x);
	float4 v[MOST];

	dependency_wait();
	dependency_launch();
#pragma unroll
	for (int i = 0; i < MOST; i++)
		v[i] = make_float4(0, 0, 0, 0);
	for (int part; (part = parts_next(p, &parts)) >= 0;) {
		const float *at = from + (size_t)part * CONV3D_TILE_PIXELS * n;

#pragma unroll
		for (int i = 0; i < MOST; i++)
			if (4 * i * CONV3D_FINISH_THREADS < STAGE_ROWS * n) {
				const float4 u =
					*(const float4 *)(at + 4 * i * CONV3D_FINISH_THREADS);

				v[i] = make_float4(v[i].x + u.x, v[i].y + u.y, v[i].z + u.z,
						   v[i].w + u.w);
			}
	}
#pragma unroll
	for (int i = 0; i < MOST; i++) {
		const int at = 4 * (i * CONV3D_FINISH_THREADS + threadIdx.x);

		if (at < STAGE_ROWS * n)
			*(float4 *)(stage + at / n * (n + CONV3D_STAGE_PAD) + at % n) = v[i];
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
		conv3d_put_one(p, pixel, c, v);
	}
}

/*
 * LANES lanes have PIXELS pixels, 8·PIECES channels of each a lane: all loads before the first use. The last
 * pixels come first: the convolution has just written them, they are in L2.
 */
template <int LANES, int PIXELS, int PIECES>
static __device__ __forceinline__ void norm(const struct conv3d_norm_params &p)
{
	const int lane = threadIdx.x % LANES;
	const int last = (int)p.pixels - 1 -
			 (int)((blockIdx.x * CONV3D_NORM_THREADS + threadIdx.x) / LANES * PIXELS);
	uint32_t v[PIXELS][PIECES][4];

#pragma unroll
	for (int j = 0; j < PIXELS; j++)
#pragma unroll
		for (int i = 0; i < PIECES; i++) {
			const int c = 8 * (lane + LANES * i);
			uint4 w = make_uint4(0, 0, 0, 0);

			if (last - j >= 0 && c < p.channels)
				w = global_load_16((const uint16_t *)p.x +
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
#pragma unroll
		for (int i = LANES / 2; i > 0; i >>= 1)
			sum += __shfl_xor_sync(~0u, sum, i);
		scale = rsqrtf(__fdividef(sum, (float)p.channels) + 1e-8f);
#pragma unroll
		for (int i = 0; i < PIECES; i++) {
			const int c = 8 * (lane + LANES * i);

#pragma unroll
			for (int k = 0; k < 4; k++)
				v[j][i][k] = bf16_pack(silu_approx(bf16_low(v[j][i][k]) * scale),
						       silu_approx(bf16_high(v[j][i][k]) * scale));
			if (last - j >= 0 && c < p.channels)
				global_store_16(
					(uint16_t *)p.y + (size_t)(last - j) * p.channels + c,
					make_uint4(v[j][i][0], v[j][i][1], v[j][i][2], v[j][i][3]));
		}
	}
}

extern "C" __global__ void __launch_bounds__(CONV3D_NORM_THREADS)
	conv3d_norm(const __grid_constant__ struct conv3d_norm_params p)
{
	dependency_wait();
	dependency_launch();
	if (p.channels <= 128)
		norm<16, 4, 1>(p);
	else if (p.channels <= 256)
		norm<32, 4, 1>(p);
	else if (p.channels <= 512)
		norm<32, 2, 2>(p);
	else if (p.channels <= 1024)
		norm<32, 1, 4>(p);
	else
		norm<32, 1, 8>(p);
}

/* The same for any number of channels, which are read twice. */
extern "C" __global__ void __launch_bounds__(CONV3D_NORM_THREADS)
	conv3d_norm_any(const __grid_constant__ struct conv3d_norm_params p)
{
	const unsigned int pixel = (blockIdx.x * CONV3D_NORM_THREADS + threadIdx.x) / 32;
	const uint16_t *from = (const uint16_t *)p.x + (size_t)pixel * p.channels;
	uint16_t *to = (uint16_t *)p.y + (size_t)pixel * p.channels;
	float sum = 0, scale;

	dependency_wait();
	dependency_launch();
	if (pixel >= p.pixels)
		return;
	for (int c = threadIdx.x & 31; c < p.channels; c += 32)
		sum += bf16_value(from[c]) * bf16_value(from[c]);
	scale = rsqrtf(__fdividef(warp_sum(sum), (float)p.channels) + 1e-8f);
	for (int c = threadIdx.x & 31; c < p.channels; c += 32)
		to[c] = bf16_bits(silu_approx(bf16_value(from[c]) * scale));
}
