/* Weights from the file's layout to that of the kernels. */
#include <cuda_fp16.h>
#include <stdint.h>

#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/weights.h"

static __device__ float load(const struct weights_pack_params &p, size_t at)
{
	switch (p.type) {
	case CUDA_WEIGHTS_F32:
		return ((const float *)p.from)[at];
	case CUDA_WEIGHTS_BF16:
		return bf16_value(((const uint16_t *)p.from)[at]);
	default:
		return __half2float(((const __half *)p.from)[at]);
	}
}

/* One thread makes one element: neighbours in x read neighbours of the file and write far apart taps. */
extern "C" __global__ void weights_pack(const __grid_constant__ struct weights_pack_params p)
{
	const size_t row_elements = (size_t)p.in * p.tap_count;
	const size_t total = row_elements * p.rows;

	for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < total;
	     i += (size_t)gridDim.x * blockDim.x) {
		const size_t row = i / row_elements, rest = i % row_elements;
		const size_t in = rest / p.tap_count, tap = rest % p.tap_count;
		const float v = load(p, (row * p.in + in) * p.taps + p.tap_first + tap);

		((uint16_t *)p.to)[(tap * p.out + p.row_first + row) * p.in + in] = bf16_bits(v);
	}
}
