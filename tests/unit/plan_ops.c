/*
 * The plan's ops against the closed formulas of docs/model/dit.md §7 and docs/model/vae.md §9: two
 * independent ways to the same arithmetic, one from the networks' configuration, one from the parameter
 * blocks that the engine hands to the ops.
 */
#include "engine/sana.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/*
 * Both are exact sums of products in double, but for the encoder: the closed form has the log-variance
 * channel of conv_out, one of 129 (demo: one of 17), which the engine does not make.
 */
static const double closed_form_tolerance = 1e-9, encode_tolerance = 1e-3;

struct shape {
	const char *name;
	int width, height;
};

static const struct shape shapes[] = { { "2b", 1280, 704 }, { "2b", 64, 96 }, { "demo", 0, 0 } };

static struct sana_plan *plan_make(const struct shape *shape)
{
	const struct sana_model_options model = { .shape = shape->name, .without_text = true };
	struct sana_plan *plan = test_calloc(1, sizeof(*plan));
	struct sana_stream_options stream;
	struct sana_error error = { 0 };

	sana_stream_options_init(&stream);
	stream.width = shape->width;
	stream.height = shape->height;
	if (sana_plan(&model, &stream, true, plan, &error) < 0)
		fail_msg("%s: %s", error.name, error.text);
	return plan;
}

static double stage_flops(const struct sana_plan *plan, enum sana_stage stage, const char *op)
{
	double sum = 0;

	for (int i = 0; i < plan->op_lines; i++)
		if (plan->op[i].stage == stage && (!op || strcmp(plan->op[i].op, op) == 0))
			sum += plan->op[i].calls * plan->op[i].flops;
	return sum;
}

static void compare(const char *what, double got, double expected, double tolerance)
{
	const double difference = fabs(got / expected - 1);

	printf("  %-28s %.9g, closed form %.9g, relative difference %.1e\n", what, got, expected,
	       difference);
	assert_true(difference <= tolerance);
}

static void sums_are_the_closed_forms(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		struct sana_plan *plan = plan_make(&shapes[i]);

		printf("%s at %dx%d, %d lines\n", plan->name, plan->width, plan->height,
		       plan->op_lines);
		compare("denoise", stage_flops(plan, SANA_STAGE_DENOISE, NULL),
			plan->dit_pass_flops, closed_form_tolerance);
		compare("encode, convolutions", stage_flops(plan, SANA_STAGE_ENCODE, "conv3d"),
			plan->encode_flops, encode_tolerance);
		compare("decode, convolutions", stage_flops(plan, SANA_STAGE_DECODE, "conv3d"),
			plan->decode_flops, closed_form_tolerance);
		test_free(plan);
	}
}

/* The cache pass of the last block ends with what the caches need: no temporal convolution, no head. */
static void cache_pass_is_shorter(void **state)
{
	struct sana_plan *plan = plan_make(&shapes[0]);
	const double denoise = stage_flops(plan, SANA_STAGE_DENOISE, NULL);
	const double cache = stage_flops(plan, SANA_STAGE_CACHE, NULL);

	(void)state;
	printf("denoise %.6g, cache %.6g FLOP\n", denoise, cache);
	assert_true(cache < denoise);
	assert_true(cache > 0.98 * denoise);
	test_free(plan);
}

/*
 * At a small picture a pass moves little more than its weights: per block q, k, v, gate, proj and cross
 * q, proj of C·C, two FFN matrices of 2F·C and F·C, three taps of C·C, 95.3 M elements with C = 2240
 * and F = 6720, here as the CPU's F32.
 */
static void bytes_hold_the_weights(void **state)
{
	const double c = 2240, f = 6720, weights = 4 * 20 * (10 * c * c + 3 * f * c);
	struct sana_plan *plan = plan_make(&shapes[1]);
	double bytes = 0;

	(void)state;
	for (int i = 0; i < plan->op_lines; i++) {
		assert_true(plan->op[i].calls > 0);
		assert_true(plan->op[i].bytes > 0);
		assert_true(isfinite(plan->op[i].flops));
		if (plan->op[i].stage == SANA_STAGE_DENOISE)
			bytes += plan->op[i].calls * plan->op[i].bytes;
	}
	printf("a pass at 64x96 moves %.5g bytes, %.5g of them weights\n", bytes, weights);
	assert_true(bytes > weights && bytes < 1.05 * weights);
	test_free(plan);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sums_are_the_closed_forms),
		cmocka_unit_test(cache_pass_is_shorter),
		cmocka_unit_test(bytes_hold_the_weights),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
