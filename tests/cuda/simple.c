/* Norms, rotations, element-wise ops, the depth-wise convolution and pixels against the CPU back end. */
#include "tests/common/cuda_test.h"

#include <math.h>
#include <stdio.h>

static struct cuda_test test;

/* op(name, {block for the CPU}, {the same for the GPU}) */
#define RUN(name, cpu_block, gpu_block)                                                       \
	do {                                                                                  \
		struct kernel_##name on_cpu = cpu_block, on_gpu = gpu_block;                  \
		cuda_test_run(&test, KERNEL_OP_##name, &on_cpu.workspace, &on_gpu.workspace); \
	} while (0)
#define BLOCK(...)          \
	{                   \
		__VA_ARGS__ \
	}

/* Rows and channels: smallest, odd, a golden model's, the published one's, one past the register path. */
static const int row_shapes[][2] = { { 1, 8 }, { 3, 7 }, { 5, 224 }, { 37, 2240 }, { 9, 3080 } };

static void layer_norm(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(row_shapes); i++) {
		const int rows = row_shapes[i][0], channels = row_shapes[i][1];
		const size_t count = (size_t)rows * channels;
		struct cuda_tensor x, scale, shift, y;

		cuda_test_reset(&test, i);
		x = cuda_test_random(&test, count, -2, 3, false);
		scale = cuda_test_random(&test, (size_t)channels, -0.5, 0.5, true);
		shift = cuda_test_random(&test, (size_t)channels, -1, 1, true);
		y = cuda_test_output(&test, count, false);
		RUN(layer_norm_modulate,
		    BLOCK(.x = x.cpu, .scale = scale.cpu, .shift = shift.cpu, .y = y.cpu,
			  .epsilon = 1e-6f, .rows = rows, .channels = channels),
		    BLOCK(.x = x.gpu, .scale = scale.gpu, .shift = shift.gpu, .y = y.gpu,
			  .epsilon = 1e-6f, .rows = rows, .channels = channels));
		(void)cuda_test_compare(&test, KERNEL_OP_layer_norm_modulate, &y, CUDA_TOLERANCE,
					"layer_norm_modulate [%d][%d]", rows, channels);
	}
}

static void rms_norm(void **state)
{
	(void)state;
	for (size_t i = 0; i < 2 * ARRAY_SIZE(row_shapes); i++) {
		const int rows = row_shapes[i / 2][0], channels = row_shapes[i / 2][1];
		const size_t count = (size_t)rows * channels;
		struct cuda_tensor x, residual, weight, y;

		cuda_test_reset(&test, i);
		x = cuda_test_random(&test, count, -2, 2, false);
		residual = cuda_test_random(&test, count, -1, 1, false);
		weight = cuda_test_random(&test, (size_t)channels, 0.5, 1.5, true);
		y = cuda_test_output(&test, count, false);
		RUN(rms_norm,
		    BLOCK(.x = x.cpu, .residual = i % 2 ? residual.cpu : NULL, .weight = weight.cpu,
			  .y = y.cpu, .weight_offset = (float)(i % 2), .epsilon = 1e-6f,
			  .rows = rows, .channels = channels),
		    BLOCK(.x = x.gpu, .residual = i % 2 ? residual.gpu : NULL, .weight = weight.gpu,
			  .y = y.gpu, .weight_offset = (float)(i % 2), .epsilon = 1e-6f,
			  .rows = rows, .channels = channels));
		(void)cuda_test_compare(&test, KERNEL_OP_rms_norm, &y, CUDA_TOLERANCE,
					"rms_norm [%d][%d]%s", rows, channels,
					i % 2 ? ", residual" : "");
	}
}

/* Rotation tables of random angles for both sides. */
struct ropes {
	struct kernel_rope cpu, gpu;
};

static void table(int rows, int pairs, const float **cpu_cos, const float **cpu_sin,
		  const float **gpu_cos, const float **gpu_sin)
{
	struct cuda_tensor angle = cuda_test_random(&test, (size_t)rows * pairs, -3, 3, true);
	float *cosines = test_malloc(angle.count * sizeof(float) + 1);
	float *sines = test_malloc(angle.count * sizeof(float) + 1);
	struct cuda_tensor c, s;

	for (size_t i = 0; i < angle.count; i++) {
		cosines[i] = cosf(angle.cpu[i]);
		sines[i] = sinf(angle.cpu[i]);
	}
	c = cuda_test_values(&test, cosines, angle.count, true);
	s = cuda_test_values(&test, sines, angle.count, true);
	test_free(cosines);
	test_free(sines);
	*cpu_cos = c.cpu, *cpu_sin = s.cpu, *gpu_cos = c.gpu, *gpu_sin = s.gpu;
}

