/* R'G'B' to what virtual cameras and displays take. */
#include "media/pack.h"

#include "base/util.h"

#include <errno.h>
#include <libavutil/pixfmt.h>
#include <libyuv.h>

enum {
	ALIGN = 64,
	/* BT.601 limited, 1/65536; the rows of Cb and Cr add up to 0, so that grey stays grey. */
	Y_R = 16829,
	Y_G = 33039,
	Y_B = 6416,
	CB_R = 9714,
	CB_G = 19071,
	CB_B = CB_R + CB_G,
	CR_G = 24103,
	CR_B = 4681,
	CR_R = CR_G + CR_B,
	BLACK = 16,
	NEUTRAL = 128,
	HALF = 128, /* of a level in 1/256 */
};

int media_pack_init(struct media_pack *pack, int width)
{
	const size_t line = align_up((size_t)width, ALIGN);
	uint8_t *at = aligned_alloc(ALIGN, 9 * line);

	*pack = (struct media_pack){ .width = width, .memory = at };
	if (!at)
		return -ENOMEM;
	memset(at, 0, 9 * line);
	for (int i = 0; i < 2; i++) {
		pack->red[i] = at + (size_t)(3 * i) * line;
		pack->green[i] = at + (size_t)(3 * i + 1) * line;
		pack->blue[i] = at + (size_t)(3 * i + 2) * line;
		pack->half[i] = at + (size_t)(7 + i) * line;
	}
	pack->luma = at + 6 * line;
	return 0;
}

void media_pack_finish(struct media_pack *pack)
{
	free(pack->memory);
	*pack = (struct media_pack){ 0 };
}

/* The upper half of a product: one instruction for eight lanes. */
static uint16_t multiply_high(uint16_t a, uint16_t b)
{
	return (uint16_t)(((uint32_t)a * b) >> 16);
}

static void luma_run(const uint8_t *restrict red, const uint8_t *restrict green,
		     const uint8_t *restrict blue, uint8_t *restrict luma, int count)
{
	for (int i = 0; i < count; i++) {
		const uint16_t sum = (uint16_t)(multiply_high((uint16_t)(red[i] << 8), Y_R) +
						multiply_high((uint16_t)(green[i] << 8), Y_G) +
						multiply_high((uint16_t)(blue[i] << 8), Y_B) +
						BLACK * 256 + HALF + 1);

		luma[i] = (uint8_t)(sum >> 8);
	}
}

/* From sums of four values in 1/256 of a level. */
static uint8_t blue_difference(uint16_t r, uint16_t g, uint16_t b)
{
	return (uint8_t)((uint16_t)(NEUTRAL * 256 + HALF + multiply_high(b, CB_B) -
				    multiply_high(r, CB_R) - multiply_high(g, CB_G)) >>
			 8);
}

static uint8_t red_difference(uint16_t r, uint16_t g, uint16_t b)
{
	return (uint8_t)((uint16_t)(NEUTRAL * 256 + HALF + multiply_high(r, CR_R) -
				    multiply_high(g, CR_G) - multiply_high(b, CR_B)) >>
			 8);
}

/* The mean of 2x2 pixels, as 256 times their mean; for 4:2:2 both rows are the same. */
static uint16_t mean(const uint8_t *a, const uint8_t *b, int i)
{
	return (uint16_t)((a[2 * i] + a[2 * i + 1] + b[2 * i] + b[2 * i + 1]) << 6);
}

static void chroma_run(const struct media_pack *s, int second, uint8_t *restrict u,
		       uint8_t *restrict v)
{
	const uint8_t *restrict r0 = s->red[0], *restrict r1 = s->red[second];
	const uint8_t *restrict g0 = s->green[0], *restrict g1 = s->green[second];
	const uint8_t *restrict b0 = s->blue[0], *restrict b1 = s->blue[second];

	for (int i = 0; i < s->width / 2; i++) {
		const uint16_t r = mean(r0, r1, i), g = mean(g0, g1, i), b = mean(b0, b1, i);

		u[i] = blue_difference(r, g, b);
		v[i] = red_difference(r, g, b);
	}
}

static void row_split(const struct media_pack *s, int i, const uint8_t *rgb)
{
	SplitRGBPlane(rgb, 0, s->red[i], 0, s->green[i], 0, s->blue[i], 0, s->width, 1);
}

