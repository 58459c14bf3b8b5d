/*
 * The 3×3×3 convolution against the CPU back end: portable kernels and those of this chip, every mode, odd
 * sizes, one past a tile; then its speed at every published layer.
 */
#include "tests/common/cuda_test.h"
#include "tools/bench/op_check.h"

#include <errno.h>
#include <stdio.h>

/* Two openings of one GPU: memory and queues of the first serve both. */
static struct cuda_test test, portable;
static bool only_portable;

enum { SPEED_RUNS = 9 };

/* What the CPU made, kept while the GPU starts from the same inputs again. */
static float *result_keep(const struct cuda_tensor *t)
{
	float *kept = test_malloc(t->count * sizeof(*kept) + 1);

	if (t->count)
		memcpy(kept, t->cpu, t->count * sizeof(*kept));
	return kept;
}

static void result_restore(struct cuda_tensor *t, float *kept)
{
	if (t->count)
		memcpy(t->cpu, kept, t->count * sizeof(*kept));
	test_free(kept);
}

/* The CPU once, this chip's kernels, then the portable ones on the same inputs. */
static void conv_case_run(const struct conv_case *c, uint64_t seed)
{
	struct kernel_device *const chip = test.gpu.device;
	struct conv_run run = { 0 };
	float *y, *y_norm, *context;
	char text[100];

	cuda_test_reset(&test, seed);
	check_conv_fill(&test, c, &run);
	check_conv_describe(c, text, sizeof(text));
	cuda_test_run(&test, KERNEL_OP_conv3d, &run.cpu.workspace, &run.gpu.workspace);
	check_conv_compare(&test, c, &run, text);
	y = result_keep(&run.y);
	y_norm = result_keep(&run.y_norm);
	context = result_keep(&run.context);

	cuda_test_reset(&test, seed);
	run = (struct conv_run){ 0 };
	check_conv_fill(&test, c, &run);
	result_restore(&run.y, y);
	result_restore(&run.y_norm, y_norm);
	result_restore(&run.context, context);
	test.gpu.device = portable.gpu.device;
	assert_int_equal(cuda_test_run_gpu(&test, KERNEL_OP_conv3d, &run.gpu.workspace), 0);
	check_conv_compare(&test, c, &run, text);
	test.gpu.device = chip;
}

