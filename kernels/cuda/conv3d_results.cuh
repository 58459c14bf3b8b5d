/*
 * The portable convolution's results from a warp's registers to where they belong: d[m][n] is a fragment of
 * row m of a pair of patches, 8 pixels of either, by channels 8n … 8n + 7 of the warp. A pixel is in four
 * lanes, which exchange 16 bytes.
 */
#pragma once

#include "kernels/cuda/conv3d.cuh"

/* This lane's column of a pair of patches. */
struct conv3d_place {
	int t[2], h[2], w[2], pixel[2]; /* at row 0; pixel: (t·H + h)·W + w */
	int rows[2];			/* how many exist */
	int channel;			/* the warp's first */
};

static __device__ __forceinline__ struct conv3d_place
conv3d_place_at(const struct conv3d_params &p, int tile_m, int pair, int channel)
{
	const int lane = threadIdx.x % 32;
	struct conv3d_place at;
	int t, h, w, exists;

	exists = conv3d_patch(p, tile_m * CONV3D_PATCHES + 2 * pair + lane % 2, &t, &h, &w);
#pragma unroll
	for (int i = 0; i < 2; i++) {
		at.t[i] = __shfl_sync(~0u, t, i);
		at.h[i] = __shfl_sync(~0u, h, i);
		at.w[i] = __shfl_sync(~0u, w, i) + lane / 4;
		at.pixel[i] = (at.t[i] * p.height + at.h[i]) * p.width + at.w[i];
		at.rows[i] = __shfl_sync(~0u, exists, i) && at.w[i] < p.width ?
				     min(8, p.height - at.h[i]) :
				     0;
	}
	at.channel = channel;
	return at;
}

/*
 * Blocks of 8 channels of a fragment: b of 2·NT is patch b / NT, channels 8·(b % NT). Four make a group,
 * of which each of four lanes moves one.
 */
template <int NT> constexpr int conv3d_groups = NT / 2;

struct conv3d_block {
	int pixel, rows, channel;
};

template <int NT>
static __device__ __forceinline__ struct conv3d_block conv3d_block_at(const struct conv3d_place &at,
								      int group)
{
	const int b = 4 * group + threadIdx.x % 4, patch = b / NT;

	return { patch ? at.pixel[1] : at.pixel[0], patch ? at.rows[1] : at.rows[0],
		 at.channel + 8 * (b % NT) };
}

enum { CONV3D_BATCH = 4 }; /* rows whose loads are in flight together */

/* Blocks of rows first … of another tensor of `channels`; zeros where there are none. */
template <int NT>
static __device__ __forceinline__ void
conv3d_load_blocks(const struct conv3d_params &p, const struct conv3d_place &at, const void *from,
		   int channels, int channel, int first,
		   uint32_t (&w)[CONV3D_BATCH][conv3d_groups<NT>][4])
{
#pragma unroll
	for (int i = 0; i < CONV3D_BATCH; i++)
#pragma unroll
		for (int g = 0; g < conv3d_groups<NT>; g++) {
			const struct conv3d_block b = conv3d_block_at<NT>(at, g);
			const int c = b.channel - at.channel + channel;
			uint4 v = make_uint4(0, 0, 0, 0);

			if (first + i < b.rows && c < channels)
				v = global_load_16(
					(const uint16_t *)from +
					(size_t)(b.pixel + (first + i) * p.width) * channels + c);
			w[i][g][0] = v.x;
			w[i][g][1] = v.y;
			w[i][g][2] = v.z;
			w[i][g][3] = v.w;
		}
}

/* A group of row m to its four lanes' blocks of memory. */
template <int NT>
static __device__ __forceinline__ void conv3d_store_blocks(const struct conv3d_params &p,
							   const struct conv3d_place &at, void *to,
							   const float (&d)[NT][4], int m, int g)
{
	const struct conv3d_block b = conv3d_block_at<NT>(at, g);
	uint32_t w[4];

#pragma unroll
	for (int j = 0; j < 4; j++) {
		const float *v = &d[(4 * g + j) % NT][(4 * g + j) / NT * 2];

		w[j] = bf16_pack(v[0], v[1]);
	}
	quad_transpose(w);
	if (m < b.rows && b.channel < p.cout)
		global_store_16((uint16_t *)to + (size_t)(b.pixel + m * p.width) * p.cout +
					b.channel,
				make_uint4(w[0], w[1], w[2], w[3]));
}

