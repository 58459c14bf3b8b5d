/* Element-wise ops on tokens, latents and carried state. All grids stride over their elements. */
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/row.cuh"

static __device__ __forceinline__ size_t first(void)
{
	return (size_t)blockIdx.x * blockDim.x + threadIdx.x;
}

static __device__ __forceinline__ size_t stride(void)
{
	return (size_t)gridDim.x * blockDim.x;
}

/* Ids outside the vocabulary read row 0: they cannot come from the tokenizer, and nothing is read past it. */
extern "C" __global__ void embedding(const __grid_constant__ struct embedding_params p)
{
	const size_t total = (size_t)p.rows * p.channels;

	for (size_t i = first(); i < total; i += stride()) {
		const int32_t id = p.ids[i / p.channels];
		const size_t row = id >= 0 && id < p.vocabulary ? id : 0;
		const uint16_t *table = (const uint16_t *)p.table;

		((uint16_t *)p.y)[i] =
			bf16_bits(p.scale * bf16_value(table[row * p.channels + i % p.channels]));
	}
}

static __device__ __forceinline__ float gelu(float a)
{
	return 0.5f * a * (1.0f + tanhf(0.7978845608028654f * (a + 0.044715f * a * a * a)));
}

extern "C" __global__ void glu_gelu(const __grid_constant__ struct glu_gelu_params p)
{
	for (size_t i = first(); i < p.count; i += stride()) {
		const float g = bf16_value(((const uint16_t *)p.gate)[i]);

		((uint16_t *)p.y)[i] = bf16_bits(gelu(g) * bf16_value(((const uint16_t *)p.up)[i]));
	}
}

extern "C" __global__ void concat(const __grid_constant__ struct concat_params p)
{
	const size_t width = (size_t)p.channels_a + p.channels_b, total = p.rows * width;

	for (size_t i = first(); i < total; i += stride()) {
		const size_t row = i / width, c = i % width;

		((uint16_t *)p.y)[i] = bf16_bits(
			c < (size_t)p.channels_a ? p.a[row * p.channels_a + c] :
						   p.b[row * p.channels_b + c - p.channels_a]);
	}
}

extern "C" __global__ void euler_step(const __grid_constant__ struct euler_step_params p)
{
	const float step = *p.step;

	for (size_t i = first(); i < p.count; i += stride())
		p.x[i] += step * bf16_value(((const uint16_t *)p.v)[i]);
}

enum { NON_FINITE = 1, TOO_LARGE = 2 }; /* KERNEL_HEALTH_… */

static __device__ __forceinline__ uint32_t judge(float x, float limit)
{
	const uint32_t exponent = __float_as_uint(x) & 0x7f800000u;

	return (exponent == 0x7f800000u ? NON_FINITE : 0) | (fabsf(x) > limit ? TOO_LARGE : 0);
}

extern "C" __global__ void health(const __grid_constant__ struct health_params p)
{
	const size_t chunks = p.x_is_float ? p.count / 4 : p.count / 8;
	const size_t rest = p.x_is_float ? chunks * 4 : chunks * 8;
	uint32_t found = 0;

	for (size_t i = first(); i < chunks; i += stride()) {
		const uint4 bits = ((const uint4 *)p.x)[i];

		if (p.x_is_float) {
			found |= judge(__uint_as_float(bits.x), p.limit) |
				 judge(__uint_as_float(bits.y), p.limit) |
				 judge(__uint_as_float(bits.z), p.limit) |
				 judge(__uint_as_float(bits.w), p.limit);
		} else {
			const struct eight e = eight_of(bits);

			for (int k = 0; k < 8; k++)
				found |= judge(e.v[k], p.limit);
		}
	}
	for (size_t i = rest + first(); i < p.count; i += stride())
		found |= judge(p.x_is_float ? ((const float *)p.x)[i] :
					      bf16_value(((const uint16_t *)p.x)[i]),
			       p.limit);
	found = __reduce_or_sync(0xffffffffu, found);
	if (found && threadIdx.x % 32 == 0)
		atomicOr(p.flags, found);
}

/* Reads all of its element before it writes it: in place is safe with ldx = channels and equal types. */
extern "C" __global__ void channel_affine(const __grid_constant__ struct channel_affine_params p)
{
	const size_t total = p.rows * p.channels;

	for (size_t i = first(); i < total; i += stride()) {
		const size_t row = i / p.channels, c = i % p.channels, at = row * p.ldx + c;
		const float x = p.x_is_float ? ((const float *)p.x)[at] :
					       bf16_value(((const uint16_t *)p.x)[at]);
		const float y = x * p.scale[c] + p.shift[c];

		if (p.y_is_float)
			((float *)p.y)[i] = y;
		else
			((uint16_t *)p.y)[i] = bf16_bits(y);
	}
}

/* ------------------------------------------------------------------------------------- noise */

static __device__ __forceinline__ void philox4x32(uint32_t c[4], uint32_t k0, uint32_t k1)
{
#pragma unroll
	for (int i = 0; i < 10; i++) {
		const uint64_t a = (uint64_t)0xd2511f53 * c[0], b = (uint64_t)0xcd9e8d57 * c[2];

		c[0] = (uint32_t)(b >> 32) ^ c[1] ^ k0;
		c[1] = (uint32_t)b;
		c[2] = (uint32_t)(a >> 32) ^ c[3] ^ k1;
		c[3] = (uint32_t)a;
		k0 += 0x9e3779b9;
		k1 += 0xbb67ae85;
	}
}

extern "C" __global__ void noise(const __grid_constant__ struct noise_params p)
{
	const size_t total = (size_t)p.frames * p.height * p.width * p.channels;
	const uint64_t seed = *p.seed, first_frame = *p.first_frame;

	for (size_t i = first(); i < total; i += stride()) {
		const uint32_t channel = i % p.channels, x = i / p.channels % p.width;
		const uint32_t y = i / p.channels / p.width % p.height;
		const uint64_t frame = first_frame + i / p.channels / p.width / p.height;
		uint32_t w[4] = { y << 16 | x, channel, (uint32_t)frame, (uint32_t)(frame >> 32) };

		philox4x32(w, (uint32_t)seed, (uint32_t)(seed >> 32));
		p.y[i] = (float)(sqrt(-2.0 * log(((double)w[0] + 1.0) * 0x1p-32)) *
				 cos(6.283185307179586476925 * (w[1] * 0x1p-32)));
	}
}
