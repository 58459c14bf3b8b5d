/* Launcher of the 3×3×3 convolution: which kernel, which tiles, and the steps around it. */
#include "kernels/cuda/conv3d.h"

#include <limits.h>

#include "kernels/cuda/device.h"

_Static_assert(KERNEL_RESAMPLE_NONE == 0 && KERNEL_SPACE_TO_DEPTH == 1 &&
		       KERNEL_DEPTH_TO_SPACE == 2,
	       "the kernels know these by number");

_Static_assert((int)CONV3D_SHARED_BYTES <= (int)CUDA_PORTABLE_SHARED,
	       "what a block of the sm_120 family may have");

enum {
	TAPS = 27,
	NARROW = 64, /* channels of a tile */
	WIDE = 128,
	MAX_SPLITS = 16,      /* of a sum */
	MAX_WAVES = 3,	      /* of blocks, when sums are split: bounds the workspace */
	LEAST_CHUNKS = 3,     /* of a part: shorter ones are mostly start and end */
	WORTH_CHUNKS = 8,     /* of all multiprocessors' time; parts cost more when less is idle */
	LEAST_WGMMA_CIN = 48, /* fewer channels leave too much of a chunk of 64 empty */
};

enum conv_kind { CONV_PLAIN, CONV_MMA, CONV_WGMMA };

struct conv_plan {
	enum conv_kind kind;
	int channels; /* made by the convolution */
	int patches_h, patches_w, strip, tile_channels;
	int tiles_m, tiles_n, splits;
	int chunks, rest, part_blocks; /* mma: of a sum; tiles in parts, and whose */
	bool walks;		       /* wgmma: resident blocks go from tile to tile */
	size_t workspace;	       /* never less for a larger size */
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
 * wgmma: into how many parts the sum is cut, so that blocks fill the multiprocessors: the share of them that
 * works in the last wave, less a little for adding the parts up.
 */
static void choose_splits(const struct kernel_device *device, const struct kernel_conv3d *op,
			  struct conv_plan *plan)
{
	const int slots = device->properties.multiprocessors;
	const int chunks = 3 * ceil_div(op->cin, CONV3D_WGMMA_CHUNK);
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

/*
 * mma: the tiles behind the last full round share their sums out evenly, in parts that are added up, where
 * enough time would pass with too few of them.
 */
static void choose_parts(const struct kernel_device *device, const struct kernel_conv3d *op,
			 struct conv_plan *plan)
{
	const int64_t slots = device->properties.multiprocessors;
	const int64_t tiles = (int64_t)plan->tiles_m * plan->tiles_n, rest = tiles % slots;
	const int64_t chunks = 3 * (int64_t)ceil_div(op->cin, CONV3D_CHUNK);
	const int64_t most = tiles * chunks / LEAST_CHUNKS, some = rest * chunks / LEAST_CHUNKS;
	const size_t part_bytes = sizeof(float) * CONV3D_TILE_PIXELS * WIDE;

	plan->splits = 1;
	plan->chunks = (int)chunks;
	plan->workspace = 2 * (size_t)(most < slots ? most : slots) * part_bytes;
	/* The kernels count in 32 bits. */
	if (!rest || (slots - rest) * chunks < WORTH_CHUNKS * slots ||
	    rest * chunks * (slots + 1) > INT_MAX)
		return;
	plan->rest = (int)rest;
	plan->part_blocks = (int)(some < slots ? some : slots);
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
	if (plan->kind == CONV_MMA) {
		choose_parts(device, op, plan);
	} else {
		choose_splits(device, op, plan);
		plan->walks = plan->splits == 1 && op->resample == KERNEL_RESAMPLE_NONE &&
			      op->cout % 8 == 0;
	}
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
	const int r = conv_plan(device, params, &plan);

