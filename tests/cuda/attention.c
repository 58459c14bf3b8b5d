/* Softmax attention and the gated delta rule on the GPU against the CPU back end. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "tests/common/cuda_test.h"

static struct cuda_test test;

/* ------------------------------------------------------------------------------ softmax attention */

struct attention_case {
	int rows, tokens[KERNEL_SEGMENTS], heads, kv_heads, head_dim;
	size_t pad; /* added to the strides of q, k, v and gate */
	bool gate, causal, mask, in_place;
	int window;
	float softcap, spread; /* of q and k */
};

static const struct attention_case attention_cases[] = {
	{ 1, { 1 }, 1, 1, 1, 0, .spread = 1 },
	{ 3, { 5, 0, 2 }, 2, 1, 7, 3, .spread = 2 },
	{ 64, { 64 }, 2, 2, 112, 0, .spread = 1 },
	{ 65, { 65, 129, 1 }, 3, 3, 112, 8, .gate = true, .spread = 2 },
	{ 100, { 63, 64, 65 }, 2, 2, 80, 16, .gate = true, .in_place = true, .spread = 2 },
	{ 130, { 16, 300 }, 6, 6, 32, 0, .spread = 4 },
	{ 70, { 31 }, 4, 2, 112, 0, .in_place = true, .spread = 1 },
	/* large scores: one key takes nearly all of the weight */
	{ 67, { 200 }, 2, 2, 112, 0, .gate = true, .spread = 12 },
	/* the text encoder's */
	{ 28, { 28 }, 4, 2, 16, 0, .causal = true, .window = 8, .softcap = 50, .spread = 3 },
	{ 300, { 300 }, 8, 4, 256, 0, .causal = true, .mask = true, .softcap = 50, .spread = 2 },
	/* the published model's, with a shorter window */
	/* many keys: items of several blocks */
	{ 129, { 17, 2900 }, 3, 3, 112, 0, .gate = true, .spread = 2 },
	{ 300, { 2112, 49, 1 }, 4, 2, 80, 0, .gate = true, .in_place = true, .spread = 3 },
	{ 880, { 880, 880, 880 }, 20, 20, 112, 6720, .gate = true, .spread = 2 },
	{ 2640, { 300 }, 20, 20, 112, 0, .in_place = true, .spread = 2 },
};

/* The same block for both sides. */
struct attention_run {
	struct kernel_attention cpu, gpu;
	struct cuda_tensor y;
};

static void attention_fill(const struct attention_case *c, struct attention_run *run)
{
	const size_t columns = (size_t)c->heads * c->head_dim;
	const size_t kv = (size_t)c->kv_heads * c->head_dim, ldq = columns + c->pad;
	const double spread = c->spread;
	struct cuda_tensor q, gate;

	run->cpu = (struct kernel_attention){
		.ldq = ldq,
		.ldg = ldq,
		.ldy = c->in_place ? ldq : columns,
		.segments = KERNEL_SEGMENTS,
		.rows = c->rows,
		.heads = c->heads,
		.kv_heads = c->kv_heads,
		.head_dim = c->head_dim,
		.scale = 1.0f / sqrtf((float)c->head_dim),
		.softcap = c->softcap,
		.causal = c->causal,
		.window = c->window,
	};
	run->gpu = run->cpu;
	q = cuda_test_random(&test, (size_t)c->rows * ldq, -spread, spread, false);
	gate = cuda_test_random(&test, (size_t)c->rows * ldq, -3, 3, false);
	run->y = c->in_place ? q : cuda_test_output(&test, (size_t)c->rows * columns, false);
	run->cpu.q = q.cpu, run->gpu.q = q.gpu;
	run->cpu.y = run->y.cpu, run->gpu.y = run->y.gpu;
	if (c->gate)
		run->cpu.gate = gate.cpu, run->gpu.gate = gate.gpu;
	for (int i = 0; i < KERNEL_SEGMENTS; i++) {
		const size_t count = (size_t)c->tokens[i] * (kv + c->pad);
		const struct cuda_tensor k =
			cuda_test_random(&test, count + 1, -spread, spread, false);
		const struct cuda_tensor v = cuda_test_random(&test, count + 1, -1, 2, false);

		run->cpu.segment[i] =
			(struct kernel_segment){ k.cpu, v.cpu, kv + c->pad, c->tokens[i] };
		run->gpu.segment[i] =
			(struct kernel_segment){ k.gpu, v.gpu, kv + c->pad, c->tokens[i] };
	}
	if (c->mask) {
		const int keys = c->tokens[0] + c->tokens[1] + c->tokens[2];
		uint8_t *mask = test_malloc((size_t)keys);
		struct cuda_test_bytes both;

		for (int j = 0; j < keys; j++)
			mask[j] = j % 7 != 0;
		both = cuda_test_bytes(&test, mask, (size_t)keys);
		test_free(mask);
		run->cpu.key_mask = both.cpu, run->gpu.key_mask = both.gpu;
	}
}

