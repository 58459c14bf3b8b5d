/* One case of each op on rows, single values and pixels. */
#include "tools/bench/op_check.h"

#include <math.h>

/* op(name, {block for the CPU}, {the same for the GPU}) */
#define RUN(name, cpu_block, gpu_block)                                                      \
	do {                                                                                 \
		struct kernel_##name on_cpu = cpu_block, on_gpu = gpu_block;                 \
		cuda_test_run(test, KERNEL_OP_##name, &on_cpu.workspace, &on_gpu.workspace); \
	} while (0)
#define BLOCK(...)          \
	{                   \
		__VA_ARGS__ \
	}

void check_layer_norm(struct cuda_test *test, uint64_t seed, int rows, int channels)
{
	const size_t count = (size_t)rows * channels;
	struct cuda_tensor x, scale, shift, y;

	cuda_test_reset(test, seed);
	x = cuda_test_random(test, count, -2, 3, false);
	scale = cuda_test_random(test, (size_t)channels, -0.5, 0.5, true);
	shift = cuda_test_random(test, (size_t)channels, -1, 1, true);
	y = cuda_test_output(test, count, false);
	RUN(layer_norm_modulate,
	    BLOCK(.x = x.cpu, .scale = scale.cpu, .shift = shift.cpu, .y = y.cpu, .epsilon = 1e-6f,
		  .rows = rows, .channels = channels),
	    BLOCK(.x = x.gpu, .scale = scale.gpu, .shift = shift.gpu, .y = y.gpu, .epsilon = 1e-6f,
		  .rows = rows, .channels = channels));
	(void)cuda_test_compare(test, KERNEL_OP_layer_norm_modulate, &y, CUDA_TOLERANCE,
				"layer_norm_modulate [%d][%d]", rows, channels);
}

void check_rms_norm(struct cuda_test *test, uint64_t seed, int rows, int channels,
		    bool with_residual)
{
	const size_t count = (size_t)rows * channels;
	struct cuda_tensor x, residual, weight, y;

	cuda_test_reset(test, seed);
	x = cuda_test_random(test, count, -2, 2, false);
	residual = cuda_test_random(test, count, -1, 1, false);
	weight = cuda_test_random(test, (size_t)channels, 0.5, 1.5, true);
	y = cuda_test_output(test, count, false);
	RUN(rms_norm,
	    BLOCK(.x = x.cpu, .residual = with_residual ? residual.cpu : NULL, .weight = weight.cpu,
		  .y = y.cpu, .weight_offset = (float)(with_residual), .epsilon = 1e-6f,
		  .rows = rows, .channels = channels),
	    BLOCK(.x = x.gpu, .residual = with_residual ? residual.gpu : NULL, .weight = weight.gpu,
		  .y = y.gpu, .weight_offset = (float)(with_residual), .epsilon = 1e-6f,
		  .rows = rows, .channels = channels));
	(void)cuda_test_compare(test, KERNEL_OP_rms_norm, &y, CUDA_TOLERANCE, "rms_norm [%d][%d]%s",
				rows, channels, with_residual ? ", residual" : "");
}

void check_qk_norm_rope(struct cuda_test *test, uint64_t seed, const int s[9])
{
	const int rows = s[0] * s[1] * s[2], channels = s[3] * s[4];
	const size_t ld = (size_t)channels + (size_t)s[8];
	const bool turns = s[5] + s[6] + s[7] > 0;
	struct cuda_tensor x, weight;
	struct ropes rope;

	cuda_test_reset(test, seed);
	x = cuda_test_random(test, rows * ld, -2, 2, false);
	weight = cuda_test_random(test, (size_t)channels, 0.5, 1.5, true);
	rope = check_ropes(test, s[0], s[1], s[2], s[5], s[6], s[7]);
	RUN(qk_norm_rope,
	    BLOCK(.x = x.cpu, .ldx = ld, .weight = weight.cpu, .rope = turns ? &rope.cpu : NULL,
		  .epsilon = 1e-6f, .rows = rows, .heads = s[3], .head_dim = s[4]),
	    BLOCK(.x = x.gpu, .ldx = ld, .weight = weight.gpu, .rope = turns ? &rope.gpu : NULL,
		  .epsilon = 1e-6f, .rows = rows, .heads = s[3], .head_dim = s[4]));
	(void)cuda_test_compare(test, KERNEL_OP_qk_norm_rope, &x, CUDA_TOLERANCE,
				"qk_norm_rope [%d][%d x %d], stride %zu", rows, s[3], s[4], ld);
}

void check_rope_half(struct cuda_test *test, uint64_t seed, const int s[4])
{
	const size_t ld = (size_t)s[1] * s[2] + (size_t)s[3];
	const float *cpu[2], *gpu[2];
	struct cuda_tensor x;

	cuda_test_reset(test, seed);
	x = cuda_test_random(test, (size_t)s[0] * ld, -2, 2, false);
	check_rotation(test, s[0], s[2] / 2, &cpu[0], &cpu[1], &gpu[0], &gpu[1]);
	RUN(rope_half,
	    BLOCK(.x = x.cpu, .ldx = ld, .cos = cpu[0], .sin = cpu[1], .rows = s[0], .heads = s[1],
		  .head_dim = s[2]),
	    BLOCK(.x = x.gpu, .ldx = ld, .cos = gpu[0], .sin = gpu[1], .rows = s[0], .heads = s[1],
		  .head_dim = s[2]));
	(void)cuda_test_compare(test, KERNEL_OP_rope_half, &x, CUDA_TOLERANCE,
				"rope_half [%d][%d x %d]", s[0], s[1], s[2]);
}

void check_rope_shift(struct cuda_test *test, uint64_t seed, const int s[6])
{
	const size_t count = (size_t)s[0] * s[1] * s[2];
	const float *cpu[2], *gpu[2];
	struct cuda_tensor x, y;

	cuda_test_reset(test, seed);
	x = cuda_test_random(test, count, -2, 2, s[4]);
	y = cuda_test_output(test, count, s[5]);
	check_rotation(test, 1, s[3], &cpu[0], &cpu[1], &gpu[0], &gpu[1]);
	/* On the CPU `act` is F32: the two types are one. */
	RUN(rope_shift,
	    BLOCK(.x = x.cpu, .y = y.cpu, .cos = cpu[0], .sin = cpu[1], .x_is_float = s[4],
		  .y_is_float = s[5], .rows = (size_t)s[0], .heads = s[1], .head_dim = s[2],
		  .pairs = s[3]),
	    BLOCK(.x = x.gpu, .y = y.gpu, .cos = gpu[0], .sin = gpu[1], .x_is_float = s[4],
		  .y_is_float = s[5], .rows = (size_t)s[0], .heads = s[1], .head_dim = s[2],
		  .pairs = s[3]));
	(void)cuda_test_compare(test, KERNEL_OP_rope_shift, &y,
				s[5] ? CUDA_FLOAT_TOLERANCE : CUDA_TOLERANCE,
				"rope_shift [%d][%d x %d], %d pairs, %s to %s", s[0], s[1], s[2],
				s[3], s[4] ? "F32" : "BF16", s[5] ? "F32" : "BF16");
}

void check_depthwise_glu(struct cuda_test *test, uint64_t seed, const int s[4])
{
	const size_t pixels = (size_t)s[0] * s[1] * s[2], f = (size_t)s[3];
	struct cuda_tensor a, weight, bias, y;

	cuda_test_reset(test, seed);
	a = cuda_test_random(test, pixels * 2 * f, -2, 2, false);
	weight = cuda_test_random(test, 9 * 2 * f, -0.5, 0.5, true);
	bias = cuda_test_random(test, 2 * f, -0.5, 0.5, true);
	y = cuda_test_output(test, pixels * f, false);
	RUN(depthwise_glu,
	    BLOCK(.a = a.cpu, .weight = weight.cpu, .bias = bias.cpu, .y = y.cpu, .frames = s[0],
		  .height = s[1], .width = s[2], .features = s[3]),
	    BLOCK(.a = a.gpu, .weight = weight.gpu, .bias = bias.gpu, .y = y.gpu, .frames = s[0],
		  .height = s[1], .width = s[2], .features = s[3]));
	(void)cuda_test_compare(test, KERNEL_OP_depthwise_glu, &y, CUDA_TOLERANCE,
				"depthwise_glu [%d][%d][%d][2 x %d]", s[0], s[1], s[2], s[3]);
}

struct ropes check_ropes(struct cuda_test *test, int frames, int height, int width, int t, int y,
			 int x)
{
	struct ropes r = { .cpu = { .frames = frames,
				    .height = height,
				    .width = width,
				    .pairs_t = t,
				    .pairs_y = y,
				    .pairs_x = x } };

	r.gpu = r.cpu;
	check_rotation(test, frames, t, &r.cpu.cos_t, &r.cpu.sin_t, &r.gpu.cos_t, &r.gpu.sin_t);
	check_rotation(test, height, y, &r.cpu.cos_y, &r.cpu.sin_y, &r.gpu.cos_y, &r.gpu.sin_y);
	check_rotation(test, width, x, &r.cpu.cos_x, &r.cpu.sin_x, &r.gpu.cos_x, &r.gpu.sin_x);
	return r;
}

void check_text_ops(struct cuda_test *test)
{
	const int rows = 13, channels = 72, vocabulary = 50;
	const size_t count = (size_t)rows * channels;
	struct cuda_tensor gate, up, y;
	struct cuda_test_bytes ids;
	struct cuda_weight words;
	int32_t id[13];

	cuda_test_reset(test, 3);
	gate = cuda_test_random(test, count, -4, 4, false);
	up = cuda_test_random(test, count, -2, 2, false);
	y = cuda_test_output(test, count, false);
	RUN(glu_gelu,
	    BLOCK(.gate = gate.cpu, .up = up.cpu, .y = y.cpu, .rows = rows, .columns = channels),
	    BLOCK(.gate = gate.gpu, .up = up.gpu, .y = y.gpu, .rows = rows, .columns = channels));
	(void)cuda_test_compare(test, KERNEL_OP_glu_gelu, &y, CUDA_TOLERANCE, "glu_gelu");

	for (int i = 0; i < rows; i++)
		id[i] = (i * 17 + 49) % vocabulary;
	ids = cuda_test_bytes(test, id, sizeof(id));
	words = cuda_test_weight(test, vocabulary, channels, 1, 0, 1, 8.0);
	y = cuda_test_output(test, count, false);
	RUN(embedding,
	    BLOCK(.table = &words.cpu, .ids = ids.cpu, .scale = 48.0f, .y = y.cpu, .rows = rows),
	    BLOCK(.table = &words.gpu, .ids = ids.gpu, .scale = 48.0f, .y = y.gpu, .rows = rows));
	(void)cuda_test_compare(test, KERNEL_OP_embedding, &y, CUDA_TOLERANCE, "embedding");
}

void check_latents(struct cuda_test *test)
{
	const int rows = 101, a = 16, b = 7;
	const uint64_t seed_value = 0x123456789abcdef0, frame_value = 0xfffffffeull;
	const float step_value = -0.25f;
	struct cuda_tensor xa, xb, v, y;
	struct cuda_test_bytes step, seed, frame;

	cuda_test_reset(test, 4);
	xa = cuda_test_random(test, (size_t)rows * a, -2, 2, true);
	xb = cuda_test_random(test, (size_t)rows * b, -2, 2, true);
	y = cuda_test_output(test, (size_t)rows * (a + b), false);
	RUN(concat,
	    BLOCK(.a = xa.cpu, .b = xb.cpu, .y = y.cpu, .rows = rows, .channels_a = a,
		  .channels_b = b),
	    BLOCK(.a = xa.gpu, .b = xb.gpu, .y = y.gpu, .rows = rows, .channels_a = a,
		  .channels_b = b));
	(void)cuda_test_compare(test, KERNEL_OP_concat, &y, CUDA_TOLERANCE, "concat");

	v = cuda_test_random(test, (size_t)rows * a, -2, 2, false);
	step = cuda_test_bytes(test, &step_value, sizeof(step_value));
	RUN(euler_step, BLOCK(.x = xa.cpu, .v = v.cpu, .step = step.cpu, .count = xa.count),
	    BLOCK(.x = xa.gpu, .v = v.gpu, .step = step.gpu, .count = xa.count));
	(void)cuda_test_compare(test, KERNEL_OP_euler_step, &xa, CUDA_FLOAT_TOLERANCE,
				"euler_step");

	seed = cuda_test_bytes(test, &seed_value, sizeof(seed_value));
	frame = cuda_test_bytes(test, &frame_value, sizeof(frame_value));
	y = cuda_test_output(test, 4 * 5 * 6 * 7, true);
	RUN(noise,
	    BLOCK(.y = y.cpu, .seed = seed.cpu, .first_frame = frame.cpu, .frames = 4, .height = 5,
		  .width = 6, .channels = 7),
	    BLOCK(.y = y.gpu, .seed = seed.gpu, .first_frame = frame.gpu, .frames = 4, .height = 5,
		  .width = 6, .channels = 7));
	/* FP64 on both sides, log and cos of two libraries, rounded to F32: 6e-8 at most. */
	(void)cuda_test_compare(test, KERNEL_OP_noise, &y, 1e-7, "noise");
}

void check_channel_affine(struct cuda_test *test)
{
	for (int mode = 0; mode < 4; mode++) {
		const int rows = 57, channels = 16;
		const size_t ld = 17;
		struct cuda_tensor x, scale, shift, y;

		cuda_test_reset(test, 20 + (uint64_t)mode);
		x = cuda_test_random(test, rows * ld, -2, 2, mode & 1);
		scale = cuda_test_random(test, (size_t)channels, 0.5, 2, true);
		shift = cuda_test_random(test, (size_t)channels, -1, 1, true);
		y = cuda_test_output(test, (size_t)rows * channels, mode & 2);
		RUN(channel_affine,
		    BLOCK(.x = x.cpu, .y = y.cpu, .x_is_float = mode & 1, .y_is_float = mode & 2,
			  .scale = scale.cpu, .shift = shift.cpu, .rows = rows, .ldx = ld,
			  .channels = channels),
		    BLOCK(.x = x.gpu, .y = y.gpu, .x_is_float = mode & 1, .y_is_float = mode & 2,
			  .scale = scale.gpu, .shift = shift.gpu, .rows = rows, .ldx = ld,
			  .channels = channels));
		(void)cuda_test_compare(test, KERNEL_OP_channel_affine, &y,
					mode & 2 ? CUDA_FLOAT_TOLERANCE : CUDA_TOLERANCE,
					"channel_affine, %s to %s", mode & 1 ? "F32" : "BF16",
					mode & 2 ? "F32" : "BF16");
	}
}

static uint32_t health_flags(struct cuda_test *test, const struct cuda_tensor *x, uint32_t before)
{
	const struct cuda_test_bytes flags = cuda_test_bytes(test, &before, sizeof(before));
	struct kernel_health cpu = { .x = x->cpu,
				     .x_is_float = true,
				     .count = x->count,
				     .limit = 100.0f,
				     .flags = flags.cpu };
	struct kernel_health gpu = cpu;
	uint32_t got = 0xffff, wanted;

	gpu.x = x->gpu;
	gpu.x_is_float = x->is_float;
	gpu.flags = flags.gpu;
	cuda_test_run(test, KERNEL_OP_health, &cpu.workspace, &gpu.workspace);
	memcpy(&wanted, flags.cpu, sizeof(wanted));
	if (!test->gpu.table)
		return wanted;
	cuda_test_fetch(test, &got, flags.gpu, sizeof(got));
	return got == wanted ? got : 0xffff;
}

/* One bad value at every place of a tensor that has a tail, in both types. */
void check_health(struct cuda_test *test)
{
	enum { COUNT = 1003 };
	static const uint32_t both = KERNEL_HEALTH_TOO_LARGE | KERNEL_HEALTH_NON_FINITE;
	float values[COUNT];
	bool right = true;

	for (int is_float = 0; is_float < 2; is_float++)
		for (int at = 0; at < COUNT; at += 167) {
			struct cuda_tensor x;

			cuda_test_reset(test, 5);
			for (int i = 0; i < COUNT; i++)
				values[i] = (float)(i % 199) - 99.0f;
			x = cuda_test_values(test, values, COUNT, is_float);
			right &= health_flags(test, &x, 0) == 0 && health_flags(test, &x, 4) == 4;
			values[at] = -101.0f;
			x = cuda_test_values(test, values, COUNT, is_float);
			right &= health_flags(test, &x, 0) == KERNEL_HEALTH_TOO_LARGE;
			values[at] = (float)INFINITY;
			x = cuda_test_values(test, values, COUNT, true);
			right &= health_flags(test, &x, 0) == both;
			values[at] = (float)NAN;
			x = cuda_test_values(test, values, COUNT, true);
			right &= health_flags(test, &x, 0) == KERNEL_HEALTH_NON_FINITE;
		}
	cuda_test_state(test, KERNEL_OP_health, right, "a bad value is found at every place tried");
}

void check_pixels(struct cuda_test *test)
{
	const int frames = 2, height = 12, width = 20, channels = 3, patch = 4;
	const size_t row = 64, frame = row * height, bytes = frame * frames;
	const size_t count = (size_t)frames * height * width * channels;
	unsigned char source[64 * 12 * 2], got[sizeof(source)];
	struct cuda_test_bytes in, out;
	struct cuda_tensor y;
	int worst = 0;

	cuda_test_reset(test, 6);
	for (size_t i = 0; i < bytes; i++)
		source[i] = (unsigned char)(i * 37 + i / 64);
	in = cuda_test_bytes(test, source, bytes);
	y = cuda_test_output(test, count, false);
	RUN(patchify,
	    BLOCK(.pixels = in.cpu, .row_bytes = row, .frame_bytes = frame, .y = y.cpu,
		  .frames = frames, .height = height, .width = width, .channels = channels,
		  .patch = patch),
	    BLOCK(.pixels = in.gpu, .row_bytes = row, .frame_bytes = frame, .y = y.gpu,
		  .frames = frames, .height = height, .width = width, .channels = channels,
		  .patch = patch));
	(void)cuda_test_compare(test, KERNEL_OP_patchify, &y, CUDA_TOLERANCE, "patchify");

	y = cuda_test_random(test, count, -1.2, 1.2, false);
	memset(source, 0, bytes);
	out = cuda_test_bytes(test, source, bytes);
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
		if (!test->gpu.table)
			continue;
		cuda_test_fetch(test, got, out.gpu, bytes);
		for (size_t i = 0; i < bytes; i++) {
			const int d = abs(got[i] - ((unsigned char *)out.cpu)[i]);

			worst = d > worst ? d : worst;
		}
	}
	/* F32 against FP64 before rounding. */
	cuda_test_state(test, KERNEL_OP_unpatchify, worst <= 1, "grey levels differ by 1 at most");
}
