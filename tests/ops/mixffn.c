/* Depth-wise gated unit, temporal convolution, gated GELU against FP64. */
#include <errno.h>
#include <math.h>

#include "tests/common/op_test.h"

static double depthwise_at(const struct kernel_depthwise_glu *op, int t, int y, int x, int c)
{
	const int wide = 2 * op->features;
	double sum = op->bias[c];

	for (int ky = 0; ky < 3; ky++) {
		for (int kx = 0; kx < 3; kx++) {
			const int row = y + ky - 1, column = x + kx - 1;

			if (row < 0 || row >= op->height || column < 0 || column >= op->width)
				continue;
			sum += (double)op->weight[(ky * 3 + kx) * wide + c] *
			       ((const float *)op
					->a)[(((size_t)t * op->height + row) * op->width + column) *
						     wide +
					     c];
		}
	}
	return sum;
}

static void depthwise_case(struct op_test *test, int frames, int height, int width, int features)
{
	struct kernel_depthwise_glu op = {
		.frames = frames, .height = height, .width = width, .features = features
	};
	const size_t count = (size_t)frames * height * width * features;
	double *want, *to;

	op_test_reset(test, 73);
	op.a = op_test_random(test, 2 * count, -1, 1);
	op.weight = op_test_random(test, 18 * (size_t)features, -1, 1);
	op.bias = op_test_random(test, 2 * (size_t)features, -1, 1);
	op.y = op_test_floats(test, count);
	want = to = op_test_buffer(test, count * sizeof(*want));
	for (int t = 0; t < frames; t++)
		for (int y = 0; y < height; y++)
			for (int x = 0; x < width; x++)
				for (int c = 0; c < features; c++)
					*to++ = depthwise_at(&op, t, y, x, c) *
						op_test_silu(
							depthwise_at(&op, t, y, x, features + c));
	op_test_run(test, KERNEL_OP_depthwise_glu, &op.workspace);
	op_test_compare(op.y, want, count, OP_TOLERANCE, "depthwise_glu %d×%d×%d×%d", frames,
			height, width, features);
	op.features = 0;
	assert_int_equal(op_test_try(test, KERNEL_OP_depthwise_glu, &op.workspace), -EINVAL);
}

static void test_depthwise_glu(void **state)
{
	(void)state;
	for (int threads = 1; threads <= 3; threads++) {
		struct op_test test;

		op_test_open(&test, threads);
		depthwise_case(&test, 1, 1, 1, 1);
		depthwise_case(&test, 1, 2, 2, 3);
		depthwise_case(&test, 3, 9, 16, 576);
		depthwise_case(&test, 2, 7, 5, 37);
		depthwise_case(&test, 1, 1, 13, 11);
		op_test_close(&test);
	}
}

struct temporal_case {
	int frames, tokens, channels;
	enum kernel_dtype dtype;
	bool prepared, left, left_out, same_left, gate;
};

static void temporal_want(const struct kernel_temporal_conv *op, const double *weight,
			  const float *left, double *want)
{
	const int channels = op->channels;
	const size_t frame = (size_t)op->tokens_per_frame * channels;
	const float *r = op->r, *x = op->x;

	for (int t = 0; t < op->frames; t++) {
		for (int s = 0; s < op->tokens_per_frame; s++) {
			for (int c = 0; c < channels; c++) {
				const size_t at = t * frame + (size_t)s * channels + c;
				double sum = r[at];

				for (int tap = 0; tap < 3; tap++) {
					const int from = t + tap - 1;
					const float *row = from < 0	     ? left :
							   from < op->frames ? r + from * frame :
									       NULL;

					for (int i = 0; row && i < channels; i++)
						sum += weight[((size_t)c * 3 + tap) * channels + i] *
						       row[(size_t)s * channels + i];
				}
				want[at] = x[at] + (op->gate ? op->gate[c] : 1.0) * sum;
			}
		}
	}
}

