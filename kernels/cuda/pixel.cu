/*
 * Pixels to patches and back: patches[t][H/p][W/p][(c·p + pw)·p + ph] = pixels[t][h·p + ph][w·p + pw][c].
 */
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/pixel.h"

/* A thread makes one element of a patch: writes are in order, reads hit the cache. */
extern "C" __global__ void patchify(const __grid_constant__ struct pixel_params p)
{
	const int cell = p.channels * p.patch * p.patch, columns = p.width / p.patch;
	const int rows = p.height / p.patch;
	const size_t total = (size_t)p.frames * rows * columns * cell;

	for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < total;
	     i += (size_t)gridDim.x * blockDim.x) {
		const int k = i % cell, ph = k % p.patch, pw = k / p.patch % p.patch;
		const int c = k / p.patch / p.patch, w = i / cell % columns;
		const int h = i / cell / columns % rows, t = i / cell / columns / rows;
		const char *row = (const char *)p.from + t * p.frame_bytes +
				  (size_t)(h * p.patch + ph) * p.row_bytes;
		const size_t at = (size_t)(w * p.patch + pw) * p.channels + c;

		((uint16_t *)p.to)[i] = bf16_bits(
			p.pixels_are_float ? ((const float *)row)[at] :
					     ((const uint8_t *)row)[at] * (2.0f / 255.0f) - 1.0f);
	}
}

static __device__ __forceinline__ uint8_t to_u8(float x, int truncate)
{
	const float v = fminf(fmaxf(127.5f * x + 127.5f, 0.0f), 255.0f);

	return (uint8_t)(truncate ? v : v + 0.5f);
}

/* A thread makes one pixel: its channels are p² apart in the patch. */
extern "C" __global__ void unpatchify(const __grid_constant__ struct pixel_params p)
{
	const int plane = p.patch * p.patch, cell = p.channels * plane;
	const int columns = p.width / p.patch, rows = p.height / p.patch;
	const size_t total = (size_t)p.frames * p.height * p.width;

	for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < total;
	     i += (size_t)gridDim.x * blockDim.x) {
		const int w = i % p.width, h = i / p.width % p.height, t = i / p.width / p.height;
		const uint16_t *patch =
			(const uint16_t *)p.from +
			(((size_t)t * rows + h / p.patch) * columns + w / p.patch) * cell +
			(w % p.patch) * p.patch + h % p.patch;
		char *row = (char *)p.to + t * p.frame_bytes + (size_t)h * p.row_bytes;

		for (int c = 0; c < p.channels; c++) {
			const float x = bf16_value(patch[c * plane]);
			const size_t at = (size_t)w * p.channels + c;

			if (p.pixels_are_float)
				((float *)row)[at] = x;
			else
				((uint8_t *)row)[at] = to_u8(x, p.truncate);
		}
	}
}
