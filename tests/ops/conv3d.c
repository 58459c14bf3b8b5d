/* The 3×3×3 convolution and its resamplers against the formula in FP64. */
#include <errno.h>
#include <math.h>

#include "tests/common/op_test.h"

enum context { WHOLE_CLIP, CONTEXT_UNSET, CONTEXT_SET };
enum outputs { Y = 1, Y_NORM = 2, BOTH = 3 };

struct conv_case {
	int frames, height, width, cin, cout;
	enum kernel_padding padding;
	enum context context;
	enum kernel_resample resample;
	int stride[3];
	bool drop;
	enum outputs outputs;
	int residual;  /* 1: there is one, 2: it is y */
	int more_rows; /* of the weight than are used */
	enum kernel_dtype dtype;
	bool prepared;
	int every; /* compare each n-th output pixel: the reference is slow; 0 is 1 */
};

/* What the reference reads: inputs as they were before the op. */
struct reference {
	const struct kernel_conv3d *op;
	const double *weight; /* [out][27][Cin] */
	const float *context, *residual;
	int phases;
};

static double input_at(const struct reference *ref, int t, int h, int w, int c)
{
	const struct kernel_conv3d *op = ref->op;
	const float *frames = op->x;

	if (h < 0 || h >= op->height || w < 0 || w >= op->width) {
		if (op->padding == KERNEL_PAD_ZERO)
			return 0;
		h = h < 0 ? -h : h >= op->height ? 2 * (op->height - 1) - h : h;
		w = w < 0 ? -w : w >= op->width ? 2 * (op->width - 1) - w : w;
	}
	if (t < 0 && op->context && op->context_set) {
		frames = ref->context;
		t += 2;
	} else {
		t = t < 0 ? 0 : t >= op->frames ? op->frames - 1 : t;
	}
	return frames[(((size_t)t * op->height + h) * op->width + w) * op->cin + c];
}

/* c[k][t,h,w] of the contract. */
static double conv_at(const struct reference *ref, int k, int t, int h, int w)
{
	const struct kernel_conv3d *op = ref->op;
	const int back = op->context ? 2 : 1;
	double sum = op->bias[k];

	for (int tap = 0; tap < 27; tap++) {
		const double *weight = ref->weight + ((size_t)k * 27 + tap) * op->cin;

		for (int c = 0; c < op->cin; c++)
			sum += weight[c] * input_at(ref, t + tap / 9 - back, h + tap / 3 % 3 - 1,
						    w + tap % 3 - 1, c);
	}
	return sum;
}

/* S(x)[m] of the cell (t, h, w). */
static double depth_at(const struct reference *ref, int m, int t, int h, int w)
{
	const struct kernel_conv3d *op = ref->op;
	const int q = m % ref->phases, sh = op->stride_h, sw = op->stride_w;

	return input_at(ref, t * op->stride_t + q / (sh * sw), h * sh + q / sw % sh,
			w * sw + q % sw, m / ref->phases);
}

/* y[o][t,h,w] before the frame that is dropped is taken away. */
static double output_at(const struct reference *ref, int o, int t, int h, int w)
{
	const struct kernel_conv3d *op = ref->op;
	const int st = op->stride_t, sh = op->stride_h, sw = op->stride_w, p = ref->phases;

	switch (op->resample) {
	case KERNEL_SPACE_TO_DEPTH: {
		const int group = op->cin * p / op->cout, q = o % p;
		double mean = 0;

		for (int e = 0; e < group; e++)
			mean += depth_at(ref, o * group + e, t, h, w) / group;
		return mean + conv_at(ref, o / p, t * st + q / (sh * sw), h * sh + q / sw % sh,
				      w * sw + q % sw);
	}
	case KERNEL_DEPTH_TO_SPACE: {
		const int q = (t % st * sh + h % sh) * sw + w % sw;

		return conv_at(ref, o * p + q, t / st, h / sh, w / sw) +
		       input_at(ref, t / st, h / sh, w / sw, o % (op->cin / p) * p + q);
	}
	case KERNEL_RESAMPLE_NONE:
	case KERNEL_RESAMPLE_COUNT:
		break;
	}
	return conv_at(ref, o, t, h, w) +
	       (ref->residual ?
			ref->residual[(((size_t)t * op->height + h) * op->width + w) * op->cout + o] :
			0);
}

struct shape {
	int frames, height, width; /* of the output, before a frame is dropped */
	size_t count;		   /* elements, after */
};

static struct shape output_shape(const struct kernel_conv3d *op)
{
	struct shape shape = { op->frames, op->height, op->width, 0 };