static void temporal_case_run(struct op_test *test, const struct temporal_case *wish)
{
	const struct op_test_weight weight = {
		.out = wish->channels,
		.in = wish->channels,
		.taps = 3,
		.tap_count = 3,
		.dtype = wish->dtype,
		.prepared = wish->prepared,
	};
	const size_t frame = (size_t)wish->tokens * wish->channels, count = wish->frames * frame;
	struct kernel_temporal_conv op = { .frames = wish->frames,
					   .tokens_per_frame = wish->tokens,
					   .channels = wish->channels };
	double *want;

	op_test_reset(test, 79);
	op.weight = op_test_weight(test, &weight);
	op.x = op_test_random(test, count, -1, 1);
	op.r = op_test_random(test, count, -1, 1);
	op.left = wish->left ? op_test_random(test, frame, -1, 1) : NULL;
	op.left_out = wish->same_left ? (void *)op.left :
		      wish->left_out  ? op_test_floats(test, frame) :
					NULL;
	op.gate = wish->gate ? op_test_random(test, wish->channels, -1, 1) : NULL;
	want = op_test_buffer(test, count * sizeof(*want));
	temporal_want(&op, op_test_weight_values(test, op.weight), op.left, want);

	op_test_run(test, KERNEL_OP_temporal_conv, &op.workspace);
	op_test_compare(op.x, want, count, OP_TOLERANCE, "temporal_conv %d×%d×%d dtype %d%s%s%s%s",
			wish->frames, wish->tokens, wish->channels, wish->dtype,
			wish->prepared ? " prepared" : "", wish->left ? " left" : "",
			wish->same_left ? " in place" : "", wish->gate ? " gate" : "");
	if (op.left_out)
		assert_memory_equal(op.left_out, (const float *)op.r + count - frame,
				    frame * sizeof(float));
	op.channels++;
	assert_int_equal(op_test_try(test, KERNEL_OP_temporal_conv, &op.workspace), -EINVAL);
}

static void test_temporal_conv(void **state)
{
	static const struct temporal_case cases[] = {
		{ 1, 1, 1, KERNEL_F32, false, false, true, false, false },
		{ 1, 1, 1, KERNEL_BF16, true, true, true, true, true },
		{ 3, 144, 192, KERNEL_BF16, true, true, true, true, true },
		{ 5, 144, 192, KERNEL_BF16, false, false, true, false, true },
		{ 2, 37, 53, KERNEL_F16, false, true, true, false, false },
		{ 4, 13, 29, KERNEL_F16, true, true, false, false, true },
		{ 1, 31, 7, KERNEL_F32, true, true, true, true, false },
		{ 2, 257, 3, KERNEL_F32, false, true, true, true, true },
		{ 1, 3, 513, KERNEL_BF16, false, true, true, false, true },
	};

	(void)state;
	for (int threads = 1; threads <= 3; threads++) {
		struct op_test test;

		op_test_open(&test, threads);
		for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
			temporal_case_run(&test, &cases[i]);
		op_test_close(&test);
	}
}

static void glu_case(struct op_test *test, int rows, int columns, int alias)
{
	struct kernel_glu_gelu op = { .rows = rows, .columns = columns };
	const size_t count = (size_t)rows * columns;
	float *gate, *up;
	double *want;

	op_test_reset(test, 83);
	gate = op_test_random(test, count, -4, 4);
	up = op_test_random(test, count, -1, 1);
	want = op_test_buffer(test, count * sizeof(*want));
	for (size_t i = 0; i < count; i++)
		want[i] = op_test_gelu(gate[i]) * up[i];
	op.gate = gate;
	op.up = up;
	op.y = alias == 0 ? op_test_floats(test, count) : alias == 1 ? gate : up;
	op_test_run(test, KERNEL_OP_glu_gelu, &op.workspace);
	op_test_compare(op.y, want, count, OP_TOLERANCE, "glu_gelu %d×%d alias %d", rows, columns,
			alias);
	op.columns = 0;
	assert_int_equal(op_test_try(test, KERNEL_OP_glu_gelu, &op.workspace), -EINVAL);
}

static void test_glu_gelu(void **state)
{
	(void)state;
	for (int threads = 1; threads <= 3; threads++) {
		struct op_test test;

		op_test_open(&test, threads);
		for (int alias = 0; alias < 3; alias++) {
			glu_case(&test, 1, 1, alias);
			glu_case(&test, 77, 1024, alias);
			glu_case(&test, 13, 37, alias);
		}
		op_test_close(&test);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_depthwise_glu),
		cmocka_unit_test(test_temporal_conv),
		cmocka_unit_test(test_glu_gelu),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