static struct ropes ropes_make(int frames, int height, int width, int t, int y, int x)
{
	struct ropes r = { .cpu = { .frames = frames,
				    .height = height,
				    .width = width,
				    .pairs_t = t,
				    .pairs_y = y,
				    .pairs_x = x } };

	r.gpu = r.cpu;
	table(frames, t, &r.cpu.cos_t, &r.cpu.sin_t, &r.gpu.cos_t, &r.gpu.sin_t);
	table(height, y, &r.cpu.cos_y, &r.cpu.sin_y, &r.gpu.cos_y, &r.gpu.sin_y);
	table(width, x, &r.cpu.cos_x, &r.cpu.sin_x, &r.gpu.cos_x, &r.gpu.sin_x);
	return r;
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
	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
		const int *s = shapes[i], rows = s[0] * s[1] * s[2], channels = s[3] * s[4];
		const size_t ld = (size_t)channels + (size_t)s[8];
		const bool turns = s[5] + s[6] + s[7] > 0;
		struct cuda_tensor x, weight;
		struct ropes rope;

		cuda_test_reset(&test, i);
		x = cuda_test_random(&test, rows * ld, -2, 2, false);
		weight = cuda_test_random(&test, (size_t)channels, 0.5, 1.5, true);
		rope = ropes_make(s[0], s[1], s[2], s[5], s[6], s[7]);
		RUN(qk_norm_rope,
		    BLOCK(.x = x.cpu, .ldx = ld, .weight = weight.cpu,
			  .rope = turns ? &rope.cpu : NULL, .epsilon = 1e-6f, .rows = rows,
			  .heads = s[3], .head_dim = s[4]),
		    BLOCK(.x = x.gpu, .ldx = ld, .weight = weight.gpu,
			  .rope = turns ? &rope.gpu : NULL, .epsilon = 1e-6f, .rows = rows,
			  .heads = s[3], .head_dim = s[4]));
		(void)cuda_test_compare(&test, KERNEL_OP_qk_norm_rope, &x, CUDA_TOLERANCE,
					"qk_norm_rope [%d][%d x %d], stride %zu", rows, s[3], s[4],
					ld);
	}
}

static void rope_half(void **state)
{
	static const int shapes[][4] = { { 1, 1, 2, 0 }, { 7, 3, 16, 5 }, { 33, 8, 256, 0 } };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
		const int *s = shapes[i];
		const size_t ld = (size_t)s[1] * s[2] + (size_t)s[3];
		const float *cpu[2], *gpu[2];
		struct cuda_tensor x;

		cuda_test_reset(&test, i);
		x = cuda_test_random(&test, (size_t)s[0] * ld, -2, 2, false);
		table(s[0], s[2] / 2, &cpu[0], &cpu[1], &gpu[0], &gpu[1]);
		RUN(rope_half,
		    BLOCK(.x = x.cpu, .ldx = ld, .cos = cpu[0], .sin = cpu[1], .rows = s[0],
			  .heads = s[1], .head_dim = s[2]),
		    BLOCK(.x = x.gpu, .ldx = ld, .cos = gpu[0], .sin = gpu[1], .rows = s[0],
			  .heads = s[1], .head_dim = s[2]));
		(void)cuda_test_compare(&test, KERNEL_OP_rope_half, &x, CUDA_TOLERANCE,
					"rope_half [%d][%d x %d]", s[0], s[1], s[2]);
	}
}

