/* Softmax attention against FP64. */
#include <errno.h>
#include <math.h>

#include "tests/common/op_test.h"

struct attention_case {
	int rows, heads, kv_heads, head_dim, segments;
	int tokens[KERNEL_SEGMENTS];
	size_t pad;
	float softcap;
	bool causal;
	int window, query_offset;
	bool gate;
	int mask; /* 0: none, 1: random, 2: random and key 0 … rows/2 off */
	enum { Y_SEPARATE, Y_IS_Q, Y_IS_GATE } alias;
};

static bool counts(const struct kernel_attention *op, int i, int j)
{
	const int position = op->query_offset + i;

	return (!op->causal || j <= position) && (op->window <= 0 || position - j < op->window) &&
	       (!op->key_mask || op->key_mask[j] != 0);
}

/* The row of key j (value j) of the head's lanes. */
static const float *key_row(const struct kernel_attention *op, bool value, int head, int j)
{
	const int lane = head / (op->heads / op->kv_heads) * op->head_dim;
	int i = 0;

	for (; j >= op->segment[i].tokens; i++)
		j -= op->segment[i].tokens;
	return (const float *)(value ? op->segment[i].v : op->segment[i].k) +
	       j * op->segment[i].ld + lane;
}

/* One query and head: to [head_dim]; scores is scratch [keys]. */
static void attention_want(const struct kernel_attention *op, int keys, int i, int head,
			   double *scores, double *to)
{
	const size_t lane = (size_t)head * op->head_dim;
	const float *q = (const float *)op->q + i * op->ldq + lane;
	double greatest = -INFINITY, sum = 0;

	for (int j = 0; j < keys; j++) {
		const float *k = key_row(op, false, head, j);
		double s = 0;

		for (int c = 0; c < op->head_dim; c++)
			s += (double)q[c] * k[c];
		s *= op->scale;
		if (op->softcap > 0)
			s = op->softcap * tanh(s / op->softcap);
		scores[j] = counts(op, i, j) ? s : -INFINITY;
		greatest = scores[j] > greatest ? scores[j] : greatest;
	}
	memset(to, 0, op->head_dim * sizeof(*to));
	for (int j = 0; j < keys; j++) {
		const double p = scores[j] > -INFINITY ? exp(scores[j] - greatest) : 0;

		sum += p;
		for (int c = 0; p > 0 && c < op->head_dim; c++)
			to[c] += p * key_row(op, true, head, j)[c];
	}
	for (int c = 0; sum > 0 && c < op->head_dim; c++) {
		to[c] /= sum;
		if (op->gate)
			to[c] *= op_test_silu(((const float *)op->gate)[i * op->ldg + lane + c]);
	}
}

static int attention_fill(struct op_test *test, const struct attention_case *wish,
			  struct kernel_attention *op)
{
	const int columns = wish->heads * wish->head_dim, kv = wish->kv_heads * wish->head_dim;
	uint8_t *mask;
	int keys = 0;

	*op = (struct kernel_attention){
		.ldq = columns + wish->pad,
		.ldg = columns + wish->pad,
		.ldy = columns + wish->pad,
		.segments = wish->segments,
		.rows = wish->rows,
		.heads = wish->heads,
		.kv_heads = wish->kv_heads,
		.head_dim = wish->head_dim,
		.scale = (float)(1 / sqrt(wish->head_dim)),
		.softcap = wish->softcap,
		.causal = wish->causal,
		.window = wish->window,
		.query_offset = wish->query_offset,
	};
	/* scores of standard deviation two or so: sharp enough to tell a wrong softmax */
	op->q = op_test_random(test, op->rows * op->ldq, -6, 6);
	op->gate = wish->gate ? op_test_random(test, op->rows * op->ldg, -2, 2) : NULL;
	for (int i = 0; i < wish->segments; i++) {
		const size_t ld = kv + i + wish->pad;

		op->segment[i] = (struct kernel_segment){
			.k = op_test_random(test, wish->tokens[i] * ld, -1, 1),
			.v = op_test_random(test, wish->tokens[i] * ld, -1, 1),
			.ld = ld,
			.tokens = wish->tokens[i],
		};
		keys += wish->tokens[i];
	}
	mask = op_test_buffer(test, keys);
	for (int j = 0; j < keys; j++)
		mask[j] = wish->mask == 2 && j <= wish->rows / 2 ?
				  0 :
				  (uint8_t)op_test_uniform(test, 0, 3); /* 1 and 2 both count */
	op->key_mask = wish->mask ? mask : NULL;
	op->y = wish->alias == Y_IS_Q	 ? (void *)op->q :
		wish->alias == Y_IS_GATE ? (void *)op->gate :
					   op_test_floats(test, op->rows * op->ldy);
	return keys;
}

