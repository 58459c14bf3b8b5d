/*
 * Pixels to patches and back: patches[t][H/p][W/p][(c·p + pw)·p + ph] = pixels[t][h·p + ph][w·p + pw][c].
 */
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/pixel.h"

/*
 * A thread makes one element of a patch: writes are in order, reads hit the cache. Grid: elements of a row
 * of patches, rows, frames.
 */
extern "C" __global__ void patchify(const __grid_constant__ struct pixel_params p)
{
	const uint32_t cell = p.channels * p.patch * p.patch, patch = p.patch;
	const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x,
		       row_elements = p.width / patch * cell;
	const uint32_t w = i / cell, k = i % cell, ph = k % patch, pw = k / patch % patch;
	const uint32_t c = k / patch / patch;
	const char *row = (const char *)p.from + blockIdx.z * p.frame_bytes +
			  (size_t)(blockIdx.y * patch + ph) * p.row_bytes;
	const size_t at = (size_t)(w * patch + pw) * p.channels + c;
	const size_t rows_before = (size_t)blockIdx.z * gridDim.y + blockIdx.y;

	if (i >= row_elements)
		return;
	((uint16_t *)p.to)[rows_before * row_elements + i] =
		bf16_bits(p.pixels_are_float ? ((const float *)row)[at] :
					       ((const uint8_t *)row)[at] * (2.0f / 255.0f) - 1.0f);
}

static __device__ __forceinline__ uint8_t to_u8(float x, int truncate)
{
	const float v = fminf(fmaxf(127.5f * x + 127.5f, 0.0f), 255.0f);

	return (uint8_t)(truncate ? v : v + 0.5f);
}

/* A thread makes one pixel: its channels are p² apart in the patch. Grid: pixels of a row, rows, frames. */
extern "C" __global__ void unpatchify(const __grid_constant__ struct pixel_params p)
{
	const uint32_t patch = p.patch, plane = patch * patch, cell = p.channels * plane;
	const uint32_t w = blockIdx.x * blockDim.x + threadIdx.x, h = blockIdx.y;
	const size_t row_of_patches = (size_t)blockIdx.z * (p.height / patch) + h / patch;
	const uint16_t *from = (const uint16_t *)p.from +
			       (row_of_patches * (p.width / patch) + w / patch) * cell +
			       w % patch * patch + h % patch;
	char *row = (char *)p.to + blockIdx.z * p.frame_bytes + (size_t)h * p.row_bytes;

	if (w >= (uint32_t)p.width)
		return;
	for (int c = 0; c < p.channels; c++) {
		const float x = bf16_value(from[(size_t)c * plane]);
		const size_t at = (size_t)w * p.channels + c;

		if (p.pixels_are_float)
			((float *)row)[at] = x;
		else
			((uint8_t *)row)[at] = to_u8(x, p.truncate);
	}
}