	if (op->resample == KERNEL_SPACE_TO_DEPTH) {
		shape.frames /= op->stride_t;
		shape.height /= op->stride_h;
		shape.width /= op->stride_w;
	} else if (op->resample == KERNEL_DEPTH_TO_SPACE) {
		shape.frames *= op->stride_t;
		shape.height *= op->stride_h;
		shape.width *= op->stride_w;
	}
	shape.count = (size_t)(shape.frames - op->drop_first_frame) * shape.height * shape.width *
		      op->cout;
	return shape;
}

static int conv_channels(const struct conv_case *wish, int phases)
{
	if (wish->resample == KERNEL_SPACE_TO_DEPTH)
		return wish->cout / phases;
	return wish->resample == KERNEL_DEPTH_TO_SPACE ? wish->cout * phases : wish->cout;
}

static void conv_fill(struct op_test *test, const struct conv_case *wish, struct kernel_conv3d *op,
		      struct reference *ref)
{
	const size_t frame = (size_t)wish->height * wish->width * wish->cin;
	const bool resampled = wish->resample != KERNEL_RESAMPLE_NONE;
	const int phases = resampled ? wish->stride[0] * wish->stride[1] * wish->stride[2] : 1;
	const int channels = conv_channels(wish, phases);
	const struct op_test_weight weight = {
		.out = channels + wish->more_rows,
		.in = wish->cin,
		.taps = 27,
		.tap_count = 27,
		.dtype = wish->dtype,
		.prepared = wish->prepared,
	};
	size_t count;

	*op = (struct kernel_conv3d){
		.context_set = wish->context == CONTEXT_SET,
		.padding = wish->padding,
		.resample = wish->resample,
		.stride_t = wish->stride[0],
		.stride_h = wish->stride[1],
		.stride_w = wish->stride[2],
		.drop_first_frame = wish->drop,
		.frames = wish->frames,
		.height = wish->height,
		.width = wish->width,
		.cin = wish->cin,
		.cout = wish->cout,
	};
	count = output_shape(op).count;
	op->x = op_test_random(test, wish->frames * frame, -1, 1);
	if (wish->context == CONTEXT_SET)
		op->context = op_test_random(test, 2 * frame, -1, 1);
	else if (wish->context == CONTEXT_UNSET)
		op->context = op_test_floats(test, 2 * frame); /* NaN: must not be read */
	op->weight = op_test_weight(test, &weight);
	op->bias = op_test_random(test, channels, -1, 1);
	op->residual = wish->residual ? op_test_random(test, count, -1, 1) : NULL;
	if (wish->outputs & Y)
		op->y = wish->residual == 2 ? (void *)op->residual : op_test_floats(test, count);
	if (wish->outputs & Y_NORM)
		op->y_norm = op_test_floats(test, count);
	*ref = (struct reference){
		.op = op,
		.weight = op_test_weight_values(test, op->weight),
		.phases = phases,
		.context = op->context ? op_test_copy(test, op->context, 2 * frame) : NULL,
		.residual = op->residual ? op_test_copy(test, op->residual, count) : NULL,
	};
}

/* The context after the op, bit by bit: frames T−2 and T−1 of context and input in a row. */
static void check_context(const struct reference *ref)
{
	const struct kernel_conv3d *op = ref->op;

	for (int i = 0; i < 2; i++)
		for (int h = 0; h < op->height; h++)
			for (int w = 0; w < op->width; w++)
				for (int c = 0; c < op->cin; c++)
					assert_true(
						((const float *)op->context)[((i * op->height + h) *
										      op->width +
									      w) * op->cin +
									     c] ==
						(float)input_at(ref, op->frames - 2 + i, h, w, c));
}

static void conv_describe(const struct conv_case *wish, char *text, size_t bytes)
{
	(void)snprintf(text, bytes,
		       "%d×%d×%d %d→%d pad %d context %d resample %d (%d,%d,%d)%s residual %d "
		       "dtype %d%s",
		       wish->frames, wish->height, wish->width, wish->cin, wish->cout,
		       wish->padding, wish->context, wish->resample, wish->stride[0],
		       wish->stride[1], wish->stride[2], wish->drop ? " dropped" : "",
		       wish->residual, wish->dtype, wish->prepared ? " prepared" : "");
}