static void attention(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(attention_cases); i++) {
		const struct attention_case *c = &attention_cases[i];
		struct attention_run run;

		cuda_test_reset(&test, i);
		attention_fill(c, &run);
		cuda_test_run(&test, KERNEL_OP_attention, &run.cpu.workspace, &run.gpu.workspace);
		/* The softmax weights are rounded too, as operands of the second product. */
		(void)cuda_test_compare(&test, KERNEL_OP_attention, &run.y, CUDA_CHAIN_TOLERANCE,
					"%d queries, %d+%d+%d keys, %d heads of %d", c->rows,
					c->tokens[0], c->tokens[1], c->tokens[2], c->heads,
					c->head_dim);
	}
}

/* ------------------------------------------------------------------------------ the delta rule */

struct gdn_case {
	int frames, height, width, heads, head_dim, pairs_t, pairs_y;
	size_t pad;
	bool state, state_out;
};

static const struct gdn_case gdn_cases[] = {
	{ 1, 1, 1, 1, 32, 16, 0, 0, false, false },
	{ 2, 3, 5, 2, 32, 6, 5, 0, true, true },
	{ 3, 5, 13, 3, 80, 14, 13, 80, true, true },
	{ 4, 3, 4, 2, 112, 20, 18, 224, false, true },
	{ 3, 8, 8, 2, 112, 20, 18, 0, true, false },
	{ 3, 22, 40, 20, 112, 20, 18, 6720, true, true },
};

