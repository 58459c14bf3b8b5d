/* The feed-forward network: depth-wise convolution with a gated unit, temporal convolution. */
#include "kernels/cpu/internal.h"

enum { TILE_ROWS = 256, TILE_COLUMNS = 512 };

/* -------------------------------------------------------------------------------- depth-wise */

static bool depthwise_valid(const struct kernel_depthwise_glu *op)
{
	return op->frames >= 1 && op->height >= 1 && op->width >= 1 && op->features >= 1 &&
	       op->features <= INT_MAX / 2 && op->height <= INT_MAX / op->frames;
}

/* Per thread: d [2F] of one pixel. */
static size_t depthwise_bytes(const struct kernel_device *device,
			      const struct kernel_depthwise_glu *op)
{
	size_t bytes = 0;

	(void)cpu_reserve(&bytes, 2 * (size_t)op->features * device->threads);
	return bytes;
}

size_t cpu_depthwise_glu_workspace(const struct kernel_device *device, const void *params)
{
	return depthwise_valid(params) ? depthwise_bytes(device, params) : 0;
}

/* The picture row (frame·height + y) of the output; d is scratch of [2F]. */
static void depthwise_row(const struct kernel_depthwise_glu *op, int row, float *d)
{
	const size_t wide = 2 * (size_t)op->features;
	const int y = row % op->height;

	for (int x = 0; x < op->width; x++) {
		float *to = (float *)op->y + ((size_t)row * op->width + x) * op->features;

		memcpy(d, op->bias, wide * sizeof(*d));
		for (int i = 0; i < 9; i++) {
			const int dy = i / 3 - 1, dx = i % 3 - 1;
			const float *weight = op->weight + i * wide;
			const float *a;

			if (y + dy < 0 || y + dy >= op->height || x + dx < 0 || x + dx >= op->width)
				continue;
			a = (const float *)op->a + ((size_t)(row + dy) * op->width + x + dx) * wide;
			cpu_multiply_add_row(weight, a, d, (int)wide);
		}
		cpu_multiply_silu_row(d, d + op->features, to, op->features);
	}
}

/* Called by a whole team. */
static void depthwise_rows(const struct kernel_depthwise_glu *op)
{
	float *d = cpu_at(&op->workspace, 0) + omp_get_thread_num() * 2 * (size_t)op->features;

#pragma omp for schedule(static) nowait
	for (int row = 0; row < op->frames * op->height; row++)
		depthwise_row(op, row, d);
}

int cpu_depthwise_glu(struct kernel_device *device, const void *params, struct kernel_queue *queue)
{
	const struct kernel_depthwise_glu *op = params;

	(void)queue;
	if (!depthwise_valid(op) ||
	    cpu_workspace_short(&op->workspace, depthwise_bytes(device, op)))
		return -EINVAL;
	CPU_TEAM(device, depthwise_rows(op));
	return 0;
}

/* ---------------------------------------------------------------------------------- temporal */

struct temporal_plan {
	size_t panel;
	size_t tile, tile_floats; /* of one thread */
	size_t bytes;
};

static bool temporal_plan(const struct kernel_device *device, const struct kernel_temporal_conv *op,
			  struct temporal_plan *plan)
{
	const struct kernel_weight *weight = op->weight;
	size_t rows, columns;

	*plan = (struct temporal_plan){ 0 };
	if (op->frames < 1 || op->tokens_per_frame < 1 || op->channels < 1 ||
	    op->tokens_per_frame > INT_MAX / op->frames || op->channels > INT_MAX / 3 ||
	    !cpu_weight_valid(weight) || weight->tap_count != 3 || weight->in != op->channels ||
	    weight->out != op->channels)
		return false;
	rows = op->tokens_per_frame < TILE_ROWS ? op->tokens_per_frame : TILE_ROWS;
	columns = op->channels < TILE_COLUMNS ? op->channels : TILE_COLUMNS;
	plan->tile_floats = rows * columns;
	plan->panel = cpu_reserve(&plan->bytes, cpu_weight_panel_floats(weight));
	plan->tile = cpu_reserve(&plan->bytes, plan->tile_floats * device->threads);
	return true;
}

size_t cpu_temporal_conv_workspace(const struct kernel_device *device, const void *params)
{
	struct temporal_plan plan;

	return temporal_plan(device, params, &plan) ? plan.bytes : 0;
}

/* r of frame t, NULL where it is zero. */
static const float *temporal_frame(const struct kernel_temporal_conv *op, int t)
{
	if (t < 0)
		return op->left;
	if (t >= op->frames)
		return NULL;
	return (const float *)op->r + (size_t)t * op->tokens_per_frame * op->channels;
}

