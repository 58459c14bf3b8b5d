/* Pixels to patches and back. */
#include <errno.h>
#include <math.h>

#include "tests/common/op_test.h"

struct pixel_case {
	int frames, height, width, channels, patch;
	size_t row_pad, frame_pad; /* bytes */
};

static const struct pixel_case cases[] = {
	{ 1, 1, 1, 1, 1, 0, 0 },
	{ 3, 72, 128, 3, 4, 0, 0 },
	{ 2, 15, 21, 3, 3, 5, 11 },
	{ 5, 8, 12, 1, 2, 3, 0 },
};

/* The patch element that holds pixel (t, y, x), colour c. */
static size_t patch_at(const struct pixel_case *wish, int t, int y, int x, int c)
{
	const int p = wish->patch;
	const size_t cell = ((size_t)t * (wish->height / p) + y / p) * (wish->width / p) + x / p;

	return cell * wish->channels * p * p + (size_t)(c * p + x % p) * p + y % p;
}

/* Calls `check` with every pixel's offset in bytes (row and frame strides of elements `size`). */
#define FOR_EACH_PIXEL(wish, t, y, x, c)                        \
	for (int t = 0; t < (wish)->frames; t++)                \
		for (int y = 0; y < (wish)->height; y++)        \
			for (int x = 0; x < (wish)->width; x++) \
				for (int c = 0; c < (wish)->channels; c++)

static size_t row_bytes(const struct pixel_case *wish, bool is_float)
{
	return (size_t)wish->width * wish->channels * (is_float ? 4 : 1) + wish->row_pad;
}

static size_t frame_bytes(const struct pixel_case *wish, bool is_float)
{
	return row_bytes(wish, is_float) * wish->height + wish->frame_pad;
}

static size_t pixel_offset(const struct pixel_case *wish, bool is_float, int t, int y, int x, int c)
{
	return t * frame_bytes(wish, is_float) + y * row_bytes(wish, is_float) +
	       ((size_t)x * wish->channels + c) * (is_float ? 4 : 1);
}

static void patchify_case(struct op_test *test, const struct pixel_case *wish, bool is_float)
{
	const size_t count = (size_t)wish->frames * wish->height * wish->width * wish->channels;
	const size_t bytes = wish->frames * frame_bytes(wish, is_float);
	struct kernel_patchify op = {
		.pixels_are_float = is_float,
		.row_bytes = row_bytes(wish, is_float),
		.frame_bytes = frame_bytes(wish, is_float),
		.frames = wish->frames,
		.height = wish->height,
		.width = wish->width,
		.channels = wish->channels,
		.patch = wish->patch,
	};
	unsigned char *pixels;
	double *want;

	op_test_reset(test, 47);
	pixels = op_test_buffer(test, bytes);
	want = op_test_buffer(test, count * sizeof(*want));
	FOR_EACH_PIXEL(wish, t, y, x, c)
	{
		unsigned char *at = pixels + pixel_offset(wish, is_float, t, y, x, c);
		const float value = (float)op_test_uniform(test, -1, 1);
		double *to = want + patch_at(wish, t, y, x, c);

		if (is_float) {
			memcpy(at, &value, sizeof(value));
			*to = value;
		} else {
			*at = (unsigned char)op_test_uniform(test, 0, 256);
			*to = *at * 2.0 / 255.0 - 1.0;
		}
	}
	op.pixels = pixels;
	op.y = op_test_floats(test, count);
	op_test_run(test, KERNEL_OP_patchify, &op.workspace);
	op_test_compare(op.y, want, count, OP_TOLERANCE, "patchify %d×%d×%d×%d by %d%s",
			wish->frames, wish->height, wish->width, wish->channels, wish->patch,
			is_float ? " float" : "");
	op.height++;
	if (wish->patch > 1)
		assert_int_equal(op_test_try(test, KERNEL_OP_patchify, &op.workspace), -EINVAL);
}