/* Compares y and y_norm at every `every`-th pixel. */
static void conv_compare(struct op_test *test, const struct conv_case *wish,
			 const struct reference *ref)
{
	const struct kernel_conv3d *op = ref->op;
	const struct shape shape = output_shape(op);
	const size_t pixels = shape.count / op->cout, every = wish->every ? wish->every : 1;
	double *want = op_test_buffer(test, shape.count * sizeof(*want));
	double *want_norm = op_test_buffer(test, shape.count * sizeof(*want));
	float *got = op_test_floats(test, shape.count),
	      *got_norm = op_test_floats(test, shape.count);
	size_t count = 0;
	char text[200];

	for (size_t p = 0; p < pixels; p += every) {
		const int w = p % shape.width, h = p / shape.width % shape.height;
		const int t = p / shape.width / shape.height + op->drop_first_frame;
		double mean = 0;

		for (int o = 0; o < op->cout; o++) {
			want[count + o] = output_at(ref, o, t, h, w);
			mean += want[count + o] * want[count + o] / op->cout;
		}
		for (int o = 0; o < op->cout; o++, count++) {
			want_norm[count] = op_test_silu(want[count] / sqrt(mean + 1e-8));
			if (op->y)
				got[count] = ((const float *)op->y)[p * op->cout + o];
			if (op->y_norm)
				got_norm[count] = ((const float *)op->y_norm)[p * op->cout + o];
		}
	}
	conv_describe(wish, text, sizeof(text));
	if (op->y)
		op_test_compare(got, want, count, OP_TOLERANCE, "conv3d y %s", text);
	if (op->y_norm)
		op_test_compare(got_norm, want_norm, count, OP_TOLERANCE, "conv3d y_norm %s", text);
}

static void conv_case_run(struct op_test *test, const struct conv_case *wish)
{
	struct kernel_conv3d op;
	struct reference ref;

	op_test_reset(test, 89);
	conv_fill(test, wish, &op, &ref);
	op_test_run(test, KERNEL_OP_conv3d, &op.workspace);
	conv_compare(test, wish, &ref);
	if (op.context)
		check_context(&ref);
}

static const struct conv_case plain_cases[] = {
	/* smallest */
	{ 1, 1, 1, 1, 1, .outputs = Y },
	{ 1, 1, 1, 1, 1, .context = CONTEXT_SET, .outputs = BOTH, .residual = 1 },
	{ 1, 2, 2, 1, 1, KERNEL_PAD_REFLECT, CONTEXT_UNSET, .outputs = Y_NORM },
	/* real */
	{ 1, 36, 64, 64, 64, KERNEL_PAD_REFLECT, CONTEXT_SET, .outputs = BOTH, .residual = 2,
	  .dtype = KERNEL_BF16, .prepared = true, .every = 101 },
	{ 2, 36, 64, 48, 64, KERNEL_PAD_ZERO, CONTEXT_UNSET, .outputs = Y, .dtype = KERNEL_BF16,
	  .every = 103 },
	/* odd */
	{ 3, 5, 7, 11, 13, KERNEL_PAD_REFLECT, WHOLE_CLIP, .outputs = BOTH, .residual = 1,
	  .dtype = KERNEL_F16, .more_rows = 3 },
	{ 2, 7, 3, 5, 17, KERNEL_PAD_ZERO, WHOLE_CLIP, .outputs = Y_NORM, .residual = 1,
	  .dtype = KERNEL_F16, .prepared = true, .more_rows = 1 },
	{ 2, 1, 9, 3, 2, KERNEL_PAD_ZERO, CONTEXT_SET, .outputs = BOTH, .residual = 2 },
	/* past a tile of 512 pixels; past the width where a kernel row alone fills a tile */
	{ 1, 27, 19, 3, 5, KERNEL_PAD_REFLECT, CONTEXT_SET, .outputs = BOTH },
	{ 1, 5, 13, 2749, 3, KERNEL_PAD_ZERO, CONTEXT_SET, .outputs = Y, .dtype = KERNEL_BF16 },
	{ 1, 9, 16, 160, 70, KERNEL_PAD_REFLECT, CONTEXT_SET, .outputs = BOTH, .residual = 2,
	  .dtype = KERNEL_F16, .every = 3 },
};

/* Both paddings, three kinds of time, T = 1, 2, 3, 5. */
static void test_times(struct op_test *test)
{
	static const int frames[] = { 1, 2, 3, 5 };

	for (size_t i = 0; i < ARRAY_SIZE(frames); i++) {
		for (enum context context = WHOLE_CLIP; context <= CONTEXT_SET; context++) {
			for (int padding = 0; padding < KERNEL_PADDING_COUNT; padding++) {
				const struct conv_case wish = {
					frames[i],
					3,
					4,
					5,
					6,
					padding,
					context,
					.outputs = BOTH,
					.residual = 2,
					.prepared = padding == 0,
				};

				conv_case_run(test, &wish);
			}
		}
	}
}

