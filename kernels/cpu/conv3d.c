/*
 * The 3×3×3 convolution of the VAE as a matrix product: a tile of pixels is gathered into rows of
 * their neighbourhoods (taps in the weight's order), multiplied with the weight, and scattered by
 * the resampler's index rule.
 */
#include "kernels/cpu/internal.h"

enum {
	KERNEL_ROWS = 9,   /* (kt, kh): each is a run of 3·Cin values inside a picture row */
	TILE_PIXELS = 512, /* enough that packing the weight costs a few percent */
	TILE_MIN_PIXELS = 64,
	TILE_BYTES = 1 << 20,	  /* of gathered pixels: shares the second-level cache */
	TILE_MAX_BYTES = 2 << 20, /* where one kernel row alone is larger than that */
	SHARE_MIN_PIXELS = 32,	  /* smaller tiles are not worth another thread */
	SHARE_MIN_CHANNELS = 32,
};

struct conv_plan {
	int channels;			       /* made by the convolution */
	int phases;			       /* P; 1 without a resampler */
	int tile_pixels;		       /* at most */
	int kernel_rows;		       /* gathered at a time */
	size_t gathered_floats, result_floats; /* of one thread */
	size_t panel, gathered, result;	       /* in the workspace */
	size_t bytes;
};

static int clamp_int(int64_t value, int low, int high)
{
	return value < low ? low : value > high ? high : (int)value;
}

/* The channels of the convolution; false when the resampler does not fit the sizes. */
static bool plan_channels(const struct kernel_conv3d *op, struct conv_plan *plan)
{
	const int st = op->stride_t, sh = op->stride_h, sw = op->stride_w;

	plan->channels = op->cout;
	plan->phases = 1;
	if (op->resample == KERNEL_RESAMPLE_NONE)
		return true;
	if (st < 1 || st > 2 || sh < 1 || sh > 2 || sw < 1 || sw > 2)
		return false;
	plan->phases = st * sh * sw;
	if (op->resample == KERNEL_SPACE_TO_DEPTH) {
		plan->channels = op->cout / plan->phases;
		return op->cout % plan->phases == 0 && op->frames % st == 0 &&
		       op->height % sh == 0 && op->width % sw == 0 &&
		       op->cin * plan->phases >= op->cout && op->cin * plan->phases % op->cout == 0;
	}
	plan->channels = op->cout * plan->phases;
	return op->resample == KERNEL_DEPTH_TO_SPACE && op->cin % plan->phases == 0 &&
	       op->cout % (op->cin / plan->phases) == 0;
}

static bool conv_plan(const struct kernel_device *device, const struct kernel_conv3d *op,
		      struct conv_plan *plan)
{
	const int64_t pixels = (int64_t)op->frames * op->height * op->width;
	const int max = 1 << 24; /* keeps the products of two sizes above inside their types */
	int64_t row_bytes;

	*plan = (struct conv_plan){ 0 };
	if (op->frames < 1 || op->height < 1 || op->width < 1 || op->cin < 1 || op->cout < 1 ||
	    op->cin > max || op->cout > max || pixels > INT_MAX || !plan_channels(op, plan))
		return false;
	if (!cpu_weight_valid(op->weight) || op->weight->tap_count != 27 ||
	    op->weight->in != op->cin || op->weight->out < plan->channels)
		return false;

	row_bytes = 3 * (int64_t)op->cin * sizeof(float);
	plan->tile_pixels = clamp_int(TILE_MAX_BYTES / row_bytes, TILE_MIN_PIXELS, TILE_PIXELS);
	plan->kernel_rows = clamp_int(TILE_BYTES / (row_bytes * plan->tile_pixels), 1, KERNEL_ROWS);
	if (pixels < plan->tile_pixels)
		plan->tile_pixels = (int)pixels;
	plan->gathered_floats = (size_t)plan->tile_pixels * plan->kernel_rows * 3 * op->cin;
	plan->result_floats = (size_t)plan->tile_pixels * plan->channels;
	plan->panel = cpu_reserve(&plan->bytes, cpu_weight_panel_floats(op->weight));
	plan->gathered = cpu_reserve(&plan->bytes, plan->gathered_floats * device->threads);
	plan->result = cpu_reserve(&plan->bytes, plan->result_floats * device->threads);
	return true;
}

size_t cpu_conv3d_workspace(const struct kernel_device *device, const void *params)
{
	struct conv_plan plan;

	return conv_plan(device, params, &plan) ? plan.bytes : 0;
}

