/* What the kernels of the 3×3×3 convolution share: which pixel is where, and what happens to a result. */
#pragma once

#include "kernels/cuda/conv3d.h"
#include "kernels/cuda/mma.cuh"

enum { CONV3D_NONE, CONV3D_SPACE_TO_DEPTH, CONV3D_DEPTH_TO_SPACE }; /* enum kernel_resample */

/* -------------------------------------------------------------------------------------- input */

/* Input frame for output frame t and tap kt: the context, the clip, or a repeated edge. */
static __device__ __forceinline__ const uint16_t *conv3d_frame(const struct conv3d_params &p, int t,
							       int kt)
{
	const size_t frame = (size_t)p.height * p.width * p.cin;
	int time = t + kt - (p.causal ? 2 : 1);

	if (time < 0 && p.context_set)
		return (const uint16_t *)p.context + (time + 2) * frame;
	time = time < 0 ? 0 : time >= p.frames ? p.frames - 1 : time;
	return (const uint16_t *)p.x + time * frame;
}

/* Row or column to read for i in −1 … n; −1 where it is zero, or where nothing needs it. */
static __device__ __forceinline__ int conv3d_padded(int i, int n, int reflect)
{
	if (i >= 0 && i < n)
		return i;
	if (!reflect || i > n)
		return -1;
	return i < 0 ? -i : n - 2;
}

/* Element offset inside a frame of pixel (h, w) of a border, −1 where it is zero. */
static __device__ __forceinline__ int conv3d_offset(const struct conv3d_params &p, int h, int w)
{
	h = conv3d_padded(h, p.height, p.reflect);
	w = conv3d_padded(w, p.width, p.reflect);
	return h < 0 || w < 0 ? -1 : (h * p.width + w) * p.cin;
}

/*
 * Top left corner of a patch; false behind the last one. Patches go along a row, then down a strip of rows,
 * then to the next frame: about one strip is being worked on, and what the next frame reads of this one is
 * still in L2. For a temporal down-sampler the two frames of a cell are neighbours, so that a pair of
 * patches has whole cells.
 */
static __device__ __forceinline__ bool conv3d_patch(const struct conv3d_params &p, int patch,
						    int *t, int *h, int *w)
{
	const int pair = p.resample == CONV3D_SPACE_TO_DEPTH ? p.stride_t : 1, i = patch % pair;
	int strip, rows;

	patch /= pair;
	strip = patch / (p.strip * p.patches_w * (p.frames / pair)) * p.strip;
	patch -= strip * p.patches_w * (p.frames / pair);
	rows = min(p.strip, p.patches_h - strip);
	if (rows <= 0)
		return false;
	*w = patch % p.patches_w * 8;
	patch /= p.patches_w;
	*h = (strip + patch % rows) * 8;
	*t = patch / rows * pair + i;
	return *t < p.frames;
}

/* Borders of a patch that are reflections; or it is cut off by the picture, and all of it needs care. */
enum { CONV3D_TOP = 1, CONV3D_BOTTOM = 2, CONV3D_LEFT = 4, CONV3D_RIGHT = 8, CONV3D_CUT = 16 };

static __device__ __forceinline__ int conv3d_reflections(const struct conv3d_params &p, int h,
							 int w)
{
	if (!p.reflect)
		return 0;
	if (h + 8 > p.height || w + 8 > p.width)
		return CONV3D_CUT;
	return (h ? 0 : CONV3D_TOP) | (h + 8 < p.height ? 0 : CONV3D_BOTTOM) |
	       (w ? 0 : CONV3D_LEFT) | (w + 8 < p.width ? 0 : CONV3D_RIGHT);
}

/* Linear output pixel (t·H + h)·W + w of row r of a tile; −1 where there is none. */
static __device__ __forceinline__ int conv3d_pixel(const struct conv3d_params &p, int tile, int r)
{
	int t, h, w;

	if (!conv3d_patch(p, tile * CONV3D_PATCHES + (r >> 6), &t, &h, &w))
		return -1;
	h += (r & 63) >> 3;
	w += r & 7;
	return h < p.height && w < p.width ? (t * p.height + h) * p.width + w : -1;
}

/* First chunk of block i's share of all sums laid end to end. */
static __device__ __forceinline__ int conv3d_share(const struct conv3d_params &p, int i)
{
	return p.rest * p.chunks * i / p.part_blocks;
}

/* ------------------------------------------------------------------------------------- output */

static __device__ __forceinline__ float warp_sum(float v)
{
#pragma unroll
	for (int i = 16; i > 0; i >>= 1)
		v += __shfl_xor_sync(0xffffffffu, v, i);
	return v;
}

