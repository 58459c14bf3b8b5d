/* Softmax attention and the gated delta rule on the GPU against the CPU back end. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "tests/common/cuda_test.h"
#include "tools/bench/op_check.h"

static struct cuda_test test;

/* ------------------------------------------------------------------------------ softmax attention */

/* Besides check_cases. */
static const struct attention_case more_attentions[] = {
	{ 1, { 1 }, 1, 1, 1, 0, .spread = 1 },
	{ 64, { 64 }, 2, 2, 112, 0, .spread = 1 },
	{ 100, { 63, 64, 65 }, 2, 2, 80, 16, .gate = true, .in_place = true, .spread = 2 },
	{ 130, { 16, 300 }, 6, 6, 32, 0, .spread = 4 },
	{ 70, { 31 }, 4, 2, 112, 0, .in_place = true, .spread = 1 },
	/* large scores: one key takes nearly all of the weight */
	{ 67, { 200 }, 2, 2, 112, 0, .gate = true, .spread = 12 },
	/* many keys: items of several blocks */
	{ 300, { 2112, 49, 1 }, 4, 2, 80, 0, .gate = true, .in_place = true, .spread = 3 },
	/* one key; segments shorter than a tile or one longer; one query more than an item, half an item more */
	{ 1, { 1 }, 2, 2, 112, 0, .spread = 1 },
	{ 257, { 47, 1, 49 }, 2, 2, 112, 8, .gate = true, .spread = 2 },
	{ 384, { 5, 48, 96 }, 2, 1, 80, 0, .spread = 2 },
	{ 129, { 2049, 0, 33 }, 3, 3, 32, 8, .gate = true, .in_place = true, .spread = 3 },
	{ 400, { 0, 2400, 7 }, 12, 6, 112, 0, .gate = true, .spread = 4 },
	{ 16, { 48, 9600 }, 1, 1, 112, 0, .spread = 2 },
	{ 2640, { 300 }, 20, 20, 112, 0, .in_place = true, .spread = 2 },
	/* the published model's, with a shorter window */
	{ 880, { 880, 880, 880 }, 20, 20, 112, 6720, .gate = true, .spread = 2 },
};

static void attention(void **state)
{
	(void)state;
	for (int i = 0; i < check_cases.attentions; i++)
		check_attention(&test, (uint64_t)i, &check_cases.attention[i]);
	for (size_t i = 0; i < ARRAY_SIZE(more_attentions); i++)
		check_attention(&test, 100 + i, &more_attentions[i]);
}

/* Each head's kernel with all it does, in few tiles: for compute-sanitizer, hundreds of times slower. */
static void few_tiles(void **state)
{
	static const struct attention_case few[] = {
		/* a whole and a half item; segments that end within a tile; a gate */
		{ 384, { 5, 48, 96 }, 1, 1, 112, 0, .gate = true, .spread = 2 },
		{ 300, { 47, 1, 49 }, 2, 1, 80, 8, .in_place = true, .spread = 2 },
		{ 257, { 100 }, 1, 1, 32, 0, .spread = 2 },
		/* parts, and their sum */
		{ 65, { 48, 2049 }, 1, 1, 112, 0, .spread = 12 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(few); i++)
		check_attention(&test, 200 + i, &few[i]);
}

/* Said when it is planned, and not after a model is loaded. */
static void wide_heads_are_unsupported(void **state)
{
	static const struct attention_case wide = { 3, { 5 }, 1, 1, 520, 0, .spread = 1 };
	struct attention_run run;

	(void)state;
	cuda_test_reset(&test, 300);
	check_attention_fill(&test, &wide, &run);
	assert_int_equal(test.gpu.table->workspace[KERNEL_OP_attention](test.gpu.device, &run.gpu),
			 KERNEL_UNSUPPORTED);
	assert_int_equal(cuda_test_run_gpu(&test, KERNEL_OP_attention, &run.gpu.workspace),
			 -ENOTSUP);
}

/* ------------------------------------------------------------------------------ the delta rule */

static void gdn(void **state)
{
	/* besides check_cases */
	static const struct gdn_case more[] = {
		{ 1, 1, 1, 1, 32, 16, 0, 0, false, false },
		{ 3, 8, 8, 2, 112, 20, 18, 0, true, false },
		/* three frames from nothing */
		{ 3, 6, 9, 2, 112, 20, 18, 0, false, true },
		/* two stages and a bit for the first half of a frame's tokens, and less for the other */
		{ 5, 3, 43, 2, 112, 20, 18, 0, true, true },
		{ 2, 1, 300, 1, 112, 0, 0, 0, true, true },
		/* 200 blocks of the sums, which wait for each other by twos: more than run at once */
		{ 5, 4, 9, 20, 112, 20, 18, 0, true, true },
		/* any head, and strides that are no multiple of 16 bytes */
		{ 1, 1, 1, 1, 2, 1, 0, 0, false, true },
		{ 3, 2, 3, 5, 6, 1, 1, 1, true, true },
		{ 3, 5, 7, 3, 64, 12, 10, 0, true, true },
		{ 2, 7, 9, 2, 256, 40, 44, 8, true, true },
		{ 4, 4, 11, 2, 112, 20, 18, 3, true, true },
		/* odd numbers of pairs: no two of one lane are of one axis */
		{ 3, 5, 7, 2, 112, 19, 19, 0, true, true },
	};

	(void)state;
	for (int i = 0; i < check_cases.gdns; i++)
		check_gdn(&test, (uint64_t)i, &check_cases.gdn[i]);
	for (size_t i = 0; i < ARRAY_SIZE(more); i++)
		check_gdn(&test, 100 + i, &more[i]);
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

static void gdn_gates(void **state)
{
	/* besides check_cases: frames, tokens, channels, heads */
	static const int more[][4] = {
		{ 1, 1, 8, 1 }, { 3, 17, 224, 2 }, { 2, 33, 64, 33 }, { 1, 9, 15360, 33 }
	};

	(void)state;
	for (int i = 0; i < check_cases.gates; i++)
		check_gates(&test, (uint64_t)i, check_cases.gate[i]);
	for (size_t i = 0; i < ARRAY_SIZE(more); i++)
		check_gates(&test, 100 + i, more[i]);
}

/* ------------------------------------------------------------------------------- bits and time */

static void same_bits(void **state)
{
	const struct attention_case *c = &more_attentions[ARRAY_SIZE(more_attentions) - 1];
	const struct gdn_case *g = &check_cases.gdn[check_cases.gdns - 1];
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

static void attention_times(void **state)
{
	(void)state;
	check_attention_times(&test);
}

static void gdn_times(void **state)
{
	(void)state;
	check_gdn_times(&test);
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
		cmocka_unit_test(attention),
		cmocka_unit_test(few_tiles),
		cmocka_unit_test(wide_heads_are_unsupported),
		cmocka_unit_test(gdn),
		cmocka_unit_test(gdn_drift),
		cmocka_unit_test(gdn_gates),
		cmocka_unit_test(same_bits),
		cmocka_unit_test(gdn_times),
		cmocka_unit_test(attention_times),
	};

	const struct CMUnitTest portable[] = {
		cmocka_unit_test(attention),
		cmocka_unit_test(few_tiles),
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