/* Rows and columns of one tile of frame t; weight begins with the tile's first output. */
struct temporal_tile {
	int t, row, rows, column, columns;
};

static void temporal_tile(const struct kernel_temporal_conv *op, const struct temporal_tile *tile,
			  const float *weight, float *sum)
{
	const size_t channels = op->channels;
	const float *r = temporal_frame(op, tile->t);

	if (tile->rows == 0 || tile->columns == 0)
		return;
	for (int i = 0; i < tile->rows; i++)
		memcpy(sum + (size_t)i * tile->columns,
		       r + (tile->row + i) * channels + tile->column, tile->columns * sizeof(*sum));
	for (int tap = 0; tap < 3; tap++) {
		const float *frame = temporal_frame(op, tile->t + tap - 1);

		if (frame)
			cpu_gemm_nt(tile->rows, tile->columns, op->channels,
				    frame + tile->row * channels, channels, weight + tap * channels,
				    3 * channels, 1.0f, sum, tile->columns);
	}
	for (int i = 0; i < tile->rows; i++) {
		const size_t token = (size_t)tile->t * op->tokens_per_frame + tile->row + i;
		float *x = (float *)op->x + token * channels + tile->column;
		const float *v = sum + (size_t)i * tile->columns;

		for (int c = 0; c < tile->columns; c++)
			x[c] += op->gate ? op->gate[tile->column + c] * v[c] : v[c];
	}
}

/* Called by a whole team: output channels [first, first + count). */
static void temporal_panel(const struct kernel_temporal_conv *op, const struct temporal_plan *plan,
			   int first, int count)
{
	const float *weight =
		cpu_weight_panel(op->weight, first, count, cpu_at(&op->workspace, plan->panel));
	float *sum = cpu_at(&op->workspace, plan->tile) + omp_get_thread_num() * plan->tile_floats;
	int row_parts, column_parts;

	cpu_split_product(op->tokens_per_frame, count, TILE_ROWS, TILE_COLUMNS,
			  omp_get_num_threads(), &row_parts, &column_parts);
#pragma omp for schedule(static) nowait
	for (int i = 0; i < op->frames * row_parts * column_parts; i++) {
		const int part = i % (row_parts * column_parts);
		const int r = part / column_parts, c = part % column_parts;
		const int row = cpu_share(op->tokens_per_frame, row_parts, r);
		const int column = cpu_share(count, column_parts, c);
		const struct temporal_tile tile = {
			.t = i / (row_parts * column_parts),
			.row = row,
			.rows = cpu_share(op->tokens_per_frame, row_parts, r + 1) - row,
			.column = first + column,
			.columns = cpu_share(count, column_parts, c + 1) - column,
		};

		temporal_tile(op, &tile, weight + (size_t)column * 3 * op->channels, sum);
	}
}

/* Called by a whole team. */
static void temporal_panels(const struct kernel_temporal_conv *op, const struct temporal_plan *plan)
{
	const int rows = cpu_weight_panel_rows(op->weight);

	for (int first = 0; first < op->channels; first += rows)
		temporal_panel(op, plan, first,
			       op->channels - first < rows ? op->channels - first : rows);
}

int cpu_temporal_conv(struct kernel_device *device, const void *params, struct kernel_queue *queue)
{
	const struct kernel_temporal_conv *op = params;
	struct temporal_plan plan;

	(void)queue;
	if (!temporal_plan(device, op, &plan) || cpu_workspace_short(&op->workspace, plan.bytes))
		return -EINVAL;
	CPU_TEAM(device, temporal_panels(op, &plan));
	/* After all reads: left_out may be left. */
	if (op->left_out)
		memcpy(op->left_out, temporal_frame(op, op->frames - 1),
		       (size_t)op->tokens_per_frame * op->channels * sizeof(float));
	return 0;
}

/* Called by a whole team. */
static void glu_gelu_rows(const struct kernel_glu_gelu *op)
{
	const float *gate = op->gate, *up = op->up;
	float *y = op->y;

#pragma omp for schedule(static) nowait
	for (int i = 0; i < op->rows; i++) {
		const size_t at = (size_t)i * op->columns;

		cpu_gelu_multiply_row(gate + at, up + at, y + at, op->columns);
	}
}

int cpu_glu_gelu(struct kernel_device *device, const void *params, struct kernel_queue *queue)
{
	const struct kernel_glu_gelu *op = params;

	(void)queue;
	if (op->rows < 1 || op->columns < 1)
		return -EINVAL;
	CPU_TEAM(device, glu_gelu_rows(op));
	return 0;
}
