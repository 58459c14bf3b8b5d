/* MJPEG pictures: what cameras send, what they should not, and bytes that are none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <libavutil/pixfmt.h>
#include <stdlib.h>
#include <string.h>
#include <turbojpeg.h>

#include "base/util.h"
#include "daemon/source_v4l2_jpeg.h"
#include "media/convert.h"

enum { WIDTH = 75, HEIGHT = 45, QUALITY = 95 };

/*
 * Quality 95 of a smooth picture: the codec's own error, and that the right edge, whose blocks are not
 * whole, is no worse.
 */
enum { TOLERANCE = 8 };

static void picture_draw(uint8_t *rgb)
{
	for (int y = 0; y < HEIGHT; y++)
		for (int x = 0; x < WIDTH; x++)
			memcpy(rgb + 3 * (WIDTH * y + x),
			       (uint8_t[]){ (uint8_t)(3 * x), (uint8_t)(5 * y),
					    (uint8_t)(128 - x) },
			       3);
}

static size_t encode(int subsampling, int flags, uint8_t **ret)
{
	uint8_t rgb[3 * WIDTH * HEIGHT];
	tjhandle encoder = tjInitCompress();
	unsigned long bytes = 0;

	assert_non_null(encoder);
	picture_draw(rgb);
	*ret = NULL;
	assert_int_equal(tjCompress2(encoder, rgb, WIDTH, 0, HEIGHT, TJPF_RGB, ret, &bytes,
				     subsampling, QUALITY, flags),
			 0);
	(void)tjDestroy(encoder);
	return bytes;
}

static void all_samplings_are_decoded(void **state)
{
	static const struct {
		int subsampling, format;
	} rows[] = {
		{ TJSAMP_422, AV_PIX_FMT_YUV422P }, { TJSAMP_420, AV_PIX_FMT_YUV420P },
		{ TJSAMP_444, AV_PIX_FMT_YUV444P }, { TJSAMP_440, AV_PIX_FMT_YUV440P },
		{ TJSAMP_411, AV_PIX_FMT_YUV411P }, { TJSAMP_GRAY, AV_PIX_FMT_GRAY8 },
	};
	struct source_v4l2_jpeg jpeg;

	(void)state;
	assert_int_equal(source_v4l2_jpeg_init(&jpeg, WIDTH, HEIGHT), 0);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		uint8_t rgb[3 * WIDTH * HEIGHT], wanted[sizeof(rgb)], *data;
		const size_t bytes = encode(rows[i].subsampling, 0, &data);
		struct media_picture p = { .width = WIDTH,
					   .height = HEIGHT,
					   .full_range = true,
					   .aspect_num = 1,
					   .aspect_den = 1 };
		struct media_convert *convert;
		int worst = 0;

		assert_int_equal(source_v4l2_jpeg_decode(&jpeg, data, bytes, &p, NULL), 0);
		assert_int_equal(p.format, rows[i].format);
		assert_int_equal(media_convert_create(WIDTH, HEIGHT, true, &convert, NULL), 0);
		assert_int_equal(media_convert_run(convert, &p, rgb, 3 * WIDTH, NULL), 0);
		(void)media_convert_destroy(convert);
		tjFree(data);
		picture_draw(wanted);
		for (int k = 0; k < 3 * WIDTH * HEIGHT; k++) {
			const uint8_t *w = wanted + k / 3 * 3;
			const int grey = (299 * w[0] + 587 * w[1] + 114 * w[2] + 500) / 1000;

			worst = MAX_OF(worst, abs(rgb[k] - (rows[i].format == AV_PIX_FMT_GRAY8 ?
								    grey :
								    wanted[k])));
		}
		print_message("sampling %d: worst difference %d\n", rows[i].subsampling, worst);
		assert_true(worst <= TOLERANCE);
	}
	source_v4l2_jpeg_finish(&jpeg);
	source_v4l2_jpeg_finish(&jpeg);
}

/* Removes every segment of one kind: webcams leave out the Huffman tables (DHT). */
static size_t segments_remove(uint8_t *data, size_t bytes, uint8_t marker)
{
	size_t from = 2, to = 2;

	while (from + 4 < bytes && data[from] == 0xff && data[from + 1] != 0xda) {
		const size_t length = 2 + (size_t)data[from + 2] * 256 + data[from + 3];

		if (data[from + 1] != marker) {
			memmove(data + to, data + from, length);
			to += length;
		}
		from += length;
	}
	memmove(data + to, data + from, bytes - from);
	return to + bytes - from;
}

static void standard_tables_are_known(void **state)
{
	struct source_v4l2_jpeg jpeg;
	struct media_picture p = { 0 }, q = { 0 };
	uint8_t *data, *luma = malloc(128 * 64);
	size_t bytes = encode(TJSAMP_422, 0, &data), less;

	(void)state;
	assert_non_null(luma);
	assert_int_equal(source_v4l2_jpeg_init(&jpeg, WIDTH, HEIGHT), 0);
	assert_int_equal(source_v4l2_jpeg_decode(&jpeg, data, bytes, &p, NULL), 0);
	for (int y = 0; y < HEIGHT; y++)
		memcpy(luma + 128 * y, p.plane[0] + p.row_bytes[0] * y, WIDTH);
	less = segments_remove(data, bytes, 0xc4);
	print_message("%zu bytes with Huffman tables, %zu without\n", bytes, less);
	assert_true(less < bytes - 300);
	assert_int_equal(source_v4l2_jpeg_decode(&jpeg, data, less, &q, NULL), 0);
	for (int y = 0; y < HEIGHT; y++)
		assert_memory_equal(luma + 128 * y, q.plane[0] + q.row_bytes[0] * y, WIDTH);
	source_v4l2_jpeg_finish(&jpeg);
	tjFree(data);
	free(luma);
}