template <int NT>
static __device__ __forceinline__ void conv3d_add_bias(float (&d)[NT][4],
						       const float (&bias)[NT][2])
{
#pragma unroll
	for (int n = 0; n < NT; n++)
#pragma unroll
		for (int e = 0; e < 4; e++)
			d[n][e] += bias[n][e % 2];
}

/* d of row m += another tensor's blocks. */
template <int NT>
static __device__ __forceinline__ void conv3d_add_blocks(float (&d)[NT][4],
							 uint32_t (&w)[conv3d_groups<NT>][4])
{
#pragma unroll
	for (int g = 0; g < conv3d_groups<NT>; g++) {
		quad_transpose(w[g]);
#pragma unroll
		for (int j = 0; j < 4; j++) {
			float *v = &d[(4 * g + j) % NT][(4 * g + j) / NT * 2];

			v[0] += bf16_low(w[g][j]);
			v[1] += bf16_high(w[g][j]);
		}
	}
}

/* Bias of the fragment's columns. */
template <int NT>
static __device__ __forceinline__ void conv3d_bias_load(const struct conv3d_params &p, int channel,
							float (&bias)[NT][2])
{
#pragma unroll
	for (int n = 0; n < NT; n++) {
		const int c = channel + 8 * n + 2 * (threadIdx.x % 4);
		const float2 b = c < p.channels ? *(const float2 *)(p.bias + c) : make_float2(0, 0);

		bias[n][0] = b.x;
		bias[n][1] = b.y;
	}
}

/* --------------------------------------------------------------------------------- in their place */

/* Sums over four lanes of 16 values, four to each: value 8·(lane & 1) + 4·(lane >> 1 & 1) + i. */
static __device__ __forceinline__ void conv3d_quad_sum(float (&v)[16])
{
	const bool odd = threadIdx.x & 1, high = threadIdx.x & 2;

#pragma unroll
	for (int i = 0; i < 8; i++)
		v[i] = (odd ? v[i + 8] : v[i]) + __shfl_xor_sync(~0u, odd ? v[i] : v[i + 8], 1);
#pragma unroll
	for (int i = 0; i < 4; i++)
		v[i] = (high ? v[i + 4] : v[i]) + __shfl_xor_sync(~0u, high ? v[i] : v[i + 4], 2);
}

/* Sums of squares of a pair's pixels, [patch][row][column][warp] in shared memory. */
static __device__ __forceinline__ float *conv3d_sums_at(float *sums, int patch, int row)
{
	return sums + ((patch * 8 + row) * 8 + threadIdx.x % 32 / 4) * 4;
}

static __device__ __forceinline__ float conv3d_scale(const struct conv3d_params &p, float *sums,
						     int patch, int row)
{
	const float4 s = *(const float4 *)conv3d_sums_at(sums, patch, row);

	return rsqrtf(__fdividef(s.x + s.y + s.z + s.w, (float)p.cout) + 1e-8f);
}

/* The squares of this tile's channels, on top of those of the tiles before it of the same pixels. */
template <int NT>
static __device__ __forceinline__ void
conv3d_sums_add(const struct conv3d_params &p, const struct conv3d_place &at,
		const float (&d)[8][NT][4], float *sums, int warp, bool first)
{
	const int patch = threadIdx.x & 1, row = (threadIdx.x >> 1 & 1) * 4;
	float square[16];

#pragma unroll
	for (int i = 0; i < 16; i++)
		square[i] = 0;
#pragma unroll
	for (int n = 0; n < NT; n++)
		if (at.channel + 8 * n < p.cout) /* a weight may have more rows */
#pragma unroll
			for (int i = 0; i < 32; i++)
				square[i % 4 / 2 * 8 + i / 4] +=
					d[i / 4][n][i % 4] * d[i / 4][n][i % 4];
	conv3d_quad_sum(square);
#pragma unroll
	for (int i = 0; i < 4; i++) {
		float *at = conv3d_sums_at(sums, patch, row + i) + warp % 4;

		*at = first ? square[i] : *at + square[i];
	}
}

/* The norm of this tile's channels. */
template <int NT>
static __device__ __forceinline__ void conv3d_norm_blocks(const struct conv3d_params &p,
							  const struct conv3d_place &at,
							  float (&d)[8][NT][4], float *sums)
{
#pragma unroll
	for (int m = 0; m < 8; m++) {
#pragma unroll
		for (int patch = 0; patch < 2; patch++) {
			const float scale = conv3d_scale(p, sums, patch, m);

#pragma unroll
			for (int n = 0; n < NT; n++) {
				float *v = &d[m][n][2 * patch];

				v[0] = silu_approx(v[0] * scale);
				v[1] = silu_approx(v[1] * scale);
			}
		}
#pragma unroll
		for (int g = 0; g < conv3d_groups<NT>; g++)
			conv3d_store_blocks(p, at, p.y_norm, d[m], m, g);
	}
}

