/* Durations in fixed memory against a sorted list of the same ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/histogram.h"
#include "base/util.h"

enum { VALUES = 20000 };

/* A bucket is 1/64 wide, the answer is its middle: at most 1/64 off, and a microsecond below 64 of them. */
#define TOLERANCE (1.0 / 64.0)

static int compare(const void *a, const void *b)
{
	const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

static void test_quantiles(void **state)
{
	static const double shares[] = { 0.01, 0.5, 0.9, 0.99, 0.999 };
	static struct histogram h;
	static int64_t value[VALUES];
	uint64_t random = 7;

	(void)state;
	histogram_init(&h, 0);
	assert_int_equal(histogram_quantile(&h, 0.5), 0);
	for (int i = 0; i < VALUES; i++) {
		random = random * 6364136223846793005ull + 1442695040888963407ull;
		/* Twelve octaves, from some microseconds to some seconds. */
		value[i] = (int64_t)((random >> 33) % 1000000 + 1) << (random >> 60);
		histogram_add(&h, 0, value[i]);
	}
	qsort(value, VALUES, sizeof(*value), compare);
	for (size_t i = 0; i < ARRAY_SIZE(shares); i++) {
		const double exact = (double)value[(int)(shares[i] * VALUES)];
		const double got = (double)histogram_quantile(&h, shares[i]);

		print_message("%.3f: %.0f, exactly %.0f: %+.2f %%\n", shares[i], got, exact,
			      100.0 * (got / exact - 1.0));
		assert_true(got <= exact * (1.0 + TOLERANCE) + 1024.0);
		assert_true(got >= exact * (1.0 - TOLERANCE) - 1024.0);
	}
	assert_int_equal(histogram_most(&h), value[VALUES - 1]);
	assert_int_equal(histogram_total(&h), VALUES);
}

/* What is older than two periods does not count; nor do negative and huge values break anything. */
static void test_periods(void **state)
{
	static struct histogram h;
	const int64_t s = CLOCK_SECOND_NS;

	(void)state;
	histogram_init(&h, 10 * s);
	for (int i = 0; i < 100; i++)
		histogram_add(&h, i * s / 10, s);
	for (int i = 0; i < 100; i++)
		histogram_add(&h, 10 * s + i * s / 10, 2 * s);
	print_message("two periods: %llu, most %.1f s\n", (unsigned long long)histogram_total(&h),
		      (double)histogram_most(&h) / 1e9);
	assert_int_equal(histogram_total(&h), 200);
	histogram_add(&h, 20 * s, s / 2);
	assert_int_equal(histogram_total(&h), 101);
	assert_int_equal(histogram_most(&h), 2 * s);
	histogram_add(&h, 100 * s, -5);
	assert_int_equal(histogram_total(&h), 1);
	assert_int_equal(histogram_most(&h), 0);
	histogram_add(&h, 100 * s, INT64_MAX);
	assert_int_equal(histogram_most(&h), INT64_MAX);
	assert_true(histogram_quantile(&h, 1.0) > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_quantiles),
		cmocka_unit_test(test_periods),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
