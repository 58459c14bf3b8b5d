/* Softmax attention and the gated delta rule on the GPU against the CPU back end. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "tests/common/cuda_test.h"
#include "tools/bench/op_check.h"

static struct cuda_test test;

/* ------------------------------------------------------------------------------ softmax attention */

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

static void attention(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(attention_cases); i++)
		check_attention(&test, i, &attention_cases[i]);
}

/* ------------------------------------------------------------------------------ the delta rule */

static const struct gdn_case gdn_cases[] = {
	{ 1, 1, 1, 1, 32, 16, 0, 0, false, false },
	{ 2, 3, 5, 2, 32, 6, 5, 0, true, true },
	{ 3, 5, 13, 3, 80, 14, 13, 80, true, true },
	{ 4, 3, 4, 2, 112, 20, 18, 224, false, true },
	{ 3, 8, 8, 2, 112, 20, 18, 0, true, false },
	{ 3, 22, 40, 20, 112, 20, 18, 6720, true, true },
};

static void gdn(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(gdn_cases); i++)
		check_gdn(&test, i, &gdn_cases[i]);
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
	check_gdn_fill(&test, &c, &run);
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

static void gdn_gates(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(gate_cases); i++)
		check_gates(&test, i, gate_cases[i]);
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
		check_attention_fill(&test, c, &a);
		assert_int_equal(cuda_test_run_gpu(&test, KERNEL_OP_attention, &a.gpu.workspace),
				 0);
		digest[i][0] = cuda_test_digest(&test, &a.y);
		cuda_test_reset(&test, 6);
		check_gdn_fill(&test, g, &d);
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
	check_attention_fill(&test, &window, &a);
	(void)cuda_test_time(&test, KERNEL_OP_attention, &a.gpu.workspace, 20,
			     "attention, 2640 queries, 7920 keys");
	cuda_test_reset(&test, 1);
	check_attention_fill(&test, &text, &a);
	(void)cuda_test_time(&test, KERNEL_OP_attention, &a.gpu.workspace, 20,
			     "attention, 2640 queries, 300 keys");
}

static void gdn_times(void **state)
{
	struct gdn_run d;
	struct gates_run gates;

	(void)state;
	cuda_test_reset(&test, 1);
	check_gates_fill(&test, gate_cases[ARRAY_SIZE(gate_cases) - 1], &gates);
	(void)cuda_test_time(&test, KERNEL_OP_gdn_gates, &gates.gpu.workspace, 20,
			     "gates, 3 frames of 880, 20 heads");
	cuda_test_reset(&test, 1);
	check_gdn_fill(&test, &gdn_cases[ARRAY_SIZE(gdn_cases) - 1], &d);
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
