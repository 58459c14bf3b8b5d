/* Rotations of head lanes by position. */
#include "kernels/cpu/internal.h"

bool cpu_rope_valid(const struct kernel_rope *rope, int rows, int head_dim)
{
	if (!rope || rope->frames < 1 || rope->height < 1 || rope->width < 1)
		return false;
	if ((int64_t)rope->frames * rope->height > INT_MAX / rope->width ||
	    rope->frames * rope->height * rope->width != rows)
		return false;
	return rope->pairs_t >= 0 && rope->pairs_y >= 0 && rope->pairs_x >= 0 &&
	       2 * ((int64_t)rope->pairs_t + rope->pairs_y + rope->pairs_x) == head_dim;
}

void cpu_rotation_at(const struct kernel_rope *rope, int token, struct cpu_rotation *ret)
{
	const int x = token % rope->width;
	const int y = token / rope->width % rope->height;
	const int t = token / rope->width / rope->height;

	*ret = (struct cpu_rotation){
		.cos = { rope->cos_t + (size_t)t * rope->pairs_t,
			 rope->cos_y + (size_t)y * rope->pairs_y,
			 rope->cos_x + (size_t)x * rope->pairs_x },
		.sin = { rope->sin_t + (size_t)t * rope->pairs_t,
			 rope->sin_y + (size_t)y * rope->pairs_y,
			 rope->sin_x + (size_t)x * rope->pairs_x },
		.pairs = { rope->pairs_t, rope->pairs_y, rope->pairs_x },
	};
}

/* `pairs` adjacent pairs of lanes; x and y may be the same. */
static void turn_pairs(const float *cos, const float *sin, int pairs, const float *x, float *y)
{
	for (int i = 0; i < pairs; i++) {
		const float a = x[2 * i], b = x[2 * i + 1];

		y[2 * i] = a * cos[i] - b * sin[i];
		y[2 * i + 1] = a * sin[i] + b * cos[i];
	}
}

void cpu_rotate(const struct cpu_rotation *rotation, const float *x, float *y)
{
	for (int axis = 0; axis < 3; axis++) {
		turn_pairs(rotation->cos[axis], rotation->sin[axis], rotation->pairs[axis], x, y);
		x += 2 * rotation->pairs[axis];
		y += 2 * rotation->pairs[axis];
	}
}

/* Called by a whole team, as is rope_shift_heads. */
static void rope_half_rows(const struct kernel_rope_half *op, int half)
{
#pragma omp for schedule(static) nowait
	for (int n = 0; n < op->rows; n++) {
		const float *cos = op->cos + (size_t)n * half, *sin = op->sin + (size_t)n * half;

		for (int head = 0; head < op->heads; head++) {
			float *x = (float *)op->x + n * op->ldx + (size_t)head * op->head_dim;

			for (int i = 0; i < half; i++) {
				const float a = x[i], b = x[i + half];

				x[i] = a * cos[i] - b * sin[i];
				x[i + half] = b * cos[i] + a * sin[i];
			}
		}
	}
}

int cpu_rope_half(struct kernel_device *device, const void *params, struct kernel_queue *queue)
{
	const struct kernel_rope_half *op = params;
	const int half = op->head_dim / 2;

	(void)queue;
	if (op->rows < 1 || op->heads < 1 || op->head_dim < 2 || op->head_dim % 2 != 0 ||
	    !cpu_stride_valid(op->ldx, (size_t)op->heads * op->head_dim))
		return -EINVAL;
	CPU_TEAM(device, rope_half_rows(op, half));
	return 0;
}

static void rope_shift_heads(const struct kernel_rope_shift *op, size_t count)
{
	const size_t head_dim = op->head_dim;

#pragma omp for schedule(static) nowait
	for (size_t i = 0; i < count; i++) {
		const float *x = (const float *)op->x + i * head_dim;
		float *y = (float *)op->y + i * head_dim;

		turn_pairs(op->cos, op->sin, op->pairs, x, y);
		for (size_t c = 2 * (size_t)op->pairs; c < head_dim; c++)
			y[c] = x[c];
	}
}

int cpu_rope_shift(struct kernel_device *device, const void *params, struct kernel_queue *queue)
{
	const struct kernel_rope_shift *op = params;
	size_t count;

	(void)queue;
	if (op->rows < 1 || op->heads < 1 || op->head_dim < 1 || op->pairs < 0 ||
	    op->pairs > op->head_dim / 2 || __builtin_mul_overflow(op->rows, op->heads, &count))
		return -EINVAL;
	CPU_TEAM(device, rope_shift_heads(op, count));
	return 0;
}
