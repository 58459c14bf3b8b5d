/*
 * Linear layers and the temporal convolution on the GPU against the CPU back end: with this chip's kernels,
 * then with those for every chip alone.
 */
#include <errno.h>
#include <string.h>

#include "tests/common/cuda_test.h"

static struct cuda_test test, portable;
static struct kernel_device *own;

struct linear_case {
	int rows, in, parts;
	int out[KERNEL_LINEAR_PARTS];
	size_t pad;	/* added to every row stride */
	int activation; /* of every part */
	bool mixed;	/* part i has the i-th activation after it */
	bool bias, residual, gate, in_place, floats;
};

/* One case's parameter blocks, and what they write. */
struct linear_run {
	struct kernel_linear cpu, gpu;
	struct cuda_tensor y[KERNEL_LINEAR_PARTS];
};

static void part_fill(const struct linear_case *c, int i, struct linear_run *run)
{
	const int out = c->out[i];
	const size_t ld = (size_t)out + c->pad, count = (size_t)c->rows * ld;
	const struct cuda_weight w = cuda_test_weight(&test, out, c->in, 1, 0, 1, 1.0);
	const struct cuda_tensor bias = cuda_test_random(&test, (size_t)out, -1, 1, true);
	const struct cuda_tensor gate = cuda_test_random(&test, (size_t)out, -1, 1, true);
	const struct cuda_tensor residual = cuda_test_random(&test, count, -1, 1, false);
	struct kernel_linear_part *cpu = &run->cpu.part[i], *gpu = &run->gpu.part[i];
	struct kernel_weight *kept = test_malloc(2 * sizeof(*kept));

	run->y[i] = c->in_place ? residual : cuda_test_output(&test, count, c->floats);
	kept[0] = w.cpu;
	kept[1] = w.gpu;
	*cpu = (struct kernel_linear_part){
		.weight = &kept[0],
		.bias = c->bias ? bias.cpu : NULL,
		.activation = (c->activation + (c->mixed ? i : 0)) % KERNEL_ACTIVATION_COUNT,
		.residual = c->residual ? residual.cpu : NULL,
		.gate = c->gate ? gate.cpu : NULL,
		.y = run->y[i].cpu,
		.ld_residual = ld,
		.ldy = ld,
		.y_is_float = c->floats,
	};
	*gpu = *cpu;
	gpu->weight = &kept[1];
	gpu->bias = c->bias ? bias.gpu : NULL;
	gpu->residual = c->residual ? residual.gpu : NULL;
	gpu->gate = c->gate ? gate.gpu : NULL;
	gpu->y = run->y[i].gpu;
}

static void linear_fill(const struct linear_case *c, struct linear_run *run)
{
	const size_t ldx = (size_t)c->in + c->pad;
	const struct cuda_tensor x =
		cuda_test_random(&test, (size_t)c->rows * ldx, -1.7, 1.7, false);

	*run = (struct linear_run){
		.cpu = { .x = x.cpu, .ldx = ldx, .rows = c->rows, .parts = c->parts }
	};
	run->gpu = run->cpu;
	run->gpu.x = x.gpu;
	for (int i = 0; i < c->parts; i++)
		part_fill(c, i, run);
}

static void linear_free(struct linear_run *run)
{
	for (int i = 0; i < run->cpu.parts; i++)
		test_free((void *)(uintptr_t)run->cpu.part[i].weight);
}

/* Padding between rows is poison on one side and values on the other: only rows are compared. */
static void padding_agree(const struct linear_case *c, const struct cuda_tensor *y, int out)
{
	const size_t ld = (size_t)out + c->pad;
	const size_t size = y->is_float ? 4 : 2;
	const uint64_t zero[2] = { 0, 0 };

	for (int n = 0; n < c->rows && c->pad; n++) {
		const size_t at = (size_t)n * ld + (size_t)out;

		memset(y->cpu + at, 0, c->pad * sizeof(float));
		assert_true(c->pad * size <= sizeof(zero));
		assert_int_equal(test.gpu.table->upload(test.gpu.device, (char *)y->gpu + at * size,
							zero, c->pad * size, test.gpu.queue),
				 0);
	}
	assert_int_equal(test.gpu.table->queue_wait(test.gpu.device, test.gpu.queue), 0);
}

static const struct linear_case linear_cases[] = {
	/* smallest, odd, unaligned */
	{ .rows = 1, .in = 1, .parts = 1, .out = { 1 } },
	{ .rows = 1, .in = 8, .parts = 1, .out = { 8 }, .bias = true, .floats = true },
	{ .rows = 37,
	  .in = 53,
	  .parts = 3,
	  .out = { 29, 31, 1 },
	  .pad = 3,
	  .bias = true,
	  .activation = KERNEL_GELU,
	  .mixed = true },
	{ .rows = 67,
	  .in = 72,
	  .parts = 2,
	  .out = { 33, 130 },
	  .bias = true,
	  .residual = true,
	  .gate = true,
	  .activation = KERNEL_SIGMOID },
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
	{ .rows = 257, .in = 520, .parts = 1, .out = { 776 }, .residual = true, .in_place = true },
	/* the demo model, the text encoder, F32 results */
	{ .rows = 432, .in = 192, .parts = 4, .out = { 192, 192, 192, 192 }, .bias = true },
	{ .rows = 300, .in = 2304, .parts = 3, .out = { 2048, 1024, 1024 } },
	{ .rows = 300, .in = 256, .parts = 1, .out = { 320 }, .floats = true },
	/* the 2 B model: one chunk of 1280×704 */
	{ .rows = 2640, .in = 384, .parts = 1, .out = { 2240 }, .bias = true },
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
};

