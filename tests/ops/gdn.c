/*
 * Gated delta rule. The reference is the recurrence over single tokens in FP64, not the closed form
 * that back ends compute.
 */
#include <errno.h>
#include <math.h>

#include "tests/common/op_test.h"

/* -------------------------------------------------------------------------------------- gates */

struct gates_case {
	int frames, tokens, channels, heads;
	enum kernel_dtype dtype;
	bool prepared;
};

static double product_at(const struct kernel_weight *weight, int o, const double *x)
{
	double sum = 0;

	for (int i = 0; i < weight->in; i++)
		sum += op_test_weight_at(weight, o, 0, i) * x[i];
	return sum;
}

static void gates_want(const struct kernel_gdn_gates *op, double *beta, double *decay, double *row)
{
	const int channels = op->channels, heads = op->heads, tokens = op->tokens_per_frame;
	const float *u = op->u;

	for (int n = 0; n < op->frames * tokens; n++) {
		for (int c = 0; c < channels; c++)
			row[c] = u[(size_t)n * channels + c];
		for (int h = 0; h < heads; h++)
			beta[n * heads + h] = op_test_sigmoid(product_at(op->weight_beta, h, row) +
							      op->bias_beta[h]);
	}
	for (int t = 0; t < op->frames; t++) {
		for (int c = 0; c < channels; c++) {
			row[c] = 0;
			for (int s = 0; s < tokens; s++)
				row[c] +=
					(double)u[((size_t)t * tokens + s) * channels + c] / tokens;
		}
		for (int h = 0; h < heads; h++) {
			const double a = product_at(op->weight_decay, h, row) + op->bias_decay[h] +
					 op->dt_bias[h];

			decay[t * heads + h] =
				exp(-exp((double)op->a_log[h]) * (a > 20 ? a : log(1 + exp(a))));
		}
	}
}

static void gates_case_run(struct op_test *test, const struct gates_case *wish)
{
	const struct op_test_weight weight = {
		.out = wish->heads,
		.in = wish->channels,
		.taps = 1,
		.tap_count = 1,
		.dtype = wish->dtype,
		.prepared = wish->prepared,
	};
	const int rows = wish->frames * wish->tokens;
	struct kernel_gdn_gates op = {
		.frames = wish->frames,
		.tokens_per_frame = wish->tokens,
		.channels = wish->channels,
		.heads = wish->heads,
	};
	double *beta, *decay;

	op_test_reset(test, 59);
	op.u = op_test_random(test, (size_t)rows * wish->channels, -0.5, 1);
	op.weight_beta = op_test_weight(test, &weight);
	op.weight_decay = op_test_weight(test, &weight);
	op.bias_beta = op_test_random(test, wish->heads, -1, 1);
	/* some arguments of softplus lie above 20 */
	op.bias_decay = op_test_random(test, wish->heads, -10, 40);
	op.a_log = op_test_random(test, wish->heads, -5, 0);
	op.dt_bias = op_test_random(test, wish->heads, -1, 1);
	op.beta = op_test_floats(test, (size_t)rows * wish->heads);
	op.decay = op_test_floats(test, wish->frames * wish->heads);
	beta = op_test_buffer(test, (size_t)rows * wish->heads * sizeof(*beta));
	decay = op_test_buffer(test, wish->frames * wish->heads * sizeof(*decay));
	gates_want(&op, beta, decay, op_test_buffer(test, wish->channels * sizeof(double)));

	op_test_run(test, KERNEL_OP_gdn_gates, &op.workspace);
	op_test_compare(op.beta, beta, (size_t)rows * wish->heads, OP_TOLERANCE,
			"gdn_gates beta %d×%d×%d→%d dtype %d%s", wish->frames, wish->tokens,
			wish->channels, wish->heads, wish->dtype,
			wish->prepared ? " prepared" : "");
	op_test_compare(op.decay, decay, wish->frames * wish->heads, OP_TOLERANCE,
			"gdn_gates decay");
	op.heads++;
	assert_int_equal(op_test_try(test, KERNEL_OP_gdn_gates, &op.workspace), -EINVAL);
}

