/* Cases of every op, and the times that sana-bench --self-test takes at the published shapes. */
#include "base/util.h"
#include "tools/bench/op_check.h"
#include "tools/bench/self_test.h"

/* Smallest, odd, one past a tile, of the published model. */
static const struct linear_case linears[] = {
	{ .rows = 1, .in = 1, .parts = 1, .out = { 1 } },
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
	{ .rows = 257, .in = 520, .parts = 1, .out = { 776 }, .residual = true, .in_place = true },
	{ .rows = 300, .in = 256, .parts = 1, .out = { 320 }, .floats = true },
	{ .rows = 2640, .in = 384, .parts = 1, .out = { 2240 }, .bias = true },
	{ .rows = 880, .in = 2240, .parts = 4, .out = { 2240, 2240, 2240, 2240 }, .bias = true },
	{ .rows = 880,
	  .in = 2240,
	  .parts = 1,
	  .out = { 6720 },
	  .bias = true,
	  .activation = KERNEL_SILU },
};

static const struct temporal_case temporals[] = {
	{ 1, 1, 8, false, true, false, false },
	{ 3, 7, 64, true, true, true, true },
	{ 3, 144, 192, false, true, true, false },
	{ 3, 220, 2240, true, true, true, false },
};

static const struct attention_case attentions[] = {
	{ 3, { 5, 0, 2 }, 2, 1, 7, 3, .spread = 2 },
	{ 65, { 65, 129, 1 }, 3, 3, 112, 8, .gate = true, .spread = 2 },
	{ 28, { 28 }, 4, 2, 16, 0, .causal = true, .window = 8, .softcap = 50, .spread = 3 },
	{ 300, { 300 }, 8, 4, 256, 0, .causal = true, .mask = true, .softcap = 50, .spread = 2 },
	{ 129, { 17, 2900 }, 3, 3, 112, 0, .gate = true, .spread = 2 },
	{ 880, { 300 }, 20, 20, 112, 0, .in_place = true, .spread = 2 },
};

static const struct gdn_case gdns[] = {
	{ 2, 3, 5, 2, 32, 6, 5, 0, true, true },
	{ 3, 5, 13, 3, 80, 14, 13, 80, true, true },
	{ 4, 3, 4, 2, 112, 20, 18, 224, false, true },
	{ 3, 22, 40, 20, 112, 20, 18, 6720, true, true },
};

static const int gates[][4] = { { 2, 3, 7, 2 }, { 3, 65, 160, 2 }, { 3, 880, 2240, 20 } };

static const struct conv_case convs[] = {
	{ 1, 2, 2, 1, 1, KERNEL_PAD_REFLECT, CONTEXT_UNSET, .outputs = Y_NORM },
	{ 3, 5, 7, 11, 13, KERNEL_PAD_REFLECT, WHOLE_CLIP, .outputs = BOTH, .residual = 1,
	  .more_rows = 3 },
	{ 2, 4, 6, 3, 8, .resample = KERNEL_SPACE_TO_DEPTH, .stride = { 2, 2, 2 },
	  .context = CONTEXT_SET, .outputs = BOTH },
	{ 3, 17, 9, 72, 136, KERNEL_PAD_REFLECT, CONTEXT_SET, .outputs = BOTH, .residual = 1 },
	{ 1, 88, 160, 48, 128, KERNEL_PAD_ZERO, CONTEXT_SET, .outputs = BOTH },
	{ 1, 88, 160, 128, 128, KERNEL_PAD_REFLECT, CONTEXT_SET, .outputs = BOTH, .residual = 2 },
	{ 3, 22, 40, 256, 256, KERNEL_PAD_ZERO, CONTEXT_SET, .outputs = BOTH, .residual = 2 },
	{ 1, 44, 80, 512, 512, KERNEL_PAD_REFLECT, CONTEXT_SET, .outputs = BOTH, .residual = 2 },
	{ 1, 22, 40, 1024, 1024, KERNEL_PAD_REFLECT, CONTEXT_SET, .outputs = BOTH },
	{ 2, 44, 80, 128, 256, .resample = KERNEL_SPACE_TO_DEPTH, .stride = { 2, 2, 2 },
	  .context = CONTEXT_SET, .outputs = BOTH },
	{ 1,
	  22,
	  40,
	  512,
	  256,
	  KERNEL_PAD_REFLECT,
	  CONTEXT_SET,
	  KERNEL_DEPTH_TO_SPACE,
	  { 2, 2, 2 },
	  .outputs = BOTH },
};

const struct check_cases check_cases = {
	.linear = linears,
	.temporal = temporals,
	.attention = attentions,
	.gdn = gdns,
	.gate = gates,
	.conv = convs,
	.linears = ARRAY_SIZE(linears),
	.temporals = ARRAY_SIZE(temporals),
	.attentions = ARRAY_SIZE(attentions),
	.gdns = ARRAY_SIZE(gdns),
	.gates = ARRAY_SIZE(gates),
	.convs = ARRAY_SIZE(convs),
};

static const int rows[][2] = { { 1, 8 }, { 5, 224 }, { 37, 2240 }, { 9, 3080 } };
static const int qk_ropes[][9] = { { 2, 3, 5, 3, 10, 2, 2, 1, 1 },
				   { 3, 4, 5, 2, 112, 20, 18, 18, 8 },
				   { 3, 11, 7, 20, 112, 20, 18, 18, 6720 } };
static const int half_ropes[][4] = { { 1, 1, 2, 0 }, { 7, 3, 16, 5 }, { 33, 8, 256, 0 } };
static const int shifts[][6] = { { 5, 2, 112, 20, 0, 0 },
				 { 40, 1, 112, 20, 1, 1 },
				 { 9, 20, 112, 56, 1, 0 } };