/* And of a tile's before it, whose blocks this lane has written to y. */
template <int NT>
static __device__ __forceinline__ void conv3d_norm_again(const struct conv3d_params &p,
							 const struct conv3d_place &at, float *sums)
{
#pragma unroll 1
	for (int first = 0; first < 8; first += CONV3D_BATCH) {
		uint32_t w[CONV3D_BATCH][conv3d_groups<NT>][4];

		conv3d_load_blocks<NT>(p, at, p.y, p.cout, at.channel, first, w);
#pragma unroll
		for (int i = 0; i < CONV3D_BATCH; i++)
#pragma unroll
			for (int g = 0; g < conv3d_groups<NT>; g++) {
				const struct conv3d_block b = conv3d_block_at<NT>(at, g);
				const int patch = (4 * g + threadIdx.x % 4) / NT;
				const float scale = conv3d_scale(p, sums, patch, first + i);
				const size_t to =
					(size_t)(b.pixel + (first + i) * p.width) * p.cout +
					b.channel;

#pragma unroll
				for (int j = 0; j < 4; j++)
					w[i][g][j] = bf16_pack(
						silu_approx(bf16_low(w[i][g][j]) * scale),
						silu_approx(bf16_high(w[i][g][j]) * scale));
				if (first + i < b.rows && b.channel < p.cout)
					global_store_16((uint16_t *)p.y_norm + to,
							make_uint4(w[i][g][0], w[i][g][1],
								   w[i][g][2], w[i][g][3]));
			}
	}
}

/*
 * The norm, once the last of a pixel's tiles is made: all of them are this block's, one after the other. The
 * barrier orders the four warps that share a pair's pixels.
 */
template <int NT>
static __device__ __forceinline__ void
conv3d_norm_pixels(const struct conv3d_params &p, struct conv3d_place at, float (&d)[8][NT][4],
		   int tile_n, int warp, float *room)
{
	float *sums = room + warp / 4 * 512;

	conv3d_sums_add(p, at, d, sums, warp, tile_n == 0);
	if (tile_n + 1 < p.tiles_n)
		return;
	named_barrier(1 + warp / 4, 128);
	conv3d_norm_blocks(p, at, d, sums);
	for (; tile_n > 0; tile_n--) {
		at.channel -= NT * 32;
		conv3d_norm_again<NT>(p, at, sums);
	}
}

template <int NT>
static __device__ __forceinline__ void conv3d_add_residual(const struct conv3d_params &p,
							   const struct conv3d_place &at,
							   float (&d)[8][NT][4])
{
#pragma unroll
	for (int first = 0; first < 8; first += CONV3D_BATCH) {
		uint32_t w[CONV3D_BATCH][conv3d_groups<NT>][4];

		conv3d_load_blocks<NT>(p, at, p.residual, p.cout, at.channel, first, w);
#pragma unroll
		for (int i = 0; i < CONV3D_BATCH; i++)
			conv3d_add_blocks(d[first + i], w[i]);
	}
}

/* Results that stay where they are, channels in eights: residual, y, and the norm. */
template <int NT>
static __device__ __forceinline__ void
conv3d_put_blocks(const struct conv3d_params &p, const struct conv3d_place &at,
		  float (&d)[8][NT][4], int tile_n, int warp, float *room)
{
	float bias[NT][2];

	if (p.residual)
		conv3d_add_residual(p, at, d);
	conv3d_bias_load(p, at.channel, bias);
#pragma unroll
	for (int m = 0; m < 8; m++)
		conv3d_add_bias(d[m], bias);
	/* Where only the norm is wanted, y is there to be normed in place. */
	if (p.y && (p.y != p.y_norm || tile_n + 1 < p.tiles_n))
#pragma unroll
		for (int m = 0; m < 8; m++)
#pragma unroll
			for (int g = 0; g < conv3d_groups<NT>; g++)
				conv3d_store_blocks(p, at, p.y, d[m], m, g);
	if (p.y_norm)
		conv3d_norm_pixels(p, at, d, tile_n, warp, room);
}