static int conv_check(const struct kernel_conv3d *op, const struct conv_plan *plan)
{
	if ((unsigned int)op->padding >= KERNEL_PADDING_COUNT)
		return -EINVAL;
	if (op->padding == KERNEL_PAD_REFLECT && (op->height < 2 || op->width < 2))
		return -EINVAL;
	if (op->resample != KERNEL_RESAMPLE_NONE && op->residual)
		return -EINVAL;
	return cpu_workspace_short(&op->workspace, plan->bytes) ? -EINVAL : 0;
}

/* ------------------------------------------------------------------------------------- input */

/* Input frame of time t + tap: the context, the clip, or a repeated edge. */
static const float *frame_at(const struct kernel_conv3d *op, int t, int tap)
{
	const size_t frame = (size_t)op->height * op->width * op->cin;
	int time = t + tap - (op->context ? 2 : 1);

	if (time < 0 && op->context && op->context_set)
		return (const float *)op->context + (time + 2) * frame;
	time = clamp_int(time, 0, op->frames - 1);
	return (const float *)op->x + time * frame;
}

/* The row or column to read for index i in −1 … n; −1 where it is zero. */
static int padded(enum kernel_padding padding, int i, int n)
{
	if (i >= 0 && i < n)
		return i;
	if (padding == KERNEL_PAD_ZERO)
		return -1;
	return i < 0 ? -i : 2 * n - 2 - i;
}

/* The three neighbours (h, w−1 … w+1) of one picture row: to [3][Cin]. */
static void gather_row(const struct kernel_conv3d *op, const float *frame, int h, int w, float *to)
{
	const size_t cin = op->cin;
	const int row = padded(op->padding, h, op->height);
	const float *from = frame + (size_t)row * op->width * cin;

	if (row < 0) {
		memset(to, 0, 3 * cin * sizeof(*to));
		return;
	}
	if (w > 0 && w + 1 < op->width) {
		memcpy(to, from + (w - 1) * cin, 3 * cin * sizeof(*to));
		return;
	}
	for (int i = 0; i < 3; i++) {
		const int column = padded(op->padding, w + i - 1, op->width);

		if (column < 0)
			memset(to + i * cin, 0, cin * sizeof(*to));
		else
			memcpy(to + i * cin, from + column * cin, cin * sizeof(*to));
	}
}

/* Kernel rows [first, first + rows) of pixels [pixel, pixel + count): to [count][rows][3][Cin]. */
static void gather(const struct kernel_conv3d *op, int pixel, int count, int first, int rows,
		   float *to)
{
	for (int p = pixel; p < pixel + count; p++) {
		const int w = p % op->width, h = p / op->width % op->height;
		const int t = p / op->width / op->height;

		for (int i = first; i < first + rows; i++) {
			gather_row(op, frame_at(op, t, i / 3), h + i % 3 - 1, w, to);
			to += 3 * (size_t)op->cin;
		}
	}
}

/* ------------------------------------------------------------------------------------- output */

/* Where the result of a tile goes: `values` [channels] of one pixel, first channel `channel`. */
struct conv_result {
	const float *values;
	int channel, channels;
	int t, h, w;
};

static void put_plain(const struct kernel_conv3d *op, const struct conv_result *result, float *y)
{
	const size_t pixel = ((size_t)result->t * op->height + result->h) * op->width + result->w;
	const size_t at = pixel * op->cout + result->channel;
	const float *bias = op->bias + result->channel;
	const float *residual = op->residual ? (const float *)op->residual + at : NULL;

	for (int c = 0; c < result->channels; c++) {
		const float v = result->values[c] + bias[c];

		y[at + c] = residual ? v + residual[c] : v;
	}
}

/* Phase q of a cell as offsets in time, row and column. */
static void phase_offsets(const struct kernel_conv3d *op, int q, int *ret_i, int *ret_j, int *ret_k)
{
	*ret_k = q % op->stride_w;
	*ret_j = q / op->stride_w % op->stride_h;
	*ret_i = q / op->stride_w / op->stride_h;
}

