/*
 * Linear layers and the temporal convolution: checks, the choice of a kernel, tensor maps, launch.
 * gemm.h says what the kernels compute.
 */
#include "kernels/cuda/gemm.h"

#include <limits.h>

#include "kernels/cuda/device.h"
#include "kernels/cuda/gemm_plan.h"
#include "kernels/cuda/table.h"

/* Tiles of rows × columns, `depth` of K in a stage of the ring; a kernel for each epilogue. */
struct gemm_tiling {
	int kernel[GEMM_EPILOGUES]; /* enum cuda_kernel, or NONE */
	int rows, columns, depth;
	int threads, blocks; /* of one multiprocessor */
	int stages;	     /* of the ring; MOST: as many as there is room for */
	int more_bytes;	     /* of shared memory, behind the ring */
	/*
	 * Features in a box of what the epilogue adds, for kernels that read it by TMA, and the rows of
	 * a temporal convolution in boxes too (box_of); 0: by pointer, and by whole tiles.
	 */
	int other;
	bool wgmma;
	/*
	 * Rate of full tiles relative to the largest portable one: measured on an H100 for wgmma;
	 * for the others an estimate for chips of which products, not shared memory, are the limit.
	 */
	float rate;
	/* Rows of short tiles (gemm.h); by frames, or in a last round of linear layers. 0: none. */
	int short_rows;
	bool frames;
};

enum { NONE = -1, MOST = 8, BARRIER_BYTES = 128 };

#define EACH(name, temporal)                                                          \
	CUDA_KERNEL_##name, CUDA_KERNEL_##name##_silu, CUDA_KERNEL_##name##_residual, \
		CUDA_KERNEL_##name##_##temporal

_Static_assert(4 * 2 * (128 + 256) * 32 + BARRIER_BYTES <= CUDA_PORTABLE_SHARED,
	       "four stages of the largest portable tile");

/* clang-format off */
/* The first that costs least is taken. */
static const struct gemm_tiling tilings[] = {
	{ { EACH(gemm_wgmma_240x192, temporal), NONE }, 240, 192, 64, 384, 1, 4, 12 * 512, 64, true, 1.4f, 0, false },
	{ { EACH(gemm_mma_240x192, temporal), NONE },
	  240, 192, 32, 384, 1, MOST, GEMM_240_MORE, GEMM_240_OTHER, false, 1.0f, GEMM_240_SHORT, false },
	{ { NONE, NONE, NONE, CUDA_KERNEL_gemm_mma_224x192_frames, NONE },
	  GEMM_FRAMES_TOKENS, 192, 32, 384, 1, MOST, GEMM_240_MORE, GEMM_240_OTHER, false, 1.0f,
	  GEMM_FRAMES_SHORT, true },
	{ { EACH(gemm_mma_128x256, residual), NONE }, 128, 256, 32, 256, 1, MOST, 0, 0, false, 1.0f, 0, false },
	{ { EACH(gemm_mma_128x192, residual), NONE }, 128, 192, 32, 256, 1, MOST, 0, 0, false, 0.97f, 0, false },
	{ { EACH(gemm_mma_128x128, residual), CUDA_KERNEL_gemm_mma_128x128_any },
	  128, 128, 32, 128, 2, MOST, 0, 0, false, 0.97f, 0, false },
	{ { EACH(gemm_mma_128x96, residual), NONE }, 128, 96, 32, 128, 2, MOST, 0, 0, false, 0.92f, 0, false },
	{ { NONE, NONE, NONE, NONE, CUDA_KERNEL_gemm_mma_64x64_any },
	  64, 64, 32, 128, 3, MOST, 0, 0, false, 0.7f, 0, false },
};
/* clang-format on */

enum { TILINGS = sizeof(tilings) / sizeof(tilings[0]), ANY_TILE = 64, ANY_THREADS = 256 };

static int ceil_div(int a, int b)
{
	return a / b + (a % b != 0);
}

/* -------------------------------------------------------------------------------------- choice */

static bool aligned(const void *p, int64_t ld)
{
	return (uintptr_t)p % 16 == 0 && ld % 8 == 0;
}