static void table(int rows, int pairs, const float **cpu_cos, const float **cpu_sin,
		  const float **gpu_cos, const float **gpu_sin)
{
	struct cuda_tensor angle = cuda_test_random(&test, (size_t)rows * pairs + 1, -3, 3, true);
	float *cosines = test_malloc(angle.count * sizeof(float));
	float *sines = test_malloc(angle.count * sizeof(float));
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

struct gdn_run {
	struct kernel_rope rope[2];
	struct kernel_gdn cpu, gpu;
	struct cuda_tensor wide, beta, y, state, normaliser;
};

static void gdn_pointers(struct kernel_gdn *op, const struct kernel_rope *rope, void *wide,
			 size_t c, size_t bytes)
{
	op->rope = rope;
	op->q = wide;
	op->k = (char *)wide + c * bytes;
	op->v = (char *)wide + 2 * c * bytes;
	op->gate = (char *)wide + 3 * c * bytes;
}

static void gdn_fill(const struct gdn_case *c, struct gdn_run *run)
{
	const size_t channels = (size_t)c->heads * c->head_dim, ld = 4 * channels + c->pad;
	const size_t rows = (size_t)c->frames * c->height * c->width;
	const size_t matrix = channels * c->head_dim;
	const struct cuda_tensor wide = cuda_test_random(&test, rows * ld, -1, 1, false);
	const struct cuda_tensor q_norm = cuda_test_random(&test, channels, 0.5, 1.5, true);
	const struct cuda_tensor k_norm = cuda_test_random(&test, channels, 0.5, 1.5, true);
	const struct cuda_tensor beta = cuda_test_random(&test, rows * c->heads, 0.1, 0.9, true);
	const struct cuda_tensor decay =
		cuda_test_random(&test, (size_t)c->frames * c->heads, 0.7, 1, true);
	struct kernel_rope *cpu = &run->rope[0], *gpu = &run->rope[1];

	*cpu = (struct kernel_rope){ .frames = c->frames,
				     .height = c->height,
				     .width = c->width,
				     .pairs_t = c->pairs_t,
				     .pairs_y = c->pairs_y,
				     .pairs_x = c->head_dim / 2 - c->pairs_t - c->pairs_y };
	*gpu = *cpu;
	table(c->frames, cpu->pairs_t, &cpu->cos_t, &cpu->sin_t, &gpu->cos_t, &gpu->sin_t);
	table(c->height, cpu->pairs_y, &cpu->cos_y, &cpu->sin_y, &gpu->cos_y, &gpu->sin_y);
	table(c->width, cpu->pairs_x, &cpu->cos_x, &cpu->sin_x, &gpu->cos_x, &gpu->sin_x);
	run->state = cuda_test_random(&test, matrix, -0.1, 0.1, true);
	/* The denominator is a sum of products of what is not negative. */
	run->normaliser = cuda_test_random(&test, channels, 0.5, 1, true);
	run->wide = wide;
	run->beta = beta;
	run->y = cuda_test_output(&test, rows * channels, false);
	run->cpu = (struct kernel_gdn){
		.ld = ld,
		.q_norm = q_norm.cpu,
		.k_norm = k_norm.cpu,
		.beta = beta.cpu,
		.decay = decay.cpu,
		.y = run->y.cpu,
		.epsilon = 1e-5f,
		.heads = c->heads,
		.head_dim = c->head_dim,
	};
	run->gpu = run->cpu;
	run->gpu.q_norm = q_norm.gpu, run->gpu.k_norm = k_norm.gpu;
	run->gpu.beta = beta.gpu, run->gpu.decay = decay.gpu, run->gpu.y = run->y.gpu;
	gdn_pointers(&run->cpu, cpu, wide.cpu, channels, sizeof(float));
	gdn_pointers(&run->gpu, gpu, wide.gpu, channels, sizeof(uint16_t));
	if (c->state) {
		run->cpu.state_in = run->state.cpu, run->gpu.state_in = run->state.gpu;
		run->cpu.normaliser_in = run->normaliser.cpu;
		run->gpu.normaliser_in = run->normaliser.gpu;
	}
	if (c->state_out) {
		run->cpu.state_out = run->state.cpu, run->gpu.state_out = run->state.gpu;
		run->cpu.normaliser_out = run->normaliser.cpu;
		run->gpu.normaliser_out = run->normaliser.gpu;
	}
}

static void gdn(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(gdn_cases); i++) {
		const struct gdn_case *c = &gdn_cases[i];
		struct gdn_run run;

		cuda_test_reset(&test, i);
		gdn_fill(c, &run);
		cuda_test_run(&test, KERNEL_OP_gdn, &run.cpu.workspace, &run.gpu.workspace);
		/* Normed and turned q and k, and the state read, are rounded before their products. */
		(void)cuda_test_compare(&test, KERNEL_OP_gdn, &run.y, 2 * CUDA_CHAIN_TOLERANCE,
					"gdn %d frames of %dx%d, %d heads of %d", c->frames,
					c->height, c->width, c->heads, c->head_dim);
		if (!c->state_out)
			continue;
		(void)cuda_test_compare(&test, KERNEL_OP_gdn, &run.state, CUDA_CHAIN_TOLERANCE,
					"  state");
		(void)cuda_test_compare(&test, KERNEL_OP_gdn, &run.normaliser, CUDA_CHAIN_TOLERANCE,
					"  normaliser");
	}
}

/*
 * The same tokens for both sides, chunk after chunk, each with its own state. Errors of a chunk are
 * forgotten with the state (decays below 1), so that they must not grow: at most half more after 200
 * chunks than after 10. The limit of 5e-3 is four roundings to BF16.
 */
