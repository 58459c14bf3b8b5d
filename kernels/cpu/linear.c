/* Linear layers and embeddings. */
#include "kernels/cpu/internal.h"

/* Large enough that a BLAS call costs nothing to begin, at most 2 MiB of scratch per thread. */
enum { TILE_ROWS = 512, TILE_COLUMNS = 1024 };

struct linear_plan {
	size_t panel;	    /* converted weight rows, shared */
	size_t tile;	    /* per thread: a product before the residual is added */
	size_t tile_floats; /* of one thread */
	size_t bytes;
};

void cpu_split_product(int rows, int columns, int max_rows, int max_columns, int threads,
		       int *ret_row_parts, int *ret_column_parts)
{
	int best = INT_MAX, row_parts = 1, column_parts = 1;

	for (int i = 1; i <= threads; i++) {
		int high, wide;

		if (threads % i != 0)
			continue;
		high = cpu_ceil_div(rows, i);
		wide = cpu_ceil_div(columns, threads / i);
		if (high + wide < best) {
			best = high + wide;
			row_parts = i * cpu_ceil_div(high, max_rows);
			column_parts = threads / i * cpu_ceil_div(wide, max_columns);
		}
	}
	*ret_row_parts = row_parts;
	*ret_column_parts = column_parts;
}

static int min_int(int a, int b)
{
	return a < b ? a : b;
}

static bool linear_plan(const struct kernel_device *device, const struct kernel_linear *op,
			struct linear_plan *plan)
{
	size_t panel = 0;
	int widest = 0;

	if (op->rows < 1 || op->parts < 1 || op->parts > KERNEL_LINEAR_PARTS)
		return false;
	for (int i = 0; i < op->parts; i++) {
		const struct kernel_weight *weight = op->part[i].weight;
		size_t floats;

		if (!cpu_weight_valid(weight) || weight->tap_count != 1 ||
		    weight->in != op->part[0].weight->in)
			return false;
		floats = cpu_weight_panel_floats(weight);
		panel = floats > panel ? floats : panel;
		widest = weight->out > widest ? weight->out : widest;
	}

	*plan = (struct linear_plan){
		.tile_floats = (size_t)min_int(op->rows, TILE_ROWS) * min_int(widest, TILE_COLUMNS),
	};
	plan->panel = cpu_reserve(&plan->bytes, panel);
	plan->tile = cpu_reserve(&plan->bytes, plan->tile_floats * device->threads);
	return true;
}

size_t cpu_linear_workspace(const struct kernel_device *device, const void *params)
{
	struct linear_plan plan;

	return linear_plan(device, params, &plan) ? plan.bytes : 0;
}

static int linear_check(const struct kernel_linear *op, const struct linear_plan *plan)
{
	if (!cpu_stride_valid(op->ldx, op->part[0].weight->in))
		return -EINVAL;
	for (int i = 0; i < op->parts; i++) {
		const struct kernel_linear_part *part = &op->part[i];

		if ((unsigned int)part->activation >= KERNEL_ACTIVATION_COUNT ||
		    !cpu_stride_valid(part->ldy, part->weight->out) ||
		    (part->gate && !part->residual) ||
		    (part->residual && !cpu_stride_valid(part->ld_residual, part->weight->out)))
			return -EINVAL;
	}
	return cpu_workspace_short(&op->workspace, plan->bytes) ? -EINVAL : 0;
}

/* In place: v ← activation(v + bias). */
static void activate(enum kernel_activation activation, const float *bias, float *v, int count)
{
	if (bias)
		cpu_add_row(bias, v, count);
	switch (activation) {
	case KERNEL_SILU:
		cpu_silu_row(v, v, count);
		break;
	case KERNEL_GELU:
		cpu_gelu_row(v, v, count);
		break;
	case KERNEL_SIGMOID:
		cpu_sigmoid_row(v, v, count);
		break;
	case KERNEL_IDENTITY:
	case KERNEL_ACTIVATION_COUNT:
		break;
	}
}

/* y = residual + gate ⊙ v; y may be residual. */
static void add_gated(const float *residual, const float *gate, const float *v, float *y, int count)
{
	if (gate) {
		for (int i = 0; i < count; i++)
			y[i] = residual[i] + gate[i] * v[i];
	} else {
		for (int i = 0; i < count; i++)
			y[i] = residual[i] + v[i];
	}
}