/* The copy engine reads rows that begin at multiples of 16 bytes. */
static bool rows_fit_tma(const struct gemm_params *p)
{
	return p->in % GEMM_K_MULTIPLE == 0 && aligned(p->x_data, p->ldx) &&
	       (!p->has_left || aligned(p->left_data, p->ld_left));
}

static bool part_fits_vectors(const struct gemm_part *part)
{
	return !part->y_is_float && part->out % 8 == 0 && aligned(part->y, part->ldy) &&
	       (!part->residual || aligned(part->residual, part->ld_residual)) &&
	       (!part->inner || aligned(part->inner, part->ld_inner));
}

static bool part_is(const struct gemm_part *part, enum gemm_epilogue epilogue)
{
	switch (epilogue) {
	case GEMM_PLAIN:
		return part->vector && part->activation == KERNEL_IDENTITY && !part->residual;
	case GEMM_SILU:
		return part->vector && part->activation == KERNEL_SILU && !part->residual;
	case GEMM_RESIDUAL:
		return part->vector && part->activation == KERNEL_IDENTITY && part->residual &&
		       !part->inner;
	case GEMM_TEMPORAL:
		return part->vector && part->activation == KERNEL_IDENTITY && part->residual &&
		       part->inner && !part->bias;
	case GEMM_ANY:
	case GEMM_EPILOGUES:
		break;
	}
	return true;
}

/* The first that all parts are. */
static enum gemm_epilogue epilogue_of(const struct gemm_params *p)
{
	for (int e = GEMM_PLAIN; e < GEMM_ANY; e++) {
		bool all = true;

		for (int i = 0; i < p->parts; i++)
			all = all && part_is(&p->part[i], (enum gemm_epilogue)e);
		if (all)
			return (enum gemm_epilogue)e;
	}
	return GEMM_ANY;
}

static int64_t columns_of(const struct gemm_params *p, const struct gemm_tiling *k)
{
	int64_t columns = 0;

	for (int i = 0; i < p->parts; i++)
		columns += ceil_div(p->part[i].out, k->columns);
	return columns;
}

/* Frames in even tiles, none larger than the kernel's. */
static void cut_frames(const struct gemm_params *p, const struct gemm_tiling *k,
		       struct gemm_cut *cut)
{
	cut->frame_tiles = ceil_div(p->shift, k->rows);
	cut->rows = ceil_div(p->shift, cut->frame_tiles);
	cut->along = cut->frame_tiles * (p->rows / p->shift - 1);
	cut->short_along = ceil_div(p->shift, 2 * k->short_rows);
	cut->short_rows = ceil_div(p->shift, 2 * cut->short_along);
	cut->short_row = p->rows - p->shift;
	cut->pairs = true;
}

/* Columns behind the last whole round, where short tiles of them fit into one. */
static void cut_round(const struct gemm_params *p, const struct gemm_tiling *k, int64_t columns,
		      int64_t multiprocessors, struct gemm_cut *cut)
{
	const int64_t rounds = columns * cut->along / multiprocessors;
	const int64_t whole = rounds * multiprocessors / cut->along;
	const int along = ceil_div(p->rows, k->short_rows);

	if (whole * cut->along + (columns - whole) * along > (rounds + 1) * multiprocessors)
		return;
	cut->short_along = along;
	cut->short_rows = ceil_div(p->rows, along);
	cut->short_column = (int)whole;
}

/* How the tiles lie; ret: those of either size, pairs as one. */
static struct gemm_cut cut_of(const struct kernel_device *d, const struct gemm_params *p,
			      const struct gemm_tiling *k, int64_t ret[2])
{
	const int64_t columns = columns_of(p, k), n = d->properties.multiprocessors;
	const int along = ceil_div(p->rows, k->rows);
	struct gemm_cut cut = { .along = along, .rows = k->rows, .frame_tiles = along };

	if (k->frames)
		cut_frames(p, k, &cut);
	else if (k->short_rows && p->taps == 1 && columns * along % n)
		cut_round(p, k, columns, n, &cut);
	if (!k->frames && !cut.short_along)
		cut.short_column = (int)columns;
	ret[0] = (k->frames ? columns : cut.short_column) * cut.along;
	ret[1] = (columns - cut.short_column) * cut.short_along;
	cut.tiles = ret[0] <= INT_MAX ? (int)ret[0] : INT_MAX;
	return cut;
}

