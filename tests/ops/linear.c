/* Linear layers and embeddings against sums written out in FP64. */
#include <errno.h>
#include <math.h>

#include "tests/common/op_test.h"

struct linear_case {
	int rows, in, parts;
	int out[KERNEL_LINEAR_PARTS];
	size_t pad;	/* added to every row stride */
	int activation; /* of part 0; part i has the i-th after it */
	bool residual, gate, in_place, no_bias;
	enum kernel_dtype dtype;
	bool prepared;
	int taps, tap_first;
};

static double activated(enum kernel_activation activation, double a)
{
	switch (activation) {
	case KERNEL_SILU:
		return op_test_silu(a);
	case KERNEL_GELU:
		return op_test_gelu(a);
	case KERNEL_SIGMOID:
		return op_test_sigmoid(a);
	case KERNEL_IDENTITY:
	case KERNEL_ACTIVATION_COUNT:
		break;
	}
	return a;
}

/* weight: [out][in]; residual: what was there before the op, [rows][ld]. */
static double linear_at(const struct kernel_linear *op, const struct kernel_linear_part *part,
			const double *weight, const float *residual, int n, int o)
{
	double sum = part->bias ? part->bias[o] : 0;

	for (int i = 0; i < part->weight->in; i++)
		sum += ((const float *)op->x)[n * op->ldx + i] *
		       weight[(size_t)o * part->weight->in + i];
	sum = activated(part->activation, sum);
	if (residual)
		sum = residual[n * part->ld_residual + o] +
		      (part->gate ? part->gate[o] : 1.0) * sum;
	return sum;
}

static void linear_fill_part(struct op_test *test, const struct linear_case *wish, int i,
			     struct kernel_linear_part *part)
{
	const int out = wish->out[i];
	const size_t count = wish->rows * (out + wish->pad);
	const struct op_test_weight weight = {
		.out = out,
		.in = wish->in,
		.taps = wish->taps ? wish->taps : 1,
		.tap_first = wish->tap_first,
		.tap_count = 1,
		.dtype = wish->dtype,
		.prepared = wish->prepared,
	};

	*part = (struct kernel_linear_part){
		.weight = op_test_weight(test, &weight),
		.bias = wish->no_bias ? NULL : op_test_random(test, out, -1, 1),
		.activation = (wish->activation + i) % KERNEL_ACTIVATION_COUNT,
		.residual = wish->residual ? op_test_random(test, count, -1, 1) : NULL,
		.gate = wish->gate ? op_test_random(test, out, -1, 1) : NULL,
		.ld_residual = out + wish->pad,
		.ldy = out + wish->pad,
		.y_is_float = i % 2 == 1,
	};
	part->y = wish->in_place ? (void *)part->residual : op_test_floats(test, count);
}

static void linear_compare(struct op_test *test, const struct linear_case *wish,
			   const struct kernel_linear *op, int i, const float *residual)
{
	const struct kernel_linear_part *part = &op->part[i];
	const double *weight = op_test_weight_values(test, part->weight);
	const int out = part->weight->out;
	float *got = op_test_floats(test, (size_t)op->rows * out);
	double *want = op_test_buffer(test, (size_t)op->rows * out * sizeof(*want));

	for (int n = 0; n < op->rows; n++) {
		for (int o = 0; o < out; o++) {
			got[n * out + o] = ((const float *)part->y)[n * part->ldy + o];
			want[n * out + o] = linear_at(op, part, weight, residual, n, o);
		}
	}
	op_test_compare(got, want, (size_t)op->rows * out, OP_TOLERANCE,
			"linear %d×%d×%d part %d dtype %d%s activation %d%s%s%s", op->rows,
			wish->in, out, i, wish->dtype, wish->prepared ? " prepared" : "",
			part->activation, residual ? " residual" : "", part->gate ? " gate" : "",
			wish->in_place ? " in place" : "");
}

