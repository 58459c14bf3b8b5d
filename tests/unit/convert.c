/* Pictures to RGB: geometry, scaling, colours and turning, against the formulas in FP64. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <libavutil/pixfmt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "media/convert.h"
#include "media/resample.h"
#include "media/scaler.h"

/* Rounding once at the end of an FP32 sum may meet a tie of the FP64 one. */
enum { TOLERANCE_RESAMPLE = 1 };
/* Chroma between samples is rounded to 8 bits before the matrix, which doubles that half level. */
enum { TOLERANCE_COLOUR = 1 };

static void geometry_is_the_documented_one(void **state)
{
	static const struct {
		int width, height, to_width, to_height;
		struct media_fit fit;
	} rows[] = {
		{ 1280, 704, 1280, 704, { 1280, 704, 0, 0 } },
		{ 1280, 720, 1280, 704, { 1280, 720, 0, 8 } },
		{ 1920, 1080, 1280, 704, { 1280, 720, 0, 8 } },
		{ 3840, 2160, 1280, 704, { 1280, 720, 0, 8 } },
		{ 960, 540, 1280, 704, { 1280, 720, 0, 8 } },
		{ 640, 360, 1280, 704, { 1280, 720, 0, 8 } },
		{ 1366, 768, 1280, 704, { 1280, 720, 0, 8 } },
		{ 640, 480, 1280, 704, { 1280, 960, 0, 128 } },
		{ 1280, 960, 1280, 704, { 1280, 960, 0, 128 } },
		{ 1024, 768, 1280, 704, { 1280, 960, 0, 128 } },
		{ 848, 480, 1280, 704, { 1280, 725, 0, 10 } },
		{ 720, 1280, 1280, 704, { 1280, 2276, 0, 786 } },
		{ 2560, 1080, 1280, 704, { 1669, 704, 194, 0 } },
		{ 4, 5, 2, 2, { 2, 2, 0, 0 } }, /* 2.5 rows: the tie goes to the even 2 */
		{ 4, 7, 2, 2, { 2, 4, 0, 1 } }, /* 3.5 rows: to 4 */
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct media_fit fit = media_fit_cover(rows[i].width, rows[i].height, 1.0,
							     rows[i].to_width, rows[i].to_height);

		print_message("%dx%d to %dx%d: scaled %dx%d, crop %d,%d\n", rows[i].width,
			      rows[i].height, rows[i].to_width, rows[i].to_height, fit.width,
			      fit.height, fit.x0, fit.y0);
		assert_memory_equal(&fit, &rows[i].fit, sizeof(fit));
	}
}

static void pixels_need_not_be_square(void **state)
{
	/* PAL wide screen: 720x576 with pixels 64:45 is shown as 1024x576. */
	const struct media_fit fit = media_fit_cover(720, 576, 64.0 / 45.0, 1280, 704);

	(void)state;
	assert_int_equal(fit.width, 1280);
	assert_int_equal(fit.height, 720);
	assert_int_equal(fit.y0, 8);
}

/* A fixed sequence of bytes with edges and flat parts. */
static uint8_t *noise_make(int width, int height)
{
	uint8_t *rgb = malloc(3 * (size_t)width * (size_t)height);
	uint32_t x = 12345;

	assert_non_null(rgb);
	for (int i = 0; i < 3 * width * height; i++) {
		x = x * 1664525 + 1013904223;
		rgb[i] = (x >> 28) < 6 ? (uint8_t)(x >> 20) : (x & 0x8000000 ? 255 : 0);
	}
	return rgb;
}

static double sample(const uint8_t *rgb, int width, int x, int y, int c)
{
	return rgb[3 * (y * width + x) + c];
}