/* Besides check_cases. */
static const struct conv_case cases[] = {
	/* smallest, and channels that no fast kernel takes */
	{ 1, 1, 1, 1, 1, .outputs = Y },
	{ 1, 1, 1, 1, 1, .context = CONTEXT_SET, .outputs = BOTH, .residual = 1 },
	{ 2, 1, 9, 3, 2, KERNEL_PAD_ZERO, CONTEXT_SET, .outputs = BOTH, .residual = 2 },
	{ 1,
	  3,
	  5,
	  6,
	  9,
	  KERNEL_PAD_ZERO,
	  WHOLE_CLIP,
	  KERNEL_DEPTH_TO_SPACE,
	  { 2, 1, 1 },
	  .drop = true,
	  .outputs = Y },
	/* smallest of the fast kernels; odd outputs; a demo model's */
	{ 1, 1, 1, 8, 8, .context = CONTEXT_SET, .outputs = BOTH, .residual = 1 },
	{ 1, 2, 2, 64, 64, KERNEL_PAD_REFLECT, CONTEXT_UNSET, .outputs = BOTH },
	{ 2, 3, 5, 24, 17, KERNEL_PAD_ZERO, CONTEXT_SET, .outputs = BOTH, .residual = 1 },
	{ 2, 3, 5, 64, 17, KERNEL_PAD_REFLECT, WHOLE_CLIP, .outputs = BOTH, .residual = 2 },
	{ 1, 36, 64, 64, 64, KERNEL_PAD_REFLECT, CONTEXT_SET, .outputs = BOTH, .residual = 2 },
	{ 2, 36, 64, 48, 64, KERNEL_PAD_ZERO, CONTEXT_UNSET, .outputs = Y },
	{ 1, 22, 40, 16, 32, KERNEL_PAD_REFLECT, CONTEXT_SET, .outputs = BOTH },
	/* one past a patch, a tile, a chunk of channels */
	{ 1, 9, 17, 128, 128, KERNEL_PAD_ZERO, CONTEXT_SET, .outputs = BOTH, .residual = 2 },
	{ 2, 8, 33, 200, 129, KERNEL_PAD_ZERO, CONTEXT_UNSET, .outputs = BOTH, .more_rows = 1 },
	{ 1, 5, 300, 56, 60, KERNEL_PAD_REFLECT, CONTEXT_SET, .outputs = BOTH },
	/* rows of a weight that are no channels are in no norm */
	{ 1, 5, 20, 64, 48, KERNEL_PAD_ZERO, CONTEXT_SET, .outputs = BOTH, .more_rows = 7 },
	{ 1, 180, 250, 48, 72, KERNEL_PAD_REFLECT, CONTEXT_SET, .outputs = Y_NORM, .more_rows = 9 },
	/* all of a wide pixel's tiles in one block, the last of them cut; a short last round in parts */
	{ 1, 260, 256, 64, 200, KERNEL_PAD_ZERO, CONTEXT_SET, .outputs = BOTH, .residual = 2 },
	{ 1, 256, 264, 64, 256, KERNEL_PAD_REFLECT, CONTEXT_SET, .outputs = Y_NORM },
	{ 5, 88, 160, 128, 256, KERNEL_PAD_ZERO, CONTEXT_SET, .outputs = BOTH },
	/* the published layers, fewer frames */
	{ 1, 176, 320, 48, 128, KERNEL_PAD_ZERO, CONTEXT_SET, .outputs = BOTH },
	{ 1, 176, 320, 128, 128, KERNEL_PAD_ZERO, CONTEXT_SET, .outputs = BOTH, .residual = 2 },
	{ 2, 88, 160, 256, 256, KERNEL_PAD_ZERO, CONTEXT_SET, .outputs = BOTH, .residual = 2 },
	{ 1, 88, 160, 512, 512, KERNEL_PAD_ZERO, CONTEXT_UNSET, .outputs = Y_NORM },
	{ 1, 44, 80, 1024, 1024, KERNEL_PAD_ZERO, CONTEXT_SET, .outputs = BOTH, .residual = 2 },
	{ 1, 22, 40, 2048, 256, KERNEL_PAD_ZERO, CONTEXT_SET, .outputs = BOTH, .residual = 2 },
	{ 3, 22, 40, 2048, 128, KERNEL_PAD_ZERO, CONTEXT_SET, .outputs = Y, .more_rows = 1 },
	{ 3, 22, 40, 128, 1024, KERNEL_PAD_REFLECT, CONTEXT_SET, .outputs = BOTH },
	{ 3, 22, 40, 1024, 1024, KERNEL_PAD_REFLECT, CONTEXT_SET, .outputs = BOTH, .residual = 2 },
	{ 2, 176, 320, 128, 48, KERNEL_PAD_REFLECT, CONTEXT_SET, .outputs = Y },
	/* down */
	{ 1, 176, 320, 128, 256, .resample = KERNEL_SPACE_TO_DEPTH, .stride = { 1, 2, 2 },
	  .context = CONTEXT_SET, .outputs = BOTH },
	{ 2, 88, 160, 256, 512, .resample = KERNEL_SPACE_TO_DEPTH, .stride = { 2, 1, 1 },
	  .context = CONTEXT_UNSET, .outputs = BOTH },
	{ 2, 88, 160, 512, 1024, .resample = KERNEL_SPACE_TO_DEPTH, .stride = { 2, 2, 2 },
	  .context = CONTEXT_SET, .outputs = BOTH },
	{ 2, 44, 80, 1024, 2048, .resample = KERNEL_SPACE_TO_DEPTH, .stride = { 2, 2, 2 },
	  .context = CONTEXT_SET, .outputs = BOTH },
	/* last tiles that channels do not fill */
	{ 2, 88, 160, 96, 192, .resample = KERNEL_SPACE_TO_DEPTH, .stride = { 2, 1, 1 },
	  .context = CONTEXT_SET, .outputs = BOTH },
	{ 2, 9, 17, 72, 144, .resample = KERNEL_SPACE_TO_DEPTH, .stride = { 2, 1, 1 },
	  .context = CONTEXT_SET, .outputs = BOTH },
	{ 1, 88, 160, 160, 40, .resample = KERNEL_DEPTH_TO_SPACE, .stride = { 2, 2, 2 },
	  .context = CONTEXT_SET, .outputs = Y },
	{ 2,
	  18,
	  10,
	  64,
	  64,
	  KERNEL_PAD_REFLECT,
	  CONTEXT_SET,
	  KERNEL_SPACE_TO_DEPTH,
	  { 2, 2, 2 },
	  .outputs = BOTH,
	  .more_rows = 5 },
	/* up */
	{ 1,
	  22,
	  40,
	  1024,
	  512,
	  KERNEL_PAD_REFLECT,
	  CONTEXT_UNSET,
	  KERNEL_DEPTH_TO_SPACE,
	  { 2, 2, 2 },
	  .drop = true,
	  .outputs = BOTH },
	{ 2,
	  44,
	  80,
	  512,
	  256,
	  KERNEL_PAD_REFLECT,
	  CONTEXT_SET,
	  KERNEL_DEPTH_TO_SPACE,
	  { 2, 2, 2 },
	  .outputs = BOTH },
	{ 1,
	  88,
	  160,
	  256,
	  128,
	  KERNEL_PAD_REFLECT,
	  CONTEXT_SET,
	  KERNEL_DEPTH_TO_SPACE,
	  { 2, 2, 2 },
	  .outputs = BOTH },
	{ 3,
	  5,
	  6,
	  64,
	  32,
	  KERNEL_PAD_ZERO,
	  WHOLE_CLIP,
	  KERNEL_DEPTH_TO_SPACE,
	  { 1, 2, 2 },
	  .outputs = BOTH },
	{ 2,
	  9,
	  7,
	  16,
	  8,
	  KERNEL_PAD_REFLECT,
	  CONTEXT_SET,
	  KERNEL_DEPTH_TO_SPACE,
	  { 2, 2, 1 },
	  .drop = true,
	  .outputs = BOTH },
};

