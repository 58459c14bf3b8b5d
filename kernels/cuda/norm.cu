/*
 * Norms and rotations of token rows. The vector kernels want rows of a multiple of 8 channels, at most
 * ROW_THREADS·ROW_CHUNKS·8, at 16-byte addresses; the _any ones take all others.
 */
#include "kernels/cuda/rope.cuh"
#include "kernels/cuda/row.cuh"

/* ------------------------------------------------------------------- layer norm + modulation */

extern "C" __global__ void __launch_bounds__(ROW_THREADS)
	layer_norm_modulate(const __grid_constant__ struct layer_norm_params p)
{
	const size_t row = blockIdx.x;
	const char *x = (const char *)p.x + row * p.channels * 2;
	char *y = (char *)p.y + row * p.channels * 2;
	const int chunks = p.channels / 8;
	struct eight e[ROW_CHUNKS];
	float sum = 0, squares = 0, mean, inverse;

	dependency_wait();
	row_chunks(chunks, [&](int slot, int chunk) {
		e[slot] = eight_load(x, chunk);
		for (int i = 0; i < 8; i++)
			sum += e[slot].v[i];
	});
	mean = block_sum(sum) / p.channels;
	row_chunks(chunks, [&](int slot, int chunk) {
		for (int i = 0; i < 8; i++)
			squares += (e[slot].v[i] - mean) * (e[slot].v[i] - mean);
	});
	inverse = 1.0f / sqrtf(block_sum(squares) / p.channels + p.epsilon);
	row_chunks(chunks, [&](int slot, int chunk) {
		const struct eight scale = eight_floats(p.scale, chunk);
		const struct eight shift = eight_floats(p.shift, chunk);

		for (int i = 0; i < 8; i++)
			e[slot].v[i] =
				(e[slot].v[i] - mean) * inverse * (1.0f + scale.v[i]) + shift.v[i];
		eight_store(y, chunk, e[slot]);
	});
}

extern "C" __global__ void __launch_bounds__(ROW_THREADS)
	layer_norm_modulate_any(const __grid_constant__ struct layer_norm_params p)
{
	const uint16_t *x = (const uint16_t *)p.x + (size_t)blockIdx.x * p.channels;
	uint16_t *y = (uint16_t *)p.y + (size_t)blockIdx.x * p.channels;
	float sum = 0, squares = 0, mean, inverse;

	dependency_wait();
	for (int c = threadIdx.x; c < p.channels; c += ROW_THREADS)
		sum += bf16_value(x[c]);
	mean = block_sum(sum) / p.channels;
	for (int c = threadIdx.x; c < p.channels; c += ROW_THREADS)
		squares += (bf16_value(x[c]) - mean) * (bf16_value(x[c]) - mean);
	inverse = 1.0f / sqrtf(block_sum(squares) / p.channels + p.epsilon);
	for (int c = threadIdx.x; c < p.channels; c += ROW_THREADS)
		y[c] = bf16_bits((bf16_value(x[c]) - mean) * inverse * (1.0f + p.scale[c]) +
				 p.shift[c]);
}

/* ----------------------------------------------------------------------------------- RMS norm */

extern "C" __global__ void __launch_bounds__(ROW_THREADS)
	rms_norm(const __grid_constant__ struct rms_norm_params p)
{
	const size_t offset = (size_t)blockIdx.x * p.channels * 2;
	const char *residual = p.residual ? (const char *)p.residual + offset : NULL;
	const int chunks = p.channels / 8;
	struct eight e[ROW_CHUNKS];
	float squares = 0, inverse;

	dependency_wait();
	row_chunks(chunks, [&](int slot, int chunk) {
		e[slot] = eight_load((const char *)p.x + offset, chunk);
		for (int i = 0; i < 8; i++)
			squares += e[slot].v[i] * e[slot].v[i];
	});
	inverse = 1.0f / sqrtf(block_sum(squares) / p.channels + p.epsilon);
	row_chunks(chunks, [&](int slot, int chunk) {
		const struct eight weight = eight_floats(p.weight, chunk);
		struct eight base = { { 0 } };

		if (residual)
			base = eight_load(residual, chunk);
		for (int i = 0; i < 8; i++)
			e[slot].v[i] = base.v[i] +
				       e[slot].v[i] * inverse * (p.weight_offset + weight.v[i]);
		eight_store((char *)p.y + offset, chunk, e[slot]);
	});
}

extern "C" __global__ void __launch_bounds__(ROW_THREADS)
	rms_norm_any(const __grid_constant__ struct rms_norm_params p)
{
	const size_t offset = (size_t)blockIdx.x * p.channels;
	const uint16_t *x = (const uint16_t *)p.x + offset;
	const uint16_t *residual = p.residual ? (const uint16_t *)p.residual + offset : NULL;
	uint16_t *y = (uint16_t *)p.y + offset;
	float squares = 0, inverse;

	dependency_wait();
	for (int c = threadIdx.x; c < p.channels; c += ROW_THREADS)
		squares += bf16_value(x[c]) * bf16_value(x[c]);
	inverse = 1.0f / sqrtf(block_sum(squares) / p.channels + p.epsilon);
	for (int c = threadIdx.x; c < p.channels; c += ROW_THREADS) {
		const float v = bf16_value(x[c]) * inverse * (p.weight_offset + p.weight[c]);

		y[c] = bf16_bits(residual ? bf16_value(residual[c]) + v : v);
	}
}

