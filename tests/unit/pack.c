/* R'G'B' to what devices take, and where it goes on a larger or smaller picture. */
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
#include "media/letterbox.h"

/* Half a level of rounding; products in 1/256 of a level are cut off, three of them. */
static const double TOLERANCE = 0.5 + 3.0 / 256;
/* There and back: half a level of Y and of chroma, the latter times 2.02, twice rounded. */
enum { TOLERANCE_BACK = 2 };

static const struct {
	int format;
	const char *name;
	int step_y; /* pixels per chroma sample, vertically */
} formats[] = {
	{ AV_PIX_FMT_YUYV422, "yuyv", 1 },
	{ AV_PIX_FMT_NV12, "nv12", 2 },
	{ AV_PIX_FMT_YUV420P, "yu12", 2 },
};

static uint8_t *noise(int width, int height)
{
	static uint32_t x = 88172645;
	uint8_t *rgb = malloc(3 * (size_t)width * (size_t)height);

	assert_non_null(rgb);
	for (int i = 0; i < 3 * width * height; i++) {
		x ^= x << 13;
		x ^= x >> 17;
		x ^= x << 5;
		rgb[i] = x % 8 ? (uint8_t)(x >> 24) : x & 256 ? 255 : 0;
	}
	return rgb;
}

/* Y, Cb and Cr as the target has them for one pixel. */
static void codes(const struct media_target *t, int x, int y, int *ret)
{
	const uint8_t *row = t->plane[0] + t->row_bytes[0] * (size_t)y;

	switch (t->format) {
	case AV_PIX_FMT_YUYV422:
		ret[0] = row[2 * x];
		ret[1] = row[2 * (x & ~1) + 1];
		ret[2] = row[2 * (x & ~1) + 3];
		return;
	case AV_PIX_FMT_NV12:
		ret[1] = t->plane[1][t->row_bytes[1] * (size_t)(y / 2) + (size_t)(x & ~1)];
		ret[2] = t->plane[1][t->row_bytes[1] * (size_t)(y / 2) + (size_t)(x & ~1) + 1];
		break;
	default:
		ret[1] = t->plane[1][t->row_bytes[1] * (size_t)(y / 2) + (size_t)(x / 2)];
		ret[2] = t->plane[2][t->row_bytes[2] * (size_t)(y / 2) + (size_t)(x / 2)];
	}
	ret[0] = row[x];
}

static void wanted_codes(const uint8_t *rgb, int width, int x, int y, int step_y, double *ret)
{
	const double kr = 0.299, kb = 0.114, kg = 1 - kr - kb;
	const uint8_t *p = rgb + 3 * (y * width + x);
	double mean[3] = { 0, 0, 0 }, luma;

	ret[0] = 16 + 219.0 / 255 * (kr * p[0] + kg * p[1] + kb * p[2]);
	x &= ~1;
	y -= y % step_y;
	for (int c = 0; c < 3; c++)
		for (int i = 0; i < 2 * step_y; i++)
			mean[c] += rgb[3 * ((y + i / 2) * width + x + i % 2) + c] / (2.0 * step_y);
	luma = kr * mean[0] + kg * mean[1] + kb * mean[2];
	ret[1] = 128 + 224.0 / 255 * (mean[2] - luma) / (2 * (1 - kb));
	ret[2] = 128 + 224.0 / 255 * (mean[0] - luma) / (2 * (1 - kr));
}

static void formats_follow_the_formulas(void **state)
{
	static const int sizes[][2] = { { 64, 32 }, { 2, 2 }, { 34, 6 }, { 130, 18 } };

	(void)state;
	for (size_t f = 0; f < ARRAY_SIZE(formats); f++) {
		double worst[3] = { 0, 0, 0 };

		for (size_t s = 0; s < ARRAY_SIZE(sizes); s++) {
			const int w = sizes[s][0], h = sizes[s][1];
			_cleanup_(freep) uint8_t *rgb = noise(w, h);
			_cleanup_(freep) uint8_t *data = NULL;
			struct media_pack pack;
			struct media_target t;
			double wanted[3];
			int is[3];

			data = malloc(media_target_init(&t, formats[f].format, w, h, NULL));
			assert_non_null(data);
			(void)media_target_init(&t, formats[f].format, w, h, data);
			assert_int_equal(media_pack_init(&pack, w), 0);
			media_pack_run(&pack, rgb, 3 * (size_t)w, h, &t, 0, 0);
			media_pack_finish(&pack);
			for (int y = 0; y < h; y++)
				for (int x = 0; x < w; x++) {
					codes(&t, x, y, is);
					wanted_codes(rgb, w, x, y, formats[f].step_y, wanted);
					for (int c = 0; c < 3; c++)
						worst[c] = fmax(worst[c], fabs(is[c] - wanted[c]));
				}
		}
		print_message("%s: worst differences Y %.3f, Cb %.3f, Cr %.3f\n", formats[f].name,
			      worst[0], worst[1], worst[2]);
		for (int c = 0; c < 3; c++)
			assert_true(worst[c] <= TOLERANCE);
	}
}

