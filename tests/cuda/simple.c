/* Norms, rotations, element-wise ops, the depth-wise convolution and pixels against the CPU back end. */
#include "tests/common/cuda_test.h"
#include "tools/bench/op_check.h"

static struct cuda_test test;

/* Rows and channels: smallest, odd, a golden model's, the published one's, one past the register path. */
static const int row_shapes[][2] = { { 1, 8 }, { 3, 7 }, { 5, 224 }, { 37, 2240 }, { 9, 3080 } };

static void layer_norm(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(row_shapes); i++)
		check_layer_norm(&test, i, row_shapes[i][0], row_shapes[i][1]);
}

static void rms_norm(void **state)
{
	(void)state;
	for (size_t i = 0; i < 2 * ARRAY_SIZE(row_shapes); i++)
		check_rms_norm(&test, i, row_shapes[i / 2][0], row_shapes[i / 2][1], i % 2);
}

static void qk_norm_rope(void **state)
{
	/* frames, height, width, heads, head dim, pairs t y x, stride beyond the channels */
	static const int shapes[][9] = {
		{ 1, 1, 1, 1, 2, 1, 0, 0, 0 },	    { 2, 3, 5, 3, 10, 2, 2, 1, 1 },
		{ 3, 4, 5, 2, 112, 20, 18, 18, 8 }, { 3, 11, 7, 20, 112, 20, 18, 18, 6720 },
		{ 2, 3, 4, 2, 80, 0, 0, 0, 0 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
		check_qk_norm_rope(&test, i, shapes[i]);
}

static void rope_half(void **state)
{
	static const int shapes[][4] = { { 1, 1, 2, 0 }, { 7, 3, 16, 5 }, { 33, 8, 256, 0 } };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
		check_rope_half(&test, i, shapes[i]);
}

static void rope_shift(void **state)
{
	/* rows, heads, head dim, pairs, x is float, y is float */
	static const int shapes[][6] = {
		{ 1, 1, 3, 1, 1, 1 },	  { 5, 2, 112, 20, 0, 0 }, { 40, 1, 112, 20, 1, 1 },
		{ 9, 20, 112, 56, 1, 0 }, { 9, 20, 112, 0, 0, 1 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
		check_rope_shift(&test, i, shapes[i]);
}

static void depthwise_glu(void **state)
{
	/* frames, height, width, features */
	static const int shapes[][4] = {
		{ 1, 1, 1, 1 },	     { 2, 3, 5, 6 },   { 3, 4, 21, 516 },
		{ 3, 22, 40, 6720 }, { 1, 9, 41, 64 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
		check_depthwise_glu(&test, i, shapes[i]);
}

/* Those without shapes to choose from. */
static void the_rest(void **state)
{
	(void)state;
	check_text_ops(&test);
	check_latents(&test);
	check_channel_affine(&test);
	check_health(&test);
	check_pixels(&test);
}

/* Times at the published shapes: 3 latents of 22 x 40. */
static void times(void **state)
{
	const int rows = 2640, channels = 2240, features = 6720;
	const size_t count = (size_t)rows * channels;
	struct cuda_tensor x, scale, shift, y, a, weight, bias;
	struct ropes rope;

	(void)state;
	cuda_test_reset(&test, 7);
	x = cuda_test_random(&test, count, -2, 2, false);
	y = cuda_test_output(&test, count, false);
	scale = cuda_test_random(&test, (size_t)channels, -0.5, 0.5, true);
	shift = cuda_test_random(&test, (size_t)channels, -0.5, 0.5, true);
	rope = check_ropes(&test, 3, 22, 40, 20, 18, 18);
	struct kernel_layer_norm_modulate norm = { .x = x.gpu,
						   .scale = scale.gpu,
						   .shift = shift.gpu,
						   .y = y.gpu,
						   .epsilon = 1e-6f,
						   .rows = rows,
						   .channels = channels };
	(void)cuda_test_time(&test, KERNEL_OP_layer_norm_modulate, &norm.workspace, 30,
			     "layer_norm_modulate [2640][2240]");
	struct kernel_qk_norm_rope qk = { .x = x.gpu,
					  .ldx = (size_t)channels,
					  .weight = scale.gpu,
					  .rope = &rope.gpu,
					  .epsilon = 1e-6f,
					  .rows = rows,
					  .heads = 20,
					  .head_dim = 112 };
	(void)cuda_test_time(&test, KERNEL_OP_qk_norm_rope, &qk.workspace, 30,
			     "qk_norm_rope [2640][20 x 112]");
	a = cuda_test_random(&test, (size_t)rows * 2 * features, -1, 1, false);
	weight = cuda_test_random(&test, 9 * 2 * (size_t)features, -0.5, 0.5, true);
	bias = cuda_test_random(&test, 2 * (size_t)features, -0.5, 0.5, true);
	y = cuda_test_output(&test, (size_t)rows * features, false);
	struct kernel_depthwise_glu depthwise = { .a = a.gpu,
						  .weight = weight.gpu,
						  .bias = bias.gpu,
						  .y = y.gpu,
						  .frames = 3,
						  .height = 22,
						  .width = 40,
						  .features = features };
	(void)cuda_test_time(&test, KERNEL_OP_depthwise_glu, &depthwise.workspace, 30,
			     "depthwise_glu [3][22][40][2 x 6720]");
}

static int open_all(void **state)
{
	(void)state;
	cuda_test_open(&test);
	return 0;
}

static int close_all(void **state)
{
	(void)state;
	cuda_test_close(&test);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(layer_norm),	cmocka_unit_test(rms_norm),
		cmocka_unit_test(qk_norm_rope), cmocka_unit_test(rope_half),
		cmocka_unit_test(rope_shift),	cmocka_unit_test(depthwise_glu),
		cmocka_unit_test(the_rest),	cmocka_unit_test(times),
	};

	return cmocka_run_group_tests(tests, open_all, close_all);
}