	return r == -ENOTSUP ? KERNEL_UNSUPPORTED : r < 0 ? 0 : plan.workspace;
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

/* Frames as [t][h][w][cin]; a box is a patch with its border, of one frame. */
static int map_frames(struct kernel_device *device, const struct kernel_conv3d *op,
		      const void *frames, int count, CUtensorMap *ret_map)
{
	const cuuint64_t pixel = 2 * (cuuint64_t)op->cin, row = pixel * (cuuint64_t)op->width;
	const cuuint64_t sizes[] = { (cuuint64_t)op->cin, (cuuint64_t)op->width,
				     (cuuint64_t)op->height, (cuuint64_t)count };
	const cuuint64_t strides[] = { pixel, row, row * (cuuint64_t)op->height };
	const cuuint32_t steps[] = { 1, 1, 1, 1 }, box[] = { CONV3D_CHUNK, 10, 10, 1 };

	return cuda_status(device->driver.cuTensorMapEncodeTiled(
		ret_map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, (void *)(uintptr_t)frames, sizes,
		strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_64B,
		CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
}

/* What the kernels of a plan read by the copy engine. */
static int map_all(struct kernel_device *device, const struct kernel_conv3d *op,
		   const struct conv_plan *plan, struct conv3d_params *p)
{
	int r = 0;

	if (plan->kind != CONV_PLAIN)
		r = map_weight(device, plan, p);
	if (r < 0 || plan->kind != CONV_MMA)
		return r;
	r = map_frames(device, op, op->x, op->frames, &p->x_map);
	if (r >= 0 && p->context_set)
		r = map_frames(device, op, op->context, 2, &p->context_map);
	return r;
}

/*
 * Whether blocks that make all channels of a pixel norm it too: conv3d_mma makes wide pixels' tiles one after
 * the other, where that takes no more rounds.
 */
static bool norms_too(const struct kernel_device *device, const struct kernel_conv3d *op,
		      const struct conv_plan *plan)
{
	const int slots = device->properties.multiprocessors;
	const int least = plan->kind == CONV_MMA ? 8 : 4;

	if (plan->kind == CONV_PLAIN || op->resample != KERNEL_RESAMPLE_NONE || op->cout % least)
		return false;
	return plan->tiles_n == 1 || (plan->kind == CONV_MMA && !plan->rest &&
				      ceil_div(plan->tiles_m, slots) * plan->tiles_n <=
					      ceil_div(plan->tiles_m * plan->tiles_n, slots));
}

static void params_fill(const struct kernel_device *device, const struct kernel_conv3d *op,
			const struct conv_plan *plan, struct conv3d_params *p)
{
	const bool norms = op->y_norm && norms_too(device, op, plan);
	const bool grouped = norms && plan->tiles_n > 1;
	const bool resampled = op->resample != KERNEL_RESAMPLE_NONE;

	*p = (struct conv3d_params){
		.x = op->x,
		.context = op->context,
		.weight = op->weight->prepared,
		.residual = op->residual,
		.bias = op->bias,
		.y = op->y || (norms && !grouped) ? op->y : op->y_norm, /* then normed in place */
		.y_norm = norms ? op->y_norm : NULL,
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
		.tiles = plan->tiles_m * plan->tiles_n - plan->rest,
		.rest = plan->rest,
		.part_blocks = plan->part_blocks,
		.chunks = plan->chunks,
		.group = grouped ? plan->tiles_n : 1,
	};
}

/* How conv3d_mma's results go to memory: straight from registers where the sizes allow. */
static int finish_kind(const struct conv3d_params *p)
{
	const int strides = 100 * p->stride_t + 10 * p->stride_h + p->stride_w;
	const bool wide = p->tile_channels == WIDE, twice = p->cout == 2 * p->cin;
	/* These two put all channels of a wide tile. */
	const bool whole = wide && p->channels % WIDE == 0;

	if (p->resample == KERNEL_RESAMPLE_NONE)
		return p->cout % 8 == 0 ? CONV3D_FINISH_BLOCKS : CONV3D_FINISH_ANY;
	if (p->resample == KERNEL_DEPTH_TO_SPACE)
		return strides == 222 && whole && p->cin % 32 == 0 ? CONV3D_FINISH_UP :
								     CONV3D_FINISH_ANY;
	if (strides == 122 && twice && !wide)
		return CONV3D_FINISH_122;
	if (strides == 222 && twice && wide)
		return CONV3D_FINISH_222;
	if (strides == 211 && twice && whole)
		return CONV3D_FINISH_211;
	return CONV3D_FINISH_ANY;
}

static enum cuda_kernel mma_kernel(const struct conv3d_params *p)
{
	static const enum cuda_kernel kernels[][2] = {
		[CONV3D_FINISH_BLOCKS] = { CUDA_KERNEL_conv3d_mma_n64,
					   CUDA_KERNEL_conv3d_mma_n128 },
		[CONV3D_FINISH_122] = { CUDA_KERNEL_conv3d_mma_n64_122 },
		[CONV3D_FINISH_211] = { [1] = CUDA_KERNEL_conv3d_mma_n128_211 },
		[CONV3D_FINISH_222] = { [1] = CUDA_KERNEL_conv3d_mma_n128_222 },
		[CONV3D_FINISH_UP] = { [1] = CUDA_KERNEL_conv3d_mma_n128_up },
		[CONV3D_FINISH_ANY] = { CUDA_KERNEL_conv3d_mma_n64_any,
					CUDA_KERNEL_conv3d_mma_n128_any },
	};

	return kernels[finish_kind(p)][p->tile_channels == WIDE];
}

/* Parts of sums to results. */
static int launch_finish(struct kernel_device *device, struct kernel_queue *queue,
			 const struct conv3d_params *p, int tiles)
{
	return cuda_launch(
		device, queue,
		&(struct cuda_launch){
			.kernel = CUDA_KERNEL_conv3d_finish,
			.grid = { (unsigned int)tiles, CONV3D_TILE_PIXELS / CONV3D_STAGE_ROWS },
			.block = { CONV3D_FINISH_THREADS },
			.shared_bytes =
				sizeof(float) * CONV3D_STAGE_ROWS * (WIDE + CONV3D_STAGE_PAD),
			.params = p,
			.dependent = true,
		});
}

static int launch_plain(struct kernel_device *device, struct kernel_queue *queue,
			const struct conv3d_params *p)
{
	return cuda_launch(device, queue,
			   &(struct cuda_launch){
				   .kernel = CUDA_KERNEL_conv3d_plain,
				   .grid = { (unsigned int)(p->frames * p->height * p->width) },
				   .block = { 128 },
				   .params = p,
			   });
}

static int launch_wgmma(struct kernel_device *device, struct kernel_queue *queue,
			const struct conv_plan *plan, const struct conv3d_params *p)
{
	const int slots = device->properties.multiprocessors;
	const bool wide = plan->tile_channels == WIDE;
	const enum cuda_kernel walk = wide ? CUDA_KERNEL_conv3d_wgmma_n128 :
					     CUDA_KERNEL_conv3d_wgmma_n64;
	const enum cuda_kernel once = wide ? CUDA_KERNEL_conv3d_wgmma_n128_once :
					     CUDA_KERNEL_conv3d_wgmma_n64_once;
	const int r = cuda_launch(
		device, queue,
		&(struct cuda_launch){
			.kernel = plan->walks ? walk : once,
			.grid = { (unsigned int)(plan->walks && slots < p->tiles ? slots : p->tiles),
				  (unsigned int)plan->splits },
			.block = { CONV3D_WGMMA_THREADS },
			.shared_bytes = CONV3D_WGMMA_SHARED_BYTES((unsigned int)p->tile_channels),
			.params = p,
		});

	return r < 0 || plan->splits <= 1 ? r : launch_finish(device, queue, p, p->tiles);
}

static int launch_mma(struct kernel_device *device, struct kernel_queue *queue,
		      const struct conv3d_params *p)
{
	const int slots = device->properties.multiprocessors;
	const int whole = p->tiles / p->group;
	const int blocks = whole >= slots ? slots : whole ? whole : p->part_blocks;
	const int r = cuda_launch(device, queue,
				  &(struct cuda_launch){
					  .kernel = mma_kernel(p),
					  .grid = { (unsigned int)blocks },
					  .block = { CONV3D_MMA_THREADS },
					  .shared_bytes = CONV3D_SHARED_BYTES,
					  .params = p,
					  .dependent = true,
				  });

	return r < 0 || !p->rest ? r : launch_finish(device, queue, p, p->rest);
}

static int launch_product(struct kernel_device *device, struct kernel_queue *queue,
			  const struct conv_plan *plan, const struct conv3d_params *p)
{
	switch (plan->kind) {
	case CONV_PLAIN:
		return launch_plain(device, queue, p);
	case CONV_MMA:
		return launch_mma(device, queue, p);
	case CONV_WGMMA:
		return launch_wgmma(device, queue, plan, p);
	}
	return -EINVAL;
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
	const size_t per_warp = !fast		  ? 1 :
				p.channels <= 128 ? 8 :
				p.channels <= 256 ? 4 :
				p.channels <= 512 ? 2 :
						    1;

	if (!p.pixels)
		return 0; /* the one frame there was is dropped */
	return cuda_launch(
		device, queue,
		&(struct cuda_launch){
			.kernel = fast ? CUDA_KERNEL_conv3d_norm : CUDA_KERNEL_conv3d_norm_any,
			.grid = { cuda_blocks(p.pixels, per_warp * CONV3D_NORM_THREADS / 32) },
			.block = { CONV3D_NORM_THREADS },
			.params = &p,
			.dependent = true,
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
	params_fill(device, op, &plan, &p);
	r = map_all(device, op, &plan, &p);
	if (r >= 0 && (op->y || op->y_norm))
		r = launch_product(device, queue, &plan, &p);
	if (r >= 0 && op->y_norm && !p.y_norm)
		r = launch_norm(device, queue, &p, op->y_norm);
	if (r >= 0 && op->context)
		r = update_context(device, op, queue);
	return r;
}
