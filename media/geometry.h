/* Scale to cover, then crop the middle: which part of a picture fills the target. */
#pragma once

#include "media/picture.h"

/* The picture is scaled to width x height; the target is its part from (x0, y0) on. */
struct media_fit {
	int width, height, x0, y0;
};

/*
 * The smallest scaling that covers the target, sizes rounded to nearest with ties to even, crop
 * offsets rounded down. `aspect` is the shape of one source pixel (1.0: square).
 */
struct media_fit media_fit_cover(int width, int height, double aspect, int target_width,
				 int target_height);
