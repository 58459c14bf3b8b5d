/* The random generator against published values, the noise op against its formula. */
#include <errno.h>
#include <math.h>

#include "kernels/cpu/noise.h"
#include "tests/common/op_test.h"

/* Known answers published with Random123 for philox4x32-10. */
static void test_philox(void **state)
{
	static const struct {
		uint32_t counter[4], key[2], want[4];
	} answers[] = {
		{ { 0, 0, 0, 0 }, { 0, 0 }, { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 } },
		{ { 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff },
		  { 0xffffffff, 0xffffffff },
		  { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd } },
		{ { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 },
		  { 0xa4093822, 0x299f31d0 },
		  { 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 } },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
		uint32_t got[4];

		cpu_philox4x32(answers[i].counter, answers[i].key, got);
		printf("  philox %zu: %08x %08x %08x %08x\n", i, got[0], got[1], got[2], got[3]);
		assert_memory_equal(got, answers[i].want, sizeof(got));
	}
}

static double noise_at(uint64_t seed, uint64_t frame, int y, int x, int channel)
{
	const uint32_t key[2] = { (uint32_t)seed, (uint32_t)(seed >> 32) };
	const uint32_t counter[4] = { (uint32_t)y * 65536 + (uint32_t)x, (uint32_t)channel,
				      (uint32_t)frame, (uint32_t)(frame >> 32) };
	uint32_t w[4];

	cpu_philox4x32(counter, key, w);
	return sqrt(-2 * log((w[0] + 1.0) / 4294967296.0)) *
	       cos(2 * acos(-1.0) * (w[1] / 4294967296.0));
}

static void noise_case(struct op_test *test, uint64_t seed, uint64_t first, int frames, int height,
		       int width, int channels)
{
	struct kernel_noise op = {
		.seed = &seed,
		.first_frame = &first,
		.frames = frames,
		.height = height,
		.width = width,
		.channels = channels,
	};
	const size_t count = (size_t)frames * height * width * channels;
	double *want, *to;

	op_test_reset(test, 0);
	op.y = op_test_floats(test, count);
	want = to = op_test_buffer(test, count * sizeof(*want));
	for (int t = 0; t < frames; t++)
		for (int y = 0; y < height; y++)
			for (int x = 0; x < width; x++)
				for (int c = 0; c < channels; c++)
					*to++ = noise_at(seed, first + t, y, x, c);
	op_test_run(test, KERNEL_OP_noise, &op.workspace);
	op_test_compare(op.y, want, count, OP_TOLERANCE, "noise %d×%d×%d×%d from frame %llu",
			frames, height, width, channels, (unsigned long long)first);
}

static void test_noise(void **state)
{
	(void)state;
	for (int threads = 1; threads <= 3; threads++) {
		struct op_test test;

		op_test_open(&test, threads);
		noise_case(&test, 0, 0, 1, 1, 1, 1);
		noise_case(&test, 42, 5, 3, 9, 16, 32);
		noise_case(&test, 0x123456789abcdef0, (1ull << 32) - 1, 2, 3, 7, 5);
		noise_case(&test, 1, 1ull << 40, 1, 1, 65536, 1);
		op_test_close(&test);
	}
}

/* The same frame whatever chunk it comes in, moments of a standard normal. */
static void test_noise_is_normal(void **state)
{
	enum { FRAMES = 6, FRAME = 9 * 16 * 32 };
	const uint64_t seed = 7, zero = 0, three = 3;
	struct kernel_noise op = {
		.seed = &seed,
		.first_frame = &zero,
		.frames = FRAMES,
		.height = 9,
		.width = 16,
		.channels = 32,
	};
	double mean = 0, square = 0;
	struct op_test test;
	float *whole;

	(void)state;
	op_test_open(&test, 2);
	op.y = whole = op_test_floats(&test, FRAMES * FRAME);
	op_test_run(&test, KERNEL_OP_noise, &op.workspace);
	op.first_frame = &three;
	op.frames = 3;
	op.y = op_test_floats(&test, 3 * FRAME);
	op_test_run(&test, KERNEL_OP_noise, &op.workspace);
	assert_memory_equal(op.y, whole + 3 * FRAME, 3 * FRAME * sizeof(float));

	for (int i = 0; i < FRAMES * FRAME; i++) {
		mean += whole[i] / (FRAMES * FRAME);
		square += (double)whole[i] * whole[i] / (FRAMES * FRAME);
	}
	printf("  27648 values: mean %.4f, mean square %.4f\n", mean, square);
	/* five standard errors: 1/√n and √(2/n) */
	assert_true(fabs(mean) < 5 / sqrt(FRAMES * FRAME));
	assert_true(fabs(square - 1) < 5 * sqrt(2.0 / (FRAMES * FRAME)));

	op.width = 65537;
	assert_int_equal(op_test_try(&test, KERNEL_OP_noise, &op.workspace), -EINVAL);
	op_test_close(&test);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_philox),
		cmocka_unit_test(test_noise),
		cmocka_unit_test(test_noise_is_normal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
