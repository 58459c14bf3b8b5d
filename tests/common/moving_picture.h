/*
 * Clips made from still photographs: a window of the demo model's size that wanders, turns and zooms
 * slowly over a picture of tests/data/pictures/ and is back where it began after one period.
 */
#pragma once

#include <stdint.h>

enum {
	MOVING_WIDTH = 256,
	MOVING_HEIGHT = 144,
	MOVING_PIXELS = MOVING_WIDTH * MOVING_HEIGHT,
	MOVING_BYTES = MOVING_PIXELS * 3,
	MOVING_PERIOD = 120, /* frames: 5 s at 24 frames a second, at most 1.5 pixels a frame */
	MOVING_PICTURES = 3,
};

struct moving_picture {
	const char *name;
	int width, height;
	uint8_t *rgb; /* [height][width][3] */
};

/* Picture 0 … MOVING_PICTURES − 1; a failure is an assertion. */
struct moving_picture moving_picture_open(int which);
void moving_picture_close(struct moving_picture *picture);

/* Frame number `frame` of the endless clip: ret [MOVING_HEIGHT][MOVING_WIDTH][3]. */
void moving_picture_frame(const struct moving_picture *picture, int64_t frame, uint8_t *ret);
