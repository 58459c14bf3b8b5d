/* Element-wise ops on latents and carried state. */
#include <errno.h>
#include <math.h>

#include "tests/common/op_test.h"

static void concat_case(struct op_test *test, int rows, int channels_a, int channels_b)
{
	struct kernel_concat op = { .rows = rows,
				    .channels_a = channels_a,
				    .channels_b = channels_b };
	const int channels = channels_a + channels_b;
	const float *y;

	op_test_reset(test, 31);
	op.a = op_test_random(test, (size_t)rows * channels_a, -1, 1);
	op.b = op_test_random(test, (size_t)rows * channels_b, -1, 1);
	op.y = op_test_floats(test, (size_t)rows * channels);
	op_test_run(test, KERNEL_OP_concat, &op.workspace);
	y = op.y;
	for (int n = 0; n < rows; n++)
		for (int c = 0; c < channels; c++)
			assert_true(y[n * channels + c] ==
				    (c < channels_a ? op.a[n * channels_a + c] :
						      op.b[n * channels_b + c - channels_a]));
	printf("  concat %d×(%d + %d): equal\n", rows, channels_a, channels_b);
	op.rows = 0;
	assert_int_equal(op_test_try(test, KERNEL_OP_concat, &op.workspace), -EINVAL);
}

static void euler_case(struct op_test *test, size_t count)
{
	const float step = -0.37f;
	struct kernel_euler_step op = { .step = &step, .count = count };
	double *want;

	op_test_reset(test, 37);
	op.x = op_test_random(test, count, -1, 1);
	op.v = op_test_random(test, count, -1, 1);
	want = op_test_buffer(test, count * sizeof(*want));
	for (size_t i = 0; i < count; i++)
		want[i] = op.x[i] + (double)step * ((const float *)op.v)[i];
	op_test_run(test, KERNEL_OP_euler_step, &op.workspace);
	op_test_compare(op.x, want, count, OP_TOLERANCE, "euler_step");
}

static void test_concat_and_euler(void **state)
{
	(void)state;
	for (int threads = 1; threads <= 3; threads++) {
		struct op_test test;

		op_test_open(&test, threads);
		concat_case(&test, 1, 1, 1);
		concat_case(&test, 432, 32, 32);
		concat_case(&test, 37, 5, 11);
		euler_case(&test, 1);
		euler_case(&test, 432 * 32);
		euler_case(&test, 65537);
		op_test_close(&test);
	}
}

/* A value put at one place; the flags that come of it. */
static uint32_t health_of(struct op_test *test, size_t count, size_t at, float value)
{
	uint32_t flags = 0x100; /* a bit that is not the op's stays */
	struct kernel_health op = {
		.x_is_float = true, .count = count, .limit = 1000, .flags = &flags
	};
	float *x;

	op_test_reset(test, 41);
	x = op_test_random(test, count, -999, 999);
	x[at] = value;
	op.x = x;
	op_test_run(test, KERNEL_OP_health, &op.workspace);
	assert_true(flags & 0x100);
	return flags & ~0x100u;
}

static void test_health(void **state)
{
	static const size_t counts[] = { 1, 6 * 32 * 32, 1009 };

	(void)state;
	for (int threads = 1; threads <= 3; threads++) {
		struct op_test test;

		op_test_open(&test, threads);
		for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
			const size_t places[] = { 0, counts[i] / 2, counts[i] - 1 };

			for (size_t j = 0; j < ARRAY_SIZE(places); j++) {
				const size_t n = counts[i], at = places[j];

				assert_int_equal(health_of(&test, n, at, 1000), 0);
				assert_int_equal(health_of(&test, n, at, -1000.5f),
						 KERNEL_HEALTH_TOO_LARGE);
				assert_int_equal(health_of(&test, n, at, NAN),
						 KERNEL_HEALTH_NON_FINITE);
				assert_int_equal(health_of(&test, n, at, -INFINITY),
						 KERNEL_HEALTH_NON_FINITE |
							 KERNEL_HEALTH_TOO_LARGE);
			}
			printf("  health of %zu values: flags as expected at 3 places\n",
			       counts[i]);
		}
		op_test_close(&test);
	}
}

static void affine_case(struct op_test *test, size_t rows, size_t ldx, int channels, bool in_place)
{
	struct kernel_channel_affine op = {
		.y_is_float = true, .rows = rows, .ldx = ldx, .channels = channels
	};
	double *want;
	float *x;

	op_test_reset(test, 43);
	x = op_test_random(test, rows * ldx, -1, 1);
	op.scale = op_test_random(test, channels, -2, 2);
	op.shift = op_test_random(test, channels, -1, 1);
	want = op_test_buffer(test, rows * channels * sizeof(*want));
	for (size_t n = 0; n < rows; n++)
		for (int c = 0; c < channels; c++)
			want[n * channels + c] = (double)x[n * ldx + c] * op.scale[c] + op.shift[c];
	op.x = x;
	op.y = in_place ? x : op_test_floats(test, rows * channels);
	op_test_run(test, KERNEL_OP_channel_affine, &op.workspace);
	op_test_compare(op.y, want, rows * channels, OP_TOLERANCE, "channel_affine %zu×%d of %zu%s",
			rows, channels, ldx, in_place ? " in place" : "");

	op.ldx = channels - 1;
	assert_int_equal(op_test_try(test, KERNEL_OP_channel_affine, &op.workspace), -EINVAL);
	op.ldx = channels + 1;
	op.y = x;
	assert_int_equal(op_test_try(test, KERNEL_OP_channel_affine, &op.workspace), -EINVAL);
}

static void test_channel_affine(void **state)
{
	(void)state;
	for (int threads = 1; threads <= 3; threads++) {
		struct op_test test;

		op_test_open(&test, threads);
		affine_case(&test, 1, 1, 1, false);
		affine_case(&test, 144 * 3, 33, 32, false);
		affine_case(&test, 144 * 3, 32, 32, true);
		affine_case(&test, 101, 17, 13, false);
		op_test_close(&test);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_concat_and_euler),
		cmocka_unit_test(test_health),
		cmocka_unit_test(test_channel_affine),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
