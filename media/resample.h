/*
 * Scaling and cropping of interleaved 8-bit RGB, one weighted sum per axis.
 *
 * Bilinear with centred pixels: out(d) lies at (d + 0.5)·in/scaled − 0.5 of the input, clamped to it.
 * With antialiasing the triangle widens with the scale when the picture shrinks, so that every input
 * pixel counts; without, two pixels per axis count, as in the reference. Sums are FP32, rounded to
 * nearest once.
 */
#pragma once

#include "media/geometry.h"

struct media_axis {
	int outputs, taps;
	int *first;    /* [outputs]: first input pixel */
	float *weight; /* [outputs][taps], sum 1 */
};

struct media_resampler {
	struct media_axis x, y;
	int width, height; /* of the target */
	bool copy;	   /* nothing to scale: rows are copied */
	int x0, y0;
	float *row;		  /* one row of input width after the vertical sum */
	int row_first, row_count; /* input columns it holds */
	float *line;		  /* one row of the target before it is rounded */
};

/* From width x height through `fit` to the target. −ENOMEM. */
int media_resampler_init(struct media_resampler *resampler, int width, int height,
			 const struct media_fit *fit, int target_width, int target_height,
			 bool antialias);

/* Accepts a zeroed struct and may be called twice. */
void media_resampler_finish(struct media_resampler *resampler);

/* Rows of 3 bytes a pixel. `from` and `to` do not overlap. */
void media_resampler_run(struct media_resampler *resampler, const uint8_t *from,
			 size_t from_row_bytes, uint8_t *to, size_t to_row_bytes);