/* ------------------------------------------------------------------------------------- resampled */

/* Registers have no index: a loop over rows that is not unrolled moves the next ones up instead. */
template <int BY, int NT>
static __device__ __forceinline__ void conv3d_rows_up(float (&d)[8][NT][4])
{
#pragma unroll
	for (int m = 0; m < 8 - BY; m++)
#pragma unroll
		for (int n = 0; n < NT; n++)
#pragma unroll
			for (int e = 0; e < 4; e++)
				d[m][n][e] = d[m + BY][n][e];
}

/*
 * Up by two every way: a lane has q = 2·(lane % 4), + 1 of four output channels. The second term, x[(o mod
 * Cin/P)·P + q], is x at the channel modulo Cin.
 */
static __device__ __forceinline__ void conv3d_put_pixels8(const struct conv3d_params &p,
							  const struct conv3d_place &at,
							  float (&d)[8][4][4])
{
	const int i = threadIdx.x >> 1 & 1, j = threadIdx.x & 1;
	float bias[4][2];

	conv3d_bias_load(p, at.channel, bias);
#pragma unroll 1
	for (int first = 0; first < 8; first += CONV3D_BATCH) {
		uint32_t skip[CONV3D_BATCH][conv3d_groups<4>][4];

		conv3d_load_blocks<4>(p, at, p.x, p.cin, at.channel % p.cin, first, skip);
#pragma unroll
		for (int b = 0; b < CONV3D_BATCH; b++) {
			const int m = first + b;

			conv3d_add_bias(d[b], bias);
			conv3d_add_blocks(d[b], skip[b]);
#pragma unroll
			for (int patch = 0; patch < 2; patch++) {
				const int frame = 2 * at.t[patch] + i - p.drop;
				const size_t row =
					(size_t)frame * (2 * p.height) + 2 * (at.h[patch] + m) + j;
				uint16_t *to = (uint16_t *)p.y +
					       (row * (2 * p.width) + 2 * at.w[patch]) * p.cout +
					       at.channel / 8;

				if (m >= at.rows[patch] || frame < 0)
					continue;
#pragma unroll
				for (int k = 0; k < 2; k++)
					*(uint2 *)(to + k * p.cout) =
						make_uint2(bf16_pack(d[b][0][2 * patch + k],
								     d[b][1][2 * patch + k]),
							   bf16_pack(d[b][2][2 * patch + k],
								     d[b][3][2 * patch + k]));
			}
		}
		conv3d_rows_up<CONV3D_BATCH>(d);
	}
}

/* Two frames to one, twice the channels: both patches' channels in turn, each with x of its own place. */
static __device__ __forceinline__ void
conv3d_put_frames(const struct conv3d_params &p, const struct conv3d_place &at, float (&d)[8][4][4])
{
	enum { NT = 4 }; /* so that a group is a patch */
	float bias[NT][2];

	conv3d_bias_load(p, at.channel, bias);
#pragma unroll 1
	for (int first = 0; first < 8; first += CONV3D_BATCH) {
		uint32_t x[CONV3D_BATCH][conv3d_groups<NT>][4];

		conv3d_load_blocks<NT>(p, at, p.x, p.cin, at.channel, first, x);
#pragma unroll
		for (int b = 0; b < CONV3D_BATCH; b++) {
			const int m = first + b, c = at.channel + 8 * (threadIdx.x % 4);
			const size_t to =
				((size_t)(at.t[0] / 2) * p.height + at.h[0] + m) * p.width +
				at.w[0];
			uint32_t v[2][4];

			conv3d_add_bias(d[b], bias);
			conv3d_add_blocks(d[b], x[b]);
#pragma unroll
			for (int patch = 0; patch < 2; patch++) {
#pragma unroll
				for (int n = 0; n < NT; n++)
					v[patch][n] = bf16_pack(d[b][n][2 * patch],
								d[b][n][2 * patch + 1]);
				quad_transpose(v[patch]);
			}
			if (m >= at.rows[0])
				continue;
#pragma unroll
			for (int i = 0; i < 4; i += 2)
				global_store_16(
					(uint16_t *)p.y + to * p.cout + 2 * c + 4 * i,
					make_uint4(__byte_perm(v[0][i], v[1][i], 0x5410),
						   __byte_perm(v[0][i], v[1][i], 0x7632),
						   __byte_perm(v[0][i + 1], v[1][i + 1], 0x5410),
						   __byte_perm(v[0][i + 1], v[1][i + 1], 0x7632)));
		}
		conv3d_rows_up<CONV3D_BATCH>(d);
	}
}

