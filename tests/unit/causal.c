/* Taps moved in time, in each type, against sums made by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <math.h>

#include "engine/checkpoint/causal.h"
#include "engine/weights.h"

enum { KERNELS = 5, VALUES = KERNELS * CAUSAL_KERNEL };

/* Any spread of values that BF16 and F16 hold exactly or not. */
static float sample(int i)
{
	return (float)((i * 7919 % 2003) - 1001) / (float)(1 << (i % 11));
}

static void f32_taps(void **state)
{
	float taps[VALUES], made[VALUES];

	(void)state;
	for (int i = 0; i < VALUES; i++)
		taps[i] = made[i] = sample(i);
	assert_int_equal(causal_convert(SAFETENSORS_F32, made, KERNELS), 0);
	for (int k = 0; k < KERNELS; k++)
		for (int i = 0; i < 9; i++) {
			const float *w = taps + k * 27 + i, *m = made + k * 27 + i;

			assert_true(m[0] == 0 && !signbit(m[0]));
			assert_true(m[9] == w[0]);
			assert_true(m[18] == w[9] + w[18]);
		}
}

static void bf16_taps(void **state)
{
	uint16_t taps[VALUES], made[VALUES];
	int inexact = 0;

	(void)state;
	for (int i = 0; i < VALUES; i++)
		taps[i] = made[i] = weight_float_to_bf16(sample(i));
	assert_int_equal(causal_convert(SAFETENSORS_BF16, made, KERNELS), 0);
	for (int k = 0; k < KERNELS; k++)
		for (int i = 0; i < 9; i++) {
			const uint16_t *w = taps + k * 27 + i, *m = made + k * 27 + i;
			float sum = weight_bf16_to_float(w[9]) + weight_bf16_to_float(w[18]);

			assert_int_equal(m[0], 0);
			assert_int_equal(m[9], w[0]);
			assert_int_equal(m[18], weight_float_to_bf16(sum));
			inexact += weight_bf16_to_float(m[18]) != sum;
		}
	print_message("%d of %d sums had to be rounded\n", inexact, KERNELS * 9);
	assert_true(inexact > 0);
}

/* By definition: the nearest of all finite halves, the even one of two. */
static uint16_t nearest_half(double value)
{
	uint16_t best = 0;
	double best_error = INFINITY;

	for (unsigned int h = 0; h < 0x7c00; h++) {
		double size = h & 0x7c00 ? ldexp((h & 0x3ff) + 1024, (int)(h >> 10) - 25) :
					   ldexp(h, -24);
		double error = fabs(fabs(value) - size);

		if (error < best_error || (error == best_error && h % 2 == 0)) {
			best = (uint16_t)h;
			best_error = error;
		}
	}
	return value < 0 ? best | 0x8000 : best;
}

static double half_value(uint16_t h)
{
	double size = h & 0x7c00 ? ldexp((h & 0x3ff) + 1024, (h >> 10 & 31) - 25) :
				   ldexp(h & 0x3ff, -24);

	return h & 0x8000 ? -size : size;
}

static void f16_taps(void **state)
{
	/* normal, subnormal, the step between them, cancellation, ties, overflow */
	static const uint16_t pairs[][2] = {
		{ 0x3c00, 0x3c00 }, { 0x3c01, 0x0001 }, { 0x0001, 0x0001 }, { 0x03ff, 0x0001 },
		{ 0x0400, 0x8001 }, { 0x4c01, 0x2800 }, { 0x4c01, 0x2bff }, { 0x3555, 0xb554 },
		{ 0x7bff, 0x4b00 }, { 0x6bff, 0x3c00 }, { 0x8000, 0x8000 }, { 0x1234, 0x9876 },
	};
	uint16_t kernel[CAUSAL_KERNEL];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
		double sum = half_value(pairs[i][0]) + half_value(pairs[i][1]);
		uint16_t wanted = nearest_half(sum);

		if (sum == 0)
			wanted = pairs[i][0] & pairs[i][1] & 0x8000;
		for (int t = 0; t < 9; t++) {
			kernel[t] = 0x4321;
			kernel[9 + t] = pairs[i][0];
			kernel[18 + t] = pairs[i][1];
		}
		assert_int_equal(causal_convert(SAFETENSORS_F16, kernel, 1), 0);
		for (int t = 0; t < 9; t++) {
			assert_int_equal(kernel[t], 0);
			assert_int_equal(kernel[9 + t], 0x4321);
			assert_int_equal(kernel[18 + t], wanted);
		}
	}
	/* 65504 + 65504, and a NaN */
	for (int t = 0; t < CAUSAL_KERNEL; t++)
		kernel[t] = 0x7bff;
	assert_int_equal(causal_convert(SAFETENSORS_F16, kernel, 1), 0);
	assert_int_equal(kernel[18], 0x7c00);
	kernel[9] = 0x7e01;
	assert_int_equal(causal_convert(SAFETENSORS_F16, kernel, 1), 0);
	assert_int_equal(kernel[18], 0x7e00);
}

static void other_types_are_refused(void **state)
{
	uint8_t kernel[CAUSAL_KERNEL * 8] = { 0 };

	(void)state;
	assert_int_equal(causal_convert(SAFETENSORS_F64, kernel, 1), -EINVAL);
	assert_int_equal(causal_convert(SAFETENSORS_I8, kernel, 1), -EINVAL);
	assert_int_equal(causal_convert(SAFETENSORS_DTYPE_INVALID, kernel, 1), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(f32_taps),
		cmocka_unit_test(bf16_taps),
		cmocka_unit_test(f16_taps),
		cmocka_unit_test(other_types_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
