/* Launcher of the 3×3×3 convolution: which kernel, which tiles, and the steps around it. */
#include "kernels/cuda/conv3d.h"

#include <limits.h>

#include "kernels/cuda/device.h"

_Static_assert(KERNEL_RESAMPLE_NONE == 0 && KERNEL_SPACE_TO_DEPTH == 1 &&
		       KERNEL_DEPTH_TO_SPACE == 2,
	       "the kernels know these by number");

_Static_assert(CONV3D_SHARED_BYTES(128) <= 99 * 1024, "what a block of the sm_120 family may have");

enum {
	TAPS = 27,
	NARROW = 64, /* channels of a tile */
	WIDE = 128,
	MAX_SPLITS = 16,      /* of a sum */
	MAX_WAVES = 3,	      /* of blocks, when sums are split: bounds the workspace */
	LEAST_CHUNKS = 3,     /* of a split: shorter ones are mostly start and end */
	LEAST_WGMMA_CIN = 48, /* fewer channels leave too much of a chunk of 64 empty */
};

enum conv_kind { CONV_PLAIN, CONV_MMA, CONV_WGMMA };

struct conv_plan {
	enum conv_kind kind;
	int channels; /* made by the convolution */
	int patches_h, patches_w, strip, tile_channels;
	int tiles_m, tiles_n, splits;
	bool walks;	  /* resident blocks go from tile to tile */
	size_t workspace; /* never less for a larger size */
};

static int ceil_div(int a, int b)
{
	return (a + b - 1) / b;
}

/* The channels of the convolution; −1 when the resampler does not fit the sizes. */
static int conv_channels(const struct kernel_conv3d *op)
{
	const int st = op->stride_t, sh = op->stride_h, sw = op->stride_w;
	int phases;

	if (op->resample == KERNEL_RESAMPLE_NONE)
		return op->cout;
	if (st < 1 || st > 2 || sh < 1 || sh > 2 || sw < 1 || sw > 2)
		return -1;
	phases = st * sh * sw;
	if (op->resample == KERNEL_SPACE_TO_DEPTH)
		return op->cout % phases == 0 && op->frames % st == 0 && op->height % sh == 0 &&
				       op->width % sw == 0 && op->cin * phases >= op->cout &&
				       op->cin * phases % op->cout == 0 ?
			       op->cout / phases :
			       -1;
	if (op->resample == KERNEL_DEPTH_TO_SPACE)
		return op->cin % phases == 0 && op->cout % (op->cin / phases) == 0 ?
			       op->cout * phases :
			       -1;
	return -1;
}

/*
 * Into how many parts the sum is cut, so that blocks fill the multiprocessors: the share of them that
 * works in the last wave, less a little for adding the parts up.
 */
static void choose_splits(const struct kernel_device *device, const struct kernel_conv3d *op,
			  struct conv_plan *plan)
{
	const bool wgmma = plan->kind == CONV_WGMMA;
	const int slots = device->properties.multiprocessors;
	const int chunks = 3 * ceil_div(op->cin, wgmma ? CONV3D_WGMMA_CHUNK : CONV3D_CHUNK);
	const int64_t tiles = (int64_t)plan->tiles_m * plan->tiles_n;
	const size_t tile_bytes = sizeof(float) * CONV3D_TILE_PIXELS * WIDE;
	const size_t most = (size_t)tiles * MAX_SPLITS;
	const size_t room = (size_t)MAX_WAVES * (size_t)slots;
	double best = 0;

	plan->splits = 1;
	plan->workspace = (most < room ? most : room) * tile_bytes;
	for (int s = 1; s <= MAX_SPLITS && s * LEAST_CHUNKS <= chunks; s++) {
		const int64_t blocks = tiles * s, waves = (blocks + slots - 1) / slots;
		const double share = (double)blocks / (double)(waves * slots) - 0.02 * s;

		if (s > 1 && blocks > MAX_WAVES * slots)
			break;
		if (share > best + 0.03) {
			best = share;
			plan->splits = s;
		}
	}
}