static void linear_case_run(struct op_test *test, const struct linear_case *wish)
{
	struct kernel_linear op = {
		.ldx = wish->in + wish->pad,
		.rows = wish->rows,
		.parts = wish->parts,
	};
	const float *residual[KERNEL_LINEAR_PARTS] = { NULL };

	op_test_reset(test, 7);
	op.x = op_test_random(test, op.rows * op.ldx, -1, 1);
	for (int i = 0; i < op.parts; i++) {
		linear_fill_part(test, wish, i, &op.part[i]);
		if (op.part[i].residual)
			residual[i] = op_test_copy(test, op.part[i].residual,
						   op.rows * op.part[i].ld_residual);
	}
	op_test_run(test, KERNEL_OP_linear, &op.workspace);
	for (int i = 0; i < op.parts; i++)
		linear_compare(test, wish, &op, i, residual[i]);
}

static const struct linear_case linear_cases[] = {
	/* smallest */
	{ .rows = 1, .in = 1, .parts = 1, .out = { 1 } },
	{ .rows = 1, .in = 1, .parts = 1, .out = { 1 }, .dtype = KERNEL_BF16, .no_bias = true },
	/* real: q, k, v, gate of one chunk; the FFN's two halves of work */
	{ .rows = 432, .in = 192, .parts = 4, .out = { 192, 192, 192, 192 }, .dtype = KERNEL_BF16 },
	{ .rows = 432,
	  .in = 192,
	  .parts = 1,
	  .out = { 1152 },
	  .activation = KERNEL_SILU,
	  .dtype = KERNEL_BF16,
	  .prepared = true },
	{ .rows = 432,
	  .in = 576,
	  .parts = 1,
	  .out = { 192 },
	  .residual = true,
	  .gate = true,
	  .in_place = true,
	  .dtype = KERNEL_F16,
	  .prepared = true },
	/* odd, strided, centre tap of three */
	{ .rows = 37,
	  .in = 53,
	  .parts = 3,
	  .out = { 29, 31, 1 },
	  .pad = 5,
	  .dtype = KERNEL_F16,
	  .activation = KERNEL_GELU,
	  .taps = 3,
	  .tap_first = 1 },
	{ .rows = 37,
	  .in = 53,
	  .parts = 2,
	  .out = { 29, 31 },
	  .pad = 5,
	  .taps = 3,
	  .tap_first = 1,
	  .activation = KERNEL_SIGMOID,
	  .residual = true,
	  .prepared = true },
	{ .rows = 37,
	  .in = 53,
	  .parts = 4,
	  .out = { 29, 3, 31, 7 },
	  .pad = 3,
	  .taps = 3,
	  .tap_first = 2,
	  .dtype = KERNEL_BF16,
	  .residual = true,
	  .gate = true,
	  .in_place = true },
	{ .rows = 37, .in = 53, .parts = 4, .out = { 29, 3, 31, 7 }, .residual = true, .gate = true },
	/* one past a tile edge, both ways */
	{ .rows = 257, .in = 33, .parts = 1, .out = { 513 }, .dtype = KERNEL_F16 },
	{ .rows = 513,
	  .in = 17,
	  .parts = 1,
	  .out = { 1025 },
	  .residual = true,
	  .gate = true,
	  .in_place = true },
};

/* Rows of 1 MiB: more of them than the CPU back end converts at a time. */
static const struct linear_case two_panels = {
	.rows = 2,
	.in = 262147,
	.parts = 1,
	.out = { 66 },
	.residual = true,
	.dtype = KERNEL_BF16,
};

static void test_linear(void **state)
{
	(void)state;
	for (int threads = 1; threads <= 3; threads++) {
		struct op_test test;

		op_test_open(&test, threads);
		for (size_t i = 0; i < ARRAY_SIZE(linear_cases); i++)
			linear_case_run(&test, &linear_cases[i]);
		if (threads == 2)
			linear_case_run(&test, &two_panels);
		op_test_close(&test);
	}
}