static void attention_case_run(struct op_test *test, const struct attention_case *wish)
{
	const int d = wish->head_dim, columns = wish->heads * d;
	struct kernel_attention op;
	double *want, *scores;
	int keys, empty = 0;
	float *got;

	op_test_reset(test, 67);
	keys = attention_fill(test, wish, &op);
	got = op_test_floats(test, (size_t)op.rows * columns);
	want = op_test_buffer(test, (size_t)op.rows * columns * sizeof(*want));
	scores = op_test_buffer(test, keys * sizeof(*scores));
	for (int i = 0; i < op.rows; i++) {
		int all = 0;

		for (int head = 0; head < op.heads; head++)
			attention_want(&op, keys, i, head, scores,
				       want + ((size_t)i * op.heads + head) * d);
		for (int j = 0; j < keys; j++)
			all += counts(&op, i, j);
		empty += all == 0;
	}
	op_test_run(test, KERNEL_OP_attention, &op.workspace);
	for (int i = 0; i < op.rows; i++)
		memcpy(got + (size_t)i * columns, (const float *)op.y + i * op.ldy,
		       columns * sizeof(*got));
	op_test_compare(got, want, (size_t)op.rows * columns, OP_CHAIN_TOLERANCE,
			"attention %d queries (%d without keys), %d keys in %d, heads %d/%d×%d%s "
			"window %d softcap %g mask %d%s alias %d",
			op.rows, empty, keys, op.segments, op.heads, op.kv_heads, d,
			op.causal ? " causal" : "", op.window, (double)op.softcap, wish->mask,
			op.gate ? " gate" : "", wish->alias);
}

static const struct attention_case cases[] = {
	/* smallest; no key at all */
	{ .rows = 1, .heads = 1, .kv_heads = 1, .head_dim = 1, .segments = 1, .tokens = { 1 } },
	{ .rows = 2, .heads = 1, .kv_heads = 1, .head_dim = 3, .segments = 1, .tokens = { 0 } },
	/* real: self-attention of a softmax block, cross-attention, the text encoder */
	{ .rows = 288,
	  .heads = 6,
	  .kv_heads = 6,
	  .head_dim = 32,
	  .segments = 3,
	  .tokens = { 432, 288, 288 },
	  .gate = true,
	  .alias = Y_IS_GATE },
	{ .rows = 432,
	  .heads = 6,
	  .kv_heads = 6,
	  .head_dim = 32,
	  .segments = 1,
	  .tokens = { 20 },
	  .alias = Y_IS_Q },
	{ .rows = 96,
	  .heads = 8,
	  .kv_heads = 4,
	  .head_dim = 32,
	  .segments = 1,
	  .tokens = { 96 },
	  .causal = true,
	  .window = 40,
	  .softcap = 50,
	  .mask = 1 },
	/* odd */
	{ .rows = 37,
	  .heads = 3,
	  .kv_heads = 1,
	  .head_dim = 80,
	  .segments = 2,
	  .tokens = { 13, 31 },
	  .pad = 7,
	  .gate = true,
	  .mask = 1,
	  .alias = Y_IS_Q },
	{ .rows = 41,
	  .heads = 2,
	  .kv_heads = 2,
	  .head_dim = 112,
	  .segments = 3,
	  .tokens = { 17, 0, 41 },
	  .pad = 1,
	  .causal = true,
	  .query_offset = 17 },
	{ .rows = 41,
	  .heads = 6,
	  .kv_heads = 2,
	  .head_dim = 5,
	  .segments = 2,
	  .tokens = { 11, 30 },
	  .causal = true,
	  .mask = 2,
	  .gate = true,
	  .alias = Y_IS_GATE,
	  .softcap = 1.5f },
	/* a window alone; keys that lie wholly outside it */
	{ .rows = 50,
	  .heads = 1,
	  .kv_heads = 1,
	  .head_dim = 7,
	  .segments = 1,
	  .tokens = { 29 },
	  .window = 5,
	  .query_offset = 3 },
	/* one past the blocks of queries */
	{ .rows = 65, .heads = 2, .kv_heads = 1, .head_dim = 33, .segments = 1, .tokens = { 129 } },
	{ .rows = 129,
	  .heads = 1,
	  .kv_heads = 1,
	  .head_dim = 16,
	  .segments = 1,
	  .tokens = { 129 },
	  .causal = true,
	  .window = 64,
	  .gate = true },
};