/* The points of docs/model/color.md §4.2, and every grey: no tint. */
static void known_codes_come_out(void **state)
{
	static const struct {
		uint8_t rgb[3];
		int codes[3];
	} known[] = {
		{ { 255, 255, 255 }, { 235, 128, 128 } },
		{ { 0, 0, 0 }, { 16, 128, 128 } },
		{ { 255, 0, 0 }, { 81, 90, 240 } },
		{ { 0, 0, 255 }, { 41, 240, 110 } },
	};
	uint8_t rgb[12], data[8];
	struct media_pack pack;
	struct media_target t;
	int is[3];

	(void)state;
	(void)media_target_init(&t, AV_PIX_FMT_YUYV422, 2, 2, data);
	assert_int_equal(media_pack_init(&pack, 2), 0);
	for (size_t k = 0; k < ARRAY_SIZE(known); k++) {
		for (int i = 0; i < 12; i++)
			rgb[i] = known[k].rgb[i % 3];
		media_pack_run(&pack, rgb, 6, 2, &t, 0, 0);
		codes(&t, 1, 1, is);
		print_message("(%d,%d,%d): (%d,%d,%d)\n", rgb[0], rgb[1], rgb[2], is[0], is[1],
			      is[2]);
		for (int c = 0; c < 3; c++)
			assert_int_equal(is[c], known[k].codes[c]);
	}
	for (int grey = 0; grey < 256; grey++) {
		memset(rgb, grey, sizeof(rgb));
		media_pack_run(&pack, rgb, 6, 2, &t, 0, 0);
		codes(&t, 0, 0, is);
		assert_int_equal(is[1], 128);
		assert_int_equal(is[2], 128);
	}
	media_pack_finish(&pack);
	media_pack_finish(&pack);
}

/* What a reader of the virtual camera sees of flat colours. */
static void there_and_back(void **state)
{
	enum { SIDE = 16 };
	uint8_t rgb[3 * SIDE * SIDE], back[sizeof(rgb)], data[2 * SIDE * SIDE];
	struct media_convert *convert;
	struct media_pack pack;
	int worst = 0;

	(void)state;
	assert_int_equal(media_pack_init(&pack, SIDE), 0);
	assert_int_equal(media_convert_create(SIDE, SIDE, true, &convert, NULL), 0);
	for (int colour = 0; colour < 4096; colour++)
		for (size_t f = 0; f < ARRAY_SIZE(formats); f++) {
			struct media_picture p = { .format = formats[f].format,
						   .width = SIDE,
						   .height = SIDE,
						   .siting = MEDIA_SITING_CENTRE,
						   .aspect_num = 1,
						   .aspect_den = 1 };
			struct media_target t;

			for (int i = 0; i < 3 * SIDE * SIDE; i++)
				rgb[i] = (uint8_t)(17 * (colour >> 4 * (i % 3) & 15));
			(void)media_target_init(&t, formats[f].format, SIDE, SIDE, data);
			media_pack_run(&pack, rgb, 3 * SIDE, SIDE, &t, 0, 0);
			for (int i = 0; i < 3; i++) {
				p.plane[i] = t.plane[i];
				p.row_bytes[i] = (int)t.row_bytes[i];
			}
			assert_int_equal(media_convert_run(convert, &p, back, 3 * SIDE, NULL), 0);
			for (int i = 0; i < 3 * SIDE * SIDE; i++)
				worst = MAX_OF(worst, abs(rgb[i] - back[i]));
		}
	(void)media_convert_destroy(convert);
	media_pack_finish(&pack);
	print_message("4096 flat colours there and back: worst %d levels\n", worst);
	assert_true(worst <= TOLERANCE_BACK);
}