/* mean_{e<G} S(x)[o·G + e] of the cell whose first pixel is (t, h, w). */
static float cell_mean(const struct kernel_conv3d *op, int phases, int o, int t, int h, int w)
{
	const int group = op->cin * phases / op->cout;
	double sum = 0;

	for (int e = 0; e < group; e++) {
		const int m = o * group + e;
		size_t pixel;
		int i, j, k;

		phase_offsets(op, m % phases, &i, &j, &k);
		pixel = ((size_t)(t + i) * op->height + h + j) * op->width + w + k;
		sum += ((const float *)op->x)[pixel * op->cin + m / phases];
	}
	return (float)(sum / group);
}

static void put_down(const struct kernel_conv3d *op, const struct conv_result *result, int phases,
		     float *y)
{
	const int t = result->t / op->stride_t, h = result->h / op->stride_h;
	const int w = result->w / op->stride_w;
	const int i = result->t % op->stride_t, j = result->h % op->stride_h;
	const int q = (i * op->stride_h + j) * op->stride_w + result->w % op->stride_w;
	const size_t pixel =
		((size_t)t * (op->height / op->stride_h) + h) * (op->width / op->stride_w) + w;

	for (int c = 0; c < result->channels; c++) {
		const int o = (result->channel + c) * phases + q;

		y[pixel * op->cout + o] = result->values[c] + op->bias[result->channel + c] +
					  cell_mean(op, phases, o, t * op->stride_t,
						    h * op->stride_h, w * op->stride_w);
	}
}

static void put_up(const struct kernel_conv3d *op, const struct conv_result *result, int phases,
		   float *y)
{
	const size_t pixel = ((size_t)result->t * op->height + result->h) * op->width + result->w;
	const float *x = (const float *)op->x + pixel * op->cin;
	const size_t height = (size_t)op->stride_h * op->height;
	const size_t width = (size_t)op->stride_w * op->width;

	for (int c = 0; c < result->channels; c++) {
		const int channel = result->channel + c, o = channel / phases, q = channel % phases;
		int i, j, k, frame;

		phase_offsets(op, q, &i, &j, &k);
		frame = op->stride_t * result->t + i - op->drop_first_frame;
		if (frame < 0)
			continue;
		y[((frame * height + op->stride_h * result->h + j) * width +
		   op->stride_w * result->w + k) *
			  op->cout +
		  o] = result->values[c] + op->bias[channel] +
		       x[o % (op->cin / phases) * phases + q];
	}
}

/* The places of one tile's results in y; no other tile writes them. */
static void scatter(const struct kernel_conv3d *op, const struct conv_plan *plan, int pixel,
		    int count, struct conv_result *result, float *y)
{
	for (int p = pixel; p < pixel + count; p++) {
		result->w = p % op->width;
		result->h = p / op->width % op->height;
		result->t = p / op->width / op->height;
		switch (op->resample) {
		case KERNEL_RESAMPLE_NONE:
			put_plain(op, result, y);
			break;
		case KERNEL_SPACE_TO_DEPTH:
			put_down(op, result, plan->phases, y);
			break;
		case KERNEL_DEPTH_TO_SPACE:
			put_up(op, result, plan->phases, y);
			break;
		case KERNEL_RESAMPLE_COUNT:
			break;
		}
		result->values += result->channels;
	}
}

/* silu(x / sqrt(mean(x²) + 1e−8)) per pixel; x and y may be the same. Called by a whole team. */
static void normalise(const float *x, float *y, size_t pixels, int channels)
{
#pragma omp for schedule(static) nowait
	for (size_t p = 0; p < pixels; p++) {
		const float *from = x + p * channels;
		float *to = y + p * channels;
		const double mean = cpu_sum_of_squares(from, channels) / channels;
		const float inverse = (float)(1.0 / sqrt(mean + 1e-8));

		cpu_silu_scaled_row(from, inverse, to, channels);
	}
}

/* ---------------------------------------------------------------------------------- the whole */

static size_t output_pixels(const struct kernel_conv3d *op)
{
	const size_t pixels = (size_t)op->frames * op->height * op->width;
	const int cell = op->stride_t * op->stride_h * op->stride_w;

	switch (op->resample) {
	case KERNEL_SPACE_TO_DEPTH:
		return pixels / cell;
	case KERNEL_DEPTH_TO_SPACE:
		return ((size_t)op->frames * op->stride_t - op->drop_first_frame) * op->height *
		       op->stride_h * op->width * op->stride_w;
	case KERNEL_RESAMPLE_NONE:
	case KERNEL_RESAMPLE_COUNT:
		break;
	}
	return pixels;
}

