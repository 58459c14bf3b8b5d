/*
 * Y'CbCr to R'G'B' at 8 bits, in 16.16 integers, rounded to nearest and clamped: exact for every
 * code, legal or not. (libswscale 6 wraps where blue or red would exceed twice white.)
 */
#pragma once

#include "media/picture.h"

struct media_colour {
	int32_t black; /* of luma: 16 or 0 */
	int32_t y, r_v, g_u, g_v, b_u;
	/* The same for 16-bit lanes: luma in 1/16384, chroma in 1/8192, sums in 1/32 of a level. */
	struct {
		int16_t y, black, r_v, g_u, g_v, b_u;
	} near;
};

void media_colour_init(struct media_colour *colour, enum media_matrix matrix, bool full_range);

/* One row: three planes of `count` samples to 3·count bytes. */
void media_colour_run(const struct media_colour *colour, const uint8_t *y, const uint8_t *u,
		      const uint8_t *v, uint8_t *rgb, int count);

/*
 * The same with 16-bit arithmetic, to three planes: a quarter of the time, at most one level off
 * (2 % of values are). No plane overlaps another.
 */
void media_colour_run_fast(const struct media_colour *colour, const uint8_t *restrict y,
			   const uint8_t *restrict u, const uint8_t *restrict v,
			   uint8_t *restrict red, uint8_t *restrict green, uint8_t *restrict blue,
			   int count);

/* R'G'B' of limited range, black 16 and white 235, to all levels: rounded to nearest, clamped. In place too. */
void media_colour_stretch(const uint8_t *from, uint8_t *to, int count);

/* True for pixel formats (enum AVPixelFormat) that this is for: Y'CbCr and grey of any layout. */
bool media_colour_is_ycbcr(int format);