static int u8_of(float x, enum kernel_rounding rounding)
{
	double v = 127.5 * x + 127.5;

	v = v < 0 ? 0 : v > 255 ? 255 : v;
	return (int)floor(rounding == KERNEL_ROUND_NEAREST ? v + 0.5 : v);
}

static void unpatchify_case(struct op_test *test, const struct pixel_case *wish, bool is_float,
			    enum kernel_rounding rounding)
{
	const size_t count = (size_t)wish->frames * wish->height * wish->width * wish->channels;
	const size_t bytes = wish->frames * frame_bytes(wish, is_float);
	struct kernel_unpatchify op = {
		.pixels_are_float = is_float,
		.rounding = rounding,
		.row_bytes = row_bytes(wish, is_float),
		.frame_bytes = frame_bytes(wish, is_float),
		.frames = wish->frames,
		.height = wish->height,
		.width = wish->width,
		.channels = wish->channels,
		.patch = wish->patch,
	};
	unsigned char *pixels, *expected;
	float *patches;

	op_test_reset(test, 53);
	patches = op_test_random(test, count, -1.3, 1.3);
	pixels = op_test_buffer(test, bytes);
	expected = op_test_buffer(test, bytes); /* also says that padding is left alone */
	FOR_EACH_PIXEL(wish, t, y, x, c)
	{
		const float value = patches[patch_at(wish, t, y, x, c)];
		unsigned char *at = expected + pixel_offset(wish, is_float, t, y, x, c);

		if (is_float)
			memcpy(at, &value, sizeof(value));
		else
			*at = (unsigned char)u8_of(value, rounding);
	}
	op.x = patches;
	op.pixels = pixels;
	op_test_run(test, KERNEL_OP_unpatchify, &op.workspace);
	assert_memory_equal(pixels, expected, bytes);
	printf("  unpatchify %d×%d×%d×%d by %d%s rounding %d: %zu bytes equal\n", wish->frames,
	       wish->height, wish->width, wish->channels, wish->patch, is_float ? " float" : "",
	       rounding, bytes);
}

static void test_pixels(void **state)
{
	(void)state;
	for (int threads = 1; threads <= 3; threads++) {
		struct op_test test;

		op_test_open(&test, threads);
		for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
			patchify_case(&test, &cases[i], false);
			patchify_case(&test, &cases[i], true);
			unpatchify_case(&test, &cases[i], false, KERNEL_ROUND_NEAREST);
			unpatchify_case(&test, &cases[i], false, KERNEL_ROUND_TRUNCATE);
			unpatchify_case(&test, &cases[i], true, KERNEL_ROUND_NEAREST);
		}
		op_test_close(&test);
	}
}

/* All 256 values survive the way in and out; what is not finite does not leave the range. */
static void test_round_trip(void **state)
{
	unsigned char in[256], out[256];
	struct kernel_patchify patchify = {
		.pixels = in,
		.row_bytes = 256,
		.frame_bytes = 256,
		.frames = 1,
		.height = 1,
		.width = 256,
		.channels = 1,
		.patch = 1,
	};
	struct kernel_unpatchify unpatchify = {
		.pixels = out,
		.row_bytes = 256,
		.frame_bytes = 256,
		.frames = 1,
		.height = 1,
		.width = 256,
		.channels = 1,
		.patch = 1,
	};
	struct op_test test;
	float *y;

	(void)state;
	for (int i = 0; i < 256; i++)
		in[i] = (unsigned char)i;
	op_test_open(&test, 2);
	patchify.y = y = op_test_floats(&test, 256);
	unpatchify.x = y;
	op_test_run(&test, KERNEL_OP_patchify, &patchify.workspace);
	op_test_run(&test, KERNEL_OP_unpatchify, &unpatchify.workspace);
	assert_memory_equal(in, out, 256);
	y[0] = INFINITY;
	y[1] = -INFINITY;
	op_test_run(&test, KERNEL_OP_unpatchify, &unpatchify.workspace);
	assert_int_equal(out[0], 255);
	assert_int_equal(out[1], 0);
	op_test_close(&test);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pixels),
		cmocka_unit_test(test_round_trip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
