/*
 * Linear layers and the temporal convolution on the GPU against the CPU back end: with this chip's kernels,
 * then with those for every chip alone.
 */
#include <errno.h>
#include <string.h>

#include "tests/common/cuda_test.h"
#include "tools/bench/op_check.h"

static struct cuda_test test, portable;
static struct kernel_device *own;

/* Besides check_cases. */
static const struct linear_case more_linears[] = {
	{ .rows = 1, .in = 8, .parts = 1, .out = { 8 }, .bias = true, .floats = true },
	/* one past a tile's edge each way */
	{ .rows = 129, .in = 40, .parts = 1, .out = { 264 }, .bias = true },
	{ .rows = 241, .in = 72, .parts = 2, .out = { 200, 8 }, .activation = KERNEL_SILU },
	{ .rows = 241,
	  .in = 136,
	  .parts = 4,
	  .out = { 200, 64, 192, 8 },
	  .pad = 8,
	  .bias = true,
	  .mixed = true },
	/* the demo model, the text encoder */
	{ .rows = 432, .in = 192, .parts = 4, .out = { 192, 192, 192, 192 }, .bias = true },
	{ .rows = 300, .in = 2304, .parts = 3, .out = { 2048, 1024, 1024 } },
	/* the 2 B model: one chunk of 1280×704 */
	{ .rows = 2640,
	  .in = 2240,
	  .parts = 1,
	  .out = { 2240 },
	  .bias = true,
	  .residual = true,
	  .gate = true,
	  .in_place = true },
	{ .rows = 2640, .in = 2240, .parts = 1, .out = { 128 }, .bias = true },
	/* tiles of 240 by 192, the last of them cut, K too */
	{ .rows = 2633, .in = 72, .parts = 1, .out = { 2232 }, .pad = 8, .bias = true },
	{ .rows = 2633, .in = 8, .parts = 1, .out = { 2232 }, .activation = KERNEL_SILU },
	{ .rows = 2633,
	  .in = 72,
	  .parts = 1,
	  .out = { 2232 },
	  .pad = 8,
	  .bias = true,
	  .residual = true,
	  .gate = true },
	{ .rows = 2633, .in = 136, .parts = 1, .out = { 2232 }, .residual = true, .in_place = true },
	/* five rounds of 132 multiprocessors, and 10 columns of 70 in short tiles */
	{ .rows = 2633,
	  .in = 40,
	  .parts = 2,
	  .out = { 6720, 6712 },
	  .bias = true,
	  .activation = KERNEL_SILU },
	{ .rows = 2633,
	  .in = 40,
	  .parts = 2,
	  .out = { 6720, 6712 },
	  .bias = true,
	  .residual = true,
	  .gate = true,
	  .in_place = true },
};

static void linear_is_the_oracle(void **state)
{
	(void)state;
	for (int i = 0; i < check_cases.linears; i++)
		check_linear(&test, 100 + (uint64_t)i, &check_cases.linear[i]);
	for (size_t i = 0; i < ARRAY_SIZE(more_linears); i++)
		check_linear(&test, 200 + i, &more_linears[i]);
}

static void same_bits_again(void **state)
{
	static const struct linear_case c = { .rows = 2640,
					      .in = 2240,
					      .parts = 4,
					      .out = { 2240, 2240, 2240, 2240 },
					      .bias = true };
	uint64_t digest[2];

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct linear_run run;

		cuda_test_reset(&test, 7);
		check_linear_fill(&test, &c, &run);
		assert_int_equal(cuda_test_run_gpu(&test, KERNEL_OP_linear, &run.gpu.workspace), 0);
		digest[i] = 0;
		for (int p = 0; p < c.parts; p++)
			digest[i] ^= cuda_test_digest(&test, &run.y[p]) << p;
	}
	printf("  digests %016llx and %016llx\n", (unsigned long long)digest[0],
	       (unsigned long long)digest[1]);
	assert_true(digest[0] == digest[1]);
}

/* ----------------------------------------------------------------------------- temporal conv */

