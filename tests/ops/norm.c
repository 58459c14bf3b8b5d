/* Norms of token rows against FP64. */
#include <errno.h>
#include <math.h>

#include "tests/common/op_test.h"

static const struct {
	int rows, channels;
} sizes[] = {
	{ 1, 1 }, { 432, 192 }, { 37, 53 }, { 65, 257 }, { 3, 2240 },
};

static void layer_norm_case(struct op_test *test, int rows, int channels, bool in_place)
{
	struct kernel_layer_norm_modulate op = { .epsilon = 1e-6f,
						 .rows = rows,
						 .channels = channels };
	const size_t count = (size_t)rows * channels;
	float *x;
	double *want;

	op_test_reset(test, 3);
	/* away from zero, so that a variance computed the wrong way loses digits */
	x = op_test_random(test, count, 2, 4);
	want = op_test_buffer(test, count * sizeof(*want));
	op.scale = op_test_random(test, channels, -1, 1);
	op.shift = op_test_random(test, channels, -1, 1);
	for (int n = 0; n < rows; n++) {
		const float *row = x + (size_t)n * channels;
		double mean = 0, variance = 0;

		for (int c = 0; c < channels; c++)
			mean += (double)row[c] / channels;
		for (int c = 0; c < channels; c++)
			variance += (row[c] - mean) * (row[c] - mean) / channels;
		for (int c = 0; c < channels; c++)
			want[(size_t)n * channels + c] = (row[c] - mean) /
								 sqrt(variance + op.epsilon) *
								 (1.0 + op.scale[c]) +
							 op.shift[c];
	}
	op.x = x;
	op.y = in_place ? x : op_test_floats(test, count);
	op_test_run(test, KERNEL_OP_layer_norm_modulate, &op.workspace);
	op_test_compare(op.y, want, count, OP_TOLERANCE, "layer_norm_modulate %d×%d%s", rows,
			channels, in_place ? " in place" : "");
}

static void test_layer_norm_modulate(void **state)
{
	(void)state;
	for (int threads = 1; threads <= 3; threads++) {
		struct kernel_layer_norm_modulate empty = { .rows = 0, .channels = 4 };
		struct op_test test;

		op_test_open(&test, threads);
		for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
			layer_norm_case(&test, sizes[i].rows, sizes[i].channels, false);
			layer_norm_case(&test, sizes[i].rows, sizes[i].channels, true);
		}
		assert_int_equal(op_test_try(&test, KERNEL_OP_layer_norm_modulate,
					     &empty.workspace),
				 -EINVAL);
		op_test_close(&test);
	}
}

enum rms_alias { SEPARATE, NO_RESIDUAL, X_IS_Y, RESIDUAL_IS_Y, ALL_ONE };

static void rms_norm_case(struct op_test *test, int rows, int channels, float offset,
			  enum rms_alias alias)
{
	struct kernel_rms_norm op = {
		.weight_offset = offset, .epsilon = 1e-5f, .rows = rows, .channels = channels
	};
	const size_t count = (size_t)rows * channels;
	float *x, *residual = NULL, *y;
	double *want;

	op_test_reset(test, 5);
	x = op_test_random(test, count, -3, 3);
	if (alias != NO_RESIDUAL)
		residual = alias == ALL_ONE ? x : op_test_random(test, count, -1, 1);
	y = alias == X_IS_Y || alias == ALL_ONE ? x :
	    alias == RESIDUAL_IS_Y		? residual :
						  op_test_floats(test, count);
	want = op_test_buffer(test, count * sizeof(*want));
	op.weight = op_test_random(test, channels, -1, 1);
	for (size_t n = 0; n < (size_t)rows; n++) {
		double mean = 0;

		for (int c = 0; c < channels; c++)
			mean += (double)x[n * channels + c] * x[n * channels + c] / channels;
		for (int c = 0; c < channels; c++)
			want[n * channels + c] = (residual ? residual[n * channels + c] : 0.0) +
						 x[n * channels + c] / sqrt(mean + op.epsilon) *
							 ((double)offset + op.weight[c]);
	}
	op.x = x;
	op.residual = residual;
	op.y = y;
	op_test_run(test, KERNEL_OP_rms_norm, &op.workspace);
	op_test_compare(y, want, count, OP_TOLERANCE, "rms_norm %d×%d offset %g alias %d", rows,
			channels, (double)offset, alias);
}

static void test_rms_norm(void **state)
{
	(void)state;
	for (int threads = 1; threads <= 3; threads++) {
		struct kernel_rms_norm empty = { .rows = 4, .channels = 0 };
		struct op_test test;

		op_test_open(&test, threads);
		for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
			for (enum rms_alias alias = SEPARATE; alias <= ALL_ONE; alias++)
				rms_norm_case(&test, sizes[i].rows, sizes[i].channels, alias % 2,
					      alias);
		assert_int_equal(op_test_try(&test, KERNEL_OP_rms_norm, &empty.workspace), -EINVAL);
		op_test_close(&test);
	}
}