/* Rows of patches that the multiprocessors work on at once, evened out over a frame. */
static int strip_rows(const struct kernel_device *device, const struct conv_plan *plan)
{
	const int at_once = device->properties.multiprocessors * CONV3D_PATCHES / plan->tiles_n + 1;
	const int strips = (plan->patches_h * plan->patches_w + at_once / 2) / at_once;

	return strips > 1 ? ceil_div(plan->patches_h, strips) : plan->patches_h;
}

static void plan_tiles(const struct kernel_device *device, const struct kernel_conv3d *op,
		       struct conv_plan *plan)
{
	plan->tile_channels = plan->channels <= NARROW ? NARROW : WIDE;
	plan->tiles_n = ceil_div(plan->channels, plan->tile_channels);
	plan->patches_h = ceil_div(op->height, 8);
	plan->patches_w = ceil_div(op->width, 8);
	plan->tiles_m = ceil_div(op->frames * plan->patches_h * plan->patches_w, CONV3D_PATCHES);
	plan->strip = strip_rows(device, plan);
	choose_splits(device, op, plan);
	if (plan->kind == CONV_WGMMA)
		plan->walks = plan->splits == 1 && op->resample == KERNEL_RESAMPLE_NONE &&
			      op->cout % 8 == 0;
	else
		plan->walks = plan->splits == 1 && op->resample != KERNEL_SPACE_TO_DEPTH;
}

/* 0, −EINVAL outside the contract, −ENOTSUP for what does not fit the kernels' numbers. */
static int conv_plan(const struct kernel_device *device, const struct kernel_conv3d *op,
		     struct conv_plan *plan)
{
	const int64_t pixels = (int64_t)op->frames * op->height * op->width;

	*plan = (struct conv_plan){ 0 };
	if (op->frames < 1 || op->height < 1 || op->width < 1 || op->cin < 1 || op->cout < 1 ||
	    op->cin > 1 << 24 || op->cout > 1 << 24 || pixels > INT_MAX || !op->weight ||
	    op->weight->tap_count != TAPS || op->weight->in != op->cin)
		return -EINVAL;
	plan->channels = conv_channels(op);
	if (plan->channels < 1 || op->weight->out < plan->channels)
		return -EINVAL;
	if ((int64_t)op->height * op->width * op->cin > INT_MAX)
		return -ENOTSUP;
	/* Rows of whole 16 bytes. */
	if (op->cin % 8 == 0)
		plan->kind = device->properties.has_wgmma && op->cin >= LEAST_WGMMA_CIN ?
				     CONV_WGMMA :
				     CONV_MMA;
	if (plan->kind != CONV_PLAIN)
		plan_tiles(device, op, plan);
	return 0;
}

size_t cuda_workspace_conv3d(const struct kernel_device *device, const void *params)
{
	struct conv_plan plan;

	return conv_plan(device, params, &plan) < 0 ? 0 : plan.workspace;
}

static int conv_check(const struct kernel_conv3d *op, const struct conv_plan *plan)
{
	if ((unsigned int)op->padding >= KERNEL_PADDING_COUNT ||
	    (op->padding == KERNEL_PAD_REFLECT && (op->height < 2 || op->width < 2)) ||
	    (op->resample != KERNEL_RESAMPLE_NONE && op->residual) ||
	    op->workspace.bytes < plan->workspace)
		return -EINVAL;
	return op->weight->prepared ? 0 : -ENOTSUP;
}

/* The weight as [kt][kh][kw][rows][cin]; a box is what the kernel copies at once. */
static int map_weight(struct kernel_device *device, const struct conv_plan *plan,
		      struct conv3d_params *p)
{
	const bool wgmma = plan->kind == CONV_WGMMA;
	const cuuint64_t row = 2 * (cuuint64_t)p->cin, tap = row * (cuuint64_t)p->rows;
	const cuuint64_t sizes[] = { (cuuint64_t)p->cin, (cuuint64_t)p->rows, 3, 3, 3 };
	const cuuint64_t strides[] = { row, tap, 3 * tap, 9 * tap };
	const cuuint32_t steps[] = { 1, 1, 1, 1, 1 };
	const cuuint32_t box[] = { wgmma ? CONV3D_WGMMA_CHUNK : CONV3D_DEPTH,
				   (cuuint32_t)p->tile_channels, 1, wgmma ? 1 : 3, 1 };