/* Tiles of pixels times groups of channels, enough of them for all threads. */
static void share_out(const struct conv_plan *plan, int pixels, int channels, int threads,
		      int *ret_tiles, int *ret_groups)
{
	int tiles = cpu_ceil_div(pixels, plan->tile_pixels);
	const int even = cpu_ceil_div(tiles, threads) * threads;

	*ret_groups = 1;
	if (pixels / even >= SHARE_MIN_PIXELS)
		tiles = even;
	else if (tiles < threads)
		*ret_groups =
			clamp_int(channels / SHARE_MIN_CHANNELS, 1, cpu_ceil_div(threads, tiles));
	*ret_tiles = tiles;
}

/* One tile of pixels times `result->channels` rows of the weight, into y. */
static void conv_tile(const struct kernel_conv3d *op, const struct conv_plan *plan, int pixel,
		      int count, const float *weight, struct conv_result *result, float *y)
{
	const int thread = omp_get_thread_num();
	float *gathered = cpu_at(&op->workspace, plan->gathered) + thread * plan->gathered_floats;
	float *values = cpu_at(&op->workspace, plan->result) + thread * plan->result_floats;
	const size_t run = 3 * (size_t)op->cin;

	if (count == 0 || result->channels == 0)
		return;
	for (int first = 0; first < KERNEL_ROWS; first += plan->kernel_rows) {
		const int rows = clamp_int(KERNEL_ROWS - first, 1, plan->kernel_rows);

		gather(op, pixel, count, first, rows, gathered);
		cpu_gemm_nt(count, result->channels, (int)(rows * run), gathered, rows * run,
			    weight + first * run, KERNEL_ROWS * run, first > 0 ? 1.0f : 0.0f,
			    values, result->channels);
	}
	result->values = values;
	scatter(op, plan, pixel, count, result, y);
}

/* Called by a whole team: all pixels, output channels [first, first + channels). */
static void conv_panel(const struct kernel_conv3d *op, const struct conv_plan *plan, int threads,
		       int first, int channels, float *y)
{
	const int pixels = op->frames * op->height * op->width;
	const float *weight =
		cpu_weight_panel(op->weight, first, channels, cpu_at(&op->workspace, plan->panel));
	int tiles, groups;

	share_out(plan, pixels, channels, threads, &tiles, &groups);
#pragma omp for schedule(static) nowait
	for (int i = 0; i < tiles * groups; i++) {
		const int pixel = cpu_share(pixels, tiles, i / groups);
		const int channel = cpu_share(channels, groups, i % groups);
		struct conv_result result = {
			.channel = first + channel,
			.channels = cpu_share(channels, groups, i % groups + 1) - channel,
		};

		conv_tile(op, plan, pixel, cpu_share(pixels, tiles, i / groups + 1) - pixel,
			  weight + channel * 27 * (size_t)op->cin, &result, y);
	}
}

/* context ← the last two frames of concat(context, x). */
static void update_context(const struct kernel_conv3d *op)
{
	const size_t frame = (size_t)op->height * op->width * op->cin;
	const float *x = op->x;
	float *context = op->context;

	if (op->frames > 1) {
		memcpy(context, x + (op->frames - 2) * frame, 2 * frame * sizeof(*x));
		return;
	}
	memcpy(context, op->context_set ? context + frame : x, frame * sizeof(*x));
	memcpy(context + frame, x, frame * sizeof(*x));
}

/* Called by a whole team. */
static void conv_all(const struct kernel_conv3d *op, const struct conv_plan *plan, int threads,
		     float *y)
{
	const int rows = cpu_weight_panel_rows(op->weight);

	for (int first = 0; first < plan->channels; first += rows)
		conv_panel(op, plan, threads, first, clamp_int(plan->channels - first, 1, rows), y);
	if (op->y_norm) {
#pragma omp barrier
		normalise(y, op->y_norm, output_pixels(op), op->cout);
	}
}

int cpu_conv3d(struct kernel_device *device, const void *params, struct kernel_queue *queue)
{
	const struct kernel_conv3d *op = params;
	float *y = op->y ? op->y : op->y_norm; /* the norm then works in place */
	struct conv_plan plan;
	int r;

	(void)queue;
	if (!conv_plan(device, op, &plan))
		return -EINVAL;
	r = conv_check(op, &plan);
	if (r < 0)
		return r;

	if (y)
		CPU_TEAM(device, conv_all(op, &plan, device->threads, y));
	if (op->context)
		update_context(op);
	return 0;
}