static void bad_pictures_are_refused(void **state)
{
	struct source_v4l2_jpeg jpeg, other;
	struct media_picture p = { 0 };
	struct sana_error error = { 0 };
	uint8_t *data, padded[16384] = { 0 };
	const size_t bytes = encode(TJSAMP_422, 0, &data);

	(void)state;
	assert_true(bytes < sizeof(padded) - 1000);
	assert_int_equal(source_v4l2_jpeg_init(&jpeg, WIDTH, HEIGHT), 0);
	assert_int_equal(source_v4l2_jpeg_init(&other, WIDTH + 1, HEIGHT), 0);
	/* Padding behind the end is usual. */
	memcpy(padded, data, bytes);
	assert_int_equal(source_v4l2_jpeg_decode(&jpeg, padded, bytes + 1000, &p, &error), 0);
	/* Another size than the negotiated one. */
	assert_int_equal(source_v4l2_jpeg_decode(&other, data, bytes, &p, &error), -EBADMSG);
	assert_string_equal(error.name, "source.damaged");
	print_message("%s\n", error.text);
	/* Cut off anywhere. */
	for (size_t n = 0; n < bytes; n++)
		assert_int_equal(source_v4l2_jpeg_decode(&jpeg, data, n, &p, &error), -EBADMSG);
	print_message("%s\n", error.text);
	source_v4l2_jpeg_finish(&other);
	source_v4l2_jpeg_finish(&jpeg);
	tjFree(data);
}

/* Some cameras send no end marker, some leave old bytes behind it. One that sends it is held to it. */
static void ends_differ(void **state)
{
	struct source_v4l2_jpeg jpeg;
	struct media_picture p = { 0 };
	uint8_t *data, padded[16384];
	const size_t bytes = encode(TJSAMP_422, 0, &data);

	(void)state;
	assert_int_equal(source_v4l2_jpeg_init(&jpeg, WIDTH, HEIGHT), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(source_v4l2_jpeg_decode(&jpeg, data, bytes - 2, &p, NULL), 0);
	memset(padded, 0x5a, sizeof(padded));
	memcpy(padded, data, bytes);
	assert_int_equal(source_v4l2_jpeg_decode(&jpeg, padded, bytes + 500, &p, NULL), 0);
	assert_int_equal(source_v4l2_jpeg_decode(&jpeg, data, bytes - 2, &p, NULL), -EBADMSG);
	source_v4l2_jpeg_finish(&jpeg);
	tjFree(data);
}

/* Each byte changed in turn, and all to noise: any answer but a crash, and the next picture is good. */
static void any_bytes_are_survived(void **state)
{
	struct source_v4l2_jpeg jpeg;
	struct media_picture p = { 0 };
	uint8_t *data;
	const size_t bytes = encode(TJSAMP_420, TJFLAG_PROGRESSIVE, &data);
	uint32_t x = 1;
	long taken = 0, refused = 0;
	struct sana_error error = { 0 };

	(void)state;
	assert_int_equal(source_v4l2_jpeg_init(&jpeg, WIDTH, HEIGHT), 0);
	assert_int_equal(source_v4l2_jpeg_decode(&jpeg, data, bytes, &p, NULL), 0);
	for (size_t i = 2; i + 2 < bytes; i++)
		for (int k = 0; k < 3; k++) {
			const uint8_t keep = data[i];

			data[i] = k == 0 ? 0xff : k == 1 ? 0 : (uint8_t)(keep ^ 0x10);
			if (source_v4l2_jpeg_decode(&jpeg, data, bytes, &p, NULL) < 0)
				refused++;
			else
				taken++;
			data[i] = keep;
		}
	if (source_v4l2_jpeg_decode(&jpeg, data, bytes, &p, &error) < 0)
		fail_msg("%s", error.text);
	print_message("%ld changed pictures taken, %ld refused\n", taken, refused);
	for (int round = 0; round < 200; round++) {
		for (size_t i = 2 + (size_t)round; i + 2 < bytes; i++) {
			x = x * 1664525 + 1013904223;
			data[i] = (uint8_t)(x >> 24);
		}
		(void)source_v4l2_jpeg_decode(&jpeg, data, bytes, &p, NULL);
	}
	source_v4l2_jpeg_finish(&jpeg);
	tjFree(data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_samplings_are_decoded),
		cmocka_unit_test(standard_tables_are_known),
		cmocka_unit_test(bad_pictures_are_refused),
		cmocka_unit_test(ends_differ),
		cmocka_unit_test(any_bytes_are_survived),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