	return cuda_status(device->driver.cuTensorMapEncodeTiled(
		&p->weight_map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 5, (void *)(uintptr_t)p->weight,
		sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
		wgmma ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_32B,
		CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
}

static void params_fill(const struct kernel_conv3d *op, const struct conv_plan *plan,
			struct conv3d_params *p)
{
	/* A block that has all channels of a pixel norms it too. */
	const bool fused = op->y_norm && plan->kind != CONV_PLAIN && plan->tiles_n == 1 &&
			   op->resample == KERNEL_RESAMPLE_NONE && op->cout % 4 == 0;
	const bool resampled = op->resample != KERNEL_RESAMPLE_NONE;

	*p = (struct conv3d_params){
		.x = op->x,
		.context = op->context,
		.weight = op->weight->prepared,
		.residual = op->residual,
		.bias = op->bias,
		.y = op->y || fused ? op->y : op->y_norm, /* the norm then works in place */
		.y_norm = fused ? op->y_norm : NULL,
		.partial = op->workspace.data,
		.frames = op->frames,
		.height = op->height,
		.width = op->width,
		.cin = op->cin,
		.cout = op->cout,
		.channels = plan->channels,
		.rows = op->weight->out,
		.causal = op->context != NULL,
		.context_set = op->context && op->context_set,
		.reflect = op->padding == KERNEL_PAD_REFLECT,
		.resample = (int)op->resample,
		.stride_t = resampled ? op->stride_t : 1,
		.stride_h = resampled ? op->stride_h : 1,
		.stride_w = resampled ? op->stride_w : 1,
		.drop = resampled && op->drop_first_frame,
		.patches_h = plan->patches_h,
		.patches_w = plan->patches_w,
		.strip = plan->strip,
		.tile_channels = plan->tile_channels,
		.tiles_m = plan->tiles_m,
		.tiles_n = plan->tiles_n,
		.splits = plan->splits,
	};
}

/* Shared memory of a tile's block, as the kernels lay it out. */
static unsigned int conv_shared_bytes(const struct conv_plan *plan)
{
	const unsigned int n = (unsigned int)plan->tile_channels;

	if (plan->kind == CONV_WGMMA)
		return CONV3D_WGMMA_SHARED_BYTES(n);
	return CONV3D_SHARED_BYTES(n);
}

static enum cuda_kernel product_kernel(const struct conv_plan *plan)
{
	const bool wide = plan->tile_channels == WIDE;

	if (plan->kind == CONV_MMA)
		return wide ? CUDA_KERNEL_conv3d_mma_n128 : CUDA_KERNEL_conv3d_mma_n64;
	if (plan->walks)
		return wide ? CUDA_KERNEL_conv3d_wgmma_n128 : CUDA_KERNEL_conv3d_wgmma_n64;
	return wide ? CUDA_KERNEL_conv3d_wgmma_n128_once : CUDA_KERNEL_conv3d_wgmma_n64_once;
}

static int launch_product(struct kernel_device *device, struct kernel_queue *queue,
			  const struct conv_plan *plan, const struct conv3d_params *p)
{
	const bool wgmma = plan->kind == CONV_WGMMA;
	const int tiles = plan->tiles_m * plan->tiles_n, slots = device->properties.multiprocessors;
	struct cuda_launch launch = {
		.kernel = product_kernel(plan),
		.grid = { (unsigned int)(plan->walks && slots < tiles ? slots : tiles),
			  (unsigned int)plan->splits },
		.block = { wgmma ? CONV3D_WGMMA_THREADS : CONV3D_THREADS },
		.shared_bytes = conv_shared_bytes(plan),
		.params = p,
	};
	int r;

	if (plan->kind == CONV_PLAIN) {
		launch.kernel = CUDA_KERNEL_conv3d_plain;
		launch.grid[0] = (unsigned int)(p->frames * p->height * p->width);
		launch.grid[1] = 1;
		launch.block[0] = 128;
		launch.shared_bytes = 0;
	}
	r = cuda_launch(device, queue, &launch);
	if (r < 0 || plan->splits <= 1)
		return r;
	launch = (struct cuda_launch){
		.kernel = CUDA_KERNEL_conv3d_finish,
		.grid = { launch.grid[0], CONV3D_TILE_PIXELS / CONV3D_STAGE_ROWS },
		.block = { CONV3D_FINISH_THREADS },
		.shared_bytes = sizeof(float) * CONV3D_STAGE_ROWS * (WIDE + CONV3D_STAGE_PAD),
		.params = p,
	};
	return cuda_launch(device, queue, &launch);
}

static unsigned int output_pixels(const struct conv3d_params *p)
{
	const int cell = p->stride_t * p->stride_h * p->stride_w;
	const int pixels = p->frames * p->height * p->width;

	if (p->resample == KERNEL_SPACE_TO_DEPTH)
		return (unsigned int)(pixels / cell);
	if (p->resample == KERNEL_DEPTH_TO_SPACE)
		return (unsigned int)((p->frames * p->stride_t - p->drop) * p->height *
				      p->stride_h * p->width * p->stride_w);
	return (unsigned int)pixels;
}

static int launch_norm(struct kernel_device *device, struct kernel_queue *queue,
		       const struct conv3d_params *conv, void *y_norm)
{
	const struct conv3d_norm_params p = {
		.x = conv->y,
		.y = y_norm,
		.pixels = output_pixels(conv),
		.channels = conv->cout,
	};
	const bool fast = p.channels % 8 == 0 && p.channels <= CONV3D_NORM_CHANNELS;
	/* As the kernel chooses. */
	const size_t per_warp = !fast ? 1 : p.channels <= 256 ? 4 : p.channels <= 512 ? 2 : 1;

	if (!p.pixels)
		return 0; /* the one frame there was is dropped */
	return cuda_launch(
		device, queue,
		&(struct cuda_launch){
			.kernel = fast ? CUDA_KERNEL_conv3d_norm : CUDA_KERNEL_conv3d_norm_any,
			.grid = { cuda_blocks(p.pixels, per_warp * CONV3D_NORM_THREADS / 32) },
			.block = { CONV3D_NORM_THREADS },
			.params = &p,
		});
}

/* context ← the last two frames of concat(context, x). */
static int update_context(struct kernel_device *device, const struct kernel_conv3d *op,
			  struct kernel_queue *queue)
{
	const size_t frame = 2 * (size_t)op->height * (size_t)op->width * (size_t)op->cin;
	const CUdeviceptr x = cuda_address(op->x), context = cuda_address(op->context);
	int r;

	if (op->frames > 1)
		return cuda_status(device->driver.cuMemcpyDtoDAsync(
			context, x + (size_t)(op->frames - 2) * frame, 2 * frame, queue->stream));
	r = cuda_status(device->driver.cuMemcpyDtoDAsync(
		context, op->context_set ? context + frame : x, frame, queue->stream));
	if (r >= 0)
		r = cuda_status(
			device->driver.cuMemcpyDtoDAsync(context + frame, x, frame, queue->stream));
	return r;
}

int cuda_run_conv3d(struct kernel_device *device, const void *params, struct kernel_queue *queue)
{
	const struct kernel_conv3d *op = params;
	struct conv3d_params p;
	struct conv_plan plan;
	int r = conv_plan(device, op, &plan);

	if (r >= 0)
		r = conv_check(op, &plan);
	if (r < 0)
		return r;
	params_fill(op, &plan, &p);
	if (plan.kind != CONV_PLAIN)
		r = map_weight(device, &plan, &p);
	if (r >= 0 && (op->y || op->y_norm))
		r = launch_product(device, queue, &plan, &p);
	if (r >= 0 && op->y_norm && !p.y_norm)
		r = launch_norm(device, queue, &p, op->y_norm);
	if (r >= 0 && op->context)
		r = update_context(device, op, queue);
	return r;
}
