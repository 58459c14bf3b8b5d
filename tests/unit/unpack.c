/*
 * Camera pictures to RGB without libswscale, on random pictures: against the formulas in FP64, and
 * against the path that files take.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <libavutil/pixfmt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "media/convert.h"
#include "media/scaler.h"
#include "media/unpack.h"

/*
 * Chroma is rounded to 8 bits (half a level, times at most 2.14), the result once more (half a
 * level), and 16-bit products are cut off (a tenth): 1.7 from the real number.
 */
static const double TOLERANCE_FORMULA = 1.7;
/* Both paths round chroma their own way, by half a level at most, which the matrix doubles. */
enum { TOLERANCE_PATHS = 2 };
/* The matrix alone, against the exact integers. */
enum { TOLERANCE_MATRIX = 1 };

enum { MAX_WIDTH = 80, MAX_HEIGHT = 40, MAX_PLANE = 2 * MAX_WIDTH * MAX_HEIGHT + 64 };

static const double weights[MEDIA_MATRIX_COUNT][2] = {
	[MEDIA_MATRIX_601] = { 0.299, 0.114 },
	[MEDIA_MATRIX_709] = { 0.2126, 0.0722 },
	[MEDIA_MATRIX_2020] = { 0.2627, 0.0593 },
	[MEDIA_MATRIX_240M] = { 0.212, 0.087 },
};

static const struct format {
	int format;
	const char *name;
	int half_x, half_y; /* chroma is sub-sampled */
	int plane[3], step[3], offset[3],
		bytes[3]; /* of Y, U, V; bytes: of a row, per half width */
} formats[] = {
	{ AV_PIX_FMT_YUYV422, "YUYV", 1, 0, { 0, 0, 0 }, { 2, 4, 4 }, { 0, 1, 3 }, { 4, 4, 4 } },
	{ AV_PIX_FMT_UYVY422, "UYVY", 1, 0, { 0, 0, 0 }, { 2, 4, 4 }, { 1, 0, 2 }, { 4, 4, 4 } },
	{ AV_PIX_FMT_NV12, "NV12", 1, 1, { 0, 1, 1 }, { 1, 2, 2 }, { 0, 0, 1 }, { 2, 2, 2 } },
	{ AV_PIX_FMT_YUV420P, "YU12", 1, 1, { 0, 1, 2 }, { 1, 1, 1 }, { 0, 0, 0 }, { 2, 1, 1 } },
	{ AV_PIX_FMT_YUV422P, "422P", 1, 0, { 0, 1, 2 }, { 1, 1, 1 }, { 0, 0, 0 }, { 2, 1, 1 } },
	{ AV_PIX_FMT_YUV444P, "444P", 0, 0, { 0, 1, 2 }, { 1, 1, 1 }, { 0, 0, 0 }, { 2, 2, 2 } },
	{ AV_PIX_FMT_GRAY8, "GREY", 0, 0, { 0, -1, -1 }, { 1, 1, 1 }, { 0, 0, 0 }, { 2, 0, 0 } },
};

struct random_picture {
	uint8_t memory[3][MAX_PLANE];
	struct media_picture p;
};

static void picture_make(struct random_picture *r, const struct format *f, int width, int height)
{
	static uint32_t x = 2463534242;
	const int half = (width + 1) / 2;

	r->p = (struct media_picture){
		.format = f->format,
		.width = width,
		.height = height,
		.siting = MEDIA_SITING_CENTRE,
		.aspect_num = 1,
		.aspect_den = 1,
	};
	for (int i = 0; i < 3; i++) {
		for (int k = 0; k < MAX_PLANE; k++) {
			x ^= x << 13;
			x ^= x >> 17;
			x ^= x << 5;
			/* Flat stretches and edges of full height, both. */
			r->memory[i][k] = x % 4 && k >= 4 ? r->memory[i][k - 4] :
							    (uint8_t)(x >> 24);
		}
		if (f->plane[i] >= 0) {
			r->p.plane[f->plane[i]] = r->memory[f->plane[i]];
			r->p.row_bytes[f->plane[i]] = f->bytes[i] * half + 3; /* odd on purpose */
		}
	}
}

static double sample(const struct random_picture *r, const struct format *f, int c, int x, int y)
{
	const int width = c && f->half_x ? (r->p.width + 1) / 2 : r->p.width;
	const int height = c && f->half_y ? (r->p.height + 1) / 2 : r->p.height;

	if (f->plane[c] < 0)
		return 128;
	x = MAX_OF(0, MIN_OF(x, width - 1));
	y = MAX_OF(0, MIN_OF(y, height - 1));
	return r->memory[f->plane[c]]
			[r->p.row_bytes[f->plane[c]] * y + f->step[c] * x + f->offset[c]];
}