static void places_are_in_the_middle(void **state)
{
	static const struct {
		int width, height, to_width, to_height;
		bool enlarge;
		struct media_place place;
	} rows[] = {
		{ 1280, 704, 1280, 720, true, { 0, 8, 1280, 704 } },
		{ 1280, 704, 1280, 704, true, { 0, 0, 1280, 704 } },
		{ 1280, 704, 1920, 1080, true, { 0, 12, 1920, 1056 } },
		{ 1280, 704, 1920, 1080, false, { 320, 188, 1280, 704 } },
		{ 1280, 704, 640, 480, false, { 0, 64, 640, 352 } },
		{ 256, 144, 1024, 768, true, { 0, 96, 1024, 576 } },
		{ 256, 144, 1280, 720, true, { 0, 0, 1280, 720 } },
		{ 144, 256, 1280, 720, true, { 438, 0, 404, 720 } },
		{ 256, 144, 1366, 768, true, { 0, 0, 1366, 768 } },
		{ 16384, 2, 640, 480, true, { 0, 238, 640, 2 } },
		{ 2, 16384, 640, 480, true, { 318, 0, 2, 480 } },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct media_place p =
			media_place_contain(rows[i].width, rows[i].height, rows[i].to_width,
					    rows[i].to_height, rows[i].enlarge);

		print_message("%dx%d on %dx%d: %dx%d at %d,%d\n", rows[i].width, rows[i].height,
			      rows[i].to_width, rows[i].to_height, p.width, p.height, p.x, p.y);
		assert_memory_equal(&p, &rows[i].place, sizeof(p));
	}
}

/* 704 rows of 1280 on 720: rows 8 … 711 are the picture, the others black. Padding stays untouched. */
static void letterbox_of_the_model_size(void **state)
{
	enum { W = 1280, H = 704, TO = 720 };
	_cleanup_(freep) uint8_t *rgb = noise(W, H);
	_cleanup_(freep) uint8_t *data = malloc(2 * W * TO + 64);
	_cleanup_(freep) uint8_t *plain = malloc(2 * W * H);
	struct media_letterbox box;
	struct media_pack pack;
	struct media_target t, p;

	(void)state;
	assert_non_null(data);
	assert_non_null(plain);
	memset(data, 0xaa, 2 * W * TO + 64);
	assert_int_equal(media_target_init(&t, AV_PIX_FMT_YUYV422, W, TO, data), 2 * W * TO);
	media_target_clear(&t, W, TO);
	assert_int_equal(media_letterbox_init(&box, W, H, W, TO, true), 0);
	assert_false(box.scales);
	media_letterbox_run(&box, rgb, 3 * W, &t);
	media_letterbox_finish(&box);
	media_letterbox_finish(&box);
	(void)media_target_init(&p, AV_PIX_FMT_YUYV422, W, H, plain);
	assert_int_equal(media_pack_init(&pack, W), 0);
	media_pack_run(&pack, rgb, 3 * W, H, &p, 0, 0);
	media_pack_finish(&pack);
	assert_memory_equal(data + 2 * W * 8, plain, 2 * W * H);
	for (int i = 0; i < 2 * W * 8; i++) {
		assert_int_equal(data[i], i % 2 ? 128 : 16);
		assert_int_equal(data[2 * W * 712 + i], i % 2 ? 128 : 16);
	}
	for (int i = 0; i < 64; i++)
		assert_int_equal(data[2 * W * TO + i], 0xaa);
}

/* Displays: bytes B, G, R, X in rows of the driver's length. */
static void display_rows(void **state)
{
	enum { W = 6, H = 4, ROW = 64 };
	_cleanup_(freep) uint8_t *rgb = noise(W, H);
	uint8_t data[ROW * 8];
	const struct media_target t = { { data }, { ROW }, AV_PIX_FMT_BGR0 };
	struct media_letterbox box;

	(void)state;
	memset(data, 0xaa, sizeof(data));
	media_target_clear(&t, 10, 8);
	assert_int_equal(media_letterbox_init(&box, W, H, 10, 8, false), 0);
	media_letterbox_run(&box, rgb, 3 * W, &t);
	assert_int_equal(box.place.x, 2);
	assert_int_equal(box.place.y, 2);
	media_letterbox_finish(&box);
	for (int y = 0; y < 8; y++)
		for (int x = 0; x < 16; x++) {
			const uint8_t *is = data + ROW * y + 4 * x;
			const bool inside = x >= 2 && x < 8 && y >= 2 && y < 6;

			for (int c = 0; c < 3; c++)
				assert_int_equal(is[c],
						 inside ? rgb[3 * (W * (y - 2) + x - 2) + 2 - c] :
						 x < 10 ? 0 :
							  0xaa);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(formats_follow_the_formulas),
		cmocka_unit_test(known_codes_come_out),
		cmocka_unit_test(there_and_back),
		cmocka_unit_test(places_are_in_the_middle),
		cmocka_unit_test(letterbox_of_the_model_size),
		cmocka_unit_test(display_rows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