/* Three kinds of time, both paddings, T = 1, 2, 3, 5. */
static void times(void)
{
	static const int frames[] = { 1, 2, 3, 5 };

	for (size_t i = 0; i < ARRAY_SIZE(frames); i++)
		for (enum context context = WHOLE_CLIP; context <= CONTEXT_SET; context++)
			for (int padding = 0; padding < KERNEL_PADDING_COUNT; padding++)
				conv_case_run(&(struct conv_case){ frames[i], 11, 13, 64, 72,
								   padding, context,
								   .outputs = BOTH, .residual = 2 },
					      40 + i);
}

static void conv_is_the_oracle(void **state)
{
	(void)state;
	for (int i = 0; i < check_cases.convs; i++)
		conv_case_run(&check_cases.conv[i], 700 + (uint64_t)i);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		conv_case_run(&cases[i], 100 + i);
	times();
}

/* All that the kernels do, in few tiles: for compute-sanitizer, which is hundreds of times slower. */
static void few_tiles(void **state)
{
	static const struct conv_case few[] = {
		{ 1, 9, 17, 64, 128, KERNEL_PAD_ZERO, CONTEXT_SET, .outputs = BOTH, .residual = 2 },
		{ 2, 3, 5, 64, 17, KERNEL_PAD_REFLECT, WHOLE_CLIP, .outputs = BOTH, .residual = 1 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(few); i++)
		conv_case_run(&few[i], 400 + i);
}

/* The same bits from every run, split sums included. */
static void same_bits_again(void **state)
{
	static const struct conv_case some[] = {
		{ 1, 176, 320, 128, 128, KERNEL_PAD_ZERO, CONTEXT_SET, .outputs = BOTH },
		{ 3, 22, 40, 1024, 1024, KERNEL_PAD_REFLECT, CONTEXT_SET, .outputs = BOTH },
		{ 1,
		  22,
		  40,
		  1024,
		  512,
		  KERNEL_PAD_REFLECT,
		  CONTEXT_UNSET,
		  KERNEL_DEPTH_TO_SPACE,
		  { 2, 2, 2 },
		  .outputs = BOTH },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(some); i++) {
		uint64_t first[2] = { 0, 0 };

		for (int again = 0; again < 3; again++) {
			struct conv_run run = { 0 };
			uint64_t digest[2];

			cuda_test_reset(&test, 300);
			check_conv_fill(&test, &some[i], &run);
			assert_int_equal(
				cuda_test_run_gpu(&test, KERNEL_OP_conv3d, &run.gpu.workspace), 0);
			digest[0] = cuda_test_digest(&test, &run.y);
			digest[1] = cuda_test_digest(&test, &run.y_norm);
			for (int j = 0; j < 2; j++) {
				first[j] = again ? first[j] : digest[j];
				assert_true(digest[j] == first[j]);
			}
		}
		printf("  case %zu: the same bits three times, %016llx\n", i,
		       (unsigned long long)first[0]);
	}
}

static void nonsense_is_refused(void **state)
{
	const struct conv_case good = { 2, 4, 6, 8, 8, .context = CONTEXT_SET, .outputs = BOTH };
	struct conv_run run = { 0 };
	struct kernel_conv3d bad;

	(void)state;
	cuda_test_reset(&test, 5);
	check_conv_fill(&test, &good, &run);
#define REFUSED(field, value)                                                                \
	do {                                                                                 \
		bad = run.gpu;                                                               \
		bad.field = value;                                                           \
		assert_int_equal(cuda_test_run_gpu(&test, KERNEL_OP_conv3d, &bad.workspace), \
				 -EINVAL);                                                   \
	} while (0)
	REFUSED(frames, 0);
	REFUSED(height, -1);
	REFUSED(cin, 16);
	REFUSED(cout, 9);
	REFUSED(padding, KERNEL_PADDING_COUNT);
	REFUSED(resample, KERNEL_SPACE_TO_DEPTH);
#undef REFUSED
}

/* -------------------------------------------------------------------------------------- speed */

/* The layers of 24 frames at 1280×704 (vae §9) and how many there are of each. */
static const struct {
	const char *name;
	int count;
	struct conv_case c;
} layers[] = {
	{ "encoder in", 1, { 24, 176, 320, 48, 128, .context = CONTEXT_SET, .outputs = BOTH } },
	{ "encoder 0 first",
	  4,
	  { 24, 176, 320, 128, 128, .context = CONTEXT_SET, .outputs = Y_NORM } },
	{ "encoder 0 second",
	  4,
	  { 24, 176, 320, 128, 128, .context = CONTEXT_SET, .outputs = BOTH, .residual = 2 } },
	{ "encoder 0 down",
	  1,
	  { 24, 176, 320, 128, 256, .resample = KERNEL_SPACE_TO_DEPTH, .stride = { 1, 2, 2 },
	    .context = CONTEXT_SET, .outputs = BOTH } },
	{ "encoder 1 first",
	  6,
	  { 24, 88, 160, 256, 256, .context = CONTEXT_SET, .outputs = Y_NORM } },
	{ "encoder 1 second",
	  6,
	  { 24, 88, 160, 256, 256, .context = CONTEXT_SET, .outputs = BOTH, .residual = 2 } },
	{ "encoder 1 down",
	  1,
	  { 24, 88, 160, 256, 512, .resample = KERNEL_SPACE_TO_DEPTH, .stride = { 2, 1, 1 },
	    .context = CONTEXT_SET, .outputs = BOTH } },
	{ "encoder 2 first",
	  6,
	  { 12, 88, 160, 512, 512, .context = CONTEXT_SET, .outputs = Y_NORM } },
	{ "encoder 2 second",
	  6,
	  { 12, 88, 160, 512, 512, .context = CONTEXT_SET, .outputs = BOTH, .residual = 2 } },
	{ "encoder 2 down",
	  1,
	  { 12, 88, 160, 512, 1024, .resample = KERNEL_SPACE_TO_DEPTH, .stride = { 2, 2, 2 },
	    .context = CONTEXT_SET, .outputs = BOTH } },
	{ "encoder 3 first",
	  2,
	  { 6, 44, 80, 1024, 1024, .context = CONTEXT_SET, .outputs = Y_NORM } },
	{ "encoder 3 second",
	  2,
	  { 6, 44, 80, 1024, 1024, .context = CONTEXT_SET, .outputs = BOTH, .residual = 2 } },
	{ "encoder 3 down",
	  1,
	  { 6, 44, 80, 1024, 2048, .resample = KERNEL_SPACE_TO_DEPTH, .stride = { 2, 2, 2 },
	    .context = CONTEXT_SET, .outputs = BOTH } },
	{ "encoder middle first",
	  2,
	  { 3, 22, 40, 2048, 2048, .context = CONTEXT_SET, .outputs = Y_NORM } },
	{ "encoder middle second",
	  2,
	  { 3, 22, 40, 2048, 2048, .context = CONTEXT_SET, .outputs = BOTH, .residual = 2 } },
	{ "encoder out",
	  1,
	  { 3, 22, 40, 2048, 128, .context = CONTEXT_SET, .outputs = Y, .more_rows = 1 } },
	{ "decoder in",
	  1,
	  { 3, 22, 40, 128, 1024, KERNEL_PAD_REFLECT, CONTEXT_SET, .outputs = BOTH } },
	{ "decoder middle first",
	  5,
	  { 3, 22, 40, 1024, 1024, KERNEL_PAD_REFLECT, CONTEXT_SET, .outputs = Y_NORM } },
	{ "decoder middle second",
	  5,
	  { 3, 22, 40, 1024, 1024, KERNEL_PAD_REFLECT, CONTEXT_SET, .outputs = BOTH,
	    .residual = 2 } },
	{ "decoder 0 up",
	  1,
	  { 3,
	    22,
	    40,
	    1024,
	    512,
	    KERNEL_PAD_REFLECT,
	    CONTEXT_SET,
	    KERNEL_DEPTH_TO_SPACE,
	    { 2, 2, 2 },
	    .outputs = BOTH } },
	{ "decoder 0 first",
	  5,
	  { 6, 44, 80, 512, 512, KERNEL_PAD_REFLECT, CONTEXT_SET, .outputs = Y_NORM } },
	{ "decoder 0 second",
	  5,
	  { 6, 44, 80, 512, 512, KERNEL_PAD_REFLECT, CONTEXT_SET, .outputs = BOTH,
	    .residual = 2 } },
	{ "decoder 1 up",
	  1,
	  { 6,
	    44,
	    80,
	    512,
	    256,
	    KERNEL_PAD_REFLECT,
	    CONTEXT_SET,
	    KERNEL_DEPTH_TO_SPACE,
	    { 2, 2, 2 },
	    .outputs = BOTH } },
	{ "decoder 1 first",
	  5,
	  { 12, 88, 160, 256, 256, KERNEL_PAD_REFLECT, CONTEXT_SET, .outputs = Y_NORM } },
	{ "decoder 1 second",
	  5,
	  { 12, 88, 160, 256, 256, KERNEL_PAD_REFLECT, CONTEXT_SET, .outputs = BOTH,
	    .residual = 2 } },
	{ "decoder 2 up",
	  1,
	  { 12,
	    88,
	    160,
	    256,
	    128,
	    KERNEL_PAD_REFLECT,
	    CONTEXT_SET,
	    KERNEL_DEPTH_TO_SPACE,
	    { 2, 2, 2 },
	    .outputs = BOTH } },
	{ "decoder 2 first",
	  5,
	  { 24, 176, 320, 128, 128, KERNEL_PAD_REFLECT, CONTEXT_SET, .outputs = Y_NORM } },
	{ "decoder 2 second",
	  5,
	  { 24, 176, 320, 128, 128, KERNEL_PAD_REFLECT, CONTEXT_SET, .outputs = BOTH,
	    .residual = 2 } },
	{ "decoder out",
	  1,
	  { 24, 176, 320, 128, 48, KERNEL_PAD_REFLECT, CONTEXT_SET, .outputs = Y } },
};

static double layer_flops(const struct conv_case *c)
{
	return 54.0 * c->frames * c->height * c->width * c->cin * check_conv_channels(c);
}

/* Memory for any layer, full of random values: of the largest each. */
struct speed_memory {
	void *x, *context, *weight, *bias, *y, *y_norm;
};

enum {
	ACTIVATION_BYTES = 24 * 176 * 320 * 128 * 2,
	CONTEXT_BYTES = 2 * 176 * 320 * 128 * 2,
	WEIGHT_BYTES = 27 * 2048 * 2048 * 2,
	BIAS_BYTES = 1 << 20,
	BLOCK_VALUES = 1 << 22, /* made on the CPU and copied over and over */
};

/* Normal BF16 numbers of either sign below 2^exponent. */
static void *speed_allocate(size_t bytes, int exponent)
{
	const struct cuda_test_side *gpu = &test.gpu;
	uint16_t *block = test_malloc(BLOCK_VALUES * sizeof(*block));
	uint64_t random = bytes;
	void *memory = NULL;

	for (int i = 0; i < BLOCK_VALUES; i++) {
		random = random * 6364136223846793005u + 1442695040888963407u;
		block[i] = (uint16_t)((random >> 48 & 0x807f) | (uint64_t)(126 + exponent) << 7);
	}
	assert_int_equal(gpu->table->allocate(gpu->device, bytes, &memory), 0);
	for (size_t at = 0; at < bytes; at += BLOCK_VALUES * sizeof(*block))
		assert_int_equal(
			gpu->table->upload(gpu->device, (char *)memory + at, block,
					   MIN_OF(bytes - at, BLOCK_VALUES * sizeof(*block)),
					   gpu->queue),
			0);
	assert_int_equal(gpu->table->queue_wait(gpu->device, gpu->queue), 0);
	test_free(block);
	return memory;
}

static double layer_time(const struct speed_memory *memory, const char *name,
			 const struct conv_case *c)
{
	const struct kernel_weight weight = { .prepared = memory->weight,
					      .dtype = KERNEL_BF16,
					      .out = check_conv_channels(c) + c->more_rows,
					      .in = c->cin,
					      .taps = 27,
					      .tap_count = 27 };
	struct kernel_conv3d op = {
		.x = memory->x,
		.context = memory->context,
		.context_set = true,
		.weight = &weight,
		.bias = memory->bias,
		.residual = c->residual ? memory->y : NULL,
		.y = c->outputs & Y ? memory->y : NULL,
		.y_norm = c->outputs & Y_NORM ? memory->y_norm : NULL,
		.padding = c->padding,
		.resample = c->resample,
		.stride_t = c->stride[0],
		.stride_h = c->stride[1],
		.stride_w = c->stride[2],
		.frames = c->frames,
		.height = c->height,
		.width = c->width,
		.cin = c->cin,
		.cout = c->cout,
	};

	return cuda_test_time(&test, KERNEL_OP_conv3d, &op.workspace, SPEED_RUNS, "%s", name);
}

static void speed(const struct speed_memory *memory, const char *what)
{
	double ms[2] = { 0, 0 }, flops[2] = { 0, 0 };

	for (size_t i = 0; i < ARRAY_SIZE(layers); i++) {
		const int half = layers[i].name[0] == 'd';

		ms[half] += layers[i].count * layer_time(memory, layers[i].name, &layers[i].c);
		flops[half] += layers[i].count * layer_flops(&layers[i].c);
	}
	for (int half = 0; half < 2; half++)
		printf("  %s, 24 frames at 1280x704, %s: %.2f TFLOP in %.2f ms, %.1f TFLOP/s\n",
		       half ? "decoder" : "encoder", what, flops[half] / 1e12, ms[half],
		       flops[half] / ms[half] / 1e9);
}

static void speed_of_all_layers(void **state)
{
	struct kernel_device *const chip = test.gpu.device;
	struct speed_memory memory;

	(void)state;
	cuda_test_reset(&test, 1);
	memory = (struct speed_memory){
		.x = speed_allocate(ACTIVATION_BYTES, 1),
		.context = speed_allocate(CONTEXT_BYTES, 1),
		.weight = speed_allocate(WEIGHT_BYTES, -5),
		.bias = speed_allocate(BIAS_BYTES, 0),
		.y = speed_allocate(ACTIVATION_BYTES, 1),
		.y_norm = speed_allocate(ACTIVATION_BYTES, 1),
	};
	speed(&memory, "this chip's kernels");
	test.gpu.device = portable.gpu.device;
	speed(&memory, "portable kernels");
	test.gpu.device = chip;
	test.gpu.table->release(chip, memory.x, ACTIVATION_BYTES);
	test.gpu.table->release(chip, memory.context, CONTEXT_BYTES);
	test.gpu.table->release(chip, memory.weight, WEIGHT_BYTES);
	test.gpu.table->release(chip, memory.bias, BIAS_BYTES);
	test.gpu.table->release(chip, memory.y, ACTIVATION_BYTES);
	test.gpu.table->release(chip, memory.y_norm, ACTIVATION_BYTES);
}

static int open_all(void **state)
{
	(void)state;
	cuda_test_open_portable(&portable);
	if (only_portable)
		cuda_test_open_portable(&test);
	else
		cuda_test_open(&test);
	return 0;
}

static int close_all(void **state)
{
	(void)state;
	cuda_test_close(&test);
	cuda_test_close(&portable);
	return 0;
}

/* cuda-conv3d [FILTER [portable]]: cases whose names match; with the portable kernels alone. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(conv_is_the_oracle),  cmocka_unit_test(few_tiles),
		cmocka_unit_test(same_bits_again),     cmocka_unit_test(nonsense_is_refused),
		cmocka_unit_test(speed_of_all_layers),
	};

	only_portable = argc > 2 && strcmp(argv[2], "portable") == 0;
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, open_all, close_all);
}
