/*
 * What the files of the CPU back end share: the device, workspace layout, weights as F32 panels,
 * one matrix product, the activations.
 *
 * The workspace of an op is laid out by one `plan` function, used both to say how many bytes are
 * needed and to run. Its sizes come from upper bounds that grow with every dimension of the op, so
 * that a workspace planned for the largest call is enough for every smaller one. They never depend
 * on tensor pointers, which are mere offsets while the engine plans.
 */
#pragma once

#include <cblas.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <omp.h>
#include <string.h>

#include "kernels/cpu/vector.h"
#include "kernels/kernels.h"

enum { CPU_MAX_THREADS = 256 };

struct kernel_device {
	int threads;
};

#define X(name) int cpu_##name(struct kernel_device *, const void *params, struct kernel_queue *);
KERNEL_OPS(X)
#undef X

size_t cpu_linear_workspace(const struct kernel_device *device, const void *params);
size_t cpu_gdn_gates_workspace(const struct kernel_device *device, const void *params);
size_t cpu_gdn_workspace(const struct kernel_device *device, const void *params);
size_t cpu_attention_workspace(const struct kernel_device *device, const void *params);
size_t cpu_depthwise_glu_workspace(const struct kernel_device *device, const void *params);
size_t cpu_temporal_conv_workspace(const struct kernel_device *device, const void *params);
size_t cpu_conv3d_workspace(const struct kernel_device *device, const void *params);

/* ---------------------------------------------------------------------------------- workspace */

/* Sets `count` floats aside and returns their offset in bytes. */
static inline size_t cpu_reserve(size_t *bytes, size_t count)
{
	const size_t at = *bytes;

	*bytes += (count * sizeof(float) + KERNEL_ALIGNMENT - 1) & ~(size_t)(KERNEL_ALIGNMENT - 1);
	return at;
}

static inline float *cpu_at(const struct kernel_workspace *workspace, size_t offset)
{
	return (float *)(void *)((char *)workspace->data + offset);
}

static inline bool cpu_workspace_short(const struct kernel_workspace *workspace, size_t bytes)
{
	return workspace->bytes < bytes || (bytes > 0 && !workspace->data);
}

/* ------------------------------------------------------------------------------------ weights */

/* Sizes, taps and type make sense, and there is something to read. */
bool cpu_weight_valid(const struct kernel_weight *weight);

/* Output rows converted at a time; all of them when nothing has to be converted. */
int cpu_weight_panel_rows(const struct kernel_weight *weight);

/* Floats of the panel that cpu_weight_panel fills; 0 for a prepared weight. */
size_t cpu_weight_panel_floats(const struct kernel_weight *weight);

/* Rows [first, first + count) as F32 [count][tap_count][in], by the calling thread alone. */
void cpu_weight_convert(const struct kernel_weight *weight, int first, int count, float *to);

/*
 * The same rows, in place where they are F32 in that layout already, else converted into `panel` by
 * all threads of the current team: each of them calls this. Ends in a barrier when it converts.
 */
const float *cpu_weight_panel(const struct kernel_weight *weight, int first, int count,
			      float *panel);

/* --------------------------------------------------------------------------------------- teams */

/*
 * Runs `call` on every thread of the device; `omp for` inside shares the work out, without a barrier
 * where nothing after it reads what it wrote: the team's end is one, and each costs a wake-up. A
 * device with one thread just calls: libgomp allocates and frees a team of one at every parallel
 * region.
 */
#define CPU_TEAM(device, call)                                                  \
	do {                                                                    \
		const int team_threads = (device)->threads;                     \
                                                                                \
		if (team_threads == 1) {                                        \
			call;                                                   \
		} else {                                                        \
			_Pragma("omp parallel num_threads(team_threads)") call; \
		}                                                               \
	} while (0)

/* ----------------------------------------------------------------------------------- products */

/* c[m][n] = a[m][k]·b[n][k]ᵀ + beta·c, by the calling thread alone. */
static inline void cpu_gemm_nt(int m, int n, int k, const float *a, size_t lda, const float *b,
			       size_t ldb, float beta, float *c, size_t ldc)
{
	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, 1.0f, a, (int)lda, b,
		    (int)ldb, beta, c, (int)ldc);
}

/* A row stride a BLAS can take, at least as wide as the row. */
static inline bool cpu_stride_valid(size_t stride, size_t columns)
{
	return columns > 0 && stride >= columns && stride <= INT_MAX;
}

/* Where part `index` of `parts` begins when `total` things are shared out evenly. */
static inline int cpu_share(int total, int parts, int index)
{
	return (int)((int64_t)total * index / parts);
}

static inline int cpu_ceil_div(int a, int b)
{
	return a / b + (a % b != 0);
}

/*
 * Cuts a product [rows][columns] into row_parts × column_parts tiles, none larger than
 * max_rows × max_columns: a multiple of `threads` of them, as near to squares as that allows,
 * because a BLAS copies both edges of each tile.
 */
void cpu_split_product(int rows, int columns, int max_rows, int max_columns, int threads,
		       int *ret_row_parts, int *ret_column_parts);

/* ------------------------------------------------------------------------------------- scalars */

static inline float cpu_sigmoid(float a)
{
	return 1.0f / (1.0f + expf(-a));
}

/* Σ x², in FP64. Four sums, so that additions need not wait for each other. */
static inline double cpu_sum_of_squares(const float *x, int count)
{
	double sum[4] = { 0, 0, 0, 0 };
	int i = 0;

	for (; i + 4 <= count; i += 4)
		for (int j = 0; j < 4; j++)
			sum[j] += (double)x[i + j] * x[i + j];
	for (; i < count; i++)
		sum[0] += (double)x[i] * x[i];
	return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

/* Σ x·y, in FP64. */
static inline double cpu_dot(const float *x, const float *y, int count)
{
	double sum[4] = { 0, 0, 0, 0 };
	int i = 0;

	for (; i + 4 <= count; i += 4)
		for (int j = 0; j < 4; j++)
			sum[j] += (double)x[i + j] * y[i + j];
	for (; i < count; i++)
		sum[0] += (double)x[i] * y[i];
	return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

/* ------------------------------------------------------------------------------------ rotation */

/* The table rows of one token, in the order t, y, x. */
struct cpu_rotation {
	const float *cos[3], *sin[3];
	int pairs[3];
};

/* The tables cover `rows` tokens and all pairs of a head. */
bool cpu_rope_valid(const struct kernel_rope *rope, int rows, int head_dim);
void cpu_rotation_at(const struct kernel_rope *rope, int token, struct cpu_rotation *ret);

/* Turns the lanes of one head; x and y may be the same. */
void cpu_rotate(const struct cpu_rotation *rotation, const float *x, float *y);