static void gdn_drift(void **state)
{
	static const struct gdn_case c = { 3, 11, 20, 4, 112, 20, 18, 0, true, true };
	struct gdn_run run;
	double early[2] = { 0 };

	(void)state;
	cuda_test_reset(&test, 77);
	gdn_fill(&c, &run);
	for (int chunk = 1; chunk <= 200; chunk++) {
		double s, z;

		cuda_test_refill(&test, &run.wide, -1, 1);
		cuda_test_refill(&test, &run.beta, 0.1, 0.9);
		cuda_test_run(&test, KERNEL_OP_gdn, &run.cpu.workspace, &run.gpu.workspace);
		if (chunk != 10 && chunk != 50 && chunk != 100 && chunk != 200)
			continue;
		s = cuda_test_compare(&test, KERNEL_OP_gdn, &run.state, 5e-3, "state, chunk %d",
				      chunk);
		z = cuda_test_compare(&test, KERNEL_OP_gdn, &run.normaliser, 5e-3,
				      "normaliser, chunk %d", chunk);
		if (chunk == 10)
			early[0] = s, early[1] = z;
		assert_true(s <= 1.5 * early[0]);
		assert_true(z <= 1.5 * early[1]);
	}
}

/* frames, tokens, channels, heads */
static const int gate_cases[][4] = {
	{ 1, 1, 8, 1 },	   { 2, 3, 7, 2 },    { 3, 17, 224, 2 },
	{ 3, 65, 160, 2 }, { 2, 33, 64, 33 }, { 3, 880, 2240, 20 },
};

struct gates_run {
	struct kernel_gdn_gates cpu, gpu;
	struct cuda_tensor beta, decay;
	struct cuda_weight weight[2];
};

static void gates_fill(const int c[4], struct gates_run *run)
{
	const int frames = c[0], tokens = c[1], channels = c[2], heads = c[3];
	const size_t all = (size_t)frames * tokens;
	const struct cuda_tensor u = cuda_test_random(&test, all * channels, -1, 2, false);
	struct cuda_tensor bias[4];

	for (int j = 0; j < 4; j++)
		bias[j] = cuda_test_random(&test, (size_t)heads, -1, 1, true);
	for (int j = 0; j < 2; j++)
		run->weight[j] = cuda_test_weight(&test, heads, channels, 1, 0, 1, 1.0);
	run->beta = cuda_test_output(&test, all * heads, true);
	run->decay = cuda_test_output(&test, (size_t)frames * heads, true);
	run->cpu = (struct kernel_gdn_gates){ { NULL, 0 },
					      u.cpu,
					      &run->weight[0].cpu,
					      &run->weight[1].cpu,
					      bias[0].cpu,
					      bias[1].cpu,
					      bias[2].cpu,
					      bias[3].cpu,
					      run->beta.cpu,
					      run->decay.cpu,
					      frames,
					      tokens,
					      channels,
					      heads };
	run->gpu = (struct kernel_gdn_gates){ { NULL, 0 },
					      u.gpu,
					      &run->weight[0].gpu,
					      &run->weight[1].gpu,
					      bias[0].gpu,
					      bias[1].gpu,
					      bias[2].gpu,
					      bias[3].gpu,
					      run->beta.gpu,
					      run->decay.gpu,
					      frames,
					      tokens,
					      channels,
					      heads };
}

static void gdn_gates(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(gate_cases); i++) {
		const int *c = gate_cases[i];
		struct gates_run run;

		cuda_test_reset(&test, i);
		gates_fill(c, &run);
		cuda_test_run(&test, KERNEL_OP_gdn_gates, &run.cpu.workspace, &run.gpu.workspace);
		(void)cuda_test_compare(&test, KERNEL_OP_gdn_gates, &run.beta, CUDA_FLOAT_TOLERANCE,
					"beta [%d x %d][%d], %d heads", c[0], c[1], c[2], c[3]);
		(void)cuda_test_compare(&test, KERNEL_OP_gdn_gates, &run.decay,
					CUDA_FLOAT_TOLERANCE, "  decay");
	}
}

