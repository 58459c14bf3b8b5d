/* The frame path of devices: after the first picture nothing is allocated. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <libavutil/pixfmt.h>
#include <string.h>

#include "base/util.h"
#include "media/convert.h"
#include "media/letterbox.h"
#include "tests/common/allocations.h"

enum { WIDTH = 640, HEIGHT = 360, PICTURES = 50 };

static uint8_t picture[3 * WIDTH * HEIGHT], rgb[3 * 256 * 144], device[4 * WIDTH * HEIGHT];

static void cameras_to_rgb(void **state)
{
	static const struct {
		const char *name;
		int format, row_bytes[3];
	} rows[] = {
		{ "YUYV", AV_PIX_FMT_YUYV422, { 2 * WIDTH } },
		{ "UYVY", AV_PIX_FMT_UYVY422, { 2 * WIDTH } },
		{ "NV12", AV_PIX_FMT_NV12, { WIDTH, WIDTH } },
		{ "YU12", AV_PIX_FMT_YUV420P, { WIDTH, WIDTH / 2, WIDTH / 2 } },
		{ "RGB24", AV_PIX_FMT_RGB24, { 3 * WIDTH } },
		{ "BGR24", AV_PIX_FMT_BGR24, { 3 * WIDTH } },
		{ "GREY", AV_PIX_FMT_GRAY8, { WIDTH } },
	};

	(void)state;
	if (!ALLOCATIONS_COUNTED)
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct media_picture p = {
			.plane = { picture, picture + WIDTH * HEIGHT,
				   picture + WIDTH * HEIGHT * 5 / 4 },
			.row_bytes = { rows[i].row_bytes[0], rows[i].row_bytes[1],
				       rows[i].row_bytes[2] },
			.format = rows[i].format,
			.width = WIDTH,
			.height = HEIGHT,
			.siting = MEDIA_SITING_CENTRE,
			.aspect_num = 1,
			.aspect_den = 1,
		};
		struct media_convert *c;
		uint64_t before;
		int r = 0;

		assert_int_equal(media_convert_create(256, 144, true, &c, NULL), 0);
		assert_int_equal(media_convert_run(c, &p, rgb, 3 * 256, NULL), 0);
		before = allocations_counted();
		allocations_count(true);
		for (int k = 0; k < PICTURES; k++)
			r |= media_convert_run(c, &p, rgb, 3 * 256, NULL);
		allocations_count(false);
		assert_int_equal(r, 0);
		print_message("%s, %d pictures: %d allocations\n", rows[i].name, PICTURES,
			      (int)(allocations_counted() - before));
		assert_int_equal(allocations_counted(), before);
		(void)media_convert_destroy(c);
	}
}

static void rgb_to_devices(void **state)
{
	static const int formats[] = { AV_PIX_FMT_YUYV422, AV_PIX_FMT_NV12, AV_PIX_FMT_YUV420P,
				       AV_PIX_FMT_BGR0 };

	(void)state;
	if (!ALLOCATIONS_COUNTED)
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(formats); i++)
		for (int scaled = 0; scaled < 2; scaled++) {
			const int width = scaled ? WIDTH : 256, height = scaled ? HEIGHT : 144;
			struct media_letterbox box;
			struct media_target t;
			uint64_t before;

			(void)media_target_init(&t, formats[i], width, height, device);
			assert_int_equal(media_letterbox_init(&box, 256, 144, width, height, true),
					 0);
			assert_int_equal(box.scales, scaled);
			before = allocations_counted();
			allocations_count(true);
			for (int k = 0; k < PICTURES; k++)
				media_letterbox_run(&box, rgb, 3 * 256, &t);
			allocations_count(false);
			print_message("format %d, %s: %d allocations\n", formats[i],
				      scaled ? "scaled" : "as it is",
				      (int)(allocations_counted() - before));
			assert_int_equal(allocations_counted(), before);
			media_letterbox_finish(&box);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cameras_to_rgb),
		cmocka_unit_test(rgb_to_devices),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