static void test_conv3d(void **state)
{
	(void)state;
	for (int threads = 1; threads <= 3; threads++) {
		struct op_test test;

		op_test_open(&test, threads);
		for (size_t i = 0; i < ARRAY_SIZE(plain_cases); i++)
			conv_case_run(&test, &plain_cases[i]);
		test_times(&test);
		op_test_close(&test);
	}
}

static const struct conv_case resample_cases[] = {
	/* down: the published strides and residual groups of 1, 2 and 4; two more */
	{ 1, 4, 6, 8, 16, .resample = KERNEL_SPACE_TO_DEPTH, .stride = { 1, 2, 2 },
	  .context = CONTEXT_SET, .outputs = BOTH },
	{ 4, 3, 5, 8, 16, .resample = KERNEL_SPACE_TO_DEPTH, .stride = { 2, 1, 1 },
	  .context = CONTEXT_UNSET, .outputs = Y_NORM, .dtype = KERNEL_BF16 },
	{ 2, 4, 6, 16, 32, .resample = KERNEL_SPACE_TO_DEPTH, .stride = { 2, 2, 2 },
	  .context = CONTEXT_SET, .outputs = BOTH, .dtype = KERNEL_BF16, .prepared = true },
	{ 6,
	  2,
	  2,
	  3,
	  8,
	  KERNEL_PAD_REFLECT,
	  CONTEXT_SET,
	  KERNEL_SPACE_TO_DEPTH,
	  { 2, 2, 2 },
	  .outputs = Y,
	  .more_rows = 2 },
	{ 3, 7, 4, 5, 10, .resample = KERNEL_SPACE_TO_DEPTH, .stride = { 1, 1, 2 },
	  .outputs = BOTH },
	{ 2, 36, 64, 32, 64, .resample = KERNEL_SPACE_TO_DEPTH, .stride = { 2, 2, 2 },
	  .context = CONTEXT_SET, .outputs = BOTH, .dtype = KERNEL_BF16, .every = 7 },
	/* up */
	{ 1,
	  3,
	  5,
	  16,
	  8,
	  KERNEL_PAD_REFLECT,
	  CONTEXT_UNSET,
	  KERNEL_DEPTH_TO_SPACE,
	  { 2, 2, 2 },
	  .drop = true,
	  .outputs = BOTH },
	{ 3,
	  2,
	  3,
	  16,
	  8,
	  KERNEL_PAD_REFLECT,
	  CONTEXT_SET,
	  KERNEL_DEPTH_TO_SPACE,
	  { 2, 2, 2 },
	  .outputs = BOTH,
	  .dtype = KERNEL_BF16 },
	{ 2,
	  3,
	  2,
	  8,
	  4,
	  KERNEL_PAD_ZERO,
	  CONTEXT_SET,
	  KERNEL_DEPTH_TO_SPACE,
	  { 1, 2, 2 },
	  .outputs = Y_NORM,
	  .dtype = KERNEL_F16,
	  .prepared = true },
	{ 5,
	  3,
	  2,
	  6,
	  9,
	  KERNEL_PAD_ZERO,
	  WHOLE_CLIP,
	  KERNEL_DEPTH_TO_SPACE,
	  { 2, 1, 1 },
	  .drop = true,
	  .outputs = Y,
	  .more_rows = 4 },
	{ 2,
	  3,
	  4,
	  4,
	  6,
	  KERNEL_PAD_REFLECT,
	  CONTEXT_SET,
	  KERNEL_DEPTH_TO_SPACE,
	  { 1, 2, 1 },
	  .drop = true,
	  .outputs = BOTH },
	{ 1,
	  9,
	  16,
	  64,
	  32,
	  KERNEL_PAD_REFLECT,
	  CONTEXT_SET,
	  KERNEL_DEPTH_TO_SPACE,
	  { 2, 2, 2 },
	  .drop = true,
	  .outputs = BOTH,
	  .dtype = KERNEL_BF16,
	  .prepared = true,
	  .every = 11 },
};

static void test_resamplers(void **state)
{
	(void)state;
	for (int threads = 1; threads <= 3; threads++) {
		struct op_test test;

		op_test_open(&test, threads);
		for (size_t i = 0; i < ARRAY_SIZE(resample_cases); i++)
			conv_case_run(&test, &resample_cases[i]);
		op_test_close(&test);
	}
}

