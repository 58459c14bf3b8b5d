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

/* Where the whole of a picture goes on a larger or smaller one: size and place, all even. */
struct media_place {
	int x, y, width, height;
};

/*
 * The largest picture of the same shape that fits, in the middle; 1280x704 on 1280x720 is moved by 8
 * rows and not scaled. `enlarge` false: it is never made larger than it is.
 */
struct media_place media_place_contain(int width, int height, int target_width, int target_height,
				       bool enlarge);
