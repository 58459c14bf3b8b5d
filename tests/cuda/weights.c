/* Weights in the GPU's layout against the file's values, and the copies of the back end. */
#include "tests/common/cuda_test.h"

static struct cuda_test test;

static float bf16_at(const uint16_t *half, size_t i)
{
	const uint32_t bits = (uint32_t)half[i] << 16;
	float value;

	memcpy(&value, &bits, sizeof(value));
	return value;
}

/* BF16 weights are moved, not changed: every one must be where cuda_weight_tap says. */
static void weights_are_where_they_belong(void **state)
{
	static const int shapes[][5] = {
		{ 1, 1, 1, 0, 1 },	{ 24, 40, 1, 0, 1 },  { 7, 9, 3, 0, 3 },
		{ 33, 17, 3, 1, 1 },	{ 16, 8, 27, 0, 27 }, { 2240, 2240, 3, 0, 3 },
		{ 128, 48, 27, 0, 27 },
	};

	(void)state;
	for (size_t s = 0; s < ARRAY_SIZE(shapes); s++) {
		const int out = shapes[s][0], in = shapes[s][1], taps = shapes[s][2];
		const int first = shapes[s][3], count = shapes[s][4];
		const size_t elements = (size_t)out * in * count;
		const struct cuda_test_side *gpu = &test.gpu;
		struct cuda_weight w;
		uint16_t *got = test_malloc(elements * sizeof(*got));

		cuda_test_reset(&test, 10 + s);
		w = cuda_test_weight(&test, out, in, taps, first, count, 1.0);
		assert_int_equal(gpu->table->download(gpu->device, got, w.gpu.prepared,
						      elements * sizeof(*got), gpu->queue),
				 0);
		assert_int_equal(gpu->table->queue_wait(gpu->device, gpu->queue), 0);
		for (size_t t = 0; t < (size_t)count; t++)
			for (size_t o = 0; o < (size_t)out; o++)
				for (size_t i = 0; i < (size_t)in; i++)
					assert_true(bf16_at(got, (t * out + o) * in + i) ==
						    bf16_at(w.gpu.data,
							    (o * in + i) * taps + first + t));
		printf("  [%d][%d][%d], taps %d to %d: equal\n", out, in, taps, first,
		       first + count - 1);
		test_free(got);
	}
}

static int open_all(void **state)
{
	(void)state;
	cuda_test_open(&test);
	return 0;
}

static int close_all(void **state)
{
	(void)state;
	cuda_test_close(&test);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(weights_are_where_they_belong),
	};

	return cmocka_run_group_tests(tests, open_all, close_all);
}