/*
 * The rows of the block that has most to do, times the columns of a tile, in what the first kernel does at
 * rate 1. A pair of short tiles has two terms of three.
 */
static double tiling_cost(const struct kernel_device *d, const struct gemm_params *p,
			  const struct gemm_tiling *k)
{
	const int64_t n = d->properties.multiprocessors;
	int64_t tiles[2], rounds, full;

	(void)cut_of(d, p, k, tiles);
	full = (tiles[0] + n - 1) / n;
	rounds = (tiles[0] + tiles[1] + n - 1) / n;
	return ((double)full * k->rows +
		(double)(rounds - full) * k->short_rows * (k->frames ? 4.0 / 3 : 1)) *
	       k->columns / (double)k->rate;
}

static int stage_bytes(const struct gemm_tiling *k)
{
	return 2 * (k->rows + k->columns) * k->depth;
}

/* Stages that fit when `blocks` blocks share a multiprocessor, each of which costs 1 KiB more. */
static int stages_of(const struct kernel_device *d, const struct gemm_tiling *k)
{
	const int each = (d->properties.shared_bytes + 1024) / k->blocks - 1024;
	const int fit = (each - BARRIER_BYTES - k->more_bytes) / stage_bytes(k);

	return fit < k->stages ? fit : k->stages;
}

static bool tiling_usable(const struct kernel_device *d, const struct gemm_params *p,
			  const struct gemm_tiling *k, enum gemm_epilogue epilogue)
{
	return k->kernel[epilogue] != NONE && (!k->frames || p->rows > p->shift) &&
	       (!k->wgmma || d->properties.has_wgmma) &&
	       stages_of(d, k) >= (k->stages == MOST ? 3 : k->stages);
}

int gemm_ways(void)
{
	return TILINGS;
}

bool gemm_way_usable(const struct kernel_device *device, const struct gemm_params *p, int way,
		     enum gemm_epilogue epilogue)
{
	return tiling_usable(device, p, &tilings[way], epilogue);
}

double gemm_way_cost(const struct kernel_device *device, const struct gemm_params *p, int way)
{
	return tiling_cost(device, p, &tilings[way]);
}

const char *gemm_way_name(int way, enum gemm_epilogue epilogue)
{
	return cuda_kernel_name((enum cuda_kernel)tilings[way].kernel[epilogue]);
}

int gemm_way_choose(const struct kernel_device *device, const struct gemm_params *p,
		    enum gemm_epilogue epilogue)
{
	double least = 0;
	int best = -1;

	for (int i = 0; i < TILINGS; i++) {
		double cost;

		if (!tiling_usable(device, p, &tilings[i], epilogue))
			continue;
		cost = tiling_cost(device, p, &tilings[i]);
		if (best < 0 || cost < least) {
			best = i;
			least = cost;
		}
	}
	return best;
}

/* -------------------------------------------------------------------------------------- launch */

/* What is read as one box of a tensor, and how its rows lie in shared memory. */
struct map_box {
	int rows, columns;
	CUtensorMapSwizzle swizzle;
};