/* The documented bilinear formula. */
static double bilinear(const uint8_t *rgb, int w, int h, const struct media_fit *fit, int x, int y,
		       int c)
{
	const double sx = fmax(0.0, (x + fit->x0 + 0.5) * w / fit->width - 0.5);
	const double sy = fmax(0.0, (y + fit->y0 + 0.5) * h / fit->height - 0.5);
	const int x0 = (int)sx, y0 = (int)sy;
	const int x1 = x0 + 1 < w ? x0 + 1 : w - 1, y1 = y0 + 1 < h ? y0 + 1 : h - 1;
	const double fx = sx - x0, fy = sy - y0;

	return (1 - fy) * ((1 - fx) * sample(rgb, w, x0, y0, c) + fx * sample(rgb, w, x1, y0, c)) +
	       fy * ((1 - fx) * sample(rgb, w, x0, y1, c) + fx * sample(rgb, w, x1, y1, c));
}

/* The triangle as wide as two output pixels: every input pixel is asked. */
static double triangle(const uint8_t *rgb, int w, int h, const struct media_fit *fit, int x, int y,
		       int c)
{
	const double scale_x = fmax(1.0, (double)w / fit->width);
	const double scale_y = fmax(1.0, (double)h / fit->height);
	const double cx = (x + fit->x0 + 0.5) * w / fit->width;
	const double cy = (y + fit->y0 + 0.5) * h / fit->height;
	double sum = 0, weights = 0;

	for (int v = 0; v < h; v++)
		for (int u = 0; u < w; u++) {
			const double weight = fmax(0, 1 - fabs(u + 0.5 - cx) / scale_x) *
					      fmax(0, 1 - fabs(v + 0.5 - cy) / scale_y);

			sum += weight * sample(rgb, w, u, v, c);
			weights += weight;
		}
	return sum / weights;
}

static void resample_compare(int w, int h, int to_w, int to_h, bool antialias)
{
	const struct media_fit fit = media_fit_cover(w, h, 1.0, to_w, to_h);
	_cleanup_(freep) uint8_t *from = noise_make(w, h);
	_cleanup_(freep) uint8_t *to = malloc(3 * (size_t)to_w * (size_t)to_h);
	struct media_resampler resampler;
	double worst = 0;

	assert_non_null(to);
	assert_int_equal(media_resampler_init(&resampler, w, h, &fit, to_w, to_h, antialias), 0);
	media_resampler_run(&resampler, from, 3 * (size_t)w, to, 3 * (size_t)to_w);
	media_resampler_finish(&resampler);
	media_resampler_finish(&resampler);
	for (int y = 0; y < to_h; y++)
		for (int x = 0; x < to_w; x++)
			for (int c = 0; c < 3; c++) {
				const double wanted = antialias ?
							      triangle(from, w, h, &fit, x, y, c) :
							      bilinear(from, w, h, &fit, x, y, c);

				worst = fmax(worst,
					     fabs(sample(to, to_w, x, y, c) - round(wanted)));
			}
	print_message("%dx%d to %dx%d%s: worst difference %.0f\n", w, h, to_w, to_h,
		      antialias ? ", antialiased" : "", worst);
	assert_true(worst <= TOLERANCE_RESAMPLE);
}