static void test_gates(void **state)
{
	static const struct gates_case cases[] = {
		{ 1, 1, 1, 1, KERNEL_F32, false },     { 3, 144, 192, 6, KERNEL_BF16, true },
		{ 5, 144, 192, 6, KERNEL_F16, false }, { 2, 37, 53, 5, KERNEL_BF16, false },
		{ 1, 257, 65, 3, KERNEL_F32, true },
	};

	(void)state;
	for (int threads = 1; threads <= 3; threads++) {
		struct op_test test;

		op_test_open(&test, threads);
		for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
			gates_case_run(&test, &cases[i]);
		op_test_close(&test);
	}
}

/* ------------------------------------------------------------------------------ the delta rule */

struct gdn_case {
	int frames, height, width, heads, pairs_t, pairs_y, pairs_x;
	size_t pad;
	bool state_in, state_out, same_state, y_is_gate;
};

/* One head in FP64. Vectors are [N][D], s and z the state that is carried. */
struct reference {
	int d, frames, tokens;
	double *q, *k, *v, *q_hat, *k_hat; /* after norm, relu and κ; hats rotated */
	const float *beta, *decay;	   /* strided by heads, of this head */
	int heads;
	double *numerator, *denominator; /* [N][D], [N]: sums of both directions */
	double *s, *z;			 /* [D][D], [D] */
	double *s_new, *z_new;
};

/* Every token of frame `t` writes into s, z: all of them see the state decayed by g alone. */
static void reference_write(struct reference *ref, int t)
{
	const int d = ref->d;
	const double g = ref->decay[t * ref->heads];

	for (int i = 0; i < d * d; i++)
		ref->s_new[i] = ref->s[i] *= g;
	for (int i = 0; i < d; i++)
		ref->z_new[i] = ref->z[i] *= g;
	for (int n = t * ref->tokens; n < (t + 1) * ref->tokens; n++) {
		const double *k = ref->k + n * d, *k_hat = ref->k_hat + n * d, *v = ref->v + n * d;
		const double beta = ref->beta[n * ref->heads];
		double predicted_z = 0;

		for (int j = 0; j < d; j++)
			predicted_z += ref->z[j] * k[j];
		for (int j = 0; j < d; j++)
			ref->z_new[j] += beta * (1 - predicted_z) * k[j];
		for (int i = 0; i < d; i++) {
			double predicted = 0;

			for (int j = 0; j < d; j++)
				predicted += ref->s[i * d + j] * k_hat[j];
			for (int j = 0; j < d; j++)
				ref->s_new[i * d + j] += beta * (v[i] - predicted) * k_hat[j];
		}
	}
	memcpy(ref->s, ref->s_new, d * d * sizeof(double));
	memcpy(ref->z, ref->z_new, d * sizeof(double));
}

/* Every token of frame `t` reads s, z. */
static void reference_read(struct reference *ref, int t)
{
	const int d = ref->d;

	for (int n = t * ref->tokens; n < (t + 1) * ref->tokens; n++) {
		for (int j = 0; j < d; j++)
			ref->denominator[n] += ref->z[j] * ref->q[n * d + j];
		for (int i = 0; i < d; i++)
			for (int j = 0; j < d; j++)
				ref->numerator[n * d + i] +=
					ref->s[i * d + j] * ref->q_hat[n * d + j];
	}
}

/* Forward from the state in s, z, which it advances; then reverse from nothing. */
static void reference_scan(struct reference *ref, double *s_end, double *z_end)
{
	const int d = ref->d;

	for (int t = 0; t < ref->frames; t++) {
		reference_write(ref, t);
		reference_read(ref, t);
	}
	memcpy(s_end, ref->s, d * d * sizeof(double));
	memcpy(z_end, ref->z, d * sizeof(double));
	memset(ref->s, 0, d * d * sizeof(double));
	memset(ref->z, 0, d * sizeof(double));
	for (int t = ref->frames - 2; t >= 0; t--) {
		reference_write(ref, t + 1);
		reference_read(ref, t);
	}
}