static void temporal_is_the_oracle(void **state)
{
	/* besides check_cases */
	static const struct temporal_case more[] = {
		{ 2, 5, 9, true, true, true, false },
		{ 3, 100, 192, true, true, false, true },
		{ 1, 130, 72, true, false, true, false },
		{ 5, 33, 40, true, true, true, true },
		{ 3, 880, 2240, true, true, true, false },
		/* by frames: two tiles of one, two pairs of the last; no frame to the left */
		{ 2, 305, 200, true, false, true, false },
		{ 4, 225, 392, false, false, true, false },
	};

	(void)state;
	for (int i = 0; i < check_cases.temporals; i++)
		check_temporal(&test, 500 + (uint64_t)i, &check_cases.temporal[i]);
	for (size_t i = 0; i < ARRAY_SIZE(more); i++)
		check_temporal(&test, 600 + i, &more[i]);
}

static void nonsense_is_refused(void **state)
{
	struct kernel_linear op = { .rows = 4, .parts = 1 };
	struct kernel_weight weight = { .out = 8, .in = 8, .taps = 1, .tap_count = 1 };
	const struct cuda_test_side *gpu = &test.gpu;
	kernel_run_function run = gpu->table->run[KERNEL_OP_linear];

	(void)state;
	assert_int_equal(run(gpu->device, &op, gpu->queue), -EINVAL);
	op.part[0].weight = &weight;
	op.part[0].ldy = 8;
	op.ldx = 4;
	assert_int_equal(run(gpu->device, &op, gpu->queue), -EINVAL);
	op.ldx = 8;
	assert_int_equal(run(gpu->device, &op, gpu->queue), -ENOTSUP); /* not prepared */
	op.parts = KERNEL_LINEAR_PARTS + 1;
	assert_int_equal(run(gpu->device, &op, gpu->queue), -EINVAL);
	printf("  no weight, short rows, too many parts: -EINVAL; not prepared: -ENOTSUP\n");
}

/* ------------------------------------------------------------------------------------- speed */

static void speed_at_the_models_shapes(void **state)
{
	(void)state;
	check_linear_times(&test);
}

static void temporal_speed(void **state)
{
	const size_t frame = (size_t)880 * 2240;
	struct kernel_temporal_conv gpu = { .frames = 3,
					    .tokens_per_frame = 880,
					    .channels = 2240 };
	struct cuda_weight w;

	(void)state;
	cuda_test_reset(&test, 990);
	w = cuda_test_weight(&test, 2240, 2240, 3, 0, 3, 1.0);
	gpu.weight = &w.gpu;
	gpu.x = cuda_test_random(&test, 3 * frame, -1, 1, false).gpu;
	gpu.r = cuda_test_random(&test, 3 * frame, -1, 1, false).gpu;
	gpu.left = cuda_test_random(&test, frame, -1, 1, false).gpu;
	gpu.left_out = cuda_test_output(&test, frame, false).gpu;
	gpu.gate = cuda_test_random(&test, 2240, -1, 1, true).gpu;
	(void)cuda_test_time(&test, KERNEL_OP_temporal_conv, &gpu.workspace, 20,
			     "temporal, 3 taps of 2240");
}

static int open_all(void **state)
{
	(void)state;
	cuda_test_open(&test);
	cuda_test_open_portable(&portable);
	return 0;
}

static int close_all(void **state)
{
	(void)state;
	cuda_test_close(&portable);
	cuda_test_close(&test);
	return 0;
}

/* Both devices are one GPU: memory and queues of the first serve the second. */
static int go_portable(void **state)
{
	(void)state;
	own = test.gpu.device;
	test.gpu.device = portable.gpu.device;
	return 0;
}

static int go_back(void **state)
{
	(void)state;
	test.gpu.device = own;
	return 0;
}

/* build/tests/cuda-linear [CASE]: all, or what its name says; those for every chip too. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(linear_is_the_oracle),
		cmocka_unit_test(same_bits_again),
		cmocka_unit_test(temporal_is_the_oracle),
		cmocka_unit_test(nonsense_is_refused),
		cmocka_unit_test(speed_at_the_models_shapes),
		cmocka_unit_test(temporal_speed),
		cmocka_unit_test_setup_teardown(linear_is_the_oracle, go_portable, go_back),
		cmocka_unit_test_setup_teardown(same_bits_again, go_portable, go_back),
		cmocka_unit_test_setup_teardown(temporal_is_the_oracle, go_portable, go_back),
		cmocka_unit_test_setup_teardown(speed_at_the_models_shapes, go_portable, go_back),
		cmocka_unit_test_setup_teardown(temporal_speed, go_portable, go_back),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, open_all, close_all);
}