static void test_attention(void **state)
{
	(void)state;
	for (int threads = 1; threads <= 3; threads++) {
		struct op_test test;

		op_test_open(&test, threads);
		for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
			attention_case_run(&test, &cases[i]);
		op_test_close(&test);
	}
}

/* NaN in a query that has keys comes out, so that a health check can see it. */
static void test_nan_comes_out(void **state)
{
	const struct attention_case wish = {
		.rows = 3, .heads = 1, .kv_heads = 1, .head_dim = 4, .segments = 1, .tokens = { 5 }
	};
	struct kernel_attention op;
	struct op_test test;

	(void)state;
	op_test_open(&test, 2);
	(void)attention_fill(&test, &wish, &op);
	((float *)op.q)[4] = NAN;
	op_test_run(&test, KERNEL_OP_attention, &op.workspace);
	for (int i = 0; i < 12; i++)
		assert_int_equal(isnan(((const float *)op.y)[i]) != 0, i / 4 == 1);
	printf("  attention: NaN in row 1 of 3 stays in row 1\n");
	op_test_close(&test);
}

static int status(struct op_test *test, const struct kernel_attention *op)
{
	struct kernel_attention copy = *op;

	return op_test_try(test, KERNEL_OP_attention, &copy.workspace);
}

static void test_refuses(void **state)
{
	const struct attention_case wish = { .rows = 3,
					     .heads = 4,
					     .kv_heads = 2,
					     .head_dim = 4,
					     .segments = 1,
					     .tokens = { 5 },
					     .gate = true };
	struct kernel_attention good, bad;
	struct op_test test;

	(void)state;
	op_test_open(&test, 2);
	(void)attention_fill(&test, &wish, &good);
	assert_int_equal(status(&test, &good), 0);
	bad = good, bad.rows = 0;
	assert_int_equal(status(&test, &bad), -EINVAL);
	bad = good, bad.kv_heads = 3;
	assert_int_equal(status(&test, &bad), -EINVAL);
	bad = good, bad.segments = KERNEL_SEGMENTS + 1;
	assert_int_equal(status(&test, &bad), -EINVAL);
	bad = good, bad.segment[0].ld = 7;
	assert_int_equal(status(&test, &bad), -EINVAL);
	bad = good, bad.segment[0].tokens = -1;
	assert_int_equal(status(&test, &bad), -EINVAL);
	bad = good, bad.ldq = 15;
	assert_int_equal(status(&test, &bad), -EINVAL);
	bad = good, bad.ldg = 15;
	assert_int_equal(status(&test, &bad), -EINVAL);
	printf("  attention: seven wrong blocks refused\n");
	op_test_close(&test);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_attention),
		cmocka_unit_test(test_nan_comes_out),
		cmocka_unit_test(test_refuses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