static void reference_rotate(const struct kernel_rope *rope, int n, const double *x, double *y)
{
	const int column = n % rope->width, line = n / rope->width % rope->height;
	const int t = n / rope->width / rope->height;
	const struct {
		const float *cos, *sin;
		int row, pairs;
	} axis[] = {
		{ rope->cos_t, rope->sin_t, t, rope->pairs_t },
		{ rope->cos_y, rope->sin_y, line, rope->pairs_y },
		{ rope->cos_x, rope->sin_x, column, rope->pairs_x },
	};
	int lane = 0;

	for (int a = 0; a < 3; a++) {
		for (int i = 0; i < axis[a].pairs; i++, lane += 2) {
			const double c = axis[a].cos[axis[a].row * axis[a].pairs + i];
			const double s = axis[a].sin[axis[a].row * axis[a].pairs + i];

			y[lane] = x[lane] * c - x[lane + 1] * s;
			y[lane + 1] = x[lane] * s + x[lane + 1] * c;
		}
	}
}

/* relu(x/rms·w)·factor of one head's lanes of token n; the mean is over all channels. */
static void reference_norm(const struct kernel_gdn *op, const float *x, const float *weight,
			   double factor, int n, int head, double *to)
{
	const int channels = op->heads * op->head_dim;
	double mean = 0;

	for (int c = 0; c < channels; c++)
		mean += (double)x[n * op->ld + c] * x[n * op->ld + c] / channels;
	for (int i = 0; i < op->head_dim; i++) {
		const int c = head * op->head_dim + i;
		const double value = x[n * op->ld + c] / sqrt(mean + op->epsilon) * weight[c];

		to[i] = value > 0 ? value * factor : 0;
	}
}

static double *doubles(struct op_test *test, size_t count)
{
	double *values = op_test_buffer(test, count * sizeof(*values));

	memset(values, 0, count * sizeof(*values));
	return values;
}

static void reference_create(struct op_test *test, const struct kernel_gdn *op,
			     struct reference *ret)
{
	const int d = op->head_dim, tokens = op->rope->height * op->rope->width;
	const size_t lanes = (size_t)op->rope->frames * tokens * d;

	*ret = (struct reference){
		.d = d,
		.frames = op->rope->frames,
		.tokens = tokens,
		.heads = op->heads,
		.q = doubles(test, lanes),
		.k = doubles(test, lanes),
		.v = doubles(test, lanes),
		.q_hat = doubles(test, lanes),
		.k_hat = doubles(test, lanes),
		.numerator = doubles(test, lanes),
		.denominator = doubles(test, lanes / d),
		.s = doubles(test, d * d),
		.z = doubles(test, d),
		.s_new = doubles(test, d * d),
		.z_new = doubles(test, d),
	};
}

struct gdn_want {
	double *y, *state, *normaliser;
};

/* What the op should give for one head; its inputs are those before the op. */
static void reference_head(const struct kernel_gdn *op, int head, struct reference *ref,
			   const struct gdn_want *want)
{
	const int d = op->head_dim, rows = ref->frames * ref->tokens;
	const double kappa = 1 / sqrt((double)d) / sqrt((double)ref->tokens);
	const float *gate = op->gate;

	ref->beta = op->beta + head;
	ref->decay = op->decay + head;
	memset(ref->numerator, 0, (size_t)rows * d * sizeof(double));
	memset(ref->denominator, 0, rows * sizeof(double));
	for (int i = 0; i < d * d; i++)
		ref->s[i] = op->state_in ? op->state_in[head * d * d + i] : 0;
	for (int i = 0; i < d; i++)
		ref->z[i] = op->normaliser_in ? op->normaliser_in[head * d + i] : 0;
	for (int n = 0; n < rows; n++) {
		reference_norm(op, op->q, op->q_norm, 1, n, head, ref->q + n * d);
		reference_norm(op, op->k, op->k_norm, kappa, n, head, ref->k + n * d);
		reference_rotate(op->rope, n, ref->q + n * d, ref->q_hat + n * d);
		reference_rotate(op->rope, n, ref->k + n * d, ref->k_hat + n * d);
		for (int i = 0; i < d; i++)
			ref->v[n * d + i] = ((const float *)op->v)[n * op->ld + head * d + i];
	}
	reference_scan(ref, want->state + head * d * d, want->normaliser + head * d);
	for (int n = 0; n < rows; n++)
		for (int i = 0; i < d; i++)
			want->y[(n * op->heads + head) * d + i] =
				ref->numerator[n * d + i] / (ref->denominator[n] + 1e-8) *
				op_test_silu(gate[n * op->ld + head * d + i]);
}