/* Weight rows of 1 MiB: more of them than the CPU back end converts at a time. */
static void test_two_panels(void **state)
{
	static const struct conv_case wish = {
		1,
		2,
		2,
		9719,
		66,
		KERNEL_PAD_REFLECT,
		CONTEXT_SET,
		.outputs = BOTH,
		.residual = 2,
		.dtype = KERNEL_BF16,
	};
	struct op_test test;

	(void)state;
	op_test_open(&test, 2);
	conv_case_run(&test, &wish);
	op_test_close(&test);
}

/* The same bits again; a workspace that grows with the sizes; no output, context alone. */
static void test_promises(void **state)
{
	static const struct conv_case wish = { 2,
					       9,
					       16,
					       32,
					       48,
					       KERNEL_PAD_REFLECT,
					       CONTEXT_SET,
					       .outputs = BOTH,
					       .dtype = KERNEL_BF16 };
	struct kernel_conv3d op;
	struct reference ref;
	struct op_test test;
	size_t before = 0, count;
	float *first;

	(void)state;
	op_test_open(&test, 3);
	conv_fill(&test, &wish, &op, &ref);
	count = output_shape(&op).count;
	op_test_run(&test, KERNEL_OP_conv3d, &op.workspace);
	first = op_test_copy(&test, op.y, count);
	memcpy(op.context, ref.context, (size_t)2 * 9 * 16 * 32 * sizeof(float));
	op_test_run(&test, KERNEL_OP_conv3d, &op.workspace);
	assert_memory_equal(op.y, first, count * sizeof(*first));

	memcpy(op.context, ref.context, (size_t)2 * 9 * 16 * 32 * sizeof(float));
	op.y = op.y_norm = NULL;
	op_test_run(&test, KERNEL_OP_conv3d, &op.workspace);
	check_context(&ref);

	for (op.frames = 1; op.frames < 40; op.frames++) {
		const size_t bytes = test.table->workspace[KERNEL_OP_conv3d](test.device, &op);

		assert_true(bytes >= before);
		before = bytes;
	}
	printf("  conv3d: same bits twice, context without outputs, workspace grows to %zu\n",
	       before);
	op_test_close(&test);
}

static int status(struct op_test *test, const struct kernel_conv3d *op)
{
	struct kernel_conv3d copy = *op;

	return op_test_try(test, KERNEL_OP_conv3d, &copy.workspace);
}

static void test_refuses(void **state)
{
	static const struct conv_case wish = { 2, 2, 2, 8, 8, .context = CONTEXT_SET, .outputs = Y };
	struct kernel_conv3d good, bad;
	struct reference ref;
	struct op_test test;

	(void)state;
	op_test_open(&test, 2);
	conv_fill(&test, &wish, &good, &ref);
	assert_int_equal(status(&test, &good), 0);
	bad = good, bad.frames = 0;
	assert_int_equal(status(&test, &bad), -EINVAL);
	bad = good, bad.cin = 7;
	assert_int_equal(status(&test, &bad), -EINVAL);
	bad = good, bad.cout = 9; /* more than the weight has rows */
	assert_int_equal(status(&test, &bad), -EINVAL);
	bad = good, bad.height = 1, bad.padding = KERNEL_PAD_REFLECT;
	assert_int_equal(status(&test, &bad), -EINVAL);
	bad = good, bad.padding = KERNEL_PADDING_COUNT;
	assert_int_equal(status(&test, &bad), -EINVAL);

	good.resample = KERNEL_SPACE_TO_DEPTH;
	good.stride_t = good.stride_h = good.stride_w = 2;
	bad = good, bad.frames = 1; /* not a multiple of the stride */
	assert_int_equal(status(&test, &bad), -EINVAL);
	bad = good, bad.stride_w = 3;
	assert_int_equal(status(&test, &bad), -EINVAL);
	bad = good, bad.cout = 24; /* 64 / 24 is no group */
	assert_int_equal(status(&test, &bad), -EINVAL);
	bad = good, bad.residual = good.x;
	assert_int_equal(status(&test, &bad), -EINVAL);
	bad = good, bad.resample = KERNEL_DEPTH_TO_SPACE, bad.cout = 2; /* 16 rows, there are 8 */
	assert_int_equal(status(&test, &bad), -EINVAL);
	printf("  conv3d: ten wrong blocks refused\n");
	op_test_close(&test);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_conv3d),	   cmocka_unit_test(test_resamplers),
		cmocka_unit_test(test_two_panels), cmocka_unit_test(test_promises),
		cmocka_unit_test(test_refuses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
