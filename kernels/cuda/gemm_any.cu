/*
 * Matrix products of any size, stride and alignment: what the kernels with TMA cannot read. Plain
 * F32 multiply-adds, 64 tokens by 64 features a block; slow, and meant to be. gemm.h has the formula.
 */
#include "kernels/cuda/gemm.cuh"

enum { TILE = 64, DEPTH = 16, OWN = 4 };

static __device__ float at(const void *data, int64_t index)
{
	return bf16_value(((const uint16_t *)data)[index]);
}

/* Row n of term s of the input, or NULL where it is zero. */
static __device__ const uint16_t *input_row(const struct gemm_params *p, int s, int n)
{
	const int row = s == GEMM_LEFT ? n : n + (s - GEMM_CENTRE) * p->shift;

	if (n >= p->rows || row < 0 || row >= (s == GEMM_LEFT ? p->shift : p->rows))
		return NULL;
	return s == GEMM_LEFT ? (const uint16_t *)p->left_data + row * p->ld_left :
				(const uint16_t *)p->x_data + row * p->ldx;
}

static __device__ void add_term(const struct gemm_params *p, const struct gemm_part *part, int s,
				int row, int column, float sum[OWN][OWN])
{
	__shared__ float x[DEPTH][TILE + 1], w[DEPTH][TILE + 1];
	const int tap = p->taps == 1 || s == GEMM_LEFT ? 0 : s - GEMM_BEFORE;
	const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;

	for (int k = 0; k < p->in; k += DEPTH) {
		for (int i = threadIdx.x; i < TILE * DEPTH; i += blockDim.x) {
			const int r = i / DEPTH, c = i % DEPTH, o = column + r;
			const uint16_t *from = input_row(p, s, row + r);
			const int64_t weight = (int64_t)tap * part->out + o;

			x[c][r] = from && k + c < p->in ? bf16_value(from[k + c]) : 0.0f;
			w[c][r] = o < part->out && k + c < p->in ?
					  at(part->weight_data, weight * p->in + k + c) :
					  0.0f;
		}
		__syncthreads();
		for (int c = 0; c < DEPTH; c++)
			for (int i = 0; i < OWN; i++)
				for (int j = 0; j < OWN; j++)
					sum[i][j] = fmaf(x[c][ty * OWN + i], w[c][tx + 16 * j],
							 sum[i][j]);
		__syncthreads();
	}
}

static __device__ void finish(const struct gemm_part *part, int64_t n, int o, float v)
{
	float unused = 0;

	if (part->bias)
		v += part->bias[o];
	gemm_activate(part->activation, &v, &unused);
	if (part->inner)
		v += at(part->inner, n * part->ld_inner + o);
	if (part->residual)
		v = at(part->residual, n * part->ld_residual + o) +
		    (part->gate ? part->gate[o] : 1.0f) * v;
	if (part->y_is_float)
		((float *)part->y)[n * part->ldy + o] = v;
	else
		((uint16_t *)part->y)[n * part->ldy + o] = bf16_bits(v);
}

/* Grid: tiles of rows, tiles of columns, parts. */
extern "C" __global__ void __launch_bounds__(256)
	gemm_any(const __grid_constant__ struct gemm_params params)
{
	const struct gemm_params *p = &params;
	const struct gemm_part *part = &p->part[blockIdx.z];
	const int row = blockIdx.x * TILE, column = blockIdx.y * TILE;
	const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
	const unsigned int terms = gemm_terms(p, row, min(row + TILE, p->rows));
	float sum[OWN][OWN] = {};

	dependency_wait();
	dependency_launch();
	if (column >= part->out)
		return;
	for (int s = 0; s < GEMM_TERMS; s++)
		if (terms >> s & 1)
			add_term(p, part, s, row, column, sum);
	for (int i = 0; i < OWN; i++)
		for (int j = 0; j < OWN; j++)
			if (row + ty * OWN + i < p->rows && column + tx + 16 * j < part->out)
				finish(part, row + ty * OWN + i, column + tx + 16 * j, sum[i][j]);
}
