/* One case of each op that multiplies matrices and convolves. */
#include "tools/bench/op_check.h"

#include <assert.h>

static void part_fill(struct cuda_test *test, const struct linear_case *c, int i,
		      struct linear_run *run)
{
	const int out = c->out[i];
	const size_t ld = (size_t)out + c->pad, count = (size_t)c->rows * ld;
	const struct cuda_tensor bias = cuda_test_random(test, (size_t)out, -1, 1, true);
	const struct cuda_tensor gate = cuda_test_random(test, (size_t)out, -1, 1, true);
	const struct cuda_tensor residual = cuda_test_random(test, count, -1, 1, false);
	struct kernel_linear_part *cpu = &run->cpu.part[i], *gpu = &run->gpu.part[i];

	run->weight[i] = cuda_test_weight(test, out, c->in, 1, 0, 1, 1.0);
	run->y[i] = c->in_place ? residual : cuda_test_output(test, count, c->floats);
	*cpu = (struct kernel_linear_part){
		.weight = &run->weight[i].cpu,
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
	gpu->weight = &run->weight[i].gpu;
	gpu->bias = c->bias ? bias.gpu : NULL;
	gpu->residual = c->residual ? residual.gpu : NULL;
	gpu->gate = c->gate ? gate.gpu : NULL;
	gpu->y = run->y[i].gpu;
}

void check_linear_fill(struct cuda_test *test, const struct linear_case *c, struct linear_run *run)
{
	const size_t ldx = (size_t)c->in + c->pad;
	const struct cuda_tensor x =
		cuda_test_random(test, (size_t)c->rows * ldx, -1.7, 1.7, false);

	*run = (struct linear_run){
		.cpu = { .x = x.cpu, .ldx = ldx, .rows = c->rows, .parts = c->parts }
	};
	run->gpu = run->cpu;
	run->gpu.x = x.gpu;
	for (int i = 0; i < c->parts; i++)
		part_fill(test, c, i, run);
}

/* Padding between rows is poison on one side and values on the other: only rows are compared. */
static void padding_agree(struct cuda_test *test, const struct linear_case *c,
			  const struct cuda_tensor *y, int out)
{
	const size_t ld = (size_t)out + c->pad;
	const size_t size = y->is_float ? 4 : 2;
	const uint64_t zero[2] = { 0, 0 };

	for (int n = 0; n < c->rows && c->pad; n++) {
		const size_t at = (size_t)n * ld + (size_t)out;

		memset(y->cpu + at, 0, c->pad * sizeof(float));
		assert(c->pad * size <= sizeof(zero));
		if (test->gpu.table)
			cuda_test_send(test, (char *)y->gpu + at * size, zero, c->pad * size);
	}
}

void check_linear(struct cuda_test *test, uint64_t seed, const struct linear_case *c)
{
	struct linear_run run;

	cuda_test_reset(test, seed);
	check_linear_fill(test, c, &run);
	cuda_test_run(test, KERNEL_OP_linear, &run.cpu.workspace, &run.gpu.workspace);
	for (int p = 0; p < c->parts; p++) {
		padding_agree(test, c, &run.y[p], c->out[p]);
		(void)cuda_test_compare(test, KERNEL_OP_linear, &run.y[p],
					c->floats ? CUDA_FLOAT_TOLERANCE : CUDA_TOLERANCE,
					"linear %d×%d×%d%s%s%s%s", c->rows, c->in, c->out[p],
					c->bias ? " bias" : "", c->residual ? " residual" : "",
					c->gate ? " gate" : "", c->in_place ? " in place" : "");
	}
}

void check_temporal(struct cuda_test *test, uint64_t seed, const struct temporal_case *c)
{
	const size_t frame = (size_t)c->tokens * (size_t)c->channels;
	const size_t count = frame * (size_t)c->frames;
	struct kernel_temporal_conv cpu, gpu;
	struct cuda_tensor x, r, left, left_out, gate;
	struct cuda_weight w;

	cuda_test_reset(test, seed);
	x = cuda_test_random(test, count, -1, 1, false);
	r = cuda_test_random(test, count, -1, 1, false);
	left = cuda_test_random(test, frame, -1, 1, false);
	left_out = c->in_place ? left : cuda_test_output(test, frame, false);
	gate = cuda_test_random(test, (size_t)c->channels, -1, 1, true);
	w = cuda_test_weight(test, c->channels, c->channels, 3, 0, 3, 1.0);
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
	cuda_test_run(test, KERNEL_OP_temporal_conv, &cpu.workspace, &gpu.workspace);
	(void)cuda_test_compare(test, KERNEL_OP_temporal_conv, &x, CUDA_TOLERANCE,
				"temporal %d×%d×%d%s%s", c->frames, c->tokens, c->channels,
				c->left ? " left" : "", c->gate ? " gate" : "");
	/* A copy: exact. */
	if (c->left_out)
		(void)cuda_test_compare(test, KERNEL_OP_temporal_conv, &left_out, 0,
					"temporal, left_out");
}

static int phases(const struct conv_case *c)
{
	return c->resample == KERNEL_RESAMPLE_NONE ? 1 : c->stride[0] * c->stride[1] * c->stride[2];
}

int check_conv_channels(const struct conv_case *c)
{
	return c->resample == KERNEL_SPACE_TO_DEPTH ? c->cout / phases(c) :
	       c->resample == KERNEL_DEPTH_TO_SPACE ? c->cout * phases(c) :
						      c->cout;
}

static size_t output_count(const struct conv_case *c)
{
	const size_t pixels = (size_t)c->frames * c->height * c->width;
	const size_t frame = (size_t)c->height * c->width * c->stride[1] * c->stride[2];

	if (c->resample == KERNEL_SPACE_TO_DEPTH)
		return pixels / phases(c) * c->cout;
	if (c->resample == KERNEL_DEPTH_TO_SPACE)
		return (c->frames * c->stride[0] - c->drop) * frame * c->cout;
	return pixels * c->cout;
}

void check_conv_fill(struct cuda_test *test, const struct conv_case *c, struct conv_run *run)
{
	const size_t frame = (size_t)c->height * c->width * c->cin, count = output_count(c);
	struct kernel_conv3d *cpu = &run->cpu, *gpu = &run->gpu;

	*cpu = (struct kernel_conv3d){
		.context_set = c->context == CONTEXT_SET,
		.padding = c->padding,
		.resample = c->resample,
		.stride_t = c->stride[0],
		.stride_h = c->stride[1],
		.stride_w = c->stride[2],
		.drop_first_frame = c->drop,
		.frames = c->frames,
		.height = c->height,
		.width = c->width,
		.cin = c->cin,
		.cout = c->cout,
	};
	*gpu = *cpu;
	run->x = cuda_test_random(test, c->frames * frame, -1, 1, false);
	cpu->x = run->x.cpu, gpu->x = run->x.gpu;
	if (c->context != WHOLE_CLIP) {
		/* NaN where it must not be read. */
		run->context = c->context == CONTEXT_SET ?
				       cuda_test_random(test, 2 * frame, -1, 1, false) :
				       cuda_test_output(test, 2 * frame, false);
		cpu->context = run->context.cpu, gpu->context = run->context.gpu;
	}
	run->weight = cuda_test_weight(test, check_conv_channels(c) + c->more_rows, c->cin, 27, 0,
				       27, 1.0);
	cpu->weight = &run->weight.cpu, gpu->weight = &run->weight.gpu;
	run->bias = cuda_test_random(test, (size_t)check_conv_channels(c), -1, 1, true);
	cpu->bias = run->bias.cpu, gpu->bias = run->bias.gpu;
	if (c->residual) {
		run->residual = cuda_test_random(test, count, -1, 1, false);
		cpu->residual = run->residual.cpu, gpu->residual = run->residual.gpu;
	}
	if (c->outputs & Y) {
		run->y = c->residual == 2 ? run->residual : cuda_test_output(test, count, false);
		cpu->y = run->y.cpu, gpu->y = run->y.gpu;
	}
	if (c->outputs & Y_NORM) {
		run->y_norm = cuda_test_output(test, count, false);
		cpu->y_norm = run->y_norm.cpu, gpu->y_norm = run->y_norm.gpu;
	}
}

void check_conv_describe(const struct conv_case *c, char *text, size_t bytes)
{
	static const char *const resample[] = { "", " down", " up" };
	static const char *const context[] = { "clip", "first", "next" };

	(void)snprintf(text, bytes, "%dx%dx%d %d>%d %s %s%s %d%d%d%s r%d", c->frames, c->height,
		       c->width, c->cin, c->cout, c->padding ? "reflect" : "zero",
		       context[c->context], resample[c->resample], c->stride[0], c->stride[1],
		       c->stride[2], c->drop ? " drop" : "", c->residual);
}

void check_conv_compare(struct cuda_test *test, const struct conv_case *c,
			const struct conv_run *run, const char *text)
{
	if (run->cpu.y)
		(void)cuda_test_compare(test, KERNEL_OP_conv3d, &run->y, CUDA_TOLERANCE, "y %s",
					text);
	/* The norm may read the rounded value. */
	if (run->cpu.y_norm)
		(void)cuda_test_compare(test, KERNEL_OP_conv3d, &run->y_norm, CUDA_CHAIN_TOLERANCE,
					"y_norm %s", text);
	if (c->context != WHOLE_CLIP)
		(void)cuda_test_compare(test, KERNEL_OP_conv3d, &run->context, 0, "context %s",
					text);
}

void check_conv(struct cuda_test *test, uint64_t seed, const struct conv_case *c)
{
	struct conv_run run = { 0 };
	char text[100];

	cuda_test_reset(test, seed);
	check_conv_fill(test, c, &run);
	check_conv_describe(c, text, sizeof(text));
	cuda_test_run(test, KERNEL_OP_conv3d, &run.cpu.workspace, &run.gpu.workspace);
	check_conv_compare(test, c, &run, text);
}
