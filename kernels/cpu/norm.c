/* Norms of token rows. Statistics are kept in FP64. */
#include "kernels/cpu/internal.h"

static void layer_norm_row(const struct kernel_layer_norm_modulate *op, const float *x, float *y)
{
	const int channels = op->channels;
	double sum = 0, squares = 0;
	float mean, inverse;

	for (int c = 0; c < channels; c++)
		sum += x[c];
	mean = (float)(sum / channels);
	for (int c = 0; c < channels; c++) {
		const double d = x[c] - sum / channels;

		squares += d * d;
	}
	inverse = (float)(1.0 / sqrt(squares / channels + op->epsilon));
	for (int c = 0; c < channels; c++)
		y[c] = (x[c] - mean) * inverse * (1.0f + op->scale[c]) + op->shift[c];
}

/* Functions with an `omp for` are called by a whole team. */
static void layer_norm_rows(const struct kernel_layer_norm_modulate *op)
{
#pragma omp for schedule(static) nowait
	for (int i = 0; i < op->rows; i++)
		layer_norm_row(op, (const float *)op->x + (size_t)i * op->channels,
			       (float *)op->y + (size_t)i * op->channels);
}

int cpu_layer_norm_modulate(struct kernel_device *device, const void *params,
			    struct kernel_queue *queue)
{
	const struct kernel_layer_norm_modulate *op = params;

	(void)queue;
	if (op->rows < 1 || op->channels < 1)
		return -EINVAL;
	CPU_TEAM(device, layer_norm_rows(op));
	return 0;
}

static void rms_norm_row(const struct kernel_rms_norm *op, size_t at)
{
	const float *x = (const float *)op->x + at;
	const float *residual = op->residual ? (const float *)op->residual + at : NULL;
	float *y = (float *)op->y + at;
	const double mean = cpu_sum_of_squares(x, op->channels) / op->channels;
	const float inverse = (float)(1.0 / sqrt(mean + op->epsilon));

	for (int c = 0; c < op->channels; c++) {
		const float v = x[c] * inverse * (op->weight_offset + op->weight[c]);

		y[c] = residual ? residual[c] + v : v;
	}
}

static void rms_norm_rows(const struct kernel_rms_norm *op)
{
#pragma omp for schedule(static) nowait
	for (int i = 0; i < op->rows; i++)
		rms_norm_row(op, (size_t)i * op->channels);
}

int cpu_rms_norm(struct kernel_device *device, const void *params, struct kernel_queue *queue)
{
	const struct kernel_rms_norm *op = params;

	(void)queue;
	if (op->rows < 1 || op->channels < 1)
		return -EINVAL;
	CPU_TEAM(device, rms_norm_rows(op));
	return 0;
}

static void qk_norm_rows(const struct kernel_qk_norm_rope *op, int channels)
{
#pragma omp for schedule(static) nowait
	for (int i = 0; i < op->rows; i++) {
		float *x = (float *)op->x + i * op->ldx;
		const double mean = cpu_sum_of_squares(x, channels) / channels;
		const float inverse = (float)(1.0 / sqrt(mean + op->epsilon));
		struct cpu_rotation rotation;

		for (int c = 0; c < channels; c++)
			x[c] *= inverse * op->weight[c];
		if (!op->rope)
			continue;
		cpu_rotation_at(op->rope, i, &rotation);
		for (int head = 0; head < op->heads; head++)
			cpu_rotate(&rotation, x + head * op->head_dim, x + head * op->head_dim);
	}
}

int cpu_qk_norm_rope(struct kernel_device *device, const void *params, struct kernel_queue *queue)
{
	const struct kernel_qk_norm_rope *op = params;
	const int channels = op->heads > 0 && op->head_dim > 0 &&
					     op->head_dim < INT_MAX / op->heads ?
				     op->heads * op->head_dim :
				     0;

	(void)queue;
	if (op->rows < 1 || !cpu_stride_valid(op->ldx, channels) ||
	    (op->rope && !cpu_rope_valid(op->rope, op->rows, op->head_dim)))
		return -EINVAL;
	CPU_TEAM(device, qk_norm_rows(op, channels));
	return 0;
}
