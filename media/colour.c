/* Y'CbCr to R'G'B'. */
#include "media/colour.h"

#include <libavutil/pixdesc.h>
#include <math.h>
#include <string.h>

enum { SHIFT = 16, HALF = 1 << (SHIFT - 1), NEUTRAL = 128 };

/* Of the 16-bit sums: 32 parts of a level; products are cut off, half a part low on average. */
enum { PART_BITS = 5, PARTS = 1 << PART_BITS, LUMA_ONE = 1 << 14, CHROMA_ONE = 1 << 13 };

void media_colour_init(struct media_colour *colour, enum media_matrix matrix, bool full_range)
{
	static const struct {
		double r, b;
	} weights[MEDIA_MATRIX_COUNT] = {
		[MEDIA_MATRIX_601] = { 0.299, 0.114 },
		[MEDIA_MATRIX_709] = { 0.2126, 0.0722 },
		[MEDIA_MATRIX_2020] = { 0.2627, 0.0593 },
		[MEDIA_MATRIX_240M] = { 0.212, 0.087 },
	};
	const double kr = weights[matrix].r, kb = weights[matrix].b, kg = 1.0 - kr - kb;
	const double one = 1 << SHIFT;
	const double luma = full_range ? one : one * 255.0 / 219.0;
	const double chroma = full_range ? one : one * 255.0 / 224.0;

	*colour = (struct media_colour){
		.black = full_range ? 0 : 16,
		.y = (int32_t)lrint(luma),
		.r_v = (int32_t)lrint(2.0 * (1.0 - kr) * chroma),
		.g_u = (int32_t)lrint(-2.0 * kb * (1.0 - kb) / kg * chroma),
		.g_v = (int32_t)lrint(-2.0 * kr * (1.0 - kr) / kg * chroma),
		.b_u = (int32_t)lrint(2.0 * (1.0 - kb) * chroma),
	};
	colour->near.y = (int16_t)lrint(colour->y * LUMA_ONE / one);
	colour->near.black = (int16_t)lrint(PARTS / 2 + 1 - colour->black * luma / one * PARTS);
	colour->near.r_v = (int16_t)lrint(colour->r_v * CHROMA_ONE / one);
	colour->near.g_u = (int16_t)lrint(colour->g_u * CHROMA_ONE / one);
	colour->near.g_v = (int16_t)lrint(colour->g_v * CHROMA_ONE / one);
	colour->near.b_u = (int16_t)lrint(colour->b_u * CHROMA_ONE / one);
}

static uint8_t level(int32_t value)
{
	value >>= SHIFT;
	return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

void media_colour_run(const struct media_colour *colour, const uint8_t *y, const uint8_t *u,
		      const uint8_t *v, uint8_t *rgb, int count)
{
	const struct media_colour c = *colour;

	for (int i = 0; i < count; i++) {
		const int32_t luma = c.y * (y[i] - c.black) + HALF;
		const int32_t cb = u[i] - NEUTRAL, cr = v[i] - NEUTRAL;

		rgb[3 * i] = level(luma + c.r_v * cr);
		rgb[3 * i + 1] = level(luma + c.g_u * cb + c.g_v * cr);
		rgb[3 * i + 2] = level(luma + c.b_u * cb);
	}
}

void media_colour_stretch(const uint8_t *from, uint8_t *to, int count)
{
	const int32_t scale = (int32_t)lrint((1 << SHIFT) * 255.0 / 219.0);

	for (int i = 0; i < count; i++)
		to[i] = level(scale * (from[i] - 16) + HALF);
}

/* The upper half of a product: one instruction for eight lanes. */
static int16_t multiply_high(int16_t a, int16_t b)
{
	return (int16_t)(((int32_t)a * b) >> 16);
}

static uint8_t level_of_parts(int value)
{
	const int16_t v = (int16_t)((int16_t)value >> PART_BITS);

	return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

void media_colour_run_fast(const struct media_colour *colour, const uint8_t *restrict y,
			   const uint8_t *restrict u, const uint8_t *restrict v,
			   uint8_t *restrict red, uint8_t *restrict green, uint8_t *restrict blue,
			   int count)
{
	const struct media_colour c = *colour;

	for (int i = 0; i < count; i++) {
		const int16_t cb = (int16_t)((u[i] - NEUTRAL) * 256);
		const int16_t cr = (int16_t)((v[i] - NEUTRAL) * 256);
		const int luma = multiply_high((int16_t)(y[i] << 7), c.near.y) + c.near.black;

		red[i] = level_of_parts(luma + multiply_high(cr, c.near.r_v));
		green[i] = level_of_parts(luma + multiply_high(cb, c.near.g_u) +
					  multiply_high(cr, c.near.g_v));
		blue[i] = level_of_parts(luma + multiply_high(cb, c.near.b_u));
	}
}

bool media_colour_is_ycbcr(int format)
{
	const AVPixFmtDescriptor *d = av_pix_fmt_desc_get((enum AVPixelFormat)format);
	const uint64_t others = AV_PIX_FMT_FLAG_RGB | AV_PIX_FMT_FLAG_PAL | AV_PIX_FMT_FLAG_BAYER |
				AV_PIX_FMT_FLAG_BITSTREAM | AV_PIX_FMT_FLAG_HWACCEL;

	return d && !(d->flags & others) && strncmp(d->name, "xyz", 3) != 0;
}
