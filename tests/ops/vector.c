/* The vector loops against libm in FP64: every activation, edges of the exponential, row lengths. */
#include "kernels/cpu/vector.h"
#include "tests/common/op_test.h"

#include <cmocka.h>
#include <math.h>

enum { COUNT = 1 << 20 };

/* The polynomial and its range reduction: vector.h promises 2e−7, measured 0.9e−7. */
static const double exp_tolerance = 2e-7;
/* A division and a product more. */
static const double activation_tolerance = 4e-7;

static float values[COUNT], results[COUNT];

static void values_fill(float low, float high)
{
	for (int i = 0; i < COUNT; i++)
		values[i] = low + (high - low) * ((float)i + 0.5f) / COUNT;
}

static double worst_of(double (*exact)(double))
{
	double worst = 0;

	for (int i = 0; i < COUNT; i++) {
		const double want = exact(values[i]);
		const double error = fabs(results[i] - want) / fmax(fabs(want), 1e-30);

		assert_false(isnan(results[i]));
		worst = fmax(worst, error);
	}
	return worst;
}

static double exact_sigmoid(double a)
{
	return 1 / (1 + exp(-a));
}

static double exact_silu(double a)
{
	return a / (1 + exp(-a));
}

static double exact_gelu(double a)
{
	/* The tanh form without its cancellation near −1. */
	return a * exact_sigmoid(2 * sqrt(2 / acos(-1.0)) * (a + 0.044715 * a * a * a));
}

static void check(const char *name, double worst, double tolerance)
{
	print_message("%-8s worst relative error %.2e\n", name, worst);
	assert_true(worst <= tolerance);
}

static void test_exponential(void **state)
{
	(void)state;
	values_fill(-87.2f, 88.3f);
	cpu_exp_row(values, results, COUNT);
	check("exp", worst_of(exp), exp_tolerance);
}

static void test_activations(void **state)
{
	(void)state;
	values_fill(-60, 60);
	cpu_sigmoid_row(values, results, COUNT);
	check("sigmoid", worst_of(exact_sigmoid), activation_tolerance);
	cpu_silu_row(values, results, COUNT);
	check("silu", worst_of(exact_silu), activation_tolerance);
	/* Below −4 the exponent is rounded at a size that its exponential magnifies. */
	values_fill(-4, 60);
	cpu_gelu_row(values, results, COUNT);
	check("gelu", worst_of(exact_gelu), 20 * activation_tolerance);
}

static void test_edges(void **state)
{
	const float in[] = { -INFINITY, -1e30f, -88.0f, 0.0f, 200.0f, INFINITY, NAN };
	float out[ARRAY_SIZE(in)];

	(void)state;
	cpu_exp_row(in, out, ARRAY_SIZE(in));
	assert_true(out[0] == 0 && out[1] == 0 && out[2] == 0);
	assert_true(out[3] == 1);
	assert_true(out[4] > 1e38f && out[5] > 1e38f);
	assert_true(isnan(out[6]));
	cpu_silu_row(in, out, ARRAY_SIZE(in));
	assert_true(isnan(out[6]) && out[3] == 0 && out[4] == 200);
}

/* Lengths around the width of a vector, in place, and neighbours untouched. */
static void test_lengths(void **state)
{
	(void)state;
	for (int n = 0; n <= 67; n++) {
		float row[70], sum = 0, largest;

		for (int i = 0; i < 70; i++)
			row[i] = (float)((i * 37) % 19) - 9;
		largest = cpu_largest(row, n);
		for (int i = 0; i < n; i++)
			assert_true(row[i] <= largest);
		assert_true(n > 0 || largest == -INFINITY);
		for (int i = 0; i < n; i++)
			sum += expf(row[i] - largest);
		assert_true(fabsf(cpu_exp_sum_row(row, largest, n) - sum) <= 1e-5f * sum);
		for (int i = n; i < 70; i++)
			assert_true(row[i] == (float)((i * 37) % 19) - 9);
	}
}

static void near(float got, double want)
{
	assert_true(fabs(got - want) <= 2e-6 * fmax(fabs(want), 1));
}

static void test_products(void **state)
{
	float a[37], gate[37], y[37], sum[37];

	(void)state;
	for (int i = 0; i < 37; i++) {
		a[i] = (float)i - 11;
		gate[i] = 0.37f * (float)i - 6;
		sum[i] = (float)(i % 5);
	}
	cpu_multiply_silu_row(a, gate, y, 37);
	for (int i = 0; i < 37; i++)
		near(y[i], a[i] * exact_silu(gate[i]));
	cpu_gelu_multiply_row(gate, a, y, 37);
	for (int i = 0; i < 37; i++)
		near(y[i], a[i] * exact_gelu(gate[i]));
	cpu_silu_scaled_row(gate, 0.5f, y, 37);
	for (int i = 0; i < 37; i++)
		near(y[i], exact_silu(0.5 * gate[i]));
	cpu_multiply_add_row(a, gate, sum, 37);
	for (int i = 0; i < 37; i++)
		near(sum[i], ((i % 5) + (double)a[i] * gate[i]));
	cpu_add_row(a, gate, 37);
	cpu_scale_row(2.0f, gate, 37);
	for (int i = 0; i < 37; i++)
		near(gate[i], 2 * (0.37f * (float)i - 6 + (double)a[i]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exponential), cmocka_unit_test(test_activations),
		cmocka_unit_test(test_edges),	    cmocka_unit_test(test_lengths),
		cmocka_unit_test(test_products),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
