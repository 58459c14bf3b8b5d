#include "tests/common/op_test.h"

#include <errno.h>
#include <math.h>

enum { GUARD_BYTES = 256, GUARD_VALUE = 0xa5 };

/* ------------------------------------------------------------------------------------- device */

void op_test_open(struct op_test *test, int threads)
{
	const struct kernel_device_options options = { .threads = threads };
	char text[256] = "";

	*test = (struct op_test){ .table = &kernel_backend_cpu };
	assert_int_equal(test->table->open(&options, text, sizeof(text), &test->device), 0);
	assert_int_equal(test->table->queue_create(test->device, 0, &test->queue), 0);
	op_test_reset(test, 1);
}

void op_test_close(struct op_test *test)
{
	op_test_reset(test, 0);
	test->table->queue_destroy(test->device, test->queue);
	test->table->close(test->device);
}

void op_test_reset(struct op_test *test, uint64_t seed)
{
	for (int i = 0; i < test->buffers; i++)
		free(test->buffer[i].memory);
	test->buffers = 0;
	test->random = seed;
}

/* ------------------------------------------------------------------------------------ buffers */

void *op_test_buffer(struct op_test *test, size_t bytes)
{
	const size_t whole = align_up(bytes + 2 * GUARD_BYTES, KERNEL_ALIGNMENT);
	unsigned char *memory = aligned_alloc(KERNEL_ALIGNMENT, whole);

	assert_non_null(memory);
	assert_true(test->buffers < OP_TEST_MAX_BUFFERS);
	memset(memory, GUARD_VALUE, whole);
	memset(memory + GUARD_BYTES, 0xff, bytes);
	test->buffer[test->buffers++] = (struct op_test_buffer){ memory, bytes };
	return memory + GUARD_BYTES;
}

static void check_guards(const struct op_test *test)
{
	for (int i = 0; i < test->buffers; i++) {
		const unsigned char *before = test->buffer[i].memory;
		const unsigned char *after = before + GUARD_BYTES + test->buffer[i].bytes;

		for (int j = 0; j < GUARD_BYTES; j++) {
			assert_int_equal(before[j], GUARD_VALUE);
			assert_int_equal(after[j], GUARD_VALUE);
		}
	}
}

float *op_test_floats(struct op_test *test, size_t count)
{
	return op_test_buffer(test, count * sizeof(float));
}