static void gdn_fill(struct op_test *test, const struct gdn_case *wish, struct kernel_gdn *op)
{
	const int d = op->head_dim, heads = op->heads, channels = heads * d;
	const int rows = wish->frames * wish->height * wish->width;

	op->ld = channels + wish->pad;
	op->q = op_test_random(test, rows * op->ld, -0.5, 1);
	op->k = op_test_random(test, rows * op->ld, -0.5, 1);
	op->v = op_test_random(test, rows * op->ld, -1, 1);
	op->gate = op_test_random(test, rows * op->ld, -2, 2);
	op->q_norm = op_test_random(test, channels, 0.7, 1.3);
	op->k_norm = op_test_random(test, channels, 0.7, 1.3);
	op->beta = op_test_random(test, (size_t)rows * heads, 0, 1);
	op->decay = op_test_random(test, wish->frames * heads, 0.7, 1);
	if (wish->state_in) {
		op->state_in = op_test_random(test, (size_t)heads * d * d, -1, 1);
		op->normaliser_in = op_test_random(test, (size_t)heads * d, 0, 1);
	}
	if (wish->state_out) {
		op->state_out = wish->same_state ? (float *)op->state_in :
						   op_test_floats(test, (size_t)heads * d * d);
		op->normaliser_out = wish->same_state ? (float *)op->normaliser_in :
							op_test_floats(test, (size_t)heads * d);
	}
	op->y = wish->y_is_gate ? (void *)op->gate : op_test_floats(test, (size_t)rows * channels);
}

static void gdn_case_run(struct op_test *test, const struct gdn_case *wish)
{
	const int d = 2 * (wish->pairs_t + wish->pairs_y + wish->pairs_x), heads = wish->heads;
	const size_t count = (size_t)wish->frames * wish->height * wish->width * heads * d;
	struct kernel_gdn op = { .epsilon = 1e-5f, .heads = heads, .head_dim = d };
	struct kernel_rope rope;
	struct reference ref;
	struct gdn_want want;

	op_test_reset(test, 61);
	rope = op_test_rope(test, wish->frames, wish->height, wish->width, wish->pairs_t,
			    wish->pairs_y, wish->pairs_x);
	op.rope = &rope;
	gdn_fill(test, wish, &op);
	want.y = doubles(test, count);
	want.state = doubles(test, (size_t)heads * d * d);
	want.normaliser = doubles(test, (size_t)heads * d);
	reference_create(test, &op, &ref);
	for (int head = 0; head < heads; head++)
		reference_head(&op, head, &ref, &want);

	op_test_run(test, KERNEL_OP_gdn, &op.workspace);
	op_test_compare(op.y, want.y, count, OP_CHAIN_TOLERANCE,
			"gdn y %d×%d×%d heads %d×%d%s%s%s%s", wish->frames, wish->height,
			wish->width, heads, d, wish->state_in ? " state in" : "",
			wish->state_out ? " state out" : "", wish->same_state ? " same" : "",
			wish->y_is_gate ? " y is gate" : "");
	if (wish->state_out) {
		op_test_compare(op.state_out, want.state, (size_t)heads * d * d, OP_CHAIN_TOLERANCE,
				"gdn M");
		op_test_compare(op.normaliser_out, want.normaliser, (size_t)heads * d,
				OP_CHAIN_TOLERANCE, "gdn z");
	}
}