/* Bilinear at the place of a pixel, chroma lying between the luma samples. */
static double chroma(const struct random_picture *r, const struct format *f, int c, int x, int y)
{
	const double sx = f->half_x ? (x + 0.5) / 2 - 0.5 : x;
	const double sy = f->half_y ? (y + 0.5) / 2 - 0.5 : y;
	const int x0 = (int)floor(sx), y0 = (int)floor(sy);
	const double fx = sx - x0, fy = sy - y0;

	return (1 - fy) * ((1 - fx) * sample(r, f, c, x0, y0) + fx * sample(r, f, c, x0 + 1, y0)) +
	       fy * ((1 - fx) * sample(r, f, c, x0, y0 + 1) + fx * sample(r, f, c, x0 + 1, y0 + 1));
}

static double limit(double v)
{
	return fmax(0, fmin(255, v));
}

static void pixel(const struct random_picture *r, const struct format *f, int x, int y, double *rgb)
{
	const double kr = weights[r->p.matrix][0], kb = weights[r->p.matrix][1], kg = 1 - kr - kb;
	const bool full = r->p.full_range;
	const double luma = (sample(r, f, 0, x, y) - (full ? 0 : 16)) * (full ? 1 : 255.0 / 219);
	const double pb = (chroma(r, f, 1, x, y) - 128) * (full ? 1 : 255.0 / 224);
	const double pr = (chroma(r, f, 2, x, y) - 128) * (full ? 1 : 255.0 / 224);

	rgb[0] = limit(luma + 2 * (1 - kr) * pr);
	rgb[1] = limit(luma - 2 * kb * (1 - kb) / kg * pb - 2 * kr * (1 - kr) / kg * pr);
	rgb[2] = limit(luma + 2 * (1 - kb) * pb);
}

static void convert(const struct random_picture *r, uint8_t *rgb)
{
	struct media_convert *c;
	struct sana_error error;

	assert_int_equal(media_convert_create(r->p.width, r->p.height, true, &c, &error), 0);
	assert_int_equal(media_convert_run(c, &r->p, rgb, 3 * (size_t)r->p.width, &error), 0);
	(void)media_convert_destroy(c);
}

/* Sizes: what a camera sends, odd, one chroma sample, and not a multiple of any vector. */
static const int sizes[][2] = { { 64, 36 }, { 35, 21 }, { 2, 2 }, { 1, 1 }, { 79, 5 }, { 3, 40 } };

static void all_formats_follow_the_formulas(void **state)
{
	static struct random_picture r;
	static uint8_t rgb[3 * MAX_WIDTH * MAX_HEIGHT];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
		double worst = 0, wanted[3];
		long count = 0;

		for (size_t s = 0; s < ARRAY_SIZE(sizes) * MEDIA_MATRIX_COUNT * 2; s++) {
			const int *size = sizes[s / 2 / MEDIA_MATRIX_COUNT];

			picture_make(&r, &formats[i], size[0], size[1]);
			r.p.full_range = s % 2;
			r.p.matrix = (enum media_matrix)(s / 2 % MEDIA_MATRIX_COUNT);
			assert_true(media_unpack_knows(&r.p));
			convert(&r, rgb);
			for (int y = 0; y < size[1]; y++)
				for (int x = 0; x < size[0]; x++, count++) {
					pixel(&r, &formats[i], x, y, wanted);
					for (int c = 0; c < 3; c++)
						worst = fmax(worst,
							     fabs(rgb[3 * (y * size[0] + x) + c] -
								  wanted[c]));
				}
		}
		print_message("%s: %ld pixels, worst difference %.2f levels\n", formats[i].name,
			      count, worst);
		assert_true(worst <= TOLERANCE_FORMULA);
	}
}

