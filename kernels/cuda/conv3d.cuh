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

/* Top left corner of a patch; false behind the last one. */
static __device__ __forceinline__ bool conv3d_patch(const struct conv3d_params &p, int patch,
						    int *t, int *h, int *w)
{
	*w = patch % p.patches_w * p.tile_w;
	patch /= p.patches_w;
	*h = patch % p.patches_h * p.tile_h;
	*t = patch / p.patches_h;
	return *t < p.frames;
}

/* Linear output pixel (t·H + h)·W + w of row r of a tile; −1 where there is none. */
static __device__ __forceinline__ int conv3d_pixel(const struct conv3d_params &p, int tile, int r)
{
	int t, h, w;

	if (p.patches) {
		if (!conv3d_patch(p, tile * CONV3D_WGMMA_PATCHES + (r >> 6), &t, &h, &w))
			return -1;
		h += (r & 63) >> 3;
		w += r & 7;
	} else {
		(void)conv3d_patch(p, tile, &t, &h, &w);
		if (r >= p.tile_h * p.tile_w)
			return -1;
		h += r / p.tile_w;
		w += r % p.tile_w;
	}
	return h < p.height && w < p.width ? (t * p.height + h) * p.width + w : -1;
}

/* ------------------------------------------------------------------------------------- output */

static __device__ __forceinline__ float warp_sum(float v)
{
#pragma unroll
	for (int i = 16; i > 0; i >>= 1)
		v += __shfl_xor_sync(0xffffffffu, v, i);
	return v;
}

static __device__ __forceinline__ float conv3d_silu(float v)
{
	return __fdividef(v, 1.0f + __expf(-v));
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
	const float *stage;
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
	enum { BATCH = 4 }; /* loads in flight */

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
				const float scale = rsqrtf(sum / (float)p.cout + 1e-8f);

				v.x = conv3d_silu(v.x * scale);
				v.y = conv3d_silu(v.y * scale);
				v.z = conv3d_silu(v.z * scale);
				v.w = conv3d_silu(v.w * scale);
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

/* All results of a tile to where they belong. */
static __device__ __forceinline__ void conv3d_put(const struct conv3d_params &p,
						  const struct conv3d_results &s)
{
	const int phases = p.stride_t * p.stride_h * p.stride_w;

	if (p.resample == CONV3D_NONE && p.cout % 4 == 0) {
		conv3d_put_plain4(p, s);
		return;
	}
	for (int r = s.warp; r < s.rows; r += s.warps) {
		const int pixel = s.pixel[r];
		const float *row = s.stage + r * s.pitch;

		if (pixel < 0)
			continue;
		for (int i = s.lane; i < s.columns; i += 32) {
			if (p.resample == CONV3D_NONE) {
				conv3d_put_plain(p, pixel, s.n0 + i, row[i]);
			} else if (p.resample == CONV3D_SPACE_TO_DEPTH) {
				conv3d_put_down(p, pixel, s.n0 + i, row[i]);
			} else {
				/* Neighbouring lanes write neighbouring channels of one output pixel. */
				const int run = s.columns / phases;
				const int c = i % run * phases + i / run;

				conv3d_put_up(p, pixel, s.n0 + c, row[c]);
			}
		}
	}
}