static void test_gdn(void **state)
{
	static const struct gdn_case cases[] = {
		/* smallest */
		{ 1, 1, 1, 1, 1, 0, 0, 0, false, false, false, false },
		{ 1, 1, 1, 1, 0, 0, 1, 0, true, true, false, true },
		{ 2, 1, 1, 2, 1, 1, 0, 1, false, true, false, false },
		/* real */
		{ 3, 9, 16, 6, 6, 5, 5, 576, true, true, false, false },
		{ 5, 9, 16, 6, 6, 5, 5, 0, false, true, false, true },
		{ 3, 9, 16, 6, 6, 5, 5, 0, true, true, true, true },
		/* odd: head dims 80, 112 and 10, primes, strides */
		{ 5, 3, 7, 2, 14, 13, 13, 3, true, true, true, false },
		{ 4, 5, 3, 3, 20, 18, 18, 1, true, false, false, false },
		{ 7, 11, 13, 3, 1, 2, 2, 0, true, true, false, false },
	};

	(void)state;
	for (int threads = 1; threads <= 3; threads++) {
		struct op_test test;

		op_test_open(&test, threads);
		for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
			gdn_case_run(&test, &cases[i]);
		op_test_close(&test);
	}
}

static int gdn_status(struct op_test *test, const struct kernel_gdn *op)
{
	struct kernel_gdn copy = *op;

	return op_test_try(test, KERNEL_OP_gdn, &copy.workspace);
}

static void test_gdn_refuses(void **state)
{
	const struct gdn_case wish = { 2, 2, 2, 2, 1, 1, 0, 0, true, true, false, false };
	struct kernel_gdn good = { .epsilon = 1e-5f, .heads = 2, .head_dim = 4 }, bad;
	struct kernel_rope rope, wrong;
	struct op_test test;

	(void)state;
	op_test_open(&test, 2);
	rope = wrong = op_test_rope(&test, 2, 2, 2, 1, 1, 0);
	good.rope = &rope;
	gdn_fill(&test, &wish, &good);
	assert_int_equal(gdn_status(&test, &good), 0);
	bad = good, bad.heads = 0;
	assert_int_equal(gdn_status(&test, &bad), -EINVAL);
	bad = good, bad.head_dim = 6;
	assert_int_equal(gdn_status(&test, &bad), -EINVAL);
	bad = good, bad.ld = 7;
	assert_int_equal(gdn_status(&test, &bad), -EINVAL);
	bad = good, bad.normaliser_in = NULL;
	assert_int_equal(gdn_status(&test, &bad), -EINVAL);
	bad = good, bad.state_out = NULL;
	assert_int_equal(gdn_status(&test, &bad), -EINVAL);
	wrong.frames = 0, bad = good, bad.rope = &wrong;
	assert_int_equal(gdn_status(&test, &bad), -EINVAL);
	printf("  gdn: six wrong blocks refused\n");
	op_test_close(&test);
}

/* The same bits again. */
static void test_gdn_repeats(void **state)
{
	const struct gdn_case wish = { 3, 9, 16, 6, 6, 5, 5, 0, true, true, false, false };
	const size_t count = (size_t)3 * 144 * 192;
	float *first = NULL;
	struct op_test test;

	(void)state;
	op_test_open(&test, 3);
	for (int i = 0; i < 3; i++) {
		struct kernel_gdn op = { .epsilon = 1e-5f, .heads = 6, .head_dim = 32 };
		struct kernel_rope rope;

		test.random = 71; /* keep the buffers of the first run */
		rope = op_test_rope(&test, 3, 9, 16, 6, 5, 5);
		op.rope = &rope;
		gdn_fill(&test, &wish, &op);
		op_test_run(&test, KERNEL_OP_gdn, &op.workspace);
		if (!first)
			first = op_test_copy(&test, op.y, count);
		assert_memory_equal(op.y, first, count * sizeof(*first));
	}
	printf("  gdn: the same bits three times\n");
	op_test_close(&test);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_gates),
		cmocka_unit_test(test_gdn),
		cmocka_unit_test(test_gdn_refuses),
		cmocka_unit_test(test_gdn_repeats),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