/*
 * One tile: rows [row, row_end), output columns [column, column_end) of the part. A layer with a
 * residual may write over it, so its product goes to `scratch` first.
 */
static void linear_tile(const struct kernel_linear *op, const struct kernel_linear_part *part,
			const float *weight, int row, int row_end, int column, int column_end,
			float *scratch)
{
	const int in = part->weight->in, count = column_end - column;
	const float *x = (const float *)op->x + row * op->ldx;
	float *y = (float *)part->y + row * part->ldy + column;
	float *v = part->residual ? scratch : y;
	const size_t ldv = part->residual ? (size_t)count : part->ldy;

	if (row == row_end || count == 0)
		return;
	cpu_gemm_nt(row_end - row, count, in, x, op->ldx, weight, in, 0.0f, v, ldv);
	for (int i = 0; i < row_end - row; i++) {
		activate(part->activation, part->bias ? part->bias + column : NULL, v + i * ldv,
			 count);
		if (part->residual)
			add_gated((const float *)part->residual + (row + i) * part->ld_residual +
					  column,
				  part->gate ? part->gate + column : NULL, v + i * ldv,
				  y + i * part->ldy, count);
	}
}

/* Called by all threads of a team. */
static void linear_part(const struct kernel_linear *op, const struct kernel_linear_part *part,
			float *panel, float *scratch)
{
	const int panel_rows = cpu_weight_panel_rows(part->weight);
	const int in = part->weight->in;

	for (int first = 0; first < part->weight->out; first += panel_rows) {
		const int count = min_int(panel_rows, part->weight->out - first);
		const float *weight = cpu_weight_panel(part->weight, first, count, panel);
		int row_parts, column_parts;

		cpu_split_product(op->rows, count, TILE_ROWS, TILE_COLUMNS, omp_get_num_threads(),
				  &row_parts, &column_parts);
#pragma omp for schedule(static) nowait
		for (int i = 0; i < row_parts * column_parts; i++) {
			const int r = i / column_parts, c = i % column_parts;
			const int column = cpu_share(count, column_parts, c);

			linear_tile(op, part, weight + (size_t)column * in,
				    cpu_share(op->rows, row_parts, r),
				    cpu_share(op->rows, row_parts, r + 1), first + column,
				    first + cpu_share(count, column_parts, c + 1), scratch);
		}
	}
}

/* Called by all threads of a team. */
static void linear_parts(const struct kernel_linear *op, const struct linear_plan *plan)
{
	float *panel = cpu_at(&op->workspace, plan->panel);
	float *scratch =
		cpu_at(&op->workspace, plan->tile) + omp_get_thread_num() * plan->tile_floats;

	for (int i = 0; i < op->parts; i++)
		linear_part(op, &op->part[i], panel, scratch);
}

int cpu_linear(struct kernel_device *device, const void *params, struct kernel_queue *queue)
{
	const struct kernel_linear *op = params;
	struct linear_plan plan;
	int r;

	(void)queue;
	if (!linear_plan(device, op, &plan))
		return -EINVAL;
	r = linear_check(op, &plan);
	if (r < 0)
		return r;

	CPU_TEAM(device, linear_parts(op, &plan));
	return 0;
}

/* Called by all threads of a team. */
static void embedding_rows(const struct kernel_embedding *op)
{
	const struct kernel_weight *table = op->table;

#pragma omp for schedule(static) nowait
	for (int i = 0; i < op->rows; i++) {
		float *y = (float *)op->y + (size_t)i * table->in;

		if (table->prepared)
			memcpy(y, (const float *)table->prepared + (size_t)op->ids[i] * table->in,
			       table->in * sizeof(*y));
		else
			cpu_weight_convert(table, op->ids[i], 1, y);
		for (int c = 0; c < table->in; c++)
			y[c] *= op->scale;
	}
}

int cpu_embedding(struct kernel_device *device, const void *params, struct kernel_queue *queue)
{
	const struct kernel_embedding *op = params;
	const struct kernel_weight *table = op->table;

	(void)queue;
	if (op->rows < 1 || !cpu_weight_valid(table) || table->tap_count != 1)
		return -EINVAL;
	for (int i = 0; i < op->rows; i++)
		if (op->ids[i] < 0 || op->ids[i] >= table->out)
			return -EINVAL;

	CPU_TEAM(device, embedding_rows(op));
	return 0;
}