/* This lane's phases of a cell: of channel 8n + 2·(lane % 4) + e, e being its column's parity, whose other
 * column the lane four away has. */
template <int NT, int ST>
static __device__ __forceinline__ void conv3d_cell(const float (&d)[8][NT][4], int m, int n,
						   int patch, float (&v)[4 * ST])
{
	const bool odd = threadIdx.x & 4;

#pragma unroll
	for (int i = 0; i < ST; i++)
#pragma unroll
		for (int j = 0; j < 2; j++) {
			const float *own = &d[m + j][n][2 * (patch + i)];
			const float got = __shfl_xor_sync(~0u, odd ? own[0] : own[1], 4);

			v[4 * i + 2 * j] = odd ? got : own[0];
			v[4 * i + 2 * j + 1] = odd ? own[1] : got;
		}
}

/* G = 2·ST channels of x at this lane's channel of a cell's P pixels, as words. */
template <int ST>
static __device__ __forceinline__ void conv3d_cell_load(const struct conv3d_params &p, int pixel,
							int channel, uint32_t (&x)[4 * ST][ST])
{
#pragma unroll
	for (int q = 0; q < 4 * ST; q++) {
		const size_t from =
			(size_t)pixel + ((size_t)(q / 4) * p.height + q / 2 % 2) * p.width + q % 2;
		const uint16_t *at = (const uint16_t *)p.x + from * p.cin + 2 * ST * channel;

		if (ST == 1) {
			x[q][0] = *(const uint32_t *)at;
		} else {
			const uint2 w = *(const uint2 *)at;

			x[q][0] = w.x;
			x[q][ST - 1] = w.y;
		}
	}
}

/* A cell's phases + bias + means of x to memory: y[k·P + q] with S(x)[(k·P + q)·G + e]. */
template <int ST>
static __device__ __forceinline__ void conv3d_cell_store(const float (&v)[4 * ST],
							 const uint32_t (&x)[4 * ST][ST],
							 float bias, uint16_t *to)
{
	constexpr int P = 4 * ST, G = 2 * ST;
	uint32_t w[P / 2];
	float r[P];

#pragma unroll
	for (int q = 0; q < P; q++) {
		float sum = 0;

#pragma unroll
		for (int e = 0; e < G; e++) {
			const int c = (q * G + e) / P;
			const uint32_t pair = x[(q * G + e) % P][c / 2];

			sum += c % 2 ? bf16_high(pair) : bf16_low(pair);
		}
		r[q] = v[q] + bias + sum / G;
	}
#pragma unroll
	for (int i = 0; i < P / 2; i++)
		w[i] = bf16_pack(r[2 * i], r[2 * i + 1]);
	if constexpr (ST == 1)
		*(uint2 *)to = make_uint2(w[0], w[1]);
	else
		global_store_16(to, make_uint4(w[0], w[1], w[2], w[3]));
}

/* Channels n0 … of two rows' cells of one patch, or of the two frames of a pair. */
template <int NT, int ST, int N>
static __device__ __forceinline__ void
conv3d_put_cells2(const struct conv3d_params &p, const struct conv3d_place &at,
		  const float (&d)[8][NT][4], int m, int i, int n0)
{
	const int odd = threadIdx.x >> 2 & 1;
	const int channel = at.channel + 8 * n0 + 2 * (threadIdx.x % 4) + odd;
	const size_t cell =
		((size_t)(at.t[i] / ST) * (p.height / 2) + (at.h[i] + m) / 2) * (p.width / 2) +
		at.w[i] / 2;
	const bool exists = m < at.rows[i];
	uint32_t x[N][4 * ST][ST];
	float bias[N];

#pragma unroll
	for (int n = 0; n < N; n++)
		if (exists && channel + 8 * n < p.channels) {
			bias[n] = p.bias[channel + 8 * n];
			conv3d_cell_load<ST>(p, at.pixel[i] - odd + m * p.width, channel + 8 * n,
					     x[n]);
		}
#pragma unroll
	for (int n = 0; n < N; n++) {
		float v[4 * ST];

		conv3d_cell<NT, ST>(d, 0, n0 + n, i, v);
		if (exists && channel + 8 * n < p.channels)
			conv3d_cell_store<ST>(v, x[n], bias[n],
					      (uint16_t *)p.y + cell * p.cout +
						      4 * ST * (channel + 8 * n));
	}
}