static __device__ __forceinline__ uint2 conv3d_pack4(float4 v)
{
	return make_uint2(bf16_pack(v.x, v.y), bf16_pack(v.z, v.w));
}

/*
 * A tile's results in shared memory, [rows][pitch] of F32 without bias, pixel[r] as conv3d_pixel, first
 * channel n0. The warps of a block share the rows.
 */
struct conv3d_results {
	float *stage;
	const int *pixel;
	int rows, pitch, n0, columns;
	int warp, warps, lane;
};

/* Four channels of a lane at once; the norm where the tile has all of them (at most 128). */
static __device__ __forceinline__ void conv3d_put_plain4(const struct conv3d_params &p,
							 const struct conv3d_results &s)
{
	const int c = 4 * s.lane;
	const bool mine = c < s.columns;
	const float4 bias = mine ? *(const float4 *)(p.bias + s.n0 + c) : make_float4(0, 0, 0, 0);
	enum { BATCH = 8 }; /* loads in flight */

	for (int first = s.warp * BATCH; first < s.rows; first += s.warps * BATCH) {
		uint2 residual[BATCH];
		int pixel[BATCH];

#pragma unroll
		for (int b = 0; b < BATCH; b++) {
			pixel[b] = s.pixel[first + b];
			residual[b] = make_uint2(0, 0);
			if (p.residual && mine && pixel[b] >= 0)
				residual[b] =
					*(const uint2 *)((const uint16_t *)p.residual +
							 (size_t)pixel[b] * p.cout + s.n0 + c);
		}
#pragma unroll
		for (int b = 0; b < BATCH; b++) {
			const size_t at = (size_t)pixel[b] * p.cout + s.n0 + c;
			float4 v = make_float4(0, 0, 0, 0);

			if (pixel[b] < 0)
				continue;
			if (mine) {
				v = *(const float4 *)(s.stage + (first + b) * s.pitch + c);
				v.x += bias.x + bf16_low(residual[b].x);
				v.y += bias.y + bf16_high(residual[b].x);
				v.z += bias.z + bf16_low(residual[b].y);
				v.w += bias.w + bf16_high(residual[b].y);
				if (p.y)
					*(uint2 *)((uint16_t *)p.y + at) = conv3d_pack4(v);
			}
			if (p.y_norm) {
				const float sum =
					warp_sum(v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w);
				const float scale = rsqrtf(__fdividef(sum, (float)p.cout) + 1e-8f);

				v.x = silu_approx(v.x * scale);
				v.y = silu_approx(v.y * scale);
				v.z = silu_approx(v.z * scale);
				v.w = silu_approx(v.w * scale);
				if (mine)
					*(uint2 *)((uint16_t *)p.y_norm + at) = conv3d_pack4(v);
			}
		}
	}
}

/* Any number of channels, one at a time. */
static __device__ __forceinline__ void conv3d_put_plain(const struct conv3d_params &p, int pixel,
							int channel, float v)
{
	const size_t at = (size_t)pixel * p.cout + channel;

	v += p.bias[channel];
	if (p.residual)
		v += bf16_value(((const uint16_t *)p.residual)[at]);
	((uint16_t *)p.y)[at] = bf16_bits(v);
}

/* y[o] = S(c)[o] + mean over e < G of S(x)[o·G + e] */
static __device__ __forceinline__ void conv3d_put_down(const struct conv3d_params &p, int pixel,
						       int channel, float v)
{
	const int w = pixel % p.width, h = pixel / p.width % p.height;
	const int t = pixel / p.width / p.height;
	const int st = p.stride_t, sh = p.stride_h, sw = p.stride_w, phases = st * sh * sw;
	const int q = (t % st * sh + h % sh) * sw + w % sw, o = channel * phases + q;
	const int group = p.cin * phases / p.cout;
	const size_t cell = ((size_t)(t / st) * (p.height / sh) + h / sh) * (p.width / sw) + w / sw;
	float sum = 0;

	for (int e = 0; e < group; e++) {
		const int m = o * group + e, phase = m % phases;
		const int i = phase / (sh * sw), j = phase / sw % sh, k = phase % sw;
		const size_t from =
			((size_t)(t - t % st + i) * p.height + h - h % sh + j) * p.width + w -
			w % sw + k;

		sum += bf16_value(((const uint16_t *)p.x)[from * p.cin + m / phases]);
	}
	((uint16_t *)p.y)[cell * p.cout + o] = bf16_bits(v + p.bias[channel] + sum / (float)group);
}