static void linear_is_the_oracle(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(linear_cases); i++) {
		const struct linear_case *c = &linear_cases[i];
		struct linear_run run;

		cuda_test_reset(&test, 100 + i);
		linear_fill(c, &run);
		cuda_test_run(&test, KERNEL_OP_linear, &run.cpu.workspace, &run.gpu.workspace);
		for (int p = 0; p < c->parts; p++) {
			padding_agree(c, &run.y[p], c->out[p]);
			(void)cuda_test_compare(&test, KERNEL_OP_linear, &run.y[p],
						c->floats ? CUDA_FLOAT_TOLERANCE : CUDA_TOLERANCE,
						"linear %d×%d×%d%s%s%s%s", c->rows, c->in,
						c->out[p], c->bias ? " bias" : "",
						c->residual ? " residual" : "",
						c->gate ? " gate" : "",
						c->in_place ? " in place" : "");
		}
		linear_free(&run);
	}
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
		linear_fill(&c, &run);
		assert_int_equal(cuda_test_run_gpu(&test, KERNEL_OP_linear, &run.gpu.workspace), 0);
		digest[i] = 0;
		for (int p = 0; p < c.parts; p++)
			digest[i] ^= cuda_test_digest(&test, &run.y[p]) << p;
		linear_free(&run);
	}
	printf("  digests %016llx and %016llx\n", (unsigned long long)digest[0],
	       (unsigned long long)digest[1]);
	assert_true(digest[0] == digest[1]);
}

/* ----------------------------------------------------------------------------- temporal conv */

struct temporal_case {
	int frames, tokens, channels;
	bool left, left_out, gate, in_place; /* in_place: left_out is left */
};

static void temporal_is_the_oracle(void **state)
{
	static const struct temporal_case cases[] = {
		{ 1, 1, 8, false, true, false, false },
		{ 2, 5, 9, true, true, true, false },
		{ 3, 7, 64, true, true, true, true },
		{ 3, 100, 192, true, true, false, true },
		{ 3, 144, 192, false, true, true, false },
		{ 1, 130, 72, true, false, true, false },
		{ 5, 33, 40, true, true, true, true },
		{ 3, 880, 2240, true, true, true, false },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct temporal_case *c = &cases[i];
		const size_t frame = (size_t)c->tokens * (size_t)c->channels;
		const size_t count = frame * (size_t)c->frames;
		struct kernel_temporal_conv cpu, gpu;
		struct cuda_tensor x, r, left, left_out, gate;
		struct cuda_weight w;

		cuda_test_reset(&test, 500 + i);
		x = cuda_test_random(&test, count, -1, 1, false);
		r = cuda_test_random(&test, count, -1, 1, false);
		left = cuda_test_random(&test, frame, -1, 1, false);
		left_out = c->in_place ? left : cuda_test_output(&test, frame, false);
		gate = cuda_test_random(&test, (size_t)c->channels, -1, 1, true);
		w = cuda_test_weight(&test, c->channels, c->channels, 3, 0, 3, 1.0);
		cpu = (struct kernel_temporal_conv){
			.x = x.cpu,
			.r = r.cpu,
			.left = c->left ? left.cpu : NULL,
			.left_out = c->left_out ? left_out.cpu : NULL,
			.weight = &w.cpu,
			.gate = c->gate ? gate.cpu : NULL,
			.frames = c->frames,
			.tokens_per_frame = c->tokens,
			.channels = c->channels,
		};
		gpu = cpu;
		gpu.x = x.gpu;
		gpu.r = r.gpu;
		gpu.left = c->left ? left.gpu : NULL;
		gpu.left_out = c->left_out ? left_out.gpu : NULL;
		gpu.weight = &w.gpu;
		gpu.gate = c->gate ? gate.gpu : NULL;
		cuda_test_run(&test, KERNEL_OP_temporal_conv, &cpu.workspace, &gpu.workspace);
		(void)cuda_test_compare(&test, KERNEL_OP_temporal_conv, &x, CUDA_TOLERANCE,
					"temporal %d×%d×%d%s%s", c->frames, c->tokens, c->channels,
					c->left ? " left" : "", c->gate ? " gate" : "");
		/* A copy: exact. */
		if (c->left_out)
			(void)cuda_test_compare(&test, KERNEL_OP_temporal_conv, &left_out, 0,
						"temporal, left_out");
	}
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
	static const struct {
		const char *name;
		struct linear_case c;
	} cases[] = {
		{ "q, k, v, gate 4×2240 of 2240",
		  { .rows = 2640,
		    .in = 2240,
		    .parts = 4,
		    .out = { 2240, 2240, 2240, 2240 },
		    .bias = true } },
		{ "FFN in, SiLU 13440 of 2240",
		  { .rows = 2640,
		    .in = 2240,
		    .parts = 1,
		    .out = { 13440 },
		    .bias = true,
		    .activation = KERNEL_SILU } },
		{ "projection, residual 2240 of 2240",
		  { .rows = 2640,
		    .in = 2240,
		    .parts = 1,
		    .out = { 2240 },
		    .bias = true,
		    .residual = true,
		    .gate = true } },
		{ "cross q 2240 of 2240",
		  { .rows = 2640, .in = 2240, .parts = 1, .out = { 2240 }, .bias = true } },
		{ "FFN out 2240 of 6720",
		  { .rows = 2640, .in = 6720, .parts = 1, .out = { 2240 } } },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct linear_run run;

		cuda_test_reset(&test, 900 + i);
		linear_fill(&cases[i].c, &run);
		(void)cuda_test_time(&test, KERNEL_OP_linear, &run.gpu.workspace, 20, "%s",
				     cases[i].name);
		linear_free(&run);
	}
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

int main(void)
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

	return cmocka_run_group_tests(tests, open_all, close_all);
}
