/* Element-wise ops on latents and carried state. */
#include "kernels/cpu/internal.h"

/* Functions with an `omp for` are called by a whole team. */
static void concat_rows(const struct kernel_concat *op)
{
	const size_t a = op->channels_a, b = op->channels_b;

#pragma omp for schedule(static) nowait
	for (int n = 0; n < op->rows; n++) {
		float *y = (float *)op->y + n * (a + b);

		memcpy(y, op->a + n * a, a * sizeof(*y));
		memcpy(y + a, op->b + n * b, b * sizeof(*y));
	}
}

int cpu_concat(struct kernel_device *device, const void *params, struct kernel_queue *queue)
{
	const struct kernel_concat *op = params;

	(void)queue;
	if (op->rows < 1 || op->channels_a < 1 || op->channels_b < 1)
		return -EINVAL;
	CPU_TEAM(device, concat_rows(op));
	return 0;
}

static void euler_add(const struct kernel_euler_step *op)
{
	const float *v = op->v;

#pragma omp for schedule(static) nowait
	for (size_t i = 0; i < op->count; i++)
		op->x[i] += *op->step * v[i];
}

int cpu_euler_step(struct kernel_device *device, const void *params, struct kernel_queue *queue)
{
	(void)queue;
	CPU_TEAM(device, euler_add(params));
	return 0;
}

static void health_find(const struct kernel_health *op)
{
	const float *x = op->x;
	uint32_t found = 0;

#pragma omp for schedule(static) nowait
	for (size_t i = 0; i < op->count; i++) {
		if (!isfinite(x[i]))
			found |= KERNEL_HEALTH_NON_FINITE;
		if (fabsf(x[i]) > op->limit)
			found |= KERNEL_HEALTH_TOO_LARGE;
	}
#pragma omp atomic
	*op->flags |= found;
}

int cpu_health(struct kernel_device *device, const void *params, struct kernel_queue *queue)
{
	(void)queue;
	CPU_TEAM(device, health_find(params));
	return 0;
}

static void affine_rows(const struct kernel_channel_affine *op)
{
#pragma omp for schedule(static) nowait
	for (size_t n = 0; n < op->rows; n++) {
		const float *x = (const float *)op->x + n * op->ldx;
		float *y = (float *)op->y + n * op->channels;

		for (int c = 0; c < op->channels; c++)
			y[c] = x[c] * op->scale[c] + op->shift[c];
	}
}

int cpu_channel_affine(struct kernel_device *device, const void *params, struct kernel_queue *queue)
{
	const struct kernel_channel_affine *op = params;

	(void)queue;
	if (op->rows < 1 || op->channels < 1 || op->ldx < (size_t)op->channels)
		return -EINVAL;
	/* In place the rows of y would run ahead of the rows of x. */
	if (op->x == op->y && op->ldx != (size_t)op->channels)
		return -EINVAL;
	CPU_TEAM(device, affine_rows(op));
	return 0;
}