static const int depthwise[][4] = { { 2, 3, 5, 6 }, { 3, 4, 21, 516 }, { 3, 22, 40, 672 } };

/* for each element `c` of an array, numbered by `i` */
#define EACH(array, call)                              \
	for (size_t i = 0; i < ARRAY_SIZE(array); i++) \
	call

void self_test_ops(struct cuda_test *test)
{
	EACH(rows, check_layer_norm(test, i, rows[i][0], rows[i][1]));
	EACH(rows, check_rms_norm(test, i, rows[i][0], rows[i][1], i % 2));
	EACH(qk_ropes, check_qk_norm_rope(test, i, qk_ropes[i]));
	EACH(half_ropes, check_rope_half(test, i, half_ropes[i]));
	EACH(shifts, check_rope_shift(test, i, shifts[i]));
	EACH(depthwise, check_depthwise_glu(test, i, depthwise[i]));
	check_text_ops(test);
	check_latents(test);
	check_channel_affine(test);
	check_health(test);
	check_pixels(test);
	EACH(linears, check_linear(test, 100 + i, &linears[i]));
	EACH(temporals, check_temporal(test, 500 + i, &temporals[i]));
	EACH(attentions, check_attention(test, i, &attentions[i]));
	EACH(gates, check_gates(test, i, gates[i]));
	EACH(gdns, check_gdn(test, i, &gdns[i]));
	EACH(convs, check_conv(test, 700 + i, &convs[i]));
}

/* ------------------------------------------------------------------------------------- times */

enum { RUNS = 20 };

static const struct linear_case timed_linears[] = {
	{ .rows = 2640, .in = 2240, .parts = 4, .out = { 2240, 2240, 2240, 2240 }, .bias = true },
	{ .rows = 2640,
	  .in = 2240,
	  .parts = 1,
	  .out = { 13440 },
	  .bias = true,
	  .activation = KERNEL_SILU },
	{ .rows = 2640,
	  .in = 2240,
	  .parts = 1,
	  .out = { 2240 },
	  .bias = true,
	  .residual = true,
	  .gate = true },
	{ .rows = 2640, .in = 2240, .parts = 1, .out = { 2240 }, .bias = true },
	{ .rows = 2640, .in = 6720, .parts = 1, .out = { 2240 } },
};

static const struct attention_case timed_attentions[] = {
	{ 2640, { 2640, 2640, 2640 }, 20, 20, 112, 6720, .gate = true, .spread = 1 },
	{ 2640, { 300 }, 20, 20, 112, 0, .spread = 1 },
};

/* One layer of each width, eight frames of its size. */
static const struct conv_case timed_convs[] = {
	{ 8, 176, 320, 128, 128, .context = CONTEXT_SET, .outputs = BOTH, .residual = 2 },
	{ 8, 88, 160, 256, 256, .context = CONTEXT_SET, .outputs = Y_NORM },
	{ 4, 88, 160, 512, 512, .context = CONTEXT_SET, .outputs = Y_NORM },
	{ 2, 44, 80, 1024, 1024, .context = CONTEXT_SET, .outputs = BOTH, .residual = 2 },
	{ 3, 22, 40, 1024, 1024, KERNEL_PAD_REFLECT, CONTEXT_SET, .outputs = Y_NORM },
};

void check_linear_times(struct cuda_test *test)
{
	struct linear_run run;

	for (size_t i = 0; i < ARRAY_SIZE(timed_linears); i++) {
		const struct linear_case *c = &timed_linears[i];

		cuda_test_reset(test, i);
		check_linear_fill(test, c, &run);
		(void)cuda_test_time(test, KERNEL_OP_linear, &run.gpu.workspace, RUNS,
				     "linear %d, %d x %d of %d", c->rows, c->parts, c->out[0],
				     c->in);
	}
}

void check_attention_times(struct cuda_test *test)
{
	struct attention_run run;

	for (size_t i = 0; i < ARRAY_SIZE(timed_attentions); i++) {
		const struct attention_case *c = &timed_attentions[i];

		cuda_test_reset(test, i);
		check_attention_fill(test, c, &run);
		(void)cuda_test_time(test, KERNEL_OP_attention, &run.gpu.workspace, RUNS,
				     "attention, %d queries, %d keys", c->rows,
				     c->tokens[0] + c->tokens[1] + c->tokens[2]);
	}
}

void check_gdn_times(struct cuda_test *test)
{
	struct gdn_run gdn;
	struct gates_run gate;

	cuda_test_reset(test, 1);
	check_gdn_fill(test, &gdns[ARRAY_SIZE(gdns) - 1], &gdn);
	(void)cuda_test_time(test, KERNEL_OP_gdn, &gdn.gpu.workspace, RUNS,
			     "gdn, 3 frames of 22x40, 20 heads of 112");
	cuda_test_reset(test, 1);
	check_gates_fill(test, gates[ARRAY_SIZE(gates) - 1], &gate);
	(void)cuda_test_time(test, KERNEL_OP_gdn_gates, &gate.gpu.workspace, RUNS,
			     "gates, 3 frames of 880, 20 heads");
}

static void conv_times(struct cuda_test *test)
{
	char what[100];

	for (size_t i = 0; i < ARRAY_SIZE(timed_convs); i++) {
		struct conv_run run = { 0 };

		cuda_test_reset(test, i);
		check_conv_fill(test, &timed_convs[i], &run);
		check_conv_describe(&timed_convs[i], what, sizeof(what));
		(void)cuda_test_time(test, KERNEL_OP_conv3d, &run.gpu.workspace, RUNS, "%s", what);
	}
}

void self_test_times(struct cuda_test *test)
{
	check_linear_times(test);
	check_attention_times(test);
	check_gdn_times(test);
	conv_times(test);
}
