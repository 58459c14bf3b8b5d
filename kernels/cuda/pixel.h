/* Pixels to patches and back. */
#pragma once

#include <stddef.h>

struct pixel_params {
	const void *from;
	void *to;
	int pixels_are_float, truncate;
	size_t row_bytes, frame_bytes;
	int frames, height, width, channels, patch;
};