/* splitmix64 */
static uint64_t random_bits(struct op_test *test)
{
	uint64_t z = test->random += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

double op_test_uniform(struct op_test *test, double low, double high)
{
	return low + (high - low) * ((double)(random_bits(test) >> 11) * 0x1p-53);
}

float *op_test_random(struct op_test *test, size_t count, double low, double high)
{
	float *values = op_test_floats(test, count);

	for (size_t i = 0; i < count; i++)
		values[i] = (float)op_test_uniform(test, low, high);
	return values;
}

float *op_test_copy(struct op_test *test, const float *from, size_t count)
{
	float *values = op_test_floats(test, count);

	memcpy(values, from, count * sizeof(*values));
	return values;
}

static void rope_axis(struct op_test *test, size_t count, const float **ret_cos,
		      const float **ret_sin)
{
	float *cosine = op_test_floats(test, count), *sine = op_test_floats(test, count);

	for (size_t i = 0; i < count; i++) {
		const double angle = op_test_uniform(test, -4, 4);

		cosine[i] = (float)cos(angle);
		sine[i] = (float)sin(angle);
	}
	*ret_cos = cosine;
	*ret_sin = sine;
}

struct kernel_rope op_test_rope(struct op_test *test, int frames, int height, int width,
				int pairs_t, int pairs_y, int pairs_x)
{
	struct kernel_rope rope = {
		.frames = frames,
		.height = height,
		.width = width,
		.pairs_t = pairs_t,
		.pairs_y = pairs_y,
		.pairs_x = pairs_x,
	};

	rope_axis(test, (size_t)frames * pairs_t, &rope.cos_t, &rope.sin_t);
	rope_axis(test, (size_t)height * pairs_y, &rope.cos_y, &rope.sin_y);
	rope_axis(test, (size_t)width * pairs_x, &rope.cos_x, &rope.sin_x);
	return rope;
}

/* ------------------------------------------------------------------------------------ weights */

/* The bits of a random element: about ±1, F16 now and then subnormal. */
static void random_element(struct op_test *test, enum kernel_dtype dtype, unsigned char *to)
{
	const float value = (float)op_test_uniform(test, -1, 1);
	uint32_t bits;
	uint16_t half;

	memcpy(&bits, &value, sizeof(bits));
	if (dtype == KERNEL_F32) {
		memcpy(to, &bits, sizeof(bits));
		return;
	}
	half = (uint16_t)(bits >> 16);
	if (dtype == KERNEL_F16) {
		const uint64_t r = random_bits(test);
		const unsigned int exponent = r % 16 == 0 ? 0 : 11 + (unsigned int)(r >> 8) % 4;

		half = (uint16_t)((r >> 16 & 0x83ff) | exponent << 10);
	}
	memcpy(to, &half, sizeof(half));
}

struct kernel_weight *op_test_weight(struct op_test *test, const struct op_test_weight *wish)
{
	const size_t element = kernel_dtype_bytes(wish->dtype);
	const size_t count = (size_t)wish->out * wish->in * wish->taps;
	const size_t shift = wish->dtype == KERNEL_F32 ? 0 : 1;
	unsigned char *data =
		(unsigned char *)op_test_buffer(test, count * element + shift) + shift;
	struct kernel_weight *weight = op_test_buffer(test, sizeof(*weight));

	for (size_t i = 0; i < count; i++)
		random_element(test, wish->dtype, data + i * element);
	*weight = (struct kernel_weight){
		.data = data,
		.dtype = wish->dtype,
		.out = wish->out,
		.in = wish->in,
		.taps = wish->taps,
		.tap_first = wish->tap_first,
		.tap_count = wish->tap_count,
	};
	if (wish->prepared) {
		const size_t bytes = test->table->weight_prepare_bytes(test->device, weight);

		assert_int_equal(bytes, (size_t)wish->out * wish->tap_count * wish->in * 4);
		assert_int_equal(test->table->weight_prepare(test->device, weight,
							     op_test_buffer(test, bytes),
							     test->queue),
				 0);
		assert_non_null(weight->prepared);
		check_guards(test);
	}
	return weight;
}

double op_test_weight_at(const struct kernel_weight *weight, int out, int tap, int in)
{
	const size_t i = ((size_t)out * weight->in + in) * weight->taps + weight->tap_first + tap;
	const unsigned char *data = weight->data;
	uint32_t bits;
	uint16_t half;
	float value;
	double magnitude;

	if (weight->dtype == KERNEL_F32) {
		memcpy(&value, data + 4 * i, sizeof(value));
		return value;
	}
	memcpy(&half, data + 2 * i, sizeof(half));
	if (weight->dtype == KERNEL_BF16) {
		bits = (uint32_t)half << 16;
		memcpy(&value, &bits, sizeof(value));
		return value;
	}
	if ((half >> 10 & 31) == 0)
		magnitude = ldexp(half & 1023, -24);
	else if ((half >> 10 & 31) == 31)
		magnitude = half & 1023 ? NAN : INFINITY;
	else
		magnitude = ldexp(1024 + (half & 1023), (half >> 10 & 31) - 25);
	return half & 0x8000 ? -magnitude : magnitude;
}

double *op_test_weight_values(struct op_test *test, const struct kernel_weight *weight)
{
	const size_t count = (size_t)weight->out * weight->tap_count * weight->in;
	double *values = op_test_buffer(test, count * sizeof(*values)), *to = values;

	for (int o = 0; o < weight->out; o++)
		for (int tap = 0; tap < weight->tap_count; tap++)
			for (int i = 0; i < weight->in; i++)
				*to++ = op_test_weight_at(weight, o, tap, i);
	return values;
}

/* ---------------------------------------------------------------------------------------- run */

int op_test_try(struct op_test *test, enum kernel_op op, struct kernel_workspace *params)
{
	const kernel_workspace_function workspace = test->table->workspace[op];
	const size_t bytes = workspace ? workspace(test->device, params) : 0;
	int r;

	*params = (struct kernel_workspace){ NULL, 0 };
	if (bytes > 0) {
		params->data = op_test_buffer(test, bytes);
		params->bytes = bytes - 1;
		assert_int_equal(test->table->run[op](test->device, params, test->queue), -EINVAL);
		params->bytes = bytes;
	}
	r = test->table->run[op](test->device, params, test->queue);
	assert_int_equal(test->table->queue_wait(test->device, test->queue), 0);
	check_guards(test);
	return r;
}

void op_test_run(struct op_test *test, enum kernel_op op, struct kernel_workspace *params)
{
	const int r = op_test_try(test, op, params);

	if (r != 0)
		fail_msg("%s returned %d", kernel_op_name(op), r);
}

void op_test_compare(const float *got, const double *want, size_t count, double tolerance,
		     const char *format, ...)
{
	double difference = 0, norm = 0, worst = 0, largest = 0, l2, max;
	char name[256];
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(name, sizeof(name), format, arguments);
	va_end(arguments);

	for (size_t i = 0; i < count; i++) {
		const double d = fabs((double)got[i] - want[i]);

		difference += d * d;
		norm += want[i] * want[i];
		/* written so that a NaN stays */
		worst = d <= worst ? worst : d;
		largest = fabs(want[i]) <= largest ? largest : fabs(want[i]);
	}
	l2 = norm > 0 ? sqrt(difference / norm) : sqrt(difference);
	max = largest > 0 ? worst / largest : worst;
	printf("  %s: %zu values, relative L2 %.1e, max %.1e (tolerance %.0e)\n", name, count, l2,
	       max, tolerance);
	if (!(l2 <= tolerance) || !(max <= 10 * tolerance))
		fail_msg("%s: relative L2 %.3e, max %.3e, tolerance %.1e", name, l2, max,
			 tolerance);
}

double op_test_silu(double a)
{
	return a / (1 + exp(-a));
}

double op_test_sigmoid(double a)
{
	return 1 / (1 + exp(-a));
}

double op_test_gelu(double a)
{
	return 0.5 * a * (1 + tanh(sqrt(2 / acos(-1.0)) * (a + 0.044715 * a * a * a)));
}