struct qk_case {
	int frames, height, width, heads, pairs_t, pairs_y, pairs_x;
	size_t pad;
	bool rotate;
};

/* The position of a lane's pair in the tables: cos and sin of token n. */
static void turn_of(const struct kernel_rope *rope, int n, int pair, double *ret_cos,
		    double *ret_sin)
{
	const int x = n % rope->width, y = n / rope->width % rope->height;
	const int t = n / (rope->width * rope->height);

	if (pair < rope->pairs_t) {
		*ret_cos = rope->cos_t[t * rope->pairs_t + pair];
		*ret_sin = rope->sin_t[t * rope->pairs_t + pair];
		return;
	}
	pair -= rope->pairs_t;
	if (pair < rope->pairs_y) {
		*ret_cos = rope->cos_y[y * rope->pairs_y + pair];
		*ret_sin = rope->sin_y[y * rope->pairs_y + pair];
		return;
	}
	pair -= rope->pairs_y;
	*ret_cos = rope->cos_x[x * rope->pairs_x + pair];
	*ret_sin = rope->sin_x[x * rope->pairs_x + pair];
}

static void qk_want(const struct kernel_qk_norm_rope *op, const float *x, double *want)
{
	const int channels = op->heads * op->head_dim;

	for (int n = 0; n < op->rows; n++) {
		const float *row = x + n * op->ldx;
		double *to = want + (size_t)n * channels, mean = 0;

		for (int c = 0; c < channels; c++)
			mean += (double)row[c] * row[c] / channels;
		for (int c = 0; c < channels; c++)
			to[c] = row[c] / sqrt(mean + op->epsilon) * op->weight[c];
		for (int c = 0; op->rope && c < channels; c += 2) {
			const double a = to[c], b = to[c + 1];
			double cosine, sine;

			turn_of(op->rope, n, c % op->head_dim / 2, &cosine, &sine);
			to[c] = a * cosine - b * sine;
			to[c + 1] = a * sine + b * cosine;
		}
	}
}

static void qk_case_run(struct op_test *test, const struct qk_case *wish)
{
	const int rows = wish->frames * wish->height * wish->width;
	struct kernel_qk_norm_rope op = {
		.epsilon = 1e-5f,
		.rows = rows,
		.heads = wish->heads,
		.head_dim = 2 * (wish->pairs_t + wish->pairs_y + wish->pairs_x),
	};
	const int channels = op.heads * op.head_dim;
	struct kernel_rope rope;
	float *got, *before;
	double *want;

	op_test_reset(test, 17);
	rope = op_test_rope(test, wish->frames, wish->height, wish->width, wish->pairs_t,
			    wish->pairs_y, wish->pairs_x);
	op.ldx = channels + wish->pad;
	op.x = op_test_random(test, rows * op.ldx, -2, 2);
	op.weight = op_test_random(test, channels, 0.5, 1.5);
	op.rope = wish->rotate ? &rope : NULL;
	before = op_test_copy(test, op.x, rows * op.ldx);
	got = op_test_floats(test, (size_t)rows * channels);
	want = op_test_buffer(test, (size_t)rows * channels * sizeof(*want));
	qk_want(&op, before, want);
	op_test_run(test, KERNEL_OP_qk_norm_rope, &op.workspace);
	for (int n = 0; n < rows; n++) {
		const float *row = (const float *)op.x + n * op.ldx;

		memcpy(got + (size_t)n * channels, row, channels * sizeof(*got));
		/* what lies between the rows is not the op's */
		assert_memory_equal(row + channels, before + n * op.ldx + channels,
				    wish->pad * sizeof(*row));
	}
	op_test_compare(got, want, (size_t)rows * channels, OP_TOLERANCE,
			"qk_norm_rope %d×%d×%d heads %d×%d%s", wish->frames, wish->height,
			wish->width, op.heads, op.head_dim, wish->rotate ? "" : " unrotated");

	rope.frames++;
	if (op.rope)
		assert_int_equal(op_test_try(test, KERNEL_OP_qk_norm_rope, &op.workspace), -EINVAL);
}

static void test_qk_norm_rope(void **state)
{
	static const struct qk_case cases[] = {
		{ 1, 1, 1, 1, 1, 0, 0, 0, true },     { 1, 1, 1, 1, 0, 0, 1, 0, false },
		{ 3, 9, 16, 6, 6, 5, 5, 576, true },  { 3, 9, 16, 6, 6, 5, 5, 0, false },
		{ 5, 3, 7, 3, 14, 13, 13, 11, true }, { 2, 5, 3, 2, 20, 18, 18, 1, true },
	};

	(void)state;
	for (int threads = 1; threads <= 3; threads++) {
		struct op_test test;

		op_test_open(&test, threads);
		for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
			qk_case_run(&test, &cases[i]);
		op_test_close(&test);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_layer_norm_modulate),
		cmocka_unit_test(test_rms_norm),
		cmocka_unit_test(test_qk_norm_rope),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