/* y[o][st·t + i][…] = c[o·P + q] + x[(o mod Cin/P)·P + q] */
static __device__ __forceinline__ void conv3d_put_up(const struct conv3d_params &p, int pixel,
						     int channel, float v)
{
	const int w = pixel % p.width, h = pixel / p.width % p.height;
	const int t = pixel / p.width / p.height;
	const int sh = p.stride_h, sw = p.stride_w, phases = p.stride_t * sh * sw;
	const int o = channel / phases, q = channel % phases;
	const int frame = p.stride_t * t + q / (sh * sw) - p.drop;
	const size_t to =
		((size_t)frame * (sh * p.height) + sh * h + q / sw % sh) * (sw * p.width) + sw * w +
		q % sw;
	const int from = o % (p.cin / phases) * phases + q;

	if (frame < 0)
		return;
	v += p.bias[channel] + bf16_value(((const uint16_t *)p.x)[(size_t)pixel * p.cin + from]);
	((uint16_t *)p.y)[to * p.cout + o] = bf16_bits(v);
}

/* A result of any resampler. */
static __device__ __forceinline__ void conv3d_put_one(const struct conv3d_params &p, int pixel,
						      int channel, float v)
{
	if (p.resample == CONV3D_NONE)
		conv3d_put_plain(p, pixel, channel, v);
	else if (p.resample == CONV3D_SPACE_TO_DEPTH)
		conv3d_put_down(p, pixel, channel, v);
	else
		conv3d_put_up(p, pixel, channel, v);
}

/* Whether a tile of these columns has a fast way through a resampler. */
static __device__ __forceinline__ bool conv3d_up8(const struct conv3d_params &p,
						  const struct conv3d_results &s)
{
	return p.resample == CONV3D_DEPTH_TO_SPACE && s.columns == 128 && p.cout % 4 == 0 &&
	       p.stride_t * p.stride_h * p.stride_w == 8;
}

/*
 * Up by two every way, 128 channels: 16 output channels of eight pixels. The second term, x[(o mod Cin/P)·P
 * + q], is x at the channel modulo Cin. A lane adds it to four channels, and writes four output channels of
 * one pixel; values change lanes through the row, whose words are exchanged so that banks differ.
 */
static __device__ __forceinline__ void conv3d_put_up8(const struct conv3d_params &p,
						      const struct conv3d_results &s)
{
	const int c = 4 * s.lane, q = s.lane >> 2, o = s.lane & 3, swap = (c >> 5) << 3;
	const float4 bias = *(const float4 *)(p.bias + s.n0 + c);
	const uint16_t *x = (const uint16_t *)p.x + (s.n0 + c) % p.cin;
	enum { BATCH = 4 };

	for (int first = s.warp * BATCH; first < s.rows; first += s.warps * BATCH) {
		int pixel[BATCH];
		uint2 skip[BATCH];

#pragma unroll
		for (int b = 0; b < BATCH; b++) {
			pixel[b] = s.pixel[first + b];
			skip[b] = pixel[b] < 0 ? make_uint2(0, 0) :
						 *(const uint2 *)(x + (size_t)pixel[b] * p.cin);
		}
#pragma unroll
		for (int b = 0; b < BATCH; b++) {
			float *row = s.stage + (first + b) * s.pitch;
			float4 v = *(const float4 *)(row + c);

			v.x += bias.x + bf16_low(skip[b].x);
			v.y += bias.y + bf16_high(skip[b].x);
			v.z += bias.z + bf16_low(skip[b].y);
			v.w += bias.w + bf16_high(skip[b].y);
			__syncwarp();
			*(float4 *)(row + (c ^ swap)) = v;
		}
		__syncwarp();
#pragma unroll
		for (int b = 0; b < BATCH; b++) {
			const float *row = s.stage + (first + b) * s.pitch;
			const int w = pixel[b] % p.width, h = pixel[b] / p.width % p.height;
			const int frame = 2 * (pixel[b] / p.width / p.height) + (q >> 2) - p.drop;
			const size_t to = ((size_t)frame * (2 * p.height) + 2 * h + (q >> 1 & 1)) *
						  (2 * p.width) +
					  2 * w + (q & 1);
			float4 v;

			v.x = row[(32 * o + q) ^ (o << 3)];
			v.y = row[(32 * o + 8 + q) ^ (o << 3)];
			v.z = row[(32 * o + 16 + q) ^ (o << 3)];
			v.w = row[(32 * o + 24 + q) ^ (o << 3)];
			if (pixel[b] >= 0 && frame >= 0)
				*(uint2 *)((uint16_t *)p.y + to * p.cout + s.n0 / 8 + 4 * o) =
					conv3d_pack4(v);
		}
	}
}