/* ----------------------------------------------------------------------- q/k norm and rotation */

static __device__ __forceinline__ bool rotates(const struct rope_tables &r)
{
	return r.pairs_t + r.pairs_y + r.pairs_x > 0;
}

/* Heads of a multiple of 8 lanes: a chunk's four pairs belong to one head. */
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
	qk_norm_rope(const __grid_constant__ struct qk_norm_rope_params p)
{
	char *x = (char *)p.x + (size_t)blockIdx.x * p.ldx * 2;
	const int chunks = p.channels / 8;
	struct eight e[ROW_CHUNKS];
	float squares = 0, inverse;

	dependency_wait();
	row_chunks(chunks, [&](int slot, int chunk) {
		e[slot] = eight_load(x, chunk);
		for (int i = 0; i < 8; i++)
			squares += e[slot].v[i] * e[slot].v[i];
	});
	inverse = 1.0f / sqrtf(block_sum(squares) / p.channels + p.epsilon);
	row_chunks(chunks, [&](int slot, int chunk) {
		const struct eight weight = eight_floats(p.weight, chunk);
		const int pair = chunk * 8 % p.head_dim / 2;

		for (int i = 0; i < 8; i++)
			e[slot].v[i] *= inverse * weight.v[i];
		if (rotates(p.rope))
			for (int i = 0; i < 4; i++)
				rope_turn(rope_at(p.rope, blockIdx.x, pair + i), &e[slot].v[2 * i],
					  &e[slot].v[2 * i + 1]);
		eight_store(x, chunk, e[slot]);
	});
}

/* Even head dims: a thread owns a pair. */
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
	qk_norm_rope_any(const __grid_constant__ struct qk_norm_rope_params p)
{
	uint16_t *x = (uint16_t *)p.x + (size_t)blockIdx.x * p.ldx;
	float squares = 0, inverse;

	dependency_wait();
	for (int c = threadIdx.x; c < p.channels; c += ROW_THREADS)
		squares += bf16_value(x[c]) * bf16_value(x[c]);
	inverse = 1.0f / sqrtf(block_sum(squares) / p.channels + p.epsilon);
	for (int c = 2 * threadIdx.x; c < p.channels; c += 2 * ROW_THREADS) {
		const bool whole = c + 1 < p.channels;
		float a = bf16_value(x[c]) * inverse * p.weight[c];
		float b = whole ? bf16_value(x[c + 1]) * inverse * p.weight[c + 1] : 0;

		if (rotates(p.rope))
			rope_turn(rope_at(p.rope, blockIdx.x, c % p.head_dim / 2), &a, &b);
		x[c] = bf16_bits(a);
		if (whole)
			x[c + 1] = bf16_bits(b);
	}
}

/* ---------------------------------------------------------------------------- plain rotations */

extern "C" __global__ void rope_half(const __grid_constant__ struct rope_half_params p)
{
	const int half = p.head_dim / 2;
	const size_t total = (size_t)p.rows * p.heads * half;

	for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < total;
	     i += (size_t)gridDim.x * blockDim.x) {
		const size_t row = i / (p.heads * half), lane = i % half;
		const size_t head = i / half % p.heads;
		uint16_t *x = (uint16_t *)p.x + row * p.ldx + head * p.head_dim + lane;
		float a = bf16_value(x[0]), b = bf16_value(x[half]);

		rope_turn(make_float2(p.cos[row * half + lane], p.sin[row * half + lane]), &a, &b);
		x[0] = bf16_bits(a);
		x[half] = bf16_bits(b);
	}
}

static __device__ __forceinline__ float load_any(const void *x, size_t at, int is_float)
{
	return is_float ? ((const float *)x)[at] : bf16_value(((const uint16_t *)x)[at]);
}

static __device__ __forceinline__ void store_any(void *y, size_t at, float v, int is_float)
{
	if (is_float)
		((float *)y)[at] = v;
	else
		((uint16_t *)y)[at] = bf16_bits(v);
}

/* A thread owns a lane pair; an odd last lane is copied alone. */
extern "C" __global__ void rope_shift(const __grid_constant__ struct rope_shift_params p)
{
	const size_t per_head = (p.head_dim + 1) / 2;
	const size_t total = p.rows * p.heads * per_head;

	for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < total;
	     i += (size_t)gridDim.x * blockDim.x) {
		const int pair = (int)(i % per_head);
		const size_t at = i / per_head * p.head_dim + 2 * pair;
		const bool whole = 2 * pair + 1 < p.head_dim;
		float a = load_any(p.x, at, p.x_is_float);
		float b = whole ? load_any(p.x, at + 1, p.x_is_float) : 0;

		if (pair < p.pairs)
			rope_turn(make_float2(p.cos[pair], p.sin[pair]), &a, &b);
		store_any(p.y, at, a, p.y_is_float);
		if (whole)
			store_any(p.y, at + 1, b, p.y_is_float);
	}
}