/* The same bits again, and a workspace that grows with the number of rows. */
static void test_linear_repeats(void **state)
{
	const struct linear_case wish = {
		.rows = 300, .in = 192, .parts = 1, .out = { 600 }, .dtype = KERNEL_BF16
	};
	struct kernel_linear op = { .ldx = wish.in, .rows = wish.rows, .parts = 1 };
	const size_t count = (size_t)wish.rows * wish.out[0];
	struct op_test test;
	size_t before = 0;
	float *first;

	(void)state;
	op_test_open(&test, 3);
	op.x = op_test_random(&test, op.rows * op.ldx, -1, 1);
	linear_fill_part(&test, &wish, 0, &op.part[0]);
	op_test_run(&test, KERNEL_OP_linear, &op.workspace);
	first = op_test_copy(&test, op.part[0].y, count);
	for (int i = 0; i < 3; i++) {
		op_test_run(&test, KERNEL_OP_linear, &op.workspace);
		assert_memory_equal(op.part[0].y, first, count * sizeof(*first));
	}
	for (op.rows = 1; op.rows <= wish.rows; op.rows++) {
		const size_t bytes = test.table->workspace[KERNEL_OP_linear](test.device, &op);

		assert_true(bytes >= before);
		before = bytes;
	}
	op_test_close(&test);
}

static void refuse(struct op_test *test, const struct kernel_linear *op)
{
	struct kernel_linear copy = *op;

	assert_int_equal(op_test_try(test, KERNEL_OP_linear, &copy.workspace), -EINVAL);
}

static void test_linear_refuses(void **state)
{
	const struct linear_case wish = { .rows = 4, .in = 8, .parts = 1, .out = { 6 } };
	struct kernel_linear good = { .ldx = 8, .rows = 4, .parts = 1 }, bad;
	struct kernel_weight wide;
	struct op_test test;

	(void)state;
	op_test_open(&test, 2);
	good.x = op_test_random(&test, 32, -1, 1);
	linear_fill_part(&test, &wish, 0, &good.part[0]);
	op_test_run(&test, KERNEL_OP_linear, &good.workspace);

	bad = good, bad.rows = 0, refuse(&test, &bad);
	bad = good, bad.parts = 0, refuse(&test, &bad);
	bad = good, bad.parts = KERNEL_LINEAR_PARTS + 1, refuse(&test, &bad);
	bad = good, bad.part[0].weight = NULL, refuse(&test, &bad);
	bad = good, bad.part[0].gate = good.part[0].bias, refuse(&test, &bad);
	bad = good, bad.part[0].activation = KERNEL_ACTIVATION_COUNT, refuse(&test, &bad);

	wide = *good.part[0].weight, wide.taps = 3, wide.tap_count = 2;
	bad = good, bad.part[0].weight = &wide, refuse(&test, &bad);
	wide = *good.part[0].weight, wide.dtype = KERNEL_U8;
	bad = good, bad.part[0].weight = &wide, refuse(&test, &bad);
	wide = *good.part[0].weight, wide.tap_first = 1;
	bad = good, bad.part[0].weight = &wide, refuse(&test, &bad);

	/* these two are found when the op runs, with a workspace that is large enough */
	bad = good, bad.ldx = 7;
	assert_int_equal(op_test_try(&test, KERNEL_OP_linear, &bad.workspace), -EINVAL);
	bad = good, bad.part[0].ldy = 5;
	assert_int_equal(op_test_try(&test, KERNEL_OP_linear, &bad.workspace), -EINVAL);
	op_test_close(&test);
}

/* -------------------------------------------------------------------------------- embedding */

static void embedding_case(struct op_test *test, int vocabulary, int channels, int rows,
			   enum kernel_dtype dtype, bool prepared)
{
	const struct op_test_weight wish = {
		.out = vocabulary,
		.in = channels,
		.taps = 1,
		.tap_count = 1,
		.dtype = dtype,
		.prepared = prepared,
	};
	struct kernel_embedding op = { .scale = 1.7f, .rows = rows };
	int32_t *ids;
	double *want;

