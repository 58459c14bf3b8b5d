/* Time in the sampler: steps, the sinusoid of a time step, rotation angles. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/schedule.h"

/* ----------------------------------------------------------------------------------------- steps */

static void steps_go_from_noise_to_zero(void **state)
{
	const struct stream_config config = {
		.steps = 4,
		.sigmas = { 1.0f, 0.961f, 0.893f, 0.743f, 0.0f },
	};
	const double exact[] = { -0.039, -0.068, -0.15, -0.743 };
	float steps[4], sum = 1.0f;

	(void)state;
	schedule_steps(&config, steps);
	for (int i = 0; i < 4; i++) {
		/* Each σ is off by half an ulp of 1, the difference by one. */
		assert_true(fabs(steps[i] - exact[i]) <= FLT_EPSILON);
		sum += steps[i];
	}
	assert_true(fabsf(sum) <= 2 * FLT_EPSILON);
}

/* -------------------------------------------------------------------------------------- sinusoid */

/* Distance in units of the last place of F32 numbers near `want`. */
static double ulps(float got, long double want)
{
	const float near = (float)fabsl(want);

	return fabs((double)(got - want)) / (double)(nextafterf(near, INFINITY) - near);
}

/* The F32 operations as they are written down, each rounded from a wider value. */
static void sinusoid_rounds_where_it_is_written(void **state)
{
	const float c = (float)-logl(10000.0L);
	float values[SCHEDULE_SINUSOID];
	double worst = 0;

	(void)state;
	for (int timestep = 0; timestep <= 1000; timestep++) {
		schedule_sinusoid(timestep, values);
		for (int i = 0; i < SCHEDULE_SINUSOID / 2; i++) {
			const float argument = (c * (float)i) / 128.0f;
			const float angle = (float)timestep * (float)expl(argument);
			const double a = ulps(values[i], cosl(angle));
			const double b = ulps(values[SCHEDULE_SINUSOID / 2 + i], sinl(angle));

			worst = fmax(worst, fmax(a, b));
		}
	}
	print_message("worst %.2f ulp of its own F32 angle\n", worst);
	assert_true(worst <= 1);
}

/*
 * Against the formula without any rounding: what F32 angles cost. The argument (up to 9.2) is off by
 * an ulp, the exponential and the product by half of one each: 9.2·2⁻²³ + 2⁻²³ of the angle.
 */
static void sinusoid_is_near_the_formula(void **state)
{
	static const int timesteps[] = { 0, 1, 743, 893, 961, 1000 };
	float values[SCHEDULE_SINUSOID];
	double worst = 0, share = 0;

	(void)state;
	for (size_t t = 0; t < ARRAY_SIZE(timesteps); t++) {
		schedule_sinusoid(timesteps[t], values);
		for (int i = 0; i < SCHEDULE_SINUSOID / 2; i++) {
			const double angle = timesteps[t] * exp(-log(10000.0) * i / 128);
			const double allowed = angle * 10.3 * 0x1p-23 + FLT_EPSILON;
			const double off =
				fmax(fabs(values[i] - cos(angle)),
				     fabs(values[SCHEDULE_SINUSOID / 2 + i] - sin(angle)));

			worst = fmax(worst, off);
			share = fmax(share, off / allowed);
		}
	}
	print_message("worst %.2e, %.0f %% of what F32 angles may cost\n", worst, 100 * share);
	assert_true(share <= 1);
}

/* ------------------------------------------------------------------------------------- rotations */

/* Half an ulp of the F32 result, and the FP64 cosine's own. */
static const double rotation_tolerance = 0x1p-25 + 0x1p-50;

static double rotation_error(float cos_got, float sin_got, long double cos_want,
			     long double sin_want)
{
	return (double)fmaxl(fabsl(cos_got - cos_want), fabsl(sin_got - sin_want));
}

/* dit §5 as it stands, where FP64 angles have digits to spare. */
static void rotations_follow_the_formula(void **state)
{
	static const int lanes[] = { 28, 40, 12, 2 };
	float cosines[20], sines[20];
	double worst = 0;

	(void)state;
	for (size_t l = 0; l < ARRAY_SIZE(lanes); l++)
		for (int position = -600; position <= 2048; position++) {
			schedule_rotation(position, lanes[l] / 2, cosines, sines);
			for (int i = 0; i < lanes[l] / 2; i++) {
				const long double angle =
					position * powl(10000.0L, -2.0L * i / lanes[l]);

				worst = fmax(worst, rotation_error(cosines[i], sines[i],
								   cosl(angle), sinl(angle)));
			}
		}
	print_message("positions -600 … 2048: worst %.3e\n", worst);
	assert_true(worst <= rotation_tolerance + 2048 * 0x1p-52);
}

/* (cos, sin) of position·frequency by squaring the rotation by one: no large angle anywhere. */
static void rotation_by_squaring(double frequency, uint64_t position, long double *ret_cos,
				 long double *ret_sin)
{
	long double c = 1, s = 0, power_c = cosl(frequency), power_s = sinl(frequency), t;

	for (; position; position >>= 1) {
		if (position & 1) {
			t = c * power_c - s * power_s;
			s = c * power_s + s * power_c;
			c = t;
		}
		t = power_c * power_c - power_s * power_s;
		power_s = 2 * power_c * power_s;
		power_c = t;
	}
	*ret_cos = c;
	*ret_sin = s;
}

/* What re-basing relies on: rotations add up, however large the positions. */
static void large_rotations_are_powers_of_small_ones(void **state)
{
	static const int64_t positions[] = {
		1,
		1000003,
		((int64_t)1 << 31) - 20,
		((int64_t)1 << 31) + 7,
		(int64_t)1 << 40,
		((int64_t)1 << 40) + 12345,
	};
	enum { PAIRS = 20 };
	float cosines[PAIRS], sines[PAIRS], back_cos[PAIRS], back_sin[PAIRS];
	long double c, s;

	(void)state;
	if (LDBL_MANT_DIG < 64) {
		print_message("long double is too narrow here for an oracle\n");
		skip();
	}
	for (size_t p = 0; p < ARRAY_SIZE(positions); p++) {
		/* Squaring doubles the oracle's own rounding each time. */
		const double tolerance = rotation_tolerance + 4 * (double)positions[p] * 0x1p-64;
		double worst = 0;

		schedule_rotation(positions[p], PAIRS, cosines, sines);
		schedule_rotation(-positions[p], PAIRS, back_cos, back_sin);
		for (int i = 0; i < PAIRS; i++) {
			rotation_by_squaring(pow(10000.0, -(double)i / PAIRS),
					     (uint64_t)positions[p], &c, &s);
			worst = fmax(worst, rotation_error(cosines[i], sines[i], c, s));
			assert_true(cosines[i] == back_cos[i] && sines[i] == -back_sin[i]);
		}
		/* Frequency 1: the angle is the position itself, which is exact. */
		assert_true(cosines[0] == (float)cos((double)positions[p]));
		assert_true(sines[0] == (float)sin((double)positions[p]));
		print_message("position %lld: worst %.3e, allowed %.3e\n", (long long)positions[p],
			      worst, tolerance);
		assert_true(worst <= tolerance);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(steps_go_from_noise_to_zero),
		cmocka_unit_test(sinusoid_rounds_where_it_is_written),
		cmocka_unit_test(sinusoid_is_near_the_formula),
		cmocka_unit_test(rotations_follow_the_formula),
		cmocka_unit_test(large_rotations_are_powers_of_small_ones),
	};

	return cmocka_run_group_tests_name("schedule", tests, NULL, NULL);
}