/* [rows][columns] BF16, row stride ld. */
static int map_encode(const struct kernel_device *d, CUtensorMap *map, const void *data,
		      int64_t rows, int columns, int64_t ld, const struct map_box *box)
{
	const cuuint64_t size[2] = { (cuuint64_t)columns, (cuuint64_t)rows };
	const cuuint64_t stride[1] = { 2 * (cuuint64_t)ld };
	const cuuint32_t counts[2] = { (cuuint32_t)box->columns, (cuuint32_t)box->rows };
	const cuuint32_t step[2] = { 1, 1 };

	return cuda_status(d->driver.cuTensorMapEncodeTiled(
		map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, (void *)(uintptr_t)data, size, stride,
		counts, step, CU_TENSOR_MAP_INTERLEAVE_NONE, box->swizzle,
		CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
}

/*
 * Rows of the input that are read at once. With a frame to the left, boxes that divide both a frame
 * and a tile spare the tile on the frames' border a fourth term of its sum; the copy engine's
 * pattern of rows repeats every eight. By frames a tile is one box.
 */
static int box_of(const struct gemm_params *p, const struct gemm_tiling *k)
{
	int a = k->rows, b = p->shift;

	if (p->taps == 1 || !k->other)
		return 0;
	if (k->frames)
		return k->rows;
	while (b) {
		const int rest = a % b;

		a = b;
		b = rest;
	}
	return a % 8 == 0 ? a : 0;
}

/* Of what the epilogue adds, where a kernel reads that by TMA: in boxes of `rows`. */
static int other_maps_encode(const struct kernel_device *d, const struct gemm_params *p,
			     const struct gemm_part *part, const struct gemm_tiling *k, int rows,
			     CUtensorMap *residual, CUtensorMap *inner)
{
	const struct map_box box = { rows, k->other,
				     k->other == 64 ? CU_TENSOR_MAP_SWIZZLE_128B :
						      CU_TENSOR_MAP_SWIZZLE_NONE };
	int r = 0;

	if (part->residual)
		r = map_encode(d, residual, part->residual, p->rows, part->out, part->ld_residual,
			       &box);
	if (r >= 0 && part->inner)
		r = map_encode(d, inner, part->inner, p->rows, part->out, part->ld_inner, &box);
	return r;
}

static int maps_encode(const struct kernel_device *d, struct gemm_params *p,
		       const struct gemm_tiling *k)
{
	const CUtensorMapSwizzle swizzle = k->depth == 64 ? CU_TENSOR_MAP_SWIZZLE_128B :
							    CU_TENSOR_MAP_SWIZZLE_64B;
	const struct map_box input = { p->box ? p->box : k->rows, k->depth, swizzle };
	const struct map_box short_input = { k->short_rows, k->depth, swizzle };
	const struct map_box weight = { k->columns, k->depth, swizzle };
	const bool has_short = p->cut.short_along > 0;
	int r = map_encode(d, &p->x, p->x_data, p->rows, p->in, p->ldx, &input);

	if (r >= 0 && has_short)
		r = map_encode(d, &p->short_x, p->x_data, p->rows, p->in, p->ldx, &short_input);
	if (r >= 0 && p->has_left)
		r = map_encode(d, &p->left, p->left_data, p->shift, p->in, p->ld_left, &input);
	for (int i = 0; r >= 0 && i < p->parts; i++) {
		struct gemm_part *part = &p->part[i];

		r = map_encode(d, &part->weight, part->weight_data, (int64_t)part->out * p->taps,
			       p->in, p->in, &weight);
		if (r >= 0 && k->other)
			r = other_maps_encode(d, p, part, k, k->rows, &part->other, &p->inner);
		if (r >= 0 && k->other && has_short)
			r = other_maps_encode(d, p, part, k, k->short_rows, &part->short_other,
					      &p->short_inner);
	}
	return r;
}

static int launch_tiles(struct kernel_device *d, struct gemm_params *p, const struct gemm_tiling *k,
			int kernel, struct kernel_queue *queue)
{
	const int most = d->properties.multiprocessors * k->blocks;
	int64_t tiles[2];
	int r;

	p->cut = cut_of(d, p, k, tiles);
	/* Kernels count by twos, and a round past the end. */
	if (tiles[0] + tiles[1] > INT_MAX / 2 - most)
		return -EINVAL;
	p->tiles = (int)(tiles[0] + tiles[1]);
	p->box = box_of(p, k);
	p->stages = stages_of(d, k);
	for (int i = 1; i < p->parts; i++)
		p->part[i].column_first =
			p->part[i - 1].column_first + ceil_div(p->part[i - 1].out, k->columns);
	r = maps_encode(d, p, k);
	if (r < 0)
		return r;
	return cuda_launch(d, queue,
			   &(struct cuda_launch){
				   .kernel = (enum cuda_kernel)kernel,
				   .grid = { (unsigned int)(p->tiles < most ? p->tiles : most) },
				   .block = { (unsigned int)k->threads },
				   .shared_bytes = (unsigned int)(p->stages * stage_bytes(k) +
								  BARRIER_BYTES + k->more_bytes),
				   .params = p,
				   .dependent = true,
			   });
}

int gemm_way_run(struct kernel_device *device, const struct gemm_params *p, int way,
		 enum gemm_epilogue epilogue, struct kernel_queue *queue)
{
	struct gemm_params launch = *p;

	return launch_tiles(device, &launch, &tilings[way], tilings[way].kernel[epilogue], queue);
}

static int launch_any(struct kernel_device *d, const struct gemm_params *p,
		      struct kernel_queue *queue)
{
	int widest = 0;

	for (int i = 0; i < p->parts; i++)
		widest = p->part[i].out > widest ? p->part[i].out : widest;
	return cuda_launch(d, queue,
			   &(struct cuda_launch){
				   .kernel = CUDA_KERNEL_gemm_any,
				   .grid = { cuda_blocks((size_t)p->rows, ANY_TILE),
					     cuda_blocks((size_t)widest, ANY_TILE),
					     (unsigned int)p->parts },
				   .block = { ANY_THREADS },
				   .params = p,
				   .dependent = true,
			   });
}

/* False: rows that no tile reads. */
static bool epilogue_set(struct gemm_params *p, enum gemm_epilogue *ret)
{
	if (!rows_fit_tma(p))
		return false;
	for (int i = 0; i < p->parts; i++)
		p->part[i].vector = part_fits_vectors(&p->part[i]);
	*ret = epilogue_of(p);
	return true;
}

static int product_run(struct kernel_device *d, struct gemm_params *p,
		       const struct kernel_workspace *workspace, struct kernel_queue *queue)
{
	const struct gemm_plan *plan;
	enum gemm_epilogue epilogue;
	int way, r;

	if (!epilogue_set(p, &epilogue))
		return launch_any(d, p, queue);
	plan = gemm_plan_find(d, p, epilogue);
	if (plan) {
		r = gemm_plan_run(d, plan, p, epilogue, workspace, queue);
		if (r != -ENOTSUP)
			return r;
	}
	way = gemm_way_choose(d, p, epilogue);
	return way < 0 ? launch_any(d, p, queue) : gemm_way_run(d, p, way, epilogue, queue);
}

static int product_measure(struct kernel_device *d, struct gemm_params *p,
			   const struct kernel_workspace *workspace, struct kernel_queue *queue)
{
	enum gemm_epilogue epilogue;

	return epilogue_set(p, &epilogue) ? gemm_plan_measure(d, p, epilogue, workspace, queue) : 0;
}

/* ----------------------------------------------------------------------------------------- ops */

static bool weight_valid(const struct kernel_weight *w, int taps)
{
	return w && w->out > 0 && w->in > 0 && w->tap_count == taps &&
	       w->out <= INT_MAX / 2 - 512; /* a tile past the end must not overflow */
}

static bool stride_valid(size_t stride, int columns)
{
	return stride >= (size_t)columns && stride <= INT_MAX;
}

static bool linear_part_valid(const struct kernel_linear *op, const struct kernel_linear_part *part)
{
	return weight_valid(part->weight, 1) && part->weight->in == op->part[0].weight->in &&
	       (unsigned int)part->activation < KERNEL_ACTIVATION_COUNT &&
	       stride_valid(part->ldy, part->weight->out) && (part->residual || !part->gate) &&
	       (!part->residual || stride_valid(part->ld_residual, part->weight->out));
}

static int linear_params(const struct kernel_linear *op, struct gemm_params *ret)
{
	struct gemm_params p = { .taps = 1 };

	if (op->rows < 1 || op->rows > INT_MAX / 2 || op->parts < 1 ||
	    op->parts > KERNEL_LINEAR_PARTS || !op->part[0].weight ||
	    !stride_valid(op->ldx, op->part[0].weight->in))
		return -EINVAL;
	p.x_data = op->x;
	p.ldx = (int64_t)op->ldx;
	p.rows = op->rows;
	p.in = op->part[0].weight->in;
	p.parts = op->parts;
	for (int i = 0; i < op->parts; i++) {
		const struct kernel_linear_part *part = &op->part[i];

		if (!linear_part_valid(op, part))
			return -EINVAL;
		if (!part->weight->prepared)
			return -ENOTSUP;
		p.part[i] = (struct gemm_part){
			.weight_data = part->weight->prepared,
			.bias = part->bias,
			.gate = part->gate,
			.residual = part->residual,
			.y = part->y,
			.ld_residual = (int64_t)part->ld_residual,
			.ldy = (int64_t)part->ldy,
			.out = part->weight->out,
			.activation = part->activation,
			.y_is_float = part->y_is_float,
		};
	}
	*ret = p;
	return 0;
}

int cuda_run_linear(struct kernel_device *device, const void *params, struct kernel_queue *queue)
{
	const struct kernel_linear *op = params;
	struct gemm_params p;
	const int r = linear_params(op, &p);

	return r < 0 ? r : product_run(device, &p, &op->workspace, queue);
}

size_t cuda_workspace_linear(const struct kernel_device *device, const void *params)
{
	const struct kernel_linear *op = params;
	int out = 0;

	for (int i = 0; i < op->parts && i < KERNEL_LINEAR_PARTS; i++)
		if (op->part[i].weight)
			out += op->part[i].weight->out;
	return op->part[0].weight ?
		       gemm_plan_workspace(device, op->rows, op->part[0].weight->in, out) :
		       0;
}

/* left_out ← the last frame, after everything has read `left`, which it may be. */
static int left_keep(struct kernel_device *d, const struct kernel_temporal_conv *op,
		     struct kernel_queue *queue)
{
	const size_t bytes = 2 * (size_t)op->tokens_per_frame * (size_t)op->channels;

	if (!op->left_out)
		return 0;
	return cuda_status(d->driver.cuMemcpyDtoDAsync(
		cuda_address(op->left_out),
		cuda_address((const char *)op->r + (size_t)(op->frames - 1) * bytes), bytes,
		queue->stream));
}

static int temporal_params(const struct kernel_temporal_conv *op, struct gemm_params *ret)
{
	const int c = op->channels;
	struct gemm_params p = {
		.x_data = op->r,
		.left_data = op->left,
		.ldx = c,
		.ld_left = c,
		.in = c,
		.parts = 1,
		.taps = 3,
		.shift = op->tokens_per_frame,
		.has_left = op->left != NULL,
		.part[0] = { .gate = op->gate,
			     .inner = op->r,
			     .residual = op->x,
			     .y = op->x,
			     .ld_inner = c,
			     .ld_residual = c,
			     .ldy = c,
			     .out = c },
	};

	if (op->frames < 1 || op->tokens_per_frame < 1 ||
	    op->frames > INT_MAX / 2 / op->tokens_per_frame || !weight_valid(op->weight, 3) ||
	    op->weight->out != c || op->weight->in != c)
		return -EINVAL;
	if (!op->weight->prepared)
		return -ENOTSUP;
	p.rows = op->frames * op->tokens_per_frame;
	p.part[0].weight_data = op->weight->prepared;
	*ret = p;
	return 0;
}

int cuda_run_temporal_conv(struct kernel_device *device, const void *params,
			   struct kernel_queue *queue)
{
	const struct kernel_temporal_conv *op = params;
	struct gemm_params p;
	int r = temporal_params(op, &p);

	if (r >= 0)
		r = product_run(device, &p, &op->workspace, queue);
	return r < 0 ? r : left_keep(device, op, queue);
}

int cuda_tune(struct kernel_device *device, enum kernel_op op, const void *params,
	      struct kernel_queue *queue)
{
	const struct kernel_workspace *workspace = params;
	struct gemm_params p;
	int r = cuda_enter(device);

	if (r < 0 || (op != KERNEL_OP_linear && op != KERNEL_OP_temporal_conv))
		return r;
	r = op == KERNEL_OP_linear ? linear_params(params, &p) : temporal_params(params, &p);
	return r < 0 ? r : product_measure(device, &p, workspace, queue);
}