/* libswscale's chroma and the exact matrix, as files get them. */
static void both_paths_agree(void **state)
{
	enum { WIDTH = 64, HEIGHT = 36, PLANE = WIDTH * HEIGHT };
	static struct random_picture r;
	static uint8_t rgb[3 * PLANE], planes[3 * PLANE], wanted[3 * WIDTH];

	(void)state;
	for (size_t i = 0; i + 1 < ARRAY_SIZE(formats); i++) {
		struct media_scaler_wish wish = { WIDTH,
						  HEIGHT,
						  formats[i].format,
						  AV_PIX_FMT_YUV444P,
						  MEDIA_MATRIX_601,
						  false,
						  MEDIA_SITING_CENTRE };
		struct media_colour colour;
		struct SwsContext *scaler;
		int worst = 0;

		picture_make(&r, &formats[i], WIDTH, HEIGHT);
		convert(&r, rgb);
		assert_int_equal(media_scaler_create(&wish, &scaler), 0);
		(void)sws_scale(scaler, r.p.plane, r.p.row_bytes, 0, HEIGHT,
				(uint8_t *[]){ planes, planes + PLANE, planes + 2 * PLANE },
				(int[]){ WIDTH, WIDTH, WIDTH });
		sws_freeContext(scaler);
		media_colour_init(&colour, MEDIA_MATRIX_601, false);
		for (int y = 0; y < HEIGHT; y++) {
			const uint8_t *row = planes + WIDTH * y;

			media_colour_run(&colour, row, row + PLANE, row + 2 * PLANE, wanted, WIDTH);
			for (int x = 0; x < 3 * WIDTH; x++)
				worst = MAX_OF(worst, abs(rgb[3 * WIDTH * y + x] - wanted[x]));
		}
		print_message("%s: worst difference of the two paths %d\n", formats[i].name, worst);
		assert_true(worst <= TOLERANCE_PATHS);
	}
}

/* Every code there is: 256 cubed, of each matrix and range. */
static void fast_matrix_is_within_one_level(void **state)
{
	static uint8_t y[256], u[256], v[256], exact[3 * 256], near[3][256];

	(void)state;
	for (int m = 0; m < 2 * MEDIA_MATRIX_COUNT; m++) {
		struct media_colour colour;
		long differ = 0;
		int worst = 0;

		media_colour_init(&colour, (enum media_matrix)(m / 2), m % 2);
		for (int i = 0; i < 256; i++)
			y[i] = (uint8_t)i;
		for (int chroma = 0; chroma < 256 * 256; chroma++) {
			memset(u, chroma / 256, sizeof(u));
			memset(v, chroma % 256, sizeof(v));
			media_colour_run(&colour, y, u, v, exact, 256);
			media_colour_run_fast(&colour, y, u, v, near[0], near[1], near[2], 256);
			for (int i = 0; i < 3 * 256; i++) {
				const int d = abs(exact[i] - near[i % 3][i / 3]);

				worst = MAX_OF(worst, d);
				differ += d > 0;
			}
		}
		print_message("matrix %d, %s: %.2f %% of values differ, by %d at most\n", m / 2,
			      m % 2 ? "full" : "limited", (double)differ / (3 * 655.36 * 256),
			      worst);
		assert_true(worst <= TOLERANCE_MATRIX);
	}
}

/* Cropped without scaling, the picture is written where it belongs. */
static void crop_without_scaling(void **state)
{
	static struct random_picture r;
	static uint8_t whole[3 * MAX_WIDTH * MAX_HEIGHT], part[sizeof(whole)];
	struct media_convert *c;
	struct sana_error error;

	(void)state;
	picture_make(&r, &formats[0], 64, 36);
	convert(&r, whole);
	assert_int_equal(media_convert_create(64, 32, true, &c, &error), 0);
	assert_int_equal(media_convert_run(c, &r.p, part, 3 * 64, &error), 0);
	(void)media_convert_destroy(c);
	assert_memory_equal(part, whole + 3 * 64 * 2, 3 * 64 * 32);
	/* And narrower: columns are left out. */
	assert_int_equal(media_convert_create(60, 36, true, &c, &error), 0);
	assert_int_equal(media_convert_run(c, &r.p, part, 3 * 60, &error), 0);
	(void)media_convert_destroy(c);
	for (int y = 0; y < 36; y++)
		assert_memory_equal(part + 3 * 60 * y, whole + 3 * (64 * y + 2), 3 * 60);
}

/* What files have is not for this path. */
static void other_pictures_are_left_alone(void **state)
{
	struct media_picture p = { .format = AV_PIX_FMT_YUV420P, .siting = MEDIA_SITING_LEFT };

	(void)state;
	assert_false(media_unpack_knows(&p));
	p.siting = MEDIA_SITING_CENTRE;
	assert_true(media_unpack_knows(&p));
	p.format = AV_PIX_FMT_RGB24;
	assert_false(media_unpack_knows(&p));
	p.format = AV_PIX_FMT_YUV420P10LE;
	assert_false(media_unpack_knows(&p));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_formats_follow_the_formulas),
		cmocka_unit_test(both_paths_agree),
		cmocka_unit_test(fast_matrix_is_within_one_level),
		cmocka_unit_test(crop_without_scaling),
		cmocka_unit_test(other_pictures_are_left_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
