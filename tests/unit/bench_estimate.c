/* sana-bench --estimate: a class that was measured slower is slower there, none is faster than the table, both said. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>

#include "base/util.h"
#include "tools/bench/bench.h"

/* One convolution of 10 TFLOP that took so many milliseconds here. */
static json_t *estimate_of(double milliseconds, bool portable)
{
	const struct bench_peak here = { .tensor_flops = 600e12, .copy_bytes = 4e12 };
	const struct sana_profile_line line = {
		.stage = SANA_STAGE_ENCODE,
		.op = "conv3d",
		.calls = 1,
		.flops = 10e12,
		.ns = (int64_t)(1e6 * milliseconds),
	};
	const struct bench_estimate_input in = { &here, portable, &line, 1, 1, 24 };
	json_t *object = json_object();

	assert_non_null(object);
	assert_int_equal(bench_estimate("rtx5090", &in, object), 0);
	return object;
}

static const json_t *convolution(const json_t *object)
{
	return json_array_get(json_object_get(json_object_get(object, "estimate"), "classes"), 0);
}

static double number(const json_t *object, const char *key)
{
	return json_number_value(json_object_get(convolution(object), key));
}

static void no_better_than_measured(void **state)
{
	const double floor_here = 10e12 / 600e12 * 1e3;
	const double floor_there = 10e12 / (512.0 * 170 * 2.407e9) * 1e3;
	json_t *fast = estimate_of(1, true), *slow;
	const double predicted = number(fast, "predicted_ms"), there = number(fast, "there_ms");

	(void)state;
	slow = estimate_of(3 * predicted, true);
	printf("  predicted here %.2f ms; there %.2f ms, and %.2f ms where it took three times as long\n",
	       predicted, there, number(slow, "there_ms"));
	/* Shares of the arithmetic's own time; the ceilings here are within 1 % of the table's. */
	assert_true(floor_there / there <= 1.01 * floor_here / predicted);
	assert_float_equal(number(slow, "there_ms"), 3 * there, 0.01 * there);
	json_decref(fast);
	json_decref(slow);
}

static void a_miss_is_said(void **state)
{
	json_t *first = estimate_of(1, true), *object;
	const double predicted = number(first, "predicted_ms");
	static const struct {
		double factor;
		bool within;
	} cases[] = { { 1, true }, { 1.1, true }, { 0.9, true }, { 1.25, false }, { 0.8, false } };

	(void)state;
	json_decref(first);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		object = estimate_of(cases[i].factor * predicted, true);
		printf("  measured %.2f of predicted: %s\n", cases[i].factor,
		       cases[i].within ? "within" : "not within");
		assert_int_equal(
			json_is_true(json_object_get(convolution(object), "within_15_percent")),
			cases[i].within);
		json_decref(object);
	}
}

static void other_kernels_say_nothing_of_the_target(void **state)
{
	json_t *fast = estimate_of(1, false), *slow = estimate_of(1000, false);

	(void)state;
	assert_true(number(fast, "there_ms") == number(slow, "there_ms"));
	json_decref(fast);
	json_decref(slow);
}

static void without_matrix_units_there_is_none(void **state)
{
	const struct bench_peak here = { .copy_bytes = 4e10 };
	const struct bench_estimate_input in = { &here, true, NULL, 0, 1, 24 };

	(void)state;
	assert_int_equal(bench_estimate("rtx5090", &in, NULL), -ENOTSUP);
	assert_int_equal(bench_estimate("rtx4090", &in, NULL), -ENOTSUP);
	assert_true(bench_estimate_knows("gb10") && !bench_estimate_knows("rtx4090"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_better_than_measured),
		cmocka_unit_test(a_miss_is_said),
		cmocka_unit_test(other_kernels_say_nothing_of_the_target),
		cmocka_unit_test(without_matrix_units_there_is_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