/* G adjacent channels of x, from channel 0 of `from` on. */
template <int G>
static __device__ __forceinline__ void conv3d_load_group(const uint16_t *from, float (&v)[G])
{
	if constexpr (G == 4) {
		const uint2 w = *(const uint2 *)from;

		v[0] = bf16_low(w.x);
		v[1] = bf16_high(w.x);
		v[2] = bf16_low(w.y);
		v[3] = bf16_high(w.y);
	} else if constexpr (G == 2) {
		const uint32_t w = *(const uint32_t *)from;

		v[0] = bf16_low(w);
		v[1] = bf16_high(w);
	} else {
		v[0] = bf16_value(*from);
	}
}

/*
 * Down by P phases with means over G: a cell's channels k·P … k·P + P − 1 come from channel k of the
 * convolution at the cell's P pixels and from channels k·G … k·G + G − 1 of x there. One warp per cell,
 * a lane per k. Rows are whole pairs of patches.
 */
template <int ST, int SH, int SW, int G>
static __device__ __forceinline__ void conv3d_put_cells(const struct conv3d_params &p,
							const struct conv3d_results &s)
{
	constexpr int P = ST * SH * SW, ACROSS = 8 / SW, CELLS = 64 / (SH * SW);

	for (int cell = s.warp; cell < s.rows / P; cell += s.warps) {
		const int in = cell % CELLS;
		const int row = cell / CELLS * (64 * ST) + in / ACROSS * SH * 8 + in % ACROSS * SW;
		const int pixel = s.pixel[row];
		const int w = pixel % p.width, h = pixel / p.width % p.height;
		const int t = pixel / p.width / p.height;
		const size_t to =
			((size_t)(t / ST) * (p.height / SH) + h / SH) * (p.width / SW) + w / SW;

		if (pixel < 0)
			continue;
#pragma unroll 2
		for (int k = s.lane; k < s.columns; k += 32) {
			const float bias = p.bias[s.n0 + k];
			float x[P][G], v[P];

#pragma unroll
			for (int q = 0; q < P; q++) {
				const int i = q / (SH * SW), j = q / SW % SH, m = q % SW;

				conv3d_load_group<G>((const uint16_t *)p.x +
							     ((size_t)pixel +
							      ((size_t)i * p.height + j) * p.width +
							      m) * p.cin +
							     (s.n0 + k) * G,
						     x[q]);
				v[q] = s.stage[(row + 64 * i + 8 * j + m) * s.pitch + k] + bias;
			}
#pragma unroll
			for (int q = 0; q < P; q++) {
				float sum = 0;

#pragma unroll
				for (int e = 0; e < G; e++)
					sum += x[(q * G + e) % P][(q * G + e) / P];
				v[q] += sum / G;
			}
#pragma unroll
			for (int q = 0; q < P; q += 2)
				((uint32_t *)((uint16_t *)p.y + to * p.cout +
					      (s.n0 + k) * P))[q / 2] = bf16_pack(v[q], v[q + 1]);
		}
	}
}

/* The published down-samplers; false for any other. */
static __device__ __forceinline__ bool conv3d_put_cells_any(const struct conv3d_params &p,
							    const struct conv3d_results &s)
{
	const int strides = 100 * p.stride_t + 10 * p.stride_h + p.stride_w;
	const int group = p.cin * p.stride_t * p.stride_h * p.stride_w / p.cout;

	if (p.resample != CONV3D_SPACE_TO_DEPTH)
		return false;
	if (strides == 222 && group == 4)
		conv3d_put_cells<2, 2, 2, 4>(p, s);
	else if (strides == 122 && group == 2)
		conv3d_put_cells<1, 2, 2, 2>(p, s);
	else if (strides == 211 && group == 1)
		conv3d_put_cells<2, 1, 1, 1>(p, s);
	else
		return false;
	return true;
}

/* All results of a tile to where they belong. */
static __device__ __forceinline__ void conv3d_put(const struct conv3d_params &p,
						  const struct conv3d_results &s)
{
	const int phases = p.stride_t * p.stride_h * p.stride_w;

	if (p.resample == CONV3D_NONE && p.cout % 4 == 0) {
		conv3d_put_plain4(p, s);
		return;
	}
	if (conv3d_up8(p, s)) {
		conv3d_put_up8(p, s);
		return;
	}
	if (conv3d_put_cells_any(p, s))
		return;
	for (int r = s.warp; r < s.rows; r += s.warps) {
		const int pixel = s.pixel[r];
		const float *row = s.stage + r * s.pitch;

		if (pixel < 0)
			continue;
		for (int i = s.lane; i < s.columns; i += 32) {
			/* Neighbouring lanes write neighbouring channels of one output pixel. */
			const int run = s.columns / phases;
			const int c = p.resample == CONV3D_DEPTH_TO_SPACE ?
					      i % run * phases + i / run :
					      i;

			conv3d_put_one(p, pixel, s.n0 + c, row[c]);
		}
	}
}