/* ------------------------------------------------------------------------------- bits and time */

static void same_bits(void **state)
{
	const struct attention_case *c = &attention_cases[ARRAY_SIZE(attention_cases) - 2];
	const struct gdn_case *g = &gdn_cases[ARRAY_SIZE(gdn_cases) - 1];
	uint64_t digest[2][3];

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct attention_run a;
		struct gdn_run d;

		cuda_test_reset(&test, 5);
		attention_fill(c, &a);
		assert_int_equal(cuda_test_run_gpu(&test, KERNEL_OP_attention, &a.gpu.workspace),
				 0);
		digest[i][0] = cuda_test_digest(&test, &a.y);
		cuda_test_reset(&test, 6);
		gdn_fill(g, &d);
		assert_int_equal(cuda_test_run_gpu(&test, KERNEL_OP_gdn, &d.gpu.workspace), 0);
		digest[i][1] = cuda_test_digest(&test, &d.y);
		digest[i][2] = cuda_test_digest(&test, &d.state);
	}
	printf("  attention %016llx, gdn %016llx, state %016llx\n",
	       (unsigned long long)digest[0][0], (unsigned long long)digest[0][1],
	       (unsigned long long)digest[0][2]);
	assert_memory_equal(digest[0], digest[1], sizeof(digest[0]));
}

/* The published model's shapes. */
static void attention_times(void **state)
{
	static const struct attention_case window = {
		2640, { 2640, 2640, 2640 }, 20, 20, 112, 6720, .gate = true, .spread = 1
	};
	static const struct attention_case text = { 2640, { 300 }, 20, 20, 112, 0, .spread = 1 };
	struct attention_run a;

	(void)state;
	cuda_test_reset(&test, 1);
	attention_fill(&window, &a);
	(void)cuda_test_time(&test, KERNEL_OP_attention, &a.gpu.workspace, 20,
			     "attention, 2640 queries, 7920 keys");
	cuda_test_reset(&test, 1);
	attention_fill(&text, &a);
	(void)cuda_test_time(&test, KERNEL_OP_attention, &a.gpu.workspace, 20,
			     "attention, 2640 queries, 300 keys");
}

static void gdn_times(void **state)
{
	struct gdn_run d;
	struct gates_run gates;

	(void)state;
	cuda_test_reset(&test, 1);
	gates_fill(gate_cases[ARRAY_SIZE(gate_cases) - 1], &gates);
	(void)cuda_test_time(&test, KERNEL_OP_gdn_gates, &gates.gpu.workspace, 20,
			     "gates, 3 frames of 880, 20 heads");
	cuda_test_reset(&test, 1);
	gdn_fill(&gdn_cases[ARRAY_SIZE(gdn_cases) - 1], &d);
	(void)cuda_test_time(&test, KERNEL_OP_gdn, &d.gpu.workspace, 20, "gdn, 3 frames of 22x40");
}

static int open_all(void **state)
{
	(void)state;
	cuda_test_open(&test);
	return 0;
}

/* The kernels for other chips, on this one. */
static int open_portable(void **state)
{
	(void)state;
	cuda_test_open_portable(&test);
	return 0;
}

static int close_all(void **state)
{
	(void)state;
	cuda_test_close(&test);
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(attention), cmocka_unit_test(gdn),
		cmocka_unit_test(gdn_drift), cmocka_unit_test(gdn_gates),
		cmocka_unit_test(same_bits), cmocka_unit_test(attention_times),
		cmocka_unit_test(gdn_times),
	};

	const struct CMUnitTest portable[] = {
		cmocka_unit_test(attention),
		cmocka_unit_test(same_bits),
		cmocka_unit_test(attention_times),
	};
	int failed;

	/* A test's name or pattern: that one alone. */
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	failed = cmocka_run_group_tests_name("cuda-attention", tests, open_all, close_all);

	return cmocka_run_group_tests_name("cuda-attention, portable", portable, open_portable,
					   close_all) +
	       failed;
}
