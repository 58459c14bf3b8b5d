/* Half rotations and shifts of position against FP64. */
#include <errno.h>
#include <math.h>

#include "tests/common/op_test.h"

static void angles(struct op_test *test, size_t count, const float **ret_cos, const float **ret_sin)
{
	float *cosine = op_test_floats(test, count), *sine = op_test_floats(test, count);

	for (size_t i = 0; i < count; i++) {
		const double angle = op_test_uniform(test, -4, 4);

		cosine[i] = (float)cos(angle);
		sine[i] = (float)sin(angle);
	}
	*ret_cos = cosine;
	*ret_sin = sine;
}

static void rope_half_case(struct op_test *test, int rows, int heads, int head_dim, size_t pad)
{
	struct kernel_rope_half op = { .rows = rows, .heads = heads, .head_dim = head_dim };
	const int channels = heads * head_dim, half = head_dim / 2;
	float *before, *got;
	double *want;

	op_test_reset(test, 23);
	op.ldx = channels + pad;
	op.x = op_test_random(test, rows * op.ldx, -1, 1);
	angles(test, (size_t)rows * half, &op.cos, &op.sin);
	before = op_test_copy(test, op.x, rows * op.ldx);
	got = op_test_floats(test, (size_t)rows * channels);
	want = op_test_buffer(test, (size_t)rows * channels * sizeof(*want));
	for (int n = 0; n < rows; n++) {
		for (int c = 0; c < channels; c++) {
			const int lane = c % head_dim, i = lane % half;
			const double a = before[n * op.ldx + c - lane + i];
			const double b = before[n * op.ldx + c - lane + i + half];
			const double cosine = op.cos[n * half + i], sine = op.sin[n * half + i];

			want[n * channels + c] = lane < half ? a * cosine - b * sine :
							       b * cosine + a * sine;
		}
	}
	op_test_run(test, KERNEL_OP_rope_half, &op.workspace);
	for (int n = 0; n < rows; n++) {
		memcpy(got + n * channels, (const float *)op.x + n * op.ldx,
		       channels * sizeof(*got));
		assert_memory_equal((const float *)op.x + n * op.ldx + channels,
				    before + n * op.ldx + channels, pad * sizeof(*got));
	}
	op_test_compare(got, want, (size_t)rows * channels, OP_TOLERANCE,
			"rope_half %d rows, %d heads of %d", rows, heads, head_dim);

	op.head_dim = head_dim + 1;
	assert_int_equal(op_test_try(test, KERNEL_OP_rope_half, &op.workspace), -EINVAL);
}

static void test_rope_half(void **state)
{
	(void)state;
	for (int threads = 1; threads <= 3; threads++) {
		struct op_test test;

		op_test_open(&test, threads);
		rope_half_case(&test, 1, 1, 2, 0);
		rope_half_case(&test, 77, 4, 32, 64);
		rope_half_case(&test, 13, 3, 10, 1);
		rope_half_case(&test, 65, 8, 256, 0);
		op_test_close(&test);
	}
}

static void rope_shift_case(struct op_test *test, int rows, int heads, int head_dim, int pairs,
			    bool in_place)
{
	struct kernel_rope_shift op = {
		.x_is_float = true,
		.rows = rows,
		.heads = heads,
		.head_dim = head_dim,
		.pairs = pairs,
	};
	const size_t count = (size_t)rows * heads * head_dim;
	float *x;
	double *want;

	op_test_reset(test, 29);
	x = op_test_random(test, count, -1, 1);
	want = op_test_buffer(test, count * sizeof(*want));
	if (pairs > 0)
		angles(test, pairs, &op.cos, &op.sin);
	for (size_t i = 0; i < count; i++) {
		const int lane = (int)(i % head_dim), pair = lane / 2;

		want[i] = x[i];
		if (pair >= pairs)
			continue;
		if (lane % 2 == 0)
			want[i] = (double)x[i] * op.cos[pair] - (double)x[i + 1] * op.sin[pair];
		else
			want[i] = (double)x[i - 1] * op.sin[pair] + (double)x[i] * op.cos[pair];
	}
	op.x = x;
	op.y = in_place ? x : op_test_floats(test, count);
	op_test_run(test, KERNEL_OP_rope_shift, &op.workspace);
	op_test_compare(op.y, want, count, OP_TOLERANCE, "rope_shift %d rows, %d×%d, %d pairs%s",
			rows, heads, head_dim, pairs, in_place ? " in place" : "");

	op.pairs = head_dim / 2 + 1;
	assert_int_equal(op_test_try(test, KERNEL_OP_rope_shift, &op.workspace), -EINVAL);
}

static void test_rope_shift(void **state)
{
	(void)state;
	for (int threads = 1; threads <= 3; threads++) {
		struct op_test test;

		op_test_open(&test, threads);
		for (int in_place = 0; in_place < 2; in_place++) {
			rope_shift_case(&test, 1, 1, 2, 1, in_place);
			rope_shift_case(&test, 1, 1, 1, 0, in_place);
			rope_shift_case(&test, 720, 6, 32, 6, in_place);
			rope_shift_case(&test, 112, 1, 112, 20, in_place);
			rope_shift_case(&test, 37, 3, 13, 6, in_place);
			rope_shift_case(&test, 37, 3, 80, 0, in_place);
		}
		op_test_close(&test);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rope_half),
		cmocka_unit_test(test_rope_shift),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