static void rope_shift(void **state)
{
	/* rows, heads, head dim, pairs, x is float, y is float */
	static const int shapes[][6] = {
		{ 1, 1, 3, 1, 1, 1 },	  { 5, 2, 112, 20, 0, 0 }, { 40, 1, 112, 20, 1, 1 },
		{ 9, 20, 112, 56, 1, 0 }, { 9, 20, 112, 0, 0, 1 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
		const int *s = shapes[i];
		const size_t count = (size_t)s[0] * s[1] * s[2];
		const float *cpu[2], *gpu[2];
		struct cuda_tensor x, y;

		cuda_test_reset(&test, i);
		x = cuda_test_random(&test, count, -2, 2, s[4]);
		y = cuda_test_output(&test, count, s[5]);
		table(1, s[3], &cpu[0], &cpu[1], &gpu[0], &gpu[1]);
		/* On the CPU `act` is F32: the two types are one. */
		RUN(rope_shift,
		    BLOCK(.x = x.cpu, .y = y.cpu, .cos = cpu[0], .sin = cpu[1], .x_is_float = s[4],
			  .y_is_float = s[5], .rows = (size_t)s[0], .heads = s[1], .head_dim = s[2],
			  .pairs = s[3]),
		    BLOCK(.x = x.gpu, .y = y.gpu, .cos = gpu[0], .sin = gpu[1], .x_is_float = s[4],
			  .y_is_float = s[5], .rows = (size_t)s[0], .heads = s[1], .head_dim = s[2],
			  .pairs = s[3]));
		(void)cuda_test_compare(&test, KERNEL_OP_rope_shift, &y,
					s[5] ? CUDA_FLOAT_TOLERANCE : CUDA_TOLERANCE,
					"rope_shift [%d][%d x %d], %d pairs, %s to %s", s[0], s[1],
					s[2], s[3], s[4] ? "F32" : "BF16", s[5] ? "F32" : "BF16");
	}
}

static void depthwise_glu(void **state)
{
	/* frames, height, width, features */
	static const int shapes[][4] = {
		{ 1, 1, 1, 1 },	     { 2, 3, 5, 6 },   { 3, 4, 21, 516 },
		{ 3, 22, 40, 6720 }, { 1, 9, 41, 64 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
		const int *s = shapes[i];
		const size_t pixels = (size_t)s[0] * s[1] * s[2], f = (size_t)s[3];
		struct cuda_tensor a, weight, bias, y;

		cuda_test_reset(&test, i);
		a = cuda_test_random(&test, pixels * 2 * f, -2, 2, false);
		weight = cuda_test_random(&test, 9 * 2 * f, -0.5, 0.5, true);
		bias = cuda_test_random(&test, 2 * f, -0.5, 0.5, true);
		y = cuda_test_output(&test, pixels * f, false);
		RUN(depthwise_glu,
		    BLOCK(.a = a.cpu, .weight = weight.cpu, .bias = bias.cpu, .y = y.cpu,
			  .frames = s[0], .height = s[1], .width = s[2], .features = s[3]),
		    BLOCK(.a = a.gpu, .weight = weight.gpu, .bias = bias.gpu, .y = y.gpu,
			  .frames = s[0], .height = s[1], .width = s[2], .features = s[3]));
		(void)cuda_test_compare(&test, KERNEL_OP_depthwise_glu, &y, CUDA_TOLERANCE,
					"depthwise_glu [%d][%d][%d][2 x %d]", s[0], s[1], s[2],
					s[3]);
	}
}

static void text_ops(void **state)
{
	const int rows = 13, channels = 72, vocabulary = 50;
	const size_t count = (size_t)rows * channels;
	struct cuda_tensor gate, up, y;
	struct cuda_test_bytes ids;
	struct cuda_weight words;
	int32_t id[13];

	(void)state;
	cuda_test_reset(&test, 3);
	gate = cuda_test_random(&test, count, -4, 4, false);
	up = cuda_test_random(&test, count, -2, 2, false);
	y = cuda_test_output(&test, count, false);
	RUN(glu_gelu,
	    BLOCK(.gate = gate.cpu, .up = up.cpu, .y = y.cpu, .rows = rows, .columns = channels),
	    BLOCK(.gate = gate.gpu, .up = up.gpu, .y = y.gpu, .rows = rows, .columns = channels));
	(void)cuda_test_compare(&test, KERNEL_OP_glu_gelu, &y, CUDA_TOLERANCE, "glu_gelu");

	for (int i = 0; i < rows; i++)
		id[i] = (i * 17 + 49) % vocabulary;
	ids = cuda_test_bytes(&test, id, sizeof(id));
	words = cuda_test_weight(&test, vocabulary, channels, 1, 0, 1, 8.0);
	y = cuda_test_output(&test, count, false);
	RUN(embedding,
	    BLOCK(.table = &words.cpu, .ids = ids.cpu, .scale = 48.0f, .y = y.cpu, .rows = rows),
	    BLOCK(.table = &words.gpu, .ids = ids.gpu, .scale = 48.0f, .y = y.gpu, .rows = rows));
	(void)cuda_test_compare(&test, KERNEL_OP_embedding, &y, CUDA_TOLERANCE, "embedding");
}

static void latents(void **state)
{
	const int rows = 101, a = 16, b = 7;
	const uint64_t seed_value = 0x123456789abcdef0, frame_value = 0xfffffffeull;
	const float step_value = -0.25f;
	struct cuda_tensor xa, xb, v, y;
	struct cuda_test_bytes step, seed, frame;

	(void)state;
	cuda_test_reset(&test, 4);
	xa = cuda_test_random(&test, (size_t)rows * a, -2, 2, true);
	xb = cuda_test_random(&test, (size_t)rows * b, -2, 2, true);
	y = cuda_test_output(&test, (size_t)rows * (a + b), false);
	RUN(concat,
	    BLOCK(.a = xa.cpu, .b = xb.cpu, .y = y.cpu, .rows = rows, .channels_a = a,
		  .channels_b = b),
	    BLOCK(.a = xa.gpu, .b = xb.gpu, .y = y.gpu, .rows = rows, .channels_a = a,
		  .channels_b = b));
	(void)cuda_test_compare(&test, KERNEL_OP_concat, &y, CUDA_TOLERANCE, "concat");

	v = cuda_test_random(&test, (size_t)rows * a, -2, 2, false);
	step = cuda_test_bytes(&test, &step_value, sizeof(step_value));
	RUN(euler_step, BLOCK(.x = xa.cpu, .v = v.cpu, .step = step.cpu, .count = xa.count),
	    BLOCK(.x = xa.gpu, .v = v.gpu, .step = step.gpu, .count = xa.count));
	(void)cuda_test_compare(&test, KERNEL_OP_euler_step, &xa, CUDA_FLOAT_TOLERANCE,
				"euler_step");

	seed = cuda_test_bytes(&test, &seed_value, sizeof(seed_value));
	frame = cuda_test_bytes(&test, &frame_value, sizeof(frame_value));
	y = cuda_test_output(&test, 4 * 5 * 6 * 7, true);
	RUN(noise,
	    BLOCK(.y = y.cpu, .seed = seed.cpu, .first_frame = frame.cpu, .frames = 4, .height = 5,
		  .width = 6, .channels = 7),
	    BLOCK(.y = y.gpu, .seed = seed.gpu, .first_frame = frame.gpu, .frames = 4, .height = 5,
		  .width = 6, .channels = 7));
	/* FP64 on both sides, log and cos of two libraries, rounded to F32: 6e-8 at most. */
	(void)cuda_test_compare(&test, KERNEL_OP_noise, &y, 1e-7, "noise");
}

static void channel_affine(void **state)
{
	(void)state;
	for (int mode = 0; mode < 4; mode++) {
		const int rows = 57, channels = 16;
		const size_t ld = 17;
		struct cuda_tensor x, scale, shift, y;

		cuda_test_reset(&test, 20 + (uint64_t)mode);
		x = cuda_test_random(&test, rows * ld, -2, 2, mode & 1);
		scale = cuda_test_random(&test, (size_t)channels, 0.5, 2, true);
		shift = cuda_test_random(&test, (size_t)channels, -1, 1, true);
		y = cuda_test_output(&test, (size_t)rows * channels, mode & 2);
		RUN(channel_affine,
		    BLOCK(.x = x.cpu, .y = y.cpu, .x_is_float = mode & 1, .y_is_float = mode & 2,
			  .scale = scale.cpu, .shift = shift.cpu, .rows = rows, .ldx = ld,
			  .channels = channels),
		    BLOCK(.x = x.gpu, .y = y.gpu, .x_is_float = mode & 1, .y_is_float = mode & 2,
			  .scale = scale.gpu, .shift = shift.gpu, .rows = rows, .ldx = ld,
			  .channels = channels));
		(void)cuda_test_compare(&test, KERNEL_OP_channel_affine, &y,
					mode & 2 ? CUDA_FLOAT_TOLERANCE : CUDA_TOLERANCE,
					"channel_affine, %s to %s", mode & 1 ? "F32" : "BF16",
					mode & 2 ? "F32" : "BF16");
	}
}

static uint32_t health_flags(struct cuda_tensor *x, uint32_t before)
{
	const struct cuda_test_bytes flags = cuda_test_bytes(&test, &before, sizeof(before));
	struct kernel_health block = { .x = x->gpu,
				       .x_is_float = x->is_float,
				       .count = x->count,
				       .limit = 100.0f,
				       .flags = flags.gpu };
	uint32_t got = 0xffff;

	assert_int_equal(cuda_test_run_gpu(&test, KERNEL_OP_health, &block.workspace), 0);
	assert_int_equal(test.gpu.table->download(test.gpu.device, &got, flags.gpu, sizeof(got),
						  test.gpu.queue),
			 0);
	assert_int_equal(test.gpu.table->queue_wait(test.gpu.device, test.gpu.queue), 0);
	return got;
}

/* One bad value at every place of a tensor that has a tail, in both types. */
static void health(void **state)
{
	enum { COUNT = 1003 };
	float values[COUNT];

	(void)state;
	for (int is_float = 0; is_float < 2; is_float++)
		for (int at = 0; at < COUNT; at += 167) {
			struct cuda_tensor x;

			cuda_test_reset(&test, 5);
			for (int i = 0; i < COUNT; i++)
				values[i] = (float)(i % 199) - 99.0f;
			x = cuda_test_values(&test, values, COUNT, is_float);
			assert_int_equal(health_flags(&x, 0), 0);
			assert_int_equal(health_flags(&x, 4), 4);
			values[at] = -101.0f;
			x = cuda_test_values(&test, values, COUNT, is_float);
			assert_int_equal(health_flags(&x, 0), KERNEL_HEALTH_TOO_LARGE);
			values[at] = (float)INFINITY;
			x = cuda_test_values(&test, values, COUNT, true);
			assert_int_equal(health_flags(&x, 0),
					 KERNEL_HEALTH_TOO_LARGE | KERNEL_HEALTH_NON_FINITE);
			values[at] = (float)NAN;
			x = cuda_test_values(&test, values, COUNT, true);
			assert_int_equal(health_flags(&x, 0), KERNEL_HEALTH_NON_FINITE);
		}
	printf("  a bad value is found at every place tried\n");
}

static void pixels(void **state)
{
	const int frames = 2, height = 12, width = 20, channels = 3, patch = 4;
	const size_t row = 64, frame = row * height, bytes = frame * frames;
	const size_t count = (size_t)frames * height * width * channels;
	unsigned char *source = test_malloc(bytes), *got = test_malloc(bytes);
	struct cuda_test_bytes in, out;
	struct cuda_tensor y;
	int worst = 0;

	(void)state;
	cuda_test_reset(&test, 6);
	for (size_t i = 0; i < bytes; i++)
		source[i] = (unsigned char)(i * 37 + i / 64);
	in = cuda_test_bytes(&test, source, bytes);
	y = cuda_test_output(&test, count, false);
	RUN(patchify,
	    BLOCK(.pixels = in.cpu, .row_bytes = row, .frame_bytes = frame, .y = y.cpu,
		  .frames = frames, .height = height, .width = width, .channels = channels,
		  .patch = patch),
	    BLOCK(.pixels = in.gpu, .row_bytes = row, .frame_bytes = frame, .y = y.gpu,
		  .frames = frames, .height = height, .width = width, .channels = channels,
		  .patch = patch));
	(void)cuda_test_compare(&test, KERNEL_OP_patchify, &y, CUDA_TOLERANCE, "patchify");

	y = cuda_test_random(&test, count, -1.2, 1.2, false);
	memset(source, 0, bytes);
	out = cuda_test_bytes(&test, source, bytes);
	for (int truncate = 0; truncate < 2; truncate++) {
		const enum kernel_rounding rounding = truncate ? KERNEL_ROUND_TRUNCATE :
								 KERNEL_ROUND_NEAREST;

		RUN(unpatchify,
		    BLOCK(.x = y.cpu, .pixels = out.cpu, .rounding = rounding, .row_bytes = row,
			  .frame_bytes = frame, .frames = frames, .height = height, .width = width,
			  .channels = channels, .patch = patch),
		    BLOCK(.x = y.gpu, .pixels = out.gpu, .rounding = rounding, .row_bytes = row,
			  .frame_bytes = frame, .frames = frames, .height = height, .width = width,
			  .channels = channels, .patch = patch));
		assert_int_equal(test.gpu.table->download(test.gpu.device, got, out.gpu, bytes,
							  test.gpu.queue),
				 0);
		assert_int_equal(test.gpu.table->queue_wait(test.gpu.device, test.gpu.queue), 0);
		for (size_t i = 0; i < bytes; i++) {
			const int d = abs(got[i] - ((unsigned char *)out.cpu)[i]);

			worst = d > worst ? d : worst;
		}
	}
	printf("  unpatchify: grey levels differ by %d at most\n", worst);
	assert_true(worst <= 1); /* F32 against FP64 before rounding */
	test_free(source);
	test_free(got);
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
	rope = ropes_make(3, 22, 40, 20, 18, 18);
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
		cmocka_unit_test(layer_norm),	  cmocka_unit_test(rms_norm),
		cmocka_unit_test(qk_norm_rope),	  cmocka_unit_test(rope_half),
		cmocka_unit_test(rope_shift),	  cmocka_unit_test(depthwise_glu),
		cmocka_unit_test(text_ops),	  cmocka_unit_test(latents),
		cmocka_unit_test(channel_affine), cmocka_unit_test(health),
		cmocka_unit_test(pixels),	  cmocka_unit_test(times),
	};

	return cmocka_run_group_tests(tests, open_all, close_all);
}