static uint8_t *place(const struct media_target *to, int plane, size_t x, int y)
{
	return to->plane[plane] + to->row_bytes[plane] * (size_t)y + x;
}

static void yuyv_run(const struct media_pack *s, const uint8_t *rgb, size_t row_bytes, int height,
		     const struct media_target *to, int x, int y)
{
	for (int i = 0; i < height; i++) {
		row_split(s, 0, rgb + row_bytes * (size_t)i);
		luma_run(s->red[0], s->green[0], s->blue[0], s->luma, s->width);
		chroma_run(s, 0, s->half[0], s->half[1]);
		(void)I422ToYUY2(s->luma, 0, s->half[0], 0, s->half[1], 0,
				 place(to, 0, 2 * (size_t)x, y + i), 0, s->width, 1);
	}
}

static void planar_run(const struct media_pack *s, const uint8_t *rgb, size_t row_bytes, int height,
		       const struct media_target *to, int x, int y)
{
	const bool pairs = to->format == AV_PIX_FMT_NV12;
	const size_t half = (size_t)x / 2;

	for (int i = 0; i < height; i += 2) {
		const int row = (y + i) / 2;

		for (int k = 0; k < 2; k++) {
			row_split(s, k, rgb + row_bytes * (size_t)(i + k));
			luma_run(s->red[k], s->green[k], s->blue[k],
				 place(to, 0, (size_t)x, y + i + k), s->width);
		}
		if (pairs) {
			chroma_run(s, 1, s->half[0], s->half[1]);
			MergeUVPlane(s->half[0], 0, s->half[1], 0, place(to, 1, 2 * half, row), 0,
				     s->width / 2, 1);
		} else {
			chroma_run(s, 1, place(to, 1, half, row), place(to, 2, half, row));
		}
	}
}

void media_pack_run(struct media_pack *pack, const uint8_t *rgb, size_t row_bytes, int height,
		    const struct media_target *to, int x, int y)
{
	switch (to->format) {
	case AV_PIX_FMT_YUYV422:
		yuyv_run(pack, rgb, row_bytes, height, to, x, y);
		break;
	case AV_PIX_FMT_BGR0:
		(void)RAWToARGB(rgb, (int)row_bytes, place(to, 0, 4 * (size_t)x, y),
				(int)to->row_bytes[0], pack->width, height);
		break;
	default: /* NV12, YUV420P: an AVPixelFormat, not an enum of ours */
		planar_run(pack, rgb, row_bytes, height, to, x, y);
	}
}

void media_target_clear(const struct media_target *to, int width, int height)
{
	static const uint8_t yuyv[4] = { BLACK, NEUTRAL, BLACK, NEUTRAL };

	for (int y = 0; y < height; y++) {
		uint8_t *row = place(to, 0, 0, y);

		if (to->format == AV_PIX_FMT_YUYV422)
			for (int x = 0; x < width / 2; x++)
				memcpy(row + 4 * (size_t)x, yuyv, sizeof(yuyv));
		else if (to->format == AV_PIX_FMT_BGR0)
			memset(row, 0, 4 * (size_t)width);
		else
			memset(row, BLACK, (size_t)width);
	}
	for (int p = 1; p < 3; p++)
		for (int y = 0; to->plane[p] && y < height / 2; y++)
			memset(place(to, p, 0, y), NEUTRAL,
			       (size_t)(to->format == AV_PIX_FMT_NV12 ? width : width / 2));
}

size_t media_target_init(struct media_target *to, int format, int width, int height, uint8_t *data)
{
	const size_t w = (size_t)width, h = (size_t)height;

	*to = (struct media_target){ .plane = { data }, .row_bytes = { w }, .format = format };
	switch (format) {
	case AV_PIX_FMT_YUYV422:
		to->row_bytes[0] = 2 * w;
		return 2 * w * h;
	case AV_PIX_FMT_BGR0:
		to->row_bytes[0] = 4 * w;
		return 4 * w * h;
	case AV_PIX_FMT_NV12:
		to->plane[1] = data ? data + w * h : NULL;
		to->row_bytes[1] = w;
		return w * h * 3 / 2;
	}
	to->plane[1] = data ? data + w * h : NULL;
	to->plane[2] = data ? data + w * h * 5 / 4 : NULL;
	to->row_bytes[1] = to->row_bytes[2] = w / 2;
	return w * h * 3 / 2;
}