/* Down by ST·2·2 phases with means over 2·ST: the published cells of more than one column. */
template <int NT, int ST>
static __device__ __forceinline__ void
conv3d_put_down2(const struct conv3d_params &p, const struct conv3d_place &at, float (&d)[8][NT][4])
{
#pragma unroll 1
	for (int m = 0; m < 8; m += 2) {
#pragma unroll
		for (int i = 0; i < 2; i += ST)
#pragma unroll
			for (int n = 0; n < NT; n += 2 / ST)
				conv3d_put_cells2<NT, ST, 2 / ST>(p, at, d, m, i, n);
		conv3d_rows_up<2>(d);
	}
}

/* ---------------------------------------------------------------------------------- all of them */

/* Any sizes: 8 pixels at a time through the warp's part of shared memory. */
template <int NT>
static __device__ __forceinline__ void conv3d_put_any(const struct conv3d_params &p,
						      const struct conv3d_place &at,
						      float (&d)[8][NT][4], float *stage)
{
	const int lane = threadIdx.x % 32;

#pragma unroll 1
	for (int m = 0; m < 8; m++) {
#pragma unroll 1
		for (int patch = 0; patch < 2; patch++) {
#pragma unroll
			for (int n = 0; n < NT; n++)
				*(float2 *)(stage + lane / 4 * CONV3D_ROOM_PITCH + 8 * n +
					    2 * (lane % 4)) =
					patch ? make_float2(d[0][n][2], d[0][n][3]) :
						make_float2(d[0][n][0], d[0][n][1]);
			__syncwarp();
			for (int i = 0; i < 8; i++) {
				const int rows =
					__shfl_sync(~0u, patch ? at.rows[1] : at.rows[0], 4 * i);
				const int pixel =
					__shfl_sync(~0u, patch ? at.pixel[1] : at.pixel[0], 4 * i);

				if (m < rows && lane < 8 * NT && at.channel + lane < p.channels)
					conv3d_put_one(p, pixel + m * p.width, at.channel + lane,
						       stage[i * CONV3D_ROOM_PITCH + lane]);
			}
			__syncwarp();
		}
		conv3d_rows_up<1>(d);
	}
}

/* A part of a sum: [256][4·8·NT] of F32, to be added up by conv3d_finish. */
template <int NT>
static __device__ __forceinline__ void conv3d_keep_part(const struct conv3d_params &p,
							const float (&d)[8][NT][4], int part,
							int pair, int column)
{
	const int lane = threadIdx.x % 32, n = 4 * 8 * NT;
	float *to = p.partial + ((size_t)part * CONV3D_TILE_PIXELS + 128 * pair + lane / 4) * n +
		    column + 2 * (lane % 4);

#pragma unroll
	for (int m = 0; m < 8; m++)
#pragma unroll
		for (int patch = 0; patch < 2; patch++)
#pragma unroll
			for (int i = 0; i < NT; i++)
				*(float2 *)(to + (64 * patch + 8 * m) * n + 8 * i) =
					make_float2(d[m][i][2 * patch], d[m][i][2 * patch + 1]);
}

/* A warp's results of a tile; FINISH: CONV3D_FINISH_…; room: the block's. */
template <int FINISH, int NT>
static __device__ __forceinline__ void results_put(const struct conv3d_params &p,
						   float (&d)[8][NT][4], int tile, int warp,
						   unsigned char *room)
{
	const int column = warp % 4 * NT * 8;
	const struct conv3d_place at =
		conv3d_place_at(p, tile / p.tiles_n, warp / 4, tile % p.tiles_n * NT * 32 + column);

	if constexpr (FINISH == CONV3D_FINISH_BLOCKS)
		conv3d_put_blocks(p, at, d, tile % p.tiles_n, warp, (float *)room);
	else if constexpr (FINISH == CONV3D_FINISH_122)
		conv3d_put_down2<NT, 1>(p, at, d);
	else if constexpr (FINISH == CONV3D_FINISH_222)
		conv3d_put_down2<NT, 2>(p, at, d);
	else if constexpr (FINISH == CONV3D_FINISH_211)
		conv3d_put_frames(p, at, d);
	else if constexpr (FINISH == CONV3D_FINISH_UP)
		conv3d_put_pixels8(p, at, d);
	else
		conv3d_put_any(p, at, d, (float *)(room + warp * CONV3D_ROOM_WARP));
}
