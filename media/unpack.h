/*
 * Live pictures to rows of RGB: what cameras send (4:2:2 and 4:2:0 of any layout, 4:4:4, grey, with
 * centred chroma), one row at a time and without libswscale, which takes five times as long.
 *
 * Chroma is interpolated between its samples, (C[c-1] + 3·C[c])/4 and (3·C[c] + C[c+1])/4, in rows
 * alike for 4:2:0, edges repeated, rounded once. The matrix is media_colour_run_fast: within one
 * level of the exact one.
 */
#pragma once

#include "media/colour.h"

struct media_unpack {
	int format, width, height;
	uint8_t *memory;    /* owns the rest */
	uint8_t *luma;	    /* of packed formats */
	uint8_t *half[4];   /* U, V of the near chroma row; of the far one */
	uint16_t *sum[2];   /* U, V: 3·near + far, one sample more on either side */
	uint8_t *chroma[2]; /* U, V for every pixel */
	uint8_t *red, *green, *blue;
};

/* True for the pictures above. */
bool media_unpack_knows(const struct media_picture *picture);

/* −ENOMEM. */
int media_unpack_init(struct media_unpack *unpack, const struct media_picture *picture);

/* Accepts a zeroed struct and may be called twice. */
void media_unpack_finish(struct media_unpack *unpack);

/* Rows first … first + rows − 1 of a picture of the same shape, to 3·width bytes each. */
void media_unpack_run(struct media_unpack *unpack, const struct media_colour *colour,
		      const struct media_picture *picture, int first, int rows, uint8_t *rgb,
		      size_t row_bytes);