static void scaling_follows_the_formulas(void **state)
{
	static const int sizes[][4] = {
		{ 37, 23, 64, 32 }, { 64, 32, 64, 32 }, { 40, 61, 32, 16 }, { 101, 75, 16, 32 },
		{ 1, 1, 32, 16 },   { 3, 200, 16, 16 }, { 200, 2, 16, 16 }, { 33, 17, 32, 16 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
		for (int antialias = 0; antialias < 2; antialias++)
			resample_compare(sizes[i][0], sizes[i][1], sizes[i][2], sizes[i][3],
					 antialias != 0);
}

/* One-pixel stripes shrunk by five: grey when filtered, black and white when sampled. */
static void antialiasing_does_what_it_says(void **state)
{
	enum { FROM = 160, TO = 32 };
	uint8_t stripes[3 * FROM * FROM], out[3 * TO * TO];
	struct sana_error error;
	const struct media_picture picture = {
		.plane = { stripes },
		.row_bytes = { 3 * FROM },
		.format = AV_PIX_FMT_RGB24,
		.width = FROM,
		.height = FROM,
		.full_range = true,
		.aspect_num = 1,
		.aspect_den = 1,
	};
	int range[2];

	(void)state;
	for (int i = 0; i < 3 * FROM * FROM; i++)
		stripes[i] = (i / 3) % 2 ? 255 : 0;
	for (int antialias = 0; antialias < 2; antialias++) {
		struct media_convert *convert;
		int low = 255, high = 0;

		assert_int_equal(media_convert_create(TO, TO, antialias, &convert, &error), 0);
		assert_int_equal(media_convert_run(convert, &picture, out, 3 * TO, &error), 0);
		assert_null(media_convert_destroy(convert));
		for (int y = 0; y < TO; y++) /* the edge columns see half a filter */
			for (int x = 3; x < 3 * (TO - 1); x++) {
				low = MIN_OF(low, (int)out[3 * TO * y + x]);
				high = MAX_OF(high, (int)out[3 * TO * y + x]);
			}
		range[antialias] = high - low;
	}
	print_message("stripes: range %d sampled, %d filtered\n", range[0], range[1]);
	assert_true(range[0] == 255);
	assert_true(range[1] <= 12);
}

/* -------------------------------------------------------------------------------- colours */

static const struct {
	const char *name;
	double kr, kb;
} matrices[MEDIA_MATRIX_COUNT] = {
	[MEDIA_MATRIX_601] = { "601", 0.299, 0.114 },
	[MEDIA_MATRIX_709] = { "709", 0.2126, 0.0722 },
	[MEDIA_MATRIX_2020] = { "2020", 0.2627, 0.0593 },
	[MEDIA_MATRIX_240M] = { "240M", 0.212, 0.087 },
};

static double clamp(double value)
{
	return fmin(255.0, fmax(0.0, value));
}

static void to_rgb(enum media_matrix matrix, bool full, const double yuv[3], double rgb[3])
{
	const double kr = matrices[matrix].kr, kb = matrices[matrix].kb, kg = 1 - kr - kb;
	const double a = full ? 1 : 255.0 / 219, c = full ? 1 : 255.0 / 224;
	const double y = a * (yuv[0] - (full ? 0 : 16)), u = yuv[1] - 128, v = yuv[2] - 128;

	rgb[0] = clamp(y + 2 * (1 - kr) * c * v);
	rgb[1] = clamp(y - 2 * kb * (1 - kb) / kg * c * u - 2 * kr * (1 - kr) / kg * c * v);
	rgb[2] = clamp(y + 2 * (1 - kb) * c * u);
}

static void picture_convert(const struct media_picture *picture, uint8_t *rgb)
{
	struct media_convert *convert;
	struct sana_error error = { 0 };

	assert_int_equal(
		media_convert_create(picture->width, picture->height, true, &convert, &error), 0);
	if (media_convert_run(convert, picture, rgb, 3 * (size_t)picture->width, &error) < 0)
		fail_msg("%s", error.text);
	(void)media_convert_destroy(convert);
}

/* A grid over the legal and illegal codes, one colour a pixel. */
static void colours_follow_the_matrices(void **state)
{
	enum { STEPS = 16, WIDTH = STEPS * STEPS, HEIGHT = STEPS };
	uint8_t plane[3][WIDTH * HEIGHT], rgb[3 * WIDTH * HEIGHT];

	(void)state;
	for (int i = 0; i < WIDTH * HEIGHT; i++) {
		plane[0][i] = (uint8_t)(i / WIDTH * 17);
		plane[1][i] = (uint8_t)(i % WIDTH / STEPS * 17);
		plane[2][i] = (uint8_t)(i % STEPS * 17);
	}
	for (int which = 0; which < 2 * MEDIA_MATRIX_COUNT; which++) {
		const struct media_picture picture = {
			.plane = { plane[0], plane[1], plane[2] },
			.row_bytes = { WIDTH, WIDTH, WIDTH },
			.format = AV_PIX_FMT_YUV444P,
			.width = WIDTH,
			.height = HEIGHT,
			.matrix = (enum media_matrix)(which / 2),
			.full_range = which % 2,
			.aspect_num = 1,
			.aspect_den = 1,
		};
		double worst = 0;

		picture_convert(&picture, rgb);
		for (int i = 0; i < WIDTH * HEIGHT; i++) {
			const double yuv[3] = { plane[0][i], plane[1][i], plane[2][i] };
			double wanted[3];

			to_rgb(picture.matrix, picture.full_range, yuv, wanted);
			for (int c = 0; c < 3; c++)
				worst = fmax(worst, fabs(rgb[3 * i + c] - wanted[c]));
		}
		print_message("%s %s: worst difference %.2f\n", matrices[picture.matrix].name,
			      picture.full_range ? "full" : "limited", worst);
		assert_true(worst <= TOLERANCE_COLOUR);
	}
}

/* The known codes of the pixel path's check line, through the camera formats. */
static void formats_keep_their_order(void **state)
{
	static const struct {
		uint8_t y, u, v, rgb[3];
	} codes[] = {
		{ 235, 128, 128, { 255, 255, 255 } },
		{ 16, 128, 128, { 0, 0, 0 } },
		{ 81, 90, 240, { 255, 0, 0 } },
		{ 41, 240, 110, { 0, 0, 255 } },
	};
	static const int formats[] = { AV_PIX_FMT_YUV420P, AV_PIX_FMT_NV12, AV_PIX_FMT_YUYV422,
				       AV_PIX_FMT_UYVY422 };
	enum { SIDE = 16 };

	(void)state;
	for (size_t f = 0; f < ARRAY_SIZE(formats); f++)
		for (size_t k = 0; k < ARRAY_SIZE(codes); k++) {
			uint8_t a[2 * SIDE * SIDE], b[SIDE * SIDE], c[SIDE * SIDE];
			uint8_t rgb[3 * SIDE * SIDE];
			struct media_picture p = {
				.plane = { a, b, c },
				.row_bytes = { SIDE, SIDE / 2, SIDE / 2 },
				.format = formats[f],
				.width = SIDE,
				.height = SIDE,
				.aspect_num = 1,
				.aspect_den = 1,
			};

			memset(a, codes[k].y, sizeof(a));
			memset(b, codes[k].u, sizeof(b));
			memset(c, codes[k].v, sizeof(c));
			if (formats[f] == AV_PIX_FMT_NV12) {
				p.row_bytes[1] = SIDE;
				for (int i = 1; i < SIDE * SIDE; i += 2)
					b[i] = codes[k].v;
			} else if (formats[f] != AV_PIX_FMT_YUV420P) {
				const int y = formats[f] == AV_PIX_FMT_UYVY422;

				p.row_bytes[0] = 2 * SIDE;
				for (int i = 0; i < 2 * SIDE * SIDE; i++)
					if (i % 2 != y)
						a[i] = i % 4 < 2 ? codes[k].u : codes[k].v;
			}
			picture_convert(&p, rgb);
			for (int i = 0; i < 3 * SIDE * SIDE; i++)
				assert_in_range(rgb[i] - codes[k].rgb[i % 3] + TOLERANCE_COLOUR, 0,
						2 * TOLERANCE_COLOUR);
		}
}

/* Grey has no chroma, but a range. */
static void grey_has_a_range(void **state)
{
	uint8_t grey[16 * 16], rgb[3 * 16 * 16];
	struct media_picture p = {
		.plane = { grey },
		.row_bytes = { 16 },
		.format = AV_PIX_FMT_GRAY8,
		.width = 16,
		.height = 16,
		.full_range = true,
		.aspect_num = 1,
		.aspect_den = 1,
	};

	(void)state;
	memset(grey, 200, sizeof(grey));
	picture_convert(&p, rgb);
	for (size_t i = 0; i < sizeof(rgb); i++)
		assert_in_range(rgb[i], 199, 201);
	p.full_range = false;
	picture_convert(&p, rgb);
	for (size_t i = 0; i < sizeof(rgb); i++) /* (200 − 16)·255/219 = 214.2 */
		assert_in_range(rgb[i], 213, 215);
}

/* A ramp of chroma: where its samples lie decides what the pixels between them get. */
static void chroma_lies_where_it_is_said(void **state)
{
	enum { WIDTH = 64, HEIGHT = 16 };
	uint8_t y[WIDTH * HEIGHT], u[WIDTH * HEIGHT / 4], v[WIDTH * HEIGHT / 4];
	uint8_t rgb[3 * WIDTH * HEIGHT];

	(void)state;
	memset(y, 128, sizeof(y));
	memset(u, 128, sizeof(u));
	for (int i = 0; i < WIDTH * HEIGHT / 4; i++)
		v[i] = (uint8_t)(64 + 4 * (i % (WIDTH / 2)));
	for (int siting = MEDIA_SITING_LEFT; siting <= MEDIA_SITING_CENTRE; siting++) {
		const struct media_picture p = {
			.plane = { y, u, v },
			.row_bytes = { WIDTH, WIDTH / 2, WIDTH / 2 },
			.format = AV_PIX_FMT_YUV420P,
			.width = WIDTH,
			.height = HEIGHT,
			.siting = (enum media_siting)siting,
			.aspect_num = 1,
			.aspect_den = 1,
		};
		double worst = 0;

		picture_convert(&p, rgb);
		for (int x = 4; x < WIDTH - 4; x++) {
			/* Chroma column of luma column x; the ramp is linear in it. */
			const double column = siting == MEDIA_SITING_LEFT ? x / 2.0 :
									    (x + 0.5) / 2 - 0.5;
			const double yuv[3] = { 128, 128, 64 + 4 * column };
			double wanted[3];

			to_rgb(MEDIA_MATRIX_601, false, yuv, wanted);
			for (int c = 0; c < 3; c++)
				worst = fmax(worst, fabs(rgb[3 * (WIDTH * 8 + x) + c] - wanted[c]));
		}
		print_message("%s chroma: worst difference %.2f\n",
			      siting == MEDIA_SITING_LEFT ? "left" : "centred", worst);
		assert_true(worst <= TOLERANCE_COLOUR);
	}
}

/* RGB to the codes encoders get. */
static void rgb_becomes_the_known_codes(void **state)
{
	static const struct {
		uint8_t rgb[3];
		enum media_matrix matrix;
		uint8_t yuv[3];
	} codes[] = {
		{ { 255, 255, 255 }, MEDIA_MATRIX_601, { 235, 128, 128 } },
		{ { 255, 255, 255 }, MEDIA_MATRIX_709, { 235, 128, 128 } },
		{ { 0, 0, 0 }, MEDIA_MATRIX_601, { 16, 128, 128 } },
		{ { 255, 0, 0 }, MEDIA_MATRIX_601, { 81, 90, 240 } },
		{ { 255, 0, 0 }, MEDIA_MATRIX_709, { 63, 102, 240 } },
		{ { 0, 0, 255 }, MEDIA_MATRIX_601, { 41, 240, 110 } },
	};
	enum { SIDE = 16 };

	(void)state;
	for (size_t k = 0; k < ARRAY_SIZE(codes); k++) {
		const struct media_scaler_wish wish = {
			.width = SIDE,
			.height = SIDE,
			.from = AV_PIX_FMT_RGB24,
			.to = AV_PIX_FMT_YUV420P,
			.matrix = codes[k].matrix,
		};
		uint8_t rgb[3 * SIDE * SIDE], plane[3][SIDE * SIDE];
		struct SwsContext *scaler;

		for (size_t i = 0; i < sizeof(rgb); i++)
			rgb[i] = codes[k].rgb[i % 3];
		assert_int_equal(media_scaler_create(&wish, &scaler), 0);
		(void)sws_scale(scaler, (const uint8_t *[]){ rgb }, (int[]){ 3 * SIDE }, 0, SIDE,
				(uint8_t *[]){ plane[0], plane[1], plane[2] },
				(int[]){ SIDE, SIDE / 2, SIDE / 2 });
		sws_freeContext(scaler);
		print_message("(%d,%d,%d) in %s: (%d,%d,%d)\n", rgb[0], rgb[1], rgb[2],
			      matrices[wish.matrix].name, plane[0][40], plane[1][20], plane[2][20]);
		for (int c = 0; c < 3; c++)
			assert_in_range(plane[c][20] - codes[k].yuv[c] + 1, 0, 2);
	}
}

/* -------------------------------------------------------------------------------- turning */

/* 16x32 pixels that say where they are. */
static void places_make(uint8_t *rgb)
{
	for (int y = 0; y < 32; y++)
		for (int x = 0; x < 16; x++)
			memcpy(rgb + 3 * (16 * y + x),
			       (uint8_t[]){ (uint8_t)(10 * x), (uint8_t)(5 * y), 7 }, 3);
}

static void turned_check(struct media_orientation o, int corner_x, int corner_y, int right_x,
			 int right_y)
{
	const int width = o.transpose ? 32 : 16, height = o.transpose ? 16 : 32;
	uint8_t from[3 * 16 * 32], to[3 * 16 * 32];
	const struct media_picture p = {
		.plane = { from },
		.row_bytes = { 3 * 16 },
		.format = AV_PIX_FMT_RGB24,
		.width = 16,
		.height = 32,
		.full_range = true,
		.orientation = o,
		.aspect_num = 1,
		.aspect_den = 1,
	};
	struct media_convert *convert;
	struct sana_error error;

	places_make(from);
	assert_int_equal(media_convert_create(width, height, true, &convert, &error), 0);
	assert_int_equal(media_convert_run(convert, &p, to, 3 * (size_t)width, &error), 0);
	(void)media_convert_destroy(convert);
	print_message("transpose %d, flip_x %d, flip_y %d: corner from (%d,%d)\n", o.transpose,
		      o.flip_x, o.flip_y, to[0] / 10, to[1] / 5);
	assert_int_equal(to[0], 10 * corner_x);
	assert_int_equal(to[1], 5 * corner_y);
	assert_int_equal(to[3], 10 * right_x);
	assert_int_equal(to[4], 5 * right_y);
}

static void pictures_are_turned_upright(void **state)
{
	(void)state;
	/* What is at the top left, and what right of it, of a 16x32 picture. */
	turned_check((struct media_orientation){ false, false, false }, 0, 0, 1, 0);
	turned_check((struct media_orientation){ true, true, false }, 0, 31, 0, 30);   /* 90 cw */
	turned_check((struct media_orientation){ false, true, true }, 15, 31, 14, 31); /* 180 */
	turned_check((struct media_orientation){ true, false, true }, 15, 0, 15, 1);   /* 270 cw */
	turned_check((struct media_orientation){ false, true, false }, 15, 0, 14, 0);
	turned_check((struct media_orientation){ true, false, false }, 0, 0, 0, 1);
}

/* Anything may change between two pictures of a clip. */
static void shapes_may_change(void **state)
{
	uint8_t from[3 * 64 * 64], to[3 * 16 * 16];
	struct media_picture p = {
		.plane = { from },
		.row_bytes = { 3 * 64 },
		.format = AV_PIX_FMT_RGB24,
		.width = 64,
		.height = 64,
		.full_range = true,
		.aspect_num = 1,
		.aspect_den = 1,
	};
	struct media_convert *convert;
	struct sana_error error;

	(void)state;
	memset(from, 90, sizeof(from));
	assert_int_equal(media_convert_create(16, 16, true, &convert, &error), 0);
	for (int turn = 0; turn < 3; turn++) {
		assert_int_equal(media_convert_run(convert, &p, to, 3 * 16, &error), 0);
		assert_int_equal(to[0], 90);
		p.width = p.height = 32;
		assert_int_equal(media_convert_run(convert, &p, to, 3 * 16, &error), 0);
		assert_int_equal(to[3 * 255], 90);
		p.width = p.height = 64;
	}
	/* Stored from the bottom up. */
	memset(from, 10, 3 * 64);
	p.plane[0] = from + 3 * 64 * 63;
	p.row_bytes[0] = -3 * 64;
	assert_int_equal(media_convert_run(convert, &p, to, 3 * 16, &error), 0);
	assert_int_equal(to[0], 90);
	assert_true(to[3 * 16 * 15] < 90);
	(void)media_convert_destroy(convert);
}

/* Capture cards pass on what HDMI sends: R'G'B' from 16 to 235. All codes, rows to either side, both orders. */
static void limited_rgb_is_stretched(void **state)
{
	enum { SIDE = 16 };
	static const int formats[] = { AV_PIX_FMT_RGB24, AV_PIX_FMT_BGR24 };
	uint8_t from[3 * SIDE * SIDE], to[3 * SIDE * SIDE];
	struct media_picture p = { .width = SIDE, .height = SIDE, .aspect_num = 1, .aspect_den = 1 };
	struct media_convert *convert;
	struct sana_error error;

	(void)state;
	for (int i = 0; i < SIDE * SIDE; i++)
		for (int c = 0; c < 3; c++)
			from[3 * i + c] = (uint8_t)(i + 85 * c);
	assert_int_equal(media_convert_create(SIDE, SIDE, true, &convert, &error), 0);
	for (int which = 0; which < 8; which++) {
		const bool swapped = which & 1, up = which & 2, full = which & 4;

		p.format = formats[swapped];
		p.full_range = full;
		p.plane[0] = up ? from + 3 * SIDE * (SIDE - 1) : from;
		p.row_bytes[0] = up ? -3 * SIDE : 3 * SIDE;
		memset(to, 7, sizeof(to));
		assert_int_equal(media_convert_run(convert, &p, to, 3 * SIDE, &error), 0);
		for (int y = 0; y < SIDE; y++)
			for (int x = 0; x < 3 * SIDE; x++) {
				const int c = swapped ? 2 - x % 3 : x % 3;
				const uint8_t v = p.plane[0][p.row_bytes[0] * y + x / 3 * 3 + c];
				const double wanted = (v - 16) * 255.0 / 219;

				assert_int_equal(to[3 * SIDE * y + x],
						 full ? v : lrint(fmax(0, fmin(255, wanted))));
			}
	}
	(void)media_convert_destroy(convert);
}

static void impossible_pictures_are_refused(void **state)
{
	uint8_t pixel[64], to[3 * 16 * 16];
	struct media_picture p = {
		.plane = { pixel },
		.row_bytes = { 48 },
		.format = AV_PIX_FMT_RGB24,
		.width = MEDIA_MAX_SIDE + 1,
		.height = 1,
		.aspect_num = 1,
		.aspect_den = 1,
	};
	struct media_convert *convert = NULL;
	struct sana_error error = { 0 };

	(void)state;
	assert_int_equal(media_convert_create(0, 16, true, &convert, &error), -EINVAL);
	assert_null(convert);
	assert_int_equal(media_convert_create(16, 16, true, &convert, &error), 0);
	assert_int_equal(media_convert_run(convert, &p, to, 48, &error), -EINVAL);
	assert_string_equal(error.name, "picture.size");
	p.width = p.height = MEDIA_MAX_SIDE;
	assert_int_equal(media_convert_run(convert, &p, to, 48, &error), -EINVAL);
	p.width = p.height = 1;
	p.format = AV_PIX_FMT_NONE;
	assert_int_equal(media_convert_run(convert, &p, to, 48, &error), -ENOTSUP);
	print_message("%s\n", error.text);
	assert_string_equal(error.name, "picture.format");
	assert_null(media_convert_destroy(convert));
	assert_null(media_convert_destroy(NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(geometry_is_the_documented_one),
		cmocka_unit_test(pixels_need_not_be_square),
		cmocka_unit_test(scaling_follows_the_formulas),
		cmocka_unit_test(antialiasing_does_what_it_says),
		cmocka_unit_test(colours_follow_the_matrices),
		cmocka_unit_test(formats_keep_their_order),
		cmocka_unit_test(grey_has_a_range),
		cmocka_unit_test(chroma_lies_where_it_is_said),
		cmocka_unit_test(rgb_becomes_the_known_codes),
		cmocka_unit_test(pictures_are_turned_upright),
		cmocka_unit_test(shapes_may_change),
		cmocka_unit_test(limited_rgb_is_stretched),
		cmocka_unit_test(impossible_pictures_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