	op_test_reset(test, 11);
	ids = op_test_buffer(test, rows * sizeof(*ids));
	want = op_test_buffer(test, (size_t)rows * channels * sizeof(*want));
	op.table = op_test_weight(test, &wish);
	op.ids = ids;
	op.y = op_test_floats(test, (size_t)rows * channels);
	for (int n = 0; n < rows; n++) {
		ids[n] = n == 0 ? vocabulary - 1 : (int)op_test_uniform(test, 0, vocabulary);
		for (int c = 0; c < channels; c++)
			want[n * channels + c] =
				op_test_weight_at(op.table, ids[n], 0, c) * (double)op.scale;
	}
	op_test_run(test, KERNEL_OP_embedding, &op.workspace);
	op_test_compare(op.y, want, (size_t)rows * channels, OP_TOLERANCE,
			"embedding %d of %d×%d dtype %d%s", rows, vocabulary, channels, dtype,
			prepared ? " prepared" : "");

	ids[rows - 1] = vocabulary;
	assert_int_equal(op_test_try(test, KERNEL_OP_embedding, &op.workspace), -EINVAL);
	ids[rows - 1] = -1;
	assert_int_equal(op_test_try(test, KERNEL_OP_embedding, &op.workspace), -EINVAL);
}

static void test_embedding(void **state)
{
	(void)state;
	for (int threads = 1; threads <= 3; threads++) {
		struct op_test test;

		op_test_open(&test, threads);
		for (enum kernel_dtype dtype = KERNEL_F32; dtype <= KERNEL_F16; dtype++) {
			for (int prepared = 0; prepared < 2; prepared++) {
				embedding_case(&test, 1, 1, 1, dtype, prepared);
				embedding_case(&test, 500, 288, 77, dtype, prepared);
				embedding_case(&test, 31, 13, 37, dtype, prepared);
			}
		}
		op_test_close(&test);
	}
}

/* Every F16 and BF16 there is, from an odd address. */
static void test_all_halves(void **state)
{
	enum { SIDE = 256 };
	int32_t ids[SIDE];
	struct op_test test;

	(void)state;
	op_test_open(&test, 2);
	for (enum kernel_dtype dtype = KERNEL_BF16; dtype <= KERNEL_F16; dtype++) {
		unsigned char *data =
			(unsigned char *)op_test_buffer(&test, 2 * SIDE * SIDE + 1) + 1;
		const struct kernel_weight weight = {
			.data = data,
			.dtype = dtype,
			.out = SIDE,
			.in = SIDE,
			.taps = 1,
			.tap_count = 1,
		};
		struct kernel_embedding op = {
			.table = &weight,
			.ids = ids,
			.scale = 1,
			.rows = SIDE,
			.y = op_test_floats(&test, SIDE * SIDE),
		};
		int special = 0;

		for (int i = 0; i < SIDE * SIDE; i++) {
			const uint16_t half = (uint16_t)i;

			memcpy(data + 2 * i, &half, sizeof(half));
			ids[i / SIDE] = i / SIDE;
		}
		op_test_run(&test, KERNEL_OP_embedding, &op.workspace);
		for (int i = 0; i < SIDE * SIDE; i++) {
			const double want = op_test_weight_at(&weight, i / SIDE, 0, i % SIDE);
			const float got = ((const float *)op.y)[i];

			special += !isfinite(want);
			assert_true(isnan(want) ? isnan(got) : got == (float)want);
			assert_true(isnan(want) || !signbit(got) == !signbit(want));
		}
		printf("  dtype %d: all 65536 patterns, %d of them not finite\n", dtype, special);
	}
	op_test_close(&test);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_linear),	       cmocka_unit_test(test_linear_repeats),
		cmocka_unit_test(test_linear_refuses), cmocka_unit_test(test_embedding),
		cmocka_unit_test(test_all_halves),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
